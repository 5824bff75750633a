package proxy

import (
	"context"
	"net"
	"net/http"
	"slices"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// pool is the connections of one loop to one endpoint.
type pool struct {
	worker   *worker
	cluster  *Cluster
	endpoint *upstream.Endpoint
	idle     []*back1 // the last one used is the first to be used again
	shared   []*back2
	dialing  *call // of a connection that is to be shared
	open     int   // connections, those in the making included
	http1    bool  // the endpoint agrees to nothing newer
	single   bool  // it takes upgrades in HTTP/1.1 only
}

// keepIdle bounds the connections that one loop keeps open to an endpoint without a use.
const keepIdle = 1024

func (w *worker) poolOf(c *Cluster, e *upstream.Endpoint) *pool {
	p := w.pools[e]
	if p == nil {
		p = &pool{worker: w, cluster: c, endpoint: e}
		w.pools[e] = p
	}
	return p
}

// left takes note that a connection is no more. Those that are idle have given their place back before.
func (p *pool) left(counted bool) {
	if counted {
		p.cluster.balance.Release(upstream.Connections)
	}
	if p.open--; p.open == 0 && p.worker.pools[p.endpoint] == p {
		delete(p.worker.pools, p.endpoint)
	}
}

// call is a connection to an endpoint in the making, and who waits for it.
type call struct {
	pool   *pool
	waits  []*exchange
	cancel context.CancelFunc
}

// add has one more wait.
func (c *call) add(x *exchange) bool {
	if !c.pool.cluster.balance.Acquire(upstream.Pending) {
		return false
	}
	c.waits, x.calling = append(c.waits, x), c
	return true
}

// done lets x wait no more.
func (c *call) done(x *exchange) {
	x.calling = nil
	c.pool.cluster.balance.Release(upstream.Pending)
}

// drop forgets one who waits. The connection is kept for others, if any wait.
func (c *call) drop(x *exchange) {
	c.done(x)
	c.waits = slices.DeleteFunc(c.waits, func(other *exchange) bool { return other == x })
	if len(c.waits) == 0 {
		if c.pool.dialing == c {
			c.pool.dialing = nil
		}
		c.cancel()
	}
}

// taken are those who wait, and do so no more.
func (c *call) taken() []*exchange {
	all := c.waits
	c.waits = nil
	for _, x := range all {
		c.done(x)
	}
	return all
}

// shares reports whether a request goes on a connection that has others.
func (p *pool) shares(x *exchange) bool {
	switch {
	case p.http1, x.req.Upgrade != "" && (p.single || !extendable(&x.req)):
		return false
	case p.cluster.protocol == ProtocolAuto:
		return x.grpc || p.cluster.Attested()
	default:
		return p.cluster.protocol == ProtocolHTTP2
	}
}

// connect gives the exchange a connection to the endpoint, now or later; a new one where fresh is asked for.
func (p *pool) connect(x *exchange, fresh bool) {
	if p.shares(x) {
		p.share(x)
		return
	}
	for n := len(p.idle); n > 0 && !fresh; n = len(p.idle) {
		b := p.idle[n-1]
		if b.conn.Closed() { // the endpoint did so a moment ago
			p.idle = p.idle[:n-1]
			continue
		}
		if !p.cluster.balance.Acquire(upstream.Connections) {
			x.overload()
			return
		}
		p.idle, b.idle = p.idle[:n-1], false
		p.assign(x, b, false)
		return
	}
	p.dial(x, p.cluster.offers(false), func(c *call, raw net.Conn) error { return p.use(c, raw) })
}

// use gives a new connection that is not shared to the first who waits for it.
func (p *pool) use(c *call, raw net.Conn) error {
	b := &back1{pool: p, worker: p.worker}
	b.peer, _ = raw.(*link)
	conn, err := p.worker.open(raw, b)
	if err != nil {
		return err
	}
	b.conn, b.close = conn, conn.Close
	if b.peer != nil {
		b.peer.turned = b.refused
	}
	b.timer.Bind(conn)
	conn.OnClose(func() {
		p.worker.loop.Remove(&b.timer)
		if b.idle {
			p.idle = slices.DeleteFunc(p.idle, func(other *back1) bool { return other == b })
		}
		p.left(!b.idle)
	})
	all := c.taken()
	if len(all) == 0 {
		p.keep(b)
		return nil
	}
	p.worker.loop.Try(func() { p.assign(all[0], b, true) }, all[0].cut)
	for _, x := range all[1:] { // who wanted to share it
		p.worker.loop.Try(func() { p.connect(x, false) }, x.cut)
	}
	return nil
}

// share gives the exchange a stream of a connection that has others.
func (p *pool) share(x *exchange) {
	p.shared = slices.DeleteFunc(p.shared, func(b *back2) bool { return b.conn.Closed() })
	for _, b := range p.shared {
		if takes, said := b.h.Extended(); x.req.Upgrade != "" && !takes {
			if !said {
				b.wait(x)
			} else {
				p.single = true
				p.connect(x, false)
			}
			return
		}
		if b.h.CanOpen() {
			b.start(x, b.used)
			return
		}
	}
	if c := p.dialing; c != nil {
		if !c.add(x) {
			x.overload()
		}
		return
	}
	p.dialing = p.dial(x, p.cluster.offers(true), func(c *call, raw net.Conn) error {
		if p.dialing == c {
			p.dialing = nil
		}
		if l, ok := raw.(*link); ok && l.state.NegotiatedProtocol != "h2" {
			p.http1 = true
			return p.use(c, raw)
		}
		b, err := p.openShared(raw)
		if err != nil {
			return err
		}
		p.shared = append(p.shared, b)
		for _, x := range c.taken() {
			p.worker.loop.Try(func() {
				if x.req.Upgrade == "" && b.h.CanOpen() {
					b.start(x, false)
				} else {
					p.share(x)
				}
			}, x.cut)
		}
		return nil
	})
}

// dial connects to the endpoint, and has use take the connection.
func (p *pool) dial(x *exchange, protocols []string, use func(*call, net.Conn) error) *call {
	w := p.worker
	if !p.cluster.balance.Acquire(upstream.Connections) {
		if p.open == 0 {
			delete(w.pools, p.endpoint)
		}
		x.overload()
		return nil
	}
	p.open++
	ctx, cancel := context.WithCancel(w.side.ctx)
	c := &call{pool: p, cancel: cancel}
	if !c.add(x) {
		cancel()
		p.left(true)
		x.overload()
		return nil
	}
	if !w.side.spawn(func() {
		defer cancel()
		raw, err := p.cluster.connect(ctx, p.endpoint.Identity(), protocols...)
		if l, ok := raw.(*link); ok {
			w.loop.Prepare(l.conn.NetConn())
		}
		done := func() {
			if err == nil {
				err = use(c, raw)
			}
			if err == nil {
				return
			}
			if p.dialing == c {
				p.dialing = nil
			}
			p.left(true)
			for _, x := range c.taken() {
				w.loop.Try(func() { x.unreached(err) }, x.cut)
			}
		}
		if !w.loop.Do(done) && raw != nil {
			resetConn(raw)
		}
	}) {
		cancel()
		c.drop(x)
		p.left(true)
		x.lost(attest.CodeBackendUnreachable, http.StatusBadGateway, context.Canceled)
		return nil
	}
	return c
}

// open gives a connection to the loop.
func (w *worker) open(raw net.Conn, h loop.Handler) (conn *loop.Conn, err error) {
	if l, ok := raw.(*link); ok {
		if conn, err = l.open(w.loop); err == nil {
			conn.SetHandler(h)
		}
	} else {
		conn, err = w.loop.Open(raw, nil, h)
	}
	if err != nil {
		resetConn(raw)
		return nil, &attest.Error{Code: attest.CodeInternal, Check: "backend", Err: err}
	}
	return conn, nil
}

func (p *pool) assign(x *exchange, b *back1, fresh bool) {
	if b.start(x) != nil {
		p.keep(b)
		x.unsayable()
		return
	}
	x.connected(b, fresh, b.peer)
}

// keep keeps a connection for the next request.
func (p *pool) keep(b *back1) {
	if len(p.idle) >= keepIdle || p.worker.side.closing.Load() || b.conn.Closed() || p.endpoint.Removed() {
		b.conn.Close()
		return
	}
	p.idle, b.idle = append(p.idle, b), true
	p.cluster.balance.Release(upstream.Connections) // one that nobody uses keeps nobody from connecting
	p.worker.loop.Set(&b.timer, p.worker.loop.Now().Add(p.cluster.keep), b.close)
}

// retire lets the requests under way finish.
func (p *pool) retire() {
	idle := p.idle
	p.idle = nil
	for _, b := range idle {
		b.conn.Close()
	}
	for _, b := range p.shared {
		b.h.Shutdown()
		b.conn.Ready()
	}
}

// leave ends the connections that are left.
func (p *pool) leave() {
	shared := p.shared
	p.shared = nil
	for _, b := range shared {
		b.conn.Close()
	}
}

// overload answers a request that would be one too many for its cluster.
func (x *exchange) overload() {
	x.told.flags |= accesslog.UpstreamOverflow
	err := x.cluster.unavailable(upstream.ErrOverflow)
	x.lost(attest.CodeOf(err), http.StatusServiceUnavailable, err)
}
