package proxy_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// keeper is a service whose first connection stays open after an answer, and is closed at the next request, once closing says so; what
// asks on another connection waits.
type keeper struct {
	addr    string
	ln      net.Listener
	asked   atomic.Int32 // connections that something was asked on
	closing chan struct{}
}

func newKeeper(t *testing.T) *keeper {
	k := &keeper{ln: listen(t), closing: make(chan struct{})}
	k.addr = k.ln.Addr().String()
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := k.ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				readHead(c)
				if k.asked.Add(1) > 1 {
					_, _ = io.Copy(io.Discard, c)
					return
				}
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nkept")
				if readHead(c) != "" {
					<-k.closing
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = k.ln.Close()
		wg.Wait()
	})
	return k
}

// TestTryTimesOutlastAConnection: a try that goes on over another connection, since the first was closed when it was used, keeps its time.
func TestTryTimesOutlastAConnection(t *testing.T) {
	k := newKeeper(t)
	close(k.closing)
	c := cluster(t, upstream.Config{Name: "a"}, k.addr)
	a := to("a")
	a.RetryPolicy = retrying("reset", 1)
	a.RetryPolicy.PerTryTimeout, a.Timeout = awhile, time.Minute
	_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c}, all(*a)), new(journal))
	h := client(t, direct(server), "http/1.1")
	h.Timeout = 10 * time.Second
	if _, body := get(t, h, "http://x/"); body != "kept" {
		t.Fatal(body)
	}
	if res, _ := get(t, h, "http://x/"); res.StatusCode != http.StatusGatewayTimeout || k.asked.Load() < 2 {
		t.Errorf("got %d from %d connections", res.StatusCode, k.asked.Load())
	}
	atRest(t, c)
}

// TestHedgeKeepsTheTimeout: of the request, where the try that had it comes to nothing while it is made over another connection.
func TestHedgeKeepsTheTimeout(t *testing.T) {
	k := newKeeper(t)
	hangs := newReplicas(t, 1, func(_ int32, _ http.ResponseWriter, r *http.Request) { hang(r) })
	b := balance(t, upstream.Config{Name: "a"}, k.addr)
	c := proxy.NewPlainCluster(b, proxy.ProtocolHTTP1, 0)
	addr, _ := hedged(t, c, hedging(1, route.Hedge{After: 500 * time.Millisecond}), func(a *route.RouteAction) { a.Timeout = 2 * time.Second })
	h := client(t, direct(addr), "h2") // one loop
	h.Timeout = 10 * time.Second
	if _, body := get(t, h, "http://x/"); body != "kept" {
		t.Fatal(body)
	}
	got := make(chan int, 1)
	go func() {
		res, err := h.Get("http://x/")
		if err != nil {
			got <- 0
			return
		}
		res.Body.Close()
		got <- res.StatusCode
	}()
	until(t, "the request", func() bool { return b.Stats().Requests == 1 })
	update(t, b, k.addr, hangs.addrs[0])
	until(t, "the hedge", func() bool { return hangs.asked.Load() == 1 })
	_ = k.ln.Close()
	close(k.closing)
	if status := <-got; status != http.StatusGatewayTimeout {
		t.Errorf("got %d", status)
	}
	atRest(t, c)
}

// TestTunnelEndIsTaken: a client that was slow to take the end of what the service says keeps its own direction.
func TestTunnelEndIsTaken(t *testing.T) {
	const size = 100_000 // more than the window of the client
	heard := make(chan string, 4)
	serve := func(p pipe) {
		_, _ = p.Write(make([]byte, size))
		_ = p.CloseWrite()
		b, err := io.ReadAll(p)
		heard <- fmt.Sprintf("%s %v", b, err)
	}
	tunnels(t, proxy.Limits{Stall: time.Second, Tunnel: 10 * time.Second}, serve, func(t *testing.T, c *proxy.Cluster, open func() pipe) {
		p := open()
		time.Sleep(200 * time.Millisecond) // the end comes before what is before it can leave
		if n, err := io.Copy(io.Discard, p); n != size || err != nil {
			t.Fatalf("got %d bytes, %v", n, err)
		}
		time.Sleep(1500 * time.Millisecond) // longer than the end may take
		_, _ = io.WriteString(p, "still here")
		_ = p.CloseWrite()
		if got := <-heard; got != "still here <nil>" {
			t.Errorf("the service heard %s", got)
		}
	})
}

// TestUpgradeToFullService: one that takes upgrades, and no streams, is not called again and again.
func TestUpgradeToFullService(t *testing.T) {
	for name, greet := range map[string]func(f *http2.Framer){
		"no streams": func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1}, http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 0})
		},
		"going away": func(f *http2.Framer) {
			_ = f.WriteSettings(http2.Setting{ID: http2.SettingEnableConnectProtocol, Val: 1})
			_ = f.WriteGoAway(0, http2.ErrCodeNo, nil)
		},
	} {
		t.Run(name, func(t *testing.T) {
			var conns atomic.Int32
			addr := rawOrigin(t, func(c *net.TCPConn) {
				conns.Add(1)
				if _, err := io.ReadFull(c, make([]byte, len(http2.ClientPreface))); err != nil {
					return
				}
				var b bytes.Buffer
				greet(http2.NewFramer(&b, nil))
				_, _ = b.WriteTo(c)
				_, _ = io.Copy(io.Discard, c)
			})
			c := proxy.NewPlainCluster(balance(t, upstream.Config{Name: "a"}, addr), proxy.ProtocolHTTP2, 0)
			s := proxy.NewHTTP(engine(t), shake(nil, "h2"), proxy.RouteTo(c), nil, proxy.Limits{})
			if got := dialEnd2(t, start(t, s)).ask(false, chat()...).status(t); got != "502" {
				t.Errorf("got %s", got)
			}
			if n := conns.Load(); n != 1 {
				t.Errorf("%d connections", n)
			}
			atRest(t, c)
		})
	}
}

// TestUpgradeOfAnotherMethod: an upgrade that is no GET is not made an extended CONNECT, which would be one.
func TestUpgradeOfAnotherMethod(t *testing.T) {
	service := origin2(t, true, func(s *stream2) {
		t.Errorf("the service was asked %v", s.head)
		s.lines(true, ":status: 403")
	})
	s := proxy.NewHTTP(engine(t), shake(nil, "http/1.1"), proxy.RouteTo(service.cluster), nil, proxy.Limits{})
	addr := start(t, s)
	for _, method := range []string{"POST", "HEAD", "DELETE", "get"} {
		conn, err := dialTLS(t.Context(), addr, "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(conn, method+" / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		if got := readHead(conn); !strings.HasPrefix(got, "HTTP/1.1 502 ") { // it goes in HTTP/1.1, which the service does not speak
			t.Errorf("%s: got %q", method, got)
		}
		_ = conn.Close()
	}
}

// TestLocalIsNoTunnel: what the proxy answers itself agrees to no upgrade.
func TestLocalIsNoTunnel(t *testing.T) {
	addr := localServer(t, local{}, proxy.RouteTo(cluster(t, upstream.Config{Name: "a"}, "127.0.0.1:1")))
	if got := dialEnd2(t, addr).ask(false, chat(":path: /own")...).status(t); got != "400" {
		t.Errorf("got %s", got)
	}
	conn, err := dialTLS(t.Context(), addr, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /own HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n")
	if got := readHead(conn); !strings.HasPrefix(got, "HTTP/1.1 200 ") {
		t.Errorf("got %q", got)
	}
}

// TestHedgeChaos: whatever becomes of tries, of the connections they use and of who waits for them, nobody gets an answer that is another's
// or not whole, and nothing is counted as under way in the end.
func TestHedgeChaos(t *testing.T) {
	plainly(t, func(t *testing.T, alpn string, cluster func(upstream.Config, ...string) *proxy.Cluster) {
		s := newReplicas(t, 3, func(try int32, w http.ResponseWriter, r *http.Request) {
			body, _ := io.ReadAll(r.Body)
			answer := strings.Repeat(r.URL.Path+string(body), 1000)
			switch rand.IntN(10) {
			case 0:
				hang(r)
				return
			case 1:
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			case 2:
				w.WriteHeader(http.StatusServiceUnavailable)
				answer = "not now"
			case 3:
				panic(http.ErrAbortHandler)
			case 4:
				_, _ = io.WriteString(w, answer[:100])
				_ = http.NewResponseController(w).Flush()
				panic(http.ErrAbortHandler)
			case 5:
				_, _ = io.WriteString(w, answer[:100])
				_ = http.NewResponseController(w).Flush()
				answer = answer[100:]
				fallthrough
			case 6:
				select {
				case <-r.Context().Done():
					return
				case <-time.After(rand.N(30 * time.Millisecond)):
				}
			case 7:
				w.Header().Set("Connection", "close")
			}
			_, _ = io.WriteString(w, answer)
		})
		c := cluster(upstream.Config{CircuitBreakers: upstream.CircuitBreakers{MaxRetries: 5, MaxRequests: 12}}, append(s.addrs, "127.0.0.1:1")...)
		addr, _ := hedged(t, c, func() *route.RetryPolicy {
			p := hedging(3, route.Hedge{After: 5 * time.Millisecond, AnyMethod: true})
			p.RetryOn = []string{"gateway-error", "reset", "connect-failure", "refused-stream"}
			return p
		}(), func(a *route.RouteAction) { a.Timeout = 200 * time.Millisecond })
		h := client(t, direct(addr), alpn)
		var whole atomic.Int32
		var wg sync.WaitGroup
		for n := range 6 {
			wg.Go(func() {
				for i := range 12 {
					ctx, cancel := context.WithCancel(t.Context())
					if rand.IntN(4) == 0 {
						time.AfterFunc(rand.N(30*time.Millisecond), cancel)
					}
					path, body, method := fmt.Sprintf("/%d/%d", n, i), "", http.MethodGet
					if i%2 == 1 {
						body, method = "+body", http.MethodPost
					}
					req, _ := http.NewRequestWithContext(ctx, method, "http://x"+path, strings.NewReader(body))
					if res, err := h.Do(req); err == nil {
						got, err := io.ReadAll(res.Body)
						_ = res.Body.Close()
						if err == nil && res.StatusCode == 200 {
							if whole.Add(1); string(got) != strings.Repeat(path+body, 1000) {
								t.Errorf("%s: got %d bytes that begin with %.20q", path, len(got), got)
							}
						}
					}
					cancel()
				}
			})
		}
		wg.Wait()
		atRest(t, c)
		if s := c.Balance().Stats(); s.Hedges == 0 || s.HedgesWon == 0 || whole.Load() == 0 {
			t.Errorf("%d answers, %+v", whole.Load(), s)
		}
	})
}

// TestRefusedMixedTunnel: a tunnel between HTTP/1.1 and HTTP/2 does not survive that either end is refused, and looks cut off to both.
func TestRefusedMixedTunnel(t *testing.T) {
	for _, alpns := range [][2]string{{"http/1.1", "h2"}, {"h2", "http/1.1"}} {
		for _, who := range []string{"client", "endpoint"} {
			t.Run(alpns[0]+" to "+alpns[1]+", the "+who, func(t *testing.T) {
				ended := make(chan error, 1)
				service := rawSocket(t, func(p pipe) {
					_, _ = io.WriteString(p, "hello")
					_, err := io.Copy(io.Discard, p)
					ended <- err
				})
				clients, endpoints := new(doors), new(doors)
				behind := start(t, inboundHTTP(t, shake(nil, alpns[1]), service, proxy.Limits{}, nil))
				c := endpoints.cluster(t, behind)
				s := proxy.NewHTTP(engine(t), clients.shake(affirmed(), alpns[0]), proxy.RouteTo(c), nil, proxy.Limits{})
				addr := start(t, s)
				var p io.ReadWriter
				if alpns[0] == "h2" {
					st := dialEnd2(t, addr).ask(false, chat()...)
					if got := st.status(t); got != "200" {
						t.Fatalf("got %s", got)
					}
					p = st
				} else {
					conn, err := dialTLS(t.Context(), addr, "http/1.1")
					if err != nil {
						t.Fatal(err)
					}
					defer conn.Close()
					_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
					if got := readHead(conn); !strings.HasPrefix(got, "HTTP/1.1 101 ") {
						t.Fatalf("got %q", got)
					}
					p = conn
				}
				if _, err := io.ReadFull(p, make([]byte, 5)); err != nil {
					t.Fatal(err)
				}
				map[string]*doors{"client": clients, "endpoint": endpoints}[who].refuse(0)
				n, err := p.Read(make([]byte, 1))
				if st, ok := p.(*stream2); ok && err == io.EOF && !st.ended { // it is the connection that has ended, and said so before
					err = io.ErrUnexpectedEOF
				}
				if n > 0 || err == nil || err == io.EOF {
					t.Errorf("the client got %d bytes, and then %v", n, err)
				}
				if err := <-ended; err == nil {
					t.Error("the service heard a proper end")
				}
				atRest(t, c)
			})
		}
	}
}
