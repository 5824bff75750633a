package enforce

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Sweep is what came of judging open connections again.
type Sweep struct {
	Epoch    uint64 // of what was in force
	At       time.Time
	Took     time.Duration // until the last connection that is refused was told to end
	Judged   int
	Verified int // pieces of evidence that were verified anew
	Unproven int // of those, the ones of which nothing could be said, so that they stand as they did
	Refused  int
	Refusals []Refusal
	// Warnings are what rules that only report had to say, and about how many connections.
	Warnings map[Warning]int
}

// Refusal is a connection that ends.
type Refusal struct {
	Place, Peer string
	Was, Is     *attest.Result
}

// Warning is a check that warns.
type Warning struct {
	Place, Policy, ID, Text string
	Code                    attest.Code
	Line                    int
}

// alike is what Results have in common that are judged together.
type alike struct {
	place       string
	kind        [32]byte // of the claims
	level       attest.Level
	config      [32]byte
	reconnected bool
}

// group is connections that stand on claims of one Kind, as nearly all of a fleet do that are of one machine.
type group struct {
	alike
	claims    *attest.Claims // of the first one
	mixed     bool           // not on the same claims
	standings []*Standing
	results   []*attest.Result
}

func (g *group) add(s *Standing, r *attest.Result) {
	g.mixed = g.mixed || r.Claims() != g.claims
	g.standings, g.results = append(g.standings, s), append(g.results, r)
}

// pass is one run over open connections.
type pass struct {
	*Enforcer
	ctx   context.Context
	now   time.Time
	state func(place string) *state
	fresh func(*state) bool // whether evidence is to be verified anew; nil for never
	act   bool

	mu       sync.Mutex
	sweep    Sweep
	verified map[*attest.Claims]*verification
}

// verification is that of one piece of evidence, once.
type verification struct {
	mu      sync.Mutex
	done    bool
	renewal *attest.Renewal
}

// judge judges connections by what is in force, and acts on it. fresh says of what is in force at a place whether evidence is to
// be verified anew.
func (e *Enforcer) judge(ctx context.Context, list []*Standing, epoch uint64, fresh func(*state) bool) *Sweep {
	return e.run(&pass{Enforcer: e, ctx: ctx, state: e.at, fresh: fresh, act: true}, list, epoch)
}

// alone is how many connections are judged sooner than others could be asked to help with them, and together how many are judged in one
// go at most.
const (
	alone    = 64
	together = 512
)

func (e *Enforcer) run(p *pass, list []*Standing, epoch uint64) *Sweep {
	began := time.Now()
	p.now, p.verified = e.now(), map[*attest.Claims]*verification{}
	p.sweep = Sweep{Epoch: epoch, At: p.now, Warnings: map[Warning]int{}}
	groups := grouped(list)
	p.order(groups)
	var next atomic.Int64
	var work sync.WaitGroup
	some := func() {
		judged := 0
		for i := next.Add(1) - 1; i < int64(len(groups)); i = next.Add(1) - 1 {
			p.judge(groups[i])
			// Whoever ends connections goes first. Not after each of many small groups: on a busy machine every turn may take long to
			// come back, and the last connection would go on for minutes.
			if judged += len(groups[i].standings); judged >= together {
				judged = 0
				runtime.Gosched()
			}
		}
	}
	if len(list) > alone {
		for range min(runtime.GOMAXPROCS(0), len(groups)) - 1 {
			work.Go(some)
		}
	}
	some()
	work.Wait()
	w := &p.sweep
	w.Took = time.Since(began)
	if p.act {
		e.count(func(t *totals) {
			t.judged += uint64(w.Judged)
			t.verified += uint64(w.Verified)
			t.refused += uint64(w.Refused)
			for _, n := range w.Warnings {
				t.warned += uint64(n)
			}
			t.sweeps++
			t.last, t.took = w.At, w.Took
		})
	}
	return w
}

// grouped puts connections together that stand on claims of one Kind, in groups of a size that all processors get some of.
func grouped(list []*Standing) []*group {
	var all []*group
	last := map[alike]*group{}
	for _, s := range list {
		r := s.subject.Result()
		key := alike{s.place, r.Kind(), r.Level(), r.Config(), r.Reconnected()}
		g := last[key]
		if g == nil || len(g.standings) >= together {
			g = &group{alike: key, claims: r.Claims()}
			last[key], all = g, append(all, g)
		}
		g.add(s, r)
	}
	return all
}

// split is a group by the claims that its connections really stand on, for what is about evidence.
func (g *group) split() (all []*group) {
	if !g.mixed {
		return []*group{g}
	}
	by := map[*attest.Claims]*group{}
	for i, s := range g.standings {
		r := g.results[i]
		of := by[r.Claims()]
		if of == nil {
			of = &group{alike: g.alike, claims: r.Claims()}
			by[of.claims], all = of, append(all, of)
		}
		of.add(s, r)
	}
	return all
}

// order puts groups first that will be refused, as far as one of each that stand on the same claims tells: in an emergency
// nothing is to wait for the bookkeeping of those that go on. Where nearly all stand on claims of their own, looking at one of each
// would cost as much as judging all.
func (p *pass) order(groups []*group) {
	first := map[alike]*group{}
	members := 0
	for _, g := range groups {
		first[g.alike] = g
		members += len(g.standings)
	}
	if 4*len(first) > members {
		return
	}
	refused := map[alike]bool{}
	for key, g := range first {
		refused[key] = p.wouldRefuse(g)
	}
	slices.SortStableFunc(groups, func(a, b *group) int {
		switch x, y := refused[a.alike], refused[b.alike]; {
		case x && !y:
			return -1
		case y && !x:
			return 1
		}
		return 0
	})
}

func (p *pass) wouldRefuse(g *group) (yes bool) {
	defer func() {
		if recover() != nil {
			yes = true
		}
	}()
	return !g.results[0].Rejudge(p.state(g.place).stack, p.now).Affirmed()
}

// judge judges a group, and ends what is refused. Where evidence is verified anew, only connections of the same evidence are alike.
func (p *pass) judge(g *group) {
	st := p.state(g.place)
	if p.fresh == nil || !p.fresh(st) {
		p.judgeBy(st, false, g)
		return
	}
	for _, part := range g.split() {
		p.judgeBy(st, true, part)
	}
}

// judgeBy judges a group by what is in force at its place.
func (p *pass) judgeBy(st *state, verify bool, g *group) {
	told := make([]bool, len(g.standings))
	tally := Sweep{Warnings: map[Warning]int{}}
	defer func() {
		// A policy that panics has affirmed nobody.
		if bad := recover(); bad != nil {
			for i, s := range g.standings {
				if !told[i] {
					p.end(&tally, s, g.results[i], attest.RefusedResult(&attest.Error{Code: attest.CodeInternal, Check: "policy", Err: fmt.Errorf("panic: %v", bad)}, p.now))
				}
			}
		}
		p.mu.Lock()
		defer p.mu.Unlock()
		w := &p.sweep
		w.Judged += len(g.standings)
		w.Refused += tally.Refused
		w.Refusals = append(w.Refusals, tally.Refusals...)
		for k, n := range tally.Warnings {
			w.Warnings[k] += n
		}
	}()
	var renewal *attest.Renewal
	if verify {
		renewal = p.verify(st, g)
	}
	attest.RejudgeAlike(g.results, renewal, st.stack, p.now, func(i int, next *attest.Result) {
		p.settle(&tally, st, renewal, g.standings[i], g.results[i], next)
		told[i] = true
	})
}

// settle gives a connection its new Result, or ends it.
func (p *pass) settle(tally *Sweep, st *state, renewal *attest.Renewal, s *Standing, was, next *attest.Result) {
	// A peer that attested anew meanwhile, or another sweep, may have put another Result there: it is judged in its turn.
	for p.act && !s.stands(was, next) {
		before := was
		was = s.subject.Result()
		if renewal != nil && was.EvidenceDigest() != before.EvidenceDigest() {
			renewal = verify(p.ctx, st, s.subject, p.now)
		}
		// By what is in force by now: it may be from after what the other one was judged by.
		attest.RejudgeAlike([]*attest.Result{was}, renewal, p.state(s.place).stack, p.now, func(_ int, r *attest.Result) { next = r })
	}
	if next.Warned() {
		for _, c := range next.Checks() {
			if c.Status == attest.StatusWarn {
				tally.Warnings[Warning{s.place, c.Policy, c.ID, c.Text, c.Code, c.Line}]++
			}
		}
	}
	if !next.Affirmed() {
		p.end(tally, s, was, next)
	}
}

// stands reports whether next is about what the connection stands on, and puts an affirmed one there.
func (s *Standing) stands(was, next *attest.Result) bool {
	if next.Affirmed() {
		return s.subject.Settle(was, next)
	}
	return s.subject.Result() == was
}

// end ends a connection.
func (p *pass) end(tally *Sweep, s *Standing, was, next *attest.Result) {
	tally.Refused++
	tally.Refusals = append(tally.Refusals, Refusal{s.place, s.peer, was, next})
	if p.act {
		s.Done()
		defer func() { _ = recover() }() // others are to end as well
		s.subject.Refuse(next)
	}
}

// verify verifies the evidence of the connections of a group, once for all that stand on the same claims.
func (p *pass) verify(st *state, g *group) *attest.Renewal {
	p.mu.Lock()
	v := p.verified[g.claims]
	if v == nil {
		v = new(verification)
		p.verified[g.claims] = v
	}
	p.mu.Unlock()
	v.mu.Lock()
	defer v.mu.Unlock()
	for i, s := range g.standings {
		if v.done {
			break
		}
		ev := shown(s.subject)
		// One that has attested anew meanwhile shows what the others of the group have nothing to do with.
		if s.subject.Result().EvidenceDigest() != g.results[i].EvidenceDigest() {
			continue
		}
		v.renewal, v.done = reverify(p.ctx, st, ev, p.now), true
		p.mu.Lock()
		p.sweep.Verified++
		if v.renewal == nil {
			p.sweep.Unproven++
		}
		p.mu.Unlock()
	}
	return v.renewal // nil where all have attested anew, which are rechecked
}

// totals are counted since the start.
type totals struct {
	judged, verified, refused, warned, sweeps uint64
	last                                      time.Time
	took                                      time.Duration
}

func (e *Enforcer) count(f func(*totals)) {
	e.mu.Lock()
	defer e.mu.Unlock()
	f(&e.totals)
}

// Peer is what open connections are counted by.
type Peer struct {
	Verdict                          attest.Verdict
	Vendor, TEE, Product, Generation string
	Level                            attest.Level
	Simulated                        bool
}

// Stats is a snapshot of an Enforcer.
type Stats struct {
	Epoch     uint64
	Open      map[Peer]int // connections with a peer that was appraised
	Rejudged  uint64       // connections that were judged again, each time
	Verified  uint64       // pieces of evidence that were verified anew
	Refused   uint64       // connections that were refused when they were judged again
	Warned    uint64       // rules that only report, with something to say about a connection that was judged again
	Sweeps    uint64
	LastSweep time.Time // zero for never
	LastTook  time.Duration
}

// Stats counts.
func (e *Enforcer) Stats() Stats {
	e.mu.Lock()
	list, t := e.list(func(*Standing) bool { return true }), e.totals
	s := Stats{
		Epoch: e.epoch, Open: map[Peer]int{}, Rejudged: t.judged, Verified: t.verified, Refused: t.refused, Warned: t.warned, Sweeps: t.sweeps,
		LastSweep: t.last, LastTook: t.took,
	}
	e.mu.Unlock()
	for _, st := range list {
		r := st.subject.Result()
		p := Peer{Verdict: r.Verdict(), Level: r.Level()}
		if c := r.Claims(); c != nil {
			p.Vendor, p.TEE, p.Product, p.Generation, p.Simulated = c.Vendor, c.TEE, c.Product, c.Generation, c.Simulated
		}
		s.Open[p]++
	}
	return s
}

// Open is a connection that stands.
type Open struct {
	Place, Peer string
	Result      *attest.Result
}

// Standing lists the open connections, in order of their places and peers.
func (e *Enforcer) Standing() []Open {
	e.mu.Lock()
	list := e.list(func(*Standing) bool { return true })
	e.mu.Unlock()
	all := make([]Open, len(list))
	for i, s := range list {
		all[i] = Open{s.place, s.peer, s.subject.Result()}
	}
	slices.SortFunc(all, func(a, b Open) int {
		if a.Place != b.Place {
			return cmp(a.Place, b.Place)
		}
		return cmp(a.Peer, b.Peer)
	})
	return all
}

func cmp(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}
