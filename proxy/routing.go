package proxy

import (
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Routing is what becomes of requests: all of them go to one cluster, or where a table of routes says. It does not change; a
// Server can be given another one.
type Routing struct {
	only     *Cluster
	table    *route.Table
	clusters map[string]*Cluster
}

// RouteTo sends all requests to one cluster, as they came.
func RouteTo(c *Cluster) *Routing { return &Routing{only: c} }

// NewRouting routes by table, which was compiled with the routes' clusters among these. A request for a cluster that is not
// there gets 503.
func NewRouting(table *route.Table, clusters map[string]*Cluster) *Routing {
	return &Routing{table: table, clusters: clusters}
}

// times bound an exchange beyond what the limits of the server say. 0 is no limit.
type times struct {
	total      time.Duration // from the end of the request to the end of the response
	perTry     time.Duration // to the head of the response
	idle       time.Duration // in which nothing moves
	perTryIdle time.Duration
}

// route finds out what becomes of the request, and reports whether it is to be forwarded. If not, it has been answered.
func (x *exchange) route() bool {
	r := x.worker.side.routing.Load()
	if x.cluster = r.only; x.cluster != nil {
		return true
	}
	d, err := r.table.Match(&x.req, x.worker.random.Uint64())
	switch {
	case err == route.ErrNoRoute:
		x.told.flags |= accesslog.NoRouteFound
		x.reply(http.StatusNotFound, "", "no such place")
		return false
	case err != nil:
		x.reply(http.StatusBadRequest, "", "bad request")
		return false
	}
	x.decision = d
	switch d.Action() {
	case route.Redirect:
		x.redirect()
		return false
	case route.Respond:
		status, body := d.DirectResponse()
		x.direct(status, message.Fields{{Name: "Content-Type", Value: "text/plain; charset=utf-8"}}, body)
		return false
	}
	if x.cluster = r.clusters[d.Cluster()]; x.cluster == nil {
		x.told.cluster = d.Cluster()
		x.told.flags |= accesslog.NoClusterFound
		x.reply(http.StatusServiceUnavailable, attest.CodeNoEndpoint, attest.CodeNoEndpoint.Title())
		return false
	}
	x.retry = d.Retry()
	t := d.Timeouts()
	x.times = times{t.Request, t.PerTry, t.Idle, t.PerTryIdle}
	if x.grpc && t.Defaults { // a call carries its own deadline, or is a stream that lasts
		x.times.total, x.times.idle = 0, 0
	}
	if x.grpc && t.GRPC > 0 {
		if at := x.worker.loop.Now().Add(t.GRPC); x.limit.IsZero() || at.Before(x.limit) {
			x.limit = at
		}
	}
	x.copyTo(r, d.Mirrors())
	if err := d.Rewrite(&x.req); err != nil {
		x.reply(http.StatusBadRequest, "", "bad request")
		return false
	}
	return true
}

func (x *exchange) redirect() {
	status, location, err := x.decision.Location(&x.req, x.scheme())
	if err != nil {
		x.reply(http.StatusBadRequest, "", "bad request")
		return
	}
	x.direct(status, message.Fields{{Name: "Location", Value: location}}, "")
}

// direct answers for a route.
func (x *exchange) direct(status int, f message.Fields, body string) {
	if x.isExtended() && status/100 == 2 {
		x.reply(http.StatusBadRequest, "", "no tunnel to this place")
		return
	}
	if body == "" {
		f = f.Remove(func(name string) bool { return name == "Content-Type" })
	}
	f = x.decision.EditResponse(f)
	x.say(&message.Response{Status: status, Reason: http.StatusText(status), Fields: f}, []byte(body))
}

// scheme is what the client came by.
func (x *exchange) scheme() string {
	if x.link.plain {
		return "http"
	}
	return "https"
}

// pick chooses the endpoint of a try, and calls it.
func (x *exchange) pick() {
	w := x.worker
	info := upstream.Info{Random: w.random.Uint64(), Tried: x.tried, Attempts: x.retry.AvoidTried()}
	if x.decision.Action() != 0 {
		var cookie string
		info.Hash, cookie, info.HasHash = x.decision.Hash(&x.req, x.link.source(), w.random.Uint64())
		if cookie != "" {
			x.cookie = cookie
		}
	}
	e, err := x.choose(info)
	if err == nil {
		err = e.Begin()
	}
	if err != nil {
		x.told.cluster = x.cluster.balance.Name()
		if err == upstream.ErrOverflow {
			x.told.flags |= accesslog.UpstreamOverflow
		} else {
			x.told.flags |= accesslog.NoHealthyUpstream
		}
		err = x.cluster.unavailable(err)
		x.fail(attest.CodeOf(err), http.StatusServiceUnavailable, err)
		return
	}
	x.endpoint, x.began, x.outcome = e, w.loop.Now(), upstream.NoVerdict
	if x.hostless {
		x.req.Authority = authorityOf(e.Identity())
	}
	if x.tryTimed = false; x.ended || x.bodiless() {
		if d := x.tryLimit(); d > 0 {
			x.tryTimed = true
			w.loop.Set(&x.try, w.loop.Now().Add(d), x.tryExpired)
		}
	}
	if x.ended || x.bodiless() {
		x.bound()
	} else if !x.limit.IsZero() {
		w.loop.Set(&x.timer, x.limit, x.expires())
	}
	x.asks()
	x.call(false)
}

// choose finds the endpoint of a try. Where the cluster is what a client's connection was going to, there is one for each client:
// nobody uses what was opened for another.
func (x *exchange) choose(info upstream.Info) (*upstream.Endpoint, error) {
	if !x.cluster.onward {
		return x.cluster.balance.Pick(info)
	}
	e := x.link.far[x.cluster]
	if e != nil {
		return e, nil
	}
	e, err := x.cluster.endpointAt(x.link.onward)
	if err == nil {
		if x.link.far == nil {
			x.link.far = map[*Cluster]*upstream.Endpoint{}
		}
		x.link.far[x.cluster] = e
	}
	return e, err
}

// authorityOf is the Host of a request that came without one.
func authorityOf(id upstream.Identity) string {
	switch {
	case id.Hostname != "":
		return id.Hostname
	case strings.HasPrefix(id.Address, "unix:"):
		return "localhost"
	default:
		return id.Address
	}
}

// settle tells the endpoint what came of a try.
func (x *exchange) settle() {
	if x.retrying {
		x.retrying = false
		x.cluster.balance.Release(upstream.Retries)
	}
	if x.endpoint == nil {
		return
	}
	x.tryEnded()
	x.endpoint.Done(x.outcome, x.worker.loop.Now().Sub(x.began))
	x.endpoint = nil
}

// maxKept bounds what is kept of a request's body to send it again.
const maxKept = 64 << 10

// keep keeps what is needed of a request's body to send it again.
func (x *exchange) keep(p []byte) {
	if len(x.kept)+len(p) > maxKept {
		x.kept, x.keeping = nil, false
	} else if x.keeping {
		x.kept = append(x.kept, p...)
	}
}

// again tries the request once more, where its route says so for what has happened, and reports whether it does.
func (x *exchange) again(wanted bool) bool {
	if !wanted || !x.open || x.answered || x.sent && !x.keeping || x.late() {
		return false
	}
	if x.retries >= x.retry.Number() {
		x.told.flags |= accesslog.UpstreamRetryLimitExceeded
		return false
	}
	if !x.cluster.balance.Acquire(upstream.Retries) {
		x.told.flags |= accesslog.UpstreamOverflow
		return false
	}
	w := x.worker
	w.loop.Stop(&x.idle)
	x.letGo()
	x.retrying = true
	x.retries++
	w.loop.Stop(&x.try)
	w.loop.Stop(&x.stall)
	if x.times.total == 0 && x.limit.IsZero() {
		w.loop.Stop(&x.timer)
	}
	x.client.hold(true)
	w.loop.Set(&x.pause, w.loop.Now().Add(x.retry.BackOff(x.retries, w.random.Uint64())), x.pick)
	return true
}

// replay sends what was kept of the request's body, and reports whether the endpoint takes more.
func (x *exchange) replay() bool {
	more := true
	switch {
	case len(x.keptTrailers) > 0:
		if len(x.kept) > 0 {
			x.as.body(x.kept, false)
		}
		x.as.finish(x.keptTrailers)
	case len(x.kept) > 0 || x.ended:
		more = x.as.body(x.kept, x.ended)
	}
	return more || x.ended
}

// tryExpired ends a try that took too long, or begins another one beside it.
func (x *exchange) tryExpired() {
	if x.hedgeAfter() > 0 {
		x.hedge()
		return
	}
	x.told.flags |= accesslog.UpstreamRequestTimeout
	x.outcome = upstream.Timeout
	as := x.as
	if x.again(x.retry.OnFailure(route.FailureTimeout)) {
		if as != nil {
			as.abort()
		}
		return
	}
	x.fail(attest.CodeBackendFailed, http.StatusGatewayTimeout, errNoAnswer)
}

// blame holds a time that is over against the endpoint, if it had all of the request and the time was not the client's choice.
func (x *exchange) blame() {
	if !x.answered && x.ended && x.limit.IsZero() && x.as != nil {
		x.outcome = upstream.Timeout
	}
}

// touch puts off the end of an exchange in which something moves.
func (x *exchange) touch() {
	limit := x.times.idle
	if x.tryIdle = false; x.tunnel {
		limit = x.worker.side.limits.Tunnel
	}
	if t := x.times.perTryIdle; t > 0 && x.as != nil && !x.answered && (limit == 0 || t < limit) {
		limit, x.tryIdle = t, true
	}
	if limit > 0 {
		x.worker.loop.Set(&x.idle, x.worker.loop.Now().Add(limit), x.idled)
	}
}

func (x *exchange) idled() {
	x.told.flags |= accesslog.StreamIdleTimeout
	x.blame()
	if !x.answered && x.tryIdle {
		as := x.as
		if x = x.heir(false); x == nil || x.again(x.retry.OnFailure(route.FailureTimeout)) {
			if as != nil {
				as.abort()
			}
			return
		}
	}
	x.fail(attest.CodeBackendFailed, http.StatusGatewayTimeout, errIdle)
}

// source is the address that the client comes from.
func (l *link) source() netip.Addr {
	a, _ := netip.ParseAddr(l.host())
	return a.Unmap()
}
