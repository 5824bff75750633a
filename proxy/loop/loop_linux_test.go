package loop_test

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/test/tlspair"
)

// pair answers two ends of a connection, of which one belongs to no loop yet. What is written to it is at its other end at once.
func pair(t *testing.T, network string) (far end, near net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, map[string]string{"tcp": "127.0.0.1:0", "unix": filepath.Join(t.TempDir(), "s")}[network])
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	c, err := net.Dial(network, ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if near, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	return c.(end), near
}

// alone is a group of one loop.
func alone(t *testing.T) *loop.Group {
	t.Helper()
	g, err := loop.NewGroup(1, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = g.Close() })
	return g
}

// sinkFor gives a loop a connection that takes what comes.
func sinkFor(t *testing.T, g *loop.Group, near net.Conn) *sink {
	t.Helper()
	s := &sink{ended: make(chan error, 2)}
	give(t, g, near, nil, func(c *loop.Conn) loop.Handler { s.c = c; return s })
	return s
}

// soon waits in the loop of c, round by round.
func soon(t *testing.T, c *loop.Conn, what string, held func() bool) {
	t.Helper()
	for within := time.Now().Add(10 * time.Second); !held(); do(c, func() {}) {
		if time.Now().After(within) {
			t.Fatal(what, " has not come")
		}
	}
}

func arrives(t *testing.T, s *sink, want int64) {
	t.Helper()
	soon(t, s.c, strconv.FormatInt(want, 10)+" bytes", func() bool { return s.got.Load() == want })
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
		for _, network := range []string{"unix", "tcp"} {
			if network == "tcp" && at.size == size {
				continue // it would wait for who reads
			}
			for _, when := range []string{"before it is watched", "afterwards"} {
				for _, leaves := range []bool{false, true} {
					t.Run(network+", "+name+", "+when+map[bool]string{true: ", who wants to know"}[leaves], func(t *testing.T) {
						far, near := pair(t, network)
						send := func() {
							if n, err := far.Write(make([]byte, at.size)); n != at.size {
								t.Fatal(n, err)
							}
							if at.ends {
								_ = far.CloseWrite()
							}
						}
						if when != "afterwards" {
							send()
						}
						h := &leaving{sink{pause: at.pauses == "then", ended: make(chan error, 2)}, make(chan struct{}, 2)}
						give(t, alone(t), near, nil, func(c *loop.Conn) loop.Handler {
							h.c = c
							if at.pauses == "first" {
								if leaves {
									c.SetHandler(h)
								}
								c.Pause()
							}
							if leaves {
								return h
							}
							return &h.sink
						})
						if when == "afterwards" {
							send()
						}
						if at.pauses != "" {
							soon(t, h.c, "what was read", func() bool { return h.got.Load() > 0 || at.want == 0 })
							if leaves && at.left {
								soon(t, h.c, "word that the other end has gone", func() bool { return len(h.left) > 0 })
								<-h.left
							}
							for range 5 { // what is not to come has had the time to
								do(h.c, func() {})
							}
							if got := h.got.Load(); got != int64(at.want) || len(h.ended) > 0 {
								t.Errorf("%d bytes instead of %d while it was paused, ended %d times", got, at.want, len(h.ended))
							}
							do(h.c, func() { h.pause = false; h.c.Resume() })
						}
						arrives(t, &h.sink, int64(at.size))
						if at.ends {
							soon(t, h.c, "the end", func() bool { return len(h.ended) > 0 })
							if err := <-h.ended; err != nil {
								t.Error(err)
							}
						}
						soon(t, h.c, "rest", func() (rests bool) {
							do(h.c, func() { rests = h.c.Unread() == 0 })
							return rests
						})
						if len(h.left) > 0 || len(h.ended) > 0 {
							t.Errorf("told %d times too often that the other end has gone, %d that it has ended", len(h.left), len(h.ended))
						}
					})
				}
			}
		}
	}
}

// A read ends at a byte that is urgent, and behind a descriptor that was passed, though more is there.
func TestReadInPieces(t *testing.T) {
	urgent := func(c end) error {
		raw, err := c.(syscall.Conn).SyscallConn()
		if err != nil {
			return err
		}
		return errors.Join(raw.Control(func(fd uintptr) { err = unix.Sendto(int(fd), []byte("!"), unix.MSG_OOB, nil) }), err)
	}
	for name, at := range map[string]struct {
		network string
		between func(end) error
	}{
		"urgent, TCP":  {"tcp", urgent},
		"urgent, unix": {"unix", urgent},
		"a descriptor": {"unix", func(c end) error {
			_, _, err := c.(*net.UnixConn).WriteMsgUnix([]byte("!"), unix.UnixRights(0), nil)
			return err
		}},
	} {
		t.Run(name, func(t *testing.T) {
			far, near := pair(t, at.network)
			s := sinkFor(t, alone(t), near)
			want := int64(len("before") + len("behind"))
			if name == "a descriptor" {
				want += int64(len("!"))
			}
			for range 3 {
				got := s.got.Load()
				do(s.c, func() { // which sees all of it at once
					_, err := io.WriteString(far, "before")
					err = errors.Join(err, at.between(far))
					if _, more := io.WriteString(far, "behind"); errors.Join(err, more) != nil {
						t.Error(err, more)
					}
				})
				arrives(t, s, got+want)
			}
		})
	}
}

// clock notes how far behind the loop's time is when something arrives.
type clock struct {
	*sink
	behind []time.Duration
}

func (k *clock) Data(p []byte) {
	if k.behind = append(k.behind, time.Since(k.c.Loop().Now())); len(k.behind) == 1 {
		k.c.Loop().Do(func() { time.Sleep(200 * time.Millisecond) })
	}
	k.sink.Data(p)
}

// What is read on with is read at the time that it is by then, whatever the loop has done since.
func TestTimeOfTheRest(t *testing.T) {
	far, near := pair(t, "unix")
	s := sinkFor(t, alone(t), near)
	k := &clock{sink: s}
	do(s.c, func() {
		s.c.SetHandler(k)
		_, _ = far.Write(make([]byte, 150_000))
	})
	arrives(t, s, 150_000)
	do(s.c, func() {
		if len(k.behind) < 2 || k.behind[1] > 100*time.Millisecond {
			t.Errorf("the loop's time was behind by %v", k.behind)
		}
	})
}

// keeper keeps what comes, and does something to another connection at each piece.
type keeper struct {
	*sink
	all []byte
	do  func()
}

func (k *keeper) Data(p []byte) {
	k.all = append(k.all, p...)
	k.sink.Data(p)
	k.do()
}

// keepers gives a loop n connections that keep what comes, and answers the far ends as well.
func keepers(t *testing.T, g *loop.Group, network string, n int) (far []end, near []*keeper) {
	t.Helper()
	for range n {
		f, raw := pair(t, network)
		far, near = append(far, f), append(near, &keeper{sink: sinkFor(t, g, raw), do: func() {}})
	}
	return far, near
}

// Connections of one round are read before any of them is looked at. Whom another one ends meanwhile is given nothing any more, and
// whom it pauses is given what was read, and no more than that.
func TestRoundOfSeveral(t *testing.T) {
	for _, c := range []struct {
		name  string
		does  func(other *loop.Conn)
		total int // of the two pieces
	}{
		{"ends it", (*loop.Conn).Abort, 1},
		{"pauses it", (*loop.Conn).Pause, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			far, near := keepers(t, alone(t), "tcp", 2)
			total := func() int { return len(near[0].all) + len(near[1].all) }
			do(near[0].c, func() {
				for i, k := range near {
					k.do = func() { c.does(near[1-i].c) }
					k.c.SetHandler(k)
					_, _ = far[i].Write([]byte{1})
				}
			})
			soon(t, near[0].c, "the first piece", func() bool { return near[0].got.Load()+near[1].got.Load() > 0 })
			do(near[0].c, func() {
				if total() != c.total || len(near[0].ended)+len(near[1].ended) > 0 {
					t.Errorf("%d pieces, %d ends", total(), len(near[0].ended)+len(near[1].ended))
				}
				for _, f := range far {
					_, _ = f.Write([]byte{2})
				}
			})
			for range 3 {
				do(near[0].c, func() {})
			}
			if c.total == 2 {
				do(near[0].c, func() {
					if total() != 2 {
						t.Errorf("%d pieces on paused connections", total())
					}
					for _, k := range near {
						k.do = func() {}
						k.c.Resume()
					}
				})
				arrives(t, near[0].sink, 2)
				arrives(t, near[1].sink, 2)
			}
		})
	}
}

// More than there is room for at once comes whole, and in order.
func TestRoundOfMuch(t *testing.T) {
	far, near := keepers(t, alone(t), "unix", 5)
	var want [5][]byte
	for i := range want {
		want[i] = random(30_000 * (i + 1))
	}
	do(near[0].c, func() {
		for i, k := range near {
			k.c.SetHandler(k)
			_, _ = far[i].Write(want[i])
		}
	})
	for i, k := range near {
		arrives(t, k.sink, int64(len(want[i])))
		do(k.c, func() {
			if !bytes.Equal(k.all, want[i]) {
				t.Errorf("connection %d was given something else", i)
			}
		})
	}
}

// A connection that another one ends before its turn to be read, or to be read on with, is not read: its descriptor may be somebody
// else's by then.
func TestRoundWithoutTheEnded(t *testing.T) {
	for _, c := range []struct {
		name  string
		sizes [2]int // of what comes for the one that ends the other, and for the other
		first int    // which of them is told of first
	}{
		{"before its turn", [2]int{100_000, 1}, 0}, // which leaves little room
		{"before its rest", [2]int{1, 150_000}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			far, near := keepers(t, alone(t), "unix", 2)
			others, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(others[1])
			reused := -1
			do(near[0].c, func() {
				near[0].c.SetHandler(near[0])
				near[0].do = func() {
					reused = near[1].c.FD()
					near[1].c.Abort()
					if err := errors.Join(unix.Dup3(others[0], reused, unix.O_CLOEXEC), unix.Close(others[0])); err != nil {
						t.Error(err)
					}
					near[0].do = func() {}
				}
				_, _ = unix.Write(others[1], []byte{3})
				for _, i := range []int{c.first, 1 - c.first} {
					_, _ = far[i].Write(make([]byte, c.sizes[i]))
				}
			})
			arrives(t, near[0].sink, int64(c.sizes[0]))
			for range 3 {
				do(near[0].c, func() {})
			}
			defer unix.Close(reused)
			if n, err := unix.Read(reused, make([]byte, 1)); n != 1 || err != nil {
				t.Errorf("the byte of another was taken: %d, %v", n, err)
			}
		})
	}
}

// second panics when something arrives for the second time.
type second struct {
	*sink
	n int
}

func (s *second) Data(p []byte) {
	if s.n++; s.n == 2 {
		panic("second")
	}
	s.sink.Data(p)
}

// A panic in what is read on with ends that connection alone, and a group ends that has such connections.
func TestPanicInTheRest(t *testing.T) {
	g := alone(t)
	var near [3]*sink
	var far [3]end
	for i := range near {
		var c net.Conn
		far[i], c = pair(t, "unix")
		near[i] = sinkFor(t, g, c)
	}
	do(near[0].c, func() {
		near[1].c.SetHandler(&second{sink: near[1]})
		for _, f := range far {
			_, _ = f.Write(make([]byte, 150_000))
		}
	})
	arrives(t, near[0], 150_000)
	arrives(t, near[2], 150_000)
	if err := <-near[1].ended; err == nil {
		t.Error("it ended as if properly")
	}
	if len(near[0].ended)+len(near[1].ended)+len(near[2].ended) > 0 {
		t.Error("others have ended, or one twice")
	}
	do(near[0].c, func() {
		_, _ = far[0].Write(make([]byte, 150_000))
		_, _ = far[2].Write(make([]byte, 150_000))
	})
	_ = g.Close()
}

// counted echoes a stream that counts, and pauses and resumes itself and others at random.
type counted struct {
	c      *loop.Conn
	all    *[]*counted
	random *rand.Rand
	next   byte
	other  bool // bytes than were sent
	held   bool // as it has no room
	pauses int
	lefts  int
	ends   int
	ended  chan struct{}
}

func (k *counted) Data(p []byte) {
	for _, b := range p {
		k.other = k.other || b != k.next
		k.next++
	}
	if !k.c.Write(p) {
		k.held = true
		k.pauses++
		k.c.Pause()
	}
	for range 2 {
		o := (*k.all)[k.random.IntN(len(*k.all))]
		resume := func() {
			if !o.held {
				o.c.Resume()
			}
		}
		switch k.random.IntN(4) {
		case 0:
			o.pauses++
			if o.c.Pause(); k.random.IntN(2) == 0 {
				resume()
			}
			k.c.Loop().Do(resume)
		case 1:
			resume()
		}
	}
}
func (k *counted) Drained() { k.held = false; k.c.Resume() }
func (k *counted) End(err error) {
	k.other = k.other || err != nil
	if k.ends++; k.ends == 1 {
		k.c.Close()
		close(k.ended)
	}
}

// parting is one that wants to know when the other end has gone.
type parting struct{ *counted }

func (k parting) Left() { k.lefts++ }

// Whoever pauses whom, and when: each byte arrives once and in order, and the end behind it.
func TestPausedAtRandom(t *testing.T) {
	for _, secure := range []bool{false, true} {
		g := alone(t)
		var all []*counted
		var clients sync.WaitGroup
		for i := range 24 {
			r := rand.New(rand.NewPCG(rand.Uint64(), uint64(i)))
			k := &counted{all: &all, random: rand.New(rand.NewPCG(r.Uint64(), 1)), ended: make(chan struct{})}
			far := connect(t, g, secure, func(c *loop.Conn) loop.Handler {
				k.c = c
				all = append(all, k)
				if i%2 == 0 {
					return parting{k}
				}
				return k
			})
			src := make([]byte, 1+r.IntN(3<<20))
			for j := range src {
				src[j] = byte(j)
			}
			clients.Go(func() {
				for p := src; len(p) > 0; {
					n := min(len(p), []int{1 + r.IntN(100), 1 + r.IntN(20_000), 128 << 10, 1 + r.IntN(400_000)}[r.IntN(4)])
					if _, err := far.Write(p[:n]); err != nil {
						t.Error(err)
						return
					}
					p = p[n:]
				}
				_ = far.CloseWrite()
			})
			clients.Go(func() {
				if got, err := io.ReadAll(far); !bytes.Equal(got, src) {
					t.Errorf("%d bytes came back of %d: %v", len(got), len(src), err)
				}
				<-k.ended
			})
		}
		clients.Wait()
		done := make(chan struct{})
		g.Pick().Do(func() {
			defer close(done)
			for _, k := range all {
				if k.other || k.ends != 1 || k.lefts > k.pauses {
					t.Errorf("other bytes %v, ended %d times, told of the other end %d times of %d", k.other, k.ends, k.lefts, k.pauses)
				}
			}
		})
		<-done
	}
}

// Who is told that there is room again is told each time.
func TestRoomAgain(t *testing.T) {
	far, near := pair(t, "unix")
	s := sinkFor(t, alone(t), near)
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
		s := &sink{pause: true, ended: make(chan error, 2)}
		far := connect(t, alone(t), false, func(c *loop.Conn) loop.Handler { s.c = c; return s })
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

// late pauses when something arrives for the second time.
type late struct {
	leaving
	n int
}

func (l *late) Data(p []byte) {
	l.got.Add(int64(len(p)))
	if l.n++; l.n == 2 {
		l.c.Pause()
	}
}

// Who pauses in what is read on with hears all the same that the other end has gone: epoll has told of it before.
func TestLeftInTheRest(t *testing.T) {
	far, near := pair(t, "unix")
	h := &late{leaving: leaving{sink{ended: make(chan error, 2)}, make(chan struct{}, 2)}}
	_, _ = far.Write(make([]byte, 150_000))
	_ = far.CloseWrite()
	give(t, alone(t), near, nil, func(c *loop.Conn) loop.Handler { h.c = c; return h })
	soon(t, h.c, "word that the other end has gone", func() bool { return len(h.left) > 0 })
	if h.got.Load() != 150_000 || len(h.ended) > 0 {
		t.Errorf("%d bytes, ended %d times", h.got.Load(), len(h.ended))
	}
}

// secured is connect for alone, with a second descriptor of the near end.
func secured(t *testing.T, h func(*loop.Conn) loop.Handler) (far *tls.Conn, near *tls.Conn, fd int) {
	t.Helper()
	c, raw := pair(t, "tcp")
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	file, err := raw.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = file.Close() })
	wire := loop.NewWire(raw)
	far, near = tlspair.Over(t, c, wire, tlspair.Leaf(t, tlspair.Key(t)))
	give(t, alone(t), wire, near, h)
	return far, near, int(file.Fd())
}

// What is written under TLS has left when the write is over, whatever its size: the kernel waits for no more.
func TestWriteLeaves(t *testing.T) {
	s := &sink{ended: make(chan error, 1)}
	far, _, fd := secured(t, func(c *loop.Conn) loop.Handler { s.c = c; return s })
	const record = 16 << 10
	for _, size := range []int{1, 1000, record - 1, record, record + 1, 3 * record, 3*record + 100, 100_000} {
		left := time.Hour
		for range 5 { // of which one at least is not held up by something else
			want := random(size)
			var began time.Time
			do(s.c, func() {
				began = time.Now()
				s.c.Write(want)
			})
			soon(t, s.c, "the bytes to leave", func() bool {
				n, err := unix.IoctlGetInt(fd, unix.SIOCOUTQNSD)
				return n == 0 && err == nil
			})
			left = min(left, time.Since(began))
			got := make([]byte, size)
			if _, err := io.ReadFull(far, got); err != nil || !bytes.Equal(got, want) {
				t.Fatalf("%d bytes: something else came, %v", size, err)
			}
		}
		if left > 150*time.Millisecond { // after 200 the kernel waits no longer
			t.Errorf("%d bytes: were kept for %v", size, left)
		}
	}
}

// The last words and the goodbye behind them leave as one.
func TestGoodbyeLeavesWithTheRest(t *testing.T) {
	s := &sink{ended: make(chan error, 1)}
	far, _, fd := secured(t, func(c *loop.Conn) loop.Handler { s.c = c; return s })
	segments := func() uint32 {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil {
			t.Fatal(err)
		}
		return info.Data_segs_out
	}
	before := segments()
	do(s.c, func() {
		s.c.Write([]byte("bye"))
		s.c.Close()
	})
	if got, err := io.ReadAll(far); string(got) != "bye" || err != nil {
		t.Fatalf("got %q, %v", got, err)
	}
	if n := segments() - before; n != 1 {
		t.Errorf("%d segments", n)
	}
}

// The first error of a write is the one that is told: those that follow it know less.
func TestErrorOfAWrite(t *testing.T) {
	s := &sink{ended: make(chan error, 1)}
	far, _, fd := secured(t, func(c *loop.Conn) loop.Handler { s.c = c; return s })
	do(s.c, func() {
		raw := far.NetConn().(*net.TCPConn)
		_ = raw.SetLinger(0)
		_ = raw.Close()
		for {
			if info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO); err != nil || info.State == 7 { // TCP_CLOSE
				break
			}
		}
		s.c.Write(make([]byte, 100_000))
	})
	if err := <-s.ended; !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("got %v", err)
	}
}

// pour writes as long as it may, and then again.
type pour struct {
	sink
	left int
}

func (p *pour) Drained() {
	for chunk := make([]byte, 40<<10); p.left > 0; {
		p.left -= len(chunk)
		if !p.c.Write(chunk) {
			return
		}
	}
}

// What others write in the middle of what the loop writes is neither lost nor in the middle of a record.
func TestWritesBesideTheLoop(t *testing.T) {
	const each, chunks = 5_000, 200
	p := &pour{sink: sink{ended: make(chan error, 1)}, left: chunks * 40 << 10}
	far, near, _ := secured(t, func(c *loop.Conn) loop.Handler { p.c = c; return p })
	var others sync.WaitGroup
	defer others.Wait()
	others.Go(func() {
		for range each {
			if _, err := near.Write([]byte{1, 1, 1}); err != nil {
				t.Error(err)
				return
			}
		}
	})
	do(p.c, p.Drained)
	zeros, ones := 0, 0
	for b := make([]byte, 64<<10); zeros < chunks*40<<10 || ones < 3*each; {
		n, err := far.Read(b)
		if err != nil {
			t.Fatal(zeros, ones, err)
		}
		k := bytes.Count(b[:n], []byte{1})
		zeros, ones = zeros+n-k, ones+k
	}
	if zeros != chunks*40<<10 || ones != 3*each {
		t.Errorf("%d and %d bytes", zeros, ones)
	}
}
