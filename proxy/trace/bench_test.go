package trace_test

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/trace"
)

// head has as many fields as a browser sends.
func head(more ...message.Field) message.Fields {
	var f message.Fields
	for _, name := range []string{"sec-ch-ua", "user-agent", "accept", "sec-fetch-site", "sec-fetch-mode", "sec-fetch-dest", "referer", "accept-encoding", "accept-language", "cookie"} {
		f = append(f, message.Field{Name: name, Value: "x"})
	}
	return append(f, more...)
}

type discard struct{}

func (discard) Take(*trace.Record) {}

func benchTracer(b testing.TB) *trace.Tracer {
	tr, err := trace.New(trace.Config{Ratio: 1e-9, RootSpans: 1_000_000, ParentSpans: 1_000_000}, rand.Uint64, discard{})
	if err != nil {
		b.Fatal(err)
	}
	return tr
}

var request = &message.Request{Method: "GET", Authority: "api.example", Path: "/users/7?x=y"}

// exchange is all that the data plane does for a request that one try answers.
func exchange(tr *trace.Tracer, now time.Time, f message.Fields) message.Fields {
	span := tr.Start(now, f)
	span.Request(request, "https", message.HTTP2)
	span.Route("users")
	span.Peer("192.0.2.1:51111")
	try := span.Child(now, 0)
	try.Request(request, "http", message.HTTP11)
	try.Cluster("backend")
	try.Peer("192.0.2.2:80")
	f = try.Inject(f)
	try.Status(200)
	try.End(now)
	span.Status(200)
	span.End(now)
	return f
}

func BenchmarkExchange(b *testing.B) {
	for name, f := range map[string]message.Fields{
		"no parent, not recorded":          head(),
		"parent that is not sampled":       head(message.Field{Name: "traceparent", Value: "00-" + traceHex + "-" + spanHex + "-00"}),
		"parent that is sampled, recorded": head(message.Field{Name: "traceparent", Value: "00-" + traceHex + "-" + spanHex + "-01"}),
	} {
		b.Run(name, func(b *testing.B) {
			tr, at := benchTracer(b), now
			b.ReportAllocs()
			for b.Loop() {
				at = at.Add(10 * time.Microsecond)
				f = exchange(tr, at, f)
			}
		})
	}
	b.Run("tracing is off", func(b *testing.B) {
		f := head()
		b.ReportAllocs()
		for b.Loop() {
			f = exchange(nil, now, f)
		}
	})
}

func BenchmarkParse(b *testing.B) {
	s := "00-" + traceHex + "-" + spanHex + "-01"
	b.ReportAllocs()
	for b.Loop() {
		trace.Parse(s)
	}
}

func TestNotRecordedAllocatesNothing(t *testing.T) {
	tr := benchTracer(t)
	limited, err := trace.New(trace.Config{ParentSpans: -1}, rand.Uint64, discard{})
	if err != nil {
		t.Fatal(err)
	}
	sampled := head(message.Field{Name: "traceparent", Value: "00-" + traceHex + "-" + spanHex + "-01"}, message.Field{Name: "tracestate", Value: "a=1, b=2"})
	unsampled, none := parent("00"), head()
	for name, run := range map[string]func(){
		"no parent":                    func() { exchange(tr, now, none) },
		"a parent that is not sampled": func() { exchange(tr, now, unsampled) },
		"beyond the limit":             func() { exchange(limited, now, sampled) },
		"no tracer":                    func() { exchange(nil, now, sampled) },
	} {
		if n := testing.AllocsPerRun(100, run); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
