package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/test/ports"
)

// web answers what a URL has.
func (l *lab) web(url string) (status int, body string) {
	l.Helper()
	req, err := http.NewRequestWithContext(l.Context(), http.MethodGet, url, nil)
	if err != nil {
		l.Fatal(err)
	}
	res, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(req)
	if err != nil {
		l.Fatal(err)
	}
	defer res.Body.Close()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		l.Fatal(err)
	}
	return res.StatusCode, string(raw)
}

// free answers an address that nobody has at the moment.
func free(t *testing.T) string {
	t.Helper()
	return ports.Free(t, 1)[0].String()
}

// TestOperate: a mesh of two, configured by files: routes, attested clusters, the access log, the admin API, a change of the
// configuration, and a restart that nobody notices.
func TestOperate(t *testing.T) {
	l := newLab(t)
	var told [2]atomic.Int64 // requests with spans and with metrics that the collector got
	collector := l.page(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		switch body, _ := io.ReadAll(r.Body); {
		case len(body) > 0 && r.URL.Path == "/v1/traces":
			told[0].Add(1)
		case len(body) > 0 && r.URL.Path == "/v1/metrics":
			told[1].Add(1)
		}
	}))
	var traced atomic.Int64
	one := l.page(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Traceparent") != "" {
			traced.Add(1)
		}
		fmt.Fprintf(w, "one %s %s", r.URL.Path, r.Header.Get("Jurat-Result"))
	}))
	two := l.page(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "two %s", r.URL.Path) }))
	back, backAdmin, front := free(t), free(t), free(t)
	file := func(to string) string {
		return fmt.Sprintf(`
identity: {tee: %q, names: [localhost, 127.0.0.1]}
listen:
  - name: web
    address: %s
    http:
      virtual_hosts:
        - {name: all, domains: ["*"], routes: [{name: api, match: {prefix: /api/}, route: {cluster: %s, prefix_rewrite: /}}, {match: {prefix: /gone}, direct_response: {status: 410}}]}
clusters:
  - {name: one, endpoints: [{address: %q}]}
  - {name: two, endpoints: [{address: %q}]}
admin: {address: %q}
access_log: {path: access.log, format: json}
takeover: takeover.sock
tracing: {endpoint: "http://%s", sample: 1}
drain: 10s
`, l.tee(), back, to, one, two, backAdmin, collector)
	}
	cfg := l.write("back.yaml", file("one"))
	server := l.start("serve", "-c", cfg, "--log", "json", "--offline")
	server.address()
	l.policyFor(back)
	mesh := l.write("front.yaml", fmt.Sprintf(`
listen:
  - {name: out, address: %s, plain: true, http: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: back}}]}]}}
clusters:
  - {name: back, attested: {require: policy.yaml, name: localhost}, endpoints: [{address: %q}]}
access_log: {path: front.log, format: json}
`, front, back))
	client := l.start("serve", "-c", mesh, "--log", "json", "--offline")
	client.address()

	if status, body := l.web("http://" + front + "/api/x"); status != 200 || body != "one /x " {
		t.Fatalf("got %d %q", status, body)
	}
	if status, _ := l.web("http://" + front + "/gone"); status != 410 {
		t.Errorf("got %d", status)
	}

	// The admin API.
	for path, want := range map[string]string{
		"/ready": "LIVE", "/clusters": "one::" + one, "/config_dump": `"digest"`, "/server_info": `"state"`, "/certs": "identity", "/listeners": "web",
		"/stats/prometheus": `jurat_listener_requests_total{listener="web"} `, "/stats": "jurat_",
	} {
		if status, body := l.web("http://" + backAdmin + path); status != 200 || !strings.Contains(body, want) {
			t.Errorf("%s: %d without %q:\n%.2000s", path, status, want, body)
		}
	}

	// A change: clients go on, and what is wrong changes nothing.
	var stop atomic.Bool
	var asked [2]atomic.Int64
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for !stop.Load() {
				req, _ := http.NewRequestWithContext(context.Background(), http.MethodGet, "http://"+front+"/api/x", nil)
				res, err := http.DefaultTransport.RoundTrip(req)
				if err != nil {
					t.Error(err)
					return
				}
				body, err := io.ReadAll(res.Body)
				res.Body.Close()
				switch {
				case err == nil && res.StatusCode == 200 && strings.HasPrefix(string(body), "one /x"):
					asked[0].Add(1)
				case err == nil && res.StatusCode == 200 && string(body) == "two /x":
					asked[1].Add(1)
				default:
					t.Errorf("got %d %q, %v", res.StatusCode, body, err)
				}
			}
		})
	}
	more := func(n *atomic.Int64) {
		t.Helper()
		before := n.Load()
		for deadline := time.Now().Add(patience); n.Load() < before+20; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatal("no more requests")
			}
		}
	}
	more(&asked[0])
	l.write("back.yaml", strings.Replace(file("two"), "prefix: /gone", "prefex: /gone", 1))
	_ = server.cmd.Process.Signal(syscall.SIGHUP)
	if e := server.wait("the configuration stays as it is"); e.text("code") != "J702" {
		t.Errorf("got %v", e)
	}
	more(&asked[0])
	l.write("back.yaml", file("two"))
	_ = server.cmd.Process.Signal(syscall.SIGHUP)
	server.wait("configuration changed")
	more(&asked[1])

	// Another process takes over: the first one leaves, and no request fails.
	// One that gives up before it is ready changes nothing.
	quitter, err := net.Dial("unix", l.path("takeover.sock"))
	if err != nil {
		t.Fatal(err)
	}
	_, _ = quitter.Read(make([]byte, 1))
	quitter.Close()
	more(&asked[1])
	second := l.start("serve", "-c", cfg, "--log", "json", "--offline")
	second.address()
	server.wait("another process has taken over")
	more(&asked[1])
	select {
	case <-server.done:
	case <-time.After(patience):
		t.Error("the first process stays")
	}
	more(&asked[1])
	if status, body := l.web("http://" + backAdmin + "/ready"); status != 200 {
		t.Errorf("got %d %s", status, body)
	}
	stop.Store(true)
	clients.Wait()
	t.Logf("%d requests by the first configuration, %d by the second", asked[0].Load(), asked[1].Load())
	client.stop()
	second.stop()

	if told[0].Load() == 0 || told[1].Load() == 0 || traced.Load() == 0 {
		t.Errorf("spans %d times, metrics %d times, %d requests with a traceparent", told[0].Load(), told[1].Load(), traced.Load())
	}

	// What both ends have written about it.
	for name, check := range map[string]func(line map[string]any) bool{
		"access.log": func(line map[string]any) bool {
			return line["listener"] == "web" && line["downstream"] == nil && line["protocol"] == "HTTP/2"
		},
		"front.log": func(line map[string]any) bool {
			peer, _ := line["upstream"].(map[string]any)
			return line["listener"] == "out" && line["cluster"] == "back" && peer["verdict"] == "affirmed" && peer["binding"] == "session" && peer["simulated"] == true
		},
	} {
		raw, err := os.ReadFile(l.path(name))
		if err != nil {
			t.Fatal(err)
		}
		lines := 0
		for text := range strings.Lines(string(raw)) {
			var line map[string]any
			err := json.Unmarshal([]byte(text), &line)
			if err == nil && line["protocol"] == "" { // whoever asked for the policy
				continue
			}
			if err != nil || !check(line) {
				t.Fatalf("%s: %q, %v", name, text, err)
			}
			lines++
		}
		if want := int(asked[0].Load() + asked[1].Load()); lines < want {
			t.Errorf("%s has %d lines for %d requests", name, lines, want)
		}
	}
}
