package policy

import (
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy/expr"
)

// Defaults of what a file does not say.
const (
	DefaultEvidenceAge    = 24 * time.Hour
	DefaultEndorsementAge = 30 * 24 * time.Hour
	DefaultReconnectAge   = 10 * time.Minute
)

// Policy is a parsed policy file. The zero value refuses everything. It is immutable and safe for concurrent use.
type Policy struct {
	name  string
	file  string
	id    string
	floor *Policy // has to accept as well; nil for none

	allow, deny []platform
	platforms   int // line
	tcb         firmware
	scopes      []scope
	workload    workload
	binding     ruled[attest.Level]
	tolerated   attest.Level // a weaker level that is reported and not refused; "" for none
	freshness   freshness
	revocation  ruled[bool] // whether a list is demanded
	rules       []rule
	checks      int // how many a verdict has, about
}

// terms are what every rule can carry. A rule that is not in force leaves its default, which is never looser.
type terms struct {
	line        int
	because     string
	from, until time.Time // zero: always
	shadow      bool      // report, don't act
}

func (t *terms) inForce(now time.Time) bool {
	return !now.Before(t.from) && (t.until.IsZero() || now.Before(t.until))
}

// always reports whether the rule is in force at all times, forEver whether it acts at all times.
func (t *terms) always() bool  { return t.from.IsZero() && t.until.IsZero() }
func (t *terms) forEver() bool { return t.always() && !t.shadow }

// outlasts reports whether t is in force whenever u is.
func (t *terms) outlasts(u *terms) bool {
	return !t.from.After(u.from) && (t.until.IsZero() || !u.until.IsZero() && !t.until.Before(u.until))
}

// ruled is a value with terms. The default holds where the value is not in force.
type ruled[T any] struct {
	terms
	value, otherwise T
	said             bool
}

// at is the value that counts at a time.
func (r *ruled[T]) at(now time.Time) T {
	if r.said && r.inForce(now) {
		return r.value
	}
	return r.otherwise
}

// under are the terms of the value that counts at a time: the default is never a shadow.
func (r *ruled[T]) under(now time.Time) *terms {
	if r.said && r.inForce(now) {
		return &r.terms
	}
	return &terms{line: r.line}
}

// platform is one pattern of platforms. Empty fields match everything.
type platform struct {
	terms
	text                string // as written, for the transcript
	passed, denial      string // what the transcript says of it
	vendor, tee         string
	generations         []string // any of them; nil for all
	product, stepping   string
	fmspc, chips, ppids []string
	csp                 []string
	root                string // simulated platforms only
}

// firmware is what a TCB has to be.
type firmware struct {
	floors     []floor
	statuses   ruled[[]string]
	date       ruled[time.Time]
	evaluation ruled[uint64]
	denied     []string // advisories
	tolerated  []string // the only advisories; nil for any
	advisories int      // line
	bits       []bit
}

// scope demands firmware of some platforms only.
type scope struct {
	terms
	platforms []platform
	any       bool // nothing is demanded, said aloud
	firmware
}

type floor struct {
	terms
	component, id, want string
	min                 uint64
}

type bit struct {
	terms
	name, id string
	want     attest.Flag
}

type workload struct {
	line      int
	any       bool  // any software
	sets      []set // any of them; the measurement alone is a set of one register
	registers []register
	numbers   []numberRule
	config    [][]byte
	configAt  int
	debug     ruled[bool] // whether it may be on
	migration ruled[bool] // likewise
	privilege ruled[int]
}

// set is a set of registers that belong together: a release.
type set struct {
	terms
	name      string
	registers map[string][]byte
	text      string
}

// register is one more register, with its accepted values.
type register struct {
	name, id string
	line     int
	values   []set // of this register alone
}

type numberRule struct {
	terms
	name, id, want string
	value          uint64
	exact          bool
}

type freshness struct {
	evidence, endorsements time.Duration
	reconnect              time.Duration // 0: never
	undated                bool          // evidence of unknown age is taken
	line, reconnectLine    int
}

// forReconnect is how old evidence may be for a reconnect; 0 where there is none.
func (f *freshness) forReconnect() time.Duration { return min(f.reconnect, f.evidence) }

// rule is one in CEL.
type rule struct {
	terms
	name, source, effect, id string
	program                  *expr.Program
}

// Name is the policy's own name.
func (p *Policy) Name() string { return p.name }

// File is what the policy was read from.
func (p *Policy) File() string { return p.file }

// ID is "sha256:" and the hex digest of the file and of the files that it names.
func (p *Policy) ID() string { return p.id }

// Binding is the minimum level at a time.
func (p *Policy) Binding(now time.Time) attest.Level {
	level := p.binding.at(now)
	if p.floor != nil {
		if below := p.floor.Binding(now); below.AtLeast(level) {
			return below
		}
	}
	return level
}

// UnsafeBinding is p, which reports evidence that is bound more weakly than it demands, and refuses it only below level.
// What its floor demands stays.
func (p *Policy) UnsafeBinding(level attest.Level) *Policy {
	tolerant := *p
	tolerant.tolerated = level
	return &tolerant
}

// EvidenceAge is how old evidence may be.
func (p *Policy) EvidenceAge() time.Duration {
	if p.floor != nil {
		return min(p.freshness.evidence, p.floor.EvidenceAge())
	}
	return p.freshness.evidence
}

// Changes is when the next rule begins or ends after a time; zero where none does.
func (p *Policy) Changes(after time.Time) (next time.Time) {
	at := func(t time.Time) {
		if t.After(after) && (next.IsZero() || t.Before(next)) {
			next = t
		}
	}
	p.eachTerms(func(u *terms) {
		at(u.from)
		at(u.until)
	})
	if p.floor != nil {
		at(p.floor.Changes(after))
	}
	return next
}

// eachTerms calls f with the terms of every rule but those of the floor.
func (p *Policy) eachTerms(f func(*terms)) {
	platforms := func(all []platform) {
		for i := range all {
			f(&all[i].terms)
		}
	}
	sets := func(all []set) {
		for i := range all {
			f(&all[i].terms)
		}
	}
	platforms(p.allow)
	platforms(p.deny)
	p.tcb.eachTerms(f)
	for i := range p.scopes {
		s := &p.scopes[i]
		f(&s.terms)
		s.eachTerms(f)
	}
	w := &p.workload
	sets(w.sets)
	for i := range w.registers {
		sets(w.registers[i].values)
	}
	for i := range w.numbers {
		f(&w.numbers[i].terms)
	}
	for _, u := range []*terms{&w.debug.terms, &w.migration.terms, &w.privilege.terms, &p.binding.terms, &p.revocation.terms} {
		f(u)
	}
	for i := range p.rules {
		f(&p.rules[i].terms)
	}
}

func (f *firmware) eachTerms(each func(*terms)) {
	for i := range f.floors {
		each(&f.floors[i].terms)
	}
	for i := range f.bits {
		each(&f.bits[i].terms)
	}
	for _, u := range []*terms{&f.statuses.terms, &f.date.terms, &f.evaluation.terms} {
		each(u)
	}
}

// OlderIsWorse reports whether p never refuses evidence, or a reconnect, for being younger than what it accepts: whether no rule
// but those of freshness looks at the age.
func (p *Policy) OlderIsWorse() bool {
	return !slices.ContainsFunc(p.rules, func(r rule) bool { return r.program.Age() }) && (p.floor == nil || p.floor.OlderIsWorse())
}

// JudgesAlike reports that p judges claims of one Kind alike: neither a rule nor an expression sees what belongs to one piece of
// evidence, but for its age, which the Situation has.
func (p *Policy) JudgesAlike() bool { return true }

// Reconnect is how old the evidence of an earlier session may be of which a connection proves a secret, and whether that is
// allowed instead of evidence at all.
func (p *Policy) Reconnect() (most time.Duration, allowed bool) {
	most = p.freshness.forReconnect()
	if p.floor != nil {
		below, _ := p.floor.Reconnect()
		most = min(most, below)
	}
	return most, most > 0
}

// SimulationRoots are the roots of simulated platforms that the policy names, in order.
func (p *Policy) SimulationRoots() []string {
	var roots []string
	for _, r := range p.allow {
		if r.root != "" && !slices.Contains(roots, r.root) {
			roots = append(roots, r.root)
		}
	}
	return roots
}

// Allows reports whether some rule of platforms.allow is about a vendor.
func (p *Policy) Allows(vendor string) bool {
	return slices.ContainsFunc(p.allow, func(a platform) bool { return a.vendor == vendor })
}

// Generations lists the generations of a vendor that platforms.allow admits, oldest first; all that are known where a rule
// names none.
func (p *Policy) Generations(vendor string) []string {
	admitted := func(generation string) bool {
		return slices.ContainsFunc(p.allow, func(a platform) bool {
			return a.vendor == vendor && (a.generations == nil || slices.Contains(a.generations, generation))
		})
	}
	return slices.DeleteFunc(slices.Clone(order[vendor]), func(g string) bool { return !admitted(g) })
}
