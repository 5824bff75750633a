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
	list    []attest.Endorsement
	err     error
}

func (f *flights) do(ctx context.Context, key string, fetch func(context.Context) ([]attest.Endorsement, error)) ([]attest.Endorsement, error) {
	f.mu.Lock()
	if f.by == nil {
		f.by = map[string]*flight{}
	}
	one, ok := f.by[key]
	if !ok {
		shared, cancel := context.WithCancel(context.WithoutCancel(ctx))
		one = &flight{cancel: cancel, done: make(chan struct{})}
		f.by[key] = one
		go f.run(shared, key, one, fetch)
	}
	one.waiting++
	f.mu.Unlock()

	defer f.leave(key, one)
	select {
	case <-one.done:
		return one.list, one.err
	case <-ctx.Done():
		return nil, &attest.Error{Code: attest.CodeEndorserUnreachable, Check: "endorsements", Err: ctx.Err()}
	}
}

func (f *flights) run(ctx context.Context, key string, one *flight, fetch func(context.Context) ([]attest.Endorsement, error)) {
	defer func() {
		if p := recover(); p != nil {
			one.list, one.err = nil, &attest.Error{Code: attest.CodeInternal, Check: "endorsements", Err: fmt.Errorf("panic: %v", p)}
		}
		f.forget(key, one)
		close(one.done)
	}()
	one.list, one.err = fetch(ctx)
}

func (f *flights) leave(key string, one *flight) {
	f.mu.Lock()
	one.waiting--
	last := one.waiting == 0
	if last && f.by[key] == one {
		delete(f.by, key) // nobody may join a request that is about to be cancelled
	}
	f.mu.Unlock()
	if last {
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
