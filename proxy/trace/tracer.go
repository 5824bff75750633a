package trace

import (
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
)

// Config of a Tracer.
type Config struct {
	// Ratio is the share of the requests without a valid traceparent that are recorded, 0 to 1. A request with one is recorded
	// when that says so.
	Ratio float64 `yaml:"ratio"`
	// RootSpans is how many spans per second are recorded at most for requests without a valid traceparent: 100; negative for
	// none. As many may come at once.
	RootSpans int `yaml:"max_root_spans"`
	// ParentSpans is the same for requests whose traceparent says that they are to be recorded. Strangers can set it on all
	// that they send. A limit of its own keeps them from using up RootSpans.
	ParentSpans int `yaml:"max_parent_spans"`
	// Methods are known beside those of RFC 9110 and PATCH, 32 at most. A span of any other has "_OTHER" for its method.
	Methods []string `yaml:"known_methods"`
}

const (
	defaultSpans = 100
	maxSpans     = 1_000_000
	maxMethods   = 32

	randomBits = 56 // of a trace id, those in which RandomID promises chance
	never      = uint64(1) << randomBits
)

// Sink takes spans that have ended. Take is called on event loops: it must never block. The Record is its own from then on, but
// must not be changed.
type Sink interface {
	Take(*Record)
}

// Tracer decides what is recorded. Any number of goroutines may use it. A nil Tracer records nothing.
type Tracer struct {
	threshold uint64 // of the random bits of a trace id: from it on a root is recorded
	roots     bucket
	parents   bucket
	methods   map[string]bool
	random    func() uint64
	sink      Sink

	recorded, limited atomic.Uint64
}

// New makes a Tracer. random answers uniformly distributed numbers that nobody can foretell, to any number of goroutines at
// once. The error is an *attest.Error whose Subject is the place of a value that is not allowed.
func New(config Config, random func() uint64, sink Sink) (*Tracer, error) {
	bad := func(at, got, want string) (*Tracer, error) {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "trace", Subject: at, Got: got, Want: want}
	}
	if !(config.Ratio >= 0 && config.Ratio <= 1) { // which NaN is not
		return bad("ratio", strconv.FormatFloat(config.Ratio, 'g', -1, 64), "0 to 1")
	}
	t := &Tracer{threshold: never - uint64(math.Round(config.Ratio*float64(never))), methods: make(map[string]bool), random: random, sink: sink}
	for _, limit := range []struct {
		at     string
		spans  int
		bucket *bucket
	}{{"max_root_spans", config.RootSpans, &t.roots}, {"max_parent_spans", config.ParentSpans, &t.parents}} {
		switch {
		case limit.spans > maxSpans:
			return bad(limit.at, strconv.Itoa(limit.spans), fmt.Sprintf("at most %d", maxSpans))
		case limit.spans == 0:
			limit.bucket.allow(defaultSpans)
		case limit.spans > 0:
			limit.bucket.allow(limit.spans)
		}
	}
	if len(config.Methods) > maxMethods {
		return bad("known_methods", strconv.Itoa(len(config.Methods)), fmt.Sprintf("at most %d", maxMethods))
	}
	for _, m := range append([]string{"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"}, config.Methods...) {
		t.methods[m] = true
	}
	return t, nil
}

// Stats is what a Tracer has seen.
type Stats struct {
	Recorded uint64 `json:"recorded"` // spans begun
	Limited  uint64 `json:"limited"`  // requests that would have been recorded but for a limit
}

// Stats is a snapshot of the counters.
func (t *Tracer) Stats() Stats {
	if t == nil {
		return Stats{}
	}
	return Stats{Recorded: t.recorded.Load(), Limited: t.limited.Load()}
}

// Start begins the span of a request that came in with fields, or of a connection, which has none. The Span is for one goroutine
// at a time, and may be copied.
func (t *Tracer) Start(now time.Time, fields message.Fields) Span {
	if t == nil {
		return Span{}
	}
	parent, ok := Extract(fields)
	if !ok {
		return t.root(now)
	}
	if parent.Flags&Sampled == 0 {
		return Span{context: parent}
	}
	if !t.parents.take(now, false) {
		t.limited.Add(1)
		return Span{context: parent}
	}
	s := t.begin(now, parent, Server, &t.parents)
	s.record.Remote, s.record.State = true, state(fields)
	return s
}

func (t *Tracer) root(now time.Time) Span {
	if t.threshold == never {
		return Span{}
	}
	low := t.random()
	if low&(never-1) < t.threshold {
		return Span{}
	}
	if !t.roots.take(now, false) {
		t.limited.Add(1)
		return Span{}
	}
	trace := Context{Flags: Sampled | RandomID}
	binary.BigEndian.PutUint64(trace.TraceID[:8], t.random())
	binary.BigEndian.PutUint64(trace.TraceID[8:], low)
	if trace.TraceID == (TraceID{}) {
		trace.TraceID[0] = 1 // of all ids this one alone is refused by everybody
	}
	return t.begin(now, trace, Server, &t.roots)
}

// begin makes a span below parent, which has no SpanID where there is none.
func (t *Tracer) begin(now time.Time, parent Context, kind Kind, paid *bucket) Span {
	r := &Record{Context: parent, Parent: parent.SpanID, Kind: kind, Start: now, tracer: t, paid: paid}
	binary.BigEndian.PutUint64(r.SpanID[:], t.random())
	if r.SpanID == (SpanID{}) {
		r.SpanID[0] = 1
	}
	t.recorded.Add(1)
	return Span{context: r.Context, record: r}
}
