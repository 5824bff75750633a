package cca_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/test/bench"
)

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func TestVerify(t *testing.T) {
	t.Parallel()
	for _, g := range []generation{v2023, legacy, v2024} {
		f := forge{generation: g}.make(t)
		c, err := f.verify(t)
		if err != nil {
			t.Fatal(g, err)
		}
		sum := sha256.Sum256(f.spki)
		if c.Vendor != "arm" || c.TEE != "cca" || c.Product != "Arm CCA" || c.Generation != "cca" || c.Root != "sha256:"+attest.HexBytes(sum[:]).String() ||
			(c.Version == 2) != (g == v2024) || c.Version < 1 || c.Debug != attest.Off || c.Migratable != attest.Off || !bytes.Equal(c.ChipID, instance) ||
			c.Numbers["lifecycle"] != 0x3003 || c.ReportData != challenge || c.Folded {
			t.Errorf("%+v", c)
		}
		want := map[string][]byte{
			"launch": hash(0x44), "rem0": hash(1), "rem1": hash(2), "rem2": hash(3), "rem3": hash(4), "personalization": slices.Repeat([]byte{3}, 64),
			"implementation_id": implementation, "platform_config": {0xcf}, "component0": hash(5), "component1": hash(7),
		}
		if len(c.Measured) != len(want) {
			t.Errorf("measured: %v", c.Measured)
		}
		for name, value := range want {
			if !bytes.Equal(c.Measured[name], value) {
				t.Errorf("%s: %s", name, c.Measured[name])
			}
		}
		if p := c.Revocation.Problem; p == nil || p.Code != attest.CodeEndorsementMissing || !strings.Contains(p.Remedy(), "unchecked") {
			t.Errorf("revocation: %+v", c.Revocation)
		}
		if len(c.Checks) != 5 || len(c.NotChecked) != 2 {
			t.Errorf("%v, %v", c.Checks, c.NotChecked)
		}
	}
}

// What may vary without harm.
func TestAccepts(t *testing.T) {
	t.Parallel()
	large := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	wide := func(n int) func(map[any]any) {
		return func(m map[any]any) {
			m[44236] = map[int]string{48: "sha-384", 64: "sha-512"}[n]
			m[44238], m[44239] = large(n), [][]byte{large(n), large(n), large(n), large(n)}
		}
	}
	p256, p521 := newKey(t, elliptic.P256()), newKey(t, elliptic.P521())
	cose256, err := cose.MarshalKey(&p256.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	cose521, err := cose.MarshalKey(&p521.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	rak, err := cose.MarshalKey(&keys().rak.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum384, sum512 := sha512.Sum384(rak), sha512.Sum512(rak)
	component := map[any]any{2: hash(7), 5: hash(8)}
	for name, f := range map[string]forge{
		"measurements of SHA-384":    {realm: wide(48)},
		"measurements of SHA-512":    {realm: wide(64)},
		"key hashed with SHA-384":    {realm: func(m map[any]any) { m[44240] = "sha-384" }, challenge: sum384[:]},
		"key hashed with SHA-512":    {realm: func(m map[any]any) { m[44240] = "sha-512" }, challenge: sum512[:]},
		"realm key of P-256":         {rak: p256, rakPublic: cose256},
		"realm key of P-521":         {rak: p521, rakPublic: cose521},
		"no verification service":    withoutPlatform(2400),
		"most components":            platform(2399, slices.Repeat([]any{component}, 32)),
		"largest configuration":      platform(2401, large(1024)),
		"empty configuration":        platform(2401, []byte{}),
		"longest text":               platform(2402, strings.Repeat("a", 256)),
		"first secured state":        platform(2395, 0x3000),
		"last secured state":         platform(2395, 0x30ff),
		"the platform's key stapled": {staple: []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: spki(t, &keys().cpak.PublicKey)}}},
		"unsigned key identifier":    {part: func(b []byte) []byte { return replace(t, b, []byte{0x22, 0xa0}, []byte{0x22, 0xa1, 4, 0x41, 1}) }},
	} {
		if c, err := f.make(t).verify(t); err != nil || c == nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, f := range map[string]forge{"of the platform": platform(2404, "x"), "of the realm": realm("x", 1)} {
		c, err := f.make(t).verify(t)
		if err != nil || len(c.NotChecked) != 3 || !strings.Contains(c.NotChecked[2], "not know") {
			t.Errorf("a claim %s that is not known: %v", name, err)
		}
	}
}

func replace(t testing.TB, b, old, by []byte) []byte {
	t.Helper()
	at := bytes.Index(b, old)
	if at < 0 {
		t.Fatalf("%x is not there", old)
	}
	return slices.Concat(b[:at], by, b[at+len(old):])
}

type negative struct {
	forge forge
	want  attest.Code
}

func negatives(t testing.TB) map[string]negative {
	long := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other, err := cose.MarshalKey(&keys().other.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	rak, err := cose.MarshalKey(&keys().rak.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := keys().rak.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	sum512 := sha512.Sum512(rak)
	component := func(change map[any]any) forge {
		return forge{platform: func(m map[any]any) {
			c := map[any]any{1: "BL", 2: hash(5), 4: "1.2", 5: hash(6), 6: "sha-256"}
			for k, v := range change {
				if c[k] = v; v == nil {
					delete(c, k)
				}
			}
			m[2399] = []any{c}
		}}
	}
	collection := func(h func(map[any]any)) forge { return forge{collection: h} }
	point := slices.Clone(raw)
	point[96] ^= 1
	all := map[string]negative{
		"collection without its tag":    {forge{raw: func(b []byte) []byte { return b[3:] }}, attest.CodeUnknownVersion},
		"collection under another tag":  {forge{raw: func(b []byte) []byte { return append([]byte{0xd9, 0x01, 0x90}, b[3:]...) }}, attest.CodeUnknownVersion},
		"tag in too many bytes":         {forge{raw: func(b []byte) []byte { return append([]byte{0xda, 0, 0, 0x01, 0x8f}, b[3:]...) }}, attest.CodeMalformed},
		"collection of an array":        {forge{raw: func(b []byte) []byte { return append(b[:3:3], 0x80) }}, attest.CodeMalformed},
		"collection with a byte more":   {forge{raw: func(b []byte) []byte { return append(b, 0) }}, attest.CodeMalformed},
		"collection oversize":           {forge{raw: func(b []byte) []byte { return append(b, make([]byte, cca.MaxToken)...) }}, attest.CodeOversized},
		"collection with a third token": {collection(func(m map[any]any) { m[44242] = m[44241] }), attest.CodeUnknownField},
		"collection with text":          {collection(func(m map[any]any) { m["x"] = 1 }), attest.CodeUnknownField},
		"no platform token":             {collection(func(m map[any]any) { delete(m, 44234) }), attest.CodeMalformed},
		"no realm token":                {collection(func(m map[any]any) { delete(m, 44241) }), attest.CodeMalformed},
		"tokens swapped":                {collection(func(m map[any]any) { m[44234], m[44241] = m[44241], m[44234] }), attest.CodeMalformed},
		"platform token as text":        {collection(func(m map[any]any) { m[44234] = "x" }), attest.CodeMalformed},
		"platform token of garbage":     {collection(func(m map[any]any) { m[44234] = []byte("x") }), attest.CodeMalformed},
		"realm token of garbage":        {collection(func(m map[any]any) { m[44241] = []byte("x") }), attest.CodeMalformed},
		"untagged tokens":               {forge{part: func(b []byte) []byte { return b[1:] }}, attest.CodeMalformed},
		"CMW records under tag 399":     {collection(func(m map[any]any) { m[44234] = []any{263, m[44234]} }), attest.CodeMalformed},
		"bare tokens under tag 907":     {forge{generation: v2024, collection: func(m map[any]any) { m[44234] = m[44234].([]any)[1] }}, attest.CodeMalformed},
		"CMW record of another type":    {forge{generation: v2024, collection: func(m map[any]any) { m[44234].([]any)[0] = 267 }}, attest.CodeUnknownFormat},
		"CMW record with an indicator":  {forge{generation: v2024, collection: func(m map[any]any) { m[44234] = append(m[44234].([]any), 4) }}, attest.CodeMalformed},
		"CMW record with a media type":  {forge{generation: v2024, collection: func(m map[any]any) { m[44241].([]any)[0] = "application/eat+cwt" }}, attest.CodeUnknownFormat},
		"token twice": {forge{raw: func(b []byte) []byte {
			return slices.Concat(b[:3], []byte{0xa2}, b[4:7], []byte{0x40}, b[4:7], []byte{0x40})
		}}, attest.CodeDuplicateField},
		"critical header": {forge{part: func(b []byte) []byte {
			return replace(t, b, []byte{0x44, 0xa1, 1, 0x38, 0x22}, []byte{0x47, 0xa2, 1, 0x38, 0x22, 2, 0x81, 1})
		}}, attest.CodeUnknownField},
		"unsigned algorithm":             {forge{part: func(b []byte) []byte { return replace(t, b, []byte{0x22, 0xa0}, []byte{0x22, 0xa1, 1, 0x38, 0x22}) }}, attest.CodeUnknownField},
		"platform claims of an array":    {forge{part: func(b []byte) []byte { return onlyPayload(t, []byte{0x80}) }}, attest.CodeMalformed},
		"platform claims of garbage":     {forge{part: func(b []byte) []byte { return onlyPayload(t, []byte{0xff}) }}, attest.CodeMalformed},
		"platform claim twice":           {forge{part: func(b []byte) []byte { return onlyPayload(t, []byte{0xa2, 10, 0, 10, 0}) }}, attest.CodeDuplicateField},
		"realm claims of garbage":        {forge{realmPayload: []byte{0xff}}, attest.CodeMalformed},
		"realm claims of an array":       {forge{realmPayload: []byte{0x80}}, attest.CodeMalformed},
		"realm claim twice":              {forge{realmPayload: []byte{0xa2, 10, 0, 10, 0}}, attest.CodeDuplicateField},
		"realm profile as a number":      {forge{realm: func(m map[any]any) { m[265] = 1 }, rakPublic: raw}, attest.CodeMalformed},
		"unknown profile, no realm's":    {forge{generation: legacy, platform: func(m map[any]any) { m[265] = "tag:arm.com,2026:cca_platform#2.0.0" }}, attest.CodeUnknownVersion},
		"platform signed by another key": {forge{cpak: keys().other}, attest.CodeSignature},
		"platform signed by the realm":   {forge{cpak: keys().rak}, attest.CodeSignature},
		"platform signed with P-256":     {forge{cpak: newKey(t, elliptic.P256())}, attest.CodeUnknownAlgorithm},
		"platform signed with P-521":     {forge{cpak: newKey(t, elliptic.P521())}, attest.CodeUnknownAlgorithm},
		"realm signed by another key":    {forge{rak: keys().other}, attest.CodeSignature},
		"realm signed by the platform":   {forge{rak: keys().cpak}, attest.CodeSignature},
		"realm signed with P-256":        {forge{rak: newKey(t, elliptic.P256())}, attest.CodeUnknownAlgorithm},
		"realm with a key of its own":    {forge{rak: keys().other, rakPublic: other, challenge: hash(1)}, attest.CodeLink},
		"link by another hash":           {forge{challenge: sum512[:]}, attest.CodeLink},
		"link cut short":                 {forge{realm: func(m map[any]any) { m[44240] = "sha-512" }, challenge: sum512[:32]}, attest.CodeLink},
		"link by a hash not known":       {realm(44240, "sha-224"), attest.CodeUnknownAlgorithm},
		"link by a hash in upper case":   {realm(44240, "SHA-256"), attest.CodeUnknownAlgorithm},
		"no hash for the link":           {withoutRealm(44240), attest.CodeMalformed},
		"no platform profile":            {withoutPlatform(265), attest.CodeUnknownVersion},
		"unknown platform profile":       {platform(265, "tag:arm.com,2026:cca_platform#2.0.0"), attest.CodeUnknownVersion},
		"platform profile in upper case": {platform(265, "TAG:arm.com,2023:cca_platform#1.0.0"), attest.CodeUnknownVersion},
		"platform profile as a number":   {platform(265, 1), attest.CodeMalformed},
		"platform profile empty":         {platform(265, ""), attest.CodeMalformed},
		"profile oversize":               {platform(265, strings.Repeat("a", 257)), attest.CodeMalformed},
		"no realm profile":               {forge{realm: func(m map[any]any) { delete(m, 265) }, rakPublic: raw}, attest.CodeUnknownVersion},
		"unknown realm profile":          {realm(265, "tag:arm.com,2026:realm#2.0.0"), attest.CodeUnknownVersion},
		"realm of another profile":       {realm(265, "tag:arm.com,2024:realm#2.0.0"), attest.CodeUnknownVersion},
		"platform of another profile":    {platform(265, "http://arm.com/CCA-SSD/1.0.0"), attest.CodeUnknownVersion},
		"profile beside a legacy one":    {forge{generation: legacy, rakPublic: rak, realm: func(m map[any]any) { m[265] = "tag:arm.com,2023:realm#1.0.0" }}, attest.CodeUnknownVersion},
		"no client id":                   {withoutPlatform(2394).of(v2024), attest.CodeMalformed},
		"another client":                 {platform(2394, 2).of(v2024), attest.CodeMalformed},
		"no lifecycle":                   {withoutPlatform(2395), attest.CodeMalformed},
		"lifecycle negative":             {platform(2395, -1), attest.CodeMalformed},
		"lifecycle of more bits":         {platform(2395, 0x13000), attest.CodeMalformed},
		"lifecycle as text":              {platform(2395, "secured"), attest.CodeMalformed},
		"lifecycle unknown":              {platform(2395, 0), attest.CodeLifecycle},
		"lifecycle assembly":             {platform(2395, 0x1000), attest.CodeLifecycle},
		"lifecycle provisioning":         {platform(2395, 0x20ff), attest.CodeLifecycle},
		"lifecycle undefined":            {platform(2395, 0x3100), attest.CodeLifecycle},
		"lifecycle decommissioned":       {platform(2395, 0x6000), attest.CodeLifecycle},
		"lifecycle beyond":               {platform(2395, 0xffff), attest.CodeLifecycle},
		"no configuration":               {withoutPlatform(2401), attest.CodeMalformed},
		"configuration oversize":         {platform(2401, long(1025)), attest.CodeMalformed},
		"no platform hash":               {withoutPlatform(2402), attest.CodeMalformed},
		"instance id of another type":    {platform(256, append([]byte{2}, hash(1)...)), attest.CodeMalformed},
		"no components":                  {withoutPlatform(2399), attest.CodeMalformed},
		"components empty":               {platform(2399, []any{}), attest.CodeMalformed},
		"components as a map":            {platform(2399, map[int]int{}), attest.CodeMalformed},
		"too many components":            {platform(2399, slices.Repeat([]any{map[any]any{2: hash(7), 5: hash(8)}}, 33)), attest.CodeMalformed},
		"component as bytes":             {platform(2399, []any{[]byte{1}}), attest.CodeMalformed},
		"component without measurement":  {component(map[any]any{2: nil}), attest.CodeMalformed},
		"component with a short one":     {component(map[any]any{2: hash(1)[:20]}), attest.CodeMalformed},
		"component without signer":       {component(map[any]any{5: nil}), attest.CodeMalformed},
		"component with a short signer":  {component(map[any]any{5: hash(1)[:20]}), attest.CodeMalformed},
		"component's type as bytes":      {component(map[any]any{1: []byte("BL")}), attest.CodeMalformed},
		"component's version oversize":   {component(map[any]any{4: strings.Repeat("a", 257)}), attest.CodeMalformed},
		"component's hash empty":         {component(map[any]any{6: ""}), attest.CodeMalformed},
		"no realm hash":                  {withoutRealm(44236), attest.CodeMalformed},
		"unknown realm hash":             {realm(44236, "sha-1"), attest.CodeUnknownAlgorithm},
		"no initial measurement":         {withoutRealm(44238), attest.CodeMalformed},
		"measurement of another hash":    {realm(44238, long(64)), attest.CodeMalformed},
		"no extensible measurements":     {withoutRealm(44239), attest.CodeMalformed},
		"three extensible measurements":  {realm(44239, [][]byte{hash(1), hash(2), hash(3)}), attest.CodeMalformed},
		"five extensible measurements":   {realm(44239, [][]byte{hash(1), hash(2), hash(3), hash(4), hash(5)}), attest.CodeMalformed},
		"extensible one of another hash": {realm(44239, [][]byte{hash(1), hash(2), hash(3), long(64)}), attest.CodeMalformed},
		"extensible one as text":         {realm(44239, []any{hash(1), hash(2), hash(3), string(hash(4))}), attest.CodeMalformed},
		"no realm key":                   {withoutRealm(44237), attest.CodeMalformed},
		"realm key as text":              {realm(44237, "x"), attest.CodeMalformed},
		"realm key as a bare point":      {forge{rakPublic: raw}, attest.CodeMalformed},
		"legacy realm key as COSE_Key":   {forge{generation: legacy, rakPublic: rak}, attest.CodeMalformed},
		"legacy realm key off its curve": {forge{generation: legacy, rakPublic: point}, attest.CodeMalformed},
		"legacy realm key empty":         {forge{generation: legacy, rakPublic: []byte{}}, attest.CodeMalformed},
		"certificate stapled":            {forge{staple: []attest.Endorsement{{Kind: attest.KindCertificate, Raw: []byte("x")}}}, attest.CodeMalformedEndorsement},
		"another platform's key stapled": {forge{staple: []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: spki(t, &keys().other.PublicKey)}}}, attest.CodeUntrustedRoot},
		"the signer's key stapled":       {forge{cpak: keys().other, staple: []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: spki(t, &keys().other.PublicKey)}}}, attest.CodeUntrustedRoot},
		"key of another kind stapled":    {forge{staple: []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: spki(t, edKey)}}}, attest.CodeUntrustedRoot},
		"too many stapled":               {forge{staple: slices.Repeat([]attest.Endorsement{{Kind: attest.KindPublicKey, Raw: spki(t, &keys().cpak.PublicKey)}}, attest.MaxEndorsements+1)}, attest.CodeOversized},
	}
	for label, sizes := range map[int][]int{10: {0, 31, 33, 47, 63, 65}, 2396: {0, 31, 33}, 256: {0, 32, 34}} {
		for _, n := range sizes {
			all["platform claim of another size "+big.NewInt(int64(1000*label+n)).String()] = negative{platform(label, long(n)), attest.CodeMalformed}
		}
		all["platform claim missing "+big.NewInt(int64(label)).String()] = negative{withoutPlatform(label), attest.CodeMalformed}
	}
	for label, sizes := range map[int][]int{10: {0, 32, 63, 65}, 44235: {0, 63, 65}, 44238: {0, 31, 48}} {
		for _, n := range sizes {
			all["realm claim of another size "+big.NewInt(int64(1000*label+n)).String()] = negative{realm(label, long(n)), attest.CodeMalformed}
		}
		all["realm claim missing "+big.NewInt(int64(label)).String()] = negative{withoutRealm(label), attest.CodeMalformed}
	}
	return all
}

// onlyPayload signs bytes as both tokens.
func onlyPayload(t testing.TB, payload []byte) []byte {
	t.Helper()
	raw, err := cose.Sign(keys().cpak, payload)
	if err != nil {
		t.Fatal(err)
	}
	return cose.Tag(raw)
}

func TestNegatives(t *testing.T) {
	t.Parallel()
	all := negatives(t)
	t.Logf("%d cases", len(all))
	for name, c := range all {
		t.Run(name, func(t *testing.T) {
			claims, err := c.forge.make(t).verify(t)
			if err := wants(err, c.want); err != nil || claims != nil {
				t.Error(err)
			}
		})
	}
}

func TestDebug(t *testing.T) {
	t.Parallel()
	for _, state := range []int{0x4000, 0x40ff, 0x5000, 0x50ff} {
		if c, err := platform(2395, state).make(t).verify(t); err != nil || c.Debug != attest.On || c.Numbers["lifecycle"] != uint64(state) {
			t.Errorf("%#x: %v", state, err)
		}
	}
}

// step is how many bytes apart two are that a test changes.
func step() int {
	if testing.Short() {
		return 31
	}
	return 1
}

func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	for _, g := range []generation{v2023, legacy, v2024} {
		f := forge{generation: g}.make(t)
		verifier := cca.NewVerifier(f.keys) // it remembers the platform token: a changed one must not be taken for it
		if _, err := verifier.Verify(t.Context(), f.evidence, nil, epoch); err != nil {
			t.Fatal(err)
		}
		for at := 0; at < len(f.evidence.Raw); at += step() {
			bad := *f.evidence
			bad.Raw = slices.Clone(bad.Raw)
			bad.Raw[at] ^= 1 << (at % 8)
			if c, err := verifier.Verify(t.Context(), &bad, nil, epoch); err == nil || c != nil || attest.CodeOf(err) == attest.CodeInternal {
				t.Fatalf("%d: byte %d: %v", g, at, err)
			}
		}
		for n := range f.evidence.Raw {
			bad := *f.evidence
			bad.Raw = bad.Raw[:n]
			want := attest.CodeMalformed
			if n == 0 {
				want = attest.CodeNoEvidence
			}
			if _, err := verifier.Verify(t.Context(), &bad, nil, epoch); attest.CodeOf(err) != want {
				t.Fatalf("%d: first %d bytes: %v", g, n, err)
			}
		}
	}
}

// allowAll is a policy with one rule that always passes.
type allowAll struct{}

func (allowAll) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "test", Checks: []attest.Check{{ID: "all", Status: attest.StatusPass}}}
}

func TestAppraise(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, cca.NewVerifier(f.keys))
	if r := appraiser.Appraise(t.Context(), f.evidence, attest.Expect(challenge, attest.LevelKey, epoch), allowAll{}, epoch); !r.Affirmed() {
		t.Error(r.Err())
	}
	other := challenge
	other[63] ^= 2
	if r := appraiser.Appraise(t.Context(), f.evidence, attest.Expect(other, attest.LevelKey, epoch), allowAll{}, epoch); r.Code() != attest.CodeReportData {
		t.Error(r.Err())
	}
	zero := realm(10, make([]byte, 64)).make(t)
	if r := appraiser.Appraise(t.Context(), zero.evidence, attest.Expect(attest.ReportData{}, attest.LevelKey, epoch), allowAll{}, epoch); r.Code() != attest.CodeNoExpectation {
		t.Error(r.Err())
	}
}

func TestKeys(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	other := spki(t, &keys().other.PublicKey)
	for name, c := range map[string]struct {
		keys []cca.Key
		want attest.Code
	}{
		"the key":                           {[]cca.Key{{SPKI: f.spki}}, ""},
		"after another":                     {[]cca.Key{{SPKI: other}, {SPKI: f.spki}}, ""},
		"before another":                    {[]cca.Key{{SPKI: f.spki}, {SPKI: other}}, ""},
		"of this platform":                  {[]cca.Key{{SPKI: f.spki, ImplementationID: implementation, InstanceID: instance}}, ""},
		"another":                           {[]cca.Key{{SPKI: other}}, attest.CodeSignature},
		"of another kind":                   {[]cca.Key{{SPKI: spki(t, &newKey(t, elliptic.P256()).PublicKey)}}, attest.CodeUnknownAlgorithm},
		"none":                              {nil, attest.CodeEndorsementMissing},
		"of another instance":               {[]cca.Key{{SPKI: f.spki, InstanceID: append([]byte{1}, hash(1)...)}}, attest.CodeEndorsementMissing},
		"of another implementation":         {[]cca.Key{{SPKI: f.spki, ImplementationID: hash(1)}}, attest.CodeEndorsementMissing},
		"of no instance":                    {[]cca.Key{{SPKI: f.spki, InstanceID: []byte{}}}, attest.CodeEndorsementMissing},
		"another's beside the platform's":   {[]cca.Key{{SPKI: other, InstanceID: instance}, {SPKI: f.spki, InstanceID: hash(1)}}, attest.CodeSignature},
		"another platform's, then this one": {[]cca.Key{{SPKI: other, InstanceID: hash(1)}, {SPKI: f.spki}}, ""},
	} {
		anchors, err := cca.NewKeys(c.keys...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := cca.NewVerifier(anchors).Verify(t.Context(), f.evidence, nil, epoch); wants(err, c.want) != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		spki []byte
		want attest.Code
	}{
		"empty": {nil, attest.CodeMalformedEndorsement}, "garbage": {[]byte("x"), attest.CodeMalformedEndorsement}, "Ed25519": {spki(t, edKey), attest.CodeUnknownAlgorithm},
	} {
		if anchors, err := cca.NewKeys(cca.Key{SPKI: f.spki}, cca.Key{SPKI: c.spki}); wants(err, c.want) != nil || anchors != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := cca.NewVerifier(nil).Verify(t.Context(), f.evidence, nil, epoch); wants(err, attest.CodeEndorsementMissing) != nil {
		t.Error(err)
	}
	stapled := forge{staple: []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: f.spki}}}.make(t)
	if _, err := cca.NewVerifier(nil).Verify(t.Context(), stapled.evidence, nil, epoch); wants(err, attest.CodeUntrustedRoot) != nil {
		t.Error("a key that came with the evidence:", err)
	}
}

// What a Verifier has seen must not blunt its checks.
func TestKnownPlatform(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	verifier := cca.NewVerifier(f.keys)
	for range 2 {
		if c, err := verifier.Verify(t.Context(), f.evidence, nil, epoch); err != nil || c.Root == "" || cca.Known(verifier) != 1 {
			t.Fatal(err, cca.Known(verifier))
		}
	}
	// The realm token by another key, beside the platform token that is known.
	mixed := forge{rak: keys().other, collection: func(m map[any]any) {
		platform := bytes.Index(f.evidence.Raw, []byte{0xd2, 0x84})
		size := int(f.evidence.Raw[platform-2])<<8 | int(f.evidence.Raw[platform-1])
		m[44234] = f.evidence.Raw[platform : platform+size]
	}}.make(t)
	if _, err := verifier.Verify(t.Context(), mixed.evidence, nil, epoch); wants(err, attest.CodeSignature) != nil {
		t.Error(err)
	}
	// One that does not verify is not remembered.
	bad := forge{cpak: keys().other}.make(t)
	for range 2 {
		if _, err := verifier.Verify(t.Context(), bad.evidence, nil, epoch); wants(err, attest.CodeSignature) != nil || cca.Known(verifier) != 1 {
			t.Error(err, cca.Known(verifier))
		}
	}
}

func TestVerifierInput(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	v := cca.NewVerifier(f.keys)
	for name, ev := range map[string]*attest.Evidence{"nil": nil, "empty": {Format: cca.Format}} {
		if _, err := v.Verify(t.Context(), ev, nil, epoch); attest.CodeOf(err) != attest.CodeNoEvidence {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.Verify(t.Context(), &attest.Evidence{Format: "snp", Raw: f.evidence.Raw}, nil, epoch); !errors.Is(err, attest.ErrNotMine) {
		t.Error(err)
	}
}

// BenchmarkWarm stands beside the one signature verification that it can't avoid where the platform token is known, and the
// two where it is not.
func BenchmarkWarm(b *testing.B) {
	f := forge{}.make(b)
	sum := sha512.Sum384([]byte("x"))
	signature, err := ecdsa.SignASN1(rand.Reader, keys().rak, sum[:])
	if err != nil {
		b.Fatal(err)
	}
	bare := func(times int) func() error {
		return func() error {
			for range times {
				if !ecdsa.VerifyASN1(&keys().rak.PublicKey, sum[:], signature) {
					return errors.New("bare")
				}
			}
			return nil
		}
	}
	verify := func(v *cca.Verifier) error {
		_, err := v.Verify(b.Context(), f.evidence, nil, epoch)
		return err
	}
	known := cca.NewVerifier(f.keys)
	if err := verify(known); err != nil {
		b.Fatal(err)
	}
	bench.Compare(b, "cca/1×P-384", 1.2, func() error { return verify(known) }, bare(1))
	bench.Compare(b, "cca-new-platform/2×P-384", 1.2, func() error { return verify(cca.NewVerifier(f.keys)) }, bare(2))
}
