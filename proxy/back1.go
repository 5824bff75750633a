package proxy

import (
	"errors"
	"io"

	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// back1 is a connection to the service that speaks HTTP/1.1: one request after the other.
type back1 struct {
	worker   *worker
	conn     *loop.Conn
	exchange *exchange // nil while idle
	timer    loop.Timer

	method   string
	chunked  bool // the request's body
	written  bool // all of the request is
	response message.Response
	scan     h1.Scan
	scanning bool
	body1    h1.Body
	inBody   bool
	persists bool
	rest     []byte // of a head that is not whole
}

// start sends the head of a request.
func (b *back1) start(x *exchange) error {
	w := b.worker
	out, meta, err := h1.AppendRequest(w.out[:0], &x.req, false)
	if err != nil {
		return err
	}
	w.out = out[:0]
	w.loop.Stop(&b.timer)
	b.exchange, b.method, b.chunked, b.written, b.inBody = x, x.req.Method, meta.Body == h1.Chunked, false, false
	b.conn.Write(out)
	return nil
}

func (b *back1) body(p []byte) bool {
	if !b.chunked {
		return b.conn.Write(p)
	}
	w := b.worker
	w.out = h1.AppendChunkSize(w.out[:0], len(p))
	b.conn.Write(w.out)
	b.conn.Write(p)
	return b.conn.Write(chunkEnd)
}

var chunkEnd = []byte(h1.ChunkEnd)

func (b *back1) finish(trailers message.Fields) {
	b.written = true
	if !b.chunked {
		return
	}
	out, err := h1.AppendLastChunk(b.worker.out[:0], trailers)
	if err != nil { // a trailer that can't be one does not keep the body from ending
		out, _ = h1.AppendLastChunk(b.worker.out[:0], nil)
	}
	b.worker.out = out[:0]
	b.conn.Write(out)
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
	if len(payload) > 0 {
		x.responseBody(payload)
	}
	if done {
		b.done(x, n == len(p))
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
		x.response(r)
		return meta.Size, nil
	}
	b.persists = meta.Persistent
	x.response(r)
	switch {
	case b.exchange != x: // it was refused
	case r.Status == 101:
		b.switchOver(x, p[meta.Size:])
		return len(p), nil
	case meta.Body == 0:
		b.done(x, meta.Size == len(p))
	default:
		b.inBody = true
		b.body1.Start(meta.Body, limits)
	}
	return meta.Size, nil
}

// done ends a response that is whole. all is whether nothing came behind it: what does belongs to no request.
func (b *back1) done(x *exchange, all bool) {
	b.exchange, b.inBody = nil, false
	trailers := b.body1.Trailers
	keep := b.persists && b.written && all
	if keep {
		b.conn.Resume()
		b.worker.keep(b)
	} else {
		b.conn.Close()
	}
	x.responseEnd(trailers)
}

// switchOver joins the two connections after an upgrade.
func (b *back1) switchOver(x *exchange, more []byte) {
	d, ok := x.client.(*front1)
	if !ok {
		x.cut()
		return
	}
	b.exchange = nil
	x.close()
	d.switchOver(b.conn, more)
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
	b.worker.loop.Stop(&b.timer)
	if x == nil {
		b.conn.Close()
		return
	}
	if err == nil && b.inBody && b.body1.End() == nil {
		b.exchange = x
		b.persists = false
		b.done(x, true)
		return
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	seen := b.inBody || len(b.rest) > 0
	b.conn.Abort()
	x.serviceGone(err, seen)
}
