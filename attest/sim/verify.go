package sim

import (
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// NewVerifier makes a Verifier of simulated Evidence of every TEE under the given roots, each "sha256:" and hex as a policy
// names it. It runs the verification of real hardware over the evidence and labels the claims as simulated. Without roots
// it refuses all simulated evidence.
func NewVerifier(roots []string) attest.Verifier {
	v := &verifier{roots: map[string]bool{}, verifiers: map[trusted]attest.Verifier{}}
	for _, r := range roots {
		v.roots[strings.ToLower(strings.TrimSpace(r))] = true
	}
	return v
}

type verifier struct {
	roots map[string]bool

	mu        sync.Mutex
	verifiers map[trusted]attest.Verifier // no more than there are roots and TEEs
}

// trusted is a root, for one TEE.
type trusted struct{ tee, root string }

// Verify implements attest.Verifier.
func (v *verifier) Verify(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser, now time.Time) (*attest.Claims, error) {
	k, der, err := claimed(ev)
	if err != nil {
		return nil, err
	}
	root := attest.Fingerprint(der)
	if !v.roots[root] {
		want := "a root that the policy names"
		if len(v.roots) == 0 {
			want = "evidence of hardware: the policy names no simulated root"
		}
		return nil, &attest.Error{Code: attest.CodeSimulated, Check: "authenticity.simulated", Got: "a simulated platform under " + root, Want: want}
	}
	real, err := v.under(k, root, der)
	if err != nil {
		return nil, err
	}
	copied := *ev
	copied.Format = attest.Format(k.name)
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
func (v *verifier) under(k *kind, root string, der []byte) (attest.Verifier, error) {
	key := trusted{k.name, root}
	v.mu.Lock()
	defer v.mu.Unlock()
	if known := v.verifiers[key]; known != nil {
		return known, nil
	}
	made, err := k.verifier(der)
	if err != nil {
		return nil, err
	}
	v.verifiers[key] = made
	return made, nil
}

// RootOf names the root that simulated evidence claims to be under. Nothing of it is verified.
func RootOf(ev *attest.Evidence) (string, error) {
	_, der, err := claimed(ev)
	if err != nil {
		return "", err
	}
	return attest.Fingerprint(der), nil
}

// claimed finds the TEE that evidence claims to be of, and the root.
func claimed(ev *attest.Evidence) (*kind, []byte, error) {
	if ev == nil {
		return nil, nil, attest.ErrNotMine
	}
	k := kindWhere(func(k *kind) bool { return k.format() == ev.Format })
	if k == nil {
		return nil, nil, attest.ErrNotMine
	}
	der, err := k.root(ev)
	return k, der, err
}

// rootCertificate finds the one root among the certificates that are stapled.
func rootCertificate(ev *attest.Evidence, isRoot func(*x509.Certificate) bool, want string) (*x509.Certificate, error) {
	var root *x509.Certificate
	for _, e := range ev.Endorsements {
		if e.Kind != attest.KindCertificate {
			continue
		}
		cert, err := x509.ParseCertificate(e.Raw)
		if err != nil {
			return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: "authenticity.chain", Err: err}
		}
		if !isRoot(cert) {
			continue
		}
		if root != nil {
			return nil, &attest.Error{Code: attest.CodeChain, Check: "authenticity.chain", Got: "several roots", Want: "one"}
		}
		root = cert
	}
	if root == nil {
		return nil, &attest.Error{Code: attest.CodeEndorsementMissing, Check: "authenticity.chain", Got: "simulated evidence without its root", Want: want}
	}
	return root, nil
}

// simulatedService asks an endorser for the simulated service instead of the vendor's, so that identifiers of simulated
// machines never reach a vendor.
type simulatedService struct{ endorser attest.Endorser }

// Endorse implements attest.Endorser.
func (s simulatedService) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	ref.Service = simulated + ref.Service
	list, err := s.endorser.Endorse(ctx, ref)
	if err == nil && len(list) == 0 {
		err = &attest.Error{Code: attest.CodeEndorsementMissing, Check: "endorsements", Err: errors.New("empty answer"), Want: ref.Service + ref.Path}
	}
	return list, err
}
