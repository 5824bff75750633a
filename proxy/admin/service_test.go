package admin_test

import (
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/admin"
)

// Who is refused a page is refused a service, and who is no client of gRPC as well.
func TestServices(t *testing.T) {
	called := 0
	s := source(&did{})
	s.Services = map[string]http.Handler{"a.b.Service": http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		called++
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		_, _ = w.Write(body)
	})}
	addr := serve(t, local, s, admin.Options{Log: slog.New(slog.DiscardHandler)})
	second := new(http.Protocols)
	second.SetUnencryptedHTTP2(true)
	h2 := &http.Client{Transport: &http.Transport{Protocols: second}}
	t.Cleanup(h2.CloseIdleConnections)
	h1 := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(h1.CloseIdleConnections)
	_, port, _ := net.SplitHostPort(addr.String())
	for name, c := range map[string]struct {
		client             *http.Client
		method, path, kind string
		host, origin, site string
		want               int
	}{
		"a call":                 {h2, "POST", "/a.b.Service/Do", "application/grpc", "", "", "", 200},
		"its other types":        {h2, "POST", "/a.b.Service/Do", "application/grpc+proto", "localhost:" + port, "", "", 200},
		"HTTP/1":                 {h1, "POST", "/a.b.Service/Do", "application/grpc", "", "", "", 415},
		"GET":                    {h2, "GET", "/a.b.Service/Do", "application/grpc", "", "", "", 415},
		"a form":                 {h2, "POST", "/a.b.Service/Do", "text/plain", "", "", "", 415},
		"another service":        {h2, "POST", "/a.b.Other/Do", "application/grpc", "", "", "", 404},
		"no method":              {h2, "POST", "/a.b.Service/", "application/grpc", "", "", "", 404},
		"no slash":               {h2, "POST", "/a.b.Service", "application/grpc", "", "", "", 404},
		"another host":           {h2, "POST", "/a.b.Service/Do", "application/grpc", "evil.example:" + port, "", "", 403},
		"another origin":         {h2, "POST", "/a.b.Service/Do", "application/grpc", "", "http://evil.example", "", 403},
		"another site":           {h2, "POST", "/a.b.Service/Do", "application/grpc", "", "", "cross-site", 403},
		"what is shown":          {h2, "GET", "/ready", "", "", "", "", 200},
		"what is shown, no more": {h2, "GET", "/ready", "", "evil.example", "", "", 403},
	} {
		before := called
		req, err := http.NewRequest(c.method, "http://"+addr.String()+c.path, strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = c.host
		for key, v := range map[string]string{"Content-Type": c.kind, "Origin": c.origin, "Sec-Fetch-Site": c.site} {
			if v != "" {
				req.Header.Set(key, v)
			}
		}
		resp, err := c.client.Do(req)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if ok := c.want == 200 && c.kind != ""; resp.StatusCode != c.want || ok != (called == before+1) || ok && string(body) != "x" {
			t.Errorf("%s: %d %q", name, resp.StatusCode, body)
		}
	}
	// Without a service there is no HTTP/2.
	plain := serve(t, local, source(&did{}), admin.Options{})
	if resp, err := h2.Get("http://" + plain.String() + "/ready"); err == nil {
		_ = resp.Body.Close()
		t.Errorf("%s", resp.Proto)
	}
}
