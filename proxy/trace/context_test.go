package trace_test

import (
	"regexp"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/trace"
)

const (
	traceHex = "12345678901234567890123456789012"
	spanHex  = "1234567890123456"
)

func TestParse(t *testing.T) {
	for s, flags := range map[string]trace.Flags{
		"00-" + traceHex + "-" + spanHex + "-00":          0,
		"00-" + traceHex + "-" + spanHex + "-01":          trace.Sampled,
		"00-" + traceHex + "-" + spanHex + "-02":          trace.RandomID,
		"00-" + traceHex + "-" + spanHex + "-03":          trace.Sampled | trace.RandomID,
		"00-" + traceHex + "-" + spanHex + "-fe":          trace.RandomID, // flags that are not known
		"00-" + traceHex + "-" + spanHex + "-09":          trace.Sampled,
		"01-" + traceHex + "-" + spanHex + "-01":          trace.Sampled,
		"cc-" + traceHex + "-" + spanHex + "-01":          trace.Sampled,
		"cc-" + traceHex + "-" + spanHex + "-01-":         trace.Sampled,
		"cc-" + traceHex + "-" + spanHex + "-01-what.X=!": trace.Sampled,
		"fe-" + traceHex + "-" + spanHex + "-00":          0,
	} {
		c, ok := trace.Parse(s)
		if !ok || c.TraceID.String() != traceHex || c.SpanID.String() != spanHex || c.Flags != flags || !c.Valid() {
			t.Errorf("%q: got %+v, %v", s, c, ok)
		}
	}
	zero := strings.Repeat("0", 32)
	for _, s := range []string{
		"", "-", "00", "00-", "00-" + traceHex + "-" + spanHex, "00-" + traceHex + "-" + spanHex + "-", "00-" + traceHex + "-" + spanHex + "-0",
		"00-" + traceHex + "-" + spanHex + "-1",
		"00-" + traceHex + "-" + spanHex + "-001",
		"00-" + traceHex + "-" + spanHex + "-01.",
		"00-" + traceHex + "-" + spanHex + "-01-",
		"00-" + traceHex + "-" + spanHex + "-01-more",
		"cc-" + traceHex + "-" + spanHex + "-01.more",
		"cc-" + traceHex + "-" + spanHex + "-010",
		"cc-" + traceHex + "-" + spanHex + "-0",
		"ff-" + traceHex + "-" + spanHex + "-01",
		"ff-" + traceHex + "-" + spanHex + "-01-more",
		"0-" + traceHex + "-" + spanHex + "-01",
		"000-" + traceHex + "-" + spanHex + "-01",
		"0000-" + traceHex + "-" + spanHex + "-01",
		".0-" + traceHex + "-" + spanHex + "-01",
		"0.-" + traceHex + "-" + spanHex + "-01",
		"CC-" + traceHex + "-" + spanHex + "-01",
		"00-" + zero + "-" + spanHex + "-01",
		"00-" + traceHex + "-" + zero[:16] + "-01",
		"00-" + traceHex[:31] + "a-" + spanHex + "-0A",
		"00-" + traceHex[:31] + "A-" + spanHex + "-01",
		"00-" + traceHex[:31] + ".-" + spanHex + "-01",
		"00-." + traceHex[1:] + "-" + spanHex + "-01",
		"00-" + traceHex + "3-" + spanHex + "-01",
		"00-" + traceHex[1:] + "-" + spanHex + "-01",
		"00-" + traceHex + "-" + spanHex[:15] + ".-01",
		"00-" + traceHex + "-." + spanHex[1:] + "-01",
		"00-" + traceHex + "-" + spanHex[:15] + "F-01",
		"00-" + traceHex + "-" + spanHex + "7-01",
		"00-" + traceHex + "-" + spanHex[1:] + "-01",
		"00-" + traceHex + "-" + spanHex + "-.0",
		"00-" + traceHex + "-" + spanHex + "-0.",
		"00_" + traceHex + "-" + spanHex + "-01",
		"00-" + traceHex + "_" + spanHex + "-01",
		"00-" + traceHex + "-" + spanHex + "_01",
		" 00-" + traceHex + "-" + spanHex + "-01",
		"00-" + traceHex + "-" + spanHex + "-01 ",
	} {
		if c, ok := trace.Parse(s); ok || c != (trace.Context{}) {
			t.Errorf("%q: got %+v", s, c)
		}
	}
}

var parentForm = regexp.MustCompile(`\A(?:00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}|[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}(?:-(?s:.*))?)\z`)

func checkParse(t testing.TB, s string) {
	t.Helper()
	c, ok := trace.Parse(s)
	want := parentForm.MatchString(s) && !strings.HasPrefix(s, "ff") && s[3:35] != strings.Repeat("0", 32) && s[36:52] != strings.Repeat("0", 16) &&
		(len(s) == 55 || s[:2] != "00")
	if ok != want {
		t.Fatalf("%q: got %v", s, ok)
	}
	if ok && (c.String()[2:53] != s[2:53] || !strings.HasPrefix(c.String(), "00-")) {
		t.Fatalf("%q became %q", s, c)
	}
	if again, ok := trace.Parse(c.String()); ok && again != c {
		t.Fatalf("%+v became %+v", c, again)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"", "00-" + traceHex + "-" + spanHex + "-01", "cc-" + traceHex + "-" + spanHex + "-01-more", "ff-" + traceHex + "-" + spanHex + "-01",
		"00-" + strings.Repeat("0", 32) + "-" + spanHex + "-01",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) { checkParse(t, s) })
}

func TestParseProperty(t *testing.T) {
	rapid.Check(t, func(r *rapid.T) {
		var c trace.Context
		copy(c.TraceID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(r, "trace"))
		copy(c.SpanID[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(r, "span"))
		c.Flags = trace.Flags(rapid.IntRange(0, 3).Draw(r, "flags"))
		if again, ok := trace.Parse(c.String()); ok != c.Valid() || ok && again != c {
			r.Fatalf("%+v became %+v", c, again)
		}
		s := []byte(c.String())
		s[rapid.IntRange(0, len(s)-1).Draw(r, "at")] = rapid.SampledFrom([]byte("0aAfFgG-. ")).Draw(r, "byte")
		checkParse(t, string(s))
	})
}

func TestExtract(t *testing.T) {
	parent := func(name string) message.Field {
		return message.Field{Name: name, Value: "00-" + traceHex + "-" + spanHex + "-01"}
	}
	for name, c := range map[string]struct {
		fields message.Fields
		want   bool
	}{
		"lower case":      {message.Fields{{Name: "accept", Value: "*/*"}, parent("traceparent")}, true},
		"any case":        {message.Fields{parent("TrAcEpArEnT")}, true},
		"none":            {message.Fields{{Name: "accept", Value: "*/*"}}, false},
		"another name":    {message.Fields{parent("trace-parent"), parent("trace.parent"), parent("trace_parent")}, false},
		"twice":           {message.Fields{parent("traceparent"), parent("traceparent")}, false},
		"a malformed one": {message.Fields{parent("traceparent"), {Name: "Traceparent"}}, false},
	} {
		if got, ok := trace.Extract(c.fields); ok != c.want || ok != got.Valid() {
			t.Errorf("%s: got %+v, %v", name, got, ok)
		}
	}
}
