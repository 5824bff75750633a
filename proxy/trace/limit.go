package trace

import (
	"sync/atomic"
	"time"
)

const (
	burst   = int64(time.Second) // what was not used for this long may be used at once
	maxDebt = 10 * burst
)

// bucket bounds the spans per second. Its zero value lets none pass.
type bucket struct {
	interval int64        // ns that a span costs
	paid     atomic.Int64 // when all that was taken is paid for, in ns since 1970
}

func (b *bucket) allow(perSecond int) { b.interval = int64(time.Second) / int64(perSecond) }

// take reports whether another trace may begin. Of a trace that has begun every span is recorded: what is taken for those
// beyond the limit is missing for the next traces.
func (b *bucket) take(now time.Time, begun bool) bool {
	if b.interval == 0 {
		return false
	}
	at := now.UnixNano()
	for {
		old := b.paid.Load()
		from := max(old, at)
		if from > at+maxDebt {
			from = at // the clock was set back, which must not end all recording until it is where it was
		}
		next := min(from+b.interval, at+maxDebt)
		if !begun && next > at+burst {
			return false
		}
		if b.paid.CompareAndSwap(old, next) {
			return true
		}
	}
}
