package policy_test

import (
	"bytes"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
)

var now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

const (
	launch = "55d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d0"
	other  = "90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be90be"
	root   = "sha256:1111111111111111111111111111111111111111111111111111111111111111"
)

// base is a policy that accepts claims(); cases change a line of it.
const base = `policy: payments
platforms:
  allow: [amd genoa+]
tcb: {snp: 23}
workload:
  measurement: {any_of: [{value: ` + launch + `, name: v1}]}
  debug: off
binding: key
freshness: {evidence: 1h, endorsements: 30d}
`

func claims() *attest.Claims {
	level := 0
	measured := attest.HexBytes{}
	for range 48 / 2 {
		measured = append(measured, 0x55, 0xd0)
	}
	return &attest.Claims{
		Vendor: "amd", TEE: "snp", Product: "EPYC Genoa", Generation: "genoa", Stepping: "B1", Root: root,
		TCB: attest.TCB{"snp": 23, "microcode": 84}, Debug: attest.Off, Migratable: attest.Off, Privilege: &level,
		Provenance: attest.Provenance{ChipID: attest.HexBytes{1, 2, 3}},
		Measured:   map[string]attest.HexBytes{"launch": measured},
		Revocation: attest.Revocation{Issued: now.Add(-24 * time.Hour), Expires: now.Add(24 * time.Hour)},
	}
}

func situation() attest.Situation {
	return attest.Situation{Level: attest.LevelKey, Made: now.Add(-time.Minute), Now: now}
}

func parse(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// codes answers the codes of the failing checks.
func codes(j attest.Judgement) (out []attest.Code) {
	for _, c := range j.Checks {
		if c.Status != attest.StatusPass {
			out = append(out, c.Code)
		}
	}
	if len(j.Checks) == 0 {
		out = append(out, attest.CodeEmptyPolicy)
	}
	return out
}

func TestJudge(t *testing.T) {
	type change = func(*attest.Claims, *attest.Situation)
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(base) }
	low := 1
	// An open connection that reconnected so long ago, with evidence that had that age.
	reconnectedAgo := func(ago, age time.Duration) change {
		return func(_ *attest.Claims, s *attest.Situation) {
			s.Reconnect, s.Reconnected, s.Made = true, s.Now.Add(-ago), s.Now.Add(-ago-age)
		}
	}
	reconnect := func(age time.Duration) change {
		return func(_ *attest.Claims, s *attest.Situation) { s.Reconnect, s.Made = true, now.Add(-age) }
	}
	simulated := func(c *attest.Claims, _ *attest.Situation) { c.Vendor, c.Simulated = "sim", true }
	simRule := `[{vendor: sim, root: "` + root + `"}]`
	for name, c := range map[string]struct {
		policy string
		change change
		want   []attest.Code
	}{
		"all well": {base, nil, nil},

		"older generation":               {base, func(c *attest.Claims, _ *attest.Situation) { c.Generation = "milan" }, []attest.Code{attest.CodePlatformNotAllowed}},
		"later generation":               {base, func(c *attest.Claims, _ *attest.Situation) { c.Generation = "turin" }, nil},
		"unknown generation":             {base, func(c *attest.Claims, _ *attest.Situation) { c.Generation = "venice" }, []attest.Code{attest.CodePlatformNotAllowed}},
		"no generation":                  {base, func(c *attest.Claims, _ *attest.Situation) { c.Generation = "" }, []attest.Code{attest.CodePlatformNotAllowed}},
		"other vendor":                   {base, func(c *attest.Claims, _ *attest.Situation) { c.Vendor = "intel" }, []attest.Code{attest.CodePlatformNotAllowed}},
		"no vendor":                      {base, func(c *attest.Claims, _ *attest.Situation) { c.Vendor = "" }, []attest.Code{attest.CodePlatformNotAllowed}},
		"any generation of a vendor":     {replace("amd genoa+", "amd *"), func(c *attest.Claims, _ *attest.Situation) { c.Generation = "venice" }, nil},
		"one generation only":            {replace("amd genoa+", "amd genoa"), func(c *attest.Claims, _ *attest.Situation) { c.Generation = "turin" }, []attest.Code{attest.CodePlatformNotAllowed}},
		"by TEE":                         {replace("amd genoa+", "amd snp"), nil, nil},
		"by another TEE":                 {replace("amd genoa+", "amd tdx"), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"by TEE and generation":          {replace("amd genoa+", "amd snp genoa+"), nil, nil},
		"by stepping":                    {replace("amd genoa+", "{vendor: amd, stepping: B2}"), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"by product":                     {replace("amd genoa+", "{vendor: amd, product: EPYC Genoa}"), nil, nil},
		"by another product":             {replace("amd genoa+", "{vendor: amd, product: EPYC Siena}"), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"by chip":                        {replace("amd genoa+", "{vendor: amd, chip_ids: [0a0b, 010203]}"), nil, nil},
		"by other chips":                 {replace("amd genoa+", "{vendor: amd, chip_ids: [0a0b]}"), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"by chip, and the host masks it": {replace("amd genoa+", "{vendor: amd, chip_ids: [010203]}"), func(c *attest.Claims, _ *attest.Situation) { c.Provenance.ChipID = nil }, []attest.Code{attest.CodePlatformNotAllowed}},
		"allowed until later":            {replace("amd genoa+", "{vendor: amd, generation: genoa, until: 2026-12-01}"), nil, nil},
		"allowed until earlier":          {replace("amd genoa+", "{vendor: amd, generation: genoa, until: 2026-11-23}"), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"second rule":                    {replace("amd genoa+", "intel tdx, amd genoa"), nil, nil},

		"denied":                          {replace("tcb:", "  deny: [amd genoa]\ntcb:"), nil, []attest.Code{attest.CodePlatformDenied}},
		"another one denied":              {replace("tcb:", "  deny: [amd milan, {vendor: amd, generation: genoa, stepping: B2}]\ntcb:"), nil, nil},
		"denied by chip":                  {replace("tcb:", "  deny: [{vendor: amd, chip_ids: [010203]}]\ntcb:"), nil, []attest.Code{attest.CodePlatformDenied}},
		"denied by chip, which is masked": {replace("tcb:", "  deny: [{vendor: amd, chip_ids: [010203]}]\ntcb:"), func(c *attest.Claims, _ *attest.Situation) { c.Provenance.ChipID = nil }, []attest.Code{attest.CodePlatformDenied}},
		"denied, the generation unknown":  {replace("amd genoa+", "amd *", "tcb:", "  deny: [amd milan]\ntcb:"), func(c *attest.Claims, _ *attest.Situation) { c.Generation = "" }, []attest.Code{attest.CodePlatformDenied}},
		"denied until later":              {replace("tcb:", "  deny: [{vendor: amd, generation: genoa, until: 2026-12-01}]\ntcb:"), nil, []attest.Code{attest.CodePlatformDenied}},
		"denied until earlier":            {replace("tcb:", "  deny: [{vendor: amd, generation: genoa, until: 2026-11-23}]\ntcb:"), nil, nil},
		"denied in capitals":              {replace("tcb:", "  deny: [AMD Genoa]\ntcb:"), nil, []attest.Code{attest.CodePlatformDenied}},

		"simulated, not named":            {base, simulated, []attest.Code{attest.CodeSimulated}},
		"simulated, posing as the vendor": {base, func(c *attest.Claims, _ *attest.Situation) { c.Simulated = true }, []attest.Code{attest.CodeSimulated}},
		"simulated, named":                {replace("[amd genoa+]", simRule), simulated, nil},
		"simulated, another root":         {replace("[amd genoa+]", strings.Replace(simRule, "11", "22", 1)), simulated, []attest.Code{attest.CodeSimulated}},
		"simulated, another generation":   {replace("[amd genoa+]", strings.Replace(simRule, "root", "generation: milan, root", 1)), simulated, []attest.Code{attest.CodeSimulated}},
		"simulated, denied":               {replace("[amd genoa+]", simRule+"\n  deny: [{vendor: sim, generation: genoa}]"), simulated, []attest.Code{attest.CodePlatformDenied}},
		"simulated, denied by root":       {replace("[amd genoa+]", simRule+"\n  deny: "+simRule), simulated, []attest.Code{attest.CodePlatformDenied}},
		"hardware that calls itself sim":  {replace("[amd genoa+]", simRule), func(c *attest.Claims, _ *attest.Situation) { c.Vendor = "sim" }, []attest.Code{attest.CodePlatformNotAllowed}},

		"firmware below the floor": {replace("snp: 23", "snp: 24"), nil, []attest.Code{attest.CodeTCBBelowFloor}},
		"component absent":         {replace("snp: 23", "fmc: 0"), nil, []attest.Code{attest.CodeClaimAbsent}},
		"two floors":               {replace("snp: 23", "snp: 24, microcode: 85"), nil, []attest.Code{attest.CodeTCBBelowFloor, attest.CodeTCBBelowFloor}},

		"other measurement":  {replace(launch, other), nil, []attest.Code{attest.CodeMeasurement}},
		"no measurement":     {base, func(c *attest.Claims, _ *attest.Situation) { c.Measured = nil }, []attest.Code{attest.CodeClaimAbsent}},
		"second measurement": {replace("[{value", "["+other+", {value"), nil, nil},
		"prefix of it":       {replace(launch, launch[:40]), nil, []attest.Code{attest.CodeMeasurement}},
		"measurement any":    {replace("{any_of: [{value: "+launch+", name: v1}]}", "any"), func(c *attest.Claims, _ *attest.Situation) { c.Measured = nil }, nil},

		"debug":               {base, func(c *attest.Claims, _ *attest.Situation) { c.Debug = attest.On }, []attest.Code{attest.CodeDebug}},
		"debug absent":        {base, func(c *attest.Claims, _ *attest.Situation) { c.Debug = attest.Absent }, []attest.Code{attest.CodeClaimAbsent}},
		"debug any":           {replace("debug: off", "debug: any"), func(c *attest.Claims, _ *attest.Situation) { c.Debug = attest.On }, nil},
		"migration":           {base, func(c *attest.Claims, _ *attest.Situation) { c.Migratable = attest.On }, []attest.Code{attest.CodeMigratable}},
		"migration absent":    {base, func(c *attest.Claims, _ *attest.Situation) { c.Migratable = attest.Absent }, []attest.Code{attest.CodeClaimAbsent}},
		"migration any":       {replace("debug: off", "debug: off\n  migration: any"), func(c *attest.Claims, _ *attest.Situation) { c.Migratable = attest.On }, nil},
		"privilege":           {base, func(c *attest.Claims, _ *attest.Situation) { c.Privilege = &low }, []attest.Code{attest.CodePrivilege}},
		"privilege 1":         {replace("debug: off", "debug: off\n  privilege: 1"), func(c *attest.Claims, _ *attest.Situation) { c.Privilege = &low }, nil},
		"no privilege levels": {base, func(c *attest.Claims, _ *attest.Situation) { c.Privilege = nil }, nil},

		"bound too weakly":           {base, func(_ *attest.Claims, s *attest.Situation) { s.Level = attest.LevelPinned }, []attest.Code{attest.CodeBindingTooWeak}},
		"bound more strongly":        {base, func(_ *attest.Claims, s *attest.Situation) { s.Level = attest.LevelSession }, nil},
		"no level":                   {base, func(_ *attest.Claims, s *attest.Situation) { s.Level = "" }, []attest.Code{attest.CodeBindingTooWeak}},
		"session is the default":     {replace("binding: key\n", ""), nil, []attest.Code{attest.CodeBindingTooWeak}},
		"bare evidence":              {base, func(_ *attest.Claims, s *attest.Situation) { s.Level, s.Made = attest.LevelNone, time.Time{} }, []attest.Code{attest.CodeBindingTooWeak}},
		"bare evidence, named":       {replace("binding: key", "binding: none"), func(_ *attest.Claims, s *attest.Situation) { s.Level, s.Made = attest.LevelNone, time.Time{} }, nil},
		"evidence of an hour":        {base, func(_ *attest.Claims, s *attest.Situation) { s.Made = now.Add(-time.Hour) }, nil},
		"evidence too old":           {base, func(_ *attest.Claims, s *attest.Situation) { s.Made = now.Add(-time.Hour - time.Second) }, []attest.Code{attest.CodeEvidenceTooOld}},
		"evidence from the future":   {base, func(_ *attest.Claims, s *attest.Situation) { s.Made = now.Add(6 * time.Minute) }, []attest.Code{attest.CodeEvidenceTooOld}},
		"evidence of unknown age":    {base, func(_ *attest.Claims, s *attest.Situation) { s.Made = time.Time{} }, []attest.Code{attest.CodeEvidenceTooOld}},
		"undated evidence, taken":    {replace("evidence: 1h", "evidence: 1h, undated: true"), func(_ *attest.Claims, s *attest.Situation) { s.Made = time.Time{} }, nil},
		"undated evidence, not":      {replace("evidence: 1h", "evidence: 1h, undated: false"), func(_ *attest.Claims, s *attest.Situation) { s.Made = time.Time{} }, []attest.Code{attest.CodeEvidenceTooOld}},
		"dated evidence, too old":    {replace("evidence: 1h", "evidence: 1h, undated: true"), func(_ *attest.Claims, s *attest.Situation) { s.Made = now.Add(-time.Hour - time.Second) }, []attest.Code{attest.CodeEvidenceTooOld}},
		"a day is the default limit": {replace("freshness: {evidence: 1h, endorsements: 30d}\n", ""), func(_ *attest.Claims, s *attest.Situation) { s.Made = now.Add(-25 * time.Hour) }, []attest.Code{attest.CodeEvidenceTooOld}},

		"reconnect":                    {base, reconnect(10 * time.Minute), nil},
		"reconnect, too old":           {base, reconnect(10*time.Minute + time.Second), []attest.Code{attest.CodeReconnectRefused}},
		"reconnected a while ago":      {base, reconnectedAgo(30*time.Minute, 10*time.Minute), nil},
		"reconnected then, too old":    {base, reconnectedAgo(30*time.Minute, 10*time.Minute+time.Second), []attest.Code{attest.CodeReconnectRefused}},
		"reconnected, by now too old":  {base, reconnectedAgo(time.Hour, time.Minute), []attest.Code{attest.CodeEvidenceTooOld}},
		"reconnect, made ahead of us":  {base, reconnect(-time.Minute), nil},
		"reconnect, of unknown age":    {base, func(_ *attest.Claims, s *attest.Situation) { s.Reconnect, s.Made = true, time.Time{} }, []attest.Code{attest.CodeEvidenceTooOld, attest.CodeReconnectRefused}},
		"reconnect, longer":            {replace("evidence: 1h", "evidence: 1h, reconnect: 30m"), reconnect(30 * time.Minute), nil},
		"reconnect, shorter":           {replace("evidence: 1h", "evidence: 1h, reconnect: 1m"), reconnect(2 * time.Minute), []attest.Code{attest.CodeReconnectRefused}},
		"reconnect off":                {replace("evidence: 1h", "evidence: 1h, reconnect: off"), reconnect(0), []attest.Code{attest.CodeReconnectRefused}},
		"reconnect off, with evidence": {replace("evidence: 1h", "evidence: 1h, reconnect: off"), nil, nil},
		"reconnect beyond evidence":    {replace("evidence: 1h", "evidence: 5m, reconnect: 30m"), reconnect(6 * time.Minute), []attest.Code{attest.CodeEvidenceTooOld, attest.CodeReconnectRefused}},
		"reconnect, short evidence":    {replace("evidence: 1h", "evidence: 5m"), reconnect(6 * time.Minute), []attest.Code{attest.CodeEvidenceTooOld, attest.CodeReconnectRefused}},
		"reconnect, no freshness":      {replace("freshness: {evidence: 1h, endorsements: 30d}\n", ""), reconnect(11 * time.Minute), []attest.Code{attest.CodeReconnectRefused}},
		"reconnect, old without one":   {base, func(_ *attest.Claims, s *attest.Situation) { s.Made = now.Add(-30 * time.Minute) }, nil},

		"no revocation list":   {base, func(c *attest.Claims, _ *attest.Situation) { c.Revocation = attest.Revocation{} }, []attest.Code{attest.CodeEndorsementMissing}},
		"list without an end":  {base, func(c *attest.Claims, _ *attest.Situation) { c.Revocation.Expires = time.Time{} }, []attest.Code{attest.CodeEndorsementMissing}},
		"list expired":         {base, func(c *attest.Claims, _ *attest.Situation) { c.Revocation.Expires = now.Add(-time.Second) }, []attest.Code{attest.CodeEndorsementExpired}},
		"list from the future": {base, func(c *attest.Claims, _ *attest.Situation) { c.Revocation.Issued = now.Add(time.Hour) }, []attest.Code{attest.CodeEndorsementExpired}},
		"list too old":         {base, func(c *attest.Claims, _ *attest.Situation) { c.Revocation.Issued = now.Add(-31 * 24 * time.Hour) }, []attest.Code{attest.CodeEndorsementTooOld}},
		"list could not be had": {base, func(c *attest.Claims, _ *attest.Situation) {
			c.Revocation = attest.Revocation{Problem: &attest.Error{Code: attest.CodeEndorserUnreachable}}
		}, []attest.Code{attest.CodeEndorserUnreachable}},
		"a problem beats the list": {base, func(c *attest.Claims, _ *attest.Situation) {
			c.Revocation.Problem = &attest.Error{Code: attest.CodeEndorserUnreachable}
		}, []attest.Code{attest.CodeEndorserUnreachable}},
		"revocation unchecked": {base + "revocation: unchecked\n", func(c *attest.Claims, _ *attest.Situation) { c.Revocation = attest.Revocation{} }, nil},
		"everything wrong at once": {replace("snp: 23", "snp: 24"), func(c *attest.Claims, s *attest.Situation) {
			c.Debug, c.Generation, s.Level = attest.On, "milan", attest.LevelNone
		}, []attest.Code{attest.CodeBindingTooWeak, attest.CodePlatformNotAllowed, attest.CodeTCBBelowFloor, attest.CodeDebug}},
	} {
		t.Run(name, func(t *testing.T) {
			cl, s := claims(), situation()
			if c.change != nil {
				c.change(cl, &s)
			}
			j := parse(t, c.policy).Judge(cl, s)
			if got := codes(j); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			for _, check := range j.Checks {
				if check.Status == attest.StatusFail && (check.Remedy == "" || check.Want == "" || check.ID == "" || check.Text == "") {
					t.Errorf("a refusal that does not explain itself: %+v", check)
				}
			}
		})
	}
}

func TestParseErrors(t *testing.T) {
	replace := func(pairs ...string) string { return strings.NewReplacer(pairs...).Replace(base) }
	for name, c := range map[string]struct{ in, want string }{
		"empty":                 {"", `p.yaml: a required value is missing: got an empty file (J704)`},
		"no name":               {replace("policy: payments\n", ""), `p.yaml:1:1: a required value is missing: want policy (J704)`},
		"no platforms":          {"policy: p\nworkload: {measurement: any, debug: off}\n", `p.yaml:1:1: a required value is missing: want platforms (J704)`},
		"no allow":              {replace("allow:", "deny:"), `p.yaml:3:3: a required value is missing: want platforms.allow (J704)`},
		"empty allow":           {replace("[amd genoa+]", "[]"), `p.yaml:3:10: a value is not allowed: got platforms.allow: an empty list, want at least one entry (J703)`},
		"no workload":           {"policy: p\nplatforms: {allow: [amd genoa]}\n", `p.yaml:1:1: a required value is missing: want workload (J704)`},
		"no measurement":        {replace("  measurement: {any_of: [{value: "+launch+", name: v1}]}\n", ""), `p.yaml:6:3: a required value is missing: want workload.measurement (J704)`},
		"no debug":              {replace("  debug: off\n", ""), `p.yaml:6:3: a required value is missing: want workload.debug (J704)`},
		"debug on":              {replace("debug: off", "debug: on"), `p.yaml:7:10: a value is not allowed: got workload.debug: "on", want one of off, any (J703)`},
		"misspelt key":          {replace("platforms:", "platform:"), `p.yaml:2:1: the file has an unknown key: got "platform", want one of policy, floor, platforms, tcb, workload, binding, freshness, revocation, rules (J702)`},
		"misspelt generation":   {replace("genoa+", "genao+"), `p.yaml:3:11: a value is not allowed: got platforms.allow: generation "genao" of amd, want one of milan, genoa, turin (J703)`},
		"misspelt denial":       {replace("tcb:", "  deny: [amd milna]\ntcb:"), `p.yaml:4:10: a value is not allowed: got platforms.deny: generation "milna" of amd, want one of milan, genoa, turin (J703)`},
		"no order known":        {replace("amd genoa+", "Q R+"), `p.yaml:3:11: a value is not allowed: got platforms.allow: "r+", want a list of generations: this build knows no order of those of "q" (J703)`},
		"one word":              {replace("amd genoa+", "amd"), `p.yaml:3:11: a value is not allowed: got platforms.allow: "amd", want "vendor generation", "vendor generation+" (and later), "vendor tee" or "vendor *" (J703)`},
		"every vendor":          {replace("amd genoa+", `"* genoa"`), `p.yaml:3:11: a value is not allowed: got platforms.allow: "* genoa", want "vendor generation", "vendor generation+" (and later), "vendor tee" or "vendor *" (J703)`},
		"every vendor, in full": {replace("amd genoa+", `{vendor: "*"}`), `p.yaml:3:20: a value is not allowed: got platforms.allow.vendor: "*", want the name of one vendor (J703)`},
		"sim in short":          {replace("amd genoa+", "sim genoa"), `p.yaml:3:11: a value is not allowed: got platforms.allow: vendor sim without its root, want {vendor: sim, root: "sha256:…"} (J703)`},
		"sim without root":      {replace("amd genoa+", "{vendor: sim}"), `p.yaml:3:11: a value is not allowed: got platforms.allow: vendor sim without its root, want {vendor: sim, root: "sha256:…"} (J703)`},
		"sim with half a root":  {replace("amd genoa+", "{vendor: sim, root: sha256:11}"), `p.yaml:3:31: a value is not allowed: got platforms.allow.root: "sha256:11", want "sha256:" and 64 hex digits (J703)`},
		"root of hardware":      {replace("amd genoa+", `{vendor: amd, root: "`+root+`"}`), `p.yaml:3:31: a value is not allowed: got platforms.allow.root: a root, want none: hardware has its vendor's root (J703)`},
		"measurement empty":     {replace("value: "+launch, `value: ""`), `p.yaml:6:34: a value is not allowed: got workload.measurement.any_of.value: nothing, want text (J703)`},
		"measurement short":     {replace("value: "+launch, "value: 55d0"), `p.yaml:6:34: a value is not allowed: got workload.measurement.any_of.value: "55d0", want 20 to 64 bytes in hex (J703)`},
		"measurement of zeros":  {replace("value: "+launch, "value: \""+strings.Repeat("0", 96)+"\""), `p.yaml:6:34: a value is not allowed: got workload.measurement.any_of.value: a measurement of zeros, want the digest of your software (J703)`},
		"no measurements":       {replace("[{value: "+launch+", name: v1}]", "[]"), `p.yaml:6:25: a value is not allowed: got workload.measurement.any_of: an empty list, want at least one entry (J703)`},
		"negative floor":        {replace("snp: 23", "snp: -1"), `p.yaml:4:12: a value is not allowed: got tcb.snp: "-1", want a whole number from 0 to 4294967295 (J703)`},
		"unknown level":         {replace("binding: key", "binding: kye"), `p.yaml:8:10: a value is not allowed: got binding: "kye", want one of session, nonce, key, pinned, none (J703)`},
		"no limit":              {replace("evidence: 1h", "evidence: 0s"), `p.yaml:9:23: a value is not allowed: got freshness.evidence: "0s", want a length of time such as 10m, 24h or 30d (J703)`},
		"no time to reconnect":  {replace("evidence: 1h", "evidence: 1h, reconnect: 0s"), `p.yaml:9:38: a value is not allowed: got freshness.reconnect: "0s", want a length of time such as 10m, or off (J703)`},
		"undated, a word":       {replace("evidence: 1h", "evidence: 1h, undated: 'yes'"), `p.yaml:9:36: a value is not allowed: got freshness.undated: "yes", want one of true, false (J703)`},
		"reconnect on":          {replace("evidence: 1h", "evidence: 1h, reconnect: on"), `p.yaml:9:38: a value is not allowed: got freshness.reconnect: "on", want a length of time such as 10m, or off (J703)`},
		"reconnect for nothing": {replace("evidence: 1h", "evidence: 1h, reconnect: ''"), `p.yaml:9:38: a value is not allowed: got freshness.reconnect: nothing, want text (J703)`},
		"reconnect with terms":  {replace("evidence: 1h", "evidence: 1h, reconnect: {max: 1m}"), `p.yaml:9:38: a value is not allowed: got freshness.reconnect: a map, want text (J703)`},
		"star as a product":     {replace("amd genoa+", `{vendor: amd, product: "*"}`), `p.yaml:3:34: a value is not allowed: got platforms.allow.product: "*", want the whole word, or no such key for any (J703)`},
		"star within a csp":     {replace("amd genoa+", `{vendor: amd, csp: ["aws*"]}`), `p.yaml:3:30: a value is not allowed: got platforms.allow.csp: "aws*", want a provider, or "*" for any (J703)`},
		"scope without a root":  {replace("{snp: 23}", "{per: [{platforms: [{vendor: sim}], snp: 23}]}"), `p.yaml:4:26: a value is not allowed: got tcb.per.platforms: vendor sim without its root, want {vendor: sim, root: "sha256:…"} (J703)`},
		"terms within a scope":  {replace("{snp: 23}", "{per: [{platforms: [{vendor: amd, until: 2027-01-01}], snp: 23}]}"), `p.yaml:4:26: a value is not allowed: got tcb.per.platforms: terms of one pattern, want terms of the entry of tcb.per (J703)`},
		"shadow of debug any":   {replace("debug: off", "debug: {is: any, shadow: true}"), `p.yaml:7:10: a value is not allowed: got workload.debug: a shadow of what demands nothing, want a demand, or no shadow (J703)`},
		"shadow of migration":   {replace("debug: off", "debug: off\n  migration: {is: any, shadow: true}"), `p.yaml:8:14: a value is not allowed: got workload.migration: a shadow of what demands nothing, want a demand, or no shadow (J703)`},
		"shadow of privilege":   {replace("debug: off", "debug: off\n  privilege: {max: 3, shadow: true}"), `p.yaml:8:14: a value is not allowed: got workload.privilege: a shadow of what demands nothing, want a demand, or no shadow (J703)`},
		"shadow of no binding":  {replace("binding: key", "binding: {min: none, shadow: true}"), `p.yaml:8:10: a value is not allowed: got binding: a shadow of what demands nothing, want a demand, or no shadow (J703)`},
		"shadow of unchecked":   {replace("binding: key", "binding: key\nrevocation: {is: unchecked, shadow: true}"), `p.yaml:9:13: a value is not allowed: got revocation: a shadow of what demands nothing, want a demand, or no shadow (J703)`},
		"bad date":              {replace("amd genoa+", "{vendor: amd, until: soon}"), `p.yaml:3:32: a value is not allowed: got platforms.allow.until: "soon", want a date such as 2027-01-01 (J703)`},
	} {
		t.Run(name, func(t *testing.T) {
			p, err := policy.Parse("p.yaml", []byte(c.in), policy.NoFiles)
			if err == nil || err.Error() != c.want {
				t.Fatalf("got  %v\nwant %s", err, c.want)
			}
			if p != nil {
				t.Fatal("a policy beside an error")
			}
		})
	}
}

func TestZeroPolicyRefuses(t *testing.T) {
	for name, j := range map[string]attest.Judgement{
		"zero":      new(policy.Policy).Judge(claims(), situation()),
		"nil":       (*policy.Policy)(nil).Judge(claims(), situation()),
		"no claims": parse(t, base).Judge(nil, situation()),
	} {
		if len(j.Checks) != 0 {
			t.Errorf("%s: %v", name, j.Checks)
		}
	}
	if got := codes(parse(t, base).Judge(new(attest.Claims), attest.Situation{})); len(got) < 5 {
		t.Errorf("empty claims fail only %v", got)
	}
}

func TestAccessors(t *testing.T) {
	p := parse(t, strings.Replace(base, "[amd genoa+]", `[amd milan, {vendor: sim, root: "`+root+`"}, {vendor: sim, generation: turin, root: "`+root+`"}]`, 1))
	if p.Name() != "payments" || p.Binding(now) != attest.LevelKey || fmt.Sprint(p.SimulationRoots()) != "["+root+"]" {
		t.Errorf("got %q, %q, %v", p.Name(), p.Binding(now), p.SimulationRoots())
	}
	if a, b := parse(t, base), parse(t, base+"#\n"); a.ID() == b.ID() || !strings.HasPrefix(a.ID(), "sha256:") {
		t.Errorf("ids %s and %s", a.ID(), b.ID())
	}
}

// How a reconnect is judged, with the ages and the line.
func TestReconnectIsExplained(t *testing.T) {
	three := strings.Replace(base, "freshness: {evidence: 1h, endorsements: 30d}", "freshness:\n  evidence: 1h\n  reconnect: 5m", 1)
	for name, c := range map[string]struct {
		text string
		age  time.Duration
		want attest.Check
	}{
		"fresh":   {three, time.Minute, attest.Check{Status: attest.StatusPass, Text: "an earlier session may be proven", Got: "evidence of 2026-11-23T11:59:00Z (policy: at most 5m old)", Line: 11}},
		"too old": {three, 6 * time.Minute, attest.Check{Status: attest.StatusFail, Got: "a proof of a session with evidence made 6m ago", Want: "at most 5m", Line: 11}},
		"off":     {strings.Replace(three, "reconnect: 5m", "reconnect: off", 1), time.Minute, attest.Check{Status: attest.StatusFail, Got: "a proof of a session with evidence made 1m ago", Want: "evidence (policy: reconnect off)", Line: 11}},
		"default": {base, 11 * time.Minute, attest.Check{Status: attest.StatusFail, Got: "a proof of a session with evidence made 11m ago", Want: "at most 10m", Line: 9}},
	} {
		s := situation()
		s.Reconnect, s.Made = true, now.Add(-c.age)
		var got []attest.Check
		for _, check := range parse(t, c.text).Judge(claims(), s).Checks {
			if check.ID == "binding.reconnect" {
				got = append(got, check)
			}
		}
		c.want.ID, c.want.Source = "binding.reconnect", attest.SourceTLS
		if c.want.Status == attest.StatusFail {
			code := attest.CodeReconnectRefused
			c.want.Code, c.want.Text, c.want.Remedy = code, code.Title(), code.Remedy()
		}
		if len(got) != 1 || got[0] != c.want {
			t.Errorf("%s: got %+v, want %+v", name, got, c.want)
		}
	}
	// Also where nobody knows what time it is.
	for name, at := range map[string]time.Time{"now": now, "no clock": {}} {
		s := situation()
		s.Reconnect, s.Made, s.Now = true, time.Time{}, at
		j := parse(t, base).Judge(claims(), s)
		i := slices.IndexFunc(j.Checks, func(c attest.Check) bool { return c.Code == attest.CodeReconnectRefused })
		if i < 0 || j.Checks[i].Got != "a proof of a session with evidence of unknown age" || j.Checks[i].Want != "at most 10m" {
			t.Errorf("%s: %+v", name, j.Checks)
		}
	}
	for freshness, want := range map[string]string{
		"evidence: 1h":                 "Instead of evidence a connection may prove a secret of an earlier session, whose evidence is at most 10m old.",
		"evidence: 5m":                 "at most 5m old.",
		"evidence: 1h, reconnect: 30m": "at most 30m old.",
		"evidence: 1h, reconnect: off": "Every connection shows evidence",
	} {
		if got := parse(t, strings.Replace(base, "evidence: 1h", freshness, 1)).Explain(now); !strings.Contains(got, want) || strings.Contains(got, "may prove") == strings.Contains(got, "Every connection") {
			t.Errorf("%s: got\n%s", freshness, got)
		}
	}
}

// A slip of the pen in the one word that a reconnect has.
func TestReconnectSuggests(t *testing.T) {
	_, err := policy.Parse("p.yaml", []byte(strings.Replace(base, "evidence: 1h", "reconnect: of", 1)), policy.NoFiles)
	var coded *attest.Error
	if !errors.As(err, &coded) || coded.Remedy() != `did you mean "off"?` {
		t.Errorf("got %v", err)
	}
}

// The ages that count are those of the policy and of all that it stands on.
func TestAges(t *testing.T) {
	for name, c := range map[string]struct {
		freshness, floor  string
		evidence, connect time.Duration
	}{
		"as written":           {"evidence: 1h, reconnect: 30m", "", time.Hour, 30 * time.Minute},
		"by default":           {"evidence: 1h", "", time.Hour, policy.DefaultReconnectAge},
		"short evidence":       {"evidence: 5m", "", 5 * time.Minute, 5 * time.Minute},
		"longer than evidence": {"evidence: 20m, reconnect: 30m", "", 20 * time.Minute, 20 * time.Minute},
		"off":                  {"evidence: 1h, reconnect: off", "", time.Hour, 0},
		"nothing said":         {"endorsements: 1d", "", policy.DefaultEvidenceAge, policy.DefaultReconnectAge},
		"a stricter floor":     {"evidence: 1h, reconnect: 30m", "evidence: 30m, reconnect: 20m", 30 * time.Minute, 20 * time.Minute},
		"a looser floor":       {"evidence: 1h, reconnect: 30m", "evidence: 2h, reconnect: 2h", time.Hour, 30 * time.Minute},
		"off in the floor":     {"evidence: 1h, reconnect: 30m", "reconnect: off", time.Hour, 0},
	} {
		text := strings.Replace(base, "evidence: 1h, endorsements: 30d", c.freshness, 1)
		if c.floor != "" {
			text += "floor: f.yaml\n"
		}
		p, err := policy.Parse("p.yaml", []byte(text), files(map[string]string{"f.yaml": strings.Replace(base, "evidence: 1h, endorsements: 30d", c.floor, 1)}))
		if err != nil {
			t.Fatal(err)
		}
		most, allowed := p.Reconnect()
		if p.EvidenceAge() != c.evidence || most != c.connect || allowed != (c.connect > 0) {
			t.Errorf("%s: evidence %v, reconnect %v, %v", name, p.EvidenceAge(), most, allowed)
		}
	}
	if most, allowed := new(policy.Policy).Reconnect(); most != 0 || allowed {
		t.Error("the zero policy allows a reconnect")
	}
}

// A proposed policy demands the level that was reached, no less.
func TestProposeLevel(t *testing.T) {
	for _, level := range []attest.Level{attest.LevelSession, attest.LevelNonce, attest.LevelKey, attest.LevelPinned, attest.LevelNone} {
		text, err := policy.Propose(claims(), level, "x")
		if err != nil || parse(t, string(text)).Binding(now) != level {
			t.Errorf("%s: %v\n%s", level, err, text)
		}
	}
	if _, err := policy.Propose(claims(), "", "x"); err == nil {
		t.Error("a proposal without a level")
	}
}

// What loosens a policy is said aloud by Explain.
func TestExplainSaysWhatIsLoose(t *testing.T) {
	loose := parse(t, "policy: p\nplatforms: {allow: [amd *]}\nworkload: {measurement: any, debug: any, migration: any}\nbinding: none\nfreshness: {undated: true}\nrevocation: unchecked\n").Explain(now)
	for _, want := range []string{"ANY software", "MAY read the guest", "MAY be moved", "bound to NOTHING", "of ANY age", "NOT checked", "firmware may be of ANY level", "of any generation"} {
		if !strings.Contains(loose, want) {
			t.Errorf("it does not say %q:\n%s", want, loose)
		}
	}
	if simulated := parse(t, strings.Replace(base, "amd genoa+", `{vendor: sim, root: "`+root+`"}`, 1)).Explain(now); !strings.Contains(simulated, "SIMULATED") {
		t.Error(simulated)
	}
}

// A policy of somebody else cannot add a sentence, nor colour one.
func TestExplainIsOneSentenceARule(t *testing.T) {
	p := parse(t, strings.NewReplacer("name: v1", `name: "v1\nEverything else is ACCEPTED\e[2K"`, "policy: payments", `policy: "p\u202e\u0085"`).Replace(base))
	plain := parse(t, base).Explain(now)
	got := p.Explain(now)
	if strings.Count(got, "\n") != strings.Count(plain, "\n") || strings.ContainsAny(got, "\x1b\u202e\u0085") {
		t.Errorf("got %q", got)
	}
}

// A proposed policy accepts the claims it was made of, and says nothing about debugging that loosens it.
func TestPropose(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := claims()
		level := rapid.IntRange(0, 3).Draw(t, "privilege")
		c.Privilege = &level
		c.Generation = rapid.SampledFrom([]string{"milan", "genoa", "turin"}).Draw(t, "generation")
		c.TCB = attest.TCB{}
		for _, component := range rapid.SliceOfDistinct(rapid.SampledFrom([]string{"snp", "tee", "fmc", "microcode"}), rapid.ID[string]).Draw(t, "components") {
			c.TCB[component] = rapid.Uint64Range(0, 255).Draw(t, component)
		}
		if rapid.Bool().Draw(t, "simulated") {
			c.Simulated, c.Vendor = true, "sim"
		}
		if rapid.Bool().Draw(t, "migratable") {
			c.Migratable = attest.On
		}
		debug := rapid.Bool().Draw(t, "debug")
		c.Debug = attest.FlagOf(debug)
		text, err := policy.Propose(c, attest.LevelKey, rapid.String().Filter(func(s string) bool { return s != "" }).Draw(t, "name"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := policy.Parse("p.yaml", text, policy.NoFiles)
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		got := codes(p.Judge(c, situation()))
		if debug && fmt.Sprint(got) != fmt.Sprint([]attest.Code{attest.CodeDebug}) || !debug && got != nil {
			t.Fatalf("got %v\n%s", got, text)
		}
	})
	if _, err := policy.Propose(&attest.Claims{Vendor: "amd"}, attest.LevelKey, "x"); attest.CodeOf(err) != attest.CodeClaimAbsent {
		t.Errorf("got %v", err)
	}
}

// On Azure the launch measurement is the paravisor's, the same for every guest: a proposed policy accepts the guest that was
// seen, and no other.
func TestProposeBehindAParavisor(t *testing.T) {
	t.Parallel()
	c := claims()
	c.Measured["pcr4"], c.Measured["pcr11"] = bytes.Repeat([]byte{4}, 32), bytes.Repeat([]byte{11}, 32)
	text, err := policy.Propose(c, attest.LevelKey, "azure")
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse("p.yaml", text, policy.NoFiles)
	if err != nil {
		t.Fatalf("%v\n%s", err, text)
	}
	if got := codes(p.Judge(c, situation())); got != nil {
		t.Errorf("the guest that was seen: %v\n%s", got, text)
	}
	for _, name := range []string{"pcr4", "pcr11"} {
		other := claims()
		other.Measured["pcr4"], other.Measured["pcr11"] = c.Measured["pcr4"], c.Measured["pcr11"]
		other.Measured[name] = bytes.Repeat([]byte{0xee}, 32)
		if got := codes(p.Judge(other, situation())); len(got) == 0 {
			t.Errorf("another guest's %s is accepted\n%s", name, text)
		}
	}
}

// Adding a denial or raising a floor never turns a refusal into an acceptance, and a denial that matches always wins.
func TestTighteningNeverLoosens(t *testing.T) {
	generations := []string{"milan", "genoa", "turin", "venice", ""}
	rapid.Check(t, func(t *rapid.T) {
		c := claims()
		c.Generation = rapid.SampledFrom(generations).Draw(t, "generation")
		c.TCB["snp"] = rapid.Uint64Range(0, 40).Draw(t, "snp")
		floor := rapid.Uint64Range(0, 40).Draw(t, "floor")
		allow := rapid.SampledFrom([]string{"amd *", "amd milan+", "amd genoa", "amd turin+"}).Draw(t, "allow")
		write := func(floor uint64, deny string) string {
			text := strings.NewReplacer("amd genoa+", allow, "snp: 23", fmt.Sprint("snp: ", floor)).Replace(base)
			if deny != "" {
				text = strings.Replace(text, "tcb:", "  deny: ["+deny+"]\ntcb:", 1)
			}
			return text
		}
		accepts := func(text string) bool {
			p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
			if err != nil {
				t.Fatal(err)
			}
			return codes(p.Judge(c, situation())) == nil
		}
		before := accepts(write(floor, ""))
		denied := rapid.SampledFrom([]string{"milan", "genoa", "turin"}).Draw(t, "denied")
		after := accepts(write(floor+rapid.Uint64Range(0, 5).Draw(t, "more"), "amd "+denied))
		if after && !before || after && c.Generation == denied {
			t.Fatalf("before %v, after denying %s: %v", before, denied, after)
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(base))
	f.Add([]byte("policy: p\nplatforms: {allow: [amd *]}\nworkload: {measurement: any, debug: any}\nbinding: none\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := policy.Parse("p.yaml", raw, policy.NoFiles)
		if err != nil {
			if attest.CodeOf(err).Exit() != 2 {
				t.Fatalf("error without a code of its own: %v", err)
			}
			return
		}
		if codes(p.Judge(new(attest.Claims), attest.Situation{})) == nil {
			t.Fatalf("accepts empty claims:\n%s", raw)
		}
		_ = p.Explain(now)
	})
}

func TestGenerations(t *testing.T) {
	t.Parallel()
	for allow, want := range map[string]string{
		"amd genoa+":           "genoa turin",
		"amd milan, amd turin": "milan turin",
		"amd *":                "milan genoa turin",
		"intel tdx":            "",
		"amd milan, intel tdx": "milan",
	} {
		p := parse(t, strings.Replace(base, "amd genoa+", allow, 1))
		if got := strings.Join(p.Generations("amd"), " "); got != want {
			t.Errorf("%s: generations %q, want %q", allow, got, want)
		}
		if got := p.Allows("intel"); got != strings.Contains(allow, "intel") {
			t.Errorf("%s: allows intel: %v", allow, got)
		}
	}
}

// A policy whose rules look at the age in CEL promises nothing about it.
func TestOlderIsWorse(t *testing.T) {
	for rule, want := range map[string]bool{
		"claims.version > 3":                       true,
		"binding == 'session' && now < now":        true,
		"age > duration('1h')":                     false,
		"claims.simulated || age < duration('1s')": false,
	} {
		text := base + "rules:\n- {name: r, when: \"" + rule + "\", effect: warn}\n"
		if got := parse(t, text).OlderIsWorse(); got != want {
			t.Errorf("%s: %v", rule, got)
		}
		p, err := policy.Parse("p.yaml", []byte("floor: below.yaml\n"+base), func(string) ([]byte, error) { return []byte(text), nil })
		if err != nil {
			t.Fatal(err)
		}
		if got := p.OlderIsWorse(); got != want {
			t.Errorf("above %s: %v", rule, got)
		}
	}
}

// Claims of one Kind are judged alike, whatever rules there are, and no expression can ask for what is not compared.
func TestJudgesAlike(t *testing.T) {
	p, err := policy.Parse("p.yaml", []byte("floor: below.yaml\n"+base+"rules:\n- {name: r, when: \"claims.version > 3 || age > duration('1m')\", effect: warn}\n"), func(string) ([]byte, error) { return []byte(base), nil })
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func(*attest.Claims){
		func(*attest.Claims) {},
		func(c *attest.Claims) { c.Generation = "milan" },
		func(c *attest.Claims) { c.Measured = nil },
	} {
		a, b := claims(), claims()
		change(a)
		change(b)
		b.ReportData, b.Made, b.Folded, b.Checks, b.NotChecked = attest.ReportData{9}, now, true, []attest.Check{{ID: "x"}}, []string{"x"}
		if !p.JudgesAlike() || a.Kind() != b.Kind() || !reflect.DeepEqual(p.Judge(a, situation()), p.Judge(b, situation())) {
			t.Errorf("%+v\n%+v", p.Judge(a, situation()), p.Judge(b, situation()))
		}
	}
	for _, name := range []string{"report_data", "made", "folded", "checks", "not_checked"} {
		if _, err := policy.Parse("p.yaml", []byte(base+"rules:\n- {name: r, when: 'claims."+name+" == claims."+name+"', effect: deny}\n"), policy.NoFiles); err == nil {
			t.Errorf("an expression can ask for %s", name)
		}
	}
}

// Wherever a rule may have an end, it is known when it comes.
func TestChanges(t *testing.T) {
	from, until := "2026-12-01", "2026-12-24"
	dated := func(rule string) string { return "{" + rule + ", from: " + from + ", until: " + until + "}" }
	for name, c := range map[string]struct{ old, new string }{
		"allow":       {"[amd genoa+]", "[amd genoa+, " + dated("vendor: intel") + "]"},
		"deny":        {"  allow:", "  deny: [" + dated("vendor: intel") + "]\n  allow:"},
		"tcb":         {"snp: 23", "snp: " + dated("min: 23")},
		"status":      {"snp: 23", "snp: 23, status: " + dated("any_of: [UpToDate]")},
		"date":        {"snp: 23", "snp: 23, date: " + dated("min: 2026-01-01")},
		"evaluation":  {"snp: 23", "snp: 23, evaluation: " + dated("min: 2")},
		"bits":        {"snp: 23", "snp: 23, bits: {smt: " + dated("is: off") + "}"},
		"measurement": {"name: v1}", "name: v1}, " + dated("value: "+other)},
		"debug":       {"debug: off", "debug: " + dated("is: off")},
		"migration":   {"debug: off", "debug: off\n  migration: " + dated("is: off")},
		"privilege":   {"debug: off", "debug: off\n  privilege: " + dated("max: 1")},
		"binding":     {"binding: key", "binding: " + dated("min: key")},
		"revocation":  {"binding: key", "binding: key\nrevocation: " + dated("is: required")},
		"scope":       {"snp: 23", "snp: 23, per: [" + dated("platforms: [amd *], snp: 24") + "]"},
		"in a scope":  {"snp: 23", "snp: 23, per: [{platforms: [amd *], snp: " + dated("min: 24") + "}]"},
		"register":    {"debug: off", "debug: off\n  registers: {rtmr1: {any_of: [" + dated("value: "+other) + "]}}"},
		"rule":        {"binding: key", "binding: key\nrules: [" + dated("name: r, when: claims.simulated, effect: deny") + "]"},
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Replace(base, c.old, c.new, 1)
			p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
			if err != nil {
				t.Fatalf("%v\n%s", err, text)
			}
			above, err := policy.Parse("p.yaml", []byte("floor: below.yaml\n"+base), func(string) ([]byte, error) { return []byte(text), nil })
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range []*policy.Policy{p, above} {
				var got []string
				for at := p.Changes(now); !at.IsZero(); at = p.Changes(at) {
					got = append(got, at.Format(time.DateOnly))
				}
				if fmt.Sprint(got) != fmt.Sprint([]string{from, until}) {
					t.Errorf("got %v", got)
				}
			}
		})
	}
	// The next of several, in whichever order they stand.
	for _, days := range [][2]string{{"2026-12-01", "2027-12-01"}, {"2027-12-01", "2026-12-01"}} {
		text := strings.Replace(base, "  allow:", "  deny: [{vendor: intel, until: "+days[0]+"}, {vendor: arm, until: "+days[1]+"}]\n  allow:", 1)
		if at := parse(t, text).Changes(now); at.Format(time.DateOnly) != "2026-12-01" {
			t.Errorf("%v: got %s", days, at)
		}
	}
	if at := parse(t, base).Changes(now); !at.IsZero() {
		t.Errorf("%s in a policy without dates", at)
	}
}

// LeastBinding is the weakest level that can be affirmed at any time, under all that is stacked.
func TestLeastBinding(t *testing.T) {
	at := func(binding string) string { return strings.Replace(base, "binding: key", binding, 1) }
	for name, c := range map[string]struct {
		text, floor string
		unsafe      attest.Level
		want        attest.Level
	}{
		"said":                       {at("binding: nonce"), "", "", attest.LevelNonce},
		"by default":                 {at(""), "", "", attest.LevelSession},
		"for a time":                 {at("binding: {min: key, until: 2027-01-01}"), "", "", attest.LevelKey},
		"in a shadow":                {at("binding: {min: session, shadow: true}"), "", "", attest.LevelNone},
		"tolerated":                  {at("binding: session"), "", attest.LevelPinned, attest.LevelPinned},
		"tolerated, and weaker said": {at("binding: pinned"), "", attest.LevelKey, attest.LevelPinned},
		"above a stronger floor":     {"floor: below.yaml\n" + at("binding: session"), at("binding: nonce"), "", attest.LevelSession},
		"tolerated above a floor":    {"floor: below.yaml\n" + at("binding: session"), at("binding: nonce"), attest.LevelPinned, attest.LevelNonce},
		"above the same floor":       {"floor: below.yaml\n" + at("binding: nonce"), at("binding: nonce"), "", attest.LevelNonce},
	} {
		p, err := policy.Parse("p.yaml", []byte(c.text), func(string) ([]byte, error) { return []byte(c.floor), nil })
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if c.unsafe != "" {
			p = p.UnsafeBinding(c.unsafe)
		}
		if got := p.LeastBinding(); got != c.want {
			t.Errorf("%s: got %s", name, got)
		}
	}
	if got := new(policy.Policy).LeastBinding(); got != attest.LevelNone {
		t.Errorf("got %s", got)
	}
}
