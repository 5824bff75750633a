package ratls

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/wellknown"
)

// shown is SHA-256 of the SPKI of the leaf that a handshake has shown: by the time that somebody asks, there may be another one. It is
// nil where none was.
type shown struct{ key *[32]byte }

type shownKey struct{}

// showing has show tell whose leaf a handshake in the context shows.
func showing(ctx context.Context) (context.Context, *shown) {
	s := new(shown)
	return context.WithValue(ctx, shownKey{}, s), s
}

func show(hello *tls.ClientHelloInfo, spki *[32]byte) {
	if hello == nil || hello.Context() == nil {
		return // of a client, or of no handshake
	}
	if s, ok := hello.Context().Value(shownKey{}).(*shown); ok {
		s.key = spki
	}
}

// showPublic is show for a certificate that is not of an identity.
func showPublic(hello *tls.ClientHelloInfo, cert *tls.Certificate) error {
	leaf := cert.Leaf
	if leaf == nil {
		var err error
		if leaf, err = x509.ParseCertificate(cert.Certificate[0]); err != nil {
			return err
		}
	}
	spki := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	show(hello, &spki)
	return nil
}

func (s *shown) on(c *Conn, err error) (*Conn, error) {
	if c != nil {
		c.shown = s.key
	}
	return c, err
}

// AttestNonce obtains evidence for a nonce and the key that the server's end of conn showed, after everything that sessions need
// the TEE for (batch.Spare). Errors are those of batch.Batcher.Attest, and CodeNoEvidence for a connection of another kind.
func (id *Identity) AttestNonce(ctx context.Context, conn *Conn, nonce []byte) (*wellknown.Document, error) {
	leaf, err := id.current()
	if err != nil {
		return nil, err
	}
	if conn.shown == nil {
		return nil, &attest.Error{Code: attest.CodeNoEvidence, Check: "binding.key", Got: "a connection that shows no key of ours alone"}
	}
	d := &wellknown.Document{Nonce: bytes.Clone(nonce), Connection: *conn.shown, Identity: leaf.own.SPKI}
	d.Config = id.config
	t, err := id.batcher.Attest(ctx, Origin(conn.RemoteAddr()), d.Leaf(), batch.Spare)
	if err != nil {
		return nil, err
	}
	d.Session = cmw.Session{Evidence: t.Evidence, Config: id.config, Size: t.Size, Index: t.Index, Proof: t.Proof}
	return d, nil
}

// WellKnown asks the peer at addr, which is meant to be host, for evidence for a fresh nonce over HTTPS, and judges it: at the level
// nonce for the key that this very connection showed. What it presented is the chain. An error means that there was nothing to judge.
func (rp *RelyingParty) WellKnown(ctx context.Context, addr string) (*attest.Result, Presented, error) {
	conn, host, err := peekOver(ctx, addr)
	if err != nil {
		return nil, Presented{}, err
	}
	defer conn.Close()
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce) // which never fails
	asked := rp.now()
	chain := conn.ConnectionState().PeerCertificates
	p := Presented{Chain: rawChain(chain)}
	d, err := wellknown.Get(ctx, conn, addr, nonce)
	if err != nil {
		return nil, p, err
	}
	now := rp.now()
	want, err := expectNonce(d, chain[0], Server(host), nonce, now)
	if err != nil {
		return attest.RefusedResult(err, now), p, nil
	}
	data, err := d.ReportData()
	if err != nil {
		return attest.RefusedResult(err, now), p, nil
	}
	appraiser, policy := rp.basis()
	expect := attest.Expect(data, attest.LevelNonce, asked).WithConfig(d.Config).With(want...)
	return appraiser.Appraise(ctx, d.Evidence, expect, policy, now), p, nil
}

// expectNonce holds a document against what was asked, and against the leaf of the connection that the answer came over. What the
// document says of either is compared here, and signed.
func expectNonce(d *wellknown.Document, leaf *x509.Certificate, peer Peer, nonce []byte, now time.Time) ([]attest.Check, error) {
	if err := checkShape(leaf); err != nil {
		return nil, err
	}
	checks, err := admit(leaf, peer, now)
	if err != nil {
		return nil, err
	}
	for i := range checks {
		checks[i].Source = "" // what is signed here is the key alone: its holder says the rest, or an authority that nobody asked
	}
	if !bytes.Equal(d.Nonce, nonce) {
		return nil, &attest.Error{Code: attest.CodeReportData, Check: "binding.nonce", Got: "evidence for another nonce", Want: "ours, of this connection"}
	}
	if d.Connection != sha256.Sum256(leaf.RawSubjectPublicKeyInfo) {
		return nil, &attest.Error{Code: attest.CodeReportData, Check: "binding.key", Got: "evidence for another key", Want: "the key that this connection showed", Hint: "somebody between here and there may show a certificate of his own"}
	}
	return append(checks,
		attest.Check{ID: "binding.nonce", Status: attest.StatusPass, Text: "evidence is for our nonce", Source: attest.SourceHardware},
		attest.Check{ID: "binding.key", Status: attest.StatusPass, Text: "evidence is for the key of this connection", Got: Pin(leaf), Source: attest.SourceHardware},
	), nil
}
