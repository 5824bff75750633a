package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// replicas are endpoints that count together: the n-th try that comes to any of them, the first of which is 1, is answered by act.
type replicas struct {
	asked, left atomic.Int32
	addrs       []string
}

func newReplicas(t *testing.T, n int, act func(try int32, w http.ResponseWriter, r *http.Request)) *replicas {
	t.Helper()
	s := new(replicas)
	for range n {
		s.addrs = append(s.addrs, origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			try := s.asked.Add(1)
			body, _ := io.ReadAll(r.Body)
			r.Body = io.NopCloser(strings.NewReader(string(body)))
			act(try, w, r)
			if r.Context().Err() != nil {
				s.left.Add(1)
			}
		})))
	}
	return s
}

func hang(r *http.Request) { <-r.Context().Done() }

func hedging(n int, h route.Hedge) *route.RetryPolicy {
	p := retrying("gateway-error", n)
	p.Hedge = &h
	return p
}

// hedged is a server with one route, and what it tells of requests.
func hedged(t *testing.T, c *proxy.Cluster, p *route.RetryPolicy, change ...func(*route.RouteAction)) (string, *observed) {
	t.Helper()
	a := to("a")
	a.RetryPolicy = p
	for _, f := range change {
		f(a)
	}
	heard := new(observed)
	s := proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), routing(t, map[string]*proxy.Cluster{"a": c}, all(*a)), nil, proxy.Limits{})
	s.Observe(proxy.Observer{Log: heard.log}, "web")
	return start(t, s), heard
}

// plainly are the protocols in which plain endpoints are asked.
func plainly(t *testing.T, f func(t *testing.T, alpn string, cluster func(config upstream.Config, addrs ...string) *proxy.Cluster)) {
	for name, p := range map[string]proxy.Protocol{"to HTTP/1.1": proxy.ProtocolHTTP1, "to HTTP/2": proxy.ProtocolHTTP2} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, alpn string) {
				f(t, alpn, func(config upstream.Config, addrs ...string) *proxy.Cluster {
					config.Name = "a"
					return proxy.NewPlainCluster(balance(t, config, addrs...), p, 0)
				})
			})
		})
	}
}

const awhile = 50 * time.Millisecond

func counted(t *testing.T, c *proxy.Cluster, hedges, won uint64) {
	t.Helper()
	if s := c.Balance().Stats(); s.Hedges != hedges || s.HedgesWon != won {
		t.Errorf("%d hedges, %d of them won, want %d and %d", s.Hedges, s.HedgesWon, hedges, won)
	}
}

// TestHedge: a slow try gets another one beside it, whose answer counts, and the slow one is called off.
func TestHedge(t *testing.T) {
	plainly(t, func(t *testing.T, alpn string, cluster func(upstream.Config, ...string) *proxy.Cluster) {
		s := newReplicas(t, 2, func(try int32, w http.ResponseWriter, r *http.Request) {
			if try%2 == 1 {
				hang(r)
				return
			}
			body, _ := io.ReadAll(r.Body)
			w.Header().Set("Trailer", "X-End")
			fmt.Fprintf(w, "%s %s from %s", r.Method, body, r.Context().Value(http.LocalAddrContextKey))
			w.Header().Set("X-End", "yes")
		})
		c := cluster(upstream.Config{}, s.addrs...)
		addr, heard := hedged(t, c, hedging(1, route.Hedge{After: awhile, AnyMethod: true}))
		h := client(t, direct(addr), alpn)
		for i, method := range []string{"GET", "PUT", "POST"} {
			body := ""
			if method != "GET" {
				body = "hello"
			}
			req, _ := http.NewRequestWithContext(t.Context(), method, "http://x/", strings.NewReader(body))
			res, got := do(t, h, req)
			what, from, _ := strings.Cut(got, " from ")
			if res.StatusCode != 200 || what != method+" "+body || res.Trailer.Get("X-End") != "yes" {
				t.Errorf("%s: got %d %q %v", method, res.StatusCode, got, res.Trailer)
			}
			if r := heard.next(t); r.Tries != 2 || r.Endpoint != from || r.Status != 200 || r.Flags != 0 {
				t.Errorf("%s: got %q, recorded %d tries, %s, flags %v", method, from, r.Tries, r.Endpoint, r.Flags)
			}
			until(t, "the slow one to hear that it is not needed", func() bool { return s.left.Load() == int32(i+1) })
			atRest(t, c)
		}
		counted(t, c, 3, 3)
	})
}

// TestHedgeLoses: the first try is answered after all.
func TestHedgeLoses(t *testing.T) {
	plainly(t, func(t *testing.T, alpn string, cluster func(upstream.Config, ...string) *proxy.Cluster) {
		second := make(chan struct{}, 1)
		s := newReplicas(t, 2, func(try int32, w http.ResponseWriter, r *http.Request) {
			if try == 2 {
				second <- struct{}{}
				hang(r)
				return
			}
			<-second
			_, _ = io.WriteString(w, "first")
		})
		c := cluster(upstream.Config{}, s.addrs...)
		addr, heard := hedged(t, c, hedging(3, route.Hedge{After: awhile}))
		if res, body := get(t, client(t, direct(addr), alpn), "http://x/"); res.StatusCode != 200 || body != "first" {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		if r := heard.next(t); r.Tries != 2 {
			t.Errorf("%d tries", r.Tries)
		}
		until(t, "the second one to hear that it is not needed", func() bool { return s.left.Load() == 1 })
		atRest(t, c)
		counted(t, c, 1, 0)
	})
}

// TestHedgeSettles: an answer that would be tried again, or a failure, does not count as long as another try is under way.
func TestHedgeSettles(t *testing.T) {
	abort := func() { panic(http.ErrAbortHandler) }
	for _, c := range []struct {
		name          string
		first, second func(w http.ResponseWriter)
		want          int
	}{
		{"the hedge is refused", func(w http.ResponseWriter) { w.WriteHeader(201) }, func(w http.ResponseWriter) { w.WriteHeader(503) }, 201},
		{"the hedge is refused with a body", func(w http.ResponseWriter) { w.WriteHeader(201) }, func(w http.ResponseWriter) {
			w.WriteHeader(503)
			_, _ = io.WriteString(w, "not now")
		}, 201},
		{"the hedge breaks off", func(w http.ResponseWriter) { w.WriteHeader(201) }, func(http.ResponseWriter) { abort() }, 201},
		{"the first is refused", func(w http.ResponseWriter) { w.WriteHeader(503) }, func(w http.ResponseWriter) { w.WriteHeader(201) }, 201},
		{"the first breaks off", func(http.ResponseWriter) { abort() }, func(w http.ResponseWriter) { w.WriteHeader(201) }, 201},
		{"both are refused", func(w http.ResponseWriter) { w.WriteHeader(503) }, func(w http.ResponseWriter) { w.WriteHeader(504) }, 504},
		{"both break off", func(http.ResponseWriter) { abort() }, func(http.ResponseWriter) { abort() }, 502},
		{"the last is refused", func(w http.ResponseWriter) { w.WriteHeader(504) }, func(w http.ResponseWriter) { w.WriteHeader(503) }, 503},
	} {
		t.Run(c.name, func(t *testing.T) {
			plainly(t, func(t *testing.T, alpn string, cluster func(upstream.Config, ...string) *proxy.Cluster) {
				hedgeFirst := strings.Contains(c.name, "hedge")
				began, ended := make(chan struct{}), make(chan struct{})
				var of *proxy.Cluster
				oneLeft := func() { // the proxy has heard of the end of the other one
					for of.Balance().Stats().Requests > 1 {
						time.Sleep(time.Millisecond)
					}
				}
				s := newReplicas(t, 2, func(try int32, w http.ResponseWriter, r *http.Request) {
					switch try {
					case 1:
						<-began
						if hedgeFirst {
							<-ended
							oneLeft()
						} else {
							defer close(ended)
						}
						c.first(w)
					case 2:
						close(began)
						if hedgeFirst {
							defer close(ended)
						} else {
							<-ended
							oneLeft()
						}
						c.second(w)
					}
				})
				of = cluster(upstream.Config{}, s.addrs...)
				addr, heard := hedged(t, of, hedging(1, route.Hedge{After: awhile}))
				if res, _ := get(t, client(t, direct(addr), alpn), "http://x/"); res.StatusCode != c.want {
					t.Errorf("got %d, want %d", res.StatusCode, c.want)
				}
				if r := heard.next(t); r.Tries != 2 || r.Status != c.want {
					t.Errorf("recorded %d tries, %d", r.Tries, r.Status)
				}
				atRest(t, of)
			})
		})
	}
}

// TestHedgeRetries: after all tries have failed the request is tried again, within the same number.
func TestHedgeRetries(t *testing.T) {
	both := make(chan struct{})
	s := newReplicas(t, 3, func(try int32, w http.ResponseWriter, r *http.Request) {
		switch try {
		case 1:
			<-both
			w.WriteHeader(503)
		case 2:
			close(both)
			w.WriteHeader(503)
		default:
			_, _ = io.WriteString(w, "third")
		}
	})
	c := cluster(t, upstream.Config{Name: "a"}, s.addrs...)
	addr, heard := hedged(t, c, hedging(2, route.Hedge{After: awhile}))
	if res, body := get(t, client(t, direct(addr), "h2"), "http://x/"); res.StatusCode != 200 || body != "third" {
		t.Errorf("got %d %q", res.StatusCode, body)
	}
	if r := heard.next(t); r.Tries != 3 {
		t.Errorf("%d tries", r.Tries)
	}
	atRest(t, c)
}

// TestHedgeBounds: what is not hedged, and how often what is.
func TestHedgeBounds(t *testing.T) {
	big := strings.Repeat("x", 65<<10)
	for _, c := range []struct {
		name, method, body string
		endpoints          int
		config             upstream.Config
		policy             *route.RetryPolicy
		asked              int32
	}{
		{"the number", "GET", "", 5, upstream.Config{}, hedging(2, route.Hedge{After: awhile}), 3},
		{"no retries", "GET", "", 3, upstream.Config{}, hedging(-1, route.Hedge{After: awhile}), 1},
		{"no other endpoint", "GET", "", 1, upstream.Config{}, hedging(2, route.Hedge{After: awhile}), 1},
		{"as many endpoints as there are", "GET", "", 2, upstream.Config{}, hedging(3, route.Hedge{After: awhile}), 2},
		{"POST", "POST", "hello", 3, upstream.Config{}, hedging(2, route.Hedge{After: awhile}), 1},
		{"a POST that may be", "POST", "hello", 3, upstream.Config{}, hedging(2, route.Hedge{After: awhile, AnyMethod: true}), 3},
		{"more than is kept", "PUT", big, 3, upstream.Config{}, hedging(2, route.Hedge{After: awhile}), 1},
		{"the breaker of retries", "GET", "", 3, upstream.Config{CircuitBreakers: upstream.CircuitBreakers{MaxRetries: 1}}, hedging(2, route.Hedge{After: awhile}), 2},
		{"the breaker of requests", "GET", "", 3, upstream.Config{CircuitBreakers: upstream.CircuitBreakers{MaxRequests: 2}}, hedging(2, route.Hedge{After: awhile}), 2},
		{"the budget", "GET", "", 3, upstream.Config{CircuitBreakers: upstream.CircuitBreakers{RetryBudget: &upstream.RetryBudget{Percent: 1, MinRetryConcurrency: 1}}}, hedging(2, route.Hedge{After: awhile}), 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			each(t, func(t *testing.T, alpn string) {
				s := newReplicas(t, c.endpoints, func(_ int32, _ http.ResponseWriter, r *http.Request) { hang(r) })
				c.config.Name = "a"
				of := cluster(t, c.config, s.addrs...)
				addr, heard := hedged(t, of, c.policy, func(a *route.RouteAction) { a.Timeout = 8 * awhile })
				req, _ := http.NewRequestWithContext(t.Context(), c.method, "http://x/", strings.NewReader(c.body))
				if res, _ := do(t, client(t, direct(addr), alpn), req); res.StatusCode != http.StatusGatewayTimeout {
					t.Errorf("got %d", res.StatusCode)
				}
				if r := heard.next(t); s.asked.Load() != c.asked || r.Tries != int(c.asked) {
					t.Errorf("asked %d times, %d recorded, want %d", s.asked.Load(), r.Tries, c.asked)
				}
				until(t, "all to hear of the end", func() bool { return s.left.Load() == c.asked })
				atRest(t, of)
			})
		})
	}
}

// TestHedgeInsteadOfTimeout: a try that is hedged is not given up at its own time, and one that may not be is.
func TestHedgeInsteadOfTimeout(t *testing.T) {
	answer := make(chan struct{})
	s := newReplicas(t, 2, func(try int32, w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost && try == 1 {
			hang(r)
			return
		}
		if r.Method == http.MethodGet && try == 2 {
			close(answer)
			hang(r)
			return
		}
		if r.Method == http.MethodGet {
			<-answer
		}
		fmt.Fprintf(w, "try %d", try)
	})
	p := hedging(1, route.Hedge{})
	p.PerTryTimeout = awhile
	c := cluster(t, upstream.Config{Name: "a"}, s.addrs...)
	addr, heard := hedged(t, c, p)
	h := client(t, direct(addr), "h2")
	if _, body := get(t, h, "http://x/"); body != "try 1" {
		t.Errorf("got %q", body)
	}
	if r := heard.next(t); r.Tries != 2 || r.Flags != 0 {
		t.Errorf("%d tries, flags %v", r.Tries, r.Flags)
	}
	s.asked.Store(0)
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x/", strings.NewReader("hello"))
	if _, body := do(t, h, req); body != "try 2" {
		t.Errorf("got %q", body)
	}
	if r := heard.next(t); r.Tries != 2 || r.Flags != 0 { // of the try that was given up, nothing is left
		t.Errorf("%d tries, flags %v", r.Tries, r.Flags)
	}
	counted(t, c, 1, 0)
	atRest(t, c)
}

// TestHedgeClientLeaves: nobody is asked for a client that has gone.
func TestHedgeClientLeaves(t *testing.T) {
	plainly(t, func(t *testing.T, alpn string, cluster func(upstream.Config, ...string) *proxy.Cluster) {
		s := newReplicas(t, 3, func(_ int32, _ http.ResponseWriter, r *http.Request) { hang(r) })
		c := cluster(upstream.Config{}, s.addrs...)
		addr, _ := hedged(t, c, hedging(2, route.Hedge{After: awhile}))
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		h := client(t, direct(addr), alpn)
		go func() {
			req, _ := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/", nil)
			_, err := h.Do(req)
			done <- err
		}()
		until(t, "all three", func() bool { return s.asked.Load() == 3 })
		cancel()
		if err := <-done; err == nil {
			t.Error("got an answer")
		}
		until(t, "all to hear of the end", func() bool { return s.left.Load() == 3 })
		atRest(t, c)
	})
}

// TestHedgeBlames: who lost is held to the time that a try gets, and to no shorter one.
func TestHedgeBlames(t *testing.T) {
	for _, c := range []struct {
		name          string
		after         time.Duration
		timeout, none uint64
	}{{"the time of a try", 0, 1, 0}, {"a shorter one", awhile, 0, 1}} {
		t.Run(c.name, func(t *testing.T) {
			s := newReplicas(t, 2, func(try int32, _ http.ResponseWriter, r *http.Request) {
				if try == 1 {
					hang(r)
				}
			})
			p := hedging(1, route.Hedge{After: c.after})
			if p.PerTryTimeout = 10 * time.Second; c.after == 0 {
				p.PerTryTimeout = awhile
			}
			of := cluster(t, upstream.Config{Name: "a"}, s.addrs...)
			addr, _ := hedged(t, of, p)
			get(t, client(t, direct(addr), "h2"), "http://x/")
			atRest(t, of)
			var timeouts, none uint64
			for _, e := range of.Balance().Endpoints() {
				timeouts, none = timeouts+e.Stats().Timeouts, none+e.Stats().NoVerdict
			}
			if timeouts != c.timeout || none != c.none {
				t.Errorf("%d timeouts, %d without a verdict", timeouts, none)
			}
		})
	}
}

// TestHedgeWhileConnecting: a try that has no connection yet is one that takes long.
func TestHedgeWhileConnecting(t *testing.T) {
	peer := start(t, inboundHTTP(t, shake(nil, "h2"), says(t, "a"), proxy.Limits{}, nil))
	var dials atomic.Int32
	c := proxy.NewAttestedCluster(balance(t, upstream.Config{Name: "a"}, "127.0.0.1:1", "127.0.0.1:2"), func(ctx context.Context, _ upstream.Identity, protocols ...string) (proxy.Conn, error) {
		if dials.Add(1) == 1 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return dialer(peer, affirmed(), protocols...)(ctx)
	}, proxy.ProtocolAuto, time.Minute)
	at, heard := hedged(t, c, hedging(1, route.Hedge{After: awhile}))
	if res, _ := get(t, client(t, direct(at), "h2"), "http://x/"); res.StatusCode != 200 {
		t.Errorf("got %d", res.StatusCode)
	}
	if r := heard.next(t); r.Upstream == nil || r.Upstream.Err() != nil {
		t.Errorf("recorded %v", r.Upstream)
	}
	atRest(t, c)
}

// TestHedgeIsAttested: an endpoint that is not affirmed gets no byte of a hedge, and the first try goes on.
func TestHedgeIsAttested(t *testing.T) {
	var stolen atomic.Int32
	slow := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		time.Sleep(4 * awhile)
		_, _ = io.WriteString(w, "honest")
	}))
	thief := rawOrigin(t, func(c *net.TCPConn) {
		n, _ := io.Copy(io.Discard, c)
		stolen.Add(int32(n))
	})
	honest := start(t, inboundHTTP(t, shake(nil, "h2", "http/1.1"), slow, proxy.Limits{}, nil))
	other := start(t, inboundHTTP(t, shake(nil, "h2", "http/1.1"), thief, proxy.Limits{}, nil))
	c := proxy.NewAttestedCluster(balance(t, upstream.Config{Name: "a"}, honest, other), func(ctx context.Context, to upstream.Identity, protocols ...string) (proxy.Conn, error) {
		if to.Address == other {
			return dialer(to.Address, refused(attest.CodeMeasurement), protocols...)(ctx)
		}
		return dialer(to.Address, affirmed(), protocols...)(ctx)
	}, proxy.ProtocolAuto, 0)
	p := hedging(4, route.Hedge{After: awhile})
	p.RetryOn = []string{"connect-failure"}
	addr, _ := hedged(t, c, p)
	h := client(t, direct(addr), "h2")
	until(t, "a hedge", func() bool {
		if res, body := get(t, h, "http://x/"); res.StatusCode == 200 && body != "honest" {
			t.Errorf("got %d %q", res.StatusCode, body)
		}
		return c.Balance().Stats().Hedges > 0
	})
	if stolen.Load() != 0 {
		t.Error("an endpoint that is not affirmed was asked")
	}
	atRest(t, c)
}
