package proxy_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
)

// echoing gives back what it is sent, behind a line with its name.
func echoing(t testing.TB, name string) string {
	return rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, name+"\n")
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
}

// serving is a chain in short.
func serving(name string, m chain.Match, s config.Serving) config.Chain {
	return config.Chain{Name: name, Match: m, Serving: s}
}

var (
	isTLS = chain.Match{TransportProtocol: chain.TLS}
	isRaw = chain.Match{TransportProtocol: chain.Raw}
)

func ofName(names ...string) chain.Match { return chain.Match{ServerNames: names} }

// told is what is known of a listener's chain, or of all of it.
func statsOf(t testing.TB, r *proxy.Runtime, listener, chain string) proxy.Stats {
	t.Helper()
	for _, l := range r.Listeners() {
		if l.Name != listener {
			continue
		}
		if chain == "" {
			return l.Stats
		}
		for _, c := range l.Chains {
			if c.Name == chain {
				return c.Stats
			}
		}
	}
	t.Fatalf("no %s %s", listener, chain)
	return proxy.Stats{}
}

// asks is an HTTP client that asks for a server name in a new connection, and answers who that was for.
func asksFor(t testing.TB, addr, name string, protocols ...string) (string, error) {
	t.Helper()
	c, err := asking(t.Context(), addr, &tls.Config{ServerName: name, NextProtos: protocols, MinVersion: tls.VersionTLS13})
	if err != nil {
		return "", err
	}
	defer c.Close()
	return whose(c)
}

func whose(c net.Conn) (string, error) {
	fmt.Fprint(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	got, err := io.ReadAll(c)
	_, from, ok := strings.Cut(string(got), "X-From: ")
	if !ok {
		return "", fmt.Errorf("%w: %q", err, got)
	}
	from, _, _ = strings.Cut(from, "\r\n")
	return from, nil
}

// line reads one.
func line(t testing.TB, c net.Conn) string {
	t.Helper()
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	var got []byte
	for p := make([]byte, 1); ; {
		if _, err := c.Read(p); err != nil {
			t.Fatalf("%v behind %q", err, got)
		}
		if p[0] == '\n' {
			return string(got)
		}
		got = append(got, p[0])
	}
}

func dialed(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

// everybody is one port for several kinds of clients.
func everybody(t testing.TB) *config.Config {
	return &config.Config{
		Listeners: []config.Listener{{
			Address: "all",
			Limits:  config.Limits{Times: config.Times{Header: 500 * time.Millisecond}},
			Chains: []config.Chain{
				serving("session", chain.Match{ApplicationProtocols: []string{"jurat/1"}}, config.Serving{Passthrough: []config.Passthrough{{Names: []string{"*"}, Cluster: "session"}}}),
				serving("a", ofName("a.example"), config.Serving{HTTP: allTo("a")}),
				serving("b", ofName("*.example"), config.Serving{Cluster: "b"}),
				serving("through", ofName("through.example"), config.Serving{Passthrough: []config.Passthrough{{Names: []string{"*"}, Cluster: "through"}}}),
				serving("tcp", ofName("tcp.example"), config.Serving{TCP: true, Cluster: "echo"}),
				serving("raw", isRaw, config.Serving{Plain: true, TCP: true, Cluster: "echo"}),
			},
			Serving: config.Serving{Cluster: "rest"},
		}},
		Clusters: []config.Cluster{
			clusterOf("a", says(t, "a")), clusterOf("b", says(t, "b")), clusterOf("rest", says(t, "rest")), clusterOf("echo", echoing(t, "echo")),
			clusterOf("through", tlsOrigin(t, "through.example", nil)), clusterOf("session", tlsOrigin(t, "session", nil, "jurat/1")),
		},
	}
}

// opaque runs a test also with connections that have no descriptor.
func opaque(t *testing.T, f func(t *testing.T, b *builder)) {
	for _, bare := range []bool{false, true} {
		t.Run(map[bool]string{false: "descriptors", true: "none"}[bare], func(t *testing.T) {
			b := newBuilder(t)
			b.bare = bare
			f(t, b)
		})
	}
}

// TestChains: clients of one port come to what they are for, and every byte of theirs does.
func TestChains(t *testing.T) {
	opaque(t, func(t *testing.T, build *builder) {
		r := running(t)
		apply(t, r, everybody(t), "1", build)
		addr := build.address("all")
		for _, c := range []struct {
			name      string
			protocols []string
			want      string
		}{
			{"a.example", nil, "a"},
			{"a.example", []string{"http/1.1"}, "a"},
			{"b.example", nil, "b"},
			{"a.b.example", nil, "b"},
			{"other", nil, "rest"},
			{"", nil, "rest"},
		} {
			if got, err := asksFor(t, addr, c.name, c.protocols...); got != c.want {
				t.Errorf("%q %q: %q, %v", c.name, c.protocols, got, err)
			}
		}
		// More specific in its name, a.example has no protocol that is listed beside another name. All others have.
		for name, want := range map[string]string{"through.example": "through.example", "other": "session", "": "session"} {
			if got := served(t, addr, &tls.Config{ServerName: name, NextProtos: []string{"jurat/1"}}); got != want {
				t.Errorf("%q: %q", name, got)
			}
		}
		if _, err := asking(t.Context(), addr, &tls.Config{ServerName: "other", NextProtos: []string{"jurat/11"}}); err == nil || err.Error() != noProtocol {
			t.Errorf("a protocol that begins like one that is listed: %v", err)
		}
		// Raw bytes, and bytes in TLS, in any pieces, and with all of them sent ahead.
		body, _ := io.ReadAll(randomBytes(3, 300_000))
		body[0] = 'x'
		for _, n := range []int{1, 1000, len(body)} {
			sent := body[:min(len(body), 100*n)]
			raw := dialed(t, addr)
			go func() {
				_, _ = inBits{raw, n}.Write(sent)
				_ = raw.CloseWrite()
			}()
			if got, err := io.ReadAll(raw); err != nil || string(got) != "echo\n"+string(sent) {
				t.Errorf("raw in pieces of %d: %d of %d bytes, %v", n, len(got), len(sent), err)
			}
			over := tls.Client(inBits{dialed(t, addr), n}, &tls.Config{InsecureSkipVerify: true, ServerName: "tcp.example"})
			go func() {
				_, _ = over.Write(sent)
				_ = over.CloseWrite()
			}()
			if got, err := io.ReadAll(over); err != nil || string(got) != "echo\n"+string(sent) {
				t.Errorf("TLS in pieces of %d: %d of %d bytes, %v", n, len(got), len(sent), err)
			}
			over.Close()
		}
		// The first byte alone may be that of TLS.
		for _, say := range []string{"\x16", "\x16\x02 and so on", "\x80"} {
			raw := dialed(t, addr)
			_, _ = io.WriteString(raw, say)
			if say == "\x16" {
				until(t, "the refusal", func() bool { return statsOf(t, r, "all", "").Refused[attest.CodeTimeout] == 1 })
				continue
			}
			if got := line(t, raw); got != "echo" {
				t.Errorf("%q: %q", say, got)
			}
			_ = raw.CloseWrite()
			if got, err := io.ReadAll(raw); err != nil || string(got) != say {
				t.Errorf("%q: %q, %v", say, got, err)
			}
		}
		until(t, "all to end", func() bool { return statsOf(t, r, "all", "").Active == 0 })
		var sum, bytes uint64
		for _, l := range r.Listeners() {
			if len(l.Chains) != 7 || l.Chains[0].Name != "session" || l.Chains[6].Name != "default" {
				t.Fatalf("%+v", l.Chains)
			}
			for _, c := range l.Chains {
				sum, bytes = sum+c.Stats.Accepted, bytes+c.Stats.BytesIn
			}
		}
		all := statsOf(t, r, "all", "")
		if all.Accepted != sum+1 || all.BytesIn != bytes || bytes < 600_000 {
			t.Errorf("%d connections of %d, %d bytes of %d", sum, all.Accepted, bytes, all.BytesIn)
		}
		if n := statsOf(t, r, "all", "raw"); n.Accepted != 5 || n.Handshakes != 5 {
			t.Errorf("raw: %+v", n)
		}
		if n := statsOf(t, r, "all", "a"); n.Accepted != 2 || n.Requests != 2 || all.Requests != 6 {
			t.Errorf("a: %+v, all: %+v", n, all)
		}
	})
}

// TestChainsRefuse: what is for no chain, or does not say enough, is closed and counted, and reaches nobody.
func TestChainsRefuse(t *testing.T) {
	reached := make(chan struct{}, 100)
	c := &config.Config{
		Listeners: []config.Listener{{
			Address: "p", Limits: config.Limits{Times: config.Times{Header: 100 * time.Millisecond}},
			Chains: []config.Chain{serving("a", chain.Match{ServerNames: []string{"a.example"}, TransportProtocol: chain.TLS}, config.Serving{Passthrough: []config.Passthrough{{Names: []string{"*"}, Cluster: "c"}}})},
		}},
		Clusters: []config.Cluster{clusterOf("c", rawOrigin(t, func(*net.TCPConn) { reached <- struct{}{} }))},
	}
	// With a chain for what is not TLS beside it, what begins like TLS is none of that either.
	beside := &config.Config{Listeners: []config.Listener{c.Listeners[0]}, Clusters: c.Clusters}
	beside.Listeners[0].Chains = append(slices.Clone(c.Listeners[0].Chains), serving("raw", isRaw, config.Serving{Plain: true, TCP: true, Cluster: "c"}))
	opaque(t, func(t *testing.T, build *builder) {
		for name, tt := range map[string]struct {
			say  string
			ends bool
			want attest.Code
		}{
			"plain":        {"GET / HTTP/1.1\r\n", false, attest.CodeNoChain},
			"other name":   {clientHello(t, "b.example"), false, attest.CodeNoChain},
			"nothing":      {"", false, attest.CodeTimeout},
			"at once over": {"", true, attest.CodeHandshake},
			"half":         {clientHello(t, "a.example")[:100], false, attest.CodeTimeout},
			"half an end":  {clientHello(t, "a.example")[:100], true, attest.CodeHandshake},
			"malformed":    {"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", false, attest.CodeHandshake},
			"no hello":     {"\x16\x03\x01\x00\x06\x02\x00\x00\x02\x03\x03", false, attest.CodeHandshake},
			"too long":     {"\x16\x03\x01\x40\x00\x01\x00\x40\x01", false, attest.CodeHandshake},
		} {
			for kind, c := range map[string]*config.Config{"alone": c, "beside": beside} {
				if name == "plain" && c == beside {
					continue
				}
				t.Run(name+" "+kind, func(t *testing.T) {
					r := running(t)
					apply(t, r, c, "1", build)
					conn := dialed(t, build.address("p"))
					_, _ = io.WriteString(conn, tt.say)
					if tt.ends {
						_ = conn.CloseWrite()
					}
					began := time.Now()
					if got, _ := io.ReadAll(conn); len(got) > 0 {
						t.Errorf("got %q", got)
					}
					if tt.want != attest.CodeTimeout && time.Since(began) > 5*time.Second {
						t.Errorf("it took %v", time.Since(began))
					}
					until(t, "the refusal", func() bool { return statsOf(t, r, "p", "").Refused[tt.want] == 1 })
					if s := statsOf(t, r, "p", ""); s.Active != 0 || s.Accepted != 1 || len(s.Refused) != 1 {
						t.Errorf("counted %+v", s)
					}
				})
			}
		}
	})
	select {
	case <-reached:
		t.Error("the service was reached")
	default:
	}
}

// TestChainsServerFirst: where the ClientHello makes no difference, nobody waits for it.
func TestChainsServerFirst(t *testing.T) {
	build, r := newBuilder(t), running(t)
	apply(t, r, &config.Config{
		Listeners: []config.Listener{{Address: "p", Chains: []config.Chain{
			serving("local", chain.Match{SourceType: chain.Local}, config.Serving{Plain: true, TCP: true, Cluster: "c"}),
			serving("elsewhere", chain.Match{DestinationPorts: []uint16{1}, ServerNames: []string{"a"}}, config.Serving{Plain: true, TCP: true, Cluster: "c"}),
		}}},
		Clusters: []config.Cluster{clusterOf("c", echoing(t, "first"))},
	}, "1", build)
	if got := line(t, dialed(t, build.address("p"))); got != "first" {
		t.Errorf("got %q", got)
	}
}

// TestChainsBehindProxy: the addresses in a PROXY header are what connections are told apart by, and those who may say so are too.
func TestChainsBehindProxy(t *testing.T) {
	opaque(t, func(t *testing.T, build *builder) {
		r := running(t)
		apply(t, r, &config.Config{
			Listeners: []config.Listener{{
				Address: "p", ProxyProtocol: []string{"127.0.0.0/8"},
				Chains: []config.Chain{
					serving("443", chain.Match{DestinationPorts: []uint16{443}, ServerNames: []string{"a.example"}}, config.Serving{Cluster: "a"}),
					serving("net", chain.Match{PrefixRanges: []string{"198.51.100.0/24"}}, config.Serving{Plain: true, TCP: true, Cluster: "b"}),
					serving("source", chain.Match{SourceRanges: []string{"192.0.2.7"}, SourcePorts: []uint16{7}, DirectSourceRanges: []string{"127.0.0.1"}}, config.Serving{Plain: true, TCP: true, Cluster: "c"}),
				},
			}},
			Clusters: []config.Cluster{clusterOf("a", says(t, "a")), clusterOf("b", echoing(t, "b")), clusterOf("c", echoing(t, "c"))},
		}, "1", build)
		addr := build.address("p")
		c := dialed(t, addr)
		fmt.Fprint(c, "PROXY TCP4 192.0.2.7 203.0.113.1 7 443\r\n")
		over := tls.Client(c, &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
		if got, err := whose(over); got != "a" {
			t.Errorf("got %q, %v", got, err)
		}
		for header, want := range map[string]string{
			"PROXY TCP4 192.0.2.7 198.51.100.9 7 80\r\n": "b",
			"PROXY TCP4 192.0.2.7 203.0.113.1 7 80\r\n":  "c",
		} {
			c := dialed(t, addr)
			fmt.Fprint(c, header, "and all behind it")
			got := make([]byte, len(want+"\nand all behind it"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != want+"\nand all behind it" {
				t.Errorf("%s: %q, %v", header, got, err)
			}
		}
		for header, want := range map[string]attest.Code{
			"PROXY TCP4 192.0.2.7 203.0.113.1 8 80\r\n": attest.CodeNoChain,
			"PROXY TCP4 192.0.2.8 203.0.113.1 7 80\r\n": attest.CodeNoChain,
			"GET / HTTP/1.1\r\n":                        attest.CodeProxyHeader,
		} {
			before := statsOf(t, r, "p", "").Refused[want]
			c := dialed(t, addr)
			fmt.Fprint(c, header)
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("%s: %q", header, got)
			}
			until(t, "the refusal", func() bool { return statsOf(t, r, "p", "").Refused[want] == before+1 })
		}
	})
}

// TestChainsChange: a change of some chains leaves the connections of the others alone.
func TestChainsChange(t *testing.T) {
	a, b, echo := says(t, "a"), says(t, "b"), echoing(t, "echo")
	build, r := newBuilder(t), running(t)
	clusters := []config.Cluster{clusterOf("a", a), clusterOf("b", b), clusterOf("echo", echo)}
	raw := serving("raw", isRaw, config.Serving{Plain: true, TCP: true, Cluster: "echo"})
	routed := serving("routed", ofName("routed.example"), config.Serving{HTTP: allTo("a")})
	at := func(chains ...config.Chain) *config.Config {
		return &config.Config{Listeners: []config.Listener{{Address: "p", Chains: chains}}, Clusters: clusters}
	}
	with := func(c config.Chain, f func(*config.Chain)) config.Chain { f(&c); return c }
	apply(t, r, at(raw, routed, serving("c", ofName("c.example"), config.Serving{Cluster: "a"})), "1", build)
	addr := build.address("p")

	tunnel := dialed(t, addr)
	fmt.Fprint(tunnel, "x")
	line(t, tunnel)
	echoes := func(when string) {
		t.Helper()
		word := make([]byte, 1)
		if _, err := io.ReadFull(tunnel, word); err != nil || word[0] != 'x' {
			t.Fatalf("%s: %q, %v", when, word, err)
		}
		fmt.Fprint(tunnel, "x")
	}
	keep := func(name string) *http.Client {
		return client(t, func(string) dialFunc {
			return func(ctx context.Context) (net.Conn, error) {
				return asking(ctx, addr, &tls.Config{ServerName: name, NextProtos: []string{"http/1.1"}})
			}
		}, "http/1.1")
	}
	h, other := keep("routed.example"), keep("c.example")
	from := func(h *http.Client) string {
		res, _ := get(t, h, "http://x/")
		return res.Header.Get("X-From")
	}
	counts := func(listener, routed, c uint64) {
		t.Helper()
		if got := statsOf(t, r, "p", "").Accepted; got != listener {
			t.Errorf("%d connections, want %d", got, listener)
		}
		if got := statsOf(t, r, "p", "routed").Accepted; got != routed {
			t.Errorf("%d connections of routed, want %d", got, routed)
		}
		if got := statsOf(t, r, "p", "c").Accepted; c > 0 && got != c {
			t.Errorf("%d connections of c, want %d", got, c)
		}
	}
	if got := from(h) + from(other); got != "aa" {
		t.Fatal(got)
	}
	counts(3, 1, 1)

	// Routes of one, the cluster of another, the order of all, and a match.
	raw.Match, routed.Match = chain.Match{TransportProtocol: chain.Raw, DestinationPorts: nil}, ofName("routed.example", "more.example")
	routed = with(routed, func(c *config.Chain) { c.HTTP = allTo("b") })
	apply(t, r, at(serving("c", ofName("c.example"), config.Serving{Cluster: "b"}), routed, raw), "1", build)
	echoes("after the change of others")
	if got := from(h); got != "b" {
		t.Errorf("another route: %q", got)
	}
	counts(3, 1, 1)
	if res, _ := get(t, other, "http://x/"); res.Header.Get("X-From") != "a" || !res.Close {
		t.Errorf("the old chain: %q, close: %v", res.Header.Get("X-From"), res.Close)
	}
	if got := from(other); got != "b" {
		t.Errorf("the new chain: %q", got)
	}
	counts(4, 1, 2)
	if got, err := asksFor(t, addr, "more.example"); got != "b" {
		t.Errorf("another name of a chain that stays: %q, %v", got, err)
	}
	counts(5, 2, 2)

	// A name that the chain is for no more: who has come by it may come again.
	routed.Match = ofName("more.example")
	narrow := with(routed, func(c *config.Chain) {})
	apply(t, r, at(serving("c", ofName("c.example"), config.Serving{Cluster: "b"}), narrow, raw), "1", build)
	if res, _ := get(t, h, "http://x/"); !res.Close {
		t.Error("a connection goes on that the chain is not for")
	}
	routed.Match = ofName("routed.example", "more.example")
	apply(t, r, at(serving("c", ofName("c.example"), config.Serving{Cluster: "b"}), routed, raw), "1", build)
	echoes("after a narrower match")
	if got := from(h); got != "b" {
		t.Errorf("another name of a chain that is back: %q", got)
	}
	counts(6, 3, 2)

	// What is wrong changes nothing.
	for name, wrong := range map[string]config.Chain{
		"match":     serving("new", ofName("c.example"), config.Serving{Cluster: "a"}),
		"name":      serving("c", ofName("new.example"), config.Serving{Cluster: "a"}),
		"malformed": serving("new", ofName("*"), config.Serving{Cluster: "a"}),
		"cluster":   serving("new", ofName("new.example"), config.Serving{Cluster: "nobody"}),
		"nothing":   serving("new", ofName("new.example"), config.Serving{}),
		"require":   serving("new", ofName("new.example"), config.Serving{Plain: true, Require: "p", Cluster: "a"}),
	} {
		c := at(serving("c", ofName("c.example"), config.Serving{Cluster: "a"}), with(routed, func(c *config.Chain) { c.HTTP = allTo("a") }), wrong)
		err := r.Apply(t.Context(), c, "1", build)
		var coded *attest.Error
		if !errors.As(err, &coded) || !strings.HasPrefix(coded.Subject, "p") {
			t.Errorf("%s: %v", name, err)
		}
		if err := r.Apply(t.Context(), &config.Config{Listeners: append(at(routed).Listeners, config.Listener{Address: "taken", Serving: config.Serving{Cluster: "a"}}), Clusters: clusters}, "1", build); err == nil {
			t.Error("taken")
		}
		if got := from(h) + from(other); got != "bb" {
			t.Errorf("%s: %q", name, got)
		}
		echoes(name)
	}
	counts(6, 3, 2)

	// A chain goes. What it has counted counts on for the listener.
	all := statsOf(t, r, "p", "")
	apply(t, r, at(raw, routed), "1", build)
	if s := statsOf(t, r, "p", ""); s.Requests < all.Requests || s.Accepted != 6 || s.Handshakes < all.Handshakes {
		t.Errorf("%+v, then %+v", all, s)
	}
	if res, _ := get(t, other, "http://x/"); res.Header.Get("X-From") != "b" || !res.Close {
		t.Error("a chain that goes lets nothing end")
	}
	until(t, "the end of the old chain", func() bool { return statsOf(t, r, "p", "").Active == 2 })
	if s := statsOf(t, r, "p", ""); s.Requests != all.Requests+1 {
		t.Errorf("%d requests, want %d", s.Requests, all.Requests+1)
	}
	if _, err := asksFor(t, addr, "c.example"); err == nil {
		t.Error("a chain that is no more serves")
	}
	until(t, "the refusal", func() bool { return statsOf(t, r, "p", "").Refused[attest.CodeNoChain] == 1 })
	echoes("after one is gone")

	// The rest comes and goes.
	rest := at(raw, routed)
	rest.Listeners[0].Serving = config.Serving{Cluster: "a"}
	apply(t, r, rest, "1", build)
	if got, err := asksFor(t, addr, "c.example"); got != "a" {
		t.Errorf("got %q, %v", got, err)
	}
	echoes("with the rest")
	if got := from(h); got != "b" {
		t.Errorf("got %q", got)
	}

	// Another epoch is another of all of them.
	before := statsOf(t, r, "p", "")
	apply(t, r, rest, "2", build)
	if res, _ := get(t, h, "http://x/"); !res.Close {
		t.Error("the client is not told to go elsewhere")
	}
	echoes("raw connections have their time")
	if s := statsOf(t, r, "p", ""); s.Requests != before.Requests+1 || s.Accepted != before.Accepted {
		t.Errorf("%+v, then %+v", before, s)
	}
	tunnel.Close()
	until(t, "the end of all", func() bool { return statsOf(t, r, "p", "").Active == 0 })

	// Without chains, and with them again.
	apply(t, r, &config.Config{Listeners: []config.Listener{{Address: "p", Serving: config.Serving{Cluster: "b"}}}, Clusters: clusters}, "2", build)
	if got, err := asksFor(t, addr, "c.example"); got != "b" {
		t.Errorf("got %q, %v", got, err)
	}
	before = statsOf(t, r, "p", "")
	apply(t, r, rest, "2", build)
	if got, err := asksFor(t, addr, "c.example"); got != "a" {
		t.Errorf("got %q, %v", got, err)
	}
	if s := statsOf(t, r, "p", ""); s.Accepted != before.Accepted+1 || s.Requests != before.Requests+1 {
		t.Errorf("%+v, then %+v", before, s)
	}
}

// TestChainsShareLimits: what bounds a port bounds all of its chains together.
func TestChainsShareLimits(t *testing.T) {
	build, r := newBuilder(t), running(t)
	c := everybody(t)
	c.Listeners[0].Limits.Connections = 2
	apply(t, r, c, "1", build)
	addr := build.address("all")
	first := dialed(t, addr)
	fmt.Fprint(first, "x")
	line(t, first)
	over, err := asking(t.Context(), addr, &tls.Config{ServerName: "tcp.example"})
	if err != nil {
		t.Fatal(err)
	}
	line(t, over)
	third := dialed(t, addr)
	fmt.Fprint(third, "x")
	_ = third.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, err := third.Read(make([]byte, 1)); !timeout(err) {
		t.Fatalf("the third: %d, %v", n, err)
	}
	over.Close()
	if got := line(t, third); got != "echo" {
		t.Errorf("got %q", got)
	}

	c = everybody(t)
	c.Listeners[0].Limits = config.Limits{ConnectionsPerPeer: 1}
	apply(t, r, c, "1", build)
	first = dialed(t, addr)
	fmt.Fprint(first, "x")
	line(t, first)
	if _, err := asking(t.Context(), addr, &tls.Config{ServerName: "a.example"}); err == nil {
		t.Error("more than one connection from one address")
	}
	until(t, "the refusal", func() bool { return statsOf(t, r, "all", "").Refused[attest.CodePeerLimit] == 1 })
}

// TestChainsCrowded: clients that say nothing keep nobody out, whatever the others are for.
func TestChainsCrowded(t *testing.T) {
	build, r := newBuilder(t), running(t)
	c := everybody(t)
	c.Listeners[0].Limits = config.Limits{Handshakes: 4, Times: config.Times{Header: time.Minute, Handshake: time.Minute}}
	apply(t, r, c, "1", build)
	addr := build.address("all")
	for range 12 {
		dialed(t, addr)
	}
	for name, want := range map[string]string{"a.example": "a", "b.example": "b", "other": "rest"} {
		if got, err := asksFor(t, addr, name); got != want {
			t.Errorf("%q: %q, %v", name, got, err)
		}
	}
	raw := dialed(t, addr)
	fmt.Fprint(raw, "x")
	if got := line(t, raw); got != "echo" {
		t.Errorf("got %q", got)
	}
}

// TestChainsEnd: with the runtime ends what is on its way to a chain, and nothing is left behind.
func TestChainsEnd(t *testing.T) {
	build, r := newBuilder(t), running(t)
	apply(t, r, everybody(t), "1", build)
	addr := build.address("all")
	waits := dialed(t, addr)
	tunnel := dialed(t, addr)
	fmt.Fprint(tunnel, "x")
	line(t, tunnel)
	until(t, "both to come", func() bool { return statsOf(t, r, "all", "").Accepted == 2 })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if n, err := waits.Read(make([]byte, 1)); err == nil || timeout(err) {
		t.Errorf("who said nothing: %d, %v", n, err)
	}
	got, err := io.ReadAll(tunnel)
	if err == nil {
		t.Errorf("a tunnel that was cut off looks whole: %q", got)
	}
	if s := statsOf(t, r, "all", ""); s.Active != 0 || len(s.Refused) != 0 {
		t.Errorf("%+v", s)
	}
}

// TestChainSwapsUnderLoad: every connection comes to a chain that is there, and every byte of it arrives, however often they change.
func TestChainSwapsUnderLoad(t *testing.T) {
	build, r := newBuilder(t), running(t)
	web := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	echo := echoing(t, "echo")
	at := func(i int) *config.Config {
		c := &config.Config{Clusters: []config.Cluster{clusterOf("http", web), clusterOf("echo", echo), clusterOf(fmt.Sprint("other", i%3), web)}}
		to := "http"
		if i%2 == 1 {
			to = fmt.Sprint("other", i%3)
		}
		l := config.Listener{Address: "p", Chains: []config.Chain{
			serving("web", ofName("web.example"), config.Serving{HTTP: allTo(to)}),
			serving("moves", ofName(fmt.Sprint("m", i, ".example")), config.Serving{Cluster: to}),
			serving("raw", isRaw, config.Serving{Plain: true, TCP: true, Cluster: "echo"}),
		}}
		if i%3 == 0 { // of the chain itself
			l.Chains[0].Times.KeepAlive = time.Duration(i+1) * time.Second
		}
		if i%4 < 2 {
			l.Chains = append(l.Chains, serving("tcp", ofName("tcp.example"), config.Serving{TCP: true, Cluster: "echo"}))
		} else {
			l.Serving = config.Serving{TCP: true, Cluster: "echo"}
		}
		if i%7 == 0 {
			slices.Reverse(l.Chains)
		}
		c.Listeners = []config.Listener{l}
		return c
	}
	apply(t, r, at(0), "0", build)
	addr := build.address("p")
	body, _ := io.ReadAll(randomBytes(7, 40_000))
	body[0] = 'x'
	var all sync.WaitGroup
	var stop atomic.Bool
	var done atomic.Int64
	for i := range 4 {
		alpn := []string{"http/1.1", "h2"}[i%2]
		h := client(t, func(alpn string) dialFunc {
			return func(ctx context.Context) (net.Conn, error) {
				return asking(ctx, addr, &tls.Config{ServerName: "web.example", NextProtos: []string{alpn}})
			}
		}, alpn)
		all.Go(func() {
			for n := 1; !stop.Load(); n++ {
				want := body[:(n*7919)%len(body)]
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", bytes.NewReader(want))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := h.Do(req)
				if err != nil {
					t.Errorf("%s: request %d: %v", alpn, n, err)
					continue
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || !bytes.Equal(got, want) {
					t.Errorf("request %d: %d, %d of %d bytes, %v", n, res.StatusCode, len(got), len(want), err)
				}
				done.Add(1)
			}
		})
	}
	for i := range 4 {
		all.Go(func() {
			for !stop.Load() {
				var c interface {
					net.Conn
					CloseWrite() error
				}
				var err error
				if i%2 == 0 {
					var raw net.Conn
					if raw, err = net.Dial("tcp", addr); err == nil {
						c = raw.(*net.TCPConn)
					}
				} else {
					c, err = asking(t.Context(), addr, &tls.Config{ServerName: "tcp.example"})
				}
				if err != nil {
					t.Error(err)
					continue
				}
				go func() {
					_, _ = c.Write(body)
					_ = c.CloseWrite()
				}()
				if got, err := io.ReadAll(c); err != nil || string(got) != "echo\n"+string(body) {
					t.Errorf("%d of %d bytes: %v", len(got), len(body), err)
				}
				c.Close()
				done.Add(1)
			}
		})
	}
	for i := 1; i <= *swaps; i++ {
		apply(t, r, at(i), fmt.Sprint(i/10), build)
		before := done.Load()
		until(t, "connections", func() bool { return done.Load() > before+3 })
	}
	stop.Store(true)
	all.Wait()
	s := statsOf(t, r, "p", "")
	if len(s.Refused) > 0 {
		t.Errorf("refused %v", s.Refused)
	}
	t.Logf("%d requests and connections, %d changes", done.Load(), *swaps)
}

// TestOnwardFromNowhere: what was going nowhere else reaches nobody by a cluster that is where connections were going.
func TestOnwardFromNowhere(t *testing.T) {
	build, r := newBuilder(t), running(t)
	onward, attested := clusterOf("onward"), clusterOf("attested")
	onward.OriginalDestination = &config.OriginalDestination{UnsafePlain: true}
	attested.OriginalDestination, attested.Attested = &config.OriginalDestination{}, &config.Attested{Require: "p"}
	apply(t, r, &config.Config{
		Listeners: []config.Listener{
			{Address: "http", Serving: config.Serving{Cluster: "onward"}},
			{Address: "tcp", Serving: config.Serving{Plain: true, TCP: true, Cluster: "onward"}},
			{Address: "out", Serving: config.Serving{Plain: true, TCP: true, Cluster: "attested"}},
			{Address: "requests", Serving: config.Serving{Plain: true, HTTP: allTo("attested")}},
		},
		Clusters: []config.Cluster{onward, attested},
	}, "1", build)
	if res, _ := get(t, client(t, direct(build.address("http")), "h2"), "http://x/"); res.StatusCode != 503 || res.Header.Get("Jurat-Error") != string(attest.CodeNoEndpoint) {
		t.Errorf("got %d, %v", res.StatusCode, res.Header)
	}
	plain := func(string) dialFunc {
		return func(context.Context) (net.Conn, error) { return net.Dial("tcp", build.address("requests")) }
	}
	if res, _ := get(t, client(t, plain, "http/1.1"), "http://x/"); res.StatusCode != 503 || res.Header.Get("Jurat-Error") != string(attest.CodeNoEndpoint) {
		t.Errorf("got %d, %v", res.StatusCode, res.Header)
	}
	if c, err := net.Dial("tcp", build.address("tcp")); err == nil { // which may be broken off before
		if got, err := io.ReadAll(c); err == nil {
			t.Errorf("got %q", got)
		}
		c.Close()
	}
	c := dialed(t, build.address("out"))
	fmt.Fprint(c, "GET / HTTP/1.1\r\n\r\n")
	if got, _ := io.ReadAll(c); !strings.Contains(string(got), "Jurat-Error: "+string(attest.CodeNoEndpoint)) {
		t.Errorf("got %q", got)
	}
}

// TestChainsDetectHTTP: what is not TLS has the protocol that it begins like, where that makes a difference.
func TestChainsDetectHTTP(t *testing.T) {
	opaque(t, func(t *testing.T, build *builder) {
		r := running(t)
		plain := func(cluster string) config.Serving { return config.Serving{Plain: true, Cluster: cluster} }
		raw := config.Serving{Plain: true, TCP: true, Cluster: "echo"}
		apply(t, r, &config.Config{
			Listeners: []config.Listener{{
				Address: "p", DetectHTTP: true, Limits: config.Limits{Times: config.Times{Header: 300 * time.Millisecond}},
				Chains: []config.Chain{
					serving("one", chain.Match{TransportProtocol: chain.Raw, ApplicationProtocols: []string{"http/1.1"}}, plain("one")),
					serving("two", chain.Match{TransportProtocol: chain.Raw, ApplicationProtocols: []string{"h2c"}}, plain("two")),
					serving("tls", chain.Match{TransportProtocol: chain.TLS, ApplicationProtocols: []string{"http/1.1"}}, config.Serving{Cluster: "three"}),
					serving("raw", isRaw, raw),
				},
			}, {
				Address: "beside", DetectHTTP: true, Limits: config.Limits{Times: config.Times{Header: time.Minute}},
				Chains: []config.Chain{serving("tls", chain.Match{TransportProtocol: chain.TLS, ApplicationProtocols: []string{"h2"}}, raw), serving("raw", isRaw, raw)},
			}},
			Clusters: []config.Cluster{clusterOf("one", says(t, "one")), clusterOf("two", says(t, "two")), clusterOf("three", says(t, "three")), clusterOf("echo", echoing(t, "echo"))},
		}, "1", build)
		addr := build.address("p")
		for alpn, want := range map[string]string{"http/1.1": "one", "h2": "two"} {
			h := client(t, func(string) dialFunc { return func(context.Context) (net.Conn, error) { return net.Dial("tcp", addr) } }, alpn)
			if res, _ := get(t, h, "http://x/"); res.Header.Get("X-From") != want {
				t.Errorf("%s: %q", alpn, res.Header.Get("X-From"))
			}
		}
		if got, err := asksFor(t, addr, "a.example", "http/1.1"); got != "three" {
			t.Errorf("in TLS: %q, %v", got, err)
		}
		for _, say := range []string{"GET / HTTP/1.0\r\n\r\n", "GET", "PRI * HTTP/2.0\r\n\r\nS", "EHLO x\r\n", "\x00", strings.Repeat("A", 40_000), "GET /" + strings.Repeat("a", 40_000)} {
			c := dialed(t, addr)
			go func() {
				_, _ = io.WriteString(c, say)
				_ = c.CloseWrite()
			}()
			if got, err := io.ReadAll(c); err != nil || string(got) != "echo\n"+say {
				t.Errorf("%.40q: %d bytes, %v", say, len(got), err)
			}
		}
		for n, say := range []string{"", "GET /"} {
			c := dialed(t, addr)
			_, _ = io.WriteString(c, say)
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("%q: %q", say, got)
			}
			until(t, "the refusal", func() bool { return statsOf(t, r, "p", "").Refused[attest.CodeTimeout] == uint64(n)+1 })
		}
		// Where it makes none, one byte is enough.
		c := dialed(t, build.address("beside"))
		_, _ = io.WriteString(c, "G")
		if got := line(t, c); got != "echo" {
			t.Errorf("got %q", got)
		}
	})
}
