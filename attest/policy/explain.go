package policy

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/jurat-tls/jurat/attest"
)

// Explain reads the policy aloud, one sentence for each rule, as it stands at a time.
func (p *Policy) Explain(now time.Time) string {
	var b strings.Builder
	say := func(format string, args ...any) { b.WriteString(sentence(fmt.Sprintf(format, args...)) + "\n") }
	say("Policy %q accepts a peer only if all of this holds:", p.name)
	if p.floor != nil {
		say("- The policy in %s accepts it too.", p.floor.file)
	}
	say("- Its platform is one of:")
	for i := range p.allow {
		say("    %s%s", p.allow[i].aloud(), p.allow[i].suffix())
	}
	for i := range p.deny {
		say("- It is not %s, whatever else allows it%s.", p.deny[i].aloud(), p.deny[i].suffix())
	}
	p.tcb.explain(say, "")
	if !p.tcb.statuses.said {
		say("- Where its vendor judges firmware levels, the status is UpToDate%s.", map[bool]string{true: " or one that is named below for its platform"}[len(p.scopes) > 0])
	}
	for i := range p.scopes {
		s := &p.scopes[i]
		var names []string
		for j := range s.platforms {
			names = append(names, s.platforms[j].aloud())
		}
		say("- If its platform is %s%s:", strings.Join(names, " or "), s.suffix())
		if s.any {
			say("    its firmware may be of ANY level.")
		}
		s.firmware.explain(say, "    ")
	}
	switch {
	case len(p.scopes) > 0:
		say("- Its platform is one of those whose firmware is spoken of here.")
	case len(p.tcb.floors) == 0 && !p.tcb.date.said && !p.tcb.evaluation.said:
		say("- Its firmware may be of ANY level that its vendor does not object to.")
	}
	p.explainWorkload(say, now)
	switch level := p.binding.at(now); level {
	case attest.LevelNone:
		say("- The evidence may be bound to NOTHING: it proves nothing about who sent it%s.", p.binding.suffix())
	default:
		say("- The evidence is bound at level %s or stronger%s.", level, p.binding.suffix())
	}
	say("- The evidence was made at most %s ago.", age(p.freshness.evidence))
	if p.freshness.undated {
		say("- Evidence that does not tell when it was made is taken, of ANY age.")
	}
	if most := p.freshness.forReconnect(); most > 0 {
		say("- Instead of evidence a connection may prove a secret of an earlier session, whose evidence is at most %s old.", age(most))
	} else {
		say("- Every connection shows evidence: a secret of an earlier session proves nothing.")
	}
	if p.revocation.at(now) {
		say("- A revocation list at most %s old names none of the keys in its chain%s.", age(p.freshness.endorsements), p.revocation.suffix())
	} else {
		say("- Revocation is NOT checked%s.", p.revocation.suffix())
	}
	for i := range p.rules {
		r := &p.rules[i]
		switch r.effect {
		case "deny":
			say("- It is not so that %s%s.", r.named(), r.suffix())
		case "require":
			say("- It is so that %s%s.", r.named(), r.suffix())
		default:
			say("- (A warning, not a refusal, where %s%s.)", r.named(), r.suffix())
		}
	}
	say("Everything else is refused.")
	return b.String()
}

func (r *rule) named() string {
	if r.name == r.source {
		return r.source
	}
	return r.name + ": " + r.source
}

// suffix says when and why a rule holds.
func (t *terms) suffix() string {
	var parts []string
	if t.because != "" {
		parts = append(parts, "because of "+t.because)
	}
	if !t.from.IsZero() {
		parts = append(parts, "from "+t.from.Format(time.DateOnly))
	}
	if !t.until.IsZero() {
		parts = append(parts, "until "+t.until.Format(time.DateOnly))
	}
	if t.shadow {
		parts = append(parts, "only REPORTED, not enforced")
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, "; ") + ")"
}

func (f *firmware) explain(say func(string, ...any), indent string) {
	for i := range f.floors {
		r := &f.floors[i]
		say("%s- Its firmware component %s is at level %d or above%s.", indent, r.component, r.min, r.suffix())
	}
	if f.statuses.said {
		say("%s- Its vendor's status of its firmware is %s%s.", indent, strings.Join(f.statuses.value, " or "), f.statuses.suffix())
	}
	if f.date.said {
		say("%s- Its firmware level was published on %s or later%s.", indent, f.date.value.Format(time.DateOnly), f.date.suffix())
	}
	if f.evaluation.said {
		say("%s- Its vendor judged it by collateral with evaluation number %d or later%s.", indent, f.evaluation.value, f.evaluation.suffix())
	}
	if len(f.denied) > 0 {
		say("%s- None of these advisories applies: %s.", indent, strings.Join(f.denied, ", "))
	}
	if f.tolerated != nil {
		say("%s- No advisory applies but %s.", indent, strings.Join(f.tolerated, ", "))
	}
	for i := range f.bits {
		say("%s- Its platform bit %s is %s%s.", indent, f.bits[i].name, f.bits[i].want, f.bits[i].suffix())
	}
}

func (p *Policy) explainWorkload(say func(string, ...any), now time.Time) {
	w := &p.workload
	sets := func(list []set) {
		for i := range list {
			s := &list[i]
			if names := sorted(s.registers); len(names) == 1 {
				say("    %s%s", strings.TrimSpace(fmt.Sprintf("%x  %s", s.registers[names[0]], s.name)), s.suffix())
				continue
			}
			say("    %s%s, with", s.text, s.suffix())
			for _, n := range sorted(s.registers) {
				say("        %s %x", n, s.registers[n])
			}
		}
	}
	if w.any {
		say("- It may run ANY software.")
	} else {
		say("- It measured one of:")
		sets(w.sets)
	}
	for i := range w.registers {
		say("- Its register %s is one of:", w.registers[i].name)
		sets(w.registers[i].values)
	}
	for i := range w.numbers {
		say("- Its signed number %s is %s%s.", w.numbers[i].name, w.numbers[i].want, w.numbers[i].suffix())
	}
	if len(w.config) > 0 {
		say("- The digest of its configuration is one of:")
	}
	for _, c := range w.config {
		say("    %x", c)
	}
	if w.debug.at(now) {
		say("- The host MAY read the guest with a debugger%s.", w.debug.suffix())
	} else {
		say("- The host cannot read the guest with a debugger%s.", w.debug.suffix())
	}
	if w.migration.at(now) {
		say("- The guest MAY be moved by a migration agent%s.", w.migration.suffix())
	} else {
		say("- No migration agent can move the guest%s.", w.migration.suffix())
	}
	say("- Where the hardware has privilege levels, the evidence was requested from level %d or a higher privilege%s.", w.privilege.at(now), w.privilege.suffix())
}

func (a *platform) aloud() string {
	if a.vendor == Simulated {
		root := ""
		if a.root != "" {
			root = " under root " + a.root
		}
		return strings.TrimSpace("a SIMULATED platform "+strings.Join(a.generations, " or ")) + root
	}
	words := []string{a.vendor}
	if a.tee != "" {
		words = append(words, strings.ToUpper(a.tee))
	}
	if len(a.generations) > 0 {
		words = append(words, strings.Join(a.generations, " or "))
	} else {
		words = append(words, "of any generation")
	}
	for _, part := range []struct {
		name   string
		values []string
	}{{"product", one(a.product)}, {"stepping", one(a.stepping)}, {"FMSPC", a.fmspc}, {"chip", a.chips}, {"PPID", a.ppids}} {
		if len(part.values) > 0 {
			words = append(words, part.name+" "+strings.Join(part.values, " or "))
		}
	}
	if len(a.csp) > 0 {
		words = append(words, "with a VLEK of "+strings.ReplaceAll(strings.Join(a.csp, " or "), "*", "any provider"))
	}
	return strings.Join(words, " ")
}

// sentence keeps what a policy's writer called things from adding sentences, or hiding some.
func sentence(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsGraphic(r) {
			return r
		}
		return '?'
	}, s)
}
