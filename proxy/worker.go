package proxy

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
)

// worker is the part of an HTTP server that lives in one loop: its clients there, and its connections to the service.
type worker struct {
	side    *httpSide
	loop    *loop.Loop
	clients map[interface{ retire() }]struct{}
	idle    []*back1 // the last one used is the first to be used again
	out     []byte   // for heads that are written
}

// keepIdle bounds the connections to the service that one loop keeps open without a use, and keepFor how long: below the 5 s
// after which Node closes, or a request would meet the close.
const (
	keepIdle = 256
	keepFor  = 4 * time.Second
)

// call is a connection to the service in the making.
type call struct {
	exchange *exchange
	cancel   context.CancelFunc
}

// drop forgets the one who called. The connection is kept for the next.
func (c *call) drop() {
	c.exchange = nil
	c.cancel()
}

// connect gives the exchange a connection to the service, now or later; a new one where fresh is asked for.
func (w *worker) connect(x *exchange, grpc, fresh bool) {
	for n := len(w.idle); n > 0 && !fresh; n = len(w.idle) {
		b := w.idle[n-1]
		w.idle = w.idle[:n-1]
		if !b.conn.Closed() {
			w.assign(x, b, false)
			return
		}
	}
	ctx, cancel := context.WithCancel(w.side.ctx)
	c := &call{x, cancel}
	x.calling = c
	backend, limit := w.side.backend, w.side.limits.Connect
	w.side.work.Go(func() {
		defer cancel()
		raw, err := backend.dial(ctx, limit)
		if !w.loop.Do(func() { w.dialled(c, raw, err) }) && raw != nil {
			_ = raw.Close()
		}
	})
}

func (w *worker) dialled(c *call, raw net.Conn, err error) {
	x := c.exchange
	var b *back1
	if err == nil {
		b, err = w.open1(raw)
	}
	if err != nil {
		if x != nil {
			x.calling = nil
			x.fail(attest.CodeOf(err), http.StatusBadGateway, err)
		}
		return
	}
	if x == nil {
		w.keep(b)
		return
	}
	w.assign(x, b, true)
}

func (w *worker) open1(raw net.Conn) (*back1, error) {
	b := &back1{worker: w}
	conn, err := w.loop.Open(raw, nil, b)
	if err != nil {
		loop.Reset(raw)
		return nil, &attest.Error{Code: attest.CodeInternal, Check: "backend", Err: err}
	}
	b.conn = conn
	return b, nil
}

func (w *worker) assign(x *exchange, b *back1, fresh bool) {
	if err := b.start(x); err != nil {
		w.keep(b)
		x.calling = nil
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
	d := newFront1(w, l, logger)
	conn, err := w.loop.Open(l.conn.NetConn(), l, d)
	if err != nil {
		l.reset()
		return
	}
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
}
