package upstream

import (
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Why an endpoint is not healthy; none of these means that it is.
const (
	failedCheck uint32 = 1 << iota // active health checks fail, or none has passed yet
	ejected                        // outlier detection took it out
	saidSo                         // configuration says so
	removed                        // no endpoint of the cluster any more
)

// Endpoint is one address of a cluster and all that is known of it.
type Endpoint struct {
	id      Identity
	hash    uint64 // of id
	cluster *Cluster

	flags  atomic.Uint32 // written under the cluster's lock
	active atomic.Int64  // requests
	counts counts
	proof  atomic.Pointer[attest.Result]

	monitor monitor // of outlier detection
	health  health  // of active checks, under the cluster's lock
}

// Beside makes an endpoint that is bounded and counted with those of the cluster, and is not one of them: nobody picks it, checks it
// or takes it out.
func (c *Cluster) Beside(id Identity) *Endpoint {
	return &Endpoint{id: id, hash: id.sum(), cluster: c}
}

// Identity is what the endpoint was made of.
func (e *Endpoint) Identity() Identity { return e.id }

// Proof is the last appraisal of the endpoint; nil where it was never asked for evidence.
func (e *Endpoint) Proof() *attest.Result { return e.proof.Load() }

// Healthy reports whether nothing speaks against the endpoint.
func (e *Endpoint) Healthy() bool { return e.flags.Load() == 0 }

// Removed reports whether the endpoint left its cluster: what goes on there goes on, and its connections are then closed.
func (e *Endpoint) Removed() bool { return e.flags.Load()&removed != 0 }

// Active is the number of requests between Begin and Done.
func (e *Endpoint) Active() int64 { return e.active.Load() }

// Begin counts a try of a request. The error is ErrOverflow where the cluster has as many as it may; Done is to be called
// where there was none.
func (e *Endpoint) Begin() error { return e.begin(Requests) }

// Done ends what Begin began. took is the time from there.
func (e *Endpoint) Done(o Outcome, took time.Duration) { e.done(Requests, o, took) }

// BeginConnection is Begin for a connection that carries no requests that are known here: it counts among the Connections, and
// DoneConnection ends it.
func (e *Endpoint) BeginConnection() error { return e.begin(Connections) }

// DoneConnection is Done for BeginConnection.
func (e *Endpoint) DoneConnection(o Outcome, took time.Duration) { e.done(Connections, o, took) }

func (e *Endpoint) begin(as Resource) error {
	if !e.cluster.Acquire(as) {
		return ErrOverflow
	}
	e.active.Add(1)
	return nil
}

func (e *Endpoint) done(as Resource, o Outcome, took time.Duration) {
	e.active.Add(-1)
	e.cluster.Release(as)
	if o < outcomes {
		e.counts.outcomes[o].Add(1)
	}
	e.counts.nanoseconds.Add(uint64(max(took, 0)))
	e.cluster.observe(e, o)
}

// set changes a flag, and reports whether that made a difference. The cluster's lock is held.
func (e *Endpoint) set(flag uint32, on bool) bool {
	old := e.flags.Load()
	flags := old &^ flag
	if on {
		flags = old | flag
	}
	e.flags.Store(flags)
	return flags != old
}
