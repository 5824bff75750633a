package pins

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

// Key is the SHA-256 of a public key (SubjectPublicKeyInfo, DER).
type Key [sha256.Size]byte

// Target is a peer.
type Target struct {
	Address string // host:port
	Name    string // that its evidence has to be for
	// Successor is for the leaf that the peer is going to serve with next, which is another target than that of now.
	Successor bool
}

// Appraise connects to a target in the certificate tier and appraises it, by a RelyingParty that is ForPin, at the place of the
// Keeper. The error means that there was nothing to appraise.
type Appraise func(ctx context.Context, t Target) (*attest.Result, ratls.Presented, error)

// Options tune a Keeper. Zero values are the defaults.
type Options struct {
	Timeout time.Duration    // of one appraisal, default 10 s
	Now     func() time.Time // default time.Now
	// Changed is called after each change of the keys, by any goroutine; it must not wait, nor call Aim or Close. May be nil.
	Changed func()
	// Told is called with the outcome of each appraisal, and with each refusal by a change of what is in force. result is nil where
	// there was nothing to appraise, and err says why. May be nil.
	Told func(t Target, result *attest.Result, err error)
}

const (
	maxKeys     = 16 // of one target, which may be many machines; the one that ends first makes room
	expiryCheck = time.Second
)

// Keeper keeps the keys of peers. It is safe for concurrent use.
type Keeper struct {
	place    enforce.Place
	appraise Appraise
	opts     Options
	ctx      context.Context
	end      context.CancelFunc
	work     sync.WaitGroup

	mu     sync.Mutex
	watch  map[Target]*watched
	closed bool
}

// watched is a target that is looked at.
type watched struct {
	every time.Duration
	end   context.CancelFunc
	pins  map[Key]*pin
}

// New makes a Keeper for what is in force at a place. It has no targets yet.
func New(place enforce.Place, appraise Appraise, opts Options) *Keeper {
	if opts.Timeout <= 0 {
		opts.Timeout = 10 * time.Second
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	if opts.Changed == nil {
		opts.Changed = func() {}
	}
	if opts.Told == nil {
		opts.Told = func(Target, *attest.Result, error) {}
	}
	k := &Keeper{place: place, appraise: appraise, opts: opts, watch: map[Target]*watched{}}
	k.ctx, k.end = context.WithCancel(context.Background())
	k.work.Go(k.expire)
	return k
}

// Aim has the Keeper look at targets from now on, each after every length of time, and forget all others. What stays is not looked
// at anew.
func (k *Keeper) Aim(targets []Target, every time.Duration) {
	var gone []*pin
	k.mu.Lock()
	if !k.closed {
		gone = k.aim(targets, every)
	}
	k.mu.Unlock()
	k.done(gone)
}

func (k *Keeper) aim(targets []Target, every time.Duration) (gone []*pin) {
	for t, w := range k.watch {
		if w.every == every && slices.Contains(targets, t) {
			continue
		}
		w.end()
		if !slices.Contains(targets, t) {
			gone = slices.AppendSeq(gone, maps.Values(w.pins))
			delete(k.watch, t)
		}
	}
	for _, t := range targets {
		w := k.watch[t]
		if w != nil && w.every == every {
			continue
		}
		if w == nil {
			w = &watched{pins: map[Key]*pin{}}
			k.watch[t] = w
		}
		var ctx context.Context
		w.every = every
		ctx, w.end = context.WithCancel(k.ctx)
		k.work.Go(func() { k.look(ctx, t, w, every) })
	}
	return gone
}

// Close forgets all keys, and waits for what goes on.
func (k *Keeper) Close() {
	k.end()
	var gone []*pin
	k.mu.Lock()
	k.closed = true
	for _, w := range k.watch {
		w.end()
		gone = slices.AppendSeq(gone, maps.Values(w.pins))
	}
	clear(k.watch)
	k.mu.Unlock()
	k.done(gone)
	k.work.Wait()
}

// Keys are those that are kept, in order. There are none where nobody is affirmed.
func (k *Keeper) Keys() []Key {
	return slices.SortedFunc(maps.Keys(k.kept()), func(a, b Key) int { return bytes.Compare(a[:], b[:]) })
}

// Leaves are the certificates of Keys (DER), in their order.
func (k *Keeper) Leaves() (all [][]byte) {
	kept := k.kept()
	for _, key := range slices.SortedFunc(maps.Keys(kept), func(a, b Key) int { return bytes.Compare(a[:], b[:]) }) {
		all = append(all, kept[key].leaf.Raw)
	}
	return all
}

func (k *Keeper) kept() map[Key]*pin {
	now := k.opts.Now()
	k.mu.Lock()
	defer k.mu.Unlock()
	all := map[Key]*pin{}
	for _, w := range k.watch {
		for key, p := range w.pins {
			if now.Before(p.deadline(k.place)) {
				all[key] = p
			}
		}
	}
	return all
}

// Next is when the first of the keys ends; the zero time where there is none.
func (k *Keeper) Next() (first time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range k.watch {
		for _, p := range w.pins {
			if d := p.deadline(k.place); first.IsZero() || d.Before(first) {
				first = d
			}
		}
	}
	return first
}

// done is for pins that were taken away.
func (k *Keeper) done(gone []*pin) {
	for _, p := range gone {
		p.standing.Done()
	}
	if len(gone) > 0 {
		k.opts.Changed()
	}
}

// look appraises a target until ctx ends.
func (k *Keeper) look(ctx context.Context, t Target, w *watched, every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		k.once(ctx, t, w)
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (k *Keeper) once(ctx context.Context, t Target, w *watched) {
	began := k.place.Epoch()
	limited, cancel := context.WithTimeout(ctx, k.opts.Timeout)
	defer cancel()
	result, shown, err := k.appraise(limited, t)
	if ctx.Err() != nil {
		return
	}
	if err == nil && result == nil {
		err = errors.New("no verdict")
	}
	if err != nil {
		k.opts.Told(t, nil, err)
		return
	}
	if result.Affirmed() {
		var refused *attest.Result
		if refused, err = k.take(limited, t, w, began, result, shown); refused != nil {
			result = refused
		}
	}
	if err != nil {
		k.opts.Told(t, nil, err)
		return
	}
	if !result.Affirmed() && !attest.CodeOf(result.Err()).Undecidable() {
		k.drop(t, w)
	}
	k.opts.Told(t, result, nil)
}

// take keeps the key of an affirmed target. The answer is a refusal by what has come into force meanwhile.
func (k *Keeper) take(ctx context.Context, t Target, w *watched, began uint64, result *attest.Result, shown ratls.Presented) (*attest.Result, error) {
	content, err := ratls.OpenPresented(shown)
	if err != nil {
		return nil, err
	}
	p := &pin{k: k, t: t, w: w, key: sha256.Sum256(content.Leaf.RawSubjectPublicKeyInfo), leaf: content.Leaf, evidence: content.Evidence}
	p.result.Store(result)
	standing, refused := k.place.Admit(ctx, began, t.Address, p)
	if refused != nil {
		return refused, nil
	}
	var gone []*pin
	k.mu.Lock()
	p.standing = standing
	if refused = p.refused; refused == nil && k.watch[t] == w {
		if old := w.pins[p.key]; old != nil {
			gone = append(gone, old)
		} else if len(w.pins) == maxKeys {
			first := slices.MinFunc(slices.Collect(maps.Values(w.pins)), func(a, b *pin) int { return a.leaf.NotAfter.Compare(b.leaf.NotAfter) })
			delete(w.pins, first.key)
			gone = append(gone, first)
		}
		w.pins[p.key] = p
	} else {
		gone = append(gone, p)
	}
	k.mu.Unlock()
	for _, g := range gone {
		g.standing.Done()
	}
	k.opts.Changed()
	return refused, nil
}

// drop takes away all keys of a target, and those of the leaf that its peer was going to serve with next.
func (k *Keeper) drop(t Target, w *watched) {
	k.mu.Lock()
	gone := slices.Collect(maps.Values(w.pins))
	clear(w.pins)
	t.Successor = true
	if next := k.watch[t]; next != nil {
		gone = slices.AppendSeq(gone, maps.Values(next.pins))
		clear(next.pins)
	}
	k.mu.Unlock()
	k.done(gone)
}

// expire takes away keys when their time is over. It looks at the clock again and again: timers stand still while a machine sleeps.
func (k *Keeper) expire() {
	tick := time.NewTicker(expiryCheck)
	defer tick.Stop()
	for {
		select {
		case <-k.ctx.Done():
			return
		case <-tick.C:
		}
		now := k.opts.Now()
		var gone []*pin
		k.mu.Lock()
		for _, w := range k.watch {
			for key, p := range w.pins {
				if !now.Before(p.deadline(k.place)) {
					gone = append(gone, p)
					delete(w.pins, key)
				}
			}
		}
		k.mu.Unlock()
		k.done(gone)
	}
}

// pin is a key that stands on a Result, as an open connection does.
type pin struct {
	k        *Keeper
	t        Target
	w        *watched
	key      Key
	leaf     *x509.Certificate
	evidence *attest.Evidence
	result   atomic.Pointer[attest.Result]
	standing *enforce.Standing // with k.mu
	refused  *attest.Result    // with k.mu
}

// deadline is when the certificate ends, or the evidence in it is too old.
func (p *pin) deadline(place enforce.Place) time.Time {
	end := p.leaf.NotAfter
	if age := place.EvidenceAge(); age > 0 {
		if old := p.leaf.NotBefore.Add(age); old.Before(end) {
			end = old
		}
	}
	return end
}

// Result implements enforce.Subject.
func (p *pin) Result() *attest.Result { return p.result.Load() }

// Settle implements enforce.Subject.
func (p *pin) Settle(was, is *attest.Result) bool { return p.result.CompareAndSwap(was, is) }

// Evidence implements enforce.Subject.
func (p *pin) Evidence() (*attest.Evidence, error) { return p.evidence, nil }

// Refuse implements enforce.Subject.
func (p *pin) Refuse(r *attest.Result) {
	p.k.mu.Lock()
	p.refused = r
	kept := p.w.pins[p.key] == p
	if kept {
		delete(p.w.pins, p.key)
	}
	p.k.mu.Unlock()
	if kept {
		p.k.opts.Changed()
		p.k.opts.Told(p.t, r, nil)
	}
}
