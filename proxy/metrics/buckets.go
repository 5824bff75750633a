package metrics

import (
	"slices"

	"github.com/jurat-tls/jurat/proxy/histogram"
	"github.com/jurat-tls/jurat/ratls/batch"
)

// buckets are a distribution, in the unit that is shown.
type buckets struct {
	bounds []float64
	counts []uint64 // up to each bound
	count  uint64
	sum    float64
}

// scaled is h in units of which one is so many of h's.
func scaled(h histogram.Snapshot, unit float64) buckets {
	b := buckets{sum: float64(h.Sum) / unit}
	for i, c := range h.Counts {
		b.count += c
		if i < len(h.Bounds) {
			b.bounds, b.counts = append(b.bounds, float64(h.Bounds[i])/unit), append(b.counts, b.count)
		}
	}
	return b
}

func seconds(h histogram.Snapshot) buckets { return scaled(h, 1e6) }
func bytes(h histogram.Snapshot) buckets   { return scaled(h, 1) }

func times(t batch.Times) buckets {
	bounds := batch.Bounds()
	return buckets{bounds: bounds[:], counts: t.Buckets[:], count: t.Count, sum: t.Sum}
}

func (b buckets) add(c buckets) buckets {
	if !slices.Equal(b.bounds, c.bounds) {
		return c
	}
	out := buckets{bounds: b.bounds, counts: slices.Clone(b.counts), count: b.count + c.count, sum: b.sum + c.sum}
	for i, n := range c.counts {
		out.counts[i] += n
	}
	return out
}

func (b buckets) cumulative() map[float64]uint64 {
	all := make(map[float64]uint64, len(b.bounds))
	for i, bound := range b.bounds {
		all[bound] = b.counts[i]
	}
	return all
}

// quantile estimates, as histogram.Snapshot does, the value below which a part q, above 0, of the values lies. It is 0 where
// nothing was observed.
func (b buckets) quantile(q float64) float64 {
	if b.count == 0 {
		return 0
	}
	rank, below, least := q*float64(b.count), uint64(0), 0.0
	for i, bound := range b.bounds {
		if n := b.counts[i]; float64(n) >= rank { // and so n > below
			return least + (bound-least)*(rank-float64(below))/float64(n-below)
		}
		below, least = b.counts[i], bound
	}
	return least
}
