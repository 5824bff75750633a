package policy

import (
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/jurat-tls/jurat/attest"
)

// Explain reads the policy aloud, one sentence for each rule.
func (p *Policy) Explain() string {
	var b strings.Builder
	say := func(format string, args ...any) { b.WriteString(sentence(fmt.Sprintf(format, args...)) + "\n") }
	say("Policy %q accepts a peer only if all of this holds:", p.name)
	say("- Its platform is one of:")
	for _, a := range p.allow {
		say("    %s%s", a.aloud(), ending(a.until, "; this ends on %s"))
	}
	for _, d := range p.deny {
		because := ""
		if d.because != "" {
			because = ", because of " + d.because
		}
		say("- It is not %s%s%s, whatever else allows it.", d.aloud(), because, ending(d.until, " (until %s)"))
	}
	for _, f := range p.tcb {
		say("- Its firmware component %s is at level %d or above.", f.component, f.min)
	}
	if len(p.tcb) == 0 {
		say("- Its firmware may be of ANY level.")
	}
	p.explainWorkload(say)
	switch p.binding {
	case attest.LevelNone:
		say("- The evidence may be bound to NOTHING: it proves nothing about who sent it.")
	default:
		say("- The evidence is bound at level %s or stronger.", p.binding)
	}
	say("- The evidence was made at most %s ago.", age(p.freshness.evidence))
	if p.revocation.unchecked {
		say("- Revocation is NOT checked.")
	} else {
		say("- A revocation list at most %s old names none of the keys in its chain.", age(p.freshness.endorsements))
	}
	say("Everything else is refused.")
	return b.String()
}

func (p *Policy) explainWorkload(say func(string, ...any)) {
	w := &p.workload
	if w.anyMeasured {
		say("- It may run ANY software.")
	} else {
		say("- It measured one of:")
		for _, m := range w.measurements {
			say("    %s", strings.TrimSpace(fmt.Sprintf("%x  %s", m.value, m.name)))
		}
	}
	if w.debugAny {
		say("- The host MAY read the guest with a debugger.")
	} else {
		say("- The host cannot read the guest with a debugger.")
	}
	if w.migrationAny {
		say("- The guest MAY be moved by a migration agent.")
	} else {
		say("- No migration agent can move the guest.")
	}
	say("- Where the hardware has privilege levels, the evidence was requested from level %d or a higher privilege.", w.privilege)
}

func (a platform) aloud() string {
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
	if a.product != "" {
		words = append(words, "product "+a.product)
	}
	if a.stepping != "" {
		words = append(words, "stepping "+a.stepping)
	}
	if len(a.chips) > 0 {
		words = append(words, "chip "+strings.Join(a.chips, " or "))
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

func ending(t time.Time, format string) string {
	if t.IsZero() {
		return ""
	}
	return fmt.Sprintf(format, t.Format(time.DateOnly))
}
