package pattern_test

import (
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/pattern"
)

func TestCompile(t *testing.T) {
	for expr, want := range map[string]struct{ whole, part string }{ // what matches of a, ab and b
		"a":       {"a", "a ab"},
		"a|b":     {"a b", "a ab b"},
		"":        {"", "a ab b"},
		"a?b{1}":  {"ab b", "ab b"},
		"(?i)A.?": {"a ab", "a ab"},
	} {
		for _, whole := range []bool{true, false} {
			re, weight, err := pattern.Compile(expr, whole, pattern.Most)
			if err != nil || weight < 1 || weight > 10 {
				t.Errorf("%q: %d, %v", expr, weight, err)
				continue
			}
			var got []string
			for _, s := range []string{"a", "ab", "b"} {
				if re.MatchString(s) {
					got = append(got, s)
				}
			}
			if text := strings.Join(got, " "); whole && text != want.whole || !whole && text != want.part {
				t.Errorf("%q, %t: %s", expr, whole, text)
			}
		}
	}
	for _, expr := range []string{
		"(", "a)|(?:b", `\C`, // which are none
		".{1000}.{30}", "(x*){600}", "(?:a{10}b{10}){60}", "(.{30}){40}", "a{1,999}b{100,}", strings.Repeat("x", 1025), strings.Repeat("(.?){9}", 100),
	} {
		if re, _, err := pattern.Compile(expr, true, pattern.Most); err == nil || re != nil || len(err.Error()) > 60 {
			t.Errorf("%.40q: %v", expr, err)
		}
	}
	for _, expr := range []string{strings.Repeat("x", 1024), ".{500}", `(?:\pL{20}-){20}`} {
		if _, weight, err := pattern.Compile(expr, true, pattern.Most); err != nil || weight < 500 {
			t.Errorf("%.40q: %d, %v", expr, weight, err)
		}
	}
}

// Nothing that is taken is more than its weight says, by much.
func FuzzCompile(f *testing.F) {
	f.Add("(a{10}|b*){9}", "ab")
	f.Add("(x*){500}", "xxxxxxxxxxxxxxxxxxxxxxxxxxxx")
	f.Fuzz(func(t *testing.T, expr, text string) {
		if len(expr) > 2000 || len(text) > 100 {
			return
		}
		if re, weight, err := pattern.Compile(expr, true, pattern.Most); err == nil {
			if weight > pattern.Most {
				t.Error(weight)
			}
			re.MatchString(text)
		}
	})
}
