package proxy_test

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/accesslog"
)

// TestRecordBeforeNonsense: a request is told of whatever came behind it on its connection, or a client could hide what it asks for.
func TestRecordBeforeNonsense(t *testing.T) {
	heard := new(observed)
	gate := make(chan struct{})
	addr := rawOrigin(t, func(c *net.TCPConn) {
		if _, err := http.ReadRequest(bufio.NewReader(c)); err == nil {
			<-gate
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		}
	})
	s := inboundHTTP(t, shake(affirmed(), "http/1.1"), addr, proxy.Limits{}, nil)
	s.Observe(proxy.Observer{Log: heard.log}, "web")
	c, err := dialTLS(t.Context(), start(t, s), "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET /hidden HTTP/1.1\r\nHost: a\r\n\r\nNONSENSE\r\n\r\n")
	close(gate)
	_, _ = io.ReadAll(c)
	if got := heard.next(t); got.Path != "/hidden" || got.Status != 200 || got.Sent != 2 {
		t.Errorf("the request: %+v", got)
	}
	if got := heard.next(t); got.Status != 400 || got.Flags != accesslog.DownstreamProtocolError || got.Sent == 0 {
		t.Errorf("what came behind it: %+v", got)
	}
}

// TestTooManyHints: a service that goes on with informational answers does not fill the memory of who has to keep them for a client
// that does not read.
func TestTooManyHints(t *testing.T) {
	ended := make(chan error, 1)
	addr := rawOrigin(t, func(c *net.TCPConn) {
		_, err := http.ReadRequest(bufio.NewReader(c))
		for err == nil {
			_, err = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
		}
		ended <- err
	})
	c, err := dialTLS(t.Context(), start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil)), "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	select {
	case <-ended:
	case <-time.After(5 * time.Second):
		t.Fatal("the service may go on")
	}
	got, err := io.ReadAll(c)
	if n := strings.Count(string(got), " 103 "); err != nil || n != 16 || strings.Count(string(got), "HTTP/1.1 502 ") != 1 {
		t.Errorf("%d hints, then %q, %v", n, got[max(0, len(got)-300):], err)
	}
}

// TestNotAgainAfterHints: a service that has said something of a request has seen it, and is not asked twice.
func TestNotAgainAfterHints(t *testing.T) {
	var asked atomic.Int32
	addr := rawOrigin(t, func(c *net.TCPConn) {
		r := bufio.NewReader(c)
		for n := 0; ; n++ {
			if _, err := http.ReadRequest(r); err != nil {
				return
			}
			asked.Add(1)
			if n > 0 {
				_, _ = io.WriteString(c, "HTTP/1.1 103 Early Hints\r\n\r\n")
				return
			}
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
		}
	})
	h := client(t, direct(start(t, inboundHTTP(t, shake(nil, "http/1.1"), addr, proxy.Limits{}, nil))), "http/1.1")
	if res, _ := get(t, h, "http://x/"); res.StatusCode != 200 {
		t.Error(res.Status)
	}
	if res, _ := get(t, h, "http://x/"); res.StatusCode != 502 || asked.Load() != 2 {
		t.Errorf("%s, asked %d times", res.Status, asked.Load())
	}
}

// TestLargeAnswerHead: a head that an answer may have in HTTP/1.1 it may have in HTTP/2, where one that takes more frames than are
// allowed ends the connection, with what others have under way on it.
func TestLargeAnswerHead(t *testing.T) {
	large := strings.Repeat("{", 100_000) // which HPACK does not make shorter
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for n := range 10 {
			w.Header().Set("X-"+strconv.Itoa(n), large)
		}
	}))
	for _, scheme := range []string{"", "h2c://"} {
		h := client(t, direct(start(t, inboundHTTP(t, shake(nil, "http/1.1"), scheme+addr, proxy.Limits{}, nil))), "http/1.1")
		if res, _ := get(t, h, "http://x/"); res.StatusCode != 200 || res.Header.Get("X-9") != large {
			t.Errorf("%s: %s", scheme, res.Status)
		}
	}
}
