package ratls_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/session"
)

// served is what the accepting side saw of one connection.
type served struct {
	err    error
	result *attest.Result
	read   []byte
}

// acceptor serves an Acceptor: it reads to the end, answers what it read, and reports.
func acceptor(t testing.TB, a *ratls.Acceptor) (string, <-chan served) {
	seen := make(chan served, 16)
	addr := listener(t, func(raw net.Conn) {
		conn, err := a.Handshake(context.Background(), raw)
		if err != nil {
			seen <- served{err: err}
			return
		}
		defer conn.Close()
		read, err := io.ReadAll(conn)
		_, _ = conn.Write(read)
		seen <- served{result: conn.Result(), read: read, err: err}
	})
	return addr, seen
}

// exchange says something and reads the answer to its end. A failed write does not end it: the reason is in what the
// peer sent before it closed.
func exchange(conn *ratls.Conn, say string) (string, error) {
	defer conn.Close()
	_, failed := io.WriteString(conn, say)
	if failed == nil {
		failed = conn.CloseWrite()
	}
	answer, err := io.ReadAll(conn)
	if err == nil {
		err = failed
	}
	return string(answer), err
}

// tiers runs a test in both tiers: connect makes a Connector one of the tier.
func tiers(t *testing.T, test func(t *testing.T, level attest.Level, connect func(*ratls.Connector) *ratls.Connector)) {
	t.Run("session", func(t *testing.T) {
		test(t, attest.LevelSession, func(c *ratls.Connector) *ratls.Connector { return c })
	})
	t.Run("certificate", func(t *testing.T) { test(t, attest.LevelKey, (*ratls.Connector).CertificateOnly) })
}

func TestAttestedServer(t *testing.T) {
	tiers(t, func(t *testing.T, level attest.Level, connect func(*ratls.Connector) *ratls.Connector) {
		addr, seen := acceptor(t, ratls.NewAcceptor(identity(t, "127.0.0.1"), "h2", "http/1.1"))
		conn, err := connect(ratls.NewConnector(accepting(), "h2")).Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if r := conn.Result(); !r.Affirmed() || r.Level() != level {
			t.Fatalf("got %v at %q", r.Verdict(), r.Level())
		}
		if cs := conn.ConnectionState(); cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != "h2" {
			t.Fatalf("got version %x, protocol %q", cs.Version, cs.NegotiatedProtocol)
		}
		if answer, err := exchange(conn, "hello"); err != nil || answer != "hello" {
			t.Fatalf("got %q, %v", answer, err)
		}
		if s := <-seen; s.result != nil {
			t.Fatal("a server that asks nobody has a Result")
		}
	})
}

func TestMutual(t *testing.T) {
	tiers(t, func(t *testing.T, level attest.Level, connect func(*ratls.Connector) *ratls.Connector) {
		addr, seen := acceptor(t, ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), accepting()))
		conn, err := connect(ratls.NewMutualConnector(identity(t), accepting())).Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := exchange(conn, "hello"); err != nil || answer != "hello" {
			t.Fatalf("got %q, %v", answer, err)
		}
		if s := <-seen; !s.result.Affirmed() || s.result.Level() != level {
			t.Fatalf("the server has %v at %q", s.result.Verdict(), s.result.Level())
		}
	})
}

// Nothing is sent to a peer that is refused: the server sees the end of the connection and no byte.
func TestRefusedServerGetsNothing(t *testing.T) {
	tiers(t, func(t *testing.T, level attest.Level, connect func(*ratls.Connector) *ratls.Connector) {
		addr, seen := acceptor(t, ratls.NewAcceptor(identity(t, "127.0.0.1")))
		_, err := connect(ratls.NewConnector(refusing())).Dial(t.Context(), addr)
		code(t, err, attest.CodeDebug)
		var refusal *ratls.Refusal
		if !errors.As(err, &refusal) || len(refusal.Chain) != 1 || refusal.Result.Affirmed() || (refusal.Session != nil) != (level == attest.LevelSession) {
			t.Fatalf("got %#v", err)
		}
		s := <-seen
		if len(s.read) != 0 {
			t.Fatalf("the server read %q", s.read)
		}
		if level == attest.LevelSession {
			code(t, s.err, attest.CodePeerRefused)
		}
	})
}

func TestRefusedClients(t *testing.T) {
	for name, c := range map[string]struct {
		rp     *ratls.RelyingParty
		client *ratls.Connector
		want   attest.Code
		only   attest.Level // the tier it is about; "" for both
	}{
		"without evidence":    {accepting(), ratls.NewConnector(accepting()), attest.CodeNoEvidence, ""},
		"refused by policy":   {refusing(), ratls.NewMutualConnector(identity(t), accepting()), attest.CodeDebug, ""},
		"bound too weakly":    {relyingParty(policy{min: attest.LevelSession}, time.Now), ratls.NewMutualConnector(identity(t), accepting()), attest.CodeBindingTooWeak, attest.LevelKey},
		"a zero RelyingParty": {relyingParty(nil, time.Now), ratls.NewMutualConnector(identity(t), accepting()), attest.CodeEmptyPolicy, ""},
	} {
		t.Run(name, func(t *testing.T) {
			tiers(t, func(t *testing.T, level attest.Level, connect func(*ratls.Connector) *ratls.Connector) {
				if c.only != "" && c.only != level {
					return
				}
				addr, seen := acceptor(t, ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), c.rp))
				conn, err := connect(c.client).Dial(t.Context(), addr)
				if level == attest.LevelKey {
					if err != nil {
						t.Fatal(err) // in TLS 1.3 the client is done before the server has judged it
					}
					_, err = exchange(conn, "secret")
				}
				code(t, err, attest.CodePeerRefused)
				s := <-seen
				code(t, s.err, c.want)
				if len(s.read) != 0 {
					t.Fatalf("the server read %q before its verdict", s.read)
				}
			})
		})
	}
}

// A server that knows nothing of the session tier is met in the other one, if the policy takes that.
func TestNoSessionAtTheServer(t *testing.T) {
	id := identity(t, "127.0.0.1")
	config := ratls.ServerConfig(id)
	config.NextProtos = []string{"h2"}
	addr := listener(t, func(raw net.Conn) { _ = tls.Server(raw, config).Handshake() })
	conn, err := ratls.NewConnector(accepting(), "h2").Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	if level := conn.Result().Level(); level != attest.LevelKey {
		t.Errorf("level %q", level)
	}
	_ = conn.Close()
	strict := relyingParty(policy{min: attest.LevelSession}, time.Now)
	_, err = ratls.NewConnector(strict, "h2").Dial(t.Context(), addr)
	code(t, err, attest.CodeBindingTooWeak)
	// Whoever offers nothing else is turned away, and can tell.
	_, err = ratls.NewConnector(strict).Dial(t.Context(), addr)
	if code(t, err, attest.CodeHandshake); !ratls.NoSession(err) {
		t.Errorf("got %v", err)
	}
	_, err = ratls.NewConnector(strict).CertificateOnly().Dial(t.Context(), addr)
	if code(t, err, attest.CodeBindingTooWeak); ratls.NoSession(err) {
		t.Errorf("got %v", err)
	}
}

// In the session tier a client's evidence is for a server that was affirmed, not for whoever asks in the handshake.
func TestServerAsksInHandshake(t *testing.T) {
	config := ratls.ServerConfig(identity(t, "127.0.0.1"))
	config.NextProtos, config.ClientAuth = []string{session.ALPN}, tls.RequestClientCert
	shown := make(chan int, 1)
	addr := listener(t, func(raw net.Conn) {
		conn := tls.Server(raw, config)
		if err := conn.Handshake(); err != nil {
			t.Error(err)
		}
		shown <- len(conn.ConnectionState().PeerCertificates)
	})
	_, err := ratls.NewMutualConnector(identity(t), refusing()).Dial(t.Context(), addr)
	code(t, err, attest.CodeSessionExchange)
	if n := <-shown; n != 0 {
		t.Errorf("%d certificates shown to a server that nobody has judged", n)
	}
}

func TestHandshakeFailures(t *testing.T) {
	plain := func(min, max uint16) *tls.Config {
		c := ratls.ServerConfig(identity(t, "127.0.0.1"))
		c.MinVersion, c.MaxVersion = min, max
		return c
	}
	for name, c := range map[string]struct {
		serve func(net.Conn)
		want  attest.Code
	}{
		"not TLS": {func(c net.Conn) { _, _ = io.WriteString(c, "HTTP/1.1 400 Bad Request\r\n\r\n") }, attest.CodeHandshake},
		"closed":  {func(net.Conn) {}, attest.CodeHandshake},
		"TLS 1.2": {func(c net.Conn) { _ = tls.Server(c, plain(tls.VersionTLS12, tls.VersionTLS12)).Handshake() }, attest.CodeHandshake},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ratls.NewConnector(accepting()).Dial(t.Context(), listener(t, c.serve))
			code(t, err, c.want)
		})
	}
	t.Run("silent", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		done := make(chan struct{})
		addr := listener(t, func(net.Conn) { <-done })
		_, err := ratls.NewConnector(accepting()).Dial(ctx, addr)
		close(done)
		code(t, err, attest.CodeTimeout)
	})
	t.Run("unreachable", func(t *testing.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_ = l.Close()
		_, err = ratls.NewConnector(accepting()).Dial(t.Context(), l.Addr().String())
		code(t, err, attest.CodeUnreachable)
	})
	t.Run("address", func(t *testing.T) {
		_, err := ratls.NewConnector(accepting()).Dial(t.Context(), "no-port")
		code(t, err, attest.CodeUsage)
	})
}

// A server that forces tickets and a client that keeps them must not skip the appraisal.
func TestResumptionIsRefused(t *testing.T) {
	server := ratls.ServerConfig(identity(t, "127.0.0.1"))
	server.SessionTicketsDisabled = false
	addr := listener(t, func(raw net.Conn) {
		conn := tls.Server(raw, server)
		_, _ = io.Copy(conn, conn)
	})
	client := ratls.ClientConfig(accepting(), "127.0.0.1")
	client.SessionTicketsDisabled = false
	client.ClientSessionCache = tls.NewLRUClientSessionCache(8)
	dial := func() error {
		conn, err := tls.Dial("tcp", addr, client)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, err = conn.Write([]byte("x"))
		if err == nil {
			_, err = conn.Read(make([]byte, 1)) // takes the ticket in
		}
		return err
	}
	if err := dial(); err != nil {
		t.Fatal(err)
	}
	code(t, dial(), attest.CodeResumed)

	// As they are made, the two ends never resume.
	honest, seen := acceptor(t, ratls.NewAcceptor(identity(t, "127.0.0.1")))
	for range 2 {
		conn, err := ratls.NewConnector(accepting()).Dial(t.Context(), honest)
		if err != nil {
			t.Fatal(err)
		}
		if conn.ConnectionState().DidResume {
			t.Fatal("resumed")
		}
		if _, err := exchange(conn, "x"); err != nil {
			t.Fatal(err)
		}
		<-seen
	}
}

// ticketBox is a client's store of tickets.
type ticketBox struct{ got int }

func (*ticketBox) Get(string) (*tls.ClientSessionState, bool)     { return nil, false }
func (b *ticketBox) Put(_ string, ticket *tls.ClientSessionState) { b.got++ }

// No client is given a ticket, not even one that would keep it.
func TestNoTickets(t *testing.T) {
	addr, seen := acceptor(t, ratls.NewAcceptor(identity(t, "127.0.0.1")))
	box := new(ticketBox)
	client := ratls.ClientConfig(accepting(), "127.0.0.1")
	client.SessionTicketsDisabled, client.ClientSessionCache = false, box
	conn, err := tls.Dial("tcp", addr, client)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "x")
	_ = conn.CloseWrite()
	_, _ = io.ReadAll(conn) // takes a ticket in, if there is one
	<-seen
	if box.got != 0 {
		t.Errorf("%d tickets", box.got)
	}
}

// What cannot be decided is not accepted, on either side.
func TestUndecidedIsRefused(t *testing.T) {
	undecided := relyingParty(policy{refuse: attest.CodeEndorsementMissing}, time.Now)
	addr, seen := acceptor(t, ratls.NewAcceptor(identity(t, "127.0.0.1")))
	_, err := ratls.NewConnector(undecided).Dial(t.Context(), addr)
	code(t, err, attest.CodeEndorsementMissing)
	<-seen
	addr, seen = acceptor(t, ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), undecided))
	_, err = ratls.NewMutualConnector(identity(t), accepting()).Dial(t.Context(), addr)
	code(t, err, attest.CodePeerRefused)
	s := <-seen
	code(t, s.err, attest.CodeEndorsementMissing)
	if len(s.read) != 0 {
		t.Fatalf("the server read %q", s.read)
	}
}

func TestPublicConfigs(t *testing.T) {
	server := ratls.MutualServerConfig(identity(t, "127.0.0.1"), accepting())
	seen := make(chan error, 1)
	addr := listener(t, func(raw net.Conn) { seen <- tls.Server(raw, server).Handshake() })
	dial := func(c *tls.Config) error {
		conn, err := tls.Dial("tcp", addr, c)
		if err == nil {
			_ = conn.Close()
		}
		return err
	}
	if err := errors.Join(dial(ratls.MutualClientConfig(identity(t), accepting(), "127.0.0.1")), <-seen); err != nil {
		t.Fatal(err)
	}
	code(t, dial(ratls.MutualClientConfig(identity(t), refusing(), "127.0.0.1")), attest.CodeDebug)
	<-seen
	code(t, dial(ratls.ClientConfig(accepting(), "other.example")), attest.CodeName)
	<-seen
	code(t, dial(ratls.ClientConfig(accepting(), "")), attest.CodeNoExpectation)
	<-seen
	if err := dial(ratls.ClientConfig(accepting(), "127.0.0.1")); err != nil {
		t.Fatal(err)
	}
	if err := <-seen; err == nil {
		t.Fatal("a client without evidence was served")
	}
}

func TestPeekJudgesNothing(t *testing.T) {
	id := identity(t, "other.example")
	addr, seen := acceptor(t, ratls.NewAcceptor(id))
	chain, err := ratls.Peek(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	content, err := ratls.Open(chain)
	if err != nil {
		t.Fatal(err)
	}
	if !content.Leaf.Equal(id.Leaf().Certificate) || content.Config != [32]byte{7} {
		t.Fatal("another leaf")
	}
	if s := <-seen; len(s.read) != 0 {
		t.Fatalf("the server read %q", s.read)
	}
}

// A server that knows nothing of protocols agrees to the one that a client insists on, and ignores a choice.
func TestSoleProtocol(t *testing.T) {
	acc := ratls.NewAcceptor(identity(t, "127.0.0.1"))
	addr := listener(t, func(raw net.Conn) {
		if conn, err := acc.Handshake(context.Background(), raw); err == nil {
			_, _ = io.Copy(io.Discard, conn)
		}
	})
	for _, c := range []struct {
		offers []string
		want   string
	}{{nil, ""}, {[]string{"postgresql"}, "postgresql"}, {[]string{"h2"}, "h2"}, {[]string{"h2", "http/1.1"}, ""}, {[]string{"h2", "jurat-successor"}, ""}, {[]string{"acme-tls/1"}, ""}} {
		conn, err := ratls.NewConnector(accepting(), c.offers...).CertificateOnly().Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != c.want {
			t.Errorf("%q: agreed on %q, want %q", c.offers, got, c.want)
		}
		_ = conn.Close()
	}
}
