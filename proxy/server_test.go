package proxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
)

// silent is a service that must not be reached.
func silent(t testing.TB) string {
	return rawOrigin(t, func(*net.TCPConn) { t.Error("the service was reached") })
}

// failing is a handshake in which the client is refused after TLS itself went well.
func failing(err error) proxy.Handshake {
	return func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		c, shakeErr := shake(nil)(ctx, raw)
		if shakeErr != nil {
			return nil, shakeErr
		}
		c.Close()
		return nil, err
	}
}

// TestRefusedHandshakes: the client sends a request at once, and none of its bytes counts or arrives.
func TestRefusedHandshakes(t *testing.T) {
	for name, tt := range map[string]struct {
		shake proxy.Handshake
		want  attest.Code
	}{
		"no evidence":        {failing(&attest.Error{Code: attest.CodeNoEvidence}), attest.CodeNoEvidence},
		"refused":            {failing(refused(attest.CodeDebug).Err()), attest.CodeDebug},
		"no code":            {failing(errors.New("oops")), attest.CodeHandshake},
		"refused but passed": {shake(refused(attest.CodeDebug)), attest.CodeDebug},
		"zero result passed": {shake(new(attest.Result)), attest.CodeEmptyPolicy},
		"nothing passed":     {func(context.Context, net.Conn) (proxy.Conn, error) { return nil, nil }, attest.CodeInternal},
		"panic":              {func(context.Context, net.Conn) (proxy.Conn, error) { panic("boom") }, attest.CodeInternal},
		"panic after":        {func(context.Context, net.Conn) (proxy.Conn, error) { return panicky{}, nil }, attest.CodeInternal},
	} {
		for _, mode := range []string{"http", "tcp"} {
			t.Run(name+" "+mode, func(t *testing.T) {
				logs := new(journal)
				var in *proxy.Server
				if mode == "http" {
					in = inboundHTTP(t, tt.shake, silent(t), proxy.Limits{}, logs.logger())
				} else {
					in = inboundTCP(t, tt.shake, silent(t), proxy.Limits{}, logs.logger())
				}
				addr := start(t, in)
				if c, err := dialTLS(t.Context(), addr); err == nil {
					_, _ = io.WriteString(c, "GET /secret HTTP/1.1\r\nHost: x\r\n\r\n")
					if got, _ := io.ReadAll(c); len(got) > 0 {
						t.Errorf("got %q", got)
					}
					c.Close()
				}
				until(t, "the refusal", func() bool { return in.Stats().Refused[tt.want] == 1 })
				s := in.Stats()
				if s.Accepted != 1 || s.Handshakes != 0 || s.Active != 0 || s.Requests != 0 || s.BytesIn != 0 || s.BytesOut != 0 || len(s.Refused) != 1 {
					t.Errorf("counted %+v", s)
				}
				until(t, "the log", func() bool { return strings.Count(logs.String(), "\n") == 1 })
				if text := logs.String(); !strings.Contains(text, `"code":"`+string(tt.want)+`"`) || !strings.Contains(text, `"remote":"127.0.0.1:`) {
					t.Errorf("logged %s", text)
				}
			})
		}
	}
}

type panicky struct{ proxy.Conn }

func TestStatsJSON(t *testing.T) {
	addr, got := recorder(t)
	in := inboundHTTP(t, shake(affirmed(), "http/1.1"), addr, proxy.Limits{}, nil)
	get(t, client(t, direct(start(t, in)), "http/1.1"), "http://x/")
	<-got
	until(t, "the bytes", func() bool { s := in.Stats(); return s.BytesIn > 0 && s.BytesOut > 0 }) // the client may have them first
	s := in.Stats()
	s.BytesIn, s.BytesOut = 1, 2
	text, err := json.Marshal(s)
	if want := `{"accepted":1,"handshakes":1,"bindings":{"key":1},"refused":{},"active":1,"requests":1,"bytes_in":1,"bytes_out":2}`; err != nil || string(text) != want {
		t.Errorf("got %s, %v", text, err)
	}
}

// TestSlowHandshakes: clients that connect and then say nothing take up no more than their places, and those only for
// the time a handshake may last, even when the handshake itself forgets about time.
func TestSlowHandshakes(t *testing.T) {
	const places = 4
	addr := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	var under, most atomic.Int64
	handshake := func(_ context.Context, raw net.Conn) (proxy.Conn, error) {
		most.Store(max(most.Load(), under.Add(1)))
		defer under.Add(-1)
		return shake(nil)(context.Background(), raw)
	}
	in := inboundTCP(t, handshake, addr, proxy.Limits{Handshakes: places, Handshake: 200 * time.Millisecond}, nil)
	server := start(t, in)
	for range 3 * places {
		c, err := net.Dial("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := dialTLS(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n := most.Load(); n > places {
		t.Errorf("%d handshakes at once, want at most %d", n, places)
	}
	until(t, "every refusal", func() bool { return in.Stats().Refused[attest.CodeTimeout] == 3*places })
	if s := in.Stats(); s.Handshakes != 1 {
		t.Errorf("counted %+v", s)
	}
}

// TestCrowdedHandshakes: clients that say nothing keep nobody out for the whole time a handshake may last, and where there
// is room nobody is hurried.
func TestCrowdedHandshakes(t *testing.T) {
	const places = 4
	addr := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	limits := proxy.Limits{Handshakes: places, Handshake: time.Hour, Crowded: 20 * time.Millisecond}
	in := inboundTCP(t, shake(nil), addr, limits, nil)
	server := start(t, in)
	var silent []net.Conn
	for range places {
		c, err := net.Dial("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		silent = append(silent, c)
	}
	until(t, "all places are taken", func() bool { return in.Stats().Accepted == places })
	_ = silent[0].SetReadDeadline(time.Now().Add(5 * limits.Crowded))
	if _, err := silent[0].Read(make([]byte, 1)); !timeout(err) {
		t.Errorf("hurried although nobody waits: %v", err)
	}
	for range 2 * places {
		c, err := net.Dial("tcp", server)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	c, err := dialTLS(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = c.Write([]byte("x"))
	if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	if n := in.Stats().Refused[attest.CodeTimeout]; n == 0 {
		t.Errorf("refused %v", in.Stats().Refused)
	}
}

// TestLateSuccess: a handshake that ends after its time is over does not count.
func TestLateSuccess(t *testing.T) {
	handshake := func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		c, err := shake(nil)(context.Background(), raw)
		<-ctx.Done()
		return c, err
	}
	in := inboundTCP(t, handshake, silent(t), proxy.Limits{Handshake: 200 * time.Millisecond}, nil)
	c, err := dialTLS(t.Context(), start(t, in))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.ReadAll(c)
	until(t, "the refusal", func() bool { return in.Stats().Refused[attest.CodeTimeout] == 1 })
}

// TestConnectionLimit: what exceeds the limit waits, and is served when there is room.
func TestConnectionLimit(t *testing.T) {
	addr := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	for _, mode := range []string{"tcp", "http"} {
		t.Run(mode, func(t *testing.T) {
			limits := proxy.Limits{Connections: 2}
			in := inboundTCP(t, shake(nil), addr, limits, nil)
			if mode == "http" {
				in = inboundHTTP(t, shake(nil), addr, limits, nil)
			}
			server := start(t, in)
			var open []net.Conn
			for range 2 {
				c, err := dialTLS(t.Context(), server)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				open = append(open, c)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			if _, err := dialTLS(ctx, server); !errors.Is(err, context.DeadlineExceeded) {
				t.Fatalf("a third connection: %v", err)
			}
			if n := in.Stats().Active; n != 2 {
				t.Errorf("%d active", n)
			}
			open[0].Close()
			// The place of the client that gave up is taken and freed first.
			c, err := dialTLS(t.Context(), server)
			if err != nil {
				t.Fatal(err)
			}
			c.Close()
		})
	}
}

// brittle is a connection whose Read panics once the handshake is over.
type brittle struct{ conn }

func (b *brittle) Read([]byte) (int, error) { panic("boom") }

// TestPanicEndsOneConnection: net/http and the tunnels read in goroutines of their own.
func TestPanicEndsOneConnection(t *testing.T) {
	addr, got := recorder(t)
	for _, alpn := range []string{"http/1.1", "h2", ""} {
		for _, mode := range []string{"http", "tcp"} {
			t.Run(alpn+" "+mode, func(t *testing.T) {
				var n atomic.Int64
				handshake := func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
					c, err := shake(nil, "h2", "http/1.1")(ctx, raw)
					if err == nil && n.Add(1) == 1 {
						return &brittle{*c.(*conn)}, nil
					}
					return c, err
				}
				var in *proxy.Server
				if mode == "tcp" {
					in = inboundTCP(t, handshake, addr, proxy.Limits{}, nil)
				} else {
					in = inboundHTTP(t, handshake, addr, proxy.Limits{}, nil)
				}
				server := start(t, in)
				c, err := dialTLS(t.Context(), server, alpn)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				_, _ = io.ReadAll(c)
				dial := direct(server)
				if res, _ := get(t, client(t, func(string) dialFunc { return dial("http/1.1") }, "http/1.1"), "http://x/"); res.StatusCode != 200 {
					t.Errorf("got %s", res.Status)
				}
				<-got
			})
		}
	}
}

// flaky is a listener that runs out of descriptors for a while.
type flaky struct {
	net.Listener
	fails atomic.Int64
}

func (f *flaky) Accept() (net.Conn, error) {
	if f.fails.Add(-1) >= 0 {
		return nil, &net.OpError{Op: "accept", Err: syscall.EMFILE}
	}
	return f.Listener.Accept()
}

func TestServeOutlivesExhaustion(t *testing.T) {
	addr, got := recorder(t)
	in := inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil)
	ln := &flaky{Listener: listen(t)}
	ln.fails.Store(3)
	served := make(chan error, 1)
	go func() { served <- in.Serve(ln) }()
	get(t, client(t, direct(ln.Addr().String()), "http/1.1"), "http://x/")
	<-got
	shutdown(t, in, t.Context())
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func TestServeReportsBrokenListener(t *testing.T) {
	in := inboundHTTP(t, shake(nil), silent(t), proxy.Limits{}, nil)
	ln := listen(t)
	ln.Close()
	if err := in.Serve(ln); err == nil {
		t.Error("no error")
	}
	shutdown(t, in, t.Context())
	if err := in.Serve(listen(t)); err != nil {
		t.Errorf("after shutdown: %v", err)
	}
}

func shutdown(t testing.TB, s *proxy.Server, ctx context.Context) {
	t.Helper()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

// TestDrain: a request under way completes, its connection is told to go, idle ones are closed and new ones refused.
func TestDrain(t *testing.T) {
	for _, alpn := range []string{"http/1.1", "h2"} {
		t.Run(alpn, func(t *testing.T) {
			started, finish := make(chan struct{}), make(chan struct{})
			addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/slow" {
					_, _ = io.WriteString(w, "first ")
					_ = http.NewResponseController(w).Flush()
					close(started)
					<-finish
				}
				_, _ = io.WriteString(w, "done")
			}))
			in := inboundHTTP(t, shake(nil, "h2", "http/1.1"), addr, proxy.Limits{}, nil)
			server := start(t, in)
			idle := client(t, direct(server), alpn)
			get(t, idle, "http://x/")
			slow := client(t, direct(server), alpn)
			body := make(chan string, 1)
			go func() {
				_, text := get(t, slow, "http://x/slow")
				body <- text
			}()
			<-started
			down := make(chan error, 1)
			go func() { down <- in.Shutdown(context.Background()) }()
			until(t, "the listener to close", func() bool {
				c, err := net.Dial("tcp", server)
				if err == nil {
					c.Close()
				}
				return errors.Is(err, syscall.ECONNREFUSED)
			})
			until(t, "the idle connection to close", func() bool { return in.Stats().Active == 1 })
			select {
			case err := <-down:
				t.Fatalf("shut down over a request: %v", err)
			default:
			}
			close(finish)
			if text := <-body; text != "first done" {
				t.Errorf("got %q", text)
			}
			if err := <-down; err != nil {
				t.Error(err)
			}
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
			if res, err := slow.Do(req); err == nil {
				res.Body.Close()
				t.Error("a request was served after the drain")
			}
		})
	}
}

// TestDrainEnds: what does not finish is cut off when the time is over, in every mode.
func TestDrainEnds(t *testing.T) {
	forever := make(chan struct{})
	defer close(forever)
	hang := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			c, err := websocket.Accept(w, r, nil)
			if err == nil {
				_, _, _ = c.Read(context.Background())
				c.CloseNow()
			}
			return
		}
		w.WriteHeader(200)
		_ = http.NewResponseController(w).Flush()
		select {
		case <-forever:
		case <-r.Context().Done():
		}
	}))
	echo := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	for _, mode := range []string{"http/1.1", "h2", "websocket", "tcp", "handshake"} {
		t.Run(mode, func(t *testing.T) {
			in := inboundHTTP(t, shake(nil, "h2", "http/1.1"), hang, proxy.Limits{}, nil)
			if mode == "tcp" {
				in = inboundTCP(t, shake(nil), echo, proxy.Limits{}, nil)
			}
			server := start(t, in)
			var wait func() error
			switch mode {
			case "tcp":
				c, err := dialTLS(t.Context(), server)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, _ = c.Write([]byte("x"))
				_, _ = io.ReadFull(c, make([]byte, 1))
				wait = func() error { _, err := c.Read(make([]byte, 1)); return err }
			case "handshake":
				c, err := net.Dial("tcp", server)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				until(t, "the connection", func() bool { return in.Stats().Accepted == 1 })
				wait = func() error { _, err := c.Read(make([]byte, 1)); return err }
			case "websocket":
				c, _, err := websocket.Dial(t.Context(), "http://x/", &websocket.DialOptions{HTTPClient: client(t, direct(server), "http/1.1")})
				if err != nil {
					t.Fatal(err)
				}
				defer c.CloseNow()
				wait = func() error { _, _, err := c.Read(t.Context()); return err }
			default:
				req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
				if err != nil {
					t.Fatal(err)
				}
				res, err := client(t, direct(server), mode).Do(req)
				if err != nil {
					t.Fatal(err)
				}
				defer res.Body.Close()
				wait = func() error { _, err := io.ReadAll(res.Body); return err }
			}
			ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
			defer cancel()
			err := in.Shutdown(ctx)
			if mode == "handshake" {
				if err != nil {
					t.Errorf("a mere handshake held the shutdown up: %v", err)
				}
			} else if !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got %v", err)
			}
			if err := wait(); err == nil || timeout(err) {
				t.Errorf("the client saw %v", err)
			}
		})
	}
}

// TestDrainWaitsForTunnels: raw connections and WebSockets may finish within the time given.
func TestDrainWaitsForTunnels(t *testing.T) {
	echo := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "+")
		_, _ = io.Copy(c, c)
	})
	in := inboundTCP(t, shake(nil), echo, proxy.Limits{}, nil)
	server := start(t, in)
	c, err := dialTLS(t.Context(), server)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.ReadFull(c, make([]byte, 1))
	down := make(chan error, 1)
	go func() { down <- in.Shutdown(context.Background()) }()
	until(t, "the listener to close", func() bool {
		c, err := net.Dial("tcp", server)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	_, _ = io.WriteString(c, "still")
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "still" {
		t.Errorf("got %q, %v", got, err)
	}
	if err := <-down; err != nil {
		t.Error(err)
	}
}

// TestDeafHandshakeDoesNotHoldShutdown: one that ignores its context and its closed transport.
func TestDeafHandshakeDoesNotHoldShutdown(t *testing.T) {
	release := make(chan struct{})
	in := inboundHTTP(t, func(context.Context, net.Conn) (proxy.Conn, error) {
		<-release
		return nil, errors.New("at last")
	}, silent(t), proxy.Limits{}, nil)
	c, err := net.Dial("tcp", start(t, in))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	until(t, "the connection", func() bool { return in.Stats().Accepted == 1 })
	shutdown(t, in, t.Context())
	close(release)
}

func TestSlowHeaderIsBounded(t *testing.T) {
	in := start(t, inboundHTTP(t, shake(nil, "h2", "http/1.1"), silent(t), proxy.Limits{Header: 200 * time.Millisecond, KeepAlive: 200 * time.Millisecond}, nil))
	for _, say := range []string{"", "GET / HT", "GET / HTTP/1.1\r\nX: y\r\n", "PRI * HTTP/2.0\r\n\r\nS"} {
		for _, alpn := range []string{"", "h2", "http/1.1"} {
			c, err := dialTLS(t.Context(), in, alpn)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.SetDeadline(time.Now().Add(10 * time.Second))
			_, _ = io.WriteString(c, say)
			if _, err := io.ReadAll(c); timeout(err) {
				t.Errorf("%q as %q is held for ever", say, alpn)
			}
			c.Close()
		}
	}
}

func TestIdleHTTPConnectionsEnd(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	in := inboundHTTP(t, shake(nil, "h2", "http/1.1"), addr, proxy.Limits{KeepAlive: 100 * time.Millisecond}, nil)
	server := start(t, in)
	for _, alpn := range []string{"h2", "http/1.1"} {
		get(t, client(t, direct(server), alpn), "http://x/")
		began := time.Now()
		until(t, alpn+" to be closed", func() bool { return in.Stats().Active == 0 })
		// Not when the limit of its first request would have been over.
		if took := time.Since(began); took > 9*time.Second {
			t.Errorf("%s was closed after %v", alpn, took)
		}
	}
}

// TestManyClients runs everything at once, for the race detector.
func TestManyClients(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	in := inboundHTTP(t, shake(affirmed(), "h2", "http/1.1"), addr, proxy.Limits{Connections: 8, Peer: -1, Handshakes: 2}, nil)
	server := start(t, in)
	var all sync.WaitGroup
	for i := range 16 {
		all.Go(func() {
			c := client(t, direct(server), []string{"http/1.1", "h2"}[i%2])
			for range 5 {
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", strings.NewReader("hello"))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				if b, _ := bufio.NewReader(res.Body).ReadString(0); b != "hello" {
					t.Errorf("got %q", b)
				}
				res.Body.Close()
			}
			c.CloseIdleConnections()
		})
	}
	all.Wait()
	if s := in.Stats(); s.Requests != 80 {
		t.Errorf("counted %+v", s)
	}
}

// TestPeerLimit: one address does not take all places.
func TestPeerLimit(t *testing.T) {
	logs := new(journal)
	service := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	in := inboundTCP(t, shake(nil), service, proxy.Limits{Connections: 16, Peer: 2}, logs.logger())
	server := start(t, in)
	var conns []net.Conn
	for range 2 {
		c, err := dialTLS(t.Context(), server)
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if c, err := dialTLS(t.Context(), server); err == nil {
		c.Close()
		t.Error("a third one")
	}
	other := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	raw, err := other.DialContext(t.Context(), "tcp", server)
	if err != nil {
		t.Fatal(err)
	}
	c, err := overTLS(t.Context(), raw)
	if err != nil {
		t.Fatalf("from another address: %v", err)
	}
	c.Close()
	conns[0].Close()
	until(t, "the place to be free", func() bool {
		c, err := dialTLS(t.Context(), server)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	conns[1].Close()
	if in.Stats().Refused[attest.CodePeerLimit] == 0 || !strings.Contains(logs.String(), `"code":"J111"`) {
		t.Errorf("counted: %v", in.Stats().Refused)
	}
}
