package e2e

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A stock Envoy takes its certificate, and the keys of the peers that it may talk to, from a jurat beside it, in both protocols. Clients
// see evidence in its certificate. It reaches an affirmed peer, and no other one, and no longer once a policy refuses that; a new
// certificate reaches it without a connection being dropped.
func TestEnvoySecrets(t *testing.T) {
	envoy := filepath.Join("../../bin/envoy")
	if _, err := os.Stat(envoy); err != nil {
		need(t, "envoy")
		envoy = "envoy"
	}
	for name, api := range map[string]string{"delta": "DELTA_GRPC", "sotw": "GRPC"} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			app := l.page(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "app") }))
			// Two peers, of which one is good. It asks Envoy for evidence.
			good := l.start("serve", "--tee", l.tee(), "--name", "127.0.0.1", "--listen", "127.0.0.1:0", "--to", app, "--log", "json", "--offline")
			to := good.address()
			l.policyFor(to)
			raw, err := os.ReadFile(l.path("policy.yaml"))
			if err != nil {
				t.Fatal(err)
			}
			policy := string(raw)
			pinned := strings.Replace(policy, "binding: key", "binding: pinned", 1)
			if pinned == policy {
				t.Fatalf("no binding in %s", policy)
			}
			mutual := l.start("serve", "--tee", l.tee(), "--name", "127.0.0.1", "--listen", "127.0.0.1:0", "--to", app, "--require", l.path("policy.yaml"), "--log", "json", "--offline").address()
			other := l.start("serve", "--tee", "sim:snp:genoa,dir="+l.path("others"), "--name", "127.0.0.1", "--listen", "127.0.0.1:0", "--to", app, "--log", "json", "--offline").address()
			l.write("peers.yaml", pinned)
			admin, stats := free(t), free(t)
			config := func(name string) string {
				return l.write("jurat.yaml", fmt.Sprintf(`
identity: {tee: %q, names: [127.0.0.1]}
admin: {address: %s}
sds:
  address: unix:sds
  identities: [{name: default, names: [127.0.0.1, %s], unsafe_give_private_key_to_envoy: true}]
  peers:
    - {name: backends, require: peers.yaml, every: 1s, targets: [{address: %q}, {address: %q}]}
    - {name: others, require: peers.yaml, every: 1s, targets: [{address: %q}]}
`, l.tee(), admin, name, to, mutual, other))
			}
			sidecar := l.start("serve", "-c", config("one.example"), "--log", "json", "--offline")
			sidecar.wait("secrets for Envoy")
			if info, err := os.Stat(l.path("sds")); err != nil || info.Mode().Perm() != 0o600 {
				t.Fatalf("the socket is %v, %v", info.Mode(), err)
			}
			front, out := free(t), map[string]string{}
			sds := func(name string) string {
				return fmt.Sprintf("{name: %s, sds_config: {resource_api_version: V3, api_config_source: {api_type: %s, transport_api_version: V3, grpc_services: [{envoy_grpc: {cluster_name: sds}}]}}}", name, api)
			}
			listeners, clusters := "", ""
			for _, c := range []struct{ name, to, peers string }{{"good", to, "backends"}, {"mutual", mutual, "backends"}, {"bad", other, "backends"}, {"nobody", other, "others"}, {"open", other, ""}} {
				checked := "validation_context_sds_secret_config: " + sds(c.peers)
				if c.peers == "" {
					checked = "validation_context: {}"
				}
				out[c.name] = free(t)
				listeners += fmt.Sprintf(`
  - name: %[1]s
    address: {socket_address: {address: 127.0.0.1, port_value: %[2]s}}
    filter_chains: [{filters: [{name: hcm, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: x,
      http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}],
      route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: %[1]s}}]}]}}}]}]
`, c.name, port(out[c.name]))
				clusters += fmt.Sprintf(`
  - name: %[1]s
    type: STATIC
    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, common_http_protocol_options: {max_requests_per_connection: 1}, explicit_http_config: {http_protocol_options: {}}}}
    load_assignment: {cluster_name: %[1]s, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[2]s}}}}]}]}
    transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {
      tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3},
      tls_certificate_sds_secret_configs: [%[3]s], %[4]s}}}
`, c.name, port(c.to), sds("default"), checked)
			}
			boot := l.write("envoy.yaml", fmt.Sprintf(`
node: {id: envoy-1, cluster: edge}
admin: {address: {socket_address: {address: 127.0.0.1, port_value: %s}}}
static_resources:
  listeners:
  - name: front
    address: {socket_address: {address: 127.0.0.1, port_value: %s}}
    filter_chains:
    - filters: [{name: hcm, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, stat_prefix: x,
        http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}],
        route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, direct_response: {status: 200, body: {inline_string: front}}}]}]}}}]
      transport_socket: {name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {
        alpn_protocols: [h2, http/1.1], tls_params: {tls_minimum_protocol_version: TLSv1_3}, tls_certificate_sds_secret_configs: [%s]}}}
%s
  clusters:
  - name: sds
    type: STATIC
    typed_extension_protocol_options: {envoy.extensions.upstreams.http.v3.HttpProtocolOptions: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http2_protocol_options: {}}}}
    load_assignment: {cluster_name: sds, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: %s}}}}]}]}
%s
`, port(stats), port(front), sds("default"), listeners, l.path("sds"), clusters))
			cmd := exec.Command(envoy, "-c", boot, "--use-dynamic-base-id", "--concurrency", "1", "-l", "warning", "--log-path", l.path("envoy.log"))
			cmd.Env = l.env()
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
			until := func(what string, ok func() bool) {
				t.Helper()
				for end := time.Now().Add(patience); !ok(); time.Sleep(20 * time.Millisecond) {
					if time.Now().After(end) {
						log, _ := os.ReadFile(l.path("envoy.log"))
						_, dump := l.web("http://" + admin + "/config_dump")
						t.Fatalf("still not: %s\n%s\n%s", what, log, dump)
					}
				}
			}
			get := func(addr string) string {
				resp, err := http.Get("http://" + addr)
				if err != nil {
					return err.Error()
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				return fmt.Sprint(resp.StatusCode, " ", string(body))
			}
			// As a server: what checks evidence takes its certificate, and no other name than it was made for.
			until("attested", func() bool { return l.jurat("verify", "-p", l.path("policy.yaml"), front).code == 0 })
			// As a client, with evidence where it is asked for.
			until("good", func() bool { return get(out["good"]) == "200 app" })
			until("mutual", func() bool { return get(out["mutual"]) == "200 app" })
			refused := func(name string) bool {
				stat := "cluster." + name + ".ssl.fail_verify_cert_hash"
				count := func() string { return get(stats + "/stats?filter=" + stat) }
				before := count()
				return strings.HasPrefix(get(out[name]), "503") && count() != before
			}
			for _, name := range []string{"bad", "nobody"} {
				if !refused(name) {
					t.Errorf("%s: got %s", name, get(out[name]))
				}
			}
			// Why a list of nobody is not to be empty.
			if got := get(out["open"]); got != "200 app" {
				t.Errorf("Envoy has become more careful with an empty validation context: %s", got)
			}

			// Another certificate, which is for another name as well, over a connection that goes on.
			kept := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
			var used *tls.ConnectionState
			over := func() string {
				resp, err := kept.Get("https://" + front)
				if err != nil {
					return err.Error()
				}
				defer resp.Body.Close()
				body, _ := io.ReadAll(resp.Body)
				used = resp.TLS
				return string(body)
			}
			if got := over(); got != "front" {
				t.Fatal(got)
			}
			first := used.PeerCertificates[0]
			config("two.example")
			if err := sidecar.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			until("another certificate", func() bool {
				c, err := tls.Dial("tcp", front, &tls.Config{InsecureSkipVerify: true})
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
				leaf := c.ConnectionState().PeerCertificates[0]
				return !leaf.Equal(first) && strings.Join(leaf.DNSNames, "") == "two.example"
			})
			if got := over(); got != "front" || !used.PeerCertificates[0].Equal(first) {
				t.Errorf("the connection has not gone on: %s", got)
			}
			l.must(0, "verify", "-p", l.path("policy.yaml"), front)
			until("mutual again", func() bool { return get(out["mutual"]) == "200 app" })

			// The policy refuses the peer from now on.
			bad := strings.Replace(pinned, "platforms:\n", "platforms:\n  deny: [{vendor: sim, because: a rehearsal}]\n", 1)
			l.write("peers.yaml", bad)
			if err := sidecar.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			until("refused", func() bool { return refused("good") })
			if !refused("mutual") {
				t.Error(get(out["mutual"]))
			}
			// What is shown has no secret in it.
			_, dump := l.web("http://" + admin + "/config_dump")
			var shown map[string]any
			if err := json.Unmarshal([]byte(dump), &shown); err != nil || strings.Contains(dump, "PRIVATE") || !strings.Contains(dump, `"envoy-1"`) {
				t.Errorf("%v: %s", err, dump)
			}
			l.write("peers.yaml", pinned)
			if err := sidecar.cmd.Process.Signal(syscall.SIGHUP); err != nil {
				t.Fatal(err)
			}
			until("good again", func() bool { return get(out["good"]) == "200 app" })

			// A peer has another key: it is taken as soon as it was appraised.
			good.stop()
			l.start("serve", "--tee", l.tee(), "--name", "127.0.0.1", "--listen", to, "--to", app, "--log", "json", "--offline").address()
			until("another key", func() bool { return get(out["good"]) == "200 app" })
		})
	}
}

func port(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
