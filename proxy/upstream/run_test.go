package upstream_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// prober answers what it was told to, and counts.
type prober struct {
	mu    sync.Mutex
	down  map[string]bool
	asked map[string][]time.Duration // since the start
	start time.Time
	hang  time.Duration
}

func (p *prober) Probe(ctx context.Context, e *upstream.Endpoint, check *upstream.HealthCheck) error {
	if check.Kind == "http" && !check.Expected(200) {
		return errors.New("200 was not expected")
	}
	p.mu.Lock()
	name, down, hang := e.Identity().Address, p.down[e.Identity().Address], p.hang
	p.asked[name] = append(p.asked[name], time.Since(p.start))
	p.mu.Unlock()
	if hang > 0 {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(hang):
		}
	}
	if down {
		return errors.New("down")
	}
	return nil
}

func (p *prober) set(name string, down bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.down[name] = down
}

func (p *prober) times(name string) []time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.asked[name])
}

func running(t *testing.T, config upstream.Config, f func(*upstream.Cluster, *prober)) {
	synctest.Test(t, func(t *testing.T) {
		c, err := upstream.New(config, time.Now, rand.New(rand.NewPCG(1, 2)).Uint64)
		if err != nil {
			t.Fatal(err)
		}
		p := &prober{down: map[string]bool{}, asked: map[string][]time.Duration{}, start: time.Now()}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { c.Run(ctx, p); close(done) }()
		f(c, p)
		cancel()
		<-done
	})
}

func pass(d time.Duration) {
	time.Sleep(d) // virtual
	synctest.Wait()
}

func TestNotHealthyBeforeTheFirstCheck(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{HealthCheck: &upstream.HealthCheck{Kind: "tcp"}})
	update(t, c, equal(1))
	if e := find(t, c, "h0"); e.Healthy() || !e.Stats().FailedCheck {
		t.Error("healthy before the first check")
	}
}

func TestHealthChecks(t *testing.T) {
	running(t, upstream.Config{HealthCheck: &upstream.HealthCheck{Kind: "tcp", UnhealthyInterval: 2 * time.Second}}, func(c *upstream.Cluster, p *prober) {
		p.set("h1", true)
		update(t, c, equal(2))
		h0, h1 := find(t, c, "h0"), find(t, c, "h1")
		pass(0)
		if !h0.Healthy() || h1.Healthy() || !h1.Stats().FailedCheck { // one pass is enough at first
			t.Errorf("after the first check: %+v", c.Stats())
		}
		pass(4 * time.Second)
		if got := p.times("h1"); !slices.Equal(got, []time.Duration{0, 2 * time.Second, 4 * time.Second}) {
			t.Errorf("h1 was asked at %v", got)
		}
		if got := p.times("h0"); len(got) != 1 {
			t.Errorf("h0 was asked at %v", got)
		}
		// Two passes in a row bring it back, three failures end it.
		p.set("h1", false)
		p.set("h0", true)
		pass(2 * time.Second)
		if h1.Healthy() {
			t.Error("healthy after one pass")
		}
		pass(2 * time.Second)
		if !h1.Healthy() {
			t.Error("not healthy after two passes")
		}
		pass(8 * time.Second) // 16 s: h0 failed at 5, 10 and 15
		if h0.Healthy() || !slices.Equal(p.times("h0"), []time.Duration{0, 5 * time.Second, 10 * time.Second, 15 * time.Second}) {
			t.Errorf("h0 was asked at %v", p.times("h0"))
		}
		if got := picks(t, c, 10); got["h1"] != 10 {
			t.Errorf("got %v", got)
		}
		// A new endpoint is checked at once, one that left no more.
		update(t, c, equal(3))
		pass(0)
		if !find(t, c, "h2").Healthy() {
			t.Error("h2 was not checked at once")
		}
		update(t, c, hosts(1))
		n := len(p.times("h1"))
		pass(time.Minute)
		if len(p.times("h1")) != n {
			t.Error("an endpoint that left was checked")
		}
		if s := c.Stats(); s.ChecksPassed == 0 || s.ChecksFailed == 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestHealthThresholdsAreInARow(t *testing.T) {
	running(t, upstream.Config{HealthCheck: &upstream.HealthCheck{Kind: "grpc"}}, func(c *upstream.Cluster, p *prober) {
		update(t, c, equal(1))
		pass(time.Second)
		for _, down := range []bool{true, true, false, true, true, false} {
			p.set("h0", down)
			if pass(5 * time.Second); !find(t, c, "h0").Healthy() {
				t.Fatal("failed without three failures in a row")
			}
		}
	})
}

func TestHealthTimeoutAndJitter(t *testing.T) {
	running(t, upstream.Config{HealthCheck: &upstream.HealthCheck{Kind: "http", Path: "/", Interval: time.Second, IntervalJitter: time.Second}}, func(c *upstream.Cluster, p *prober) {
		update(t, c, equal(1))
		pass(100 * time.Second)
		at := p.times("h0")
		different := map[time.Duration]bool{}
		for i := range len(at) - 1 {
			d := at[i+1] - at[i]
			different[d] = true
			if d < time.Second || d > 2*time.Second {
				t.Fatalf("from one check to the next: %v", d)
			}
		}
		if !find(t, c, "h0").Healthy() || len(at) < 50 || len(different) < 10 {
			t.Errorf("%d checks, %d different intervals", len(at), len(different))
		}
		// Checks that run out of time fail, one at a time.
		p.mu.Lock()
		p.hang = time.Hour
		p.mu.Unlock()
		if pass(20 * time.Second); find(t, c, "h0").Healthy() {
			t.Error("a check without an answer passed")
		}
	})
}

// A check that this side broke off says nothing of the endpoint.
func TestRunEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c, err := upstream.New(upstream.Config{HealthCheck: &upstream.HealthCheck{Kind: "tcp", Timeout: time.Hour}}, time.Now, rand.Uint64)
		if err != nil {
			t.Fatal(err)
		}
		update(t, c, equal(2))
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		c.Run(ctx, &prober{asked: map[string][]time.Duration{}, hang: time.Hour})
		if s := c.Stats(); s.ChecksFailed != 0 {
			t.Errorf("got %+v", s)
		}
	})
}

func TestExpectedStatuses(t *testing.T) {
	h := upstream.HealthCheck{ExpectedStatuses: []upstream.Status{{200, 300}, {404, 405}}}
	for status, want := range map[int]bool{199: false, 200: true, 299: true, 300: false, 404: true, 405: false} {
		if h.Expected(status) != want {
			t.Errorf("%d", status)
		}
	}
}

func TestRunSweeps(t *testing.T) {
	running(t, upstream.Config{OutlierDetection: &upstream.OutlierDetection{}}, func(c *upstream.Cluster, _ *prober) {
		update(t, c, equal(3))
		pass(time.Second)
		h := find(t, c, "h0")
		outcomes(h, times(5, upstream.ServerError)...)
		if pass(38 * time.Second); h.Healthy() { // it is over at 31 s, and noticed at 40 s
			t.Error("back too early")
		}
		if pass(time.Second); !h.Healthy() {
			t.Error("not back")
		}
	})
}

type resolver struct {
	mu      sync.Mutex
	answers map[string][]netip.Addr // none is an error
	empty   bool
	broken  bool
	asked   []time.Duration
	network string
	start   time.Time
	updates int // one at a time
}

func (r *resolver) LookupNetIP(_ context.Context, network, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.network = network
	r.asked = append(r.asked, time.Since(r.start))
	if r.broken {
		return []netip.Addr{netip.IPv6Loopback()}, errors.New("half an answer")
	}
	if a := r.answers[host]; a != nil || r.empty {
		return a, nil
	}
	return nil, errors.New("no such host")
}

func (r *resolver) times() []time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.asked)
}

func (r *resolver) asks() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.network
}

func (r *resolver) set(host string, addresses ...string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[host] = nil
	for _, a := range addresses {
		r.answers[host] = append(r.answers[host], netip.MustParseAddr(a))
	}
}

func resolving(t *testing.T, config upstream.DNS, f func(*upstream.Cluster, *resolver)) {
	synctest.Test(t, func(t *testing.T) {
		c, err := upstream.New(upstream.Config{}, time.Now, rand.New(rand.NewPCG(1, 2)).Uint64)
		if err != nil {
			t.Fatal(err)
		}
		r := &resolver{answers: map[string][]netip.Addr{}, start: time.Now()}
		d, err := upstream.NewResolution(config, r, rand.New(rand.NewPCG(3, 4)).Uint64, func(l []upstream.LocalityEndpoints) {
			r.updates++
			if _, err := c.Update(l); err != nil {
				t.Error(err)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { d.Run(ctx); close(done) }()
		f(c, r)
		cancel()
		<-done
	})
}

func addresses(c *upstream.Cluster) (all []string) {
	for _, e := range c.Endpoints() {
		all = append(all, e.Identity().Address)
	}
	slices.Sort(all)
	return all
}

func TestDNS(t *testing.T) {
	names := []upstream.DNSName{{Host: "a", Port: 80}, {Host: "b", Port: 443, Weight: 3, Priority: 1}}
	resolving(t, upstream.DNS{Names: names}, func(c *upstream.Cluster, r *resolver) {
		r.set("a", "192.0.2.2", "::ffff:192.0.2.1", "192.0.2.1")
		pass(0)
		// One name without an answer does not hold up the other.
		if got := addresses(c); !slices.Equal(got, []string{"192.0.2.1:80", "192.0.2.2:80"}) || r.asks() != "ip" {
			t.Errorf("got %v", got)
		}
		kept := find(t, c, "192.0.2.2:80")
		if kept.Identity().Hostname != "a" {
			t.Errorf("got %+v", kept.Identity())
		}
		r.set("a", "192.0.2.2", "192.0.2.3")
		r.set("b", "2001:db8::1")
		pass(10 * time.Second)
		if got := addresses(c); !slices.Equal(got, []string{"192.0.2.2:80", "192.0.2.3:80", "[2001:db8::1]:443"}) || find(t, c, "192.0.2.2:80") != kept {
			t.Errorf("got %v", got)
		}
		// Without answers, and with empty ones, what was known stays.
		r.set("a")
		r.set("b")
		pass(time.Minute)
		r.mu.Lock()
		r.empty = true
		r.mu.Unlock()
		pass(time.Minute)
		if got := addresses(c); len(got) != 3 {
			t.Errorf("got %v", got)
		}
		if r.updates != 3 {
			t.Errorf("%d updates without news", r.updates)
		}
		r.mu.Lock()
		r.broken = true
		r.mu.Unlock()
		pass(time.Minute)
		if got := addresses(c); len(got) != 3 {
			t.Errorf("got %v", got)
		}
		r.mu.Lock()
		r.broken = false
		r.mu.Unlock()
		// And news is noticed, at the latest after the longest wait.
		r.set("a", "192.0.2.9")
		pass(50 * time.Second)
		if got := addresses(c); !slices.Equal(got, []string{"192.0.2.9:80", "[2001:db8::1]:443"}) {
			t.Errorf("got %v", got)
		}
	})
}

func TestDNSIntervals(t *testing.T) {
	one := []upstream.DNSName{{Host: "a", Port: 80}}
	resolving(t, upstream.DNS{Names: one, Family: "v4_only"}, func(_ *upstream.Cluster, r *resolver) {
		r.set("a", "192.0.2.1")
		pass(16 * time.Second)
		if !slices.Equal(r.times(), []time.Duration{0, 5 * time.Second, 10 * time.Second, 15 * time.Second}) || r.asks() != "ip4" {
			t.Errorf("asked at %v for %s", r.times(), r.asks())
		}
	})
	resolving(t, upstream.DNS{Names: one, RefreshRate: 10 * time.Second, Jitter: 5 * time.Second, FailureBase: time.Second, FailureMax: 6 * time.Second}, func(_ *upstream.Cluster, r *resolver) {
		pass(100 * time.Second) // it fails
		asked := r.times()
		for i := range len(asked) - 1 {
			d, most := asked[i+1]-asked[i], min(time.Second<<min(i, 10), 6*time.Second)
			if d < most/2 || d > most {
				t.Errorf("failure %d: waited %v, at most %v", i+1, d, most)
			}
		}
		r.set("a", "192.0.2.1")
		pass(10 * time.Second)
		n := len(r.times())
		pass(100 * time.Second)
		asked = r.times()
		for i := n; i < len(asked)-1; i++ {
			if d := asked[i+1] - asked[i]; d < 10*time.Second || d > 15*time.Second {
				t.Errorf("waited %v", d)
			}
		}
	})
}

func TestDNSErrors(t *testing.T) {
	for place, config := range map[string]upstream.DNS{
		"names[1].host":             {Names: []upstream.DNSName{{Host: "a", Port: 1}, {Port: 1}}},
		"names[0].port":             {Names: []upstream.DNSName{{Host: "a"}}},
		"names[0].priority":         {Names: []upstream.DNSName{{Host: "a", Port: 1, Priority: 128}}},
		"dns_refresh_rate":          {RefreshRate: -1},
		"dns_jitter":                {Jitter: -1},
		"dns_failure_base_interval": {FailureBase: -1},
		"dns_failure_max_interval":  {FailureMax: 1},
		"dns_timeout":               {Timeout: -1},
		"dns_lookup_family":         {Family: "v5"},
	} {
		var e *attest.Error
		if _, err := upstream.NewResolution(config, nil, nil, nil); !errors.As(err, &e) || e.Subject != place {
			t.Errorf("want %s, got %v", place, err)
		}
	}
}
