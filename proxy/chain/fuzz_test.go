package chain_test

import (
	"context"
	"crypto/tls"
	"net"
	"testing"

	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/clienthello"
)

// hello is what crypto/tls sends first.
func hello(t testing.TB, name string, protocols ...string) []byte {
	t.Helper()
	near, far := net.Pipe()
	defer far.Close()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = tls.Client(near, &tls.Config{ServerName: name, NextProtos: protocols, InsecureSkipVerify: true}).HandshakeContext(ctx)
	}()
	_, first, err := clienthello.Read(far)
	cancel()
	<-done
	if err != nil {
		t.Fatal(err)
	}
	return first
}

// FuzzFind: whatever a client says first, what it is given to is what the oracle says, whether the matches have words of its own or
// only some that look like them.
func FuzzFind(f *testing.F) {
	f.Add(hello(f, "a.b.c", "h2", "http/1.1"), uint64(1))
	f.Add(hello(f, "x.y.b.c", "jurat/1"), uint64(2))
	f.Add(hello(f, "c"), uint64(3))
	f.Add([]byte("GET / HTTP/1.1\r\n\r\n"), uint64(4))
	f.Fuzz(func(t *testing.T, first []byte, seed uint64) {
		said, err := clienthello.Parse(first)
		c := chain.Conn{Destination: to("10.1.1.1:443"), Source: to("192.0.2.1:1"), TLS: err == nil, ServerName: said.ServerName, Protocols: said.Protocols}
		names, protocols := []string{"a.b.c", "*.b.c", "*.c", "b.c"}, []string{"h2", "http/1.1", "jurat/1"}
		if n := said.ServerName; n != "" {
			names = append(names, n, "*."+n)
		}
		for _, p := range said.Protocols {
			protocols = append(protocols, p, p+" ")
		}
		draw := func(n uint64) uint64 { seed = seed*6364136223846793005 + 1442695040888963407; return seed >> 33 % n }
		bit := func() bool { return draw(2) == 0 }
		some := func(from []string) (all []string) {
			for _, s := range from[:min(len(from), 12)] {
				if draw(4) == 0 {
					all = append(all, s)
				}
			}
			return all
		}
		var matches []chain.Match
		for range 4 {
			m := chain.Match{ServerNames: some(names), ApplicationProtocols: some(protocols)}
			if bit() {
				m.TransportProtocol = chain.TLS
			}
			if bit() {
				m.DestinationPorts = []uint16{443}
			}
			if _, err := chain.Compile(append(matches, m)); err == nil {
				matches = append(matches, m)
			}
		}
		table, err := chain.Compile(matches)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := found(table, c), oracle(matches, c); got != want {
			t.Fatalf("got %d, want %d for %+v among %+v", got, want, c, matches)
		}
	})
}
