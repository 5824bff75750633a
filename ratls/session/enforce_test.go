package session_test

import (
	"context"
	"errors"
	"net"
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

// What an end has kept from before a change is void, at whichever end the change is, also where its policy is the same as before
// and only endorsements have changed.
func TestEpochVoidsSecrets(t *testing.T) {
	for name, mutual := range map[string]bool{"server": false, "mutual": true} {
		t.Run(name, func(t *testing.T) {
			m := newMeeting(t, mutual)
			var client, server atomic.Uint64
			meet := func() (quotes int64, reconnected bool) {
				before := m.quotes()
				s := m.setup()
				s.clientOpts.Epoch, s.serverOpts.Epoch = client.Load, server.Load
				c, srv := s.run(m)
				ok(m, c, srv)
				defer c.conn.Close()
				defer srv.conn.Close()
				return m.quotes() - before, c.conn.Result().Reconnected()
			}
			for _, change := range []*atomic.Uint64{nil, &client, &server} {
				if change != nil {
					change.Add(1)
				}
				if n, again := meet(); n == 0 || again {
					t.Errorf("%d quotes after a change, reconnected %v", n, again)
				}
				if n, again := meet(); n != 0 || !again {
					t.Errorf("%d quotes without a change, reconnected %v", n, again)
				}
			}
		})
	}
}

// A change in the middle of an exchange: the secret that was good when it began is so no more, and what the exchange would leave
// behind is void.
func TestEpochDuringExchange(t *testing.T) {
	m := newMeeting(t, false)
	m.meet()
	// The client asks at the beginning, when it finds the secret, and when the proof has come.
	for at, want := range map[int64]attest.Code{2: "", 3: attest.CodeReconnectRefused} {
		m.kept.Clear()
		m.meet()
		var asked atomic.Int64
		s := m.setup()
		s.clientOpts.Epoch = func() uint64 {
			if asked.Add(1) >= at {
				return 1
			}
			return 0
		}
		c, srv := s.run(m)
		if session.Stale(c.err) != (want != "") || session.Stale(srv.err) != (want != "") {
			t.Errorf("stale: %v, %v", c.err, srv.err)
		}
		if code(t, c.err, want); want == "" {
			if c.conn.Result().Reconnected() {
				t.Error("reconnected across a change")
			}
			s := m.setup() // what was kept is of the epoch in which the exchange began
			s.clientOpts.Epoch = func() uint64 { return 1 }
			c2, srv2 := s.run(m)
			if ok(m, c2, srv2); c2.conn.Result().Reconnected() {
				t.Error("a secret of an exchange that began before the change")
			}
			for _, o := range []outcome{c, srv, c2, srv2} {
				_ = o.conn.Close()
			}
		} else {
			code(t, srv.err, attest.CodePeerRefused)
		}
	}
}

func TestSettle(t *testing.T) {
	client, server, _, _, _ := openBoth(t, 0, false)
	was := client.Result()
	is := was.Rejudge(policyFunc(accept), time.Now())
	if !client.Settle(was, is) || client.Result() != is {
		t.Error("not settled")
	}
	if client.Settle(was, was) || client.Result() != is {
		t.Error("settled over another Result")
	}
	if server.Settle(nil, is) || server.Result() != nil {
		t.Error("settled where nobody was asked")
	}
}

type policyFunc func(attest.Situation) attest.Judgement

func (f policyFunc) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement { return f(s) }

// An open connection that is refused ends at both ends, which know why, and nothing that is cut off looks whole.
func TestRefuse(t *testing.T) {
	client, server, _, _, _ := openBoth(t, 0, false)
	atServer, atClient := drain(server), drain(client)
	client.Refuse(client.Result().Rejudge(policyFunc(refuse), time.Now()))
	code(t, <-atClient, attest.CodeDebug)
	code(t, <-atServer, attest.CodePeerRefused)
	for _, c := range []*session.Conn{client, server} {
		if _, err := c.Write([]byte("x")); err == nil {
			t.Error("bytes move")
		}
	}
}

// rechecked is a verifier that has second thoughts.
type rechecked struct {
	*verifier
	refuse atomic.Bool
	asked  atomic.Int64
}

func (r *rechecked) Recheck(context.Context) *attest.Result {
	r.asked.Add(1)
	if r.refuse.Load() {
		return attest.RefusedResult(&attest.Error{Code: attest.CodePlatformDenied, Check: "test"}, time.Now())
	}
	return nil
}

// Whoever attests anew just when a policy changes is looked at once more.
func TestRecheck(t *testing.T) {
	hw := newHardware(t)
	p, v := newProver(t, hw), &rechecked{verifier: newVerifier(hw, accept)}
	seen := make(chan *attest.Result, 64)
	s := setup{serverProver: p, clientVerify: v}
	s.clientOpts = session.Options{Reattest: 5 * time.Millisecond, OnReattest: func(r *attest.Result) { seen <- r }}
	s.client, s.server = pair(t, p)
	c, srv := s.run(t)
	ok(t, c, srv)
	if v.asked.Load() != 0 {
		t.Error("asked about the first Result, which has not taken the place of another")
	}
	atServer, atClient := drain(srv.conn), drain(c.conn)
	if r := <-seen; !r.Affirmed() || v.asked.Load() == 0 {
		t.Error(r.Err())
	}
	v.refuse.Store(true)
	code(t, <-atClient, attest.CodePlatformDenied)
	code(t, <-atServer, attest.CodePeerRefused)
	for r := range seen {
		if r.Code() == attest.CodePlatformDenied {
			break
		}
	}
	_ = c.conn.Close()
	_ = srv.conn.Close()
}

// A policy that takes evidence for a shorter time has the peer of an open connection asked sooner, however often it changes.
func TestPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hw := newHardware(t)
		p, v := newProver(t, hw), newVerifier(hw, accept)
		var pace atomic.Int64
		pace.Store(int64(24 * time.Hour))
		a, b := net.Pipe()
		s := setup{serverProver: p, clientVerify: v, clientOpts: session.Options{Pace: func() time.Duration { return time.Duration(pace.Load()) }}}
		s.client, s.server = tlspair.Over(t, a, b, p.tls, session.ALPN)
		c, srv := s.run(t)
		ok(t, c, srv)
		atClient, atServer := drain(c.conn), drain(srv.conn)
		settle := func(d time.Duration) {
			pace.Store(int64(d))
			was := c.conn.Result()
			if !c.conn.Settle(was, was.Rejudge(policyFunc(accept), time.Now())) {
				t.Error("not settled")
			}
		}
		quotes := func(after time.Duration, want int64) {
			t.Helper()
			before := p.quotes.Load()
			time.Sleep(after)
			synctest.Wait()
			if n := p.quotes.Load() - before; n != want {
				t.Errorf("%d quotes in %s, want %d", n, after, want)
			}
		}
		quotes(time.Hour, 0)
		settle(2 * time.Hour)
		quotes(time.Hour+time.Minute, 1) // what there is of evidence is an hour old
		for range 10 {
			settle(time.Hour) // each time sets the one timer
		}
		quotes(10*time.Hour, 10)
		settle(48 * time.Hour)
		quotes(47*time.Hour, 0)
		_ = c.conn.Close()
		_ = srv.conn.Close()
		<-atServer
		<-atClient
	})
}

// The reader of a connection that is refused closes it at once. The other end sees no proper end, whichever of the two is first.
func TestCloseWhileRefused(t *testing.T) {
	for range 50 {
		client, server, _, _, _ := openBoth(t, 0, false)
		atServer := drain(server)
		closed := make(chan struct{})
		go func() {
			defer close(closed)
			_, _ = client.Read(make([]byte, 1))
			_ = client.CloseWrite()
			_ = client.Close()
		}()
		client.Refuse(client.Result().Rejudge(policyFunc(refuse), time.Now()))
		if err := <-atServer; err == nil {
			t.Fatal("a proper end")
		}
		<-closed
	}
}

// Between the failure of a connection and the word about it, whoever uses it neither says that it has ended properly nor closes it.
func TestBetweenFailureAndWord(t *testing.T) {
	client, server, _, _, _ := openBoth(t, 0, false)
	atServer := drain(server)
	why := errors.New("why")
	session.Doom(client, why)
	if err := client.CloseWrite(); !errors.Is(err, why) {
		t.Errorf("got %v", err)
	}
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		_ = client.Close()
	}()
	select {
	case <-closed:
		t.Error("closed before the other end was told")
	case err := <-atServer:
		t.Errorf("the other end has come to an end: %v", err)
	case <-time.After(50 * time.Millisecond): // nothing happens
	}
	session.Tell(client)
	<-closed
	code(t, <-atServer, attest.CodePeerRefused)
}

// mute is a prover that answers nothing more once it is told so.
type mute struct {
	*prover
	now atomic.Bool
}

func (s *mute) Attest(ctx context.Context, peer string, leaf merkle.Hash, patient bool) (*cmw.Session, error) {
	if s.now.Load() {
		s.quotes.Add(1)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	return s.prover.Attest(ctx, peer, leaf, patient)
}

// timed has both ends of a connection in time that is not real. The client asks after pace, and waits for an answer for a minute.
func timed(t *testing.T, pace time.Duration, f func(client *session.Conn, p *mute, atClient <-chan error)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		hw := newHardware(t)
		p, v := &mute{prover: newProver(t, hw)}, newVerifier(hw, accept)
		a, b := net.Pipe()
		s := setup{serverProver: p, clientVerify: v, clientOpts: session.Options{Answer: time.Minute, Pace: func() time.Duration { return pace }}}
		s.client, s.server = tlspair.Over(t, a, b, p.tls, session.ALPN)
		c, srv := s.run(t)
		ok(t, c, srv)
		atClient, atServer := drain(c.conn), drain(srv.conn)
		f(c.conn, p, atClient)
		_ = c.conn.Close()
		_ = srv.conn.Close()
		<-atServer
	})
}

// A time that comes while the other end is being asked, and a Result that is settled meanwhile, do not put off the end of who does
// not answer.
func TestNoAnswer(t *testing.T) {
	for name, meanwhile := range map[string]func(*session.Conn){
		"settled": func(c *session.Conn) {
			was := c.Result()
			c.Settle(was, was.Rejudge(policyFunc(accept), time.Now()))
		},
		"due again": session.Due,
	} {
		timed(t, time.Hour, func(c *session.Conn, p *mute, atClient <-chan error) {
			p.now.Store(true)
			before := p.quotes.Load()
			time.Sleep(time.Hour + time.Second) // it is asked
			meanwhile(c)
			synctest.Wait()
			if n := p.quotes.Load() - before; n != 1 {
				t.Errorf("%s: asked %d times", name, n)
			}
			time.Sleep(time.Minute)
			synctest.Wait()
			select {
			case err := <-atClient:
				code(t, err, attest.CodeReattest)
			default:
				t.Errorf("%s: still open", name)
			}
		})
	}
}

// A time that comes although another one was set just then leaves none of the two behind.
func TestTimesDoNotPileUp(t *testing.T) {
	timed(t, time.Hour, func(c *session.Conn, p *mute, _ <-chan error) {
		before := p.quotes.Load()
		time.Sleep(30 * time.Minute)
		session.Due(c)
		synctest.Wait()
		if n := p.quotes.Load() - before; n != 1 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if n := p.quotes.Load() - before; n != 1 {
			t.Errorf("asked %d times", n)
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if n := p.quotes.Load() - before; n != 2 {
			t.Errorf("asked %d times", n)
		}
	})
	timed(t, 0, func(c *session.Conn, p *mute, _ <-chan error) { // no time was ever set
		before := p.quotes.Load()
		session.Due(c)
		synctest.Wait()
		if n := p.quotes.Load() - before; n != 1 {
			t.Errorf("asked %d times", n)
		}
	})
}

// Who was refused is not looked at once more, and a refusal for anything but a reconnect is no reason to try again.
func TestRefusedIsRefused(t *testing.T) {
	hw := newHardware(t)
	p, v := newProver(t, hw), &rechecked{verifier: newVerifier(hw, accept)}
	s := setup{serverProver: p, clientVerify: v, clientOpts: session.Options{Reattest: time.Hour}}
	s.client, s.server = pair(t, p)
	c, srv := s.run(t)
	ok(t, c, srv)
	v.set(refuse)
	atServer, atClient := drain(srv.conn), drain(c.conn)
	session.Due(c.conn)
	for _, err := range []error{<-atClient, <-atServer} {
		if err == nil || session.Stale(err) {
			t.Errorf("got %v", err)
		}
	}
	if v.asked.Load() != 0 {
		t.Error("looked at again")
	}
	_ = c.conn.Close()
	_ = srv.conn.Close()
	first := setup{serverProver: p, clientVerify: newVerifier(hw, refuse)}
	first.client, first.server = pair(t, p)
	fc, fs := first.run(t)
	code(t, fs.err, attest.CodePeerRefused)
	if session.Stale(fc.err) || session.Stale(fs.err) {
		t.Errorf("stale: %v, %v", fc.err, fs.err)
	}
}

// Who can't wait refuses as well as anybody, and once.
func TestRefuseSoon(t *testing.T) {
	client, server, _, _, _ := openBoth(t, 0, false)
	atServer, atClient := drain(server), drain(client)
	r := client.Result().Rejudge(policyFunc(refuse), time.Now())
	for range 3 {
		client.RefuseSoon(r)
		if _, err := client.Write([]byte("x")); err == nil {
			t.Error("bytes move")
		}
	}
	code(t, <-atClient, attest.CodeDebug)
	code(t, <-atServer, attest.CodePeerRefused)
	_ = client.Close() // which waits for the word
}
