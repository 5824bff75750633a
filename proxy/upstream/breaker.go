package upstream

import (
	"math"
	"strconv"
	"sync/atomic"
)

// CircuitBreakers bound what a cluster has to do at once. Negative is no bound.
type CircuitBreakers struct {
	MaxConnections     int          `yaml:"max_connections,negative=unlimited"`      // open at once: a request that needs a further one is refused, and does not wait for one of them, default 1024
	MaxPendingRequests int          `yaml:"max_pending_requests,negative=unlimited"` // that wait for a connection that is being made, default 1024
	MaxRequests        int          `yaml:"max_requests,negative=unlimited"`         // under way at once, default 1024
	MaxRetries         int          `yaml:"max_retries,negative=unlimited"`          // under way at once; does not count where there is a RetryBudget, default 3
	RetryBudget        *RetryBudget `yaml:"retry_budget"`                            // bounds retries by what else goes on
}

// RetryBudget allows retries up to a part of the active and pending requests.
type RetryBudget struct {
	Percent             float64 `yaml:"budget_percent"`        // of them, default 20
	MinRetryConcurrency int     `yaml:"min_retry_concurrency"` // so many in any case, default 3
}

func (c *CircuitBreakers) complete(k *checker) {
	const at, most = "circuit_breakers.", math.MaxInt
	k.number(at+"max_connections", &c.MaxConnections, 1024, math.MinInt, most)
	k.number(at+"max_pending_requests", &c.MaxPendingRequests, 1024, math.MinInt, most)
	k.number(at+"max_requests", &c.MaxRequests, 1024, math.MinInt, most)
	k.number(at+"max_retries", &c.MaxRetries, 3, math.MinInt, most)
	if c.RetryBudget == nil {
		return
	}
	b := *c.RetryBudget
	c.RetryBudget = &b
	k.number(at+"retry_budget.min_retry_concurrency", &b.MinRetryConcurrency, 3, 1, most)
	if b.Percent == 0 {
		b.Percent = 20
	}
	if !(b.Percent > 0 && b.Percent <= 100) {
		k.bad(at+"retry_budget.budget_percent", strconv.FormatFloat(b.Percent, 'g', -1, 64), "above 0, at most 100")
	}
}

// Resource is what a circuit breaker counts.
type Resource uint8

// The resources. Begin and Done count Requests, BeginConnection and DoneConnection Connections.
const (
	Connections Resource = iota
	Pending
	Requests
	Retries
	resources
)

type breaker struct {
	limits   [resources]int64
	budget   *RetryBudget
	used     [resources]atomic.Int64
	overflow [resources]atomic.Uint64
}

func (b *breaker) configure(c CircuitBreakers) {
	for r, limit := range [resources]int{c.MaxConnections, c.MaxPendingRequests, c.MaxRequests, c.MaxRetries} {
		if b.limits[r] = int64(limit); limit < 0 {
			b.limits[r] = math.MaxInt64
		}
	}
	b.budget = c.RetryBudget
}

// Acquire takes one of r, which Release gives back, and reports whether there was one left.
func (c *Cluster) Acquire(r Resource) bool {
	b := &c.breaker
	limit := b.limits[r]
	if r == Retries && b.budget != nil {
		busy := b.used[Requests].Load() + b.used[Pending].Load()
		limit = max(int64(b.budget.MinRetryConcurrency), int64(b.budget.Percent*float64(busy)/100))
	}
	if b.used[r].Add(1) > limit {
		b.used[r].Add(-1)
		b.overflow[r].Add(1)
		return false
	}
	return true
}

// Release gives back what Acquire took.
func (c *Cluster) Release(r Resource) { c.breaker.used[r].Add(-1) }
