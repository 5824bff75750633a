package otlp

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/proxy/trace"
)

// Inputs are what an Exporter needs beside its configuration. All may be zero.
type Inputs struct {
	Metrics func() []Metric // asked every period, and at the end; nil exports none
	// Dial connects to the collector; nil dials TCP.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// DialTLS makes connections that are protected already, in place of Dial and TLS: to a collector that is attested.
	DialTLS func(ctx context.Context, network, address string) (net.Conn, error)
	Roots   *x509.CertPool    // that the collector's certificate has to lead to; nil are the system's
	Present []tls.Certificate // what the collector is shown if it asks
	Now     func() time.Time  // the clock, time.Now
	Random  func() float64    // at least 0 and below 1, rand.Float64
	Log     *slog.Logger
}

// Exporter sends spans and metrics on. It is a trace.Sink.
type Exporter struct {
	config   Config
	in       Inputs
	client   *http.Client
	resource *resource.Resource
	scope    *common.InstrumentationScope
	start    time.Time

	traces, metrics signal
	dropped         atomic.Uint64
	cut             atomic.Bool // something was given up because ctx had ended

	ctx     context.Context // ends when nothing is worth waiting for any more
	cancel  context.CancelFunc
	closing chan struct{} // closed when the rest is to be sent
	wake    chan struct{} // a batch is full
	work    sync.WaitGroup

	mu     sync.Mutex
	closed bool
	ring   []*trace.Record // of Config.Queue
	first  int             // of them
	queued int
}

var _ trace.Sink = (*Exporter)(nil)

// Start makes an Exporter, which runs until Shutdown. Nothing is sent before there is something to send. The error is an
// *attest.Error whose Subject is the place of a value that is not allowed.
func Start(config Config, in Inputs) (*Exporter, error) {
	config, endpoint, err := config.complete()
	if err != nil {
		return nil, err
	}
	if in.Dial == nil {
		in.Dial = (&net.Dialer{}).DialContext
	}
	if in.Now == nil {
		in.Now = time.Now
	}
	if in.Random == nil {
		in.Random = rand.Float64
	}
	if in.Log == nil {
		in.Log = slog.New(slog.DiscardHandler)
	}
	e := &Exporter{
		config: config, in: in, client: newClient(config, in, endpoint.Scheme), start: in.Now(),
		scope:  &common.InstrumentationScope{Name: "github.com/jurat-tls/jurat"},
		traces: signal{name: "traces", url: endpoint.JoinPath("v1/traces")}, metrics: signal{name: "metrics", url: endpoint.JoinPath("v1/metrics")},
		closing: make(chan struct{}), wake: make(chan struct{}, 1), ring: make([]*trace.Record, config.Queue),
	}
	what := map[string]string{serviceName: "jurat"}
	maps.Copy(what, config.Resource)
	e.resource = &resource.Resource{}
	for _, key := range slices.Sorted(maps.Keys(what)) {
		e.resource.Attributes = append(e.resource.Attributes, attribute(key, what[key]))
	}
	e.ctx, e.cancel = context.WithCancel(context.Background())
	e.work.Go(func() { e.every(config.SpanDelay, e.wake, e.exportSpans) })
	if in.Metrics != nil {
		e.work.Go(func() { e.every(config.MetricPeriod, nil, e.exportMetrics) })
	}
	return e, nil
}

// Take queues a span, or drops it where the queue is full. It never waits for a collector.
func (e *Exporter) Take(r *trace.Record) {
	e.mu.Lock()
	if e.closed || e.queued == len(e.ring) {
		e.mu.Unlock()
		e.dropped.Add(1)
		return
	}
	e.ring[(e.first+e.queued)%len(e.ring)] = r
	e.queued++
	full := e.queued >= e.config.Batch
	e.mu.Unlock()
	if full {
		select {
		case e.wake <- struct{}{}:
		default:
		}
	}
}

// next takes a batch off the queue: what there is, or nothing where that is less than a whole one and all is false.
func (e *Exporter) next(all bool) []*trace.Record {
	batch := make([]*trace.Record, e.config.Batch) // before the lock, which event loops want too
	e.mu.Lock()
	defer e.mu.Unlock()
	if !all && e.queued < len(batch) {
		return nil
	}
	batch = batch[:min(e.queued, len(batch))]
	for i := range batch {
		batch[i], e.ring[e.first] = e.ring[e.first], nil
		e.first = (e.first + 1) % len(e.ring)
	}
	e.queued -= len(batch)
	return batch
}

// every runs export for all that there is once a period, and at the end, and for what can't wait when woken.
func (e *Exporter) every(period time.Duration, wake <-chan struct{}, export func(all bool)) {
	ticker := time.NewTicker(period)
	defer ticker.Stop()
	for {
		select {
		case <-e.closing:
			export(true)
			return
		case <-ticker.C:
			export(true)
		case <-wake:
			export(false)
		}
	}
}

// exportSpans sends whole batches, with all also a first one that is none. What comes meanwhile waits for others.
func (e *Exporter) exportSpans(all bool) {
	for {
		batch := e.next(all)
		if len(batch) == 0 {
			return
		}
		e.send(&e.traces, len(batch), func() proto.Message { return encodeSpans(batch, e.resource, e.scope) })
		all = e.isClosing()
	}
}

func (e *Exporter) exportMetrics(bool) {
	requests, points, bad := chunks(e.in.Metrics(), maxPoints)
	e.metrics.failed.Add(uint64(bad))
	now := e.in.Now()
	for i, r := range requests {
		e.send(&e.metrics, points[i], func() proto.Message { return encodeMetrics(r, e.start, now, e.resource, e.scope) })
	}
}

// Shutdown sends what is left, and the metrics for the last time, and waits until that is over or ctx ends. Then nothing runs
// any more, and further spans are dropped. It answers ctx's error where something could not be sent because of that.
func (e *Exporter) Shutdown(ctx context.Context) error {
	e.mu.Lock()
	if !e.closed {
		e.closed = true
		close(e.closing)
	}
	e.mu.Unlock()
	stop := context.AfterFunc(ctx, e.cancel)
	defer stop()
	e.work.Wait()
	e.client.CloseIdleConnections()
	if err := ctx.Err(); err != nil && e.cut.Load() {
		return fmt.Errorf("otlp: what was left could not be sent: %w", err)
	}
	return nil
}

// Stats is what an Exporter has seen.
type Stats struct {
	Queued  int    `json:"queued"`  // spans, now
	Dropped uint64 `json:"dropped"` // spans that found the queue full, or came after the end
	Spans   Counts `json:"spans"`
	Points  Counts `json:"points"` // of metrics
}

// Counts are of spans or of points.
type Counts struct {
	Sent     uint64 `json:"sent"`     // that the collector took
	Rejected uint64 `json:"rejected"` // that it did not, in a request of which it took the rest
	Failed   uint64 `json:"failed"`   // that were given up, and points that can't be sent
	Retries  uint64 `json:"retries"`  // requests that were repeated
}

// Stats is a snapshot of the counters.
func (e *Exporter) Stats() Stats {
	e.mu.Lock()
	queued := e.queued
	e.mu.Unlock()
	return Stats{Queued: queued, Dropped: e.dropped.Load(), Spans: e.traces.counts(), Points: e.metrics.counts()}
}
