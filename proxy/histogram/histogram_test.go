package histogram_test

import (
	"math"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/histogram"
)

func TestBuckets(t *testing.T) {
	h := histogram.New(2, []int64{0, 1, 10, math.MaxInt64})
	for i, v := range []int64{math.MinInt64, -1, 0, 1, 2, 9, 10, 11, math.MaxInt64 - 1} {
		h.Shard(i).Observe(v)
	}
	h.Observe(3)
	s := h.Snapshot()
	want := histogram.Snapshot{Bounds: []int64{0, 1, 10, math.MaxInt64}, Counts: []uint64{3, 1, 4, 2, 0}, Sum: 1 + 2 + 9 + 10 + 11 + math.MaxInt64 - 1 + 3}
	if !reflect.DeepEqual(s, want) || s.Count() != 10 {
		t.Errorf("got %+v, want %+v", s, want)
	}
}

func TestTook(t *testing.T) {
	h := histogram.New(1, histogram.Durations())
	for _, d := range []time.Duration{-time.Second, 499, 500, 1500 * time.Nanosecond, 100*time.Microsecond + 499, 100*time.Microsecond + 500, time.Hour} {
		h.Shard(0).Took(d)
	}
	s := h.Snapshot()
	if s.Counts[0] != 5 || s.Counts[1] != 1 || s.Counts[len(s.Counts)-1] != 1 || s.Sum != 0+0+1+2+100+101+3_600_000_000 {
		t.Errorf("%+v", s)
	}
}

// A value is in the bucket that a search would find, whatever the bounds are.
func TestModel(t *testing.T) {
	value := rapid.OneOf(rapid.Int64Range(0, 300), rapid.Int64Range(0, math.MaxInt64), rapid.Map(rapid.IntRange(0, 62), func(n int) int64 { return 1 << n }))
	rapid.Check(t, func(t *rapid.T) {
		bounds := rapid.SliceOfNDistinct(value, 1, 200, rapid.ID[int64]).Draw(t, "bounds")
		slices.Sort(bounds)
		shards := rapid.IntRange(-1, 5).Draw(t, "shards")
		h := histogram.New(shards, bounds)
		want := histogram.Snapshot{Bounds: bounds, Counts: make([]uint64, len(bounds)+1)}
		near := rapid.OneOf(value, rapid.Map(rapid.SampledFrom(bounds), func(n int64) int64 { return n }), rapid.Map(rapid.SampledFrom(bounds), func(n int64) int64 { return max(n-1, 0) }))
		for i, v := range rapid.SliceOfN(near, 0, 100).Draw(t, "values") {
			h.Shard(i - 3).Observe(v)
			at, _ := slices.BinarySearch(bounds, v)
			want.Counts[at]++
			want.Sum += uint64(v)
		}
		s := h.Snapshot()
		if !reflect.DeepEqual(s, want) {
			t.Fatalf("got %+v, want %+v", s, want)
		}
		last := 0.0
		for q := 0.0; q <= 1; q += 0.0625 {
			v := s.Quantile(q)
			if v < last || v > float64(bounds[len(bounds)-1]) || math.IsNaN(v) {
				t.Fatalf("quantile %v is %v after %v", q, v, last)
			}
			last = v
		}
		twice := s.Add(s)
		if twice.Count() != 2*s.Count() || twice.Sum != 2*s.Sum || !reflect.DeepEqual(s, h.Snapshot()) {
			t.Fatalf("twice %+v is %+v", s, twice)
		}
	})
}

func TestQuantile(t *testing.T) {
	s := histogram.Snapshot{Bounds: []int64{10, 20, 40}, Counts: []uint64{10, 0, 10, 0}}
	for _, c := range []struct{ q, want float64 }{{0, 0}, {0.25, 5}, {0.5, 10}, {0.75, 30}, {1, 40}, {2, 40}, {-1, 0}, {math.NaN(), 0}} {
		if got := s.Quantile(c.q); got != c.want {
			t.Errorf("%v: got %v, want %v", c.q, got, c.want)
		}
	}
	s.Counts[3] = 100
	if got := s.Quantile(0.9); got != 40 {
		t.Errorf("above all bounds: %v", got)
	}
	for _, s := range []histogram.Snapshot{{}, {Bounds: []int64{10}, Counts: []uint64{0, 0}}, {Counts: []uint64{5}}} {
		if got := s.Quantile(0.5); got != 0 {
			t.Errorf("%+v: %v", s, got)
		}
	}
}

func TestAdd(t *testing.T) {
	a := histogram.Snapshot{Bounds: []int64{1}, Counts: []uint64{1, 2}, Sum: 3}
	b := histogram.Snapshot{Bounds: []int64{2}, Counts: []uint64{1, 2}, Sum: 3}
	for _, c := range []struct{ a, b, want histogram.Snapshot }{
		{a, histogram.Snapshot{Bounds: []int64{1}, Counts: []uint64{1}}, a},
		{a, histogram.Snapshot{}, a},
		{histogram.Snapshot{}, a, a},
		{a, b, a},
		{a, a, histogram.Snapshot{Bounds: []int64{1}, Counts: []uint64{2, 4}, Sum: 6}},
	} {
		if got := c.a.Add(c.b); !reflect.DeepEqual(got, c.want) {
			t.Errorf("got %+v, want %+v", got, c.want)
		}
	}
}

func TestBadBounds(t *testing.T) {
	ascending := make([]int64, 201)
	for i := range ascending {
		ascending[i] = int64(i)
	}
	histogram.New(1, ascending[:200])
	for _, bounds := range [][]int64{nil, {-1, 1}, {1, 1}, {2, 1}, ascending} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "histogram: ") {
					t.Errorf("%v is taken", bounds)
				}
			}()
			histogram.New(1, bounds)
		}()
	}
	for _, bounds := range [][]int64{histogram.Durations(), histogram.Ages(), histogram.Sizes()} {
		histogram.New(1, bounds)
	}
}

// Bounds are the caller's to change.
func TestBoundsAreCopied(t *testing.T) {
	bounds := histogram.Sizes()
	h := histogram.New(1, bounds)
	bounds[0] = 1 << 62
	h.Observe(0)
	if s := h.Snapshot(); s.Bounds[0] != 0 || s.Counts[0] != 1 {
		t.Errorf("%+v", s)
	}
}

func TestConcurrent(t *testing.T) {
	const loops, each = 4, 10_000
	h := histogram.New(2, histogram.Durations())
	var all sync.WaitGroup
	for i := range loops {
		all.Go(func() {
			for v := range int64(each) {
				h.Shard(i).Observe(v)
			}
		})
	}
	all.Go(func() {
		last := uint64(0)
		for range 100 {
			n := h.Snapshot().Count()
			if n < last {
				t.Errorf("%d after %d", n, last)
			}
			last = n
		}
	})
	all.Wait()
	if s := h.Snapshot(); s.Count() != loops*each || s.Sum != loops*each*(each-1)/2 {
		t.Errorf("%+v", s)
	}
}

func TestAllocatesNothing(t *testing.T) {
	s := histogram.New(1, histogram.Durations()).Shard(0)
	if n := testing.AllocsPerRun(100, func() { s.Observe(12345); s.Took(time.Second) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func BenchmarkObserve(b *testing.B) {
	for _, shards := range []int{1, 16} {
		b.Run(map[int]string{1: "shared", 16: "own shard"}[shards], func(b *testing.B) {
			h := histogram.New(shards, histogram.Durations())
			var mu sync.Mutex
			next := 0
			b.RunParallel(func(pb *testing.PB) {
				mu.Lock()
				s := h.Shard(next)
				next++
				mu.Unlock()
				for v := int64(1); pb.Next(); v = (v*6364136223846793005 + 1442695040888963407) & (1<<24 - 1) {
					s.Observe(v)
				}
			})
		})
	}
}

func BenchmarkSnapshot(b *testing.B) {
	h := histogram.New(2, histogram.Durations())
	for b.Loop() {
		h.Snapshot()
	}
}
