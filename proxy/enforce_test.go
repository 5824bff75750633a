package proxy_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// doors hold the connections of a test, and can refuse their peers later.
type doors struct {
	mu    sync.Mutex
	hooks []func(*attest.Result)
	early bool // refuses before anybody has asked to be told
}

// door is an attested connection whose peer may be refused while it is open.
type door struct {
	proxy.Conn
	*doors
}

func (d door) OnRefused(f func(*attest.Result)) {
	d.mu.Lock()
	d.hooks = append(d.hooks, f)
	early := d.early
	d.mu.Unlock()
	if early {
		f(refused(attest.CodePlatformDenied))
	}
}

func (d *doors) shake(client *attest.Result, protos ...string) proxy.Handshake {
	return func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		c, err := shake(client, protos...)(ctx, raw)
		if err != nil {
			return nil, err
		}
		return door{c, d}, nil
	}
}

func (d *doors) dialer(addr string, protos ...string) proxy.Dial {
	return func(ctx context.Context) (proxy.Conn, error) {
		c, err := dialer(addr, affirmed(), protos...)(ctx)
		if err != nil {
			return nil, err
		}
		return door{c, d}, nil
	}
}

func (d *doors) cluster(t testing.TB, addr string) *proxy.Cluster {
	return proxy.NewAttestedCluster(balance(t, upstream.Config{Name: "peer"}, addr), func(ctx context.Context, to upstream.Identity, protos ...string) (proxy.Conn, error) {
		return d.dialer(to.Address, protos...)(ctx)
	}, proxy.ProtocolAuto, 0)
}

// refuse refuses the peers of the n first connections; 0 for all.
func (d *doors) refuse(n int) {
	d.mu.Lock()
	hooks := d.hooks
	d.mu.Unlock()
	if n == 0 {
		n = len(hooks)
	}
	for _, f := range hooks[:n] {
		f(refused(attest.CodePlatformDenied))
	}
}

func (d *doors) opened(t testing.TB, n int) {
	t.Helper()
	until(t, fmt.Sprint(n, " connections"), func() bool {
		d.mu.Lock()
		defer d.mu.Unlock()
		return len(d.hooks) >= n
	})
}

// dripping is a service whose answers never end by themselves.
func dripping(t testing.TB) string {
	return origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/whole" {
			_, _ = io.WriteString(w, "whole")
			return
		}
		if r.URL.Path == "/sized" {
			w.Header().Set("Content-Length", "1000000")
		}
		_, _ = io.WriteString(w, "half")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
}

// A client that is refused between requests is told that the connection ends; in the middle of an answer it is cut off, and what
// it got does not look whole, however an answer says its length.
func TestRefusedHTTP1Client(t *testing.T) {
	for name, head := range map[string]string{
		"sized": "GET /sized HTTP/1.1\r\nHost: a\r\n\r\n", "chunked": "GET /chunked HTTP/1.1\r\nHost: a\r\n\r\n", "until the end": "GET /x HTTP/1.0\r\n\r\n",
		"half a request": "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhal", "idle": "GET /whole HTTP/1.1\r\nHost: a\r\n\r\n", "half a head": "GET / HT", "nothing": "",
	} {
		t.Run(name, func(t *testing.T) {
			d := new(doors)
			s := inboundHTTP(t, d.shake(affirmed(), "http/1.1"), dripping(t), proxy.Limits{}, nil)
			in := start(t, s)
			c, err := dialTLS(t.Context(), in, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			other, err := dialTLS(t.Context(), in, "http/1.1")
			if err != nil {
				t.Fatal(err)
			}
			defer other.Close()
			d.opened(t, 2)
			if _, err := io.WriteString(c, head); err != nil {
				t.Fatal(err)
			}
			until(t, "all to arrive", func() bool { return s.Stats().BytesIn == uint64(len(head)) && s.InLoops() == 2 })
			r := bufio.NewReader(c)
			idle := name == "idle" || name == "nothing"
			if strings.HasPrefix(head, "GET /") && name != "half a head" {
				res, err := http.ReadResponse(r, nil)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, 4)
				if _, err := io.ReadFull(res.Body, got); err != nil {
					t.Fatal(err)
				}
				if name == "idle" {
					_, _ = io.ReadAll(res.Body)
				}
			}
			d.mu.Lock() // connections come in any order
			hooks := d.hooks
			d.mu.Unlock()
			for _, f := range hooks {
				f(refused(attest.CodePlatformDenied))
			}
			rest, err := io.ReadAll(r)
			if (err == nil) != idle || len(rest) > 0 && idle {
				t.Errorf("%q, and then %v", rest, err)
			}
			if _, err := io.ReadAll(other); err != nil {
				t.Errorf("an idle connection ends with %v", err)
			}
		})
	}
}

// A client of HTTP/2 hears by GOAWAY that it is refused, and why; what was under way ends without an end of the stream.
func TestRefusedHTTP2Client(t *testing.T) {
	for _, idle := range []bool{true, false} {
		told := refusedOverHTTP2(t, idle)
		for range 20 { // the portable engine hears late of what has left, and says no more before it does
			told = told || *portable && refusedOverHTTP2(t, idle)
		}
		if !told {
			t.Errorf("idle %v: the client was not told", idle)
		}
	}
}

// refusedOverHTTP2 reports whether the client was told.
func refusedOverHTTP2(t *testing.T, idle bool) (told bool) {
	d := new(doors)
	in := start(t, inboundHTTP(t, d.shake(affirmed(), "h2"), dripping(t), proxy.Limits{}, nil))
	c, err := dialTLS(t.Context(), in, "h2")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	_ = f.WriteSettings()
	if !idle {
		var head strings.Builder
		e := hpack.NewEncoder(&head)
		for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "a"}, {":path", "/sized"}} {
			_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
		}
		_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(head.String()), EndHeaders: true, EndStream: true})
	}
	d.opened(t, 1)
	ended := false
	refuse := sync.OnceFunc(func() { d.refuse(0) })
	var last error
	for {
		fr, err := f.ReadFrame()
		if last = err; err != nil {
			break
		}
		switch fr := fr.(type) {
		case *http2.SettingsFrame: // of a connection that a loop has: before that, there is nobody to tell
			if idle {
				refuse()
			}
		case *http2.DataFrame:
			ended = ended || fr.StreamEnded()
			refuse()
		case *http2.GoAwayFrame:
			if told = true; fr.ErrCode != http2.ErrCodeInadequateSecurity || string(fr.DebugData()) != "J503" {
				t.Errorf("GOAWAY with %s %q", fr.ErrCode, fr.DebugData())
			}
		}
	}
	if ended || told && !errors.Is(last, io.EOF) {
		t.Errorf("idle %v: told %v, ended %v, %v", idle, told, ended, last)
	}
	return told
}

// A client that does not read gets nothing more of what waits for it.
func TestRefusedWhileFull(t *testing.T) {
	for _, alpn := range []string{"http/1.1", "h2"} {
		d := new(doors)
		flood := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			for b := make([]byte, 64<<10); ; {
				if _, err := w.Write(b); err != nil {
					return
				}
			}
		}))
		s := inboundHTTP(t, d.shake(affirmed(), alpn), flood, proxy.Limits{}, nil)
		in := start(t, s)
		h := client(t, direct(in), alpn)
		res, err := h.Get("http://a/")
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		before := uint64(0)
		until(t, "the client's windows to fill", func() bool {
			n := s.Stats().BytesOut
			full := n > 0 && n == before
			before = n
			time.Sleep(20 * time.Millisecond)
			return full
		})
		d.refuse(0)
		if n, err := io.Copy(io.Discard, res.Body); err == nil {
			t.Errorf("%s: an end that looks proper, after %d bytes", alpn, n)
		}
		until(t, "the connection to be gone", func() bool { return s.Stats().Active == 0 })
	}
}

// Both sides of a raw connection are cut off when one is refused, whichever it is.
func TestRefusedTCP(t *testing.T) {
	echo := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	behind := start(t, proxy.NewTCP(engine(t), shake(nil), cluster(t, upstream.Config{Name: "echo"}, echo), nil, proxy.Limits{}))
	for name, make := range map[string]func(d *doors) *proxy.Server{
		"the client": func(d *doors) *proxy.Server {
			return proxy.NewTCP(engine(t), d.shake(affirmed()), cluster(t, upstream.Config{Name: "echo"}, echo), nil, proxy.Limits{})
		},
		"the endpoint": func(d *doors) *proxy.Server {
			return proxy.NewTCP(engine(t), shake(affirmed()), d.cluster(t, behind), nil, proxy.Limits{})
		},
		"the peer of a local client": func(d *doors) *proxy.Server {
			return proxy.NewOutbound(engine(t), d.dialer(behind), nil, proxy.Limits{})
		},
	} {
		t.Run(name, func(t *testing.T) {
			d := new(doors)
			s := make(d)
			addr := start(t, s)
			dial := func() net.Conn {
				if name == "the peer of a local client" {
					c, err := net.Dial("tcp", addr)
					if err != nil {
						t.Fatal(err)
					}
					return c
				}
				c, err := dialTLS(t.Context(), addr)
				if err != nil {
					t.Fatal(err)
				}
				return c
			}
			talk := func(c net.Conn) {
				t.Helper()
				_, _ = io.WriteString(c, "hello")
				if _, err := io.ReadFull(c, make5()); err != nil {
					t.Fatal(err)
				}
			}
			c := dial()
			defer c.Close()
			talk(c)
			d.opened(t, 1)
			other := dial()
			defer other.Close()
			talk(other)
			d.refuse(1)
			if got, err := io.ReadAll(c); err == nil {
				t.Errorf("an end that looks proper, after %q", got)
			}
			talk(other)
			other.Close()
			until(t, "all to be gone", func() bool { return s.Stats().Active == 0 })
		})
	}
}

func make5() []byte { return make([]byte, 5) }

// waiting is a door that tells its peer why it is refused, and waits for one that does not read where the transport does.
type waiting struct {
	door
	told func()
}

func (w waiting) Refuse(*attest.Result) {
	if *portable {
		w.told()
	}
	w.RefuseSoon(nil)
}
func (w waiting) RefuseSoon(*attest.Result) { loop.Reset(w.NetConn()) }

// A peer that is refused, and does not read why, holds up nobody.
func TestRefusedWithoutReading(t *testing.T) {
	echo := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	d := new(doors)
	s := proxy.NewTCP(engine(t), func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
		c, err := d.shake(affirmed())(ctx, raw)
		if err != nil {
			return nil, err
		}
		return waiting{c.(door), func() { t.Error("a loop waits for a peer that it refuses") }}, nil
	}, cluster(t, upstream.Config{Name: "echo"}, echo), nil, proxy.Limits{})
	c, err := dialTLS(t.Context(), start(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "hello")
	if _, err := io.ReadFull(c, make5()); err != nil {
		t.Fatal(err)
	}
	d.refuse(1)
	if got, err := io.ReadAll(c); err == nil {
		t.Errorf("an end that looks proper, after %q", got)
	}
	until(t, "all to be gone", func() bool { return s.Stats().Active == 0 })
}

// A connection that is refused before anything is carried over it.
func TestRefusedEarly(t *testing.T) {
	d := &doors{early: true}
	echo := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	for name, s := range map[string]*proxy.Server{
		"http": inboundHTTP(t, d.shake(affirmed(), "http/1.1"), dripping(t), proxy.Limits{}, nil),
		"h2":   inboundHTTP(t, d.shake(affirmed(), "h2"), dripping(t), proxy.Limits{}, nil),
		"tcp":  proxy.NewTCP(engine(t), d.shake(affirmed()), cluster(t, upstream.Config{Name: "echo"}, echo), nil, proxy.Limits{}),
	} {
		alpn := map[string]string{"http": "http/1.1", "h2": "h2", "tcp": ""}[name]
		c, err := dialTLS(t.Context(), start(t, s), alpn)
		if err == nil {
			if got, err := io.ReadAll(c); err == nil || len(got) > 0 {
				t.Errorf("%s: %q, %v", name, got, err)
			}
			c.Close()
		}
		until(t, name+" to be gone", func() bool { st := s.Stats(); return st.Handshakes > 0 && st.Active == 0 })
	}
}

// A pooled connection to an endpoint that is refused gets no request any more; those under way hear of it.
func TestRefusedEndpoint(t *testing.T) {
	for _, alpn := range []string{"http/1.1", "h2"} {
		t.Run(alpn, func(t *testing.T) {
			d := new(doors)
			behind := inboundHTTP(t, shake(nil, alpn), dripping(t), proxy.Limits{}, nil)
			c := d.cluster(t, start(t, behind))
			local := start(t, proxy.NewHTTP(engine(t), proxy.Plain, proxy.RouteTo(c), nil, proxy.Limits{}))
			ask := func(path string) (*http.Response, error) {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+local+path, nil)
				req.Close = true
				return http.DefaultTransport.RoundTrip(req)
			}
			whole := func() {
				t.Helper()
				res, err := ask("/whole")
				if err != nil {
					t.Fatal(err)
				}
				body, err := io.ReadAll(res.Body)
				if res.Body.Close(); err != nil || string(body) != "whole" {
					t.Errorf("got %d %q, %v", res.StatusCode, body, err)
				}
			}
			whole()
			d.refuse(0) // of an idle connection
			until(t, "the connection to leave", func() bool { return c.Stats().Active == 0 })
			whole()
			res, err := ask("/sized")
			if err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(res.Body, make5()[:4]); err != nil {
				t.Fatal(err)
			}
			d.refuse(0)
			if got, err := io.ReadAll(res.Body); err == nil {
				t.Errorf("an end that looks proper, after %q", got)
			}
			_ = res.Body.Close()
			until(t, "the connection to leave", func() bool { return c.Stats().Active == 0 })
			whole()
			atRest(t, c)
		})
	}
}

// A request without an answer yet gets one with the code of the refusal.
func TestRefusedEndpointBeforeAnswer(t *testing.T) {
	for _, alpn := range []string{"http/1.1", "h2"} {
		d := new(doors)
		asked := make(chan struct{}, 1)
		silent := origin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			asked <- struct{}{}
			<-r.Context().Done()
		}))
		c := d.cluster(t, start(t, inboundHTTP(t, shake(nil, alpn), silent, proxy.Limits{}, nil)))
		local := start(t, proxy.NewHTTP(engine(t), proxy.Plain, proxy.RouteTo(c), nil, proxy.Limits{}))
		go func() {
			<-asked
			d.refuse(0)
		}()
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+local+"/", strings.NewReader("x"))
		req.Close = true
		res, body := do(t, http.DefaultClient, req)
		if res.StatusCode != http.StatusBadGateway || alpn == "h2" && res.Header.Get(proxy.HeaderError) != "J503" {
			t.Errorf("%s: got %d %q %v", alpn, res.StatusCode, body, res.Header)
		}
	}
}

// A WebSocket is a raw connection once it is open.
func TestRefusedWebSocket(t *testing.T) {
	service := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer c.CloseNow()
		for {
			kind, p, err := c.Read(r.Context())
			if err != nil || c.Write(r.Context(), kind, p) != nil {
				return
			}
		}
	}))
	clients, endpoints := new(doors), new(doors)
	behind := start(t, inboundHTTP(t, shake(nil, "http/1.1"), service, proxy.Limits{}, nil))
	for name, d := range map[string]*doors{"client": clients, "endpoint": endpoints} {
		s := proxy.NewHTTP(engine(t), clients.shake(affirmed(), "http/1.1"), proxy.RouteTo(endpoints.cluster(t, behind)), nil, proxy.Limits{})
		addr := start(t, s)
		ws, _, err := websocket.Dial(t.Context(), "wss://"+addr+"/", &websocket.DialOptions{HTTPClient: &http.Client{Transport: &http.Transport{
			TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}},
		}}})
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, _, err := ws.Read(t.Context()); err != nil {
			t.Fatal(err)
		}
		d.refuse(0)
		if _, _, err := ws.Read(t.Context()); err == nil || errors.Is(err, io.EOF) && websocket.CloseStatus(err) != -1 {
			t.Errorf("%s: %v", name, err)
		}
		_ = ws.CloseNow()
		until(t, name+" to be gone", func() bool { return s.Stats().Active == 0 })
	}
	// Over HTTP/2 it is a stream: of the client's connection, which ends, and of the endpoint's.
	behind = start(t, inboundHTTP(t, shake(nil, "h2"), service, proxy.Limits{}, nil))
	for name, d := range map[string]*doors{"client": clients, "endpoint": endpoints} {
		s := proxy.NewHTTP(engine(t), clients.shake(affirmed(), "h2"), proxy.RouteTo(endpoints.cluster(t, behind)), nil, proxy.Limits{})
		e := dialEnd2(t, start(t, s))
		st := e.ask(false, chat("sec-websocket-protocol: a")...)
		if got := st.status(t); got != "200" {
			t.Fatalf("%s: got %s", name, got)
		}
		d.refuse(0)
		if _, err := st.Read(make([]byte, 1)); err == nil || err == io.EOF && st.ended {
			t.Errorf("%s: %v", name, err)
		}
		e.close()
		until(t, name+" to be gone", func() bool { return s.Stats().Active == 0 })
	}
}
