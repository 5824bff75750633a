package proxy

import (
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// client is the side of an exchange that the request came from.
type client interface {
	respond(r *message.Response, last bool) error // a head, informational ones included; an error if it can't be said
	body(p []byte, last bool) bool                // false: no more until exchange.clientReady
	finish(trailers message.Fields)               // the response is whole; not called where last was said
	abort()                                       // it never will be, which must be plain to see
	hold(bool)                                    // whether the request's body has to wait
	hasEnded() bool                               // all of the request has arrived
	moved() time.Time                             // when it last took something of the response
}

// origin is the side that answers it: one request on a connection to the service.
type origin interface {
	body(p []byte, last bool) bool // false: no more until exchange.serviceReady
	finish(trailers message.Fields)
	abort() // the exchange is over for good, whatever the service is still doing
	hold(bool)
	moved() time.Time // when it last took something of the request
}

// exchange is one request on its way to the service, and its response on its way back. It lives in one loop.
type exchange struct {
	worker *worker
	link   *link
	client client
	as     origin // nil until there is a connection to the service
	req    message.Request
	grpc   bool      // it is a gRPC call
	limit  time.Time // the deadline of that; zero for none
	timer  loop.Timer
	stall  loop.Timer
	came   time.Time // when something of the request last has
	filled time.Time // when full became true
	log    *slog.Logger

	open     bool
	answered bool // the last head of the response has been passed on
	sent     bool // some of the request's body has
	ended    bool // all of the request has
	full     bool // the client does not take more of the response for now
	slow     bool // the service does not take more of the request for now
	fresh    bool // the connection to the service has not been used before
	tries    int
	calling  *call
}

// bind tells whose connection a panic in one of the exchange's timers is to end.
func (x *exchange) bind(client *loop.Conn) {
	x.timer.Bind(client)
	x.stall.Bind(client)
}

// begin takes up a request, of which the client has req.
func (x *exchange) begin() {
	w := x.worker
	x.open, x.answered, x.sent, x.ended, x.full, x.slow, x.tries, x.as, x.calling = true, false, false, false, false, false, 0, nil, nil
	x.grpc = isGRPC(&x.req)
	x.limit = time.Time{}
	if d, ok := grpcTimeout(&x.req); x.grpc && ok {
		x.limit = w.loop.Now().Add(d)
	}
	w.side.stats.requests.Add(1)
	switch r := &x.req; {
	case r.Method == http.MethodConnect && !(r.Version == message.HTTP2 && r.Upgrade != ""):
		x.reply(http.StatusMethodNotAllowed, "", "no tunnels through this proxy")
		return
	case r.Method == http.MethodConnect, !fits(r):
		x.reply(http.StatusBadRequest, "", "bad request")
		return
	case r.Upgrade != "" && !strings.EqualFold(r.Upgrade, "websocket"):
		// After an upgrade the client talks to the service past this proxy. One to HTTP/2 would be a way to send any header.
		r.Upgrade = ""
	}
	x.identify()
	x.call()
}

// fits reports whether the head of a request can be passed on: a host of other characters could become an empty Host beside
// an X-Forwarded-Host that says more.
func fits(r *message.Request) bool {
	return !strings.ContainsFunc(r.Authority, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("!$%&'()*+,-.:;=[]_~", c)
	})
}

// identify tells the service who the client is, and keeps the client from doing so.
func (x *exchange) identify() {
	f := withoutTrailers(x.req.Fields.Remove(message.Identifies), message.Identifies)
	f = append(f, message.Field{Name: "X-Forwarded-For", Value: x.link.host()}, message.Field{Name: "X-Forwarded-Proto", Value: "https"})
	if x.req.Authority != "" {
		f = append(f, message.Field{Name: "X-Forwarded-Host", Value: x.req.Authority})
	} else {
		x.req.Authority = x.worker.side.backend.authority()
	}
	if id := x.link.identity(); id != nil {
		f = append(f, message.Field{Name: HeaderResult, Value: id.result})
		if id.xfcc != "" {
			f = append(f, message.Field{Name: HeaderXFCC, Value: id.xfcc})
		}
	}
	x.req.Fields = f
}

// withoutTrailers takes out of the announcements of trailers those that match names, which are not passed on.
func withoutTrailers(f message.Fields, match func(string) bool) message.Fields {
	announced := false
	for i := range f {
		if len(f[i].Name) == len("Trailer") && message.Same(f[i].Name, "Trailer") {
			names := strings.FieldsFunc(f[i].Value, func(c rune) bool { return c == ',' || c == ' ' || c == '\t' })
			f[i].Value = strings.Join(slices.DeleteFunc(names, match), ", ")
			announced = true
		}
	}
	if !announced {
		return f
	}
	return slices.DeleteFunc(f, func(field message.Field) bool { return field.Value == "" && message.Same(field.Name, "Trailer") })
}

// call asks for a connection to the service.
func (x *exchange) call() {
	x.tries++
	x.client.hold(true)
	x.worker.connect(x, x.tries > 1)
}

// connected goes on with a connection that has the head of the request already.
func (x *exchange) connected(s origin, fresh bool) {
	x.as, x.fresh, x.calling = s, fresh, nil
	if x.req.Length == message.NoBody || x.req.Length == 0 {
		x.ended = true
		x.await()
	}
	x.came = x.worker.loop.Now()
	x.watch()
	x.client.hold(false)
}

// await bounds the time to the response.
func (x *exchange) await() {
	if x.answered {
		return
	}
	if !x.limit.IsZero() {
		x.worker.loop.Set(&x.timer, x.limit, x.expire)
	} else if d := x.worker.side.limits.Answer; d > 0 && !x.grpc {
		x.worker.loop.Set(&x.timer, x.worker.loop.Now().Add(d), x.expire)
	}
}

func (x *exchange) expire() {
	if !x.limit.IsZero() {
		x.expired()
		return
	}
	x.fail(attest.CodeBackendFailed, http.StatusGatewayTimeout, errNoAnswer)
}

var (
	errNoAnswer = errors.New("the service took too long to answer")
	errNotRead  = errors.New("the service stopped reading the request")
)

// watch bounds the time in which the request, and a response that the client is to read, have to go on.
func (x *exchange) watch() {
	if at, _ := x.due(); at.IsZero() {
		x.worker.loop.Stop(&x.stall)
	} else {
		x.worker.loop.Set(&x.stall, at, x.stalled)
	}
}

// due is when the exchange will have stood still for too long, by whose fault; zero for never.
func (x *exchange) due() (at time.Time, service bool) {
	d := x.worker.side.limits.Stall
	if d == 0 || x.grpc || !x.open {
		return at, false
	}
	switch {
	case x.ended || x.as == nil: // await bounds that
	case !x.slow:
		at = x.came.Add(d)
	case !x.answered: // who answers need not read the request
		at, service = later(x.came, x.as.moved()).Add(d), true
	}
	if x.full {
		if t := later(x.filled, x.client.moved()).Add(d); at.IsZero() || t.Before(at) {
			at, service = t, false
		}
	}
	return at, service
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

// stalled ends an exchange that stands still.
func (x *exchange) stalled() {
	switch at, service := x.due(); {
	case at.After(x.worker.loop.Now()): // something has moved meanwhile
		x.watch()
	case at.IsZero():
	case service:
		x.fail(attest.CodeBackendFailed, http.StatusGatewayTimeout, errNotRead)
	case x.answered:
		x.cut()
	default:
		x.reply(http.StatusRequestTimeout, "", "the request took too long")
	}
}

// requestBody passes on a part of the request's body; last says that it is the end.
func (x *exchange) requestBody(p []byte, last bool) {
	if x.as == nil || len(p) == 0 && !last {
		return
	}
	x.sent, x.ended, x.came = true, last, x.worker.loop.Now()
	if x.slow = !x.as.body(p, last); x.slow {
		x.client.hold(true)
	}
	x.watch()
	if last {
		x.await()
	}
}

// requestEnd passes on the end of the request.
func (x *exchange) requestEnd(trailers message.Fields) {
	if len(trailers) == 0 {
		x.requestBody(nil, true)
		return
	}
	x.ended = true
	if x.as != nil {
		x.as.finish(trailers.Remove(message.Identifies))
		x.await()
	}
}

// serviceReady goes on with the request after its body was too fast.
func (x *exchange) serviceReady() {
	x.slow, x.came = false, x.worker.loop.Now()
	x.watch()
	x.client.hold(false)
}

// clientReady goes on with the response after its body was too fast.
func (x *exchange) clientReady() {
	x.full = false
	x.watch()
	if x.as != nil {
		x.as.hold(false)
	}
}

// response passes on the head of a response; last says that nothing follows it.
func (x *exchange) response(r *message.Response, last bool) {
	if r.Status == http.StatusSwitchingProtocols && x.req.Upgrade == "" {
		x.fail(attest.CodeBackendFailed, http.StatusBadGateway, errNotAsked)
		return
	}
	r.Fields = withoutTrailers(r.Fields.Remove(message.Ours), message.Ours)
	if r.Informational() {
		if x.req.Version != message.HTTP10 {
			_ = x.client.respond(r, false)
		}
		return
	}
	x.answered = true
	x.worker.loop.Stop(&x.timer)
	if last {
		// What is left of the request has no meaning any more.
		x.part()
	}
	if err := x.client.respond(r, last); err != nil {
		x.open, x.answered = true, false
		x.fail(attest.CodeBackendFailed, http.StatusBadGateway, err)
		return
	}
	if last {
		return
	}
	if !x.limit.IsZero() {
		x.worker.loop.Set(&x.timer, x.limit, x.expire)
	}
}

// responseBody passes on a part of the response's body; last says that it is the end.
func (x *exchange) responseBody(p []byte, last bool) {
	switch {
	case !x.open:
	case last:
		x.part()
		x.client.body(p, true)
	case !x.client.body(p, false) && x.as != nil:
		x.as.hold(true)
		if !x.full {
			x.full, x.filled = true, x.worker.loop.Now()
			x.watch()
		}
	}
}

// responseEnd passes on the end of the response, behind its body.
func (x *exchange) responseEnd(trailers message.Fields) {
	if x.open {
		x.part()
		x.client.finish(trailers.Remove(message.Ours))
	}
}

// part lets go of a service that has answered. What is left of the request has no meaning any more.
func (x *exchange) part() {
	as := x.as
	x.close()
	if !x.ended && as != nil {
		as.abort()
	}
}

// close ends the exchange's own part.
func (x *exchange) close() {
	x.open, x.as = false, nil
	x.worker.loop.Stop(&x.timer)
	x.worker.loop.Stop(&x.stall)
	if x.calling != nil {
		x.calling.drop(x)
		x.calling = nil
	}
}

// clientGone ends an exchange whose client has gone.
func (x *exchange) clientGone() {
	if !x.open {
		return
	}
	as := x.as
	x.close()
	if as != nil {
		as.abort()
	}
}

// serviceGone ends an exchange whose service has gone before the response was whole. A request that the service can't have
// seen, or that may be seen twice, is tried again on another connection: one that was kept open may have been closed by the
// service just when it was used.
func (x *exchange) serviceGone(err error, seen bool) {
	if !x.open {
		return
	}
	x.as = nil
	if !x.answered && !seen && !x.fresh && !x.sent && x.tries < 3 && x.repeatable() {
		x.worker.loop.Stop(&x.timer)
		x.call()
		return
	}
	x.fail(attest.CodeBackendFailed, http.StatusBadGateway, err)
}

// repeatable reports whether the request may reach the service twice (RFC 9110 section 9.2.2).
func (x *exchange) repeatable() bool {
	if !x.ended {
		return false
	}
	switch x.req.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace:
		return x.req.Upgrade == ""
	}
	return false
}

// fail answers for a service that gave no answer, or breaks off one that has begun. The text is for strangers: it names no
// address.
func (x *exchange) fail(code attest.Code, status int, err error) {
	if !x.open {
		return
	}
	if x.late() {
		x.expired()
		return
	}
	what := "no answer from the service"
	if x.answered {
		what = "the answer broke off"
	}
	x.log.Error(what, "code", string(code), "error", plainError(err))
	if x.answered {
		x.cut()
		return
	}
	x.reply(status, code, code.Title()+" ("+string(code)+")")
}

// cut breaks off a response that has begun.
func (x *exchange) cut() {
	as := x.as
	x.close()
	if as != nil {
		as.abort()
	}
	x.client.abort()
}

// reply is a response of the proxy's own.
func (x *exchange) reply(status int, code attest.Code, text string) {
	x.say(plain(status, code), []byte("jurat: "+text+"\n"))
}

// say ends the exchange with a response of the proxy's own.
func (x *exchange) say(r *message.Response, text []byte) {
	as := x.as
	x.close()
	if as != nil {
		as.abort()
	}
	r.Length = message.NoBody
	if text != nil {
		r.Length = int64(len(text))
	}
	last := text == nil || r.Bodiless(x.req.Method)
	if x.client.respond(r, last) != nil {
		x.client.abort()
	} else if !last {
		x.client.body(text, true)
	}
}

func plain(status int, code attest.Code) *message.Response {
	f := message.Fields{{Name: "Content-Type", Value: "text/plain; charset=utf-8"}, {Name: "X-Content-Type-Options", Value: "nosniff"}}
	if code != "" {
		f = append(f, message.Field{Name: HeaderError, Value: string(code)})
	}
	return &message.Response{Status: status, Reason: http.StatusText(status), Fields: f}
}

// broken answers a request whose body the client broke off.
func (x *exchange) broken() {
	if x.open && x.answered {
		x.cut()
	} else if x.open {
		x.reply(http.StatusBadRequest, "", "the body of the request broke off")
	}
}

// forget lets go of the exchange's timers: it is not used again.
func (x *exchange) forget() {
	x.worker.loop.Remove(&x.timer)
	x.worker.loop.Remove(&x.stall)
}
