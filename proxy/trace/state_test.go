package trace_test

import (
	"fmt"
	"math/rand/v2"
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/trace"
)

func members(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("bar%02d=%02d", i, i))
	}
	return strings.Join(all, ",")
}

func TestParseState(t *testing.T) {
	printable := func(but string) string {
		var b strings.Builder
		for c := byte(' '); c <= '~'; c++ {
			if !strings.ContainsRune(but, rune(c)) {
				b.WriteByte(c)
			}
		}
		return b.String()
	}
	letters := "abcdefghijklmnopqrstuvwxyz0123456789_-*/"
	z, v := strings.Repeat("z", 300), strings.Repeat("v", 300)
	for s, want := range map[string]string{
		"":                                 "",
		" ":                                "",
		",, \t ,":                          "",
		"foo=1":                            "foo=1",
		"foo=1,bar=2":                      "foo=1,bar=2",
		"foo=1 \t , \t bar=2, \t baz=3":    "foo=1,bar=2,baz=3",
		"\t foo=1 \t":                      "foo=1",
		"foo=1,":                           "foo=1",
		",foo=1":                           "foo=1",
		"foo=1,,bar=2":                     "foo=1,bar=2",
		"foo=  1":                          "foo=  1",
		"foo=1 2":                          "foo=1 2",
		"0a@v=1":                           "0a@v=1",
		letters + "=" + printable(",="):    letters + "=" + printable(",="),
		letters + "@a-z0-9_-*/=1":          letters + "@a-z0-9_-*/=1",
		z[:256] + "=1":                     z[:256] + "=1",
		z[:241] + "@" + v[:14] + "=1":      z[:241] + "@" + v[:14] + "=1",
		"a=" + v[:256]:                     "a=" + v[:256],
		members(32):                        members(32),
		strings.Repeat(",", 507) + "foo=1": "foo=1",
	} {
		if got, ok := trace.ParseState(s); !ok || got != want {
			t.Errorf("%q: got %q, %v", s, got, ok)
		}
	}
	for size, want := range map[int]bool{512: true, 513: false} {
		s := "a=" + v[:256] + ",b=" + z[:size-261]
		if got, ok := trace.ParseState(s); len(s) != size || ok != want || ok && got != s {
			t.Errorf("%d bytes: got %q, %v", size, got, ok)
		}
	}
	for _, s := range []string{
		"foo", "=", "=1", "foo=", "foo=,bar=3", "foo=bar=baz", "foo==", "foo =1", "FOO=1", "foo.bar=1", "fo\u00f6=1",
		"foo=1,foo=1", "foo=1,bar=2,foo=3", "1foo=1", "_foo=1", "-=1",
		"foo@=1,bar=2", "@foo=1,bar=2", "foo@@bar=1", "foo@bar@baz=1", "foo@1=1", "_a@b=1", "foo@B=1",
		z[:257] + "=1", z[:242] + "@v=1", "t@" + v[:15] + "=1", "a=" + v[:257],
		members(33), strings.Repeat(",", 508) + "foo=1",
		"foo=\x7f", "foo=a\tb", "foo=a\nb", "foo=\x00", "foo=\u00e9", "foo=1\n", "\u00a0foo=1",
	} {
		if got, ok := trace.ParseState(s); ok || got != "" {
			t.Errorf("%q: got %q", s, got)
		}
	}
}

// What is to be passed on as it is costs nothing, and what is too long is not even put together.
func TestStateAllocations(t *testing.T) {
	s := members(32)
	if n := testing.AllocsPerRun(100, func() { trace.ParseState(s) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	tr, err := trace.New(trace.Config{ParentSpans: 1_000_000}, rand.Uint64, discard{})
	if err != nil {
		t.Fatal(err)
	}
	start := func(value string) float64 {
		fields := append(parent("01"), message.Field{Name: "tracestate", Value: value}, message.Field{Name: "tracestate", Value: "b=" + value[2:]})
		return testing.AllocsPerRun(100, func() { tr.Start(now, fields) })
	}
	if short, long := start("a=1"), start("a="+strings.Repeat("1", 255)); long != short-2 {
		t.Errorf("%v allocations for what is kept, %v for what is too long", short, long)
	}
}

var memberForm = regexp.MustCompile(`\A(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]\z`)

// checkState holds ParseState against the grammar.
func checkState(t testing.TB, s string) {
	t.Helper()
	got, ok := trace.ParseState(s)
	want := len(s) <= 512
	var kept []string
	keys := map[string]bool{}
	for _, m := range strings.Split(s, ",") {
		m = strings.Trim(m, " \t")
		if m == "" {
			continue
		}
		key, _, _ := strings.Cut(m, "=")
		want = want && memberForm.MatchString(m) && !keys[key]
		keys[key] = true
		kept = append(kept, m)
	}
	want = want && len(kept) <= 32
	if ok != want || ok && got != strings.Join(kept, ",") || !ok && got != "" {
		t.Fatalf("%q: got %q, %v", s, got, ok)
	}
	if again, ok := trace.ParseState(got); !ok || again != got {
		t.Fatalf("%q became %q", got, again)
	}
}

func FuzzParseState(f *testing.F) {
	for _, s := range []string{"", "foo=1,bar=2", " a@b = 1,", members(32), members(33), "foo=bar=baz", "foo=1,foo=2"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkState(t, s) })
}

func TestParseStateProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		piece := rapid.SampledFrom([]string{"a", "b", "0", "@", "=", "=1", ",", ",", " ", "\t", "_", "-", "A", "~", "\x7f", "a=1", "t@v=2", strings.Repeat("k", 200)})
		checkState(t, strings.Join(rapid.SliceOfN(piece, 0, 60).Draw(r, "pieces"), ""))
	})
}
