package policy

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
)

// Finding is something about a policy that its writer may not have meant. No finding changes a verdict.
type Finding struct {
	Line int    `json:"line"`
	Rule string `json:"rule"` // "unreachable", "contradiction", "expired", "below-published", "loose", "shadow"
	Text string `json:"text"`
}

// Published is the newest TCB level that a vendor publishes for some platforms.
type Published struct {
	Vendor, TEE, Generation string // empty fields stand for all
	FMSPC                   attest.HexBytes
	TCB                     attest.TCB
	Date                    time.Time
	Evaluation              uint64
}

var shapePublished = listOf("newest levels", mapOf("the newest level of some platforms",
	must("vendor", text("the vendor")), may("tee", word("the TEE", tees...)), may("generation", text("the generation")), may("fmspc", hexBytes("6 bytes")),
	may("tcb", ownMap("components", number("the level"))), may("date", &shape{doc: "its date", kind: isDate}), may("evaluation", number("the newest evaluation number"))))

// ParsePublished reads a file of published levels:
//
//   - {vendor: amd, generation: genoa, tcb: {snp: 23, microcode: 84}}
//   - {vendor: intel, tee: tdx, fmspc: "00806f050000", date: 2024-03-13, evaluation: 17}
func ParsePublished(file string, raw []byte) ([]Published, error) {
	root, err := strictyaml.Parse(file, raw)
	if err != nil {
		return nil, err
	}
	r := new(reader)
	var all []Published
	for _, e := range r.list(root) {
		m := r.fields(e, shapePublished.elem)
		if r.err != nil {
			break
		}
		v := Published{Vendor: r.text(m.Get("vendor")), TCB: attest.TCB{}}
		if t := m.Get("tee"); t.Present() {
			v.TEE = r.oneOf(t, tees...)
		}
		if g := m.Get("generation"); g.Present() {
			v.Generation = r.text(g)
		}
		if f := m.Get("fmspc"); f.Present() {
			v.FMSPC = r.hex(f, 6)
		}
		if t := m.Get("tcb"); t.Present() {
			names, values, err := t.Entries()
			r.fail(err)
			for i, n := range names {
				v.TCB[n] = r.number(values[i], math.MaxUint32)
			}
		}
		if d := m.Get("date"); d.Present() {
			v.Date = r.date(d)
		}
		if n := m.Get("evaluation"); n.Present() {
			v.Evaluation = r.number(n, math.MaxUint32)
		}
		all = append(all, v)
	}
	if r.err != nil {
		return nil, r.err
	}
	return all, nil
}

// Lint looks for rules that can never match, rules that contradict one another, rules whose time is over, floors below
// what vendors publish, and what loosens the policy.
func (p *Policy) Lint(now time.Time, published []Published) []Finding {
	l := &linter{now: now}
	l.platforms(p)
	l.firmware(&p.tcb)
	for i := range p.scopes {
		s := &p.scopes[i]
		l.times(&s.terms, "the entry of tcb.per")
		if !slices.ContainsFunc(p.allow, func(a platform) bool {
			return slices.ContainsFunc(s.platforms, func(b platform) bool { return b.overlaps(&a) })
		}) {
			l.say(s.line, "unreachable", "no platform that is allowed is in this entry of tcb.per")
		}
		l.firmware(&s.firmware)
	}
	if len(p.scopes) > 0 {
		for i := range p.allow {
			if a := &p.allow[i]; !slices.ContainsFunc(p.scopes, func(s scope) bool {
				return slices.ContainsFunc(s.platforms, func(b platform) bool { return b.overlaps(a) })
			}) {
				l.say(a.line, "contradiction", "%s is allowed, and refused because no entry of tcb.per speaks of its firmware", a.text)
			}
		}
	}
	l.workload(&p.workload)
	l.times(&p.binding.terms, "binding")
	l.times(&p.revocation.terms, "revocation")
	for i := range p.rules {
		l.times(&p.rules[i].terms, "the rule "+p.rules[i].name)
	}
	l.published(p, published)
	l.loose(p)
	slices.SortStableFunc(l.findings, func(a, b Finding) int { return a.Line - b.Line })
	return l.findings
}

type linter struct {
	now      time.Time
	findings []Finding
}

func (l *linter) say(line int, rule, format string, args ...any) {
	l.findings = append(l.findings, Finding{line, rule, fmt.Sprintf(format, args...)})
}

func (l *linter) times(t *terms, what string) {
	if !t.until.IsZero() && !l.now.Before(t.until) {
		l.say(t.line, "expired", "%s ended on %s", what, t.until.Format(time.DateOnly))
	}
	if t.shadow {
		l.say(t.line, "shadow", "%s is only reported, not enforced", what)
	}
}

func (l *linter) platforms(p *Policy) {
	for i := range p.allow {
		a := &p.allow[i]
		l.times(&a.terms, "the permission of "+a.text)
		for j := range p.allow[:i] {
			if b := &p.allow[j]; b.covers(a) && b.outlasts(&a.terms) && !b.shadow {
				l.say(a.line, "unreachable", "%s is allowed already by line %d (%s)", a.text, b.line, b.text)
				break
			}
		}
		for j := range p.deny {
			if d := &p.deny[j]; d.covers(a) && d.outlasts(&a.terms) && !d.shadow {
				l.say(a.line, "contradiction", "%s is allowed here and denied by line %d; the denial wins", a.text, d.line)
				break
			}
		}
	}
	for i := range p.deny {
		d := &p.deny[i]
		l.times(&d.terms, "the denial of "+d.text)
		if !slices.ContainsFunc(p.allow, func(a platform) bool { return d.overlaps(&a) }) {
			l.say(d.line, "unreachable", "%s is denied, and nothing allows it", d.text)
		}
	}
}

func (l *linter) firmware(f *firmware) {
	for i := range f.floors {
		l.times(&f.floors[i].terms, "the floor "+f.floors[i].id)
	}
	for i := range f.bits {
		l.times(&f.bits[i].terms, "the demand on "+f.bits[i].id)
	}
	l.times(&f.statuses.terms, "tcb.status")
	l.times(&f.date.terms, "tcb.date")
	l.times(&f.evaluation.terms, "tcb.evaluation")
	for _, a := range f.denied {
		if slices.Contains(f.tolerated, a) {
			l.say(f.advisories, "contradiction", "%s is denied and tolerated; the denial wins", a)
		}
	}
}

func (l *linter) workload(w *workload) {
	lists := [][]set{w.sets}
	for i := range w.registers {
		lists = append(lists, w.registers[i].values)
	}
	for _, list := range lists {
		for i := range list {
			s := &list[i]
			l.times(&s.terms, "the reference value "+s.text)
			if j := slices.IndexFunc(list[:i], func(o set) bool { return oneOf(*s, []set{o}) }); j >= 0 {
				l.say(s.line, "unreachable", "%s is accepted already by line %d", s.text, list[j].line)
			}
		}
	}
	for _, s := range w.sets {
		for i := range w.registers {
			r := &w.registers[i]
			if value, ok := s.registers[r.name]; ok && !slices.ContainsFunc(r.values, func(v set) bool { return string(v.registers[r.name]) == string(value) }) {
				l.say(s.line, "contradiction", "the set %s has another %s than line %d accepts", s.text, r.name, r.line)
			}
		}
	}
	l.times(&w.debug.terms, "workload.debug")
	l.times(&w.migration.terms, "workload.migration")
	l.times(&w.privilege.terms, "workload.privilege")
	for i := range w.numbers {
		l.times(&w.numbers[i].terms, w.numbers[i].id)
	}
}

// published compares every floor with what vendors publish for platforms that the policy allows.
func (l *linter) published(p *Policy, published []Published) {
	for i := range published {
		v := &published[i]
		pattern := &platform{vendor: strings.ToLower(v.Vendor), tee: v.TEE, generations: one(v.Generation)}
		if len(v.FMSPC) > 0 {
			pattern.fmspc = []string{v.FMSPC.String()}
		}
		if !slices.ContainsFunc(p.allow, func(a platform) bool { return a.overlaps(pattern) }) {
			continue
		}
		l.below(&p.tcb, v, pattern)
		for j := range p.scopes {
			if s := &p.scopes[j]; slices.ContainsFunc(s.platforms, func(b platform) bool { return b.overlaps(pattern) }) {
				l.below(&s.firmware, v, pattern)
			}
		}
	}
}

func (l *linter) below(f *firmware, v *Published, pattern *platform) {
	of := describe(*pattern)
	for i := range f.floors {
		r := &f.floors[i]
		if least, ok := v.TCB[r.component]; ok && r.min < least {
			l.say(r.line, "below-published", "the floor %d of %s is below the %d that is published for %s", r.min, r.component, least, of)
		}
	}
	if f.date.said && f.date.value.Before(v.Date) {
		l.say(f.date.line, "below-published", "%s is before %s, the date of the newest level for %s", f.date.value.Format(time.DateOnly), v.Date.Format(time.DateOnly), of)
	}
	if f.evaluation.said && f.evaluation.value < v.Evaluation {
		l.say(f.evaluation.line, "below-published", "evaluation number %d is below the published %d for %s", f.evaluation.value, v.Evaluation, of)
	}
}

func (l *linter) loose(p *Policy) {
	if p.workload.any {
		l.say(p.workload.line, "loose", "any software is accepted")
	}
	if p.workload.debug.at(l.now) {
		l.say(p.workload.debug.line, "loose", "the host may debug the guest")
	}
	if p.workload.migration.at(l.now) {
		l.say(p.workload.migration.line, "loose", "the guest may be migrated")
	}
	switch p.binding.at(l.now) {
	case attest.LevelNone, attest.LevelPinned:
		l.say(p.binding.line, "loose", "evidence may be bound to nothing that TLS shows")
	case attest.LevelKey, attest.LevelNonce:
		l.say(p.binding.line, "loose", "evidence can be relayed by whoever holds a leaf key; session resists that")
	}
	if p.freshness.undated {
		l.say(p.freshness.line, "loose", "evidence that does not tell when it was made may be of any age")
	}
	if f := &p.freshness; f.reconnect > f.evidence {
		l.say(f.reconnectLine, "contradiction", "reconnect %s is longer than evidence %s, which counts", age(f.reconnect), age(f.evidence))
	}
	if !p.revocation.at(l.now) {
		l.say(p.revocation.line, "loose", "revocation is not checked")
	}
}
