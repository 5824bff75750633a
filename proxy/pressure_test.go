package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/loop"
)

// TestNothingAfterTheLast: what comes behind the last request of a connection is no request.
func TestNothingAfterTheLast(t *testing.T) {
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), silent(t), proxy.Limits{}, nil))
	for _, first := range []string{
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\nConnection: close\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", // behind it may be what was meant for the tunnel
		"GET / HTTP/1.0\r\nHost: /\r\n\r\n",
	} {
		c, err := dialTLS(t.Context(), in, "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, first+"GET /behind HTTP/1.1\r\nHost: a\r\n\r\n")
		got, err := io.ReadAll(c)
		if err != nil || strings.Count(string(got), "HTTP/1.1 ") != 1 {
			t.Errorf("got %q, %v", got, err)
		}
		c.Close()
	}
}

// TestServiceClosesIdle: a service closes connections just when they are to be used again.
func TestServiceClosesIdle(t *testing.T) {
	addr := rawOrigin(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{Answer: time.Second}, nil))
	var wg sync.WaitGroup
	for range 16 {
		c := client(t, direct(in), "http/1.1")
		wg.Go(func() {
			for range 100 {
				res, err := c.Get("http://x/")
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = io.Copy(io.Discard, res.Body)
				res.Body.Close()
				if res.StatusCode == http.StatusGatewayTimeout {
					t.Error("the request was lost")
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestTrailersOfNothing: a response without a body may announce trailers.
func TestTrailersOfNothing(t *testing.T) {
	addr := rawOrigin(t, func(c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nContent-Length: 0\r\n\r\n")
		}
	})
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1", "h2"), addr, proxy.Limits{}, nil))
	for _, alpn := range []string{"http/1.1", "h2"} {
		c := client(t, direct(in), alpn)
		c.Timeout = 5 * time.Second
		for range 3 {
			if res, body := get(t, c, "http://x/"); res.StatusCode != 200 || body != "" {
				t.Errorf("%s: got %s, %q", alpn, res.Status, body)
			}
		}
	}
}

// TestPipelineUnread: requests of a client that does not read the answers wait, and go on when it does.
func TestPipelineUnread(t *testing.T) {
	const all, size = 2000, 20 << 10
	var served atomic.Int64
	addr := rawOrigin(t, func(c *net.TCPConn) {
		for r := bufio.NewReader(c); ; {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			served.Add(1)
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nX-Path: %s\r\nContent-Length: %d\r\n\r\n%s", req.URL.Path, size, make([]byte, size))
		}
	})
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil))
	c, err := dialTLS(t.Context(), in, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.NetConn().(*net.TCPConn).SetReadBuffer(64 << 10)
	var sent sync.WaitGroup
	sent.Go(func() {
		for i := range all {
			fmt.Fprintf(c, "GET /%d HTTP/1.1\r\nHost: a\r\n\r\n", i)
		}
	})
	defer sent.Wait()
	for before := int64(-1); before != served.Load(); time.Sleep(200 * time.Millisecond) {
		before = served.Load()
	}
	if n := served.Load(); n > all/2 {
		t.Errorf("%d answers wait in memory", n)
	}
	_ = c.SetReadDeadline(time.Now().Add(30 * time.Second))
	for i, r := 0, bufio.NewReader(c); i < all; i++ {
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(i, err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil || res.Header.Get("X-Path") != fmt.Sprintf("/%d", i) {
			t.Fatalf("answer %d: %d bytes, %v, of %s", i, n, err, res.Header.Get("X-Path"))
		}
	}
}

// raw2 is a client that writes frames of HTTP/2 as it likes.
type raw2 struct {
	*http2.Framer
	conn *tls.Conn
	out  *bufio.Writer
}

func dialRaw2(t *testing.T, addr string, settings ...http2.Setting) *raw2 {
	t.Helper()
	c, err := dialTLS(t.Context(), addr, "h2")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	out := bufio.NewWriter(c)
	_, _ = out.WriteString(http2.ClientPreface)
	r := &raw2{http2.NewFramer(out, c), c, out}
	_ = r.WriteSettings(settings...)
	return r
}

func (r *raw2) request(id uint32, end bool, fields ...string) {
	var b bytes.Buffer
	e := hpack.NewEncoder(&b)
	for i := 0; i < len(fields); i += 2 {
		_ = e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]})
	}
	_ = r.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: b.Bytes(), EndStream: end, EndHeaders: true})
	_ = r.out.Flush()
}

// TestHTTP2Unread: a client that goes on sending, and does not read, makes the proxy hold no more and no more.
func TestHTTP2Unread(t *testing.T) {
	var wrote atomic.Int64
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/up" {
			_, _ = io.Copy(io.Discard, r.Body)
			return
		}
		for p := make([]byte, 64<<10); ; wrote.Add(int64(len(p))) {
			if _, err := w.Write(p); err != nil {
				return
			}
		}
	}))
	in := start(t, inboundHTTP(t, shake(nil, "h2"), addr, proxy.Limits{}, nil))
	c := dialRaw2(t, in, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1<<31 - 1})
	_ = c.WriteWindowUpdate(0, 1<<30)
	c.request(1, true, ":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/")
	c.request(3, false, ":method", "POST", ":scheme", "https", ":authority", "a", ":path", "/up")
	for before := int64(-1); before != wrote.Load() || before == 0; time.Sleep(200 * time.Millisecond) {
		before = wrote.Load()
	}
	for range 1000 {
		_ = c.WriteData(3, false, []byte("x"))
		_ = c.out.Flush()
		time.Sleep(300 * time.Microsecond)
	}
	time.Sleep(100 * time.Millisecond)
	if n := wrote.Load(); n > 40<<20 { // four times what the kernel takes; the proxy would take 64 KiB more for each frame, or more
		t.Errorf("%d bytes", n)
	}
}

// TestForgotten: nothing holds on to a connection that was broken off with a call under way, whatever its deadline.
func TestForgotten(t *testing.T) {
	reached := make(chan struct{}, 1)
	addr := origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		reached <- struct{}{}
		<-r.Context().Done()
	}))
	var freed atomic.Bool
	handshake := func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		c, err := shake(nil, "h2")(ctx, raw)
		if err == nil {
			runtime.AddCleanup(c.(*conn), func(*byte) { freed.Store(true) }, new(byte))
		}
		return c, err
	}
	in := inboundHTTP(t, handshake, addr, proxy.Limits{}, nil)
	c := dialRaw2(t, start(t, in))
	c.request(1, true, ":method", "POST", ":scheme", "https", ":authority", "a", ":path", "/",
		"content-type", "application/grpc", "grpc-timeout", "999999H", "te", "trailers")
	<-reached
	raw := c.conn.NetConn().(*net.TCPConn)
	_ = raw.SetLinger(0)
	raw.Close()
	until(t, "the end", func() bool { return in.Stats().Active == 0 })
	until(t, "the memory", func() bool { runtime.GC(); return freed.Load() })
}

// TestUpgradeAhead: a client need not wait for the answer to its upgrade before it sends more.
func TestUpgradeAhead(t *testing.T) {
	const ahead = 150 << 10
	sent := make(chan struct{})
	addr := rawOrigin(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		if _, err := http.ReadRequest(r); err != nil {
			return
		}
		<-sent
		time.Sleep(100 * time.Millisecond)
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nhello")
		_, _ = io.Copy(c, r)
	})
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil))
	c, err := dialTLS(t.Context(), in, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	_, _ = io.CopyN(c, randomBytes(1, 2*ahead), ahead)
	close(sent)
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	r := bufio.NewReader(c)
	if res, err := http.ReadResponse(r, nil); err != nil || res.StatusCode != 101 {
		t.Fatal(res, err)
	}
	if got := make([]byte, 5); true {
		if _, err := io.ReadFull(r, got); err != nil || string(got) != "hello" {
			t.Fatalf("got %q, %v", got, err)
		}
	}
	rest := randomBytes(1, 2*ahead)
	_, _ = io.CopyN(io.Discard, rest, ahead)
	_, _ = io.Copy(c, rest)
	if got := digest(t, io.LimitReader(r, 2*ahead)); got != digest(t, randomBytes(1, 2*ahead)) {
		t.Error("it came back changed")
	}
}

// TestSlowReaderOfTheLast: the last answer of a connection is not cut off because the client takes its time.
func TestSlowReaderOfTheLast(t *testing.T) {
	t.Parallel()
	const size, rest = 500 << 10, 200 << 10
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.Copy(w, randomBytes(1, size))
	}))
	handshake := func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		narrow(t, raw.(*loop.Wire).Conn)
		return shake(nil, "http/1.1")(ctx, raw)
	}
	in := start(t, inboundHTTP(t, handshake, addr, proxy.Limits{}, nil))
	c, err := dialTLS(t.Context(), in, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.NetConn().(*net.TCPConn).SetReadBuffer(16 << 10)
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err = io.CopyN(io.Discard, res.Body, size-rest); err != nil {
		t.Fatal(err)
	}
	time.Sleep(6 * time.Second) // the service has said all of it, and the rest waits in the proxy
	if n, err := io.Copy(io.Discard, res.Body); n != rest || err != nil {
		t.Errorf("%d bytes of the last %d, %v", n, rest, err)
	}
}

// TestEarlyAnswerAndGone: a service that refuses a body closes right away.
func TestEarlyAnswerAndGone(t *testing.T) {
	addr := rawOrigin(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
			time.Sleep(100 * time.Millisecond)
		}
	})
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil))
	wrong := 0
	for range 30 {
		res, err := client(t, direct(in), "http/1.1").Post("http://x/", "", io.MultiReader(randomBytes(1, 64<<20), errReader{}))
		if err != nil {
			wrong++
			t.Log(err)
			continue
		}
		res.Body.Close()
		if res.StatusCode != http.StatusRequestEntityTooLarge {
			wrong++
			t.Log(res.Status)
		}
	}
	if wrong > 3 { // the reset may take an answer along, if it is quick
		t.Errorf("%d of 30 clients were not told", wrong)
	}
}

type errReader struct{}

func (errReader) Read([]byte) (int, error) { return 0, errors.New("no more") }

// TestHTTP2Tail: the end of a response that a client does not take is not kept for ever.
func TestHTTP2Tail(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }))
	in := start(t, inboundHTTP(t, shake(nil, "h2"), addr, proxy.Limits{Stall: 200 * time.Millisecond}, nil))
	c := dialRaw2(t, in, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
	c.request(1, true, ":method", "GET", ":scheme", "https", ":authority", "a", ":path", "/")
	_ = c.conn.SetReadDeadline(time.Now().Add(3 * time.Second))
	for {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if _, ok := f.(*http2.RSTStreamFrame); ok {
			return
		}
	}
}

// TestAheadIsBounded: what a client sends while it waits for a response stays with the client.
func TestAheadIsBounded(t *testing.T) {
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }), proxy.Limits{}, nil))
	c, err := dialTLS(t.Context(), in, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.NetConn().Close()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	const most = 16 << 20 // the kernel's buffers hold less
	_ = c.SetWriteDeadline(time.Now().Add(2 * time.Second))
	left, chunk := 0, make([]byte, 16<<10)
	for left <= most {
		n, err := c.Write(chunk)
		if left += n; err != nil {
			if !timeout(err) {
				t.Error(err)
			}
			return
		}
	}
	t.Errorf("%d bytes left the client", left)
}
