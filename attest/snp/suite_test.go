package snp_test

import (
	"crypto/elliptic"
	"crypto/x509"
	"fmt"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/snp"
)

// appraise judges forged evidence by a real policy, with its lines added. The policy demands a revocation list.
func (f forged) appraise(t testing.TB, data attest.ReportData, lines string) *attest.Result {
	t.Helper()
	p, err := policy.Parse("test.yaml", []byte("policy: test\nplatforms:\n  allow: [amd milan+]\nworkload:\n  measurement: any\n  debug: off\nbinding: key\n"+lines), policy.NoFiles)
	if err != nil {
		t.Fatal(err)
	}
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, snp.NewVerifier(f.roots))
	return appraiser.Appraise(t.Context(), f.evidence, attest.Expect(data, attest.LevelKey, epoch), p, epoch)
}

func reportData() (data attest.ReportData) {
	copy(data[:], "report data")
	return data
}

// TestVerdicts: what is authentic and yet no good, with the code of the policy that says so.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	noList := func(e []attest.Endorsement) []attest.Endorsement { return e[:2] }
	oversized := func(e []attest.Endorsement) []attest.Endorsement {
		return append(e, attest.Endorsement{Kind: attest.KindCertificate, Raw: make([]byte, attest.MaxEndorsement+1)})
	}
	type verdict struct {
		name  string
		forge forge
		data  attest.ReportData
		lines string
		code  attest.Code
	}
	all := []verdict{
		{"good", forge{}, reportData(), "", ""},
		{"good Turin", forge{turin: true, version: 5}, reportData(), "", ""},
		{"good VLEK", forge{vlek: true}, reportData(), "", ""},
		{"other report data", forge{}, attest.ReportData{1}, "", attest.CodeReportData},
		{"empty report data expected", forge{}, attest.ReportData{}, "", attest.CodeNoExpectation},
		{"empty report data signed", reportHook(func(r []byte) { clear(r[0x50:0x90]) }), reportData(), "", attest.CodeReportData},
		{"debugging", reportHook(set(0x0a, 0x0b)), reportData(), "", attest.CodeDebug},
		{"migration agent", reportHook(set(0x0a, 0x07)), reportData(), "", attest.CodeMigratable},
		{"low privilege", reportHook(set(0x30, 1)), reportData(), "", attest.CodePrivilege},
		{"no list", forge{staple: noList}, reportData(), "", attest.CodeEndorsementMissing},
		{"outdated list", forge{crl: func(l *x509.RevocationList) { l.NextUpdate = epoch.Add(-time.Second) }}, reportData(), "", attest.CodeEndorsementExpired},
		{"list too old", forge{}, reportData(), "freshness: {endorsements: 1h}\n", attest.CodeEndorsementTooOld},
		{"oversized report", forge{raw: func(r []byte) []byte { return append(r, make([]byte, attest.MaxRaw)...) }}, reportData(), "", attest.CodeOversized},
		{"empty report", forge{raw: func([]byte) []byte { return nil }}, reportData(), "", attest.CodeNoEvidence},
		{"oversized endorsement", forge{staple: oversized}, reportData(), "", attest.CodeOversized},
	}
	floor := func(name, component string, turin bool, at int, code attest.Code) {
		f := forge{turin: turin}
		all = append(all, verdict{name, f, reportData(), fmt.Sprintf("tcb: {%s: %d}\n", component, at), code})
	}
	for component, have := range map[string]int{"bootloader": 3, "tee": 2, "snp": 22, "microcode": 115, "fmc": 5} {
		for _, turin := range []bool{false, true} {
			if component == "fmc" && !turin {
				floor("Milan has no fmc", component, turin, 0, attest.CodeClaimAbsent)
				continue
			}
			floor(fmt.Sprintf("%s at its floor, Turin %v", component, turin), component, turin, have, "")
			floor(fmt.Sprintf("%s below its floor, Turin %v", component, turin), component, turin, have+1, attest.CodeTCBBelowFloor)
		}
	}
	for _, c := range all {
		if got := c.forge.make(t).appraise(t, c.data, c.lines); got.Code() != c.code {
			t.Errorf("%s: got %q (%v), want %q", c.name, got.Code(), got.Err(), c.code)
		}
	}
}

// TestEveryLength: a report of any other length is refused, and nothing reads past its end.
func TestEveryLength(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	for n := range snp.ReportSize + 64 {
		want := attest.CodeMalformed
		switch n {
		case 0:
			want = attest.CodeNoEvidence
		case snp.ReportSize:
			want = ""
		}
		cut := f
		raw := append(slices.Clone(f.evidence.Raw), make([]byte, 64)...)[:n]
		cut.evidence = &attest.Evidence{Format: snp.Format, Raw: raw, Endorsements: f.evidence.Endorsements}
		if _, err := cut.verify(t, nil); attest.CodeOf(err) != want {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
}

// unsigned lists what may change in evidence without refusal, and why it says nothing.
var unsigned = map[string]func(*attest.Evidence){
	"the other solution of the signature: (r, n-s) verifies where (r, s) does": func(ev *attest.Evidence) {
		s := slices.Clone(ev.Raw[snp.SignedSize+72:][:48])
		slices.Reverse(s)
		other := new(big.Int).Sub(elliptic.P384().Params().N, new(big.Int).SetBytes(s)).FillBytes(make([]byte, 48))
		slices.Reverse(other)
		copy(ev.Raw[snp.SignedSize+72:], other)
	},
	"the order of the endorsements: each is found by what it is": func(ev *attest.Evidence) { slices.Reverse(ev.Endorsements) },
	"how often an endorsement is there: one is used": func(ev *attest.Evidence) {
		ev.Endorsements = append(ev.Endorsements, ev.Endorsements...)
	},
	"the event log: SEV-SNP has none, and it is not looked at": func(ev *attest.Evidence) { ev.EventLog = []byte("anything") },
}

// TestUnsigned: everything on the list may change, and nothing else. Every byte of the report and of each endorsement is
// changed, one bit of it at a time, another bit in the next byte.
func TestUnsigned(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	fresh := func() forged {
		c := f
		c.evidence = &attest.Evidence{Format: f.evidence.Format, Raw: slices.Clone(f.evidence.Raw)}
		for _, e := range f.evidence.Endorsements {
			c.evidence.Endorsements = append(c.evidence.Endorsements, attest.Endorsement{Kind: e.Kind, Raw: slices.Clone(e.Raw)})
		}
		return c
	}
	for what, change := range unsigned {
		c := fresh()
		change(c.evidence)
		if r := c.appraise(t, reportData(), ""); !r.Affirmed() {
			t.Errorf("%s: %v", what, r.Err())
		}
	}
	stride := 1
	if testing.Short() {
		stride = 31
	}
	verifier := snp.NewVerifier(f.roots) // that remembers, as in production
	flip := func(part string, length int, raw func(forged) []byte) {
		for at := 0; at < length; at += stride {
			c := fresh()
			raw(c)[at] ^= 1 << (at % 8)
			claims, err := verifier.Verify(t.Context(), c.evidence, nil, epoch)
			// A list of somebody else's is not looked at, and then there is none: undecided.
			if err == nil && claims.Revocation.Problem == nil || attest.CodeOf(err) == attest.CodeInternal {
				t.Errorf("byte %#x of the %s: %v", at, part, err)
			}
		}
	}
	if _, err := verifier.Verify(t.Context(), f.evidence, nil, epoch); err != nil {
		t.Fatal(err)
	}
	flip("report", snp.ReportSize, func(c forged) []byte { return c.evidence.Raw })
	for i, part := range []string{"leaf", "ASK", "list"} {
		flip(part, len(f.evidence.Endorsements[i].Raw), func(c forged) []byte { return c.evidence.Endorsements[i].Raw })
	}
}
