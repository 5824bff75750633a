// Package bench compares a warm verification with the bare signature verifications that it can't avoid, side by side in
// one run: batches of both alternate, so that a change of the machine's speed meets both.
package bench

import (
	"slices"
	"syscall"
	"testing"
	"time"
)

const (
	pairs     = 25                    // of batches
	batchTime = 20 * time.Millisecond // of CPU for each
)

// Units of the metrics that Compare reports; test/tools/bench prints a table of them.
const (
	UnitWarm  = "warm-ns"
	UnitBare  = "bare-ns"
	UnitRatio = "ratio"
	UnitGoal  = "goal"
)

// Compare measures warm and bare, and reports the medians of their CPU time, and of the ratios of neighbouring batches.
// name is "TEE/what bare does", such as "snp/1×P-384". goal is the greatest ratio that is wanted. Call it from a benchmark
// named BenchmarkWarm.
func Compare(b *testing.B, name string, goal float64, warm, bare func() error) {
	b.Run(name, func(b *testing.B) {
		n, m := calibrate(b, warm), calibrate(b, bare)
		var warms, bares, ratios []float64
		for range pairs {
			x, y := batch(b, n, warm), batch(b, m, bare)
			warms, bares, ratios = append(warms, x), append(bares, y), append(ratios, x/y)
		}
		b.ReportMetric(0, "ns/op")
		b.ReportMetric(median(warms), UnitWarm)
		b.ReportMetric(median(bares), UnitBare)
		b.ReportMetric(median(ratios), UnitRatio)
		b.ReportMetric(goal, UnitGoal)
	})
}

// calibrate finds how many calls fill a batch.
func calibrate(b *testing.B, f func() error) int {
	n := 1
	for {
		if each := batch(b, n, f); each*float64(n) >= float64(batchTime)/4 {
			return max(1, int(float64(batchTime)/each))
		}
		n *= 2
	}
}

// batch gives the CPU time of one call in nanoseconds, that of the garbage collector included.
func batch(b *testing.B, n int, f func() error) float64 {
	before := cpu(b)
	for range n {
		if err := f(); err != nil {
			b.Fatal(err)
		}
	}
	return float64(cpu(b)-before) / float64(n)
}

func cpu(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

func median(v []float64) float64 {
	slices.Sort(v)
	return v[len(v)/2]
}
