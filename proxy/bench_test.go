package proxy_test

import (
	"io"
	"net/http"
	"testing"

	"github.com/jurat-tls/jurat/proxy"
)

func BenchmarkInboundHTTP1(b *testing.B) { benchmarkInbound(b, "http/1.1") }

func BenchmarkInboundHTTP2(b *testing.B) { benchmarkInbound(b, "h2") }

func benchmarkInbound(b *testing.B, alpn string) {
	addr := origin(b, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	in := inboundHTTP(b, shake(affirmed(), "h2", "http/1.1"), addr, proxy.Limits{}, nil)
	c := client(b, direct(start(b, in)), alpn)
	get(b, c, "http://x/")
	b.ReportAllocs()
	for b.Loop() {
		get(b, c, "http://x/")
	}
}
