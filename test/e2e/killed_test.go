package e2e

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

var changes = flag.Int("changes", 0, "how many changes TestControlPlaneKilled makes; without it does nothing")

// follower is a proxy that takes its configuration from the control plane which is killed.
type follower struct {
	*process
	name     string
	web      [2]string // listeners that came over xDS
	admin    string
	requests atomic.Int64
	looks    atomic.Int64
	version  atomic.Int64

	mu    sync.Mutex
	pairs map[[2]uint64]bool // serials of the two policies, as they were seen together
}

// The names of the two policies of the change, and of the clusters that demand them.
var twins = [2]string{"one", "two"}

// TestControlPlaneKilled: a control plane takes change after change, and is killed with no warning at any point of that, while proxies
// that follow it serve. Each change has marks in several resources of several types. No request fails, no proxy has one part of a
// change without the other or goes back to an older one, nothing that a proxy has seen is missing from the history, and in the end
// all have the last one. make emergency has 1,000 changes.
func TestControlPlaneKilled(t *testing.T) {
	if *changes == 0 {
		return
	}
	l := newLab(t)
	page := l.page(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "page") }))
	back := l.start("serve", "--tee", l.tee(), "--name", "pay.example", "--name", "127.0.0.1", "--listen", "127.0.0.1:0", "--to", page, "--log", "json", "--offline").address()
	l.policyFor(back)
	good, err := os.ReadFile(l.path("policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	proxies := make([]*follower, 3)
	server := free(t)
	for i := range proxies {
		f := &follower{name: fmt.Sprintf("p%d.example", i), web: [2]string{free(t), free(t)}, admin: l.path(fmt.Sprintf("a%d", i)), pairs: map[[2]uint64]bool{}}
		file := l.write(fmt.Sprintf("p%d.yaml", i), fmt.Sprintf(`
identity: {tee: %q, names: [%s]}
admin: {address: "unix:%s"}
xds:
  server: %q
  require: policy.yaml
  node: {id: %s}
  state: kept%d
  limits:
    floor: policy.yaml
    binding: key
    answers: true
    policies: [one, two]
    attested: ["*"]
    targets: [{name: pay, to: ["loopback"], names: [pay.example]}]
    listeners:
    - {address: %q, clients: plain, to: [pay]}
    - {address: %q, clients: plain, to: [pay]}
`, l.tee(), f.name, f.admin, server, f.name, i, f.web[0], f.web[1]))
		f.process = l.start("serve", "-c", file, "--log", "json", "--offline")
		proxies[i] = f
	}
	t.Cleanup(func() { // what the proxies said last, where something went wrong
		for _, f := range proxies {
			if f.stop(); t.Failed() {
				t.Logf("%s: %s", f.name, f.log.Bytes()[max(0, f.log.Len()-16<<10):])
			}
		}
	})
	turn := func(n int) {
		t.Helper()
		next := l.path(fmt.Sprintf("v%d", n))
		write := func(name, text string) {
			t.Helper()
			file := filepath.Join(next, name)
			if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		write("policies/proxies.yaml", string(good))
		for _, name := range twins {
			write("policies/"+name+".yaml", fmt.Sprintf("%s# %d\n", good, n))
		}
		var groups strings.Builder
		groups.WriteString("groups:\n")
		for i, f := range proxies {
			fmt.Fprintf(&groups, "- {name: g%d, require: proxies, names: [%s]}\n", i, f.name)
			write(fmt.Sprintf("g%d/web.yaml", i), f.resources(n, back))
		}
		write("groups.yaml", groups.String())
		link := next + ".link"
		old, _ := os.Readlink(l.path("dir"))
		if err := os.Symlink(next, link); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(link, l.path("dir")); err != nil {
			t.Fatal(err)
		}
		if old != "" {
			_ = os.RemoveAll(old)
		}
	}
	start := func() *process {
		return l.start("control", "--log", "json", "--dir", l.path("dir"), "--state", l.path("state"), "--listen", server, "-p", l.path("policy.yaml"), "--tee", l.tee(), "--name", "127.0.0.1", "--offline",
			"--admin", "unix:"+l.path("admin"))
	}
	turn(0)
	plane := start()
	plane.address()
	until := func(what string, ok func() bool) {
		t.Helper()
		for end := time.Now().Add(2 * time.Minute); !ok(); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("still not: %s\n%+v", what, l.jurat("control", "status", "--admin", "unix:"+l.path("admin")))
			}
		}
	}
	synced := func() (n int) {
		var st struct {
			Serial  uint64
			Problem []any
			Proxies []struct{ Standing string }
		}
		if err := l.over(l.path("admin"), "/status", &st); err != nil {
			return -1
		}
		for _, p := range st.Proxies {
			if p.Standing == "SYNCED" {
				n++
			}
		}
		return n
	}
	until("all synced", func() bool { return synced() == len(proxies) })
	ctx, stop := context.WithCancel(t.Context())
	var work sync.WaitGroup
	defer work.Wait()
	defer stop()
	for _, f := range proxies {
		until("served", func() bool { _, err := f.get(0, "/x"); return err == nil })
		until("served", func() bool { _, err := f.get(1, "/x"); return err == nil })
		work.Go(func() { f.watch(ctx) })
		work.Go(func() { f.use(ctx) })
	}
	kills, seen := 0, 0
	for n := 1; n <= *changes && !t.Failed(); {
		// It is killed while somebody listens, or everybody: after an outage they come back one by one.
		least := 1 + rand.IntN(len(proxies))
		until("there", func() bool { return synced() >= least })
		seen += least
		deadline := time.NewTimer(time.Duration(rand.Int64N(int64(1500 * time.Millisecond))))
		for alive := true; alive && n <= *changes; n++ {
			turn(n)
			if rand.IntN(3) > 0 {
				_ = plane.cmd.Process.Signal(syscall.SIGHUP)
			}
			for told := false; !told && alive; {
				select {
				case e, ok := <-plane.events:
					alive = ok
					told = e.text("msg") == "change"
				case <-deadline.C:
					_ = plane.cmd.Process.Kill()
					<-plane.done
					alive = false
				}
			}
		}
		deadline.Stop()
		_ = plane.cmd.Process.Kill()
		<-plane.done
		kills++
		plane = start()
		plane.address()
	}
	last := *changes
	until("all synced in the end", func() bool { return synced() == len(proxies) })
	for _, f := range proxies {
		until("the last change", func() bool {
			return f.version.Load() == int64(last)
		})
	}
	until("a last look", func() bool {
		for _, f := range proxies {
			if f.looks.Load() == 0 {
				return false
			}
		}
		return true
	})
	stop()
	work.Wait()
	var st struct{ Serial uint64 }
	if err := l.over(l.path("admin"), "/status", &st); err != nil {
		t.Fatal(err)
	}
	plane.stop()

	var all []struct {
		Index, Serial uint64
		Resources     []struct {
			Type, Name string
			Version    uint64
		}
	}
	if err := json.Unmarshal([]byte(l.must(0, "control", "history", "--state", l.path("state"), "-n", "1000000", "--json").stdout), &all); err != nil {
		t.Fatal(err)
	}
	recorded := map[[2]uint64]bool{}
	for _, c := range all {
		var pair [2]uint64
		for _, r := range c.Resources {
			for i, name := range twins {
				if r.Name == name && strings.HasSuffix(r.Type, ".AttestationPolicy") {
					pair[i] = r.Version
				}
			}
		}
		recorded[pair] = true
	}
	if end := all[len(all)-1]; end.Serial != st.Serial {
		t.Errorf("the history ends with %d, and %d was served", end.Serial, st.Serial)
	}
	var requests, looks int64
	pairs := map[[2]uint64]bool{}
	for _, f := range proxies {
		requests += f.requests.Load()
		looks += f.looks.Load()
		for pair := range f.pairs {
			pairs[pair] = true
			if !recorded[pair] {
				t.Errorf("%s had policies %v, which no change has", f.name, pair)
			}
		}
	}
	t.Logf("%d changes of which %d are in the history, %d kills; %d requests, %d looks, %d changes seen in their policies; load %s", *changes, len(all), kills, requests, looks, len(pairs), load())
	if len(pairs) < 2 {
		t.Error("nobody has seen a change")
	}
}

func load() string {
	raw, _ := os.ReadFile("/proc/loadavg")
	one, _, _ := strings.Cut(string(raw), " ")
	return one
}

// resources is what a proxy gets with a change. Its clusters are replaced by others now and then.
func (f *follower) resources(n int, back string) string {
	var b strings.Builder
	b.WriteString("resources:\n")
	host, port, _ := net.SplitHostPort(back)
	for i, name := range twins {
		cluster := fmt.Sprintf("%s-%d", name, n/5%2)
		web, webPort, _ := net.SplitHostPort(f.web[i])
		fmt.Fprintf(&b, `
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: %[1]s
  type: EDS
  eds_cluster_config: {eds_config: {ads: {}, resource_api_version: V3}}
  connect_timeout: %[3]ds
  transport_socket:
    name: envoy.transport_sockets.tls
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
      common_tls_context:
        validation_context:
          custom_validator_config:
            name: jurat
            typed_config: {"@type": type.googleapis.com/jurat.config.v1alpha1.AttestationValidator, policy: %[2]s, pki_mode: EVIDENCE_ONLY, name: pay.example}
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: %[1]s
  endpoints: [{lb_endpoints: [{load_balancing_weight: %[4]d, endpoint: {address: {socket_address: {address: %[5]s, port_value: %[6]s}}}}]}]
- "@type": type.googleapis.com/envoy.config.listener.v3.Listener
  name: %[2]s
  address: {socket_address: {address: %[7]s, port_value: %[8]s}}
  filter_chains:
  - filters:
    - name: http
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
        stat_prefix: web
        http_filters:
        - name: envoy.filters.http.router
          typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
        rds: {route_config_name: %[2]s, config_source: {ads: {}, resource_api_version: V3}}
- "@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
  name: %[2]s
  virtual_hosts:
  - name: all
    domains: ["*"]
    routes:
    - {match: {path: /version}, direct_response: {status: 200, body: {inline_string: "%[9]d"}}}
    - {match: {prefix: /}, route: {cluster: %[1]s}}
`, cluster, name, 10+n%7, 1+n%100, host, port, web, webPort, n)
	}
	return b.String()
}

// over asks a unix socket.
func (l *lab) over(socket, path string, into any) error {
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	resp, err := client.Get("http://localhost" + path)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(into)
}

func (f *follower) get(i int, path string) (string, error) {
	resp, err := http.Get("http://" + f.web[i] + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", resp.Status, body)
	}
	return string(body), err
}

// use sends requests through the proxy, to attested peers, until ctx ends. None is to fail.
func (f *follower) use(ctx context.Context) {
	for n := 0; ctx.Err() == nil; n++ {
		if body, err := f.get(n%2, "/x"); err != nil || body != "page" {
			f.Errorf("%s: a request failed: %q, %v", f.name, body, err)
			return
		}
		f.requests.Add(1)
		time.Sleep(5 * time.Millisecond)
	}
}

// watch looks at what the proxy does: both routes are of one change, both policies are, and nothing goes back.
func (f *follower) watch(ctx context.Context) {
	marker := func(i int) int64 {
		body, err := f.get(i, "/version")
		var n int64
		if _, bad := fmt.Sscan(body, &n); err != nil || bad != nil {
			f.Errorf("%s: %q, %v", f.name, body, err)
			return -1
		}
		f.requests.Add(1)
		return n
	}
	var before [2]uint64
	for ctx.Err() == nil && !f.Failed() {
		// What is seen at two after one is not older, and the other way round, but for the moment in which a proxy turns from one to the other.
		for end := time.Now().Add(time.Second); ; time.Sleep(time.Millisecond) {
			a, b, c := marker(0), marker(1), marker(0)
			if a < f.version.Load() || c < a {
				f.Errorf("%s: change %d, and then %d and %d", f.name, f.version.Load(), a, c)
				return
			}
			f.version.Store(c)
			if a <= b && b <= c {
				break
			}
			if time.Now().After(end) {
				f.Errorf("%s: the routes are of the changes %d, %d and %d", f.name, a, b, c)
				return
			}
		}
		var dump struct {
			Configs []struct {
				Value struct {
					Jurat struct {
						XDS struct {
							Status struct {
								Policies []struct {
									Name   string
									Serial uint64
								}
							}
						}
					}
				}
			}
		}
		if err := f.over(f.admin, "/config_dump", &dump); err != nil || len(dump.Configs) == 0 {
			f.Errorf("%s: %v", f.name, err)
			return
		}
		var pair [2]uint64
		for _, p := range dump.Configs[len(dump.Configs)-1].Value.Jurat.XDS.Status.Policies {
			for i, name := range twins {
				if p.Name == name {
					pair[i] = p.Serial
				}
			}
		}
		if pair[0] < before[0] || pair[1] < before[1] || pair[0] == 0 || pair[1] == 0 {
			f.Errorf("%s: policies %v after %v", f.name, pair, before)
			return
		}
		before = pair
		f.mu.Lock()
		f.pairs[pair] = true
		f.mu.Unlock()
		f.looks.Add(1)
	}
}
