package metrics_test

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/histogram"
	"github.com/jurat-tls/jurat/proxy/metrics"
	"github.com/jurat-tls/jurat/proxy/tally"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

var update = flag.Bool("update", false, "rewrite the golden files and the table in docs/observability.md")

var build = metrics.Build{Version: "1.2.3", Revision: "abc", Go: "go1.26"}

func requests() tally.RequestStats {
	r := tally.NewRequests(2)
	for i, status := range []int{0, 200, 204, 301, 404, 503} {
		r.Shard(i).Observe(status, time.Duration(i+1)*time.Millisecond, 600*time.Microsecond, 300, 1<<40)
	}
	return r.Stats()
}

func ages(d ...time.Duration) histogram.Snapshot {
	h := histogram.New(1, histogram.Ages())
	for _, d := range d {
		h.Shard(0).Took(d)
	}
	return h.Snapshot()
}

func times(seconds ...float64) (t batch.Times) {
	for _, s := range seconds {
		t.Count++
		t.Sum += s
		for i, bound := range batch.Bounds() {
			if s <= bound {
				t.Buckets[i]++
			}
		}
	}
	return t
}

// example has another number in each place.
func example() metrics.Snapshot {
	genoa := tally.Peer{Verdict: attest.Affirmed, Vendor: "amd", TEE: "snp", Generation: "genoa", Level: attest.LevelSession}
	return metrics.Snapshot{
		Listeners: []metrics.Listener{{
			Name: "public",
			Stats: proxy.Stats{
				Accepted: 101, Handshakes: 102, Bindings: map[attest.Level]uint64{attest.LevelSession: 103, attest.LevelKey: 104, "": 105, "made up": 106},
				Refused: map[attest.Code]uint64{attest.CodeMeasurement: 107, attest.CodeTimeout: 108, "J999": 109}, Active: 110, Requests: 111, BytesIn: 112, BytesOut: 113,
			},
			Requests: requests(),
			Peers: tally.PeerStats{Counts: map[tally.Peer]uint64{
				genoa: 114, {}: 115, {Verdict: attest.Undecided, Vendor: "sim", TEE: "tdx", Generation: "q", Level: attest.LevelKey, Simulated: true}: 116,
			}, Ages: ages(time.Minute, time.Hour, 1000*time.Hour)},
			Chains: []proxy.ChainStatus{
				{Name: "by name", Stats: proxy.Stats{Accepted: 120, Handshakes: 121, Refused: map[attest.Code]uint64{attest.CodeTimeout: 122, "J999": 123}, Active: 124, Requests: 125, BytesIn: 126, BytesOut: 127}},
				{Name: "default"},
			},
		}, {Name: "raw"}},
		Clusters: []metrics.Cluster{{
			Name: "orders",
			Stats: upstream.Stats{
				Endpoints: 201, Healthy: 202, Connections: 203, Pending: 204, Requests: 205, Retries: 206, ConnectionsOverflow: 207, PendingOverflow: 208,
				RequestsOverflow: 209, RetriesOverflow: 210, NoEndpoint: 211, Panic: 212, Ejections5xx: 213, EjectionsGateway: 214, EjectionsLocalOrigin: 215,
				EjectionsSuccessRate: 216, EjectionsOverflow: 217, ChecksFailed: 218, ChecksPassed: 219, Hedges: 221, HedgesWon: 222,
			},
			Endpoints: []metrics.Endpoint{
				{Address: "10.0.0.1:443", Stats: upstream.EndpointStats{Active: 301, Success: 302, ServerErrors: 303, GatewayErrors: 304, ConnectFailures: 305, Timeouts: 306, Resets: 307, NoVerdict: 308, Nanoseconds: 309_500_000_000}},
				{Address: "10.0.0.2:443", Stats: upstream.EndpointStats{FailedCheck: true}},
				{Address: "10.0.0.3:443", Stats: upstream.EndpointStats{Ejected: true}},
				{Address: "10.0.0.4:443", Stats: upstream.EndpointStats{Unhealthy: true}},
			},
			Peers: tally.PeerStats{Counts: map[tally.Peer]uint64{genoa: 220}, Ages: ages(time.Second)},
		}},
		ControlPlane: &metrics.ControlPlane{
			Connected: true, Warming: 2,
			Types:    []metrics.ResourceType{{Type: "Cluster", Resources: 7, Accepted: 3, Refused: 1, Stands: true}},
			Policies: []metrics.PushedPolicy{{Name: "mesh", Serial: 42}},
		},
		Enforced: &enforce.Stats{
			Epoch: 601, Open: map[enforce.Peer]int{{Verdict: attest.Affirmed, Vendor: "amd", TEE: "snp", Product: "EPYC Genoa", Generation: "genoa", Level: attest.LevelSession}: 602},
			Rejudged: 603, Verified: 604, Refused: 605, Warned: 606, Sweeps: 607, LastSweep: time.UnixMilli(1_800_000_000_250), LastTook: 30 * time.Millisecond,
		},
		Identity: &metrics.Identity{
			TEE: "snp", Simulated: true, Evidence: time.Unix(1_800_000_000, 0), NotAfter: time.Unix(1_800_086_400, 0),
			Quotes: batch.Stats{Quotes: 404, Failures: 4, Sessions: 1000, Crowded: 405, Refused: 406, Waiting: 407, Largest: 408, Breaker: batch.HalfOpen, Wait: times(.002, .5, 30), Quote: times(.04)},
		},
		Public: []metrics.PublicCertificate{
			{Name: "shop.example", NotAfter: time.Unix(1_800_000_900, 0), Obtained: 701, Failures: 702}, {Name: "www.shop.example", Failures: 703, Code: attest.CodeCALimit},
		},
		AccessLog: &accesslog.Stats{Written: 501, Dropped: 502, Failed: 503, Bytes: 504},
	}
}

func scrape(t *testing.T, m *metrics.Metrics, accept string) (int, http.Header, string) {
	t.Helper()
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, r)
	return w.Code, w.Header(), w.Body.String()
}

// ours are the lines about the proxy's own metrics.
func ours(text string) string {
	var b strings.Builder
	for line := range strings.SplitAfterSeq(text, "\n") {
		if strings.HasPrefix(strings.TrimPrefix(strings.TrimPrefix(line, "# HELP "), "# TYPE "), "jurat_") || line == "# EOF\n" {
			b.WriteString(line)
		}
	}
	return b.String()
}

func TestExposition(t *testing.T) {
	m := metrics.New(build, example)
	for _, c := range []struct{ file, accept, kind string }{
		{"prometheus", "text/plain", "text/plain; version=0.0.4"},
		{"openmetrics", "application/openmetrics-text; version=1.0.0", "application/openmetrics-text; version=1.0.0"},
	} {
		status, header, body := scrape(t, m, c.accept)
		if status != http.StatusOK || !strings.HasPrefix(header.Get("Content-Type"), c.kind) || !strings.Contains(body, "\ngo_goroutines ") || !strings.Contains(body, "\nprocess_") {
			t.Errorf("%s: %d %v", c.file, status, header)
		}
		golden(t, "testdata/"+c.file+".golden", ours(body))
	}
	for _, f := range metrics.Families() {
		if _, _, body := scrape(t, m, ""); !strings.Contains(body, "# HELP "+f.Name+" "+f.Help+"\n# TYPE "+f.Name+" "+f.Type+"\n"+f.Name) {
			t.Errorf("%s is not shown", f.Name)
		}
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if string(want) != got {
		t.Errorf("%s: got\n%s", file, got)
	}
}

func TestLint(t *testing.T) {
	_, _, body := scrape(t, metrics.New(build, example), "")
	problems, err := promlint.New(strings.NewReader(body)).Lint()
	if err != nil || len(problems) > 0 {
		t.Error(err, problems)
	}
}

// Without anything to show there is still an answer.
func TestEmpty(t *testing.T) {
	for _, s := range []metrics.Snapshot{{}, {Listeners: make([]metrics.Listener, 2), Clusters: make([]metrics.Cluster, 2), Identity: &metrics.Identity{}, AccessLog: &accesslog.Stats{}}} {
		status, _, body := scrape(t, metrics.New(metrics.Build{}, func() metrics.Snapshot { return s }), "")
		if status != http.StatusOK || !strings.Contains(body, "jurat_build_info") || strings.Contains(body, "NaN") || strings.Contains(body, "_timestamp_seconds -") {
			t.Errorf("%d %s", status, ours(body))
		}
	}
}

// What two of one name have is added up, and what is no UTF-8 is shown as something that is.
func TestSameName(t *testing.T) {
	s := example()
	s.Listeners = append(s.Listeners, s.Listeners[0])
	s.Listeners = append(s.Listeners, metrics.Listener{Name: "\xff\n\"x", Stats: proxy.Stats{Accepted: 7}}, metrics.Listener{Name: strings.Repeat("é", 500), Stats: proxy.Stats{Accepted: 8}})
	s.Clusters[0].Endpoints = append(s.Clusters[0].Endpoints, s.Clusters[0].Endpoints...)
	status, _, body := scrape(t, metrics.New(build, func() metrics.Snapshot { return s }), "")
	for _, want := range []string{
		`jurat_listener_accepted_connections_total{listener="public"} 202`,
		`jurat_listener_accepted_connections_total{listener="` + "\uFFFD" + `\n\"x"} 7`,
		`jurat_listener_accepted_connections_total{listener="` + strings.Repeat("é", 100) + `"} 8`,
		`jurat_listener_request_duration_seconds_count{listener="public"} 12`,
		`jurat_listener_request_duration_seconds_bucket{listener="public",le="0.0025"} 4`,
		`jurat_listener_appraisals_total{generation="genoa",level="session",listener="public",simulated="false",tee="snp",vendor="amd",verdict="affirmed"} 228`,
		`jurat_endpoint_active_requests{cluster="orders",endpoint="10.0.0.1:443"} 602`,
	} {
		if !strings.Contains(body, want+"\n") {
			t.Errorf("%d: no %s in %s", status, want, ours(body))
		}
	}
}

// Whatever a control plane sends, the number of series is bounded, and nothing is left out of the sum.
func TestBounded(t *testing.T) {
	s := metrics.Snapshot{Clusters: []metrics.Cluster{{Name: "huge"}}}
	for i := range 5000 {
		s.Clusters[0].Endpoints = append(s.Clusters[0].Endpoints, metrics.Endpoint{Address: fmt.Sprint(i), Stats: upstream.EndpointStats{Active: 1}})
	}
	s.Clusters[0].Endpoints = append(s.Clusters[0].Endpoints, s.Clusters[0].Endpoints[0]) // which is known
	_, _, body := scrape(t, metrics.New(build, func() metrics.Snapshot { return s }), "")
	if !strings.Contains(body, `jurat_endpoint_active_requests{cluster="huge",endpoint="0"} 2`+"\n") {
		t.Error("what is known is taken for another")
	}
	if n := strings.Count(body, "\njurat_endpoint_active_requests{"); n != 1000 || !strings.Contains(body, `jurat_endpoint_active_requests{cluster="other",endpoint="other"} 4001`+"\n") {
		t.Error(n)
	}
	if n := strings.Count(body, "\njurat_endpoint_requests_total{"); n != 1000 {
		t.Error(n)
	}
}

// A snapshot that panics is an error for whoever asked.
func TestPanic(t *testing.T) {
	if status, _, _ := scrape(t, metrics.New(build, func() metrics.Snapshot { panic("broken") }), ""); status != http.StatusInternalServerError {
		t.Error(status)
	}
}

func TestEach(t *testing.T) {
	got := map[string]float64{}
	var names []string
	metrics.New(build, example).Each(func(name string, v float64) {
		if _, twice := got[name]; twice {
			t.Errorf("%s twice", name)
		}
		got[name] = v
		names = append(names, name)
	})
	for name, want := range map[string]float64{
		`jurat_build_info{version="1.2.3",revision="abc",goversion="go1.26"}`:            1,
		`jurat_listener_requests_total{listener="public"}`:                               111,
		`jurat_listener_request_duration_seconds_count{listener="public"}`:               6,
		`jurat_listener_request_duration_seconds_sum{listener="public"}`:                 0.021,
		`jurat_listener_request_duration_seconds{listener="public",quantile="0.5"}`:      0.01 / 3,
		`jurat_quote_mean_batch_sessions`:                                                2.5,
		`jurat_quote_wait_seconds{quantile="0.99"}`:                                      10,
		`jurat_quote_duration_seconds{quantile="0.5"}`:                                   0.0375,
		`jurat_endpoint_request_seconds_total{cluster="orders",endpoint="10.0.0.1:443"}`: 309.5,
	} {
		if v, ok := got[name]; !ok || math.Abs(v-want) > 1e-9 {
			t.Errorf("%s: got %v, want %v", name, v, want)
		}
	}
	idle := metrics.Snapshot{Listeners: []metrics.Listener{{Name: "idle", Requests: tally.NewRequests(1).Stats()}}}
	metrics.New(build, func() metrics.Snapshot { return idle }).Each(func(name string, v float64) {
		if v != 0 && !strings.HasPrefix(name, "jurat_build_info") {
			t.Errorf("%s is %v", name, v)
		}
	})
	again := 0
	metrics.New(build, example).Each(func(name string, _ float64) {
		if names[again] != name {
			t.Errorf("%s in the place of %s", name, names[again])
		}
		again++
	})
}

// A label is a name of the configuration or one of a list that is known: nothing that a client sends.
func TestLabels(t *testing.T) {
	known := map[string]bool{}
	for _, f := range metrics.Families() {
		for _, l := range f.Labels {
			known[l] = true
		}
		if !strings.HasPrefix(f.Name, "jurat_") || f.Help == "" {
			t.Errorf("%+v", f)
		}
	}
	want := "chain class cluster code endpoint generation goversion level listener name outcome policy product reason resource result revision simulated state tee type vendor verdict version"
	if got := strings.Join(slices.Sorted(maps.Keys(known)), " "); got != want {
		t.Errorf("labels are %s", got)
	}
}

func TestConcurrent(t *testing.T) {
	m := metrics.New(build, example)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for range 5 {
				if status, _, _ := scrape(t, m, ""); status != http.StatusOK {
					t.Error(status)
				}
				m.Each(func(string, float64) {})
			}
		})
	}
	all.Wait()
}

const page = "../../docs/observability.md"

// The table of the page is made from the code.
func TestDocumented(t *testing.T) {
	raw, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- metrics -->\n", "<!-- end of metrics -->\n"
	before, rest, ok := strings.Cut(string(raw), begin)
	table, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatal("no place for the table")
	}
	var b strings.Builder
	b.WriteString("| metric | type | labels | |\n|---|---|---|---|\n")
	for _, f := range metrics.Families() {
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", f.Name, f.Type, strings.Join(f.Labels, ", "), f.Help)
	}
	if *update {
		if err := os.WriteFile(page, []byte(before+begin+b.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if table != b.String() {
		t.Errorf("%s is not what the code has: go test ./proxy/metrics -update", page)
	}
}

func BenchmarkScrape(b *testing.B) {
	m := metrics.New(build, example)
	h := m.Handler()
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil))
	}
}
