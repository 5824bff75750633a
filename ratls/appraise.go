package ratls

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/ratls/session"
)

// RelyingParty appraises peers by one policy, or by what is in force at a place. It is safe for concurrent use.
type RelyingParty struct {
	appraiser *attest.Appraiser
	policy    attest.Policy
	place     *enforce.Place // in place of both, where it is not nil
	now       func() time.Time
	pinned    bool            // who connects compares the key, and sees no evidence
	dialects  *dialect.Reader // in which evidence of others is taken
}

// NewRelyingParty makes one. The clock is the relying party's own: that of an attester belongs to its host.
func NewRelyingParty(appraiser *attest.Appraiser, policy attest.Policy, now func() time.Time) *RelyingParty {
	return &RelyingParty{appraiser: appraiser, policy: policy, now: now}
}

// NewEnforcedParty makes one that appraises peers by what is in force at a place when they connect, and whose connections are
// judged again whenever that changes: the connection of a peer that is then affirmed no more ends.
func NewEnforcedParty(place enforce.Place, now func() time.Time) *RelyingParty {
	return &RelyingParty{place: &place, now: now}
}

// ForPin is rp for peers whose keys somebody else is going to compare, on connections that rp does not see. In the certificate
// tier it finds the level pinned, which is less than key: evidence was seen once, and not by who relies on it.
func (rp *RelyingParty) ForPin() *RelyingParty {
	out := *rp
	out.pinned = true
	return &out
}

// WithDialects is rp that takes evidence in the dialects that r allows. Without it that is DICE alone, in certificates for the name
// that the peer is known by. The level that a policy is told is the one that such evidence really reaches.
func (rp *RelyingParty) WithDialects(r *dialect.Reader) *RelyingParty {
	out := *rp
	out.dialects = r
	return &out
}

// basis is what peers are appraised by now.
func (rp *RelyingParty) basis() (*attest.Appraiser, attest.Policy) {
	if rp.place != nil {
		return rp.place.Basis()
	}
	return rp.appraiser, rp.policy
}

// epoch is what connections are admitted by that are appraised from now on.
func (rp *RelyingParty) epoch() uint64 {
	if rp == nil || rp.place == nil {
		return 0
	}
	return rp.place.Epoch()
}

// Peer says whom the relying party means to talk to. The zero value is nobody.
type Peer struct {
	name string
	any  bool
}

// Server expects a peer that has attested name: a DNS name or an IP address.
func Server(name string) Peer { return Peer{name: strings.TrimSuffix(strings.ToLower(name), ".")} }

// AnyClient expects a client, which nobody connected to by name.
func AnyClient() Peer { return Peer{any: true} }

// Appraise judges the DER certificates that a peer presented, leaf first, at the relying party's time. The caller must
// have seen, or must see before it uses the Result, that the peer holds the leaf's key: TLS proves that when the
// handshake completes.
func (rp *RelyingParty) Appraise(ctx context.Context, chain [][]byte, peer Peer) *attest.Result {
	r, _ := rp.appraise(ctx, chain, peer, dialect.Context{})
	return r
}

// AppraiseKnowing is Appraise for a relying party that has sent a nonce, which some dialects have the hardware sign.
func (rp *RelyingParty) AppraiseKnowing(ctx context.Context, chain [][]byte, peer Peer, known dialect.Context) *attest.Result {
	r, _ := rp.appraise(ctx, chain, peer, known)
	return r
}

// appraise also answers the evidence that the Result is about; nil where there was none.
func (rp *RelyingParty) appraise(ctx context.Context, chain [][]byte, peer Peer, known dialect.Context) (*attest.Result, *attest.Evidence) {
	now := rp.now()
	leaf, err := parseLeaf(chain)
	if err != nil {
		return attest.RefusedResult(err, now), nil
	}
	found, err := rp.dialects.Read(dialect.Shown{Leaf: leaf}, known)
	if err != nil {
		return attest.RefusedResult(err, now), nil
	}
	if len(found) > 0 {
		return rp.appraiseForeign(ctx, leaf, found, peer, now)
	}
	level := attest.LevelKey
	if rp.pinned {
		level = attest.LevelPinned
	}
	ev, want, err := open(leaf, peer, level, now)
	if err != nil {
		return attest.RefusedResult(err, now), nil
	}
	appraiser, policy := rp.basis()
	return appraiser.Appraise(ctx, ev, want, policy, now), ev
}

// AppraisePresented judges what a peer presented, in whichever tier, as Appraise does.
func (rp *RelyingParty) AppraisePresented(ctx context.Context, p Presented, peer Peer) *attest.Result {
	if p.Session != nil {
		return rp.appraiseSession(ctx, p.Session, peer)
	}
	return rp.Appraise(ctx, p.Chain, peer)
}

// appraiseSession judges what a peer presented for one connection, at the relying party's time.
func (rp *RelyingParty) appraiseSession(ctx context.Context, p *session.Presented, peer Peer) *attest.Result {
	now := rp.now()
	leaf, checks, err := admitSession(p, peer, now)
	if err == nil {
		err = checkShape(leaf)
	}
	if err != nil {
		return attest.RefusedResult(err, now)
	}
	ev, want, err := p.Expect(leaf)
	if err != nil {
		return attest.RefusedResult(err, now)
	}
	appraiser, policy := rp.basis()
	return appraiser.Appraise(ctx, ev, want.With(checks...), policy, now)
}

// open checks the leaf and finds its evidence and what the hardware should have signed.
func open(leaf *x509.Certificate, peer Peer, level attest.Level, now time.Time) (*attest.Evidence, attest.Expectation, error) {
	checks, err := admit(leaf, peer, now)
	if err != nil {
		return nil, attest.Expectation{}, err
	}
	c, err := decode(leaf)
	if err != nil {
		return nil, attest.Expectation{}, err
	}
	return c.Evidence, attest.Expect(c.ReportData, level, leaf.NotBefore).WithConfig(c.Config).With(checks...), nil
}

// admitSession finds the leaf that was presented in a session and admits it.
func admitSession(p *session.Presented, peer Peer, now time.Time) (*x509.Certificate, []attest.Check, error) {
	leaf := p.Leaf()
	if leaf == nil {
		var err error
		if leaf, err = parseLeaf(p.Chain); err != nil {
			return nil, nil, err
		}
	}
	checks, err := admit(leaf, peer, now)
	return leaf, checks, err
}

// admit checks that a leaf is for the peer that is meant, and for now.
func admit(leaf *x509.Certificate, peer Peer, now time.Time) ([]attest.Check, error) {
	if err := checkName(leaf, peer); err != nil {
		return nil, err
	}
	if err := checkValidity(leaf, now); err != nil {
		return nil, err
	}
	var checks []attest.Check
	if !peer.any {
		checks = append(checks, attest.Check{ID: "binding.name", Status: attest.StatusPass, Text: "certificate is for this name", Got: peer.name, Source: attest.SourceHardware})
	}
	return append(checks, attest.Check{
		ID: "binding.validity", Status: attest.StatusPass, Text: "certificate is valid now",
		Got: "until " + stamp(leaf.NotAfter), Source: attest.SourceHardware,
	}), nil
}

func checkValidity(leaf *x509.Certificate, now time.Time) error {
	if now.Before(leaf.NotBefore) {
		return &attest.Error{Code: attest.CodeLeafNotYetValid, Check: "binding.validity", Got: "valid from " + stamp(leaf.NotBefore), Want: "at " + stamp(now)}
	}
	if now.After(leaf.NotAfter) {
		return &attest.Error{Code: attest.CodeLeafExpired, Check: "binding.validity", Got: "valid until " + stamp(leaf.NotAfter), Want: "at " + stamp(now)}
	}
	return nil
}

// Content is what a peer presented, decoded and not judged.
type Content struct {
	Leaf       *x509.Certificate
	Evidence   *attest.Evidence
	Config     [32]byte          // digest of the measured configuration
	ReportData attest.ReportData // what the hardware has to have signed for this leaf, or for the connection
}

// Open decodes the leaf of a chain without judging anything.
func Open(chain [][]byte) (*Content, error) {
	leaf, err := parseLeaf(chain)
	if err != nil {
		return nil, err
	}
	return decode(leaf)
}

// OpenPresented decodes what a peer presented without judging anything.
func OpenPresented(p Presented) (*Content, error) {
	if p.Session == nil {
		return Open(p.Chain)
	}
	leaf, err := parseLeaf(p.Chain)
	if err != nil {
		return nil, err
	}
	s, err := p.Session.Open(leaf)
	if err != nil {
		return nil, err
	}
	return &Content{Leaf: leaf, Evidence: s.Evidence, Config: s.Config, ReportData: s.ReportData}, nil
}

// Leaf is the certificate that was presented.
func (p Presented) Leaf() (*x509.Certificate, error) { return parseLeaf(p.Chain) }

func parseLeaf(chain [][]byte) (*x509.Certificate, error) {
	if len(chain) == 0 {
		return nil, &attest.Error{Code: attest.CodeNoEvidence, Check: "evidence", Got: "no certificate"}
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		return nil, badCertificate(err)
	}
	return leaf, nil
}

// badCertificate gives crypto/x509's refusal of a certificate its code. crypto/tls passes it on as text only.
func badCertificate(err error) error {
	code := attest.CodeMalformedCertificate
	if strings.Contains(err.Error(), "duplicate extension") {
		code = attest.CodeDuplicateExtension
	}
	return &attest.Error{Code: code, Check: "evidence", Err: err}
}

func decode(leaf *x509.Certificate) (*Content, error) {
	var ext []byte
	for _, e := range leaf.Extensions {
		if !e.Id.Equal(cmw.OID()) {
			continue
		}
		// crypto/x509 refuses repeated extensions; were it to stop, which of two counts would be the attacker's choice.
		if ext != nil {
			return nil, &attest.Error{Code: attest.CodeDuplicateExtension, Check: "evidence", Got: e.Id.String()}
		}
		ext = e.Value
	}
	if ext == nil && len(leaf.UnhandledCriticalExtensions) == 0 {
		return nil, &attest.Error{Code: attest.CodeNoEvidence, Check: "evidence", Got: fmt.Sprintf("an ordinary certificate for %.100q", names(leaf)), Want: "extension id-pe-cmw (" + cmw.OID().String() + ")"}
	}
	if err := checkShape(leaf); err != nil {
		return nil, err
	}
	ev, config, err := cmw.Unmarshal(ext)
	if err != nil {
		return nil, err
	}
	b := cmw.Binding{SPKI: leaf.RawSubjectPublicKeyInfo, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter, DNSNames: leaf.DNSNames, Config: config}
	for _, ip := range leaf.IPAddresses {
		addr, ok := netip.AddrFromSlice(ip)
		if !ok {
			return nil, &attest.Error{Code: attest.CodeMalformedCertificate, Check: "evidence", Got: "an IP address of odd length"}
		}
		b.IPs = append(b.IPs, addr)
	}
	data, err := b.ReportData()
	if err != nil {
		return nil, err
	}
	return &Content{Leaf: leaf, Evidence: ev, Config: config, ReportData: data}, nil
}

// checkShape refuses what no leaf of ours has.
func checkShape(leaf *x509.Certificate) error {
	switch {
	case len(leaf.UnhandledCriticalExtensions) > 0:
		return &attest.Error{Code: attest.CodeCriticalExtension, Check: "evidence", Got: leaf.UnhandledCriticalExtensions[0].String()}
	case len(leaf.EmailAddresses) > 0 || len(leaf.URIs) > 0:
		// The claims buffer has no room for them, so the hardware did not sign them.
		return &attest.Error{Code: attest.CodeMalformedCertificate, Check: "evidence", Got: "alternative names other than DNS names and IP addresses"}
	}
	return checkAuthority(leaf)
}

// checkAuthority refuses a leaf that may certify others: jurat exec gives it to programs as the one authority they have.
func checkAuthority(leaf *x509.Certificate) error {
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageCertSign != 0 {
		return &attest.Error{Code: attest.CodeMalformedCertificate, Check: "evidence", Got: "a certificate that may certify others"}
	}
	return nil
}

func checkName(leaf *x509.Certificate, peer Peer) error {
	if peer.any {
		return nil
	}
	if peer.name == "" {
		return &attest.Error{Code: attest.CodeNoExpectation, Check: "binding.name", Want: "the name the peer was reached by"}
	}
	if err := leaf.VerifyHostname(peer.name); err != nil {
		return &attest.Error{Code: attest.CodeName, Check: "binding.name", Got: fmt.Sprintf("%.200s", names(leaf)), Want: peer.name}
	}
	return nil
}

func names(leaf *x509.Certificate) string {
	all := append([]string(nil), leaf.DNSNames...)
	for _, ip := range leaf.IPAddresses {
		all = append(all, ip.String())
	}
	if len(all) == 0 {
		return "no name"
	}
	return strings.Join(all, ", ")
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// Pin is the SHA-256 of the leaf's public key in the form of curl's --pinnedpubkey: "sha256//" and base64.
func Pin(leaf *x509.Certificate) string {
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return "sha256//" + base64.StdEncoding.EncodeToString(sum[:])
}
