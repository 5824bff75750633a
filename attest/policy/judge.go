package policy

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy/expr"
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
	j.Checks = make([]attest.Check, 0, p.checks)
	t := &transcript{Judgement: &j, now: s.Now}
	p.judgeFloor(t, c, s)
	p.judgeBinding(t, s)
	p.judgeFreshness(t, s)
	p.judgeReconnect(t, s)
	p.judgeRevocation(t, c, s)
	who := subjectOf(c)
	p.judgePlatform(t, who)
	p.judgeTCB(t, who)
	p.judgeWorkload(t, c, s)
	p.judgeRules(t, c, s)
	return j
}

// transcript collects the checks.
type transcript struct {
	*attest.Judgement
	now time.Time
}

func (t *transcript) pass(id string, line int, text, got string, source attest.Source) {
	t.Checks = append(t.Checks, attest.Check{ID: id, Status: attest.StatusPass, Text: text, Got: got, Source: source, Line: line})
}

// fail adds a refusal under terms: a warning where the rule is a shadow.
func (t *transcript) fail(u *terms, id string, code attest.Code, got, want string, source attest.Source) *attest.Check {
	c := attest.Check{ID: id, Status: attest.StatusFail, Text: code.Title(), Got: got, Want: want, Code: code, Source: source, Line: u.line, Remedy: code.Remedy()}
	if u.because != "" {
		c.Want += " (" + u.because + ")"
	}
	if u.shadow {
		c.Status, c.Text = attest.StatusWarn, "shadow: "+c.Text
	}
	t.Checks = append(t.Checks, c)
	return &t.Checks[len(t.Checks)-1]
}

func (t *transcript) skip(format string, args ...any) {
	t.NotChecked = append(t.NotChecked, fmt.Sprintf(format, args...))
}

// inForce reports whether a rule counts now, and says so when it does not.
func (t *transcript) inForce(u *terms, what string) bool {
	switch {
	case t.now.Before(u.from):
		t.skip("%s in line %d: it begins on %s", what, u.line, u.from.Format(time.DateOnly))
	case !u.inForce(t.now):
		t.skip("%s in line %d: it ended on %s", what, u.line, u.until.Format(time.DateOnly))
	default:
		return true
	}
	return false
}

func (p *Policy) judgeFloor(t *transcript, c *attest.Claims, s attest.Situation) {
	if p.floor == nil {
		return
	}
	below := p.floor.Judge(c, s)
	if len(below.Checks) == 0 {
		t.fail(&terms{}, "floor", attest.CodeEmptyPolicy, "a floor without a check", "at least one", attest.SourceLocal)
	}
	for _, check := range below.Checks {
		check.ID, check.Text = "floor."+check.ID, p.floor.file+": "+check.Text
		t.Checks = append(t.Checks, check)
	}
	for _, n := range below.NotChecked {
		t.skip("%s: %s", p.floor.file, n)
	}
}

func (p *Policy) judgeBinding(t *transcript, s attest.Situation) {
	const id = "binding.level"
	want := p.binding.at(t.now)
	if !s.Level.AtLeast(want) {
		c := t.fail(p.binding.under(t.now), id, attest.CodeBindingTooWeak, string(s.Level), "at least "+string(want), attest.SourceTLS)
		if s.Level.AtLeast(p.tolerated) {
			c.Status, c.Text = attest.StatusWarn, "tolerated: "+c.Text
		}
		return
	}
	t.pass(id, p.binding.line, "binding is strong enough", string(s.Level)+" (policy: "+string(want)+")", attest.SourceTLS)
}

func (p *Policy) judgeFreshness(t *transcript, s attest.Situation) {
	const id = "binding.freshness"
	u := &terms{line: p.freshness.line}
	limit := age(p.freshness.evidence)
	switch old := s.Now.Sub(s.Made); {
	case s.Made.IsZero() && s.Level == attest.LevelNone:
		t.skip("age of the evidence: bare evidence does not tell when it was made")
	case s.Made.IsZero() && p.freshness.undated:
		t.skip("age of the evidence: it does not tell when it was made, and the policy takes it (undated)")
	case s.Made.IsZero():
		t.fail(u, id, attest.CodeEvidenceTooOld, "evidence of unknown age", "made at most "+limit+" ago", attest.SourceHardware)
	case old < -maxSkew:
		t.fail(u, id, attest.CodeEvidenceTooOld, "made "+stamp(s.Made)+", in the future", "made at most "+limit+" ago", attest.SourceHardware)
	case old > p.freshness.evidence:
		t.fail(u, id, attest.CodeEvidenceTooOld, "made "+age(old)+" ago", "at most "+limit, attest.SourceHardware)
	default:
		t.pass(id, u.line, "evidence is fresh", "made "+stamp(s.Made)+" (policy: at most "+limit+" old)", attest.SourceHardware)
	}
}

// judgeReconnect bounds the age of what a connection without evidence of its own stands on.
func (p *Policy) judgeReconnect(t *transcript, s attest.Situation) {
	if !s.Reconnect {
		return
	}
	const id = "binding.reconnect"
	at := s.Now
	if !s.Reconnected.IsZero() { // what counts is the age at that time: on an open connection the evidence grows older
		at = s.Reconnected
	}
	u, most, old := &terms{line: p.freshness.reconnectLine}, p.freshness.forReconnect(), at.Sub(s.Made)
	got := "a proof of a session with evidence made " + age(old) + " ago"
	if s.Made.IsZero() {
		got = "a proof of a session with evidence of unknown age"
	}
	switch {
	case most == 0:
		t.fail(u, id, attest.CodeReconnectRefused, got, "evidence (policy: reconnect off)", attest.SourceTLS)
	case s.Made.IsZero() || old > most:
		t.fail(u, id, attest.CodeReconnectRefused, got, "at most "+age(most), attest.SourceTLS)
	default:
		t.pass(id, u.line, "an earlier session may be proven", "evidence of "+stamp(s.Made)+" (policy: at most "+age(most)+" old)", attest.SourceTLS)
	}
}

func (p *Policy) judgeRevocation(t *transcript, c *attest.Claims, s attest.Situation) {
	const id = "authenticity.revocation"
	r, u := c.Revocation, p.revocation.under(t.now)
	if !p.revocation.at(t.now) {
		t.skip("revocation: the policy says unchecked")
		return
	}
	limit := age(p.freshness.endorsements)
	switch {
	case r.Problem != nil:
		check := t.fail(u, id, r.Problem.Code, r.Problem.Got, r.Problem.Want, attest.SourceVendor)
		check.Remedy = r.Problem.Remedy()
		if check.Got == "" && r.Problem.Err != nil {
			check.Got = r.Problem.Err.Error()
		}
		if check.Want == "" {
			check.Want = "a current revocation list"
		}
	case r.Issued.IsZero() || r.Expires.IsZero():
		t.fail(u, id, attest.CodeEndorsementMissing, "nothing about revoked keys", "a revocation list", attest.SourceVendor)
	case s.Now.After(r.Expires) || s.Now.Before(r.Issued.Add(-maxSkew)):
		t.fail(u, id, attest.CodeEndorsementExpired, "a revocation list valid from "+stamp(r.Issued)+" to "+stamp(r.Expires), "valid at "+stamp(s.Now), attest.SourceVendor)
	case s.Now.Sub(r.Issued) > p.freshness.endorsements:
		t.fail(&terms{line: p.freshness.line, shadow: u.shadow}, id, attest.CodeEndorsementTooOld, "a revocation list of "+stamp(r.Issued), "at most "+limit+" old", attest.SourceVendor)
	default:
		t.pass(id, u.line, "revocation list is current", "issued "+stamp(r.Issued)+" (policy: at most "+limit+" old)", attest.SourceVendor)
	}
}

func (p *Policy) judgePlatform(t *transcript, c *subject) {
	got := c.name
	for i := range p.deny {
		d := &p.deny[i]
		if !t.inForce(&d.terms, d.denial) {
			continue
		}
		if !d.matches(c, false) {
			t.pass("platform.denied", d.line, d.passed, d.because, attest.SourceLocal)
			continue
		}
		t.fail(&d.terms, "platform.denied", attest.CodePlatformDenied, got, "anything but "+d.text, attest.SourceHardware)
	}
	const id = "platform.allowed"
	ended, shadow := false, false
	for i := range p.allow {
		a := &p.allow[i]
		if !a.matches(c, true) {
			continue
		}
		if !a.inForce(t.now) {
			ended = true
			continue
		}
		if a.shadow {
			shadow = true
			continue
		}
		t.pass(id, a.line, a.passed, got, attest.SourceHardware)
		return
	}
	wanted := make([]string, len(p.allow))
	for i := range p.allow {
		wanted[i] = p.allow[i].text
	}
	want := "one of " + strings.Join(wanted, ", ")
	if ended {
		want += " (a rule that allowed it has ended or not begun)"
	}
	if shadow {
		want += " (a rule in the shadow would allow it)"
	}
	code := attest.CodePlatformNotAllowed
	if c.Simulated {
		code = attest.CodeSimulated
	}
	t.fail(&terms{line: p.platforms}, id, code, got, want, attest.SourceHardware)
}

func (p *Policy) judgeTCB(t *transcript, c *subject) {
	// The vendor's status counts whether or not the policy speaks of it, unless a scope says which status its platforms
	// may have.
	scoped, stated := len(p.scopes) == 0, false
	for i := range p.scopes {
		s := &p.scopes[i]
		if !slices.ContainsFunc(s.platforms, func(a platform) bool { return a.matches(c, true) }) || !t.inForce(&s.terms, "demands on firmware") {
			continue
		}
		scoped = scoped || !s.shadow
		stated = stated || s.statuses.said && !s.shadow
		s.firmware.judge(t, c.Claims, s.terms)
	}
	if !scoped {
		t.fail(&terms{line: p.scopes[0].line}, "tcb.per", attest.CodeNoFloor, c.name, "a platform of an entry of tcb.per", attest.SourceLocal)
	}
	p.tcb.judge(t, c.Claims, terms{})
	if !stated && !p.tcb.statuses.said {
		p.tcb.judgeStatus(t, c.Claims, terms{})
	}
	p.judgeAge(t, c.Claims)
	if !p.tcb.says() && len(p.scopes) == 0 && c.TCBStatus == "" {
		t.skip("firmware level: the policy has no tcb floor")
	}
}

// judgeAge bounds the age of what the vendor's judgement stands in: a peer that staples it could otherwise show one from
// before its level was withdrawn, for as long as that one is valid.
func (p *Policy) judgeAge(t *transcript, c *attest.Claims) {
	const id = "tcb.judged"
	u, limit := &terms{line: p.freshness.line}, age(p.freshness.endorsements)
	switch {
	case c.TCBJudged.IsZero() && c.TCBStatus == "":
		return // this vendor judges no levels
	case c.TCBJudged.IsZero():
		t.fail(u, id, attest.CodeEndorsementTooOld, "a judgement of unknown age", "at most "+limit+" old", attest.SourceVendor)
	case t.now.Sub(c.TCBJudged) > p.freshness.endorsements:
		t.fail(u, id, attest.CodeEndorsementTooOld, "a judgement of "+stamp(c.TCBJudged), "at most "+limit+" old", attest.SourceVendor)
	default:
		t.pass(id, u.line, "the vendor's judgement is recent", "issued "+stamp(c.TCBJudged)+" (policy: at most "+limit+" old)", attest.SourceVendor)
	}
}

// within adds the terms of a scope to those of a rule in it.
func (u terms) within(scope terms) terms {
	u.shadow = u.shadow || scope.shadow
	if u.because == "" {
		u.because = scope.because
	}
	return u
}

func (f *firmware) judge(t *transcript, c *attest.Claims, scope terms) {
	for i := range f.floors {
		r := &f.floors[i]
		if !t.inForce(&r.terms, r.id) {
			continue
		}
		u := r.terms.within(scope)
		switch got, ok := c.TCB[r.component]; {
		case !ok:
			t.fail(&u, r.id, attest.CodeClaimAbsent, "no component "+r.component, r.want, attest.SourceHardware)
		case got < r.min:
			t.fail(&u, r.id, attest.CodeTCBBelowFloor, r.component+" "+strconv.FormatUint(got, 10), r.want, attest.SourceHardware)
		default:
			t.pass(r.id, r.line, "firmware at or above the floor", r.component+" "+strconv.FormatUint(got, 10)+">="+strconv.FormatUint(r.min, 10), attest.SourceHardware)
		}
	}
	if f.statuses.said {
		f.judgeStatus(t, c, scope)
	}
	if f.date.said && t.inForce(&f.date.terms, "tcb.date") {
		u, want := f.date.terms.within(scope), f.date.value.Format(time.DateOnly)+" or later"
		switch {
		case c.TCBDate.IsZero():
			t.fail(&u, "tcb.date", attest.CodeClaimAbsent, "no date by the vendor", want, attest.SourceVendor)
		case c.TCBDate.Before(f.date.value):
			t.fail(&u, "tcb.date", attest.CodeTCBBelowFloor, c.TCBDate.Format(time.DateOnly), want, attest.SourceVendor)
		default:
			t.pass("tcb.date", u.line, "the TCB level is recent enough", c.TCBDate.Format(time.DateOnly), attest.SourceVendor)
		}
	}
	if f.evaluation.said && t.inForce(&f.evaluation.terms, "tcb.evaluation") {
		u, want := f.evaluation.terms.within(scope), "at least "+strconv.FormatUint(f.evaluation.value, 10)
		switch {
		case c.Evaluation == nil:
			t.fail(&u, "tcb.evaluation", attest.CodeClaimAbsent, "no evaluation number", want, attest.SourceVendor)
		case *c.Evaluation < f.evaluation.value:
			t.fail(&u, "tcb.evaluation", attest.CodeTCBBelowFloor, "evaluation "+strconv.FormatUint(*c.Evaluation, 10), want, attest.SourceVendor)
		default:
			t.pass("tcb.evaluation", u.line, "judged by collateral that is recent enough", strconv.FormatUint(*c.Evaluation, 10), attest.SourceVendor)
		}
	}
	f.judgeAdvisories(t, c, scope)
	for i := range f.bits {
		b := &f.bits[i]
		if !t.inForce(&b.terms, b.id) {
			continue
		}
		u := b.terms.within(scope)
		switch got := c.Platform[b.name]; {
		case got == attest.Absent:
			t.fail(&u, b.id, attest.CodeClaimAbsent, "nothing about "+b.name, b.want.String(), attest.SourceHardware)
		case got != b.want:
			t.fail(&u, b.id, attest.CodePlatformBit, b.name+" "+got.String(), b.want.String(), attest.SourceHardware)
		default:
			t.pass(b.id, b.line, "platform bit is as it must be", b.name+" "+got.String(), attest.SourceHardware)
		}
	}
}

// judgeStatus demands an accepted status where the vendor judges TCB levels.
func (f *firmware) judgeStatus(t *transcript, c *attest.Claims, scope terms) {
	const id = "tcb.status"
	accepted, u := f.statuses.at(t.now), f.statuses.under(t.now).within(scope)
	want := strings.Join(accepted, " or ")
	switch {
	case c.TCBStatus == "" && !f.statuses.said:
		return // this vendor gives none
	case c.TCBStatus == "":
		t.fail(&u, id, attest.CodeClaimAbsent, "no status by the vendor", want, attest.SourceVendor)
	case !slices.Contains(accepted, c.TCBStatus):
		got := c.TCBStatus
		if len(c.Advisories) > 0 {
			got += " (" + strings.Join(c.Advisories, ", ") + ")"
		}
		t.fail(&u, id, attest.CodeTCBStatus, got, want, attest.SourceVendor)
	default:
		t.pass(id, u.line, "the vendor's status of the TCB is accepted", c.TCBStatus, attest.SourceVendor)
	}
}

func (f *firmware) judgeAdvisories(t *transcript, c *attest.Claims, scope terms) {
	const id = "tcb.advisories"
	if len(f.denied) == 0 && f.tolerated == nil {
		return
	}
	u := terms{line: f.advisories}.within(scope)
	want := "none of " + strings.Join(f.denied, ", ")
	if f.tolerated != nil {
		want = "none but " + strings.Join(f.tolerated, ", ")
	}
	if c.TCBStatus == "" {
		t.fail(&u, id, attest.CodeClaimAbsent, "nothing about advisories", want, attest.SourceVendor)
		return
	}
	var hit []string
	for _, a := range c.Advisories {
		if slices.Contains(f.denied, a) || f.tolerated != nil && !slices.Contains(f.tolerated, a) {
			hit = append(hit, a)
		}
	}
	if len(hit) > 0 {
		t.fail(&u, id, attest.CodeAdvisory, strings.Join(hit, ", "), want, attest.SourceVendor)
		return
	}
	t.pass(id, u.line, "no advisory that is not tolerated", strings.Join(c.Advisories, ", "), attest.SourceVendor)
}

func (p *Policy) judgeWorkload(t *transcript, c *attest.Claims, s attest.Situation) {
	w := &p.workload
	if w.any {
		t.skip("software: the policy says measurement any")
	} else {
		judgeSets(t, c, w.sets, "workload.measurement", w.line)
	}
	for i := range w.registers {
		judgeSets(t, c, w.registers[i].values, w.registers[i].id, w.registers[i].line)
	}
	w.judgeNumbers(t, c)
	w.judgeConfig(t, s)
	flag(t, &w.debug, "workload.debug", "debugging", c.Debug, attest.CodeDebug)
	flag(t, &w.migration, "workload.migration", "migration", c.Migratable, attest.CodeMigratable)
	if c.Privilege == nil {
		return // a TEE without privilege levels
	}
	if most := w.privilege.at(t.now); *c.Privilege > most {
		t.fail(w.privilege.under(t.now), "workload.privilege", attest.CodePrivilege, "level "+strconv.Itoa(*c.Privilege), "at most "+strconv.Itoa(most), attest.SourceHardware)
	} else {
		t.pass("workload.privilege", w.privilege.line, "privilege level of the requester", strconv.Itoa(*c.Privilege), attest.SourceHardware)
	}
}

// flag demands that something is off, unless the policy says any.
func flag(t *transcript, r *ruled[bool], id, what string, got attest.Flag, code attest.Code) {
	switch {
	case r.at(t.now):
		t.skip("%s: the policy says any", what)
	case got == attest.Off:
		t.pass(id, r.line, what+" is off", "", attest.SourceHardware)
	case got == attest.On:
		t.fail(r.under(t.now), id, code, "on", "off", attest.SourceHardware)
	default:
		t.fail(r.under(t.now), id, attest.CodeClaimAbsent, "nothing about "+what, "off", attest.SourceHardware)
	}
}

// judgeSets demands that the registers are those of one of the sets.
func judgeSets(t *transcript, c *attest.Claims, sets []set, id string, line int) {
	var nearest *set
	best, shadow := -1, ""
	for i := range sets {
		s := &sets[i]
		right := 0
		for name, want := range s.registers {
			if bytes.Equal(c.Measured[name], want) {
				right++
			}
		}
		if right == len(s.registers) {
			switch {
			case !s.inForce(t.now):
				t.skip("%s in line %d: it is not in force", s.text, s.line)
			case s.shadow:
				shadow = s.text
			default:
				t.pass(id, s.line, "measurement is accepted", s.text, attest.SourceHardware)
				return
			}
		}
		if right > best {
			nearest, best = s, right
		}
	}
	u := &terms{line: line}
	if nearest == nil {
		t.fail(u, id, attest.CodeMeasurement, "a policy without a reference value", "at least one", attest.SourceLocal)
		return
	}
	differs := slices.DeleteFunc(sorted(nearest.registers), func(name string) bool { return bytes.Equal(c.Measured[name], nearest.registers[name]) })
	code, got := attest.CodeMeasurement, ""
	for _, name := range differs {
		value := c.Measured[name].String()
		if value == "" {
			code, value = attest.CodeClaimAbsent, "absent"
		}
		if got != "" {
			got += ", "
		}
		got += name + " " + value
	}
	if len(nearest.registers) == 1 && len(differs) == 1 && code == attest.CodeMeasurement {
		got = c.Measured[differs[0]].String()
	}
	check := t.fail(u, id, code, got, wanted(sets), attest.SourceHardware)
	if closeTo(nearest, c) {
		check.Nearest = fmt.Sprintf("%s, which differs in %s", nearest.text, strings.Join(differs, ", "))
	}
	if len(differs) == 0 {
		check.Got, check.Nearest = nearest.text, ""
		if !nearest.inForce(t.now) {
			check.Want += " (that reference value has ended or not begun)"
		}
	}
	if shadow != "" {
		check.Want += " (the set " + shadow + " in the shadow would be accepted)"
	}
}

// closeTo tells a slip in copying a value from another value: the first or last four bytes agree. A register that is right
// is close as well.
func closeTo(s *set, c *attest.Claims) bool {
	for name, want := range s.registers {
		got := c.Measured[name]
		if len(got) == len(want) && (bytes.Equal(got[:4], want[:4]) || bytes.Equal(got[len(got)-4:], want[len(got)-4:])) {
			return true
		}
	}
	return false
}

func wanted(sets []set) string {
	const most = 8
	var all []string
	for i := range sets {
		if i == most {
			all = append(all, fmt.Sprintf("%d more", len(sets)-most))
			break
		}
		s := sets[i].text
		if n := sets[i].name; n != "" && n != s {
			s = strings.TrimSuffix(s, " "+n) + " (" + n + ")"
		}
		all = append(all, s)
	}
	return strings.Join(all, " or ")
}

func (w *workload) judgeNumbers(t *transcript, c *attest.Claims) {
	for i := range w.numbers {
		n := &w.numbers[i]
		if !t.inForce(&n.terms, n.id) {
			continue
		}
		got, ok := c.Numbers[n.name]
		switch {
		case !ok:
			t.fail(&n.terms, n.id, attest.CodeClaimAbsent, "nothing about "+n.name, n.want, attest.SourceHardware)
		case n.exact && got != n.value || got < n.value:
			t.fail(&n.terms, n.id, attest.CodeNumber, n.name+" "+strconv.FormatUint(got, 10), n.want, attest.SourceHardware)
		default:
			t.pass(n.id, n.line, "signed number is accepted", n.name+" "+strconv.FormatUint(got, 10), attest.SourceHardware)
		}
	}
}

func (w *workload) judgeConfig(t *transcript, s attest.Situation) {
	const id = "workload.config"
	if len(w.config) == 0 {
		return
	}
	u := &terms{line: w.configAt}
	want := make([]string, len(w.config))
	for i, c := range w.config {
		want[i] = attest.Abbreviate(c)
	}
	switch {
	case s.Config == [32]byte{}:
		t.fail(u, id, attest.CodeClaimAbsent, "no digest of a configuration", strings.Join(want, " or "), attest.SourceHardware)
	case !slices.ContainsFunc(w.config, func(c []byte) bool { return bytes.Equal(c, s.Config[:]) }):
		t.fail(u, id, attest.CodeConfigDigest, hex.EncodeToString(s.Config[:]), strings.Join(want, " or "), attest.SourceHardware)
	default:
		t.pass(id, u.line, "configuration is accepted", attest.Abbreviate(s.Config[:]), attest.SourceHardware)
	}
}

func (p *Policy) judgeRules(t *transcript, c *attest.Claims, s attest.Situation) {
	if len(p.rules) == 0 {
		return
	}
	facts := expr.NewFacts(c, s)
	for i := range p.rules {
		r := &p.rules[i]
		if !t.inForce(&r.terms, "rule "+r.name) {
			continue
		}
		yes, err := r.program.Eval(facts)
		u, want := r.terms, "not: "+r.source
		hit := yes
		if r.effect == "require" {
			want, hit = r.source, !yes
		}
		u.shadow = u.shadow || r.effect == "warn"
		code, got := attest.CodeRule, r.name
		if err != nil { // a rule without a result rules nothing out
			code, got, hit = attest.CodeClaimAbsent, r.name+": "+err.Error(), true
		}
		if !hit {
			t.pass(r.id, r.line, "rule holds", r.name, attest.SourceLocal)
			continue
		}
		check := t.fail(&u, r.id, code, got, want, attest.SourceLocal)
		if r.effect == "warn" && !r.shadow {
			check.Text = "a rule warns"
		}
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// age writes a length of time as the policy file does.
func age(d time.Duration) string {
	const day = 24 * time.Hour
	if d >= 2*day && d%day == 0 {
		return strconv.Itoa(int(d/day)) + "d"
	}
	s := d.Round(time.Second).String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}
