package loop

import (
	"container/heap"
	"time"
)

// Timer calls a function of its loop at a time. The zero value is not set. It may be set, stopped and put off again and
// again, and that costs next to nothing: what limits the idle time of a connection is put off with every byte.
type Timer struct {
	f     func()
	at    time.Time // when to call; zero when not set
	key   time.Time // by which the heap has it, at or before that
	index int       // in the heap, plus 1; 0 when not in it
	conn  *Conn     // whose it is; nil for nobody's
}

// Bind makes the timer one of a connection's: a panic in what it calls ends that, as one in its Handler does.
func (t *Timer) Bind(c *Conn) { t.conn = c }

// Set has f called at a time, in place of what was set before.
func (l *Loop) Set(t *Timer, at time.Time, f func()) {
	t.f, t.at = f, at
	switch {
	case t.index == 0:
		t.key = at
		heap.Push(&l.timers, t)
	case at.Before(t.key):
		t.key = at
		heap.Fix(&l.timers, t.index-1)
	}
	// Later than the heap thinks: it learns of it when that time has come.
}

// Stop forgets what was set. The heap forgets the timer when its time has come.
func (l *Loop) Stop(t *Timer) { t.at, t.f = time.Time{}, nil }

// Remove is Stop for a timer that is not set again: nothing holds on to what it belongs to.
func (l *Loop) Remove(t *Timer) {
	l.Stop(t)
	if t.index > 0 {
		heap.Remove(&l.timers, t.index-1)
	}
}

// timers is a heap by key.
type timers []*Timer

// next is when the first may be due; zero for never.
func (h timers) next() time.Time {
	if len(h) == 0 {
		return time.Time{}
	}
	return h[0].key
}

func (h *timers) run(l *Loop) {
	for len(*h) > 0 && !(*h)[0].key.After(l.now) {
		t := (*h)[0]
		if t.at.After(l.now) {
			t.key = t.at
			heap.Fix(h, 0)
			continue
		}
		f := t.f
		heap.Pop(h)
		switch l.Stop(t); {
		case f == nil:
		case t.conn != nil:
			t.conn.guard(f)
		default:
			l.guard(f)
		}
	}
}

func (h timers) Len() int           { return len(h) }
func (h timers) Less(i, j int) bool { return h[i].key.Before(h[j].key) }
func (h timers) Swap(i, j int) {
	h[i], h[j] = h[j], h[i]
	h[i].index, h[j].index = i+1, j+1
}

// Push is heap's.
func (h *timers) Push(x any) {
	t := x.(*Timer)
	*h = append(*h, t)
	t.index = len(*h)
}

// Pop is heap's.
func (h *timers) Pop() any {
	old := *h
	t := old[len(old)-1]
	old[len(old)-1] = nil
	*h = old[:len(old)-1]
	t.index = 0
	return t
}
