package proxy

import (
	"slices"
	"time"

	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
)

// mirror is a copy of a request on its way to another cluster. Nobody waits for its response, and it never slows down the
// request that it is of: where it can't keep up, it is given up.
type mirror struct {
	unheard
	x       exchange
	end     loop.Timer
	ready   bool   // for the body
	waiting []byte // of the body
	ended   bool
	last    message.Fields // trailers that wait
}

// mirrorFor is how long a copy may take where its route allows no more: nobody waits for it, and it has a place of others.
const mirrorFor = time.Minute

// copyTo begins the copies of a request, before the route rewrites it for its own cluster.
func (x *exchange) copyTo(r *Routing, mirrors []route.Mirror) {
	x.copies = x.copies[:0]
	for _, m := range mirrors {
		c := r.clusters[m.Cluster]
		if c == nil || x.req.Upgrade != "" || !m.Wanted(x.worker.random.Uint64()) {
			continue
		}
		x.copies = append(x.copies, &mirror{x: exchange{worker: x.worker, link: x.link, log: x.log, cluster: c}})
	}
}

// startCopies sends the copies off, with the head as the service gets it.
func (x *exchange) startCopies() {
	for _, m := range x.copies {
		m.x.req = x.req
		m.x.req.Fields = slices.Clone(x.req.Fields)
		m.x.req.Expect = false
		m.x.client, m.x.open, m.x.grpc, m.x.limit = m, true, x.grpc, x.limit
		w := x.worker
		w.mirrors[m] = struct{}{}
		w.loop.Set(&m.end, w.loop.Now().Add(max(x.times.total, mirrorFor)), m.x.clientGone)
		m.x.pick()
	}
}

// more takes a part of the request's body.
func (m *mirror) more(p []byte, last bool, trailers message.Fields) {
	switch {
	case !m.x.open:
		return
	case !m.ready && len(m.waiting)+len(p) > maxKept:
		m.x.clientGone()
		m.waiting = nil
		return
	case !m.ready:
		m.waiting, m.ended, m.last = append(m.waiting, p...), last, slices.Clone(trailers)
		return
	}
	m.ended = last
	m.pass(p, trailers)
}

func (m *mirror) pass(p []byte, trailers message.Fields) {
	if len(trailers) > 0 {
		m.x.requestBody(p, false)
		m.x.requestEnd(trailers)
		return
	}
	m.x.requestBody(p, m.ended)
}

func (m *mirror) hasEnded() bool { return m.ended }

func (m *mirror) hold(held bool) {
	m.ready = !held
	if held || len(m.waiting) == 0 && !m.ended {
		return
	}
	p, trailers := m.waiting, m.last
	m.waiting, m.last = nil, nil
	if m.x.open && !m.x.ended {
		m.pass(p, trailers)
	}
}
