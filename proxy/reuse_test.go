package proxy_test

import (
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

	"github.com/jurat-tls/jurat/proxy"
)

// TestStreamsUsedAgain: a connection of HTTP/2 that is busy keeps what its streams need, of which no request finds anything of the one
// before; one that is quiet lets go of it.
func TestStreamsUsedAgain(t *testing.T) {
	t.Parallel()
	const waves, size = 4, 60
	var all sync.WaitGroup // of a wave: they are all under way before the first is answered
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		all.Done()
		all.Wait()
		var marks []string
		for name, values := range r.Header {
			if strings.HasPrefix(name, "Mark-") {
				marks = append(marks, name+"="+strings.Join(values, ","))
			}
		}
		w.Header().Set("Back-"+r.URL.Query().Get("n"), "yes")
		if r.Method == http.MethodPost {
			w.Header().Set("Trailer", "Last")
			defer w.Header().Set("Last", string(body))
		}
		fmt.Fprintf(w, "%s %s %q %q", r.Method, r.URL, marks, body)
	}))
	s := inboundHTTP(t, shake(nil, "h2"), addr, proxy.Limits{}, nil)
	c := client(t, direct(start(t, s)), "h2")
	all.Add(1) // so that there is a connection for all
	if res, err := c.Get("http://x/"); err != nil {
		t.Fatal(err)
	} else {
		_ = res.Body.Close()
	}
	for wave := range waves {
		all.Add(size)
		var done sync.WaitGroup
		for i := range size {
			done.Go(func() {
				n := fmt.Sprintf("%d-%d", wave, i)
				method, body := http.MethodGet, ""
				if (wave+i)%3 == 0 {
					method, body = http.MethodPost, strings.Repeat(n, 1+i)
				}
				req, err := http.NewRequestWithContext(t.Context(), method, "http://x/"+n+"?n="+n, strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				want := "[]"
				if (wave+i)%2 == 0 {
					req.Header.Set("Mark-"+n, n)
					want = fmt.Sprintf("[%q]", "Mark-"+n+"="+n)
				}
				res, err := c.Do(req)
				if err != nil {
					t.Error(err)
					return
				}
				defer res.Body.Close()
				got, err := io.ReadAll(res.Body)
				if want := fmt.Sprintf("%s /%s?n=%s %s %q", method, n, n, want, body); err != nil || string(got) != want {
					t.Errorf("got %q, %v, want %q", got, err, want)
				}
				backs := 0
				for name := range res.Header {
					if strings.HasPrefix(name, "Back-") {
						backs++
					}
				}
				if backs != 1 || res.Header.Get("Back-"+n) != "yes" || res.Trailer.Get("Last") != body {
					t.Errorf("%s: %v, %v", n, res.Header, res.Trailer)
				}
			})
		}
		done.Wait()
		switch kept, _ := s.Kept(false); {
		case wave < 2 && kept != size:
			t.Errorf("keeps %d of %d streams", kept, size)
		case wave == 1:
			if kept, _ = s.Kept(true); kept == 0 || kept > 8 {
				t.Errorf("keeps %d streams when it is quiet", kept)
			}
		}
	}
	if n := s.Stats().Accepted; n != 1 {
		t.Errorf("%d connections, where one keeps all", n)
	}
}

// TestStreamsKept: streams that a client has given up leave nothing of what waited for it behind, and their number goes back although
// another one stays open.
func TestStreamsKept(t *testing.T) {
	t.Parallel()
	const size = 50
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			<-r.Context().Done()
			return
		}
		_, _ = w.Write(make([]byte, 256<<10))
	}))
	s := inboundHTTP(t, shake(nil, "h2"), addr, proxy.Limits{}, nil)
	c := dialRaw2(t, start(t, s), http2.Setting{ID: http2.SettingInitialWindowSize, Val: 1})
	ask := func(id uint32, path string) {
		c.request(id, true, ":method", "GET", ":scheme", "https", ":authority", "a", ":path", path)
	}
	ask(1, "/wait")
	for i := range uint32(size) {
		ask(3+2*i, "/")
	}
	for begun := 0; begun < size; {
		f, err := c.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if d, ok := f.(*http2.DataFrame); ok && len(d.Data()) > 0 {
			begun++
		}
	}
	for i := range uint32(size) {
		_ = c.WriteRSTStream(3+2*i, http2.ErrCodeCancel)
	}
	_ = c.out.Flush()
	until(t, "the end of the streams", func() bool {
		kept, output := s.Kept(false)
		return kept == size && output == 0
	})
	if kept, _ := s.Kept(true); kept > 8 {
		t.Errorf("keeps %d streams, of which few were needed lately", kept)
	}
}

// counting is a body without an end, of which is known how much was taken.
type counting struct{ n atomic.Int64 }

func (c *counting) Read(p []byte) (int, error) {
	c.n.Add(int64(len(p)))
	return len(p), nil
}

// TestHeldAndUsedAgain: what has waited of a request that was given up goes to no other.
func TestHeldAndUsedAgain(t *testing.T) {
	t.Parallel()
	done := make(chan struct{})
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/deaf" {
			<-done
			return
		}
		_, _ = io.Copy(w, r.Body)
	}))
	t.Cleanup(func() { close(done) }) // before the service ends
	s := inboundHTTP(t, shake(nil, "h2"), addr, proxy.Limits{Stall: time.Hour}, nil)
	c := client(t, direct(start(t, s)), "h2")
	for range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		body := new(counting)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			req, _ := http.NewRequestWithContext(ctx, http.MethodPost, "http://x/deaf", body)
			if res, err := c.Do(req); err == nil {
				_ = res.Body.Close()
			}
		}()
		last, same := int64(0), 0
		until(t, "a body that is taken no more", func() bool {
			if n := body.n.Load(); n != last || n == 0 {
				last, same = n, 0
			}
			same++
			return same > 20
		})
		cancel()
		<-ended
		for range 2 {
			res, err := c.Post("http://x/", "text/plain", strings.NewReader("hello"))
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(res.Body)
			_ = res.Body.Close()
			if err != nil || string(got) != "hello" {
				t.Fatalf("got %.40q, %v", got, err)
			}
		}
	}
	if n := s.Stats().Accepted; n != 1 {
		t.Errorf("%d connections", n)
	}
}

// TestSpread: the loops have as many connections each, whichever way these come.
func TestSpread(t *testing.T) {
	addr, _ := recorder(t)
	far := start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil))
	for _, tt := range []struct {
		name   string
		server func(e *proxy.Engine) *proxy.Server
		dial   func(to string) (net.Conn, error)
	}{
		{"HTTP", func(e *proxy.Engine) *proxy.Server {
			s, err := proxy.NewInboundHTTP(e, shake(nil, "http/1.1"), backend(t, addr), nil, proxy.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}, func(to string) (net.Conn, error) { return dialTLS(t.Context(), to, "http/1.1") }},
		{"HTTP behind a PROXY header", func(e *proxy.Engine) *proxy.Server {
			s, err := proxy.NewInboundHTTP(e, shake(nil, "http/1.1"), backend(t, addr), nil, proxy.Limits{})
			if err != nil {
				t.Fatal(err)
			}
			return accepting(t, s)
		}, func(to string) (net.Conn, error) {
			raw, err := net.Dial("tcp", to)
			if err != nil {
				return nil, err
			}
			_, _ = io.WriteString(raw, "PROXY TCP4 192.0.2.7 198.51.100.1 56324 443\r\n")
			return overTLS(t.Context(), raw, "http/1.1")
		}},
		{"outbound", func(e *proxy.Engine) *proxy.Server {
			return proxy.NewOutbound(e, dialer(far, affirmed()), nil, proxy.Limits{})
		}, func(to string) (net.Conn, error) { return net.Dial("tcp", to) }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			const loops = 2
			e, err := proxy.NewEngine(loops, nil)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = e.Close() })
			s := tt.server(e)
			to := start(t, s)
			for n := 1; n <= 6*loops; n++ { // one after the other
				c, err := tt.dial(to)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				until(t, "a loop that has it", func() bool { return s.InLoops() == n })
			}
			for _, n := range s.Spread() {
				if n != 6 {
					t.Errorf("%v", s.Spread())
					break
				}
			}
		})
	}
}
