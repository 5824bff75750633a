package proxy_test

import (
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
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

// BenchmarkConnection: a connection that echoes a byte, to a listener that has nothing to tell apart, and to one that has.
func BenchmarkConnection(b *testing.B) {
	echo := rawOrigin(b, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	all := config.Serving{Plain: true, TCP: true, Cluster: "echo"}
	for _, l := range []config.Listener{
		{Name: "alone", Serving: all},
		{Name: "destination", Chains: []config.Chain{serving("a", chain.Match{PrefixRanges: []string{"127.0.0.0/8"}}, all), serving("b", isTLS, all)}},
		{Name: "hello", Chains: []config.Chain{serving("a", isRaw, all), serving("b", isTLS, all)}},
	} {
		b.Run(l.Name, func(b *testing.B) {
			build, r := newBuilder(b), running(b)
			l.Address = "p"
			apply(b, r, &config.Config{Listeners: []config.Listener{l}, Clusters: []config.Cluster{clusterOf("echo", echo)}}, "", build)
			addr, p := build.address("p"), []byte("x")
			b.ReportAllocs()
			for b.Loop() {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = c.Write(p)
				if _, err := io.ReadFull(c, p); err != nil {
					b.Fatal(err)
				}
				c.Close()
			}
		})
	}
}
