package proxy_test

import (
	"context"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/message"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// local answers /own with what it was asked, and /own?wait when its client has gone.
type local struct{ begun, gone chan struct{} }

func (l local) Path() string { return "/own" }

func (l local) Answer(ctx context.Context, conn proxy.Conn, method, query string) proxy.LocalAnswer {
	if query == "wait" {
		close(l.begun)
		<-ctx.Done()
		close(l.gone)
	}
	status := http.StatusOK
	if conn.ConnectionState().Version == 0 {
		status = http.StatusTeapot
	}
	return proxy.LocalAnswer{Status: status, Fields: message.Fields{{Name: "X-Own", Value: method}}, Body: []byte(query)}
}

func localServer(t *testing.T, l proxy.Local, routing *proxy.Routing) string {
	s := proxy.NewHTTP(engine(t), shake(nil, "h2", "http/1.1"), routing, nil, proxy.Limits{})
	s.AnswerLocally(l)
	return start(t, s)
}

func TestLocalAnswersNeverReachTheService(t *testing.T) {
	c := cluster(t, upstream.Config{Name: "a"}, says(t, "a"))
	for name, r := range map[string]*proxy.Routing{
		"one":   proxy.RouteTo(c),
		"table": routing(t, map[string]*proxy.Cluster{"a": c}, route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: to("a")}),
	} {
		t.Run(name, func(t *testing.T) {
			addr := localServer(t, local{}, r)
			each(t, func(t *testing.T, alpn string) {
				client := client(t, direct(addr), alpn)
				for path, own := range map[string]bool{
					"/own": true, "/own?q=1": true, "/x/../own?q=1": true, "/o%77n?q": true,
					"/own/": false, "/ownx": false, "/x/own": false, "/": false, "/?/own": false,
				} {
					for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodPost} {
						req, err := http.NewRequestWithContext(t.Context(), method, "http://x"+path, nil)
						if err != nil {
							t.Fatal(err)
						}
						res, _ := do(t, client, req)
						if res.StatusCode != 200 || (res.Header.Get("X-Own") == method) != own || (res.Header.Get("X-From") == "") != own {
							t.Errorf("%s %s: %s %v", method, path, res.Status, res.Header)
						}
					}
				}
			})
		})
	}
}

// What the service might take for the path is not for it either, where it is not answered.
func TestLocalPathIsNotSpeltOtherwise(t *testing.T) {
	c := cluster(t, upstream.Config{Name: "a"}, says(t, "a"))
	for name, r := range map[string]*proxy.Routing{
		"one":   proxy.RouteTo(c),
		"table": routing(t, map[string]*proxy.Cluster{"a": c}, route.Route{Match: route.RouteMatch{Prefix: "/"}, Route: to("a")}),
	} {
		t.Run(name, func(t *testing.T) {
			addr := localServer(t, local{}, r)
			each(t, func(t *testing.T, alpn string) {
				client := client(t, direct(addr), alpn)
				for path, service := range map[string]bool{
					"/%2fown": false, "/%2Fown": false, "/%5cown": false, "/\\own": false, "/x%2f..%2fown": false, "/x/..;/own": false, "/x%5c..%5cown?q": false,
					"/own;x": false, "/own;x=1?q": false, "/;x/own": false, "/own%3bx": false, "/.%2f%6fwn": false, "/own%3fq": true, "/%2fownx": name == "one",
					"/own%2fx": name == "one", "/x;/own": true, "/own;/x": true, "/%252fown": true, "/x;own": true,
				} {
					u := &url.URL{Scheme: "http", Host: "x", Opaque: "//x" + path}
					if before, query, ok := strings.Cut(path, "?"); ok {
						u.Opaque, u.RawQuery = "//x"+before, query
					}
					res, _ := do(t, client, &http.Request{Method: http.MethodGet, URL: u, Host: "x", Header: http.Header{}})
					if (res.Header.Get("X-From") != "") != service || !service && res.StatusCode != http.StatusBadRequest || res.Header.Get("X-Own") != "" {
						t.Errorf("%s: %s %v", path, res.Status, res.Header)
					}
				}
			})
		})
	}
}

func TestLocalAnswerOfAClientThatHasGone(t *testing.T) {
	each(t, func(t *testing.T, alpn string) {
		l := local{begun: make(chan struct{}), gone: make(chan struct{})}
		addr := localServer(t, l, proxy.RouteTo(cluster(t, upstream.Config{Name: "a"}, says(t, "a"))))
		c := client(t, direct(addr), alpn)
		if _, body := get(t, c, "http://x/own?before"); body != "before" {
			t.Fatal(body)
		}
		ctx, cancel := context.WithCancel(t.Context())
		req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://x/own?wait", nil)
		if err != nil {
			t.Fatal(err)
		}
		failed := make(chan error, 1)
		go func() {
			_, err := c.Do(req)
			failed <- err
		}()
		<-l.begun
		cancel()
		if <-failed == nil {
			t.Fatal("an answer to who has gone")
		}
		<-l.gone // nothing waits for the TEE in vain
		if _, body := get(t, c, "http://x/own?after"); body != "after" {
			t.Fatal(body)
		}
	})
}
