package policy

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// maxSkew is how far in the future evidence may have been made: clocks differ.
const maxSkew = 5 * time.Minute

var _ attest.Policy = (*Policy)(nil)

// Judge implements attest.Policy: one check for every rule, all of them evaluated.
func (p *Policy) Judge(c *attest.Claims, s attest.Situation) attest.Judgement {
	j := attest.Judgement{}
	if p == nil || p.id == "" || c == nil {
		return j // no check at all is a refusal
	}
	j.ID = p.id
	t := &transcript{&j}
	p.judgeBinding(t, s)
	p.judgeFreshness(t, s)
	p.judgeRevocation(t, c, s)
	p.judgePlatform(t, c, s.Now)
	p.judgeTCB(t, c)
	p.judgeWorkload(t, c)
	return j
}

type transcript struct{ *attest.Judgement }

func (t *transcript) pass(id string, line int, text, got string, source attest.Source) {
	t.Checks = append(t.Checks, attest.Check{ID: id, Status: attest.StatusPass, Text: text, Got: got, Source: source, Line: line})
}

func (t *transcript) fail(id string, line int, code attest.Code, got, want string, source attest.Source) *attest.Check {
	t.Checks = append(t.Checks, attest.Check{ID: id, Status: attest.StatusFail, Text: code.Title(), Got: got, Want: want, Code: code, Source: source, Line: line, Remedy: code.Remedy()})
	return &t.Checks[len(t.Checks)-1]
}

func (t *transcript) skip(format string, args ...any) {
	t.NotChecked = append(t.NotChecked, fmt.Sprintf(format, args...))
}

func (p *Policy) judgeBinding(t *transcript, s attest.Situation) {
	const id = "binding.level"
	if !s.Level.AtLeast(p.binding) {
		t.fail(id, p.bindingLine, attest.CodeBindingTooWeak, string(s.Level), "at least "+string(p.binding), attest.SourceTLS)
		return
	}
	t.pass(id, p.bindingLine, "binding is strong enough", fmt.Sprintf("%s (policy: %s)", s.Level, p.binding), attest.SourceTLS)
}

func (p *Policy) judgeFreshness(t *transcript, s attest.Situation) {
	const id = "binding.freshness"
	line := p.freshness.line
	limit := age(p.freshness.evidence)
	switch old := s.Now.Sub(s.Made); {
	case s.Made.IsZero() && s.Level == attest.LevelNone:
		t.skip("age of the evidence: bare evidence does not tell when it was made")
	case s.Made.IsZero():
		t.fail(id, line, attest.CodeEvidenceTooOld, "evidence of unknown age", "made at most "+limit+" ago", attest.SourceHardware)
	case old < -maxSkew:
		t.fail(id, line, attest.CodeEvidenceTooOld, "made "+stamp(s.Made)+", in the future", "made at most "+limit+" ago", attest.SourceHardware)
	case old > p.freshness.evidence:
		t.fail(id, line, attest.CodeEvidenceTooOld, "made "+age(old)+" ago", "at most "+limit, attest.SourceHardware)
	default:
		t.pass(id, line, "evidence is fresh", fmt.Sprintf("made %s (policy: at most %s old)", stamp(s.Made), limit), attest.SourceHardware)
	}
}

func (p *Policy) judgeRevocation(t *transcript, c *attest.Claims, s attest.Situation) {
	const id = "authenticity.revocation"
	r := c.Revocation
	if p.revocation.unchecked {
		t.skip("revocation: the policy says unchecked")
		return
	}
	limit := age(p.freshness.endorsements)
	switch {
	case r.Problem != nil:
		code := r.Problem.Code
		check := t.fail(id, p.revocation.line, code, r.Problem.Got, r.Problem.Want, attest.SourceVendor)
		check.Remedy = r.Problem.Remedy()
		if check.Got == "" && r.Problem.Err != nil {
			check.Got = r.Problem.Err.Error()
		}
		if check.Want == "" {
			check.Want = "a current revocation list"
		}
	case r.Issued.IsZero() || r.Expires.IsZero():
		t.fail(id, p.revocation.line, attest.CodeEndorsementMissing, "nothing about revoked keys", "a revocation list", attest.SourceVendor)
	case s.Now.After(r.Expires) || s.Now.Before(r.Issued.Add(-maxSkew)):
		t.fail(id, p.revocation.line, attest.CodeEndorsementExpired, "a revocation list valid from "+stamp(r.Issued)+" to "+stamp(r.Expires), "valid at "+stamp(s.Now), attest.SourceVendor)
	case s.Now.Sub(r.Issued) > p.freshness.endorsements:
		t.fail(id, p.freshness.line, attest.CodeEndorsementTooOld, "a revocation list of "+stamp(r.Issued), "at most "+limit+" old", attest.SourceVendor)
	default:
		t.pass(id, p.revocation.line, "revocation list is current", fmt.Sprintf("issued %s (policy: at most %s old)", stamp(r.Issued), limit), attest.SourceVendor)
	}
}

func (p *Policy) judgePlatform(t *transcript, c *attest.Claims, now time.Time) {
	got := strings.TrimSpace(strings.Join([]string{c.Vendor, c.TEE, c.Generation, c.Stepping}, " "))
	for _, d := range p.deny {
		if !d.until.IsZero() && !now.Before(d.until) {
			t.skip("denial of %s in line %d: it ended on %s", d.text, d.line, d.until.Format(time.DateOnly))
			continue
		}
		if !d.matches(c, false) {
			t.pass("platform.denied", d.line, "not denied: "+d.text, d.because, attest.SourceLocal)
			continue
		}
		want := "anything but " + d.text
		if d.because != "" {
			want += " (" + d.because + ")"
		}
		t.fail("platform.denied", d.line, attest.CodePlatformDenied, got, want, attest.SourceHardware)
	}
	const id = "platform.allowed"
	var wanted []string
	expired := false
	for _, a := range p.allow {
		wanted = append(wanted, a.text)
		if !a.matches(c, true) {
			continue
		}
		if !a.until.IsZero() && !now.Before(a.until) {
			expired = true
			continue
		}
		t.pass(id, a.line, "platform is allowed: "+a.text, got, attest.SourceHardware)
		return
	}
	want := "one of " + strings.Join(wanted, ", ")
	if expired {
		want += " (a rule that allowed it has ended)"
	}
	code := attest.CodePlatformNotAllowed
	if c.Simulated {
		code = attest.CodeSimulated
	}
	t.fail(id, p.platforms, code, got, want, attest.SourceHardware)
}

// matches reports whether the pattern covers the claims. A pattern that names a claim which the evidence lacks covers
// nothing when it allows, and covers it when it denies: what is not known can't be ruled out.
func (a platform) matches(c *attest.Claims, allowing bool) bool {
	if a.vendor == "" || a.vendor != strings.ToLower(c.Vendor) {
		return false
	}
	// A simulated platform is covered by a rule that names it and its root, whatever else its claims say.
	if (a.vendor == Simulated) != c.Simulated {
		return false
	}
	if allowing && c.Simulated && (a.root == "" || a.root != c.Root) {
		return false
	}
	if !allowing && a.root != "" && a.root != c.Root {
		return false
	}
	is := func(wanted []string, got string) bool {
		if len(wanted) == 0 {
			return true
		}
		if got == "" {
			return !allowing
		}
		return slices.ContainsFunc(wanted, func(w string) bool { return strings.EqualFold(w, got) })
	}
	one := func(s string) []string {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	return is(one(a.tee), c.TEE) && is(a.generations, c.Generation) && is(one(a.product), c.Product) &&
		is(one(a.stepping), c.Stepping) && is(a.chips, c.Provenance.ChipID.String())
}

func (p *Policy) judgeTCB(t *transcript, c *attest.Claims) {
	for _, f := range p.tcb {
		id, want := "tcb."+f.component, fmt.Sprintf("at least %d", f.min)
		switch got, ok := c.TCB[f.component]; {
		case !ok:
			t.fail(id, f.line, attest.CodeClaimAbsent, "no component "+f.component, want, attest.SourceHardware)
		case got < f.min:
			t.fail(id, f.line, attest.CodeTCBBelowFloor, fmt.Sprintf("%s %d", f.component, got), want, attest.SourceHardware)
		default:
			t.pass(id, f.line, "firmware at or above the floor", fmt.Sprintf("%s %d>=%d", f.component, got, f.min), attest.SourceHardware)
		}
	}
	if len(p.tcb) == 0 {
		t.skip("firmware level: the policy has no tcb floor")
	}
}

func (p *Policy) judgeWorkload(t *transcript, c *attest.Claims) {
	w := &p.workload
	p.judgeMeasurement(t, c)
	switch {
	case w.debugAny:
		t.skip("debugging: the policy says any")
	case c.Debug == attest.Off:
		t.pass("workload.debug", w.debugLine, "debugging is off", "", attest.SourceHardware)
	case c.Debug == attest.On:
		t.fail("workload.debug", w.debugLine, attest.CodeDebug, "on", "off", attest.SourceHardware)
	default:
		t.fail("workload.debug", w.debugLine, attest.CodeClaimAbsent, "nothing about debugging", "off", attest.SourceHardware)
	}
	switch {
	case w.migrationAny:
		t.skip("migration: the policy says any")
	case c.Migratable == attest.On:
		t.fail("workload.migration", w.migrationLine, attest.CodeMigratable, "on", "off", attest.SourceHardware)
	case c.Migratable == attest.Off:
		t.pass("workload.migration", w.migrationLine, "migration is off", "", attest.SourceHardware)
	default:
		t.fail("workload.migration", w.migrationLine, attest.CodeClaimAbsent, "nothing about migration", "off", attest.SourceHardware)
	}
	if c.Privilege == nil {
		return // a TEE without privilege levels
	}
	if *c.Privilege > w.privilege {
		t.fail("workload.privilege", w.privilegeLine, attest.CodePrivilege, fmt.Sprintf("level %d", *c.Privilege), fmt.Sprintf("at most %d", w.privilege), attest.SourceHardware)
		return
	}
	t.pass("workload.privilege", w.privilegeLine, "privilege level of the requester", fmt.Sprint(*c.Privilege), attest.SourceHardware)
}

func (p *Policy) judgeMeasurement(t *transcript, c *attest.Claims) {
	const id = "workload.measurement"
	w := &p.workload
	if w.anyMeasured {
		t.skip("software: the policy says measurement any")
		return
	}
	got := c.Measured["launch"]
	if len(got) == 0 {
		t.fail(id, w.measuredLine, attest.CodeClaimAbsent, "no launch measurement", w.wanted(), attest.SourceHardware)
		return
	}
	for _, m := range w.measurements {
		if bytes.Equal(m.value, got) {
			t.pass(id, w.measuredLine, "measurement is accepted", strings.TrimSpace(short(got)+" "+m.name), attest.SourceHardware)
			return
		}
	}
	t.fail(id, w.measuredLine, attest.CodeMeasurement, got.String(), w.wanted(), attest.SourceHardware)
}

func (w *workload) wanted() string {
	var all []string
	for _, m := range w.measurements {
		s := short(m.value)
		if m.name != "" {
			s += " (" + m.name + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, " or ")
}

func short(b []byte) string {
	s := hex.EncodeToString(b)
	if len(s) > 16 {
		return s[:8] + "…" + s[len(s)-8:]
	}
	return s
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// age writes a length of time as the policy file does.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	s := d.Round(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}
