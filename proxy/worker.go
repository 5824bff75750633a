package proxy

import (
	crand "crypto/rand"
	"log/slog"
	"math/rand/v2"
	"time"

	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/tally"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// worker is the part of an HTTP server that lives in one loop: its clients there, and its connections to the service.
type worker struct {
	side    *httpSide
	loop    *loop.Loop
	clients map[front]struct{}
	pools   map[*upstream.Endpoint]*pool
	mirrors map[*mirror]struct{}
	random  *rand.Rand
	tally   *tally.Shard
	record  accesslog.Record // the one that is being logged
	out     []byte           // for heads that are written
	pool    *h2.Pool
	born    time.Time
}

// front is a connection of a client.
type front interface {
	retire() // lets the requests under way finish, and no more begin
	ease()   // lets one more begin, where the client can't know better
}

func newWorker(side *httpSide, l *loop.Loop, n int) *worker {
	return &worker{side: side, loop: l, clients: make(map[front]struct{}), pools: make(map[*upstream.Endpoint]*pool), mirrors: make(map[*mirror]struct{}), random: newRandom(), tally: side.stats.tally.Shard(n), pool: h2.NewPool(), born: time.Now()}
}

// clock is the time since the worker was made.
func (w *worker) clock() time.Duration { return w.loop.Now().Sub(w.born) }

// take takes over an established connection of a client.
func (w *worker) take(l *link, logger *slog.Logger) {
	conn, err := l.open(w.loop)
	if err != nil {
		return
	}
	if l.state.NegotiatedProtocol == "h2" {
		d := newFront2(w, l)
		conn.SetHandler(d)
		d.opened(conn)
		return
	}
	d := newFront1(w, l, logger)
	conn.SetHandler(d)
	d.opened(conn)
}

// retire lets the requests under way finish, and no more begin.
func (w *worker) retire() {
	for c := range w.clients {
		c.retire()
	}
	for _, p := range w.pools {
		p.retire()
	}
}

func (w *worker) ease() {
	for c := range w.clients {
		c.ease()
	}
}

// leave ends what is left of the connections to the service.
func (w *worker) leave() {
	for m := range w.mirrors {
		m.x.clientGone()
	}
	for _, p := range w.pools {
		p.leave()
	}
}

// newRandom is nothing that a stranger could foresee.
func newRandom() *rand.Rand {
	var seed [32]byte
	_, _ = crand.Read(seed[:])
	return rand.New(rand.NewChaCha8(seed))
}
