package enforce

import (
	"context"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Subject is an open connection as an Enforcer sees it. Its methods are called by any goroutine, and must not wait.
type Subject interface {
	// Result is what the connection stands on.
	Result() *attest.Result
	// Settle puts is in the place of was, and answers false where that is not the Result any more.
	Settle(was, is *attest.Result) bool
	// Refuse ends the connection, in a way that what it cuts off does not look whole.
	Refuse(*attest.Result)
	// Evidence is what the Result goes back to.
	Evidence() (*attest.Evidence, error)
}

// Place is where peers are appraised, such as a listener. The zero Place refuses.
type Place struct {
	enforcer *Enforcer
	name     string
}

// Place answers the place of that name, which need not be there yet, or any more: it refuses then.
func (e *Enforcer) Place(name string) Place { return Place{e, name} }

func (p Place) state() *state {
	if p.enforcer == nil {
		return &nowhere
	}
	return p.enforcer.at(p.name)
}

// Basis is what is in force: who verifies, and the policies that have to affirm.
func (p Place) Basis() (*attest.Appraiser, attest.Stack) {
	st := p.state()
	return st.appraiser, st.stack
}

// Epoch grows with every change of what is in force.
func (p Place) Epoch() uint64 { return p.state().epoch }

// EvidenceAge is how old evidence may be at most; 0 where no policy says so.
func (p Place) EvidenceAge() time.Duration { return p.state().stack.EvidenceAge() }

// Standing is an open connection that stands on what is in force at a place.
type Standing struct {
	enforcer *Enforcer
	place    string
	peer     string
	subject  Subject
}

// Admit takes in a connection that was established, before anything moves over it. began is the Epoch from before its peer was
// appraised: where that has changed meanwhile the Result is judged again first, and verified where endorsements have changed. The
// answer is nil with the Standing, which is Done with the connection; or the refusal, and the caller then ends the connection.
func (p Place) Admit(ctx context.Context, began uint64, peer string, subject Subject) (*Standing, *attest.Result) {
	e := p.enforcer
	if e == nil {
		return nil, attest.RefusedResult(&attest.Error{Code: attest.CodeEmptyPolicy, Check: "policy"}, time.Time{})
	}
	s := &Standing{enforcer: e, place: p.name, peer: peer, subject: subject}
	for {
		judged, refused := s.recheck(ctx, began)
		if refused != nil {
			return nil, refused
		}
		refused, changed := s.enter(judged)
		switch {
		case refused != nil:
			return nil, refused
		case !changed:
			return s, nil
		}
		began = judged
	}
}

// enter puts the connection on the list, unless what is in force has changed since the Epoch that it was judged in.
func (s *Standing) enter(judged uint64) (refused *attest.Result, changed bool) {
	e := s.enforcer
	e.mu.Lock()
	defer e.mu.Unlock()
	p := e.places[s.place]
	switch {
	case p == nil:
		return attest.RefusedResult(&attest.Error{Code: attest.CodeEmptyPolicy, Check: "policy", Got: "nothing that says whom to let in"}, e.now()), false
	case p.state.epoch > judged:
		return nil, true
	}
	e.open[s] = struct{}{}
	p.open++
	return nil, false
}

// Recheck judges the Result again if what is in force has changed since began, the Epoch from before the peer was appraised. It
// is for a Result that has taken the place of another one, by a peer that attested anew: a change may have found the one before.
// The answer is nil, or the refusal, and the caller then ends the connection.
func (s *Standing) Recheck(ctx context.Context, began uint64) *attest.Result {
	_, refused := s.recheck(ctx, began)
	return refused
}

// recheck answers the Epoch that the Result was judged in.
func (s *Standing) recheck(ctx context.Context, began uint64) (judged uint64, refused *attest.Result) {
	for {
		st := s.enforcer.at(s.place)
		if st == &nowhere {
			return 0, attest.RefusedResult(&attest.Error{Code: attest.CodeEmptyPolicy, Check: "policy", Got: "nothing that says whom to let in"}, s.enforcer.now())
		}
		if began >= st.epoch {
			return began, nil
		}
		old := s.subject.Result()
		var renewal *attest.Renewal
		if began < st.verified {
			renewal = verify(ctx, st, s.subject, s.enforcer.now())
		}
		var next *attest.Result
		attest.RejudgeAlike([]*attest.Result{old}, renewal, st.stack, s.enforcer.now(), func(_ int, r *attest.Result) { next = r })
		if !next.Affirmed() {
			s.enforcer.count(func(t *totals) { t.judged++; t.refused++ })
			s.Done()
			return 0, next
		}
		if s.subject.Settle(old, next) { // else another one has taken its place, which is looked at likewise
			began = st.epoch
			s.enforcer.count(func(t *totals) { t.judged++ })
		}
	}
}

// Done takes the connection off the list. It may be called more than once.
func (s *Standing) Done() {
	if s == nil {
		return
	}
	e := s.enforcer
	e.mu.Lock()
	defer e.mu.Unlock()
	if _, there := e.open[s]; !there {
		return
	}
	delete(e.open, s)
	p := e.places[s.place]
	if p.open--; p.open == 0 && p.retired {
		delete(e.places, s.place)
	}
}

// verify verifies the evidence of a connection anew; nil where nothing can be said about it.
func verify(ctx context.Context, st *state, subject Subject, now time.Time) *attest.Renewal {
	return reverify(ctx, st, shown(subject), now)
}

// shown is the evidence of a connection; nil, which no Renewal takes, where it can't be read any more.
func shown(subject Subject) *attest.Evidence {
	ev, err := subject.Evidence()
	if err != nil {
		return nil
	}
	return ev
}

func reverify(ctx context.Context, st *state, ev *attest.Evidence, now time.Time) *attest.Renewal {
	v := st.appraiser.Reverify(ctx, ev, now)
	if err := v.Err(); err != nil && attest.CodeOf(err).Undecidable() {
		return nil
	}
	return &v
}
