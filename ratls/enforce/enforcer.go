package enforce

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Enforcer holds the policies in force and the connections that stand on them. It is safe for concurrent use.
type Enforcer struct {
	appraiser func(attest.Stack) *attest.Appraiser
	now       func() time.Time
	swept     func(*Sweep)

	mu       sync.Mutex
	epoch    uint64
	policies map[string]attest.Policy
	places   map[string]*place
	open     map[*Standing]struct{}
	totals   totals
}

// New makes an Enforcer without policies. appraiser answers who verifies evidence where the policies of a stack have to affirm:
// the same one wherever it verifies alike, since connections are verified anew where it is another one. It must not call the
// Enforcer. swept, which may be nil,
// is told of every Sweep that there was something to judge in, or that a change began; it may wait.
func New(appraiser func(attest.Stack) *attest.Appraiser, now func() time.Time, swept func(*Sweep)) *Enforcer {
	return &Enforcer{
		appraiser: appraiser, now: now, swept: swept,
		policies: map[string]attest.Policy{}, places: map[string]*place{}, open: map[*Standing]struct{}{},
	}
}

// place is where peers are appraised.
type place struct {
	name    string
	demands []string // names of policies, all of which have to affirm
	state   *state
	open    int
	retired bool   // no configuration has it any more
	swept   uint64 // Epoch of the last state of which the open connections were judged, or are being
}

// state is what is in force at a place.
type state struct {
	epoch     uint64 // of the change that it came with
	verified  uint64 // of the last change after which evidence has to be verified anew
	stack     attest.Stack
	appraiser *attest.Appraiser
}

// nowhere is what is in force at a place that is not known.
var nowhere = state{appraiser: attest.NewAppraiser(attest.NoEndorser{})}

// Change is what is to be in force from now on. What it does not name stays as it is.
type Change struct {
	// Policies by name. One that is nil is taken away: places that demand it refuse.
	Policies map[string]attest.Policy
	// Places are all that there are, with the names of the policies that each demands; nil leaves them as they are. One that is
	// not among them any more keeps what it demanded, and is forgotten with its last connection.
	Places map[string][]string
	// Endorsements says that those have changed: evidence is verified anew.
	Endorsements bool
}

// Publish puts a change into force. From when it returns on, no connection is admitted that the change refuses. Those that are
// open are judged by the function that it answers, which is to be called at once; where it is not, by that of the next change.
func (e *Enforcer) Publish(c Change) (sweep func(context.Context) *Sweep) {
	e.mu.Lock()
	defer e.mu.Unlock()
	named := map[string]bool{}
	for name, p := range c.Policies {
		if old, known := e.policies[name]; known && same(old, p) {
			continue
		}
		named[name] = true
		if e.policies[name] = p; p == nil {
			delete(e.policies, name)
		}
	}
	moved := map[string]bool{}
	if c.Places != nil {
		e.settle(c.Places, moved)
	}
	if len(named) > 0 || len(moved) > 0 || c.Endorsements {
		e.epoch++
	}
	changed := map[string]bool{}
	for name, p := range e.places {
		concerned := moved[name] || slices.ContainsFunc(p.demands, func(d string) bool { return named[d] && (!p.retired || e.policies[d] != nil) })
		if !concerned && !c.Endorsements {
			continue
		}
		changed[name] = true
		e.renew(p, concerned, c.Endorsements)
	}
	epoch, since := e.epoch, e.epoch // since is from before all that the connections have not been judged by
	owed := map[string]bool{}
	for name, p := range e.places {
		if p.state.epoch > p.swept {
			owed[name], since = true, min(since, p.swept)
		}
	}
	list := e.list(func(s *Standing) bool { return owed[s.place] })
	return func(ctx context.Context) *Sweep {
		e.sweeping(owed, epoch)
		w := e.judge(ctx, list, epoch, func(st *state) bool { return st.verified > since })
		if len(changed) > 0 || len(list) > 0 {
			e.tell(w)
		}
		return w
	}
}

// sweeping takes note that the connections of places are judged by what has been in force since an Epoch.
func (e *Enforcer) sweeping(places map[string]bool, epoch uint64) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name := range places {
		if p := e.places[name]; p != nil {
			p.swept = max(p.swept, epoch)
		}
	}
}

func (e *Enforcer) tell(w *Sweep) {
	if e.swept != nil {
		e.swept(w)
	}
}

// settle takes over the places that there are, and notes those that demand something else.
func (e *Enforcer) settle(all map[string][]string, moved map[string]bool) {
	for name, demands := range all {
		p := e.places[name]
		if p == nil {
			p = &place{name: name}
			e.places[name] = p
		}
		if p.retired = false; p.state == nil || !slices.Equal(p.demands, demands) {
			p.demands, moved[name] = slices.Clone(demands), true
		}
	}
	for name, p := range e.places {
		if _, there := all[name]; there {
			continue
		}
		if p.retired = true; p.open == 0 {
			delete(e.places, name)
		}
	}
}

// renew makes the state of a place for the epoch of now.
func (e *Enforcer) renew(p *place, policies, endorsements bool) {
	next := &state{epoch: e.epoch}
	if old := p.state; old != nil {
		*next = *old
		next.epoch = e.epoch
	}
	if policies || p.state == nil {
		next.stack = make(attest.Stack, 0, len(p.demands))
		for i, name := range p.demands {
			layer := attest.Layer{Name: name, Policy: e.policies[name]}
			if p.retired && layer.Policy == nil && i < len(p.state.stack) {
				layer = p.state.stack[i] // what was taken away is missed by nobody who connects
			}
			next.stack = append(next.stack, layer)
		}
		next.appraiser = e.appraiser(next.stack)
		endorsements = endorsements || p.state == nil || p.state.appraiser != next.appraiser
	}
	if endorsements {
		next.verified = e.epoch
	}
	p.state = next
}

// list answers open connections.
func (e *Enforcer) list(which func(*Standing) bool) []*Standing {
	all := make([]*Standing, 0, len(e.open))
	for s := range e.open {
		if which(s) {
			all = append(all, s)
		}
	}
	return all
}

// same reports whether two policies are one. Those that can't be compared are not.
func same(a, b attest.Policy) (yes bool) {
	defer func() {
		if recover() != nil {
			yes = false
		}
	}()
	return a == b
}

// Apply is Publish and its sweep.
func (e *Enforcer) Apply(ctx context.Context, c Change) *Sweep { return e.Publish(c)(ctx) }

// Replace puts another policy in the place of the one of that name, and judges open connections by it. A nil policy is taken
// away: whatever demands it is refused, until there is one.
func (e *Enforcer) Replace(ctx context.Context, name string, p attest.Policy) *Sweep {
	return e.Apply(ctx, Change{Policies: map[string]attest.Policy{name: p}})
}

// Endorsed verifies the evidence of all open connections anew, since endorsements have changed, and judges it. Evidence that can
// neither be shown to be authentic nor not to be, such as where a vendor's service does not answer, stands as it did, as long as
// the policies take endorsements of that age.
func (e *Enforcer) Endorsed(ctx context.Context) *Sweep {
	return e.Apply(ctx, Change{Endorsements: true})
}

// Sweep judges all open connections as of now: rules begin and end, and evidence grows old.
func (e *Enforcer) Sweep(ctx context.Context) *Sweep {
	e.mu.Lock()
	list, epoch := e.list(func(*Standing) bool { return true }), e.epoch
	e.mu.Unlock()
	w := e.judge(ctx, list, epoch, func(*state) bool { return false })
	if w.Judged > 0 {
		e.tell(w)
	}
	return w
}

// lookAround is how often Run looks at the clock.
const lookAround = 10 * time.Second

// Run judges open connections whenever a rule of a policy that is in force begins or ends, until ctx is done.
func (e *Enforcer) Run(ctx context.Context) {
	tick := time.NewTicker(lookAround)
	defer tick.Stop()
	for seen := e.now(); ; {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		now := e.now()
		if e.turns(seen, now) {
			e.Sweep(ctx)
		}
		seen = now
	}
}

// turns reports whether a rule begins or ends after one time, and not after the other.
func (e *Enforcer) turns(after, until time.Time) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, p := range e.places {
		if at := p.state.stack.Changes(after); !at.IsZero() && !at.After(until) {
			return true
		}
	}
	return false
}

// Preview says what Replace would do to the connections that are open, and does nothing.
func (e *Enforcer) Preview(ctx context.Context, name string, p attest.Policy) *Sweep {
	e.mu.Lock()
	concerned := map[string]*state{}
	for _, pl := range e.places {
		if slices.Contains(pl.demands, name) {
			next := *pl.state
			next.stack = slices.Clone(next.stack)
			for i := range next.stack {
				if next.stack[i].Name == name {
					next.stack[i].Policy = p
				}
			}
			concerned[pl.name] = &next
		}
	}
	list, epoch := e.list(func(s *Standing) bool { return concerned[s.place] != nil }), e.epoch
	e.mu.Unlock()
	return e.run(&pass{Enforcer: e, ctx: ctx, state: func(place string) *state { return concerned[place] }}, list, epoch)
}

// at is what is in force at a place.
func (e *Enforcer) at(name string) *state {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.atLocked(name)
}

func (e *Enforcer) atLocked(name string) *state {
	if p := e.places[name]; p != nil {
		return p.state
	}
	return &nowhere
}

// Policies are those in force, by name.
func (e *Enforcer) Policies() map[string]attest.Policy {
	e.mu.Lock()
	defer e.mu.Unlock()
	return maps.Clone(e.policies)
}
