package policy

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Looser lists where p accepts, or may accept, what floor refuses. An empty list is a proof: whatever p affirms, at any
// time, floor affirms too. A list with entries may be too careful: what can't be decided counts as looser.
func (p *Policy) Looser(floor *Policy) []string {
	var l looser
	if p == nil || p.id == "" || floor == nil || floor.id == "" {
		l.say("one of the policies is empty")
		return l.list
	}
	if p.id == floor.id {
		return nil
	}
	if floor.floor != nil {
		l.list = append(l.list, p.Looser(floor.floor)...)
	}
	if p.floor != nil && len(p.floor.Looser(floor)) == 0 {
		return l.list // what p stands on is strict enough already
	}
	l.platforms(p, floor)
	l.firmware(p, floor)
	l.workload(&p.workload, &floor.workload)
	if ours, theirs := weakest(&p.binding), strongest(&floor.binding); !ours.AtLeast(theirs) {
		l.say("binding %s is weaker than %s", ours, theirs)
	}
	if p.freshness.evidence > floor.freshness.evidence {
		l.say("freshness.evidence %s is longer than %s", age(p.freshness.evidence), age(floor.freshness.evidence))
	}
	if p.freshness.undated && !floor.freshness.undated {
		l.say("freshness.undated takes evidence of any age")
	}
	if p.freshness.endorsements > floor.freshness.endorsements {
		l.say("freshness.endorsements %s is longer than %s", age(p.freshness.endorsements), age(floor.freshness.endorsements))
	}
	if ours, theirs := p.freshness.forReconnect(), floor.freshness.forReconnect(); ours > theirs {
		l.say("freshness.reconnect %s is longer than %s", ageOrOff(ours), ageOrOff(theirs))
	}
	if everDemanded(&floor.revocation) && !alwaysDemanded(&p.revocation) {
		l.say("revocation is not always required")
	}
	l.rules(p.rules, floor.rules)
	return l.list
}

func ageOrOff(d time.Duration) string {
	if d == 0 {
		return "off"
	}
	return age(d)
}

type looser struct{ list []string }

func (l *looser) say(format string, args ...any) {
	l.list = append(l.list, fmt.Sprintf(format, args...))
}

// weakest is the least level that a policy ever demands, strongest the greatest. Session, the default, is above all.
func weakest(r *ruled[attest.Level]) attest.Level {
	switch {
	case !r.said:
		return r.otherwise
	case r.shadow:
		return attest.LevelNone
	}
	return r.value
}

func strongest(r *ruled[attest.Level]) attest.Level {
	switch {
	case !r.said || !r.always():
		return r.otherwise
	case r.shadow:
		return attest.LevelNone
	}
	return r.value
}

// everDemanded reports whether a demand that is true by default is ever made, alwaysDemanded whether it always is.
func everDemanded(r *ruled[bool]) bool { return !r.said || !r.always() || r.value && !r.shadow }

func alwaysDemanded(r *ruled[bool]) bool { return !r.said || r.value && !r.shadow }

func (l *looser) platforms(p, floor *Policy) {
	for i := range p.allow {
		a := &p.allow[i]
		if a.shadow {
			continue
		}
		covered := slices.ContainsFunc(floor.allow, func(b platform) bool { return !b.shadow && b.covers(a) && b.outlasts(&a.terms) })
		if !covered {
			l.say("line %d allows %s", a.line, a.text)
		}
	}
	for i := range floor.deny {
		d := &floor.deny[i]
		if d.shadow {
			continue
		}
		if slices.ContainsFunc(p.deny, func(e platform) bool { return !e.shadow && e.covers(d) && e.outlasts(&d.terms) }) {
			continue
		}
		for j := range p.allow {
			if a := &p.allow[j]; !a.shadow && d.overlaps(a) {
				l.say("line %d allows %s, which may be %s", a.line, a.text, d.text)
			}
		}
	}
}

func (l *looser) firmware(p, floor *Policy) {
	l.demands(p, &floor.tcb, nil, terms{})
	if !floor.tcb.statuses.said {
		l.status(p, floor)
	}
	for i := range floor.scopes {
		s := &floor.scopes[i]
		if s.shadow {
			continue
		}
		l.demands(p, &s.firmware, s.platforms, s.terms)
	}
	if len(floor.scopes) == 0 {
		return
	}
	// The floor refuses what is in none of its scopes.
	for i := range p.allow {
		a := &p.allow[i]
		if a.shadow {
			continue
		}
		if !slices.ContainsFunc(floor.scopes, func(s scope) bool { return s.forEver() && anyCovers(s.platforms, a) }) {
			l.say("line %d allows %s, of whose firmware the floor does not speak", a.line, a.text)
		}
	}
}

func anyCovers(list []platform, a *platform) bool {
	return slices.ContainsFunc(list, func(b platform) bool { return b.covers(a) })
}

// demands checks that every demand f of the floor on platforms (nil: all) is made by p too, on all that p allows of them.
func (l *looser) demands(p *Policy, f *firmware, platforms []platform, under terms) {
	concerned := p.concerned(platforms)
	if len(concerned) == 0 {
		return
	}
	every := func(what string, u terms, met func(*firmware, terms) bool) {
		u = u.within(under)
		if u.shadow {
			return
		}
		for _, a := range concerned {
			if !p.demandsOf(a, met) {
				l.say("%s: not demanded of %s, which line %d allows", what, a.text, a.line)
			}
		}
	}
	for i := range f.floors {
		r := &f.floors[i]
		every(fmt.Sprintf("%s at least %d", r.id, r.min), r.terms, func(g *firmware, scope terms) bool {
			return slices.ContainsFunc(g.floors, func(q floor) bool {
				return q.component == r.component && q.min >= r.min && binds(q.terms, scope, r.terms, under)
			})
		})
	}
	for i := range f.bits {
		b := &f.bits[i]
		every(fmt.Sprintf("%s %s", b.id, b.want), b.terms, func(g *firmware, scope terms) bool {
			return slices.ContainsFunc(g.bits, func(q bit) bool {
				return q.name == b.name && q.want == b.want && binds(q.terms, scope, b.terms, under)
			})
		})
	}
	if f.date.said {
		every("tcb.date "+f.date.value.Format(time.DateOnly)+" or later", f.date.terms, func(g *firmware, scope terms) bool {
			return g.date.said && !g.date.value.Before(f.date.value) && binds(g.date.terms, scope, f.date.terms, under)
		})
	}
	if f.evaluation.said {
		every(fmt.Sprintf("tcb.evaluation at least %d", f.evaluation.value), f.evaluation.terms, func(g *firmware, scope terms) bool {
			return g.evaluation.said && g.evaluation.value >= f.evaluation.value && binds(g.evaluation.terms, scope, f.evaluation.terms, under)
		})
	}
	if f.statuses.said {
		every("tcb.status "+strings.Join(f.statuses.value, " or "), f.statuses.terms, func(g *firmware, scope terms) bool {
			return g.statuses.said && g.statuses.forEver() && f.statuses.forEver() && subset(g.statuses.value, f.statuses.value) &&
				binds(g.statuses.terms, scope, f.statuses.terms, under)
		})
	}
	if f.statuses.said && f.statuses.shadow && !f.statuses.always() {
		// The shadow ends with its time, and what is then demanded is the default.
		every("tcb.status "+statuses[0]+", by default", terms{}, func(g *firmware, scope terms) bool {
			return g.statuses.said && g.statuses.forEver() && subset(g.statuses.value, statuses[:1]) && binds(terms{}, scope, terms{}, under)
		})
	}
	if len(f.denied) > 0 {
		every("tcb.advisories_deny", terms{}, func(g *firmware, scope terms) bool {
			return (subset(f.denied, g.denied) || g.tolerated != nil && disjoint(g.tolerated, f.denied)) && binds(terms{}, scope, terms{}, under)
		})
	}
	if f.tolerated != nil {
		every("tcb.advisories_tolerate", terms{}, func(g *firmware, scope terms) bool {
			return g.tolerated != nil && subset(g.tolerated, f.tolerated) && binds(terms{}, scope, terms{}, under)
		})
	}
}

// status compares what holds where the floor says nothing of a status: what its vendor judges is UpToDate, or as a scope
// of the floor says.
func (l *looser) status(p, floor *Policy) {
	elsewhere := slices.ContainsFunc(floor.scopes, func(s scope) bool { return s.statuses.said && !s.shadow })
	if elsewhere {
		// Which of the two counts depends on the scope: only a policy without statuses of its own is surely as strict.
		if p.tcb.statuses.said || slices.ContainsFunc(p.scopes, func(s scope) bool { return s.statuses.said }) {
			l.say("statuses of some platforms: undecided")
		}
		return
	}
	loose := func(r *ruled[[]string]) bool {
		return r.said && (r.shadow || !subset(r.value, statuses[:1]))
	}
	if loose(&p.tcb.statuses) {
		l.say("line %d accepts other statuses than UpToDate", p.tcb.statuses.line)
	}
	for i := range p.scopes {
		if s := &p.scopes[i]; loose(&s.statuses) {
			l.say("line %d accepts other statuses than UpToDate", s.statuses.line)
		}
	}
}

// binds reports whether a demand under its scope is in force whenever another under its scope is.
func binds(q, scope, r, under terms) bool {
	if q.shadow || scope.shadow {
		return false
	}
	// The other is in force within both of its windows at most; ours has to be in both of its windows all that time.
	window := terms{from: r.from, until: r.until}
	if under.from.After(window.from) {
		window.from = under.from
	}
	if !under.until.IsZero() && (window.until.IsZero() || under.until.Before(window.until)) {
		window.until = under.until
	}
	return q.outlasts(&window) && scope.outlasts(&window)
}

// concerned are the patterns by which p allows a platform that may be among the given ones; nil are all.
func (p *Policy) concerned(platforms []platform) []*platform {
	var all []*platform
	for i := range p.allow {
		a := &p.allow[i]
		if a.shadow {
			continue
		}
		if platforms == nil || slices.ContainsFunc(platforms, func(b platform) bool { return b.overlaps(a) }) {
			all = append(all, a)
		}
	}
	return all
}

// demandsOf reports whether p makes a demand of everything that a covers.
func (p *Policy) demandsOf(a *platform, met func(*firmware, terms) bool) bool {
	if met(&p.tcb, terms{}) {
		return true
	}
	return slices.ContainsFunc(p.scopes, func(s scope) bool { return anyCovers(s.platforms, a) && met(&s.firmware, s.terms) })
}

func subset(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return !slices.Contains(b, s) })
}

func disjoint(a, b []string) bool {
	return !slices.ContainsFunc(a, func(s string) bool { return slices.Contains(b, s) })
}

func (l *looser) workload(p, floor *workload) {
	if !floor.any {
		if p.any {
			l.say("workload.measurement any")
		}
		l.sets("workload", p.sets, floor.sets)
	}
	for i := range floor.registers {
		r := &floor.registers[i]
		ours := slices.IndexFunc(p.registers, func(q register) bool { return q.name == r.name })
		if ours >= 0 {
			l.sets(r.id, p.registers[ours].values, r.values)
		} else if p.any || slices.ContainsFunc(p.sets, func(s set) bool { return !s.shadow && !oneOf(s, r.values) }) {
			l.say("%s is not demanded", r.id)
		}
	}
	for i := range floor.numbers {
		n := &floor.numbers[i]
		if n.shadow {
			continue
		}
		if !slices.ContainsFunc(p.numbers, func(q numberRule) bool {
			return q.name == n.name && !q.shadow && q.outlasts(&n.terms) && q.value >= n.value && (!n.exact || q.exact && q.value == n.value)
		}) {
			l.say("%s %s is not demanded", n.id, n.want)
		}
	}
	if len(floor.config) > 0 && (len(p.config) == 0 || slices.ContainsFunc(p.config, func(c []byte) bool {
		return !slices.ContainsFunc(floor.config, func(d []byte) bool { return bytes.Equal(c, d) })
	})) {
		l.say("workload.config accepts other digests")
	}
	// Debugging and migration may be on where the value is true; the default is false.
	for _, f := range []struct {
		name         string
		ours, theirs *ruled[bool]
	}{{"debug", &p.debug, &floor.debug}, {"migration", &p.migration, &floor.migration}} {
		theirsAllows := f.theirs.said && f.theirs.always() && (f.theirs.value || f.theirs.shadow)
		oursAllows := f.ours.said && (f.ours.value || f.ours.shadow)
		if oursAllows && !theirsAllows {
			l.say("workload.%s any", f.name)
		}
	}
	if r := &floor.privilege; !(r.said && r.always() && r.shadow) {
		least := 0 // the most that the floor lets pass at all times
		if r.said && r.always() {
			least = r.value
		}
		if p.privilege.said && (p.privilege.shadow || p.privilege.value > least) {
			l.say("workload.privilege %d", p.privilege.value)
		}
	}
}

// oneOf reports whether a set demands, for ever, all that one of the others demands whenever s is in force.
func oneOf(s set, others []set) bool {
	return slices.ContainsFunc(others, func(o set) bool {
		if o.shadow || !o.outlasts(&s.terms) {
			return false
		}
		for name, want := range o.registers {
			if !bytes.Equal(s.registers[name], want) {
				return false
			}
		}
		return true
	})
}

func (l *looser) sets(what string, ours, theirs []set) {
	for i := range ours {
		if s := &ours[i]; !s.shadow && !oneOf(*s, theirs) {
			l.say("%s: line %d accepts %s", what, s.line, s.text)
		}
	}
}

func (l *looser) rules(ours, theirs []rule) {
	for i := range theirs {
		r := &theirs[i]
		if r.shadow || r.effect == "warn" {
			continue
		}
		if !slices.ContainsFunc(ours, func(q rule) bool {
			return !q.shadow && q.effect == r.effect && q.source == r.source && q.outlasts(&r.terms)
		}) {
			l.say("the rule %q is not there", r.name)
		}
	}
}
