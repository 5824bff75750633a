package attest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// named is a policy with an identity that answers with its checks, and keeps what it was told.
type named struct {
	id     string
	checks []attest.Check
	told   attest.Situation
	asked  int
}

func (p *named) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement {
	p.told = s
	p.asked++
	return attest.Judgement{ID: p.id, Checks: p.checks, NotChecked: []string{"what " + p.id + " does not check"}}
}

func accepting(id string) *named {
	return &named{id: id, checks: []attest.Check{pass("platform.allowed")}}
}

// session is a Result of the given level, with evidence made at a time.
func session(t *testing.T, level attest.Level, made time.Time, p attest.Policy) *attest.Result {
	t.Helper()
	data := attest.ReportData{1}
	v := verifier(func(*attest.Evidence) (*attest.Claims, error) {
		return &attest.Claims{Vendor: "test", ReportData: data, Checks: []attest.Check{pass("authenticity.signature")}, NotChecked: []string{"what the verifier does not check"}}, nil
	})
	want := attest.Expect(data, level, made).WithConfig([32]byte{7}).With(pass("binding.name"), pass("binding.exporter"))
	return attest.NewAppraiser(attest.NoEndorser{}, v).Appraise(t.Context(), &attest.Evidence{Raw: data[:]}, want, p, now)
}

func ids(r *attest.Result) string {
	var all []string
	for _, c := range r.Checks() {
		all = append(all, c.ID)
	}
	return strings.Join(all, " ")
}

func TestReconnect(t *testing.T) {
	made, later := now.Add(-time.Minute), now.Add(4*time.Minute)
	first := session(t, attest.LevelSession, made, accepting("p"))
	if !first.Affirmed() || first.Reconnected() || !first.EvidenceTime().Equal(made) {
		t.Fatal(first.Err())
	}
	before := fmt.Sprint(first.Checks(), first.NotChecked())
	p := accepting("p")
	second := first.Reconnect(p, later, pass("binding.name"), pass("binding.leaf"))
	if !second.Affirmed() || !second.Reconnected() || second.Level() != attest.LevelSession || second.Claims() != first.Claims() || second.EvidenceDigest() != first.EvidenceDigest() ||
		!second.Time().Equal(later) || !second.EvidenceTime().Equal(made) || second.PolicyID() != "p" {
		t.Fatalf("got %v: %+v", second.Err(), second)
	}
	if want := (attest.Situation{Level: attest.LevelSession, Made: made, Now: later, Config: [32]byte{7}, Reconnect: true, Reconnected: later}); p.told != want {
		t.Errorf("the policy was told %+v", p.told)
	}
	// Nothing of the old connection is said of the new one.
	if got := ids(second); got != "binding.name binding.leaf authenticity.signature binding.reconnect platform.allowed" {
		t.Errorf("checks %s", got)
	}
	if c := second.Checks()[3]; c.Status != attest.StatusPass || c.Text != "proves a secret of a session attested earlier" || c.Got != "evidence of 2026-10-31T23:59:00Z, 5m0s old" || c.Source != attest.SourceTLS {
		t.Errorf("got %+v", c)
	}
	if got := strings.Join(second.NotChecked(), "; "); got != "what the verifier does not check; signatures and revocation anew: what the evidence of the earlier session showed counts; what p does not check" {
		t.Errorf("not checked: %s", got)
	}
	// Evidence grows no younger, however often it is stood upon.
	third := second.Reconnect(p, later.Add(time.Hour), pass("binding.name"))
	if !third.Affirmed() || !p.told.Made.Equal(made) || !third.EvidenceTime().Equal(made) || ids(third) != "binding.name authenticity.signature binding.reconnect platform.allowed" {
		t.Errorf("%v: %s, made %v", third.Err(), ids(third), p.told.Made)
	}
	if len(third.NotChecked()) != 3 {
		t.Errorf("not checked: %q", third.NotChecked())
	}
	// Judged again it is still one without evidence of its own.
	again := second.Rejudge(p, later.Add(time.Second))
	if !again.Affirmed() || !again.Reconnected() || !p.told.Reconnect || ids(again) != ids(second) {
		t.Errorf("%v: %s, %+v", again.Err(), ids(again), p.told)
	}
	if fmt.Sprint(first.Checks(), first.NotChecked()) != before {
		t.Error("the first Result changed")
	}
	// A Result that was judged again stands under the policy that judged last.
	q := accepting("q")
	if r := first.Rejudge(q, later).Reconnect(q, later); !r.Affirmed() {
		t.Errorf("after another policy: %v", r.Err())
	}
}

func TestReconnectRefuses(t *testing.T) {
	first := session(t, attest.LevelSession, now, accepting("p"))
	denied := func(id string) *named {
		return &named{id: id, checks: []attest.Check{fail("platform.denied", attest.CodePlatformDenied, 3)}}
	}
	for name, c := range map[string]struct {
		of     *attest.Result
		policy attest.Policy
		checks []attest.Check
		code   attest.Code
		got    string
	}{
		"nil":                    {nil, accepting("p"), nil, attest.CodeReconnectRefused, "a session that was not affirmed"},
		"zero":                   {new(attest.Result), accepting("p"), nil, attest.CodeReconnectRefused, "a session that was not affirmed"},
		"refused":                {session(t, attest.LevelSession, now, denied("p")), accepting("p"), nil, attest.CodeReconnectRefused, "a session that was not affirmed"},
		"level nonce":            {session(t, attest.LevelNonce, now, accepting("p")), accepting("p"), nil, attest.CodeReconnectRefused, "a session affirmed at level nonce"},
		"level key":              {session(t, attest.LevelKey, now, accepting("p")), accepting("p"), nil, attest.CodeReconnectRefused, "a session affirmed at level key"},
		"no policy":              {first, nil, nil, attest.CodeEmptyPolicy, ""},
		"an empty policy":        {first, &named{id: "p"}, nil, attest.CodeEmptyPolicy, ""},
		"another policy":         {first, accepting("q"), nil, attest.CodeReconnectRefused, "a session affirmed under policy p"},
		"another one that fails": {first, denied("q"), nil, attest.CodeReconnectRefused, "a session affirmed under policy p"},
		"policies without names": {session(t, attest.LevelSession, now, accepting("")), accepting(""), nil, attest.CodeReconnectRefused, "a session affirmed under policy "},
		"the policy refuses":     {first, denied("p"), nil, attest.CodePlatformDenied, ""},
		"a check of its own":     {first, accepting("p"), []attest.Check{pass("a"), fail("binding.name", attest.CodeName, 0)}, attest.CodeName, ""},
		"a check without status": {first, accepting("p"), []attest.Check{{ID: "binding.name"}}, attest.CodeInternal, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r := c.of.Reconnect(c.policy, now.Add(time.Second), c.checks...)
			if r.Affirmed() || r.Verdict() != attest.Refused || r.Code() != c.code || !r.Time().Equal(now.Add(time.Second)) {
				t.Fatalf("got %v, %v", r.Verdict(), r.Err())
			}
			last := r.Checks()[len(r.Checks())-1]
			if c.code == attest.CodeReconnectRefused && (last.ID != "binding.reconnect" || last.Got != c.got || last.Want == "" || last.Remedy == "") {
				t.Errorf("got %+v", last)
			}
			if strings.HasPrefix(name, "another") && (r.PolicyID() != "q" || ids(r) != "authenticity.signature binding.reconnect binding.reconnect" || len(r.NotChecked()) != 2) {
				t.Errorf("under %s: %s", r.PolicyID(), ids(r))
			}
			// The policy that it was refused for cannot be asked again, so as to affirm it.
			if c.code == attest.CodeReconnectRefused || c.code == attest.CodeEmptyPolicy {
				for _, id := range []string{"p", "q", ""} {
					if again := r.Rejudge(accepting(id), now); again.Affirmed() || again.Code() != c.code {
						t.Errorf("judged again by %q: %v", id, again.Err())
					}
					if again := r.Reconnect(accepting(id), now); again.Affirmed() {
						t.Errorf("connected again under %q", id)
					}
				}
				if r.Reconnected() || !r.EvidenceTime().IsZero() {
					t.Error("a refusal with evidence")
				}
			}
		})
	}
}

// A machine that sleeps makes no evidence younger: the age is by the clock on the wall, as validity is.
func TestEvidenceTimeIsOfTheWallClock(t *testing.T) {
	ticking := time.Now()
	if got := session(t, attest.LevelSession, ticking, accepting("p")).EvidenceTime(); got != ticking.Round(0) || got == ticking {
		t.Errorf("got %v", got)
	}
}

// Evidence of unknown age is said to be that.
func TestReconnectOfUnknownAge(t *testing.T) {
	r := session(t, attest.LevelSession, time.Time{}, accepting("p")).Reconnect(accepting("p"), now)
	if got := r.Checks()[1].Got; got != "evidence of unknown age" || !r.EvidenceTime().IsZero() {
		t.Errorf("got %s", got)
	}
	var none *attest.Result
	if none.Reconnected() || !none.EvidenceTime().IsZero() || new(attest.Result).Reconnected() || !new(attest.Result).EvidenceTime().IsZero() {
		t.Error("a Result that is none has evidence")
	}
}
