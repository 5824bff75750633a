package ratls_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/ratls/session"
)

// pausing is the verifier of the smallest platform, which can be held up in the middle.
type pausing struct {
	mu      sync.Mutex
	before  func() // called once
	revoked bool
}

func (p *pausing) Verify(ctx context.Context, ev *attest.Evidence, e attest.Endorser, now time.Time) (*attest.Claims, error) {
	p.mu.Lock()
	f, revoked := p.before, p.revoked
	p.before = nil
	p.mu.Unlock()
	claims, err := verifier{}.Verify(ctx, ev, e, now)
	if f != nil {
		f()
	}
	if revoked {
		return nil, &attest.Error{Code: attest.CodeRevoked, Check: "authenticity.chain"}
	}
	return claims, err
}

func (p *pausing) set(before func(), revoked bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.before, p.revoked = before, revoked
}

// enforced is a place, and a relying party there.
type enforced struct {
	*enforce.Enforcer
	v  *pausing
	rp *ratls.RelyingParty
}

func newEnforced(t testing.TB) *enforced {
	e := &enforced{v: new(pausing)}
	a := attest.NewAppraiser(attest.NoEndorser{}, e.v)
	e.Enforcer = enforce.New(func(attest.Stack) *attest.Appraiser { return a }, time.Now, nil)
	e.Apply(t.Context(), enforce.Change{Policies: map[string]attest.Policy{"p": policy{min: attest.LevelKey}}, Places: map[string][]string{"here": {"p"}}})
	e.rp = ratls.NewEnforcedParty(e.Place("here"), time.Now)
	return e
}

// deny replaces the policy by one that refuses.
func (e *enforced) deny() {
	e.Replace(context.Background(), "p", policy{refuse: attest.CodePlatformDenied})
}

// revoke has the vendor revoke all keys, and says so.
func (e *enforced) revoke() {
	e.v.set(nil, true)
	e.Endorsed(context.Background())
}

// bothTiers are the ways to connect to a server that asks for nothing, or that has a relying party of its own.
var bothTiers = map[string]func(*ratls.Connector) *ratls.Connector{
	"session":     func(c *ratls.Connector) *ratls.Connector { return c },
	"certificate": (*ratls.Connector).CertificateOnly,
}

// A peer that was affirmed is so no more: its connection ends, in a way that does not look like a proper end, at the client and
// at the server alike. Another one goes on.
func TestEnforcedConnection(t *testing.T) {
	for tier, as := range bothTiers {
		for change, want := range map[string]attest.Code{"deny": attest.CodePlatformDenied, "revoke": attest.CodeRevoked, "nothing": ""} {
			for _, side := range []string{"client", "server"} {
				t.Run(tier+" "+change+" "+side, func(t *testing.T) {
					e := newEnforced(t)
					accepted := make(chan *ratls.Conn, 1)
					server := ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), accepting())
					client := ratls.NewMutualConnector(identity(t), accepting())
					if side == "client" {
						client = ratls.NewMutualConnector(identity(t), e.rp)
					} else {
						server = ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), e.rp)
					}
					addr := listener(t, func(raw net.Conn) {
						conn, err := server.Handshake(t.Context(), raw)
						if err != nil {
							t.Error(err)
							return
						}
						accepted <- conn
						_, _ = io.Copy(conn, conn)
						_ = conn.Close()
					})
					conn, err := as(client).Dial(t.Context(), addr)
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					enforcedConn := conn
					if server := <-accepted; side == "server" {
						enforcedConn = server
					}
					if got := e.Standing(); len(got) != 1 || got[0].Place != "here" || got[0].Peer != enforcedConn.RemoteAddr().String() {
						t.Fatalf("on the list: %+v", got)
					}
					echo(t, conn)
					before := enforcedConn.Result()
					switch change {
					case "deny":
						e.deny()
					case "revoke":
						e.revoke()
					default:
						e.Replace(t.Context(), "p", policy{min: attest.LevelKey, refuse: ""})
						e.Endorsed(t.Context())
						if echo(t, conn); enforcedConn.Result() == before {
							t.Error("the Result was not judged again")
						}
						_ = conn.Close()
						until(t, func() bool { return len(e.Standing()) == 0 })
						return
					}
					_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
					if _, err := conn.Read(make([]byte, 1)); err == nil || errors.Is(err, io.EOF) || timedOut(err) {
						t.Errorf("got %v", err)
					} else if tier == "session" && side == "client" {
						code(t, err, want)
					} else if tier == "session" {
						code(t, err, attest.CodePeerRefused)
					}
					if n := len(e.Standing()); n != 0 {
						t.Errorf("%d on the list", n)
					}
				})
			}
		}
	}
}

func timedOut(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

func until(t *testing.T, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}

func echo(t *testing.T, conn net.Conn) {
	t.Helper()
	if _, err := conn.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 5)
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}

// The policy changes while the evidence is being looked at: no connection comes of it, and no byte of the application moves.
func TestChangeDuringHandshake(t *testing.T) {
	for tier, as := range bothTiers {
		for change, want := range map[string]attest.Code{"deny": attest.CodePlatformDenied, "revoke": attest.CodeRevoked} {
			for _, side := range []string{"client", "server"} {
				t.Run(tier+" "+change+" "+side, func(t *testing.T) {
					e := newEnforced(t)
					server := ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), accepting())
					client := ratls.NewMutualConnector(identity(t), accepting())
					if side == "client" {
						client = ratls.NewMutualConnector(identity(t), e.rp)
					} else {
						server = ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), e.rp)
					}
					e.v.set(map[string]func(){"deny": e.deny, "revoke": e.revoke}[change], false)
					served := make(chan error, 1)
					got := make(chan []byte, 1)
					addr := listener(t, func(raw net.Conn) {
						conn, err := server.Handshake(t.Context(), raw)
						served <- err
						if err != nil {
							got <- nil
							return
						}
						all, _ := io.ReadAll(conn)
						got <- all
						_ = conn.Close()
					})
					conn, err := as(client).Dial(t.Context(), addr)
					if side == "client" {
						code(t, err, want)
						var refusal *ratls.Refusal
						if !errors.As(err, &refusal) || len(refusal.Chain) == 0 {
							t.Errorf("got %v", err)
						}
					} else {
						if err == nil { // in TLS 1.3 the client is done before the server is
							_, _ = conn.Write([]byte("hello"))
							_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
							if _, err := conn.Read(make([]byte, 1)); err == nil || timedOut(err) {
								t.Errorf("got %v", err)
							}
							_ = conn.Close()
						}
						code(t, <-served, want)
					}
					if all := <-got; len(all) > 0 {
						t.Errorf("the server was sent %q", all)
					}
					if len(e.Standing()) != 0 {
						t.Error("it is on the list")
					}
				})
			}
		}
	}
}

// A peer attests anew while the policy changes: it does not stay on what was found under the old one.
func TestChangeDuringReattestation(t *testing.T) {
	e := newEnforced(t)
	seen := make(chan *attest.Result, 1)
	opts := session.Options{Reattest: 5 * time.Millisecond, OnReattest: func(r *attest.Result) {
		if !r.Affirmed() {
			seen <- r
		}
	}}
	server := ratls.NewAcceptor(identity(t, "127.0.0.1"))
	addr := listener(t, func(raw net.Conn) {
		conn, err := server.Handshake(t.Context(), raw)
		if err != nil {
			t.Error(err)
			return
		}
		_, _ = io.Copy(io.Discard, conn)
		_ = conn.Close()
	})
	conn, err := ratls.NewConnector(e.rp).WithSession(opts).Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	// The first change is judged by what the connection stood on before, which is fine; the evidence that is on its way is not.
	first := true
	e.v.set(func() {
		e.v.set(nil, true)
		if first {
			e.Publish(enforce.Change{Endorsements: true}) // and its sweep comes too late
		}
	}, false)
	_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
	_, err = conn.Read(make([]byte, 1))
	code(t, err, attest.CodeRevoked)
	if r := <-seen; r.Code() != attest.CodeRevoked {
		t.Error(r.Err())
	}
	if len(e.Standing()) != 0 {
		t.Error("it is on the list")
	}
}

// Secrets from before a change are void at both ends: the next connection shows evidence.
func TestChangeVoidsSecrets(t *testing.T) {
	e := newEnforced(t)
	hw := &hardware{}
	id, err := ratls.NewIdentity(t.Context(), hw, []string{"127.0.0.1"}, [32]byte{7}, ratls.IdentityOptions{})
	if err != nil {
		t.Fatal(err)
	}
	server := ratls.NewAcceptor(id).WithSession(session.Options{Store: session.NewStore(8, time.Now)})
	addr := listener(t, func(raw net.Conn) {
		if conn, err := server.Handshake(t.Context(), raw); err == nil {
			_, _ = io.Copy(io.Discard, conn)
			_ = conn.Close()
		}
	})
	client := ratls.NewConnector(e.rp).WithSession(session.Options{Store: session.NewStore(8, time.Now)})
	quotes := func() int {
		before := hw.quotes()
		conn, err := client.Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.Close()
		return hw.quotes() - before
	}
	for _, change := range []func(){func() {}, func() { e.Endorsed(t.Context()) }, func() { e.Replace(t.Context(), "p", policy{}) }, func() { e.Replace(t.Context(), "p", policy{min: attest.LevelKey}) }} {
		if change(); e.Stats().Refused != 0 {
			t.Fatal("refused")
		}
		_, stack := e.Place("here").Basis()
		if (stack[0].Policy == policy{}) {
			continue // which affirms nothing
		}
		if n := quotes(); n != 1 {
			t.Errorf("%d quotes after a change", n)
		}
		if n := quotes(); n != 0 {
			t.Errorf("%d quotes without a change", n)
		}
	}
}

// Whoever holds the connection decides how it ends, also where it comes to that late.
func TestOnRefused(t *testing.T) {
	for _, late := range []bool{false, true} {
		e := newEnforced(t)
		server := ratls.NewAcceptor(identity(t, "127.0.0.1"))
		addr := listener(t, func(raw net.Conn) {
			if conn, err := server.Handshake(t.Context(), raw); err == nil {
				_, _ = io.Copy(io.Discard, conn)
				_ = conn.Close()
			}
		})
		conn, err := ratls.NewConnector(e.rp).CertificateOnly().Dial(t.Context(), addr)
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan *attest.Result, 2)
		if !late {
			conn.OnRefused(func(r *attest.Result) { told <- r })
		}
		e.deny()
		if late {
			conn.OnRefused(func(r *attest.Result) { told <- r })
		}
		if r := <-told; r.Code() != attest.CodePlatformDenied || len(told) != 0 {
			t.Error(r.Err())
		}
		_ = conn.Close()
	}
}

// Idle connections of an http.Transport end as well, and leave nothing behind.
func TestEnforcedTransport(t *testing.T) {
	for _, protos := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}} {
		e := newEnforced(t)
		id := identity(t, "127.0.0.1")
		config := ratls.ServerConfig(id)
		config.NextProtos = protos
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{TLSConfig: config, Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") })}
		done := make(chan struct{})
		go func() { defer close(done); _ = srv.ServeTLS(ln, "", "") }()
		tr := ratls.NewTransport(e.rp).(*http.Transport)
		get := func() error {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+ln.Addr().String(), nil)
			res, err := tr.RoundTrip(req)
			if err != nil {
				return err
			}
			_, err = io.ReadAll(res.Body)
			return errors.Join(err, res.Body.Close())
		}
		if err := get(); err != nil {
			t.Fatal(err)
		}
		if n := len(e.Standing()); n != 1 {
			t.Errorf("%v: %d on the list", protos, n)
		}
		e.deny()
		if get() == nil { // which may have met the end of the connection
			t.Errorf("%v: an answer over a connection that was refused", protos)
		}
		code(t, get(), attest.CodePlatformDenied)
		e.Replace(t.Context(), "p", policy{min: attest.LevelKey})
		if err := get(); err != nil {
			t.Error(err)
		}
		tr.CloseIdleConnections()
		until(t, func() bool { return len(e.Standing()) == 0 })
		_ = srv.Close()
		<-done
	}
}

// A change in the middle of a reconnect costs another attempt, with evidence, and not the connection; whichever end it is at. What
// says so for ever is tried once more.
func TestStaleReconnect(t *testing.T) {
	for name, tt := range map[string]struct {
		server bool
		at     int64 // the question for the epoch at which it has changed
		opened int
	}{
		"client":        {false, 3, 2},
		"server":        {true, 3, 2},
		"before it all": {false, 1, 1},
	} {
		t.Run(name, func(t *testing.T) {
			var asked, epoch atomic.Int64
			asked.Store(-1 << 40)
			moving := func() uint64 {
				if asked.Add(1) == tt.at {
					epoch.Add(1)
				}
				return uint64(epoch.Load())
			}
			still := func() uint64 { return 0 }
			epochs := []func() uint64{moving, still}
			if tt.server {
				slices.Reverse(epochs)
			}
			server := ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), accepting()).WithSession(session.Options{Store: session.NewStore(10, time.Now), Epoch: epochs[1]})
			client := ratls.NewMutualConnector(identity(t), accepting()).WithSession(session.Options{Store: session.NewStore(10, time.Now), Epoch: epochs[0]})
			shaken := make(chan struct{}, 4)
			addr := accepts(t, server, shaken)
			opened := 0
			dial := func() (bool, error) {
				conn, err := client.Establish(t.Context(), func(ctx context.Context) (net.Conn, string, error) {
					opened++
					return ratls.Connect(ctx, addr)
				})
				if err != nil {
					return false, err
				}
				defer conn.Close()
				<-shaken // by then the server has kept what the next one is to reconnect to
				return conn.Result().Reconnected(), nil
			}
			if again, err := dial(); err != nil || again {
				t.Fatal(again, err)
			}
			if again, err := dial(); err != nil || !again {
				t.Fatal(again, err)
			}
			opened = 0
			asked.Store(0)
			again, err := dial()
			if err != nil || again || opened != tt.opened {
				t.Errorf("got %v, reconnected %v, after %d attempts", err, again, opened)
			}
		})
	}
}

func TestAlwaysStale(t *testing.T) {
	refusing := ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, verifier{}), policy{refuse: attest.CodeReconnectRefused}, time.Now)
	addr := accepts(t, ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), refusing))
	opened := 0
	_, err := ratls.NewMutualConnector(identity(t), accepting()).Establish(t.Context(), func(ctx context.Context) (net.Conn, string, error) {
		opened++
		return ratls.Connect(ctx, addr)
	})
	if attest.CodeOf(err) != attest.CodePeerRefused || opened != 2 {
		t.Errorf("got %v after %d attempts", err, opened)
	}
}

// accepts has a reader for each connection, and answers where. Each of shaken is told of a handshake that has succeeded.
func accepts(t testing.TB, a *ratls.Acceptor, shaken ...chan<- struct{}) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ln.Close() })
	go func() {
		for {
			raw, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				if conn, err := a.Handshake(context.Background(), raw); err == nil {
					for _, c := range shaken {
						c <- struct{}{}
					}
					_, _ = io.Copy(io.Discard, conn)
					_ = conn.Close()
				}
			}()
		}
	}()
	return ln.Addr().String()
}
