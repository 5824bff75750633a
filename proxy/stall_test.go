package proxy_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/loop"
)

// endless is a body that goes on as long as it is asked to.
type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// TestServiceStopsReading: a service that neither reads the request nor answers it is not waited for without end. It is not the
// client that was too slow.
func TestServiceStopsReading(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	deaf := map[string]string{
		"": rawOrigin(t, func(c *net.TCPConn) {
			_, _ = http.ReadRequest(bufio.NewReaderSize(c, 16))
			<-done
		}),
		"h2c://": origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-done:
			case <-r.Context().Done():
			}
		})),
	}
	t.Cleanup(func() { close(done) }) // before the services end
	for scheme, addr := range deaf {
		logs := new(journal)
		in := start(t, inboundHTTP(t, shake(nil, "http/1.1", "h2"), scheme+addr, proxy.Limits{Stall: 300 * time.Millisecond, Answer: -1}, logs.logger()))
		for _, alpn := range []string{"http/1.1", "h2"} {
			t.Run(scheme+alpn, func(t *testing.T) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				defer cancel()
				req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/", io.NopCloser(endless{}))
				if err != nil {
					t.Fatal(err)
				}
				res, body := do(t, client(t, direct(in), alpn), req)
				if res.StatusCode != http.StatusGatewayTimeout || res.Header.Get("Jurat-Error") != "J107" {
					t.Errorf("got %s, %q", res.Status, body)
				}
				until(t, "the log", func() bool {
					return strings.Contains(logs.String(), `"error":"the service stopped reading the request"`)
				})
			})
		}
	}
}

// narrow has the kernel hold little of what is written to c.
func narrow(t *testing.T, c net.Conn) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { _ = syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_SNDBUF, 16<<10) })
	}
	if err != nil {
		t.Error(err)
	}
}

// TestSlowClientMoves: a client that takes a response slowly is not one that has stopped, however long it takes to make room.
func TestSlowClientMoves(t *testing.T) {
	t.Parallel()
	const size = 1 << 20
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/whole" { // all of it waits in the proxy at once
			w.Header().Set("Content-Length", strconv.Itoa(size/4))
			_, _ = io.CopyN(w, randomBytes(1, size), size/4)
			return
		}
		_, _ = io.Copy(w, randomBytes(1, size))
	}))
	handshake := func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		narrow(t, raw.(*loop.Wire).Conn)
		return shake(nil, "http/1.1", "h2")(ctx, raw)
	}
	t.Run("http/1.1", func(t *testing.T) {
		t.Parallel()
		in := start(t, inboundHTTP(t, handshake, addr, proxy.Limits{Stall: 2 * time.Second}, nil))
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
		for got := int64(0); got < size/2; time.Sleep(50 * time.Millisecond) {
			n, err := io.CopyN(io.Discard, res.Body, 8<<10)
			if got += n; err != nil {
				t.Fatalf("%d bytes, %v", got, err)
			}
		}
	})
	for _, path := range []string{"/", "/whole"} {
		t.Run("h2 "+path, func(t *testing.T) {
			t.Parallel()
			in := start(t, inboundHTTP(t, handshake, addr, proxy.Limits{Stall: time.Second}, nil))
			c := dialRaw2(t, in, http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			c.request(1, true, ":method", "GET", ":scheme", "https", ":authority", "a", ":path", path)
			until(t, "the response", func() bool {
				f, err := c.ReadFrame()
				return err != nil || f.Header().Type == http2.FrameHeaders
			})
			for got := 0; got < 100<<10; {
				_ = c.WriteWindowUpdate(1, 2<<10)
				_ = c.WriteWindowUpdate(0, 2<<10)
				_ = c.out.Flush()
				time.Sleep(50 * time.Millisecond)
				f, err := c.ReadFrame()
				if err != nil {
					t.Fatal(err)
				}
				switch f := f.(type) {
				case *http2.RSTStreamFrame:
					t.Fatalf("%v after %d bytes", f, got)
				case *http2.DataFrame:
					got += len(f.Data())
				}
			}
		})
	}
}

// TestClientStopsReading: one that takes nothing at all is cut off, although others of the same connection go on.
func TestClientStopsReading(t *testing.T) {
	t.Parallel()
	gone := make(chan struct{}, 1)
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/small" {
			return
		}
		for p := make([]byte, 64<<10); ; {
			if _, err := w.Write(p); err != nil {
				gone <- struct{}{}
				return
			}
		}
	}))
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1", "h2"), addr, proxy.Limits{Stall: 400 * time.Millisecond}, nil))
	t.Run("http/1.1", func(t *testing.T) {
		c, err := dialTLS(t.Context(), in, "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
		select {
		case <-gone:
		case <-time.After(10 * time.Second):
			t.Error("it goes on")
		}
	})
	t.Run("h2", func(t *testing.T) {
		c := dialRaw2(t, in)
		get := func(id uint32, path string) {
			c.request(id, true, ":method", "GET", ":scheme", "https", ":authority", "a", ":path", path)
		}
		get(1, "/")
		for id := uint32(3); ; id += 2 {
			get(id, "/small")
			_ = c.WriteWindowUpdate(0, 64<<10) // of the connection, not of the stream
			_ = c.out.Flush()
			select {
			case <-gone:
				return
			case <-time.After(20 * time.Millisecond):
			}
			if id > 1000 {
				t.Fatal("it goes on")
			}
		}
	})
}

// TestSlowServiceMoves: a service that reads a request slowly has not stopped.
func TestSlowServiceMoves(t *testing.T) {
	t.Parallel()
	addr := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
		f := http2.NewFramer(c, c)
		_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
		for got := 0; ; {
			frame, err := f.ReadFrame()
			if err != nil {
				return
			}
			switch frame := frame.(type) {
			case *http2.SettingsFrame:
				if !frame.IsAck() {
					_ = f.WriteSettingsAck()
				}
				continue
			case *http2.HeadersFrame:
			case *http2.DataFrame:
				if got += len(frame.Data()); frame.StreamEnded() {
					_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: []byte{0x88}, EndStream: true, EndHeaders: true})
					continue
				}
				time.Sleep(50 * time.Millisecond)
			default:
				continue
			}
			_ = f.WriteWindowUpdate(frame.Header().StreamID, 16<<10)
			_ = f.WriteWindowUpdate(0, 16<<10)
		}
	})
	in := start(t, inboundHTTP(t, shake(nil, "http/1.1", "h2"), "h2c://"+addr, proxy.Limits{Stall: time.Second}, nil))
	for _, alpn := range []string{"http/1.1", "h2"} {
		res, err := client(t, direct(in), alpn).Post("http://x/", "", randomBytes(1, 600<<10))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if res.StatusCode != http.StatusOK {
			t.Errorf("%s: %s", alpn, res.Status)
		}
	}
}

// TestAnswerAheadOfTheBody: a service that has answered is not sent the rest of a request that nobody waits for, and what is
// left of that does not keep the next request from being served.
func TestAnswerAheadOfTheBody(t *testing.T) {
	t.Parallel()
	t.Run("h2c", func(t *testing.T) {
		reset := make(chan http2.ErrCode, 1)
		addr := rawOrigin(t, func(c *net.TCPConn) {
			_, _ = io.ReadFull(c, make([]byte, len(http2.ClientPreface)))
			f := http2.NewFramer(c, c)
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: 0})
			for {
				frame, err := f.ReadFrame()
				if err != nil {
					return
				}
				switch frame := frame.(type) {
				case *http2.HeadersFrame:
					time.Sleep(50 * time.Millisecond) // all of the request arrives at the proxy
					_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: frame.StreamID, BlockFragment: []byte{0x88}, EndStream: true, EndHeaders: true})
				case *http2.RSTStreamFrame:
					reset <- frame.ErrCode
				}
			}
		})
		in := start(t, inboundHTTP(t, shake(nil, "http/1.1", "h2"), "h2c://"+addr, proxy.Limits{}, nil))
		for _, alpn := range []string{"http/1.1", "h2"} {
			res, err := client(t, direct(in), alpn).Post("http://x/", "", strings.NewReader(strings.Repeat("x", 100_000)))
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			select {
			case code := <-reset:
				if res.StatusCode != http.StatusOK || code != http2.ErrCodeCancel {
					t.Errorf("%s: %s, %v", alpn, res.Status, code)
				}
			case <-time.After(3 * time.Second):
				t.Errorf("%s: the stream is kept", alpn)
			}
		}
	})
	t.Run("http/1.1", func(t *testing.T) {
		done := make(chan struct{})
		path := socket(t, "service", func(c net.Conn) { // its buffers are small
			if _, err := http.ReadRequest(bufio.NewReaderSize(c, 16)); err != nil {
				return
			}
			time.Sleep(50 * time.Millisecond)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			<-done
		})
		t.Cleanup(func() { close(done) })
		in := start(t, inboundHTTP(t, shake(nil, "http/1.1"), "unix:"+path, proxy.Limits{Answer: 2 * time.Second}, nil))
		c := client(t, direct(in), "http/1.1")
		for range 3 {
			res, err := c.Post("http://x/", "", strings.NewReader(strings.Repeat("x", 400_000)))
			if err != nil {
				t.Fatal(err)
			}
			if res.Body.Close(); res.StatusCode != http.StatusOK {
				t.Error(res.Status)
			}
		}
	})
}

// TestPausedClientLeaves: a client that has sent so much ahead that it is not listened to any more, and goes.
func TestPausedClientLeaves(t *testing.T) {
	if *portable {
		t.Skip("there, an end that comes while nothing is read is not seen")
	}
	t.Parallel()
	reached, called := make(chan struct{}), make(chan struct{})
	addr := origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		close(reached)
		<-r.Context().Done()
		close(called)
	}))
	in := inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil)
	c, err := dialTLS(t.Context(), start(t, in), "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\n\r\n")
	<-reached
	_, _ = io.WriteString(c, strings.Repeat("GET / HTTP/1.1\r\nHost: a\r\n\r\n", 3000))
	time.Sleep(50 * time.Millisecond) // it is paused by now
	_ = c.Close()
	select {
	case <-called:
	case <-time.After(5 * time.Second):
		t.Error("the service goes on")
	}
	until(t, "the end", func() bool { return in.Stats().Active == 0 })
}

// TestLingeringCounts: a connection that has been refused, and is listened to for a while yet, has its place among those that
// are open.
func TestLingeringCounts(t *testing.T) {
	t.Parallel()
	in := inboundHTTP(t, shake(nil, "http/1.1"), silent(t), proxy.Limits{Connections: 1}, nil)
	server := start(t, in)
	first, err := dialTLS(t.Context(), server, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	_, _ = io.WriteString(first, "nonsense\r\n\r\n")
	if got, err := io.ReadAll(first); err != nil || !strings.HasPrefix(string(got), "HTTP/1.1 400 ") {
		t.Fatalf("got %q, %v", got, err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if c, err := dialTLS(ctx, server, "http/1.1"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a second connection: %v", err)
		if err == nil {
			c.Close()
		}
	}
	if n := in.Stats().Active; n != 1 {
		t.Errorf("%d active", n)
	}
	first.Close()
	c, err := dialTLS(t.Context(), server, "http/1.1") // the place of the one that gave up is taken and freed first
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	until(t, "the end", func() bool { return in.Stats().Active == 0 })
}

// explosive is a log that breaks down at a message.
type explosive struct {
	slog.Handler
	at string
}

func (e explosive) Handle(_ context.Context, r slog.Record) error {
	if r.Message == e.at {
		panic("boom")
	}
	return nil
}
func (e explosive) Enabled(context.Context, slog.Level) bool { return true }
func (e explosive) WithAttrs([]slog.Attr) slog.Handler       { return e }

// uncertain is a connection that panics where it is asked for its transport for the second time, which a loop does.
type uncertain struct {
	conn
	asked atomic.Int64
}

func (u *uncertain) NetConn() net.Conn {
	if u.asked.Add(1) == 2 {
		panic("boom")
	}
	return u.conn.NetConn()
}

// TestPanicOutOfTurn: a panic in what no byte has caused, a timer or the end of dialing, ends its connection as well.
func TestPanicOutOfTurn(t *testing.T) {
	t.Parallel()
	hangs := origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }))
	nobody := "unix:" + filepath.Join(t.TempDir(), "nobody")
	logger := slog.New(explosive{at: "no answer from the service"})
	for name, to := range map[string]string{"timer": hangs, "dial": nobody, "shared dial": "h2c://127.0.0.1:1", "take": hangs} {
		for _, alpn := range []string{"http/1.1", "h2"} {
			t.Run(name+" "+alpn, func(t *testing.T) {
				handshake := shake(nil, "http/1.1", "h2")
				if name == "take" {
					handshake = func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
						c, err := shake(nil, "http/1.1", "h2")(ctx, raw)
						if err != nil {
							return nil, err
						}
						return &uncertain{conn: *c.(*conn)}, nil
					}
				}
				in := inboundHTTP(t, handshake, to, proxy.Limits{Answer: 50 * time.Millisecond}, logger)
				server := start(t, in)
				c := client(t, direct(server), alpn)
				c.Timeout = 5 * time.Second
				res, err := c.Get("http://x/")
				if err == nil {
					res.Body.Close()
					t.Fatalf("got %s", res.Status)
				}
				if timeout(err) {
					t.Error("the connection is held")
				}
				if alpn == "http/1.1" || name == "take" { // of HTTP/2 a stream may be all that ends
					until(t, "the end", func() bool { return in.Stats().Active == 0 })
				}
			})
		}
	}
	t.Run("tunnel", func(t *testing.T) {
		in := inboundTCP(t, func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
			c, err := shake(nil)(ctx, raw)
			if err != nil {
				return nil, err
			}
			return &uncertain{conn: *c.(*conn)}, nil
		}, hangs, proxy.Limits{}, nil)
		c, err := dialTLS(t.Context(), start(t, in))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetReadDeadline(time.Now().Add(5 * time.Second))
		if _, err := c.Read(make([]byte, 1)); err == nil || timeout(err) {
			t.Errorf("got %v", err)
		}
		until(t, "the end", func() bool { return in.Stats().Active == 0 })
	})
}
