package upstream_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// clock is a time that tests move.
type clock struct{ t time.Time }

func (c *clock) now() time.Time { return c.t }

func newCluster(t testing.TB, config upstream.Config) (*upstream.Cluster, *clock) {
	t.Helper()
	at := &clock{time.Unix(1_000_000, 0)}
	c, err := upstream.New(config, at.now, rand.New(rand.NewPCG(1, 2)).Uint64)
	if err != nil {
		t.Fatal(err)
	}
	return c, at
}

// hosts makes endpoints h0, h1 … of one locality, with these weights.
func hosts(weights ...uint32) upstream.LocalityEndpoints {
	var l upstream.LocalityEndpoints
	for i, w := range weights {
		l.Endpoints = append(l.Endpoints, upstream.EndpointConfig{Identity: upstream.Identity{Address: fmt.Sprintf("h%d", i)}, Weight: w})
	}
	return l
}

func equal(n int) upstream.LocalityEndpoints { return hosts(make([]uint32, n)...) }

// sick makes the first n of them unhealthy.
func sick(l upstream.LocalityEndpoints, n int) upstream.LocalityEndpoints {
	for i := range n {
		l.Endpoints[i].Unhealthy = true
	}
	return l
}

// at moves them to a priority and a locality, and renames them.
func at(l upstream.LocalityEndpoints, priority uint32, locality string, weight uint32) upstream.LocalityEndpoints {
	l.Priority, l.Locality, l.Weight = priority, locality, weight
	for i := range l.Endpoints {
		l.Endpoints[i].Address = fmt.Sprintf("%s%d.%s", locality, priority, l.Endpoints[i].Address)
	}
	return l
}

func update(t testing.TB, c *upstream.Cluster, l ...upstream.LocalityEndpoints) []*upstream.Endpoint {
	t.Helper()
	left, err := c.Update(l)
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// picks counts n picks by address.
func picks(t testing.TB, c *upstream.Cluster, n int) map[string]int {
	t.Helper()
	random, got := rand.New(rand.NewPCG(3, 4)), map[string]int{}
	for range n {
		e, err := c.Pick(upstream.Info{Random: random.Uint64()})
		if err != nil {
			t.Fatal(err)
		}
		got[e.Identity().Address]++
	}
	return got
}

func find(t testing.TB, c *upstream.Cluster, address string) *upstream.Endpoint {
	t.Helper()
	for _, e := range c.Endpoints() {
		if e.Identity().Address == address {
			return e
		}
	}
	t.Fatalf("no endpoint %s", address)
	return nil
}

func TestUpdate(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{Name: "n"})
	if _, err := c.Pick(upstream.Info{}); !errors.Is(err, upstream.ErrNoEndpoint) || c.Stats().NoEndpoint != 1 || c.Name() != "n" {
		t.Errorf("got %v", err)
	}
	update(t, c, equal(3))
	h1, h2 := find(t, c, "h1"), find(t, c, "h2")
	if err := h1.Begin(); err != nil {
		t.Fatal(err)
	}
	// h2 leaves, h1 stays with another weight and priority, and another way to h1 is another endpoint.
	l := equal(2)
	l.Endpoints[1].Weight, l.Priority = 9, 1
	other := l.Endpoints[1]
	other.Transport = "tls"
	l.Endpoints = append(l.Endpoints, other, l.Endpoints[0])
	left := update(t, c, l)
	if len(left) != 1 || left[0] != h2 || !h2.Removed() || h2.Healthy() || h1.Removed() || find(t, c, "h1") != h1 || len(c.Endpoints()) != 3 {
		t.Errorf("left: %v", left)
	}
	h1.Done(upstream.Success, time.Second)
	if h1.Begin() == nil {
		h1.Done(99, -time.Second) // what is not known says nothing
	}
	if s := h1.Stats(); s.Success != 1 || s.Nanoseconds != 1e9 || s.Active != 0 {
		t.Errorf("got %+v", s)
	}
	// One that comes back is a new one.
	update(t, c, equal(3))
	if find(t, c, "h2") == h2 {
		t.Error("a removed endpoint came back")
	}
	for _, bad := range []struct {
		l     upstream.LocalityEndpoints
		place string
	}{{upstream.LocalityEndpoints{Priority: 128}, "endpoints[1].priority"}, {upstream.LocalityEndpoints{Endpoints: make([]upstream.EndpointConfig, 1)}, "endpoints[1].endpoints[0].address"}} {
		var e *attest.Error
		if _, err := c.Update([]upstream.LocalityEndpoints{{}, bad.l}); !errors.As(err, &e) || e.Subject != bad.place || len(c.Endpoints()) != 3 {
			t.Errorf("want %s, got %v", bad.place, err)
		}
	}
}

func TestConfigErrors(t *testing.T) {
	health := func(h upstream.HealthCheck) upstream.Config { return upstream.Config{HealthCheck: &h} }
	outlier := func(o upstream.OutlierDetection) upstream.Config { return upstream.Config{OutlierDetection: &o} }
	for _, c := range []struct {
		config upstream.Config
		place  string
	}{
		{upstream.Config{Policy: "best"}, "lb_policy"},
		{upstream.Config{Policy: "least_request", ChoiceCount: 1}, "choice_count"},
		{upstream.Config{Policy: "least_request", ChoiceCount: 1, TableSize: 251}, "table_size"},
		{upstream.Config{Policy: "ring_hash", MinimumRingSize: -1}, "minimum_ring_size"},
		{upstream.Config{Policy: "ring_hash", MinimumRingSize: 2048, MaximumRingSize: 1024}, "maximum_ring_size"},
		{upstream.Config{Policy: "maglev", TableSize: 65536}, "table_size"},
		{upstream.Config{Policy: "maglev", TableSize: 5_000_017}, "table_size"},
		{upstream.Config{ChoiceCount: 3}, "choice_count"},
		{upstream.Config{Policy: "maglev", MinimumRingSize: 1024}, "minimum_ring_size"},
		{upstream.Config{Policy: "random", MaximumRingSize: 1024}, "maximum_ring_size"},
		{upstream.Config{Policy: "ring_hash", TableSize: 251}, "table_size"},
		{upstream.Config{HealthyPanicThreshold: 101}, "healthy_panic_threshold"},
		{upstream.Config{OverprovisioningFactor: 99}, "overprovisioning_factor"},
		{upstream.Config{CircuitBreakers: upstream.CircuitBreakers{RetryBudget: &upstream.RetryBudget{Percent: 101}}}, "circuit_breakers.retry_budget.budget_percent"},
		{upstream.Config{CircuitBreakers: upstream.CircuitBreakers{RetryBudget: &upstream.RetryBudget{Percent: -1}}}, "circuit_breakers.retry_budget.budget_percent"},
		{upstream.Config{CircuitBreakers: upstream.CircuitBreakers{RetryBudget: &upstream.RetryBudget{MinRetryConcurrency: -1}}}, "circuit_breakers.retry_budget.min_retry_concurrency"},
		{health(upstream.HealthCheck{}), "health_check.kind"},
		{health(upstream.HealthCheck{Kind: "http"}), "health_check.path"},
		{health(upstream.HealthCheck{Kind: "http", Path: "/ x"}), "health_check.path"},
		{health(upstream.HealthCheck{Kind: "tcp", Path: "/"}), "health_check.path"},
		{health(upstream.HealthCheck{Kind: "http", Path: "/", ExpectedStatuses: []upstream.Status{{200, 200}}}), "health_check.expected_statuses[0]"},
		{health(upstream.HealthCheck{Kind: "http", Path: "/\x7f"}), "health_check.path"},
		{health(upstream.HealthCheck{Kind: "grpc", ExpectedStatuses: []upstream.Status{{200, 201}}}), "health_check.path"},
		{health(upstream.HealthCheck{Kind: "http", Path: "/", ExpectedStatuses: []upstream.Status{{200, 201}, {99, 201}}}), "health_check.expected_statuses[1]"},
		{health(upstream.HealthCheck{Kind: "http", Path: "/", ExpectedStatuses: []upstream.Status{{500, 601}}}), "health_check.expected_statuses[0]"},
		{health(upstream.HealthCheck{Kind: "tcp", Timeout: -1}), "health_check.timeout"},
		{health(upstream.HealthCheck{Kind: "tcp", Interval: -1}), "health_check.interval"},
		{health(upstream.HealthCheck{Kind: "tcp", UnhealthyInterval: -1}), "health_check.unhealthy_interval"},
		{health(upstream.HealthCheck{Kind: "grpc", IntervalJitter: -1}), "health_check.interval_jitter"},
		{health(upstream.HealthCheck{Kind: "tcp", HealthyThreshold: -1}), "health_check.healthy_threshold"},
		{health(upstream.HealthCheck{Kind: "tcp", UnhealthyThreshold: -1}), "health_check.unhealthy_threshold"},
		{outlier(upstream.OutlierDetection{Interval: -1}), "outlier_detection.interval"},
		{outlier(upstream.OutlierDetection{BaseEjectionTime: -1}), "outlier_detection.base_ejection_time"},
		{outlier(upstream.OutlierDetection{MaxEjectionTime: time.Second}), "outlier_detection.max_ejection_time"},
		{outlier(upstream.OutlierDetection{MaxEjectionPercent: 101}), "outlier_detection.max_ejection_percent"},
		{outlier(upstream.OutlierDetection{SuccessRateStdevFactor: -1}), "outlier_detection.success_rate_stdev_factor"},
		{outlier(upstream.OutlierDetection{SuccessRateRequestVolume: -1}), "outlier_detection.success_rate_request_volume"},
		{outlier(upstream.OutlierDetection{SuccessRateMinimumHosts: -2}), "outlier_detection.success_rate_minimum_hosts"},
	} {
		var e *attest.Error
		if _, err := upstream.New(c.config, time.Now, rand.Uint64); !errors.As(err, &e) || e.Code != attest.CodeConfigValue || e.Subject != c.place {
			t.Errorf("want %s, got %v", c.place, err)
		}
	}
}

func TestTriedAreAvoided(t *testing.T) {
	for _, policy := range []string{"round_robin", "least_request", "random", "ring_hash", "maglev"} {
		c, _ := newCluster(t, upstream.Config{Policy: policy})
		update(t, c, equal(4))
		all := c.Endpoints()
		again, random := 0, rand.New(rand.NewPCG(5, 6))
		for range 1000 {
			hash := random.Uint64()
			e, err := c.Pick(upstream.Info{Random: random.Uint64(), Hash: hash, HasHash: true, Tried: all[:2], Attempts: 5})
			if err != nil {
				t.Fatal(err)
			}
			if slices.Contains(all[:2], e) {
				again++
			}
		}
		if again > 40 { // 1000 / 2⁶ are expected of a random choice
			t.Errorf("%s: %d times one that was tried", policy, again)
		}
		if e, err := c.Pick(upstream.Info{Tried: all, Attempts: 2}); e == nil || err != nil {
			t.Errorf("%s: got %v", policy, err)
		}
	}
}

func TestCircuitBreakers(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{CircuitBreakers: upstream.CircuitBreakers{MaxConnections: 1, MaxPendingRequests: 2, MaxRequests: -1}})
	update(t, c, equal(1))
	for r, want := range map[upstream.Resource]int{upstream.Connections: 1, upstream.Pending: 2, upstream.Retries: 3} {
		for i := range want + 1 {
			if got := c.Acquire(r); got != (i < want) {
				t.Errorf("%d: the one after %d: %v", r, i, got)
			}
		}
		if c.Release(r); !c.Acquire(r) {
			t.Errorf("%d: nothing was given back", r)
		}
	}
	e := find(t, c, "h0")
	for range 2000 {
		if err := e.Begin(); err != nil {
			t.Fatal(err)
		}
	}
	if s := c.Stats(); s.Connections != 1 || s.Pending != 2 || s.Retries != 3 || s.Requests != 2000 || s.ConnectionsOverflow != 1 || s.PendingOverflow != 1 || s.RetriesOverflow != 1 || s.RequestsOverflow != 0 {
		t.Errorf("got %+v", s)
	}

	c, _ = newCluster(t, upstream.Config{})
	for r, want := range map[upstream.Resource]int{upstream.Connections: 1024, upstream.Pending: 1024, upstream.Requests: 1024, upstream.Retries: 3} {
		n := 0
		for c.Acquire(r) {
			n++
		}
		if n != want {
			t.Errorf("%d: %d by default", r, n)
		}
	}

	c, _ = newCluster(t, upstream.Config{CircuitBreakers: upstream.CircuitBreakers{RetryBudget: &upstream.RetryBudget{}}})
	update(t, c, equal(1))
	e = find(t, c, "h0")
	retries := func() (n int) {
		for c.Acquire(upstream.Retries) {
			n++
		}
		for range n {
			c.Release(upstream.Retries)
		}
		return n
	}
	if got := retries(); got != 3 {
		t.Errorf("idle: %d retries", got)
	}
	for range 1024 {
		if err := e.Begin(); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.Begin(); !errors.Is(err, upstream.ErrOverflow) || e.Active() != 1024 || c.Stats().RequestsOverflow != 1 {
		t.Errorf("got %v", err)
	}
	c.Acquire(upstream.Pending)
	if got := retries(); got != 205 { // a fifth of 1025
		t.Errorf("busy: %d retries", got)
	}
}

func TestOutcomeOf(t *testing.T) {
	for status, want := range map[int]upstream.Outcome{
		200: upstream.Success, 404: upstream.Success, 499: upstream.Success, 500: upstream.ServerError, 501: upstream.ServerError,
		502: upstream.GatewayError, 504: upstream.GatewayError, 505: upstream.ServerError, 599: upstream.ServerError,
	} {
		if got := upstream.OutcomeOf(status); got != want {
			t.Errorf("%d: got %d", status, got)
		}
	}
}

// TestBeside: an endpoint that is none of the cluster's is bounded as those are, and nobody picks it.
func TestBeside(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{Name: "c", CircuitBreakers: upstream.CircuitBreakers{MaxRequests: 1}, OutlierDetection: &upstream.OutlierDetection{Consecutive5xx: 1}})
	e := c.Beside(upstream.Identity{Address: "192.0.2.1:1"})
	if e.Identity().Address != "192.0.2.1:1" || !e.Healthy() || e.Removed() || len(c.Endpoints()) != 0 {
		t.Errorf("got %+v", e.Identity())
	}
	if _, err := c.Pick(upstream.Info{}); !errors.Is(err, upstream.ErrNoEndpoint) {
		t.Errorf("picked: %v", err)
	}
	if err := e.Begin(); err != nil {
		t.Fatal(err)
	}
	if err := e.Begin(); !errors.Is(err, upstream.ErrOverflow) {
		t.Errorf("more than one: %v", err)
	}
	e.Done(upstream.ServerError, time.Second)
	if err := e.Begin(); err != nil || !e.Healthy() {
		t.Errorf("after a failure: %v, healthy %v", err, e.Healthy())
	}
	e.Done(upstream.Success, time.Second)
}
