package proxy

import (
	"maps"
	"sync"
	"sync/atomic"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/tally"
)

// Stats is a snapshot of what a Server has seen.
type Stats struct {
	Accepted   uint64 `json:"accepted"`   // connections accepted, before any handshake
	Handshakes uint64 `json:"handshakes"` // attested connections established; what is passed through is none
	// Bindings is how many of them are with a peer that was appraised, by the level that was reached then.
	Bindings map[attest.Level]uint64 `json:"bindings"`
	Refused  map[attest.Code]uint64  `json:"refused"`   // connections refused before an application byte moved
	Active   int64                   `json:"active"`    // connections open now, after their handshake
	Requests uint64                  `json:"requests"`  // HTTP requests
	BytesIn  uint64                  `json:"bytes_in"`  // bytes received from clients, or from endpoints of a cluster: of the application, or of TLS that is passed through
	BytesOut uint64                  `json:"bytes_out"` // bytes sent to them
}

type counters struct {
	accepted, handshakes, requests, in, out atomic.Uint64
	active                                  atomic.Int64
	tally                                   *tally.Requests

	mu       sync.Mutex
	bindings map[attest.Level]uint64
	refused  map[attest.Code]uint64
}

// newCounters has so many shards of what loops count.
func newCounters(shards int) *counters { return &counters{tally: tally.NewRequests(shards)} }

// established counts a connection and, where its peer was appraised, the level of that.
func (c *counters) established(r *attest.Result) {
	c.handshakes.Add(1)
	if r == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bindings == nil {
		c.bindings = make(map[attest.Level]uint64)
	}
	c.bindings[r.Level()]++
}

func (c *counters) refuse(code attest.Code) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.refused == nil {
		c.refused = make(map[attest.Code]uint64)
	}
	c.refused[code]++
}

func (c *counters) snapshot() Stats {
	c.mu.Lock()
	refused, bindings := maps.Clone(c.refused), maps.Clone(c.bindings)
	c.mu.Unlock()
	if refused == nil {
		refused = map[attest.Code]uint64{}
	}
	if bindings == nil {
		bindings = map[attest.Level]uint64{}
	}
	return Stats{
		Accepted: c.accepted.Load(), Handshakes: c.handshakes.Load(), Bindings: bindings, Refused: refused, Active: c.active.Load(),
		Requests: c.requests.Load(), BytesIn: c.in.Load(), BytesOut: c.out.Load(),
	}
}

// add counts for s, in which all has come to its end, what it has counted.
func (c *counters) add(s Stats) {
	c.handshakes.Add(s.Handshakes)
	c.requests.Add(s.Requests)
	c.in.Add(s.BytesIn)
	c.out.Add(s.BytesOut)
	c.active.Add(s.Active)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.bindings, c.refused = sum(c.bindings, s.Bindings), sum(c.refused, s.Refused)
}

func sum[K comparable](to, from map[K]uint64) map[K]uint64 {
	if to == nil {
		to = make(map[K]uint64, len(from))
	}
	for k, n := range from {
		to[k] += n
	}
	return to
}

// plus is s with what was counted behind it: what that has accepted, s has accepted before.
func (s Stats) plus(o Stats) Stats {
	s.Handshakes += o.Handshakes
	s.Active += o.Active
	s.Requests += o.Requests
	s.BytesIn += o.BytesIn
	s.BytesOut += o.BytesOut
	s.Bindings, s.Refused = sum(s.Bindings, o.Bindings), sum(s.Refused, o.Refused)
	return s
}
