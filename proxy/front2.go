package proxy

import (
	"net/http"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// How long nothing may come from a client with requests under way before it is asked for a sign of life, and how long it may
// take to give one.
const (
	silence = 30 * time.Second
	sign    = 15 * time.Second
)

// front2 is a client's connection that speaks HTTP/2.
type front2 struct {
	worker *worker
	link   *link
	conn   *loop.Conn
	h      *h2.Conn
	timer  loop.Timer
	final  loop.Timer // of ease
	heard  time.Time  // when something last came
	quiet  time.Time  // since when there has been no request
	greets bool       // no request has come yet
	eased  bool       // the first one is to be the last
	asked  bool       // for a sign of life
	free   []*stream2

	most    int // streams at once, since trimmed
	trimmed time.Time
}

func newFront2(w *worker, l *link) *front2 {
	return &front2{worker: w, link: l}
}

func (d *front2) opened(conn *loop.Conn) {
	w := d.worker
	d.conn = conn
	d.timer.Bind(conn)
	d.final.Bind(conn)
	d.h = h2.NewServer(h2.Limits{HeaderBytes: maxHeader, HeaderFields: maxFields, Streams: maxStreams, Connect: webSocket}, w.pool, serving{d})
	w.clients[d] = struct{}{}
	d.link.turned = d.refused
	conn.OnClose(func() {
		delete(w.clients, d)
		w.loop.Remove(&d.timer)
		w.loop.Remove(&d.final)
		for _, t := range d.free {
			t.x.forget()
		}
		d.link.ended()
	})
	conn.SetSource(d.fill)
	d.heard, d.quiet, d.trimmed, d.greets = w.loop.Now(), w.loop.Now(), w.loop.Now(), true
	d.tick()
	switch {
	case w.side.closing.Load():
		d.retire()
	case w.side.easing.Load():
		d.ease()
	}
	conn.Ready() // our settings
}

// retire lets the requests under way finish, and no more begin.
func (d *front2) retire() {
	d.h.Shutdown()
	if d.h.Streams() == 0 {
		d.h.Shutdown() // there is nothing that could be lost
	}
	d.conn.Ready()
}

// refused ends the connection of a client that is affirmed no more.
func (d *front2) refused(r *attest.Result) { d.link.goAway(d.conn, d.h, r) }

// goAway ends a connection of HTTP/2 whose peer is affirmed no more, with the code of why. A frame has its length, and a stream
// its end, so that nothing looks whole that is not. What was written and has not left is not sent after the refusal.
func (l *link) goAway(conn *loop.Conn, h *h2.Conn, r *attest.Result) {
	if conn.Buffered() > 0 {
		h.Abort(h2.NoError)
		l.cutOff(conn, r)
		return
	}
	h.AbortBecause(h2.InadequateSecurity, string(r.Code()))
	conn.Ready()
}

// ease says that no more requests are taken, and takes those that were sent before the client has heard of it.
func (d *front2) ease() {
	if d.greets { // clients take a connection that ends before its first request for one that failed
		d.eased = true
		return
	}
	d.h.Shutdown()
	d.conn.Ready()
	// Who does not answer gets no more requests in either.
	d.worker.loop.Set(&d.final, d.worker.loop.Now().Add(easeFor), func() {
		d.h.Shutdown()
		d.conn.Ready()
	})
}

// tick looks after a connection on which nothing happens.
func (d *front2) tick() {
	w := d.worker
	now := w.loop.Now()
	if !now.Before(d.trimmed.Add(silence)) {
		d.trimmed = now
		d.trim()
	}
	next := d.heard.Add(silence)
	if d.h.Streams() == 0 {
		limit := w.side.limits.KeepAlive
		if d.greets {
			limit = w.side.limits.Header
		}
		if next = d.quiet.Add(limit); !next.After(now) {
			d.retire()
			next = now.Add(sign)
			if d.greets || d.asked { // it had its time to go
				d.conn.Close()
				return
			}
			d.asked = true
		}
		if again := d.trimmed.Add(silence); len(d.free) > keepStreams && again.Before(next) {
			next = again
		}
	} else if !next.After(now) {
		if d.asked {
			d.End(errIdle)
			d.conn.Abort()
			return
		}
		d.asked = true
		d.h.Ping()
		d.conn.Ready()
		next = now.Add(sign)
	}
	w.loop.Set(&d.timer, next, d.tick)
}

// Data takes what the client has sent.
func (d *front2) Data(p []byte) {
	d.heard, d.asked = d.worker.loop.Now(), false
	_ = d.h.Feed(d.worker.clock(), p) // fill sees to the end
	d.conn.Ready()
}

// fill writes what the streams have to say.
func (d *front2) fill() { fill(d.conn, d.h) }

// fill moves what a connection of HTTP/2 has to say to the one below, and closes that where it is over.
func fill(conn *loop.Conn, h *h2.Conn) {
	if conn.Full() && h.Err() == nil { // a peer that does not read
		return
	}
	for out := h.Output(); len(out) > 0; out = h.Output() {
		room := conn.Write(out)
		h.Sent(len(out))
		if !room {
			return
		}
	}
	if h.Done() {
		conn.Linger()
	}
}

// Drained lets the streams go on.
func (d *front2) Drained() { d.conn.Ready() }

// End takes the end of the connection. A client that sends no more is taken for one that has gone.
func (d *front2) End(error) {
	d.h.Abort(h2.NoError)
	d.conn.Close()
}

// serving is what a front2 hears of its streams.
type serving struct{ *front2 }

// Request takes up a request.
func (d serving) Request(s *h2.Stream, r *message.Request, end bool) {
	t := d.stream()
	d.most = max(d.most, d.h.Streams())
	t.s, s.User = s, t
	if d.greets = false; d.eased {
		d.eased = false
		d.ease()
	}
	fields := append(t.x.req.Fields[:0], r.Fields...)
	t.x.req = *r
	t.x.req.Fields = fields
	t.ended = end
	if r.Upgrade != "" {
		fromExtended(&t.x.req)
		t.inEnd = end
	}
	if end && r.Length == message.NoBody {
		switch r.Method {
		case http.MethodPost, http.MethodPut, http.MethodPatch: // whose servers want to be told that there is no body
			t.x.req.Length = 0
		}
	}
	t.x.begin()
}

func (d serving) Data(s *h2.Stream, p []byte, end bool) {
	t, ok := s.User.(*stream2)
	if !ok {
		return
	}
	t.ended = end
	switch {
	case !t.x.open: // an answer has been given already
		s.Consumed(len(p))
		return
	case t.held:
		t.in, t.inEnd = append(t.in, p...), end
		return
	}
	t.x.requestBody(p, end)
	t.consumed(len(p))
}

func (d serving) Trailers(s *h2.Stream, f message.Fields) {
	t, ok := s.User.(*stream2)
	if !ok {
		return
	}
	t.ended = true
	switch {
	case !t.x.open:
	case t.held:
		t.inEnd, t.inTrailers = true, slices.Clone(f)
	default:
		t.x.requestEnd(f)
	}
}

func (d serving) Writable(s *h2.Stream) {
	if t, ok := s.User.(*stream2); ok {
		t.flush(t.x.clientReady)
	}
}

func (d serving) Closed(s *h2.Stream, why h2.Cause) {
	t, ok := s.User.(*stream2)
	if !ok {
		return
	}
	d.quiet, d.asked = d.worker.loop.Now(), false
	if d.h.Streams() == 0 && !d.conn.Closed() { // the timer may be set for later than the limit of an idle connection
		d.worker.loop.Set(&d.timer, d.quiet.Add(min(d.worker.side.limits.KeepAlive, silence)), d.tick)
	}
	t.s, s.User = nil, nil
	if why.By == h2.Complete && t.x.open && t.x.tunnel { // the service has not taken all of it yet
		if t.held {
			t.hold(false)
		}
		return
	}
	t.x.clientGone()
	d.worker.loop.Stop(&t.x.stall)
	clear(t.x.req.Fields)
	t.x.req = message.Request{Fields: t.x.req.Fields[:0]}
	t.sender, t.coming = sender{}, coming{}
	if d.conn.Closed() {
		t.x.forget()
	} else {
		d.free = append(d.free, t)
	}
}

// GoAway needs no answer: a client closes when it likes.
func (d serving) GoAway(*h2.Conn, uint32, h2.ErrCode) {}

// keepStreams is how many streams that have ended a connection keeps for those to come, beyond those that it has had at once lately.
const keepStreams = 8

// trim lets go of what more there is, each time that a while has passed.
func (d *front2) trim() {
	keep := max(keepStreams, d.most-d.h.Streams())
	d.most = d.h.Streams()
	if len(d.free) <= keep {
		return
	}
	for len(d.free) > keep {
		d.stream().x.forget()
	}
	d.free = slices.Clone(d.free) // and of the room for them
}

func (d *front2) stream() *stream2 {
	if n := len(d.free); n > 0 {
		t := d.free[n-1]
		d.free = d.free[:n-1]
		t.x.client = t
		return t
	}
	t := &stream2{front: d}
	t.x.worker, t.x.link, t.x.client, t.x.log = d.worker, d.link, t, d.worker.side.log
	t.x.bind(d.conn)
	return t
}

// stream2 is one request of a client, with its exchange.
type stream2 struct {
	sender
	coming
	front *front2
	x     exchange
}

// coming is what arrives of a request.
type coming struct {
	ended      bool   // all of it has
	held       bool   // its body has to wait
	in         []byte // which it does here, within the window of the stream
	inEnd      bool
	inTrailers message.Fields
	owed       int // bytes by which the window opens when it need not wait any more
}

// consumed opens the window for n bytes that were passed on, or does so when they have been.
func (t *stream2) consumed(n int) {
	switch {
	case t.held:
		t.owed += n
	case t.s != nil && n > 0:
		t.s.Consumed(n)
		t.front.conn.Ready()
	}
}

func (t *stream2) hold(held bool) {
	if t.held == held {
		return
	}
	t.held = held
	if held {
		return
	}
	n, in, end, trailers := t.owed+len(t.in), t.in, t.inEnd, t.inTrailers
	t.owed, t.in, t.inEnd, t.inTrailers = 0, nil, false, nil
	if len(trailers) > 0 {
		t.x.requestBody(in, false)
		t.x.requestEnd(trailers)
	} else {
		t.x.requestBody(in, end)
	}
	t.consumed(n)
}

func (t *stream2) hasEnded() bool { return t.ended }

func (t *stream2) moved() time.Time { return t.sender.moved(t.front.conn) }

func (t *stream2) respond(r *message.Response, last bool) error {
	if t.s == nil {
		return nil
	}
	err := t.s.Respond(r, last)
	if err == nil && last {
		t.over()
	}
	t.front.conn.Ready()
	return err
}

func (t *stream2) body(p []byte, last bool) bool {
	all := t.send(t.front.worker.loop.Now(), p, last)
	switch {
	case all && last:
		t.over()
	case last:
		t.tail()
	}
	t.front.conn.Ready()
	return all
}

func (t *stream2) finish(trailers message.Fields) {
	if t.end(trailers) {
		t.over()
	} else {
		t.tail()
	}
	t.front.conn.Ready()
}

// flush goes on with a response whose client was slower. more asks for the rest.
func (t *stream2) flush(more func()) {
	switch all, end := t.again(t.front.worker.loop.Now()); {
	case all && end:
		t.front.worker.loop.Stop(&t.x.stall) // a tunnel may go on in the other direction
		t.over()
	case all:
		more()
	}
}

// tail bounds how long the client may take for the end of a response, which nothing waits for any more.
func (t *stream2) tail() {
	w := t.front.worker
	if d := w.side.limits.Stall; d > 0 && !t.x.grpc && t.s != nil {
		w.loop.Set(&t.x.stall, later(w.loop.Now(), t.moved()).Add(d), t.late)
	}
}

// late resets a stream whose client does not take the end.
func (t *stream2) late() {
	w := t.front.worker
	if at := t.moved().Add(w.side.limits.Stall); at.After(w.loop.Now()) {
		w.loop.Set(&t.x.stall, at, t.late)
	} else {
		t.abort()
	}
}

// over tells a client that has been answered to send no more of its request.
func (t *stream2) over() {
	if t.s != nil && !t.ended && !(t.x.tunnel && t.x.open) {
		t.s.Reset(h2.NoError)
	}
}

// leave lets what the client has not taken yet go out. Where the service has gone, it need not say more.
func (t *stream2) leave() {
	switch {
	case t.s == nil:
		t.x.forget()
	case len(t.out) > 0:
		t.tail()
	default:
		t.over()
		t.front.conn.Ready()
	}
}

func (t *stream2) abort() {
	if t.s != nil {
		code := h2.InternalError
		if t.x.tunnel {
			code = h2.Cancel // RFC 8441 section 5
		}
		t.s.Reset(code)
		t.front.conn.Ready()
	}
}
