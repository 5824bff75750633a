package loop

import (
	"context"
	"log/slog"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// scratch is what one read takes at most. It is large, because every read of a busy connection costs a call of the kernel.
const scratch = 128 << 10

// Group is a set of loops that share the connections.
type Group struct {
	loops []*Loop
	next  atomic.Uint32
	close sync.Once

	accepted atomic.Uint32 // counted apart: two turns for each connection would leave every second loop out
}

// NewGroup starts n loops; 0 means one for each processor that Go uses. Panics of handlers go to logger, which may be nil.
func NewGroup(n int, logger *slog.Logger) (*Group, error) { return newGroup(n, false, logger) }

// NewPortableGroup is NewGroup with what works on every system.
func NewPortableGroup(n int, logger *slog.Logger) (*Group, error) { return newGroup(n, true, logger) }

func newGroup(n int, portable bool, logger *slog.Logger) (*Group, error) {
	if n <= 0 {
		n = runtime.GOMAXPROCS(0)
	}
	if logger == nil {
		logger = slog.New(slog.DiscardHandler)
	}
	g := &Group{}
	for range n {
		l, err := newLoop(portable, logger)
		if err != nil {
			_ = g.Close()
			return nil, err
		}
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// Pick answers a loop for a new connection.
func (g *Group) Pick() *Loop { return g.turn(&g.next) }

func (g *Group) turn(of *atomic.Uint32) *Loop { return g.loops[int(of.Add(1))%len(g.loops)] }

// For answers a loop for established connections over those transports: that which watches one of them already, if there is one.
func (g *Group) For(raws ...net.Conn) *Loop {
	for _, raw := range raws {
		if l := home(raw); l != nil && slices.Contains(g.loops, l) {
			return l
		}
	}
	return g.Pick()
}

// Loops are all of them.
func (g *Group) Loops() []*Loop { return g.loops }

// Close aborts the connections that are left, and waits until every loop has ended.
func (g *Group) Close() error {
	g.close.Do(func() {
		for _, l := range g.loops {
			l.end()
		}
		for _, l := range g.loops {
			<-l.ended
		}
	})
	return nil
}

// Loop runs what its connections do. But for Do, its methods and those of its connections belong to it: they may be called
// by what runs in it alone.
type Loop struct {
	log    *slog.Logger
	poller poller
	in     []byte // of one read, before TLS
	plain  []byte // of one read, after it
	shelf  shelf
	conns  map[*Conn]struct{}
	dirty  []*Conn // have output that was not tried to be sent
	timers timers
	now    time.Time
	state  any

	mu     sync.Mutex
	tasks  []func()
	spare  []func()
	ending bool
	ended  chan struct{}
}

// poller waits for the kernel.
type poller interface {
	// wait runs what has happened to connections. It answers at the latest at until, where that is not zero, and when woken.
	wait(until time.Time)
	wake() // from anywhere
	close()
}

func newLoop(portable bool, logger *slog.Logger) (*Loop, error) {
	l := &Loop{log: logger, conns: make(map[*Conn]struct{}), ended: make(chan struct{}), in: make([]byte, scratch), plain: make([]byte, scratch), now: time.Now()}
	p, err := newPoller(l, portable)
	if err != nil {
		return nil, err
	}
	l.poller = p
	go l.run()
	return l, nil
}

// Do has f run in the loop, soon. It may be called from anywhere. It answers false when the loop has ended, and f does not run.
func (l *Loop) Do(f func()) bool {
	l.mu.Lock()
	if l.ending {
		l.mu.Unlock()
		return false
	}
	l.tasks = append(l.tasks, f)
	first := len(l.tasks) == 1
	l.mu.Unlock()
	if first {
		l.poller.wake()
	}
	return true
}

// Try runs f, in the loop. A panic in it ends neither the process nor what else the loop is doing: broken runs then, to end what f
// was about.
func (l *Loop) Try(f, broken func()) {
	done := false
	l.guard(func() {
		f()
		done = true
	})
	if !done {
		l.guard(broken)
	}
}

// Now is the time, as of when the loop last woke.
func (l *Loop) Now() time.Time { return l.now }

// Local is what the owner keeps for this loop, such as its pools of connections. make makes it once.
func (l *Loop) Local(make func() any) any {
	if l.state == nil {
		l.state = make()
	}
	return l.state
}

func (l *Loop) end() {
	l.mu.Lock()
	l.ending = true
	l.mu.Unlock()
	l.poller.wake()
}

func (l *Loop) run() {
	defer close(l.ended)
	defer l.poller.close()
	for {
		l.poller.wait(l.timers.next())
		l.now = time.Now()
		if l.work() {
			break
		}
		l.timers.run(l)
		l.flush()
	}
	for c := range l.conns {
		c.guard(c.Abort)
	}
	l.work() // what was asked for before the end
}

// work runs the tasks that have come, and reports whether the loop is to end.
func (l *Loop) work() bool {
	l.mu.Lock()
	tasks, ending := l.tasks, l.ending
	l.tasks, l.spare = l.spare[:0], nil
	l.mu.Unlock()
	for i, f := range tasks {
		l.guard(f)
		tasks[i] = nil
	}
	l.mu.Lock()
	l.spare = tasks
	l.mu.Unlock()
	return ending
}

// flush sends what was written meanwhile: what a connection was given in several pieces leaves in one.
func (l *Loop) flush() {
	for i := 0; i < len(l.dirty); i++ { // sending may make others dirty
		c := l.dirty[i]
		l.dirty[i] = nil
		c.dirty = false
		c.sendSafely()
	}
	l.dirty = l.dirty[:0]
}

// guard keeps a panic from ending the process.
func (l *Loop) guard(f func()) {
	defer func() {
		if p := recover(); p != nil {
			l.panicked(p)
		}
	}()
	f()
}

func (l *Loop) panicked(p any) {
	l.log.LogAttrs(context.Background(), slog.LevelError, "panic in a connection", slog.Any("panic", p), slog.String("stack", string(debug.Stack())))
}
