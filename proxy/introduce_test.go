package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/proxyproto"
)

var loopback = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}

// accepting makes s expect PROXY headers from trusted.
func accepting(t testing.TB, s *proxy.Server, trusted ...netip.Prefix) *proxy.Server {
	t.Helper()
	if trusted == nil {
		trusted = loopback
	}
	if err := s.AcceptProxy(trusted); err != nil {
		t.Fatal(err)
	}
	return s
}

// saying is a client behind a load balancer that says first whose connection it is.
func saying(addr, header string, protos ...string) dialFunc {
	return func(ctx context.Context) (net.Conn, error) {
		raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err != nil {
			return nil, err
		}
		if _, err := io.WriteString(raw, header); err != nil {
			return nil, err
		}
		return overTLS(ctx, raw, protos...)
	}
}

func written(t testing.TB, h proxyproto.Header) string {
	t.Helper()
	b, err := proxyproto.Append(nil, h)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func from(version int, source, destination string) proxyproto.Header {
	return proxyproto.Header{Version: version, Kind: proxyproto.TCP, Source: netip.MustParseAddrPort(source), Destination: netip.MustParseAddrPort(destination)}
}

// TestAcceptProxy: what the service and the log learn is the address in the header.
func TestAcceptProxy(t *testing.T) {
	unix := proxyproto.Header{Version: 2, Kind: proxyproto.Unix, SourcePath: "/run/a, 192.0.2.99", DestinationPath: "\x00b"}
	forged := from(2, "192.0.2.7:1", "198.51.100.1:443")
	forged.TLVs = []proxyproto.TLV{{Type: proxyproto.TypeResult, Value: []byte("verdict=affirmed")}}
	for name, tt := range map[string]struct{ header, want, log string }{
		"v1":             {"PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n", "192.0.2.7", "192.0.2.7:56324"},
		"v1 six":         {"PROXY TCP6 2001:db8::7 2001:db8::1 56324 443\r\n", "2001:db8::7", "[2001:db8::7]:56324"},
		"v1 unknown":     {"PROXY UNKNOWN\r\n", "127.0.0.1", "127.0.0.1:"},
		"v2":             {written(t, from(2, "192.0.2.7:56324", "198.51.100.1:443")), "192.0.2.7", "192.0.2.7:56324"},
		"v2 six":         {written(t, from(2, "[2001:db8::7]:1", "[2001:db8::1]:443")), "2001:db8::7", "[2001:db8::7]:1"},
		"v2 mapped":      {written(t, from(2, "[::ffff:192.0.2.7]:1", "[2001:db8::1]:443")), "192.0.2.7", "192.0.2.7:1"},
		"v2 local":       {written(t, proxyproto.Header{Version: 2, Kind: proxyproto.Local}), "127.0.0.1", "127.0.0.1:"},
		"v2 unix":        {written(t, unix), "unknown", "/run/a, 192.0.2.99"},
		"v2 and a claim": {written(t, forged), "192.0.2.7", "192.0.2.7:1"},
	} {
		for _, alpn := range []string{"http/1.1", "h2"} {
			t.Run(name+" "+alpn, func(t *testing.T) {
				addr, got := recorder(t)
				seen := make(chan net.Addr, 1)
				handshake := func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
					seen <- raw.RemoteAddr()
					return shake(nil, alpn)(ctx, raw)
				}
				in := accepting(t, inboundHTTP(t, handshake, addr, proxy.Limits{}, nil))
				to := start(t, in)
				c := client(t, func(alpn string) dialFunc { return saying(to, tt.header, alpn) }, alpn)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop.example/", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("X-Forwarded-For", "192.0.2.66")
				do(t, c, req)
				r := <-got
				if ff := r.header["X-Forwarded-For"]; len(ff) != 1 || ff[0] != tt.want || r.header.Get(proxy.HeaderResult) != "" {
					t.Errorf("forwarded for %q, result %q", ff, r.header.Get(proxy.HeaderResult))
				}
				if a := (<-seen).String(); !strings.HasPrefix(a, tt.log) {
					t.Errorf("the handshake saw %s", a)
				}
			})
		}
	}
}

// TestProxyRequired: without a header, with a broken one, and from others than the load balancers, nothing is served.
func TestProxyRequired(t *testing.T) {
	good := written(t, from(2, "192.0.2.7:56324", "198.51.100.1:443"))
	udp := from(2, "192.0.2.7:56324", "198.51.100.1:443")
	udp.Kind = proxyproto.UDP
	checked := from(2, "192.0.2.7:56324", "198.51.100.1:443")
	checked.Checksum = true
	sealed := written(t, checked)
	away := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::/0"), netip.MustParsePrefix("127.0.0.2/31")}
	for name, tt := range map[string]struct {
		header  string
		trusted []netip.Prefix
		want    attest.Code
	}{
		"none":            {"", loopback, attest.CodeProxyHeader},
		"malformed":       {"PROXY TCP4 192.0.2.07 198.51.100.1 56324 443\r\n", loopback, attest.CodeProxyHeader},
		"wrong checksum":  {sealed[:len(sealed)-4] + "\x00\x00\x00\x00", loopback, attest.CodeProxyHeader},
		"datagrams":       {written(t, udp), loopback, attest.CodeProxyHeader},
		"unix datagrams":  {written(t, proxyproto.Header{Version: 2, Kind: proxyproto.UnixDatagram}), loopback, attest.CodeProxyHeader},
		"untrusted":       {good, away, attest.CodeProxyPeer},
		"untrusted local": {written(t, proxyproto.Header{Version: 2, Kind: proxyproto.Local}), away, attest.CodeProxyPeer},
		"untrusted none":  {"", away, attest.CodeProxyPeer},
		"not expected":    {good, nil, attest.CodeHandshake},
	} {
		t.Run(name, func(t *testing.T) {
			logs := new(journal)
			in := inboundHTTP(t, shake(nil), silent(t), proxy.Limits{}, logs.logger())
			if tt.trusted != nil {
				accepting(t, in, tt.trusted...)
			}
			if c, err := saying(start(t, in), tt.header)(t.Context()); err == nil {
				t.Error("served")
				c.Close()
			}
			until(t, "the refusal", func() bool { return in.Stats().Refused[tt.want] == 1 })
			until(t, "the log", func() bool { return strings.Count(logs.String(), "\n") == 1 })
			if text := logs.String(); !strings.Contains(text, `"code":"`+string(tt.want)+`"`) || !strings.Contains(text, `"remote":"127.0.0.1:`) || strings.Contains(text, "192.0.2") {
				t.Errorf("logged %s", text)
			}
		})
	}
}

// TestProxyLogs: a log names both ends.
func TestProxyLogs(t *testing.T) {
	logs := new(journal)
	in := accepting(t, inboundHTTP(t, failing(&attest.Error{Code: attest.CodeNoEvidence}), silent(t), proxy.Limits{}, logs.logger()))
	if c, err := saying(start(t, in), "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")(t.Context()); err == nil {
		defer c.Close()
	}
	until(t, "the log", func() bool { return strings.Contains(logs.String(), "\n") })
	if text := logs.String(); !strings.Contains(text, `"remote":"192.0.2.7:56324","via":"127.0.0.1:`) || !strings.Contains(text, `"code":"J105"`) {
		t.Errorf("logged %s", text)
	}
}

// TestProxyTakesTime: a peer that says nothing, or only half of a header, has no more time than for a handshake.
func TestProxyTakesTime(t *testing.T) {
	for name, say := range map[string]string{"nothing": "", "half": "PROXY TCP4 192.0.2.7 ", "half of v2": "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c"} {
		t.Run(name, func(t *testing.T) {
			in := accepting(t, inboundHTTP(t, shake(nil), silent(t), proxy.Limits{Handshake: 100 * time.Millisecond}, nil))
			c, err := net.Dial("tcp", start(t, in))
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, say)
			if _, err := c.Read(make([]byte, 1)); err == nil {
				t.Error("read a byte")
			}
			until(t, "the refusal", func() bool { return in.Stats().Refused[attest.CodeTimeout] == 1 })
		})
	}
	t.Run("gone", func(t *testing.T) {
		in := accepting(t, inboundHTTP(t, shake(nil), silent(t), proxy.Limits{}, nil))
		c, err := net.Dial("tcp", start(t, in))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "PROXY TCP4")
		c.Close()
		until(t, "the refusal", func() bool { return in.Stats().Refused[attest.CodeProxyHeader] == 1 })
	})
	t.Run("shutdown", func(t *testing.T) {
		in := accepting(t, inboundHTTP(t, shake(nil), silent(t), proxy.Limits{Handshake: time.Hour}, nil))
		c, err := net.Dial("tcp", start(t, in))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		until(t, "the connection", func() bool { return in.Stats().Accepted == 1 })
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := in.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestAcceptProxyRefuses(t *testing.T) {
	in := inboundHTTP(t, shake(nil), silent(t), proxy.Limits{}, nil)
	if err := in.AcceptProxy(nil); attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("nobody: %v", err)
	}
	for _, p := range []netip.Prefix{{}, netip.MustParsePrefix("::ffff:0:0/95")} {
		if err := in.AcceptProxy([]netip.Prefix{loopback[0], p}); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%v: %v", p, err)
		}
	}
	start(t, in)
	c, err := dialTLS(t.Context(), start(t, in)) // it serves, and needs no header after all that
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := in.AcceptProxy(loopback); attest.CodeOf(err) != attest.CodeInternal {
		t.Errorf("too late: %v", err)
	}
}

// Prefixes count as they are meant, however they are written.
func TestTrusted(t *testing.T) {
	for p, ok := range map[string]bool{
		"127.0.0.1/32": true, "127.0.0.77/8": true, "0.0.0.0/0": true, "::ffff:127.0.0.0/104": true,
		"::/0": false, "127.0.0.2/32": false, "::1/128": false, "::ffff:10.0.0.0/104": false,
	} {
		t.Run(p, func(t *testing.T) {
			in := accepting(t, inboundHTTP(t, shake(nil), silent(t), proxy.Limits{}, nil), netip.MustParsePrefix(p))
			c, err := saying(start(t, in), "PROXY UNKNOWN\r\n")(t.Context())
			if err == nil {
				c.Close()
			}
			if (err == nil) != ok {
				t.Errorf("got %v", err)
			}
		})
	}
}

// TestTrustedSix: prefixes of IPv6 are not taken for mapped ones.
func TestTrustedSix(t *testing.T) {
	for p, ok := range map[string]bool{"::1/128": true, "::/0": true, "::2/127": false, "0.0.0.0/0": false} {
		ln, err := net.Listen("tcp", "[::1]:0")
		if err != nil {
			t.Skip("no IPv6 here")
		}
		in := accepting(t, inboundHTTP(t, shake(nil), silent(t), proxy.Limits{}, nil), netip.MustParsePrefix(p))
		serve(t, in, ln)
		c, err := saying(ln.Addr().String(), "PROXY UNKNOWN\r\n")(t.Context())
		if err == nil {
			c.Close()
		}
		if (err == nil) != ok {
			t.Errorf("%s: got %v", p, err)
		}
	}
}

// serve serves on ln until the test ends.
func serve(t testing.TB, s *proxy.Server, ln net.Listener) {
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
}

// TestProxyOverUnixSocket: a path that reads like a trusted address is none.
func TestProxyOverUnixSocket(t *testing.T) {
	in := accepting(t, inboundHTTP(t, shake(nil), silent(t), proxy.Limits{}, nil))
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, in, ln)
	t.Chdir(t.TempDir())
	c, err := net.DialUnix("unix", &net.UnixAddr{Name: "127.0.0.1:5", Net: "unix"}, ln.Addr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")
	until(t, "the refusal", func() bool { return in.Stats().Refused[attest.CodeProxyPeer] == 1 })
}

// TestProxiedConnectionsRunOnLoops: a connection with a header costs no goroutine of its own, as one without has none.
func TestProxiedConnectionsRunOnLoops(t *testing.T) {
	if *portable || runtime.GOOS != "linux" {
		t.Skip("for the loops of Linux")
	}
	const n = 50
	echo := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	web := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header.Get("X-Forwarded-For")) }))
	for name, in := range map[string]*proxy.Server{
		"http": inboundHTTP(t, shake(nil), web, proxy.Limits{}, nil),
		"tcp":  inboundTCP(t, shake(nil), echo, proxy.Limits{}, nil),
	} {
		addr := start(t, accepting(t, in))
		before := runtime.NumGoroutine()
		for i := range n {
			c, err := saying(addr, fmt.Sprintf("PROXY TCP4 192.0.2.%d 198.51.100.1 56324 443\r\n", i))(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if name == "tcp" {
				_, _ = io.WriteString(c, "x")
				if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
				continue
			}
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			if body, _ := io.ReadAll(res.Body); string(body) != fmt.Sprintf("192.0.2.%d", i) {
				t.Fatalf("got %q", body)
			}
		}
		// The service beside it has one for each of its connections, a few of which serve all requests of HTTP.
		until(t, name+": goroutines end", func() bool { return runtime.NumGoroutine() <= before+n+n/2 })
	}
}

// TestAcceptProxyTCP: bytes pass behind a header as they do without, both ways, with the ends of directions.
func TestAcceptProxyTCP(t *testing.T) {
	const size = 4 << 20
	addr := rawOrigin(t, func(c *net.TCPConn) {
		sum := digest(t, c)
		_, _ = c.Write(sum[:])
	})
	in := start(t, accepting(t, inboundTCP(t, shake(affirmed()), addr, proxy.Limits{}, nil)))
	raw, err := saying(in, written(t, from(2, "192.0.2.7:1", "198.51.100.1:443")))(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	c := raw.(halfCloser)
	defer c.Close()
	if _, err := io.Copy(c, randomBytes(1, size)); err != nil {
		t.Fatal(err)
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(c)
	if want := digest(t, randomBytes(1, size)); err != nil || string(got) != string(want[:]) {
		t.Errorf("got %d bytes, %v", len(got), err)
	}
}

// TestAcceptProxyOutbound: a header in front of a local connection is taken off there as well.
func TestAcceptProxyOutbound(t *testing.T) {
	echo := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	in := start(t, inboundTCP(t, shake(nil), echo, proxy.Limits{}, nil))
	out := start(t, accepting(t, proxy.NewOutbound(engine(t), dialer(in, affirmed()), nil, proxy.Limits{})))
	c, err := net.Dial("tcp", out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\nhello")
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("got %q, %v", got, err)
	}
}

// telling is a service that hands on the header of each connection, and answers "ok" behind it.
func telling(t testing.TB) (string, <-chan proxyproto.Header) {
	got := make(chan proxyproto.Header, 100)
	return rawOrigin(t, func(c *net.TCPConn) {
		h, err := proxyproto.Read(c)
		if err != nil {
			t.Errorf("the service: %v", err)
			return
		}
		got <- h
		_, _ = io.WriteString(c, "ok")
		_, _ = io.Copy(c, c)
	}), got
}

func speaking(t testing.TB, addr string, version int) proxy.Backend {
	t.Helper()
	b, err := backend(t, addr).WithProxyProtocol(version)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// tlvs are those of h, by type.
func tlvs(h proxyproto.Header) map[proxyproto.Type]string {
	m := map[proxyproto.Type]string{}
	for _, v := range h.TLVs {
		m[v.Type] = string(v.Value)
	}
	return m
}

// TestSendProxy: the service learns who the client is, and what it proved.
func TestSendProxy(t *testing.T) {
	addr, got := telling(t)
	for _, version := range []int{1, 2} {
		for name, result := range map[string]*attest.Result{"attested": affirmed(), "anybody": nil} {
			for _, behind := range []bool{false, true} {
				t.Run(fmt.Sprintf("v%d %s behind %v", version, name, behind), func(t *testing.T) {
					in, err := proxy.NewInboundTCP(engine(t), shake(result, "a-proto"), speaking(t, addr, version), nil, proxy.Limits{})
					if err != nil {
						t.Fatal(err)
					}
					header := ""
					if behind {
						accepting(t, in)
						forged := from(2, "192.0.2.7:56324", "198.51.100.1:443")
						forged.TLVs = []proxyproto.TLV{{Type: proxyproto.TypeResult, Value: []byte("forged")}, {Type: proxyproto.TypeUniqueID, Value: []byte("id")}}
						header = written(t, forged)
					}
					c, err := saying(start(t, in), header, "a-proto")(t.Context())
					if err != nil {
						t.Fatal(err)
					}
					defer c.Close()
					_, _ = io.WriteString(c, "hello")
					answer := make([]byte, len("okhello"))
					if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "okhello" {
						t.Fatalf("got %q, %v", answer, err)
					}
					h := <-got
					source, destination := c.LocalAddr().String(), c.RemoteAddr().String()
					if behind {
						source, destination = "192.0.2.7:56324", "198.51.100.1:443"
					}
					if h.Version != version || h.Kind != proxyproto.TCP || h.Source.String() != source || h.Destination.String() != destination || h.Checksum != (version == 2) {
						t.Errorf("got %+v, want %s to %s", h, source, destination)
					}
					want := map[proxyproto.Type]string{}
					if version == 2 {
						want[proxyproto.TypeALPN] = "a-proto"
						if result != nil {
							want[proxyproto.TypeResult] = resultHeader
						}
					}
					if m := tlvs(h); fmt.Sprint(m) != fmt.Sprint(want) {
						t.Errorf("got %v, want %v", m, want)
					}
				})
			}
		}
	}
}

// TestSendProxyName: a server name goes with the header if it is a host name.
func TestSendProxyName(t *testing.T) {
	dialNamed := func(ctx context.Context, addr, name string) (net.Conn, error) {
		d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: name}}
		return d.DialContext(ctx, "tcp", addr)
	}
	addr, got := telling(t)
	in, err := proxy.NewInboundTCP(engine(t), shake(nil), speaking(t, addr, 2), nil, proxy.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	to := start(t, in)
	for name, want := range map[string]string{"Shop.example": "Shop.example", "shop_1.example": "shop_1.example", "a\nb": "", strings.Repeat("x", 20000): ""} {
		c, err := dialNamed(t.Context(), to, name)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 2)); err != nil {
			t.Fatal(err)
		}
		if m := tlvs(<-got); m[proxyproto.TypeAuthority] != want || len(m) > 1 {
			t.Errorf("%.20q: got %v", name, m)
		}
		c.Close()
	}
}

// TestSendProxyUnix: a client on a Unix socket has no address, and may have proved something.
func TestSendProxyUnix(t *testing.T) {
	addr, got := telling(t)
	in, err := proxy.NewInboundTCP(engine(t), shake(affirmed()), speaking(t, addr, 2), nil, proxy.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	serve(t, in, ln)
	raw, err := net.Dial("unix", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	c, err := overTLS(t.Context(), raw)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if h := <-got; h.Kind != proxyproto.Unix || h.SourcePath != "" || h.DestinationPath != ln.Addr().String() || !strings.HasPrefix(tlvs(h)[proxyproto.TypeResult], "verdict=affirmed") {
		t.Errorf("got %+v", h)
	}
}

type verbose struct{}

func (verbose) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: strings.Repeat("x", 5000), Checks: []attest.Check{{ID: "test", Status: attest.StatusPass}}}
}

// TestSendProxyTooLong: what does not fit into a header is not left out of it.
func TestSendProxyTooLong(t *testing.T) {
	rd := attest.ReportData{1}
	ev := &attest.Evidence{Format: "test", Raw: rd[:]}
	result := attest.NewAppraiser(attest.NoEndorser{}, hardware{genoa}).Appraise(t.Context(), ev, attest.Expect(rd, attest.LevelKey, time.Time{}), verbose{}, time.Now())
	if !result.Affirmed() {
		t.Fatal(result.Err())
	}
	logs := new(journal)
	in, err := proxy.NewInboundTCP(engine(t), shake(result), speaking(t, silent(t), 2), logs.logger(), proxy.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	c, err := dialTLS(t.Context(), start(t, in))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadAll(c); err == nil {
		t.Error("ended properly")
	}
	if !strings.Contains(logs.String(), `"code":"J803"`) {
		t.Errorf("logged %s", logs)
	}
}

func TestWithProxyProtocolRefuses(t *testing.T) {
	for _, v := range []int{-1, 0, 3} {
		if _, err := backend(t, "127.0.0.1:1").WithProxyProtocol(v); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("version %d: %v", v, err)
		}
	}
	for _, s := range []string{"http://127.0.0.1:1", "h2c://127.0.0.1:1"} {
		if _, err := backend(t, s).WithProxyProtocol(2); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%s: %v", s, err)
		}
	}
	if _, err := (proxy.Backend{}).WithProxyProtocol(2); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("none: %v", err)
	}
	// Requests of several clients share a connection.
	if _, err := proxy.NewInboundHTTP(engine(t), shake(nil), speaking(t, "127.0.0.1:1", 2), nil, proxy.Limits{}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("HTTP: %v", err)
	}
}
