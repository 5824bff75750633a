package sim

import (
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/attest/tdx"
)

func tdxKind() kind {
	return dcapKind(tdx.Format, func(roots *dcap.Roots) attest.Verifier { return tdx.NewVerifier(roots) })
}

func sgxKind() kind {
	return dcapKind(sgx.Format, func(roots *dcap.Roots) attest.Verifier { return sgx.NewVerifier(roots) })
}

func dcapKind(format attest.Format, verifier func(*dcap.Roots) attest.Verifier) kind {
	tee := string(format)
	return kind{
		name:   tee,
		syntax: dcapSyntax(tee),
		open:   openDCAP,
		root:   func(ev *attest.Evidence) ([]byte, error) { return dcapRoot(tee, ev) },
		verifier: func(root []byte) (attest.Verifier, error) {
			roots, err := dcap.NewRoots(root)
			if err != nil {
				return nil, err
			}
			return verifier(roots), nil
		},
	}
}

// dcapRoot finds the one root among the endorsements. It must be of this TEE: the verifier of the other one would take it
// as well, but the policy that names it means the one that it says it is of.
func dcapRoot(tee string, ev *attest.Evidence) ([]byte, error) {
	root, err := rootCertificate(ev, func(c *x509.Certificate) bool { return c.Subject.CommonName == dcapRootName }, "a root among the endorsements")
	if err != nil {
		return nil, err
	}
	if unit := root.Subject.OrganizationalUnit; !slices.Equal(unit, []string{mark(tee)}) {
		return nil, &attest.Error{Code: attest.CodeUntrustedRoot, Check: "authenticity.chain", Got: fmt.Sprintf("a root of %.80q", unit), Want: mark(tee)}
	}
	return root.Raw, nil
}

// DCAP is a simulated Intel machine with one guest, an SGX enclave or a TD. It is safe for concurrent use.
type DCAP struct {
	config        *dcapConfig
	authority     *dcapAuthority
	pck, quoteKey string // roles of the keys of this TCB level
	now           func() time.Time
	pace          *pace

	mu    sync.Mutex
	stage dcapStage
	said  *dcapCollateral
}

var _ Machine = (*DCAP)(nil)

func openDCAP(s *Spec) (Machine, error) {
	c, err := newDCAPConfig(s)
	if err != nil {
		return nil, err
	}
	a, err := openDCAPAuthority(s.Dir, c.tee, s.Now())
	if err != nil {
		return nil, err
	}
	// As in hardware, another TCB level has other keys.
	level := fmt.Sprintf(" %x %x %d %d", c.fmspc, c.tcb.sgx, c.tcb.pce, c.tcb.qe)
	return &DCAP{config: c, authority: a, pck: keyPCK + " " + c.ca + level, quoteKey: keyQuote + level, now: s.Now, pace: newPace(&s.Host), stage: c.dcapStage}, nil
}

// Stage makes the vendor say something else from now on. What is one of the keys of a Spec that tell what the vendor says,
// with its value: status, module-status (TDX), qe-status, revoked, expired or evaluation.
func (m *DCAP) Stage(what string) error {
	key, value, _ := strings.Cut(what, "=")
	m.mu.Lock()
	defer m.mu.Unlock()
	stage := m.stage
	want, err := stage.set(m.config.tee, key, value)
	if want == "" || err != nil {
		return usage(attest.Quote(what), "a key of what the vendor says, with its value; "+dcapSyntax(m.config.tee))
	}
	m.stage, m.said = stage, nil
	return nil
}

// Root implements Machine.
func (m *DCAP) Root() string { return attest.Fingerprint(m.authority.root.Raw) }

// Attest implements attest.Attester. The endorsements are stapled.
func (m *DCAP) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	return m.pace.attest(ctx, data, func() (*attest.Evidence, error) {
		c, err := m.collateral()
		if err != nil {
			return nil, err
		}
		chain := append(pemChain(c.pck.Raw, c.cas[m.config.ca].Raw, m.authority.root.Raw), 0) // a string of C
		raw, err := m.quote(data, chain)
		if err != nil {
			return nil, err
		}
		return &attest.Evidence{Format: attest.Format(simulated + m.config.tee), Raw: raw, Endorsements: c.stapled(m)}, nil
	})
}

// String describes the machine for a log line.
func (m *DCAP) String() string {
	return fmt.Sprintf("SIMULATED %s %s, quote version %d, root %s", strings.ToUpper(m.config.tee), m.config.model.generation, m.config.version, m.Root())
}
