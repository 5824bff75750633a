package proxy_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/proxyproto"
)

// tlsOrigin is a service that ends TLS itself, says who it is, and echoes.
func tlsOrigin(t testing.TB, name string, before func(net.Conn) error, protos ...string) string {
	return rawOrigin(t, func(raw *net.TCPConn) {
		if before != nil && before(raw) != nil {
			return
		}
		c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{certFor(name)}, NextProtos: protos, MinVersion: tls.VersionTLS12})
		if c.HandshakeContext(context.Background()) != nil {
			return
		}
		_, _ = io.WriteString(c, name+"\n")
		if _, err := io.Copy(c, c); err == nil {
			_ = c.Close()
		}
	})
}

// certFor is a certificate of its own for each service.
func certFor(name string) tls.Certificate { return makeLeaf(name) }

func passthrough(t testing.TB, l proxy.Limits, log *journal, routes ...proxy.PassthroughRoute) *proxy.Server {
	t.Helper()
	if log == nil {
		log = new(journal)
	}
	s, err := proxy.NewPassthrough(engine(t), routes, log.logger(), l)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func through(t testing.TB, to string, names ...string) proxy.PassthroughRoute {
	return proxy.PassthroughRoute{Names: names, To: single(t, backend(t, to))}
}

// single is one service as a cluster.
func single(t testing.TB, b proxy.Backend) *proxy.Cluster {
	t.Helper()
	c, err := b.Cluster(0)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// asking is a client that trusts the service with that name alone.
func asking(ctx context.Context, addr string, c *tls.Config) (*tls.Conn, error) {
	c = c.Clone()
	c.InsecureSkipVerify = true // the certificates of the tests are their own authorities
	d := tls.Dialer{Config: c}
	conn, err := d.DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return conn.(*tls.Conn), nil
}

// served answers which service a client came to, by what that says and by its certificate.
func served(t testing.TB, addr string, c *tls.Config) string {
	t.Helper()
	conn, err := asking(t.Context(), addr, c)
	if err != nil {
		return err.Error()
	}
	defer conn.Close()
	line := make([]byte, 100)
	n, err := conn.Read(line)
	if err != nil {
		return err.Error()
	}
	name := strings.TrimSuffix(string(line[:n]), "\n")
	if got := conn.ConnectionState().PeerCertificates[0].DNSNames; !slices.Equal(got, []string{name}) {
		t.Errorf("the certificate is of %q, the service is %q", got, name)
	}
	return name
}

const (
	unrecognized = "remote error: tls: unrecognized name"
	noProtocol   = "remote error: tls: no application protocol"
)

func TestPassthroughRoutes(t *testing.T) {
	a, b, wild, deep, rest, h2 := tlsOrigin(t, "a.example", nil), tlsOrigin(t, "b.example", nil), tlsOrigin(t, "wild", nil), tlsOrigin(t, "deep", nil), tlsOrigin(t, "rest", nil), tlsOrigin(t, "h2", nil, "h2", "x")
	only := through(t, h2, "h2.example", "*.h2.example")
	only.Protocols = []string{"h2", "x"}
	either := through(t, h2, "either.example")
	either.Protocols = []string{"h2"}
	routes := []proxy.PassthroughRoute{
		through(t, a, "a.example"), through(t, b, "B.Example", "localhost"), through(t, wild, "*.example"), through(t, deep, "*.deep.example"),
		only, either, through(t, a, "either.example"),
	}
	closed := start(t, passthrough(t, proxy.Limits{}, nil, routes...))
	open := start(t, passthrough(t, proxy.Limits{}, nil, append(routes, through(t, rest, "*"))...))
	for _, tt := range []struct {
		name, protos, want string
	}{
		{"a.example", "", "a.example"},
		{"A.EXAMPLE", "", "a.example"},
		{"b.example", "", "b.example"},
		{"localhost", "", "b.example"},
		{"c.example", "", "wild"},
		{"x.a.example", "", "wild"},
		{"deep.example", "", "wild"},
		{"x.deep.example", "", "deep"},
		{"x.y.deep.example", "", "deep"},
		{"example", "", unrecognized},
		{"aexample", "", unrecognized},
		{"other.test", "", unrecognized},
		{"", "", unrecognized},
		{"192.0.2.1", "", unrecognized}, // which is not sent
		{"h2.example", "h2", "h2"},
		{"h2.example", "y,x", "h2"},
		{"x.h2.example", "x", "h2"},
		{"h2.example", "http/1.1", noProtocol},
		{"h2.example", "", noProtocol},
		{"x.h2.example", "", noProtocol},
		{"either.example", "http/1.1,h2", "h2"},
		{"either.example", "http/1.1", "a.example"},
		{"either.example", "", "a.example"},
	} {
		c := &tls.Config{ServerName: tt.name}
		if tt.protos != "" {
			c.NextProtos = strings.Split(tt.protos, ",")
		}
		if got := served(t, closed, c); got != tt.want {
			t.Errorf("%q %s: got %s, want %s", tt.name, tt.protos, got, tt.want)
		}
		if tt.want == unrecognized {
			tt.want = "rest"
		}
		if got := served(t, open, c); got != tt.want {
			t.Errorf("%q %s, with all others: got %s, want %s", tt.name, tt.protos, got, tt.want)
		}
	}
}

// TestPassthrough: many bytes pass both ways, under a key that the proxy does not have, with the ends of directions, and are
// counted as what they are.
func TestPassthrough(t *testing.T) {
	const size = 16 << 20
	cert := certFor("a.example")
	addr := rawOrigin(t, func(raw *net.TCPConn) {
		c := tls.Server(raw, &tls.Config{Certificates: []tls.Certificate{cert}})
		sum := digest(t, c)
		if _, err := c.Write(sum[:]); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(c, randomBytes(2, size)); err != nil {
			t.Error(err)
		}
		_ = c.CloseWrite()
	})
	s := passthrough(t, proxy.Limits{}, nil, through(t, addr, "a.example"))
	pool := x509.NewCertPool()
	x, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(x)
	d := tls.Dialer{Config: &tls.Config{RootCAs: pool, ServerName: "a.example"}}
	raw, err := d.DialContext(t.Context(), "tcp", start(t, s))
	if err != nil {
		t.Fatal(err)
	}
	c := raw.(*tls.Conn)
	defer c.Close()
	if s := s.Stats(); s.Active != 1 || s.Handshakes != 0 || len(s.Bindings) != 0 {
		t.Errorf("counted %+v", s)
	}
	if _, err := io.Copy(c, randomBytes(1, size)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	var sum [32]byte
	if _, err := io.ReadFull(c, sum[:]); err != nil || sum != digest(t, randomBytes(1, size)) {
		t.Errorf("the service got other bytes: %v", err)
	}
	if digest(t, c) != digest(t, randomBytes(2, size)) {
		t.Error("the client got other bytes")
	}
	c.Close()
	until(t, "the end", func() bool { return s.Stats().Active == 0 })
	if s := s.Stats(); s.BytesIn < size || s.BytesIn > size*21/20 || s.BytesOut < size || s.BytesOut > size*21/20 || s.Accepted != 1 || len(s.Refused) != 0 {
		t.Errorf("counted %+v", s)
	}
}

// inBits sends what is written in pieces of n bytes, each on its own.
type inBits struct {
	net.Conn
	n int
}

func (c inBits) Write(p []byte) (int, error) {
	for i := 0; i < len(p); i += c.n {
		if _, err := c.Conn.Write(p[i:min(i+c.n, len(p))]); err != nil {
			return i, err
		}
	}
	return len(p), nil
}

// TestPassthroughPieces: a hello may come in any pieces, and with a large ticket, and versions that we don't speak pass.
func TestPassthroughPieces(t *testing.T) {
	a := tlsOrigin(t, "a.example", nil)
	addr := start(t, passthrough(t, proxy.Limits{}, nil, through(t, a, "a.example")))
	for _, n := range []int{1, 7, 600} {
		for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
			raw, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c := tls.Client(inBits{raw, n}, &tls.Config{InsecureSkipVerify: true, ServerName: "a.example", MaxVersion: version, NextProtos: []string{strings.Repeat("p", 200)}})
			if _, err := io.WriteString(c, "hello"); err != nil {
				t.Fatalf("pieces of %d: %v", n, err)
			}
			got := make([]byte, len("a.example\nhello"))
			if _, err := io.ReadFull(c, got); err != nil || string(got) != "a.example\nhello" {
				t.Errorf("pieces of %d: got %q, %v", n, got, err)
			}
			c.Close()
		}
	}
}

// TestPassthroughRefuses: what is no hello, or none that is sound, reaches nobody.
func TestPassthroughRefuses(t *testing.T) {
	for name, tt := range map[string]struct {
		say  string
		want attest.Code
	}{
		"SSL 2":      {"\x80\x2e\x01\x03\x01", attest.CodeHandshake},
		"alert":      {"\x15\x03\x01\x00\x02\x02\x00", attest.CodeHandshake},
		"too long":   {"\x16\x03\x01\x40\x00\x01\x00\x40\x01", attest.CodeHandshake},
		"broken":     {"\x16\x03\x01\x00\x06\x01\x00\x00\x02\x03\x03", attest.CodeHandshake},
		"PROXY":      {"PROXY TCP4 192.0.2.1 192.0.2.2 1 1\r\n", attest.CodeHandshake},
		"nothing":    {"", attest.CodeTimeout},
		"half of it": {"\x16\x03\x01\x02\x00\x01\x00\x01", attest.CodeTimeout},
	} {
		t.Run(name, func(t *testing.T) {
			logs := new(journal)
			s := passthrough(t, proxy.Limits{Header: 200 * time.Millisecond}, logs, through(t, silent(t), "*"))
			c, err := net.Dial("tcp", start(t, s))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, tt.say)
			if got, _ := io.ReadAll(c); len(got) > 0 {
				t.Errorf("got %q", got)
			}
			until(t, "the refusal", func() bool { return s.Stats().Refused[tt.want] == 1 })
			until(t, "the log", func() bool { return strings.Contains(logs.String(), `"code":"`+string(tt.want)+`"`) })
			if s := s.Stats(); s.Active != 0 || s.BytesIn != 0 {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

// TestPassthroughUnknownName: the client learns why from an alert, also when it goes on sending, and the log from a code.
func TestPassthroughUnknownName(t *testing.T) {
	logs := new(journal)
	s := passthrough(t, proxy.Limits{}, logs, through(t, silent(t), "a.example"))
	addr := start(t, s)
	_, err := asking(t.Context(), addr, &tls.Config{ServerName: "b.example"})
	var told tls.AlertError
	if err == nil || err.Error() != unrecognized {
		t.Errorf("got %v", err)
	}
	if errors.As(err, &told) && byte(told) != 112 {
		t.Errorf("alert %d", byte(told))
	}
	until(t, "the refusal", func() bool { return s.Stats().Refused[attest.CodeUnknownName] == 1 })
	until(t, "the log", func() bool {
		return strings.Contains(logs.String(), `"code":"J114"`) && strings.Contains(logs.String(), `b.example\": alert unrecognized_name`)
	})

	raw, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	_, _ = io.WriteString(raw, clientHello(t, "b.example")+strings.Repeat("early", 10000))
	if got, err := io.ReadAll(raw); err != nil || string(got) != "\x15\x03\x03\x00\x02\x02\x70" {
		t.Errorf("got %q, %v", got, err)
	}
}

// TestPassthroughUnknownProtocol: so it is where nobody with the name speaks what the client does.
func TestPassthroughUnknownProtocol(t *testing.T) {
	logs := new(journal)
	r := through(t, silent(t), "a.example")
	r.Protocols = []string{"h2"}
	s := passthrough(t, proxy.Limits{}, logs, r, through(t, silent(t), "*"))
	if _, err := asking(t.Context(), start(t, s), &tls.Config{ServerName: "a.example", NextProtos: []string{"x\ny"}}); err == nil || err.Error() != noProtocol {
		t.Errorf("got %v", err)
	}
	until(t, "the log", func() bool {
		return strings.Contains(logs.String(), `"code":"J114"`) && strings.Contains(logs.String(), `protocols \"x\\ny\": alert no_application_protocol`)
	})
}

// clientHello is what a client says first.
func clientHello(t testing.TB, name string) string {
	t.Helper()
	a, b := net.Pipe()
	defer a.Close()
	go func() {
		_ = tls.Client(b, &tls.Config{ServerName: name}).HandshakeContext(context.Background())
		b.Close()
	}()
	p := make([]byte, 16<<10)
	n, err := a.Read(p)
	if err != nil {
		t.Fatal(err)
	}
	return string(p[:n])
}

// TestPassthroughCrowded: clients that say nothing keep nobody out.
func TestPassthroughCrowded(t *testing.T) {
	const places = 4
	a := tlsOrigin(t, "a.example", nil)
	s := passthrough(t, proxy.Limits{Handshakes: places, Header: time.Hour, Handshake: time.Hour, Crowded: 20 * time.Millisecond}, nil, through(t, a, "*"))
	addr := start(t, s)
	for range 2 * places {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	if got := served(t, addr, &tls.Config{ServerName: "a.example"}); got != "a.example" {
		t.Errorf("got %s", got)
	}
	if n := s.Stats().Refused[attest.CodeTimeout]; n == 0 {
		t.Errorf("refused %v", s.Stats().Refused)
	}
}

func TestPassthroughServiceDown(t *testing.T) {
	ln := listen(t)
	ln.Close()
	logs := new(journal)
	s := passthrough(t, proxy.Limits{}, logs, through(t, ln.Addr().String(), "*"))
	if _, err := asking(t.Context(), start(t, s), &tls.Config{ServerName: "a.example"}); err == nil {
		t.Error("connected")
	}
	until(t, "the log", func() bool { return strings.Contains(logs.String(), `"code":"J104"`) })
	until(t, "the end", func() bool { return s.Stats().Active == 0 })
}

// TestPassthroughTruncation: a connection that was reset is passed on as that, in both directions.
func TestPassthroughTruncation(t *testing.T) {
	ends := make(chan error, 1)
	addr := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 5))
		_, _ = io.WriteString(c, "half")
		_, err := io.Copy(io.Discard, c)
		ends <- err
	})
	resetting := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, 5))
		_, _ = io.WriteString(c, "half")
		_, _ = io.Copy(io.Discard, c)
		_ = c.SetLinger(0)
	})
	to := start(t, passthrough(t, proxy.Limits{}, nil, through(t, addr, "a.example"), through(t, resetting, "b.example")))
	dial := func(name string) *net.TCPConn {
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, clientHello(t, name))
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		return c.(*net.TCPConn)
	}
	c := dial("a.example")
	_ = c.SetLinger(0)
	c.Close()
	if err := <-ends; err == nil {
		t.Error("the service took a reset for an end")
	}
	c = dial("a.example")
	c.Close()
	if err := <-ends; err != nil {
		t.Errorf("the service saw %v in the place of an end", err)
	}
	c = dial("b.example")
	defer c.Close()
	_ = c.CloseWrite()
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the client took a reset for an end")
	}
}

func TestPassthroughIdle(t *testing.T) {
	a := tlsOrigin(t, "a.example", nil)
	s := passthrough(t, proxy.Limits{Tunnel: 100 * time.Millisecond}, nil, through(t, a, "*"))
	c, err := asking(t.Context(), start(t, s), &tls.Config{ServerName: "a.example"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadAll(c); err == nil {
		t.Error("ended properly")
	}
	until(t, "the end", func() bool { return s.Stats().Active == 0 })
}

// TestPassthroughShutdown: connections may finish, and are cut off when their time is over, at every step.
func TestPassthroughShutdown(t *testing.T) {
	stuck := make(chan struct{})
	defer close(stuck)
	for name, to := range map[string]string{
		"service that answers": tlsOrigin(t, "a.example", nil),
		"service that reads nothing": rawOrigin(t, func(c *net.TCPConn) {
			_, _ = c.Write([]byte{1})
			<-stuck
		}),
	} {
		t.Run(name, func(t *testing.T) {
			s := passthrough(t, proxy.Limits{}, nil, through(t, to, "*"))
			addr := start(t, s)
			var conns []net.Conn
			for range 10 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, _ = io.WriteString(c, clientHello(t, "a.example"))
				conns = append(conns, c)
			}
			for _, c := range conns { // it is on its way no more, or it would be broken off
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			until(t, "the tunnels", func() bool { return s.Stats().Active == 10 })
			ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			if err := s.Shutdown(ctx); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			for _, c := range conns {
				_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
				if _, err := io.Copy(io.Discard, c); err == nil || timeout(err) {
					t.Errorf("cut off, and the client saw %v", err)
				}
			}
		})
	}
	t.Run("in peace", func(t *testing.T) {
		s := passthrough(t, proxy.Limits{}, nil, through(t, tlsOrigin(t, "a.example", nil), "*"))
		c, err := asking(t.Context(), start(t, s), &tls.Config{ServerName: "a.example"})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Shutdown(context.Background()) }()
		_, _ = io.WriteString(c, "hello")
		_ = c.CloseWrite()
		if got, err := io.ReadAll(c); err != nil || string(got) != "a.example\nhello" {
			t.Errorf("got %q, %v", got, err)
		}
		c.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// TestPassthroughRunsOnLoops: what is passed through costs no goroutine.
func TestPassthroughRunsOnLoops(t *testing.T) {
	if *portable || runtime.GOOS != "linux" {
		t.Skip("for the loops of Linux")
	}
	const n = 50
	a := tlsOrigin(t, "a.example", nil)
	s := accepting(t, passthrough(t, proxy.Limits{}, nil, through(t, a, "a.example")))
	addr := start(t, s)
	before := runtime.NumGoroutine()
	for range n {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")
		conn := tls.Client(c, &tls.Config{InsecureSkipVerify: true, ServerName: "a.example"})
		if _, err := io.ReadFull(conn, make([]byte, len("a.example\n"))); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "goroutines end", func() bool { return runtime.NumGoroutine() <= before+n+n/4 }) // one of the service for each
}

// TestPassthroughProxyProtocol: the service learns the client's address and the name that it asked for, and nothing that
// nobody proved; from behind a load balancer too.
func TestPassthroughProxyProtocol(t *testing.T) {
	for _, version := range []int{1, 2} {
		for _, behind := range []bool{false, true} {
			t.Run(fmt.Sprintf("v%d behind %v", version, behind), func(t *testing.T) {
				got := make(chan proxyproto.Header, 1)
				a := tlsOrigin(t, "a.example", func(c net.Conn) error {
					h, err := proxyproto.Read(c)
					if err != nil {
						t.Error(err)
						return err
					}
					got <- h
					return nil
				}, "h2")
				s := passthrough(t, proxy.Limits{}, nil, proxy.PassthroughRoute{Names: []string{"a.example"}, To: single(t, speaking(t, a, version))})
				header := ""
				if behind {
					accepting(t, s)
					header = "PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n"
				}
				raw, err := net.Dial("tcp", start(t, s))
				if err != nil {
					t.Fatal(err)
				}
				defer raw.Close()
				_, _ = io.WriteString(raw, header)
				c := tls.Client(raw, &tls.Config{InsecureSkipVerify: true, ServerName: "A.example", NextProtos: []string{"h2"}})
				if _, err := io.ReadFull(c, make([]byte, len("a.example\n"))); err != nil {
					t.Fatal(err)
				}
				h := <-got
				source, destination := raw.LocalAddr().String(), raw.RemoteAddr().String()
				if behind {
					source, destination = "[2001:db8::7]:56324", "[2001:db8::1]:443"
				}
				want := map[proxyproto.Type]string{}
				if version == 2 {
					want[proxyproto.TypeAuthority] = "a.example"
				}
				if h.Version != version || h.Source.String() != source || h.Destination.String() != destination || fmt.Sprint(tlvs(h)) != fmt.Sprint(want) {
					t.Errorf("got %+v, want %s to %s, %v", h, source, destination, want)
				}
			})
		}
	}
}

// TestPassthroughToAttested: an attested service behind a passthrough is appraised by its clients as if nothing stood
// between.
func TestPassthroughToAttested(t *testing.T) {
	echo := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	in := inboundTCP(t, shake(nil), echo, proxy.Limits{}, nil)
	s := passthrough(t, proxy.Limits{}, nil, through(t, start(t, in), "*"))
	out := start(t, proxy.NewOutbound(engine(t), dialer(start(t, s), affirmed()), nil, proxy.Limits{}))
	c, err := net.Dial("tcp", out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "hello")
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

func TestPassthroughConfig(t *testing.T) {
	to := single(t, backend(t, "127.0.0.1:1"))
	route := func(protos []string, names ...string) proxy.PassthroughRoute {
		return proxy.PassthroughRoute{Names: names, Protocols: protos, To: to}
	}
	for name, tt := range map[string]struct {
		routes []proxy.PassthroughRoute
		want   attest.Code
		where  string
	}{
		"none":           {nil, attest.CodeConfigMissing, ""},
		"no service":     {[]proxy.PassthroughRoute{{Names: []string{"a"}}}, attest.CodeConfigValue, "passthrough[0].cluster"},
		"no name":        {[]proxy.PassthroughRoute{route(nil, "a"), route(nil)}, attest.CodeConfigValue, "passthrough[1].server_names"},
		"empty name":     {[]proxy.PassthroughRoute{route(nil, "a", "")}, attest.CodeConfigValue, "passthrough[0].server_names[1]"},
		"address":        {[]proxy.PassthroughRoute{route(nil, "192.0.2.1")}, attest.CodeConfigValue, "passthrough[0].server_names[0]"},
		"port":           {[]proxy.PassthroughRoute{route(nil, "a:443")}, attest.CodeConfigValue, "passthrough[0].server_names[0]"},
		"inner asterisk": {[]proxy.PassthroughRoute{route(nil, "a.*.b")}, attest.CodeConfigValue, "passthrough[0].server_names[0]"},
		"half a label":   {[]proxy.PassthroughRoute{route(nil, "*a.b")}, attest.CodeConfigValue, "passthrough[0].server_names[0]"},
		"asterisk, dot":  {[]proxy.PassthroughRoute{route(nil, "*.")}, attest.CodeConfigValue, "passthrough[0].server_names[0]"},
		"two asterisks":  {[]proxy.PassthroughRoute{route(nil, "*.*")}, attest.CodeConfigValue, "passthrough[0].server_names[0]"},
		"same name":      {[]proxy.PassthroughRoute{route(nil, "a"), route(nil, "b", "A")}, attest.CodeConfigValue, "passthrough[1].server_names[1]"},
		"twice in one":   {[]proxy.PassthroughRoute{route(nil, "a", "a")}, attest.CodeConfigValue, "passthrough[0].server_names[1]"},
		"same suffix":    {[]proxy.PassthroughRoute{route(nil, "*.a"), route(nil, "*.A")}, attest.CodeConfigValue, "passthrough[1].server_names[0]"},
		"two rests":      {[]proxy.PassthroughRoute{route(nil, "*"), route([]string{"h2"}, "*")}, attest.CodeConfigValue, "passthrough[1].server_names[0]"},
		"same protocol":  {[]proxy.PassthroughRoute{route([]string{"h2"}, "a"), route([]string{"x", "h2"}, "a")}, attest.CodeConfigValue, "passthrough[1].server_names[0]"},
		"never reached":  {[]proxy.PassthroughRoute{route(nil, "a"), route([]string{"h2"}, "a")}, attest.CodeConfigValue, "passthrough[1].server_names[0]"},
		"empty protocol": {[]proxy.PassthroughRoute{route([]string{""}, "a")}, attest.CodeConfigValue, "passthrough[0].protocols"},
		"long protocol":  {[]proxy.PassthroughRoute{route([]string{strings.Repeat("x", 256)}, "a")}, attest.CodeConfigValue, "passthrough[0].protocols"},
	} {
		_, err := proxy.NewPassthrough(engine(t), tt.routes, nil, proxy.Limits{})
		var coded *attest.Error
		if !errors.As(err, &coded) || coded.Code != tt.want || coded.Subject != tt.where {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if _, err := proxy.NewPassthrough(engine(t), []proxy.PassthroughRoute{
		route(nil, "a", "*.a", "*"), route([]string{"h2"}, "b"), route([]string{"x"}, "b"), route(nil, "b"), route(nil, "*.b.a"),
	}, nil, proxy.Limits{}); err != nil {
		t.Error(err)
	}
}

// TestPassthroughFlood: many come and go at once, and nothing is left.
func TestPassthroughFlood(t *testing.T) {
	a := tlsOrigin(t, "a.example", nil)
	s := passthrough(t, proxy.Limits{Connections: 20, Handshakes: 10}, nil, through(t, a, "a.example"))
	addr := start(t, s)
	var ok atomic.Int64
	t.Run("clients", func(t *testing.T) {
		for i := range 8 {
			t.Run(fmt.Sprint(i), func(t *testing.T) {
				t.Parallel()
				for range 20 {
					name := []string{"a.example", "b.example"}[i%2]
					if got := served(t, addr, &tls.Config{ServerName: name}); got == "a.example" {
						ok.Add(1)
					} else if got != unrecognized {
						t.Errorf("got %s", got)
					}
				}
			})
		}
	})
	if ok.Load() != 80 {
		t.Errorf("%d served", ok.Load())
	}
	until(t, "the end", func() bool { return s.Stats().Active == 0 })
}
