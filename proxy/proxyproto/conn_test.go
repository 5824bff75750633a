package proxyproto_test

import (
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"reflect"
	"syscall"
	"testing"

	"github.com/jurat-tls/jurat/proxy/proxyproto"
)

// pair is the two ends of a connection.
func pair(t *testing.T, network, address string) (client, server net.Conn) {
	t.Helper()
	ln, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if client, err = net.Dial(network, ln.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if server, err = ln.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		client.Close()
		server.Close()
	})
	return client, server
}

func TestConn(t *testing.T) {
	h := tcp(2, "192.0.2.1:443", "[::ffff:198.51.100.2]:80")
	for _, network := range []string{"tcp", "unix"} {
		address := "127.0.0.1:0"
		if network == "unix" {
			address = filepath.Join(t.TempDir(), "s")
		}
		client, raw := pair(t, network, address)
		c := proxyproto.NewConn(raw, h)
		if c.RemoteAddr().String() != "192.0.2.1:443" || c.LocalAddr().String() != "198.51.100.2:80" {
			t.Errorf("%s: from %s to %s", network, c.RemoteAddr(), c.LocalAddr())
		}
		// What an event loop needs of a connection.
		described, ok := c.(syscall.Conn)
		if !ok {
			t.Fatalf("%s: without a descriptor", network)
		}
		if rc, err := described.SyscallConn(); err != nil || rc.Control(func(uintptr) {}) != nil {
			t.Errorf("%s: %v", network, err)
		}
		half, ok := c.(interface{ CloseWrite() error })
		if !ok {
			t.Fatalf("%s: can't end one direction", network)
		}
		_, _ = io.WriteString(c, "hello")
		if err := half.CloseWrite(); err != nil {
			t.Error(err)
		}
		if got, err := io.ReadAll(client); err != nil || string(got) != "hello" {
			t.Errorf("%s: got %q, %v", network, got, err)
		}
		if network == "tcp" {
			if _, ok := c.(interface{ SetLinger(int) error }); !ok {
				t.Error("can't be reset")
			}
		}
	}
}

func TestConnKinds(t *testing.T) {
	a, b := net.Pipe()
	defer a.Close()
	defer b.Close()
	unix := proxyproto.Header{Kind: proxyproto.Unix, SourcePath: "\x00abstract", DestinationPath: "/run/x"}
	for _, tt := range []struct {
		h           proxyproto.Header
		remote, net string
	}{
		{tcp(1, "[2001:db8::1]:1", "[::1]:2"), "[2001:db8::1]:1", "tcp"},
		{with(tcp(2, "192.0.2.1:1", "192.0.2.2:2"), func(h *proxyproto.Header) { h.Kind = proxyproto.UDP }), "192.0.2.1:1", "udp"},
		{unix, "@abstract", "unix"},
		{with(unix, func(h *proxyproto.Header) { h.Kind = proxyproto.UnixDatagram }), "@abstract", "unixgram"},
	} {
		if got := proxyproto.NewConn(a, tt.h).RemoteAddr(); got.String() != tt.remote || got.Network() != tt.net {
			t.Errorf("%+v: from %s %s", tt.h, got.Network(), got)
		}
	}
	if got := proxyproto.NewConn(a, unix).LocalAddr().String(); got != "/run/x" {
		t.Errorf("to %s", got)
	}
	for _, h := range []proxyproto.Header{{}, local, unknown} {
		if c := proxyproto.NewConn(a, h); c != a {
			t.Errorf("%+v: %T", h, c)
		}
	}
}

type oddAddr struct{}

func (oddAddr) Network() string { return "odd" }
func (oddAddr) String() string  { return "192.0.2.1:1" }

func TestDescribe(t *testing.T) {
	ip := func(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }
	path := func(s string) net.Addr { return &net.UnixAddr{Name: s, Net: "unix"} }
	unix := func(from, to string) proxyproto.Header {
		return proxyproto.Header{Version: 2, Kind: proxyproto.Unix, SourcePath: from, DestinationPath: to}
	}
	nothing := proxyproto.Header{Version: 2, Kind: proxyproto.Unknown}
	for _, tt := range []struct {
		version             int
		source, destination net.Addr
		want                proxyproto.Header
	}{
		{1, ip("192.0.2.1:1"), ip("192.0.2.2:2"), tcp(1, "192.0.2.1:1", "192.0.2.2:2")},
		{2, ip("[::ffff:192.0.2.1]:1"), ip("[::ffff:192.0.2.2]:2"), tcp(2, "192.0.2.1:1", "192.0.2.2:2")},
		{1, ip("[fe80::1%eth0]:1"), ip("[fe80::2%eth0]:2"), tcp(1, "[fe80::1]:1", "[fe80::2]:2")},
		{2, ip("192.0.2.1:1"), ip("[2001:db8::1]:2"), tcp(2, "[::ffff:192.0.2.1]:1", "[2001:db8::1]:2")},
		{2, ip("[2001:db8::1]:1"), ip("192.0.2.1:2"), tcp(2, "[2001:db8::1]:1", "[::ffff:192.0.2.1]:2")},
		{2, &net.TCPAddr{Port: 1}, ip("192.0.2.1:2"), nothing},
		{2, ip("192.0.2.1:2"), &net.TCPAddr{IP: net.IP{1, 2}}, nothing},
		{2, ip("192.0.2.1:1"), path("/a"), nothing},
		{2, path("/a"), ip("192.0.2.1:1"), nothing},
		{2, oddAddr{}, oddAddr{}, nothing},
		{2, nil, nil, nothing},
		{1, path("/a"), path("/b"), unknown},
		{2, path("@"), path("/b"), unix("", "/b")},
		{2, path(""), path("@b"), unix("", "\x00b")},
		{2, path("/a\x00b"), path("/b"), nothing},
		{2, path("/a"), path("/a\x00b"), nothing},
	} {
		got := proxyproto.Describe(tt.version, tt.source, tt.destination)
		if !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%v to %v: got %+v, want %+v", tt.source, tt.destination, got, tt.want)
		}
		if _, err := proxyproto.Append(nil, got); err != nil {
			t.Errorf("%+v can't be written: %v", got, err)
		}
	}
}
