package otlp_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	metricsservice "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traceservice "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/otlp"
	"github.com/jurat-tls/jurat/proxy/trace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// collector decodes what it is sent, and answers, by the messages of the real service.
type collector struct {
	t      testing.TB
	answer func(w http.ResponseWriter, r *http.Request, try int) bool // false: as a healthy one does

	mu  sync.Mutex
	has seen
}

// seen is what a collector has seen.
type seen struct {
	at      []time.Time // of each try
	paths   []string
	heads   []http.Header
	bodies  [][]byte
	largest int // of the bodies that were accepted, decompressed
	traces  []*traceservice.ExportTraceServiceRequest
	metrics []*metricsservice.ExportMetricsServiceRequest
}

func (c *collector) seen() seen {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.has
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // given up
	}
	c.mu.Lock()
	has := &c.has
	try := len(has.at)
	has.at, has.paths = append(has.at, time.Now()), append(has.paths, r.URL.Path)
	has.heads, has.bodies = append(has.heads, r.Header.Clone()), append(has.bodies, body)
	c.mu.Unlock()
	if c.answer != nil && c.answer(w, r, try) {
		return
	}
	if r.Method != http.MethodPost || r.Header.Get("Content-Type") != "application/x-protobuf" || r.Header.Get("Content-Encoding") != "gzip" {
		c.t.Errorf("got %s with %v", r.Method, r.Header)
	}
	z, err := gzip.NewReader(bytes.NewReader(body))
	if err != nil {
		c.t.Error(err)
		return
	}
	raw, err := io.ReadAll(z)
	if err != nil {
		c.t.Error(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	has.largest = max(has.largest, len(raw))
	var answer proto.Message
	switch r.URL.Path {
	case "/v1/traces", "/base/v1/traces":
		q := &traceservice.ExportTraceServiceRequest{}
		err, answer = proto.Unmarshal(raw, q), &traceservice.ExportTraceServiceResponse{}
		has.traces = append(has.traces, q)
	case "/v1/metrics":
		q := &metricsservice.ExportMetricsServiceRequest{}
		err, answer = proto.Unmarshal(raw, q), &metricsservice.ExportMetricsServiceResponse{}
		has.metrics = append(has.metrics, q)
	default:
		c.t.Errorf("got a request for %s", r.URL)
	}
	if err != nil {
		c.t.Error(err)
	}
	say(w, answer)
}

func say(w http.ResponseWriter, answer proto.Message) {
	w.Header().Set("Content-Type", "application/x-protobuf")
	text, _ := proto.Marshal(answer)
	_, _ = w.Write(text)
}

// spans are all that were accepted so far.
func (c *collector) spans() []*traces.Span {
	var all []*traces.Span
	for _, q := range c.seen().traces {
		for _, r := range q.ResourceSpans {
			for _, s := range r.ScopeSpans {
				all = append(all, s.Spans...)
			}
		}
	}
	return all
}

// points are the metrics of all requests.
func (c *collector) points() []*metrics.Metric {
	var all []*metrics.Metric
	for _, q := range c.seen().metrics {
		for _, r := range q.ResourceMetrics {
			for _, s := range r.ScopeMetrics {
				all = append(all, s.Metrics...)
			}
		}
	}
	return all
}

// pipes is a network in memory, which works in virtual time.
type pipes struct {
	conns chan net.Conn
	end   chan struct{}
	once  sync.Once
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		return c, nil
	case <-p.end:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error {
	p.once.Do(func() { close(p.end) })
	return nil
}

func (p *pipes) Addr() net.Addr { return &net.UnixAddr{} }

func (p *pipes) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	near, far := net.Pipe()
	select {
	case p.conns <- far:
		return near, nil
	case <-p.end:
		return nil, errors.New("refused")
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// logs keeps what is logged.
type logs struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logs) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logs) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// bench is an Exporter and a collector in virtual time.
type bench struct {
	*otlp.Exporter
	c      *collector
	log    *logs
	tracer *trace.Tracer
	dials  atomic.Int32
}

const localhost = "http://localhost:4318"

// virtual runs f in virtual time. What is left is sent, within an hour, when f has ended.
func virtual(t *testing.T, config otlp.Config, in otlp.Inputs, answer func(w http.ResponseWriter, r *http.Request, try int) bool, f func(*bench)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		network := &pipes{conns: make(chan net.Conn), end: make(chan struct{})}
		b := &bench{c: &collector{t: t, answer: answer}, log: &logs{}}
		server := &http.Server{Handler: b.c}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(network) })
		defer serving.Wait()
		defer server.Close()
		if config.Endpoint == "" {
			config.Endpoint = localhost
		}
		if in.Dial == nil {
			in.Dial = func(ctx context.Context, n, address string) (net.Conn, error) {
				b.dials.Add(1)
				return network.dial(ctx, n, address)
			}
		}
		in.Random = func() float64 { return 0.5 }
		in.Log = slog.New(slog.NewTextHandler(b.log, nil))
		b.Exporter = start(t, config, in)
		b.tracer = tracer(t, b.Exporter)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		defer func() {
			if err := b.Shutdown(ctx); err != nil {
				t.Error(err)
			}
		}()
		f(b)
	})
}

func start(t testing.TB, config otlp.Config, in otlp.Inputs) *otlp.Exporter {
	t.Helper()
	e, err := otlp.Start(config, in)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func tracer(t testing.TB, to trace.Sink) *trace.Tracer {
	t.Helper()
	tr, err := trace.New(trace.Config{Ratio: 1, RootSpans: 1_000_000, ParentSpans: 1_000_000}, rand.Uint64, to)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

// record makes n spans.
func (b *bench) record(n int) {
	for range n {
		record(b.tracer)
	}
}

func record(tr *trace.Tracer) {
	now := time.Now()
	s := tr.Start(now, nil)
	s.Request(&message.Request{Method: "GET", Authority: "a.example", Path: "/"}, "https", message.HTTP2)
	s.End(now)
}

func plain(all []*common.KeyValue) map[string]any {
	m := map[string]any{}
	for _, a := range all {
		switch v := a.Value.Value.(type) {
		case *common.AnyValue_StringValue:
			m[a.Key] = v.StringValue
		case *common.AnyValue_IntValue:
			m[a.Key] = v.IntValue
		case *common.AnyValue_BoolValue:
			m[a.Key] = v.BoolValue
		}
	}
	return m
}

func respond(status int, header ...string) func(w http.ResponseWriter, r *http.Request, try int) bool {
	return func(w http.ResponseWriter, _ *http.Request, _ int) bool {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(status)
		return true
	}
}
