package upstream_test

import (
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/upstream"
)

func outcomes(e *upstream.Endpoint, all ...upstream.Outcome) {
	for _, o := range all {
		if e.Begin() == nil {
			e.Done(o, time.Millisecond)
		}
	}
}

func times(n int, o upstream.Outcome) []upstream.Outcome {
	all := make([]upstream.Outcome, n)
	for i := range all {
		all[i] = o
	}
	return all
}

func TestConsecutive(t *testing.T) {
	const s, e, g, f, n = upstream.Success, upstream.ServerError, upstream.GatewayError, upstream.ConnectFailure, upstream.NoVerdict
	for name, c := range map[string]struct {
		config   upstream.OutlierDetection
		outcomes []upstream.Outcome
		want     bool
		why      func(upstream.Stats) uint64
	}{
		"five":              {upstream.OutlierDetection{}, times(5, e), true, func(s upstream.Stats) uint64 { return s.Ejections5xx }},
		"four":              {upstream.OutlierDetection{}, times(4, e), false, nil},
		"not in a row":      {upstream.OutlierDetection{}, []upstream.Outcome{e, e, e, e, s, e, e, e, e}, false, nil},
		"no verdict":        {upstream.OutlierDetection{}, []upstream.Outcome{e, e, e, e, n, e}, true, func(s upstream.Stats) uint64 { return s.Ejections5xx }},
		"no verdict, often": {upstream.OutlierDetection{}, append(times(4, e), times(50, n)...), false, nil},
		"no known outcome":  {upstream.OutlierDetection{}, times(50, 99), false, nil},
		"gateway, answered": {upstream.OutlierDetection{ConsecutiveGatewayFailure: 2}, []upstream.Outcome{g, s, g}, false, nil},
		"local, by default": {
			upstream.OutlierDetection{SplitExternalLocalOriginErrors: true},
			times(5, f), true,
			func(s upstream.Stats) uint64 { return s.EjectionsLocalOrigin },
		},
		"local, no verdict": {
			upstream.OutlierDetection{SplitExternalLocalOriginErrors: true},
			[]upstream.Outcome{f, f, f, f, n, f},
			true, func(s upstream.Stats) uint64 { return s.EjectionsLocalOrigin },
		},
		"off":              {upstream.OutlierDetection{Consecutive5xx: -1}, times(50, g), false, nil},
		"local counts":     {upstream.OutlierDetection{}, []upstream.Outcome{f, upstream.Timeout, upstream.Reset, e, g}, true, func(s upstream.Stats) uint64 { return s.Ejections5xx }},
		"gateway":          {upstream.OutlierDetection{ConsecutiveGatewayFailure: 2}, []upstream.Outcome{g, f}, true, func(s upstream.Stats) uint64 { return s.EjectionsGateway }},
		"gateway, not 500": {upstream.OutlierDetection{ConsecutiveGatewayFailure: 2}, []upstream.Outcome{g, e, g}, false, nil},
		"local": {
			upstream.OutlierDetection{SplitExternalLocalOriginErrors: true, ConsecutiveLocalOriginFailure: 3},
			[]upstream.Outcome{f, f, e, f, f, f},
			true, func(s upstream.Stats) uint64 { return s.EjectionsLocalOrigin },
		},
		"local is no 5xx": {upstream.OutlierDetection{SplitExternalLocalOriginErrors: true, ConsecutiveLocalOriginFailure: -1}, times(50, f), false, nil},
		"an answer is no local failure": {
			upstream.OutlierDetection{SplitExternalLocalOriginErrors: true, ConsecutiveLocalOriginFailure: 2},
			[]upstream.Outcome{f, e, f, s, f},
			false, nil,
		},
	} {
		cl, _ := newCluster(t, upstream.Config{OutlierDetection: &c.config})
		update(t, cl, equal(3))
		h := find(t, cl, "h1")
		outcomes(h, c.outcomes...)
		if got := !h.Healthy(); got != c.want || got != h.Stats().Ejected || c.want && c.why(cl.Stats()) != 1 {
			t.Errorf("%s: ejected: %v, %+v", name, got, cl.Stats())
		}
		if got := picks(t, cl, 30)["h1"]; (got == 0) != c.want {
			t.Errorf("%s: picked %d times", name, got)
		}
	}
}

// Each ejection in a row is longer, up to the maximum; good times shorten it again.
func TestEjectionTimes(t *testing.T) {
	c, clock := newCluster(t, upstream.Config{OutlierDetection: &upstream.OutlierDetection{MaxEjectionTime: 70 * time.Second}})
	update(t, c, equal(3))
	h := find(t, c, "h0")
	after := func(d time.Duration) bool {
		clock.t = clock.t.Add(d)
		c.Sweep()
		if got := picks(t, c, 30)["h0"]; (got > 0) != h.Healthy() {
			t.Errorf("picked %d times", got)
		}
		return h.Healthy()
	}
	for _, d := range []time.Duration{30 * time.Second, 60 * time.Second, 70 * time.Second, 70 * time.Second} {
		outcomes(h, times(5, upstream.ServerError)...)
		if h.Healthy() || after(d-time.Nanosecond) || !after(time.Nanosecond) {
			t.Fatalf("an ejection was not for %v", d)
		}
	}
	for range 4 {
		after(time.Second)
	}
	outcomes(h, times(5, upstream.ServerError)...)
	if h.Healthy() || after(30*time.Second-1) || !after(1) {
		t.Error("good times were forgotten")
	}
	// What was counted before does not count after.
	outcomes(h, times(4, upstream.ServerError)...)
	if !h.Healthy() {
		t.Error("ejected after four")
	}
}

func TestMaxEjectionPercent(t *testing.T) {
	for _, c := range []struct{ percent, endpoints, want int }{{0, 20, 2}, {0, 5, 1}, {0, 1, 0}, {50, 5, 2}, {100, 5, 5}, {-1, 5, 0}} {
		cl, _ := newCluster(t, upstream.Config{OutlierDetection: &upstream.OutlierDetection{MaxEjectionPercent: c.percent}})
		update(t, cl, equal(c.endpoints))
		for _, e := range cl.Endpoints() {
			outcomes(e, times(5, upstream.ServerError)...)
		}
		if s := cl.Stats(); s.Endpoints-s.Healthy != c.want || s.EjectionsOverflow != uint64(c.endpoints-c.want) {
			t.Errorf("%+v: got %+v", c, s)
		}
	}
}

func TestEjectionSurvivesUpdate(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{OutlierDetection: &upstream.OutlierDetection{MaxEjectionPercent: 100}})
	update(t, c, equal(3))
	outcomes(find(t, c, "h0"), times(15, upstream.ServerError)...)
	update(t, c, equal(4))
	if got := picks(t, c, 40); got["h0"] != 0 || len(got) != 3 {
		t.Errorf("got %v", got)
	}
	// Of one that left, nothing is ejected any more.
	h := find(t, c, "h1")
	l := equal(4)
	l.Endpoints = append(l.Endpoints[:1], l.Endpoints[2:]...)
	update(t, c, l)
	outcomes(h, times(5, upstream.ServerError)...)
	if c.Stats().Ejections5xx != 1 {
		t.Errorf("one that had left, or one that was ejected, was: %+v", c.Stats())
	}
	// Without outlier detection nothing is swept.
	c, _ = newCluster(t, upstream.Config{})
	update(t, c, equal(1))
	c.Sweep()
	if !find(t, c, "h0").Healthy() {
		t.Error("swept")
	}
}

func TestSuccessRate(t *testing.T) {
	run := func(config upstream.OutlierDetection, endpoints int, failures map[string]int, volume int) *upstream.Cluster {
		config.Consecutive5xx = -1
		c, _ := newCluster(t, upstream.Config{OutlierDetection: &config})
		update(t, c, equal(endpoints))
		for _, e := range c.Endpoints() {
			bad := failures[e.Identity().Address]
			outcomes(e, times(bad, upstream.ServerError)...)
			outcomes(e, times(volume-bad, upstream.Success)...)
		}
		c.Sweep()
		return c
	}
	some := map[string]int{"h0": 2, "h1": 1, "h4": 50}
	if c := run(upstream.OutlierDetection{}, 5, some, 100); c.Stats().EjectionsSuccessRate != 1 || find(t, c, "h4").Healthy() || picks(t, c, 50)["h4"] > 0 {
		t.Errorf("got %+v", c.Stats())
	}
	for name, c := range map[string]*upstream.Cluster{
		"too few endpoints": run(upstream.OutlierDetection{SuccessRateStdevFactor: 1000}, 4, map[string]int{"h0": 50}, 100),
		"too few requests":  run(upstream.OutlierDetection{}, 5, some, 99),
		"off":               run(upstream.OutlierDetection{SuccessRateMinimumHosts: -1}, 5, some, 100),
		"wide":              run(upstream.OutlierDetection{SuccessRateStdevFactor: 3000}, 5, some, 100),
		"all alike":         run(upstream.OutlierDetection{}, 5, map[string]int{"h0": 50, "h1": 50, "h2": 50, "h3": 50, "h4": 50}, 100),
	} {
		if c.Stats().EjectionsSuccessRate != 0 {
			t.Errorf("%s: %+v", name, c.Stats())
		}
	}
	// One that is ejected already is not rated, and then there are too few.
	c, _ := newCluster(t, upstream.Config{OutlierDetection: &upstream.OutlierDetection{Consecutive5xx: 70, MaxEjectionPercent: 100, SuccessRateStdevFactor: 500}})
	update(t, c, equal(5))
	for name, bad := range map[string]int{"h0": 100, "h1": 0, "h2": 0, "h3": 0, "h4": 60} {
		outcomes(find(t, c, name), times(bad, upstream.ServerError)...)
		outcomes(find(t, c, name), times(100-bad, upstream.Success)...)
	}
	c.Sweep()
	if s := c.Stats(); s.EjectionsSuccessRate != 0 || s.Ejections5xx != 1 {
		t.Errorf("got %+v", s)
	}
	// The next interval begins with nothing.
	c = run(upstream.OutlierDetection{}, 5, nil, 60)
	for _, e := range c.Endpoints() {
		outcomes(e, times(50, upstream.Success)...)
	}
	outcomes(find(t, c, "h4"), times(49, upstream.ServerError)...)
	c.Sweep()
	if c.Stats().EjectionsSuccessRate != 0 {
		t.Error("counts of the interval before")
	}
}
