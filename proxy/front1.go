package proxy

import (
	"errors"
	"log/slog"
	"net/http"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// maxAhead bounds what a client may send ahead of the response that it is to wait for.
const maxAhead = 64 << 10

// front1 is a client's connection that speaks HTTP/1.1.
type front1 struct {
	worker *worker
	link   *link
	log    *slog.Logger
	conn   *loop.Conn
	x      exchange
	timer  loop.Timer
	slowly func() // slow, which that calls

	framer1         // of the response's body
	rest     []byte // what arrived and could not be taken yet
	taking   bool   // it is being looked at
	scan     h1.Scan
	scanning bool
	begun    bool // some of a head is there
	body1    h1.Body
	inBody   bool // of a request
	busy     bool // with an exchange
	persists bool
	held     bool // the request's body has to wait
	last     bool // no request after this one
}

func newFront1(w *worker, l *link, logger *slog.Logger) *front1 {
	d := &front1{worker: w, link: l, log: logger}
	d.slowly = d.slow
	d.x.worker, d.x.link, d.x.client, d.x.log = w, l, d, w.side.log
	return d
}

func (d *front1) opened(conn *loop.Conn) {
	d.conn = conn
	d.timer.Bind(conn)
	d.x.bind(conn)
	d.worker.clients[d] = struct{}{}
	d.link.turned = d.refused
	conn.OnClose(func() {
		delete(d.worker.clients, d)
		d.worker.loop.Remove(&d.timer)
		d.x.forget()
		d.link.ended()
	})
	d.worker.loop.Set(&d.timer, d.worker.loop.Now().Add(d.worker.side.limits.Header), d.slowly)
	switch {
	case d.worker.side.closing.Load():
		d.retire()
	case d.worker.side.easing.Load():
		d.ease()
	}
}

// retire lets the request under way finish, and no more begin.
func (d *front1) retire() {
	d.last = true
	if !d.busy && !d.begun {
		d.conn.Close()
	}
}

// refused ends the connection of a client that is affirmed no more: between requests with a word, in the middle of one without,
// since half of an answer must not look whole.
func (d *front1) refused(r *attest.Result) {
	idle := !d.busy && !d.begun && d.conn.Buffered() == 0
	if d.last = true; d.busy {
		d.x.clientGone()
	}
	if idle && !d.link.explains() {
		d.conn.Close()
		return
	}
	d.link.cutOff(d.conn, r)
}

// easeFor is how long a client that is to go elsewhere keeps a connection without a request.
const easeFor = 5 * time.Second

// ease says with the next response that it is the last one. Closing an idle connection at once could meet a request.
func (d *front1) ease() {
	d.last = true
	if !d.busy && !d.begun {
		d.worker.loop.Set(&d.timer, d.worker.loop.Now().Add(easeFor), d.slowly)
	}
}

// slow ends a connection whose next head takes too long.
func (d *front1) slow() {
	if d.begun {
		d.refuse(http.StatusRequestTimeout)
		return
	}
	d.conn.Close()
}

// Data takes what the client has sent.
func (d *front1) Data(p []byte) {
	if len(d.rest) > 0 {
		d.rest = append(d.rest, p...)
		p = d.rest
	}
	d.take(p)
}

// take takes p, which may be rest, as far as it can be.
func (d *front1) take(p []byte) {
	d.taking = true
	for len(p) > 0 && !d.conn.Closed() {
		n, err := d.step(p)
		p = p[n:]
		if err != nil {
			break
		}
	}
	d.taking = false
	if d.conn.Closed() || len(p) == 0 {
		d.rest = nil
		return
	}
	d.rest = append(d.rest[:0], p...) // it may overlap, towards the front
	if (d.busy || d.conn.Full()) && len(d.rest) > maxAhead {
		d.conn.Pause()
	}
}

var errWait = errors.New("what follows has to wait")

// step takes one piece of a request off p.
func (d *front1) step(p []byte) (int, error) {
	switch {
	case d.inBody && d.held, !d.inBody && (d.busy || d.conn.Full()): // who does not read answers need not ask
		return 0, errWait
	case d.inBody:
		return d.bodyStep(p)
	}
	w := d.worker
	limits := h1.Limits{Head: maxHeader, Fields: maxFields}
	if !d.begun {
		d.begun = true
		w.loop.Set(&d.timer, w.loop.Now().Add(w.side.limits.Header), d.slowly)
	}
	if d.scanning && !d.scan.Ready(p, limits) {
		return 0, errWait
	}
	meta, err := h1.ParseRequest(p, limits, &d.x.req)
	if err == h1.ErrPreface && d.link.state.NegotiatedProtocol == "" {
		d.switchTo2(p)
		return len(p), nil
	}
	if errors.Is(err, h1.ErrMore) {
		d.scanning = true
		return 0, errWait
	}
	d.scanning, d.scan = false, h1.Scan{}
	if err != nil {
		status := http.StatusBadRequest
		var coded h1.Error
		if errors.As(err, &coded) {
			status = coded.Status
		}
		d.refuse(status)
		return 0, errWait
	}
	w.loop.Stop(&d.timer)
	// What comes behind a CONNECT, which is refused, was meant for a tunnel.
	d.persists = meta.Persistent && d.x.req.Method != http.MethodConnect
	d.busy, d.begun, d.held = true, false, false
	if meta.Body != 0 {
		d.inBody = true
		d.body1.Start(meta.Body, limits)
		d.body1.Drop(meta.Named)
	}
	d.x.begin()
	return meta.Size, nil
}

func (d *front1) bodyStep(p []byte) (int, error) {
	payload, n, done, err := d.body1.Feed(p)
	if err != nil {
		d.persists = false
		d.inBody = false
		if d.x.open {
			d.x.broken()
		}
		return n, err
	}
	if done {
		d.inBody = false
	}
	last := done && len(d.body1.Trailers) == 0
	if d.x.open {
		d.x.requestBody(payload, last)
	}
	if done && !last && d.x.open {
		d.x.requestEnd(d.body1.Trailers)
	}
	return n, nil
}

// switchTo2 goes on in HTTP/2, where the handshake left the protocol open and the client has begun like that.
func (d *front1) switchTo2(p []byte) {
	delete(d.worker.clients, d)
	d.worker.loop.Remove(&d.timer)
	h := newFront2(d.worker, d.link)
	d.conn.SetHandler(h)
	h.opened(d.conn)
	h.Data(p)
}

// refuse answers what is no request, and ends the connection: where the next one begins cannot be known.
func (d *front1) refuse(status int) {
	d.worker.loop.Stop(&d.timer)
	d.x.report() // of the one before, whose end the client is being given
	d.x.req = message.Request{Method: http.MethodGet, Version: message.HTTP11, Fields: d.x.req.Fields[:0]}
	d.persists, d.busy, d.begun = false, true, false
	d.x.open = true
	d.x.reset()
	d.x.account()
	d.x.told.method, d.x.told.flags = "", accesslog.DownstreamProtocolError
	d.x.reply(status, "", lowerStatus(status))
}

func lowerStatus(status int) string {
	switch status {
	case http.StatusRequestTimeout:
		return "the request took too long"
	case http.StatusRequestHeaderFieldsTooLarge, http.StatusRequestURITooLong:
		return "the head of the request is too large"
	case http.StatusNotImplemented, http.StatusHTTPVersionNotSupported:
		return "not spoken here"
	default:
		return "bad request"
	}
}

func (d *front1) respond(r *message.Response, last bool) error {
	w := d.worker
	if _, announced := r.Fields.Get("Trailer"); announced && !last && !r.Bodiless(d.x.req.Method) {
		r.Length = message.Unknown // a body of known length has no trailers in HTTP/1.1
	}
	keep := d.persists && !d.last && (d.hasEnded() || r.Status < 200)
	out, meta, err := h1.AppendResponse(w.out[:0], r, h1.Reply{Method: d.x.req.Method, Version: d.x.req.Version, Keep: keep})
	if err != nil {
		return err
	}
	w.out = out[:0]
	if r.Status >= 200 {
		d.persists, d.chunked = meta.Persistent, meta.Body == h1.Chunked
	}
	d.conn.Write(out)
	if last {
		d.done()
	}
	return nil
}

func (d *front1) body(p []byte, last bool) bool {
	more := d.send(d.worker, d.conn, p)
	if last {
		d.finish(nil)
	}
	return more
}

// finish ends a response, and goes on with the next request.
func (d *front1) finish(trailers message.Fields) {
	if d.end(d.worker, d.conn, trailers) != nil {
		d.conn.Abort()
		return
	}
	d.done()
}

func (d *front1) done() {
	w := d.worker
	d.busy = false
	switch {
	case d.conn.Closed():
		return
	case !d.persists || d.last && w.side.closing.Load():
		d.conn.Linger()
		return
	}
	idle := w.side.limits.KeepAlive
	if d.last { // the client could not know
		idle = min(idle, easeFor)
	}
	w.loop.Set(&d.timer, w.loop.Now().Add(idle), d.slowly)
	d.resume()
}

// resume goes on with what had to wait.
func (d *front1) resume() {
	d.conn.Resume()
	if !d.taking && len(d.rest) > 0 {
		d.take(d.rest)
	}
}

func (d *front1) abort() { d.conn.Abort() }

func (d *front1) hold(held bool) {
	if d.held == held {
		return
	}
	d.held = held
	switch {
	case !held:
		d.resume()
	case d.inBody:
		d.conn.Pause()
	}
}

func (d *front1) leave() {} // it has handed its connection over by then

func (d *front1) hasEnded() bool { return !d.inBody }

func (d *front1) moved() time.Time { return d.conn.Moved() }

// switchOver joins the connection with one to the service, after an upgrade. more is what the service has said behind it.
func (d *front1) switchOver(to *loop.Conn, more []byte) {
	w := d.worker
	delete(w.clients, d)
	d.link.turned = nil
	w.loop.Remove(&d.timer)
	d.x.forget()
	t := &tunnel{loop: w.loop, idle: w.side.limits.Tunnel, log: d.log}
	t.join(d.conn, to)
	d.conn.OnClose(d.link.ended)
	d.conn.Resume() // so much may have come ahead that it was paused
	ahead := d.rest
	d.rest = nil
	if len(more) > 0 {
		t.ways[1].Data(more)
	}
	if len(ahead) > 0 {
		t.ways[0].Data(ahead)
	}
}

// Drained lets the response's body go on, or the next request.
func (d *front1) Drained() {
	if d.x.open {
		d.x.clientReady()
	} else {
		d.resume()
	}
}

// Left is End for a client that is not listened to.
func (d *front1) Left() { d.End(nil) }

// End takes the end of the connection. A client that sends no more is taken for one that has gone, as other proxies do: the
// two look the same.
func (d *front1) End(error) {
	d.x.clientGone()
	if d.busy {
		d.conn.Abort()
	} else {
		d.conn.Close()
	}
}
