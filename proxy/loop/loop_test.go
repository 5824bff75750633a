package loop_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/test/tlspair"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// engines are the ways to drive connections; what holds for one holds for the other.
func engines(t *testing.T, f func(t *testing.T, g *loop.Group, secure bool)) {
	t.Helper()
	for name, make := range map[string]func(int, *slog.Logger) (*loop.Group, error){"kernel": loop.NewGroup, "portable": loop.NewPortableGroup} {
		for _, secure := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, TLS %v", name, secure), func(t *testing.T) {
				g, err := make(2, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				f(t, g, secure)
			})
		}
	}
}

// end is the far end of a connection, which waits.
type end interface {
	net.Conn
	CloseWrite() error
}

// connect gives a loop one end of a connection, and answers the other.
func connect(t *testing.T, g *loop.Group, secure bool, h func(*loop.Conn) loop.Handler) end {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln = g.Accepting(ln)
	defer ln.Close()
	far, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = far.Close() })
	_ = far.SetDeadline(time.Now().Add(20 * time.Second))
	var upper loop.Upper
	out := far.(end)
	if secure {
		near = loop.NewWire(near)
		client, server := tlspair.Over(t, far, near, tlspair.Leaf(t, tlspair.Key(t)))
		upper, out = server, client
	}
	give(t, g, near, upper, h)
	return out
}

// give gives a loop a connection.
func give(t *testing.T, g *loop.Group, near net.Conn, upper loop.Upper, h func(*loop.Conn) loop.Handler) {
	t.Helper()
	opened := make(chan error, 1)
	l := g.Pick()
	l.Prepare(near)
	l.Do(func() {
		c, err := l.Open(near, upper, nil)
		if err == nil {
			c.SetHandler(h(c))
		}
		opened <- err
	})
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
}

// echo writes back what comes.
type echo struct {
	c     *loop.Conn
	ended chan error
}

func (e *echo) Data(p []byte) {
	if !e.c.Write(p) {
		e.c.Pause()
	}
}
func (e *echo) Drained() { e.c.Resume() }
func (e *echo) End(err error) {
	if err == nil {
		e.c.CloseWrite()
		e.c.Close()
	}
	e.ended <- err
}

func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

func TestEcho(t *testing.T) {
	engines(t, func(t *testing.T, g *loop.Group, secure bool) {
		for _, size := range []int{0, 1, 1000, 16 << 10, 3 << 20} {
			ended := make(chan error, 1)
			far := connect(t, g, secure, func(c *loop.Conn) loop.Handler { return &echo{c, ended} })
			want := random(size)
			go func() {
				_, _ = far.Write(want)
				_ = far.CloseWrite()
			}()
			got, err := io.ReadAll(far)
			if err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes came back of %d: %v", len(got), size, err)
			}
			if err := <-ended; err != nil {
				t.Error(err)
			}
			_ = far.Close()
		}
	})
}

// source writes n bytes, as fast as it may.
type source struct {
	c        *loop.Conn
	n        int
	buffered atomic.Int64
	paused   atomic.Int64
	ended    chan error
}

func (s *source) fill() {
	chunk := make([]byte, 40<<10)
	for s.n > 0 {
		k := min(s.n, len(chunk))
		s.n -= k
		more := s.c.Write(chunk[:k])
		s.buffered.Store(max(s.buffered.Load(), int64(s.c.Buffered())))
		if !more {
			s.paused.Add(1)
			return
		}
	}
	s.c.Close()
}
func (s *source) Data([]byte)   {}
func (s *source) Drained()      { s.fill() }
func (s *source) End(err error) { s.ended <- err }

// A peer that does not read costs a bounded amount of memory, and gets everything once it does.
func TestPressure(t *testing.T) {
	engines(t, func(t *testing.T, g *loop.Group, secure bool) {
		const size = 64 << 20
		s := &source{n: size, ended: make(chan error, 1)}
		stuck := make(chan struct{})
		far := connect(t, g, secure, func(c *loop.Conn) loop.Handler {
			s.c = c
			s.fill()
			close(stuck)
			return s
		})
		<-stuck
		n, err := io.Copy(io.Discard, far)
		if n != size || err != nil {
			t.Errorf("%d bytes of %d: %v", n, size, err)
		}
		if most := s.buffered.Load(); most > 400<<10 || s.paused.Load() == 0 {
			t.Errorf("up to %d bytes in memory; paused %d times", most, s.paused.Load())
		}
	})
}

// sink takes what comes, until it pauses.
type sink struct {
	c     *loop.Conn
	got   atomic.Int64
	pause bool
	ended chan error
}

func (s *sink) Data(p []byte) {
	s.got.Add(int64(len(p)))
	if s.pause {
		s.c.Pause()
	}
}
func (s *sink) Drained()      {}
func (s *sink) End(err error) { s.ended <- err }

func TestPause(t *testing.T) {
	engines(t, func(t *testing.T, g *loop.Group, secure bool) {
		s := &sink{pause: true, ended: make(chan error, 1)}
		far := connect(t, g, secure, func(c *loop.Conn) loop.Handler { s.c = c; return s })
		const size = 32 << 20
		sent := make(chan error, 1)
		go func() {
			_, err := far.Write(make([]byte, size))
			_ = far.CloseWrite()
			sent <- err
		}()
		select {
		case <-sent:
			t.Error("everything left for a connection that was paused")
		case <-time.After(200 * time.Millisecond):
		}
		if got := s.got.Load(); got > 1<<20 {
			t.Errorf("%d bytes were delivered to a connection that was paused", got)
		}
		s.c.Loop().Do(func() { s.pause = false; s.c.Resume() })
		if err := <-s.ended; err != nil || s.got.Load() != size {
			t.Errorf("%d bytes of %d: %v", s.got.Load(), size, err)
		}
		s.c.Loop().Do(s.c.Close)
	})
}

func TestEnds(t *testing.T) {
	engines(t, func(t *testing.T, g *loop.Group, secure bool) {
		opened := func() (end, *sink) {
			s := &sink{ended: make(chan error, 2)}
			far := connect(t, g, secure, func(c *loop.Conn) loop.Handler { s.c = c; return s })
			return far, s
		}
		t.Run("reset", func(t *testing.T) {
			far, s := opened()
			raw := net.Conn(far)
			if c, ok := far.(*tls.Conn); ok {
				raw = c.NetConn()
			}
			_ = raw.(*net.TCPConn).SetLinger(0)
			_ = raw.Close()
			if err := <-s.ended; err == nil || errors.Is(err, loop.ErrTruncated) {
				t.Errorf("got %v", err)
			}
		})
		if secure {
			t.Run("end of the transport", func(t *testing.T) {
				far, s := opened()
				_ = far.(*tls.Conn).NetConn().Close()
				if err := <-s.ended; !errors.Is(err, loop.ErrTruncated) {
					t.Errorf("got %v", err)
				}
			})
		}
		t.Run("half closed", func(t *testing.T) {
			far, s := opened()
			_ = far.CloseWrite()
			if err := <-s.ended; err != nil {
				t.Errorf("got %v", err)
			}
			s.c.Loop().Do(func() { s.c.Write([]byte("late")); s.c.Close() })
			if got, err := io.ReadAll(far); string(got) != "late" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
		t.Run("half closed here, then there behind a last word", func(t *testing.T) {
			far, s := opened()
			do(s.c, s.c.CloseWrite)
			if _, err := io.ReadAll(far); err != nil {
				t.Error(err)
			}
			do(s.c, s.c.Pause) // so that word and end come together
			_, _ = far.Write([]byte("last"))
			_ = far.Close()
			do(s.c, s.c.Resume)
			if err := <-s.ended; err != nil || s.got.Load() != 4 {
				t.Errorf("%d bytes, %v", s.got.Load(), err)
			}
			do(s.c, s.c.Close)
		})
		t.Run("aborted", func(t *testing.T) {
			far, s := opened()
			closed := make(chan struct{})
			s.c.Loop().Do(func() { s.c.OnClose(func() { close(closed) }); s.c.Write([]byte("never")); s.c.Abort() })
			<-closed
			if _, err := io.ReadAll(far); err == nil {
				t.Error("an end that looks proper")
			}
			select {
			case err := <-s.ended:
				t.Errorf("told of its own doing: %v", err)
			default:
			}
		})
		t.Run("panic", func(t *testing.T) {
			far, s := opened()
			do(s.c, func() { s.c.SetHandler(&bomb{s}) })
			_, _ = far.Write([]byte("x"))
			if err := <-s.ended; err == nil {
				t.Error("got nil")
			}
			if _, err := io.ReadAll(far); err == nil {
				t.Error("an end that looks proper")
			}
		})
		t.Run("refused, and listened to", func(t *testing.T) {
			far, s := opened()
			do(s.c, func() { s.c.SetHandler(&refuser{s}) })
			_, _ = far.Write([]byte("x"))
			if got, err := io.ReadAll(far); string(got) != "no" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			for range 5 {
				if _, err := far.Write([]byte("x")); err != nil {
					t.Error(err)
				}
				time.Sleep(30 * time.Millisecond)
			}
		})
		t.Run("refused while the other end is sending", func(t *testing.T) {
			far, s := opened()
			do(s.c, func() { s.c.SetHandler(&refuser{s}) })
			go func() {
				for range 200 {
					if _, err := far.Write(make([]byte, 8<<10)); err != nil {
						return
					}
				}
				_ = far.CloseWrite()
			}()
			if got, err := io.ReadAll(far); string(got) != "no" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
		})
		t.Run("lingering, and told to send", func(t *testing.T) {
			far, s := opened()
			closed := false
			do(s.c, func() {
				s.c.OnClose(func() { closed = true })
				s.c.Write([]byte("no"))
				s.c.Linger()
			})
			if got, err := io.ReadAll(far); string(got) != "no" || err != nil {
				t.Errorf("got %q, %v", got, err)
			}
			do(s.c, s.c.Ready)
			do(s.c, func() {
				if closed {
					t.Error("it is not listened to any more")
				}
			})
		})
	})
}

// do runs f in the loop of c, and waits for it.
func do(c *loop.Conn, f func()) {
	done := make(chan struct{})
	c.Loop().Do(func() { f(); close(done) })
	<-done
}

type bomb struct{ *sink }

func (b *bomb) Data([]byte) { panic("boom") }

type refuser struct{ *sink }

func (r *refuser) Data([]byte) {
	r.c.Write([]byte("no"))
	r.c.Linger()
}

func TestTimers(t *testing.T) {
	engines(t, func(t *testing.T, g *loop.Group, _ bool) {
		l := g.Pick()
		type event struct {
			name string
			at   time.Time
		}
		fired := make(chan event, 10)
		began := time.Now()
		l.Do(func() {
			var a, b, c, d loop.Timer
			set := func(t *loop.Timer, name string, after time.Duration) {
				l.Set(t, began.Add(after), func() { fired <- event{name, time.Now()} })
			}
			set(&a, "put off", 20*time.Millisecond)
			set(&b, "b", 40*time.Millisecond)
			set(&c, "stopped", 10*time.Millisecond)
			set(&d, "brought forward", time.Hour)
			set(&a, "a", 80*time.Millisecond)
			set(&d, "d", 30*time.Millisecond)
			l.Stop(&c)
			l.Stop(&c)
		})
		for i, want := range []string{"d", "b", "a"} {
			got := <-fired
			if got.name != want || got.at.Sub(began) < []time.Duration{30, 40, 80}[i]*time.Millisecond {
				t.Errorf("%q after %v, want %q", got.name, got.at.Sub(began), want)
			}
		}
	})
}

func TestAfterTheEnd(t *testing.T) {
	for _, make := range []func(int, *slog.Logger) (*loop.Group, error){loop.NewGroup, loop.NewPortableGroup} {
		g, err := make(1, nil)
		if err != nil {
			t.Fatal(err)
		}
		s := &sink{ended: nil}
		far := connect(t, g, true, func(c *loop.Conn) loop.Handler { s.c = c; return s })
		_ = g.Close()
		_ = g.Close()
		if g.Pick().Do(func() {}) {
			t.Error("a loop that has ended takes a task")
		}
		if _, err := io.ReadAll(far); err == nil {
			t.Error("an end that looks proper")
		}
	}
}

// What is written behind the loop's back leaves as well, and the loop sees when the layer above gives up.
func TestBehindItsBack(t *testing.T) {
	g, err := loop.NewGroup(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	a, b := tcp(t)
	wire := loop.NewWire(b)
	client, server := tlspair.Over(t, a, wire, tlspair.Leaf(t, tlspair.Key(t)))
	s := &sink{ended: make(chan error, 1)}
	l := g.Pick()
	l.Prepare(wire)
	l.Do(func() {
		if s.c, err = l.Open(wire, server, s); err != nil {
			t.Error(err)
		}
	})
	for i := range 100 {
		want := fmt.Sprint(i)
		if _, err := server.Write([]byte(want)); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(want))
		if _, err := io.ReadFull(client, got); err != nil || string(got) != want {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	_, _ = server.Write([]byte("last"))
	_ = server.NetConn().Close()
	if err := <-s.ended; err == nil {
		t.Error("no error")
	}
	got, err := io.ReadAll(client)
	if string(got) != "last" {
		t.Errorf("got %q, %v", got, err)
	}
}

func tcp(t *testing.T) (a, b net.Conn) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if a, err = net.Dial("tcp", ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if b, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return a, b
}

// A write that finds the connection broken off takes the error away from the read that follows, which then sees a proper end.
func TestBrokenOffUnderAWrite(t *testing.T) {
	g, err := loop.NewGroup(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	to := &sink{ended: make(chan error, 2)}
	broken := connect(t, g, false, func(c *loop.Conn) loop.Handler { to.c = c; return to })
	from := &sink{ended: make(chan error, 1)}
	far := connect(t, g, false, func(c *loop.Conn) loop.Handler {
		from.c = c
		return &passer{from, to}
	})
	do(from.c, func() { // both happen in one round, in this order
		_, _ = far.Write([]byte("x"))
		time.Sleep(20 * time.Millisecond)
		_ = broken.(*net.TCPConn).SetLinger(0)
		_ = broken.Close()
		time.Sleep(20 * time.Millisecond)
	})
	if err := <-to.ended; err == nil {
		t.Error("an end that looks proper")
	}
}

type passer struct {
	*sink
	to *sink
}

func (p *passer) Data([]byte) { p.to.c.Write(make([]byte, 32<<10)) }

// A connection that was prepared for a loop that never came to it is not left behind.
func TestPreparedAndDropped(t *testing.T) {
	g, err := loop.NewGroup(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	a, b := tcp(t)
	defer a.Close()
	wire := loop.NewWire(b)
	g.Pick().Prepare(wire)
	loop.Reset(wire)
	_ = wire.Close()
	_ = a.SetReadDeadline(time.Now().Add(5 * time.Second))
	if _, err := a.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
}

// A panic in a timer ends the connection that the timer is bound to, and one in a task what the task was about.
func TestPanicOutOfTurn(t *testing.T) {
	engines(t, func(t *testing.T, g *loop.Group, secure bool) {
		s := &sink{ended: make(chan error, 1)}
		far := connect(t, g, secure, func(c *loop.Conn) loop.Handler { s.c = c; return s })
		broken := make(chan struct{})
		var timer, other loop.Timer
		l := s.c.Loop()
		l.Do(func() {
			l.Try(func() {}, func() { t.Error("nothing was broken") })
			l.Try(func() { panic("boom") }, func() { close(broken) })
			l.Set(&other, l.Now(), func() { panic("boom") }) // nobody's
			timer.Bind(s.c)
			l.Set(&timer, l.Now().Add(time.Millisecond), func() { panic("boom") })
		})
		<-broken
		if err := <-s.ended; err == nil {
			t.Error("got nil")
		}
		if _, err := io.ReadAll(far); err == nil {
			t.Error("an end that looks proper")
		}
	})
}

// A connection may be broken off from anywhere, paused or not.
func TestBreak(t *testing.T) {
	engines(t, func(t *testing.T, g *loop.Group, secure bool) {
		s := &sink{ended: make(chan error, 1)}
		far := connect(t, g, secure, func(c *loop.Conn) loop.Handler { s.c = c; return s })
		do(s.c, s.c.Pause)
		s.c.Break()
		if err := <-s.ended; !errors.Is(err, loop.ErrReset) {
			t.Errorf("got %v", err)
		}
		s.c.Break()
		if _, err := io.ReadAll(far); err == nil {
			t.Error("an end that looks proper")
		}
	})
}

// Moved tells an end that reads slowly from one that does not read.
func TestMoved(t *testing.T) {
	engines(t, func(t *testing.T, g *loop.Group, secure bool) {
		s := &sink{ended: make(chan error, 1)}
		far := connect(t, g, secure, func(c *loop.Conn) loop.Handler { s.c = c; return s })
		moved := func() (at time.Time) {
			do(s.c, func() { at = s.c.Moved() })
			return at
		}
		began := time.Now()
		if at := moved(); !at.IsZero() {
			t.Errorf("moved at %v before anything was written", at)
		}
		var wrote int
		full := func() (full bool) { // of what the kernel and the connection hold
			do(s.c, func() {
				for !s.c.Full() && wrote < 1<<30 {
					s.c.Write(make([]byte, 64<<10))
					wrote += 64 << 10
				}
				full = s.c.Full()
			})
			return full
		}
		at := time.Time{}
		for deadline := time.Now().Add(10 * time.Second); !full() || at.IsZero() || at != moved(); time.Sleep(300 * time.Millisecond) {
			if at = moved(); time.Now().After(deadline) {
				t.Fatal("it moves although nobody reads")
			}
		}
		if at.Before(began) {
			t.Errorf("moved at %v, since %v", at, began)
		}
		if _, err := io.CopyN(io.Discard, far, int64(wrote)); err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(5 * time.Second); moved() == at; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("it does not move")
			}
		}
		s.c.Break()
		<-s.ended
	})
}
