package main

import (
	"math"
	"slices"
	"time"
)

// median of v; NaN where it's empty.
func median(v []float64) float64 {
	if len(v) == 0 {
		return math.NaN()
	}
	v = slices.Sorted(slices.Values(v))
	n := len(v)
	return (v[(n-1)/2] + v[n/2]) / 2
}

func mean(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x
	}
	return sum / float64(len(v))
}

// quantile is the least time, in µs, that a share of all reaches; NaN where there are none.
func quantile(all []time.Duration, share float64) float64 {
	if len(all) == 0 {
		return math.NaN()
	}
	all = slices.Sorted(slices.Values(all))
	at := int(math.Ceil(share*float64(len(all)))) - 1
	return float64(all[max(at, 0)].Nanoseconds()) / 1e3
}

// results are the samples of each work and peer, by turn; nil where there is none.
type results map[string]map[string][]sample

func (r results) add(work, peer string, turn int, s sample) {
	if r[work] == nil {
		r[work] = map[string][]sample{}
	}
	for len(r[work][peer]) < turn {
		r[work][peer] = append(r[work][peer], nil)
	}
	r[work][peer] = append(r[work][peer], s)
}

// each gives, for all turns in which every peer named was measured, what f makes of their values.
func (r results) each(work, metric string, peers []string, f func(v []float64) float64) []float64 {
	var all []float64
	for turn := range r[work][peers[0]] {
		var v []float64
		for _, p := range peers {
			if of := r[work][p]; turn < len(of) {
				if x, ok := of[turn][metric]; ok {
					v = append(v, x)
				}
			}
		}
		if len(v) == len(peers) {
			all = append(all, f(v))
		}
	}
	return all
}

// median of a metric over the turns.
func (r results) median(work, metric, peer string) float64 {
	return median(r.each(work, metric, []string{peer}, func(v []float64) float64 { return v[0] }))
}

// ratio is the median of what peers that were measured in the same turn have to one another: the machine's speed meets both.
func (r results) ratio(work, metric, peer, other string) float64 {
	return median(r.each(work, metric, []string{peer, other}, func(v []float64) float64 { return v[0] / v[1] }))
}

// best of the peers named by a metric; "" where none was measured.
func (r results) best(work, metric string, of []string) (best string) {
	least := math.Inf(1)
	for _, p := range of {
		if m := r.median(work, metric, p); m < least {
			best, least = p, m
		}
	}
	return best
}
