package proxy_test

import (
	"context"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/trace"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// observed keeps what an Observer hears.
type observed struct {
	mu      sync.Mutex
	records []accesslog.Record
	spans   []*trace.Record
}

func (o *observed) log(r *accesslog.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.records = append(o.records, *r)
}

func (o *observed) Take(r *trace.Record) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.spans = append(o.spans, r)
}

// next waits for the next record.
func (o *observed) next(t testing.TB) (r accesslog.Record) {
	t.Helper()
	until(t, "a record", func() bool {
		o.mu.Lock()
		defer o.mu.Unlock()
		if len(o.records) == 0 {
			return false
		}
		r, o.records = o.records[0], o.records[1:]
		return true
	})
	return r
}

func TestRecords(t *testing.T) {
	heard := new(observed)
	tracer, err := trace.New(trace.Config{Ratio: 1}, rand.Uint64, heard)
	if err != nil {
		t.Fatal(err)
	}
	var parents sync.Map
	good := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		parents.Store(r.Header.Get("Traceparent"), true)
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(w, "answer")
	}))
	closed := listen(t)
	closed.Close()
	cut := rawOrigin(t, func(c *net.TCPConn) { _, _ = c.Read(make([]byte, 1)) })
	clusters := map[string]*proxy.Cluster{
		"good": cluster(t, upstream.Config{Name: "good"}, good), "closed": cluster(t, upstream.Config{Name: "closed"}, closed.Addr().String()),
		"cut": cluster(t, upstream.Config{Name: "cut"}, cut), "empty": cluster(t, upstream.Config{Name: "empty"}),
	}
	at := func(prefix, cluster string, retries int) route.Route {
		a := to(cluster)
		if retries > 0 {
			a.RetryPolicy = retrying("5xx", retries)
		}
		return route.Route{Name: "r-" + cluster, Match: route.RouteMatch{Prefix: prefix}, Route: a}
	}
	r := routing(t, clusters, at("/good", "good", 0), at("/closed", "closed", 2), at("/cut", "cut", 0), at("/empty", "empty", 0), at("/none", "nowhere", 0))
	s := proxy.NewHTTP(engine(t), shake(affirmed(), "h2", "http/1.1"), r, nil, proxy.Limits{})
	s.Observe(proxy.Observer{Log: heard.log, Tracer: tracer}, "web")
	addr := start(t, s)
	each(t, func(t *testing.T, alpn string) {
		h := client(t, direct(addr), alpn)
		protocol := map[string]string{"h2": "HTTP/2", "http/1.1": "HTTP/1.1"}[alpn]
		for _, tt := range []struct {
			path    string
			status  int
			code    attest.Code
			flags   accesslog.Flags
			tries   int
			cluster string
		}{
			{"/good?secret", 200, "", 0, 1, "good"},
			{"/closed", 502, attest.CodeBackendUnreachable, accesslog.UpstreamConnectionFailure | accesslog.UpstreamRetryLimitExceeded, 3, "closed"},
			{"/cut", 502, attest.CodeBackendFailed, accesslog.UpstreamConnectionTermination, 1, "cut"},
			{"/empty", 503, attest.CodeNoEndpoint, accesslog.NoHealthyUpstream, 0, "empty"},
			{"/none", 503, attest.CodeNoEndpoint, accesslog.NoClusterFound, 0, "nowhere"},
			{"/other", 404, "", accesslog.NoRouteFound, 0, ""},
		} {
			req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x"+tt.path, strings.NewReader("question"))
			_, body := do(t, h, req)
			got := heard.next(t)
			if got.Status != tt.status || got.Code != tt.code || got.Flags != tt.flags || got.Tries != tt.tries || got.Sent != uint64(len(body)) ||
				got.Method != "POST" || got.Authority != "x" || got.Path != tt.path || got.Protocol != protocol || got.ALPN != alpn || got.Listener != "web" ||
				!got.Downstream.Affirmed() || got.Start.IsZero() || got.FirstByte == 0 || got.FirstByte > got.Duration || got.Cluster != tt.cluster || len(got.TraceID) != 32 {
				t.Errorf("%s: %+v", tt.path, got)
			}
			if tt.status == 200 && (got.Received != 8 || got.Route != "r-good" || got.Endpoint != good || got.VirtualHost != "all") {
				t.Errorf("%+v", got)
			}
		}
	})
	// What is no request, and a client that is refused.
	c, err := dialTLS(t.Context(), addr, "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "NONSENSE\r\n\r\n")
	_, _ = io.ReadAll(c)
	c.Close()
	if got := heard.next(t); got.Status != 400 || got.Flags != accesslog.DownstreamProtocolError || got.Method != "" {
		t.Errorf("%+v", got)
	}
	refusing := proxy.NewHTTP(engine(t), shake(refused(attest.CodePlatformDenied), "h2"), r, nil, proxy.Limits{})
	refusing.Observe(proxy.Observer{Log: heard.log}, "strict")
	if c, err := dialTLS(t.Context(), start(t, refusing), "h2"); err == nil {
		c.Close()
	}
	if got := heard.next(t); got.Code != attest.CodePlatformDenied || got.Listener != "strict" || got.Status != 0 {
		t.Errorf("%+v", got)
	}
	heard.mu.Lock()
	defer heard.mu.Unlock()
	byID := map[trace.SpanID]*trace.Record{}
	kinds := map[trace.Kind]int{}
	for _, s := range heard.spans {
		byID[s.SpanID] = s
		kinds[s.Kind]++
		if s.End.IsZero() || strings.Contains(s.Path, "secret") {
			t.Errorf("%+v", s)
		}
	}
	for _, s := range heard.spans {
		if s.Kind == trace.Client && (byID[s.Parent] == nil || byID[s.Parent].Kind != trace.Server || byID[s.Parent].TraceID != s.TraceID) {
			t.Errorf("a try without its request: %+v", s)
		}
		if s.Kind == trace.Client && s.Cluster == "good" {
			if _, ok := parents.Load(s.Context.String()); !ok {
				t.Error("the service has not heard of the try")
			}
		}
	}
	if kinds[trace.Server] != 13 || kinds[trace.Client] != 2*(1+3+1) {
		t.Errorf("%v spans", kinds)
	}
}

func TestRecordsOfTunnels(t *testing.T) {
	heard := new(observed)
	echo := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.Copy(c, c)
		_ = c.CloseWrite()
	})
	in := proxy.NewTCP(engine(t), shake(affirmed()), cluster(t, upstream.Config{Name: "echo"}, echo), nil, proxy.Limits{})
	in.Observe(proxy.Observer{Log: heard.log}, "in")
	inAddr := start(t, in)
	out := proxy.NewOutbound(engine(t), dialer(inAddr, affirmed()), nil, proxy.Limits{})
	out.Observe(proxy.Observer{Log: heard.log}, "out")
	c, err := new(net.Dialer).DialContext(context.Background(), "tcp", start(t, out))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "12345")
	_ = c.(*net.TCPConn).CloseWrite()
	if got, err := io.ReadAll(c); string(got) != "12345" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	c.Close()
	for range 2 {
		r := heard.next(t)
		if r.Received != 5 || r.Sent != 5 || r.Protocol != "TCP" || r.Flags != 0 ||
			r.Listener == "in" && (!r.Downstream.Affirmed() || r.Cluster != "echo" || r.Endpoint != echo) || r.Listener == "out" && (!r.Upstream.Affirmed() || r.Endpoint != inAddr) {
			t.Errorf("%+v", r)
		}
	}
}

// TestHowTunnelsEnd: the record tells who broke off, and an endpoint is blamed for what it did itself alone. Otherwise any client
// that resets its connections could have every endpoint ejected.
func TestHowTunnelsEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		client, service bool // resets the connection
		in, out         accesslog.Flags
		want            upstream.EndpointStats
	}{
		"client":  {true, false, accesslog.DownstreamConnectionTermination, accesslog.DownstreamConnectionTermination, upstream.EndpointStats{NoVerdict: 1}},
		"service": {false, true, accesslog.UpstreamConnectionTermination, accesslog.UpstreamConnectionTermination, upstream.EndpointStats{Resets: 1}},
		"idle":    {false, false, accesslog.StreamIdleTimeout, accesslog.UpstreamConnectionTermination, upstream.EndpointStats{NoVerdict: 1}},
	} {
		t.Run(name, func(t *testing.T) {
			heard, ends := new(observed), new(observed)
			origin := rawOrigin(t, func(c *net.TCPConn) {
				_, _ = io.ReadFull(c, make([]byte, 1))
				if tt.service {
					_ = c.SetLinger(0)
					return
				}
				_, _ = c.Write([]byte("y"))
				_, _ = io.Copy(io.Discard, c)
			})
			limits := proxy.Limits{}
			if !tt.client && !tt.service {
				limits.Tunnel = 100 * time.Millisecond
			}
			c := cluster(t, upstream.Config{Name: "a"}, origin)
			in := proxy.NewTCP(engine(t), shake(affirmed()), c, nil, limits)
			in.Observe(proxy.Observer{Log: heard.log}, "in")
			out := proxy.NewOutbound(engine(t), dialer(start(t, in), affirmed()), nil, proxy.Limits{})
			out.Observe(proxy.Observer{Log: ends.log}, "out")
			raw, err := new(net.Dialer).DialContext(t.Context(), "tcp", start(t, out))
			if err != nil {
				t.Fatal(err)
			}
			defer raw.Close()
			_, _ = raw.Write([]byte("x"))
			if !tt.service {
				if _, err := io.ReadFull(raw, make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			if tt.client {
				_ = raw.(*net.TCPConn).SetLinger(0)
				_ = raw.Close()
			}
			if in, out := heard.next(t).Flags, ends.next(t).Flags; in != tt.in || out != tt.out {
				t.Errorf("got %v and %v, want %v and %v", in, out, tt.in, tt.out)
			}
			var got upstream.EndpointStats
			until(t, "the verdict", func() bool {
				got = c.Balance().Endpoints()[0].Stats()
				got.Nanoseconds = 0
				return got.Active == 0 && got != upstream.EndpointStats{}
			})
			if got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestRecordsOfTunnelsToNowhere(t *testing.T) {
	closed := listen(t)
	closed.Close()
	for name, tt := range map[string]struct {
		config    upstream.Config
		endpoints []string
		code      attest.Code
		flags     accesslog.Flags
	}{
		"unreachable": {upstream.Config{}, []string{closed.Addr().String()}, attest.CodeBackendUnreachable, accesslog.UpstreamConnectionFailure},
		"none":        {upstream.Config{}, nil, attest.CodeNoEndpoint, accesslog.NoHealthyUpstream},
		"too many": {
			upstream.Config{CircuitBreakers: upstream.CircuitBreakers{MaxConnections: 1}},
			[]string{rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })},
			attest.CodeOverload, accesslog.UpstreamOverflow,
		},
	} {
		t.Run(name, func(t *testing.T) {
			heard := new(observed)
			tt.config.Name = "a"
			in := proxy.NewTCP(engine(t), shake(affirmed()), cluster(t, tt.config, tt.endpoints...), nil, proxy.Limits{})
			in.Observe(proxy.Observer{Log: heard.log}, "in")
			addr := start(t, in)
			for range 2 {
				c, err := dialTLS(t.Context(), addr)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				_, _ = c.Write([]byte("x"))
				_, _ = io.ReadFull(c, make([]byte, 1))
			}
			if r := heard.next(t); r.Code != tt.code || r.Flags != tt.flags || r.Cluster != "a" || r.Protocol != "TCP" || !r.Downstream.Affirmed() {
				t.Errorf("%+v", r)
			}
		})
	}
}
