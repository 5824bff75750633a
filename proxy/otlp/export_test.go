package otlp_test

import (
	"encoding/hex"
	"math"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	traces "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/otlp"
	"github.com/jurat-tls/jurat/proxy/trace"
)

// A request with a parent, its two tries, and their attributes, as a collector reads them.
func TestSpans(t *testing.T) {
	config := otlp.Config{
		Endpoint: localhost + "/base/", Resource: map[string]string{"service.version": "1.2", "x": "\xff"}, Headers: otlp.Headers{"authorization": "Bearer secret", "X-Scope": "a"},
	}
	const traceHex, spanHex = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	virtual(t, config, otlp.Inputs{}, nil, func(b *bench) {
		began := time.Now()
		span := b.tracer.Start(began, message.Fields{{Name: "traceparent", Value: "00-" + traceHex + "-" + spanHex + "-03"}, {Name: "tracestate", Value: "a=1 , b=2"}})
		span.Request(&message.Request{Method: "POST", Authority: "api.example", Path: "/users?secret"}, "https", message.HTTP2)
		span.Route("users\xff")
		span.Attested(attest.RefusedResult(&attest.Error{Code: attest.CodeMeasurement}, began))
		var tries []trace.Context
		for i := range 2 {
			try := span.Child(began.Add(time.Duration(i+1)*time.Millisecond), i)
			try.Request(&message.Request{Method: "POST", Authority: "api.example", Path: "/users"}, "http", message.HTTP11)
			try.Status(503 - 303*i)
			tries = append(tries, try.Context())
			try.End(began.Add(time.Duration(i+1)*time.Millisecond + time.Microsecond))
		}
		span.Status(200)
		span.End(began.Add(5 * time.Millisecond))
		root := b.tracer.Start(began, nil)
		root.End(began)
		time.Sleep(5*time.Second + 1)
		synctest.Wait()

		spans := b.c.spans()
		if len(spans) != 4 || len(b.c.seen().traces) != 1 {
			t.Fatalf("got %d spans in %d requests", len(spans), len(b.c.seen().traces))
		}
		resource := b.c.seen().traces[0].ResourceSpans[0]
		if got := plain(resource.Resource.Attributes); !reflect.DeepEqual(got, map[string]any{"service.name": "jurat", "service.version": "1.2", "x": "\uFFFD"}) {
			t.Errorf("resource: %v", got)
		}
		if scope := resource.ScopeSpans[0]; scope.Scope.Name != "github.com/jurat-tls/jurat" || scope.SchemaUrl != trace.SchemaURL {
			t.Errorf("scope: %v", scope)
		}
		if p := b.c.seen().paths[0]; p != "/base/v1/traces" {
			t.Errorf("sent to %s", p)
		}
		if h := b.c.seen().heads[0]; h.Get("Authorization") != "Bearer secret" || h.Get("X-Scope") != "a" || h.Get("User-Agent") != "jurat" {
			t.Errorf("headers: %v", h)
		}
		id := func(c trace.Context) string { return c.SpanID.String() }
		for i, want := range []*traces.Span{
			{Name: "POST", Kind: traces.Span_SPAN_KIND_CLIENT, Flags: 0x103, TraceState: "a=1,b=2", Status: &traces.Status{Code: traces.Status_STATUS_CODE_ERROR}},
			{Name: "POST", Kind: traces.Span_SPAN_KIND_CLIENT, Flags: 0x103, TraceState: "a=1,b=2"},
			{Name: "POST users\uFFFD", Kind: traces.Span_SPAN_KIND_SERVER, Flags: 0x303, TraceState: "a=1,b=2", Status: &traces.Status{Code: traces.Status_STATUS_CODE_ERROR, Message: attest.CodeMeasurement.Title()}},
			{Name: "connection", Kind: traces.Span_SPAN_KIND_SERVER, Flags: 0x103},
		} {
			got := spans[i]
			if got.Name != want.Name || got.Kind != want.Kind || got.Flags != want.Flags || got.TraceState != want.TraceState ||
				got.Status.GetCode() != want.Status.GetCode() || got.Status.GetMessage() != want.Status.GetMessage() {
				t.Errorf("span %d: got %v", i, got)
			}
		}
		for i, want := range []struct {
			trace, span, parent string
			start, end          time.Duration
		}{
			{traceHex, id(tries[0]), id(span.Context()), time.Millisecond, time.Millisecond + time.Microsecond},
			{traceHex, id(tries[1]), id(span.Context()), 2 * time.Millisecond, 2*time.Millisecond + time.Microsecond},
			{traceHex, id(span.Context()), spanHex, 0, 5 * time.Millisecond},
			{root.Context().TraceID.String(), id(root.Context()), "", 0, 0},
		} {
			got := spans[i]
			if hex.EncodeToString(got.TraceId) != want.trace || hex.EncodeToString(got.SpanId) != want.span || hex.EncodeToString(got.ParentSpanId) != want.parent ||
				int64(got.StartTimeUnixNano) != began.Add(want.start).UnixNano() || int64(got.EndTimeUnixNano) != began.Add(want.end).UnixNano() {
				t.Errorf("span %d: got %v, want %+v", i, got, want)
			}
		}
		if got, want := plain(spans[2].Attributes), (map[string]any{
			"http.request.method": "POST", "server.address": "api.example", "server.port": int64(443), "url.scheme": "https", "url.path": "/users",
			"network.protocol.version": "2", "http.response.status_code": int64(200), "error.type": "J502",
			"jurat.route": "users\uFFFD", "jurat.verdict": "refused", "jurat.code": "J502",
		}); !reflect.DeepEqual(got, want) {
			t.Errorf("got %v", got)
		}
		if s := b.Stats(); s != (otlp.Stats{Spans: otlp.Counts{Sent: 4}}) {
			t.Errorf("%+v", s)
		}
	})
}

// A batch that is full waits for nothing, and what is queued beside it waits for more.
func TestBatches(t *testing.T) {
	virtual(t, otlp.Config{Batch: 10, Queue: 100}, otlp.Inputs{}, nil, func(b *bench) {
		began := time.Now()
		b.record(9)
		synctest.Wait()
		if len(b.c.spans()) != 0 {
			t.Error("sent one by one")
		}
		b.record(1)
		synctest.Wait()
		if len(b.c.spans()) != 10 || !time.Now().Equal(began) {
			t.Errorf("%d spans after %v", len(b.c.spans()), time.Since(began))
		}
		b.record(34)
		synctest.Wait()
		if n := len(b.c.spans()); n != 40 {
			t.Errorf("%d spans", n)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		var sizes []int
		for _, q := range b.c.seen().traces {
			sizes = append(sizes, len(q.ResourceSpans[0].ScopeSpans[0].Spans))
		}
		if !reflect.DeepEqual(sizes, []int{10, 10, 10, 10, 4}) {
			t.Errorf("got %v", sizes)
		}
		time.Sleep(time.Hour)
		if len(b.c.seen().traces) != 5 {
			t.Error("sent without anything to send")
		}
		if n := b.dials.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
	})
}

func TestMetrics(t *testing.T) {
	requests := 0.0
	source := func() []otlp.Metric {
		requests++
		return []otlp.Metric{
			{Name: "jurat.requests", Help: "requests", Unit: "{request}", Kind: otlp.Counter, Points: []otlp.Point{
				{Labels: []otlp.Label{{"code", "200"}, {"route", "a\xff"}}, Value: requests}, {Labels: []otlp.Label{{"code", "500"}}, Value: 7},
			}},
			{Name: "jurat.active", Kind: otlp.Gauge, Points: []otlp.Point{{Value: -1.5}}},
			{Name: "jurat.duration", Unit: "s", Kind: otlp.Histogram, Bounds: []float64{0.1, 1}, Points: []otlp.Point{{Value: 12.5, Buckets: []uint64{1, 2, 3}}}},
			{Name: "jurat.nothing", Kind: otlp.Gauge},
			// What is not valid is left out, whatever it would become.
			{Kind: otlp.Gauge, Points: make([]otlp.Point, 1)},
			{Name: "no.kind", Points: make([]otlp.Point, 1)},
			{Name: "unknown.kind", Kind: 9, Points: make([]otlp.Point, 1)},
			{Name: "buckets", Kind: otlp.Histogram, Bounds: []float64{1}, Points: []otlp.Point{{Buckets: []uint64{1}}}},
			{Name: "order", Kind: otlp.Histogram, Bounds: []float64{1, 1}, Points: []otlp.Point{{Buckets: []uint64{1, 1, 1}}}},
			{Name: "nan", Kind: otlp.Histogram, Bounds: []float64{1, math.NaN()}, Points: []otlp.Point{{Buckets: []uint64{1, 1, 1}}}},
		}
	}
	var after *bench
	clock := func() time.Time { return time.Now().Add(-24 * time.Hour) }
	virtual(t, otlp.Config{MetricPeriod: 10 * time.Second}, otlp.Inputs{Metrics: source, Now: clock}, nil, func(b *bench) {
		after = b
		began := clock()
		time.Sleep(10*time.Second + 1)
		synctest.Wait()
		all := b.c.points()
		if len(all) != 3 {
			t.Fatalf("got %v", all)
		}
		start, now := uint64(began.UnixNano()), uint64(began.Add(10*time.Second).UnixNano())
		sum := all[0].GetSum()
		if m := all[0]; m.Name != "jurat.requests" || m.Description != "requests" || m.Unit != "{request}" || !sum.GetIsMonotonic() || sum.AggregationTemporality != 2 || len(sum.DataPoints) != 2 {
			t.Fatalf("got %v", m)
		}
		if p := sum.DataPoints[0]; p.GetAsDouble() != 1 || p.StartTimeUnixNano != start || p.TimeUnixNano != now ||
			!reflect.DeepEqual(plain(p.Attributes), map[string]any{"code": "200", "route": "a\uFFFD"}) {
			t.Errorf("got %v", p)
		}
		if p := sum.DataPoints[1]; p.GetAsDouble() != 7 {
			t.Errorf("got %v", p)
		}
		if p := all[1].GetGauge().GetDataPoints(); len(p) != 1 || p[0].GetAsDouble() != -1.5 || p[0].StartTimeUnixNano != 0 || p[0].TimeUnixNano != now {
			t.Errorf("got %v", all[1])
		}
		h := all[2].GetHistogram()
		if p := h.GetDataPoints(); len(p) != 1 || h.AggregationTemporality != 2 || p[0].Count != 6 || p[0].GetSum() != 12.5 || p[0].StartTimeUnixNano != start || p[0].TimeUnixNano != now ||
			!reflect.DeepEqual(p[0].ExplicitBounds, []float64{0.1, 1}) || !reflect.DeepEqual(p[0].BucketCounts, []uint64{1, 2, 3}) {
			t.Errorf("got %v", h)
		}
		if r := b.c.seen().metrics[0].ResourceMetrics[0]; plain(r.Resource.Attributes)["service.name"] != "jurat" || r.ScopeMetrics[0].Scope.Name != "github.com/jurat-tls/jurat" {
			t.Errorf("got %v", r)
		}
		if s := b.Stats(); s.Points != (otlp.Counts{Sent: 4, Failed: 6}) || s.Spans != (otlp.Counts{}) {
			t.Errorf("%+v", s)
		}
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if n := len(b.c.seen().metrics); n != 2 {
			t.Errorf("%d requests", n)
		}
	})
	// The last ones are sent at the end.
	if n := len(after.c.seen().metrics); n != 3 || after.c.points()[6].GetSum().DataPoints[0].GetAsDouble() != 3 {
		t.Errorf("%d requests", n)
	}
}

// Many points are sent in requests of a bounded size, and no point is lost between them.
func TestManyPoints(t *testing.T) {
	source := func() []otlp.Metric {
		var all []otlp.Metric
		for _, n := range []int{3000, 10_000, 0, 1} {
			all = append(all, otlp.Metric{Name: "m", Kind: otlp.Counter, Points: make([]otlp.Point, n)})
			for i := range n {
				all[len(all)-1].Points[i].Value = float64(i)
			}
		}
		return all
	}
	var after *bench
	virtual(t, otlp.Config{}, otlp.Inputs{Metrics: source}, nil, func(b *bench) { after = b })
	sizes, sum := []int{}, 0.0
	for _, q := range after.c.seen().metrics {
		n := 0
		for _, m := range q.ResourceMetrics[0].ScopeMetrics[0].Metrics {
			for _, p := range m.GetSum().DataPoints {
				n++
				sum += p.GetAsDouble()
			}
		}
		sizes = append(sizes, n)
	}
	if !reflect.DeepEqual(sizes, []int{4096, 4096, 4096, 713}) || sum != 3000*2999/2+10_000*9999/2 || after.Stats().Points.Sent != 13_001 {
		t.Errorf("got %v, %v, %+v", sizes, sum, after.Stats())
	}
}

// Where there is nothing to say, nothing is sent.
func TestNoPoints(t *testing.T) {
	for _, all := range [][]otlp.Metric{nil, {{Name: "m", Kind: otlp.Gauge}}, {{Points: make([]otlp.Point, 1)}}} {
		var after *bench
		virtual(t, otlp.Config{}, otlp.Inputs{Metrics: func() []otlp.Metric { return all }}, nil, func(b *bench) { after = b })
		if n := len(after.c.seen().bodies); n != 0 {
			t.Errorf("%d requests", n)
		}
	}
}

// The longest spans that strangers can cause stay within what a collector takes.
func TestLongestBatch(t *testing.T) {
	long := strings.Repeat("x\xff", 50_000)
	var after *bench
	virtual(t, otlp.Config{}, otlp.Inputs{}, nil, func(b *bench) {
		after = b
		for range 256 { // an eighth of the largest batch
			s := b.tracer.Start(time.Now(), message.Fields{
				{Name: "traceparent", Value: "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
				{Name: "tracestate", Value: "a=" + strings.Repeat("b", 256) + ",c=" + strings.Repeat("d", 250)},
			})
			s.Request(&message.Request{Method: long, Authority: long, Path: "/" + long}, "https", message.HTTP2)
			s.Route(long)
			s.Cluster(long)
			s.Peer("unix:" + long)
			s.End(time.Now())
		}
	})
	if len(after.c.seen().traces) != 1 || len(after.c.spans()) != 256 || after.c.seen().largest < 1<<20 || after.c.seen().largest > 18<<20/8 {
		t.Errorf("%d requests, %d spans, %d bytes", len(after.c.seen().traces), len(after.c.spans()), after.c.seen().largest)
	}
}

// Whatever is no UTF-8 must not make a batch impossible to send.
func TestHealthyBatch(t *testing.T) {
	virtual(t, otlp.Config{}, otlp.Inputs{}, nil, func(b *bench) {
		s := b.tracer.Start(time.Now(), nil)
		s.Request(&message.Request{Method: "\xff", Authority: "\xc3", Path: "/\xe2\x82"}, "\xff", message.HTTP2)
		s.Cluster("\xff")
		s.Fail("\xff")
		s.End(time.Now())
		b.Take(&trace.Record{State: "\xff", Attestation: &trace.Attestation{TEE: "\xff", Simulated: true}}) // of another maker
		time.Sleep(6 * time.Second)
		synctest.Wait()
		spans := b.c.spans()
		if len(spans) != 2 || plain(spans[1].Attributes)["jurat.simulated"] != true || spans[1].StartTimeUnixNano != 0 {
			t.Errorf("got %v", spans)
		}
	})
}
