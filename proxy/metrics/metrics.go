// Package metrics shows the counters of a proxy in Prometheus' formats. It keeps none of its own: a function answers a Snapshot
// whenever somebody asks.
//
// No label is a client's choice. Whatever names a control plane or a verifier passes on, a metric has at most a thousand
// series; what goes beyond is added up under "other".
package metrics

import (
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/jurat-tls/jurat/proxy/tally"
)

// Metrics shows Snapshots. New makes one.
type Metrics struct {
	defs     []definition
	descs    []*prometheus.Desc
	build    Build
	snapshot func() Snapshot
	registry *prometheus.Registry
}

// New makes Metrics. snapshot is called once for every answer, by any number of goroutines.
func New(build Build, snapshot func() Snapshot) *Metrics {
	m := &Metrics{defs: definitions(), build: build, snapshot: snapshot, registry: prometheus.NewRegistry()}
	for _, d := range m.defs {
		m.descs = append(m.descs, prometheus.NewDesc(d.Name, d.Help, d.Labels, nil))
	}
	m.registry.MustRegister(collector{m}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

// Handler answers with all metrics, in the text format of Prometheus or in OpenMetrics, as the client prefers. A Snapshot that
// can't be had is 500, not a gap that looks like zero.
func (m *Metrics) Handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		EnableOpenMetrics: true, ErrorHandling: promhttp.HTTPErrorOnError, DisableCompression: true, MaxRequestsInFlight: 4,
	})
}

// Each calls f with every number under its name, labels included, such as `jurat_listener_requests_total{listener="web"}`. Of
// a distribution it gives count and sum, and estimates of quantiles.
func (m *Metrics) Each(f func(name string, value float64)) {
	s := m.take()
	for i := range m.defs {
		d := &m.defs[i]
		for _, x := range d.samples(s) {
			if !d.distribution() {
				f(d.Name+labels(d.Labels, x.labels), x.value)
				continue
			}
			f(d.Name+"_count"+labels(d.Labels, x.labels), float64(x.buckets.count))
			f(d.Name+"_sum"+labels(d.Labels, x.labels), x.buckets.sum)
			for _, q := range []float64{0.5, 0.9, 0.99} {
				names, values := slices.Concat(d.Labels, []string{"quantile"}), slices.Concat(x.labels, []string{strconv.FormatFloat(q, 'g', -1, 64)})
				f(d.Name+labels(names, values), x.buckets.quantile(q))
			}
		}
	}
}

func labels(names, values []string) string {
	if len(names) == 0 {
		return ""
	}
	var b strings.Builder
	for i, name := range names {
		b.WriteByte("{,"[min(i, 1)])
		b.WriteString(name + "=" + strconv.Quote(values[i]))
	}
	b.WriteByte('}')
	return b.String()
}

// state is a Snapshot with what does not change.
type state struct {
	Snapshot
	build Build
}

func (m *Metrics) take() *state { return &state{m.snapshot(), m.build} }

// collector is Metrics as the library wants it.
type collector struct{ *Metrics }

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range c.descs {
		out <- d
	}
}

// Collect implements prometheus.Collector. The library calls it in a goroutine of its own: a panic would end the process.
func (c collector) Collect(out chan<- prometheus.Metric) {
	defer func() {
		if p := recover(); p != nil {
			out <- prometheus.NewInvalidMetric(c.descs[0], fmt.Errorf("no snapshot: %.100v", p))
		}
	}()
	s := c.take()
	for i := range c.defs {
		d := &c.defs[i]
		for _, x := range d.samples(s) {
			out <- d.metric(c.descs[i], x)
		}
	}
}

func (d *definition) metric(desc *prometheus.Desc, x *sample) prometheus.Metric {
	switch {
	case d.distribution():
		return prometheus.MustNewConstHistogram(desc, x.buckets.count, x.buckets.sum, x.buckets.cumulative(), x.labels...)
	case d.Type == Counter:
		return prometheus.MustNewConstMetric(desc, prometheus.CounterValue, x.value, x.labels...)
	default:
		return prometheus.MustNewConstMetric(desc, prometheus.GaugeValue, x.value, x.labels...)
	}
}

// Limits on what one metric holds.
const (
	maxSeries = 1000
	maxLabel  = 200 // bytes
)

// sample is one value with its labels.
type sample struct {
	labels  []string
	value   float64
	buckets buckets
}

// samples are those of d, of which each set of labels has one: values are added up. The library would refuse the whole answer
// for two listeners of one name, or for a name that is no UTF-8.
func (d *definition) samples(s *state) []*sample {
	var all []*sample
	index := map[string]*sample{}
	find := func(labels []string) *sample {
		values := make([]string, len(labels))
		for i, l := range labels {
			if l = strings.ToValidUTF8(l, "\uFFFD"); len(l) > maxLabel {
				l = strings.ToValidUTF8(l[:maxLabel], "")
			}
			values[i] = l
		}
		key := strings.Join(values, "\xff")
		x := index[key]
		if x == nil && len(all) >= maxSeries-1 {
			for i := range values {
				values[i] = tally.Other
			}
			key = "\xff\xff"
			x = index[key]
		}
		if x == nil {
			x = &sample{labels: values}
			index[key], all = x, append(all, x)
		}
		return x
	}
	if d.numbers != nil {
		d.numbers(s, func(v float64, labels ...string) { find(labels).value += v })
	} else {
		d.distributions(s, func(b buckets, labels ...string) {
			if len(b.bounds) > 0 {
				x := find(labels)
				x.buckets = x.buckets.add(b)
			}
		})
	}
	slices.SortStableFunc(all, func(a, b *sample) int { return slices.Compare(a.labels, b.labels) })
	return all
}
