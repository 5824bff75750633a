package proxy_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// all sends everything one way.
func all(a route.RouteAction) route.Route {
	return route.Route{Name: "all", Match: route.RouteMatch{Prefix: "/"}, Route: &a}
}

// TestLateConnection: a try that was given up while it was still being connected answers nobody.
func TestLateConnection(t *testing.T) {
	each(t, func(t *testing.T, alpn string) {
		var asked atomic.Int32
		peer := start(t, inboundHTTP(t, shake(nil, alpn), origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			_, _ = io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, "answer to %s", r.URL.Path)
		})), proxy.Limits{}, nil))
		var dials atomic.Int32
		slow := make(chan struct{})
		connect := sync.OnceFunc(func() { close(slow) })
		c := proxy.NewAttestedCluster(balance(t, upstream.Config{Name: "a"}, peer), func(ctx context.Context, to upstream.Identity, protocols ...string) (proxy.Conn, error) {
			if dials.Add(1) == 1 {
				<-slow
			}
			return dialer(to.Address, affirmed(), protocols...)(context.WithoutCancel(ctx))
		}, proxy.ProtocolAuto, 0)
		a := to("a")
		a.RetryPolicy = retrying("gateway-error", 1)
		a.RetryPolicy.PerTryTimeout = 2 * time.Second // in which the second try has to be answered
		first := route.Route{Match: route.RouteMatch{Path: "/first"}, Route: a}
		_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c}, first, all(*to("a"))), new(journal))
		h := client(t, direct(server), alpn)
		defer connect()
		if res, body := get(t, h, "http://x/first"); res.StatusCode != 200 || body != "answer to /first" {
			t.Fatalf("got %d %q", res.StatusCode, body)
		}
		connect()
		for range 20 {
			if _, body := get(t, h, "http://x/second"); body != "answer to /second" {
				t.Fatalf("got %q", body)
			}
		}
		if n := asked.Load(); n != 21 {
			t.Errorf("the service was asked %d times", n)
		}
		atRest(t, c)
	})
}

// TestRetriesAreGivenBack: by clients that leave in the pause, and where there is no endpoint any more.
func TestRetriesAreGivenBack(t *testing.T) {
	addr, asked := wavering(t, 503, 1000)
	c := cluster(t, upstream.Config{Name: "a"}, addr)
	a := to("a")
	a.RetryPolicy = retrying("5xx", 3)
	a.RetryPolicy.BackOffBase, a.RetryPolicy.BackOffMax = 20*time.Second, 200*time.Second
	a.RetryPolicy.PerTryIdleTimeout = 10 * time.Millisecond
	_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c}, all(*a)), new(journal))
	h := client(t, direct(server), "h2")
	for i := range 4 {
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() {
			defer close(done)
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/", strings.NewReader("hello"))
			if res, err := h.Do(req); err == nil {
				res.Body.Close()
			}
		}()
		until(t, "the pause", func() bool { return asked.Load() == int32(i+1) && c.Balance().Stats().Retries == 1 })
		cancel()
		<-done
		atRest(t, c)
	}
	var b *upstream.Cluster
	gone := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = b.Update(nil)
		w.WriteHeader(http.StatusServiceUnavailable)
	}))
	b = balance(t, upstream.Config{Name: "b"}, gone)
	left := proxy.NewPlainCluster(b, proxy.ProtocolAuto, 0)
	a = to("b")
	a.RetryPolicy = retrying("5xx", 3)
	_, server = routed(t, routing(t, map[string]*proxy.Cluster{"b": left}, all(*a)), new(journal))
	if res, _ := get(t, client(t, direct(server), "h2"), "http://x/"); res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("got %d", res.StatusCode)
	}
	atRest(t, left)
}

// TestPipelinedRecords: the next request begins while the client is given the end of the one before.
func TestPipelinedRecords(t *testing.T) {
	heard := new(observed)
	s := proxy.NewHTTP(engine(t), shake(nil, "http/1.1"), proxy.RouteTo(cluster(t, upstream.Config{Name: "a"}, says(t, "a"))), nil, proxy.Limits{})
	s.Observe(proxy.Observer{Log: heard.log}, "web")
	c, err := dialTLS(t.Context(), start(t, s), "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	paths := []string{"/one", "/two", "/three"}
	for _, p := range paths {
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", p)
	}
	in := bufio.NewReader(c)
	for _, p := range paths {
		res, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		n, _ := io.Copy(io.Discard, res.Body)
		if r := heard.next(t); r.Path != p || r.Status != 200 || r.Sent != uint64(n) {
			t.Errorf("%s: %+v", p, r)
		}
	}
}

// TestMirrorsEnd with their server, whatever the copies' service does.
func TestMirrorsEnd(t *testing.T) {
	var live atomic.Int32
	endless := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		live.Add(1)
		defer live.Add(-1)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	a, b := cluster(t, upstream.Config{Name: "a"}, says(t, "a")), cluster(t, upstream.Config{Name: "b"}, endless)
	act := to("a")
	act.RequestMirrorPolicies = []route.RequestMirror{{Cluster: "b"}}
	s, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": a, "b": b}, all(*act)), new(journal))
	h := client(t, direct(server), "http/1.1")
	for range 5 {
		get(t, h, "http://x/")
	}
	until(t, "the copies", func() bool { return live.Load() == 5 })
	h.CloseIdleConnections()
	shutdown(t, s, t.Context())
	until(t, "the copies to end", func() bool { return live.Load() == 0 })
	atRest(t, a, b)
}

// TestTimeoutsOfConnecting: what bounds a request bounds connecting for it, and a try on which nothing moves.
func TestTimeoutsOfConnecting(t *testing.T) {
	never := proxy.NewAttestedCluster(balance(t, upstream.Config{Name: "never"}, "127.0.0.1:1"), func(ctx context.Context, _ upstream.Identity, _ ...string) (proxy.Conn, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}, proxy.ProtocolAuto, time.Minute)
	mute := cluster(t, upstream.Config{Name: "mute"}, rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(io.Discard, c) }))
	total, idle := to("never"), to("mute")
	total.Timeout = 100 * time.Millisecond
	idle.RetryPolicy = retrying("connect-failure", 1)
	idle.RetryPolicy.PerTryIdleTimeout = 100 * time.Millisecond
	idle.Timeout, idle.IdleTimeout = -1, -1
	_, server := routed(t, routing(t, map[string]*proxy.Cluster{"never": never, "mute": mute},
		route.Route{Match: route.RouteMatch{Path: "/idle"}, Route: idle}, all(*total)), new(journal))
	h := client(t, direct(server), "h2")
	for _, path := range []string{"/", "/idle"} {
		if res, _ := get(t, h, "http://x"+path); res.StatusCode != http.StatusGatewayTimeout {
			t.Errorf("%s: got %d", path, res.StatusCode)
		}
	}
	atRest(t, never, mute)
}

// TestSlowClientsAreNoFault of the service.
func TestSlowClientsAreNoFault(t *testing.T) {
	big := make([]byte, 32<<20)
	c := cluster(t, upstream.Config{Name: "a", OutlierDetection: &upstream.OutlierDetection{Consecutive5xx: 1, MaxEjectionPercent: 100}},
		origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.Copy(io.Discard, r.Body)
			_, _ = w.Write(big)
		})))
	a := to("a")
	a.Timeout, a.IdleTimeout = 100*time.Millisecond, 100*time.Millisecond
	_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c}, all(*a)), new(journal))
	for _, request := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"} {
		conn, err := dialTLS(t.Context(), server, "http/1.1")
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		fmt.Fprint(conn, request)
		until(t, "the request", func() bool { return c.Balance().Stats().Requests == 1 })
		atRest(t, c)
	}
	if s := c.Balance().Stats(); s.Healthy != 1 || s.Ejections5xx != 0 {
		t.Errorf("%+v", s)
	}
}

// TestIdleConnectionsTakeNoPlace of those that are wanted on another loop.
func TestIdleConnectionsTakeNoPlace(t *testing.T) {
	c := cluster(t, upstream.Config{Name: "a", CircuitBreakers: upstream.CircuitBreakers{MaxConnections: 1}}, says(t, "a"))
	_, server := routed(t, proxy.RouteTo(c), new(journal))
	for range 8 {
		if res, _ := get(t, client(t, direct(server), "http/1.1"), "http://x/"); res.StatusCode != 200 {
			t.Fatalf("got %d", res.StatusCode)
		}
		until(t, "the connection to be given back", func() bool { return c.Balance().Stats().Connections == 0 })
	}
}

// TestCountersGoOn where another server takes over, and what Check refuses is not carried out either.
func TestCountersGoOn(t *testing.T) {
	r, build := running(t), newBuilder(t)
	c := &config.Config{Listeners: []config.Listener{{Address: "web", Serving: config.Serving{HTTP: allTo("one")}}}, Clusters: []config.Cluster{clusterOf("one", says(t, "a"))}}
	for i := range 3 {
		apply(t, r, c, fmt.Sprint(i), build)
		get(t, client(t, direct(build.address("web")), "http/1.1"), "http://x/")
	}
	if l := r.Listeners()[0]; l.Stats.Requests != 3 || l.Requests.Responses[2] != 3 {
		t.Errorf("%d requests, %d responses", l.Stats.Requests, l.Requests.Responses[2])
	}
	for name, wrong := range map[string]config.Config{
		"evidence that nobody is asked for": {Listeners: []config.Listener{{Address: "p", Serving: config.Serving{Plain: true, Require: "strict", Cluster: "one"}}}, Clusters: c.Clusters},
		"a protocol":                        {Listeners: c.Listeners, Clusters: []config.Cluster{{Config: upstream.Config{Name: "one"}, Protocol: "htpp2", Endpoints: c.Clusters[0].Endpoints}}},
		"a header":                          {Listeners: c.Listeners, Clusters: []config.Cluster{{Config: upstream.Config{Name: "one"}, ProxyProtocol: "v3", Endpoints: c.Clusters[0].Endpoints}}},
		"transparency":                      {Listeners: []config.Listener{{Address: "p", Transparent: "yes", Serving: config.Serving{Plain: true, TCP: true, Cluster: "one"}}}, Clusters: c.Clusters},
	} {
		if err := r.Apply(t.Context(), &wrong, "x", build); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

// TestPauseIsNotIdle: what bounds a try on which nothing moves does not run in the pause before the next one.
func TestPauseIsNotIdle(t *testing.T) {
	for range 4 { // a pause is a matter of chance, and as good as never short each time
		addr, _ := wavering(t, 503, 1)
		c := cluster(t, upstream.Config{Name: "a"}, addr)
		a := to("a")
		a.RetryPolicy = retrying("5xx", 1)
		a.RetryPolicy.BackOffBase, a.RetryPolicy.PerTryIdleTimeout = 400*time.Millisecond, 50*time.Millisecond
		_, server := routed(t, routing(t, map[string]*proxy.Cluster{"a": c}, all(*a)), new(journal))
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", strings.NewReader("hello"))
		if res, body := do(t, client(t, direct(server), "h2"), req); res.StatusCode != 200 || body != "hello" {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		atRest(t, c)
	}
}

// TestRetireWaitsForTheFirstRequest of a connection of HTTP/2, and takes no more after it.
func TestRetireWaitsForTheFirstRequest(t *testing.T) {
	s := proxy.NewHTTP(engine(t), shake(nil, "h2"), proxy.RouteTo(cluster(t, upstream.Config{Name: "a"}, says(t, "a"))), nil, proxy.Limits{})
	server := start(t, s)
	c, err := dialTLS(t.Context(), server, "h2")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, http2.ClientPreface)
	f := http2.NewFramer(c, c)
	_ = f.WriteSettings()
	until(t, "the connection", func() bool { return s.Stats().Active == 1 })
	retired := make(chan error, 1)
	go func() { retired <- s.Retire(t.Context()) }()
	until(t, "the listener to close", func() bool {
		c, err := net.Dial("tcp", server)
		if err == nil {
			c.Close()
		}
		return err != nil
	})
	next := func(want http2.FrameType) bool { // whether a GOAWAY came before it
		away := false
		for {
			frame, err := f.ReadFrame()
			if err != nil {
				t.Fatal(err)
			}
			if away = away || frame.Header().Type == http2.FrameGoAway; frame.Header().Type == want {
				return away
			}
		}
	}
	for range 20 { // by the last of these the loop has heard of it
		_ = f.WritePing(false, [8]byte{1})
		if next(http2.FramePing) {
			t.Fatal("sent away before the first request")
		}
	}
	var head bytes.Buffer
	e := hpack.NewEncoder(&head)
	for _, h := range [][2]string{{":method", "GET"}, {":scheme", "https"}, {":authority", "x"}, {":path", "/"}} {
		_ = e.WriteField(hpack.HeaderField{Name: h[0], Value: h[1]})
	}
	_ = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: head.Bytes(), EndStream: true, EndHeaders: true})
	if !next(http2.FrameData) {
		t.Error("not sent away with it")
	}
	c.Close()
	if err := <-retired; err != nil {
		t.Error(err)
	}
}
