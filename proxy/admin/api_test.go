package admin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"math"
	"net"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/admin"
)

const local = "127.0.0.1:0"

// What is shown, word for word.
func TestShown(t *testing.T) {
	addr := serve(t, local, source(&did{}), admin.Options{Profiling: true})
	for target, file := range map[string]string{
		"/": "index.html", "/help": "help.txt", "/ready": "ready.txt", "/server_info": "server_info.json",
		"/listeners": "listeners.txt", "/listeners?format=json": "listeners.json", "/clusters": "clusters.txt", "/clusters?format=json": "clusters.json",
		"/certs": "certs.json", "/config_dump": "config_dump.json", "/stats": "stats.txt", "/stats?format=json": "stats.json",
		"/stats?format=prometheus": "prometheus.txt", "/stats/prometheus": "prometheus.txt",
	} {
		a := ask(t, addr, http.MethodGet, target)
		kind := map[string]string{".json": "application/json", ".html": "text/html; charset=utf-8", ".txt": "text/plain; charset=utf-8"}[file[strings.LastIndexByte(file, '.'):]]
		if got := a.header.Get("Content-Type"); a.status != http.StatusOK || got != kind {
			t.Errorf("%s: %d %s", target, a.status, got)
		}
		if strings.HasSuffix(file, ".json") && !json.Valid([]byte(a.body)) {
			t.Errorf("%s: no JSON: %s", target, a.body)
		}
		for _, bad := range []string{"\x1b", "\u202e", "<script>", "hunter2"} {
			if strings.Contains(a.body, bad) && !(strings.HasSuffix(file, ".txt") && bad == "<script>") && !(strings.HasSuffix(file, ".json") && bad == "\u202e") {
				t.Errorf("%s holds %q", target, bad)
			}
		}
		golden(t, file, a.body)
		head := ask(t, addr, http.MethodHead, target)
		if head.status != http.StatusOK || head.body != "" {
			t.Errorf("HEAD %s: %+v", target, head)
		}
	}
}

func TestReady(t *testing.T) {
	for state, want := range map[admin.State]int{
		admin.Live: 200, admin.Draining: 503, admin.PreInitializing: 503, admin.Initializing: 503, "": 503, "LIVE\n": 503, "live": 503,
	} {
		addr := serve(t, local, admin.Source{State: func() admin.State { return state }}, admin.Options{})
		if a := ask(t, addr, http.MethodGet, "/ready"); a.status != want || strings.Count(a.body, "\n") != 1 {
			t.Errorf("%q: %+v", state, a)
		}
	}
	// Nothing known is not ready.
	addr := serve(t, local, admin.Source{}, admin.Options{})
	if a := ask(t, addr, http.MethodGet, "/ready"); a.status != 503 || a.body != "PRE_INITIALIZING\n" {
		t.Errorf("%+v", a)
	}
}

// What changes something is asked for by POST alone, and does what it says.
func TestChanges(t *testing.T) {
	d := &did{}
	addr := serve(t, local, source(d), admin.Options{})
	for _, c := range []struct {
		target, did string
		status      int
	}{
		{"/drain_listeners", "drain", 200},
		{"/drain_listeners?graceful", "drainG", 200},
		{"/drain_listeners?inboundonly", "drainI", 200},
		{"/drain_listeners?skip_exit", "drainS", 200},
		{"/drain_listeners?gracefully", "", 400},
		{"/drain", "drainG", 200},
		{"/quitquitquit", "quit", 200},
		{"/reopen_logs", "reopen", 200},
		{"/logging?level=debug", "level=DEBUG", 200},
		{"/logging?level=trace", "level=DEBUG", 200},
		{"/logging?level=info", "level=INFO", 200},
		{"/logging?level=warning", "level=WARN", 200},
		{"/logging?level=warn", "level=WARN", 200},
		{"/logging?level=error", "level=ERROR", 200},
		{"/logging", "", 200},
		{"/logging?level=", "", 400},
		{"/logging?level=off", "", 400},
		{"/logging?http=debug", "", 400},
		{"/logging?paths=a:debug", "", 400},
		{"/nothing", "", 404},
	} {
		a := ask(t, addr, http.MethodPost, c.target, "Content-Length: 0")
		if got := d.take(); a.status != c.status || got != c.did {
			t.Errorf("%s: did %q, %+v", c.target, got, a)
		}
		if c.did != "" && !strings.HasPrefix(c.did, "level") && a.body != "OK\n" {
			t.Errorf("%s: %+v", c.target, a)
		}
	}
	if a := ask(t, addr, http.MethodPost, "/logging"); a.body != "active loggers:\n  jurat: info\n" {
		t.Errorf("%+v", a)
	}
}

func paths(t *testing.T, addr net.Addr) (get, post []string) {
	t.Helper()
	for line := range strings.Lines(ask(t, addr, http.MethodGet, "/help").body) {
		method, rest, _ := strings.Cut(line, " ")
		path, _, _ := strings.Cut(strings.TrimSpace(rest), ": ")
		if method == http.MethodGet {
			get = append(get, path)
		} else {
			post = append(post, path)
		}
	}
	return get, post
}

func TestMethods(t *testing.T) {
	d := &did{}
	addr := serve(t, local, source(d), admin.Options{Profiling: true})
	get, post := paths(t, addr)
	if len(get) < 12 || len(post) != 5 {
		t.Fatal(get, post)
	}
	for _, path := range get {
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "get", "X"} {
			if a := ask(t, addr, method, path); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "GET, HEAD" {
				t.Errorf("%s %s: %+v", method, path, a)
			}
		}
	}
	for _, path := range post {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "post"} {
			if a := ask(t, addr, method, path); a.status != http.StatusMethodNotAllowed || a.header.Get("Allow") != "POST" {
				t.Errorf("%s %s: %+v", method, path, a)
			}
		}
	}
	if got := d.take(); got != "" {
		t.Errorf("did %s", got)
	}
	for _, path := range []string{"/x", "//", "/ready/", "/Ready", "/ready/..", "/debug/pprof", "/debug/pprof/", "/debug/pprof/cmdline", "/%72eady/x"} {
		if a := ask(t, addr, http.MethodGet, path); a.status != http.StatusNotFound {
			t.Errorf("%s: %+v", path, a)
		}
	}
}

// A function that is nil is an endpoint that is not there.
func TestNothing(t *testing.T) {
	addr := serve(t, local, admin.Source{}, admin.Options{})
	get, post := paths(t, addr)
	if !slices.Equal(get, []string{"/", "/help", "/ready", "/memory"}) || post != nil {
		t.Error(get, post)
	}
	full := serve(t, local, source(&did{}), admin.Options{Profiling: true})
	get2, post2 := paths(t, full)
	for _, path := range append(get2, post2...) {
		if slices.Contains(get, path) {
			continue
		}
		for _, method := range []string{"GET", "POST"} {
			if a := ask(t, addr, method, path); a.status != http.StatusNotFound {
				t.Errorf("%s: %+v", path, a)
			}
		}
	}
	if a := ask(t, addr, "GET", "/"); a.status != 200 || strings.Contains(a.body, "SIMULATED") {
		t.Errorf("%+v", a)
	}
	s := source(&did{})
	s.ServerInfo = func() admin.ServerInfo { return admin.ServerInfo{} }
	if a := ask(t, serve(t, local, s, admin.Options{}), "GET", "/"); a.status != 200 || strings.Contains(a.body, "SIMULATED") {
		t.Errorf("%+v", a)
	}
	s.Metrics = nil
	if a := ask(t, serve(t, local, s, admin.Options{}), "GET", "/stats?format=prometheus"); a.status != http.StatusNotFound {
		t.Errorf("%+v", a)
	}
	s.LogLevel = nil
	if a := ask(t, serve(t, local, s, admin.Options{}), "POST", "/logging"); a.status != 200 || a.body != "active loggers:\n" {
		t.Errorf("%+v", a)
	}
}

func TestStats(t *testing.T) {
	s := source(&did{})
	addr := serve(t, local, s, admin.Options{})
	for target, want := range map[string]string{
		"/stats?filter=b_":                 "jurat_b_total: 1.5\n",
		"/stats?filter=%5Ejurat_%5Bbc%5D":  "jurat_b_total: 1.5\njurat_c: 1000000000000000\n",
		"/stats?usedonly":                  "jurat_b_total: 1.5\njurat_c: 1000000000000000\n",
		"/stats?usedonly&filter=a":         "jurat_b_total: 1.5\njurat_c: 1000000000000000\n",
		"/stats?filter=nothing":            "",
		"/stats?filter=c$&format=text":     "jurat_c: 1000000000000000\n",
		"/stats?format=json&filter=nothin": "{\n \"stats\": []\n}\n",
	} {
		if a := ask(t, addr, http.MethodGet, target); a.status != 200 || a.body != want {
			t.Errorf("%s: %+v", target, a)
		}
	}
	for _, target := range []string{"/stats?filter=(", "/stats?filter=" + strings.Repeat("a", 1025), "/stats?format=xml", "/stats?format=html", "/clusters?format=xml", "/listeners?format=JSON", "/stats?filter=(a{1000}){1000}"} {
		if a := ask(t, addr, http.MethodGet, target); a.status != 400 || !strings.HasPrefix(a.body, "jurat: ") || strings.Count(a.body, "\n") != 1 {
			t.Errorf("%s: %+v", target, a)
		}
	}
	s.Stats = func(emit func(string, float64)) { emit("nan", math.NaN()); emit("inf", math.Inf(1)); emit("less", -1) }
	addr = serve(t, local, s, admin.Options{})
	if a := ask(t, addr, http.MethodGet, "/stats"); a.body != "nan: -\ninf: -\nless: -1\n" {
		t.Errorf("%+v", a)
	}
	if a := ask(t, addr, http.MethodGet, "/stats?format=json"); !strings.Contains(a.body, `"value": null`) || !json.Valid([]byte(a.body)) {
		t.Errorf("%+v", a)
	}
}

func TestMemory(t *testing.T) {
	var got map[string]string
	a := ask(t, serve(t, local, admin.Source{}, admin.Options{}), http.MethodGet, "/memory")
	if err := json.Unmarshal([]byte(a.body), &got); err != nil || got["allocated"] == "0" || got["heap_size"] == "0" || got["total_physical_bytes"] == "0" || len(got) != 5 {
		t.Errorf("%v %+v", err, got)
	}
}

// What looks like a secret is not shown, whatever the configuration is made of.
func TestConfigDumpHides(t *testing.T) {
	const s = "hunter2"
	pem := "-----BEGIN EC PRIVATE KEY-----\n" + s
	s2 := source(&did{})
	s2.ConfigDump = func() (any, error) {
		return map[string]any{
			"private_key": s, "PrivateKey": s, "tls": []any{map[string]any{"privateKey": map[string]any{"inline_string": s}}}, "password": s, "client_secret": s, "api-token": s,
			"session_ticket_keys": []string{s}, "cert": pem, "list": []string{pem}, "Authorization": s, "psk": s, "cookie": s, "dsn.password": s, "Log Credentials": s,
			"set":  []any{map[string]string{"name": "Proxy-Authorization", "value": s}, map[string]string{"key": "X-Api-Key", "value": s}, map[string]string{"name": "Set-Cookie", "value": s}},
			"kept": []any{map[string]string{"name": "X-Shop", "value": "kept1"}, map[string]string{"name": "Cookie", "value": s, "action": "kept4"}, map[string]any{"secret_name": "kept2", "token_bucket": map[string]int{"max_tokens": 4711}}, "PUBLIC KEY kept3"},
		}, nil
	}
	a := ask(t, serve(t, local, s2, admin.Options{}), http.MethodGet, "/config_dump")
	if strings.Contains(a.body, s) {
		t.Errorf("shown: %s", a.body)
	}
	for _, kept := range []string{"kept1", "kept2", "kept3", "kept4", "4711"} {
		if !strings.Contains(a.body, kept) {
			t.Errorf("%s is hidden: %s", kept, a.body)
		}
	}
}

func TestErrors(t *testing.T) {
	var log bytes.Buffer
	s := source(&did{})
	coded := &attest.Error{Code: attest.CodeListen, Err: errBroken}
	s.Drain = func(admin.Drain) error { return coded }
	s.ReopenLogs = func(context.Context) error { return errBroken }
	s.ConfigDump = func() (any, error) { return nil, coded }
	s.Clusters = func() []admin.Cluster { panic("hunter2") }
	s.Certs = func() []admin.Certificate { return []admin.Certificate{{Chain: nil, Name: "\xff"}} }
	addr := serve(t, local, s, admin.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for _, c := range []struct{ method, target, code string }{
		{"POST", "/drain", "J804"}, {"POST", "/drain_listeners", "J804"}, {"POST", "/reopen_logs", "J803"}, {"GET", "/config_dump", "J804"}, {"GET", "/clusters", "J803"},
	} {
		a := ask(t, addr, c.method, c.target)
		if a.status != 500 || !strings.Contains(a.body, c.code) || strings.Contains(a.body, "broken") || strings.Contains(a.body, "hunter2") {
			t.Errorf("%s: %+v", c.target, a)
		}
	}
	for _, want := range []string{`level=ERROR msg="the admin API could not do what was asked" code=J804 error=`, `level=ERROR msg="panic in the admin API" code=J803 path=/clusters`, `level=INFO msg="draining was asked for" graceful=true`} {
		if !strings.Contains(log.String(), want) || strings.Contains(log.String(), "hunter2") {
			t.Errorf("log: %s", &log)
		}
	}
	s.ConfigDump = func() (any, error) { return func() {}, nil }
	if a := ask(t, serve(t, local, s, admin.Options{}), "GET", "/config_dump"); a.status != 500 {
		t.Errorf("%+v", a)
	}
	if a := ask(t, addr, "GET", "/certs"); a.status != 200 || !json.Valid([]byte(a.body)) {
		t.Errorf("%+v", a)
	}
}

func TestProfiling(t *testing.T) {
	addr := serve(t, local, admin.Source{}, admin.Options{Profiling: true})
	for _, target := range []string{"heap", "goroutine?debug=1", "goroutine?debug=2", "allocs", "block", "mutex", "threadcreate", "trace?seconds=1"} {
		kind := "application/octet-stream"
		if strings.Contains(target, "debug") {
			kind = "text/plain; charset=utf-8"
		}
		if a := ask(t, addr, "GET", "/debug/pprof/"+target); a.status != 200 || a.body == "" || a.header.Get("Content-Type") != kind {
			t.Errorf("%s: %d %v", target, a.status, a.header)
		}
	}
	for _, target := range []string{"heap?debug=3", "heap?debug=-1", "heap?debug=x", "profile?seconds=0", "profile?seconds=121", "profile?seconds=-1", "profile?seconds=x", "trace?seconds=99999999999"} {
		if a := ask(t, addr, "GET", "/debug/pprof/"+target); a.status != 400 {
			t.Errorf("%s: %d", target, a.status)
		}
	}
	// One at a time; one that its client has left ends.
	c, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(c, "GET /debug/pprof/profile?seconds=120 HTTP/1.1\r\nHost: "+addr.String()+"\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	until := func(status int) {
		for ask(t, addr, "GET", "/debug/pprof/profile?seconds=1").status != status {
			if t.Context().Err() != nil {
				t.Fatal("never")
			}
		}
	}
	until(http.StatusConflict)
	_ = c.Close()
	until(http.StatusOK)
}

func TestNoProfiling(t *testing.T) {
	addr := serve(t, local, source(&did{}), admin.Options{})
	for _, name := range []string{"heap", "profile", "goroutine", "cmdline", ""} {
		if a := ask(t, addr, "GET", "/debug/pprof/"+name); a.status != 404 {
			t.Errorf("%s: %d", name, a.status)
		}
	}
}

// The page names every endpoint, and no other.
func TestDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/observability.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]string{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(GET|POST) (/[a-z_/]*)`").FindAllStringSubmatch(string(raw), -1) {
		documented[m[2]] = m[1]
	}
	get, post := paths(t, serve(t, local, source(&did{}), admin.Options{Profiling: true}))
	served := map[string]string{}
	for _, p := range get {
		if strings.HasPrefix(p, "/debug/pprof/") {
			p = "/debug/pprof/"
		}
		served[p] = "GET"
	}
	for _, p := range post {
		served[p] = "POST"
	}
	if !reflect.DeepEqual(documented, served) {
		t.Errorf("documented are %v\nserved are %v", fmt.Sprint(slices.Sorted(maps.Keys(documented))), fmt.Sprint(slices.Sorted(maps.Keys(served))))
	}
}

func TestPrintable(t *testing.T) {
	for s, want := range map[string]string{
		"": "", "shop-1 é \u00a0 \u2027 \u2030 \u2065 \u206a": "shop-1 é \u00a0 \u2027 \u2030 \u2065 \u206a", "\x00\t\n\x1b\x1f": "?????", "\x7f\u0080\u009b\u009f": "????",
		"\u2028\u2029\u202a\u202e": "????", "\u2066\u2069": "??", "\xff": "\uFFFD",
	} {
		if got := admin.Printable(s); got != want {
			t.Errorf("%q: got %q", s, got)
		}
	}
}

// By its own clock a proxy that was just started is up for a moment.
func TestUptime(t *testing.T) {
	s := source(&did{})
	for started, want := range map[time.Time]string{time.Now().Add(-time.Hour): `"36\d\ds"`, time.Now().Add(time.Hour): `"0s"`} {
		s.ServerInfo = func() admin.ServerInfo { return admin.ServerInfo{Started: started} }
		a := ask(t, serve(t, local, s, admin.Options{Now: time.Now}), "GET", "/server_info")
		if !regexp.MustCompile(`"uptime_current_epoch": ` + want).MatchString(a.body) {
			t.Errorf("%s", a.body)
		}
	}
}
