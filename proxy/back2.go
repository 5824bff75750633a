package proxy

import (
	"errors"
	"io"
	"net"
	"net/http"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// back2 is a connection to the service that speaks HTTP/2: many requests share it.
type back2 struct {
	pool   *pool
	worker *worker
	conn   *loop.Conn
	h      *h2.Conn
	timer  loop.Timer
	peer   *link // nil where it is plain
	used   bool
	why    error // of the end of the connection
	free   []*ask2

	greeting *call // who waits for what the service says that it takes; nil for nobody
}

func (p *pool) openShared(raw net.Conn) (*back2, error) {
	w := p.worker
	b := &back2{pool: p, worker: w}
	b.peer, _ = raw.(*link)
	conn, err := w.open(raw, b)
	if err != nil {
		return nil, err
	}
	b.conn = conn
	b.timer.Bind(conn)
	b.h = h2.NewClient(h2.Limits{
		HeaderBytes: maxBackHeader, HeaderFields: 2 * maxFields, Continuations: maxBackFrames, Informational: maxHints,
		// What clients who do not read keep unread must not use up the window of all others on the connection.
		Streams: maxStreams, StreamWindow: backWindow, ConnWindow: maxStreams * backWindow,
	}, w.pool, asking{b})
	conn.SetSource(func() { fill(conn, b.h) })
	if b.peer != nil {
		b.peer.turned = b.refused
	}
	conn.OnClose(func() {
		w.loop.Remove(&b.timer)
		p.left(true)
		b.greeted(func(x *exchange) { x.unreached(b.ended()) })
	})
	b.rest()
	conn.Ready() // our settings
	return b, nil
}

// rest lets a connection go that has nothing to do.
func (b *back2) rest() {
	if b.h.Streams() == 0 {
		b.worker.loop.Set(&b.timer, b.worker.loop.Now().Add(b.pool.cluster.keep), func() {
			if b.h.Streams() == 0 {
				b.h.Shutdown()
				b.conn.Close()
			}
		})
	}
}

// start sends a request.
func (b *back2) start(x *exchange, used bool) {
	x.req.Scheme = b.pool.cluster.scheme()
	none := x.bodiless()
	req := &x.req
	if req.Upgrade != "" {
		req, none = extended(*req), false
	}
	s, err := b.h.Request(req, none)
	if err != nil {
		x.unsayable()
		return
	}
	a := b.ask()
	a.s, a.x, s.User = s, x, a
	b.used = true
	b.worker.loop.Stop(&b.timer)
	b.conn.Ready()
	x.connected(a, !used, b.peer)
}

func (b *back2) ask() *ask2 {
	if n := len(b.free); n > 0 {
		a := b.free[n-1]
		b.free = b.free[:n-1]
		return a
	}
	return &ask2{back: b}
}

// refused ends a connection to an endpoint that is affirmed no more, and all that is under way on it.
func (b *back2) refused(r *attest.Result) {
	p := b.pool
	p.shared = slices.DeleteFunc(p.shared, func(other *back2) bool { return other == b })
	if b.why == nil {
		b.why = r.Err()
	}
	b.peer.goAway(b.conn, b.h, r)
}

// Data takes what the service has sent.
func (b *back2) Data(p []byte) {
	if err := b.h.Feed(b.worker.clock(), p); err != nil {
		b.why = err
	}
	b.conn.Ready()
	if b.greeting != nil {
		b.greet()
	}
}

// wait has an upgrade wait for what the service says that it takes.
func (b *back2) wait(x *exchange) {
	if b.greeting == nil {
		b.greeting = &call{pool: b.pool, cancel: func() {}}
	}
	if !b.greeting.add(x) {
		x.overload()
	}
}

// greet goes on with the upgrades that have waited for that.
func (b *back2) greet() {
	takes, said := b.h.Extended()
	if !said || b.why != nil {
		return
	}
	b.greeted(func(x *exchange) {
		if takes && b.h.Streams() == 0 && !b.h.CanOpen() { // nor would another connection have room, or the one after that
			x.serviceGone(errRefusedStream, false)
			return
		}
		b.pool.connect(x, false)
	})
}

func (b *back2) greeted(goOn func(*exchange)) {
	if c := b.greeting; c != nil {
		b.greeting = nil
		for _, x := range c.taken() {
			b.worker.loop.Try(func() { goOn(x) }, x.cut)
		}
	}
}

// ended is why the connection has.
func (b *back2) ended() error {
	if b.why == nil {
		return errStream
	}
	return b.why
}

// Drained lets the streams go on.
func (b *back2) Drained() { b.conn.Ready() }

// End takes the end of the connection, and of all that is under way on it.
func (b *back2) End(err error) {
	if b.why = err; err == nil {
		b.why = io.ErrUnexpectedEOF
	}
	b.h.Abort(h2.NoError)
	b.conn.Close()
}

// asking is what a back2 hears of its streams.
type asking struct{ *back2 }

func (b asking) Response(s *h2.Stream, r *message.Response, end bool) {
	x := b.exchange(s, end)
	switch {
	case x == nil:
	case x.req.Upgrade == "" || r.Status/100 != 2:
		x.response(r, end)
	case end: // a tunnel that has ended before it has begun
		x.lost(attest.CodeBackendFailed, http.StatusBadGateway, errNoUpgrade)
	default:
		a := s.User.(*ask2)
		switching(&x.req, r)
		x.response(r, false)
		if a.x == x {
			x.carry(a)
		}
	}
}

// exchange is what the stream is for, the last time where end says so.
func (b asking) exchange(s *h2.Stream, end bool) *exchange {
	a, ok := s.User.(*ask2)
	if !ok {
		return nil
	}
	x := a.x
	if end && (x == nil || !x.tunnel) {
		a.x = nil
		if len(a.out) > 0 { // the service has answered without the rest of the request, which the stream would be kept for
			s.Reset(h2.Cancel)
		}
	}
	return x
}

func (b asking) Data(s *h2.Stream, p []byte, end bool) {
	a, _ := s.User.(*ask2)
	x := b.exchange(s, end)
	if x == nil {
		s.Consumed(len(p))
		return
	}
	x.responseBody(p, end)
	switch {
	case a.s == nil:
	case a.held:
		a.owed += len(p)
	default:
		a.s.Consumed(len(p))
	}
}

func (b asking) Trailers(s *h2.Stream, f message.Fields) {
	if x := b.exchange(s, true); x != nil {
		x.responseEnd(f)
	}
}

func (b asking) Writable(s *h2.Stream) {
	if a, ok := s.User.(*ask2); ok {
		if all, end := a.again(b.worker.loop.Now()); all && !end && a.x != nil {
			a.x.serviceReady()
		}
	}
}

var (
	errStream        = errors.New("the service broke the call off")
	errRefusedStream = errors.New("the service refused the call")
)

func (b asking) Closed(s *h2.Stream, why h2.Cause) {
	a, ok := s.User.(*ask2)
	if !ok {
		return
	}
	x := a.x
	s.User = nil
	*a = ask2{back: b.back2, sender: sender{out: a.out[:0]}}
	if len(b.free) < keepStreams*4 {
		b.free = append(b.free, a)
	}
	b.rest()
	switch {
	case x == nil:
		return
	case why.By == h2.Complete: // of a tunnel
		x.as = nil
		x.serviceReady()
		return
	}
	err := b.ended()
	if why.Code == h2.RefusedStream {
		err, x.fresh = errRefusedStream, false // it was not processed, however new the connection is
	}
	x.serviceGone(err, false)
}

// GoAway needs no more than that no request is given to the connection, which it sees to itself.
func (b asking) GoAway(*h2.Conn, uint32, h2.ErrCode) {}

// ask2 is one request on a connection to the service.
type ask2 struct {
	sender
	back *back2
	x    *exchange // nil once it has been answered, or does not care any more
	held bool      // the response's body has to wait
	owed int       // bytes by which the window opens when it need not
}

func (a *ask2) body(p []byte, last bool) bool {
	all := a.send(a.back.worker.loop.Now(), p, last)
	a.back.conn.Ready()
	return all
}

func (a *ask2) finish(trailers message.Fields) {
	a.end(trailers)
	a.back.conn.Ready()
}

func (a *ask2) abort() {
	a.x = nil
	if a.s != nil {
		a.s.Reset(h2.Cancel)
		a.back.conn.Ready()
	}
}

func (a *ask2) moved() time.Time { return a.sender.moved(a.back.conn) }

func (a *ask2) leave() { a.x = nil }

func (a *ask2) serve(x *exchange) {
	if a.x != nil { // or the response is whole
		a.x = x
	}
}

func (a *ask2) hold(held bool) {
	a.held = held
	if !held && a.owed > 0 && a.s != nil {
		n := a.owed
		a.owed = 0
		a.s.Consumed(n)
		a.back.conn.Ready()
	}
}
