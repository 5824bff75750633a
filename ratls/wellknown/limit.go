package wellknown

import (
	"maps"
	"sync"
	"time"
)

// How much of a document's making strangers may ask for.
const (
	perPeer   = time.Second // for each request of a peer
	peerBurst = 10
	overall   = 50 * time.Millisecond // for each request
	burst     = 40
	maxPeers  = 4096
)

// Limit bounds how often documents are asked for: by one peer, and by all of them together. It is safe for concurrent use.
type Limit struct {
	now func() time.Time

	mu    sync.Mutex
	all   time.Time // until when the requests so far have been paid for
	peers map[string]time.Time
}

// NewLimit makes one.
func NewLimit(now func() time.Time) *Limit { return &Limit{now: now, peers: map[string]time.Time{}} }

// Take answers how long a peer has to wait before it may ask; 0 where it may ask now, which then counts.
func (l *Limit) Take(peer string) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	paid := l.peers[peer]
	wait := max(due(paid, now, perPeer, peerBurst), due(l.all, now, overall, burst))
	if wait > 0 {
		return wait
	}
	if len(l.peers) >= maxPeers { // of whom but a few hundred have asked so lately that it counts: there is a limit for all
		maps.DeleteFunc(l.peers, func(_ string, paid time.Time) bool { return !paid.After(now) })
	}
	l.peers[peer], l.all = later(paid, now).Add(perPeer), later(l.all, now).Add(overall)
	return 0
}

// due is how long it is until one more request fits, of which each takes a while and some may come at once.
func due(paid, now time.Time, each time.Duration, burst int) time.Duration {
	return max(later(paid, now).Add(each).Sub(now)-each*time.Duration(burst), 0)
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
