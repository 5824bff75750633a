package attest_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
)

// lasting is a policy that says how old evidence may be.
type lasting struct {
	*named
	age time.Duration
}

func (l lasting) EvidenceAge() time.Duration { return l.age }

func failing(id string, code attest.Code) *named {
	return &named{id: id, checks: []attest.Check{pass("first"), {ID: "denied", Status: attest.StatusFail, Code: code, Text: "no"}}}
}

func TestStack(t *testing.T) {
	warning := &named{id: "w", checks: []attest.Check{pass("first"), {ID: "shade", Status: attest.StatusWarn, Code: attest.CodePlatformDenied, Text: "shadow: no"}}}
	for name, c := range map[string]struct {
		stack attest.Stack
		want  attest.Code
	}{
		"none":                         {nil, attest.CodeEmptyPolicy},
		"one":                          {attest.Stack{{"a", accepting("a")}}, ""},
		"one that is missing":          {attest.Stack{{"a", nil}}, attest.CodeEmptyPolicy},
		"one without a rule":           {attest.Stack{{"a", &named{id: "a"}}}, attest.CodeEmptyPolicy},
		"both":                         {attest.Stack{{"a", accepting("a")}, {"b", accepting("b")}}, ""},
		"the floor refuses":            {attest.Stack{{"a", failing("a", attest.CodeDebug)}, {"b", accepting("b")}}, attest.CodeDebug},
		"what was pushed refuses":      {attest.Stack{{"a", accepting("a")}, {"b", failing("b", attest.CodePlatformDenied)}}, attest.CodePlatformDenied},
		"what was pushed is missing":   {attest.Stack{{"a", accepting("a")}, {"b", nil}}, attest.CodeEmptyPolicy},
		"the floor is missing":         {attest.Stack{{"a", nil}, {"b", accepting("b")}}, attest.CodeEmptyPolicy},
		"what was pushed has no rule":  {attest.Stack{{"a", accepting("a")}, {"b", &named{id: "b"}}}, attest.CodeEmptyPolicy},
		"a shadow":                     {attest.Stack{{"a", accepting("a")}, {"b", warning}}, ""},
		"a shadow beside what refuses": {attest.Stack{{"a", failing("a", attest.CodeDebug)}, {"b", warning}}, attest.CodeDebug},
	} {
		t.Run(name, func(t *testing.T) {
			r := session(t, attest.LevelSession, now, c.stack)
			if r.Code() != c.want || r.Affirmed() != (c.want == "") {
				t.Errorf("got %q: %v", r.Code(), r.Checks())
			}
		})
	}
}

// Every layer is asked, and the transcript says which has said what.
func TestStackTranscript(t *testing.T) {
	floor, pushed := failing("a", attest.CodeDebug), accepting("b")
	r := session(t, attest.LevelSession, now, attest.Stack{{"floor.yaml", floor}, {"emergency", pushed}})
	if floor.asked != 1 || pushed.asked != 1 || pushed.told != floor.told {
		t.Error("not all were asked the same")
	}
	layers := ""
	for _, c := range r.Checks() {
		layers += c.Policy + " "
	}
	if !strings.HasSuffix(layers, " floor.yaml floor.yaml emergency ") {
		t.Errorf("checks of %s", layers)
	}
	if text := fmt.Sprint(r.NotChecked()); !strings.Contains(text, "emergency: what b does not check") {
		t.Error(text)
	}
}

// A change of any layer, of their order or number is a change of the id, which voids what was affirmed before.
func TestStackID(t *testing.T) {
	id := func(s ...attest.Layer) string { return attest.Stack(s).Judge(nil, attest.Situation{}).ID }
	a, b, c := attest.Layer{"a", accepting("a")}, attest.Layer{"b", accepting("b")}, attest.Layer{"b", accepting("c")}
	if id(a) != "a" || id() != "" {
		t.Error("a stack of one is not its policy")
	}
	seen := map[string]bool{}
	for _, s := range [][]attest.Layer{{a}, {b}, {a, b}, {b, a}, {a, c}, {a, b, c}, {a, a}} {
		if got := id(s...); got == "" || seen[got] {
			t.Errorf("%v has the id %q", s, got)
		} else {
			seen[got] = true
		}
	}
	for _, unknown := range []attest.Layer{{"u", accepting("")}, {"u", nil}} {
		if got := id(a, unknown); got != "" {
			t.Errorf("got the id %q of what can't be told apart", got)
		}
	}
}

func TestStackAge(t *testing.T) {
	hour, minute := attest.Layer{"h", lasting{accepting("h"), time.Hour}}, attest.Layer{"m", lasting{accepting("m"), time.Minute}}
	silent := attest.Layer{"s", accepting("s")}
	for want, s := range map[time.Duration]attest.Stack{
		0: {silent}, time.Hour: {hour, silent}, time.Minute: {silent, hour, minute},
	} {
		if got := s.EvidenceAge(); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	within := attest.Layer{"w", attest.Stack{silent}} // a Stack is a policy, and says nothing where its layers don't
	for _, s := range []attest.Stack{{minute, hour}, {minute, within}, {within, minute}} {
		if got := s.EvidenceAge(); got != time.Minute {
			t.Errorf("%v: got %s", s, got)
		}
	}
}

// Whatever is put on top, a stack never affirms what one of its layers does not.
func TestStackNeverLoosens(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var s attest.Stack
		all := true
		for i := range rapid.IntRange(0, 5).Draw(rt, "layers") {
			l := attest.Layer{Name: fmt.Sprint(i)}
			switch rapid.IntRange(0, 4).Draw(rt, "kind") {
			case 0:
				l.Policy = failing("f", attest.CodeDebug)
			case 1:
				l.Policy = failing("f", attest.CodeEndorserUnreachable)
			case 2:
				l.Policy = &named{id: "e"}
			case 3: // missing
			default:
				l.Policy = accepting("a")
			}
			all = all && l.Policy != nil && session(t, attest.LevelSession, now, l.Policy).Affirmed()
			s = append(s, l)
		}
		if got := session(t, attest.LevelSession, now, s).Affirmed(); got != (all && len(s) > 0) {
			rt.Fatalf("affirmed %v of %d layers, of which all do: %v", got, len(s), all)
		}
	})
}
