package dialect_test

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/test/dialectforge"
)

var now = time.Date(2026, 11, 20, 12, 0, 30, 0, time.UTC)

// machines of each TEE, made when they are first asked for.
var machines = func() map[string]func() sim.Machine {
	out := map[string]func() sim.Machine{}
	for name, spec := range map[string]string{"tdx": "sim:tdx", "sgx": "sim:sgx", "snp": "sim:snp:genoa", "nitro": "sim:nitro", "other-sgx": "sim:sgx,measurement=" + strings.Repeat("77", 32)} {
		out[name] = sync.OnceValue(func() sim.Machine {
			m, err := sim.Open(spec, "", func() time.Time { return now })
			if err != nil {
				panic(err)
			}
			return m
		})
	}
	return out
}()

// bench makes things of one machine and judges them.
type bench struct {
	*dialectforge.Forge
	made  map[string]*attest.Evidence // by its raw bytes
	roots []string                    // of the machines that were asked
}

func newBench(t testing.TB, tee string) *bench {
	b := &bench{made: map[string]*attest.Evidence{}}
	key := dialectforge.NewKey(t)
	b.Forge = &dialectforge.Forge{
		T: t, Key: key, NotBefore: time.Date(2026, 11, 20, 12, 0, 7, 0, time.UTC), NotAfter: now.Add(time.Hour), CommonName: "enclave.example",
		HPKE: bytes.Repeat([]byte{0x44}, 32), Exported: bytes.Repeat([]byte{0x55}, 32),
	}
	b.Quote = func(data [64]byte) []byte { return b.attest(machines[tee](), data) }
	b.Nitro = func(user, nonce []byte) []byte {
		raw, err := b.enclave().Document(user, nonce, nil)
		if err != nil {
			t.Fatal(err)
		}
		b.made[string(raw)] = &attest.Evidence{Format: "sim-nitro", Raw: raw}
		return raw
	}
	b.Parts = func(report []byte) []byte {
		parsed, err := abi.ReportToProto(report)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := proto.Marshal(&spb.Attestation{Report: parsed, CertificateChain: &spb.CertificateChain{Extras: map[string][]byte{"a": {1}, "b": {2}}}})
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	b.CSR = func(report []byte) (cert, crl, tcb []byte) {
		for _, e := range b.made[string(report)].Endorsements {
			switch e.Kind {
			case attest.KindCertificate:
				cert = e.Raw
			case attest.KindCRL:
				crl = e.Raw
			case attest.KindTCBInfo:
				tcb = e.Raw
			}
		}
		return cert, crl, tcb
	}
	return b
}

func (b *bench) enclave() *sim.Nitro {
	m := machines["nitro"]().(*sim.Nitro)
	b.roots = append(b.roots, m.Root())
	return m
}

func (b *bench) attest(m sim.Machine, data [64]byte) []byte {
	b.roots = append(b.roots, m.Root())
	ev, err := m.Attest(b.T.Context(), data)
	if err != nil {
		b.T.Fatal(err)
	}
	b.made[string(ev.Raw)] = ev
	return ev.Raw
}

// simulated verifies what is in the form of hardware as what the simulated machine has made.
type simulated struct {
	*bench
	attest.Verifier
}

func (s simulated) Verify(ctx context.Context, ev *attest.Evidence, e attest.Endorser, at time.Time) (*attest.Claims, error) {
	copied := *ev
	copied.Format = "sim-" + ev.Format
	copied.Endorsements = nil
	if known := s.made[string(ev.Raw)]; known != nil {
		copied.Endorsements = known.Endorsements
	} else {
		for _, known := range s.made { // evidence that was changed: all that is known of the machine
			copied.Endorsements = known.Endorsements
		}
	}
	return s.Verifier.Verify(ctx, &copied, e, at)
}

type anything struct{ seen *attest.Situation }

func (p anything) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement {
	*p.seen = s
	return attest.Judgement{ID: "sha256:test", Checks: []attest.Check{{ID: "test", Status: attest.StatusPass}}}
}

// judge reads what is shown and appraises it.
func (b *bench) judge(s dialect.Shown, c dialect.Context, allow ...string) (*attest.Result, attest.Situation) {
	b.T.Helper()
	r, err := dialect.NewReader(allow...)
	if err != nil {
		b.T.Fatal(err)
	}
	found, err := r.Read(s, c)
	if err != nil {
		return attest.RefusedResult(err, now), attest.Situation{}
	}
	var seen attest.Situation
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, simulated{b, sim.NewVerifier(b.roots)})
	return dialect.Appraise(b.T.Context(), appraiser, found, anything{&seen}, now), seen
}

var nonce = []byte("0123456789abcdef0123456789abcdef")

// shape is one dialect in one of its forms.
type shape struct {
	name, allow, tee string
	make             func(*bench) dialect.Shown
	context          func(*bench) dialect.Context
	level            attest.Level
	made             time.Time // by what is signed
	document         bool
}

func none(*bench) dialect.Context { return dialect.Context{} }

func asked(b *bench) dialect.Context { return dialect.Context{Nonce: nonce, Asked: now} }

func connected(b *bench) dialect.Context {
	return dialect.Context{Asked: now, Suite: 0x1301, Request: nonce, Exporter: func(label string, context []byte, n int) ([]byte, error) {
		if label != "Attestation" || !bytes.Equal(context, nonce) || n != 32 {
			b.T.Errorf("exporter %q, %x, %d", label, context, n)
		}
		return bytes.Repeat([]byte{0x55}, 32), nil
	}}
}

func cert(make func(*bench) *x509.Certificate) func(*bench) dialect.Shown {
	return func(b *bench) dialect.Shown { return dialect.Shown{Leaf: make(b)} }
}

func withNonce(make func(*bench) *x509.Certificate) func(*bench) dialect.Shown {
	return func(b *bench) dialect.Shown {
		b.Nonce = nonce
		return dialect.Shown{Leaf: make(b)}
	}
}

func shapes() []shape {
	minute := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	begin := time.Date(2026, 11, 20, 12, 0, 7, 0, time.UTC)
	key, withKey, pinned, session := attest.LevelKey, attest.LevelNonce, attest.LevelPinned, attest.LevelSession
	return []shape{
		{"dice sgx", dialect.DICE, "sgx", cert(func(b *bench) *x509.Certificate { return b.DICE() }), none, key, time.Time{}, false},
		{"dice tdx", dialect.DICE, "tdx", cert(func(b *bench) *x509.Certificate { return b.DICE() }), none, key, time.Time{}, false},
		{"dice nonce", dialect.DICE, "tdx", withNonce(func(b *bench) *x509.Certificate { return b.DICE() }), asked, withKey, now, false},
		{"dice, a nonce of others", dialect.DICE, "tdx", withNonce(func(b *bench) *x509.Certificate { return b.DICE() }), none, key, time.Time{}, false},
		{"rats-tls", "rats-tls", "sgx", cert(func(b *bench) *x509.Certificate { return b.RatsTLS(60000) }), none, key, time.Time{}, false},
		{"tng snp", "tng", "snp", cert(func(b *bench) *x509.Certificate { return b.RatsTLS(0x1a7504) }), none, key, time.Time{}, false},
		{"sgx-sdk", dialect.SGXSDK, "sgx", cert(func(b *bench) *x509.Certificate { return b.SGXSDK() }), none, key, time.Time{}, false},
		{"gramine legacy", dialect.GramineLegacy, "sgx", cert(func(b *bench) *x509.Certificate { return b.Gramine() }), none, key, time.Time{}, false},
		{"gramine both", "gramine", "sgx", cert(func(b *bench) *x509.Certificate { return b.GramineBoth() }), none, key, time.Time{}, false},
		{"ego", dialect.EGo, "sgx", cert(func(b *bench) *x509.Certificate { return b.EGo() }), none, key, time.Time{}, false},
		{"openenclave", dialect.OpenEnclave, "sgx", cert(func(b *bench) *x509.Certificate { return b.OpenEnclave() }), none, key, time.Time{}, false},
		{"openenclave, old", dialect.OpenEnclave, "sgx", cert(func(b *bench) *x509.Certificate {
			b.OID = dialectforge.OIDOEOldReport
			return b.OpenEnclave()
		}), none, key, time.Time{}, false},
		{"openenclave evidence", dialect.OpenEnclave, "sgx", cert(func(b *bench) *x509.Certificate { return b.OEEvidence(append(b.PEM(), 0)) }), none, key, time.Time{}, false},
		{"openenclave claims", dialect.OpenEnclave, "sgx", cert(func(b *bench) *x509.Certificate {
			return b.OEEvidence(dialectforge.OEClaims([2]string{"key", string(append(b.PEM(), 0))}, [2]string{"x", "y"}))
		}), none, key, time.Time{}, false},
		{"openenclave evidence, old", dialect.OpenEnclave, "sgx", cert(func(b *bench) *x509.Certificate { return b.OELegacyEvidence(append(b.PEM(), 0)) }), none, key, time.Time{}, false},
		{"constellation", dialect.Constellation, "tdx", withNonce(func(b *bench) *x509.Certificate { return b.Constellation() }), asked, withKey, now, false},
		{"cvm-reverse-proxy", "cvm-reverse-proxy", "tdx", withNonce(func(b *bench) *x509.Certificate { return b.Constellation() }), asked, withKey, now, false},
		{"contrast", dialect.Contrast, "snp", withNonce(func(b *bench) *x509.Certificate { return b.Contrast() }), asked, withKey, now, false},
		{"dstack quote", dialect.Dstack, "tdx", cert(func(b *bench) *x509.Certificate { return b.DstackQuote() }), none, key, time.Time{}, false},
		{"dstack", dialect.Dstack, "tdx", cert(func(b *bench) *x509.Certificate { return b.Dstack() }), none, key, time.Time{}, false},
		{"dstack now", dialect.Dstack, "tdx", cert(func(b *bench) *x509.Certificate { return b.DstackNow() }), none, key, time.Time{}, false},
		{"dstack nitro", dialect.Dstack, "nitro", cert(func(b *bench) *x509.Certificate { return b.DstackNitro() }), none, key, now, false},
		{"dstack document", dialect.Dstack, "tdx", func(b *bench) dialect.Shown {
			return dialect.Shown{Leaf: b.Certificate(), Document: b.DstackDocument()}
		}, none, pinned, time.Time{}, true},
		{"attested-tls", dialect.AttestedTLS, "tdx", cert(func(b *bench) *x509.Certificate { return b.AttestedTLS() }), none, key, begin, false},
		{"privasys tdx", dialect.Privasys, "tdx", cert(func(b *bench) *x509.Certificate { return b.Privasys() }), none, key, minute, false},
		{"privasys snp", dialect.Privasys, "snp", cert(func(b *bench) *x509.Certificate {
			b.OID = dialectforge.OIDPrivasysSNP
			return b.Privasys()
		}), none, key, minute, false},
		{"c8s snp", dialect.C8s, "snp", cert(func(b *bench) *x509.Certificate { return b.C8s(1, nil) }), none, key, time.Time{}, false},
		{"c8s tdx", dialect.C8s, "tdx", cert(func(b *bench) *x509.Certificate { return b.C8s(2, nil) }), none, key, time.Time{}, false},
		{"evervault", dialect.Evervault, "nitro", cert(func(b *bench) *x509.Certificate { return b.Evervault() }), none, key, now, false},
		{"evervault nonce", dialect.Evervault, "nitro", withNonce(func(b *bench) *x509.Certificate { return b.Evervault() }), asked, withKey, now, false},
		{"nitriding", dialect.Nitriding, "nitro", func(b *bench) dialect.Shown {
			b.Nonce = nonce
			leaf := b.Certificate()
			return dialect.Shown{Leaf: leaf, Document: b.Forge.Nitriding(leaf, [32]byte{})}
		}, asked, pinned, now, true},
		{"tinfoil", dialect.Tinfoil, "tdx", func(b *bench) dialect.Shown {
			leaf, document := b.Tinfoil()
			return dialect.Shown{Leaf: leaf, Document: document}
		}, none, pinned, time.Time{}, true},
		{"enarx snp", dialect.Enarx, "snp", func(b *bench) dialect.Shown { return dialect.Shown{Request: b.EnarxSNP()} }, none, pinned, time.Time{}, false},
		{"enarx sgx", dialect.Enarx, "sgx", func(b *bench) dialect.Shown { return dialect.Shown{Request: b.EnarxSGX()} }, none, pinned, time.Time{}, false},
		{"cocos", dialect.Cocos, "tdx", func(b *bench) dialect.Shown {
			return dialect.Shown{Leaf: b.Certificate(), Document: b.Forge.Cocos()}
		}, connected, session, now, true},
	}
}

func refused(t *testing.T, r *attest.Result, want ...attest.Code) {
	t.Helper()
	for _, w := range want {
		if r.Code() == w {
			return
		}
	}
	if r.Affirmed() || len(want) > 0 || r.Code() == attest.CodeInternal {
		t.Fatalf("got %s (%v), want a refusal with one of %q", r.Verdict(), r.Err(), want)
	}
}

// Every dialect is read as its specification has it, at the level that is really reached.
func TestLevels(t *testing.T) {
	for _, s := range shapes() {
		t.Run(s.name, func(t *testing.T) {
			b := newBench(t, s.tee)
			r, seen := b.judge(s.make(b), s.context(b), s.allow)
			if !r.Affirmed() {
				t.Fatal(r.Err())
			}
			if r.Level() != s.level || seen.Level != s.level {
				t.Errorf("level %s, want %s", r.Level(), s.level)
			}
			if got := r.EvidenceTime(); !got.Truncate(time.Millisecond).Equal(s.made) {
				t.Errorf("made %s, want %s", got, s.made)
			}
			named, err := dialect.NewReader(s.allow)
			if err != nil || !named.Allows(dialect.DialectOf(r)) {
				t.Errorf("dialect %q in %+v, %v", dialect.DialectOf(r), r.Checks(), err)
			}
			agree := slices.ContainsFunc(r.Checks(), func(c attest.Check) bool { return c.ID == "binding.dialects" })
			if two := s.name == "gramine both"; agree != two {
				t.Errorf("compared with other evidence: %v, want %v", agree, two)
			}
		})
	}
}

// What is not for this key, or not whole, is refused in every dialect.
func TestTraps(t *testing.T) {
	for _, s := range shapes() {
		run := func(name string, change func(*testing.T, *bench) *attest.Result, want ...attest.Code) {
			t.Run(s.name+"/"+name, func(t *testing.T) { refused(t, change(t, newBench(t, s.tee)), want...) })
		}
		judged := func(change func(*bench)) func(*testing.T, *bench) *attest.Result {
			return func(_ *testing.T, b *bench) *attest.Result {
				change(b)
				r, _ := b.judge(s.make(b), s.context(b), s.allow)
				return r
			}
		}
		bound := []attest.Code{attest.CodeReportData}
		run("hash of something else", judged(func(b *bench) { b.Signed = func(p []byte) []byte { return append(p, 0) } }), bound...)
		run("hash of nothing", judged(func(b *bench) { b.Signed = func([]byte) []byte { return nil } }), bound...)
		run("another key", func(_ *testing.T, b *bench) *attest.Result {
			shown := s.make(b)
			other := newBench(t, s.tee)
			theirs := s.make(other)
			if shown.Document != nil {
				shown.Leaf = theirs.Leaf
				if s.allow == dialect.Tinfoil { // whose certificate names the document
					shown.Leaf.DNSNames = b.Names
				}
			} else if shown.Leaf != nil {
				theirs.Leaf.Extensions, theirs.Leaf.DNSNames = shown.Leaf.Extensions, shown.Leaf.DNSNames
				shown.Leaf = theirs.Leaf
			} else {
				theirs.Request.Extensions = shown.Request.Extensions
				shown.Request = theirs.Request
			}
			r, _ := b.judge(shown, s.context(b), s.allow)
			return r
		}, bound...)
		if s.tee != "nitro" {
			run("a bit after the hash", judged(func(b *bench) { b.Data = func(d *[64]byte) { d[63] ^= 1 } }), bound...)
			run("a shorter hash", judged(func(b *bench) { b.Data = func(d *[64]byte) { clear(d[16:32]) } }), bound...)
		}
		run("bytes after it", judged(func(b *bench) { b.Value = func(v []byte) []byte { return append(v, 0x5a) } }))
		for _, part := range []int{0, 1, 2, 10, 50, 90} {
			run("cut short", judged(func(b *bench) { b.Value = func(v []byte) []byte { return v[:len(v)*part/100] } }))
		}
		run("empty", judged(func(b *bench) { b.Value = func(v []byte) []byte { return nil } }))
		run("not allowed", func(_ *testing.T, b *bench) *attest.Result {
			other := dialect.C8s
			if s.allow == other {
				other = dialect.EGo
			}
			r, _ := b.judge(s.make(b), s.context(b), other)
			return r
		}, attest.CodeDialect)
		if s.level == attest.LevelNonce {
			run("another nonce", func(_ *testing.T, b *bench) *attest.Result {
				c := s.context(b)
				c.Nonce = bytes.Repeat([]byte{1}, 32)
				r, _ := b.judge(s.make(b), c, s.allow)
				if s.allow == dialect.DICE && r.Level() == attest.LevelKey {
					return attest.RefusedResult(&attest.Error{Code: attest.CodeReportData}, now) // read as what it is
				}
				return r
			}, bound...)
			run("a short nonce", func(_ *testing.T, b *bench) *attest.Result {
				c := s.context(b)
				c.Nonce = nonce[:15]
				r, _ := b.judge(s.make(b), c, s.allow)
				if r.Affirmed() && r.Level() == attest.LevelKey {
					return attest.RefusedResult(&attest.Error{Code: attest.CodeNoExpectation}, now)
				}
				return r
			}, attest.CodeNoExpectation)
		}
		shown := s.make(newBench(t, s.tee))
		if shown.Leaf == nil || s.document || s.allow == dialect.Evervault {
			continue
		}
		run("twice", func(_ *testing.T, b *bench) *attest.Result {
			shown := s.make(b)
			shown.Leaf.Extensions = append(shown.Leaf.Extensions, shown.Leaf.Extensions[len(shown.Leaf.Extensions)-1])
			r, _ := b.judge(shown, s.context(b), s.allow)
			return r
		}, attest.CodeDuplicateExtension)
		run("with a critical extension that nobody knows", judged(func(b *bench) {
			b.Extra = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}), attest.CodeCriticalExtension)
		run("with evidence that is not read", judged(func(b *bench) {
			b.Extra = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 12345, 1}, Value: []byte{5, 0}}}
		}), attest.CodeUnknownFormat)
	}
}

// DICE demands that its extension be critical. Who reads it may take it as such.
func TestCritical(t *testing.T) {
	b := newBench(t, "sgx")
	b.Critical = true
	if r, _ := b.judge(dialect.Shown{Leaf: b.DICE()}, dialect.Context{}, dialect.DICE); !r.Affirmed() {
		t.Fatal(r.Err())
	}
	// Nobody has taken it where its dialect is not allowed, whatever it says.
	for _, allow := range [][]string{{dialect.DICE, dialect.GramineLegacy}, {dialect.DICE}} {
		b = newBench(t, "sgx")
		b.Extra = []pkix.Extension{{Id: dialectforge.OIDGramine, Critical: true, Value: b.Quote([64]byte(append(sum(b.SPKI()), make([]byte, 32)...)))}}
		if r, _ := b.judge(dialect.Shown{Leaf: b.DICE()}, dialect.Context{}, allow...); r.Affirmed() != (len(allow) == 2) || !r.Affirmed() && r.Code() != attest.CodeCriticalExtension {
			t.Errorf("%v: %v", allow, r.Err())
		}
	}
	b = newBench(t, "snp")
	b.Critical = true
	r, _ := b.judge(dialect.Shown{Request: b.EnarxSNP()}, dialect.Context{}, dialect.Enarx)
	refused(t, r, attest.CodeCriticalExtension)
}

// Two dialects hold for one certificate only if they say the same.
func TestTwoDialects(t *testing.T) {
	both := func(b *bench, second func(*bench) pkix.Extension) *x509.Certificate {
		return b.Certificate(pkix.Extension{Id: dialectforge.OIDDICE, Value: b.TaggedEvidence(60000, b.Claims())}, second(b))
	}
	gramine := func(quote func(*bench, [64]byte) []byte) func(*bench) pkix.Extension {
		return func(b *bench) pkix.Extension {
			return pkix.Extension{Id: dialectforge.OIDGramine, Value: quote(b, [64]byte(append(sum(b.SPKI()), make([]byte, 32)...)))}
		}
	}
	for name, c := range map[string]struct {
		second func(*bench) pkix.Extension
		allow  []string
		want   attest.Code
	}{
		"agree":                 {gramine(func(b *bench, d [64]byte) []byte { return b.Quote(d) }), []string{dialect.DICE}, ""},
		"agree, other allowed":  {gramine(func(b *bench, d [64]byte) []byte { return b.Quote(d) }), []string{dialect.GramineLegacy}, ""},
		"agree, by default":     {gramine(func(b *bench, d [64]byte) []byte { return b.Quote(d) }), nil, ""},
		"another program":       {gramine(func(b *bench, d [64]byte) []byte { return b.attest(machines["other-sgx"](), d) }), []string{dialect.DICE}, attest.CodeDialects},
		"another program, both": {gramine(func(b *bench, d [64]byte) []byte { return b.attest(machines["other-sgx"](), d) }), []string{dialect.DICE, dialect.GramineLegacy}, attest.CodeDialects},
		"another key":           {gramine(func(b *bench, d [64]byte) []byte { d[0] ^= 1; return b.Quote(d) }), []string{dialect.DICE}, attest.CodeReportData},
		"unreadable":            {gramine(func(*bench, [64]byte) []byte { return []byte("quote") }), []string{dialect.DICE}, attest.CodeDialect},
		"unreadable, allowed":   {gramine(func(*bench, [64]byte) []byte { return []byte("quote") }), []string{dialect.DICE, dialect.GramineLegacy}, attest.CodeUnknownFormat},
		"unsigned": {gramine(func(b *bench, d [64]byte) []byte {
			q := b.Quote(d)
			q[440] ^= 1
			return q
		}), []string{dialect.DICE}, attest.CodeSignature},
		"neither allowed": {gramine(func(b *bench, d [64]byte) []byte { return b.Quote(d) }), []string{dialect.EGo}, attest.CodeDialect},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "sgx")
			r, _ := b.judge(dialect.Shown{Leaf: both(b, c.second)}, dialect.Context{}, c.allow...)
			if c.want == "" {
				if !r.Affirmed() {
					t.Fatal(r.Err())
				}
				return
			}
			refused(t, r, c.want)
			if got := dialect.DialectOf(r); got != "" && c.want == attest.CodeDialect {
				t.Errorf("not allowed, and read as %s", got)
			}
		})
	}
}

// told is a verifier that claims what a test says of evidence, and remembers the endorsements that came with it.
type told struct {
	claims map[string]*attest.Claims
	got    map[string][]attest.Endorsement
}

func (v told) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	v.got[string(ev.Raw)] = ev.Endorsements
	return v.claims[string(ev.Raw)], nil
}

// Evidence in two dialects is of one machine and one software, in all that tells machines and software apart.
func TestAgreement(t *testing.T) {
	for name, c := range map[string]struct {
		change func(*attest.Claims)
		want   string
	}{
		"the same":   {func(*attest.Claims) {}, ""},
		"a register": {func(c *attest.Claims) { c.Measured["rtmr3"] = []byte{1} }, ""}, // which grows
		"vendor":     {func(c *attest.Claims) { c.Vendor = "b" }, "another platform"},
		"TEE":        {func(c *attest.Claims) { c.TEE = "b" }, "another platform"},
		"root":       {func(c *attest.Claims) { c.Root = "b" }, "another platform"},
		"generation": {func(c *attest.Claims) { c.Generation = "b" }, "another platform"},
		"launch":     {func(c *attest.Claims) { c.Measured["launch"] = []byte{2} }, "another measurement"},
		"signer":     {func(c *attest.Claims) { c.Measured["signer"] = []byte{2} }, "another measurement"},
		"chip":       {func(c *attest.Claims) { c.ChipID = []byte{2} }, "another machine"},
		"PPID":       {func(c *attest.Claims) { c.PPID = []byte{2} }, "another machine"},
		"module":     {func(c *attest.Claims) { c.Module = "b" }, "another machine"},
		"debugging":  {func(c *attest.Claims) { c.Debug = attest.On }, "another state of debugging"},
	} {
		t.Run(name, func(t *testing.T) {
			claims := func() *attest.Claims {
				return &attest.Claims{
					Vendor: "a", TEE: "a", Root: "a", Generation: "a", Debug: attest.Off, ReportData: attest.ReportData{1},
					Provenance: attest.Provenance{ChipID: []byte{1}, PPID: []byte{1}, Module: "a"}, Measured: map[string]attest.HexBytes{"launch": {1}, "signer": {1}},
				}
			}
			other := claims()
			c.change(other)
			v := told{map[string]*attest.Claims{"one": claims(), "two": other}, map[string][]attest.Endorsement{}}
			one, two := attest.Endorsement{Raw: []byte("1")}, attest.Endorsement{Raw: []byte("2")}
			for _, brought := range [][]attest.Endorsement{nil, {two}} {
				found := func(raw string, e ...attest.Endorsement) *dialect.Found {
					return &dialect.Found{Dialect: raw, Allowed: raw == "one", Level: attest.LevelKey, ReportData: []attest.ReportData{{1}}, Evidence: &attest.Evidence{Raw: []byte(raw), Endorsements: e}}
				}
				var seen attest.Situation
				r := dialect.Appraise(t.Context(), attest.NewAppraiser(nil, v), []*dialect.Found{found("one", one), found("two", brought...)}, anything{&seen}, now)
				if c.want == "" && !r.Affirmed() {
					t.Fatal(r.Err())
				}
				if c.want != "" && (r.Code() != attest.CodeDialects || !strings.Contains(r.Err().Error(), c.want)) {
					t.Errorf("%v, want %s", r.Err(), c.want)
				}
				// What one dialect has no room for, the other may have brought.
				want := "1"
				if brought != nil {
					want = "2"
				}
				if got := v.got["two"]; len(got) != 1 || string(got[0].Raw) != want {
					t.Errorf("endorsements %v, want %s", got, want)
				}
			}
		})
	}
}

type silent struct{}

func (silent) Judge(*attest.Claims, attest.Situation) attest.Judgement { return attest.Judgement{} }

// Who has no policy, or one without a rule, takes nothing, in one dialect or in two.
func TestEmptyPolicy(t *testing.T) {
	v := told{map[string]*attest.Claims{"one": {ReportData: attest.ReportData{1}}, "two": {ReportData: attest.ReportData{1}}}, map[string][]attest.Endorsement{}}
	var found []*dialect.Found
	for _, raw := range []string{"one", "two"} {
		found = append(found, &dialect.Found{Allowed: true, Level: attest.LevelKey, ReportData: []attest.ReportData{{1}}, Evidence: &attest.Evidence{Raw: []byte(raw)}})
		for _, policy := range []attest.Policy{nil, silent{}} {
			if r := dialect.Appraise(t.Context(), attest.NewAppraiser(nil, v), found, policy, now); r.Code() != attest.CodeEmptyPolicy {
				t.Errorf("%v after %q: %v", policy, raw, r.Err())
			}
		}
	}
}

// Two places for what one SDK writes twice hold one quote.
func TestTwin(t *testing.T) {
	b := newBench(t, "sgx")
	other := b.Quote([64]byte{1})
	b.Value = func([]byte) []byte { return other }
	r, _ := b.judge(dialect.Shown{Leaf: b.SGXSDK()}, dialect.Context{}, dialect.SGXSDK, dialect.DICE)
	refused(t, r, attest.CodeDialects)

	b = newBench(t, "sgx")
	r, _ = b.judge(dialect.Shown{Leaf: b.Certificate(pkix.Extension{Id: dialectforge.OIDIntelSGX, Value: b.Quote([64]byte(append(sum(b.Claims()), make([]byte, 32)...)))})}, dialect.Context{}, dialect.SGXSDK)
	refused(t, r, attest.CodeNoExpectation)

	b = newBench(t, "sgx")
	both, err := dialect.NewReader(dialect.SGXSDK, dialect.DICE)
	if err != nil {
		t.Fatal(err)
	}
	found, err := both.Read(dialect.Shown{Leaf: b.SGXSDK()}, dialect.Context{})
	if err != nil || len(found) != 1 || found[0].Dialect != "dice or sgx-sdk" || found[0].Preimage != "SHA-256(claims)" || len(found[0].ReportData) != 1 {
		t.Errorf("%+v, %v", found, err)
	}

	// The same identifier in a PCK certificate is no evidence.
	b = newBench(t, "sgx")
	b.Extra = []pkix.Extension{{Id: dialectforge.OIDIntelSGX, Value: []byte{0x30, 0}}}
	if r, _ := b.judge(dialect.Shown{Leaf: b.DICE()}, dialect.Context{}, dialect.DICE, dialect.SGXSDK); !r.Affirmed() {
		t.Fatal(r.Err())
	}
	r, _ = b.judge(dialect.Shown{Leaf: b.Certificate()}, dialect.Context{}, dialect.SGXSDK)
	refused(t, r, attest.CodeNoEvidence)
}

// One extension, two hashes of the key: only that of an allowed dialect counts.
func TestHashOfTheAllowedDialect(t *testing.T) {
	ego := func(b *bench) *x509.Certificate { return b.EGo() }
	oe := func(b *bench) *x509.Certificate { return b.OpenEnclave() }
	for name, c := range map[string]struct {
		make  func(*bench) *x509.Certificate
		allow []string
		ok    bool
	}{
		"ego as ego": {ego, []string{dialect.EGo}, true}, "ego as openenclave": {ego, []string{dialect.OpenEnclave}, false},
		"openenclave as ego": {oe, []string{dialect.EGo}, false}, "openenclave as openenclave": {oe, []string{dialect.OpenEnclave}, true},
		"ego as either": {ego, []string{dialect.EGo, dialect.OpenEnclave}, true}, "openenclave as either": {oe, []string{dialect.EGo, dialect.OpenEnclave}, true},
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, "sgx")
			r, _ := b.judge(dialect.Shown{Leaf: c.make(b)}, dialect.Context{}, c.allow...)
			if r.Affirmed() != c.ok {
				t.Fatalf("%s: %v", r.Verdict(), r.Err())
			}
			if !c.ok {
				refused(t, r, attest.CodeReportData)
			}
			both := "ego or openenclave, SHA-256(SPKI) or SHA-256(PEM and NUL)"
			if i := slices.IndexFunc(r.Checks(), func(x attest.Check) bool { return x.ID == dialect.CheckID }); i < 0 || (r.Checks()[i].Got == both) != (len(c.allow) == 2) {
				t.Errorf("%+v", r.Checks())
			}
		})
	}
}

func TestNames(t *testing.T) {
	if _, err := dialect.NewReader("sgx"); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("%v", err)
	}
	known := dialect.Known()
	if _, err := dialect.NewReader(known...); err != nil {
		t.Error(err)
	}
	if len(dialect.All()) < 15 {
		t.Errorf("%d dialects", len(dialect.All()))
	}
	var nobody *dialect.Reader
	for _, d := range dialect.All() {
		if nobody.Allows(d.Name()) != (d.Name() == dialect.DICE) {
			t.Errorf("%s by default", d.Name())
		}
	}
	for name, want := range map[string][2]string{
		dialect.Contrast:      {"host.example", "atls:v1:nonce:" + strings.Repeat("61", 16)},
		dialect.Constellation: {"YWFhYWFhYWFhYWFhYWFhYQ==", ""},
		dialect.Evervault:     {"YWFhYWFhYWFhYWFhYWFhYQ==.attest.host.example", ""},
		dialect.EGo:           {"host.example", ""},
	} {
		r, err := dialect.NewReader(name)
		if err != nil {
			t.Fatal(err)
		}
		server, protos := r.Ask("host.example", bytes.Repeat([]byte{'a'}, 16))
		if server != want[0] || strings.Join(protos, " ") != want[1] || r.Asks() != (name != dialect.EGo) {
			t.Errorf("%s: %q %q", name, server, protos)
		}
	}
}

func TestNothingShown(t *testing.T) {
	b := newBench(t, "sgx")
	for _, s := range []dialect.Shown{{}, {Leaf: b.Certificate()}, {Document: []byte("{}")}, {Document: []byte("hello")}} {
		found, err := new(dialect.Reader).Read(s, dialect.Context{})
		if err != nil || len(found) != 0 {
			t.Errorf("%v, %v", found, err)
		}
	}
	if r := dialect.Appraise(t.Context(), attest.NewAppraiser(nil), nil, nil, now); r.Code() != attest.CodeNoEvidence {
		t.Error(r.Err())
	}
	// Evidence that was read in none.
	v := told{map[string]*attest.Claims{"raw": {ReportData: attest.ReportData{1}}}, map[string][]attest.Endorsement{}}
	expect := attest.Expect(attest.ReportData{1}, attest.LevelKey, now)
	r := attest.NewAppraiser(nil, v).Appraise(t.Context(), &attest.Evidence{Raw: []byte("raw")}, expect, anything{new(attest.Situation)}, now)
	if got := dialect.DialectOf(r); !r.Affirmed() || got != "" {
		t.Errorf("dialect %q, %v", got, r.Err())
	}
}

func TestEd25519(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	b := newBench(t, "tdx")
	b.Key = key
	b.Signed = func([]byte) []byte { return key.Public().(ed25519.PublicKey) }
	if r, _ := b.judge(dialect.Shown{Leaf: b.C8s(2, nil)}, dialect.Context{}, dialect.C8s); !r.Affirmed() {
		t.Fatal(r.Err())
	}
}
