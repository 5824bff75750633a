package policy

import (
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

func day(n int) time.Time { return time.Date(2026, 11, n, 0, 0, 0, 0, time.UTC) }

// Which of two patterns covers the other, and whether they overlap, for each field by itself.
func TestPatterns(t *testing.T) {
	none, one, same, two, other, star := platform{}, "x", "X", []string{"y", "x"}, "z", "*"
	for name, field := range map[string]func(p *platform, values ...string){
		"tee":         func(p *platform, v ...string) { p.tee = v[0] },
		"generations": func(p *platform, v ...string) { p.generations = v },
		"product":     func(p *platform, v ...string) { p.product = v[0] },
		"stepping":    func(p *platform, v ...string) { p.stepping = v[0] },
		"fmspc":       func(p *platform, v ...string) { p.fmspc = v },
		"chips":       func(p *platform, v ...string) { p.chips = v },
		"ppids":       func(p *platform, v ...string) { p.ppids = v },
		"root":        func(p *platform, v ...string) { p.root = v[0] },
		"csp":         func(p *platform, v ...string) { p.csp = v },
	} {
		with := func(values ...string) (p platform) {
			field(&p, values...)
			return p
		}
		list := name != "tee" && name != "product" && name != "stepping" && name != "root"
		// Only a provider can be any but none.
		stars := name == "csp"
		for _, c := range []struct {
			what             string
			a, b             platform
			covers, overlaps bool
			lists            bool // only where there can be several
		}{
			{"nothing said, and nothing", none, none, true, true, false},
			{"nothing said, and one", none, with(one), true, true, false},
			{"one, and nothing said", with(one), none, false, true, false},
			{"one, and the same", with(one), with(same), true, true, false},
			{"one, and another", with(one), with(other), false, false, false},
			{"two, and one of them", with(two...), with(one), true, true, true},
			{"one, and two with it", with(one), with(two...), false, true, true},
			{"two, and another", with(two...), with(other), false, false, true},
			{"any, and one", with(star), with(one), stars, stars, false},
			{"one, and any", with(one), with(star), false, stars, false},
			{"any, and any", with(star), with(star), true, true, false},
			{"any, and nothing said", with(star), none, false, true, false},
		} {
			if c.lists && !list {
				continue
			}
			if got := c.a.covers(&c.b); got != c.covers {
				t.Errorf("%s: %s: covers: %v", name, c.what, got)
			}
			if got := c.a.overlaps(&c.b); got != c.overlaps {
				t.Errorf("%s: %s: overlaps: %v", name, c.what, got)
			}
		}
	}
	a, b := platform{vendor: "a"}, platform{vendor: "b"}
	if a.covers(&b) || a.overlaps(&b) {
		t.Error("of another vendor")
	}
}

// A pattern of no vendor covers nothing, and one for simulated platforms without a root none of them.
func TestPatternOfNobody(t *testing.T) {
	for name, c := range map[string]struct {
		pattern  platform
		claims   attest.Claims
		allowing bool
		want     bool
	}{
		"no vendor":            {platform{}, attest.Claims{}, true, false},
		"no vendor, denied":    {platform{}, attest.Claims{}, false, false},
		"no root":              {platform{vendor: Simulated}, attest.Claims{Vendor: Simulated, Simulated: true}, true, false},
		"no root, denied":      {platform{vendor: Simulated}, attest.Claims{Vendor: Simulated, Simulated: true, Root: "r"}, false, true},
		"the root":             {platform{vendor: Simulated, root: "r"}, attest.Claims{Vendor: Simulated, Simulated: true, Root: "r"}, true, true},
		"the root, denied":     {platform{vendor: Simulated, root: "r"}, attest.Claims{Vendor: Simulated, Simulated: true, Root: "r"}, false, true},
		"another root":         {platform{vendor: Simulated, root: "r"}, attest.Claims{Vendor: Simulated, Simulated: true, Root: "s"}, true, false},
		"another root, denied": {platform{vendor: Simulated, root: "r"}, attest.Claims{Vendor: Simulated, Simulated: true, Root: "s"}, false, false},
		"not simulated":        {platform{vendor: Simulated, root: "r"}, attest.Claims{Vendor: Simulated, Root: "r"}, true, false},
	} {
		if got := c.pattern.matches(subjectOf(&c.claims), c.allowing); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}

func TestTerms(t *testing.T) {
	always, from, until, both := terms{}, terms{from: day(2)}, terms{until: day(9)}, terms{from: day(2), until: day(9)}
	for name, c := range map[string]struct {
		a, b terms
		want bool
	}{
		"always, always":   {always, always, true},
		"always, both":     {always, both, true},
		"both, always":     {both, always, false},
		"from, from":       {from, from, true},
		"from, until":      {from, until, false},
		"until, from":      {until, from, false},
		"until, until":     {until, until, true},
		"until, both":      {until, both, true},
		"until, longer":    {until, terms{until: day(10)}, false},
		"until, always":    {until, always, false},
		"from, earlier":    {from, terms{from: day(1)}, false},
		"from, later":      {from, terms{from: day(3)}, true},
		"from, a part":     {from, both, true},
		"both, within":     {both, terms{from: day(3), until: day(8)}, true},
		"both, not within": {both, terms{from: day(3), until: day(10)}, false},
	} {
		if got := c.a.outlasts(&c.b); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
	shadow := terms{shadow: true}
	if !always.forEver() || shadow.forEver() || from.forEver() || until.forEver() {
		t.Error("for ever")
	}
	for n, want := range map[int]bool{1: false, 2: true, 8: true, 9: false} {
		if both.inForce(day(n)) != want {
			t.Errorf("day %d: %v", n, !want)
		}
	}
}

// The default that counts outside of a value's terms is under no terms: it neither warns only nor gives another's reason.
func TestUnder(t *testing.T) {
	r := ruled[int]{terms: terms{line: 3, because: "b", shadow: true, until: day(9)}, value: 1, otherwise: 2, said: true}
	if got := r.under(day(1)); *got != r.terms || r.at(day(1)) != 1 {
		t.Errorf("in force: %+v", got)
	}
	if got := r.under(day(9)); *got != (terms{line: 3}) || r.at(day(9)) != 2 {
		t.Errorf("ended: %+v", got)
	}
	r.said, r.until = false, time.Time{}
	if got := r.under(day(1)); *got != (terms{line: 3}) || r.at(day(1)) != 2 {
		t.Errorf("not said: %+v", got)
	}
	for _, c := range []struct{ rule, scope, want terms }{
		{terms{because: "r"}, terms{because: "s"}, terms{because: "r"}},
		{terms{}, terms{because: "s", shadow: true}, terms{because: "s", shadow: true}},
		{terms{shadow: true}, terms{}, terms{shadow: true}},
	} {
		if got := c.rule.within(c.scope); got != c.want {
			t.Errorf("%+v within %+v: %+v", c.rule, c.scope, got)
		}
	}
}

// The stronger of a policy's binding and its floor's counts.
func TestBindingOfFloor(t *testing.T) {
	at := func(level attest.Level) ruled[attest.Level] { return ruled[attest.Level]{otherwise: level} }
	for _, c := range []struct{ mine, floor, want attest.Level }{
		{attest.LevelKey, attest.LevelSession, attest.LevelSession},
		{attest.LevelSession, attest.LevelKey, attest.LevelSession},
		{attest.LevelKey, attest.LevelKey, attest.LevelKey},
	} {
		p := &Policy{binding: at(c.mine), floor: &Policy{binding: at(c.floor)}}
		if got := p.Binding(day(1)); got != c.want {
			t.Errorf("%s on %s: %s", c.mine, c.floor, got)
		}
	}
}

// What no file can say, because it is refused when it is read, refuses when it is judged as well.
func TestJudgeRefusesWhatParseDoes(t *testing.T) {
	for id, p := range map[string]*Policy{
		"floor":                {id: "x", floor: &Policy{}},
		"workload.measurement": {id: "x"},
	} {
		found := false
		for _, check := range p.Judge(&attest.Claims{}, attest.Situation{}).Checks {
			found = found || check.ID == id && check.Status == attest.StatusFail
		}
		if !found {
			t.Errorf("%s is not refused", id)
		}
	}
}

func TestAge(t *testing.T) {
	for d, want := range map[time.Duration]string{
		24 * time.Hour: "24h", 48 * time.Hour: "2d", 49 * time.Hour: "49h", 72 * time.Hour: "3d", 90 * time.Minute: "1h30m", 10 * time.Minute: "10m", 61 * time.Second: "1m1s",
		0: "0s", 2*time.Hour + time.Second: "2h0m1s",
	} {
		if got := age(d); got != want {
			t.Errorf("%s: %s, want %s", d, got, want)
		}
	}
}
