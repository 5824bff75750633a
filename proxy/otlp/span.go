package otlp

import (
	"strings"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
	traces "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/jurat-tls/jurat/proxy/trace"
)

func encodeSpans(records []*trace.Record, of *resource.Resource, scope *common.InstrumentationScope) *traces.TracesData {
	spans := make([]*traces.Span, len(records))
	for i, r := range records {
		spans[i] = encodeSpan(r)
	}
	return &traces.TracesData{ResourceSpans: []*traces.ResourceSpans{{
		Resource: of, ScopeSpans: []*traces.ScopeSpans{{Scope: scope, Spans: spans, SchemaUrl: trace.SchemaURL}},
	}}}
}

func encodeSpan(r *trace.Record) *traces.Span {
	s := &traces.Span{
		TraceId: r.TraceID[:], SpanId: r.SpanID[:], TraceState: text(r.State), Name: text(r.Name()), Kind: traces.Span_SpanKind(r.Kind),
		StartTimeUnixNano: nanoseconds(r.Start), EndTimeUnixNano: nanoseconds(r.End),
		Flags: uint32(r.Flags) | uint32(traces.SpanFlags_SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK),
	}
	if r.Parent != (trace.SpanID{}) {
		s.ParentSpanId = r.Parent[:]
	}
	if r.Remote {
		s.Flags |= uint32(traces.SpanFlags_SPAN_FLAGS_CONTEXT_IS_REMOTE_MASK)
	}
	for _, a := range r.Attributes() {
		s.Attributes = append(s.Attributes, attribute(a.Key, a.Value))
	}
	if r.ErrorType() != "" {
		s.Status = &traces.Status{Code: traces.Status_STATUS_CODE_ERROR, Message: r.Code.Title()}
	}
	return s
}

func attribute(key string, value any) *common.KeyValue {
	v := &common.AnyValue{}
	switch value := value.(type) {
	case string:
		v.Value = &common.AnyValue_StringValue{StringValue: text(value)}
	case int64:
		v.Value = &common.AnyValue_IntValue{IntValue: value}
	case bool:
		v.Value = &common.AnyValue_BoolValue{BoolValue: value}
	}
	return &common.KeyValue{Key: text(key), Value: v}
}

// text is s as protobuf takes it: a single byte that is no UTF-8 would make the whole message impossible.
func text(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

func nanoseconds(t time.Time) uint64 { return uint64(max(t.UnixNano(), 0)) }
