// Package batch lets one quote serve many sessions. TEEs quote slowly and one at a time: the leaves of all sessions that
// wait while a quote is in flight become a hash tree (RFC 9162), the next quote signs its root, and each session gets the
// same evidence with the inclusion proof of its own leaf. A lone session is a tree of size one, and waits for nobody.
package batch

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/merkle"
)

// ErrClosed is the cause of the failures after Close.
var ErrClosed = errors.New("closed")

// Options tune a Batcher. A field that is not positive takes the default that its comment names.
type Options struct {
	QuoteTimeout time.Duration // for one quote, 15 s
	Queue        int           // leaves that may wait, 16384
	PeerQueue    int           // leaves of one peer that may wait, a quarter of Queue
	SpareQueue   int           // Spare leaves that may wait, 256; of one peer a sixteenth of them
	MaxBatch     int           // leaves of one quote, 8192
	Patience     time.Duration // how long a Patient leaf may wait for company, 1 s
	Failures     int           // quotes failed in a row after which nobody waits for another, 5
	Pause        time.Duration // after which one is tried again, 1 s; it doubles with each failure
	LongestPause time.Duration // up to this, 30 s
}

func (o Options) withDefaults() Options {
	atLeast := func(v *int, def int) {
		if *v <= 0 {
			*v = def
		}
	}
	atLeast(&o.Queue, 16384)
	atLeast(&o.PeerQueue, max(o.Queue/4, 1))
	atLeast(&o.SpareQueue, 256)
	atLeast(&o.MaxBatch, 8192)
	atLeast(&o.Failures, 5)
	positive := func(v *time.Duration, def time.Duration) {
		if *v <= 0 {
			*v = def
		}
	}
	positive(&o.QuoteTimeout, 15*time.Second)
	positive(&o.Patience, time.Second)
	positive(&o.Pause, time.Second)
	positive(&o.LongestPause, 30*time.Second)
	return o
}

// Urgency says whether a leaf is worth a quote of its own.
type Urgency int

const (
	// Now is for a session that waits: a quote begins as soon as the one in flight is over.
	Now Urgency = iota
	// Patient is for an open session that renews its evidence: it rides along with the next quote, or waits for company
	// until the oldest such leaf has waited for Options.Patience.
	Patient
	// Spare is for who has no session. It takes a place that sessions leave in a batch, and never theirs in the queue. A quote that
	// is for such leaves alone begins when the oldest has waited for Options.Patience, and as long after the last one of that kind
	// that the TEE spends a tenth of its time on them at most.
	Spare
)

// spareRest is how many times as long as a quote for Spare leaves took there is no other one for them alone.
const spareRest = 9

// Ticket is what one session gets. The Evidence is that of all sessions of the batch: nobody may change it.
type Ticket struct {
	Evidence *attest.Evidence
	Size     uint64        // leaves of the tree
	Index    uint64        // of the session's leaf
	Proof    []merkle.Hash // its inclusion proof
}

// Batcher gathers leaves and obtains evidence for them, one quote at a time. It has no goroutine while there is no quote in
// flight.
type Batcher struct {
	attester attest.Attester
	bind     func(size uint64, root merkle.Hash) attest.ReportData
	opts     Options

	mu      sync.Mutex
	queue   *queue
	spare   *queue    // of leaves that are Spare
	rested  time.Time // from when on there may be a quote for those alone
	flying  *quote    // nil when none is in flight; settled already when the attester hangs
	breaker breaker
	alarm   *time.Timer // for the oldest patient leaf; one that finds nothing to do does nothing
	closed  bool
	stats   Stats
}

// quote is one call of the attester.
type quote struct {
	waiters  []*waiter
	spare    bool // it is for Spare leaves alone
	began    time.Time
	cancel   context.CancelFunc
	settled  bool // whether the waiters have their answer
	tree     *merkle.Tree
	evidence *attest.Evidence
}

// New makes a Batcher. The attester is called by one goroutine at a time, with what bind makes of the size and the root of a
// tree.
func New(attester attest.Attester, bind func(size uint64, root merkle.Hash) attest.ReportData, opts Options) *Batcher {
	opts = opts.withDefaults()
	b := &Batcher{
		attester: attester, bind: bind, opts: opts,
		queue:   newQueue(opts.Queue, opts.PeerQueue),
		spare:   newQueue(opts.SpareQueue, max(opts.SpareQueue/16, 1)),
		breaker: breaker{after: opts.Failures, pause: opts.Pause, longest: opts.LongestPause},
	}
	b.alarm = time.AfterFunc(opts.Patience, func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.next()
	})
	return b
}

// Attest obtains evidence for a leaf, which its maker has separated from nodes (merkle.Hash). Peers are served in turn; peer
// is whatever the caller holds to be one, such as an IPv4 address or the first half of an IPv6 one. All errors but that of a
// cancelled ctx, which is its cause, have a code:
//   - J108 when too many leaves wait, most of them or too many of this peer;
//   - J106 when ctx's deadline passes;
//   - J802 when the TEE fails or takes too long, unless the attester's error has a code of its own, J803 when it panics;
//   - J806 when it keeps failing, or still has not come back from a call that took too long.
func (b *Batcher) Attest(ctx context.Context, peer string, leaf merkle.Hash, urgency Urgency) (*Ticket, error) {
	if ctx.Err() != nil {
		return nil, ended(ctx)
	}
	w := &waiter{leaf: leaf, patient: urgency != Now, in: b.queue, done: make(chan struct{})}
	if urgency == Spare {
		w.in = b.spare
	}
	b.join(w, peer)
	select {
	case <-w.done:
	case <-ctx.Done():
		b.leave(w)
		return nil, ended(ctx)
	}
	if w.err != nil {
		return nil, w.err
	}
	tree := w.quote.tree
	return &Ticket{Evidence: w.quote.evidence, Size: tree.Size(), Index: w.index, Proof: tree.Proof(w.index)}, nil
}

func ended(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return &attest.Error{Code: attest.CodeTimeout, Check: "evidence", Hint: "the TEE is slow or many sessions wait for it; try again", Err: ctx.Err()}
	}
	return context.Cause(ctx)
}

func failed(err error) error {
	return &attest.Error{Code: attest.CodeAttesterFailed, Check: "evidence", Err: err}
}

// join puts w into the queue, or answers it at once.
func (b *Batcher) join(w *waiter, peer string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.since = time.Now()
	switch {
	case b.closed:
		w.answer(failed(ErrClosed))
	case b.broken(w.since):
		w.answer(b.refusal())
	default:
		if out := w.in.admit(w, peer); out != nil {
			b.stats.Crowded++
			out.answer(&attest.Error{Code: attest.CodeCrowded, Check: "evidence", Subject: out.peer.name})
		}
		b.next()
	}
}

// leave is for a caller whose context has ended.
func (b *Batcher) leave(w *waiter) {
	b.mu.Lock()
	defer b.mu.Unlock()
	w.gone = true
	if w.queued {
		w.in.remove(w)
	}
}

// next begins a quote if none is in flight and one is due, or sees to it that it does later.
func (b *Batcher) next() {
	if b.flying != nil || b.waiting() == 0 {
		return
	}
	now := time.Now()
	if early := b.early(now); early > 0 {
		b.alarm.Reset(early)
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	waiters := b.queue.take(b.opts.MaxBatch)
	q := &quote{waiters: waiters, spare: len(waiters) == 0, began: now, cancel: cancel}
	q.waiters = append(q.waiters, b.spare.take(b.opts.MaxBatch-len(waiters))...)
	b.flying = q
	b.stats.Quotes++
	b.stats.Largest = max(b.stats.Largest, len(q.waiters))
	go b.fly(ctx, q)
}

func (b *Batcher) waiting() int { return b.queue.waiting + b.spare.waiting }

// early is how long it is until a quote is due for those that wait, of whom there are some.
func (b *Batcher) early(now time.Time) time.Duration {
	if b.queue.urgent > 0 || b.queue.waiting >= b.opts.MaxBatch {
		return 0
	}
	if w := b.queue.patient.next.of; w != nil {
		return b.opts.Patience - now.Sub(w.since)
	}
	return max(b.opts.Patience-now.Sub(b.spare.patient.next.of.since), b.rested.Sub(now))
}

// everybody takes all who wait.
func (b *Batcher) everybody() []*waiter {
	return append(b.queue.take(b.queue.waiting), b.spare.take(b.spare.waiting)...)
}

func (b *Batcher) fly(ctx context.Context, q *quote) {
	late := time.AfterFunc(b.opts.QuoteTimeout, func() {
		b.stall(q)
		q.cancel() // after it, so that an attester that heeds its context fails in the same way as one that does not
	})
	ev, err := b.evidence(ctx, q)
	late.Stop()
	q.cancel()
	b.land(q, ev, err)
}

// evidence calls the attester.
func (b *Batcher) evidence(ctx context.Context, q *quote) (ev *attest.Evidence, err error) {
	defer func() {
		if p := recover(); p != nil {
			ev, err = nil, &attest.Error{Code: attest.CodeInternal, Check: "evidence", Err: fmt.Errorf("panic in the attester: %.200v", p)}
		}
	}()
	leaves := make([]merkle.Hash, len(q.waiters))
	for i, w := range q.waiters {
		leaves[i] = w.leaf
	}
	q.tree = merkle.New(leaves)
	ev, err = b.attester.Attest(ctx, b.bind(q.tree.Size(), q.tree.Root()))
	if err == nil && ev == nil {
		err = errors.New("no evidence")
	}
	var coded *attest.Error
	if err != nil && !errors.As(err, &coded) {
		err = failed(err)
	}
	return ev, err
}

// land takes what the attester answered. What comes after the waiters have been answered is of no use to anybody.
func (b *Batcher) land(q *quote, ev *attest.Evidence, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.flying = nil
	now := time.Now()
	b.stats.Quote.add(now.Sub(q.began))
	if q.spare {
		b.rested = now.Add(spareRest * now.Sub(q.began))
	}
	switch {
	case q.settled:
	case err != nil:
		b.fail(q, err)
	default:
		b.breaker.succeeded()
		q.evidence = ev
		b.settle(q, nil)
	}
	b.next()
}

// stall gives up waiting for the attester. It may hang in the hardware: until it comes back there is no other quote.
func (b *Batcher) stall(q *quote) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !q.settled {
		b.fail(q, failed(fmt.Errorf("nothing within %s", b.opts.QuoteTimeout)))
	}
}

func (b *Batcher) fail(q *quote, err error) {
	now := time.Now()
	b.stats.Failures++
	b.breaker.failed(now, err)
	b.settle(q, err)
	if b.broken(now) {
		for _, w := range b.everybody() {
			w.answer(b.refusal())
		}
	}
}

// settle answers the waiters of q.
func (b *Batcher) settle(q *quote, err error) {
	now := time.Now()
	q.settled = true
	for i, w := range q.waiters {
		if err == nil && !w.gone {
			b.stats.Sessions++
			b.stats.Wait.add(now.Sub(w.since))
		}
		w.quote, w.index = q, uint64(i)
		w.answer(err)
	}
}

// broken reports whether there is no use in waiting.
func (b *Batcher) broken(now time.Time) bool {
	return b.flying != nil && b.flying.settled || b.breaker.state(now) == Open
}

func (b *Batcher) refusal() error {
	b.stats.Refused++
	return &attest.Error{Code: attest.CodeAttesterBroken, Check: "evidence", Err: b.breaker.cause}
}

// Stats is what was counted so far.
func (b *Batcher) Stats() Stats {
	b.mu.Lock()
	defer b.mu.Unlock()
	s := b.stats
	s.Waiting = b.waiting()
	now := time.Now()
	s.Breaker = b.breaker.state(now)
	if b.broken(now) {
		s.Breaker = Open
	}
	return s
}

// Close fails everybody who waits or comes later with ErrClosed (J802). It waits for nothing: the goroutine of a quote in
// flight, whose context ends, lasts until the attester comes back.
func (b *Batcher) Close() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.alarm.Stop()
	for _, w := range b.everybody() {
		w.answer(failed(ErrClosed))
	}
	if b.flying != nil && !b.flying.settled {
		b.settle(b.flying, failed(ErrClosed))
		b.flying.cancel()
	}
}
