package proxy

import (
	"sync/atomic"
	"time"
)

// How many goroutines of a crew may wait for work, and for how long.
const (
	idlers = 64
	idling = 10 * time.Second
)

// crew is goroutines that do one task after the other, as many at once as there are. A handshake needs a deep stack: a goroutine of
// its own would begin with a small one, and copy it with every step by which it grows.
type crew struct {
	tasks chan func()
	gone  <-chan struct{} // nobody waits any more once it is closed
	idle  atomic.Int32
}

func newCrew(gone <-chan struct{}) *crew { return &crew{tasks: make(chan func()), gone: gone} }

// do has task done at once, by another goroutine.
func (c *crew) do(task func()) {
	select {
	case c.tasks <- task:
	default:
		go c.work(task)
	}
}

func (c *crew) work(task func()) {
	timer := time.NewTimer(idling)
	defer timer.Stop()
	for task != nil {
		task()
		task = nil
		if c.idle.Add(1) <= idlers {
			timer.Reset(idling)
			select {
			case task = <-c.tasks:
			case <-timer.C:
			case <-c.gone:
			}
		}
		c.idle.Add(-1)
	}
}
