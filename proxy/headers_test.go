package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
)

const resultHeader = `verdict=affirmed, tee="snp", vendor="amd", generation="genoa", binding=key, policy="sha256:feed", ` +
	`evidence="sha256:16abab341fb7f370e27e4dadcf81766dd0dfd0ae64469477bb2cf6614938b2af", at=@1700000000`

// forgeries are names under which a client could pose as somebody, one for each spelling and each family.
var forgeries = []string{
	"Jurat-Result", "jurat-result", "JURAT-RESULT", "jurat_result", "Jurat.Result", "Jurat~Result", "Jurat-Token", "jurat_x", "Jurat",
	"X-Forwarded-Client-Cert", "X_Forwarded_Client_Cert", "x-forwarded_client-cert", "X.Forwarded!Client#Cert",
	"X-Forwarded-For", "X_Forwarded_For", "X-Forwarded-Host", "X-Forwarded-Proto", "x_forwarded_proto", "X-Forwarded-User",
	"Forwarded", "X-Real-IP", "x_real_ip",
	"Client-Cert", "client_cert", "Client-Cert-Chain", "X-Client-Cert", "X_Client_Cert", "X-Client-DN", "X-Client-Verify",
	"SSL-Client-Verify", "SSL_CLIENT_S_DN", "X-SSL-Client-CN", "X-SSL-Cert", "X-Amzn-Mtls-Clientcert", "X-Arr-ClientCert",
	"Transfer_Encoding", "transfer.encoding", "Content_Length", "Content~Length", "Proxy",
}

// innocent names look like those, and belong to the client.
var innocent = []string{"Authorization", "X-Client-Id", "Juratory", "Xforwarded", "Client", "Ssl", "X-Real", "X_Request_Id", "Proxy-Features", "Content_Language"}

type seen struct{ header, trailer http.Header }

// recorder is a service that reports all that reached it.
func recorder(t testing.TB) (string, <-chan seen) {
	got := make(chan seen, 1)
	return origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		got <- seen{r.Header, r.Trailer}
	})), got
}

func assertClean(t *testing.T, got seen, attested bool) {
	t.Helper()
	sum := sha256.Sum256(leaf().Certificate[0])
	want := map[string]string{"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Host": "shop.example", "X-Forwarded-Proto": "https"}
	if attested {
		want["Jurat-Result"] = resultHeader
		want["X-Forwarded-Client-Cert"] = fmt.Sprintf(`Hash=%x;URI="spiffe://example.org/a,b";DNS=peer.example;DNS="odd;\"name\",=x"`, sum)
	}
	for name, value := range want {
		if v := got.header[name]; len(v) != 1 || v[0] != value {
			t.Errorf("%s is %q, want %q", name, v, value)
		}
		delete(got.header, name)
	}
	for _, part := range []http.Header{got.header, got.trailer} {
		for name, values := range part {
			if slices.Contains(values, "evil") {
				t.Errorf("%s reached the service", name)
			}
		}
	}
}

func TestForgedIdentity(t *testing.T) {
	addr, got := recorder(t)
	for _, attested := range []bool{true, false} {
		var result *attest.Result
		if attested {
			result = affirmed()
		}
		for _, scheme := range []string{"", "h2c://"} {
			in := start(t, inboundHTTP(t, shake(result, "h2", "http/1.1"), scheme+addr, proxy.Limits{}, nil))
			for _, alpn := range []string{"http/1.1", "h2"} {
				c := client(t, direct(in), alpn)
				t.Run(fmt.Sprintf("attested=%v %s to %sservice", attested, alpn, scheme), func(t *testing.T) {
					for _, name := range forgeries {
						for _, place := range []string{"header", "trailer", "connection"} {
							req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://shop.example/", io.NopCloser(strings.NewReader("x")))
							if err != nil {
								t.Fatal(err)
							}
							switch place {
							case "header":
								req.Header[name] = []string{"evil", "evil"}
							case "trailer":
								req.Trailer = http.Header{http.CanonicalHeaderKey(name): {"evil"}, "X-Fine": {"fine"}}
							case "connection":
								if alpn == "h2" {
									continue // TestHTTP2Oddities
								}
								req.Header[name] = []string{"evil"}
								req.Header["Connection"] = []string{name + ", Jurat-Result", "X-Forwarded-Client-Cert, x-forwarded-for,X-Forwarded-Proto"}
							}
							if res, _ := do(t, c, req); res.StatusCode != 200 {
								t.Fatalf("%s in %s: got %s", name, place, res.Status)
							}
							what := <-got
							if place == "trailer" && what.trailer.Get("X-Fine") != "fine" {
								t.Errorf("a harmless trailer was lost beside %s", name)
							}
							assertClean(t, what, attested)
							if t.Failed() {
								t.Fatalf("at %s in %s", name, place)
							}
						}
					}
					req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop.example/", nil)
					if err != nil {
						t.Fatal(err)
					}
					for _, name := range innocent {
						req.Header[name] = []string{"fine"}
					}
					do(t, c, req)
					what := <-got
					for _, name := range innocent {
						if what.header.Get(name) != "fine" {
							t.Errorf("%s was lost", name)
						}
					}
				})
			}
		}
	}
}

// TestForgedIdentityRaw sends what no library would, and looks at the bytes that reach the service.
func TestForgedIdentityRaw(t *testing.T) {
	got := make(chan []byte, 1)
	addr := rawOrigin(t, func(c *net.TCPConn) {
		var all bytes.Buffer
		r := bufio.NewReader(io.TeeReader(c, &all))
		req, err := http.ReadRequest(r)
		if err != nil {
			got <- all.Bytes()
			return
		}
		_, _ = io.Copy(io.Discard, req.Body)
		_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
		got <- all.Bytes()
	})
	in := start(t, inboundHTTP(t, shake(affirmed(), "http/1.1"), addr, proxy.Limits{}, nil))
	const chunked = "Transfer-Encoding: chunked\r\n"
	for name, message := range map[string]string{
		"duplicates":           "jurat-result: evil\r\nJURAT-RESULT: evil\r\nJurat_Result: evil\r\n\r\n",
		"tab before value":     "Jurat-Result:\tevil\r\n\r\n",
		"empty value":          "Jurat-Result:\r\nX-Forwarded-Client-Cert:\r\n\r\n",
		"connection lists all": "Connection: close, Jurat-Result, jurat-result,X-Forwarded-Client-Cert ,\tx-forwarded-for\r\nConnection: Jurat-Result\r\n\r\n",
		"unannounced trailer":  chunked + "\r\n1\r\nx\r\n0\r\nJurat-Result: evil\r\njurat_result: evil\r\n\r\n",
		"announced trailer":    "Trailer: Jurat-Result, X_Forwarded_Client_Cert\r\n" + chunked + "\r\n1\r\nx\r\n0\r\nJurat-Result: evil\r\nX_Forwarded_Client_Cert: evil\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dialTLS(t.Context(), in, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: shop.example\r\n"+message)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 200 {
				t.Fatalf("got %s", res.Status)
			}
			at := strings.ToLower(strings.ReplaceAll(string(<-got), "_", "-"))
			if strings.Contains(at, "evil") || strings.Count(at, "\njurat-result: verdict=affirmed,") != 1 || strings.Count(at, "jurat-result") != 1 ||
				strings.Count(at, "\nx-forwarded-client-cert: hash=") != 1 || strings.Count(at, "x-forwarded-client-cert") != 1 ||
				strings.Count(at, "\nx-forwarded-for: 127.0.0.1\r") != 1 || strings.Count(at, "content-length")+strings.Count(at, "transfer-encoding") > 1 {
				t.Errorf("the service got %q", at)
			}
		})
	}
}

// TestHTTP2Oddities sends frames that a client library would not.
func TestHTTP2Oddities(t *testing.T) {
	addr, got := recorder(t)
	var reached atomic.Int64
	wire := rawOrigin(t, func(c *net.TCPConn) {
		service, err := net.Dial("tcp", addr)
		if err != nil {
			return
		}
		defer service.Close()
		go func() { _, _ = io.Copy(c, service) }()
		for buf := make([]byte, 4096); ; {
			n, err := c.Read(buf)
			reached.Add(int64(n))
			if err != nil {
				return
			}
			_, _ = service.Write(buf[:n])
		}
	})
	in := start(t, inboundHTTP(t, shake(affirmed(), "h2"), wire, proxy.Limits{}, nil))
	base := []hpack.HeaderField{{Name: ":method", Value: "GET"}, {Name: ":scheme", Value: "https"}, {Name: ":authority", Value: "shop.example"}, {Name: ":path", Value: "/"}}
	for name, tt := range map[string]struct {
		extra  []hpack.HeaderField // a pseudo header replaces that of base
		passes bool
	}{
		"plain":              {nil, true},
		"method of a line":   {[]hpack.HeaderField{{Name: ":method", Value: "GET / HTTP/1.1"}}, false},
		"query of a line":    {[]hpack.HeaderField{{Name: ":path", Value: "/?x HTTP/1.0"}}, false},
		"query":              {[]hpack.HeaderField{{Name: ":path", Value: "/?x=%20;%zz&y"}}, true},
		"host with a space":  {[]hpack.HeaderField{{Name: ":authority", Value: "shop.example evil"}}, false},
		"host with a path":   {[]hpack.HeaderField{{Name: ":authority", Value: "shop.example/evil"}}, false},
		"connection":         {[]hpack.HeaderField{{Name: "connection", Value: "jurat-result"}}, false},
		"upper case":         {[]hpack.HeaderField{{Name: "Jurat-Result", Value: "evil"}}, false},
		"line break":         {[]hpack.HeaderField{{Name: "x", Value: "a\r\nJurat-Result: evil"}}, false},
		"line break in name": {[]hpack.HeaderField{{Name: "x\r\njurat-result", Value: "evil"}}, false},
		"pseudo late":        {[]hpack.HeaderField{{Name: "x", Value: "a"}, {Name: ":authority", Value: "evil"}}, false},
		"other host":         {[]hpack.HeaderField{{Name: "host", Value: "evil"}}, false},
		"underscores":        {[]hpack.HeaderField{{Name: "jurat_result", Value: "evil"}, {Name: "x_forwarded_client_cert", Value: "evil"}}, true},
	} {
		t.Run(name, func(t *testing.T) {
			before := reached.Load()
			c, err := dialTLS(t.Context(), in, "h2")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, http2.ClientPreface)
			fr := http2.NewFramer(c, c)
			fr.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
			_ = fr.WriteSettings()
			var block bytes.Buffer
			enc := hpack.NewEncoder(&block)
			fields := slices.Clone(base)
			for _, f := range tt.extra {
				if i := slices.IndexFunc(base, func(b hpack.HeaderField) bool { return b.Name == f.Name }); i >= 0 && name != "pseudo late" {
					fields[i] = f
				} else {
					fields = append(fields, f)
				}
			}
			for _, f := range fields {
				_ = enc.WriteField(f)
			}
			_ = fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block.Bytes(), EndStream: true, EndHeaders: true})
			status := ""
			for status == "" {
				f, err := fr.ReadFrame()
				if err != nil {
					status = "closed"
					break
				}
				switch f := f.(type) {
				case *http2.MetaHeadersFrame:
					status = f.PseudoValue("status")
				case *http2.RSTStreamFrame, *http2.GoAwayFrame:
					status = "reset"
				}
			}
			if (status == "200") != tt.passes || status == "502" { // the client's fault is not the service's
				t.Fatalf("got %s", status)
			}
			if tt.passes {
				assertClean(t, <-got, true)
			} else if n := reached.Load() - before; n != 0 {
				t.Errorf("%d bytes reached the service", n)
			}
		})
	}
}

// TestServiceCannotSpeakForProxy: headers of the proxy's own answers are not taken from the service.
func TestServiceCannotSpeakForProxy(t *testing.T) {
	names := []string{"Jurat-Error", "jurat_error", "JURAT-RESULT", "Jurat.Result"}
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/upgrade" {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				return
			}
			defer c.Close()
			_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nJurat-Error: forged\r\nX-Fine: fine\r\n\r\n")
			return
		}
		for _, name := range names {
			w.Header()[name] = []string{"forged"}
		}
		w.Header().Set("X-Fine", "fine")
		w.WriteHeader(http.StatusEarlyHints)
		w.Header().Set("Trailer", "Jurat-Error, X-Fine")
		_, _ = io.WriteString(w, "body")
		_ = http.NewResponseController(w).Flush()
		w.Header().Set("Jurat-Error", "forged")
		for _, name := range names {
			w.Header()[http.TrailerPrefix+name] = []string{"forged"}
		}
	}))
	for _, scheme := range []string{"", "h2c://"} {
		in := start(t, inboundHTTP(t, shake(nil, "h2", "http/1.1"), scheme+addr, proxy.Limits{}, nil))
		for _, alpn := range []string{"http/1.1", "h2"} {
			c := client(t, direct(in), alpn)
			t.Run(alpn+" from "+scheme, func(t *testing.T) {
				var hints http.Header
				req, err := http.NewRequestWithContext(withHints(t.Context(), &hints), http.MethodGet, "http://x/", nil)
				if err != nil {
					t.Fatal(err)
				}
				res, _ := do(t, c, req)
				if hints.Get("X-Fine") != "fine" || res.Header.Get("X-Fine") != "fine" || res.Trailer.Get("X-Fine") != "fine" {
					t.Errorf("harmless headers were lost: %v, %v, %v", hints, res.Header, res.Trailer)
				}
				for _, h := range []http.Header{hints, res.Header, res.Trailer} {
					for name := range maps.Keys(h) {
						if strings.HasPrefix(strings.ToLower(name), "jurat") {
							t.Errorf("%s came from the service: %v", name, h[name])
						}
					}
				}
			})
		}
		t.Run("upgrade", func(t *testing.T) {
			c, err := dialTLS(t.Context(), in, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			_, _ = io.WriteString(c, "GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != 101 || res.Header.Get("X-Fine") != "fine" || res.Header.Get("Jurat-Error") != "" {
				t.Errorf("got %s %v", res.Status, res.Header)
			}
		})
	}
}

func TestSimulatedIsSaid(t *testing.T) {
	addr, got := recorder(t)
	sim := genoa
	sim.Vendor, sim.Simulated, sim.Generation = "sim", true, "ge\"no\\a\n\u00e9"
	in := start(t, inboundHTTP(t, shake(appraise(sim, ""), "http/1.1"), addr, proxy.Limits{}, nil))
	get(t, client(t, direct(in), "http/1.1"), "http://x/")
	want := `verdict=affirmed, tee="snp", vendor="sim", generation="ge\"no\\a", simulated=?1, binding=key, `
	if v := (<-got).header.Get("Jurat-Result"); !strings.HasPrefix(v, want) {
		t.Errorf("got %s", v)
	}
}

// renewing is a connection whose peer attests anew, under another key, before its second request.
type renewing struct {
	*conn
	fresh atomic.Bool
	next  tls.Certificate
}

func (r *renewing) Result() *attest.Result {
	if r.fresh.Load() {
		return appraise(attest.Claims{Vendor: "amd", TEE: "snp", Generation: "turin"}, "")
	}
	return r.conn.Result()
}

func (r *renewing) ConnectionState() tls.ConnectionState {
	s := r.conn.ConnectionState()
	if r.fresh.Load() {
		cert, _ := x509.ParseCertificate(r.next.Certificate[0])
		s.PeerCertificates = []*x509.Certificate{cert}
	}
	return s
}

func TestIdentityAttestedAnew(t *testing.T) {
	addr, got := recorder(t)
	r := &renewing{next: makeLeaf("peer.example")}
	in := start(t, inboundHTTP(t, func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		c, err := shake(affirmed())(ctx, raw)
		if err == nil {
			r.conn = c.(*conn)
		}
		return r, err
	}, addr, proxy.Limits{}, nil))
	c := client(t, direct(in), "")
	for _, want := range [][]byte{leaf().Certificate[0], r.next.Certificate[0]} {
		get(t, c, "http://shop.example/")
		h := (<-got).header
		if hash := fmt.Sprintf("Hash=%x;", sha256.Sum256(want)); !strings.HasPrefix(h.Get("X-Forwarded-Client-Cert"), hash) {
			t.Errorf("got %q beside %q, want %s", h.Get("X-Forwarded-Client-Cert"), h.Get("Jurat-Result"), hash)
		}
		r.fresh.Store(true)
	}
}
