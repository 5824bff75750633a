package proxy_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/accesslog"
)

func TestParseBackend(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1:80":         "127.0.0.1:80",
		"localhost:1":          "localhost:1",
		":8080":                "localhost:8080",
		"[::1]:65535":          "[::1]:65535",
		"http://localhost:80":  "http://localhost:80",
		"http://localhost:80/": "http://localhost:80",
		"h2c://[::1]:50051":    "h2c://[::1]:50051",
		"unix:/run/s.sock":     "unix:/run/s.sock",
		"unix:@abstract":       "unix:@abstract",
	} {
		if b, err := proxy.ParseBackend(in); err != nil || b.String() != want {
			t.Errorf("%s: got %s, %v", in, b, err)
		}
	}
	for _, in := range []string{
		"", "localhost", "8080", "localhost:", "localhost:0", "localhost:65536", "localhost:http", "localhost:-1", "unix:", "unix:a\x00b",
		"https://localhost:443", "ftp://localhost:21", "http://localhost", "http://localhost:80/path", "http://a@localhost:80", "http://a/b:80",
		"http://", "://", "::1:80", "a b:80",
	} {
		_, err := proxy.ParseBackend(in)
		if attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%q: got %v", in, err)
		}
	}
}

func TestBackendMustSuit(t *testing.T) {
	var none proxy.Backend
	if _, err := proxy.NewInboundHTTP(engine(t), shake(nil), none, nil, proxy.Limits{}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("got %v", err)
	}
	for _, b := range []proxy.Backend{none, backend(t, "http://localhost:80"), backend(t, "h2c://localhost:80")} {
		if _, err := proxy.NewInboundTCP(engine(t), shake(nil), b, nil, proxy.Limits{}); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%s: got %v", b, err)
		}
	}
}

// TestServiceFails: whatever a service does, the client gets an answer or a visible break, with a code where one fits.
func TestServiceFails(t *testing.T) {
	closed := listen(t)
	closed.Close()
	release := make(chan struct{})
	defer close(release)
	answer := func(text string, linger int) string {
		return rawOrigin(t, func(c *net.TCPConn) {
			if _, err := http.ReadRequest(bufio.NewReader(c)); err != nil {
				return
			}
			_, _ = io.WriteString(c, text)
			_ = c.SetLinger(linger)
		})
	}
	for _, tt := range []struct {
		name, to string
		status   int
		code     attest.Code
	}{
		{"refuses connections", closed.Addr().String(), 502, attest.CodeBackendUnreachable},
		{"refuses connections h2c", "h2c://" + closed.Addr().String(), 502, attest.CodeBackendUnreachable},
		{"has no socket", "unix:/nonexistent/socket", 502, attest.CodeBackendUnreachable},
		{"closes", answer("", -1), 502, attest.CodeBackendFailed},
		{"resets", answer("", 0), 502, attest.CodeBackendFailed},
		{"closes h2c", "h2c://" + answer("", -1), 502, attest.CodeBackendFailed},
		{"speaks something else", answer("-ERR secret-of-the-service\r\n", -1), 502, attest.CodeBackendFailed},
		{"breaks off its header", answer("HTTP/1.1 200 OK\r\nContent-Le", -1), 502, attest.CodeBackendFailed},
		{"sends an endless header", answer("HTTP/1.1 200 OK\r\nX: "+strings.Repeat("x", 2<<20), -1), 502, attest.CodeBackendFailed},
		{"hangs", rawOrigin(t, func(*net.TCPConn) { <-release }), 504, attest.CodeBackendFailed},
		{"hangs h2c", "h2c://" + rawOrigin(t, func(*net.TCPConn) { <-release }), 504, attest.CodeBackendFailed},
		{"breaks off its body", answer("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", -1), 200, ""},
		{"breaks off its chunks", answer("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", -1), 200, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			logs := new(journal)
			var limits proxy.Limits
			if tt.status == 504 { // elsewhere a busy machine would look like a service that hangs
				limits.Answer = 200 * time.Millisecond
			}
			in := start(t, inboundHTTP(t, shake(nil, "h2", "http/1.1"), tt.to, limits, logs.logger()))
			for _, alpn := range []string{"http/1.1", "h2"} {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
				if err != nil {
					t.Fatal(err)
				}
				req.Header.Set("Authorization", "secret-of-the-client")
				res, err := client(t, direct(in), alpn).Do(req)
				if err != nil && tt.status == 200 {
					continue // the reset was quicker than the head
				}
				if err != nil {
					t.Fatalf("%s: %v", alpn, err)
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				if tt.status == 200 {
					if err == nil {
						t.Errorf("%s: half an answer looks whole: %q", alpn, body)
					}
					if !strings.Contains(logs.String(), "J107") {
						t.Errorf("%s: logged %s", alpn, logs)
					}
					continue
				}
				want := fmt.Sprintf("jurat: %s (%s)\n", tt.code.Title(), tt.code)
				if res.StatusCode != tt.status || res.Header.Get("Jurat-Error") != string(tt.code) || string(body) != want {
					t.Errorf("%s: got %s %q %q", alpn, res.Status, res.Header.Get("Jurat-Error"), body)
				}
				if !strings.Contains(logs.String(), string(tt.code)) || strings.Contains(logs.String(), "secret") {
					t.Errorf("%s: logged %s", alpn, logs)
				}
			}
		})
	}
}

// TestSlowBodyIsNoHang: the limit on an answer ends with its header, and begins with the end of the request.
func TestSlowBodyIsNoHang(t *testing.T) {
	const limit = 100 * time.Millisecond
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		_ = http.NewResponseController(w).Flush()
		<-time.After(3 * limit)
		_, _ = io.WriteString(w, "late")
	}))
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{Answer: limit}, nil))
	pr, pw := io.Pipe()
	go func() {
		<-time.After(3 * limit)
		_, _ = io.WriteString(pw, "late too")
		pw.Close()
	}()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", pr)
	if err != nil {
		t.Fatal(err)
	}
	if res, body := do(t, client(t, direct(in), "http/1.1"), req); res.StatusCode != 200 || body != "late" {
		t.Errorf("got %s %q", res.Status, body)
	}
}

// TestClientBreaksOff: it is not the service that failed.
func TestClientBreaksOff(t *testing.T) {
	began, bodies := make(chan struct{}), make(chan error, 1)
	addr := origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		_, err := io.ReadAll(r.Body)
		bodies <- err
	}))
	logs := new(journal)
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, logs.logger()))
	c, err := dialTLS(t.Context(), in, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
	<-began
	_, _ = io.WriteString(c, "not a chunk\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	res.Body.Close()
	if res.StatusCode != 400 || res.Header.Get("Jurat-Error") != "" || strings.Contains(logs.String(), "J107") {
		t.Errorf("got %s %v, logged %s", res.Status, res.Header, logs)
	}
	if err := <-bodies; err == nil || errors.Is(err, io.EOF) {
		t.Errorf("the service saw a whole body: %v", err)
	}
}

// TestStall: a client that goes silent in the middle of its request, or does not read the response, is let go; one that is
// only slow is not.
func TestStall(t *testing.T) {
	const limit = 300 * time.Millisecond
	ends := make(chan error, 1)
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/much" {
			_, err := io.Copy(w, io.LimitReader(rand.New(rand.NewSource(1)), 64<<20))
			ends <- err
			return
		}
		_, err := io.Copy(w, r.Body)
		ends <- err
	}))
	heard := new(observed)
	server := inboundHTTP(t, shake(nil, "h2", "http/1.1"), addr, proxy.Limits{Stall: limit}, nil)
	server.Observe(proxy.Observer{Log: heard.log}, "in")
	in := start(t, server)
	for _, alpn := range []string{"http/1.1", "h2"} {
		t.Run(alpn, func(t *testing.T) {
			c := client(t, direct(in), alpn)
			pr, pw := io.Pipe()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", pr)
			if err != nil {
				t.Fatal(err)
			}
			_ = pw
			res, err := c.Do(req)
			if err == nil {
				if res.StatusCode != http.StatusRequestTimeout {
					t.Errorf("got %s", res.Status)
				}
				res.Body.Close()
			} else if alpn == "h2" {
				t.Error(err)
			}
			pw.Close()
			if err := <-ends; err == nil {
				t.Error("the service saw a whole body")
			}
			r := heard.next(t)
			for r.Status != http.StatusRequestTimeout {
				r = heard.next(t)
			}
			if r.Flags != accesslog.StreamIdleTimeout {
				t.Errorf("the record says %v", r.Flags)
			}
			pr, pw = io.Pipe()
			go func() {
				for range 8 {
					<-time.After(limit / 4)
					_, _ = io.WriteString(pw, "slow ")
				}
				pw.Close()
			}()
			if req, err = http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", pr); err != nil {
				t.Fatal(err)
			}
			if res, body := do(t, c, req); res.StatusCode != 200 || body != strings.Repeat("slow ", 8) {
				t.Errorf("got %s, %q", res.Status, body)
			}
			if err := <-ends; err != nil {
				t.Error(err)
			}
			if req, err = http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/much", nil); err != nil {
				t.Fatal(err)
			}
			if res, err = c.Do(req); err != nil {
				t.Fatal(err)
			}
			if err := <-ends; err == nil {
				t.Error("the service sent everything to a client that does not read")
			}
			if _, err := io.Copy(io.Discard, res.Body); err == nil {
				t.Error("a response that was cut off looks whole")
			}
			res.Body.Close()
		})
	}
}
