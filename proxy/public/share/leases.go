package share

import (
	"context"
	"sync"
	"time"
)

const (
	lasts    = 15 * time.Second       // a lease of which nobody says anything
	renewed  = 4 * time.Second        // how often who has one says so
	waited   = 250 * time.Millisecond // for a lock, until the peer is told that somebody else has it
	asked    = time.Second            // how often it asks again
	maxLocks = 256
)

// locker is what is locked for a peer, so that whoever uses the storage without us waits as well.
type locker interface {
	Lock(ctx context.Context, name string) error
	Unlock(ctx context.Context, name string) error
}

// leases are the locks that peers have, or wait for.
type leases struct {
	values locker
	living context.Context
	end    context.CancelFunc
	work   sync.WaitGroup

	mu   sync.Mutex
	held map[string]*lease
}

// lease is a lock that somebody has, or is the next to have.
type lease struct {
	token string
	timer *time.Timer
	end   context.CancelFunc
	ready chan struct{} // closed once it is had, or can't be
	err   error         // of the latter
}

func newLeases(values locker) *leases {
	l := &leases{values: values, held: map[string]*lease{}}
	l.living, l.end = context.WithCancel(context.Background())
	return l
}

// close gives all locks back.
func (l *leases) close() {
	l.end()
	l.mu.Lock()
	for name, h := range l.held {
		h.timer.Stop()
		delete(l.held, name)
	}
	l.mu.Unlock()
	l.work.Wait()
}

// lock gives a lock to who knows the token, or renews it. The error is errHeld where somebody else has it: then it is to be asked again.
func (l *leases) lock(ctx context.Context, name, token string) error {
	h, err := l.of(name, token)
	if err != nil {
		return err
	}
	patience := time.NewTimer(waited)
	defer patience.Stop()
	select {
	case <-h.ready:
		return h.err
	case <-patience.C:
		return errHeld
	case <-ctx.Done():
		return ctx.Err()
	}
}

// of answers the lease of who knows the token, with all of its time before it.
func (l *leases) of(name, token string) (*lease, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[name]
	switch {
	case l.living.Err() != nil:
		return nil, l.living.Err()
	case h == nil && len(l.held) >= maxLocks:
		return nil, errMany
	case h == nil:
		h = l.begin(name, token)
		l.held[name] = h
	case h.token != token || !h.timer.Stop(): // one that has run out is over, even if that is not seen to yet
		return nil, errHeld
	default:
		h.timer.Reset(lasts)
	}
	return h, nil
}

// begin takes a lock as soon as it is there, and keeps it until the lease ends.
func (l *leases) begin(name, token string) *lease {
	ctx, end := context.WithCancel(l.living)
	h := &lease{token: token, end: end, ready: make(chan struct{})}
	h.timer = time.AfterFunc(lasts, func() { l.drop(name, h) })
	l.work.Go(func() {
		defer end()
		if h.err = l.values.Lock(ctx, name); h.err != nil {
			l.drop(name, h)
			close(h.ready)
			return
		}
		close(h.ready)
		<-ctx.Done()
		_ = l.values.Unlock(context.WithoutCancel(ctx), name)
	})
	return h
}

// drop ends a lease.
func (l *leases) drop(name string, h *lease) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[name] == h {
		h.timer.Stop()
		delete(l.held, name)
	}
	h.end()
}

// unlock ends the lease of who knows the token. One that has ended by itself is no error.
func (l *leases) unlock(name, token string) {
	l.mu.Lock()
	h := l.held[name]
	l.mu.Unlock()
	if h != nil && h.token == token {
		l.drop(name, h)
	}
}
