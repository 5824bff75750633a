package admin_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"errors"
	"flag"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/admin"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var now = time.Date(2026, 11, 29, 4, 40, 58, 0, time.UTC)

// hardware verifies evidence that is the report data itself.
type hardware struct{ claims attest.Claims }

func (h hardware) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	c := h.claims
	c.ReportData = attest.ReportData(ev.Raw)
	return &c, nil
}

type policy struct{}

func (policy) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "sha256:feed", Checks: []attest.Check{{ID: "test", Status: attest.StatusPass}}}
}

func appraise(c attest.Claims) *attest.Result {
	data := attest.ReportData{1}
	a := attest.NewAppraiser(attest.NoEndorser{}, hardware{c})
	return a.Appraise(context.Background(), &attest.Evidence{Format: "test", Raw: data[:]}, attest.Expect(data, attest.LevelSession, now), policy{}, now)
}

// did is what was asked for.
type did struct {
	mu  sync.Mutex
	all []string
}

func (d *did) add(s string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.all = append(d.all, s)
}

// take answers what was asked for since.
func (d *did) take() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	s := strings.Join(d.all, " ")
	d.all = nil
	return s
}

// evil is a name as a control plane may send it.
const evil = "a\x1b[2J\n<script>\u202e"

var leaf = sync.OnceValue(func() *x509.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(0xabcdef), Subject: pkix.Name{CommonName: "jurat"}, DNSNames: []string{"shop.example"},
		IPAddresses: []net.IP{net.IPv4(192, 0, 2, 1)}, URIs: []*url.URL{{Scheme: "spiffe", Host: "example.org", Path: "/shop"}},
		NotBefore: now.Add(-time.Hour), NotAfter: now.Add(50 * time.Hour),
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, key.Public(), key)
	if err != nil {
		panic(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		panic(err)
	}
	return c
})

func source(d *did) admin.Source {
	return admin.Source{
		State: func() admin.State { return admin.Live },
		ServerInfo: func() admin.ServerInfo {
			return admin.ServerInfo{Version: "1.2.3", Revision: "abc", Go: "go1.26", Node: "sidecar~1", Cluster: "shop", TEE: "snp", Simulated: true, Started: now.Add(-90 * time.Second)}
		},
		Listeners: func() []admin.Listener {
			return []admin.Listener{{Name: "public", Address: "0.0.0.0:8443"}, {Name: evil, Address: "unix:/run/x"}, {Name: "odd", Address: "systemd"}, {Name: "odder", Address: "a:http"}}
		},
		Clusters: func() []admin.Cluster {
			return []admin.Cluster{{
				Name: "orders", Dynamic: true, Stats: upstream.Stats{Endpoints: 3, Healthy: 2, Connections: 4, Pending: 5, Requests: 6, Retries: 7},
				Endpoints: []admin.Endpoint{
					{
						Address: "10.0.0.1:443", Hostname: "one", Locality: "eu/a", Weight: 3, Priority: 1,
						Stats:  upstream.EndpointStats{Active: 1, Success: 2, ServerErrors: 3, GatewayErrors: 4, ConnectFailures: 5, Timeouts: 6, Resets: 7, NoVerdict: 8},
						Result: appraise(attest.Claims{Vendor: "sim", TEE: "tdx", Generation: "q", Simulated: true}),
					},
					{Address: "[2001:db8::1]:443", Stats: upstream.EndpointStats{FailedCheck: true, Ejected: true, Unhealthy: true}, Result: attest.RefusedResult(&attest.Error{Code: attest.CodeNoEvidence}, now)},
					{Address: "unix:/run/orders.sock"},
				},
			}, {Name: evil}}
		},
		Certs: func() []admin.Certificate {
			return []admin.Certificate{{Name: "public", Chain: []*x509.Certificate{leaf()}, CA: []*x509.Certificate{leaf()}, Pin: "sha256//abc", TEE: "snp", Simulated: true, Evidence: "feed"}, {Name: "none"}}
		},
		ConfigDump: func() (any, error) {
			return map[string]any{"name": "static", "private_key": "hunter2", "drain": 12345678901234567}, nil
		},
		Configs: func(endpoints bool) ([]json.RawMessage, error) {
			all := []json.RawMessage{
				json.RawMessage(`{"@type": "type.googleapis.com/envoy.admin.v3.BootstrapConfigDump", "bootstrap": {"node": {"id": "a", "cluster": "b"}}}`),
				json.RawMessage(`{"@type": "type.googleapis.com/envoy.admin.v3.ClustersConfigDump", "version_info": "12345678901234567", "dynamic_active_clusters": [` +
					`{"version_info": "1", "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "pay", "type": "STATIC"}},` +
					`{"version_info": "2", "cluster": {"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "side"}}]}`),
				json.RawMessage(`{"@type": "type.googleapis.com/envoy.admin.v3.ListenersConfigDump", "dynamic_listeners": [{"name": "out", "active_state": {"version_info": "3"}}]}`),
			}
			if endpoints {
				all = append(all, json.RawMessage(`{"@type": "type.googleapis.com/envoy.admin.v3.EndpointsConfigDump", "dynamic_endpoint_configs": [`+
					`{"endpoint_config": {"@type": "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "cluster_name": "pay"}}]}`))
			}
			return all, nil
		},
		Stats: func(emit func(string, float64)) {
			emit("jurat_a{x=\""+evil+"\"}", 0)
			emit("jurat_b_total", 1.5)
			emit("jurat_c", 1e15)
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "# prometheus\n") }),

		LogLevel:    func() slog.Level { return slog.LevelInfo },
		SetLogLevel: func(l slog.Level) { d.add("level=" + l.String()) },
		ReopenLogs:  func(context.Context) error { d.add("reopen"); return nil },
		Drain: func(how admin.Drain) error {
			s := "drain"
			for name, on := range map[string]bool{"G": how.Graceful, "I": how.InboundOnly, "S": how.SkipExit} {
				if on {
					s += name
				}
			}
			d.add(s)
			return nil
		},
		Quit: func() { d.add("quit") },
	}
}

// serve starts a server; address answers where it is.
func serve(t testing.TB, address string, s admin.Source, opts admin.Options) net.Addr {
	t.Helper()
	if opts.Now == nil {
		opts.Now = func() time.Time { return now }
	}
	ln, err := admin.Listen(context.Background(), address, opts)
	if err != nil {
		t.Fatal(err)
	}
	server, err := admin.New(ln, s, opts)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	all.Go(func() {
		if err := server.Serve(); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		if err := server.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		all.Wait()
	})
	return server.Addr()
}

// answer is a whole one.
type answer struct {
	status int
	header http.Header
	body   string
}

// ask sends a request as it is written, with Host and Connection added where they are not in it.
func ask(t testing.TB, addr net.Addr, method, target string, header ...string) answer {
	t.Helper()
	c, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !strings.HasPrefix(strings.Join(header, "\n"), "Host:") {
		header = append([]string{"Host: " + addr.String()}, header...)
	}
	if header[0] == "Host:-" {
		header = header[1:]
	}
	if _, err := io.WriteString(c, method+" "+target+" HTTP/1.1\r\n"+strings.Join(header, "\r\n")+"\r\nConnection: close\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	r, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer r.Body.Close()
	b, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatal(err)
	}
	return answer{r.StatusCode, r.Header, string(b)}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	file = "testdata/" + file
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

var errBroken = errors.New("broken")
