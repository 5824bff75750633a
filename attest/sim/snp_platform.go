package sim

import (
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha512"
	"encoding/binary"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
)

// Format of simulated SEV-SNP Evidence. Raw is a report exactly as AMD's firmware would write it.
const Format = simulated + snp.Format

// Platform is a simulated SEV-SNP machine with one guest. It is safe for concurrent use.
type Platform struct {
	config    Config
	model     *model
	authority *authority
	key       *ecdsa.PrivateKey
	tcb       [8]byte
	pace      *pace
	guest     [32]byte // REPORT_ID, which a guest has from its launch on

	mu      sync.Mutex
	leaf    []byte
	list    []byte
	listed  time.Time
	revoked bool
}

var _ Machine = (*Platform)(nil)

// New makes a platform, and on first use of its directory a root. That takes a second: the root's keys are as long as
// AMD's, RSA with 4096 bits.
func New(cfg Config) (*Platform, error) {
	cfg, m, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	a, err := openAuthority(cfg.Dir, m, cfg.Now())
	if err != nil {
		return nil, err
	}
	return newPlatform(cfg, m, a)
}

func newPlatform(cfg Config, m *model, a *authority) (*Platform, error) {
	p := &Platform{config: cfg, model: m, authority: a, tcb: m.encode(cfg.TCB), pace: newPace(cfg.host())}
	_, _ = rand.Read(p.guest[:])
	var err error
	if p.key, err = a.signingKey(p.tcb, cfg.CSP); err != nil {
		return nil, err
	}
	p.leaf, err = a.leaf(p.tcb, cfg.CSP, cfg.Now())
	return p, err
}

// With makes another guest on hardware under the same root: cfg's Dir and Product are ignored.
func (p *Platform) With(cfg Config) (*Platform, error) {
	cfg.Dir, cfg.Product = p.config.Dir, p.config.Product
	cfg, m, err := cfg.complete()
	if err != nil {
		return nil, err
	}
	return newPlatform(cfg, m, p.authority)
}

// Root names the simulated root as a policy does: "sha256:" and the hex digest of its DER.
func (p *Platform) Root() string { return attest.Fingerprint(p.authority.ark.Raw) }

// Generation is that of the simulated product, such as "genoa".
func (p *Platform) Generation() string { return p.model.generation }

// ARK is the DER of the simulated root.
func (p *Platform) ARK() []byte { return slices.Clone(p.authority.ark.Raw) }

// Revoke stages that the vendor withdraws the key which certified this platform: lists made from now on name it.
func (p *Platform) Revoke() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.revoked, p.list = true, nil
}

// Attest implements attest.Attester. The endorsements are stapled: leaf, ASK or ASVK, ARK and revocation list.
func (p *Platform) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	return p.pace.attest(ctx, data, func() (*attest.Evidence, error) { return p.evidence(data) })
}

func (p *Platform) evidence(data attest.ReportData) (*attest.Evidence, error) {
	raw, err := p.report(data)
	if err != nil {
		return nil, err
	}
	list, err := p.crl()
	if err != nil {
		return nil, err
	}
	return &attest.Evidence{Format: Format, Raw: raw, Endorsements: []attest.Endorsement{
		{Kind: attest.KindCertificate, Raw: slices.Clone(p.leaf)},
		{Kind: attest.KindCertificate, Raw: slices.Clone(p.issuer())},
		{Kind: attest.KindCertificate, Raw: p.ARK()},
		{Kind: attest.KindCRL, Raw: list},
	}}, nil
}

func (p *Platform) issuer() []byte {
	if p.config.CSP != "" {
		return p.authority.asv.Raw
	}
	return p.authority.ask.Raw
}

// crl makes a new list every day.
func (p *Platform) crl() ([]byte, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.config.Now()
	if p.list == nil || now.Sub(p.listed) > 24*time.Hour || now.Before(p.listed) {
		list, err := p.authority.crl(p.revoked, now)
		if err != nil {
			return nil, err
		}
		p.list, p.listed = list, now
	}
	return slices.Clone(p.list), nil
}

// report writes an ATTESTATION_REPORT (56860 table 23) and signs it.
func (p *Platform) report(data attest.ReportData) ([]byte, error) {
	const (
		policyReservedOne = 1 << 17
		policySMT         = 1 << 16
		policyDebug       = 1 << 19
	)
	c, m := &p.config, p.model
	r := make([]byte, snp.ReportSize)
	le := binary.LittleEndian
	policy := uint64(policyReservedOne | policySMT)
	if c.Debug {
		policy |= policyDebug
	}
	platform := uint64(0b0_0111) // SMT, TSME, ECC
	if c.ReportVersion >= 3 {
		platform |= 1 << 5 // alias check complete
	}
	le.PutUint32(r[0x000:], uint32(c.ReportVersion))
	le.PutUint64(r[0x008:], policy)
	le.PutUint32(r[0x034:], 1) // ECDSA P-384 with SHA-384
	le.PutUint64(r[0x040:], platform)
	copy(r[0x050:], data[:])
	copy(r[0x090:], c.Measurement)
	copy(r[0x0c0:], c.HostData)
	copy(r[0x140:0x160], p.guest[:])
	for i := 0x160; i < 0x180; i++ {
		r[i] = 0xff // no migration agent
	}
	for _, at := range []int{0x038, 0x180, 0x1e0, 0x1f0} { // current, reported, committed, launch
		copy(r[at:], p.tcb[:])
	}
	if c.ReportVersion >= 3 {
		r[0x188], r[0x189], r[0x18a] = m.family, m.number, m.stepping
	}
	for _, at := range []int{0x1e8, 0x1ec} { // current and committed firmware
		r[at], r[at+1], r[at+2] = m.firmwareNo, m.firmwareMinor, 1
	}
	if c.CSP != "" {
		le.PutUint32(r[0x048:], 1<<2) // SIGNING_KEY is the VLEK
	} else {
		copy(r[0x1a0:0x1e0], p.authority.chipID())
	}
	digest := sha512.Sum384(r[:snp.SignedSize])
	der, err := ecdsa.SignASN1(rand.Reader, p.key, digest[:])
	if err != nil {
		return nil, err
	}
	first, second, err := signatureParts(der)
	if err != nil {
		return nil, err
	}
	for i, v := range []*big.Int{first, second} {
		little := v.FillBytes(make([]byte, 72))
		slices.Reverse(little)
		copy(r[snp.SignedSize+72*i:], little)
	}
	return r, nil
}

// String describes the platform for a log line.
func (p *Platform) String() string {
	return fmt.Sprintf("SIMULATED %s, report version %d, root %s", p.model.name, p.config.ReportVersion, p.Root())
}
