package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/loop"
)

// worker is the part of an HTTP server that lives in one loop: its clients there, and its connections to the service.
type worker struct {
	side    *httpSide
	loop    *loop.Loop
	clients map[front]struct{}
	idle    []*back1 // the last one used is the first to be used again
	shared  []*back2
	dialing *call  // of a connection that is to be shared
	out     []byte // for heads that are written
	pool    *h2.Pool
	born    time.Time
}

// front is a connection of a client.
type front interface {
	retire() // lets the requests under way finish, and no more begin
}

// keepIdle bounds the connections to the service that one loop keeps open without a use, and keepFor how long: below the 5 s
// after which Node closes, or a request would meet the close.
const (
	keepIdle = 1024
	keepFor  = 4 * time.Second
)

func newWorker(side *httpSide, l *loop.Loop) *worker {
	return &worker{side: side, loop: l, clients: make(map[front]struct{}), pool: h2.NewPool(), born: time.Now()}
}

// clock is the time since the worker was made.
func (w *worker) clock() time.Duration { return w.loop.Now().Sub(w.born) }

// call is a connection to the service in the making, and who waits for it.
type call struct {
	worker *worker
	waits  []*exchange
	cancel context.CancelFunc
}

// drop forgets one who waits. The connection is kept for others, if any wait.
func (c *call) drop(x *exchange) {
	c.waits = slices.DeleteFunc(c.waits, func(other *exchange) bool { return other == x })
	if len(c.waits) == 0 {
		if c.worker.dialing == c {
			c.worker.dialing = nil
		}
		c.cancel()
	}
}

// connect gives the exchange a connection to the service, now or later; a new one where fresh is asked for.
func (w *worker) connect(x *exchange, fresh bool) {
	if x.req.Upgrade == "" && (w.side.backend.scheme == "h2c" || x.grpc) {
		w.share(x)
		return
	}
	for n := len(w.idle); n > 0 && !fresh; n = len(w.idle) {
		b := w.idle[n-1]
		w.idle = w.idle[:n-1]
		if !b.conn.Closed() { // the service may have closed it a moment ago
			w.assign(x, b, false)
			return
		}
	}
	w.dial(x, func(c *call, raw net.Conn) error {
		b := &back1{worker: w}
		conn, err := w.open(raw, b)
		if err != nil {
			return err
		}
		b.conn = conn
		b.timer.Bind(conn)
		conn.OnClose(func() { w.loop.Remove(&b.timer) })
		if len(c.waits) == 0 {
			w.keep(b)
		}
		for _, x := range c.waits {
			x.calling = nil
			w.loop.Try(func() { w.assign(x, b, true) }, x.cut)
		}
		return nil
	})
}

// share gives the exchange a stream of a connection that has others.
func (w *worker) share(x *exchange) {
	w.shared = slices.DeleteFunc(w.shared, func(b *back2) bool { return b.conn.Closed() })
	for _, b := range w.shared {
		if b.h.CanOpen() {
			b.start(x, b.used)
			return
		}
	}
	if c := w.dialing; c != nil {
		c.waits, x.calling = append(c.waits, x), c
		return
	}
	w.dialing = w.dial(x, func(c *call, raw net.Conn) error {
		if w.dialing == c {
			w.dialing = nil
		}
		b, err := w.openShared(raw)
		if err != nil {
			return err
		}
		w.shared = append(w.shared, b)
		for _, x := range c.waits {
			x.calling = nil
			w.loop.Try(func() {
				if b.h.CanOpen() {
					b.start(x, false)
				} else {
					w.share(x)
				}
			}, x.cut)
		}
		return nil
	})
}

// dial connects to the service, and has use take the connection.
func (w *worker) dial(x *exchange, use func(*call, net.Conn) error) *call {
	ctx, cancel := context.WithCancel(w.side.ctx)
	c := &call{w, []*exchange{x}, cancel}
	x.calling = c
	backend, limit := w.side.backend, w.side.limits.Connect
	if !w.side.spawn(func() {
		defer cancel()
		raw, err := backend.dial(ctx, limit)
		done := func() {
			if err == nil {
				err = use(c, raw)
			}
			if err == nil {
				return
			}
			if w.dialing == c {
				w.dialing = nil
			}
			for _, x := range slices.Clone(c.waits) {
				x.calling = nil
				w.loop.Try(func() { x.fail(attest.CodeOf(err), http.StatusBadGateway, err) }, x.cut)
			}
		}
		if !w.loop.Do(done) && raw != nil {
			_ = raw.Close()
		}
	}) {
		cancel()
		x.calling = nil
		x.fail(attest.CodeBackendUnreachable, http.StatusBadGateway, context.Canceled)
		return nil
	}
	return c
}

func (w *worker) open(raw net.Conn, h loop.Handler) (*loop.Conn, error) {
	conn, err := w.loop.Open(raw, nil, h)
	if err != nil {
		loop.Reset(raw)
		return nil, &attest.Error{Code: attest.CodeInternal, Check: "backend", Err: err}
	}
	return conn, nil
}

func (w *worker) assign(x *exchange, b *back1, fresh bool) {
	if b.start(x) != nil {
		w.keep(b)
		x.reply(http.StatusBadRequest, "", "bad request")
		return
	}
	x.connected(b, fresh)
}

// keep keeps a connection for the next request.
func (w *worker) keep(b *back1) {
	if len(w.idle) >= keepIdle || w.side.closing.Load() || b.conn.Closed() {
		b.conn.Close()
		return
	}
	w.idle = append(w.idle, b)
	w.loop.Set(&b.timer, w.loop.Now().Add(keepFor), b.conn.Close)
}

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
	for _, b := range w.idle {
		b.conn.Close()
	}
	w.idle = nil
	for _, b := range w.shared {
		b.h.Shutdown()
		b.conn.Ready()
	}
}

// leave ends what is left of the connections to the service.
func (w *worker) leave() {
	for _, b := range w.shared {
		b.conn.Close()
	}
	w.shared = nil
}
