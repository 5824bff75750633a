package e2e

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A stock Envoy takes its whole configuration from a control plane, in both protocols, written in the short form. Changes reach it
// while requests go on, and none fails when a cluster is replaced by another one.
func TestEnvoyFromControl(t *testing.T) {
	envoy := filepath.Join("../../bin/envoy")
	if _, err := os.Stat(envoy); err != nil {
		need(t, "envoy")
		envoy = "envoy"
	}
	for name, api := range map[string]string{"delta": "DELTA_GRPC", "sotw": "GRPC"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			backend := l.page(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "backend") }))
			front := free(t)
			for _, dir := range []string{"dir/edge"} {
				if err := os.MkdirAll(l.path(dir), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			l.write("dir/groups.yaml", "groups: [{name: edge, local: envoy}]\n")
			web := func(text, cluster string) {
				l.write("dir/edge/web.yaml.new~", fmt.Sprintf(`
listen:
- name: web
  address: %s
  plain: true
  http:
    virtual_hosts:
    - name: all
      domains: ["*"]
      routes:
      - {match: {path: /version}, direct_response: {status: 200, body: %q}}
      - {match: {prefix: /, methods: [GET, HEAD]}, route: {cluster: %s, timeout: 3s}}
clusters:
- {name: %s, endpoints: [{address: '%s'}]}
`, front, text, cluster, cluster, backend))
				if err := os.Rename(l.path("dir/edge/web.yaml.new~"), l.path("dir/edge/web.yaml")); err != nil {
					t.Fatal(err)
				}
			}
			web("1", "app1")
			l.write("p.yaml", "policy: p\nplatforms: {allow: [amd genoa+]}\nworkload: {measurement: any, debug: off}\n")
			socket, admin := l.path("ads"), "unix:"+l.path("admin")
			l.start("control", "--log", "json", "--dir", l.path("dir"), "--state", l.path("state"), "--listen", "127.0.0.1:0", "-p", l.path("p.yaml"), "--tee", l.tee(), "--offline",
				"--local", "envoy=unix:"+socket, "--admin", admin).address()
			boot := l.write("envoy.yaml", fmt.Sprintf(`
node: {id: envoy-1, cluster: edge}
dynamic_resources:
  ads_config: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: control}}]}
  cds_config: {ads: {}, resource_api_version: V3}
  lds_config: {ads: {}, resource_api_version: V3}
static_resources:
  clusters:
  - name: control
    type: STATIC
    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}
    load_assignment: {cluster_name: control, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %s}}}}]}]}
`, api, socket))
			cmd := exec.Command(envoy, "-c", boot, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning")
			cmd.Env = l.env()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			get := func(path string) string {
				resp, err := http.Get("http://" + front + path)
				if err != nil {
					return err.Error()
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				return fmt.Sprint(resp.StatusCode, " ", string(body))
			}
			until := func(what string, ok func() bool) {
				t.Helper()
				for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("still not: %s\n%+v", what, l.jurat("control", "status", "--admin", admin))
					}
				}
			}
			until("version 1", func() bool { return get("/version") == "200 1" })
			until("backend", func() bool { return get("/") == "200 backend" })
			var stop atomic.Bool
			done := make(chan string, 1)
			go func() {
				for !stop.Load() {
					if got := get("/"); got != "200 backend" {
						done <- got
						return
					}
				}
				done <- ""
			}()
			for n := 2; n <= 6; n++ {
				web(fmt.Sprint(n), fmt.Sprint("app", n))
				until(fmt.Sprint("version ", n), func() bool { return get("/version") == fmt.Sprint("200 ", n) })
				until("synced", func() bool {
					return strings.Contains(l.jurat("control", "status", "--admin", admin).stdout, "SYNCED")
				})
			}
			stop.Store(true)
			if failed := <-done; failed != "" {
				t.Error("a request failed:", failed)
			}
			// What Envoy refuses is shown with its reason, and it serves on.
			l.write("dir/edge/bad.yaml", "\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\nname: bad\ntype: EDS\n")
			until("rejected", func() bool {
				return strings.Contains(l.jurat("control", "status", "--admin", admin).stdout, "REJECTED")
			})
			if got := get("/"); got != "200 backend" {
				t.Error(got)
			}
		})
	}
}
