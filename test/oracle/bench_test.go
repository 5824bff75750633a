package oracle

import (
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tdx"
)

// BenchmarkTDX measures our verification of the recorded quote, warm, beside the whole check by go-tdx-guest of the same
// quote with the same collateral, both in one run and by turns. It counts processor time, garbage collection included, since others may use the machine.
// "ratio" is how many of ours cost as much as one of its.
func BenchmarkTDX(b *testing.B) {
	s := recordedTDX(b)
	v := tdx.NewVerifier(s.roots)
	ours := func() {
		if _, err := v.Verify(b.Context(), s.evidence, attest.NoEndorser{}, s.at); err != nil {
			b.Fatal(err)
		}
	}
	theirs := func() {
		if err := s.guest(); err != nil {
			b.Fatal(err)
		}
	}
	ours()
	theirs()
	const each, few = 100, 10 // in a turn, so that the clock's grain does not matter
	var our, their time.Duration
	n := 0
	for b.Loop() {
		start := used(b)
		for range each {
			ours()
		}
		middle := used(b)
		for range few {
			theirs()
		}
		our, their = our+middle-start, their+used(b)-middle
		n++
	}
	mine, other := float64(our.Nanoseconds())/float64(n*each), float64(their.Nanoseconds())/float64(n*few)
	b.ReportMetric(mine/1e3, "ours-µs")
	b.ReportMetric(other/1e3, "go-tdx-guest-µs")
	b.ReportMetric(other/mine, "ratio")
	b.ReportMetric(0, "ns/op")
}

// used is the processor time of this process so far.
func used(b *testing.B) time.Duration {
	b.Helper()
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}
