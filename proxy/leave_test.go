package proxy_test

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/config"
)

// TestLeaveHurriesNobody: a request may be on its way on a connection that looks idle to a process that another one has taken over from.
func TestLeaveHurriesNobody(t *testing.T) {
	r, build := running(t), newBuilder(t)
	apply(t, r, &config.Config{
		Listeners: []config.Listener{{Address: "web", Serving: config.Serving{HTTP: allTo("one")}}},
		Clusters:  []config.Cluster{clusterOf("one", says(t, "a"))},
	}, "1", build)
	c, err := dialTLS(t.Context(), build.address("web"), "http/1.1")
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	replies := bufio.NewReader(c)
	ask := func() *http.Response {
		t.Helper()
		_, _ = io.WriteString(c, "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
		res, err := http.ReadResponse(replies, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
		return res
	}
	if res := ask(); res.Close {
		t.Error("the connection ends before its time")
	}
	r.Leave()
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	go func() { done <- r.Shutdown(ctx) }()
	_ = c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if _, err := replies.Peek(1); !timeout(err) {
		t.Fatalf("an idle connection ended at once: %v", err)
	}
	_ = c.SetReadDeadline(time.Time{})
	if !ask().Close {
		t.Error("the client is not told that the connection ends")
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
}
