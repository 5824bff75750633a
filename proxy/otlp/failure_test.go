package otlp_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	metricsservice "go.opentelemetry.io/proto/otlp/collector/metrics/v1"
	traceservice "go.opentelemetry.io/proto/otlp/collector/trace/v1"

	"github.com/jurat-tls/jurat/proxy/otlp"
)

func TestPartialSuccess(t *testing.T) {
	for rejected, want := range map[int64]otlp.Counts{0: {Sent: 10}, 3: {Sent: 7, Rejected: 3}, 10: {Rejected: 10}, 11: {Rejected: 10}, -1: {Sent: 10}} {
		answer := func(w http.ResponseWriter, r *http.Request, _ int) bool {
			if r.URL.Path == "/v1/traces" {
				say(w, &traceservice.ExportTraceServiceResponse{PartialSuccess: &traceservice.ExportTracePartialSuccess{RejectedSpans: rejected, ErrorMessage: "SECRET"}})
			} else {
				say(w, &metricsservice.ExportMetricsServiceResponse{PartialSuccess: &metricsservice.ExportMetricsPartialSuccess{RejectedDataPoints: rejected, ErrorMessage: "SECRET"}})
			}
			return true
		}
		source := func() []otlp.Metric {
			return []otlp.Metric{{Name: "m", Kind: otlp.Gauge, Points: make([]otlp.Point, 10)}}
		}
		var after *bench
		virtual(t, otlp.Config{}, otlp.Inputs{Metrics: source}, answer, func(b *bench) {
			after = b
			b.record(10)
		})
		if s := after.Stats(); s.Spans != want || s.Points != want || len(after.c.seen().bodies) != 2 {
			t.Errorf("%d rejected: %+v in %d requests", rejected, s, len(after.c.seen().bodies))
		}
		if strings.Contains(after.log.String(), "SECRET") || (want.Rejected > 0) != strings.Contains(after.log.String(), "signal=traces") {
			t.Errorf("log: %s", after.log)
		}
	}
}

// A collector that is busy gets the same request again, when it wants it.
func TestRetry(t *testing.T) {
	date := func(w http.ResponseWriter, after time.Duration, at time.Time) {
		w.Header().Set("Date", at.UTC().Format(http.TimeFormat))
		w.Header().Set("Retry-After", at.Add(after).UTC().Format(http.TimeFormat))
	}
	anotherClock := time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		answer func(w http.ResponseWriter)
		pauses []time.Duration
	}{
		"429, in seconds": {func(w http.ResponseWriter) { w.Header().Set("Retry-After", "7"); w.WriteHeader(429) }, []time.Duration{7, 7, 7}},
		"503, by a date":  {func(w http.ResponseWriter) { date(w, 9*time.Second, anotherClock); w.WriteHeader(503) }, []time.Duration{9, 9, 9}},
		"503, by a date of this clock": {func(w http.ResponseWriter) {
			w.Header()["Date"] = nil
			w.Header().Set("Retry-After", time.Now().Add(3*time.Second).UTC().Format(http.TimeFormat))
			w.WriteHeader(503)
		}, []time.Duration{3, 3, 3}},
		"503, without a word":  {func(w http.ResponseWriter) { w.WriteHeader(503) }, []time.Duration{1, 2, 4}},
		"502":                  {func(w http.ResponseWriter) { w.WriteHeader(502) }, []time.Duration{1, 2, 4}},
		"504":                  {func(w http.ResponseWriter) { w.WriteHeader(504) }, []time.Duration{1, 2, 4}},
		"0 seconds":            {func(w http.ResponseWriter) { w.Header().Set("Retry-After", "0"); w.WriteHeader(503) }, []time.Duration{1, 2, 4}},
		"a date that has been": {func(w http.ResponseWriter) { date(w, -time.Hour, anotherClock); w.WriteHeader(503) }, []time.Duration{1, 2, 4}},
		"nonsense":             {func(w http.ResponseWriter) { w.Header().Set("Retry-After", "-5"); w.WriteHeader(503) }, []time.Duration{1, 2, 4}},
		"the connection ends":  {func(http.ResponseWriter) { panic(http.ErrAbortHandler) }, []time.Duration{1, 2, 4}},
	} {
		answer := func(w http.ResponseWriter, _ *http.Request, try int) bool {
			if try == 3 {
				return false
			}
			c.answer(w)
			return true
		}
		virtual(t, otlp.Config{}, otlp.Inputs{}, answer, func(b *bench) {
			b.record(1)
			time.Sleep(time.Minute)
			synctest.Wait()
			if s := b.Stats(); s.Spans != (otlp.Counts{Sent: 1, Retries: 3}) || len(b.c.seen().at) != 4 {
				t.Fatalf("%s: %+v", name, s)
			}
			for i, want := range c.pauses {
				if got := b.c.seen().at[i+1].Sub(b.c.seen().at[i]); got != want*time.Second || !bytes.Equal(b.c.seen().bodies[i], b.c.seen().bodies[i+1]) {
					t.Errorf("%s: try %d after %v", name, i+1, got)
				}
			}
			if l := b.log.String(); strings.Count(l, "level=WARN") != 1 || strings.Count(l, "level=INFO") != 1 || strings.Contains(l, "v1/traces") {
				t.Errorf("%s: log: %s", name, l)
			}
		})
	}
}

// What the collector will never take is not sent again.
func TestNoRetry(t *testing.T) {
	for _, status := range []int{400, 401, 403, 404, 408, 413, 415, 500, 501, 505, 301, 302, 307, 308} {
		config := otlp.Config{Batch: 1, Headers: otlp.Headers{"Authorization": "SECRET"}}
		virtual(t, config, otlp.Inputs{}, respond(status, "Location", "http://elsewhere.example/v1/traces", "Retry-After", "1"), func(b *bench) {
			b.record(2)
			synctest.Wait() // and the next one does not have to wait
			if s := b.Stats(); s.Spans != (otlp.Counts{Failed: 2}) || len(b.c.seen().at) != 2 {
				t.Errorf("%d: %+v, %d tries", status, s, len(b.c.seen().at))
			}
			time.Sleep(time.Minute)
			if n := len(b.c.seen().at); n != 2 {
				t.Errorf("%d: %d tries", status, n)
			}
			// Nothing is lost because of the end.
			ctx, cancel := context.WithCancel(b.c.t.Context())
			cancel()
			if err := b.Shutdown(ctx); err != nil {
				t.Errorf("%d: %v", status, err)
			}
			if l := b.log.String(); !strings.Contains(l, fmt.Sprint(status)) || strings.Contains(l, "SECRET") {
				t.Errorf("%d: log: %s", status, l)
			}
		})
	}
}

// A collector that is never well costs a minute for each request, is left alone for as long as it asks, and no longer than
// ten minutes.
func TestGivingUp(t *testing.T) {
	for after, want := range map[string][]time.Duration{
		"":       {0, 1, 3, 7, 15, 31},
		"25":     {0, 25, 50},
		"61":     {0, 61, 122}, // two requests, each tried once, and the beginning of a third
		"999999": {0, 600},
	} {
		answer := respond(503)
		if after != "" {
			answer = respond(503, "Retry-After", after)
		}
		virtual(t, otlp.Config{}, otlp.Inputs{}, answer, func(b *bench) {
			start := time.Now()
			for range 605 {
				b.record(1)
				time.Sleep(time.Second)
			}
			synctest.Wait()
			for i, w := range want {
				if i >= len(b.c.seen().at) {
					t.Fatalf("%q: %d tries", after, len(b.c.seen().at))
				}
				if got := b.c.seen().at[i].Sub(start); got != 5*time.Second+w*time.Second {
					t.Errorf("%q: try %d after %v", after, i, got)
				}
			}
			if s := b.Stats(); s.Spans.Failed == 0 && after != "999999" || s.Spans.Sent != 0 {
				t.Errorf("%q: %+v", after, s)
			}
			if n := strings.Count(b.log.String(), "\n"); n != 1 {
				t.Errorf("%q: %d lines of log", after, n)
			}
		})
	}
}

// A collector that can't be reached keeps a bounded number of spans waiting, and nobody else. When it comes back it gets them.
func TestDown(t *testing.T) {
	var up atomic.Bool
	network := &pipes{conns: make(chan net.Conn), end: make(chan struct{})}
	in := otlp.Inputs{Dial: func(ctx context.Context, n, address string) (net.Conn, error) {
		if !up.Load() {
			return nil, errors.New("connection refused")
		}
		return network.dial(ctx, n, address)
	}}
	synctest.Test(t, func(t *testing.T) {
		network.conns, network.end = make(chan net.Conn), make(chan struct{})
		c := &collector{t: t}
		server := &http.Server{Handler: c}
		var serving sync.WaitGroup
		serving.Go(func() { _ = server.Serve(network) })
		defer serving.Wait()
		defer server.Close()
		e := start(t, otlp.Config{Endpoint: localhost, Queue: 100, Batch: 10}, in)
		tr := tracer(t, e)
		began := time.Now()
		for range 1000 {
			record(tr)
		}
		if !time.Now().Equal(began) { // virtual time stands still unless all wait
			t.Error("somebody waited")
		}
		time.Sleep(90 * time.Second)
		synctest.Wait()
		if s := e.Stats(); s.Queued > 100 || s.Dropped < 880 || s.Spans.Sent != 0 || s.Dropped+s.Spans.Failed+uint64(s.Queued) > 1000 {
			t.Errorf("%+v", s)
		}
		up.Store(true)
		time.Sleep(time.Minute)
		synctest.Wait()
		s := e.Stats()
		if s.Queued != 0 || s.Spans.Sent == 0 || s.Dropped+s.Spans.Failed+s.Spans.Sent != 1000 || uint64(len(c.spans())) != s.Spans.Sent {
			t.Errorf("%+v", s)
		}
		if err := e.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	})
}

// A collector that does not answer costs the time of a request, and is tried again.
func TestSlow(t *testing.T) {
	answer := func(_ http.ResponseWriter, r *http.Request, try int) bool {
		if try < 2 {
			<-r.Context().Done()
			return true
		}
		return false
	}
	virtual(t, otlp.Config{Timeout: 3 * time.Second}, otlp.Inputs{}, answer, func(b *bench) {
		b.record(1)
		time.Sleep(time.Minute)
		synctest.Wait()
		if s := b.Stats(); s.Spans != (otlp.Counts{Sent: 1, Retries: 2}) {
			t.Fatalf("%+v", s)
		}
		if first, second := b.c.seen().at[1].Sub(b.c.seen().at[0]), b.c.seen().at[2].Sub(b.c.seen().at[1]); first != 4*time.Second || second != 5*time.Second {
			t.Errorf("after %v and %v", first, second)
		}
	})
}

// An answer without an end is not read to its end, and one that is nonsense is one that says nothing.
func TestOddAnswers(t *testing.T) {
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, try int) bool{
		"endless": func(w http.ResponseWriter, r *http.Request, _ int) bool {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<10)); err != nil {
					return true
				}
			}
			return true
		},
		"nonsense": func(w http.ResponseWriter, _ *http.Request, _ int) bool {
			_, _ = w.Write([]byte("\x0a\x05<html>"))
			return true
		},
		"202": respond(202),
		"204": respond(204),
	} {
		virtual(t, otlp.Config{}, otlp.Inputs{}, answer, func(b *bench) {
			b.record(1)
			time.Sleep(10 * time.Second)
			synctest.Wait()
			if s := b.Stats(); s.Spans != (otlp.Counts{Sent: 1}) {
				t.Errorf("%s: %+v", name, s)
			}
		})
	}
}

// What is queued is sent at the end, at once; what comes afterwards is dropped.
func TestShutdown(t *testing.T) {
	var after *bench
	virtual(t, otlp.Config{Batch: 10}, otlp.Inputs{}, nil, func(b *bench) {
		after = b
		b.record(35)
		began := time.Now()
		if err := b.Shutdown(b.c.t.Context()); err != nil || !time.Now().Equal(began) {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		b.record(2)
		if err := b.Shutdown(b.c.t.Context()); err != nil {
			t.Error(err)
		}
	})
	if s := after.Stats(); s != (otlp.Stats{Dropped: 2, Spans: otlp.Counts{Sent: 35}}) || len(after.c.spans()) != 35 {
		t.Errorf("%+v", s)
	}
}

// A request that waits for a busy collector is sent at once when the end has come, and then as patiently as ctx allows.
func TestShutdownDuringRetry(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request, try int) bool {
		return try < 3 && respond(503, "Retry-After", "40")(w, r, try)
	}
	virtual(t, otlp.Config{RetryFor: time.Hour}, otlp.Inputs{}, answer, func(b *bench) {
		b.record(1)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		began := time.Now()
		if err := b.Shutdown(b.c.t.Context()); err != nil {
			t.Error(err)
		}
		if s := b.Stats(); s.Spans != (otlp.Counts{Sent: 1, Retries: 3}) || time.Since(began) != 80*time.Second {
			t.Errorf("%+v after %v", s, time.Since(began))
		}
	})
}

// A collector that wants to be left alone is asked once more at the end.
func TestShutdownWhileLeftAlone(t *testing.T) {
	answer := func(w http.ResponseWriter, r *http.Request, try int) bool {
		return try == 0 && respond(503, "Retry-After", "300")(w, r, try)
	}
	virtual(t, otlp.Config{}, otlp.Inputs{}, answer, func(b *bench) {
		b.record(1)
		time.Sleep(6 * time.Second)
		synctest.Wait()
		b.record(1)
		began := time.Now()
		if err := b.Shutdown(b.c.t.Context()); err != nil || !time.Now().Equal(began) {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if s := b.Stats(); s.Spans != (otlp.Counts{Sent: 1, Failed: 1}) {
			t.Errorf("%+v", s)
		}
	})
}

// Shutdown waits no longer than it may, whatever the collector does, and says what was lost.
func TestShutdownInTime(t *testing.T) {
	hang := func(_ http.ResponseWriter, r *http.Request, _ int) bool {
		<-r.Context().Done()
		return true
	}
	for name, answer := range map[string]func(w http.ResponseWriter, r *http.Request, try int) bool{"it hangs": hang, "it is busy": respond(503, "Retry-After", "30"), "it is ill": respond(503)} {
		virtual(t, otlp.Config{Batch: 10}, otlp.Inputs{}, answer, func(b *bench) {
			b.record(25)
			began := time.Now()
			ctx, cancel := context.WithTimeout(b.c.t.Context(), 2500*time.Millisecond)
			defer cancel()
			err := b.Shutdown(ctx)
			if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 2500*time.Millisecond {
				t.Errorf("%s: %v after %v", name, err, time.Since(began))
			}
			if s := b.Stats(); s.Spans.Failed != 25 || s.Queued != 0 {
				t.Errorf("%s: %+v", name, s)
			}
		})
	}
	// Without anything to send there is nothing to lose.
	virtual(t, otlp.Config{}, otlp.Inputs{}, nil, func(b *bench) {
		ctx, cancel := context.WithCancel(b.c.t.Context())
		cancel()
		if err := b.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
}

// Loops record while a batch is sent and while the Exporter ends: every span is sent or counted.
func TestConcurrent(t *testing.T) {
	c := &collector{t: t}
	server := httptest.NewServer(c)
	defer server.Close()
	e := start(t, otlp.Config{Endpoint: server.URL, Queue: 64, Batch: 16, SpanDelay: time.Millisecond, MetricPeriod: time.Millisecond}, otlp.Inputs{
		Metrics: func() []otlp.Metric {
			return []otlp.Metric{{Name: "m", Kind: otlp.Counter, Points: make([]otlp.Point, 3)}}
		},
	})
	tr := tracer(t, e)
	var all sync.WaitGroup
	var total atomic.Uint64
	ended := make(chan struct{})
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-ended:
					return
				default:
					record(tr)
					total.Add(1)
				}
			}
		})
	}
	for e.Stats().Spans.Sent < 200 || e.Stats().Points.Sent < 20 {
		runtime.Gosched()
	}
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	close(ended)
	all.Wait()
	if s := e.Stats(); s.Spans.Sent+s.Dropped != total.Load() || s.Queued != 0 || s.Spans.Failed != 0 || uint64(len(c.spans())) != s.Spans.Sent {
		t.Errorf("%+v", s)
	}
}

func TestTLS(t *testing.T) {
	c := &collector{t: t}
	quiet := log.New(io.Discard, "", 0) // of handshakes that are meant to fail
	server := httptest.NewUnstartedServer(c)
	server.Config.ErrorLog = quiet
	server.StartTLS()
	defer server.Close()
	pool := server.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	run := func(config otlp.Config, in otlp.Inputs) otlp.Counts {
		t.Helper()
		e := start(t, config, in)
		record(tracer(t, e))
		ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
		defer cancel()
		_ = e.Shutdown(ctx)
		return e.Stats().Spans
	}
	if s := run(otlp.Config{Endpoint: server.URL}, otlp.Inputs{Roots: pool}); s.Sent != 1 || len(c.spans()) != 1 {
		t.Errorf("%+v", s)
	}
	// Who can't show a certificate that is trusted sees nothing, headers included.
	if s := run(otlp.Config{Endpoint: server.URL, RetryFor: time.Millisecond}, otlp.Inputs{}); s.Failed != 1 || len(c.seen().bodies) != 1 {
		t.Errorf("%+v", s)
	}
	// A collector may ask who is there.
	asking := httptest.NewUnstartedServer(c)
	asking.Config.ErrorLog = quiet
	asking.TLS = &tls.Config{ClientAuth: tls.RequireAnyClientCert}
	asking.StartTLS()
	defer asking.Close()
	pool = asking.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	if s := run(otlp.Config{Endpoint: asking.URL, RetryFor: time.Millisecond}, otlp.Inputs{Roots: pool}); s.Failed != 1 {
		t.Errorf("%+v", s)
	}
	if s := run(otlp.Config{Endpoint: asking.URL}, otlp.Inputs{Roots: pool, Present: asking.TLS.Certificates}); s.Sent != 1 {
		t.Errorf("%+v", s)
	}
	// A connection that is protected by other means.
	plain, dialed := httptest.NewServer(c), 0
	defer plain.Close()
	in := otlp.Inputs{DialTLS: func(ctx context.Context, network, _ string) (net.Conn, error) {
		dialed++
		return (&net.Dialer{}).DialContext(ctx, network, plain.Listener.Addr().String())
	}}
	if s := run(otlp.Config{Endpoint: "https://collector.example"}, in); s.Sent != 1 || dialed != 1 {
		t.Errorf("%+v", s)
	}
}

// away is a connection to another machine.
type away struct {
	net.Conn
	closed bool
}

func (*away) RemoteAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1), Port: 4318} }
func (a *away) Close() error       { a.closed = true; return nil }

// Without TLS nothing leaves the machine, wherever "localhost" leads.
func TestLocalhostElsewhere(t *testing.T) {
	conn := &away{}
	in := otlp.Inputs{Dial: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}
	virtual(t, otlp.Config{}, in, nil, func(b *bench) {
		b.record(1)
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if s := b.Stats(); s.Spans.Failed != 1 || !conn.closed || !strings.Contains(b.log.String(), "192.0.2.1") {
			t.Errorf("%+v, %v: %s", s, conn.closed, b.log)
		}
	})
}

// By TLS, and with the unsafe option, it may.
func TestElsewhere(t *testing.T) {
	c := &collector{t: t}
	secure, open := httptest.NewTLSServer(c), httptest.NewServer(c)
	defer secure.Close()
	defer open.Close()
	in := otlp.Inputs{
		Roots: secure.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs,
		Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := (&net.Dialer{}).DialContext(ctx, network, address)
			return &seemsAway{conn}, err
		},
	}
	for _, config := range []otlp.Config{{Endpoint: secure.URL}, {Endpoint: open.URL, UnsafePlaintextToOtherMachines: true}} {
		e := start(t, config, in)
		record(tracer(t, e))
		if err := e.Shutdown(t.Context()); err != nil || e.Stats().Spans.Sent != 1 {
			t.Errorf("%s: %v, %+v", config.Endpoint, err, e.Stats())
		}
	}
}

// seemsAway is a connection that leads to another machine by its address.
type seemsAway struct{ net.Conn }

func (*seemsAway) RemoteAddr() net.Addr { return (*away).RemoteAddr(nil) }

// Where telemetry goes is for the configuration to say, and not for variables that whoever starts the process can set.
func TestEnvironmentIsIgnored(t *testing.T) {
	lure := &collector{t: t, answer: func(http.ResponseWriter, *http.Request, int) bool { t.Error("lured"); return true }}
	server := httptest.NewServer(lure)
	defer server.Close()
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "ALL_PROXY", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"} {
		t.Setenv(name, server.URL)
	}
	t.Setenv("OTEL_SDK_DISABLED", "true")
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "service.name=other")
	if os.Getenv("HTTP_PROXY") == "" {
		t.Fatal("no environment")
	}
	config := otlp.Config{Endpoint: "http://collector.example", UnsafePlaintextToOtherMachines: true}
	var after *bench
	virtual(t, config, otlp.Inputs{}, nil, func(b *bench) {
		after = b
		b.record(1)
	})
	if s := after.c.spans(); len(s) != 1 || plain(after.c.seen().traces[0].ResourceSpans[0].Resource.Attributes)["service.name"] != "jurat" {
		t.Errorf("got %v", s)
	}
}
