package ratls_test

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/test/pebble"
)

// Outside implements ratls.Public.
func (n names) Outside() bool { return false }

// brought is a ratls.Public whose keys somebody else may have.
type brought struct{ names }

func (brought) Outside() bool { return true }

// names is a ratls.Public with a certificate for shop.example, none for late.example, and a challenge for shop.example.
type names struct{ known, challenge tls.Certificate }

func (n names) Certificate(name string) (*tls.Certificate, error) {
	switch name {
	case "shop.example":
		return &n.known, nil
	case "late.example":
		return nil, &attest.Error{Code: attest.CodeNoPublic, Check: "public", Subject: name}
	}
	return nil, nil
}

func (n names) Challenge(_ context.Context, name string) (*tls.Certificate, error) {
	if name == "shop.example" {
		return &n.challenge, nil
	}
	return nil, &attest.Error{Code: attest.CodeNoPublic, Check: "public.challenge", Subject: name}
}

// What a client gets is what it asks for, by protocol and name.
func TestPublic(t *testing.T) {
	certificate := func() tls.Certificate {
		cert, err := tls.X509KeyPair(pebble.SelfSigned(t, "shop.example"))
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	public := names{certificate(), certificate()}
	id := identity(t, "shop.example", "127.0.0.1")
	addr, seen := acceptor(t, ratls.NewPublicAcceptor(id, public, "h2", "http/1.1"))
	evidence := string(id.Leaf().Certificate.Raw)
	for _, test := range []struct {
		name, server string
		protos       []string
		max          uint16
		leaf         string // "" is an alert
		proto        string
		code         attest.Code // that the server's side sees
	}{
		{"plain", "shop.example", []string{"h2", "http/1.1"}, 0, string(public.known.Certificate[0]), "h2", ""},
		{"plain without ALPN", "shop.example", nil, 0, string(public.known.Certificate[0]), "", ""},
		{"plain in TLS 1.2", "shop.example", []string{"http/1.1"}, tls.VersionTLS12, string(public.known.Certificate[0]), "http/1.1", ""},
		{"plain in TLS 1.1", "shop.example", nil, tls.VersionTLS11, "", "", attest.CodeHandshake},
		{"asks for evidence", "shop.example", []string{"http/1.1", ratls.KeyALPN}, 0, evidence, "http/1.1", ""},
		{"asks for evidence and nothing else", "shop.example", []string{ratls.KeyALPN}, 0, evidence, ratls.KeyALPN, ""},
		{"asks for evidence in TLS 1.2", "shop.example", []string{ratls.KeyALPN}, tls.VersionTLS12, "", "", attest.CodeHandshake},
		{"another name", "other.example", []string{"h2"}, 0, evidence, "h2", ""},
		{"another name in TLS 1.2", "other.example", []string{"h2"}, tls.VersionTLS12, "", "", attest.CodeHandshake},
		{"a protocol that is not spoken", "shop.example", []string{"spdy/3"}, 0, "", "", attest.CodeHandshake},
		{"a protocol that is not spoken, with another name", "other.example", []string{"spdy/3"}, 0, "", "", attest.CodeHandshake},
		{"no name", "", nil, 0, evidence, "", ""},
		{"no certificate yet", "late.example", []string{"h2"}, 0, "", "", attest.CodeNoPublic},
		{"no certificate yet, and asks for evidence", "late.example", []string{"h2", ratls.KeyALPN}, 0, evidence, "h2", ""},
		{"challenge", "shop.example", []string{"acme-tls/1"}, 0, string(public.challenge.Certificate[0]), "acme-tls/1", "done"},
		{"challenge in TLS 1.2", "shop.example", []string{"acme-tls/1"}, tls.VersionTLS12, string(public.challenge.Certificate[0]), "acme-tls/1", "done"},
		{"no challenge", "other.example", []string{"acme-tls/1"}, 0, "", "", attest.CodeNoPublic},
		{"no challenge for who wants more", "shop.example", []string{"acme-tls/1", "h2"}, 0, string(public.known.Certificate[0]), "h2", ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: test.server, NextProtos: test.protos, MinVersion: tls.VersionTLS10, MaxVersion: test.max, InsecureSkipVerify: true})
			if err == nil {
				_ = conn.CloseWrite()
				_, err = io.ReadAll(conn)
				cs := conn.ConnectionState()
				if leaf := string(cs.PeerCertificates[0].Raw); leaf != test.leaf || cs.NegotiatedProtocol != test.proto {
					t.Errorf("a leaf for %q, protocol %q", cs.PeerCertificates[0].DNSNames, cs.NegotiatedProtocol)
				}
				_ = conn.Close()
			}
			if (err == nil) != (test.leaf != "") {
				t.Errorf("got %v", err)
			}
			switch s := <-seen; {
			case test.code == "done":
				if !errors.Is(s.err, ratls.ErrChallenge) {
					t.Errorf("got %v", s.err)
				}
			case attest.CodeOf(s.err) != test.code:
				t.Errorf("got %v", s.err)
			case s.result != nil:
				t.Errorf("somebody who has shown nothing has %v", s.result)
			}
		})
	}
	for level, connect := range map[attest.Level]func(*ratls.Connector) *ratls.Connector{
		attest.LevelSession: func(c *ratls.Connector) *ratls.Connector { return c }, attest.LevelKey: (*ratls.Connector).CertificateOnly,
	} {
		conn, err := connect(ratls.NewConnector(accepting(), "h2")).Dial(t.Context(), addr) // by its address
		if err != nil {
			t.Fatal(err)
		}
		if conn.Result().Level() != level {
			t.Errorf("%s, want %s", conn.Result().Level(), level)
		}
		_ = conn.Close()
		<-seen
	}
	// Whose policy asks for evidence is not content with a public certificate.
	config := ratls.ClientConfig(accepting(), "shop.example")
	if _, err := tls.Dial("tcp", addr, config); attest.CodeOf(err) != attest.CodeNoEvidence {
		t.Errorf("got %v", err)
	}
	<-seen
	config.NextProtos = []string{ratls.KeyALPN}
	conn, err := tls.Dial("tcp", addr, config)
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	<-seen
	// It does no harm where there is no public certificate.
	addr, seen = acceptor(t, ratls.NewAcceptor(id, "h2", "http/1.1"))
	if conn, err = tls.Dial("tcp", addr, config); err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	<-seen
	if strings.HasPrefix(ratls.KeyALPN, session.ALPN) {
		t.Error("one protocol looks like the other")
	}
}

// fleeting is a ratls.Public whose certificate is there for the first that asks.
type fleeting struct {
	names
	asked *int
}

func (f fleeting) Certificate(string) (*tls.Certificate, error) {
	if *f.asked++; *f.asked > 1 {
		return nil, &attest.Error{Code: attest.CodeNoPublic, Check: "public"}
	}
	return &f.known, nil
}

// A certificate that expires within a handshake, or is none, costs that handshake.
func TestNoPublicAfterAll(t *testing.T) {
	for want, public := range map[attest.Code]ratls.Public{
		attest.CodeNoPublic:  fleeting{asked: new(int)},
		attest.CodeHandshake: names{known: tls.Certificate{Certificate: [][]byte{[]byte("text")}}},
	} {
		addr, seen := acceptor(t, ratls.NewPublicAcceptor(identity(t), public))
		if _, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true}); err == nil {
			t.Error("a connection")
		}
		if s := <-seen; attest.CodeOf(s.err) != want {
			t.Errorf("%v, want %s", s.err, want)
		}
	}
}

// Evidence for a nonce is for the key that the connection has shown, whichever that is; and none where somebody else may have it: he would
// show it to others, with the evidence that he is given here.
func TestWellKnownBesidePublic(t *testing.T) {
	cert, err := tls.X509KeyPair(pebble.SelfSigned(t, "shop.example"))
	if err != nil {
		t.Fatal(err)
	}
	id := impatient(t, "shop.example")
	public, own := sha256.Sum256(cert.Leaf.RawSubjectPublicKeyInfo), sha256.Sum256(id.Leaf().Certificate.RawSubjectPublicKeyInfo)
	cert.Leaf = nil // as where whoever brings it has not parsed it
	for _, test := range []struct {
		name   string
		public ratls.Public
		protos []string
		max    uint16
		want   [32]byte // zero for no evidence
	}{
		{"public", names{known: cert}, []string{"http/1.1"}, 0, public},
		{"public in TLS 1.2", names{known: cert}, []string{"http/1.1"}, tls.VersionTLS12, public},
		{"evidence in the certificate", names{known: cert}, []string{ratls.KeyALPN}, 0, own},
		{"brought", brought{names{known: cert}}, []string{"http/1.1"}, 0, [32]byte{}},
		{"brought in TLS 1.2", brought{names{known: cert}}, []string{"http/1.1"}, tls.VersionTLS12, [32]byte{}},
		{"evidence in the certificate, beside one that was brought", brought{names{known: cert}}, []string{ratls.KeyALPN}, 0, own},
	} {
		t.Run(test.name, func(t *testing.T) {
			a := ratls.NewPublicAcceptor(id, test.public, "http/1.1")
			done := make(chan struct{})
			addr := listener(t, func(raw net.Conn) {
				defer close(done)
				conn, err := a.Handshake(t.Context(), raw)
				if err != nil {
					t.Error(err)
					return
				}
				defer conn.Close()
				d, err := id.AttestNonce(t.Context(), conn, make([]byte, 16))
				if test.want == [32]byte{} {
					if attest.CodeOf(err) != attest.CodeNoEvidence {
						t.Errorf("%v, %+v", err, d)
					}
				} else if err != nil || d.Connection != test.want || d.Identity != own {
					t.Errorf("%v, %+v", err, d)
				}
			})
			conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "shop.example", NextProtos: test.protos, MaxVersion: test.max, InsecureSkipVerify: true})
			if err != nil {
				t.Fatal(err)
			}
			<-done
			_ = conn.Close()
		})
	}
}
