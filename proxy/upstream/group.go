package upstream

import (
	"cmp"
	"math"
	"slices"
	"sync/atomic"
)

type policy uint8

const (
	roundRobin policy = iota
	leastRequest
	randomly
	ringHash
	maglev
)

var policies = map[string]policy{"round_robin": roundRobin, "least_request": leastRequest, "random": randomly, "ring_hash": ringHash, "maglev": maglev}

func (p policy) hashes() bool { return p >= ringHash }

// group is endpoints among which the cluster's policy chooses.
type group struct {
	policy    policy
	choices   int
	endpoints []*Endpoint
	weights   []float64
	schedule  []uint32 // indices, each as often as its weight says, evenly mixed; nil where the weights are equal
	turn      *turn    // of round robin
	ring      ring
	table     []uint32 // of maglev: indices
}

// turn has a line of memory of its own: every core writes to it.
type turn struct {
	atomic.Uint64
	_ [56]byte
}

func (g *group) prepare(config *Config, weights []float64) {
	g.weights = weights
	switch g.policy {
	case ringHash:
		g.ring = makeRing(g.endpoints, weights, config.MinimumRingSize, config.MaximumRingSize)
	case maglev:
		g.table = makeTable(g.endpoints, weights, config.TableSize)
	default:
		g.schedule = makeSchedule(weights)
	}
}

func (g *group) pick(random *uint64, hash uint64) *Endpoint {
	switch g.policy {
	case roundRobin:
		return g.endpoints[g.at(g.turn.Add(1)%uint64(g.turns()))]
	case leastRequest:
		best := g.draw(random)
		for range g.choices - 1 {
			if other := g.draw(random); g.busy(other) < g.busy(best) {
				best = other
			}
		}
		return g.endpoints[best]
	case ringHash:
		return g.endpoints[g.ring.at(hash)]
	case maglev:
		return g.endpoints[g.table[hash%uint64(len(g.table))]]
	default:
		return g.endpoints[g.draw(random)]
	}
}

func (g *group) turns() int {
	if g.schedule != nil {
		return len(g.schedule)
	}
	return len(g.endpoints)
}

func (g *group) at(turn uint64) int {
	if g.schedule != nil {
		return int(g.schedule[turn])
	}
	return int(turn)
}

// draw answers an index with the probability of its weight.
func (g *group) draw(random *uint64) int { return g.at(below(next(random), uint64(g.turns()))) }

// busy is how much an endpoint has to do, for its weight.
func (g *group) busy(i int) float64 { return float64(g.endpoints[i].Active()) / g.weights[i] }

// maxTurns bounds a schedule of few endpoints. Weights that don't fit are rounded.
const maxTurns = 1 << 16

// makeSchedule answers a round in which each index comes as often as its weight says, spread evenly: the turn k of an
// index with n of them stands at (k + 1/2) / n.
func makeSchedule(weights []float64) []uint32 {
	if slices.Min(weights) == slices.Max(weights) {
		return nil
	}
	divisor, sum := uint64(0), 0.0
	for _, w := range weights {
		divisor = gcd(divisor, uint64(w))
		sum += w
	}
	scale := 1 / float64(divisor)
	if limit := float64(max(maxTurns, 4*len(weights))); sum*scale > limit {
		scale = limit / sum
	}
	type place struct {
		at    float64
		index uint32
	}
	var turns []place
	for i, w := range weights {
		n := max(1, math.Round(w*scale))
		for k := range int(n) {
			turns = append(turns, place{(float64(k) + 0.5) / n, uint32(i)})
		}
	}
	slices.SortStableFunc(turns, func(a, b place) int { return cmp.Compare(a.at, b.at) })
	schedule := make([]uint32, len(turns))
	for i, t := range turns {
		schedule[i] = t.index
	}
	return schedule
}

func gcd(a, b uint64) uint64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
