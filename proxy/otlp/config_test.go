package otlp_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/otlp"
)

func TestConfig(t *testing.T) {
	many := func(n int) map[string]string {
		m := map[string]string{}
		for i := range n {
			m[fmt.Sprint("x-", i)] = "v"
		}
		return m
	}
	at := func(endpoint string) otlp.Config { return otlp.Config{Endpoint: endpoint} }
	header := func(name, value string) otlp.Config {
		return otlp.Config{Endpoint: localhost, Headers: otlp.Headers{name: value}}
	}
	with := func(c otlp.Config) otlp.Config {
		c.Endpoint = localhost
		return c
	}
	for _, c := range []struct {
		config otlp.Config
		place  string
	}{
		{at("collector.example:4318"), "endpoint"},
		{at("//collector.example"), "endpoint"},
		{at("https://"), "endpoint"},
		{at("https://:4318"), "endpoint"},
		{at("https:collector.example"), "endpoint"},
		{at("ftp://localhost"), "endpoint"},
		{at("grpc://localhost:4317"), "endpoint"},
		{at("https://user:SECRET@collector.example"), "endpoint"},
		{at("https://user:SECRET@collector.example:port"), "endpoint"},
		{at("https://collector.example?key=SECRET"), "endpoint"},
		{at("https://collector.example?"), "endpoint"},
		{at("https://collector.example#SECRET"), "endpoint"},
		{at("http://collector.example"), "endpoint"},
		{at("http://192.0.2.1:4318"), "endpoint"},
		{at("http://0.0.0.0:4318"), "endpoint"},
		{at("http://[::]:4318"), "endpoint"},
		{at("http://localhost.example"), "endpoint"},
		{at("http://127.0.0.1.example"), "endpoint"},
		{at("https://collector.example/%zz"), "endpoint"},
		{header("", "SECRET"), "headers"},
		{header("a b", "SECRET"), "headers"},
		{header("a:", "SECRET"), "headers"},
		{header("Host", "SECRET"), "headers"},
		{header("content-TYPE", "SECRET"), "headers"},
		{header("Content-Length", "SECRET"), "headers"},
		{header("Transfer-Encoding", "SECRET"), "headers"},
		{header("Connection", "SECRET"), "headers"},
		{header("a", "SECRET\r\nb: c"), "headers"},
		{header("a", "SECRET\x7f"), "headers"},
		{header("a", "SECRET\t"), "headers"},
		{header("a", "SECRET\u00e9"), "headers"},
		{header("a", strings.Repeat("SECRET", 8<<10)), "headers"},
		{with(otlp.Config{Headers: many(33)}), "headers"},
		{with(otlp.Config{Resource: many(65)}), "resource"},
		{with(otlp.Config{Timeout: -1}), "timeout"},
		{with(otlp.Config{Timeout: -1, SpanDelay: -1}), "timeout"},
		{with(otlp.Config{RetryFor: -1}), "retry_for"},
		{with(otlp.Config{Queue: -1}), "max_queued_spans"},
		{with(otlp.Config{Queue: 65537}), "max_queued_spans"},
		{with(otlp.Config{Batch: -1}), "max_batch"},
		{with(otlp.Config{Queue: 65536, Batch: 2049}), "max_batch"},
		{with(otlp.Config{Queue: 10, Batch: 11}), "max_batch"},
		{with(otlp.Config{SpanDelay: -1}), "span_delay"},
		{with(otlp.Config{MetricPeriod: -time.Second}), "metric_period"},
	} {
		e, err := otlp.Start(c.config, otlp.Inputs{})
		var a *attest.Error
		if e != nil || !errors.As(err, &a) || a.Code != attest.CodeConfigValue || a.Subject != c.place || a.Want == "" || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: got %v", c.place, err)
		}
	}
	if e, err := otlp.Start(otlp.Config{}, otlp.Inputs{}); e != nil || attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("no endpoint: %v", err)
	}
	for _, c := range []otlp.Config{
		at("https://collector.example"), at("https://collector.example:4318/base/"), at("http://localhost:4318"), at("http://127.0.0.1"), at("http://127.9.9.9:1"), at("http://[::1]:4318"),
		{Endpoint: "http://collector.example", UnsafePlaintextToOtherMachines: true},
		{Endpoint: localhost, Queue: 1},
		{Endpoint: localhost, Queue: 65536, Batch: 2048},
		{Endpoint: localhost, Headers: many(32), Resource: many(64)},
		header("Authorization", "Bearer a+b/c=="),
	} {
		e, err := otlp.Start(c, otlp.Inputs{})
		if err != nil {
			t.Error(err)
			continue
		}
		if err := e.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// Whichever way headers are printed, they don't show.
func TestHeadersAreSecret(t *testing.T) {
	c := otlp.Config{Endpoint: localhost, Headers: otlp.Headers{"authorization": "SECRET"}}
	var b strings.Builder
	for _, h := range []slog.Handler{slog.NewTextHandler(&b, nil), slog.NewJSONHandler(&b, nil)} {
		slog.New(h).Info("x", "config", c, "headers", c.Headers, "pointer", &c)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Error(err)
	}
	b.Write(raw)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		fmt.Fprintf(&b, verb, c)
		fmt.Fprintf(&b, verb, c.Headers)
	}
	fmt.Fprintln(&b, c, c.Headers)
	if got := b.String(); strings.Contains(got, "SECRET") || strings.Contains(got, "534543524554") || strings.Contains(got, "authorization") || !strings.Contains(got, "[1 headers]") {
		t.Error(got)
	}
}
