package endorse

import (
	"context"
	"slices"
	"sync"
	"time"
)

// The budget of requests to one host. AMD's service tolerates about one request in ten seconds from one address.
const (
	// RequestsPerHour is how often one host is asked within any hour at most.
	RequestsPerHour = 360
	// reserved is the part of it for what all platforms of a kind share. The rest is for identifiers that come out of
	// evidence: whoever makes them up must not use up the requests that everybody depends on.
	reserved = 60
	// concurrent is how many requests to one host run at the same time.
	concurrent = 4
)

// host is what one host may be asked.
type host struct {
	name  string
	slots chan struct{}

	mu    sync.Mutex
	asked []time.Time // of the last hour
}

func newHost(name string) *host { return &host{name: name, slots: make(chan struct{}, concurrent)} }

// enter waits for a slot.
func (h *host) enter(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (h *host) leave() { <-h.slots }

// spend takes one request out of the budget, or tells when there will be one.
func (h *host) spend(now time.Time, limit int) (again time.Time, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked = slices.DeleteFunc(h.asked, func(t time.Time) bool { return now.Sub(t) >= time.Hour || t.After(now) })
	if len(h.asked) >= limit {
		return h.asked[len(h.asked)-limit].Add(time.Hour), false
	}
	h.asked = append(h.asked, now)
	return now, true
}
