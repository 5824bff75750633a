package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// cluster is one of plain endpoints.
func cluster(t testing.TB, config upstream.Config, addrs ...string) *proxy.Cluster {
	t.Helper()
	return proxy.NewPlainCluster(balance(t, config, addrs...), proxy.ProtocolAuto, 0)
}

func balance(t testing.TB, config upstream.Config, addrs ...string) *upstream.Cluster {
	t.Helper()
	b, err := upstream.New(config, time.Now, rand.Uint64)
	if err != nil {
		t.Fatal(err)
	}
	update(t, b, addrs...)
	return b
}

func update(t testing.TB, b *upstream.Cluster, addrs ...string) {
	t.Helper()
	var l upstream.LocalityEndpoints
	for _, a := range addrs {
		l.Endpoints = append(l.Endpoints, upstream.EndpointConfig{Identity: upstream.Identity{Address: a}})
	}
	if _, err := b.Update([]upstream.LocalityEndpoints{l}); err != nil {
		t.Fatal(err)
	}
}

// at rest, nothing of a cluster is counted as under way.
func atRest(t testing.TB, clusters ...*proxy.Cluster) {
	t.Helper()
	for _, c := range clusters {
		until(t, c.Balance().Name()+" to come to rest", func() bool {
			s := c.Balance().Stats()
			for _, e := range c.Balance().Endpoints() {
				if e.Active() != 0 {
					return false
				}
			}
			return s.Requests == 0 && s.Pending == 0 && s.Retries == 0
		})
	}
}

func routing(t testing.TB, clusters map[string]*proxy.Cluster, routes ...route.Route) *proxy.Routing {
	t.Helper()
	table, err := route.Compile(route.Config{VirtualHosts: []route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: routes}}}, func(string) bool { return true })
	if err != nil {
		t.Fatal(err)
	}
	return proxy.NewRouting(table, clusters)
}

func to(cluster string) *route.RouteAction { return &route.RouteAction{Cluster: cluster} }

func routed(t testing.TB, r *proxy.Routing, log *journal) (*proxy.Server, string) {
	t.Helper()
	s := proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), r, log.logger(), proxy.Limits{})
	return s, start(t, s)
}

// says answers with its name and what it was asked.
func says(t testing.TB, name string) string {
	return origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Header().Set("X-From", name)
		w.Header().Set("X-Asked", r.Header.Get("X-Forwarded-Host"))
		fmt.Fprintf(w, "%s %s %s %s %q", name, r.Method, r.Host, r.URL.RequestURI(), body)
	}))
}

func each(t *testing.T, f func(t *testing.T, alpn string)) {
	for _, alpn := range []string{"http/1.1", "h2"} {
		t.Run(alpn, func(t *testing.T) { f(t, alpn) })
	}
}

func TestRoutes(t *testing.T) {
	clusters := map[string]*proxy.Cluster{"a": cluster(t, upstream.Config{Name: "a"}, says(t, "a")), "b": cluster(t, upstream.Config{Name: "b"}, says(t, "b"))}
	yes := true
	r := routing(t, clusters,
		route.Route{Match: route.RouteMatch{Prefix: "/moved"}, Redirect: &route.RedirectAction{Host: "new.example", Path: "/here", Code: 308}},
		route.Route{Match: route.RouteMatch{Path: "/direct"}, DirectResponse: &route.DirectResponse{Status: 418, Body: "short"}},
		route.Route{Match: route.RouteMatch{Path: "/empty"}, DirectResponse: &route.DirectResponse{Status: 204}},
		route.Route{Match: route.RouteMatch{Prefix: "/", Headers: []route.HeaderMatcher{{Name: "X-B", Present: &yes}}}, Route: to("b")},
		route.Route{Match: route.RouteMatch{Prefix: "/gone"}, Route: to("nowhere")},
		route.Route{
			Match: route.RouteMatch{Prefix: "/api/"}, Route: &route.RouteAction{Cluster: "a", PrefixRewrite: "/v1/", HostRewrite: "inner.example"},
			RequestHeaders:  route.HeaderMutation{Set: []route.SetHeader{{Name: "X-Added", Value: "1"}}},
			ResponseHeaders: route.HeaderMutation{Remove: []string{"X-From"}, Set: []route.SetHeader{{Name: "X-Route", Value: "api"}}},
		},
		route.Route{Match: route.RouteMatch{Prefix: "/a"}, Route: to("a")},
	)
	logs := new(journal)
	_, addr := routed(t, r, logs)
	each(t, func(t *testing.T, alpn string) {
		c := client(t, direct(addr), alpn)
		for _, tt := range []struct {
			path, header string
			status       int
			body         string
		}{
			{"/a/x?q=1", "", 200, `a GET x /a/x?q=1 ""`},
			{"/a/../a/%7Euser", "", 200, `a GET x /a/~user ""`},
			{"/api/thing?q", "", 200, `a GET inner.example /v1/thing?q ""`},
			{"/a", "X-B", 200, `b GET x /a ""`},
			{"/direct", "", 418, "short"},
			{"/empty", "", 204, ""},
			{"/moved/x", "", 308, ""},
			{"/other", "", 404, "jurat: no such place\n"},
			{"/a%2Fb", "", 400, "jurat: bad request\n"},
			{"/gone", "", 503, "jurat: the cluster has no endpoint to go to\n"},
		} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x"+tt.path, nil)
			if err != nil {
				t.Fatal(err)
			}
			if tt.header != "" {
				req.Header.Set(tt.header, "")
			}
			res, body := do(t, c, req)
			if res.StatusCode != tt.status || body != tt.body {
				t.Errorf("%s: got %d %q, want %d %q", tt.path, res.StatusCode, body, tt.status, tt.body)
			}
			switch tt.path {
			case "/moved/x":
				if got := res.Header.Get("Location"); got != "https://new.example/here" {
					t.Errorf("moved to %q", got)
				}
			case "/api/thing?q":
				if res.Header.Get("X-From") != "" || res.Header.Get("X-Route") != "api" {
					t.Errorf("edits of the response: %v", res.Header)
				}
				if asked := res.Header.Get("X-Asked"); asked != "x" {
					t.Errorf("the service is told that the client asked for %q", asked)
				}
			}
		}
	})
	atRest(t, clusters["a"], clusters["b"])
}

// wavering answers with a status as often as it is told to, and then with what it got.
func wavering(t testing.TB, status int, times int32) (addr string, asked *atomic.Int32) {
	asked = new(atomic.Int32)
	return origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if asked.Add(1) <= times {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "failed")
			return
		}
		w.Header().Set("X-Trailer", r.Trailer.Get("X-T"))
		_, _ = w.Write(body)
	})), asked
}

func retrying(on string, n int) *route.RetryPolicy {
	return &route.RetryPolicy{RetryOn: []string{on}, NumRetries: n, BackOffBase: time.Millisecond}
}

func TestRetries(t *testing.T) {
	each(t, func(t *testing.T, alpn string) {
		for _, tt := range []struct {
			name   string
			times  int32 // that the service fails
			on     string
			n      int
			body   int
			status int
			asked  int32
		}{
			{"until it works", 2, "5xx", 3, 0, 200, 3},
			{"with the body", 2, "gateway-error", 2, 10_000, 200, 3},
			{"not often enough", 2, "5xx", 1, 10, 503, 2},
			{"not for this", 1, "connect-failure", 3, 10, 503, 1},
			{"not what can't be said again", 1, "5xx", 3, 200_000, 503, 1},
		} {
			t.Run(tt.name, func(t *testing.T) {
				addr, asked := wavering(t, 503, tt.times)
				c := cluster(t, upstream.Config{Name: "a"}, addr)
				a := to("a")
				a.RetryPolicy = retrying(tt.on, tt.n)
				_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c}, route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: a}), new(journal))
				want := make([]byte, tt.body)
				_, _ = io.ReadFull(randomBytes(1, int64(tt.body)), want)
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", bytes.NewReader(want))
				if err != nil {
					t.Fatal(err)
				}
				if tt.body > 0 {
					req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(want)), -1
					req.Trailer = http.Header{"X-T": {"end"}}
				}
				res, got := do(t, client(t, direct(server), alpn), req)
				if res.StatusCode != tt.status || asked.Load() != tt.asked {
					t.Fatalf("got %d after %d requests, want %d after %d", res.StatusCode, asked.Load(), tt.status, tt.asked)
				}
				if tt.status == 200 && (got != string(want) || tt.body > 0 && res.Header.Get("X-Trailer") != "end") {
					t.Errorf("the last try got %d bytes, trailer %q", len(got), res.Header.Get("X-Trailer"))
				}
				atRest(t, c)
			})
		}
	})
}

// TestRetryElsewhere: endpoints that can't be reached, that are silent, and that break off.
func TestRetryElsewhere(t *testing.T) {
	good := says(t, "good")
	closed := listen(t)
	closed.Close()
	silentOne := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) })
	cuts := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = c.Read(make([]byte, 1))
		_ = c.SetLinger(0)
	})
	for name, tt := range map[string]struct{ bad, on string }{
		"unreachable": {closed.Addr().String(), "connect-failure"},
		"silent":      {silentOne, "gateway-error"},
		"cut":         {cuts, "reset"},
	} {
		t.Run(name, func(t *testing.T) {
			c := cluster(t, upstream.Config{Name: "a"}, tt.bad, good)
			a := to("a")
			a.RetryPolicy = retrying(tt.on, 1)
			a.RetryPolicy.AvoidPreviousHosts, a.RetryPolicy.HostSelectionAttempts = true, 10
			a.RetryPolicy.PerTryTimeout = 100 * time.Millisecond
			_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c}, route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: a}), new(journal))
			h := client(t, direct(server), "h2")
			for range 4 { // round robin: two of them meet the bad one
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", strings.NewReader("body"))
				if err != nil {
					t.Fatal(err)
				}
				if res, body := do(t, h, req); res.StatusCode != 200 || !strings.HasSuffix(body, `"body"`) {
					t.Fatalf("got %d %q", res.StatusCode, body)
				}
			}
			atRest(t, c)
			for _, e := range c.Balance().Endpoints() {
				if s := e.Stats(); e.Identity().Address == tt.bad && s.ConnectFailures+s.Timeouts+s.Resets == 0 {
					t.Errorf("nothing is held against the bad endpoint: %+v", s)
				}
			}
		})
	}
}

func TestRouteTimeouts(t *testing.T) {
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/half" {
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
		}
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	c := cluster(t, upstream.Config{Name: "a"}, addr)
	total, idle := to("a"), to("a")
	total.Timeout, idle.IdleTimeout = 150*time.Millisecond, 150*time.Millisecond
	logs := new(journal)
	_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c},
		route.Route{Match: route.RouteMatch{Path: "/idle"}, Route: idle}, route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: total}), logs)
	each(t, func(t *testing.T, alpn string) {
		h := client(t, direct(server), alpn)
		for _, path := range []string{"/", "/idle"} {
			if res, _ := get(t, h, "http://x"+path); res.StatusCode != http.StatusGatewayTimeout {
				t.Errorf("%s: got %d", path, res.StatusCode)
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/half", nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := h.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		if body, err := io.ReadAll(res.Body); err == nil {
			t.Errorf("an answer that took too long looks whole: %q", body)
		}
	})
	if text := logs.String(); !strings.Contains(text, "nothing moved for too long") || strings.Contains(text, "not an answer in HTTP") {
		t.Errorf("the log says %s", text)
	}
	atRest(t, c)
}

func TestCircuitBreakers(t *testing.T) {
	for name, b := range map[string]upstream.CircuitBreakers{"requests": {MaxRequests: 1}, "connections": {MaxConnections: 1}} {
		t.Run(name, func(t *testing.T) {
			release := make(chan struct{})
			free := sync.OnceFunc(func() { close(release) })
			addr := origin(t, http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
			t.Cleanup(free)
			c := cluster(t, upstream.Config{Name: "a", CircuitBreakers: b}, addr)
			_, server := routed(t, proxy.RouteTo(c), new(journal))
			h := client(t, direct(server), "h2")
			first := make(chan int, 1)
			go func() {
				req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
				res, err := h.Do(req)
				if err != nil {
					first <- 0
					return
				}
				res.Body.Close()
				first <- res.StatusCode
			}()
			until(t, "the first request", func() bool { s := c.Balance().Stats(); return s.Requests == 1 && s.Connections == 1 && s.Pending == 0 })
			res, _ := get(t, h, "http://x/")
			if res.StatusCode != 503 || res.Header.Get(proxy.HeaderError) != string(attest.CodeOverload) {
				t.Errorf("got %d %q", res.StatusCode, res.Header.Get(proxy.HeaderError))
			}
			free()
			if <-first != 200 {
				t.Error("the request that had a place was lost")
			}
		})
	}
	c := cluster(t, upstream.Config{Name: "empty"})
	_, server := routed(t, proxy.RouteTo(c), new(journal))
	if res, _ := get(t, client(t, direct(server), "h2"), "http://x/"); res.StatusCode != 503 || res.Header.Get(proxy.HeaderError) != string(attest.CodeNoEndpoint) {
		t.Errorf("got %d %q", res.StatusCode, res.Header.Get(proxy.HeaderError))
	}
}

// Connections that carry no requests known here are bounded as connections, and leave the places of requests alone.
func TestCircuitBreakerOfConnections(t *testing.T) {
	echoes := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	c := cluster(t, upstream.Config{Name: "a", CircuitBreakers: upstream.CircuitBreakers{MaxConnections: 2, MaxRequests: 1}}, echoes)
	addr := start(t, proxy.NewTCP(engine(t), proxy.Plain, c, nil, proxy.Limits{}))
	var open []net.Conn
	connect := func() error {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		open = append(open, conn)
		t.Cleanup(func() { conn.Close() })
		_, written := io.WriteString(conn, "a")
		_, read := io.ReadFull(conn, make([]byte, 1))
		return errors.Join(written, read)
	}
	if err := errors.Join(connect(), connect()); err != nil {
		t.Fatal(err)
	}
	if s := c.Balance().Stats(); s.Connections != 2 || s.Requests != 0 {
		t.Errorf("got %+v", s)
	}
	if connect() == nil {
		t.Error("a third connection")
	}
	if s := c.Balance().Stats(); s.ConnectionsOverflow != 1 {
		t.Errorf("got %+v", s)
	}
	open[0].Close()
	until(t, "its place to be free", func() bool { return connect() == nil })
	for _, conn := range open {
		conn.Close()
	}
	atRest(t, c)
}

// TestEndpointsCome and go, while requests go on.
func TestEndpointsComeAndGo(t *testing.T) {
	a, b := says(t, "a"), says(t, "b")
	c := cluster(t, upstream.Config{Name: "c"}, a)
	_, server := routed(t, proxy.RouteTo(c), new(journal))
	h := client(t, direct(server), "http/1.1")
	from := func() string {
		res, _ := get(t, h, "http://x/")
		return res.Header.Get("X-From")
	}
	if got := from(); got != "a" {
		t.Errorf("got %s", got)
	}
	update(t, c.Balance(), a, b)
	seen := map[string]int{}
	for range 10 {
		seen[from()]++
	}
	if seen["a"] != 5 || seen["b"] != 5 {
		t.Errorf("round robin: %v", seen)
	}
	update(t, c.Balance(), b)
	for range 4 {
		if got := from(); got != "b" {
			t.Errorf("got %s, which has left", got)
		}
	}
}

func TestReroute(t *testing.T) {
	reached, release := make(chan struct{}), make(chan struct{})
	a := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(reached)
		<-release
		_, _ = io.WriteString(w, "a")
	}))
	s, server := routed(t, proxy.RouteTo(cluster(t, upstream.Config{Name: "a"}, a)), new(journal))
	h := client(t, direct(server), "h2")
	first := make(chan string, 1)
	go func() {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
		res, err := h.Do(req)
		if err != nil {
			first <- err.Error()
			return
		}
		defer res.Body.Close()
		body, _ := io.ReadAll(res.Body)
		first <- string(body)
	}()
	<-reached
	if !s.Reroute(proxy.RouteTo(cluster(t, upstream.Config{Name: "b"}, says(t, "b")))) {
		t.Fatal("it can't be routed anew")
	}
	if res, _ := get(t, h, "http://x/"); res.Header.Get("X-From") != "b" {
		t.Error("the next request went the old way")
	}
	close(release)
	if got := <-first; got != "a" {
		t.Errorf("the request under way got %q", got)
	}
}

func TestMirror(t *testing.T) {
	got := make(chan string, 100)
	copied := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		got <- fmt.Sprintf("%s %s %d %v", r.Method, r.URL.Path, len(body), err)
		_, _ = w.Write(make([]byte, 100_000))
	}))
	closed := listen(t)
	closed.Close()
	clusters := map[string]*proxy.Cluster{
		"a": cluster(t, upstream.Config{Name: "a"}, says(t, "a")), "copy": cluster(t, upstream.Config{Name: "copy"}, copied),
		"dead": cluster(t, upstream.Config{Name: "dead"}, closed.Addr().String()),
	}
	act := to("a")
	act.RequestMirrorPolicies = []route.RequestMirror{{Cluster: "copy"}, {Cluster: "dead"}}
	_, server := routed(t, routing(t, clusters, route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: act}), new(journal))
	each(t, func(t *testing.T, alpn string) {
		h := client(t, direct(server), alpn)
		for _, size := range []int{0, 1, 30_000} {
			req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/"+strconv.Itoa(size), bytes.NewReader(make([]byte, size)))
			if err != nil {
				t.Fatal(err)
			}
			if res, _ := do(t, h, req); res.StatusCode != 200 || res.Header.Get("X-From") != "a" {
				t.Errorf("got %d from %q", res.StatusCode, res.Header.Get("X-From"))
			}
			if want, is := fmt.Sprintf("POST /%d %d <nil>", size, size), <-got; is != want {
				t.Errorf("the copy is %q, not %q", is, want)
			}
		}
	})
	atRest(t, clusters["a"], clusters["copy"], clusters["dead"])
}

func TestStickyCookie(t *testing.T) {
	c := cluster(t, upstream.Config{Name: "a", Policy: "ring_hash"}, says(t, "1"), says(t, "2"), says(t, "3"))
	act := to("a")
	act.HashPolicy = []route.HashPolicy{{Cookie: &route.CookieHash{Name: "stick", TTL: time.Hour}}}
	_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c}, route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: act}), new(journal))
	h := client(t, direct(server), "http/1.1")
	for range 5 {
		res, _ := get(t, h, "http://x/")
		if len(res.Cookies()) != 1 {
			t.Fatalf("cookies: %v", res.Header)
		}
		for range 5 {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://x/", nil)
			req.AddCookie(res.Cookies()[0])
			again, _ := do(t, h, req)
			if again.Header.Get("X-From") != res.Header.Get("X-From") || len(again.Cookies()) != 0 {
				t.Errorf("%s after %s", again.Header.Get("X-From"), res.Header.Get("X-From"))
			}
		}
	}
}

// attested is a cluster of one peer, of which result was proved.
func attested(t testing.TB, addr string, result *attest.Result, offered *atomic.Value) *proxy.Cluster {
	return proxy.NewAttestedCluster(balance(t, upstream.Config{Name: "peer"}, addr), func(ctx context.Context, to upstream.Identity, protocols ...string) (proxy.Conn, error) {
		if offered != nil {
			offered.Store(strings.Join(protocols, " "))
		}
		return dialer(to.Address, result, protocols...)(ctx)
	}, proxy.ProtocolAuto, 0)
}

// TestAttestedCluster: local clients in plain, before a peer that has to be affirmed.
func TestAttestedCluster(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "" {
			c, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			defer c.CloseNow()
			kind, p, err := c.Read(r.Context())
			if err == nil {
				_ = c.Write(r.Context(), kind, p)
			}
			return
		}
		body, _ := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %d", r.Header.Get("X-Forwarded-Proto"), len(body))
	}))
	for _, protocols := range [][]string{{"h2", "http/1.1"}, {"http/1.1"}} {
		in := inboundHTTP(t, shake(affirmed(), protocols...), addr, proxy.Limits{}, nil)
		peer := start(t, in)
		var offered atomic.Value
		c := attested(t, peer, affirmed(), &offered)
		out := proxy.NewHTTP(engine(t), proxy.Plain, proxy.RouteTo(c), nil, proxy.Limits{})
		local := start(t, out)
		for _, alpn := range []string{"http/1.1", "h2"} {
			h := client(t, func(string) dialFunc {
				return func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "tcp", local) }
			}, alpn)
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", bytes.NewReader(make([]byte, 5000)))
					res, err := h.Do(req)
					if err != nil {
						t.Error(err)
						return
					}
					defer res.Body.Close()
					if body, err := io.ReadAll(res.Body); err != nil || string(body) != "https 5000" {
						t.Errorf("got %q, %v", body, err)
					}
				})
			}
			all.Wait()
		}
		ws, _, err := websocket.Dial(t.Context(), "ws://"+local+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		if err := ws.Write(t.Context(), websocket.MessageText, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		if _, p, err := ws.Read(t.Context()); err != nil || string(p) != "hello" {
			t.Errorf("got %q, %v", p, err)
		}
		_ = ws.CloseNow()
		if n := in.Stats().Handshakes; protocols[0] == "h2" && n > 4 {
			t.Errorf("%d connections for what can share one on each loop", n)
		}
		if got := offered.Load(); protocols[0] == "h2" && got != "h2 http/1.1" {
			t.Errorf("a connection for WebSocket offers %q", got)
		}
		atRest(t, c)
	}
}

// TestRefusedPeer: nothing reaches a peer that is not affirmed.
func TestRefusedPeer(t *testing.T) {
	var read atomic.Int64
	peer := start(t, proxy.NewTCP(engine(t), shake(nil, "h2", "http/1.1"), cluster(t, upstream.Config{Name: "sink"}, rawOrigin(t, func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c)
		read.Add(n)
	})), nil, proxy.Limits{}))
	for want, result := range map[attest.Code]*attest.Result{attest.CodePlatformDenied: refused(attest.CodePlatformDenied), attest.CodeNoEvidence: nil} {
		c := attested(t, peer, result, nil)
		logs := new(journal)
		local := start(t, proxy.NewHTTP(engine(t), proxy.Plain, proxy.RouteTo(c), logs.logger(), proxy.Limits{}))
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+local+"/", strings.NewReader("secret"))
		res, body := do(t, http.DefaultClient, req)
		if res.StatusCode != http.StatusBadGateway || res.Header.Get(proxy.HeaderError) != string(want) {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		if n := c.Stats().Refused[want]; n != 1 {
			t.Errorf("counted %d", n)
		}
		raw := start(t, proxy.NewTCP(engine(t), proxy.Plain, c, logs.logger(), proxy.Limits{}))
		conn, err := net.Dial("tcp", raw)
		switch {
		case errors.Is(err, syscall.ECONNRESET): // already
		case err != nil:
			t.Fatal(err)
		default:
			_, written := io.WriteString(conn, "secret") // the system tells of a reset once, whoever asks first
			if got, err := io.ReadAll(conn); err == nil && written == nil {
				t.Errorf("an end that looks proper, after %q", got)
			}
			conn.Close()
		}
		atRest(t, c)
	}
	http.DefaultClient.CloseIdleConnections()
	if n := read.Load(); n != 0 {
		t.Errorf("%d bytes reached the peer", n)
	}
}

func TestTCPCluster(t *testing.T) {
	echo := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
	closed := listen(t)
	closed.Close()
	behind := start(t, proxy.NewTCP(engine(t), shake(nil), cluster(t, upstream.Config{Name: "echo"}, closed.Addr().String(), echo), nil, proxy.Limits{}))
	c := attested(t, behind, affirmed(), nil)
	plain := cluster(t, upstream.Config{Name: "plain"}, echo)
	for _, c := range []*proxy.Cluster{c, plain} {
		addr := start(t, proxy.NewTCP(engine(t), proxy.Plain, c, nil, proxy.Limits{}))
		for range 4 {
			conn, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			want, _ := io.ReadAll(randomBytes(3, 300_000))
			go func() {
				_, _ = conn.Write(want)
				_ = conn.(*net.TCPConn).CloseWrite()
			}()
			if got, err := io.ReadAll(conn); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%d bytes, %v", len(got), err)
			}
			conn.Close()
		}
		atRest(t, c)
		until(t, "the connections to be given back", func() bool { return c.Balance().Stats().Connections == 0 })
	}
}
