package otlp

import (
	"slices"
	"time"

	common "go.opentelemetry.io/proto/otlp/common/v1"
	metrics "go.opentelemetry.io/proto/otlp/metrics/v1"
	resource "go.opentelemetry.io/proto/otlp/resource/v1"
)

// Metric is the state of one metric at one time.
type Metric struct {
	Name   string // such as "jurat.requests"
	Help   string
	Unit   string // by UCUM: "s", "By", "{request}"
	Kind   Kind
	Bounds []float64 // of a Histogram: the upper ends, inclusive, of all buckets but the last; ascending
	Points []Point
}

// Kind of a metric. Its zero value is none, and is not exported.
type Kind uint8

// The kinds that there are. Counters and histograms count from the start of the process.
const (
	Counter   Kind = iota + 1 // never goes down
	Gauge                     // is as it is
	Histogram                 // how many observations fell into each bucket
)

// Point is a value for one set of labels, which no other point of the metric has.
type Point struct {
	Labels  []Label
	Value   float64  // of a Histogram the sum of the observations
	Buckets []uint64 // of a Histogram: the observations in each, one more than there are Bounds
}

// Label is one of a point.
type Label struct{ Key, Value string }

const maxPoints = 4096 // in a request

// valid reports whether m can be said in OTLP.
func (m *Metric) valid() bool {
	if m.Name == "" {
		return false
	}
	switch m.Kind {
	case Counter, Gauge:
		return true
	case Histogram:
		for i := range m.Bounds {
			if i > 0 && !(m.Bounds[i-1] < m.Bounds[i]) {
				return false
			}
		}
		return !slices.ContainsFunc(m.Points, func(p Point) bool { return len(p.Buckets) != len(m.Bounds)+1 })
	}
	return false
}

// chunks are all points in as few requests as may be, and how many each holds. Metrics that can't be sent are counted in bad.
func chunks(all []Metric, most int) (requests [][]Metric, points []int, bad int) {
	var now []Metric
	n := 0
	end := func() {
		if n > 0 {
			requests, points = append(requests, now), append(points, n)
		}
		now, n = nil, 0
	}
	for _, m := range all {
		if !m.valid() {
			bad += len(m.Points)
			continue
		}
		for left := m.Points; len(left) > 0; {
			k := min(len(left), most-n)
			part := m
			part.Points, left = left[:k], left[k:]
			now, n = append(now, part), n+k
			if n == most {
				end()
			}
		}
	}
	end()
	return requests, points, bad
}

func encodeMetrics(all []Metric, start, now time.Time, of *resource.Resource, scope *common.InstrumentationScope) *metrics.MetricsData {
	encoded := make([]*metrics.Metric, len(all))
	for i := range all {
		encoded[i] = encodeMetric(&all[i], nanoseconds(start), nanoseconds(now))
	}
	return &metrics.MetricsData{ResourceMetrics: []*metrics.ResourceMetrics{{
		Resource: of, ScopeMetrics: []*metrics.ScopeMetrics{{Scope: scope, Metrics: encoded}},
	}}}
}

func encodeMetric(m *Metric, start, now uint64) *metrics.Metric {
	out := &metrics.Metric{Name: text(m.Name), Description: text(m.Help), Unit: text(m.Unit)}
	if m.Kind == Histogram {
		points := make([]*metrics.HistogramDataPoint, len(m.Points))
		for i, p := range m.Points {
			points[i] = &metrics.HistogramDataPoint{
				Attributes: labels(p.Labels), StartTimeUnixNano: start, TimeUnixNano: now, Sum: &p.Value, ExplicitBounds: m.Bounds, BucketCounts: p.Buckets,
			}
			for _, n := range p.Buckets {
				points[i].Count += n
			}
		}
		out.Data = &metrics.Metric_Histogram{Histogram: &metrics.Histogram{DataPoints: points, AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE}}
		return out
	}
	points := make([]*metrics.NumberDataPoint, len(m.Points))
	for i, p := range m.Points {
		points[i] = &metrics.NumberDataPoint{Attributes: labels(p.Labels), TimeUnixNano: now, Value: &metrics.NumberDataPoint_AsDouble{AsDouble: p.Value}}
		if m.Kind == Counter {
			points[i].StartTimeUnixNano = start
		}
	}
	if m.Kind == Gauge {
		out.Data = &metrics.Metric_Gauge{Gauge: &metrics.Gauge{DataPoints: points}}
		return out
	}
	out.Data = &metrics.Metric_Sum{Sum: &metrics.Sum{
		DataPoints: points, IsMonotonic: true, AggregationTemporality: metrics.AggregationTemporality_AGGREGATION_TEMPORALITY_CUMULATIVE,
	}}
	return out
}

func labels(all []Label) []*common.KeyValue {
	out := make([]*common.KeyValue, len(all))
	for i, l := range all {
		out[i] = attribute(l.Key, l.Value)
	}
	return out
}
