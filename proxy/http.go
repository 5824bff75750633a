package proxy

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/jurat-tls/jurat/proxy/loop"
)

// httpSide is the HTTP half of an inbound server: attested connections go in, requests come out at the service.
type httpSide struct {
	group    *loop.Group
	stats    *counters
	log      *slog.Logger
	observer Observer
	name     string
	routing  atomic.Pointer[Routing]
	local    Local // nil for none
	limits   Limits
	workers  []*worker
	closing  atomic.Bool
	easing   atomic.Bool
	ctx      context.Context // of connecting to the service
	cancel   context.CancelFunc

	mu       sync.Mutex
	released bool
	work     sync.WaitGroup
}

func newHTTPSide(engine *Engine, routing *Routing, limits Limits, stats *counters, logger *slog.Logger) *httpSide {
	h := &httpSide{group: engine.group, stats: stats, log: logger, limits: limits}
	h.routing.Store(routing)
	h.ctx, h.cancel = context.WithCancel(context.Background())
	for i, l := range engine.group.Loops() {
		h.workers = append(h.workers, newWorker(h, l, i))
	}
	return h
}

// take gives an established connection to one of the loops.
func (h *httpSide) take(l *link, logger *slog.Logger) {
	raw := l.conn.NetConn()
	at := h.group.For(raw)
	w := h.workers[slices.IndexFunc(h.workers, func(w *worker) bool { return w.loop == at })]
	w.loop.Prepare(raw)
	if !w.loop.Do(func() { w.loop.Try(func() { w.take(l, logger) }, l.reset) }) {
		l.reset()
	}
}

// drain lets the requests under way finish, and no more begin.
func (h *httpSide) drain(context.Context) {
	h.closing.Store(true)
	for _, w := range h.workers {
		w.loop.Do(w.retire)
	}
}

// ease has the clients go elsewhere.
func (h *httpSide) ease() {
	h.easing.Store(true)
	for _, w := range h.workers {
		w.loop.Do(w.ease)
	}
}

// spawn runs f beside the loops, unless that is over.
func (h *httpSide) spawn(f func()) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.released {
		h.work.Go(f)
	}
	return !h.released
}

// release ends what is left of the connections to the service.
func (h *httpSide) release() {
	h.mu.Lock()
	h.released = true // a client that is about to be cut off may still ask for something
	h.mu.Unlock()
	h.cancel()
	h.work.Wait()
	for _, w := range h.workers {
		w.loop.Do(w.leave)
	}
}
