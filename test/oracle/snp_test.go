package oracle

import (
	"crypto/x509"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"github.com/google/go-sev-guest/validate"
	"github.com/google/go-sev-guest/verify"
	"github.com/google/go-sev-guest/verify/trust"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/test/vectors"
)

var now = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

// subject is evidence that both verifiers judge under the same root.
type subject struct {
	line        string
	report      []byte
	leaf        []byte
	ask, ark    *x509.Certificate
	ours        *snp.Verifier
	at          time.Time
	vlek        bool
	unsupported string // what the oracle does not know; empty where it knows all
}

func certificate(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func simulated(t *testing.T, product, line string, version int) subject {
	t.Helper()
	p, err := sim.New(sim.Config{Product: product, ReportVersion: version, Now: func() time.Time { return now }})
	if err != nil {
		t.Fatal(err)
	}
	ev, err := p.Attest(t.Context(), attest.ReportData{1, 2, 3})
	if err != nil {
		t.Fatal(err)
	}
	e := ev.Endorsements
	roots, err := snp.NewRoots(snp.Root{Generation: p.Generation(), ARK: p.ARK(), Intermediates: [][]byte{e[1].Raw}})
	if err != nil {
		t.Fatal(err)
	}
	return subject{line: line, report: ev.Raw, leaf: e[0].Raw, ask: certificate(t, e[1].Raw), ark: certificate(t, e[2].Raw), ours: snp.NewVerifier(roots), at: now}
}

func (s subject) accepted(t *testing.T, report, leaf []byte) error {
	t.Helper()
	_, err := s.ours.Verify(t.Context(), &attest.Evidence{Format: snp.Format, Raw: report, Endorsements: []attest.Endorsement{{Kind: attest.KindCertificate, Raw: leaf}}}, nil, s.at)
	return err
}

func (s subject) oracle(report, leaf []byte) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	if len(report) != abi.ReportSize {
		return fmt.Errorf("%d bytes", len(report))
	}
	parsed, err := abi.ReportToProto(report)
	if err != nil {
		return err
	}
	evidence := &spb.Attestation{Report: parsed, CertificateChain: &spb.CertificateChain{VcekCert: leaf}}
	if s.vlek {
		evidence.CertificateChain = &spb.CertificateChain{VlekCert: leaf}
	}
	options := &verify.Options{DisableCertFetching: true, Now: s.at, TrustedRoots: map[string][]*trust.AMDRootCerts{
		s.line: {{ProductLine: s.line, ProductCerts: &trust.ProductCerts{Ark: s.ark, Ask: s.ask}}},
	}}
	if err := verify.SnpAttestation(evidence, options); err != nil {
		return err
	}
	policy, err := abi.ParseSnpPolicy(parsed.Policy)
	if err != nil {
		return err
	}
	return validate.SnpAttestation(evidence, &validate.Options{GuestPolicy: policy, PermitProvisionalFirmware: true, ReportData: parsed.ReportData})
}

func (s subject) compare(t *testing.T) {
	t.Helper()
	if err := s.accepted(t, s.report, s.leaf); err != nil {
		t.Fatalf("ours refuses: %v", err)
	}
	theirs := s.oracle(s.report, s.leaf)
	if s.unsupported != "" {
		if theirs == nil {
			t.Errorf("the oracle now knows: %s", s.unsupported)
		}
		t.Logf("known divergence: %s: %v", s.unsupported, theirs)
		return
	}
	if theirs != nil {
		t.Fatalf("the oracle refuses: %v", theirs)
	}
	// Every 7th signed byte, with another bit each time; then the leaf, from its serial number to its signature.
	for at := 0; at < snp.SignedSize; at += 7 {
		report := slices.Clone(s.report)
		report[at] ^= 1 << (at % 8)
		both(t, fmt.Sprintf("report byte %#x", at), s.accepted(t, report, s.leaf), s.oracle(report, s.leaf))
	}
	for at := 4; at < len(s.leaf); at += 31 {
		leaf := slices.Clone(s.leaf)
		leaf[at] ^= 1 << (at % 8)
		both(t, fmt.Sprintf("leaf byte %#x", at), s.accepted(t, s.report, leaf), s.oracle(s.report, leaf))
	}
	both(t, "truncated", s.accepted(t, s.report[:len(s.report)-1], s.leaf), s.oracle(s.report[:len(s.report)-1], s.leaf))
}

func both(t *testing.T, what string, ours, theirs error) {
	t.Helper()
	if ours == nil || theirs == nil {
		t.Errorf("%s: ours %v, oracle %v; want both to refuse", what, ours, theirs)
	}
}

func TestSimulatedPlatforms(t *testing.T) {
	for _, product := range []struct{ name, line string }{{"milan", "Milan"}, {"genoa", "Genoa"}} {
		for _, version := range []int{2, 3, 5} {
			t.Run(fmt.Sprintf("%s version %d", product.name, version), func(t *testing.T) {
				simulated(t, product.name, product.line, version).compare(t)
			})
		}
	}
}

// TestKnownDivergences lists what this project verifies and the oracle does not; a change there shows here.
func TestKnownDivergences(t *testing.T) {
	for _, c := range []struct{ product, line, what string }{
		{"turin", "Turin", "Turin's certificates have an FMC component, an 8-byte chip id and another TCB layout"},
		{"siena", "Genoa", "CPUID model A0h (Bergamo, Siena) is certified under Genoa's root"},
	} {
		t.Run(c.product, func(t *testing.T) {
			s := simulated(t, c.product, c.line, 5)
			s.unsupported = c.what
			s.compare(t)
		})
	}
}

func TestRecordedVLEK(t *testing.T) {
	bundle := trust.DefaultRootCerts["Milan"].ProductCerts
	subject{
		line: "Milan", report: vectors.Read(t, "snp/milan-v3-vlek.report"), leaf: vectors.Read(t, "snp/milan-v3-vlek.vlek.der"),
		ask: bundle.Ask, ark: bundle.Ark, ours: snp.NewVerifier(snp.AMDRoots()), at: time.Date(2025, 6, 1, 0, 0, 0, 0, time.UTC), vlek: true,
		unsupported: "a VLEK, with the roots that come with the oracle",
	}.compare(t)
}

func TestRecordedMilan(t *testing.T) {
	bundle := trust.DefaultRootCerts["Milan"].ProductCerts
	s := subject{
		line: "Milan", report: vectors.Read(t, "snp/milan-v2.report"), leaf: vectors.Read(t, "snp/milan-v2.vcek.der"),
		ask: bundle.Ask, ark: bundle.Ark, ours: snp.NewVerifier(snp.AMDRoots()), at: now,
	}
	s.compare(t)
	for _, name := range []string{"snp/milan-v2.bad-vcek-legacy.der", "snp/milan-v2.bad-vcek-new.der"} {
		leaf := vectors.Read(t, name)
		both(t, name, s.accepted(t, s.report, leaf), s.oracle(s.report, leaf))
	}
}
