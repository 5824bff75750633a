package session_test

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/session"
	"github.com/jurat-tls/jurat/test/tlspair"
)

// openBoth makes a connection whose client asks its server again and again, with both ends reading.
func openBoth(t *testing.T, period time.Duration, mutual bool) (client, server *session.Conn, p *prover, v *verifier, seen chan *attest.Result) {
	t.Helper()
	hw := newHardware(t)
	p, v = newProver(t, hw), newVerifier(hw, accept)
	seen = make(chan *attest.Result, 64)
	s := setup{serverProver: p, clientVerify: v}
	s.clientOpts = session.Options{Reattest: period, OnReattest: func(r *attest.Result) { seen <- r }}
	if mutual {
		s.clientProver, s.serverVeri, s.serverOpts = newProver(t, hw), newVerifier(hw, accept), s.clientOpts
	}
	s.client, s.server = pair(t, p)
	c, srv := s.run(t)
	ok(t, c, srv)
	t.Cleanup(func() { _ = c.conn.Close(); _ = srv.conn.Close() })
	return c.conn, srv.conn, p, v, seen
}

func drain(conn *session.Conn) <-chan error {
	done := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, conn)
		done <- err
	}()
	return done
}

// The peer attests anew each period, while the application's bytes flow both ways and after they have ended.
func TestReattestation(t *testing.T) {
	for name, mutual := range map[string]bool{"server": false, "mutual": true} {
		t.Run(name, func(t *testing.T) {
			client, server, p, _, seen := openBoth(t, 5*time.Millisecond, mutual)
			first := client.Result()
			got := drain(server)
			back := drain(client)
			for range 50 {
				if _, err := client.Write(make([]byte, 10000)); err != nil {
					t.Fatal(err)
				}
			}
			for range 3 {
				if r := <-seen; !r.Affirmed() {
					t.Fatal(r.Err())
				}
			}
			if err := client.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			if err := <-got; err != nil {
				t.Fatal(err)
			}
			for range 5 {
				if r := <-seen; !r.Affirmed() || r.Level() != attest.LevelSession {
					t.Fatal(r.Err())
				}
			}
			// The end of the bytes is there for everyone who asks, while the connection goes on.
			if n, err := server.Read(make([]byte, 1)); n != 0 || err != io.EOF {
				t.Fatalf("got %d, %v", n, err)
			}
			if client.Result() == first || p.quotes.Load() < 3 {
				t.Errorf("%d quotes", p.quotes.Load())
			}
			_ = server.Close()
			if err := <-back; err != nil {
				t.Error(err)
			}
		})
	}
}

// A peer that is refused later is cut off, and both ends say why.
func TestReattestationRefused(t *testing.T) {
	client, server, _, v, seen := openBoth(t, 5*time.Millisecond, false)
	atServer, atClient := drain(server), drain(client)
	v.set(refuse)
	for r := range seen {
		if !r.Affirmed() {
			break
		}
	}
	code(t, <-atClient, attest.CodeDebug)
	code(t, <-atServer, attest.CodePeerRefused)
	_, err := client.Write([]byte("x"))
	code(t, err, attest.CodeDebug)
}

// stuck is a prover whose TEE gives no more evidence.
type stuck struct {
	*prover
	failing, hanging atomic.Bool
	tries            atomic.Int64
}

func (s *stuck) Attest(ctx context.Context, peer string, leaf merkle.Hash, patient bool) (*cmw.Session, error) {
	s.tries.Add(1)
	if s.hanging.Load() {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if s.failing.Load() {
		return nil, &attest.Error{Code: attest.CodeAttesterFailed, Check: "test", Err: errors.New("no")}
	}
	return s.prover.Attest(ctx, peer, leaf, patient)
}

// A peer whose TEE fails lives on until it is asked for evidence, and then for one period more.
func TestReattestationMissing(t *testing.T) {
	for name, set := range map[string]func(*stuck){
		"failing": func(s *stuck) { s.failing.Store(true) },
		"hanging": func(s *stuck) { s.hanging.Store(true) },
	} {
		t.Run(name, func(t *testing.T) {
			hw := newHardware(t)
			p := &stuck{prover: newProver(t, hw)}
			s := setup{serverProver: p, clientVerify: newVerifier(hw, accept), clientOpts: session.Options{Reattest: 5 * time.Millisecond, Answer: 20 * time.Millisecond}}
			s.client, s.server = pair(t, p.prover)
			set2 := func() { set(p) }
			c, srv := s.run(t)
			ok(t, c, srv)
			set2()
			atServer := drain(srv.conn)
			err := <-drain(c.conn)
			code(t, err, attest.CodeReattest)
			if !strings.Contains(err.Error(), "nothing for 20ms") {
				t.Error(err)
			}
			code(t, <-atServer, attest.CodePeerRefused)
			_ = c.conn.Close()
			_ = srv.conn.Close()
		})
	}
	t.Run("recovering", func(t *testing.T) {
		hw := newHardware(t)
		p := &stuck{prover: newProver(t, hw)}
		seen := make(chan *attest.Result, 64)
		s := setup{serverProver: p, clientVerify: newVerifier(hw, accept), clientOpts: session.Options{Reattest: 5 * time.Millisecond, OnReattest: func(r *attest.Result) { seen <- r }}}
		s.client, s.server = pair(t, p.prover)
		c, srv := s.run(t)
		ok(t, c, srv)
		p.failing.Store(true)
		drain(srv.conn)
		drain(c.conn)
		for p.tries.Load() < 2 {
			time.Sleep(time.Millisecond)
		}
		p.failing.Store(false)
		if r := <-seen; !r.Affirmed() {
			t.Error(r.Err())
		}
		_ = c.conn.Close()
		_ = srv.conn.Close()
	})
}

// A connection that attests anew every minute is open after a day: what was answered in time is over and done with.
func TestReattestationForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hw := newHardware(t)
		p, v := newProver(t, hw), newVerifier(hw, accept)
		a, b := net.Pipe()
		s := setup{serverProver: p, clientVerify: v, clientOpts: session.Options{Reattest: time.Minute}}
		s.client, s.server = tlspair.Over(t, a, b, p.tls, session.ALPN)
		c, srv := s.run(t)
		ok(t, c, srv)
		atClient, atServer := drain(c.conn), drain(srv.conn)
		first := c.conn.Result()
		time.Sleep(24*time.Hour + time.Second)
		if n := p.quotes.Load(); n != 24*60+1 {
			t.Errorf("%d quotes", n)
		}
		if c.conn.Result() == first {
			t.Error("the Result is still the first")
		}
		_ = c.conn.Close()
		_ = srv.conn.Close()
		if err := <-atServer; err != nil {
			t.Error(err)
		}
		<-atClient
	})
}

// A leaf that was renewed meanwhile is presented from then on.
func TestReattestationAfterRotation(t *testing.T) {
	client, server, p, _, seen := openBoth(t, 5*time.Millisecond, false)
	drain(server)
	drain(client)
	before := string(client.Presented().Chain[0])
	p.rotate(t)
	for string(client.Presented().Chain[0]) == before {
		if r := <-seen; !r.Affirmed() {
			t.Fatal(r.Err())
		}
	}
	if got := client.ConnectionState().PeerCertificates[0].Raw; string(got) == before {
		t.Error("the state has the old leaf")
	}
}

// One long write neither keeps the peer from being asked nor outlasts its refusal.
func TestReattestationDuringWrite(t *testing.T) {
	hw := newHardware(t)
	p, v := newProver(t, hw), newVerifier(hw, accept)
	seen := make(chan *attest.Result, 1024)
	s := setup{serverProver: p, clientVerify: v}
	s.clientOpts = session.Options{Reattest: 5 * time.Millisecond, OnReattest: func(r *attest.Result) { seen <- r }}
	s.client, s.server = piped(t, p.tls)
	client, server := s.run(t)
	ok(t, client, server)
	defer client.conn.Close()
	defer server.conn.Close()
	atClient := drain(client.conn)
	cut := make(chan error, 1)
	go func() {
		buf := make([]byte, 16<<10)
		for {
			if _, err := server.conn.Read(buf); err != nil {
				cut <- err
				return
			}
			time.Sleep(time.Millisecond)
		}
	}()
	const all = 64 << 20
	type wrote struct {
		n   int
		err error
	}
	done := make(chan wrote, 1)
	go func() {
		n, err := client.conn.Write(make([]byte, all))
		done <- wrote{n, err}
	}()
	select {
	case r := <-seen:
		if !r.Affirmed() {
			t.Fatal(r.Err())
		}
	case <-done:
		t.Fatal("all was written before the peer was asked")
	}
	v.set(refuse)
	for r := range seen {
		if !r.Affirmed() {
			break
		}
	}
	refused := time.Now()
	w := <-done
	if code(t, w.err, attest.CodeDebug); w.n >= all || time.Since(refused) > 500*time.Millisecond {
		t.Errorf("%d bytes in %s after the refusal", w.n, time.Since(refused))
	}
	code(t, <-atClient, attest.CodeDebug)
	code(t, <-cut, attest.CodePeerRefused)
}
