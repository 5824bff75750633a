package main

import (
	"context"
	"math/rand/v2"
	"net/textproto"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/metrics"
	"github.com/jurat-tls/jurat/proxy/otlp"
	"github.com/jurat-tls/jurat/proxy/trace"
)

// tracing starts what sends spans and metrics to a collector. done sends what is left.
func (o *operation) tracing(c *serveConfig) (tracer *trace.Tracer, done func(context.Context), err error) {
	cfg := c.Process.Tracing
	if cfg == nil {
		return nil, func(context.Context) {}, nil
	}
	headers := otlp.Headers{}
	if cfg.HeadersFile != "" {
		raw, err := o.app.readFile(c.file(cfg.HeadersFile))
		if err != nil {
			return nil, nil, err
		}
		if headers, err = readHeaders(cfg.HeadersFile, raw); err != nil {
			return nil, nil, err
		}
	}
	resource := map[string]string{}
	if cfg.ServiceName != "" {
		resource["service.name"] = cfg.ServiceName
	}
	e, err := otlp.Start(otlp.Config{
		Endpoint: cfg.Endpoint, UnsafePlaintextToOtherMachines: cfg.UnsafePlain, Headers: headers, Resource: resource,
	}, otlp.Inputs{Metrics: o.exported, Log: o.log, Now: o.app.now})
	if err != nil {
		return nil, nil, err
	}
	// ChaCha8, seeded by the system: nobody foretells an id.
	if tracer, err = trace.New(trace.Config{Ratio: cfg.Sample}, rand.Uint64, e); err != nil {
		_ = e.Shutdown(context.Background())
		return nil, nil, err
	}
	return tracer, func(ctx context.Context) {
		if err := e.Shutdown(ctx); err != nil {
			o.log.Warn("spans and metrics were not all sent", "error", err.Error())
		}
	}, nil
}

// readHeaders reads "Name: value", one a line.
func readHeaders(file string, raw []byte) (otlp.Headers, error) {
	h := otlp.Headers{}
	for line := range strings.Lines(string(raw)) {
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, ok := strings.Cut(line, ":")
		name = textproto.CanonicalMIMEHeaderKey(strings.TrimSpace(name))
		if _, twice := h[name]; !ok || name == "" || twice {
			return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "tracing", Subject: file, Want: `lines such as "Authorization: Bearer …", each name once`}
		}
		h[name] = strings.TrimSpace(value)
	}
	return h, nil
}

// exported are the metrics as the collector gets them.
func (o *operation) exported() (all []otlp.Metric) {
	if o.generation() == nil {
		return nil
	}
	kinds := map[string]otlp.Kind{metrics.Counter: otlp.Counter, metrics.Gauge: otlp.Gauge, metrics.Histogram: otlp.Histogram}
	for _, s := range o.metrics.Series() {
		m := otlp.Metric{Name: s.Name, Help: s.Help, Kind: kinds[s.Type], Bounds: s.Bounds}
		for _, p := range s.Points {
			point := otlp.Point{Value: p.Value, Buckets: p.Buckets}
			for i, name := range s.Labels {
				point.Labels = append(point.Labels, otlp.Label{Key: name, Value: p.Labels[i]})
			}
			m.Points = append(m.Points, point)
		}
		all = append(all, m)
	}
	return all
}
