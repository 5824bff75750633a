// Package tally counts what monitoring asks for: how requests ended, and what peers proved. Whatever clients do, a tally does
// not grow beyond a fixed size.
package tally

import (
	"maps"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/histogram"
)

// Requests counts requests. NewRequests makes one.
type Requests struct {
	shards                              []*Shard
	duration, firstByte, received, sent *histogram.Histogram
}

// Shard is a part of Requests for one event loop.
type Shard struct {
	responses                           [6]atomic.Uint64
	duration, firstByte, received, sent *histogram.Shard
	_                                   [128]byte // the next shard's counters are in other lines of the cache
}

// NewRequests makes a tally with so many Shards, at least one.
func NewRequests(shards int) *Requests {
	shards = max(shards, 1)
	r := &Requests{
		duration: histogram.New(shards, histogram.Durations()), firstByte: histogram.New(shards, histogram.Durations()),
		received: histogram.New(shards, histogram.Sizes()), sent: histogram.New(shards, histogram.Sizes()),
	}
	for n := range shards {
		r.shards = append(r.shards, &Shard{duration: r.duration.Shard(n), firstByte: r.firstByte.Shard(n), received: r.received.Shard(n), sent: r.sent.Shard(n)})
	}
	return r
}

// Shard is the one with that number; each number has one.
func (r *Requests) Shard(n int) *Shard { return r.shards[uint(n)%uint(len(r.shards))] }

// Observe counts a request that has ended. status is 0 where no answer was begun, and firstByte is then not counted; received
// and sent are the bytes of the bodies.
func (s *Shard) Observe(status int, duration, firstByte time.Duration, received, sent uint64) {
	class := status / 100
	if class < 1 || class > 5 {
		class = 0
	}
	s.responses[class].Add(1)
	s.duration.Took(duration)
	if class > 0 {
		s.firstByte.Took(firstByte)
	}
	const most = 1<<63 - 1
	s.received.Observe(int64(min(received, most)))
	s.sent.Observe(int64(min(sent, most)))
}

// RequestStats is a snapshot of Requests.
type RequestStats struct {
	// Responses by the first digit of their status; in place 0 are requests without an answer, or with a status that is none.
	Responses [6]uint64          `json:"responses"`
	Duration  histogram.Snapshot `json:"duration"`   // of whole requests, in microseconds
	FirstByte histogram.Snapshot `json:"first_byte"` // until the answer began, in microseconds
	Received  histogram.Snapshot `json:"received"`   // bytes of the bodies of requests
	Sent      histogram.Snapshot `json:"sent"`       // bytes of the bodies of answers
}

// Stats adds up the shards.
func (r *Requests) Stats() RequestStats {
	out := RequestStats{Duration: r.duration.Snapshot(), FirstByte: r.firstByte.Snapshot(), Received: r.received.Snapshot(), Sent: r.sent.Snapshot()}
	for _, s := range r.shards {
		for i := range out.Responses {
			out.Responses[i] += s.responses[i].Load()
		}
	}
	return out
}

// Peer is what an appraisal is counted by.
type Peer struct {
	Verdict                 attest.Verdict
	Vendor, TEE, Generation string // empty where the evidence was not authentic; Other where there are too many
	Level                   attest.Level
	Simulated               bool
}

// Other stands for what there is no room for.
const Other = "other"

const (
	maxPeers = 64 // kinds that are told apart
	maxName  = 40
)

// Peers counts appraisals. NewPeers makes one.
type Peers struct {
	ages *histogram.Histogram

	mu     sync.Mutex
	counts map[Peer]uint64
}

// NewPeers makes a tally.
func NewPeers() *Peers {
	return &Peers{ages: histogram.New(1, histogram.Ages()), counts: map[Peer]uint64{}}
}

// Observe counts the appraisal of a peer. One that was not asked for evidence, whose Result is nil, is not counted.
func (p *Peers) Observe(r *attest.Result) {
	if r == nil {
		return
	}
	key := Peer{Verdict: r.Verdict(), Level: r.Level()}
	if c := r.Claims(); c != nil {
		key.Vendor, key.TEE, key.Generation, key.Simulated = c.Vendor, c.TEE, c.Generation, c.Simulated
	}
	if made := r.EvidenceTime(); !made.IsZero() {
		p.ages.Observe(r.Time().Sub(made).Microseconds())
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, known := p.counts[key]; !known && (len(p.counts) >= maxPeers || len(key.Vendor) > maxName || len(key.TEE) > maxName || len(key.Generation) > maxName) {
		// No peer may make a name up: names come from what the hardware signed. This holds should a verifier pass one on.
		key.Vendor, key.TEE, key.Generation = Other, Other, Other
	}
	p.counts[key]++
}

// PeerStats is a snapshot of Peers.
type PeerStats struct {
	Counts map[Peer]uint64
	Ages   histogram.Snapshot // of evidence when it was appraised, where its age is known, in microseconds
}

// Stats is what was counted so far.
func (p *Peers) Stats() PeerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return PeerStats{maps.Clone(p.counts), p.ages.Snapshot()}
}
