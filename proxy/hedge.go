package proxy

import (
	"net/http"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// hedge is one more try of a request, on another endpoint, beside those that are under way and take long. Of what becomes of it
// the exchange that it is of hears by heir.
type hedge struct {
	unheard
	x exchange
}

func (*hedge) hold(bool)      {}
func (*hedge) hasEnded() bool { return true }

// unheard is a client to whom nobody listens.
type unheard struct{}

func (unheard) respond(*message.Response, bool) error { return nil }
func (unheard) body([]byte, bool) bool                { return true }
func (unheard) finish(message.Fields)                 {}
func (unheard) abort()                                {}
func (unheard) leave()                                {}
func (unheard) moved() time.Time                      { return time.Time{} }

// anotherDraws is how often an endpoint is drawn for a hedge until it is one that was not tried.
const anotherDraws = 16

// hedgeAfter is how long a try may go without an answer before another one begins beside it; 0 for ever.
func (x *exchange) hedgeAfter() time.Duration {
	d := x.retry.HedgeAfter(x.req.Method)
	if d > 0 && (x.of != nil || x.req.Upgrade != "" || x.sent && !x.keeping || x.cluster.onward) {
		return 0
	}
	return d
}

// tryLimit is how long a try may go without an answer before something is done about it.
func (x *exchange) tryLimit() time.Duration {
	if d := x.hedgeAfter(); d > 0 {
		return d
	}
	return x.times.perTry
}

// hedge begins one more try, if the route's number, the cluster's bounds and its endpoints allow one.
func (x *exchange) hedge() {
	if x.retries >= x.retry.Number() {
		return
	}
	w := x.worker
	w.loop.Set(&x.try, w.loop.Now().Add(x.hedgeAfter()), x.tryExpired) // for the one after this
	tried := slices.Clone(x.tried)
	if x.endpoint != nil {
		tried = append(tried, x.endpoint)
	}
	for _, h := range x.hedges {
		tried = append(tried, h.x.endpoint)
	}
	info := upstream.Info{Random: w.random.Uint64(), Tried: tried, Attempts: anotherDraws}
	info.Hash, _, info.HasHash = x.decision.Hash(&x.req, x.link.source(), w.random.Uint64())
	e, err := x.cluster.balance.Pick(info)
	if err != nil || slices.Contains(tried, e) || !x.cluster.balance.Acquire(upstream.Retries) {
		return
	}
	if e.Begin() != nil {
		x.cluster.balance.Release(upstream.Retries)
		return
	}
	h := &hedge{x: exchange{
		worker: w, link: x.link, log: x.log, of: x, open: true, req: x.req, hostless: x.hostless, grpc: x.grpc,
		cluster: x.cluster, endpoint: e, began: w.loop.Now(), retry: x.retry, retrying: true,
		times: times{perTry: x.times.perTry, perTryIdle: x.times.perTryIdle},
		sent:  x.sent, ended: true, keeping: x.keeping, kept: x.kept, keptTrailers: x.keptTrailers,
		told: account{span: x.told.span, tries: x.told.tries},
	}}
	h.x.client, h.x.req.Fields, h.x.req.Expect = h, slices.Clone(x.req.Fields), false
	if x.hostless {
		h.x.req.Authority = authorityOf(e.Identity())
	}
	x.retries++
	x.hedges = append(x.hedges, h)
	x.cluster.balance.Hedge()
	h.x.asks()
	x.told.tries = h.x.told.tries
	h.x.call(false)
}

// heir is the exchange that goes on with what has become of a try, which is good where it is an answer for the client. It is x
// where there is no hedge; nil where another try may still do better, and this one is forgotten. Of a good one it makes the only one.
func (x *exchange) heir(good bool) *exchange {
	all := x
	if x.of != nil {
		all = x.of
	}
	switch {
	case len(all.hedges) == 0:
		return x
	case !good && all.others(x):
		if x.of == nil {
			x.worker.loop.Stop(&x.idle)
			x.letGo()
			x.touch()
		} else {
			all.told.flags |= x.told.flags
			all.tried = append(all.tried, x.endpoint)
			all.hedges = slices.DeleteFunc(all.hedges, func(h *hedge) bool { return &h.x == x })
			x.discard()
		}
		return nil
	}
	if x.of != nil {
		all.adopt(x)
		if good {
			all.cluster.balance.HedgeWon()
		}
	}
	all.dropHedges()
	return all
}

// others reports whether a try other than this one is under way.
func (x *exchange) others(than *exchange) bool {
	own := x.as != nil || x.calling != nil
	if than == x {
		return len(x.hedges) > 0
	}
	return own || len(x.hedges) > 1
}

// adopt makes the try of a hedge the exchange's own, in place of that.
func (x *exchange) adopt(h *exchange) {
	as := x.as
	x.overdue()
	x.letGo()
	if as != nil {
		as.abort()
	}
	x.as, x.endpoint, x.began, x.outcome, x.fresh, x.retrying = h.as, h.endpoint, h.began, h.outcome, h.fresh, h.retrying
	x.told.upstream, x.told.endpoint, x.told.try = h.told.upstream, h.endpoint.Identity().Address, h.told.try
	x.told.flags |= h.told.flags
	h.as, h.endpoint, h.retrying = nil, nil, false
	h.discard()
	x.hedges = slices.DeleteFunc(x.hedges, func(other *hedge) bool { return &other.x == h })
	if x.as != nil {
		x.as.serve(x)
	}
}

// dropHedges ends the hedges that are left.
func (x *exchange) dropHedges() {
	hedges := x.hedges
	x.hedges = nil
	for _, h := range hedges {
		as := h.x.as
		h.x.overdue()
		h.x.discard()
		if as != nil {
			as.abort()
		}
	}
}

// discard ends an exchange that was for a hedge.
func (x *exchange) discard() {
	x.close()
	x.forget()
}

// overdue holds it against an endpoint that another was faster, where it had the time that a try gets.
func (x *exchange) overdue() {
	if d := x.times.perTry; d > 0 && x.outcome == upstream.NoVerdict && x.worker.loop.Now().Sub(later(x.began, x.whole)) >= d {
		x.outcome = upstream.Timeout
	}
}

// letGo gives up the try that is under way. Who calls it sees to its end at the service.
func (x *exchange) letGo() {
	if x.endpoint != nil {
		x.tried = append(x.tried, x.endpoint)
	}
	if x.calling != nil {
		x.calling.drop(x)
	}
	x.settle()
	x.as, x.slow = nil, false
}

// lost goes on where a try has come to nothing that would be tried again.
func (x *exchange) lost(code attest.Code, status int, err error) {
	as := x.as
	if h := x.heir(false); h != nil {
		h.fail(code, status, err)
	} else if as != nil {
		as.abort()
	}
}

// unsayable answers a request that can't be sent to its endpoint.
func (x *exchange) unsayable() {
	if h := x.heir(false); h != nil {
		h.reply(http.StatusBadRequest, "", "bad request")
	}
}
