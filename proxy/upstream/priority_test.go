package upstream_test

import (
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/upstream"
)

// The tables of Envoy's documentation on priority levels, panic threshold and locality weights.
func TestPriorities(t *testing.T) {
	type part struct{ healthy, all int }
	for _, c := range []struct {
		parts     []part
		threshold int
		want      []int // percent
		panics    bool
	}{
		{[]part{{10, 10}, {10, 10}}, 0, []int{100, 0}, false},
		{[]part{{72, 100}, {100, 100}}, 0, []int{100, 0}, false},
		{[]part{{71, 100}, {1, 100}}, 0, []int{99, 1}, false},
		{[]part{{50, 100}, {50, 100}}, 0, []int{70, 30}, false},
		{[]part{{25, 100}, {100, 100}}, 0, []int{35, 65}, false},
		{[]part{{0, 100}, {100, 100}}, 0, []int{0, 100}, false},
		{[]part{{25, 100}, {25, 100}, {100, 100}}, 0, []int{35, 35, 30}, false},
		{[]part{{20, 100}, {20, 100}, {10, 100}}, 0, []int{34, 33, 33}, true}, // all are in panic: by the number of endpoints
		{[]part{{0, 100}, {0, 300}}, 0, []int{25, 75}, true},
		{[]part{{25, 100}, {25, 100}}, -1, []int{50, 50}, false},
		{[]part{{5, 100}, {65, 100}}, 0, []int{7, 93}, true},   // of which the first 7 % in panic
		{[]part{{60, 100}, {0, 100}}, 0, []int{100, 0}, false}, // the second is in panic, and gets nothing
		{[]part{{0, 10}, {0, 10}, {0, 10}, {0, 10}, {0, 10}, {0, 10}, {0, 10}, {0, 10}}, 0, []int{16, 12, 12, 12, 12, 12, 12, 12}, true},
		{[]part{{0, 0}, {20, 100}, {20, 100}, {10, 100}}, 0, []int{0, 34, 33, 33}, true},
		{[]part{{0, 0}, {10, 10}}, 0, []int{0, 100}, false},
		{[]part{{0, 0}, {0, 10}}, 0, []int{0, 100}, true},
		{[]part{{49, 100}}, 0, []int{100}, true},
		{[]part{{50, 100}}, 0, []int{100}, false},
	} {
		cl, _ := newCluster(t, upstream.Config{HealthyPanicThreshold: c.threshold})
		var all []upstream.LocalityEndpoints
		for p, part := range c.parts {
			all = append(all, at(sick(equal(part.all), part.all-part.healthy), uint32(p), "p", 0))
		}
		update(t, cl, all...)
		const n = 20_000
		got := make([]float64, len(c.parts))
		for address, k := range picks(t, cl, n) {
			for p := range got {
				if strings.HasPrefix(address, fmt.Sprintf("p%d.", p)) {
					got[p] += 100 * float64(k) / n
				}
			}
		}
		for p := range got {
			if math.Abs(got[p]-float64(c.want[p])) > 1.5 || c.want[p] == 0 && got[p] > 0 {
				t.Errorf("%v: got %v, want %v", c.parts, got, c.want)
				break
			}
		}
		if panics := cl.Stats().Panic > 0; panics != c.panics {
			t.Errorf("%v: panic: %v", c.parts, panics)
		}
	}
}

func TestNoPanicNoEndpoint(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{HealthyPanicThreshold: -1})
	update(t, c, sick(equal(3), 3))
	if _, err := c.Pick(upstream.Info{}); !errors.Is(err, upstream.ErrNoEndpoint) {
		t.Errorf("got %v", err)
	}
}

// A hash is of no meaning to policies that don't hash.
func TestHashIsIgnored(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{})
	update(t, c, at(sick(equal(2), 1), 0, "a", 0), at(equal(2), 1, "b", 0))
	got := map[string]bool{}
	for i := range uint64(1000) {
		e, err := c.Pick(upstream.Info{Random: i * 0x9e3779b97f4a7c15, Hash: 1, HasHash: true})
		if err != nil {
			t.Fatal(err)
		}
		got[e.Identity().Address[:1]] = true
	}
	if len(got) != 2 {
		t.Errorf("got %v", got)
	}
}

func TestLocalityWeights(t *testing.T) {
	for _, policy := range policies {
		c, _ := newCluster(t, upstream.Config{Policy: policy, LocalityWeighted: true})
		share := func() map[string]float64 {
			out := map[string]float64{}
			for address, k := range picks(t, c, 20_000) {
				out[address[:1]] += 100 * float64(k) / 20_000
			}
			return out
		}
		check := func(a, b float64) {
			t.Helper()
			slack := 1.5
			if policy == "ring_hash" {
				slack = 8
			}
			if got := share(); math.Abs(got["a"]-a) > slack || math.Abs(got["b"]-b) > slack || got["z"] > 0 {
				t.Errorf("%s: got %v, want %v and %v", policy, got, a, b)
			}
		}
		// 1 to 2, however many endpoints there are; nothing where there is no weight.
		z := at(equal(4), 0, "z", 0)
		update(t, c, at(equal(8), 0, "a", 1), at(equal(2), 0, "b", 2), z)
		check(33.3, 66.7)
		// b has half of its endpoints, which overprovisioned are 70 %: 1 to 1.4.
		update(t, c, at(equal(8), 0, "a", 1), at(sick(equal(2), 1), 0, "b", 2), z)
		check(41.7, 58.3)
		// b has none.
		update(t, c, at(equal(8), 0, "a", 1), at(sick(equal(2), 2), 0, "b", 2), z)
		check(100, 0)
		// In panic, and without any weight, endpoints count and localities don't.
		update(t, c, at(sick(equal(8), 8), 0, "a", 1), at(sick(equal(2), 2), 0, "b", 2))
		check(80, 20)
		update(t, c, at(equal(8), 0, "a", 0), at(equal(2), 0, "b", 0))
		check(80, 20)
	}
	// Two parts of one locality are one.
	c, _ := newCluster(t, upstream.Config{LocalityWeighted: true})
	more := at(equal(3), 0, "a", 7)
	for i := range more.Endpoints {
		more.Endpoints[i].Address += "'"
	}
	update(t, c, at(equal(1), 0, "a", 1), more, at(equal(1), 0, "b", 1))
	if got := picks(t, c, 4000); math.Abs(float64(got["b0.h0"])-2000) > 200 || math.Abs(float64(got["a0.h0"])-500) > 100 {
		t.Errorf("got %v", got)
	}
}
