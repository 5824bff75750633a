package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// client is the side of an exchange that the request came from.
type client interface {
	respond(r *message.Response, last bool) error // a head, informational ones included; an error if it can't be said
	body(p []byte, last bool) bool                // false: no more until exchange.clientReady
	finish(trailers message.Fields)               // the response is whole; not called where last was said
	abort()                                       // it never will be, which must be plain to see
	hold(bool)                                    // whether the request's body has to wait
	hasEnded() bool                               // all of the request has arrived
	leave()                                       // both directions of a tunnel have ended
	moved() time.Time                             // when it last took something of the response
}

// origin is the side that answers it: one request on a connection to the service.
type origin interface {
	body(p []byte, last bool) bool // false: no more until exchange.serviceReady
	finish(trailers message.Fields)
	abort() // the exchange is over for good, whatever the service is still doing
	hold(bool)
	moved() time.Time  // when it last took something of the request
	serve(x *exchange) // x is the one that hears of the response, from now on
	leave()            // both directions of a tunnel have ended
}

// exchange is one request on its way to the service, and its response on its way back. It lives in one loop.
type exchange struct {
	worker *worker
	link   *link
	client client
	as     origin // nil until there is a connection to the service
	req    message.Request
	grpc   bool       // it is a gRPC call
	limit  time.Time  // the deadline of that; zero for none
	timer  loop.Timer // for the response
	expiry func()     // what that calls
	stall  loop.Timer // for an end that is too slow
	came   time.Time  // when something of the request last has
	filled time.Time  // when full became true
	log    *slog.Logger

	cluster      *Cluster
	endpoint     *upstream.Endpoint // of the try that is under way
	began        time.Time          // that was
	outcome      upstream.Outcome   // what it says about the endpoint
	decision     route.Decision
	times        times
	whole        time.Time // when all of the request had been sent
	retry        *route.Retry
	retries      int
	tried        []*upstream.Endpoint
	retrying     bool   // the try counts as a retry
	keeping      bool   // the request's body is kept, to be sent again
	kept         []byte // of it
	keptTrailers message.Fields
	try          loop.Timer // for the response of this try
	idle         loop.Timer // for anything to move
	pause        loop.Timer // before the next try
	cookie       string     // a Set-Cookie that goes with the response
	copies       []*mirror
	told         account
	hostless     bool   // the request named no host (HTTP/1.0)
	tryTimed     bool   // try is set for this try
	tryIdle      bool   // idle is set for this try alone
	seq          uint64 // of the request: the next one may begin while the client is given the end of this one

	open     bool
	answered bool // the last head of the response has been passed on
	sent     bool // some of the request's body has
	ended    bool // all of the request has
	tunnel   bool // there is neither request nor response any more, but bytes of two directions
	done     bool // that of the service has ended
	full     bool // the client does not take more of the response for now
	slow     bool // the service does not take more of the request for now
	fresh    bool // the connection to the service has not been used before
	tries    int  // of one endpoint
	calling  *call

	hedges []*hedge           // tries beside the one that is under way
	of     *exchange          // the one that this one is for a hedge of; nil for most
	asking context.CancelFunc // of the answer that the proxy itself is about to give; nil for none
}

// bind tells whose connection a panic in one of the exchange's timers is to end.
func (x *exchange) bind(client *loop.Conn) {
	x.timer.Bind(client)
	for _, t := range []*loop.Timer{&x.stall, &x.try, &x.idle, &x.pause} {
		t.Bind(client)
	}
}

// begin takes up a request, of which the client has req.
func (x *exchange) begin() {
	x.report() // of the one before, whose end the client is being given
	w := x.worker
	x.open, x.answered, x.sent, x.ended, x.full, x.slow, x.tries, x.as, x.calling = true, false, false, false, false, false, 0, nil, nil
	x.tunnel, x.done = false, false
	x.grpc = x.req.Upgrade == "" && isGRPC(&x.req)
	x.limit = time.Time{}
	if d, ok := grpcTimeout(&x.req); x.grpc && ok {
		x.limit = w.loop.Now().Add(d)
	}
	x.reset()
	x.account()
	w.side.stats.requests.Add(1)
	switch r := &x.req; {
	case r.Method == http.MethodConnect:
		x.reply(http.StatusMethodNotAllowed, "", "no tunnels through this proxy")
		return
	case !fits(r):
		x.reply(http.StatusBadRequest, "", "bad request")
		return
	case r.Upgrade != "" && !strings.EqualFold(r.Upgrade, webSocket):
		// After an upgrade the client talks to the service past this proxy. One to HTTP/2 would be a way to send any header.
		r.Upgrade = ""
	}
	if x.local() || !x.route() {
		return
	}
	x.identify()
	x.hostless = x.req.Authority == ""
	x.startCopies()
	x.keeping = x.retry.Number() > 0 && x.req.Upgrade == ""
	x.touch()
	x.pick()
}

// reset forgets the request before this one.
func (x *exchange) reset() {
	x.endpoint, x.outcome, x.whole = nil, upstream.NoVerdict, time.Time{}
	x.decision, x.retry, x.times, x.tryTimed = route.Decision{}, nil, times{}, false
	x.retries, x.tried, x.retrying, x.kept, x.keptTrailers, x.cookie = 0, x.tried[:0], false, nil, nil, ""
	x.copies = nil
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
	f = append(f, message.Field{Name: "X-Forwarded-For", Value: x.link.host()}, message.Field{Name: "X-Forwarded-Proto", Value: x.scheme()})
	if asked := x.told.authority; asked != "" { // and not what a route has made of it
		f = append(f, message.Field{Name: "X-Forwarded-Host", Value: asked})
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

// call asks for a connection to the endpoint; a new one where fresh is asked for.
func (x *exchange) call(fresh bool) {
	x.tries++
	x.client.hold(true)
	x.worker.poolOf(x.cluster, x.endpoint).connect(x, fresh)
}

// connected goes on with a connection that has the head of the request already.
func (x *exchange) connected(s origin, fresh bool, peer *link) {
	if peer != nil {
		x.told.upstream = peer.conn.Result()
	}
	x.as, x.fresh, x.calling = s, fresh, nil
	if x.bodiless() {
		x.ended = true
	}
	x.touch()
	more := true
	if x.sent && x.keeping {
		more = x.replay()
	}
	if x.ended {
		x.await()
	}
	x.came, x.slow = x.worker.loop.Now(), !more
	x.watch()
	if more {
		x.release()
	}
}

// release lets the request's body go on. What comes behind an upgrade is none: it waits until there is a tunnel.
func (x *exchange) release() {
	if x.req.Upgrade == "" || x.tunnel {
		x.client.hold(false)
	}
}

// await bounds the time to the response. That of hedges is bounded where they began.
func (x *exchange) await() {
	if x.answered || x.of != nil {
		return
	}
	x.bound()
	if d := x.tryLimit(); d > 0 && !x.tryTimed {
		x.worker.loop.Set(&x.try, x.worker.loop.Now().Add(d), x.tryExpired)
	}
}

// bodiless reports whether all of the request is in its head.
func (x *exchange) bodiless() bool { return x.req.Length == message.NoBody || x.req.Length == 0 }

// bound bounds the time from the end of the request on.
func (x *exchange) bound() {
	l := x.worker.loop
	if x.whole.IsZero() {
		x.whole = l.Now()
	}
	switch routed := x.decision.Action() != 0; {
	case !x.limit.IsZero():
		l.Set(&x.timer, x.limit, x.expires())
	case routed && x.times.total > 0:
		l.Set(&x.timer, x.whole.Add(x.times.total), x.expires())
	case !routed && x.worker.side.limits.Answer > 0 && !x.grpc:
		l.Set(&x.timer, l.Now().Add(x.worker.side.limits.Answer), x.expires())
	}
}

// expires is expire, made once for all requests of x.
func (x *exchange) expires() func() {
	if x.expiry == nil {
		x.expiry = x.expire
	}
	return x.expiry
}

func (x *exchange) expire() {
	x.blame()
	x.told.flags |= accesslog.UpstreamRequestTimeout
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
	if d == 0 || x.grpc || x.tunnel || !x.open { // of a tunnel idled sees to that
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
		x.outcome = upstream.Timeout // it had all the time to read
		x.told.flags |= accesslog.UpstreamRequestTimeout
		x.fail(attest.CodeBackendFailed, http.StatusGatewayTimeout, errNotRead)
	case x.answered:
		x.cut()
	default:
		x.told.flags |= accesslog.StreamIdleTimeout
		x.reply(http.StatusRequestTimeout, "", "the request took too long")
	}
}

// requestBody passes on a part of the request's body; last says that it is the end.
func (x *exchange) requestBody(p []byte, last bool) {
	if x.as == nil || len(p) == 0 && !last {
		return
	}
	x.sent, x.ended, x.came = true, last, x.worker.loop.Now()
	x.told.received += uint64(len(p))
	if x.keeping {
		x.keep(p)
	}
	for _, m := range x.copies {
		m.more(p, last, nil)
	}
	x.touch()
	if x.slow = !x.as.body(p, last); x.slow {
		x.client.hold(true)
	}
	x.watch()
	switch {
	case !last:
	case !x.tunnel:
		x.await()
	case x.done && !x.slow:
		x.parted()
	}
}

// requestEnd passes on the end of the request.
func (x *exchange) requestEnd(trailers message.Fields) {
	if len(trailers) == 0 || x.tunnel {
		x.requestBody(nil, true)
		return
	}
	if x.as != nil {
		trailers = trailers.Remove(message.Identifies)
		x.sent, x.ended = true, true
		if x.keeping {
			x.keptTrailers = slices.Clone(trailers)
		}
		for _, m := range x.copies {
			m.more(nil, true, trailers)
		}
		x.as.finish(trailers)
		x.await()
	}
}

// serviceReady goes on with the request after its body was too fast.
func (x *exchange) serviceReady() {
	x.slow, x.came = false, x.worker.loop.Now()
	if x.tunnel && x.ended && x.done {
		x.parted()
		return
	}
	x.watch()
	x.release()
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
	switch {
	case r.Status == http.StatusSwitchingProtocols && x.req.Upgrade == "":
		x.lost(attest.CodeBackendFailed, http.StatusBadGateway, errNotAsked)
		return
	case r.Status/100 == 2 && x.isExtended(): // the client would take it for a tunnel
		x.lost(attest.CodeBackendFailed, http.StatusBadGateway, errNoUpgrade)
		return
	}
	if !r.Informational() {
		x.outcome = upstream.OutcomeOf(r.Status)
		as, poor := x.as, x.retry.OnStatus(r.Status) || x.retry.OnGRPC(grpcStatus(r))
		h := x.heir(!poor)
		if h == nil || h.again(poor) {
			// A connection whose response is whole already serves others.
			if as != nil && (!last || !x.ended) {
				as.abort()
			}
			return
		}
		x = h
	}
	r.Fields = withoutTrailers(r.Fields.Remove(message.Ours), message.Ours)
	if r.Informational() {
		if x.req.Version != message.HTTP10 {
			_ = x.client.respond(r, false)
		}
		return
	}
	if x.decision.Action() != 0 {
		r.Fields = x.decision.EditResponse(r.Fields)
	}
	if x.cookie != "" {
		r.Fields = append(r.Fields, message.Field{Name: "Set-Cookie", Value: x.cookie})
	}
	if r.Status == http.StatusSwitchingProtocols && x.isExtended() {
		r.Status, r.Reason, r.Upgrade = http.StatusOK, "", ""
	}
	x.answered, x.kept, x.keeping = true, nil, false
	x.told.status, x.told.first = r.Status, x.worker.loop.Now()
	x.told.flags &^= accesslog.UpstreamConnectionFailure | accesslog.UpstreamConnectionTermination | accesslog.UpstreamRequestTimeout // of tries before
	x.told.try.Status(r.Status)
	x.worker.loop.Stop(&x.try)
	if x.times.total == 0 {
		x.worker.loop.Stop(&x.timer)
	}
	x.touch()
	if last {
		// What is left of the request has no meaning any more.
		x.part()
	}
	seq := x.seq
	if err := x.client.respond(r, last); err != nil {
		x.open, x.answered = true, false
		x.fail(attest.CodeBackendFailed, http.StatusBadGateway, err)
		return
	}
	if last {
		x.reportOf(seq)
		return
	}
	if !x.limit.IsZero() {
		x.worker.loop.Set(&x.timer, x.limit, x.expires())
	}
}

// responseBody passes on a part of the response's body; last says that it is the end.
func (x *exchange) responseBody(p []byte, last bool) {
	switch {
	case !x.open:
		return
	case last && x.tunnel && !x.ended:
		x.told.sent += uint64(len(p))
		x.touch()
		x.done = true
		x.client.body(p, true)
		return
	case last:
		x.told.sent += uint64(len(p))
		x.part()
		seq := x.seq
		if x.client.body(p, true); x.tunnel {
			x.client.leave()
		}
		x.reportOf(seq)
		return
	}
	x.told.sent += uint64(len(p))
	x.touch()
	switch {
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
	if x.tunnel {
		x.responseBody(nil, true)
	} else if x.open {
		x.part()
		seq := x.seq
		x.client.finish(trailers.Remove(message.Ours))
		x.reportOf(seq)
	}
}

// part lets go of a service that has answered. What is left of the request has no meaning any more.
func (x *exchange) part() {
	as := x.as
	x.close()
	switch {
	case as == nil:
	case x.tunnel:
		as.leave()
	case !x.ended:
		as.abort()
	}
}

// close ends the exchange's own part.
func (x *exchange) close() {
	x.open, x.as = false, nil
	l := x.worker.loop
	l.Stop(&x.timer)
	l.Stop(&x.stall)
	l.Stop(&x.try)
	l.Stop(&x.idle)
	l.Stop(&x.pause)
	x.settle()
	x.dropHedges()
	x.kept, x.keeping = nil, false
	for _, m := range x.copies { // which can't be whole any more
		if !m.ended && !x.ended {
			m.x.clientGone()
		}
	}
	x.copies = nil
	if m, ok := x.client.(*mirror); ok {
		delete(x.worker.mirrors, m)
		l.Remove(&m.end)
	}
	if x.calling != nil {
		x.calling.drop(x)
		x.calling = nil
	}
	if x.asking != nil {
		x.asking()
		x.asking = nil
	}
}

// clientGone ends an exchange whose client has gone.
func (x *exchange) clientGone() {
	if !x.open {
		return
	}
	as := x.as
	x.told.flags |= accesslog.DownstreamConnectionTermination
	x.close()
	if as != nil {
		as.abort()
	}
	x.report()
}

// serviceGone ends an exchange whose service has gone before the response was whole. A request that the service can't have
// seen, or that may be seen twice, is tried again on another connection: one that was kept open may have been closed by the
// service just when it was used.
func (x *exchange) serviceGone(err error, seen bool) {
	if !x.open {
		return
	}
	x.as = nil
	if x.tunnel && x.done { // it said all that it had to say, which a reset would take away again from who has not read it yet
		x.parted()
		return
	}
	if !x.answered && !seen && !x.fresh && !x.sent && x.tries < 3 && x.repeatable() {
		x.await() // within the times that the request and the try have
		x.call(true)
		return
	}
	x.outcome = upstream.Reset
	x.told.flags |= accesslog.UpstreamConnectionTermination
	why := route.FailureReset
	if errors.Is(err, errRefusedStream) {
		why = route.FailureRefusedStream
	}
	if x = x.heir(false); x == nil || x.again(x.retry.OnFailure(why)) {
		return
	}
	code := attest.CodeBackendFailed
	var coded *attest.Error
	if errors.As(err, &coded) { // the endpoint was refused in the middle
		code = coded.Code
	}
	x.fail(code, http.StatusBadGateway, err)
}

// unreached goes on where no connection to the endpoint came about.
func (x *exchange) unreached(err error) {
	x.outcome = upstream.ConnectFailure
	x.told.flags |= accesslog.UpstreamConnectionFailure
	if x = x.heir(false); x != nil && !x.again(x.retry.OnFailure(route.FailureConnect)) {
		x.fail(attest.CodeOf(err), http.StatusBadGateway, err)
	}
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
	if x.of != nil {
		x = x.of
	}
	as := x.as
	x.close()
	if as != nil {
		as.abort()
	}
	x.client.abort()
	x.report()
}

// reply is a response of the proxy's own.
func (x *exchange) reply(status int, code attest.Code, text string) {
	x.told.code = code
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
	x.told.status, x.told.first = r.Status, x.worker.loop.Now()
	seq := x.seq
	if x.client.respond(r, last) != nil {
		x.client.abort()
	} else if !last {
		x.told.sent += uint64(len(text))
		x.client.body(text, true)
	}
	x.reportOf(seq)
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
	for _, t := range []*loop.Timer{&x.timer, &x.stall, &x.try, &x.idle, &x.pause} {
		x.worker.loop.Remove(t)
	}
}
