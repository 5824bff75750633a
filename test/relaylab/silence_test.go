package relaylab

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
)

// early is what an application says at once, without waiting for anybody. Each has the secret in it.
var early = []struct{ name, text string }{
	{"HTTP/1.1", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\n" + secret},
	{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00\x00\x06\x00\x00\x00\x00\x00\x01" + secret},
	{"CONNECT", "CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n" + secret},
	{"TCP", "\x00\x01" + secret + "\r\n"},
}

// banner is what a service says that speaks first, such as one for mail.
const banner = "220 ready\r\n"

// start serves until stop, and answers the address.
func start(t testing.TB, s *proxy.Server) (addr string, stop func()) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	return ln.Addr().String(), sync.OnceFunc(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
}

func engine(t testing.TB) *proxy.Engine {
	t.Helper()
	e, err := proxy.NewEngine(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func dialTCP(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	_ = c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// contained runs a play to the end of its connection.
func contained(play func()) {
	defer func() {
		if p := recover(); p != nil {
			if _, ended := p.(gone); !ended {
				panic(p)
			}
		}
	}()
	play()
}

// The proxy before a client. The application has said all of its first words before the peer says anything at all, and the
// peer counts what of them reaches it: nothing, until it was affirmed and has itself affirmed where it asks.
func TestNothingToServers(t *testing.T) {
	l := newLab(t)
	hw := l.chip(t)
	g, fleet := l.tee(hw, ratls.IdentityOptions{}), l.tee(l.chip(t), ratls.IdentityOptions{})
	own := g.stolen()
	full := g.own(false)
	old := g.record(random())
	ordinary := tlsOf(own)

	// server plays on raw and answers how many of the application's bytes it read.
	type server func(raw net.Conn) int
	overTLS := func(cert tls.Certificate) server {
		return func(raw net.Conn) int {
			conn := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}})
			_, _ = io.WriteString(conn, banner)
			n, _ := io.Copy(io.Discard, conn)
			return int(n)
		}
	}
	inSession := func(play func(*stage)) server {
		return func(raw net.Conn) (n int) {
			var s *stage
			contained(func() {
				s = &stage{seat: terminate(raw, tlsOf(own), session.ALPN), g: g, own: own}
				s.take(hello)
				s.asked = s.take(request)
				play(s)
			})
			if s == nil {
				return 0
			}
			return s.drain()
		}
	}
	said := frame(data, []byte(banner))
	// asking shows honest evidence, asks for the client's, and goes on when that has come, with its verdict.
	asking := func(then func(*stage)) server {
		return inSession(func(s *stage) {
			s.say(helloOf(serverHello{Asks: true}), frame(request, ask(ea.Server, random(), wish)), s.show(g.signed(s.due())))
			s.take(authenticator)
			s.take(verdict)
			then(s)
		})
	}
	hangUp := func(s *stage) { _ = s.CloseWrite() }
	elsewhere := demand(t, attest.LevelSession, fleet.attester.(*chip))
	anywhere := demand(t, attest.LevelSession)
	connections, leaked := 0, 0
	for _, c := range []struct {
		name   string
		play   server
		policy attest.Policy
		want   attest.Code
		limit  time.Duration // where the peer waits to be cut off
	}{
		{"control: an honest server", inSession(func(s *stage) {
			s.say(helloOf(serverHello{}), s.show(g.signed(s.due())))
			s.take(verdict)
		}), anywhere, accepted, 0},
		{"control: an honest server that asks", asking(func(s *stage) { s.say(affirmation()) }), anywhere, accepted, 0},

		{"a server without TLS", func(raw net.Conn) int {
			_, _ = io.WriteString(raw, banner)
			got, _ := io.ReadAll(raw)
			if bytes.Contains(got, []byte(secret)) {
				return len(got)
			}
			return 0
		}, anywhere, attest.CodeHandshake, 0},
		{"a server without evidence", overTLS(ordinary), anywhere, attest.CodeNoEvidence, 0},
		{"a server with evidence for its key", overTLS(full), anywhere, attest.CodeBindingTooWeak, 0},
		{"a server with another connection's evidence", inSession(func(s *stage) {
			s.say(helloOf(serverHello{}), s.show(old.attestation), affirmation(), said)
		}), anywhere, attest.CodeReportData, 0},
		{"a server with another connection's authenticator", inSession(func(s *stage) {
			s.say(helloOf(serverHello{}), frame(authenticator, old.authenticator), affirmation(), said)
		}), anywhere, attest.CodeAuthenticator, 0},
		{"a server that the policy refuses", inSession(func(s *stage) {
			s.say(helloOf(serverHello{}), s.show(g.signed(s.due())), affirmation(), said)
		}), elsewhere, attest.CodePlatformNotAllowed, 0},
		{"a server that speaks before it has shown anything", inSession(func(s *stage) { s.say(said) }), anywhere, attest.CodeSessionExchange, 0},
		{"a server that speaks where evidence is due", inSession(func(s *stage) { s.say(helloOf(serverHello{}), said) }), anywhere, attest.CodeSessionExchange, 0},
		{"a server that hangs up half way", inSession(func(s *stage) {
			s.say(helloOf(serverHello{}))
			hangUp(s)
		}), anywhere, attest.CodeSessionExchange, 0},
		{"a server that says no more half way", inSession(func(s *stage) { s.say(helloOf(serverHello{})) }), anywhere, attest.CodeSessionExchange, time.Second},
		{"a server that asks and hangs up before its verdict", asking(hangUp), anywhere, attest.CodeSessionExchange, 0},
		{"a server that asks and speaks before its verdict", asking(func(s *stage) { s.say(said) }), anywhere, attest.CodeSessionExchange, 0},
		{"a server that asks and refuses", asking(func(s *stage) {
			s.say(frame(verdict, cbor(verdictBody{Code: string(attest.CodeDebug)})), said)
		}), anywhere, attest.CodePeerRefused, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, words := range early {
				if c.limit != 0 && words.name != "HTTP/1.1" {
					continue // once is enough to wait for
				}
				limit := c.limit
				if limit == 0 {
					limit = patience
				}
				// The peer's goroutine tells through a channel: a proxy that answers over TCP is no order that the race
				// detector knows of.
				sent, played := make(chan struct{}), make(chan int, 1)
				connector := ratls.NewMutualConnector(fleet.id, l.party(c.policy))
				out := proxy.NewOutbound(engine(t), func(ctx context.Context) (proxy.Conn, error) {
					a, b := l.pair()
					go func() {
						defer b.Close()
						<-sent
						played <- c.play(b)
					}()
					conn, err := connector.Handshake(ctx, proxy.Watch(a), name)
					if err != nil {
						return nil, err
					}
					return conn, nil
				}, nil, proxy.Limits{Handshake: limit})
				addr, stop := start(t, out)
				local := dialTCP(t, addr)
				_, err := io.WriteString(local, words.text)
				if err != nil {
					t.Fatal(err)
				}
				close(sent)
				if c.want == accepted {
					_ = local.CloseWrite() // the server reads to the end, and closes then
				}
				answer, _ := io.ReadAll(local)
				_ = local.Close()
				heard := <-played
				stop()
				if c.want == accepted {
					if heard != len(words.text) {
						t.Errorf("%s: an honest server got %d bytes of %d", words.name, heard, len(words.text))
					}
					continue
				}
				st := out.Stats()
				connections++
				leaked += heard
				if heard != 0 || st.BytesOut != 0 || st.BytesIn != 0 || st.Handshakes != 0 {
					t.Errorf("%s: the server got %d bytes; %+v", words.name, heard, st)
				}
				if st.Refused[c.want] != 1 {
					t.Errorf("%s: refused %v, want %s", words.name, st.Refused, c.want)
					continue
				}
				told := strings.HasPrefix(string(answer), "HTTP/1.1 502 ") && strings.Contains(string(answer), string(c.want))
				if http1 := words.name == "HTTP/1.1" || words.name == "CONNECT"; told != http1 || !http1 && len(answer) > 0 || bytes.Contains(answer, []byte(banner)) {
					t.Errorf("%s: the application was told %q", words.name, answer)
				}
				findings.add("first words to "+c.name, "session", c.want)
			}
		})
	}
	findings.say(fmt.Sprintf("application bytes that reached a server before the verdict: %d, in %d connections", leaked, connections))
}

// service is the plain service behind a proxy. It speaks first, and counts who comes and what they say.
type service struct {
	addr         string
	conns, bytes atomic.Int64
	stop         func()
}

func newService(t testing.TB) *service {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &service{addr: ln.Addr().String()}
	var work sync.WaitGroup
	work.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns.Add(1)
			work.Go(func() {
				defer c.Close()
				_, _ = io.WriteString(c, banner)
				n, _ := io.Copy(io.Discard, c)
				s.bytes.Add(n)
			})
		}
	})
	s.stop = sync.OnceFunc(func() {
		_ = ln.Close()
		work.Wait()
	})
	t.Cleanup(s.stop)
	return s
}

// The proxy before a service. The client says its first words as early as it can, wherever in the exchange that is; the
// service counts what of them reaches it, and the client what of the service's greeting reaches him: nothing. The service is
// not even connected to.
func TestNothingFromClients(t *testing.T) {
	l := newLab(t)
	g, fleet, strangers := l.tee(l.chip(t), ratls.IdentityOptions{}), l.tee(l.chip(t), ratls.IdentityOptions{}), l.tee(l.chip(t), ratls.IdentityOptions{})
	mine, theirs := fleet.stolen(), strangers.stolen()
	rp := l.party(demand(t, attest.LevelSession, fleet.attester.(*chip)))
	asking, open := ratls.NewMutualAcceptor(g.id, rp), ratls.NewAcceptor(g.id)

	// client says words over raw and answers how many bytes of the service it read.
	type client func(raw net.Conn, words []byte) int
	inSession := func(play func(s *seat, said []byte)) client {
		return func(raw net.Conn, words []byte) (n int) {
			var s *seat
			contained(func() {
				s = join(raw, session.ALPN)
				play(s, frame(data, words))
			})
			if s == nil {
				return 0
			}
			return s.drain()
		}
	}
	overTLS := func(certs ...tls.Certificate) client {
		return func(raw net.Conn, words []byte) int {
			conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: name, Certificates: certs})
			if conn.Handshake() != nil {
				return 0
			}
			_, _ = conn.Write(words) // a client is done with the handshake of TLS 1.3 before the server has seen its certificate
			n, _ := io.Copy(io.Discard, conn)
			return int(n)
		}
	}
	greet := func() []byte {
		return slices.Concat(helloOf(clientHello{}), frame(request, ask(ea.Client, random(), wish)))
	}
	// met goes up to the point where the client's evidence is due, and answers the server's request and evidence.
	met := func(s *seat) (asked, shown []byte) {
		s.say(greet())
		s.take(hello)
		asked = s.take(request)
		return asked, s.take(authenticator)
	}
	show := func(s *seat, asked []byte, g *tee, own tls13Leaf) []byte {
		return frame(authenticator, s.sign(ea.Client, asked, own.chain, own.key, wish, g.honest(s, own.chain[0], asked)))
	}
	refusal := frame(verdict, cbor(verdictBody{Code: string(attest.CodeDebug)}))
	connections, leaked := 0, int64(0)
	for _, c := range []struct {
		name     string
		acceptor *ratls.Acceptor
		play     client
		want     attest.Code
	}{
		{"control: an honest client", asking, inSession(func(s *seat, said []byte) {
			asked, _ := met(s)
			// What is sent behind its own verdict waits for the server's.
			s.say(show(s, asked, fleet, mine), affirmation(), said, frame(end, nil))
			s.take(verdict)
		}), accepted},
		{"control: an honest client that is not asked", open, inSession(func(s *seat, said []byte) {
			s.say(greet())
			s.take(hello)
			s.take(authenticator)
			s.say(affirmation(), said, frame(end, nil))
		}), accepted},

		{"a client without TLS", asking, func(raw net.Conn, words []byte) int {
			_, _ = raw.Write(words)
			got, _ := io.ReadAll(raw)
			if bytes.Contains(got, []byte(banner)) {
				return len(got)
			}
			return 0
		}, attest.CodeHandshake},
		{"a client without evidence", asking, overTLS(), attest.CodeNoEvidence},
		{"a client with evidence for its key", asking, overTLS(fleet.own(false)), attest.CodeBindingTooWeak},
		{"a client that speaks as if there were no exchange", asking, inSession(func(s *seat, said []byte) { s.say(said[4:]) }), attest.CodeSessionExchange},
		{"a client that speaks in the place of a hello", asking, inSession(func(s *seat, said []byte) { s.say(said) }), attest.CodeSessionExchange},
		{"a client that speaks between hello and request", asking, inSession(func(s *seat, said []byte) { s.say(helloOf(clientHello{}), said) }), attest.CodeSessionExchange},
		{"a client that speaks right behind its request", asking, inSession(func(s *seat, said []byte) { s.say(greet(), said) }), attest.CodeSessionExchange},
		{"a client that speaks right behind its request, and is not asked", open, inSession(func(s *seat, said []byte) { s.say(greet(), said) }), attest.CodeSessionExchange},
		{"a client that speaks where its evidence is due", asking, inSession(func(s *seat, said []byte) {
			met(s)
			s.say(said)
		}), attest.CodeSessionExchange},
		{"a client that speaks between evidence and verdict", asking, inSession(func(s *seat, said []byte) {
			asked, _ := met(s)
			s.say(show(s, asked, fleet, mine), said, affirmation())
		}), attest.CodeSessionExchange},
		{"a client that speaks where its verdict is due, and is not asked", open, inSession(func(s *seat, said []byte) {
			s.say(greet())
			s.take(hello)
			s.take(authenticator)
			s.say(said, affirmation())
		}), attest.CodeSessionExchange},
		{"a client that speaks behind the server's own evidence", asking, inSession(func(s *seat, said []byte) {
			_, shown := met(s)
			s.say(frame(authenticator, shown), affirmation(), said)
		}), attest.CodeAuthenticator},
		{"a client that speaks behind evidence of another connection", asking, inSession(func(s *seat, said []byte) {
			asked, _ := met(s)
			s.say(frame(authenticator, s.sign(ea.Client, asked, mine.chain, mine.key, wish, fleet.signed([32]byte{1}))), affirmation(), said)
		}), attest.CodeReportData},
		{"a client that speaks behind evidence that the policy refuses", asking, inSession(func(s *seat, said []byte) {
			asked, _ := met(s)
			s.say(show(s, asked, strangers, theirs), affirmation(), said)
		}), attest.CodePlatformNotAllowed},
		{"a client that speaks behind its refusal", asking, inSession(func(s *seat, said []byte) {
			asked, _ := met(s)
			s.say(show(s, asked, fleet, mine), refusal, said)
		}), attest.CodePeerRefused},
		{"a client that speaks behind its refusal, and is not asked", open, inSession(func(s *seat, said []byte) {
			s.say(greet())
			s.take(hello)
			s.take(authenticator)
			s.say(refusal, said)
		}), attest.CodePeerRefused},
		{"a client that waits for a greeting, and hangs up", asking, inSession(func(s *seat, _ []byte) {
			met(s)
			_ = s.CloseWrite()
		}), attest.CodeSessionExchange},
		{"a client that waits for a greeting, and hangs up, and is not asked", open, inSession(func(s *seat, _ []byte) {
			s.say(greet())
			s.take(hello)
			s.take(authenticator)
			_ = s.CloseWrite()
		}), attest.CodeSessionExchange},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, mode := range []string{"http", "tcp"} {
				for _, words := range early {
					behind := newService(t)
					backend, err := proxy.ParseBackend(behind.addr)
					if err != nil {
						t.Fatal(err)
					}
					outcome := make(chan error, 1)
					handshake := func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
						conn, err := c.acceptor.Handshake(ctx, raw)
						outcome <- err
						if err != nil {
							return nil, err
						}
						return conn, nil
					}
					before := proxy.NewInboundHTTP
					if mode == "tcp" {
						before = proxy.NewInboundTCP
					}
					in, err := before(engine(t), handshake, backend, nil, proxy.Limits{Handshake: patience})
					if err != nil {
						t.Fatal(err)
					}
					addr, stop := start(t, in)
					raw := dialTCP(t, addr)
					read := c.play(raw, []byte(words.text))
					_ = raw.Close()
					verdict := <-outcome
					stop()
					behind.stop()
					what := mode + ", " + words.name
					if c.want == accepted {
						if verdict != nil {
							t.Errorf("%s: %v", what, verdict)
						}
						if mode == "tcp" && (behind.bytes.Load() != int64(len(words.text)) || read != len(banner)) {
							t.Errorf("%s: an honest client got %d bytes of the service, and the service %d of %d", what, read, behind.bytes.Load(), len(words.text))
						}
						continue
					}
					st := in.Stats()
					connections++
					leaked += int64(read) + behind.bytes.Load()
					if read != 0 || behind.bytes.Load() != 0 || behind.conns.Load() != 0 || st.BytesIn != 0 || st.BytesOut != 0 || st.Requests != 0 || st.Handshakes != 0 {
						t.Errorf("%s: the client read %d bytes, the service %d over %d connections; %+v", what, read, behind.bytes.Load(), behind.conns.Load(), st)
					}
					must(t, "first words of "+c.name, "session", verdict, c.want)
				}
			}
		})
	}
	findings.say(fmt.Sprintf("application bytes that reached a service, or a client of it, before the verdict: %d, in %d connections", leaked, connections))
}
