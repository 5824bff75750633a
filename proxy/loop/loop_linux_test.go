package loop_test

import (
	"errors"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/proxy/loop"
)

// pair answers two ends of a connection, of which one belongs to no loop yet. What is written to it is at its other end at once.
func pair(t *testing.T) (far *net.UnixConn, near net.Conn) {
	t.Helper()
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if near, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return c.(*net.UnixConn), near
}

// leaving is a sink that wants to know when the other end has gone.
type leaving struct {
	sink
	left chan struct{}
}

func (l *leaving) Left() { l.left <- struct{}{} }

// The kernel tells of a change once. Whatever was there before it is looked for, or was taken in part, is not forgotten.
func TestToldOnce(t *testing.T) {
	const size = 150_000 // more than is taken at once, and less than the kernel takes without anybody reading
	for name, at := range map[string]struct {
		pauses string // "first": before anything has come; "then": when something has
		size   int
		ends   bool
		want   int  // that are delivered while it is paused
		left   bool // and whoever wants to know hears of the end then
	}{
		"more than one read":                {size: size},
		"with its end":                      {size: size, ends: true},
		"little, with its end":              {size: 10, ends: true},
		"nothing but the end":               {ends: true},
		"paused before it":                  {pauses: "first", size: size},
		"paused before it and its end":      {pauses: "first", size: size, ends: true, left: true},
		"paused before little and its end":  {pauses: "first", size: 10, ends: true, left: true},
		"paused before the end":             {pauses: "first", ends: true, left: true},
		"paused within it":                  {pauses: "then", size: size, want: 128 << 10},
		"paused within it, before the end":  {pauses: "then", size: size, ends: true, want: 128 << 10, left: true},
		"paused between little and the end": {pauses: "then", size: 10, ends: true, want: 10, left: true},
	} {
		for _, when := range []string{"before it is watched", "afterwards"} {
			for _, leaves := range []bool{false, true} {
				t.Run(name+", "+when+map[bool]string{true: ", who wants to know"}[leaves], func(t *testing.T) {
					g, err := loop.NewGroup(1, nil)
					if err != nil {
						t.Fatal(err)
					}
					defer g.Close()
					far, near := pair(t)
					send := func() {
						if n, err := far.Write(make([]byte, at.size)); n != at.size {
							t.Fatal(n, err)
						}
						if at.ends {
							_ = far.CloseWrite()
						}
					}
					h := &leaving{sink{pause: at.pauses == "then", ended: make(chan error, 2)}, make(chan struct{}, 2)}
					open := make(chan error, 1)
					if when != "afterwards" {
						send()
					}
					l := g.Pick()
					l.Prepare(near)
					l.Do(func() {
						var err error
						if h.c, err = l.Open(near, nil, nil); err == nil {
							if h.c.SetHandler(h); !leaves {
								h.c.SetHandler(&h.sink)
							}
							if at.pauses == "first" {
								h.c.Pause()
							}
						}
						open <- err
					})
					if err := <-open; err != nil {
						t.Fatal(err)
					}
					if when == "afterwards" {
						send()
					}
					within := time.Now().Add(10 * time.Second)
					soon := func(what string, held func() bool) {
						for !held() {
							if time.Now().After(within) {
								t.Fatal(what, " has not come: ", h.got.Load(), " bytes")
							}
							do(h.c, func() {})
						}
					}
					if at.pauses != "" {
						soon("what was read", func() bool { return h.got.Load() > 0 || at.want == 0 })
						if leaves && at.left {
							select {
							case <-h.left:
							case <-time.After(time.Until(within)):
								t.Fatal("nobody was told that the other end has gone")
							}
						}
						for range 5 { // what is not to come has had the time to
							do(h.c, func() {})
						}
						if got := h.got.Load(); got != int64(at.want) || len(h.ended) > 0 {
							t.Errorf("%d bytes instead of %d while it was paused, ended %d times", got, at.want, len(h.ended))
						}
						do(h.c, func() { h.pause = false; h.c.Resume() })
					}
					soon("everything", func() bool { return h.got.Load() == int64(at.size) })
					if at.ends {
						soon("the end", func() bool { return len(h.ended) > 0 })
						if err := <-h.ended; err != nil {
							t.Error(err)
						}
					}
					if len(h.left) > 0 || len(h.ended) > 0 {
						t.Errorf("told %d times too often that the other end has gone, %d that it has ended", len(h.left), len(h.ended))
					}
				})
			}
		}
	}
}

// Who is told that there is room again is told each time.
func TestRoomAgain(t *testing.T) {
	g, err := loop.NewGroup(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	far, near := pair(t)
	s := &sink{ended: make(chan error, 1)}
	l := g.Pick()
	l.Prepare(near)
	opened := make(chan error, 1)
	l.Do(func() {
		c, err := l.Open(near, nil, nil)
		if err == nil {
			c.SetHandler(s)
			s.c = c
		}
		opened <- err
	})
	if err := <-opened; err != nil {
		t.Fatal(err)
	}
	_ = far.SetDeadline(time.Now().Add(10 * time.Second))
	b := make([]byte, 3<<20)
	for range 3 {
		do(s.c, func() { s.c.Write(b[:1<<20]) })
		for got := 0; got < 1<<20; {
			n, err := far.Read(b)
			if err != nil {
				t.Fatal(got, err)
			}
			got += n
		}
	}
}

// A connection that is broken off says so though it is not read.
func TestResetWhilePaused(t *testing.T) {
	for _, said := range []string{"", "something"} {
		g, err := loop.NewGroup(1, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer g.Close()
		s := &sink{pause: true, ended: make(chan error, 2)}
		far := connect(t, g, false, func(c *loop.Conn) loop.Handler { s.c = c; return s })
		do(s.c, func() { // which sees both at once
			if said == "" {
				s.c.Pause()
			}
			_, _ = io.WriteString(far, said)
			_ = far.(*net.TCPConn).SetLinger(0)
			_ = far.Close()
		})
		select {
		case err := <-s.ended:
			if !errors.Is(err, unix.ECONNRESET) {
				t.Error(err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("nothing is said, after %q", said)
		}
	}
}
