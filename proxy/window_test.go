package proxy_test

import (
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy"
)

// TestUnreadAnswers: clients that do not read their answers keep nobody else from his, whose requests share a connection to the
// service with theirs.
func TestUnreadAnswers(t *testing.T) {
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		size := 1
		if r.URL.Path == "/large" {
			size = 64 << 20 // more than the buffers of a client's connection hold
		}
		_, _ = w.Write(make([]byte, size))
	}))
	in := start(t, inboundHTTP(t, proxy.Plain, "h2c://"+addr, proxy.Limits{}, nil))
	for range 32 { // there is a connection to the service for each loop
		raw, err := net.Dial("tcp", in)
		if err != nil {
			t.Fatal(err)
		}
		_ = raw.(*net.TCPConn).SetReadBuffer(4 << 10)
		defer raw.Close()
		_, _ = io.WriteString(raw, "GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	for began := time.Now(); time.Since(began) < 2*time.Second; { // until the service can send no more
		h := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}
		if res, _ := get(t, h, "http://"+in+"/small"); res.StatusCode != 200 {
			t.Fatal(res.Status)
		}
	}
}
