package attest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// bounds is a policy with one bound for the age of evidence and one for that at a reconnect. It keeps what it was told.
type bounds struct {
	most, reconnect time.Duration
	silent          bool // it does not say that older is worse
	told            *[]attest.Situation
}

func (b bounds) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement {
	*b.told = append(*b.told, s)
	c := pass("age")
	switch {
	case s.Now.Sub(s.Made) > b.most:
		c = attest.Check{ID: "age", Status: attest.StatusFail, Code: attest.CodeEvidenceTooOld}
	case s.Reconnect && s.Reconnected.Sub(s.Made) > b.reconnect:
		c = attest.Check{ID: "age", Status: attest.StatusFail, Code: attest.CodeReconnectRefused}
	}
	return attest.Judgement{ID: "bounds", Checks: []attest.Check{c}}
}

func (b bounds) OlderIsWorse() bool { return !b.silent }

// standing makes connections that stand on the same claims.
type standing struct {
	t      *testing.T
	claims *attest.Claims
	broken error
	a      *attest.Appraiser
	data   attest.ReportData
}

func newStanding(t *testing.T) *standing {
	s := &standing{t: t, data: attest.ReportData{1}}
	s.claims = &attest.Claims{Vendor: "test", ReportData: s.data, Checks: []attest.Check{pass("authenticity.signature")}}
	s.a = attest.NewAppraiser(attest.NoEndorser{}, verifier(func(*attest.Evidence) (*attest.Claims, error) { return s.claims, s.broken }))
	return s
}

func (s *standing) lax() attest.Policy {
	return accepting("lax")
}

func (s *standing) open(minutes int, as func(attest.Expectation) attest.Expectation) *attest.Result {
	s.t.Helper()
	want := attest.Expect(s.data, attest.LevelSession, now.Add(-time.Duration(minutes)*time.Minute))
	if as != nil {
		want = as(want)
	}
	r := s.a.Appraise(s.t.Context(), &attest.Evidence{Raw: s.data[:]}, want, s.lax(), now)
	if !r.Affirmed() {
		s.t.Fatal(r.Err())
	}
	return r
}

// back is a connection that stands on evidence which is minutes old, and was so many old when it reconnected.
func (s *standing) back(minutes, then int) *attest.Result {
	return s.open(minutes, nil).Reconnect(s.lax(), now.Add(time.Duration(then-minutes)*time.Minute))
}

func verdicts(all []*attest.Result, renewal *attest.Renewal, p attest.Policy) (text string, got []*attest.Result, asked int) {
	got = make([]*attest.Result, len(all))
	asked = attest.RejudgeAlike(all, renewal, p, now, func(i int, r *attest.Result) { got[i] = r })
	for _, r := range got {
		text += map[bool]string{true: "+", false: "-"}[r.Affirmed()]
	}
	return text, got, asked
}

// Ages alone are settled by the worst and the best of them, and each is judged for itself where these differ.
func TestAges(t *testing.T) {
	s := newStanding(t)
	at := func(minutes ...int) (all []*attest.Result) {
		for _, m := range minutes {
			all = append(all, s.open(m, nil))
		}
		return all
	}
	for _, c := range []struct {
		name            string
		all             []*attest.Result
		most, reconnect time.Duration // minutes
		want            string
		asked           int
	}{
		{"one", at(5), 10, 9, "+", 1},
		{"all are young enough", at(5, 9, 2), 9, 9, "+++", 1},
		{"all are too old", at(5, 9, 2), 1, 9, "---", 2},
		{"the oldest is in the middle", at(5, 9, 2), 6, 9, "+-+", 5},
		{"the oldest is last", at(5, 2, 9), 6, 9, "++-", 5},
		{"the oldest is first", at(9, 2, 5), 6, 9, "-++", 5},
		{"the youngest is in the middle", at(5, 2, 9), 3, 9, "-+-", 5},
		{"the youngest is last", at(9, 5, 2), 3, 9, "--+", 5},
		{"the youngest is first", at(2, 5, 9), 3, 9, "+--", 5},
		{"reconnects", []*attest.Result{s.back(10, 1), s.back(20, 1)}, 99, 5, "++", 1},
		{"one waited longer", []*attest.Result{s.back(10, 1), s.back(10, 8)}, 99, 5, "+-", 4},
		{"the first waited longer", []*attest.Result{s.back(10, 8), s.back(10, 1)}, 99, 5, "-+", 4},
		{"all waited too long", []*attest.Result{s.back(10, 8), s.back(10, 7)}, 99, 5, "--", 2},
		{"old, and waited little", []*attest.Result{s.back(20, 1), s.back(10, 4)}, 99, 5, "++", 1},
	} {
		told := new([]attest.Situation)
		p := bounds{most: c.most * time.Minute, reconnect: c.reconnect * time.Minute, told: told}
		got, _, asked := verdicts(c.all, nil, p)
		if got != c.want || asked != c.asked || len(*told) != asked {
			t.Errorf("%s: got %s, asked %d times and said %d", c.name, got, len(*told), asked)
		}
		for _, was := range *told {
			if was.Reconnect == was.Reconnected.IsZero() {
				t.Errorf("%s: told of %+v", c.name, was)
			}
		}
		if p.silent = true; len(c.all) > 1 {
			if got, _, asked := verdicts(c.all, nil, p); got != c.want || asked != len(c.all) {
				t.Errorf("%s, and no promise: got %s, asked %d times", c.name, got, asked)
			}
		}
	}
}

// What differs in more than ages is judged one by one.
func TestNotAlike(t *testing.T) {
	s := newStanding(t)
	first := s.open(5, nil)
	apart := map[string]*attest.Result{
		"level": s.open(5, func(attest.Expectation) attest.Expectation {
			return attest.Expect(s.data, attest.LevelKey, now.Add(-5*time.Minute))
		}),
		"config": s.open(5, func(e attest.Expectation) attest.Expectation { return e.WithConfig([32]byte{9}) }),
		"unknown": s.open(5, func(attest.Expectation) attest.Expectation {
			return attest.Expect(s.data, attest.LevelSession, time.Time{})
		}),
		"future":  s.open(-5, nil),
		"waited":  s.back(5, 5),
		"refused": attest.RefusedResult(&attest.Error{Code: attest.CodeRevoked, Check: "test"}, now),
		"judged":  first.Rejudge(failing("x", attest.CodeDebug), now),
	}
	other := *s
	other.claims = &attest.Claims{Vendor: "other", ReportData: s.data, Checks: []attest.Check{pass("authenticity.signature")}}
	other.a = attest.NewAppraiser(attest.NoEndorser{}, verifier(func(*attest.Evidence) (*attest.Claims, error) { return other.claims, nil }))
	apart["claims"] = other.open(5, nil)
	want := attest.Expect(s.data, attest.LevelSession, now.Add(-5*time.Minute))
	apart["digest"] = s.a.Appraise(t.Context(), &attest.Evidence{Raw: []byte("other")}, want, s.lax(), now)
	for name, r := range apart {
		for _, all := range [][]*attest.Result{{first, r, first}, {r, first, first}, {first, first, r}} {
			told := new([]attest.Situation)
			_, got, asked := verdicts(all, nil, bounds{most: time.Hour, reconnect: time.Hour, told: told})
			if asked != len(all) {
				t.Errorf("%s: asked %d times", name, asked)
			}
			for i, g := range got {
				if alone := all[i].Rejudge(bounds{most: time.Hour, reconnect: time.Hour, told: told}, now); g.Verdict() != alone.Verdict() || g.Claims() != alone.Claims() || g.Code() != alone.Code() {
					t.Errorf("%s: got %v, alone %v", name, g.Err(), alone.Err())
				}
			}
		}
	}
	// Two that are from before the evidence was made, or of an unknown age, are so both.
	for _, r := range []*attest.Result{apart["future"], apart["unknown"], s.back(5, -1)} {
		if _, _, asked := verdicts([]*attest.Result{r, r}, nil, bounds{most: 1e6 * time.Hour, reconnect: time.Hour, told: new([]attest.Situation)}); asked != 2 {
			t.Errorf("asked %d times", asked)
		}
	}
}

// A policy that says nothing about ages is asked about each.
func TestAlikeForWhoSaysNothing(t *testing.T) {
	s := newStanding(t)
	if got, _, asked := verdicts([]*attest.Result{s.open(1, nil), s.open(1, nil)}, nil, accepting("p")); got != "++" || asked != 2 {
		t.Errorf("got %s, asked %d times", got, asked)
	}
}

// Alike connections get the claims of today, or what is wrong with them, each beside what is its own.
func TestRenewAlike(t *testing.T) {
	s := newStanding(t)
	ev := &attest.Evidence{Raw: s.data[:]}
	var all []*attest.Result
	for i := range 3 {
		all = append(all, s.open(5+i, func(e attest.Expectation) attest.Expectation { return e.With(pass(fmt.Sprint("own", i))) }))
	}
	p := bounds{most: time.Hour, told: new([]attest.Situation)}
	s.claims = &attest.Claims{Vendor: "anew", ReportData: s.data, Checks: []attest.Check{pass("authenticity.crl"), pass("authenticity.chain")}, NotChecked: []string{"news"}}
	v := s.a.Reverify(t.Context(), ev, now)
	text, got, asked := verdicts(all, &v, p)
	if text != "+++" || asked != 1 {
		t.Errorf("got %s, asked %d times", text, asked)
	}
	for i, r := range got {
		alone := all[i].Renew(v, p, now)
		if ids(r) != ids(alone) || r.Claims() != s.claims {
			t.Errorf("checks %s, alone %s", ids(r), ids(alone))
		}
		aged := slices.ContainsFunc(r.NotChecked(), func(n string) bool { return !slices.Contains(alone.NotChecked(), n) })
		if oldest := i == len(all)-1; aged == oldest { // the one that was judged for all was judged as it is
			t.Errorf("not checked %q, alone %q", r.NotChecked(), alone.NotChecked())
		}
	}
	s.broken = &attest.Error{Code: attest.CodeRevoked, Check: "authenticity.chain"}
	v = s.a.Reverify(t.Context(), ev, now)
	text, got, _ = verdicts(all, &v, p)
	if text != "---" {
		t.Errorf("got %s", text)
	}
	for _, r := range got {
		if r.Code() != attest.CodeRevoked {
			t.Errorf("got %s", r.Code())
		}
	}
}

// dated is a policy that changes at a time.
type dated struct {
	*named
	at time.Time
}

func (d dated) Changes(after time.Time) time.Time {
	if d.at.After(after) {
		return d.at
	}
	return time.Time{}
}

func TestStackChanges(t *testing.T) {
	soon, later := dated{accepting("soon"), now.Add(time.Minute)}, dated{accepting("later"), now.Add(time.Hour)}
	for name, c := range map[string]struct {
		stack attest.Stack
		want  time.Time
	}{
		"none":             {nil, time.Time{}},
		"one that has not": {attest.Stack{{"a", accepting("a")}}, time.Time{}},
		"one":              {attest.Stack{{"a", later}}, later.at},
		"the first":        {attest.Stack{{"a", soon}, {"b", later}}, soon.at},
		"the last":         {attest.Stack{{"a", later}, {"b", soon}}, soon.at},
		"beside another":   {attest.Stack{{"a", accepting("a")}, {"b", soon}, {"c", accepting("c")}}, soon.at},
		"beside the past":  {attest.Stack{{"a", soon}, {"b", dated{accepting("b"), now}}}, soon.at},
	} {
		if got := c.stack.Changes(now); !got.Equal(c.want) {
			t.Errorf("%s: got %s", name, got)
		}
	}
}

// A stack has an identity only if all of its layers do.
func TestStackWithoutID(t *testing.T) {
	for _, stack := range []attest.Stack{{{"a", accepting("")}, {"b", accepting("b")}}, {{"a", accepting("a")}, {"b", accepting("")}}} {
		if r := session(t, attest.LevelSession, now, stack); r.PolicyID() != "" {
			t.Errorf("got %s", r.PolicyID())
		}
	}
}

// fair is bounds that say that they look at nothing which belongs to one piece of evidence alone.
type fair struct{ bounds }

func (fair) JudgesAlike() bool { return true }

// Claims of several pieces of evidence that say the same are judged once, for whoever says that it makes no difference. Each
// connection keeps its own claims, digest and checks.
func TestClaimsAlike(t *testing.T) {
	open := func(n byte, generation string, minutes int) *attest.Result {
		s := newStanding(t)
		s.data = attest.ReportData{n}
		s.claims = &attest.Claims{Vendor: "test", Generation: generation, ReportData: s.data, Made: now.Add(-time.Duration(minutes) * time.Minute), Checks: []attest.Check{pass(fmt.Sprint("signature", n))}, NotChecked: []string{fmt.Sprint("nothing", n)}}
		return s.open(minutes, func(e attest.Expectation) attest.Expectation { return e.With(pass(fmt.Sprint("own", n))) })
	}
	all := []*attest.Result{open(1, "r", 1), open(2, "r", 3), open(3, "r", 2)}
	for _, c := range []struct {
		name  string
		all   []*attest.Result
		most  time.Duration
		want  string
		asked int
	}{
		{"all are young enough", all, 3 * time.Minute, "+++", 1},
		{"all are too old", all, 30 * time.Second, "---", 2},
		{"some are", all, 2 * time.Minute, "+-+", 5},
		{"another platform", append(slices.Clone(all), open(4, "s", 1)), 3 * time.Minute, "++++", 4},
	} {
		told := new([]attest.Situation)
		p := fair{bounds{most: c.most, told: told}}
		text, got, asked := verdicts(c.all, nil, attest.Stack{{Name: "p", Policy: p}})
		if text != c.want || asked != c.asked || len(*told) != asked {
			t.Errorf("%s: got %s, asked %d times and said %d", c.name, text, len(*told), asked)
		}
		for i, r := range got {
			alone := c.all[i].Rejudge(attest.Stack{{Name: "p", Policy: p}}, now)
			if ids(r) != ids(alone) || r.Claims() != c.all[i].Claims() || r.EvidenceDigest() != c.all[i].EvidenceDigest() || r.Code() != alone.Code() || r.PolicyID() != alone.PolicyID() || !r.EvidenceTime().Equal(alone.EvidenceTime()) {
				t.Errorf("%s: got %s, alone %s", c.name, ids(r), ids(alone))
			}
			// What was judged for all can be judged again, by itself.
			if text, _, _ := verdicts([]*attest.Result{r}, nil, p); text == "+" != alone.Affirmed() {
				t.Errorf("%s: %s the second time", c.name, text)
			}
		}
		// A layer that does not say so may look at more.
		if text, _, asked := verdicts(c.all, nil, attest.Stack{{Name: "p", Policy: p}, {Name: "q", Policy: p.bounds}}); text != c.want || asked != len(c.all) {
			t.Errorf("%s beside who promises nothing: got %s, asked %d times", c.name, text, asked)
		}
	}
	// What one piece of evidence is worth today says nothing about another.
	ev := &attest.Evidence{Raw: []byte{1}}
	v := attest.NewAppraiser(attest.NoEndorser{}, verifier(func(*attest.Evidence) (*attest.Claims, error) { return all[0].Claims(), nil })).Reverify(t.Context(), ev, now)
	if _, _, asked := verdicts(all, &v, fair{bounds{most: time.Hour, told: new([]attest.Situation)}}); asked != len(all) {
		t.Errorf("asked %d times", asked)
	}
}
