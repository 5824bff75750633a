package attest

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"slices"
	"sync"
	"time"
)

const (
	memoLife = 10 * time.Second // how long a verification counts
	memoSize = 256              // how many are remembered
)

// Memo is a Verifier that remembers, for ten seconds, what its verifiers found in byte-identical evidence: one quote serves
// many TLS sessions, and each connection would otherwise verify the same signatures again. It never answers for a signature
// over fresh report data: that is other evidence. What a verification depends on decides whether its claims count for
// another caller:
//
//   - the evidence: every byte of it, with its endorsements and its event log;
//   - the endorser's answers: the caller's own endorser is asked for the same things, and has to answer byte for byte as the
//     first one did;
//   - the time: the caller's clock shows the time of the verification, or up to ten seconds later.
//
// Otherwise the evidence is verified anew. Failures are never remembered. Callers that present the same evidence at once wait
// for one of them to verify it, and use what that one found under the same conditions; where it failed each verifies for
// itself. A Memo is safe for concurrent use, and holds at most 256 verifications: the one that was not used for longest goes.
// Its claims are shared: nobody may change them, so that a Verifier that changes the claims of another belongs inside it.
type Memo struct {
	verifiers []Verifier

	mu     sync.Mutex
	known  map[[32]byte]*verified
	flying map[[32]byte]*verification
	uses   uint64 // a clock of uses
}

// NewMemo makes a Memo in front of verifiers, which it tries in order.
func NewMemo(verifiers ...Verifier) *Memo {
	return &Memo{verifiers: verifiers, known: map[[32]byte]*verified{}, flying: map[[32]byte]*verification{}}
}

// verified is a verification that succeeded.
type verified struct {
	claims *Claims
	asked  []asked
	made   time.Time // without a monotonic reading, which stands still while a machine sleeps
	used   uint64    // by the Memo's clock of uses
}

// covers reports whether the verification counts at a time.
func (v *verified) covers(now time.Time) bool {
	age := now.Round(0).Sub(v.made)
	return age >= 0 && age <= memoLife
}

// verification is one that is under way; found is nil when it failed.
type verification struct {
	done  chan struct{}
	found *verified
}

// Verify implements Verifier.
func (m *Memo) Verify(ctx context.Context, ev *Evidence, endorser Endorser, now time.Time) (*Claims, error) {
	key := keyOf(ev)
	w := &witness{next: endorser, answers: map[Ref]answer{}}
	known, ahead, mine := m.look(key, now, true)
	if known != nil {
		if w.confirms(ctx, known) {
			return known.claims, nil
		}
		_, ahead, mine = m.look(key, now, false)
	}
	if mine != nil {
		// Also when a decoder panics: whoever waits would otherwise wait for ever.
		defer m.land(key, mine)
		found, err := m.verify(ctx, key, ev, w, now)
		if err != nil {
			return nil, err
		}
		mine.found = found
		return found.claims, nil
	}
	select {
	case <-ahead.done:
	case <-ctx.Done():
		return nil, &Error{Code: CodeEndorserUnreachable, Check: "authenticity", Err: ctx.Err()}
	}
	found := ahead.found
	if found == nil || !found.covers(now) || !w.confirms(ctx, found) {
		// Nobody waits twice: a peer that lets its own connections fail could else hold up all others that present a copy of
		// its evidence, one after the other.
		var err error
		if found, err = m.verify(ctx, key, ev, w, now); err != nil {
			return nil, err
		}
	}
	return found.claims, nil
}

// look finds a verification that counts now, unless the caller trusts none; or else one that is under way; or else begins
// one, which is the caller's.
func (m *Memo) look(key [32]byte, now time.Time, trust bool) (known *verified, ahead, mine *verification) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if v := m.known[key]; trust && v != nil && v.covers(now) {
		m.uses++
		v.used = m.uses
		return v, nil, nil
	}
	if f := m.flying[key]; f != nil {
		return nil, f, nil
	}
	f := &verification{done: make(chan struct{})}
	m.flying[key] = f
	return nil, nil, f
}

// land ends a verification, whatever came of it.
func (m *Memo) land(key [32]byte, f *verification) {
	m.mu.Lock()
	delete(m.flying, key)
	m.mu.Unlock()
	close(f.done)
}

// verify verifies, and remembers a success.
func (m *Memo) verify(ctx context.Context, key [32]byte, ev *Evidence, w *witness, now time.Time) (*verified, error) {
	claims, err := verifyWith(ctx, m.verifiers, ev.clone(), w, now)
	if err != nil {
		return nil, err
	}
	v := &verified{claims: claims, asked: w.asked, made: now.Round(0)}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.uses++
	v.used = m.uses
	m.known[key] = v
	if len(m.known) > memoSize {
		oldest := key
		for k, other := range m.known {
			if other.used < m.known[oldest].used {
				oldest = k
			}
		}
		delete(m.known, oldest)
	}
	return v, nil
}

// verifyWith asks verifiers in turn, and answers ErrNotMine when it is evidence of none of them.
func verifyWith(ctx context.Context, verifiers []Verifier, ev *Evidence, endorser Endorser, now time.Time) (*Claims, error) {
	for _, v := range verifiers {
		claims, err := v.Verify(ctx, ev, endorser, now)
		if errors.Is(err, ErrNotMine) {
			continue
		}
		if err == nil && claims == nil {
			err = &Error{Code: CodeInternal, Check: "authenticity", Err: errors.New("verifier gave no claims")}
		}
		return claims, err
	}
	return nil, ErrNotMine
}

// clone copies evidence: claims that are remembered may point into it, and outlive the buffer of the connection that it
// came from.
func (e *Evidence) clone() *Evidence {
	c := &Evidence{Format: e.Format, Raw: slices.Clone(e.Raw), Endorsements: slices.Clone(e.Endorsements), EventLog: slices.Clone(e.EventLog)}
	for i := range c.Endorsements {
		c.Endorsements[i].Raw = slices.Clone(c.Endorsements[i].Raw)
	}
	return c
}

// asked is what an endorser was asked for, and the digest of its answer.
type asked struct {
	ref Ref
	sum [32]byte
}

// answer is what an endorser answered.
type answer struct {
	list []Endorsement
	err  error
	sum  [32]byte
}

// witness is the caller's endorser for one call of Verify. It is asked for the same thing once only: what a recorder noted is
// then what the verification saw, also where a remembered verification was compared before.
type witness struct {
	next Endorser

	mu      sync.Mutex
	answers map[Ref]answer
	asked   []asked // by the verification
}

// Endorse implements Endorser.
func (w *witness) Endorse(ctx context.Context, ref Ref) ([]Endorsement, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	a := w.ask(ctx, ref)
	w.asked = append(w.asked, asked{ref, a.sum})
	return a.list, a.err
}

// confirms reports whether the caller's endorser answers as it was when v was made.
func (w *witness) confirms(ctx context.Context, v *verified) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, a := range v.asked {
		if w.ask(ctx, a.ref).sum != a.sum {
			return false
		}
	}
	return true
}

func (w *witness) ask(ctx context.Context, ref Ref) answer {
	if a, ok := w.answers[ref]; ok {
		return a
	}
	list, err := w.next.Endorse(ctx, ref)
	a := answer{list, err, sumOf(list, err)}
	w.answers[ref] = a
	return a
}

// framed hashes fields of any length so that no two lists of fields give the same bytes.
type framed struct {
	hash.Hash
	size [8]byte
}

func (f *framed) field(b []byte) {
	binary.BigEndian.PutUint64(f.size[:], uint64(len(b)))
	f.Write(f.size[:])
	f.Write(b)
}

func (f *framed) texts(all ...string) {
	for _, s := range all {
		f.field([]byte(s))
	}
}

func (f *framed) list(all []Endorsement) (sum [32]byte) {
	for _, e := range all {
		f.texts(string(e.Kind))
		f.field(e.Raw)
	}
	f.Sum(sum[:0])
	return sum
}

// keyOf is a digest of all of the evidence.
func keyOf(ev *Evidence) [32]byte {
	f := &framed{Hash: sha256.New()}
	f.texts(string(ev.Format))
	f.field(ev.Raw)
	f.field(ev.EventLog)
	return f.list(ev.Endorsements)
}

// sumOf is a digest of all that a Verifier can learn from an answer. A failure is an answer as well: claims tell why
// nothing is known about revoked keys.
func sumOf(list []Endorsement, err error) [32]byte {
	failure := ""
	if err != nil {
		failure = fmt.Sprintf("%T %q", err, err.Error())
	}
	var coded *Error
	if errors.As(err, &coded) {
		failure += fmt.Sprintf(" %q", []string{string(coded.Code), coded.Check, coded.Subject, coded.Got, coded.Want, coded.Hint})
	}
	f := &framed{Hash: sha256.New()}
	f.texts(failure)
	return f.list(list)
}
