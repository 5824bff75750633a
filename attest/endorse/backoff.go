package endorse

import (
	"math"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// How long nobody is asked again: the exponential part is drawn at random from nothing to firstWait·2ⁿ (full jitter), on top
// of what the kind of failure demands at least.
const (
	firstWait = 5 * time.Second
	maxWait   = 15 * time.Minute
	// missingWait follows upon "there is no such thing".
	missingWait = 5 * time.Minute
	// refusedWait follows upon a refusal that does not say for how long, and maxRefused bounds one that does.
	refusedWait = time.Minute
	maxRefused  = time.Hour

	maxFailures = 1024
)

// backoff remembers failures, of hosts and of single requests.
type backoff struct {
	mu sync.Mutex
	by map[string]failure
}

type failure struct {
	err   *attest.Error
	times int
	until time.Time
}

// blocked answers the failure for which key is not asked at now, and until when.
func (b *backoff) blocked(key string, now time.Time) (until time.Time, err *attest.Error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if f := b.by[key]; now.Before(f.until) {
		return f.until, f.err
	}
	return now, nil
}

// fail notes one more failure in a row.
func (b *backoff) fail(key string, err *attest.Error, now time.Time, least time.Duration, random float64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.by) >= maxFailures || b.by == nil {
		b.by = map[string]failure{}
	}
	f := b.by[key]
	most := min(maxWait, time.Duration(float64(firstWait)*math.Pow(2, float64(min(f.times, 16)))))
	b.by[key] = failure{err: err, times: f.times + 1, until: now.Add(least + time.Duration(random*float64(most)))}
}

func (b *backoff) succeed(key string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.by, key)
}
