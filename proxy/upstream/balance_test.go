package upstream_test

import (
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/upstream"
)

var policies = []string{"round_robin", "least_request", "random", "ring_hash", "maglev"}

// Each endpoint gets the part that its weight says, by every policy.
func TestWeights(t *testing.T) {
	for _, policy := range policies {
		for _, weights := range [][]uint32{{1}, {1, 1, 1}, {5, 1, 1}, {3, 2, 0, 10}, {70_000, 20_000, 10_000}, {128, 127, 1}} {
			c, _ := newCluster(t, upstream.Config{Policy: policy})
			update(t, c, hosts(weights...))
			sum := 0.0
			for _, w := range weights {
				sum += float64(max(w, 1))
			}
			const n = 40_000
			got := picks(t, c, n)
			for i, w := range weights {
				want := n * float64(max(w, 1)) / sum
				slack := 5*math.Sqrt(want) + 2
				switch policy {
				case "round_robin":
					slack = 0.001*n + 1
				case "ring_hash":
					slack = 0.3*want + n/100 // as even as so many points are
				}
				if have := float64(got[fmt.Sprintf("h%d", i)]); math.Abs(have-want) > slack {
					t.Errorf("%s %v: h%d got %v of %v", policy, weights, i, have, want)
				}
			}
		}
	}
}

// Round robin spreads turns: within every stretch, an endpoint has as many as its weight says, give or take one or two.
func TestRoundRobinIsSmooth(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{})
	update(t, c, hosts(5, 3, 2))
	window, got := 10, []string{}
	for range 1000 {
		e, err := c.Pick(upstream.Info{})
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Identity().Address)
	}
	for i := range len(got) - window {
		n := map[string]int{}
		for _, a := range got[i : i+window] {
			n[a]++
		}
		if !maps.Equal(n, map[string]int{"h0": 5, "h1": 3, "h2": 2}) {
			t.Fatalf("got %v from %d on", n, i)
		}
	}
	for i := range len(got) - 2 {
		if got[i] == got[i+1] && got[i] == got[i+2] {
			t.Fatalf("three in a row: %v", got[i:i+3])
		}
	}
}

// The less busy of two gets the request, for its weight.
func TestLeastRequest(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{Policy: "least_request", CircuitBreakers: upstream.CircuitBreakers{MaxRequests: -1}})
	update(t, c, hosts(1, 1, 2))
	h0, h2 := find(t, c, "h0"), find(t, c, "h2")
	begin := func(e *upstream.Endpoint, n int) {
		for range n {
			if err := e.Begin(); err != nil {
				t.Fatal(err)
			}
		}
	}
	begin(h0, 10)
	begin(h2, 3) // 1.5 for each of its weight
	// h0 is chosen only where both draws are h0 (1/16), h1 only where a draw is h1 (1 - 9/16).
	got := picks(t, c, 16_000)
	if math.Abs(float64(got["h0"])-1000) > 150 || math.Abs(float64(got["h1"])-7000) > 400 {
		t.Errorf("got %v", got)
	}
	// Left alone, what is busy evens out.
	random := rand.New(rand.NewPCG(7, 8))
	for range 3000 {
		e, _ := c.Pick(upstream.Info{Random: random.Uint64()})
		begin(e, 1)
	}
	if a, b := float64(h0.Active()), float64(h2.Active())/2; math.Abs(a-b) > 60 {
		t.Errorf("%v for one, %v for the other", a, b)
	}
}

// owners answers who gets each of n hashes.
func owners(t testing.TB, c *upstream.Cluster, n int) []string {
	t.Helper()
	random, out := rand.New(rand.NewPCG(9, 10)), make([]string, n)
	for i := range out {
		e, err := c.Pick(upstream.Info{Hash: random.Uint64(), HasHash: true, Random: uint64(i)})
		if err != nil {
			t.Fatal(err)
		}
		out[i] = e.Identity().Address
	}
	return out
}

// When an endpoint goes, what was not its own stays where it was; when it comes back, so does what was its own.
func TestHashingDisruptsLittle(t *testing.T) {
	const n, endpoints = 20_000, 20
	for policy, most := range map[string]float64{"ring_hash": 0, "maglev": 0.02} {
		c, _ := newCluster(t, upstream.Config{Policy: policy})
		update(t, c, equal(endpoints))
		before := owners(t, c, n)
		less := equal(endpoints)
		less.Endpoints[7].Unhealthy = true
		update(t, c, less)
		moved, of7 := 0, 0
		for i, now := range owners(t, c, n) {
			switch {
			case now == "h7":
				t.Fatalf("%s: an unhealthy endpoint was picked", policy)
			case before[i] == "h7":
				of7++
			case before[i] != now:
				moved++
			}
		}
		if of7 == 0 || float64(moved) > most*n {
			t.Errorf("%s: %d moved without need", policy, moved)
		}
		// The order of the list must not matter.
		back := equal(endpoints)
		for i := range endpoints / 2 {
			back.Endpoints[i], back.Endpoints[endpoints-1-i] = back.Endpoints[endpoints-1-i], back.Endpoints[i]
		}
		update(t, c, back)
		for i, now := range owners(t, c, n) {
			if now != before[i] {
				t.Fatalf("%s: %s did not come back", policy, before[i])
			}
		}
		// One more takes about its part, and only that.
		more := 0
		update(t, c, equal(endpoints+1))
		for i, now := range owners(t, c, n) {
			if now == fmt.Sprintf("h%d", endpoints) {
				more++
			} else if now != before[i] {
				moved++
			}
		}
		if more < n/(endpoints+1)/2 || more > 2*n/(endpoints+1) || float64(moved) > 2*most*n {
			t.Errorf("%s: a new one got %d, %d moved without need", policy, more, moved)
		}
	}
}

// A hash sticks to one endpoint, over priorities and localities, whatever the random number.
func TestHashSticks(t *testing.T) {
	for _, policy := range []string{"ring_hash", "maglev"} {
		c, _ := newCluster(t, upstream.Config{Policy: policy, LocalityWeighted: true})
		update(t, c, at(sick(equal(6), 3), 0, "a", 1), at(equal(6), 0, "b", 1), at(equal(4), 1, "c", 1), at(sick(equal(9), 7), 0, "d", 1))
		random, got := rand.New(rand.NewPCG(11, 12)), map[string]int{}
		for range 300 {
			hash, first := random.Uint64(), ""
			for range 10 {
				e, err := c.Pick(upstream.Info{Random: random.Uint64(), Hash: hash, HasHash: true})
				if err != nil {
					t.Fatal(err)
				}
				if a := e.Identity().Address; first == "" {
					first = a
				} else if a != first {
					t.Fatalf("%s: %s, and then %s", policy, first, a)
				}
			}
			got[first[:1]]++
		}
		if len(got) != 4 {
			t.Errorf("%s: %v", policy, got)
		}
	}
}

// Weights that change move no more than they have to.
func TestRingKeepsOthers(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{Policy: "ring_hash"})
	update(t, c, hosts(10, 10, 10, 10))
	before := owners(t, c, 10_000)
	update(t, c, hosts(10, 10, 10, 5))
	for i, now := range owners(t, c, 10_000) {
		if now != before[i] && before[i] != "h3" {
			t.Fatal("what was another's moved")
		}
	}
}

func TestRingSizeIsBounded(t *testing.T) {
	c, _ := newCluster(t, upstream.Config{Policy: "ring_hash", MinimumRingSize: 1, MaximumRingSize: 64})
	update(t, c, hosts(1, 1_000_000, 4_000_000_000))
	if got := picks(t, c, 1000); got["h2"] < 800 {
		t.Errorf("got %v", got)
	}
}

// tableOf is a small table for the policy that has one.
func tableOf(policy string) int {
	if policy == "maglev" {
		return 251
	}
	return 0
}

// Never one that is not healthy, but in panic: whatever is done to the cluster, by every policy.
func TestNeverUnhealthy(t *testing.T) {
	seeds := uint64(20)
	if testing.Short() {
		seeds = 2
	}
	for _, policy := range policies {
		for _, locality := range []bool{false, true} {
			for seed := range seeds {
				random := rand.New(rand.NewPCG(seed, 1))
				c, clock := newCluster(t, upstream.Config{
					Policy: policy, LocalityWeighted: locality, TableSize: tableOf(policy), OutlierDetection: &upstream.OutlierDetection{MaxEjectionPercent: 100},
				})
				for range 20 {
					switch random.IntN(3) {
					case 0:
						var all []upstream.LocalityEndpoints
						for p := range uint32(1 + random.IntN(3)) {
							for l := range 1 + random.IntN(2) {
								part := sick(equal(1+random.IntN(5)), 0)
								for i := range part.Endpoints {
									part.Endpoints[i].Unhealthy = random.IntN(3) == 0
									part.Endpoints[i].Weight = random.Uint32N(5)
								}
								all = append(all, at(part, p, fmt.Sprint(l), 1+random.Uint32N(3)))
							}
						}
						update(t, c, all...)
					case 1:
						for _, e := range c.Endpoints() {
							for range 5 * random.IntN(2) {
								if e.Begin() == nil {
									e.Done(upstream.ServerError, 0)
								}
							}
						}
					case 2:
						clock.t = clock.t.Add(time.Minute)
						c.Sweep()
					}
					for range 30 {
						panics := c.Stats().Panic
						e, err := c.Pick(upstream.Info{Random: random.Uint64(), Hash: random.Uint64(), HasHash: random.IntN(2) == 0})
						switch {
						case err != nil && len(c.Endpoints()) > 0:
							t.Fatalf("%s: %v of %+v", policy, err, c.Stats())
						case err == nil && e.Removed():
							t.Fatalf("%s: a removed endpoint", policy)
						case err == nil && !e.Healthy() && c.Stats().Panic == panics:
							t.Fatalf("%s: an unhealthy endpoint without panic", policy)
						}
					}
				}
			}
		}
	}
}
