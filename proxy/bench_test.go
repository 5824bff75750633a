package proxy_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

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

// BenchmarkApplyChains: one of 5,000 chains changes.
func BenchmarkApplyChains(b *testing.B) {
	build, r := newBuilder(b), running(b)
	c := &config.Config{Clusters: []config.Cluster{clusterOf("c", "127.0.0.1:1")}, Listeners: []config.Listener{{Address: "p"}}}
	l := &c.Listeners[0]
	for i := range 5000 {
		m := chain.Match{DestinationPorts: []uint16{443}, PrefixRanges: []string{fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255)}}
		l.Chains = append(l.Chains, serving(fmt.Sprint(i), m, config.Serving{Plain: true, TCP: i%2 == 0, Cluster: "c"}))
	}
	apply(b, r, c, "", build)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		l.Chains = slices.Clone(l.Chains)
		l.Chains[n%5000].Times.Tunnel = time.Duration(n+1) * time.Second
		apply(b, r, c, "", build)
	}
}
