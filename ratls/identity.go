package ratls

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/ratls/session"
)

const (
	// DefaultLifetime of a leaf. It is renewed, under a new key, after half of it.
	DefaultLifetime = time.Hour
	// backdate allows for peers whose clocks are behind.
	backdate = time.Minute
	// renewalRetry is the pause after a failed renewal.
	renewalRetry = 10 * time.Second
	// renewalCheck bounds how long a renewal sleeps: a machine that was suspended wakes with a clock far ahead of its timers.
	renewalCheck = time.Minute
)

// IdentityOptions tune an Identity.
type IdentityOptions struct {
	Lifetime time.Duration      // of a leaf; 0 means DefaultLifetime
	Now      func() time.Time   // nil means time.Now
	OnRenew  func(*Leaf, error) // called after each renewal or failed try; may be nil
	Batch    batch.Options      // of the quotes that sessions share
	Dialects []*dialect.Writer  // of other programs, in which the certificate shows evidence as well
	// UnsafeExport lets Export give the keys of this identity's leaves to another program. Whoever has one is taken for this
	// identity in the certificate tier, for as long as its leaf is valid.
	UnsafeExport bool
}

// Leaf is one certificate of an Identity.
type Leaf struct {
	Certificate *x509.Certificate
	Format      attest.Format
	Digest      [32]byte // SHA-256 of the raw evidence
	tls         tls.Certificate
	// bare is without evidence, for peers that get theirs in the session: it has the same key, names and life.
	bare tls.Certificate
	own  *session.Own
}

// Identity is what this process presents to its peers: a leaf with fresh Evidence, replaced before it ages.
type Identity struct {
	attester attest.Attester
	dns      []string
	ips      []netip.Addr
	config   [32]byte
	opts     IdentityOptions
	leaf     atomic.Pointer[Leaf]
	next     atomic.Pointer[Leaf] // that was prepared; nil where none was
	batcher  *batch.Batcher
}

// NewIdentity makes an identity for the given host names and IP addresses and obtains its first leaf. The names are those
// that peers may connect by; an identity that only connects to others needs none. config is the digest of the measured
// configuration, to which every leaf commits.
func NewIdentity(ctx context.Context, attester attest.Attester, names []string, config [32]byte, opts IdentityOptions) (*Identity, error) {
	if opts.Lifetime == 0 {
		opts.Lifetime = DefaultLifetime
	}
	if err := CheckLifetime(opts.Lifetime); err != nil {
		return nil, err
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	id := &Identity{attester: attester, config: config, opts: opts}
	id.batcher = batch.New(attester, func(size uint64, root merkle.Hash) attest.ReportData {
		return session.ReportData(size, root, config)
	}, opts.Batch)
	for _, n := range names {
		if err := id.addName(n); err != nil {
			return nil, err
		}
	}
	if err := id.Renew(ctx); err != nil {
		return nil, err
	}
	return id, nil
}

// CheckLifetime reports what is wrong with the lifetime of a leaf.
func CheckLifetime(d time.Duration) error {
	if d < 2*backdate {
		return &attest.Error{Code: attest.CodeConfigValue, Check: "identity.lifetime", Got: d.String(), Want: fmt.Sprintf("at least %s", 2*backdate)}
	}
	return nil
}

// CheckName reports what is wrong with a name that an identity is to have.
func CheckName(n string) error {
	if _, err := netip.ParseAddr(n); err == nil || validHost(strings.ToLower(n)) {
		return nil
	}
	return &attest.Error{Code: attest.CodeConfigValue, Check: "identity.names", Got: fmt.Sprintf("%.100q", n), Want: "a DNS name or an IP address"}
}

func (id *Identity) addName(n string) error {
	if err := CheckName(n); err != nil {
		return err
	}
	if ip, err := netip.ParseAddr(n); err == nil {
		if ip = ip.Unmap().WithZone(""); !slices.Contains(id.ips, ip) { // a certificate has no room for zones
			id.ips = append(id.ips, ip)
		}
		return nil
	}
	n = strings.ToLower(n)
	if !slices.Contains(id.dns, n) {
		id.dns = append(id.dns, n)
	}
	return nil
}

// validHost reports whether n is a plain DNS name. Wildcards are refused: a name is attested one by one.
func validHost(n string) bool {
	if n == "" || len(n) > 253 {
		return false
	}
	for label := range strings.SplitSeq(n, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range label {
			if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// Renew replaces the leaf at once. Connections made with the old one are not touched.
func (id *Identity) Renew(ctx context.Context) error {
	leaf, err := id.make(ctx)
	if err == nil {
		id.leaf.Store(leaf)
	}
	id.told(leaf, err)
	return err
}

func (id *Identity) told(leaf *Leaf, err error) {
	if id.opts.OnRenew != nil {
		id.opts.OnRenew(leaf, err)
	}
}

func (id *Identity) make(ctx context.Context) (*Leaf, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, err
	}
	now := id.opts.Now().UTC().Truncate(time.Second) // X.509 times have whole seconds
	binding := cmw.Binding{
		SPKI: spki, NotBefore: now.Add(-backdate), NotAfter: now.Add(id.opts.Lifetime),
		DNSNames: id.dns, IPs: id.ips, Config: id.config,
	}
	data, err := binding.ReportData()
	if err != nil {
		return nil, err
	}
	ev, err := id.attester.Attest(ctx, data)
	if err != nil {
		return nil, err
	}
	ext, err := cmw.Marshal(ev, id.config)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial.Add(serial, big.NewInt(1)), // RFC 5280 wants a positive one
		// OpenSSL finds what it trusts by its subject, and takes the first: two leaves in one file must not share theirs.
		Subject:   pkix.Name{CommonName: "jurat", SerialNumber: fmt.Sprintf("%x", sha256.Sum256(spki))[:16]},
		NotBefore: binding.NotBefore, NotAfter: binding.NotAfter,
		// Without keyUsage: BoringSSL, in gRPC, takes one that has it and is no authority's for signed by somebody else, and trusts it for
		// nothing when it is given as what is trusted.
		BasicConstraintsValid: true, // of no authority
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		DNSNames:              id.dns, IPAddresses: netIPs(id.ips),
		// Not critical: curl, Go, Python and Node refuse a certificate with a critical extension they do not know.
		ExtraExtensions: []pkix.Extension{{Id: cmw.OID(), Value: ext}},
	}
	for _, w := range id.opts.Dialects {
		more, err := id.foreign(ctx, w, binding, ev, data)
		if err != nil {
			return nil, err
		}
		template.ExtraExtensions = append(template.ExtraExtensions, more...)
	}
	full, err := issue(template, key)
	if err != nil {
		return nil, err
	}
	template.ExtraExtensions = nil
	bare, err := issue(template, key)
	if err != nil {
		return nil, err
	}
	return &Leaf{
		Certificate: full.Leaf, Format: ev.Format, Digest: ev.Digest(), tls: full, bare: bare,
		own: &session.Own{Chain: bare.Certificate, Key: key, SPKI: sha256.Sum256(spki), DER: spki},
	}, nil
}

// foreign makes the extensions of a dialect, with ev where the hardware signs the same data for it, and else with evidence of its own.
func (id *Identity) foreign(ctx context.Context, w *dialect.Writer, b cmw.Binding, ev *attest.Evidence, data attest.ReportData) ([]pkix.Extension, error) {
	other, err := w.ReportData(b)
	if err != nil {
		return nil, err
	}
	if other != data {
		if ev, err = id.attester.Attest(ctx, other); err != nil {
			return nil, err
		}
	}
	return w.Extensions(ev, b)
}

func issue(template *x509.Certificate, key *ecdsa.PrivateKey) (tls.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return tls.Certificate{}, err
	}
	cert, err := x509.ParseCertificate(der)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: cert}, err
}

func netIPs(addrs []netip.Addr) []net.IP {
	var ips []net.IP
	for _, a := range addrs {
		ips = append(ips, a.AsSlice())
	}
	return ips
}

// Run renews the leaf after half of its lifetime until ctx is done, and tries again soon when that fails: the old leaf
// serves on until it expires. Each leaf is prepared an eighth of the lifetime earlier.
func (id *Identity) Run(ctx context.Context) {
	for {
		leaf, next, now := id.Leaf(), id.next.Load(), id.opts.Now()
		var wait time.Duration
		if next == nil {
			if wait = due(leaf).Add(-overlapOf(id.opts.Lifetime)).Sub(now); wait <= 0 {
				if err := id.Prepare(ctx); err == nil {
					continue
				}
				wait = renewalRetry
			}
		} else if wait = id.promotion(leaf, next).Sub(now); wait <= 0 {
			id.Promote()
			continue
		}
		timer := time.NewTimer(min(wait, renewalCheck))
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-timer.C:
		}
	}
}

// Leaf is the current one.
func (id *Identity) Leaf() *Leaf { return id.leaf.Load() }

// current is the leaf to present. An expired one is not served: the peer would refuse it, and the reason is known here.
func (id *Identity) current() (*Leaf, error) {
	leaf := id.leaf.Load()
	if now := id.opts.Now(); now.After(leaf.Certificate.NotAfter) {
		return nil, &attest.Error{Code: attest.CodeLeafExpired, Check: "identity", Got: leaf.Certificate.NotAfter.UTC().Format(time.RFC3339), Want: "after " + now.UTC().Format(time.RFC3339), Hint: "renewal has failed; see the log and jurat doctor"}
	}
	return leaf, nil
}

// GetCertificate has the form of tls.Config.GetCertificate.
func (id *Identity) GetCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	if leaf := id.successor(hello); leaf != nil {
		return &leaf.tls, nil
	}
	leaf, err := id.current()
	if err != nil {
		return nil, err
	}
	show(hello, &leaf.own.SPKI)
	return &leaf.tls, nil
}

// GetClientCertificate has the form of tls.Config.GetClientCertificate.
func (id *Identity) GetClientCertificate(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
	return id.GetCertificate(nil)
}

func (id *Identity) bareCertificate(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	leaf, err := id.current()
	if err != nil {
		return nil, err
	}
	show(hello, &leaf.own.SPKI)
	return &leaf.bare, nil
}

// Exported is a leaf with its private key, for a program that terminates TLS in this one's stead.
type Exported struct {
	Chain    [][]byte // DER, the leaf with evidence first
	Key      []byte   // PKCS #8
	NotAfter time.Time
}

// Export answers the current leaf with its private key. The error is an *attest.Error: CodeConfigValue for an identity that was
// made to keep its keys, CodeLeafExpired where there is no leaf to serve.
func (id *Identity) Export() (*Exported, error) {
	if !id.opts.UnsafeExport {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "identity", Got: "an identity that keeps its keys", Want: "one that was made with UnsafeExport"}
	}
	leaf, err := id.current()
	if err != nil {
		return nil, err
	}
	key, err := x509.MarshalPKCS8PrivateKey(leaf.own.Key)
	if err != nil {
		return nil, err
	}
	return &Exported{Chain: leaf.tls.Certificate, Key: key, NotAfter: leaf.Certificate.NotAfter}, nil
}

// Quotes is what was counted of the quotes that sessions shared.
func (id *Identity) Quotes() batch.Stats { return id.batcher.Stats() }

// Close ends what waits for a quote.
func (id *Identity) Close() { id.batcher.Close() }

// prover is an Identity as the session tier sees it.
type prover struct{ *Identity }

// Leaf implements session.Prover.
func (p prover) Leaf() (*session.Own, error) {
	leaf, err := p.current()
	if err != nil {
		return nil, err
	}
	return leaf.own, nil
}

// Quote implements session.Prover.
func (p prover) Quote(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	return p.attester.Attest(ctx, data)
}

// Attest implements session.Prover.
func (p prover) Attest(ctx context.Context, peer string, leaf merkle.Hash, patient bool) (*cmw.Session, error) {
	urgency := batch.Now
	if patient {
		urgency = batch.Patient
	}
	t, err := p.batcher.Attest(ctx, peer, leaf, urgency)
	if err != nil {
		return nil, err
	}
	return &cmw.Session{Evidence: t.Evidence, Config: p.config, Size: t.Size, Index: t.Index, Proof: t.Proof}, nil
}
