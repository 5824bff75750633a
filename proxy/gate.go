package proxy

import (
	"context"
	"errors"
	"sync"
	"time"
)

// gate bounds what strangers can make the servers of a port hold.
type gate struct {
	crowded     time.Duration
	connections chan struct{}
	handshakes  chan struct{}
	peers       peers

	mu      sync.Mutex
	pending map[*pending]struct{}
}

func newGate(l Limits) *gate {
	return &gate{
		crowded: l.Crowded, connections: make(chan struct{}, l.Connections), handshakes: make(chan struct{}, l.Handshakes),
		peers: peers{most: l.Peer}, pending: make(map[*pending]struct{}),
	}
}

// enter waits for room for a connection and its handshake, and answers false once gone is closed.
func (g *gate) enter(gone <-chan struct{}) bool {
	select {
	case g.connections <- struct{}{}:
	case <-gone:
		return false
	}
	if !g.takePlace(gone) {
		g.left()
		return false
	}
	return true
}

// shaken ends what enter has counted as a handshake.
func (g *gate) shaken() { <-g.handshakes }

// left ends what enter has counted as a connection.
func (g *gate) left() { <-g.connections }

var errCrowded = errors.New("others waited for the place of a handshake that took too long")

// takePlace waits for a place among the handshakes. Where all are taken, those that have had their time in a crowd lose
// theirs: clients that connect and say nothing would otherwise keep everybody out for as long as a handshake may last.
func (g *gate) takePlace(gone <-chan struct{}) bool {
	for {
		select {
		case g.handshakes <- struct{}{}:
			return true
		default:
		}
		timer := time.NewTimer(g.hurry())
		select {
		case g.handshakes <- struct{}{}:
			timer.Stop()
			return true
		case <-gone:
			timer.Stop()
			return false
		case <-timer.C:
		}
	}
}

// hurry ends the handshakes that have had their time in a crowd, and answers when the next one has.
func (g *gate) hurry() time.Duration {
	g.mu.Lock()
	defer g.mu.Unlock()
	next := g.crowded
	for h := range g.pending {
		if left := g.crowded - time.Since(h.began); left > 0 {
			next = min(next, left)
		} else {
			h.end(errCrowded)
		}
	}
	return max(next, time.Millisecond)
}

// pending is a handshake that may be hurried.
type pending struct {
	began time.Time
	end   context.CancelCauseFunc
}

// begin makes the context of a handshake, for so long from when the connection was accepted; done releases it.
func (g *gate) begin(within context.Context, began time.Time, limit time.Duration, hurries bool) (ctx context.Context, done func()) {
	ctx, end := context.WithCancelCause(within)
	ctx, cancel := context.WithDeadline(ctx, began.Add(limit))
	h := &pending{began, end}
	if hurries {
		g.mu.Lock()
		g.pending[h] = struct{}{}
		g.mu.Unlock()
	}
	return ctx, func() {
		g.mu.Lock()
		delete(g.pending, h)
		g.mu.Unlock()
		cancel()
		end(nil)
	}
}
