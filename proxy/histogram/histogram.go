// Package histogram counts how often a value was in which range: durations, sizes. Observing takes no lock and allocates
// nothing.
package histogram

import (
	"math/bits"
	"slices"
	"sync/atomic"
	"time"
)

// Histogram counts whole numbers, of whatever unit, in buckets with fixed bounds. Any number of goroutines may call its methods.
type Histogram struct {
	bounds []int64
	shards []*Shard
}

// Shard is a part of a Histogram. Any number of goroutines may use it; it is for one event loop, whose processor then has the
// counters for itself.
type Shard struct {
	bounds []int64
	first  [65]uint8       // by the length of a value in bits: the first bucket that it can be in
	counts []atomic.Uint64 // one for each bucket, one for what is above all bounds, and the sum of what was observed
}

const (
	maxBounds = 200
	// line is how many counters share what a processor fetches at once: two lines of 64 bytes. Counters of two shards in one
	// would make their users wait for each other.
	line = 128 / 8
)

// New makes a Histogram with so many Shards, at least one. bounds are the upper bounds of the buckets, which belong to them: 1
// to 200, ascending, none of them negative. New panics where they are not.
func New(shards int, bounds []int64) *Histogram {
	if len(bounds) == 0 || len(bounds) > maxBounds || bounds[0] < 0 {
		panic("histogram: want 1 to 200 bounds from 0 on")
	}
	for i := range bounds[1:] {
		if bounds[i+1] <= bounds[i] {
			panic("histogram: want ascending bounds")
		}
	}
	h := &Histogram{bounds: slices.Clone(bounds)}
	var first [65]uint8
	bucket := 0
	for n := range first {
		for bucket < len(bounds) && bits.Len64(uint64(bounds[bucket])) < n {
			bucket++
		}
		first[n] = uint8(bucket)
	}
	for range max(shards, 1) {
		n := (len(bounds) + 2 + line - 1) / line * line // so that the next object begins in another line
		h.shards = append(h.shards, &Shard{h.bounds, first, make([]atomic.Uint64, n)})
	}
	return h
}

// Shard is the one with that number; each number has one.
func (h *Histogram) Shard(n int) *Shard { return h.shards[uint(n)%uint(len(h.shards))] }

// Observe counts v in the first Shard.
func (h *Histogram) Observe(v int64) { h.shards[0].Observe(v) }

// Observe counts v. What is below 0 counts as 0.
func (s *Shard) Observe(v int64) {
	u := uint64(max(v, 0))
	i := int(s.first[bits.Len64(u)])
	for i < len(s.bounds) && uint64(s.bounds[i]) < u {
		i++
	}
	s.counts[i].Add(1)
	s.counts[len(s.bounds)+1].Add(u)
}

// Took counts a duration in microseconds, rounded: the sum of nanoseconds would overflow while many long connections are
// counted.
func (s *Shard) Took(d time.Duration) { s.Observe(d.Round(time.Microsecond).Microseconds()) }

// Snapshot is what a Histogram has counted.
type Snapshot struct {
	Bounds []int64  `json:"bounds"`
	Counts []uint64 `json:"counts"` // of each bucket alone; the last one is of what is above all Bounds
	Sum    uint64   `json:"sum"`    // of everything that was observed
}

// Snapshot adds up the shards. What is observed meanwhile may be in the sum and not yet in the counts, or the other way round.
func (h *Histogram) Snapshot() Snapshot {
	out := Snapshot{Bounds: h.bounds[:len(h.bounds):len(h.bounds)], Counts: make([]uint64, len(h.bounds)+1)}
	for _, s := range h.shards {
		for i := range out.Counts {
			out.Counts[i] += s.counts[i].Load()
		}
		out.Sum += s.counts[len(h.bounds)+1].Load()
	}
	return out
}

// Count is how many values were observed.
func (s Snapshot) Count() (n uint64) {
	for _, c := range s.Counts {
		n += c
	}
	return n
}

// Add is the sum of two snapshots with the same bounds. The zero Snapshot goes with every other. Where the bounds differ it
// answers s.
func (s Snapshot) Add(t Snapshot) Snapshot {
	switch {
	case len(s.Counts) == 0:
		return t
	case !slices.Equal(s.Bounds, t.Bounds) || len(s.Counts) != len(t.Counts):
		return s
	}
	out := Snapshot{Bounds: s.Bounds, Counts: slices.Clone(s.Counts), Sum: s.Sum + t.Sum}
	for i, c := range t.Counts {
		out.Counts[i] += c
	}
	return out
}

// Quantile estimates the value below which a part q, 0 to 1, of the values lies: in a bucket they are taken to be evenly
// distributed. What is above all bounds counts as the last bound. It is 0 where nothing was observed.
func (s Snapshot) Quantile(q float64) float64 {
	n := s.Count()
	if n == 0 || !(q >= 0) {
		return 0
	}
	rank, below, least := min(q, 1)*float64(n), 0.0, 0.0
	for i, bound := range s.Bounds {
		c := float64(s.Counts[i])
		if c > 0 && below+c >= rank {
			return least + (float64(bound)-least)*(rank-below)/c
		}
		below, least = below+c, float64(bound)
	}
	return least
}

// Durations are bounds for how long an answer takes, in microseconds: 100 µs to 1 min.
func Durations() []int64 {
	return []int64{100, 250, 500, 1e3, 2500, 5e3, 10e3, 25e3, 50e3, 100e3, 250e3, 500e3, 1e6, 2500e3, 5e6, 10e6, 30e6, 60e6}
}

// Ages are bounds for how old something is, in microseconds: 1 s to a week.
func Ages() []int64 {
	const second = 1e6
	return []int64{second, 10 * second, 60 * second, 300 * second, 600 * second, 1800 * second, 3600 * second, 6 * 3600 * second, 12 * 3600 * second, 24 * 3600 * second, 168 * 3600 * second}
}

// Sizes are bounds for bytes: 0, and 256 B to 1 GiB in powers of 4.
func Sizes() []int64 {
	return []int64{0, 1 << 8, 1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30}
}
