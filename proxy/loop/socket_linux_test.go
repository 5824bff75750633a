package loop_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"math"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/nettest"
	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/test/tlspair"
)

// accepting answers a listener of g's, and a way to connect to it.
func accepting(t *testing.T, g *loop.Group, network, address string) (ln net.Listener, dial func() *net.TCPConn) {
	t.Helper()
	under, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	ln = g.Accepting(under)
	t.Cleanup(func() { _ = ln.Close() })
	return ln, func() *net.TCPConn {
		t.Helper()
		c, err := net.Dial(network, ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c.(*net.TCPConn)
	}
}

// early answers both ends of a connection, of which a loop of g watches one that no Conn has.
func early(t *testing.T, g *loop.Group) (far *net.TCPConn, near net.Conn) {
	t.Helper()
	ln, dial := accepting(t, g, "tcp", "127.0.0.1:0")
	far = dial()
	near, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = near.Close() })
	return far, near
}

// tried has the loop watch a socket, by waiting for what does not come.
func tried(t *testing.T, near net.Conn) {
	t.Helper()
	_ = near.SetReadDeadline(time.Now().Add(time.Millisecond))
	if n, err := near.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(n, err)
	}
	_ = near.SetReadDeadline(time.Time{})
}

// TestSocket: it does what is asked of any net.Conn.
func TestSocket(t *testing.T) {
	g := alone(t)
	for _, swap := range []bool{false, true} {
		nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
			ln, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				return nil, nil, nil, err
			}
			ln = g.Accepting(ln)
			defer ln.Close()
			if c1, err = net.Dial("tcp", ln.Addr().String()); err != nil {
				return nil, nil, nil, err
			}
			if c2, err = ln.Accept(); err != nil {
				return nil, nil, nil, err
			}
			if swap {
				c1, c2 = c2, c1
			}
			return c1, c2, func() { _ = c1.Close(); _ = c2.Close() }, nil
		})
	}
	if n := g.Early(); n != 0 {
		t.Errorf("%d are still watched", n)
	}
}

// What Go's own listeners accept has the same addresses and options.
func TestSocketAsOthers(t *testing.T) {
	g := alone(t)
	options := func(c net.Conn) (got [6]int) {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) {
				for i, o := range [...][2]int{
					{unix.IPPROTO_TCP, unix.TCP_NODELAY},
					{unix.SOL_SOCKET, unix.SO_KEEPALIVE},
					{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE},
					{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL},
					{unix.IPPROTO_TCP, unix.TCP_KEEPCNT},
					{unix.SOL_SOCKET, unix.SO_DOMAIN},
				} {
					got[i], _ = unix.GetsockoptInt(int(fd), o[0], o[1])
				}
				if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Error("a child would have it", err)
				}
			})
		}
		if err != nil {
			t.Error(err)
		}
		return got
	}
	for _, tt := range []struct{ network, address string }{
		{"tcp4", "127.0.0.1:0"}, {"tcp4", "0.0.0.0:0"}, {"tcp6", "[::1]:0"}, {"tcp", ":0"},
	} {
		t.Run(tt.network+" "+tt.address, func(t *testing.T) {
			plain, err := net.Listen(tt.network, tt.address)
			if err != nil {
				t.Fatal(err)
			}
			ln := g.Accepting(plain)
			defer ln.Close()
			if ln == plain {
				t.Fatal("left as it was")
			}
			var ends [2]net.Conn
			for i, l := range []net.Listener{plain, ln} { // one after the other: they share a queue
				far, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					t.Fatal(err)
				}
				defer far.Close()
				near, err := l.Accept()
				if err != nil {
					t.Fatal(err)
				}
				defer near.Close()
				ends[i] = near
				if near.LocalAddr().String() != far.RemoteAddr().String() || near.RemoteAddr().String() != far.LocalAddr().String() {
					t.Errorf("%v to %v, where the other end is %v to %v", near.LocalAddr(), near.RemoteAddr(), far.LocalAddr(), far.RemoteAddr())
				}
				if near.LocalAddr().Network() != "tcp" || near.RemoteAddr().Network() != "tcp" {
					t.Error("of TCP")
				}
			}
			if want, got := options(ends[0]), options(ends[1]); got != want {
				t.Errorf("options %v, want %v", got, want)
			}
			a, b := ends[0].LocalAddr().(*net.TCPAddr), ends[1].LocalAddr().(*net.TCPAddr)
			if !a.IP.Equal(b.IP) || len(a.IP) != len(b.IP) || a.Port != b.Port {
				t.Errorf("%#v, want %#v", b, a)
			}
		})
	}
}

// Others than those of TCP, and those of loops that do not poll, are left as they are.
func TestAcceptingOthers(t *testing.T) {
	g := alone(t)
	p, err := loop.NewPortableGroup(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	unixes, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	defer unixes.Close()
	tcps, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if g.Accepting(unixes) != unixes || p.Accepting(tcps) != tcps {
		t.Error("not left as they are")
	}
	_ = tcps.Close()
	if _, err := g.Accepting(tcps).Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// A listener that is closed accepts no more, nor does the kernel for it.
func TestAcceptingClosed(t *testing.T) {
	g := alone(t)
	ln, _ := accepting(t, g, "tcp", "127.0.0.1:0")
	done := make(chan error, 1)
	go func() {
		_, err := ln.Accept()
		done <- err
	}()
	_ = ln.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if _, err := ln.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", ln.Addr().String()); err == nil {
		_ = c.Close()
		t.Error("somebody still listens")
	}
}

// What arrives before, while and after a loop takes a socket over is there, whichever loop watched it.
func TestSocketTakenOver(t *testing.T) {
	for name, loops := range map[string]int{"its own loop": 1, "another": 2} {
		for _, secure := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				g, err := loop.NewGroup(loops, nil)
				if err != nil {
					t.Fatal(err)
				}
				defer g.Close()
				for range 50 {
					far, near := early(t, g)
					tried(t, near)
					var upper loop.Upper
					var out end = far
					if secure {
						near = loop.NewWire(near)
						client, server := tlspair.Over(t, far, near, tlspair.Leaf(t, tlspair.Key(t)))
						upper, out = server, client
					}
					want := random(150_000)
					sent := make(chan error, 1)
					go func() {
						_, err := out.Write(want)
						sent <- errors.Join(err, out.CloseWrite())
					}()
					at := g.For(near)
					if loops > 1 { // the other one
						for _, l := range g.Loops() {
							if l != at {
								at = l
								break
							}
						}
					}
					var got bytes.Buffer
					ended := make(chan error, 1)
					at.Prepare(near)
					at.Do(func() {
						c, err := at.Open(near, upper, nil)
						if err != nil {
							ended <- err
							return
						}
						c.SetHandler(&collector{c, &got, ended})
					})
					if err := errors.Join(<-sent, <-ended); err != nil {
						t.Fatal(err)
					}
					if !bytes.Equal(got.Bytes(), want) {
						t.Fatalf("%d bytes of %d", got.Len(), len(want))
					}
					if under := near; true {
						if w, ok := under.(*loop.Wire); ok {
							under = w.Conn
						}
						if _, err := under.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
							t.Fatal("still to be read:", err)
						}
					}
				}
				if n := g.Early(); n != 0 {
					t.Errorf("%d are watched under their first numbers", n)
				}
				for within := time.Now().Add(10 * time.Second); g.Watched() != loops; runtime.Gosched() { // the wake-ups alone
					if time.Now().After(within) {
						t.Fatalf("the kernel watches %d", g.Watched())
					}
				}
			})
		}
	}
}

type collector struct {
	c     *loop.Conn
	got   *bytes.Buffer
	ended chan error
}

func (h *collector) Data(p []byte) { h.got.Write(p) }
func (h *collector) Drained()      {}
func (h *collector) End(err error) {
	h.c.Close()
	h.ended <- err
}

// A loop is asked for a socket that it watches.
func TestLoopOfSocket(t *testing.T) {
	g, err := loop.NewGroup(3, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	seen := map[*loop.Loop]bool{}
	for range 9 {
		_, near := early(t, g)
		l := g.For(near)
		if g.For(near) != l || g.For(loop.NewWire(near)) != l {
			t.Error("it changes")
		}
		seen[l] = true
	}
	if len(seen) != 3 {
		t.Errorf("%d loops have them all", len(seen))
	}
}

// A reader and a writer that wait hear of the end, and a deadline ends the way that it is for.
func TestSocketWaits(t *testing.T) {
	g := alone(t)
	far, near := early(t, g)
	read, written := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := near.Read(make([]byte, 1))
		read <- err
	}()
	go func() {
		for p := make([]byte, 1<<20); ; {
			if _, err := near.Write(p); err != nil {
				written <- err
				return
			}
		}
	}()
	_ = near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
	if err := <-written; !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error(err)
	}
	if len(read) > 0 {
		t.Error("the reader was ended by the deadline of the writer")
	}
	_ = near.SetWriteDeadline(time.Time{})
	go func() { // there is room again
		_, err := near.Write(make([]byte, 1))
		written <- err
	}()
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		_, _ = io.Copy(io.Discard, far)
	}()
	if err := <-written; err != nil {
		t.Error(err)
	}
	_ = near.Close()
	if err := <-read; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	<-drained
	for what, err := range map[string]error{
		"close": near.Close(), "deadline": near.SetDeadline(time.Now()), "linger": near.(interface{ SetLinger(int) error }).SetLinger(0),
		"half": near.(interface{ CloseWrite() error }).CloseWrite(),
	} {
		if !errors.Is(err, net.ErrClosed) {
			t.Error(what, err)
		}
	}
	if _, err := near.(syscall.Conn).SyscallConn(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// The two ways to end one early: the other end can tell a reset from a proper end of the stream.
func TestSocketEnds(t *testing.T) {
	g := alone(t)
	far, near := early(t, g)
	tried(t, near)
	_ = near.(interface{ CloseWrite() error }).CloseWrite()
	if n, err := far.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Error(n, err)
	}
	_, _ = far.Write([]byte("more"))
	if p := make([]byte, 4); true {
		if _, err := io.ReadFull(near, p); err != nil || string(p) != "more" {
			t.Error(p, err)
		}
	}
	if n, err := near.Read(nil); n != 0 || err != nil {
		t.Error("nothing is no end:", n, err)
	}
	_, near = early(t, g)
	for sec, want := range map[int]unix.Linger{-1: {}, 0: {Onoff: 1}, 7: {Onoff: 1, Linger: 7}} {
		if err := near.(interface{ SetLinger(int) error }).SetLinger(sec); err != nil {
			t.Error(err)
		}
		raw, err := near.(syscall.Conn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.Control(func(fd uintptr) {
			if got, err := unix.GetsockoptLinger(int(fd), unix.SOL_SOCKET, unix.SO_LINGER); err != nil || got.Onoff != want.Onoff || got.Onoff != 0 && got.Linger != want.Linger {
				t.Errorf("%d: %+v, %v", sec, got, err)
			}
		})
	}
	far, near = early(t, g)
	tried(t, near)
	loop.Reset(near)
	if _, err := far.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	far, near = early(t, g)
	_ = far.SetLinger(0)
	_ = far.Close()
	if _, err := near.Read(make([]byte, 1)); !errors.Is(err, unix.ECONNRESET) {
		t.Error(err)
	}
	if n := g.Early(); n > 2 { // the first, and perhaps the last
		t.Errorf("%d are watched", n)
	}
}

// A descriptor that somebody has made of the socket's does not keep the loop watching once it is closed, nor does the number of it
// go to another connection.
func TestSocketDuplicated(t *testing.T) {
	g := alone(t)
	far, near := early(t, g)
	tried(t, near)
	raw, err := near.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	other := -1
	if err := raw.Control(func(fd uintptr) { other, _ = unix.Dup(int(fd)) }); err != nil {
		t.Fatal(err)
	}
	defer unix.Close(other)
	_ = near.Close()
	s := sinkOfPair(t, g)
	for range 100 {
		_, _ = far.Write([]byte("x"))
		do(s.c, func() {})
	}
	if s.got.Load() != 0 || len(s.ended) != 0 {
		t.Error("another connection hears of it")
	}
	if n := g.Watched(); n != 2 { // the wake-up and the sink
		t.Errorf("the kernel watches %d", n)
	}
	if n := g.Early(); n != 0 {
		t.Errorf("%d are watched", n)
	}
}

func sinkOfPair(t *testing.T, g *loop.Group) *sink {
	t.Helper()
	_, near := pair(t, "tcp")
	return sinkFor(t, g, near)
}

// The numbers of sockets begin again, and none has that of another.
func TestSocketNumbers(t *testing.T) {
	g := alone(t)
	g.Next(0)
	farFirst, first := early(t, g) // -1
	tried(t, first)
	g.Next(math.MinInt32 + 2)
	var nears []net.Conn
	var fars []*net.TCPConn
	for range 4 {
		far, near := early(t, g)
		tried(t, near)
		nears, fars = append(nears, near), append(fars, far)
	}
	if n := g.Early(); n != 5 {
		t.Fatalf("%d numbers for 5", n)
	}
	nears, fars = append(nears, first), append(fars, farFirst)
	var all sync.WaitGroup
	for i, near := range nears {
		all.Go(func() {
			p := make([]byte, 1)
			if _, err := near.Read(p); err != nil || p[0] != byte(i) {
				t.Error(i, p, err)
			}
		})
	}
	for i, far := range fars {
		_, _ = far.Write([]byte{byte(i)})
	}
	all.Wait()
}

// A loop that does not have it does not watch it any more.
func TestSocketMoved(t *testing.T) {
	g, err := loop.NewGroup(2, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	for range 2 {
		_, near := early(t, g)
		tried(t, near)
		at := g.Loops()[0]
		if at == g.For(near) {
			at = g.Loops()[1]
		}
		before := g.Watched()
		opened := make(chan error)
		at.Do(func() {
			c, err := at.Open(near, nil, nil)
			if err == nil {
				c.SetHandler(&sink{c: c, ended: make(chan error, 2)})
			}
			opened <- err
		})
		if err := <-opened; err != nil {
			t.Fatal(err)
		}
		if n := g.Watched(); n != before {
			t.Errorf("the kernel watches %d, and %d before", n, before)
		}
	}
}

// Nobody waits for a loop that has ended, nor goes on waiting.
func TestSocketOfNoLoop(t *testing.T) {
	g, err := loop.NewGroup(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	_, near := early(t, g)
	_, waits := early(t, g)
	done := make(chan error, 1)
	go func() {
		_, err := waits.Read(make([]byte, 1))
		done <- err
	}()
	for g.Early() == 0 {
		runtime.Gosched()
	}
	if err := g.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range []net.Conn{near, waits} {
		if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
}

// Several may wait for the same: none is forgotten, and what one writes is whole.
func TestSocketShared(t *testing.T) {
	g := alone(t)
	for range 20 {
		far, near := early(t, g)
		_ = near.SetReadDeadline(time.Now().Add(10 * time.Second))
		var all sync.WaitGroup
		for range 2 {
			all.Go(func() {
				if n, err := near.Read(make([]byte, 1)); n != 1 || err != nil {
					t.Error(n, err)
				}
			})
		}
		for g.Early() == 0 {
			runtime.Gosched()
		}
		_, _ = far.Write([]byte("ab"))
		all.Wait()
		_ = near.Close()
	}
	const size = 4 << 20
	far, near := early(t, g)
	_ = near.SetWriteDeadline(time.Now().Add(20 * time.Second))
	var all sync.WaitGroup
	for _, b := range []byte("ab") {
		all.Go(func() {
			if n, err := near.Write(bytes.Repeat([]byte{b}, size)); n != size || err != nil {
				t.Error(n, err)
			}
		})
	}
	got := make([]byte, 2*size)
	if _, err := io.ReadFull(far, got); err != nil {
		t.Fatal(err)
	}
	all.Wait()
	if turns := bytes.Count(got, []byte("ab")) + bytes.Count(got, []byte("ba")); turns != 1 {
		t.Errorf("%d turns", turns)
	}
}

// A writer that waits hears of room, whether or not somebody has waited for something to read before.
func TestSocketRoom(t *testing.T) {
	for _, before := range []bool{false, true} {
		g := alone(t)
		far, near := early(t, g)
		if before {
			tried(t, near)
		}
		_ = near.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
		n, err := near.Write(make([]byte, 32<<20))
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatal(n, err)
		}
		_ = near.SetWriteDeadline(time.Now().Add(10 * time.Second))
		done := make(chan error, 1)
		go func() {
			_, err := near.Write(make([]byte, 32<<20))
			done <- err
		}()
		go func() { _, _ = io.Copy(io.Discard, far) }()
		if err := <-done; err != nil {
			t.Errorf("watched before %v: %v", before, err)
		}
	}
}

// The address of a client is that which the kernel has written.
func TestSocketAddress(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	six := [28]byte{2: 0x1f, 3: 0x90, 8: 0xfe, 9: 0x80, 23: 1}
	binary.NativeEndian.PutUint16(six[:], unix.AF_INET6)
	four := [28]byte{2: 0x1f, 3: 0x90, 4: 192, 6: 2, 7: 7}
	binary.NativeEndian.PutUint16(four[:], unix.AF_INET)
	for want, raw := range map[string]struct {
		raw   [28]byte
		scope uint32
	}{
		"192.0.2.7:8080":      {four, 0},
		"[fe80::1]:8080":      {six, 0},
		"[fe80::1%lo]:8080":   {six, uint32(lo.Index)},
		"[fe80::1%9999]:8080": {six, 9999},
		":0":                  {[28]byte{1, 1}, 0},
	} {
		if raw.scope != 0 {
			binary.NativeEndian.PutUint32(raw.raw[24:], raw.scope)
		}
		if got := loop.TCPAddr(raw.raw).String(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}

// TestSocketRaces: it is closed and taken over while it is used, at any moment.
func TestSocketRaces(t *testing.T) {
	g, err := loop.NewGroup(2, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	ln, _ := accepting(t, g, "tcp", "127.0.0.1:0")
	for i := range 300 {
		far, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		near, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		var all sync.WaitGroup
		for _, f := range []func(){
			func() { _, _ = near.Read(make([]byte, 10)) },
			func() { _, _ = near.Write([]byte("y")) },
			func() { _ = near.SetDeadline(time.Now().Add(time.Millisecond)) },
			func() { _, _ = far.Write([]byte("x")) },
			func() {
				if i%2 == 0 {
					_ = near.Close()
					return
				}
				l := g.Pick()
				l.Do(func() {
					if c, err := l.Open(near, nil, nil); err == nil {
						c.SetHandler(&sink{c: c, ended: make(chan error, 1)})
						c.Close()
					}
				})
			},
		} {
			all.Go(f)
		}
		all.Wait()
		_ = far.Close()
	}
}

// A handshake over it is one over any other connection.
func TestSocketHandshake(t *testing.T) {
	g := alone(t)
	far, near := early(t, g)
	cert := tlspair.Leaf(t, tlspair.Key(t))
	done := make(chan error, 1)
	go func() {
		s := tls.Server(near, &tls.Config{Certificates: []tls.Certificate{cert}})
		_ = s.SetDeadline(time.Now().Add(10 * time.Second))
		done <- s.HandshakeContext(t.Context())
	}()
	c := tls.Client(far, &tls.Config{InsecureSkipVerify: true})
	if err := errors.Join(c.HandshakeContext(t.Context()), <-done); err != nil {
		t.Error(err)
	}
}
