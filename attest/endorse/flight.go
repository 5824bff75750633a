package endorse

import (
	"context"
	"fmt"
	"sync"

	"github.com/jurat-tls/jurat/attest"
)

// flights lets callers who ask for the same thing at the same time share one request. The request ends when the last of
// them has given up.
type flights struct {
	mu sync.Mutex
	by map[string]*flight
}

type flight struct {
	waiting int
	cancel  context.CancelFunc
	done    chan struct{}
	entry   Entry
	err     error
}

func (f *flights) do(ctx context.Context, key string, fetch func(context.Context) (Entry, error)) (Entry, error) {
	f.mu.Lock()
	if f.by == nil {
		f.by = map[string]*flight{}
	}
	one, ok := f.by[key]
	if !ok || one.waiting == 0 { // nobody may join a request that was cancelled
		shared, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one = &flight{cancel: cancel, done: make(chan struct{})}
		f.by[key] = one
		go f.run(shared, key, one, fetch)
	}
	one.waiting++
	f.mu.Unlock()

	defer f.leave(one)
	select {
	case <-one.done:
		return one.entry, one.err
	case <-ctx.Done():
		return Entry{}, ctx.Err()
	}
}

func (f *flights) run(ctx context.Context, key string, one *flight, fetch func(context.Context) (Entry, error)) {
	defer func() {
		if p := recover(); p != nil {
			one.entry, one.err = Entry{}, &attest.Error{Code: attest.CodeInternal, Check: "endorsements", Err: fmt.Errorf("panic: %v", p)}
		}
		f.forget(key, one)
		close(one.done)
	}()
	one.entry, one.err = fetch(ctx)
}

func (f *flights) leave(one *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if one.waiting--; one.waiting == 0 {
		one.cancel()
	}
}

func (f *flights) forget(key string, one *flight) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.by[key] == one {
		delete(f.by, key)
	}
}
