package ratls_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/wellknown"
)

// impatient is an identity whose TEE has nothing else to do.
func impatient(t testing.TB, names ...string) *ratls.Identity {
	t.Helper()
	id, err := ratls.NewIdentity(t.Context(), &hardware{}, names, [32]byte{7}, ratls.IdentityOptions{Batch: batch.Options{Patience: time.Millisecond}})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// answering serves the well-known document as answer makes it, for the nonce that was asked for.
func answering(t *testing.T, id *ratls.Identity, answer func(ctx context.Context, conn *ratls.Conn, nonce []byte) (*wellknown.Document, error)) string {
	return answeringBy(t, ratls.NewAcceptor(id, "http/1.1"), answer)
}

func answeringBy(t *testing.T, a *ratls.Acceptor, answer func(ctx context.Context, conn *ratls.Conn, nonce []byte) (*wellknown.Document, error)) string {
	return listener(t, func(raw net.Conn) {
		conn, err := a.Handshake(t.Context(), raw)
		if err != nil {
			return
		}
		defer conn.Close()
		req, err := http.ReadRequest(bufio.NewReader(conn))
		if err != nil {
			return
		}
		nonce, err := wellknown.Nonce(req.URL.RawQuery)
		if err != nil {
			t.Error(err)
			return
		}
		d, err := answer(t.Context(), conn, nonce)
		if err != nil {
			t.Error(err)
			return
		}
		body, err := wellknown.Marshal(d)
		if err != nil {
			t.Error(err)
			return
		}
		fmt.Fprintf(conn, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	})
}

func TestWellKnown(t *testing.T) {
	id, other := impatient(t, "127.0.0.1"), impatient(t, "127.0.0.1")
	var old *wellknown.Document
	if addr := answering(t, id, func(ctx context.Context, conn *ratls.Conn, nonce []byte) (*wellknown.Document, error) {
		var err error
		old, err = id.AttestNonce(ctx, conn, nonce)
		return old, err
	}); addr != "" {
		r, shown, err := accepting().WellKnown(t.Context(), addr)
		if err != nil || !r.Affirmed() || r.Level() != attest.LevelNonce || len(shown.Chain) != 1 {
			t.Fatalf("%v, %+v", err, r)
		}
		for _, c := range r.Checks() { // of these the hardware knows nothing
			if (c.ID == "binding.name" || c.ID == "binding.validity") && c.Source != "" {
				t.Errorf("%+v", c)
			}
		}
		if old.Identity != old.Connection || old.Connection != sha256.Sum256(id.Leaf().Certificate.RawSubjectPublicKeyInfo) {
			t.Fatalf("%+v", old)
		}
	}
	changed := func(change func(*wellknown.Document)) func(context.Context, *ratls.Conn, []byte) (*wellknown.Document, error) {
		return func(ctx context.Context, conn *ratls.Conn, nonce []byte) (*wellknown.Document, error) {
			d, err := id.AttestNonce(ctx, conn, nonce)
			if err == nil {
				change(d)
			}
			return d, err
		}
	}
	for name, c := range map[string]struct {
		answer func(context.Context, *ratls.Conn, []byte) (*wellknown.Document, error)
		check  string
		want   attest.Code
	}{
		"replay": {func(context.Context, *ratls.Conn, []byte) (*wellknown.Document, error) { return old, nil }, "binding.nonce", attest.CodeReportData},
		"replay, renamed": {func(_ context.Context, _ *ratls.Conn, nonce []byte) (*wellknown.Document, error) {
			d := *old
			d.Nonce = nonce
			return &d, nil
		}, "binding.report_data", attest.CodeReportData},
		"wrong nonce":    {changed(func(d *wellknown.Document) { d.Nonce = bytes.Repeat([]byte{1}, 32) }), "binding.nonce", attest.CodeReportData},
		"other config":   {changed(func(d *wellknown.Document) { d.Config[0]++ }), "binding.report_data", attest.CodeReportData},
		"other identity": {changed(func(d *wellknown.Document) { d.Identity[0]++ }), "binding.report_data", attest.CodeReportData},
		"other key":      {changed(func(d *wellknown.Document) { d.Connection[0]++ }), "binding.key", attest.CodeReportData},
		"no such tree":   {changed(func(d *wellknown.Document) { d.Index = 9 }), "evidence", attest.CodeMalformed},
		"evidence": {changed(func(d *wellknown.Document) {
			d.Evidence = &attest.Evidence{Format: "test", Raw: make([]byte, 64)}
		}), "binding.report_data", attest.CodeReportData},
	} {
		t.Run(name, func(t *testing.T) {
			r, _, err := accepting().WellKnown(t.Context(), answering(t, id, c.answer))
			if err != nil || r.Affirmed() || r.Code() != c.want {
				t.Fatalf("%v, %v", err, r.Err())
			}
			if checks := r.Checks(); checks[len(checks)-1].ID != c.check {
				t.Errorf("%+v", checks)
			}
		})
	}

	// A relay has the document of a TEE for its client's nonce, and a key of its own.
	var victim *ratls.Conn
	ready := make(chan struct{})
	release := make(chan struct{})
	a := ratls.NewAcceptor(id, "http/1.1")
	addr := listener(t, func(raw net.Conn) {
		conn, err := a.Handshake(t.Context(), raw)
		if err != nil {
			t.Error(err)
			return
		}
		victim = conn
		close(ready)
		<-release
		_ = conn.Close()
	})
	go func() { _, _ = ratls.Peek(t.Context(), addr) }()
	<-ready
	relay := answering(t, other, func(ctx context.Context, _ *ratls.Conn, nonce []byte) (*wellknown.Document, error) {
		return id.AttestNonce(ctx, victim, nonce)
	})
	r, _, err := accepting().WellKnown(t.Context(), relay)
	close(release)
	if err != nil || r.Code() != attest.CodeReportData {
		t.Fatalf("%v, %v", err, r.Err())
	}
}

func TestWellKnownIsHeldAgainstPolicyAndName(t *testing.T) {
	good := func(id *ratls.Identity) func(context.Context, *ratls.Conn, []byte) (*wellknown.Document, error) {
		return id.AttestNonce
	}
	id := impatient(t, "127.0.0.1")
	if r, _, err := relyingParty(policy{min: attest.LevelSession}, time.Now).WellKnown(t.Context(), answering(t, id, good(id))); err != nil || r.Code() != attest.CodeBindingTooWeak {
		t.Errorf("%v, %v", err, r.Err())
	}
	named := impatient(t, "other.example")
	if r, _, err := accepting().WellKnown(t.Context(), answering(t, named, good(named))); err != nil || r.Code() != attest.CodeName {
		t.Errorf("%v, %v", err, r.Err())
	}
	late := relyingParty(policy{min: attest.LevelKey}, func() time.Time { return time.Now().Add(2 * time.Hour) })
	if r, _, err := late.WellKnown(t.Context(), answering(t, id, good(id))); err != nil || r.Code() != attest.CodeLeafExpired {
		t.Errorf("%v, %v", err, r.Err())
	}
}

// everywhere is a ratls.Public with one certificate for all names.
type everywhere struct{ names }

func (e everywhere) Certificate(string) (*tls.Certificate, error) { return &e.known, nil }

// Over a certificate of another shape than ours no evidence counts, though it be for that key.
func TestWellKnownShape(t *testing.T) {
	id := impatient(t, "127.0.0.1")
	for name, c := range map[string]struct {
		change func(*x509.Certificate)
		want   attest.Code
	}{
		"a leaf":       {func(*x509.Certificate) {}, ""},
		"an authority": {func(c *x509.Certificate) { c.IsCA, c.BasicConstraintsValid = true, true }, attest.CodeMalformedCertificate},
	} {
		a := ratls.NewPublicAcceptor(id, everywhere{names{known: forge(t, id, c.change)}}, "http/1.1")
		if r, _, err := accepting().WellKnown(t.Context(), answeringBy(t, a, id.AttestNonce)); err != nil || r.Code() != c.want {
			t.Errorf("%s: %v, %v", name, err, r.Err())
		}
	}
}

// Where there is no answer there is nothing to judge.
func TestWellKnownIsNotThere(t *testing.T) {
	if r, _, err := accepting().WellKnown(t.Context(), "127.0.0.1:1"); r != nil || attest.CodeOf(err) != attest.CodeUnreachable {
		t.Errorf("%v, %v", err, r)
	}
	a := ratls.NewAcceptor(impatient(t, "127.0.0.1"), "http/1.1")
	addr := listener(t, func(raw net.Conn) {
		if conn, err := a.Handshake(t.Context(), raw); err == nil {
			_, _ = io.WriteString(conn, "HTTP/1.1 404 Not Found\r\n\r\n")
			_ = conn.Close()
		}
	})
	if r, _, err := accepting().WellKnown(t.Context(), addr); r != nil || attest.CodeOf(err) != attest.CodeNoEvidence {
		t.Errorf("%v, %v", err, r)
	}
}

// Without hardware, and without a leaf that is valid, there is no evidence for a nonce.
func TestNoEvidenceForNonce(t *testing.T) {
	hw, late := &hardware{}, new(atomic.Bool)
	id, err := ratls.NewIdentity(t.Context(), hw, []string{"127.0.0.1"}, [32]byte{}, ratls.IdentityOptions{Batch: batch.Options{Patience: time.Millisecond}, Now: func() time.Time {
		if late.Load() {
			return time.Now().Add(2 * ratls.DefaultLifetime)
		}
		return time.Now()
	}})
	if err != nil {
		t.Fatal(err)
	}
	a := ratls.NewAcceptor(id)
	got := make(chan error, 2)
	addr := listener(t, func(raw net.Conn) {
		conn, err := a.Handshake(t.Context(), raw)
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		hw.set(&attest.Error{Code: attest.CodeNoTEE})
		_, err = id.AttestNonce(t.Context(), conn, make([]byte, 16))
		got <- err
		late.Store(true)
		_, err = id.AttestNonce(t.Context(), conn, make([]byte, 16))
		got <- err
	})
	_, _ = ratls.Peek(t.Context(), addr)
	code(t, <-got, attest.CodeNoTEE)
	code(t, <-got, attest.CodeLeafExpired)
}

// The key that a connection showed is the one that counts, whatever was renewed since, in either tier.
func TestShownKeyOutlivesRenewal(t *testing.T) {
	tiers(t, func(t *testing.T, _ attest.Level, connect func(*ratls.Connector) *ratls.Connector) {
		id := impatient(t, "127.0.0.1")
		a := ratls.NewAcceptor(id, "http/1.1")
		before := sha256.Sum256(id.Leaf().Certificate.RawSubjectPublicKeyInfo)
		addr := listener(t, func(raw net.Conn) {
			conn, err := a.Handshake(t.Context(), raw)
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			if err := id.Renew(t.Context()); err != nil {
				t.Error(err)
			}
			d, err := id.AttestNonce(t.Context(), conn, make([]byte, 16))
			if err != nil || d.Connection != before || d.Identity == before {
				t.Errorf("%v, %+v", err, d)
			}
		})
		conn, err := connect(ratls.NewConnector(accepting(), "http/1.1")).Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = conn.Read(make([]byte, 1))
		if _, err := id.AttestNonce(t.Context(), conn, make([]byte, 16)); attest.CodeOf(err) != attest.CodeNoEvidence {
			t.Error(err) // of a client's end, which shows no key of ours
		}
		_ = conn.Close()
	})
}
