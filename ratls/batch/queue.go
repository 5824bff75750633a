package batch

import (
	"time"

	"github.com/jurat-tls/jurat/attest/merkle"
)

// node is a place in a ring; a ring is a node of nobody that joins its end to its beginning. Every step of the queue takes
// the same time however many wait.
type node[T any] struct {
	prev, next *node[T]
	of         T
}

func newRing[T any]() *node[T] {
	r := new(node[T])
	r.prev, r.next = r, r
	return r
}

func (r *node[T]) empty() bool { return r.next == r }

// push puts n at the end of the ring r.
func (r *node[T]) push(n *node[T]) {
	n.prev, n.next = r.prev, r
	n.prev.next, r.prev = n, n
}

// unlink takes n out of its ring.
func (n *node[T]) unlink() { n.prev.next, n.next.prev = n.next, n.prev }

// waiter is a leaf and the caller who waits for its ticket.
type waiter struct {
	leaf    merkle.Hash
	patient bool
	in      *queue
	since   time.Time

	peer   *peer
	place  node[*waiter] // among those of its peer
	oldest node[*waiter] // among the patient ones
	queued bool          // whether it waits for a quote to begin
	gone   bool          // whether its caller has left while the quote was in flight

	done  chan struct{} // closed when the fields below are final
	quote *quote
	index uint64
	err   error
}

func (w *waiter) answer(err error) {
	w.err = err
	close(w.done)
}

// peer is one that has leaves in the queue.
type peer struct {
	name    string
	waiters *node[*waiter] // first come, first
	waiting int
	turn    node[*peer] // among all
	level   node[*peer] // among those with as many waiting
}

// queue holds the leaves that wait, fairly between peers: a batch takes them from one peer after the other, and where there
// is no room left the peer with most gives way. It holds no more than max leaves, and of peers only those with a leaf in it.
type queue struct {
	max, perPeer int

	peers   map[string]*peer
	turns   *node[*peer]   // the first is served next
	levels  []*node[*peer] // levels[n] are the peers with n waiting
	most    int            // that a peer has waiting
	waiting int
	urgent  int            // of those that wait
	patient *node[*waiter] // oldest first
}

func newQueue(limit, perPeer int) *queue {
	return &queue{
		max: limit, perPeer: perPeer, peers: make(map[string]*peer), turns: newRing[*peer](),
		levels: []*node[*peer]{newRing[*peer]()}, patient: newRing[*waiter](),
	}
}

// admit lets w in as a leaf of the peer with this name. It answers the waiter that lost its place to w, if one did; and w
// itself when there is no place for it.
func (q *queue) admit(w *waiter, name string) (crowdedOut *waiter) {
	p := q.peers[name]
	if p == nil {
		p = &peer{name: name, waiters: newRing[*waiter]()}
		p.turn.of, p.level.of = p, p
	}
	w.peer = p
	if p.waiting >= q.perPeer {
		return w
	}
	if q.waiting >= q.max {
		// Someone who storms crowds out nobody but himself, not even those who come later. Equals don't displace each other.
		if p.waiting+1 >= q.most {
			return w
		}
		crowdedOut = q.levels[q.most].next.of.waiters.prev.of // the newest: who came before it keeps his place
		q.remove(crowdedOut)
	}
	w.queued = true
	w.place.of, w.oldest.of = w, w
	p.waiters.push(&w.place)
	if w.patient {
		q.patient.push(&w.oldest)
	} else {
		q.urgent++
	}
	if p.waiting == 0 {
		q.peers[name] = p
		q.turns.push(&p.turn)
	} else {
		p.level.unlink()
	}
	q.waiting++
	p.waiting++
	if p.waiting == len(q.levels) {
		q.levels = append(q.levels, newRing[*peer]())
	}
	q.levels[p.waiting].push(&p.level)
	q.most = max(q.most, p.waiting)
	return crowdedOut
}

// remove takes out w, which is in the queue.
func (q *queue) remove(w *waiter) {
	w.queued = false
	w.place.unlink()
	if w.patient {
		w.oldest.unlink()
	} else {
		q.urgent--
	}
	p := w.peer
	p.level.unlink()
	q.waiting--
	p.waiting--
	if p.waiting == 0 {
		p.turn.unlink()
		delete(q.peers, p.name)
	} else {
		q.levels[p.waiting].push(&p.level)
	}
	if q.levels[q.most].empty() {
		q.most-- // w's peer was the last at this level, and is one below it now
	}
}

// take removes up to n leaves, one of each peer in turn.
func (q *queue) take(n int) []*waiter {
	batch := make([]*waiter, 0, min(n, q.waiting))
	for len(batch) < cap(batch) {
		p := q.turns.next.of
		p.turn.unlink()
		q.turns.push(&p.turn)
		w := p.waiters.next.of
		q.remove(w)
		batch = append(batch, w)
	}
	return batch
}
