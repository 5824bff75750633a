package policy_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
)

// "Vendor Q, generation R is vulnerable; S, T and U stay, and P, M and N": one line.
func TestTheOneLine(t *testing.T) {
	p := parse(t, `policy: fleet
platforms:
  allow: [P *, M *, N *, Q S, Q T, Q U]
  deny: [{vendor: Q, generation: R, because: Q-SA-7}]
workload: {measurement: any, debug: off}
binding: key
`)
	for platform, want := range map[string]attest.Code{
		"P 1": "", "M 1": "", "N 9": "", "Q S": "", "Q T": "", "Q U": "",
		"Q R": attest.CodePlatformDenied, "Q V": attest.CodePlatformNotAllowed, "Q ": attest.CodePlatformDenied, "X S": attest.CodePlatformNotAllowed, " ": attest.CodePlatformNotAllowed,
	} {
		c := claims()
		c.Vendor, c.Generation, _ = strings.Cut(platform, " ")
		j := p.Judge(c, situation())
		got := codes(j)
		if want == "" && got != nil || want != "" && (len(got) == 0 || got[0] != want) {
			t.Errorf("%q: got %v, want %s", platform, got, want)
		}
		if platform == "Q R" {
			i := slices.IndexFunc(j.Checks, func(c attest.Check) bool { return c.Code == attest.CodePlatformDenied })
			if check := j.Checks[i]; check.Line != 4 || !strings.Contains(check.Want, "Q-SA-7") {
				t.Errorf("the refusal does not say where and why: %+v", check)
			}
		}
	}
}

// intelClaims are those of a vendor that judges TCB levels.
func intelClaims() *attest.Claims {
	c := claims()
	n := uint64(20)
	c.Vendor, c.TEE, c.Generation, c.TCB = "intel", "tdx", "sapphire-rapids", attest.TCB{"tdx1": 7, "pce": 13}
	c.TCBJudged = now.AddDate(0, 0, -3)
	c.TCBStatus, c.TCBDate, c.Evaluation, c.FMSPC = "UpToDate", now.AddDate(0, -6, 0), &n, attest.HexBytes{0, 0x80, 0x6f, 5, 0, 0}
	c.Provenance = attest.Provenance{PPID: bytes.Repeat([]byte{0xaa}, 16)}
	c.Measured["rtmr1"] = bytes.Repeat([]byte{0x77}, 48)
	c.Platform = map[string]attest.Flag{"smt": attest.On}
	c.Numbers = map[string]uint64{"isv_svn": 3}
	return c
}

const intelBase = `policy: p
platforms: {allow: [intel tdx]}
tcb: {}
workload:
  measurement: any
  debug: off
binding: key
`

func TestJudgeLanguage(t *testing.T) {
	set := func(tcb, workload, rest string) string {
		s := strings.Replace(intelBase, "tcb: {}", "tcb: {"+tcb+"}", 1)
		if workload != "" {
			s = strings.Replace(s, "  measurement: any", workload, 1)
		}
		return s + rest
	}
	r77, r88 := strings.Repeat("77", 48), strings.Repeat("88", 48)
	type change = func(*attest.Claims, *attest.Situation)
	status := func(s string, advisories ...string) change {
		return func(c *attest.Claims, _ *attest.Situation) { c.TCBStatus, c.Advisories = s, advisories }
	}
	for name, c := range map[string]struct {
		policy string
		change change
		want   []attest.Code
	}{
		"bare":                       {set("", "", ""), nil, nil},
		"no tcb key, up to date":     {strings.Replace(intelBase, "tcb: {}\n", "", 1), nil, nil},
		"no tcb key, out of date":    {strings.Replace(intelBase, "tcb: {}\n", "", 1), status("OutOfDate"), []attest.Code{attest.CodeTCBStatus}},
		"no tcb key, revoked":        {strings.Replace(intelBase, "tcb: {}\n", "", 1), status("Revoked"), []attest.Code{attest.CodeTCBStatus}},
		"status named":               {set("status: [UpToDate, OutOfDate]", "", ""), status("OutOfDate"), nil},
		"status not named":           {set("status: [OutOfDate]", "", ""), nil, []attest.Code{attest.CodeTCBStatus}},
		"status demanded, none":      {set("status: [UpToDate]", "", ""), status(""), []attest.Code{attest.CodeClaimAbsent}},
		"a made-up status":           {set("status: [UpToDate]", "", ""), status("Fine"), []attest.Code{attest.CodeTCBStatus}},
		"status ended":               {set("status: {any_of: [OutOfDate], until: 2026-11-01}", "", ""), status("OutOfDate"), []attest.Code{attest.CodeTCBStatus}},
		"status in the shadow":       {set("status: {any_of: [OutOfDate], shadow: true}", "", ""), nil, []attest.Code{attest.CodeTCBStatus}},
		"judged long ago":            {set("", "", ""), func(c *attest.Claims, _ *attest.Situation) { c.TCBJudged = now.AddDate(0, 0, -31) }, []attest.Code{attest.CodeEndorsementTooOld}},
		"judged nobody knows when":   {set("", "", ""), func(c *attest.Claims, _ *attest.Situation) { c.TCBJudged = time.Time{} }, []attest.Code{attest.CodeEndorsementTooOld}},
		"date":                       {set("date: 2026-05-01", "", ""), nil, nil},
		"date before":                {set("date: 2026-06-01", "", ""), nil, []attest.Code{attest.CodeTCBBelowFloor}},
		"date absent":                {set("date: 2026-05-01", "", ""), func(c *attest.Claims, _ *attest.Situation) { c.TCBDate = time.Time{} }, []attest.Code{attest.CodeClaimAbsent}},
		"evaluation":                 {set(`evaluation: ">=20"`, "", ""), nil, nil},
		"evaluation before":          {set("evaluation: 21", "", ""), nil, []attest.Code{attest.CodeTCBBelowFloor}},
		"evaluation absent":          {set("evaluation: 20", "", ""), func(c *attest.Claims, _ *attest.Situation) { c.Evaluation = nil }, []attest.Code{attest.CodeClaimAbsent}},
		"advisory denied":            {set("status: [OutOfDate], advisories_deny: [INTEL-SA-1]", "", ""), status("OutOfDate", "INTEL-SA-1", "INTEL-SA-2"), []attest.Code{attest.CodeAdvisory}},
		"other advisory":             {set("status: [OutOfDate], advisories_deny: [INTEL-SA-3]", "", ""), status("OutOfDate", "INTEL-SA-1"), nil},
		"advisory tolerated":         {set("status: [OutOfDate], advisories_tolerate: [INTEL-SA-1]", "", ""), status("OutOfDate", "INTEL-SA-1"), nil},
		"advisory not tolerated":     {set("status: [OutOfDate], advisories_tolerate: [INTEL-SA-1]", "", ""), status("OutOfDate", "INTEL-SA-1", "INTEL-SA-2"), []attest.Code{attest.CodeAdvisory}},
		"advisories unknown":         {set("advisories_deny: [INTEL-SA-3]", "", ""), status(""), []attest.Code{attest.CodeClaimAbsent}},
		"bit":                        {set("bits: {smt: on}", "", ""), nil, nil},
		"bit the other way":          {set("bits: {smt: off}", "", ""), nil, []attest.Code{attest.CodePlatformBit}},
		"bit absent":                 {set("bits: {alias_check: on}", "", ""), nil, []attest.Code{attest.CodeClaimAbsent}},
		"floor with terms":           {set("pce: {min: 14, because: SA-9}", "", ""), nil, []attest.Code{attest.CodeTCBBelowFloor}},
		"floor that ended":           {set("pce: {min: 14, until: 2026-01-01}", "", ""), nil, nil},
		"floor that has not begun":   {set("pce: {min: 14, from: 2026-12-01}", "", ""), nil, nil},
		"floor that began":           {set("pce: {min: 14, from: 2026-11-23}", "", ""), nil, []attest.Code{attest.CodeTCBBelowFloor}},
		"floor in the shadow":        {set("pce: {min: 14, shadow: true}", "", ""), nil, []attest.Code{attest.CodeTCBBelowFloor}},
		"scope":                      {set("per: [{platforms: [intel tdx], pce: 13}, {platforms: [amd *], snp: 99}]", "", ""), nil, nil},
		"scope, below":               {set("per: [{platforms: [intel tdx], pce: 14}]", "", ""), nil, []attest.Code{attest.CodeTCBBelowFloor}},
		"two scopes":                 {set("per: [{platforms: [intel tdx], pce: 14}, {platforms: [intel *], tdx1: 9}]", "", ""), nil, []attest.Code{attest.CodeTCBBelowFloor, attest.CodeTCBBelowFloor}},
		"in no scope":                {set("per: [{platforms: [amd *], snp: 3}]", "", ""), nil, []attest.Code{attest.CodeNoFloor}},
		"in a shadow only":           {set("per: [{platforms: [intel *], pce: 3, shadow: true}]", "", ""), nil, []attest.Code{attest.CodeNoFloor}},
		"in a scope that ended":      {set("per: [{platforms: [intel *], pce: 3, until: 2026-01-01}]", "", ""), nil, []attest.Code{attest.CodeNoFloor}},
		"scope with any":             {set("per: [{platforms: [intel *], any: true}]", "", ""), nil, nil},
		"scope with any, status":     {set("per: [{platforms: [intel *], any: true}]", "", ""), status("OutOfDate"), []attest.Code{attest.CodeTCBStatus}},
		"scope with its status":      {set("per: [{platforms: [intel *], status: [OutOfDate]}]", "", ""), status("OutOfDate"), nil},
		"status of scope and of all": {set("status: [UpToDate], per: [{platforms: [intel *], status: [OutOfDate]}]", "", ""), status("OutOfDate"), []attest.Code{attest.CodeTCBStatus}},
		"another scope's status":     {set("per: [{platforms: [intel sgx], status: [OutOfDate]}, {platforms: [intel *], any: true}]", "", ""), status("OutOfDate"), []attest.Code{attest.CodeTCBStatus}},

		"by FMSPC":             {strings.Replace(intelBase, "[intel tdx]", `[{vendor: intel, fmspc: ["00806f050000"]}]`, 1), nil, nil},
		"by another FMSPC":     {strings.Replace(intelBase, "[intel tdx]", `[{vendor: intel, fmspc: ["00806f060000"]}]`, 1), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"by PPID":              {strings.Replace(intelBase, "[intel tdx]", `[{vendor: intel, ppids: [`+strings.Repeat("aa", 16)+`]}]`, 1), nil, nil},
		"by another PPID":      {strings.Replace(intelBase, "[intel tdx]", `[{vendor: intel, ppids: [`+strings.Repeat("ab", 16)+`]}]`, 1), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"VLEK wanted":          {strings.Replace(intelBase, "[intel tdx]", `[{vendor: intel, csp: ["*"]}]`, 1), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"VLEK":                 {strings.Replace(intelBase, "[intel tdx]", `[{vendor: intel, csp: ["*"]}]`, 1), func(c *attest.Claims, _ *attest.Situation) { c.Provenance.CSP = "aws" }, nil},
		"VLEK of another":      {strings.Replace(intelBase, "[intel tdx]", `[{vendor: intel, csp: [azure]}]`, 1), func(c *attest.Claims, _ *attest.Situation) { c.Provenance.CSP = "aws" }, []attest.Code{attest.CodePlatformNotAllowed}},
		"generation or later":  {strings.Replace(intelBase, "[intel tdx]", "[intel ice-lake+]", 1), nil, nil},
		"only later ones":      {strings.Replace(intelBase, "[intel tdx]", "[intel tdx emerald-rapids+]", 1), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"allowed later":        {strings.Replace(intelBase, "[intel tdx]", "[{vendor: intel, from: 2026-12-01}]", 1), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"allowed in a shadow":  {strings.Replace(intelBase, "[intel tdx]", "[{vendor: intel, shadow: true}]", 1), nil, []attest.Code{attest.CodePlatformNotAllowed}},
		"denied in a shadow":   {strings.Replace(intelBase, "[intel tdx]", "[intel tdx], deny: [{vendor: intel, shadow: true}]", 1), nil, []attest.Code{attest.CodePlatformDenied}},
		"denied from tomorrow": {strings.Replace(intelBase, "[intel tdx]", "[intel tdx], deny: [{vendor: intel, from: 2026-11-24}]", 1), nil, nil},

		"set":                  {set("", "  sets: [{name: v1, registers: {launch: "+launch+", rtmr1: "+r77+"}}]", ""), nil, nil},
		"half a set":           {set("", "  sets: [{name: v1, registers: {launch: "+launch+", rtmr1: "+r88+"}}]", ""), nil, []attest.Code{attest.CodeMeasurement}},
		"mixed sets":           {set("", "  sets: [{name: v1, registers: {launch: "+launch+", rtmr1: "+r88+"}}, {name: v2, registers: {launch: "+other+", rtmr1: "+r77+"}}]", ""), nil, []attest.Code{attest.CodeMeasurement}},
		"set, register absent": {set("", "  sets: [{name: v1, registers: {launch: "+launch+", rtmr9: "+r77+"}}]", ""), nil, []attest.Code{attest.CodeClaimAbsent}},
		"set that ended":       {set("", "  sets: [{name: v1, until: 2026-11-01, registers: {launch: "+launch+"}}]", ""), nil, []attest.Code{attest.CodeMeasurement}},
		"set in the shadow":    {set("", "  sets: [{name: v1, shadow: true, registers: {launch: "+launch+"}}]", ""), nil, []attest.Code{attest.CodeMeasurement}},
		"register":             {set("", "  measurement: any\n  registers: {rtmr1: {any_of: ["+r88+", "+r77+"]}}", ""), nil, nil},
		"register differs":     {set("", "  measurement: any\n  registers: {rtmr1: {any_of: ["+r88+"]}}", ""), nil, []attest.Code{attest.CodeMeasurement}},
		"register absent":      {set("", "  measurement: any\n  registers: {pcr7: {any_of: ["+r88+"]}}", ""), nil, []attest.Code{attest.CodeClaimAbsent}},
		"number":               {set("", "  measurement: any\n  numbers: {isv_svn: {min: 3}}", ""), nil, nil},
		"number below":         {set("", "  measurement: any\n  numbers: {isv_svn: {min: 4}}", ""), nil, []attest.Code{attest.CodeNumber}},
		"number exact":         {set("", "  measurement: any\n  numbers: {isv_svn: 3}", ""), nil, nil},
		"number above exact":   {set("", "  measurement: any\n  numbers: {isv_svn: 2}", ""), nil, []attest.Code{attest.CodeNumber}},
		"number absent":        {set("", "  measurement: any\n  numbers: {isv_prod_id: 2}", ""), nil, []attest.Code{attest.CodeClaimAbsent}},
		"number that ended":    {set("", "  measurement: any\n  numbers: {isv_svn: {is: 2, until: 2026-01-01}}", ""), nil, nil},
		"config":               {set("", "  measurement: any\n  config: {any_of: ["+strings.Repeat("ab", 32)+"]}", ""), func(_ *attest.Claims, s *attest.Situation) { copy(s.Config[:], bytes.Repeat([]byte{0xab}, 32)) }, nil},
		"config differs":       {set("", "  measurement: any\n  config: {any_of: ["+strings.Repeat("ab", 32)+"]}", ""), func(_ *attest.Claims, s *attest.Situation) { s.Config[0] = 1 }, []attest.Code{attest.CodeConfigDigest}},
		"config absent":        {set("", "  measurement: any\n  config: {any_of: ["+strings.Repeat("ab", 32)+"]}", ""), nil, []attest.Code{attest.CodeClaimAbsent}},

		"debug any, until":        {strings.Replace(intelBase, "debug: off", "debug: {is: any, until: 2027-01-01}", 1), func(c *attest.Claims, _ *attest.Situation) { c.Debug = attest.On }, nil},
		"debug any, ended":        {strings.Replace(intelBase, "debug: off", "debug: {is: any, until: 2026-01-01}", 1), func(c *attest.Claims, _ *attest.Situation) { c.Debug = attest.On }, []attest.Code{attest.CodeDebug}},
		"debug off, ended":        {strings.Replace(intelBase, "debug: off", "debug: {is: off, until: 2026-01-01}", 1), func(c *attest.Claims, _ *attest.Situation) { c.Debug = attest.On }, []attest.Code{attest.CodeDebug}},
		"binding, until":          {strings.Replace(intelBase, "binding: key", "binding: {min: key, until: 2027-01-01}", 1), nil, nil},
		"binding, ended":          {strings.Replace(intelBase, "binding: key", "binding: {min: key, until: 2026-01-01}", 1), nil, []attest.Code{attest.CodeBindingTooWeak}},
		"unchecked, ended":        {intelBase + "revocation: {is: unchecked, until: 2026-01-01}\n", func(c *attest.Claims, _ *attest.Situation) { c.Revocation = attest.Revocation{} }, []attest.Code{attest.CodeEndorsementMissing}},
		"privilege, until":        {strings.Replace(intelBase, "debug: off", "debug: off\n  privilege: {max: 2, until: 2027-01-01}", 1), func(c *attest.Claims, _ *attest.Situation) { *c.Privilege = 2 }, nil},
		"privilege, ended":        {strings.Replace(intelBase, "debug: off", "debug: off\n  privilege: {max: 2, until: 2026-01-01}", 1), func(c *attest.Claims, _ *attest.Situation) { *c.Privilege = 2 }, []attest.Code{attest.CodePrivilege}},
		"rule denies":             {intelBase + "rules: [{when: claims.platform.smt, effect: deny, because: SA-1}]\n", nil, []attest.Code{attest.CodeRule}},
		"rule does not deny":      {intelBase + "rules: [{when: '!claims.platform.smt', effect: deny}]\n", nil, nil},
		"rule requires":           {intelBase + "rules: [{when: claims.platform.smt, effect: require}]\n", nil, nil},
		"rule requires in vain":   {intelBase + "rules: [{when: 'claims.version == 99', effect: require}]\n", nil, []attest.Code{attest.CodeRule}},
		"rule warns":              {intelBase + "rules: [{when: claims.platform.smt, effect: warn}]\n", nil, []attest.Code{attest.CodeRule}},
		"denial without a result": {intelBase + "rules: [{when: claims.platform.alias_check, effect: deny}]\n", nil, []attest.Code{attest.CodeClaimAbsent}},
		"demand without a result": {intelBase + "rules: [{when: claims.platform.alias_check, effect: require}]\n", nil, []attest.Code{attest.CodeClaimAbsent}},
		"rule in the shadow":      {intelBase + "rules: [{when: claims.platform.smt, effect: deny, shadow: true}]\n", nil, []attest.Code{attest.CodeRule}},
		"rule that ended":         {intelBase + "rules: [{when: claims.platform.smt, effect: deny, until: 2026-01-01}]\n", nil, nil},
		"rule on the binding":     {intelBase + "rules: [{when: 'binding == \"key\"', effect: deny}]\n", nil, []attest.Code{attest.CodeRule}},
		"rule on the age":         {intelBase + "rules: [{when: 'age > duration(\"30s\")', effect: deny}]\n", nil, []attest.Code{attest.CodeRule}},
	} {
		t.Run(name, func(t *testing.T) {
			cl, s := intelClaims(), situation()
			if c.change != nil {
				c.change(cl, &s)
			}
			j := parse(t, c.policy).Judge(cl, s)
			if got := codes(j); fmt.Sprint(got) != fmt.Sprint(c.want) {
				t.Fatalf("got %v, want %v", got, c.want)
			}
			warns := strings.Contains(name, "in the shadow") && !strings.HasPrefix(name, "set") && !strings.HasPrefix(name, "allowed") || strings.Contains(name, "denied in a shadow") || name == "rule warns"
			for _, check := range j.Checks {
				if check.Status == attest.StatusWarn && !warns || check.Status == attest.StatusFail && warns {
					t.Errorf("status %s of %s", check.Status, check.ID)
				}
				if check.Status == attest.StatusFail && (check.Remedy == "" || check.Want == "" || check.ID == "" || check.Text == "") {
					t.Errorf("a refusal that does not explain itself: %+v", check)
				}
			}
		})
	}
}

// A refused set names the release that comes closest, and where it differs.
func TestNearest(t *testing.T) {
	r77, r88 := strings.Repeat("77", 48), strings.Repeat("88", 48)
	p := parse(t, strings.Replace(intelBase, "  measurement: any", "  sets:\n    - {name: v1, registers: {launch: "+other+", rtmr1: "+r88+"}}\n    - {name: v2, registers: {launch: "+launch+", rtmr1: "+r88+"}}", 1))
	find := func(p *policy.Policy, c *attest.Claims) attest.Check {
		for _, check := range p.Judge(c, situation()).Checks {
			if check.ID == "workload.measurement" {
				return check
			}
		}
		return attest.Check{}
	}
	if got := find(p, intelClaims()); got.Nearest != "v2, which differs in rtmr1" || got.Got != "rtmr1 "+r77 {
		t.Errorf("got %+v", got)
	}
	slip := parse(t, strings.Replace(intelBase, "measurement: any", "measurement: {any_of: [{value: "+launch[:94]+"d1, name: v9}]}", 1))
	if got := find(slip, intelClaims()); !strings.Contains(got.Nearest, "v9") {
		t.Errorf("got %+v", got)
	}
	far := parse(t, strings.Replace(intelBase, "measurement: any", "measurement: {any_of: [{value: "+other+", name: v9}]}", 1))
	if got := find(far, intelClaims()); got.Nearest != "" {
		t.Errorf("got %+v", got)
	}
}

func files(m map[string]string) policy.Open {
	return func(name string) ([]byte, error) {
		if s, ok := m[name]; ok {
			return []byte(s), nil
		}
		return nil, os.ErrNotExist
	}
}

// Reference values from a file are part of the policy: they change its identity.
func TestReferenceFiles(t *testing.T) {
	text := strings.Replace(intelBase, "measurement: any", "sets: {file: refs.json}", 1)
	one := `{"name": "payments", "version": "v2", "registers": {"launch": "` + launch + `"}}`
	two := `[{"name": "old", "registers": {"launch": "` + other + `"}}, ` + one + `]`
	open := func(refs string) (*policy.Policy, error) {
		return policy.Parse("p.yaml", []byte(text), files(map[string]string{"refs.json": refs}))
	}
	ids := map[string]bool{}
	for _, refs := range []string{one, two, one + "\n"} {
		p, err := open(refs)
		if err != nil {
			t.Fatal(err)
		}
		if got := codes(p.Judge(intelClaims(), situation())); got != nil {
			t.Errorf("got %v", got)
		}
		if !strings.Contains(p.Explain(now), "payments v2") {
			t.Error(p.Explain(now))
		}
		ids[p.ID()] = true
	}
	if len(ids) != 3 {
		t.Errorf("ids %v", ids)
	}
	alone := strings.Replace(intelBase, "measurement: any", "measurement: {file: refs.json}", 1)
	if p, err := policy.Parse("p.yaml", []byte(alone), files(map[string]string{"refs.json": two})); err != nil || codes(p.Judge(intelClaims(), situation())) != nil {
		t.Errorf("as measurement: %v", err)
	}
	for name, refs := range map[string]string{
		"empty": "", "no registers": `{"name": "x", "registers": {}}`, "no name": `{"registers": {"launch": "` + launch + `"}}`,
		"twice": `{"name": "x", "name": "y", "registers": {"launch": "` + launch + `"}}`, "zeros": `{"name": "x", "registers": {"launch": "` + strings.Repeat("0", 96) + `"}}`,
		"unknown key": `{"name": "x", "registers": {"launch": "` + launch + `"}, "sign": 1}`, "short": `{"name": "x", "registers": {"launch": "55"}}`, "no list": `[]`,
	} {
		if p, err := open(refs); err == nil || attest.CodeOf(err).Exit() != 2 || p != nil {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := policy.Parse("p.yaml", []byte(text), files(nil)); err == nil {
		t.Error("a missing file")
	}
	var coded *attest.Error
	if _, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles); !errors.As(err, &coded) || coded.Subject == "" {
		t.Errorf("got %v", err)
	}
	if _, err := policy.Parse("p.yaml", []byte(alone), files(map[string]string{"refs.json": `{"name": "x", "registers": {"rtmr1": "` + launch + `"}}`})); err == nil {
		t.Error("a measurement from a release without one")
	}
}

// A floor has to accept as well: its verdict is part of the transcript, and the policy cannot loosen it.
func TestFloor(t *testing.T) {
	floor := strings.NewReplacer("policy: p", "policy: corp", "[intel tdx]", "[intel *, amd *], deny: [amd milan]").Replace(intelBase)
	text := strings.Replace(intelBase, "policy: p", "policy: p\nfloor: corp.yaml", 1)
	p, err := policy.Parse("p.yaml", []byte(text), files(map[string]string{"corp.yaml": floor}))
	if err != nil {
		t.Fatal(err)
	}
	j := p.Judge(intelClaims(), situation())
	if codes(j) != nil || !slices.ContainsFunc(j.Checks, func(c attest.Check) bool { return c.ID == "floor.platform.allowed" }) {
		t.Errorf("got %v", codes(j))
	}
	loose := strings.Replace(text, "debug: off", "debug: any", 1)
	l, err := policy.Parse("p.yaml", []byte(loose), files(map[string]string{"corp.yaml": floor}))
	if err != nil {
		t.Fatal(err)
	}
	c := intelClaims()
	c.Debug = attest.On
	if got := codes(l.Judge(c, situation())); fmt.Sprint(got) != "[J504]" {
		t.Errorf("got %v", got)
	}
	corp := parse(t, floor)
	if list := l.Looser(corp); list != nil {
		t.Errorf("it stands on the floor, and is looser: %v", list)
	}
	if strings.Contains(fmt.Sprint(parse(t, loose[:0]+strings.Replace(loose, "floor: corp.yaml\n", "", 1)).Looser(corp)), "debug") == false {
		t.Error("without the floor it is not looser")
	}
	if p.Binding(now) != attest.LevelKey {
		t.Error("binding")
	}
	self := files(map[string]string{"corp.yaml": text})
	if _, err := policy.Parse("p.yaml", []byte(text), self); err == nil {
		t.Error("a floor that stands on itself")
	}
	if _, err := policy.Parse("p.yaml", []byte(text), files(map[string]string{"corp.yaml": "policy: x\n"})); err == nil || attest.CodeOf(err).Exit() != 2 {
		t.Errorf("a broken floor: %v", err)
	}
}

func TestParseErrorsOfTheLanguage(t *testing.T) {
	for in, want := range map[string]string{
		"floor: x.yaml":                                             "names the file",
		"tcb: {micorcode: 3}":                                       `did you mean "microcode"`,
		"tcb: {stauts: [UpToDate]}":                                 `did you mean "status"`,
		"tcb: {status: [Revoked]}":                                  "want one of UpToDate",
		"tcb: {status: []}":                                         "an empty list",
		"tcb: {per: [{platforms: [amd *]}]}":                        "demands nothing",
		"tcb: {per: [{platforms: [amd *], any: true, snp: 3}]}":     "demands nothing, or something beside any",
		"tcb: {per: [{snp: 3}]}":                                    "want tcb.per.platforms",
		"tcb: {evaluation: many}":                                   `">=20" or 20`,
		"tcb: {date: soon}":                                         "a date such as",
		"tcb: {bits: {smt: maybe}}":                                 "want one of on, off",
		"tcb: {bits: {SMT: on}}":                                    "lower-case",
		"tcb: {advisories_deny: [what is this]}":                    "the id of an advisory",
		"tcb: {snp: {least: 3}}":                                    "unknown key",
		"tcb: {snp: {because: x}}":                                  "want tcb.snp.min",
		"tcb: {snp: {min: 3, from: 2027-01-01, until: 2026-01-01}}": "an end that is not after the beginning",
		"tcb: {snp: {min: 3, shadow: perhaps}}":                     "want one of true, false",
		"rules: [{when: claims.platfrom.smt, effect: warn}]":        "undeclared reference",
		"rules: [{when: 'claims.vendor > 3', effect: warn}]":        "no matching overload",
		"rules: [{when: claims.vendor, effect: warn}]":              "the result is of type string",
		"rules: [{when: 'true', effect: allow}]":                    "want one of deny, require, warn",
		"rules: [{when: 'true'}]":                                   "want rules.effect",
		"rules: []":                                                 "an empty list",
		"revocation: {is: off}":                                     "want one of required, unchecked",
		"binding: {at: key}":                                        "unknown key",
	} {
		text := strings.Replace(intelBase, "tcb: {}\n", "", 1)
		if strings.HasPrefix(in, "binding") {
			text = strings.Replace(text, "binding: key\n", "", 1)
		}
		text += in + "\n"
		p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
		var coded *attest.Error
		if !errors.As(err, &coded) || p != nil {
			t.Errorf("%s: accepted", in)
			continue
		}
		if s := err.Error() + " " + coded.Remedy(); !strings.Contains(s, want) || !strings.HasPrefix(s, "p.yaml:") || coded.Code.Exit() != 2 {
			t.Errorf("%s: got %v, want %q", in, s, want)
		}
	}
	for in, want := range map[string]string{
		"  measurement: any\n  sets: [{name: x, registers: {launch: " + launch + "}}]": "sets beside measurement",
		"  sets: [{name: x, registers: {}}]":                                           "no register",
		"  sets: [{name: x, registers: {Launch: " + launch + "}}]":                     "lower-case",
		"  measurement: any\n  numbers: {isv_svn: {}}":                                 "both or neither",
		"  measurement: any\n  numbers: {isv_svn: {is: 1, min: 1}}":                    "both or neither",
		"  measurement: any\n  config: {any_of: [abcd]}":                               "32 bytes in hex",
	} {
		if p, err := policy.Parse("p.yaml", []byte(strings.Replace(intelBase, "  measurement: any", in, 1)), policy.NoFiles); err == nil || !strings.Contains(err.Error(), want) || p != nil {
			t.Errorf("%s: got %v, want %q", in, err, want)
		}
	}
}

// A slip of the pen in a vendor's name would allow nothing, or deny nothing.
func TestMisspeltVendor(t *testing.T) {
	for slip, meant := range map[string]string{"amdd *": "amd", "amf milan": "amd", "intl tdx": "intel", "{vendor: inte1}": "intel", "{vendor: aw}": "", "tgc *": "", "P *": "", "M *": "", "intelligent *": "", "amd *": ""} {
		for _, list := range []string{"allow: [" + slip + "]", "allow: [intel *], deny: [" + slip + "]"} {
			_, err := policy.Parse("p.yaml", []byte(strings.Replace(intelBase, "allow: [intel tdx]", list, 1)), policy.NoFiles)
			var coded *attest.Error
			if got := errors.As(err, &coded); got != (meant != "") || got && !strings.Contains(coded.Remedy(), meant) {
				t.Errorf("%s: got %v, want %q", list, err, meant)
			}
		}
	}
}

// Registers that software extends say nothing where that software is not known.
func TestSetsIdentifyTheSoftware(t *testing.T) {
	set := func(allow, register string) error {
		text := strings.NewReplacer("[intel tdx]", "["+allow+"]", "measurement: any", "sets: [{name: v1, registers: {"+register+": "+launch+"}}]").Replace(intelBase)
		_, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
		return err
	}
	for _, ok := range [][2]string{{"intel tdx", "launch"}, {"intel sgx", "signer"}, {"aws nitro", "pcr0"}, {"tcg tpm", "pcr7"}} {
		if err := set(ok[0], ok[1]); err != nil {
			t.Errorf("%v: %v", ok, err)
		}
	}
	for _, bad := range [][2]string{{"intel tdx", "rtmr1"}, {"amd *", "pcr7"}, {"aws nitro, amd *", "pcr0"}} {
		if err := set(bad[0], bad[1]); err == nil || !strings.Contains(err.Error(), "neither launch nor signer") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

func TestLint(t *testing.T) {
	for name, c := range map[string]struct{ text, want string }{
		"clean": {strings.Replace(intelBase, "measurement: any", "measurement: {any_of: ["+launch+"]}", 1), "3:"},
		"covered by another": {
			strings.Replace(intelBase, "[intel tdx]", "[intel *, intel tdx]", 1), "intel tdx is allowed already by line 2",
		},
		"denied anyway":       {strings.Replace(intelBase, "[intel tdx]", "[intel tdx], deny: [intel *]", 1), "contradiction"},
		"nothing to deny":     {strings.Replace(intelBase, "[intel tdx]", "[intel tdx], deny: [amd milan]", 1), "nothing allows it"},
		"expired":             {strings.Replace(intelBase, "[intel tdx]", "[{vendor: intel, until: 2026-01-01}]", 1), "ended on 2026-01-01"},
		"scope of nobody":     {strings.Replace(intelBase, "tcb: {}", "tcb: {per: [{platforms: [amd *], snp: 3}, {platforms: [intel *], any: true}]}", 1), "no platform that is allowed"},
		"allowed, not scoped": {strings.Replace(intelBase, "tcb: {}", "tcb: {per: [{platforms: [amd *], snp: 3}]}", 1), "no entry of tcb.per speaks"},
		"below published":     {strings.Replace(intelBase, "tcb: {}", "tcb: {pce: 11, date: 2023-01-01, evaluation: 15}", 1), "below the 13"},
		"date published":      {strings.Replace(intelBase, "tcb: {}", "tcb: {pce: 13, date: 2023-01-01}", 1), "is before 2024-03-13"},
		"evaluation":          {strings.Replace(intelBase, "tcb: {}", "tcb: {evaluation: 15}", 1), "below the published 17"},
		"twice the same":      {strings.Replace(intelBase, "measurement: any", "measurement: {any_of: ["+launch+", "+launch+"]}", 1), "accepted already"},
		"set and register":    {strings.Replace(intelBase, "measurement: any", "sets: [{name: a, registers: {launch: "+launch+", rtmr1: "+launch+"}}]\n  registers: {rtmr1: {any_of: ["+other+"]}}", 1), "another rtmr1"},
		"advisory both ways":  {strings.Replace(intelBase, "tcb: {}", "tcb: {advisories_deny: [A-1], advisories_tolerate: [A-1]}", 1), "denied and tolerated"},
		"reconnect for long":  {intelBase + "freshness: {evidence: 5m, reconnect: 10m}\n", "8: contradiction: reconnect 10m is longer than evidence 5m, which counts"},
		"undated":             {intelBase + "freshness: {undated: true}\n", "8: loose: evidence that does not tell when it was made may be of any age"},
		"loose":               {intelBase + "revocation: unchecked\n", "revocation is not checked"},
		"shadow":              {strings.Replace(intelBase, "[intel tdx]", "[intel tdx], deny: [{vendor: intel, shadow: true}]", 1), "only reported"},
	} {
		published, err := policy.ParsePublished("levels.yaml", []byte(`[{vendor: intel, fmspc: "00806f050000", tcb: {pce: 13}, date: 2024-03-13, evaluation: 17}, {vendor: amd, generation: genoa, tcb: {snp: 99}}]`))
		if err != nil {
			t.Fatal(err)
		}
		var all []string
		for _, f := range parse(t, c.text).Lint(now, published) {
			all = append(all, fmt.Sprintf("%d: %s: %s", f.Line, f.Rule, f.Text))
		}
		got := strings.Join(all, "\n")
		if name == "clean" {
			if got != "7: loose: evidence can be relayed by whoever holds a leaf key; session resists that" {
				t.Errorf("clean: %s", got)
			}
			continue
		}
		if !strings.Contains(got, c.want) {
			t.Errorf("%s: got\n%s\nwant %q", name, got, c.want)
		}
	}
	if _, err := policy.ParsePublished("levels.yaml", []byte("[{vendor: intel, tbc: {pce: 1}}]")); err == nil {
		t.Error("an unknown key")
	}
}

func BenchmarkJudge200Rules(b *testing.B) {
	var text strings.Builder
	text.WriteString("policy: p\nplatforms:\n  allow: [amd *, intel tdx]\n  deny:\n")
	for i := range 150 {
		fmt.Fprintf(&text, "    - {vendor: amd, generation: genoa, chip_ids: [%032x], because: SA-%d}\n", i+1, i)
	}
	text.WriteString("tcb:\n  per:\n    - {platforms: [intel tdx], pce: 13, tdx1: 7, bits: {smt: on}}\n    - {platforms: [amd *], snp: 1}\nworkload:\n  measurement:\n    any_of:\n")
	for i := range 49 {
		fmt.Fprintf(&text, "      - {value: %q, name: v%d}\n", fmt.Sprintf("%096x", i+1), i)
	}
	fmt.Fprintf(&text, "      - %s\n  debug: off\nbinding: key\n", launch)
	p := parse(b, text.String())
	c, s := intelClaims(), situation()
	if got := codes(p.Judge(c, s)); got != nil {
		b.Fatal(got)
	}
	b.ReportAllocs()
	for b.Loop() {
		p.Judge(c, s)
	}
}
