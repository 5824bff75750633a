package proxy_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

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
		switch kept := s.Kept(false); {
		case wave < 2 && kept != size:
			t.Errorf("keeps %d of %d streams", kept, size)
		case wave == 1:
			if kept = s.Kept(true); kept == 0 || kept > 8 {
				t.Errorf("keeps %d streams when it is quiet", kept)
			}
		}
	}
	if n := s.Stats().Accepted; n != 1 {
		t.Errorf("%d connections, where one keeps all", n)
	}
}
