package proxy

import (
	"errors"
	"io"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// back1 is a connection to the service that speaks HTTP/1.1: one request after the other.
type back1 struct {
	pool     *pool
	worker   *worker
	conn     *loop.Conn
	peer     *link     // nil where it is plain
	idle     bool      // in the pool
	exchange *exchange // nil while idle
	timer    loop.Timer
	close    func() // what that calls

	framer1  // of the request's body
	method   string
	accept   string // what a 101 has to say, where the proxy has made the handshake
	written  bool   // all of the request is
	response message.Response
	hints    int // informational ones before it
	scan     h1.Scan
	scanning bool
	body1    h1.Body
	inBody   bool
	persists bool
	rest     []byte // of a head that is not whole
}

var errHints = errors.New("too many informational answers")

// start sends the head of a request.
func (b *back1) start(x *exchange) error {
	w := b.worker
	req := &x.req
	b.accept = ""
	if req.Version == message.HTTP2 {
		req.Fields = joinCookies(req.Fields)
		if req.Upgrade != "" {
			req, b.accept = w.withKey(*req)
		}
	}
	out, meta, err := h1.AppendRequest(w.out[:0], req, false)
	if err != nil {
		return err
	}
	w.out = out[:0]
	w.loop.Stop(&b.timer)
	b.exchange, b.method, b.chunked, b.written, b.inBody, b.hints = x, x.req.Method, meta.Body == h1.Chunked, meta.Body == 0, false, 0
	b.conn.Write(out)
	return nil
}

// joinCookies makes one field of the crumbs that a cookie may come in (RFC 9113 section 8.2.3).
func joinCookies(f message.Fields) message.Fields {
	first := -1
	for i := 0; i < len(f); i++ {
		switch {
		case !message.Same(f[i].Name, "Cookie"):
		case first < 0:
			first = i
		default:
			f[first].Value += "; " + f[i].Value
			f = append(f[:i], f[i+1:]...)
			i--
		}
	}
	return f
}

func (b *back1) body(p []byte, last bool) bool {
	more := b.send(b.worker, b.conn, p)
	if last {
		b.finish(nil)
	}
	return more
}

func (b *back1) finish(trailers message.Fields) {
	b.written = true
	if b.end(b.worker, b.conn, trailers) != nil { // a trailer that can't be one does not keep the body from ending
		_ = b.end(b.worker, b.conn, nil)
	}
}

// abort ends a connection whose exchange is over before its time.
func (b *back1) abort() {
	b.exchange = nil
	b.conn.Abort()
}

func (b *back1) hold(held bool) {
	if held {
		b.conn.Pause()
	} else {
		b.conn.Resume()
	}
}

func (b *back1) moved() time.Time { return b.conn.Moved() }

func (b *back1) leave() {} // it has handed its connection over by then

func (b *back1) serve(x *exchange) {
	if b.exchange != nil { // or it serves others already
		b.exchange = x
	}
}

// Data takes what the service has sent.
func (b *back1) Data(p []byte) {
	if len(b.rest) > 0 {
		b.rest = append(b.rest, p...)
		p = b.rest
	}
	for len(p) > 0 {
		x := b.exchange
		if x == nil { // nobody has asked for it
			b.conn.Abort()
			return
		}
		n, err := b.step(x, p)
		switch {
		case b.conn.Closed():
			return
		case errors.Is(err, h1.ErrMore):
			b.rest = append(b.rest[:0], p...) // it may overlap, towards the front
			return
		case err != nil:
			b.exchange = nil
			b.conn.Abort()
			x.serviceGone(err, true)
			return
		}
		p = p[n:]
	}
	b.rest = nil
}

// step takes one piece of a response off p.
func (b *back1) step(x *exchange, p []byte) (int, error) {
	if !b.inBody {
		return b.head(x, p)
	}
	payload, n, done, err := b.body1.Feed(p)
	if err != nil {
		return n, err
	}
	if done && len(b.body1.Trailers) == 0 {
		b.release(n == len(p))
		x.responseBody(payload, true)
		return n, nil
	}
	if len(payload) > 0 {
		x.responseBody(payload, false)
	}
	if b.exchange == x && done {
		trailers := b.body1.Trailers
		b.release(n == len(p))
		x.responseEnd(trailers)
	}
	return n, nil
}

func (b *back1) head(x *exchange, p []byte) (int, error) {
	limits := h1.Limits{Head: maxBackHeader, Line: maxHeader, Fields: maxFields}
	if b.scanning && !b.scan.Ready(p, limits) {
		return 0, h1.ErrMore
	}
	meta, err := h1.ParseResponse(p, limits, b.method, &b.response)
	if errors.Is(err, h1.ErrMore) {
		b.scanning = true
		return 0, err
	}
	b.scanning, b.scan = false, h1.Scan{}
	if err != nil {
		return 0, err
	}
	r := &b.response
	if r.Informational() {
		if b.hints++; b.hints > maxHints { // nothing holds them up for a client that does not read
			return 0, errHints
		}
		x.response(r, false)
		return meta.Size, nil
	}
	b.persists = meta.Persistent
	switches := r.Status == 101
	if switches && b.accept != "" && !accepted(r, b.accept) {
		return 0, errNotAccepted
	}
	if meta.Body == 0 && !switches {
		b.release(meta.Size == len(p))
		x.response(r, true)
		return meta.Size, nil
	}
	x.response(r, false)
	switch {
	case b.exchange == nil: // it was refused
	case switches:
		b.switchOver(x, p[meta.Size:])
		return len(p), nil
	default:
		b.inBody = true
		b.body1.Start(meta.Body, limits)
		b.body1.Drop(meta.Named)
	}
	return meta.Size, nil
}

// release ends the use of the connection for a response that is whole: the next request may have it right away. alone is
// whether nothing came behind the response: what does belongs to no request.
func (b *back1) release(alone bool) {
	b.exchange, b.inBody = nil, false
	switch {
	case b.conn.Buffered() > 0: // the service has answered without the rest of the request, behind which another would wait
		b.conn.Abort()
	case b.persists && b.written && alone:
		b.conn.Resume()
		b.pool.keep(b)
	default:
		b.conn.Close()
	}
}

// switchOver joins the two connections after an upgrade.
func (b *back1) switchOver(x *exchange, more []byte) {
	b.exchange = nil
	if b.peer != nil {
		b.peer.turned = nil
	}
	d, ok := x.client.(*front1)
	if !ok {
		t := &raw1{conn: b.conn, x: x}
		b.conn.SetHandler(t)
		if x.carry(t); len(more) > 0 {
			t.Data(more)
		}
		return
	}
	x.close()
	x.report()
	d.switchOver(b.conn, more)
}

// refused ends a connection to an endpoint that is affirmed no more. No request is given to it from now on; the one that it is
// for hears of the end.
func (b *back1) refused(r *attest.Result) {
	p := b.pool
	p.idle = slices.DeleteFunc(p.idle, func(other *back1) bool { return other == b })
	if b.exchange == nil && !b.peer.explains() {
		b.conn.Close()
		return
	}
	b.peer.cutOff(b.conn, r)
}

// Drained lets the request's body go on.
func (b *back1) Drained() {
	if b.exchange != nil {
		b.exchange.serviceReady()
	}
}

// End takes the end of the connection.
func (b *back1) End(err error) {
	x := b.exchange
	b.exchange = nil
	if x == nil {
		b.conn.Close()
		return
	}
	if err == nil && b.inBody && b.body1.End() == nil {
		b.persists = false
		b.release(true)
		x.responseEnd(nil)
		return
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	seen := b.inBody || len(b.rest) > 0 || b.hints > 0
	b.conn.Abort()
	x.serviceGone(err, seen)
}
