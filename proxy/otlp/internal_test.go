package otlp

import (
	"bytes"
	"log/slog"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	traceservice "go.opentelemetry.io/proto/otlp/collector/trace/v1"
	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/trace"
)

// FuzzRejected holds our reading of an answer against that of the real message. That one refuses more: text that is no UTF-8.
func FuzzRejected(f *testing.F) {
	for _, p := range []*traceservice.ExportTracePartialSuccess{nil, {}, {RejectedSpans: 5, ErrorMessage: "too old"}, {RejectedSpans: -1}} {
		raw, err := proto.Marshal(&traceservice.ExportTraceServiceResponse{PartialSuccess: p})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
		f.Add(append(raw, raw...))
		f.Add(append([]byte{0x10, 0x01}, raw...))
	}
	f.Add([]byte("\x0a\x05<html>"))
	f.Add([]byte{0x0a, 0x02, 0x08, 0xff})
	f.Add([]byte{0x08, 0x05})
	f.Add([]byte{0x0a, 0x01, 0x09})
	f.Fuzz(func(t *testing.T, raw []byte) {
		var answer traceservice.ExportTraceServiceResponse
		if got := rejected(raw); proto.Unmarshal(raw, &answer) == nil && got != answer.PartialSuccess.GetRejectedSpans() {
			t.Errorf("%x: got %d, want %d", raw, got, answer.PartialSuccess.GetRejectedSpans())
		}
	})
}

// A message that can't be encoded is counted, and sent in no form.
func TestNotEncoded(t *testing.T) {
	var log bytes.Buffer
	e, err := Start(Config{Endpoint: "https://collector.example"}, Inputs{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	e.send(&e.metrics, 3, func() proto.Message { return &resource.Resource{Attributes: []*common.KeyValue{{Key: "\xff"}}} })
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if s := e.Stats().Points; s != (Counts{Failed: 3}) || !strings.Contains(log.String(), "encoded") {
		t.Errorf("%+v: %s", s, &log)
	}
}

// Nothing is encoded any more that can't be sent.
func TestTooLate(t *testing.T) {
	e, err := Start(Config{Endpoint: "https://collector.example"}, Inputs{})
	if err != nil {
		t.Fatal(err)
	}
	e.cancel()
	e.send(&e.metrics, 3, func() proto.Message { panic("encoded") })
	if err := e.Shutdown(t.Context()); err != nil || e.Stats().Points.Failed != 3 {
		t.Errorf("%v, %+v", err, e.Stats())
	}
}

// An event loop wakes nobody before there is something to do.
func TestWake(t *testing.T) {
	e := &Exporter{config: Config{Batch: 2}, ring: make([]*trace.Record, 3), wake: make(chan struct{}, 1)}
	for i, want := range []int{0, 1, 1, 1} {
		if e.Take(&trace.Record{}); len(e.wake) != want {
			t.Errorf("span %d: %d", i, len(e.wake))
		}
	}
}

func TestRejected(t *testing.T) {
	for raw, want := range map[string]int64{
		"":                         0,
		"\x0a\x02\x08\x05":         5,
		"\x0a\x02\x08\x05\x0a\x00": 5, // merged
		"\x12\x02\x08\x05\x0a\x02\x08\x07\x18\x01": 7,
		"\x0a\x04\x12\x00\x08\x05":                 5,
		"\x12\x02\x08\x05":                         0, // another field
		"\x0a\x02\x10\x05":                         0,
		"\x0a\x03\x0a\x01\x07":                     0, // of another type
		"\x08\x02\x08\x05":                         0,
		"\x0a\x02\x08\x05\xff":                     0, // malformed behind it
		"\x0a\x02\x08\x05\x0a\x05":                 0,
		"\x0a\x03\x08\x05\xff":                     0,
		"\x0a\x04\x08\x05\x12\x05":                 0,
	} {
		if got := rejected([]byte(raw)); got != want {
			t.Errorf("%x: got %d, want %d", raw, got, want)
		}
	}
}

type keep struct{ all []*trace.Record }

func (k *keep) Take(r *trace.Record) { k.all = append(k.all, r) }

// BenchmarkEncode is what a batch of 512 spans costs beside the loops, until it can be sent.
func BenchmarkEncode(b *testing.B) {
	var k keep
	t, err := trace.New(trace.Config{Ratio: 1, RootSpans: 1_000_000}, rand.Uint64, &k)
	if err != nil {
		b.Fatal(err)
	}
	for i := range 256 {
		now := time.Now()
		s := t.Start(now, nil)
		s.Request(&message.Request{Method: "GET", Authority: "a.example", Path: "/users/" + strconv.Itoa(i)}, "https", message.HTTP2)
		s.Peer("192.0.2.1:50000")
		s.Status(200)
		child := s.Child(now, 0)
		child.Request(&message.Request{Method: "GET", Authority: "a.example", Path: "/users/" + strconv.Itoa(i)}, "http", message.HTTP11)
		child.Status(200)
		child.End(now)
		s.End(now)
	}
	var size int
	b.ReportAllocs()
	for b.Loop() {
		body, err := encode(encodeSpans(k.all, &resource.Resource{}, &common.InstrumentationScope{}))
		if err != nil {
			b.Fatal(err)
		}
		size = len(body)
	}
	b.ReportMetric(float64(size), "B/request")
}
