package proxy_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
)

// TestRuntimeKinds: every kind of listener that a configuration can have.
func TestRuntimeKinds(t *testing.T) {
	web := says(t, "web")
	secure := tlsOrigin(t, "a.example", nil)
	echo := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
	peer := start(t, inboundTCP(t, shake(affirmed()), echo, proxy.Limits{}, nil))
	r, build := running(t), newBuilder(t)
	attestedPeer := clusterOf("peer", peer)
	attestedPeer.Attested = &config.Attested{Require: "p"}
	headed := clusterOf("headed", echo)
	headed.ProxyProtocol = "v1"
	apply(t, r, &config.Config{
		Listeners: []config.Listener{
			{Address: "http", Serving: config.Serving{To: web}},
			{Address: "balanced", ProxyProtocol: []string{"127.0.0.0/8"}, Serving: config.Serving{To: web}},
			{Address: "passthrough", Serving: config.Serving{Passthrough: []config.Passthrough{{Names: []string{"a.example"}, Cluster: "secure"}}}},
			{Address: "outbound", Serving: config.Serving{Plain: true, TCP: true, Cluster: "peer"}},
			{Address: "forward", Serving: config.Serving{Plain: true, Forward: []config.Forward{{Hosts: []string{"*"}, Require: "p"}}}},
			{Address: "redirected", Transparent: "redirect", Serving: config.Serving{Plain: true, TCP: true, Cluster: "peer"}},
			{Address: "headed", Serving: config.Serving{TCP: true, Cluster: "headed"}},
		},
		Clusters: []config.Cluster{clusterOf("secure", secure), attestedPeer, headed},
	}, "1", build)

	if res, body := get(t, client(t, direct(build.address("http")), "h2"), "http://x/"); res.StatusCode != 200 {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	c, err := net.Dial("tcp", build.address("balanced"))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, "PROXY TCP4 192.0.2.7 192.0.2.8 1 2\r\n")
	over, err := overTLS(t.Context(), c, "http/1.1")
	if err != nil {
		t.Fatalf("behind a header: %v", err)
	}
	over.Close()
	if c, err := dialTLS(t.Context(), build.address("balanced"), "http/1.1"); err == nil {
		c.Close()
		t.Error("taken without a header")
	}
	through, err := tls.Dial("tcp", build.address("passthrough"), &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	if got := make([]byte, 10); true {
		if n, err := io.ReadFull(through, got); err != nil || string(got) != "a.example\n" {
			t.Errorf("got %q, %v", got[:n], err)
		}
	}
	through.Close()
	echoes := func(name string, c net.Conn) {
		defer c.Close()
		fmt.Fprint(c, "hello")
		got := make([]byte, 5)
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "hello" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	if c, err = net.Dial("tcp", build.address("outbound")); err != nil {
		t.Fatal(err)
	}
	echoes("outbound", c)
	if c, err = net.Dial("tcp", build.address("forward")); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "CONNECT %s HTTP/1.1\r\nHost: %s\r\n\r\n", peer, peer)
	if got := make([]byte, len("HTTP/1.1 200")); true {
		if _, err := io.ReadFull(c, got); err != nil || string(got) != "HTTP/1.1 200" {
			t.Errorf("got %q, %v", got, err)
		}
	}
	c.Close()
	// One that nothing redirected would lead to itself.
	if c, err = net.Dial("tcp", build.address("redirected")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1)); err == nil {
		t.Errorf("%d bytes of a connection that nobody redirected", n)
	}
	c.Close()
	for _, l := range r.Listeners() {
		if l.Name == "redirected" && l.Stats.Refused[attest.CodeNotRedirected] != 1 {
			t.Errorf("refused: %v", l.Stats.Refused)
		}
	}
	if over, err = dialTLS(t.Context(), build.address("headed")); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len("PROXY TCP4 "))
	if _, err := io.ReadFull(over, got); err != nil || string(got) != "PROXY TCP4 " {
		t.Errorf("the service was told %q, %v", got, err)
	}
	over.Close()
}

// paced has every listener begin with BBR, as systems do that have it for all connections.
type paced struct{ *builder }

func (p paced) Listen(name string) (net.Listener, error) {
	ln, err := p.builder.Listen(name)
	if err == nil {
		congestion(p.t, ln, "bbr")
	}
	return ln, err
}

// congestion answers what controls the congestion of a socket, after having set it where name is not empty.
func congestion(t testing.TB, ln net.Listener, name string) (now string) {
	t.Helper()
	raw, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	_ = raw.Control(func(fd uintptr) {
		if name != "" {
			err = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name)
		}
		now, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION)
	})
	if err != nil {
		t.Skip(name, "cannot be had here:", err)
	}
	return strings.TrimRight(now, "\x00")
}

// TestListenersEased: what comes in at a loopback address is not paced, but for what the kernel brings there from elsewhere.
func TestListenersEased(t *testing.T) {
	congestion(t, listen(t), "bbr")
	r, build := running(t), newBuilder(t)
	apply(t, r, &config.Config{
		Listeners: []config.Listener{
			{Address: "http", Serving: config.Serving{To: says(t, "web")}},
			{Address: "redirected", Transparent: "redirect", Serving: config.Serving{Plain: true, TCP: true, Cluster: "web"}},
		},
		Clusters: []config.Cluster{clusterOf("web", says(t, "web"))},
	}, "1", paced{build})
	for name, want := range map[string]string{"http": "reno", "redirected": "bbr"} {
		if got := congestion(t, r.Sockets()[name], ""); got != want {
			t.Errorf("%s: got %s, want %s", name, got, want)
		}
	}
}
