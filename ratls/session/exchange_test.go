package session_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/test/tlspair"
)

// A server believes an affirmation and nothing that resembles one.
func TestVerdictOfTheClient(t *testing.T) {
	hw := newHardware(t)
	p := newProver(t, hw)
	for name, c := range map[string]struct {
		say  []byte
		code attest.Code
		want string
	}{
		"affirmed":              {frame(verdict, cbor(t, verdictBody{Affirmed: true})), "", ""},
		"refused":               {frame(verdict, cbor(t, verdictBody{Code: "J504"})), attest.CodePeerRefused, "J504"},
		"refused without why":   {frame(verdict, cbor(t, verdictBody{})), attest.CodePeerRefused, "a reason that is not known"},
		"affirmed with a code":  {frame(verdict, cbor(t, verdictBody{Affirmed: true, Code: "J504"})), attest.CodeSessionExchange, "an affirmation"},
		"not to be read":        {frame(verdict, []byte("yes")), attest.CodeSessionExchange, "does not decode"},
		"cut":                   {[]byte{verdict, 0, 0, 5, 0xa2}, attest.CodeSessionExchange, "closed the connection"},
		"none":                  {nil, attest.CodeSessionExchange, "closed the connection"},
		"an authenticator":      {frame(authenticator, []byte("x")), attest.CodeSessionExchange, "authenticator where verdict was due"},
		"application bytes yet": {frame(data, []byte("GET / HTTP/1.1")), attest.CodeSessionExchange, "data where verdict was due"},
	} {
		t.Run(name, func(t *testing.T) {
			client, server := pair(t, p)
			done := make(chan error, 1)
			go func() {
				conn, err := session.Server(t.Context(), server, "peer", nil, p, time.Now, session.Options{})
				if (conn == nil) != (err != nil) {
					t.Error("neither a connection nor an error")
				}
				_ = server.Close()
				done <- err
			}()
			_, _ = client.Write(append(frame(hello, good(t)), frame(request, ask(t, client, ea.Client, 1))...))
			read(t, client, hello)
			read(t, client, authenticator)
			_, _ = client.Write(c.say)
			_ = client.CloseWrite()
			err := <-done
			code(t, err, c.code)
			if err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

func TestProtocols(t *testing.T) {
	hw := newHardware(t)
	for name, c := range map[string]struct {
		client, server []string
		want           string
		code           attest.Code // at the server
	}{
		"the server's favourite": {[]string{"http/1.1", "h2"}, []string{"h2", "http/1.1"}, "h2", ""},
		"what there is":          {[]string{"http/1.1"}, []string{"h2", "http/1.1"}, "http/1.1", ""},
		"a server of anything":   {[]string{"h2", "http/1.1"}, nil, "h2", ""},
		"left open":              {nil, []string{"h2"}, "", ""},
		"nothing in common":      {[]string{"smtp"}, []string{"h2", "http/1.1"}, "", attest.CodeHandshake},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProver(t, hw)
			s := setup{serverProver: p, clientVerify: newVerifier(hw, accept)}
			s.clientOpts.Protocols, s.serverOpts.Protocols = c.client, c.server
			s.client, s.server = pair(t, p)
			client, server := s.run(t)
			code(t, server.err, c.code)
			if c.code != "" {
				code(t, client.err, attest.CodePeerRefused)
				if p.quotes.Load() != 0 {
					t.Error("that cost a quote")
				}
				return
			}
			ok(t, client, server)
			for _, conn := range []*session.Conn{client.conn, server.conn} {
				if got := conn.ConnectionState().NegotiatedProtocol; got != c.want {
					t.Errorf("got %q", got)
				}
				_ = conn.Close()
			}
		})
	}
}

// odd is a prover that does as it is told.
type odd struct {
	*prover
	attest func(ctx context.Context, leaf merkle.Hash) (*cmw.Session, error)
	leaf   error
}

func (o odd) Attest(ctx context.Context, peer string, leaf merkle.Hash, patient bool) (*cmw.Session, error) {
	if o.attest == nil {
		return o.prover.Attest(ctx, peer, leaf, patient)
	}
	return o.attest(ctx, leaf)
}

func (o odd) Quote(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	if o.attest == nil {
		return o.prover.Quote(ctx, data)
	}
	_, err := o.attest(ctx, merkle.Hash{})
	return nil, err
}

func (o odd) Leaf() (*session.Own, error) {
	if o.leaf != nil {
		return nil, o.leaf
	}
	return o.prover.Leaf()
}

// An end that can't show what it should says so, and both know.
func TestNothingToShow(t *testing.T) {
	hw := newHardware(t)
	failing := func(context.Context, merkle.Hash) (*cmw.Session, error) {
		return nil, &attest.Error{Code: attest.CodeAttesterFailed, Check: "test", Err: errors.New("no")}
	}
	for name, c := range map[string]struct {
		odd     odd
		profile session.Profile
		code    attest.Code
		want    string
	}{
		"failing":           {odd{attest: failing}, "", attest.CodeAttesterFailed, ""},
		"failing for expat": {odd{attest: failing}, session.ProfileExpat, attest.CodeAttesterFailed, ""},
		"panicking":         {odd{attest: func(context.Context, merkle.Hash) (*cmw.Session, error) { panic("no") }}, "", attest.CodeInternal, "panic: no"},
		"without a leaf":    {odd{leaf: &attest.Error{Code: attest.CodeLeafExpired, Check: "identity"}}, "", attest.CodeLeafExpired, ""},
		"too large": {odd{attest: func(context.Context, merkle.Hash) (*cmw.Session, error) {
			return &cmw.Session{Evidence: &attest.Evidence{Format: "test", Raw: make([]byte, 1<<16)}, Size: 1}, nil
		}}, "", attest.CodeSessionExchange, "no authenticator"},
	} {
		check := func(t *testing.T, broken, other outcome) {
			t.Helper()
			code(t, broken.err, c.code)
			if !strings.Contains(broken.err.Error(), c.want) {
				t.Errorf("got %v, want %q", broken.err, c.want)
			}
			code(t, other.err, attest.CodePeerRefused)
			if !strings.Contains(other.err.Error(), string(c.code)) {
				t.Errorf("the other end knows %v", other.err)
			}
			var told *attest.Error
			if !errors.As(other.err, &told) || !strings.Contains(told.Remedy(), "log") {
				t.Errorf("what to do about it: %q", told.Remedy())
			}
		}
		t.Run("server "+name, func(t *testing.T) {
			c.odd.prover = newProver(t, hw)
			s := setup{serverProver: c.odd, clientVerify: newVerifier(hw, accept)}
			s.clientOpts.Profile, s.serverOpts.Profile = c.profile, c.profile
			s.client, s.server = pair(t, c.odd.prover)
			client, server := s.run(t)
			check(t, server, client)
		})
		t.Run("client "+name, func(t *testing.T) {
			c.odd.prover = newProver(t, hw)
			p := newProver(t, hw)
			s := setup{serverProver: p, clientVerify: newVerifier(hw, accept), clientProver: c.odd, serverVeri: newVerifier(hw, accept)}
			s.clientOpts.Profile, s.serverOpts.Profile = c.profile, c.profile
			s.client, s.server = pair(t, p)
			client, server := s.run(t)
			check(t, client, server)
		})
	}
}

// Where both attest, the two quotes are made at the same time: each waits here for the other to have begun.
func TestQuotesAtOnce(t *testing.T) {
	hw := newHardware(t)
	p, q := newProver(t, hw), newProver(t, hw)
	var both sync.WaitGroup
	both.Add(2)
	meet := func(of *prover) odd {
		return odd{prover: of, attest: func(ctx context.Context, leaf merkle.Hash) (*cmw.Session, error) {
			both.Done()
			both.Wait()
			return of.Attest(ctx, "", leaf, false)
		}}
	}
	s := setup{serverProver: meet(p), clientProver: meet(q), clientVerify: newVerifier(hw, accept), serverVeri: newVerifier(hw, accept)}
	s.client, s.server = pair(t, p)
	client, server := s.run(t)
	ok(t, client, server)
	_ = client.conn.Close()
	_ = server.conn.Close()
}

// A client that goes, or gives up, while its server waits for a quote ends that wait.
func TestGoneDuringQuote(t *testing.T) {
	hw := newHardware(t)
	for name, c := range map[string]struct {
		say  []byte
		code attest.Code
		want string
	}{
		"gone":     {nil, attest.CodeSessionExchange, "closed the connection"},
		"gave up":  {frame(verdict, cbor(t, verdictBody{Code: string(attest.CodeNoEvidence)})), attest.CodeNoEvidence, ""},
		"affirmed": {frame(verdict, cbor(t, verdictBody{Affirmed: true})), attest.CodeSessionExchange, "the client spoke out of turn"},
	} {
		t.Run(name, func(t *testing.T) {
			p := newProver(t, hw)
			began := make(chan struct{})
			hanging := odd{prover: p, attest: func(ctx context.Context, _ merkle.Hash) (*cmw.Session, error) {
				close(began)
				<-ctx.Done()
				return nil, ctx.Err()
			}}
			client, server := pair(t, p)
			done := make(chan error, 1)
			go func() {
				_, err := session.Server(context.Background(), server, "peer", nil, hanging, time.Now, session.Options{})
				_ = server.Close()
				done <- err
			}()
			_, _ = client.Write(append(frame(hello, good(t)), frame(request, ask(t, client, ea.Client, 1))...))
			<-began
			if c.say != nil {
				_, _ = client.Write(c.say)
			} else {
				_ = client.Close()
			}
			err := <-done
			code(t, err, c.code)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// asking is a server's Conn, open, with a client that is played by hand.
func asking(t *testing.T, change func(*prover) session.Prover) (raw io.ReadWriter, conn *session.Conn, demand func(challenge byte) []byte) {
	t.Helper()
	hw := newHardware(t)
	p := newProver(t, hw)
	client, server := pair(t, p)
	made := make(chan *session.Conn, 1)
	go func() {
		conn, err := session.Server(t.Context(), server, "peer", nil, change(p), time.Now, session.Options{Reattest: time.Nanosecond})
		if err != nil {
			t.Error(err)
		}
		made <- conn
	}()
	_, _ = client.Write(append(frame(hello, good(t)), frame(request, ask(t, client, ea.Client, 1))...))
	read(t, client, hello)
	read(t, client, authenticator)
	_, _ = client.Write(frame(verdict, cbor(t, verdictBody{Affirmed: true})))
	conn = <-made
	t.Cleanup(func() { _ = conn.Close() })
	return client, conn, func(challenge byte) []byte { return frame(request, ask(t, client, ea.Client, challenge)) }
}

// An end that attests anew takes one request at a time, and none twice.
func TestRequestsWhileOpen(t *testing.T) {
	honest := func(p *prover) session.Prover { return p }
	t.Run("one after the other", func(t *testing.T) {
		raw, conn, demand := asking(t, honest)
		failed := drain(conn)
		for i := range byte(3) {
			_, _ = raw.Write(demand(2 + i))
			read(t, raw, authenticator) // a server that is not to ask its client asks for nothing in between
		}
		_, _ = raw.Write(frame(end, nil))
		if err := <-failed; err != nil {
			t.Error(err)
		}
	})
	for name, c := range map[string]struct {
		say  func(demand func(byte) []byte) []byte
		want string
	}{
		"two at once":      {func(d func(byte) []byte) []byte { return append(d(2), d(3)...) }, "while another is open"},
		"an unsound one":   {func(func(byte) []byte) []byte { return frame(request, []byte{17, 0, 0, 0}) }, "a request for evidence"},
		"the same at once": {func(d func(byte) []byte) []byte { return append(d(2), d(2)...) }, "while another is open"},
	} {
		t.Run(name, func(t *testing.T) {
			raw, conn, demand := asking(t, func(p *prover) session.Prover {
				asked := 0
				return odd{prover: p, attest: func(ctx context.Context, leaf merkle.Hash) (*cmw.Session, error) {
					if asked++; asked > 1 {
						<-ctx.Done()
						return nil, ctx.Err()
					}
					return p.Attest(ctx, "", leaf, false)
				}}
			})
			failed := drain(conn)
			_, _ = raw.Write(c.say(demand))
			err := <-failed
			code(t, err, attest.CodeSessionExchange)
			if !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
	t.Run("the same again", func(t *testing.T) {
		raw, conn, demand := asking(t, honest)
		failed := drain(conn)
		_, _ = raw.Write(demand(2))
		read(t, raw, authenticator)
		_, _ = raw.Write(demand(2))
		err := <-failed
		code(t, err, attest.CodeSessionExchange)
		if !strings.Contains(err.Error(), "the same request again") {
			t.Error(err)
		}
	})
	t.Run("closed meanwhile", func(t *testing.T) {
		began := make(chan struct{})
		asked := 0
		raw, conn, demand := asking(t, func(p *prover) session.Prover {
			return odd{prover: p, attest: func(ctx context.Context, leaf merkle.Hash) (*cmw.Session, error) {
				if asked++; asked > 1 {
					close(began)
					<-ctx.Done() // what goes on after the connection has ended is found as a leak
					return nil, ctx.Err()
				}
				return p.Attest(ctx, "", leaf, false)
			}}
		})
		ended := drain(conn)
		_, _ = raw.Write(demand(2))
		<-began
		_ = conn.Close()
		<-ended
	})
	t.Run("while nobody reads", func(t *testing.T) {
		made := make(chan struct{}, 50)
		raw, conn, demand := asking(t, func(p *prover) session.Prover {
			return odd{prover: p, attest: func(ctx context.Context, leaf merkle.Hash) (*cmw.Session, error) {
				made <- struct{}{}
				return p.Attest(ctx, "", leaf, false)
			}}
		})
		<-made
		failed := drain(conn)
		stuck := make(chan struct{})
		go func() {
			defer close(stuck)
			_, _ = conn.Write(make([]byte, 64<<20))
		}()
		// As long as the transport takes bytes an answer gets its turn. From then on one waits, and no more.
		var err error
		for i := byte(2); i < 50 && err == nil; i++ {
			_, _ = raw.Write(demand(i))
			select {
			case <-made:
				time.Sleep(50 * time.Millisecond)
			case err = <-failed:
			}
		}
		if code(t, err, attest.CodeSessionExchange); !strings.Contains(err.Error(), "while another is open") {
			t.Error(err)
		}
		<-stuck
	})
	t.Run("panicking", func(t *testing.T) {
		raw, conn, demand := asking(t, func(p *prover) session.Prover {
			asked := 0
			return odd{prover: p, attest: func(ctx context.Context, leaf merkle.Hash) (*cmw.Session, error) {
				if asked++; asked > 1 {
					panic("no")
				}
				return p.Attest(ctx, "", leaf, false)
			}}
		})
		failed := drain(conn)
		_, _ = raw.Write(demand(2))
		code(t, <-failed, attest.CodeInternal)
	})
}

// The answer to a request on an open connection has to be one, and of this request.
func TestAnswersWhileOpen(t *testing.T) {
	for name, forge := range map[string]func(old []byte) []byte{
		"garbage":    func([]byte) []byte { return []byte("evidence") },
		"the old":    func(old []byte) []byte { return old },
		"cut short":  func(old []byte) []byte { return old[:len(old)-1] },
		"and a byte": func(old []byte) []byte { return append(old, 0) },
	} {
		t.Run(name, func(t *testing.T) {
			hw := newHardware(t)
			p, v := newProver(t, hw), newVerifier(hw, accept)
			client, server := pair(t, p)
			type done struct {
				conn *session.Conn
				err  error
			}
			made := make(chan done, 1)
			go func() {
				conn, err := session.Client(t.Context(), client, "a.example", v, nil, time.Now, session.Options{Reattest: time.Millisecond})
				made <- done{conn, err}
			}()
			read(t, server, hello)
			answer := func(req []byte) []byte {
				e, err := ea.New(server.ConnectionState(), ea.DefaultExtension)
				if err != nil {
					t.Fatal(err)
				}
				challenge, err := e.Challenge(ea.Client, req)
				if err != nil {
					t.Fatal(err)
				}
				exporter, err := e.Export("EXPORTER-jurat-attestation-server", challenge[:], 32)
				if err != nil {
					t.Fatal(err)
				}
				own, _ := p.Leaf()
				s, err := p.Attest(t.Context(), "", session.Leaf(ea.Server, own.SPKI, challenge, [32]byte(exporter)), false)
				if err != nil {
					t.Fatal(err)
				}
				raw, err := cmw.MarshalSession(s)
				if err != nil {
					t.Fatal(err)
				}
				auth, err := e.Authenticate(ea.Server, req, own.Chain, own.Key, raw)
				if err != nil {
					t.Fatal(err)
				}
				return auth
			}
			first := answer(read(t, server, request))
			_, _ = server.Write(append(frame(hello, cbor(t, serverHello{})), frame(authenticator, first)...))
			read(t, server, verdict)
			d := <-made
			if d.err != nil {
				t.Fatal(d.err)
			}
			failed := drain(d.conn)
			// An honest answer goes through.
			_, _ = server.Write(frame(authenticator, answer(read(t, server, request))))
			read(t, server, request)
			_, _ = server.Write(frame(authenticator, forge(first)))
			code(t, <-failed, attest.CodeAuthenticator)
			_ = d.conn.Close()
		})
	}
}

// A connection without exporters binds nothing: nothing is asked on it, of either end.
func TestNoExporters(t *testing.T) {
	hw := newHardware(t)
	p := newProver(t, hw)
	alone := func(mute bool) (client, server *tls.Conn) {
		if mute {
			return tlspair.Mute(t, p.tls, session.ALPN)
		}
		return pair(t, p)
	}
	for name, mute := range map[string]struct{ client, server bool }{"client": {client: true}, "server": {server: true}} {
		t.Run(name, func(t *testing.T) {
			// Each end talks to one that has the exporters of its own connection, so that it alone lacks them.
			client, far := alone(mute.client)
			near, server := alone(mute.server)
			relay(t, near, far)
			s := setup{client: client, server: server, serverProver: p, clientProver: newProver(t, hw), clientVerify: newVerifier(hw, accept), serverVeri: newVerifier(hw, accept)}
			c, at := s.run(t)
			mine, got := c.err, at.err
			if mute.server {
				mine, got = got, mine
			}
			code(t, mine, attest.CodeSessionExchange)
			if !strings.Contains(mine.Error(), "no request") || got == nil {
				t.Errorf("%v; the other end: %v", mine, got)
			}
		})
	}
}

// relay passes on what comes between two connections, until either ends.
func relay(t *testing.T, a, b *tls.Conn) {
	t.Helper()
	var work sync.WaitGroup
	for _, way := range [][2]*tls.Conn{{a, b}, {b, a}} {
		work.Go(func() {
			_, _ = io.Copy(way[0], way[1])
			_ = way[0].Close()
		})
	}
	t.Cleanup(func() { _, _ = a.Close(), b.Close(); work.Wait() })
}

// Where Read is called whenever something has arrived, nothing else reads: requests are taken by it after the end, too.
func TestPolled(t *testing.T) {
	raw, conn, demand := asking(t, func(p *prover) session.Prover { return p })
	if !conn.Polled() {
		t.Error("nothing to read for after the end")
	}
	// poll reads what is there, up to what is not.
	poll := func() (got []byte, err error) {
		buf := make([]byte, 100)
		for err == nil {
			var n int
			_ = conn.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			n, err = conn.Read(buf)
			got = append(got, buf[:n]...)
		}
		return got, err
	}
	if got, err := poll(); len(got) > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("got %q, %v", got, err)
	}
	_, _ = raw.Write(append(frame(data, []byte("last")), frame(end, nil)...))
	for got, err := []byte(nil), error(nil); err != io.EOF; {
		var more []byte
		if more, err = poll(); err != io.EOF && !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(err)
		}
		if got = append(got, more...); err == io.EOF && string(got) != "last" {
			t.Fatalf("got %q", got)
		}
	}
	answered := make(chan struct{})
	_, _ = raw.Write(demand(2))
	go func() {
		defer close(answered)
		read(t, raw, authenticator)
	}()
	select {
	case <-answered:
		t.Error("something else reads")
	case <-time.After(50 * time.Millisecond):
	}
	for waiting := true; waiting; {
		if got, err := poll(); len(got) > 0 || err != io.EOF {
			t.Fatalf("got %q, %v", got, err)
		}
		select {
		case <-answered:
			waiting = false
		default:
		}
	}
	_, _ = raw.Write(frame(data, []byte("more")))
	for {
		got, err := poll()
		if err == io.EOF && len(got) == 0 {
			continue
		}
		code(t, err, attest.CodeSessionExchange)
		break
	}
	if _, err := conn.Write([]byte("x")); attest.CodeOf(err) != attest.CodeSessionExchange {
		t.Errorf("a write on a connection that has failed: %v", err)
	}
}
