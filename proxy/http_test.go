package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"github.com/coder/websocket"

	"github.com/jurat-tls/jurat/proxy"
)

func randomBytes(seed byte, n int64) io.Reader {
	return io.LimitReader(rand.NewChaCha8([32]byte{seed}), n)
}

func digest(t testing.TB, r io.Reader) (sum [32]byte) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		t.Error(err)
	}
	return [32]byte(h.Sum(nil))
}

func TestHTTP(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("X-Proto", r.Proto)
		w.Header().Set("X-Host", r.Host)
		w.Header().Set("X-URI", r.RequestURI)
		_, _ = io.Copy(w, r.Body)
	})
	mux.HandleFunc("/trailers", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Trailer", "X-Sum, X-Client-Sum")
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "body")
		w.Header().Set("X-Sum", "42")
		w.Header().Set("X-Client-Sum", r.Trailer.Get("X-Sum"))
		w.Header().Set(http.TrailerPrefix+"X-Late", "unannounced")
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/echo", http.StatusFound) })
	mux.HandleFunc("/hints", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Link", "</a>; rel=preload")
		w.WriteHeader(http.StatusEarlyHints)
		w.WriteHeader(http.StatusNoContent)
	})
	addr := origin(t, mux)
	for scheme, proto := range map[string]string{"": "HTTP/1.1", "http://": "HTTP/1.1", "h2c://": "HTTP/2.0"} {
		in := inboundHTTP(t, shake(nil, "h2", "http/1.1"), scheme+addr, proxy.Limits{}, nil)
		for _, w := range ways(t, in) {
			for _, alpn := range []string{"http/1.1", "h2"} {
				t.Run(strings.Join([]string{w.name, alpn, "to", scheme + "service"}, " "), func(t *testing.T) {
					c := client(t, w.dial, alpn)
					res, _ := get(t, c, "http://shop.example/echo?a=1;b=%zz&c")
					if res.StatusCode != 200 || res.Header.Get("X-Proto") != proto || res.Header.Get("X-Host") != "shop.example" ||
						res.Header.Get("X-URI") != "/echo?a=1;b=%zz&c" {
						t.Fatalf("got %s %v", res.Status, res.Header)
					}
					if want := map[string]int{"http/1.1": 1, "h2": 2}[alpn]; res.ProtoMajor != want {
						t.Fatalf("the client spoke %s", res.Proto)
					}
					if res, _ := get(t, c, "http://shop.example/redirect"); res.StatusCode != 302 || res.Header.Get("Location") != "/echo" {
						t.Fatalf("got %s %v", res.Status, res.Header)
					}
					if res, _ := get(t, c, "http://shop.example/hints"); res.StatusCode != 204 {
						t.Fatalf("got %s", res.Status)
					}
					streams(t, c)
					trailers(t, c)
				})
			}
		}
	}
}

// streams sends a body both ways at once: the service answers while it still reads.
func streams(t *testing.T, c *http.Client) {
	const size = 4 << 20
	for _, expect := range []string{"", "100-continue"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://shop.example/echo", randomBytes(1, size))
		if err != nil {
			t.Fatal(err)
		}
		if expect != "" {
			req.Header.Set("Expect", expect)
		}
		res, err := c.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		got := digest(t, res.Body)
		res.Body.Close()
		if got != digest(t, randomBytes(1, size)) {
			t.Fatal("the body came back changed")
		}
	}
}

func trailers(t *testing.T, c *http.Client) {
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://shop.example/trailers", io.NopCloser(strings.NewReader("body")))
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{"X-Sum": {"7"}}
	res, body := do(t, c, req)
	if body != "body" || res.Trailer.Get("X-Sum") != "42" || res.Trailer.Get("X-Client-Sum") != "7" || res.Trailer.Get("X-Late") != "unannounced" {
		t.Fatalf("got %q with trailers %v", body, res.Trailer)
	}
}

// TestStreaming demands every chunk of an answer before the service sends the next.
func TestStreaming(t *testing.T) {
	next := make(chan struct{})
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", r.URL.Query().Get("type"))
		for i := range 3 {
			fmt.Fprintf(w, "data: %d\n", i)
			_ = http.NewResponseController(w).Flush()
			select {
			case <-next:
			case <-r.Context().Done():
				return
			}
		}
	}))
	for _, w := range ways(t, inboundHTTP(t, shake(nil, "h2", "http/1.1"), addr, proxy.Limits{}, nil)) {
		for _, alpn := range []string{"http/1.1", "h2"} {
			t.Run(w.name+" "+alpn, func(t *testing.T) {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/?type=text/event-stream", nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := client(t, w.dial, alpn).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				lines := bufio.NewReader(res.Body)
				for i := range 3 {
					if line, err := lines.ReadString('\n'); err != nil || line != fmt.Sprintf("data: %d\n", i) {
						t.Fatalf("got %q, %v", line, err)
					}
					next <- struct{}{}
				}
			})
		}
	}
}

func TestUnixBackend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	serveOrigin(t, ln, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Host) }))
	in := inboundHTTP(t, shake(nil, "http/1.1"), "unix:"+path, proxy.Limits{}, nil)
	if _, body := get(t, client(t, direct(start(t, in)), "http/1.1"), "http://shop.example/"); body != "shop.example" {
		t.Fatalf("got %q", body)
	}
}

func TestWebSocket(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 21)
		for {
			kind, p, err := c.Read(r.Context())
			if err != nil {
				return
			}
			if err := c.Write(r.Context(), kind, p); err != nil {
				return
			}
		}
	}))
	for _, scheme := range []string{"", "h2c://"} {
		in := inboundHTTP(t, shake(nil, "h2", "http/1.1"), scheme+addr, proxy.Limits{}, nil)
		for _, w := range ways(t, in) {
			t.Run(w.name+" "+scheme, func(t *testing.T) {
				c, _, err := websocket.Dial(t.Context(), "http://shop.example/", &websocket.DialOptions{HTTPClient: client(t, w.dial, "http/1.1")})
				if err != nil {
					t.Fatal(err)
				}
				defer c.CloseNow()
				c.SetReadLimit(1 << 21)
				for seed, size := range []int64{0, 1, 125, 126, 65536, 1 << 20} {
					sent, _ := io.ReadAll(randomBytes(byte(seed), size))
					if err := c.Write(t.Context(), websocket.MessageBinary, sent); err != nil {
						t.Fatal(err)
					}
					if _, got, err := c.Read(t.Context()); err != nil || !bytes.Equal(got, sent) {
						t.Fatalf("%d bytes came back as %d, %v", len(sent), len(got), err)
					}
				}
				if err := c.Close(websocket.StatusNormalClosure, "done"); err != nil {
					t.Fatal(err)
				}
			})
		}
	}
}

// TestNegotiatedProtocolBinds: bytes of another protocol than the negotiated one are not served.
func TestNegotiatedProtocolBinds(t *testing.T) {
	reached := make(chan string, 8)
	addr := origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { reached <- r.Method }))
	in := start(t, inboundHTTP(t, shake(nil, "h2", "http/1.1"), addr, proxy.Limits{}, nil))
	for alpn, say := range map[string]string{
		"h2":       "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
		"http/1.1": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00",
	} {
		c, err := dialTLS(t.Context(), in, alpn)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, say)
		answer, _ := io.ReadAll(c)
		c.Close()
		if bytes.Contains(answer, []byte(" 200 ")) {
			t.Errorf("%s: got %q", alpn, answer)
		}
	}
	select {
	case m := <-reached:
		t.Errorf("%s reached the service", m)
	default:
	}
}

func TestRefusedRequests(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Reached", "1") }))
	in := start(t, inboundHTTP(t, shake(nil, "h2", "http/1.1"), addr, proxy.Limits{}, nil))
	for name, tt := range map[string]struct {
		head string
		want int
	}{
		"CONNECT":                  {"CONNECT internal:22 HTTP/1.1\r\nHost: internal:22\r\n", 405},
		"opaque target":            {"GET urn:x HTTP/1.1\r\nHost: a\r\n", 400},
		"space before colon":       {"GET / HTTP/1.1\r\nHost: a\r\nJurat-Result : x\r\n", 400},
		"continuation line first":  {"GET / HTTP/1.1\r\n Jurat-Result: x\r\nHost: a\r\n", 400},
		"two hosts":                {"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400},
		"no host":                  {"GET / HTTP/1.1\r\n", 400},
		"two lengths":              {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n", 400},
		"unknown coding":           {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n", 501},
		"coding twice":             {"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", 400},
		"length and chunks":        {"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n", 400},
		"bare line feeds":          {"GET / HTTP/1.1\r\nHost: a\r\nJurat-Result: evil\nX_Forwarded_Client_Cert: evil\n\n", 400},
		"control character":        {"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n", 400},
		"header larger than limit": {"GET / HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 80<<10) + "\r\n", 431},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dialTLS(t.Context(), in, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			go func() { _, _ = io.WriteString(c, tt.head+"\r\n") }()
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != tt.want || res.Header.Get("X-Reached") != "" {
				t.Errorf("got %s %v, want %d", res.Status, res.Header, tt.want)
			}
		})
	}
}

// TestUpgrade: only WebSocket may turn a request into a tunnel past the proxy.
func TestUpgrade(t *testing.T) {
	addr := rawOrigin(t, func(c *net.TCPConn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		up := req.Header.Get("Upgrade")
		if up == "" && req.URL.Path != "/unasked" {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nplain")
			return
		}
		if up != "" {
			up = "Upgrade: " + up + "\r\nConnection: Upgrade\r\n"
		}
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n"+up+"\r\n")
		_, _ = io.Copy(c, c)
	})
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil))
	for _, tt := range []struct {
		name, path, head string
		want             int
	}{
		{"websocket", "/", "Connection: Upgrade\r\nUpgrade: WebSocket\r\n", 101},
		{"h2c", "/", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n", 200},
		{"list", "/", "Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", 200},
		{"two headers", "/", "Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: h2c\r\n", 200},
		{"other", "/", "Connection: Upgrade\r\nUpgrade: SPDY/3.1\r\n", 200},
		{"unasked", "/unasked", "", 502},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c, err := dialTLS(t.Context(), in, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: a\r\n%s\r\n", tt.path, tt.head)
			res, err := http.ReadResponse(bufio.NewReader(c), nil)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			if res.StatusCode != tt.want {
				t.Errorf("got %s, want %d", res.Status, tt.want)
			}
		})
	}
}

func TestClientGoneEndsRequest(t *testing.T) {
	started, ended := make(chan struct{}), make(chan struct{})
	addr := origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(started)
		<-r.Context().Done()
		close(ended)
	}))
	in := inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil)
	c := client(t, direct(start(t, in)), "http/1.1")
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-started
		cancel()
	}()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/", nil)
	if err != nil {
		t.Fatal(err)
	}
	if res, err := c.Do(req); err == nil {
		res.Body.Close()
		t.Fatal("got an answer")
	}
	<-ended
}

// TestHTTP10: a client of long ago, which names no host and expects the end of the connection to end the body.
func TestHTTP10(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, r.Host+" "+strings.Join(r.Header["X-Forwarded-Host"], ","))
		_ = http.NewResponseController(w).Flush()
		_, _ = io.WriteString(w, " end")
	}))
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil))
	for head, want := range map[string]string{"": addr + "  end", "Host: shop.example\r\n": "shop.example shop.example end"} {
		c, err := dialTLS(t.Context(), in)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, "GET / HTTP/1.0\r\n"+head+"\r\n")
		got, err := io.ReadAll(c)
		if _, body, _ := strings.Cut(string(got), "\r\n\r\n"); err != nil || body != want || strings.Contains(string(got), "chunked") {
			t.Errorf("got %q, %v", got, err)
		}
		c.Close()
	}
}
