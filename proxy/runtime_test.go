package proxy_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// builder takes everybody for affirmed, and opens addresses of names.
type builder struct {
	t     testing.TB
	mu    sync.Mutex
	at    map[string]string
	plain bool // no TLS
	bare  bool // connections have no descriptor
}

// undescribed are connections of which nothing can be known but what a net.Conn says.
type undescribed struct{ net.Listener }

func (u undescribed) Accept() (net.Conn, error) {
	c, err := u.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return nothingKnown{c, c.(*net.TCPConn)}, nil
}

type nothingKnown struct {
	net.Conn
	ends
}

type ends interface {
	CloseWrite() error
	SetLinger(sec int) error
}

func newBuilder(t testing.TB) *builder { return &builder{t: t, at: map[string]string{}} }

func (b *builder) Listen(name string) (net.Listener, error) {
	if name == "taken" {
		return nil, &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: name, Err: errors.New("in use")}
	}
	ln := listen(b.t)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.at[name] = ln.Addr().String()
	if b.bare {
		ln = undescribed{ln}
	}
	return ln, nil
}

func (b *builder) address(name string) string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.at[name]
}

func (b *builder) Handshake(*config.Listener) (proxy.Handshake, error) {
	if b.plain {
		return proxy.Plain, nil
	}
	return shake(nil, "h2", "http/1.1"), nil
}

func (b *builder) Forward(*config.Listener) (proxy.DialTarget, connect.Authenticate, error) {
	return func(ctx context.Context, target string) (proxy.Conn, error) { return dialer(target, affirmed())(ctx) }, nil, nil
}

func (b *builder) Dial(*config.Cluster) (proxy.DialEndpoint, error) {
	return func(ctx context.Context, to upstream.Identity, protocols ...string) (proxy.Conn, error) {
		return dialer(to.Address, affirmed(), protocols...)(ctx)
	}, nil
}

func running(t testing.TB) *proxy.Runtime {
	t.Helper()
	r := proxy.NewRuntime(engine(t), 10*time.Second, proxy.Observer{}, new(journal).logger())
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = r.Shutdown(ctx)
	})
	return r
}

func apply(t testing.TB, r *proxy.Runtime, c *config.Config, epoch string, b proxy.Builder) {
	t.Helper()
	if err := r.Apply(t.Context(), c, epoch, b); err != nil {
		t.Fatal(err)
	}
}

func endpoints(addrs ...string) (all []upstream.EndpointConfig) {
	for _, a := range addrs {
		all = append(all, upstream.EndpointConfig{Identity: upstream.Identity{Address: a}})
	}
	return all
}

func clusterOf(name string, addrs ...string) config.Cluster {
	return config.Cluster{Config: upstream.Config{Name: name}, Endpoints: endpoints(addrs...)}
}

func allTo(cluster string) *route.Config {
	return &route.Config{VirtualHosts: []route.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []route.Route{{Match: route.RouteMatch{Prefix: "/"}, Route: to(cluster)}}}}}
}

func TestRuntimeChanges(t *testing.T) {
	a, b := says(t, "a"), says(t, "b")
	r, build := running(t), newBuilder(t)
	c := &config.Config{
		Listeners: []config.Listener{{Address: "web", Serving: config.Serving{HTTP: allTo("one")}}},
		Clusters:  []config.Cluster{clusterOf("one", a), clusterOf("two", b)},
	}
	apply(t, r, c, "1", build)
	h := client(t, direct(build.address("web")), "http/1.1")
	from := func() string {
		res, _ := get(t, h, "http://x/")
		return res.Header.Get("X-From")
	}
	handshakes := func() uint64 {
		for _, l := range r.Listeners() {
			if l.Name == "web" {
				return l.Stats.Handshakes
			}
		}
		return 0
	}
	if got := from(); got != "a" {
		t.Fatalf("got %q", got)
	}
	// Another route: the connection stays.
	c = &config.Config{Listeners: []config.Listener{{Address: "web", Serving: config.Serving{HTTP: allTo("two")}}}, Clusters: c.Clusters}
	apply(t, r, c, "1", build)
	if got := from(); got != "b" || handshakes() != 1 {
		t.Errorf("got %q after %d handshakes", got, handshakes())
	}
	// Another endpoint.
	c = &config.Config{Listeners: c.Listeners, Clusters: []config.Cluster{clusterOf("two", a)}}
	apply(t, r, c, "1", build)
	if got := from(); got != "a" || handshakes() != 1 || len(r.Clusters()) != 1 {
		t.Errorf("got %q after %d handshakes, %d clusters", got, handshakes(), len(r.Clusters()))
	}
	// What is wrong changes nothing.
	for name, wrong := range map[string]*config.Config{
		"address":  {Listeners: []config.Listener{{Address: "web", Serving: config.Serving{HTTP: allTo("two")}}, {Address: "taken", Serving: config.Serving{Cluster: "two"}}}, Clusters: c.Clusters},
		"twice":    {Listeners: []config.Listener{{Address: "new", Serving: config.Serving{Cluster: "two"}}, {Address: "new", Serving: config.Serving{Cluster: "two"}}}, Clusters: c.Clusters},
		"cluster":  {Listeners: []config.Listener{{Address: "new", Serving: config.Serving{Cluster: "three"}}}, Clusters: c.Clusters},
		"endpoint": {Listeners: c.Listeners, Clusters: []config.Cluster{clusterOf("two", "")}},
		"clusters": {Listeners: c.Listeners, Clusters: []config.Cluster{clusterOf("two", b), clusterOf("two", b)}},
		"route":    {Listeners: []config.Listener{{Address: "web", Serving: config.Serving{HTTP: &route.Config{VirtualHosts: []route.VirtualHost{{}, {}}}}}}, Clusters: c.Clusters},
		"to":       {Listeners: []config.Listener{{Address: "web", Serving: config.Serving{To: "nonsense"}}}, Clusters: c.Clusters},
	} {
		if err := r.Apply(t.Context(), wrong, "1", build); err == nil {
			t.Errorf("%s: taken", name)
		}
		if got := from(); got != "a" || handshakes() != 1 || len(r.Listeners()) != 1 {
			t.Errorf("%s: %q after %d handshakes, %d listeners", name, got, handshakes(), len(r.Listeners()))
		}
		if n := build.address("new"); n != "" {
			if conn, err := net.Dial("tcp", n); err == nil {
				conn.Close()
				t.Errorf("%s: the listener is still there", name)
			}
		}
	}
	// Another listener beside it, and a new epoch: the client's connection ends with its next response.
	c = &config.Config{Listeners: []config.Listener{{Address: "web", Serving: config.Serving{HTTP: allTo("two")}}, {Name: "raw", Address: "tcp", Serving: config.Serving{Cluster: "two", TCP: true}}}, Clusters: c.Clusters}
	apply(t, r, c, "2", build)
	if res, _ := get(t, h, "http://x/"); !res.Close {
		t.Error("the client is not told to go elsewhere")
	}
	if got := from(); got != "a" || handshakes() != 2 && len(r.Listeners()) == 2 {
		t.Errorf("got %q after %d handshakes", got, handshakes())
	}
	// And without the first.
	apply(t, r, &config.Config{Listeners: c.Listeners[1:], Clusters: c.Clusters}, "2", build)
	if conn, err := net.Dial("tcp", build.address("web")); err == nil {
		conn.Close()
		t.Error("the listener is still there")
	}
}

var swaps = flag.Int("swaps", 60, "how often TestSwapsUnderLoad changes the configuration")

// TestSwapsUnderLoad: every request is answered, and whole, however often the configuration changes meanwhile.
func TestSwapsUnderLoad(t *testing.T) {
	echo := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		_, _ = w.Write(body)
	}))
	raw := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
	r, build := running(t), newBuilder(t)
	at := func(i int) *config.Config {
		c := &config.Config{Clusters: []config.Cluster{clusterOf("http", echo), clusterOf("tcp", raw), clusterOf(fmt.Sprint("other", i%3), echo)}}
		hosts := allTo("http")
		if i%2 == 1 {
			hosts = allTo(fmt.Sprint("other", i%3))
		}
		c.Listeners = []config.Listener{{Address: "web", Serving: config.Serving{HTTP: hosts}}, {Address: "tcp", Serving: config.Serving{Cluster: "tcp", TCP: true}}}
		if i%5 == 0 {
			c.Listeners = append(c.Listeners, config.Listener{Address: fmt.Sprint("more", i), Serving: config.Serving{Cluster: "tcp", TCP: true}})
		}
		return c
	}
	apply(t, r, at(0), "0", build)
	var all sync.WaitGroup
	var stop atomic.Bool
	var requests atomic.Int64
	body, _ := io.ReadAll(randomBytes(7, 40_000))
	for i := range 8 {
		alpn := []string{"http/1.1", "h2"}[i%2]
		h := client(t, direct(build.address("web")), alpn)
		all.Go(func() {
			for n := 1; !stop.Load(); n++ {
				want := body[:(n*7919)%len(body)]
				req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", bytes.NewReader(want))
				if err != nil {
					t.Error(err)
					return
				}
				res, err := h.Do(req)
				if err != nil {
					t.Errorf("%s: request %d: %v", alpn, n, err)
					continue
				}
				got, err := io.ReadAll(res.Body)
				res.Body.Close()
				if err != nil || res.StatusCode != 200 || !bytes.Equal(got, want) {
					t.Errorf("request %d: %d, %d of %d bytes, %v", n, res.StatusCode, len(got), len(want), err)
				}
				requests.Add(1)
			}
		})
	}
	for range 4 {
		all.Go(func() {
			for !stop.Load() {
				c, err := dialTLS(t.Context(), build.address("tcp"))
				if err != nil {
					t.Error(err)
					continue
				}
				go func() {
					_, _ = c.Write(body)
					_ = c.CloseWrite()
				}()
				if got, err := io.ReadAll(c); err != nil || !bytes.Equal(got, body) {
					t.Errorf("%d of %d bytes: %v", len(got), len(body), err)
				}
				c.Close()
				requests.Add(1)
			}
		})
	}
	for i := 1; i <= *swaps; i++ {
		apply(t, r, at(i), fmt.Sprint(i/3), build)
		before := requests.Load()
		until(t, "requests", func() bool { return requests.Load() > before+3 })
	}
	stop.Store(true)
	all.Wait()
	t.Logf("%d requests, %d changes", requests.Load(), *swaps)
}

func TestActiveHealthChecks(t *testing.T) {
	var ok atomic.Bool
	ok.Store(true)
	status := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/healthz" || r.Host != "check.example" || !ok.Load() {
			w.WriteHeader(http.StatusInternalServerError)
		}
	}))
	ln := listen(t)
	server, checks := grpc.NewServer(), health.NewServer()
	grpc_health_v1.RegisterHealthServer(server, checks)
	checks.SetServingStatus("svc", grpc_health_v1.HealthCheckResponse_SERVING)
	served := make(chan error, 1)
	go func() { served <- server.Serve(ln) }()
	t.Cleanup(func() {
		server.Stop()
		<-served
	})
	port := listen(t)
	var hosts sync.WaitGroup
	hosts.Go(func() {
		for {
			c, err := port.Accept()
			if err != nil {
				return
			}
			c.Close()
		}
	})
	t.Cleanup(func() { port.Close(); hosts.Wait() })
	peer := start(t, inboundHTTP(t, shake(affirmed(), "h2", "http/1.1"), status, proxy.Limits{}, nil))
	check := upstream.HealthCheck{Interval: 5 * time.Millisecond, UnhealthyThreshold: 1, HealthyThreshold: 1, Timeout: 5 * time.Second}
	with := func(f func(*upstream.HealthCheck)) *upstream.HealthCheck {
		h := check
		f(&h)
		return &h
	}
	http1 := with(func(h *upstream.HealthCheck) { h.Kind, h.Path, h.Host = "http", "/healthz", "check.example" })
	r, build := running(t), newBuilder(t)
	c := &config.Config{Listeners: []config.Listener{{Address: "web", Serving: config.Serving{Cluster: "http"}}}, Clusters: []config.Cluster{
		{Config: upstream.Config{Name: "http", HealthCheck: http1}, Endpoints: endpoints(status)},
		{Config: upstream.Config{Name: "h2c", HealthCheck: http1}, Protocol: "http2", Endpoints: endpoints(status)},
		{Config: upstream.Config{Name: "attested", HealthCheck: http1}, Attested: &config.Attested{Require: "p"}, Endpoints: endpoints(peer)},
		{Config: upstream.Config{Name: "grpc", HealthCheck: with(func(h *upstream.HealthCheck) { h.Kind, h.Service = "grpc", "svc" })}, Endpoints: endpoints(ln.Addr().String())},
		{Config: upstream.Config{Name: "tcp", HealthCheck: with(func(h *upstream.HealthCheck) { h.Kind = "tcp" })}, Endpoints: endpoints(port.Addr().String())},
	}}
	apply(t, r, c, "", build)
	all := func(want bool) func() bool {
		return func() bool {
			for _, c := range r.Clusters() {
				if c.Balance().Endpoints()[0].Healthy() != want {
					return false
				}
			}
			return true
		}
	}
	until(t, "all to be healthy", all(true))
	ok.Store(false)
	checks.SetServingStatus("svc", grpc_health_v1.HealthCheckResponse_NOT_SERVING)
	port.Close()
	until(t, "all to be unhealthy", all(false))
	ok.Store(true)
	checks.SetServingStatus("svc", grpc_health_v1.HealthCheckResponse_SERVING)
	until(t, "most to be healthy again", func() bool {
		n := 0
		for _, c := range r.Clusters() {
			if c.Balance().Endpoints()[0].Healthy() {
				n++
			}
		}
		return n == 4
	})
}
