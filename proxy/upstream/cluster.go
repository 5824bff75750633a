package upstream

import (
	"errors"
	"fmt"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Errors of Pick and Begin: 503 (Service Unavailable).
var (
	ErrNoEndpoint = errors.New("upstream: the cluster has no endpoint to go to")
	ErrOverflow   = errors.New("upstream: the cluster has as much to do as its circuit breaker allows")
)

// Cluster is a set of endpoints that do the same.
type Cluster struct {
	config   Config
	now      func() time.Time
	random   func() uint64
	snapshot atomic.Pointer[snapshot]
	breaker  breaker
	stats    clusterCounts

	mu      sync.Mutex // for what follows, for writing flags and for replacing the snapshot
	members []member
	byID    map[Identity]*Endpoint
	wake    chan struct{} // the health checker has something to do
}

// member is an endpoint in its place.
type member struct {
	*Endpoint
	weight   uint32
	priority uint32
	locality int    // where it is: the index of its first part
	share    uint32 // the locality's weight
	where    string // the locality's name
}

// Placed is an endpoint with the place that it has.
type Placed struct {
	*Endpoint
	Locality         string
	Weight, Priority uint32
}

// New makes a cluster without endpoints. random is called under the cluster's lock. The error is an *attest.Error whose
// Subject is the place of a value that is not allowed.
func New(config Config, now func() time.Time, random func() uint64) (*Cluster, error) {
	config, err := config.complete()
	if err != nil {
		return nil, err
	}
	c := &Cluster{config: config, now: now, random: random, byID: map[Identity]*Endpoint{}, wake: make(chan struct{}, 1)}
	c.breaker.configure(config.CircuitBreakers)
	c.snapshot.Store(&snapshot{})
	return c, nil
}

// Name is the configured one.
func (c *Cluster) Name() string { return c.config.Name }

// Update replaces the endpoints. Those whose Identity stays keep everything that is known of them; of two with one
// Identity the first counts. It answers the endpoints that left. An *attest.Error names what is not allowed; nothing has
// changed then.
func (c *Cluster) Update(localities []LocalityEndpoints) (left []*Endpoint, err error) {
	var k checker
	for i, l := range localities {
		if l.Priority > MaxPriority {
			k.bad(fmt.Sprintf("endpoints[%d].priority", i), strconv.FormatUint(uint64(l.Priority), 10), "0 to 127")
		}
		for j, e := range l.Endpoints {
			if e.Address == "" {
				k.bad(fmt.Sprintf("endpoints[%d].endpoints[%d].address", i, j), `""`, "an address")
			}
		}
	}
	if k.err != nil {
		return nil, k.err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	old := c.byID
	c.byID = make(map[Identity]*Endpoint, len(old))
	c.members = nil
	type place struct {
		locality string
		priority uint32
	}
	places := map[place]int{}
	for i, l := range localities {
		at, ok := places[place{l.Locality, l.Priority}]
		if !ok {
			at = i
			places[place{l.Locality, l.Priority}] = i
		}
		for _, configured := range l.Endpoints {
			if c.byID[configured.Identity] != nil {
				continue
			}
			e := old[configured.Identity]
			if e == nil {
				e = &Endpoint{id: configured.Identity, hash: configured.sum(), cluster: c}
				e.set(failedCheck, c.config.HealthCheck != nil)
			}
			e.set(saidSo, configured.Unhealthy)
			c.byID[configured.Identity] = e
			c.members = append(c.members, member{e, max(configured.Weight, 1), l.Priority, at, localities[at].Weight, l.Locality})
		}
	}
	for id, e := range old {
		if c.byID[id] == nil {
			e.set(removed, true)
			left = append(left, e)
		}
	}
	c.rebuild()
	c.awake()
	return left, nil
}

// Endpoints answers those of the cluster now.
func (c *Cluster) Endpoints() []*Endpoint {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]*Endpoint, len(c.members))
	for i, m := range c.members {
		all[i] = m.Endpoint
	}
	return all
}

// Placed answers the endpoints of the cluster now, and their places.
func (c *Cluster) Placed() []Placed {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := make([]Placed, len(c.members))
	for i, m := range c.members {
		all[i] = Placed{m.Endpoint, m.where, m.weight, m.priority}
	}
	return all
}

// Appraised keeps what the endpoint of that identity has proved last, if there is one.
func (c *Cluster) Appraised(id Identity, r *attest.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e := c.byID[id]; e != nil {
		e.proof.Store(r)
	}
}

// rebuild makes the snapshot anew. The lock is held.
func (c *Cluster) rebuild() { c.snapshot.Store(build(&c.config, c.members, c.random())) }

func (c *Cluster) awake() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}
