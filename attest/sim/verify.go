package sim

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
)

// NewVerifier makes a Verifier of simulated Evidence under the given roots, each "sha256:" and hex as a policy names it.
// It runs the verification of real hardware over the evidence and labels the claims as simulated. Without roots it
// refuses all simulated evidence.
func NewVerifier(roots []string) attest.Verifier {
	v := &verifier{roots: map[string]bool{}, verifiers: map[string]*snp.Verifier{}}
	for _, r := range roots {
		v.roots[strings.ToLower(strings.TrimSpace(r))] = true
	}
	return v
}

type verifier struct {
	roots map[string]bool

	mu        sync.Mutex
	verifiers map[string]*snp.Verifier // by root; no more than there are roots
}

// Verify implements attest.Verifier.
func (v *verifier) Verify(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser, now time.Time) (*attest.Claims, error) {
	if ev == nil || ev.Format != Format {
		return nil, attest.ErrNotMine
	}
	ark, err := rootCertificate(ev)
	if err != nil {
		return nil, err
	}
	root := fingerprint(ark.Raw)
	if !v.roots[root] {
		want := "a root that the policy names"
		if len(v.roots) == 0 {
			want = "evidence of hardware: the policy names no simulated root"
		}
		return nil, &attest.Error{Code: attest.CodeSimulated, Check: "authenticity.simulated", Got: "a simulated platform under " + root, Want: want}
	}
	real, err := v.under(root, ark)
	if err != nil {
		return nil, err
	}
	copied := *ev
	copied.Format = snp.Format
	if endorser == nil {
		endorser = attest.NoEndorser{}
	}
	claims, err := real.Verify(ctx, &copied, simulatedService{endorser}, now)
	if err != nil {
		return nil, err
	}
	claims.Vendor, claims.Simulated, claims.Product = "sim", true, "SIMULATED "+claims.Product
	claims.Checks = append([]attest.Check{{
		ID: "authenticity.simulated", Status: attest.StatusPass, Text: "SIMULATED platform under a root that is named", Got: root, Source: attest.SourceLocal,
	}}, claims.Checks...)
	claims.NotChecked = append([]string{"hardware: the platform is SIMULATED"}, claims.NotChecked...)
	return claims, nil
}

// under returns the verifier of hardware that trusts this one root.
func (v *verifier) under(root string, ark *x509.Certificate) (*snp.Verifier, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.verifiers[root]; known != nil {
		return known, nil
	}
	roots, err := snp.NewRoots(snp.Root{Generation: strings.ToLower(strings.TrimPrefix(ark.Subject.CommonName, "ARK-")), ARK: ark.Raw})
	if err != nil {
		return nil, err
	}
	v.verifiers[root] = snp.NewVerifier(roots)
	return v.verifiers[root], nil
}

// RootOf names the root that simulated evidence claims to be under. Nothing of it is verified.
func RootOf(ev *attest.Evidence) (string, error) {
	if ev == nil || ev.Format != Format {
		return "", attest.ErrNotMine
	}
	ark, err := rootCertificate(ev)
	if err != nil {
		return "", err
	}
	return fingerprint(ark.Raw), nil
}

// rootCertificate finds the one ARK among the endorsements.
func rootCertificate(ev *attest.Evidence) (*x509.Certificate, error) {
	var ark *x509.Certificate
	for _, e := range ev.Endorsements {
		if e.Kind != attest.KindCertificate {
			continue
		}
		cert, err := x509.ParseCertificate(e.Raw)
		if err != nil {
			return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: "authenticity.chain", Err: err}
		}
		if !strings.HasPrefix(cert.Subject.CommonName, "ARK-") {
			continue
		}
		if ark != nil {
			return nil, &attest.Error{Code: attest.CodeChain, Check: "authenticity.chain", Got: "several roots", Want: "one"}
		}
		ark = cert
	}
	if ark == nil {
		return nil, &attest.Error{Code: attest.CodeEndorsementMissing, Check: "authenticity.chain", Got: "simulated evidence without its root", Want: "an ARK among the endorsements"}
	}
	return ark, nil
}

// simulatedService asks an endorser for the simulated service instead of AMD's.
type simulatedService struct{ endorser attest.Endorser }

// Endorse implements attest.Endorser.
func (s simulatedService) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	ref.Service = KDSService
	list, err := s.endorser.Endorse(ctx, ref)
	if err == nil && len(list) == 0 {
		err = &attest.Error{Code: attest.CodeEndorsementMissing, Check: "endorsements", Err: errors.New("empty answer"), Want: fmt.Sprint(ref.Service, ref.Path)}
	}
	return list, err
}
