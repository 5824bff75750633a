package nitro_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/test/bench"
)

func TestVerify(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	c, err := f.verify(t, epoch)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(f.certs[root].Raw)
	if c.Vendor != "aws" || c.TEE != "nitro" || c.Product != "Nitro Enclaves" || c.Generation != "nitro" || c.Version != 1 || c.Simulated ||
		c.Root != "sha256:"+attest.HexBytes(sum[:]).String() || c.Debug != attest.Off || c.Migratable != attest.Off ||
		c.Module != "i-1-enc1" || c.ReportData != userData || !c.Made.Equal(epoch) || c.Folded {
		t.Errorf("%+v", c)
	}
	want := map[string][]byte{"launch": pcr(1), "pcr0": pcr(1), "pcr1": pcr(2), "pcr2": pcr(3), "pcr4": pcr(5), "user_data_sha256": digest(userData[:])}
	if len(c.Measured) != len(want) {
		t.Errorf("measured: %v", c.Measured)
	}
	for name, value := range want {
		if !bytes.Equal(c.Measured[name], value) {
			t.Errorf("%s: %s", name, c.Measured[name])
		}
	}
	if c.Revocation.Problem != nil || !c.Revocation.Issued.Equal(epoch.Add(-time.Hour)) || !c.Revocation.Expires.Equal(epoch.Add(time.Hour)) {
		t.Errorf("revocation: %+v", c.Revocation)
	}
	if len(c.Checks) != 5 || len(c.NotChecked) != 0 {
		t.Errorf("transcript: %v, not checked: %v", c.Checks, c.NotChecked)
	}
}

func digest(b []byte) []byte {
	sum := sha256.Sum256(b)
	return sum[:]
}

// What may vary without harm.
func TestAccepts(t *testing.T) {
	t.Parallel()
	large := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	for name, f := range map[string]forge{
		"tagged":                       {message: cose.Tag},
		"a map without a length":       {bytes: func(b []byte) []byte { return append(append([]byte{0xbf}, b[1:]...), 0xff) }},
		"a length in more bytes":       {bytes: func(b []byte) []byte { return append([]byte{0xb8, b[0] & 0x1f}, b[1:]...) }},
		"PCRs of 32 bytes":             setPCR(5, large(32)),
		"PCRs of 64 bytes":             setPCR(31, large(64)),
		"largest user data":            set("user_data", large(512)),
		"empty user data":              set("user_data", []byte{}),
		"no user data":                 without("user_data"),
		"largest nonce":                set("nonce", large(512)),
		"empty nonce":                  set("nonce", []byte{}),
		"largest public key":           set("public_key", large(1024)),
		"no public key":                without("public_key"),
		"longest module id":            set("module_id", strings.Repeat("a", 256)),
		"the chain's root stapled too": {},
	} {
		t.Run(name, func(t *testing.T) {
			made := f.make(t)
			if strings.HasPrefix(name, "the chain's root") {
				made.evidence.Endorsements = append(made.evidence.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: made.certs[root].Raw})
			}
			if _, err := made.verify(t, epoch); err != nil {
				t.Error(err)
			}
		})
	}
	// A shorter chain is as good, down to a root that certifies the leaf.
	short := bundle(func(b [][]byte) [][]byte { return b[:1] })
	short.signer[leaf] = keys()[root]
	short.cert[instance] = func(c *x509.Certificate) { c.Subject.CommonName = "test.nitro-enclaves" }
	made := short.make(t)
	c, err := made.verify(t, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if c.Revocation.Problem == nil || c.Revocation.Problem.Code != attest.CodeEndorsementMissing {
		t.Errorf("authorities without lists count as checked: %+v", c.Revocation)
	}
}

func TestDebug(t *testing.T) {
	t.Parallel()
	for _, zeros := range [][]int{{0, 1, 2}, {0}, {1}, {2}} {
		made := forge{payload: func(m map[string]any) {
			for _, i := range zeros {
				m["pcrs"].(map[any]any)[i] = pcr(0)
			}
		}}.make(t)
		if c, err := made.verify(t, epoch); err != nil || c.Debug != attest.On {
			t.Errorf("PCRs %v of zeros: %v", zeros, err)
		}
	}
}

// Only user data of 64 bytes is report data; nothing is padded to be.
func TestReportData(t *testing.T) {
	t.Parallel()
	for name, value := range map[string]any{
		"none": nil, "empty": []byte{}, "short": userData[:63], "SHA-256": userData[:32], "long": append(userData[:], 0), "zeros": make([]byte, 64),
	} {
		made := set("user_data", value).make(t)
		c, err := made.verify(t, epoch)
		if err != nil {
			t.Fatal(err)
		}
		if !c.ReportData.IsZero() || (name != "zeros") != (len(c.NotChecked) == 1) {
			t.Errorf("%s: %x, %v", name, c.ReportData, c.NotChecked)
		}
		if b, _ := value.([]byte); len(b) > 0 && !bytes.Equal(c.Measured["user_data_sha256"], digest(b)) {
			t.Errorf("%s: %v", name, c.Measured)
		}
		for _, want := range []attest.ReportData{userData, {}} {
			r := attest.NewAppraiser(attest.NoEndorser{}, nitro.NewVerifier(made.roots)).Appraise(t.Context(), made.evidence, attest.Expect(want, attest.LevelKey, epoch), allowAll{}, epoch)
			if r.Affirmed() {
				t.Errorf("%s: affirmed", name)
			}
		}
	}
	made := forge{payload: func(m map[string]any) { m["nonce"], m["public_key"] = []byte("n"), []byte("k") }}.make(t)
	c, err := made.verify(t, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(c.Measured["nonce_sha256"], digest([]byte("n"))) || !bytes.Equal(c.Measured["public_key_sha256"], digest([]byte("k"))) || len(c.NotChecked) != 2 {
		t.Errorf("%v, %v", c.Measured, c.NotChecked)
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
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, nitro.NewVerifier(f.roots))
	if r := appraiser.Appraise(t.Context(), f.evidence, attest.Expect(userData, attest.LevelKey, epoch), allowAll{}, epoch); !r.Affirmed() {
		t.Error(r.Err())
	}
	other := userData
	other[63] ^= 1
	if r := appraiser.Appraise(t.Context(), f.evidence, attest.Expect(other, attest.LevelKey, epoch), allowAll{}, epoch); r.Code() != attest.CodeReportData {
		t.Error(r.Err())
	}
}

func reversed(b [][]byte) [][]byte { slices.Reverse(b); return b }

func negatives(t testing.TB) map[string]struct {
	forge forge
	want  attest.Code
} {
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	edKey, _, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	p256, p521 := newKey(t, elliptic.P256()), newKey(t, elliptic.P521())
	long := func(n int) []byte { return bytes.Repeat([]byte{1}, n) }
	type negative = struct {
		forge forge
		want  attest.Code
	}
	all := map[string]negative{
		"module id missing":           {without("module_id"), attest.CodeMalformed},
		"module id empty":             {set("module_id", ""), attest.CodeMalformed},
		"module id as bytes":          {set("module_id", []byte("i")), attest.CodeMalformed},
		"module id oversize":          {set("module_id", strings.Repeat("a", 257)), attest.CodeMalformed},
		"digest missing":              {without("digest"), attest.CodeMalformed},
		"digest SHA256":               {set("digest", "SHA256"), attest.CodeUnknownAlgorithm},
		"digest in lower case":        {set("digest", "sha384"), attest.CodeUnknownAlgorithm},
		"timestamp missing":           {without("timestamp"), attest.CodeMalformed},
		"timestamp zero":              {set("timestamp", 0), attest.CodeMalformed},
		"timestamp negative":          {set("timestamp", -1), attest.CodeMalformed},
		"timestamp as text":           {set("timestamp", "now"), attest.CodeMalformed},
		"timestamp without end":       {set("timestamp", uint64(1)<<63), attest.CodeMalformed},
		"timestamp in nanoseconds":    {set("timestamp", epoch.UnixNano()), attest.CodeMalformed},
		"timestamp before the leaf":   {set("timestamp", epoch.Add(-2*time.Hour).UnixMilli()), attest.CodeChainExpired},
		"timestamp after the leaf":    {set("timestamp", epoch.Add(2*time.Hour).UnixMilli()), attest.CodeChainExpired},
		"PCRs missing":                {without("pcrs"), attest.CodeMalformed},
		"PCRs empty":                  {set("pcrs", map[int]int{}), attest.CodeMalformed},
		"PCRs as an array":            {set("pcrs", [][]byte{pcr(1)}), attest.CodeMalformed},
		"PCR 0 missing":               {set("pcrs", map[int][]byte{1: pcr(1), 2: pcr(1)}), attest.CodeMalformed},
		"PCR 1 missing":               {set("pcrs", map[int][]byte{0: pcr(1), 2: pcr(1)}), attest.CodeMalformed},
		"PCR 2 missing":               {set("pcrs", map[int][]byte{0: pcr(1), 1: pcr(1)}), attest.CodeMalformed},
		"PCR 32":                      {setPCR(32, pcr(1)), attest.CodeMalformed},
		"PCR -1":                      {setPCR(-1, pcr(1)), attest.CodeMalformed},
		"PCR by name":                 {setPCR("0", pcr(1)), attest.CodeMalformed},
		"PCR of 47 bytes":             {setPCR(0, pcr(1)[:47]), attest.CodeMalformed},
		"PCR of 20 bytes":             {setPCR(5, pcr(1)[:20]), attest.CodeMalformed},
		"PCR empty":                   {setPCR(5, []byte{}), attest.CodeMalformed},
		"PCR null":                    {setPCR(5, nil), attest.CodeMalformed},
		"PCR as text":                 {setPCR(5, strings.Repeat("a", 48)), attest.CodeMalformed},
		"certificate missing":         {without("certificate"), attest.CodeMalformed},
		"certificate null":            {set("certificate", nil), attest.CodeMalformed},
		"certificate empty":           {set("certificate", []byte{}), attest.CodeMalformed},
		"certificate oversize":        {set("certificate", long(1025)), attest.CodeMalformed},
		"certificate of no DER":       {set("certificate", long(1024)), attest.CodeMalformedEndorsement},
		"bundle missing":              {without("cabundle"), attest.CodeMalformed},
		"bundle empty":                {set("cabundle", [][]byte{}), attest.CodeMalformed},
		"bundle as bytes":             {set("cabundle", long(100)), attest.CodeMalformed},
		"bundle of nine":              {bundle(func(b [][]byte) [][]byte { return slices.Repeat(b[:1], 9) }), attest.CodeMalformed},
		"bundle with text":            {set("cabundle", []string{"a"}), attest.CodeMalformed},
		"bundle with an empty entry":  {bundle(func(b [][]byte) [][]byte { return append(b, []byte{}) }), attest.CodeMalformed},
		"bundle with an oversize one": {bundle(func(b [][]byte) [][]byte { return append(b, long(1025)) }), attest.CodeMalformed},
		"bundle reversed":             {bundle(reversed), attest.CodeUntrustedRoot},
		"bundle without its root":     {bundle(func(b [][]byte) [][]byte { return b[1:] }), attest.CodeUntrustedRoot},
		"bundle of the root alone":    {bundle(func(b [][]byte) [][]byte { return b[:1] }), attest.CodeChain},
		"bundle with a gap":           {bundle(func(b [][]byte) [][]byte { return slices.Delete(b, 2, 3) }), attest.CodeChain},
		"bundle with two swapped":     {bundle(func(b [][]byte) [][]byte { b[1], b[2] = b[2], b[1]; return b }), attest.CodeChain},
		"public key empty":            {set("public_key", []byte{}), attest.CodeMalformed},
		"public key oversize":         {set("public_key", long(1025)), attest.CodeMalformed},
		"user data oversize":          {set("user_data", long(513)), attest.CodeMalformed},
		"user data as text":           {set("user_data", "a"), attest.CodeMalformed},
		"nonce oversize":              {set("nonce", long(513)), attest.CodeMalformed},
		"nonce as a number":           {set("nonce", 1), attest.CodeMalformed},
		"unknown field":               {set("extra", 1), attest.CodeUnknownField},
		"field in another case":       {set("Nonce", []byte{}), attest.CodeUnknownField},
		"field by number":             {forge{bytes: func(b []byte) []byte { return append(append([]byte{b[0] + 1}, b[1:]...), 1, 1) }}, attest.CodeUnknownField},
		"field twice": {forge{bytes: func(b []byte) []byte {
			return append(append([]byte{b[0] + 1}, b[1:]...), append([]byte{0x66}, "digest\x66SHA384"...)...)
		}}, attest.CodeDuplicateField},
		"payload empty":              {forge{bytes: func([]byte) []byte { return nil }}, attest.CodeMalformed},
		"payload of an array":        {forge{bytes: func([]byte) []byte { return []byte{0x80} }}, attest.CodeMalformed},
		"payload with a byte more":   {forge{bytes: func(b []byte) []byte { return append(b, 0) }}, attest.CodeMalformed},
		"payload truncated":          {forge{bytes: func(b []byte) []byte { return b[:len(b)-1] }}, attest.CodeMalformed},
		"payload nested":             {set("nonce", []any{[]any{[]any{}}}), attest.CodeMalformed},
		"payload of many items":      {set("nonce", make([]int, 200)), attest.CodeMalformed},
		"document oversize":          {forge{message: func(b []byte) []byte { return append(b, make([]byte, nitro.MaxDocument)...) }}, attest.CodeOversized},
		"document with a byte more":  {forge{message: func(b []byte) []byte { return append(b, 0) }}, attest.CodeMalformed},
		"document under another tag": {forge{message: func(b []byte) []byte { return append([]byte{0xd1}, b...) }}, attest.CodeMalformed},
		"document by another key":    {forge{key: otherKey()}, attest.CodeSignature},
		"document with ES256":        {forge{key: p256}, attest.CodeUnknownAlgorithm},
		"document with ES512":        {forge{key: p521}, attest.CodeUnknownAlgorithm},
		"unsigned key identifier":    {forge{message: func(b []byte) []byte { return replace(t, b, []byte{0xa0, 0x59}, []byte{0xa1, 4, 0x41, 1, 0x59}) }}, attest.CodeUnknownField},
		"certificate stapled that is not of the chain": {forge{staple: func(l []attest.Endorsement) []attest.Endorsement {
			return append(l, attest.Endorsement{Kind: attest.KindCertificate, Raw: []byte("x")})
		}}, attest.CodeMalformedEndorsement},
		"list stapled as a certificate": {forge{staple: func(l []attest.Endorsement) []attest.Endorsement {
			l[0].Kind = attest.KindCertificate
			return l
		}}, attest.CodeMalformedEndorsement},
		"key stapled": {forge{staple: func(l []attest.Endorsement) []attest.Endorsement {
			return append(l, attest.Endorsement{Kind: attest.KindPublicKey, Raw: []byte("x")})
		}}, attest.CodeMalformedEndorsement},
		"too many stapled": {forge{staple: func(l []attest.Endorsement) []attest.Endorsement {
			return slices.Repeat(l[:1], attest.MaxEndorsements+1)
		}}, attest.CodeOversized},
		"list of no DER": {forge{staple: func(l []attest.Endorsement) []attest.Endorsement {
			return append(l, attest.Endorsement{Kind: attest.KindCRL, Raw: []byte("x")})
		}}, attest.CodeMalformedEndorsement},
		"list with a byte more": {forge{staple: func(l []attest.Endorsement) []attest.Endorsement {
			l[0].Raw = append(slices.Clone(l[0].Raw), 0)
			return l
		}}, attest.CodeMalformedEndorsement},
		"root's list by another key":   {forge{crlKey: [2]*ecdsa.PrivateKey{otherKey(), nil}}, attest.CodeChain},
		"region's list by another key": {forge{crlKey: [2]*ecdsa.PrivateKey{nil, otherKey()}}, attest.CodeChain},
		"region revoked":               {revoke(0, 101), attest.CodeRevoked},
		"zone revoked":                 {revoke(1, 102), attest.CodeRevoked},
		"revoked by an outdated list": {forge{crl: func(l []*x509.RevocationList) []*x509.RevocationList {
			l = revoke(0, 101).crl(l)
			l[0].ThisUpdate, l[0].NextUpdate = epoch.AddDate(-1, 0, 0), epoch.AddDate(0, -11, 0)
			return l
		}}, attest.CodeRevoked},
		"list with a critical extension": {forge{crl: func(l []*x509.RevocationList) []*x509.RevocationList {
			l[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
			return l
		}}, attest.CodeMalformedEndorsement},
	}
	for i, name := range []string{"root", "region", "zone", "instance", "leaf"} {
		all[name+" expired"] = negative{certHook(i, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = epoch.Add(-2*time.Hour), epoch.Add(-time.Second) }), attest.CodeChainExpired}
		all[name+" not yet valid"] = negative{certHook(i, func(c *x509.Certificate) { c.NotBefore, c.NotAfter = epoch.Add(time.Second), epoch.Add(2*time.Hour) }), attest.CodeChainExpired}
		if i == root {
			continue
		}
		f := forge{}
		f.signer[i] = otherKey()
		all[name+" signed by another key"] = negative{f, attest.CodeChain}
		f = forge{}
		f.signer[i] = keys()[i]
		all[name+" signed by itself"] = negative{f, attest.CodeChain}
		all[name+" with a critical extension"] = negative{certHook(i, criticalExtension), attest.CodeCriticalExtension}
		all[name+" signed with SHA-256"] = negative{certHook(i, func(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA256 }), attest.CodeUnknownAlgorithm}
		for kind, key := range map[string]any{"P-256": &p256.PublicKey, "P-521": &p521.PublicKey, "RSA": &rsaKey.PublicKey, "Ed25519": edKey} {
			f := forge{}
			f.public[i] = key
			all[name+" with a key of "+kind] = negative{f, attest.CodeUnknownAlgorithm}
		}
		if i == leaf {
			continue
		}
		all[name+" is no authority"] = negative{certHook(i, func(c *x509.Certificate) { c.IsCA, c.MaxPathLen, c.MaxPathLenZero = false, -1, false }), attest.CodeChain}
		all[name+" without basic constraints"] = negative{certHook(i, func(c *x509.Certificate) { c.BasicConstraintsValid = false }), attest.CodeChain}
		all[name+" may not sign certificates"] = negative{certHook(i, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageDigitalSignature }), attest.CodeChain}
		if i < instance {
			all[name+" above too many authorities"] = negative{certHook(i, func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = instance-i-1, instance-i-1 == 0 }), attest.CodeChain}
		}
		all["chain that ends with the "+name] = negative{forge{key: keys()[i], payload: func(m map[string]any) {
			b := m["cabundle"].([][]byte)
			m["certificate"], m["cabundle"] = b[i], b[:i]
		}}, attest.CodeChain}
	}
	all["root above too many authorities"] = negative{certHook(root, func(c *x509.Certificate) { c.MaxPathLen = 2 }), attest.CodeChain}
	all["leaf that is an authority"] = negative{certHook(leaf, func(c *x509.Certificate) { c.IsCA, c.MaxPathLen = true, -1 }), attest.CodeChain}
	all["leaf that may not sign documents"] = negative{certHook(leaf, func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }), attest.CodeChain}
	return all
}

// replace swaps the one occurrence of old.
func replace(t testing.TB, b, old, by []byte) []byte {
	t.Helper()
	at := bytes.Index(b, old)
	if at < 0 {
		t.Fatalf("%x is not there", old)
	}
	return slices.Concat(b[:at], by, b[at+len(old):])
}

func revoke(list int, serial int64) forge {
	return forge{crl: func(l []*x509.RevocationList) []*x509.RevocationList {
		l[list].RevokedCertificateEntries = []x509.RevocationListEntry{
			{SerialNumber: big.NewInt(1), RevocationTime: epoch.Add(-2 * time.Hour)},
			{SerialNumber: big.NewInt(serial), RevocationTime: epoch.Add(-2 * time.Hour)},
		}
		return l
	}}
}

func TestNegatives(t *testing.T) {
	t.Parallel()
	all := negatives(t)
	t.Logf("%d cases", len(all))
	for name, c := range all {
		t.Run(name, func(t *testing.T) {
			claims, err := c.forge.make(t).verify(t, epoch)
			if err := wants(err, c.want); err != nil || claims != nil {
				t.Error(err)
			}
		})
	}
}

// A chain is linked by names as well as by keys: AWS may use one key under two names.
func TestIssuerNames(t *testing.T) {
	t.Parallel()
	a, b := forge{}.make(t), certHook(instance, func(c *x509.Certificate) { c.Subject.CommonName = "another" }).make(t)
	mixed := forge{payload: func(m map[string]any) { m["certificate"] = b.certs[leaf].Raw }}.document(t, a.certs)
	_, err := nitro.NewVerifier(a.roots).Verify(t.Context(), &attest.Evidence{Format: nitro.Format, Raw: mixed}, nil, epoch)
	if err := wants(err, attest.CodeChain); err != nil {
		t.Error(err)
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
	f := forge{}.make(t)
	verifier := nitro.NewVerifier(f.roots) // it remembers the chain: a changed certificate must not be taken for it
	for at := 0; at < len(f.evidence.Raw); at += step() {
		bad := *f.evidence
		bad.Raw = slices.Clone(bad.Raw)
		bad.Raw[at] ^= 1 << (at % 8)
		if c, err := verifier.Verify(t.Context(), &bad, nil, epoch); err == nil || c != nil || attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("byte %d: %v", at, err)
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
			t.Fatalf("first %d bytes: %v", n, err)
		}
	}
}

// The signature's twin (r, n-s) is the only other form that verifies, beside the tag.
func TestSignatureTwin(t *testing.T) {
	t.Parallel()
	f := forge{message: func(b []byte) []byte {
		s := new(big.Int).SetBytes(b[len(b)-48:])
		s.Sub(elliptic.P384().Params().N, s).FillBytes(b[len(b)-48:])
		return b
	}}.make(t)
	if _, err := f.verify(t, epoch); err != nil {
		t.Error(err)
	}
}

// What a Verifier has seen must not blunt its checks.
func TestKnownChain(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	verifier := nitro.NewVerifier(f.roots)
	verify := func(ev *attest.Evidence, now time.Time) error {
		_, err := verifier.Verify(t.Context(), ev, nil, now)
		return err
	}
	for range 2 {
		if err := verify(f.evidence, epoch); err != nil {
			t.Fatal(err)
		}
	}
	if err := wants(verify(f.evidence, epoch.Add(2*time.Hour)), attest.CodeChainExpired); err != nil {
		t.Error("later:", err)
	}
	if err := wants(verify(f.evidence, epoch.Add(-2*time.Hour)), attest.CodeChainExpired); err != nil {
		t.Error("earlier:", err)
	}
	document := func(change forge) *attest.Evidence {
		return &attest.Evidence{Format: nitro.Format, Raw: change.document(t, f.certs)}
	}
	if err := wants(verify(document(forge{key: otherKey()}), epoch), attest.CodeSignature); err != nil {
		t.Error("signature:", err)
	}
	if err := wants(verify(document(bundle(reversed)), epoch), attest.CodeUntrustedRoot); err != nil {
		t.Error("order:", err)
	}
	ends := forge{key: keys()[instance], payload: func(m map[string]any) {
		b := m["cabundle"].([][]byte)
		m["certificate"], m["cabundle"] = b[instance], b[:instance]
	}}
	if err := wants(verify(document(ends), epoch), attest.CodeChain); err != nil {
		t.Error("an authority for a leaf:", err)
	}
	if _, err := nitro.NewVerifier(nil).Verify(t.Context(), f.evidence, nil, epoch); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Error("without roots:", err)
	}
	other := certHook(root, func(*x509.Certificate) {}).make(t)
	if err := wants(verify(other.evidence, epoch), attest.CodeUntrustedRoot); err != nil {
		t.Error("the same names and keys under another root:", err)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	none := func([]attest.Endorsement) []attest.Endorsement { return nil }
	for name, c := range map[string]struct {
		forge forge
		want  attest.Code
	}{
		"both lists":     {forge{}, ""},
		"no list":        {forge{staple: none}, attest.CodeEndorsementMissing},
		"root's alone":   {forge{staple: func(l []attest.Endorsement) []attest.Endorsement { return l[:1] }}, attest.CodeEndorsementMissing},
		"region's alone": {forge{staple: func(l []attest.Endorsement) []attest.Endorsement { return l[1:] }}, attest.CodeEndorsementMissing},
		"root's expired": {forge{crl: func(l []*x509.RevocationList) []*x509.RevocationList {
			l[0].ThisUpdate, l[0].NextUpdate = epoch.Add(-2*time.Hour), epoch.Add(-time.Second)
			return l
		}}, attest.CodeEndorsementExpired},
		"region's expired": {forge{crl: func(l []*x509.RevocationList) []*x509.RevocationList {
			l[1].ThisUpdate, l[1].NextUpdate = epoch.Add(-2*time.Hour), epoch.Add(-time.Second)
			return l
		}}, attest.CodeEndorsementExpired},
		"from the future": {forge{crl: func(l []*x509.RevocationList) []*x509.RevocationList {
			for _, list := range l {
				list.ThisUpdate = epoch.Add(time.Second)
			}
			return l
		}}, attest.CodeEndorsementExpired},
		"another serial number": {revoke(0, 102), ""},
	} {
		t.Run(name, func(t *testing.T) {
			claims, err := c.forge.make(t).verify(t, epoch)
			if err != nil {
				t.Fatal(err)
			}
			got := attest.Code("")
			if p := claims.Revocation.Problem; p != nil {
				got = p.Code
				if p.Check == "" || p.Remedy() == "" {
					t.Errorf("%+v", p)
				}
			}
			if got != c.want || (got == "") != (len(claims.Checks) == 5) || (got == "") != (len(claims.NotChecked) == 0) {
				t.Errorf("got %q, want %q; %v; %v", got, c.want, claims.Checks, claims.NotChecked)
			}
		})
	}
}

// endorser answers every request alike.
type endorser func(attest.Ref) ([]attest.Endorsement, error)

func (e endorser) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	return e(ref)
}

func TestFetchedLists(t *testing.T) {
	t.Parallel()
	none := func([]attest.Endorsement) []attest.Endorsement { return nil }
	f := forge{staple: none}.make(t)
	revoked := revoke(1, 102)
	for name, c := range map[string]struct {
		answer []attest.Endorsement
		err    error
		fails  attest.Code // of Verify
		claims attest.Code // of the claim
	}{
		"both":             {answer: f.lists},
		"one":              {answer: f.lists[:1], claims: attest.CodeEndorsementMissing},
		"none":             {claims: attest.CodeEndorsementMissing},
		"missing":          {err: &attest.Error{Code: attest.CodeEndorsementMissing}, claims: attest.CodeEndorsementMissing},
		"unreachable":      {err: &attest.Error{Code: attest.CodeEndorserUnreachable}, claims: attest.CodeEndorserUnreachable},
		"broken":           {err: errors.New("broken"), claims: attest.CodeEndorsementMissing},
		"malformed answer": {err: &attest.Error{Code: attest.CodeMalformedEndorsement}, claims: attest.CodeEndorsementMissing},
		"revoked":          {answer: revoked.revocationLists(f.certs), fails: attest.CodeRevoked},
		"too many":         {answer: slices.Repeat(f.lists[:1], attest.MaxEndorsements+1), fails: attest.CodeOversized},
		"not authentic":    {answer: forge{crlKey: [2]*ecdsa.PrivateKey{otherKey()}}.revocationLists(f.certs), fails: attest.CodeChain},
	} {
		t.Run(name, func(t *testing.T) {
			claims, err := nitro.NewVerifier(f.roots).Verify(t.Context(), f.evidence, endorser(func(ref attest.Ref) ([]attest.Endorsement, error) {
				if ref != (attest.Ref{Service: nitro.Service, Path: "/crl", Kind: attest.KindCRL}) {
					t.Errorf("asked for %v", ref)
				}
				return c.answer, c.err
			}), epoch)
			if attest.CodeOf(err) != c.fails {
				t.Fatal(err)
			}
			if err != nil {
				return
			}
			if p := claims.Revocation.Problem; (p == nil) != (c.claims == "") || p != nil && p.Code != c.claims {
				t.Errorf("got %v, want %q", p, c.claims)
			}
		})
	}
	// Of several lists the latest counts.
	old := forge{crl: func(l []*x509.RevocationList) []*x509.RevocationList {
		for _, list := range l {
			list.ThisUpdate, list.NextUpdate = epoch.Add(-3*time.Hour), epoch.Add(-2*time.Hour)
		}
		return l
	}}.revocationLists(f.certs)
	for _, lists := range [][]attest.Endorsement{slices.Concat(old, f.lists), slices.Concat(f.lists, old)} {
		claims, err := nitro.NewVerifier(f.roots).Verify(t.Context(), &attest.Evidence{Format: nitro.Format, Raw: f.evidence.Raw, Endorsements: lists}, nil, epoch)
		if err != nil || claims.Revocation.Problem != nil {
			t.Errorf("%v, %+v", err, claims)
		}
	}
	// What is stapled and sufficient spares the question.
	if _, err := nitro.NewVerifier(f.roots).Verify(t.Context(), &attest.Evidence{Format: nitro.Format, Raw: f.evidence.Raw, Endorsements: f.lists}, endorser(func(attest.Ref) ([]attest.Endorsement, error) {
		t.Error("asked")
		return nil, nil
	}), epoch); err != nil {
		t.Error(err)
	}
}

// A certificate of the chain is one whatever it says that it is, and no list.
func TestCertificateForAList(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	f.evidence.Endorsements = []attest.Endorsement{{Kind: attest.KindCRL, Raw: f.certs[root].Raw}}
	if _, err := f.verify(t, epoch); wants(err, attest.CodeMalformedEndorsement) != nil {
		t.Error(err)
	}
}

func TestVerifierInput(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	v := nitro.NewVerifier(f.roots)
	for name, ev := range map[string]*attest.Evidence{"nil": nil, "empty": {Format: nitro.Format}} {
		if _, err := v.Verify(t.Context(), ev, nil, epoch); attest.CodeOf(err) != attest.CodeNoEvidence {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := v.Verify(t.Context(), &attest.Evidence{Format: "snp", Raw: f.evidence.Raw}, nil, epoch); !errors.Is(err, attest.ErrNotMine) {
		t.Error(err)
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	for name, c := range map[string]struct {
		der  []byte
		want attest.Code
	}{
		"leaf":    {f.certs[leaf].Raw, attest.CodeChain},
		"garbage": {[]byte("x"), attest.CodeMalformedEndorsement},
		"empty":   {nil, attest.CodeMalformedEndorsement},
	} {
		if roots, err := nitro.NewRoots(f.certs[root].Raw, c.der); wants(err, c.want) != nil || roots != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if roots := nitro.AWSRoots(); roots == nil {
		t.Error("AWS's root does not decode")
	}
	if _, err := nitro.NewVerifier(nitro.AWSRoots()).Verify(t.Context(), f.evidence, nil, epoch); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Error(err)
	}
}

// BenchmarkWarm stands beside the signature verifications that it can't avoid: the document's and, where the leaf is new as
// every enclave has one of its own, the leaf's.
func BenchmarkWarm(b *testing.B) {
	f := forge{}.make(b)
	key := &keys()[leaf].PublicKey
	sum := sha512.Sum384([]byte("x"))
	signature, err := ecdsa.SignASN1(rand.Reader, keys()[leaf], sum[:])
	if err != nil {
		b.Fatal(err)
	}
	bare := func(times int) func() error {
		return func() error {
			for range times {
				if !ecdsa.VerifyASN1(key, sum[:], signature) {
					return errors.New("bare")
				}
			}
			return nil
		}
	}
	// Leaves of other enclaves of the instance; those of the last round are forgotten.
	leaves := make([]*attest.Evidence, 256)
	for i := range leaves {
		certs, template := f.certs, *f.certs[leaf]
		template.SerialNumber = big.NewInt(int64(1000 + i))
		der, err := x509.CreateCertificate(rand.Reader, &template, certs[instance], key, keys()[instance])
		if err != nil {
			b.Fatal(err)
		}
		certs[leaf] = &x509.Certificate{Raw: der}
		leaves[i] = &attest.Evidence{Format: nitro.Format, Raw: forge{}.document(b, certs)}
	}
	known := nitro.NewVerifier(f.roots)
	verify := func(ev *attest.Evidence) error {
		_, err := known.Verify(b.Context(), ev, nil, epoch)
		return err
	}
	plain := &attest.Evidence{Format: nitro.Format, Raw: f.evidence.Raw}
	n := 0
	bench.Compare(b, "nitro-new-leaf/2×P-384", 1.2, func() error {
		if n%len(leaves) == 0 { // forget the leaves, keep the authorities
			known = nitro.NewVerifier(f.roots)
			if err := verify(plain); err != nil {
				return err
			}
		}
		n++
		return verify(leaves[n%len(leaves)])
	}, bare(2))
	if err := verify(plain); err != nil {
		b.Fatal(err)
	}
	bench.Compare(b, "nitro/1×P-384", 1.2, func() error { return verify(plain) }, bare(1))
}
