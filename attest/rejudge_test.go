package attest_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
)

// aged is a policy that looks at ages.
type aged struct {
	monotone  bool
	most      time.Duration // of evidence
	reconnect time.Duration // of evidence at a reconnect
	except    time.Duration // an age, in minutes, that is refused whatever comes before and after; 0 for none
	asked     *int
}

func (p aged) Judge(_ *attest.Claims, s attest.Situation) attest.Judgement {
	*p.asked++
	c := pass("age")
	old := s.Now.Sub(s.Made)
	switch {
	case old > p.most || old < -time.Hour || s.Made.IsZero():
		c = attest.Check{ID: "age", Status: attest.StatusFail, Code: attest.CodeEvidenceTooOld}
	case s.Reconnect && s.Reconnected.Sub(s.Made) > p.reconnect:
		c = attest.Check{ID: "age", Status: attest.StatusFail, Code: attest.CodeReconnectRefused}
	case p.except != 0 && old == p.except:
		c = attest.Check{ID: "age", Status: attest.StatusFail, Code: attest.CodeRule}
	}
	return attest.Judgement{ID: fmt.Sprint("aged", p.most), Checks: []attest.Check{c}, NotChecked: []string{"much"}}
}

func (p aged) OlderIsWorse() bool { return p.monotone }

// Whatever the ages are, many are judged as each for itself would be; and where a policy promises that older is worse, it is
// asked about few.
func TestRejudgeAlike(t *testing.T) {
	data := attest.ReportData{1}
	claims := &attest.Claims{Vendor: "test", ReportData: data, Checks: []attest.Check{pass("authenticity.signature")}, NotChecked: []string{"a"}}
	anew := &attest.Claims{Vendor: "test", ReportData: data, Checks: []attest.Check{pass("authenticity.crl"), pass("authenticity.signature")}, NotChecked: []string{"b"}}
	give := claims
	a := attest.NewAppraiser(attest.NoEndorser{}, verifier(func(*attest.Evidence) (*attest.Claims, error) { return give, nil }))
	ev := &attest.Evidence{Raw: data[:]}
	rapid.Check(t, func(rt *rapid.T) {
		asked := 0
		lax := aged{most: 1000 * time.Hour, reconnect: 1000 * time.Hour, asked: new(int)}
		give = claims
		var all []*attest.Result
		reconnects := rapid.Bool().Draw(rt, "reconnects")
		for i := range rapid.IntRange(0, 12).Draw(rt, "connections") {
			minutes := rapid.IntRange(-1, 9).Draw(rt, "age")
			made := now.Add(-time.Duration(minutes) * time.Minute)
			if rapid.IntRange(0, 30).Draw(rt, "unknown") == 0 {
				made = time.Time{}
			}
			level := attest.LevelSession
			if rapid.IntRange(0, 20).Draw(rt, "level") == 0 && !reconnects {
				level = attest.LevelKey
			}
			r := a.Appraise(t.Context(), ev, attest.Expect(data, level, made).With(pass(fmt.Sprint("own", i))), lax, now)
			if reconnects {
				r = r.Reconnect(lax, now.Add(time.Duration(rapid.IntRange(0, 5).Draw(rt, "wait"))*time.Minute), pass(fmt.Sprint("own", i)))
			}
			all = append(all, r)
		}
		p := aged{
			monotone: true, most: time.Duration(rapid.IntRange(0, 12).Draw(rt, "most")) * time.Minute, reconnect: time.Duration(rapid.IntRange(0, 12).Draw(rt, "reconnect")) * time.Minute,
			asked: &asked,
		}
		if rapid.Bool().Draw(rt, "odd") {
			p.monotone, p.except = false, time.Duration(rapid.IntRange(1, 9).Draw(rt, "except"))*time.Minute
		}
		var renewal *attest.Renewal
		if rapid.Bool().Draw(rt, "renew") {
			give = anew
			v := a.Reverify(t.Context(), ev, now)
			renewal = &v
		}
		got := make([]*attest.Result, len(all))
		told := attest.RejudgeAlike(all, renewal, p, now, func(i int, r *attest.Result) {
			if got[i] != nil {
				rt.Fatal("told twice")
			}
			got[i] = r
		})
		if told < asked { // what no policy was asked about at first is not now
			rt.Errorf("asked %d times, and said %d", asked, told)
		}
		for i, r := range all {
			want := r.Rejudge(p, now)
			if renewal != nil {
				want = r.Renew(*renewal, p, now)
			}
			switch g := got[i]; {
			case g == nil:
				rt.Fatal("not told")
			case g.Verdict() != want.Verdict(), g.Code() != want.Code(), g.PolicyID() != want.PolicyID(), g.Claims() != want.Claims(), !g.EvidenceTime().Equal(want.EvidenceTime()),
				g.EvidenceDigest() != want.EvidenceDigest(), !g.Time().Equal(want.Time()), g.Level() != want.Level(), ids(g) != ids(want), g.Reconnected() != want.Reconnected():
				rt.Fatalf("got %v %v, want %v %v", g.Code(), g.Checks(), want.Code(), want.Checks())
			case ids(g.Rejudge(p, now)) != ids(want.Rejudge(p, now)), g.Rejudge(p, now).Code() != want.Rejudge(p, now).Code():
				rt.Fatal("judged again it is another")
			}
		}
	})
}

func TestRejudgeAlikeAsksLittle(t *testing.T) {
	asked := 0
	first := session(t, attest.LevelSession, now.Add(-time.Minute), aged{most: time.Hour, asked: new(int)})
	all := make([]*attest.Result, 10_000)
	for i := range all {
		all[i] = first
	}
	for most, want := range map[time.Duration]bool{time.Hour: true, time.Second: false} {
		asked = 0
		attest.RejudgeAlike(all, nil, attest.Stack{{"a", aged{monotone: true, most: most, asked: &asked}}}, now, func(_ int, r *attest.Result) {
			if r.Affirmed() != want {
				t.Fatal(r.Err())
			}
		})
		if asked > 2 {
			t.Errorf("asked %d times", asked)
		}
	}
	asked = 0
	attest.RejudgeAlike(all, nil, attest.Stack{{"a", aged{monotone: true, most: time.Hour, asked: new(int)}}, {"b", aged{most: time.Hour, asked: &asked}}}, now, func(int, *attest.Result) {})
	if asked != len(all) {
		t.Errorf("asked %d times", asked)
	}
}

// Where the best of many is refused for less than the worst, each is refused for its own reason.
func TestRejudgeAlikeReasons(t *testing.T) {
	data := attest.ReportData{1}
	claims := &attest.Claims{Vendor: "test", ReportData: data}
	a := attest.NewAppraiser(attest.NoEndorser{}, verifier(func(*attest.Evidence) (*attest.Claims, error) { return claims, nil }))
	lax := aged{most: 1000 * time.Hour, reconnect: 1000 * time.Hour, asked: new(int)}
	var all []*attest.Result
	for i := range 2 {
		at := now.Add(time.Duration(i-1) * time.Minute)
		r := a.Appraise(t.Context(), &attest.Evidence{Raw: data[:]}, attest.Expect(data, attest.LevelSession, at), lax, now)
		all = append(all, r.Reconnect(lax, at.Add(time.Minute)))
	}
	var got []attest.Code
	attest.RejudgeAlike(all, nil, aged{monotone: true, asked: new(int)}, now, func(_ int, r *attest.Result) { got = append(got, r.Code()) })
	if want := []attest.Code{attest.CodeEvidenceTooOld, attest.CodeReconnectRefused}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
