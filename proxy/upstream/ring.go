package upstream

import (
	"cmp"
	"math"
	"slices"
	"sort"
)

// ring is the points of endpoints in order (ketama). An endpoint has those that come before them, up to the next point.
type ring struct {
	points []uint64
	owners []uint32
}

const pointsPerEndpoint = 128 // on average, at least

// makeRing gives an endpoint points in proportion to its weight. How many a weight of one gets is a power of two, so that
// it seldom changes when endpoints come and go, and what stays keeps its points.
func makeRing(endpoints []*Endpoint, weights []float64, least, most int) ring {
	sum := 0.0
	for _, w := range weights {
		sum += w
	}
	per := math.Exp2(math.Ceil(math.Log2(float64(max(least, pointsPerEndpoint*len(endpoints))) / sum)))
	for per*sum > float64(most) {
		per /= 2
	}
	type point struct {
		at    uint64
		owner uint32
	}
	var points []point
	for i, e := range endpoints {
		state := e.hash
		for range int(max(1, math.Round(weights[i]*per))) {
			points = append(points, point{next(&state), uint32(i)})
		}
	}
	slices.SortFunc(points, func(a, b point) int { return cmp.Compare(a.at, b.at) })
	r := ring{make([]uint64, len(points)), make([]uint32, len(points))}
	for i, p := range points {
		r.points[i], r.owners[i] = p.at, p.owner
	}
	return r
}

// at answers the owner of the first point from hash on.
func (r *ring) at(hash uint64) uint32 {
	i := sort.Search(len(r.points), func(i int) bool { return r.points[i] >= hash })
	if i == len(r.points) {
		i = 0
	}
	return r.owners[i]
}
