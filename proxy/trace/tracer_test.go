package trace_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/trace"
)

var now = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// sink keeps what it gets.
type sink struct {
	mu  sync.Mutex
	all []*trace.Record
}

func (s *sink) Take(r *trace.Record) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.all = append(s.all, r)
}

func tracer(t testing.TB, c trace.Config) (*trace.Tracer, *sink) {
	t.Helper()
	var s sink
	tr, err := trace.New(c, rand.New(rand.NewPCG(1, 2)).Uint64, &s)
	if err != nil {
		t.Fatal(err)
	}
	return tr, &s
}

func parent(flags string) message.Fields {
	return message.Fields{{Name: "Accept", Value: "*/*"}, {Name: "TraceParent", Value: "00-" + traceHex + "-" + spanHex + "-" + flags}}
}

func recording(tr *trace.Tracer, at time.Time, fields message.Fields) bool {
	span := tr.Start(at, fields)
	return span.Recording()
}

func TestConfig(t *testing.T) {
	for at, configs := range map[string][]trace.Config{
		"ratio":            {{Ratio: -0.1}, {Ratio: 1.1}, {Ratio: math.NaN()}, {Ratio: math.Inf(1)}},
		"max_root_spans":   {{RootSpans: 1_000_001}},
		"max_parent_spans": {{ParentSpans: 1_000_001}},
		"known_methods":    {{Methods: make([]string, 33)}},
	} {
		for _, c := range configs {
			tr, err := trace.New(c, rand.Uint64, &sink{})
			var e *attest.Error
			if tr != nil || !errors.As(err, &e) || e.Code != attest.CodeConfigValue || e.Subject != at {
				t.Errorf("%+v: got %v", c, err)
			}
		}
	}
	for _, c := range []trace.Config{{}, {Ratio: 1, RootSpans: 1_000_000, ParentSpans: -1, Methods: make([]string, 32)}} {
		if _, err := trace.New(c, rand.Uint64, &sink{}); err != nil {
			t.Error(err)
		}
	}
}

// What a traceparent says is done, and the trace goes on with a new parent. It is passed on as it was where it says no.
func TestParentBased(t *testing.T) {
	tr, s := tracer(t, trace.Config{Ratio: 1})
	for flags, recorded := range map[string]bool{"00": false, "01": true, "02": false, "03": true, "fe": false, "ff": true} {
		fields := append(parent(flags), message.Field{Name: "TraceState", Value: "a=1 ,"}, message.Field{Name: "tracestate", Value: "b=2"})
		was := append(message.Fields(nil), fields...)
		span := tr.Start(now, fields)
		if span.Recording() != recorded || span.Context().TraceID.String() != traceHex {
			t.Fatalf("%s: got %+v", flags, span.Context())
		}
		got := span.Inject(fields)
		if !recorded {
			if span.Context().SpanID.String() != spanHex || !reflect.DeepEqual(got, was) {
				t.Errorf("%s: got %v", flags, got)
			}
			continue
		}
		want := message.Fields{{Name: "Accept", Value: "*/*"}, {Name: "traceparent", Value: span.Context().String()}, {Name: "tracestate", Value: "a=1,b=2"}}
		if !reflect.DeepEqual(got, want) || span.Context().SpanID.String() == spanHex || span.Context().String()[53:] != map[string]string{"01": "01", "03": "03", "ff": "03"}[flags] {
			t.Errorf("%s: got %v", flags, got)
		}
		s.all = nil
		span.End(now)
		if r := s.all[0]; r.Parent.String() != spanHex || !r.Remote || r.State != "a=1,b=2" || r.Kind != trace.Server {
			t.Errorf("%s: got %+v", flags, r)
		}
	}
	// A tracestate that is malformed, or too long, is dropped.
	for _, state := range []string{"a=1,a=2", "A=1", strings.Repeat(",", 513), strings.Repeat("a", 100_000)} {
		span := tr.Start(now, append(parent("01"), message.Field{Name: "tracestate", Value: state}))
		if got := span.Inject(append(parent("01"), message.Field{Name: "tracestate", Value: state})); len(got) != 2 || got[1].Value != span.Context().String() {
			t.Errorf("%.20q: got %v", state, got)
		}
	}
}

// A request without a traceparent that can be read begins a trace, and what it says of one is not passed on.
func TestRoots(t *testing.T) {
	tr, s := tracer(t, trace.Config{Ratio: 1})
	for name, fields := range map[string]message.Fields{
		"none": nil,
		"malformed": {
			{Name: "traceparent", Value: "ff-" + traceHex + "-" + spanHex + "-01"}, {Name: "tracestate", Value: "a=1"},
		},
		"twice":        append(parent("00"), parent("01")...),
		"a state only": {{Name: "tracestate", Value: "a=1"}},
	} {
		span := tr.Start(now, fields)
		c := span.Context()
		if !span.Recording() || !c.Valid() || c.TraceID.String() == traceHex || c.Flags != trace.Sampled|trace.RandomID {
			t.Errorf("%s: got %+v", name, c)
		}
		got := span.Inject(append(message.Fields{}, fields...))
		if n := len(got); n == 0 || got[n-1] != (message.Field{Name: "traceparent", Value: c.String()}) || strings.Count(c.String(), "-03") != 1 {
			t.Errorf("%s: got %v", name, got)
		}
		for _, f := range got[:len(got)-1] {
			if f.Name != "Accept" {
				t.Errorf("%s: %v is left", name, f)
			}
		}
		s.all = nil
		span.End(now)
		if r := s.all[0]; r.Parent != (trace.SpanID{}) || r.Remote || r.State != "" {
			t.Errorf("%s: got %+v", name, r)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, ratio := range []float64{0, 1e-30, 0.25, 0.5, 1} {
		tr, _ := tracer(t, trace.Config{Ratio: ratio, RootSpans: 1_000_000})
		n := 0
		for i := range 10000 {
			if recording(tr, now.Add(time.Duration(i)*time.Millisecond), nil) {
				n++
			}
		}
		if math.Abs(float64(n)-ratio*10000) > 200 || ratio < 0.1 && n != 0 || ratio == 1 && n != 10000 {
			t.Errorf("%v: got %d of 10000", ratio, n)
		}
	}
	// The decision is by the last seven bytes, as samplers elsewhere take it.
	for random, want := range map[uint64]bool{1<<55 - 1: false, 1 << 55: true, 0xff<<56 | 1<<55 - 1: false, math.MaxUint64: true, 0: false} {
		tr, err := trace.New(trace.Config{Ratio: 0.5}, func() uint64 { return random }, &sink{})
		if err != nil || recording(tr, now, nil) != want {
			t.Errorf("%x: %v", random, err)
		}
	}
}

// Ids are what chance makes them, but for those that are all zero, which would be none.
func TestIDs(t *testing.T) {
	for random, want := range map[uint64]string{
		0:                  "00-01000000000000000000000000000000-0100000000000000-03",
		0xfedcba9876543210: "00-fedcba9876543210fedcba9876543210-fedcba9876543210-03",
	} {
		tr, err := trace.New(trace.Config{Ratio: 1}, func() uint64 { return random }, &sink{})
		if err != nil {
			t.Fatal(err)
		}
		span := tr.Start(now, nil)
		if child := span.Child(now, 0); span.Context().String() != want || child.Context().String() != want {
			t.Errorf("got %v and %v", span.Context(), child.Context())
		}
	}
	tr, err := trace.New(trace.Config{}, func() uint64 { panic("asked for nothing") }, &sink{})
	if err != nil || recording(tr, now, nil) {
		t.Errorf("recorded, %v", err)
	}
}

// However many requests say that they are to be recorded, no more are than allowed; these, and those without a
// traceparent, don't use up each other's share. What is not recorded is passed on as it was.
func TestLimits(t *testing.T) {
	tr, _ := tracer(t, trace.Config{Ratio: 1, RootSpans: 50, ParentSpans: 20})
	count := func(fields message.Fields, from time.Time, seconds int) int {
		n := 0
		for i := range seconds * 1000 {
			if recording(tr, from.Add(time.Duration(i)*time.Millisecond), fields) {
				n++
			}
		}
		return n
	}
	if n := count(parent("01"), now, 10); n < 215 || n > 220 { // 20 at once, and 20 in each second
		t.Errorf("parents: %d", n)
	}
	if n := count(nil, now, 10); n < 545 || n > 550 {
		t.Errorf("roots: %d", n)
	}
	if s := tr.Stats(); s.Recorded+s.Limited != 20000 || s.Recorded < 760 || s.Recorded > 770 {
		t.Errorf("%+v", s)
	}
	fields := parent("01")
	for recording(tr, now, fields) {
	}
	span := tr.Start(now, fields)
	if span.Context().SpanID.String() != spanHex || !reflect.DeepEqual(span.Inject(parent("01")), parent("01")) {
		t.Errorf("got %+v", span)
	}
	for name, c := range map[string]trace.Config{"parents": {ParentSpans: -1}, "roots": {Ratio: 1, RootSpans: -1}} {
		fields := map[string]message.Fields{"parents": parent("01")}[name]
		if tr, _ := tracer(t, c); recording(tr, now, fields) || tr.Stats().Limited != 1 {
			t.Errorf("no %s: recorded", name)
		}
	}
	// 100 without a word.
	tr, _ = tracer(t, trace.Config{Ratio: 1})
	for _, fields := range []message.Fields{nil, parent("01")} {
		n := 0
		for recording(tr, now, fields) {
			n++
		}
		if n != 100 {
			t.Errorf("default: %d", n)
		}
	}
}

// Spans of tries are never missing from a trace, but count: traces that begin later make up for them.
func TestChildrenCount(t *testing.T) {
	tr, s := tracer(t, trace.Config{ParentSpans: 100})
	for i := range 60_000 {
		at := now.Add(time.Duration(i) * time.Millisecond)
		span := tr.Start(at, parent("01"))
		for try := range 3 {
			child := span.Child(at, try)
			child.End(at)
		}
		span.End(at)
	}
	if n := len(s.all); n%4 != 0 || n < 6000 || n > 6110 { // in a minute
		t.Errorf("%d spans", n)
	}
	// But for 10 s at most: a single trace can't end all others for long.
	tr, _ = tracer(t, trace.Config{ParentSpans: 1})
	span := tr.Start(now, parent("01"))
	for range 1000 {
		span.Child(now, 0)
	}
	if recording(tr, now.Add(8*time.Second), parent("01")) || !recording(tr, now.Add(11*time.Second), parent("01")) {
		t.Error("the debt")
	}
}

// A clock that is set back does not end recording until it is where it was.
func TestClockSetBack(t *testing.T) {
	tr, _ := tracer(t, trace.Config{ParentSpans: 1})
	if !recording(tr, now, parent("01")) || !recording(tr, now.Add(-time.Hour), parent("01")) || recording(tr, now.Add(-time.Hour), parent("01")) {
		t.Error("after an hour back")
	}
}

// No span is recorded beyond the limit by loops that draw on it at once.
func TestConcurrent(t *testing.T) {
	var s sink
	tr, err := trace.New(trace.Config{Ratio: 1, RootSpans: 1000, ParentSpans: 500}, rand.Uint64, &s)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 1000 {
				for _, fields := range []message.Fields{nil, parent("01"), parent("00")} {
					span := tr.Start(now, fields)
					span.Request(&message.Request{Method: "GET", Path: "/"}, "https", message.HTTP2)
					span.End(now)
					span.Status(200) // is too late, and no race with whoever has the Record
				}
			}
		})
	}
	all.Wait()
	seen := map[trace.SpanID]bool{}
	for _, r := range s.all {
		if seen[r.SpanID] = true; r.Status != 0 {
			t.Fatal("a Record has changed")
		}
	}
	if len(s.all) != 1500 || len(seen) != 1500 || tr.Stats() != (trace.Stats{Recorded: 1500, Limited: 6500}) {
		t.Errorf("%d, %+v", len(s.all), tr.Stats())
	}
}

// What is sent on is always a context that can be read, of the same trace where there was one.
func TestInjectProperty(t *testing.T) {
	tr, _ := tracer(t, trace.Config{Ratio: 0.5, RootSpans: 1_000_000, ParentSpans: 1_000_000})
	step := 0
	rapid.Check(t, func(r *rapid.T) {
		name := rapid.SampledFrom([]string{"traceparent", "Traceparent", "tracestate", "x"})
		value := rapid.OneOf(rapid.String(), rapid.SampledFrom([]string{"00-" + traceHex + "-" + spanHex + "-01", "00-" + traceHex + "-" + spanHex + "-00", "a=1", "b=2,c=3"}))
		var fields message.Fields
		for range rapid.IntRange(0, 6).Draw(r, "fields") {
			fields = append(fields, message.Field{Name: name.Draw(r, "name"), Value: value.Draw(r, "value")})
		}
		was := append(message.Fields(nil), fields...)
		step++
		span := tr.Start(now.Add(time.Duration(step)*time.Second), fields)
		got := span.Inject(fields)
		before, had := trace.Extract(was)
		if !span.Recording() {
			if !reflect.DeepEqual(got, was) {
				r.Fatalf("%v became %v", was, got)
			}
			return
		}
		after, ok := trace.Extract(got)
		if !ok || after != span.Context() || had && after.TraceID != before.TraceID || had && before.Flags&trace.Sampled == 0 {
			r.Fatalf("%v became %v", was, got)
		}
		state, others := 0, 0
		for _, f := range got {
			if message.Same(f.Name, "tracestate") {
				if v, ok := trace.ParseState(f.Value); !ok || v != f.Value || v == "" || !had {
					r.Fatalf("%v became %v", was, got)
				}
				state++
			} else if f.Name == "x" {
				others++
			}
		}
		for _, f := range was {
			if f.Name == "x" {
				others--
			}
		}
		if state > 1 || others != 0 {
			r.Fatalf("%v became %v", was, got)
		}
	})
}

func TestNil(t *testing.T) {
	var tr *trace.Tracer
	span := tr.Start(now, parent("01"))
	if span != (trace.Span{}) || tr.Stats() != (trace.Stats{}) {
		t.Error("a nil Tracer")
	}
	said(&span)
	if child := span.Child(now, 1); child != (trace.Span{}) || !reflect.DeepEqual(span.Inject(parent("01")), parent("01")) {
		t.Error("a Span that is none")
	}
}

// said calls everything that says something of a span.
func said(s *trace.Span) {
	s.Request(&message.Request{Method: "GET", Path: "/"}, "https", message.HTTP11)
	s.Route("r")
	s.Cluster("c")
	s.Peer("192.0.2.1:1")
	s.Attested(&attest.Result{})
	s.Status(200)
	s.Fail(attest.CodeTimeout)
	s.ClientGone()
	s.End(now)
}
