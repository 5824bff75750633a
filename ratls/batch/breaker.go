package batch

import "time"

// States of the breaker in Stats.
const (
	Closed   = "closed"    // leaves wait for quotes
	Open     = "open"      // everybody is refused: the pause after failures is not over, or a call of the attester hangs
	HalfOpen = "half-open" // the pause is over: the next quote decides
)

// breaker keeps callers from waiting for a TEE that fails again and again.
type breaker struct {
	after          int // failures in a row
	pause, longest time.Duration

	failures int
	last     time.Duration // pause
	until    time.Time
	cause    error // the last failure
}

func (k *breaker) failed(now time.Time, cause error) {
	k.failures++
	k.cause = cause
	if k.failures >= k.after {
		k.last = min(max(2*k.last, k.pause), k.longest)
		k.until = now.Add(k.last)
	}
}

func (k *breaker) succeeded() { k.failures, k.last = 0, 0 }

func (k *breaker) state(now time.Time) string {
	switch {
	case k.failures < k.after:
		return Closed
	case now.Before(k.until):
		return Open
	default:
		return HalfOpen
	}
}
