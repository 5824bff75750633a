package batch

import "time"

// Stats is a snapshot of what a Batcher has done.
type Stats struct {
	Quotes   uint64 `json:"quotes"`        // begun
	Failures uint64 `json:"failures"`      // quotes that failed or took too long
	Sessions uint64 `json:"sessions"`      // leaves that got evidence while their caller was there
	Crowded  uint64 `json:"crowded"`       // leaves refused with J108
	Refused  uint64 `json:"refused"`       // leaves refused with J806
	Waiting  int    `json:"waiting"`       // leaves for which no quote has begun
	Largest  int    `json:"largest_batch"` // leaves of one quote
	Breaker  string `json:"breaker"`       // Closed, Open or HalfOpen
	Wait     Times  `json:"wait"`          // of each of the Sessions, from its call to its evidence
	Quote    Times  `json:"quote"`         // of each quote that came to an end, failed or not
}

// Times is a distribution of durations, in seconds.
type Times struct {
	Count   uint64     `json:"count"`
	Sum     float64    `json:"sum"`
	Max     float64    `json:"max"`
	Buckets [12]uint64 `json:"buckets"` // how many were at most the duration of the same place in Bounds
}

// Bounds are the upper bounds of the Buckets of Times, in seconds.
func Bounds() [12]float64 {
	return [...]float64{.001, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10}
}

func (t *Times) add(d time.Duration) {
	s := d.Seconds()
	t.Count++
	t.Sum += s
	t.Max = max(t.Max, s)
	for i, bound := range Bounds() {
		if s <= bound {
			t.Buckets[i]++
		}
	}
}
