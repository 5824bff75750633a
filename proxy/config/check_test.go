package config_test

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/test/yamltext"
)

// whole has every kind of listener and of cluster.
const whole = `
listen:
  - {name: web, address: ":8443", require: clients.yaml, reattest: 1m, proxy_protocol: [10.0.0.0/8, "192.0.2.1", "fd00::/8"], to: "h2c://127.0.0.1:80"}
  - {address: "systemd:jurat", require: clients.yaml, tcp: true, to: "unix:/run/s.sock", limits: {connections: 10, tunnel_idle: never}}
  - {address: "127.0.0.1:9000", plain: true, tcp: true, cluster: ledger, transparent: redirect}
  - {address: "0.0.0.0:9001", plain: true, unsafe_listen: true, cluster: ledger}
  - {address: "unix:/run/in.sock", plain: true, cluster: local}
  - address: ":444"
    passthrough:
      - {server_names: [pay.example, "*.pay.example"], cluster: named}
      - {server_names: ["*"], cluster: proxied}
  - address: ":445"
    http:
      virtual_hosts:
        - name: all
          domains: ["*"]
          routes:
            - match: {prefix: /a}
              route: {cluster: local, request_mirror_policies: [{cluster: local}, {cluster: ledger}]}
            - match: {prefix: /b}
              route: {weighted_clusters: [{name: local, weight: 1}, {name: ledger, weight: 0}], request_mirror_policies: [{cluster: ledger}]}
            - match: {prefix: /c}
              direct_response: {status: 404}
  - name: told-apart
    address: ":446"
    unsafe_listen: true
    transparent: redirect
    limits: {connections: 10, header_timeout: 3s}
    chains:
      - {name: first, match: {destination_ports: [443, 8443], prefix_ranges: [10.0.0.0/8, "fd00::1"]}, plain: true, tcp: true, cluster: onward, times: {tunnel_idle: never}}
      - {match: {server_names: [pay.example, "*.pay.example"], transport_protocol: tls, application_protocols: [jurat/1, h2]}, require: clients.yaml, cluster: local}
      - {match: {server_names: [web.example]}, passthrough: [{server_names: ["*"], cluster: named}]}
      - {match: {transport_protocol: raw_buffer, direct_source_prefix_ranges: [10.0.0.1], source_type: external, source_prefix_ranges: [10.0.0.2], source_ports: [1]}, plain: true, tcp: true, cluster: here}
    to: "127.0.0.1:80"
clusters:
  - {name: local, endpoints: [{address: "127.0.0.1:80"}, {address: "unix:/run/s.sock"}, {address: "[::1]:80"}]}
  - name: ledger
    attested: {require: ledger.yaml, name: ledger.example, reattest: 30s}
    protocol: http2
    connect_timeout: 3s
    localities:
      - {locality: here, load_balancing_weight: 2, endpoints: [{address: "10.0.0.1:443", hostname: a.ledger.example}]}
      - {locality: there, priority: 1, load_balancing_weight: 0, endpoints: [{address: "ledger.example.:443"}]}
  - {name: named, dns: {names: [{host: pay.example, port: 443}]}}
  - {name: proxied, proxy_protocol: v2, endpoints: [{address: "127.0.0.1:81"}]}
  - {name: later, localities: []}
  - {name: onward, attested: {require: ledger.yaml, name: ledger.example}, original_destination: {}}
  - {name: here, original_destination: {unsafe_plain: true}}
`

func parse(t testing.TB, text string) (config.Config, strictyaml.Node) {
	t.Helper()
	root, err := strictyaml.Parse("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var c config.Config
	if err := strictyaml.Decode(root, &c); err != nil {
		t.Fatal(err)
	}
	return c, root
}

func TestWhole(t *testing.T) {
	c, _ := parse(t, whole)
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if n := c.Cluster("named"); n != &c.Clusters[2] || c.Cluster("nobody") != nil {
		t.Errorf("got %+v", n)
	}
	for i, want := range []bool{true, true, false, false, false, false, true, true} {
		if got := c.Listeners[i].Attests(); got != want {
			t.Errorf("listener %d attests: %v", i, got)
		}
	}
	if a, b := c.Listeners[0].Label(), c.Listeners[1].Label(); a != "web" || b != "systemd:jurat" {
		t.Errorf("got %s, %s", a, b)
	}
	if s := c.Clusters[0].Static(); len(s) != 1 || len(s[0].Endpoints) != 3 {
		t.Errorf("got %+v", s)
	}
	if s := c.Clusters[1].Static(); len(s) != 2 {
		t.Errorf("got %+v", s)
	}
}

// What gets nothing but TLS that is not ended here is told from what gets more than that, in whatever order.
func TestOpaque(t *testing.T) {
	c, _ := parse(t, `
listen:
  - {address: ":1", passthrough: [{server_names: [a], cluster: sealed}, {server_names: [b], cluster: first}]}
  - {address: ":2", cluster: first}
  - {address: ":3", cluster: second}
  - {address: ":4", chains: [{match: {}, passthrough: [{server_names: [a], cluster: second}, {server_names: [b], cluster: sealed}]}]}
  - address: ":5"
    http: {virtual_hosts: [{name: v, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: second, request_mirror_policies: [{cluster: copies}]}}]}]}
  - {address: ":6", passthrough: [{server_names: [a], cluster: copies}]}
`)
	if got, want := c.Opaque(), map[string]bool{"sealed": true, "first": false, "second": false, "copies": false}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %v", got)
	}
}

// Each value that is not allowed is named by its place, alone.
func TestCheckRefuses(t *testing.T) {
	const missing, value = attest.CodeConfigMissing, attest.CodeConfigValue
	listen := func(text string) string {
		return strings.Replace(whole, "clusters:\n", "  - "+text+"\nclusters:\n", 1)
	}
	cluster := func(text string) string { return whole + "  - " + text + "\n" }
	routed := func(text string) string {
		return listen("{address: \":1\", http: {virtual_hosts: [{name: v, domains: [\"*\"], routes: [" + text + "]}]}}")
	}
	const r = "listen[8].http.virtual_hosts[0].routes[0]"
	for _, c := range []struct {
		text  string
		code  attest.Code
		place string
	}{
		{listen(`{address: ":1"}`), missing, "listen[8]"},
		{listen(`{address: ":1", passthrough: []}`), missing, "listen[8]"},
		{listen(`{address: ":1", to: "[::1]:1", cluster: local}`), value, "listen[8]"},
		{listen(`{address: ":1", cluster: local, http: {virtual_hosts: [{name: v, domains: ["*"]}]}}`), value, "listen[8]"},
		{listen(`{address: ":1", to: "[::1]:1", passthrough: [{server_names: [a], cluster: local}]}`), value, "listen[8]"},
		{listen(`{name: web, address: ":1", to: "[::1]:1"}`), value, "listen[8].name"},
		{listen(`{name: "systemd:jurat", address: ":1", to: "[::1]:1"}`), value, "listen[8].name"},
		{listen("{name: \":2\", address: \":1\", to: \"[::1]:1\"}\n  - {address: \":2\", to: \"[::1]:1\"}"), value, "listen[9].name"},
		{listen(`{address: ":8443", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: "unix:/run/in.sock", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: "unix:/a:b:c", to: "[::1]:1"}`), "", ""},
		{listen("{address: \"unix:/a:b:c\", to: \"[::1]:1\"}\n  - {address: \"unix:/a:b:c\", to: \"[::1]:1\"}"), value, "listen[9].address"},
		{listen("{address: \":0\", to: \"[::1]:1\"}\n  - {address: \":0\", to: \"[::1]:1\"}"), value, "listen[9].address"},
		{listen("{address: \"127.0.0.1:\", to: \"[::1]:1\"}\n  - {address: \"127.0.0.1:\", to: \"[::1]:1\"}"), value, "listen[9].address"},
		{listen(`{address: "systemd:jurat", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: "8443", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: ":65536", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: ":nosuchservice", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: "a b:1", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: "unix:", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: "unix:a\0", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: "systemd:", to: "[::1]:1"}`), value, "listen[8].address"},
		{listen(`{address: ":1", to: "https://a:1"}`), value, "listen[8].to"},
		// Plaintext leaves this machine only where that is said.
		{listen(`{address: ":1", to: "10.0.0.1:1"}`), value, "listen[8].to"},
		{listen(`{address: ":1", to: "pay.example:1"}`), value, "listen[8].to"},
		{listen(`{address: ":1", to: "http://[2001:db8::1]:1"}`), value, "listen[8].to"},
		{listen(`{address: ":1", to: "0.0.0.0:1"}`), value, "listen[8].to"},
		{listen(`{address: ":1", tcp: true, to: "localhost.example:1"}`), value, "listen[8].to"},
		{listen(`{address: ":1", chains: [{match: {}, to: "10.0.0.1:1"}]}`), value, "listen[8].chains[0].to"},
		{listen(`{address: ":1", to: "10.0.0.1:1", unsafe_to: true}`), "", ""},
		{listen(`{address: ":1", tcp: true, to: "10.0.0.1:1", unsafe_to: true}`), "", ""},
		{listen(`{address: ":1", to: "h2c://localhost:1"}`), "", ""},
		{listen(`{address: ":1", to: "127.9.9.9:1"}`), "", ""},
		{listen(`{address: ":1", unsafe_to: true, cluster: local}`), value, "listen[8].unsafe_to"},
		{cluster(`{name: far, endpoints: [{address: "127.0.0.1:1"}, {address: "10.0.0.1:1"}]}`), value, "clusters[7].endpoints[1]"},
		{cluster(`{name: far, localities: [{endpoints: [{address: "pay.example:1"}]}]}`), value, "clusters[7].localities[0].endpoints[0]"},
		{cluster(`{name: far, dns: {names: [{host: localhost, port: 1}, {host: pay.example, port: 1}]}}`), value, "clusters[7].dns.names[1]"},
		{cluster(`{name: far, dns: {names: [{host: unix, port: 80}]}}`), value, "clusters[7].dns.names[0]"},
		{cluster(`{name: far, unsafe_plain: true, endpoints: [{address: "10.0.0.1:1"}]}`), "", ""},
		{cluster(`{name: far, unsafe_plain: true, dns: {names: [{host: pay.example, port: 1}]}}`), "", ""},
		{cluster(`{name: far, unsafe_plain: true, attested: {require: p}, endpoints: [{address: "10.0.0.1:1"}]}`), value, "clusters[7].unsafe_plain"},
		{cluster(`{name: far, unsafe_plain: true, original_destination: {}}`), value, "clusters[7].unsafe_plain"},
		// TLS that is not ended here may go anywhere; with anything else on the same cluster it is as above.
		{listen(`{address: ":1", cluster: named}`), value, "clusters[2].dns.names[0]"},
		{routed(`{match: {prefix: /}, route: {cluster: named}}`), value, "clusters[2].dns.names[0]"},
		{routed(`{match: {prefix: /}, route: {cluster: local, request_mirror_policies: [{cluster: named}]}}`), value, "clusters[2].dns.names[0]"},
		{listen(`{address: ":1", to: "h2c://localhost:1", tcp: true}`), value, "listen[8].to"},
		{listen(`{address: ":1", cluster: nobody}`), value, "listen[8].cluster"},
		{listen(`{address: ":1", cluster: proxied}`), value, "listen[8].cluster"},
		{listen(`{address: ":1", tcp: true, passthrough: [{server_names: [a], cluster: local}]}`), value, "listen[8].tcp"},
		{listen(`{address: ":1", tcp: true, http: {virtual_hosts: [{name: v, domains: ["*"]}]}}`), value, "listen[8].tcp"},
		{listen(`{address: ":1", cluster: local, transparent: tproxy}`), value, "listen[8].transparent"},

		{listen(`{address: ":1", plain: true, cluster: local}`), value, "listen[8].address"},
		{listen(`{address: "10.0.0.1:1", plain: true, cluster: local}`), value, "listen[8].address"},
		{listen(`{address: "pay.example:1", plain: true, cluster: local}`), value, "listen[8].address"},
		{listen(`{address: "systemd:x", plain: true, cluster: local}`), value, "listen[8].address"},
		{listen(`{address: ":1", unsafe_listen: true, cluster: local}`), value, "listen[8].unsafe_listen"},
		{listen(`{address: "127.0.0.1:1", plain: true, require: p.yaml, cluster: local}`), value, "listen[8].require"},
		{listen(`{address: ":1", require: p.yaml, passthrough: [{server_names: [a], cluster: local}]}`), value, "listen[8].require"},
		{listen(`{address: "127.0.0.1:1", plain: true, passthrough: [{server_names: [a], cluster: local}]}`), value, "listen[8].plain"},
		{listen(`{address: ":1", reattest: 1m, cluster: local}`), missing, "listen[8].reattest"},
		{listen(`{address: ":1", require: p.yaml, reattest: 999ms, cluster: local}`), value, "listen[8].reattest"},
		{listen(`{address: ":1", proxy_protocol: [], cluster: local}`), missing, "listen[8].proxy_protocol"},
		{listen(`{address: ":1", proxy_protocol: ["0.0.0.0/0", "10.0.0.1/8"], cluster: local}`), value, "listen[8].proxy_protocol[1]"},
		{listen(`{address: ":1", proxy_protocol: ["::ffff:10.0.0.0/104"], cluster: local}`), value, "listen[8].proxy_protocol[0]"},
		{listen(`{address: ":1", proxy_protocol: ["::ffff:10.0.0.1"], cluster: local}`), value, "listen[8].proxy_protocol[0]"},
		{listen(`{address: ":1", proxy_protocol: ["fe80::1%eth0"], cluster: local}`), value, "listen[8].proxy_protocol[0]"},
		{listen(`{address: ":1", proxy_protocol: ["pay.example"], cluster: local}`), value, "listen[8].proxy_protocol[0]"},

		{listen(`{address: ":1", passthrough: [{server_names: [], cluster: local}]}`), missing, "listen[8].passthrough[0].server_names"},
		{listen(`{address: ":1", passthrough: [{server_names: [a], cluster: nobody}]}`), value, "listen[8].passthrough[0].cluster"},
		{listen(`{address: ":1", passthrough: [{server_names: [a, "*a"], cluster: local}]}`), value, "listen[8].passthrough[0].server_names[1]"},
		{listen(`{address: ":1", passthrough: [{server_names: [a], cluster: local}, {server_names: [A], cluster: local}]}`), value, "listen[8].passthrough[1].server_names[0]"},
		{listen(`{address: ":1", passthrough: [{server_names: ["192.0.2.1"], cluster: local}]}`), value, "listen[8].passthrough[0].server_names[0]"},
		{listen(`{address: ":1", passthrough: [{server_names: ["a."], cluster: local}]}`), value, "listen[8].passthrough[0].server_names[0]"},
		{listen(`{address: ":1", passthrough: [{server_names: ["a b"], cluster: local}]}`), value, "listen[8].passthrough[0].server_names[0]"},

		{listen(`{address: "127.0.0.1:1", plain: true, tcp: true, transparent: redirect, cluster: local}`), value, "listen[8].cluster"},
		{listen(`{address: ":1", tcp: true, transparent: redirect, cluster: ledger}`), value, "listen[8].transparent"},
		{listen(`{address: "127.0.0.1:1", plain: true, tcp: true, transparent: redirect, cluster: ledger}`), "", ""},
		{listen(`{address: "127.0.0.1:1", plain: true, forward: [{hosts: [a, "*.b:443", "*"], require: p}]}`), "", ""},
		{listen(`{address: ":1", forward: [{hosts: [a], require: p}]}`), missing, "listen[8].plain"},
		{listen(`{address: "127.0.0.1:1", plain: true, forward: [{hosts: [], require: p}]}`), missing, "listen[8].forward[0].hosts"},
		{listen(`{address: "127.0.0.1:1", plain: true, forward: [{hosts: [a, "a.*"], require: p}]}`), value, "listen[8].forward[0].hosts[1]"},
		{listen(`{address: "127.0.0.1:1", plain: true, forward: [{hosts: [a], require: p, reattest: 1ms}]}`), value, "listen[8].forward[0].reattest"},
		{listen(`{address: "127.0.0.1:1", plain: true, cluster: local, forward: [{hosts: [a], require: p}]}`), value, "listen[8]"},
		{listen(`{address: "127.0.0.1:1", plain: true, cluster: local, credentials: f}`), value, "listen[8].credentials"},

		{listen(`{address: ":1", detect_http: true, cluster: local}`), value, "listen[8].detect_http"},
		{listen(`{address: ":1", chains: [], cluster: local}`), missing, "listen[8].chains"},
		{listen(`{address: ":1", chains: [{match: {}}]}`), missing, "listen[8].chains[0]"},
		{listen(`{address: ":1", chains: [{match: {}, cluster: local}]}`), "", ""},
		{listen(`{address: ":1", chains: [{match: {}, cluster: local}], to: "[::1]:1"}`), "", ""},
		{listen(`{address: ":1", chains: [{match: {}, cluster: local}], require: p}`), missing, "listen[8]"},
		{listen(`{address: ":1", chains: [{match: {}, cluster: nobody}]}`), value, "listen[8].chains[0].cluster"},
		{listen(`{address: ":1", chains: [{match: {}, plain: true, cluster: local}]}`), value, "listen[8].address"},
		{listen(`{address: ":1", chains: [{match: {}, plain: true, cluster: local}], unsafe_listen: true, to: "[::1]:1"}`), "", ""},
		{listen(`{address: ":1", chains: [{match: {}, cluster: local}], unsafe_listen: true}`), value, "listen[8].unsafe_listen"},
		{listen(`{address: ":1", chains: [{match: {}, reattest: 1m, cluster: local}]}`), missing, "listen[8].chains[0].reattest"},
		{listen(`{address: ":1", chains: [{match: {}, cluster: local}, {match: {}, cluster: ledger}]}`), value, "listen[8].chains[1].match"},
		{listen(`{address: ":1", chains: [{match: {server_names: [a, b]}, cluster: local}, {match: {server_names: [c, A]}, cluster: ledger}]}`), value, "listen[8].chains[1].match"},
		{listen(`{address: ":1", chains: [{match: {server_names: [a, "b.*"]}, cluster: local}]}`), value, "listen[8].chains[0].match.server_names[1]"},
		{listen(`{address: ":1", chains: [{name: a, match: {server_names: [a]}, cluster: local}, {name: a, match: {}, cluster: ledger}]}`), value, "listen[8].chains[1].name"},
		{listen(`{address: ":1", chains: [{name: "server_names=a", match: {}, cluster: local}, {match: {server_names: [a]}, cluster: ledger}]}`), value, "listen[8].chains[1].name"},
		{listen(`{address: ":1", chains: [{match: {}, cluster: here, tcp: true}]}`), value, "listen[8].chains[0]"},
		{listen(`{address: "127.0.0.1:1", chains: [{match: {}, plain: true, cluster: local}], transparent: redirect}`), "", ""},
		{listen(`{address: "127.0.0.1:1", chains: [{match: {}, plain: true, cluster: here, tcp: true}], transparent: redirect}`), "", ""},
		{listen(`{address: ":1", http: {virtual_hosts: []}}`), missing, "listen[8].http.virtual_hosts"},
		{routed(`{match: {path: a}, route: {cluster: local}}`), value, r + ".match.path"},
		{routed(`{match: {prefix: /, safe_regex: b}, route: {cluster: local}}`), value, r + ".match"},
		{routed(`{match: {prefix: /}, route: {cluster: locl}}`), value, r + ".route.cluster"},
		{routed(`{match: {prefix: /}, route: {cluster: proxied}}`), value, r + ".route.cluster"},
		{routed(`{match: {prefix: /}, route: {weighted_clusters: [{name: local, weight: 1}, {name: locl, weight: 0}]}}`), value, r + ".route.weighted_clusters[1].name"},
		{routed(`{match: {prefix: /}, route: {cluster: local, request_mirror_policies: [{cluster: nobody}]}}`), value, r + ".route.request_mirror_policies[0].cluster"},
		{routed(`{match: {prefix: /}, route: {cluster: ledger, request_mirror_policies: [{cluster: ledger}, {cluster: local}]}}`), value, r + ".route.request_mirror_policies[1].cluster"},
		{routed(`{match: {prefix: /}, route: {cluster: ledger, request_mirror_policies: [{cluster: nobody}]}}`), value, r + ".route.request_mirror_policies[0].cluster"},
		{routed(`{match: {prefix: /}, route: {weighted_clusters: [{name: ledger, weight: 1}, {name: local, weight: 1}], request_mirror_policies: [{cluster: local}]}}`), value, r + ".route.request_mirror_policies[0].cluster"},
		{routed(`{match: {prefix: /}, route: {weighted_clusters: [{name: local, weight: 1}, {name: ledger, weight: 1}], request_mirror_policies: [{cluster: local}]}}`), value, r + ".route.request_mirror_policies[0].cluster"},

		{cluster(`{name: local, localities: []}`), value, "clusters[7].name"},
		{cluster(`{name: c}`), missing, "clusters[7]"},
		{cluster(`{name: c, endpoints: []}`), missing, "clusters[7]"},
		{cluster(`{name: c, localities: [], dns: {names: [{host: localhost, port: 1}]}}`), value, "clusters[7]"},
		{cluster(`{name: c, localities: [], table_size: 4, lb_policy: maglev}`), value, "clusters[7].table_size"},
		{cluster(`{name: c, localities: [], health_check: {kind: http}}`), value, "clusters[7].health_check.path"},
		{cluster(`{name: c, localities: [], outlier_detection: {max_ejection_percent: 101}}`), value, "clusters[7].outlier_detection.max_ejection_percent"},
		{cluster(`{name: c, localities: [], circuit_breakers: {retry_budget: {budget_percent: 101}}}`), value, "clusters[7].circuit_breakers.retry_budget.budget_percent"},
		{cluster(`{name: c, endpoints: [{address: "localhost:1"}, {address: a}]}`), value, "clusters[7].endpoints[1].address"},
		{cluster(`{name: c, endpoints: [{address: "a:65536"}]}`), value, "clusters[7].endpoints[0].address"},
		{cluster(`{name: c, endpoints: [{address: "a:http"}]}`), value, "clusters[7].endpoints[0].address"},
		{cluster(`{name: c, endpoints: [{address: "a:0"}]}`), value, "clusters[7].endpoints[0].address"},
		{cluster(`{name: c, endpoints: [{address: ":1"}]}`), value, "clusters[7].endpoints[0].address"},
		{cluster(`{name: c, endpoints: [{address: "unix:"}]}`), value, "clusters[7].endpoints[0].address"},
		{cluster(`{name: c, endpoints: [{address: "a..b:1"}]}`), value, "clusters[7].endpoints[0].address"},
		{cluster(`{name: c, endpoints: [{address: "localhost:1", hostname: "a:1"}]}`), value, "clusters[7].endpoints[0].hostname"},
		{cluster(`{name: c, localities: [{}, {endpoints: [{address: a}]}]}`), value, "clusters[7].localities[1].endpoints[0].address"},
		{cluster(`{name: c, localities: [{}, {priority: 128, endpoints: [{address: "localhost:1"}]}]}`), value, "clusters[7].localities[1].priority"},
		{cluster(`{name: c, original_destination: {}, health_check: {kind: tcp}}`), value, "clusters[7].health_check"},
		{cluster(`{name: c, original_destination: {}, outlier_detection: {}}`), value, "clusters[7].outlier_detection"},
		{cluster(`{name: c, original_destination: {unsafe_plain: true}, attested: {require: p}}`), value, "clusters[7].original_destination.unsafe_plain"},
		{cluster(`{name: c, original_destination: {}, endpoints: [{address: "localhost:1"}]}`), value, "clusters[7]"},
		{cluster(`{name: c, dns: {names: []}}`), missing, "clusters[7].dns.names"},
		{cluster(`{name: c, dns: {names: [{host: "a:1", port: 1}]}}`), value, "clusters[7].dns.names[0].host"},
		{cluster(`{name: c, dns: {names: [{host: localhost, port: 1, priority: 128}]}}`), value, "clusters[7].dns.names[0].priority"},
		{cluster(`{name: c, dns: {names: [{host: localhost, port: 1}], dns_failure_max_interval: 1s}}`), value, "clusters[7].dns.dns_failure_max_interval"},
		{cluster(`{name: c, localities: [], attested: {require: p, name: "*.example"}}`), value, "clusters[7].attested.name"},
		{cluster(`{name: c, localities: [], attested: {require: p, reattest: 1ms}}`), value, "clusters[7].attested.reattest"},
	} {
		got, root := parse(t, c.text)
		err := got.Check()
		if err == nil && c.place == "" {
			continue
		}
		var coded *attest.Error
		if !errors.As(err, &coded) || coded.Code != c.code || coded.Subject != c.place {
			t.Errorf("%s at %s: got %v", c.code, c.place, err)
			continue
		}
		if joined := err.(interface{ Unwrap() []error }).Unwrap(); len(joined) != 1 {
			t.Errorf("%s: got %v", c.place, err)
		}
		if located := root.Locate(err); !strings.HasPrefix(located.Error(), "f.yaml:") || !strings.Contains(located.Error(), c.place) {
			t.Errorf("%s: located %v", c.place, located)
		}
	}
}

// What a file can't say is refused of whoever says it.
func TestCheckRefusesStructs(t *testing.T) {
	for place, change := range map[string]func(c *config.Config){
		"listen":                                         func(c *config.Config) { c.Listeners, c.Clusters = nil, nil },
		"listen[0].address":                              func(c *config.Config) { c.Listeners[0].Address = "" },
		"listen[4].address":                              func(c *config.Config) { c.Listeners[4].Address = "" },
		"clusters[2].dns.names[0].host":                  func(c *config.Config) { c.Clusters[2].DNS.Names[0].Host = "" },
		"listen[0].reattest":                             func(c *config.Config) { c.Listeners[0].Reattest = -1 },
		"listen[2].transparent":                          func(c *config.Config) { c.Listeners[2].Transparent = "yes" },
		"listen[5].passthrough[0].cluster":               func(c *config.Config) { c.Listeners[5].Passthrough[0].Cluster = "" },
		"listen[0].limits.connections":                   func(c *config.Config) { c.Listeners[0].Limits.Connections = -1 },
		"listen[0].limits.handshakes":                    func(c *config.Config) { c.Listeners[0].Limits.Handshakes = -1 },
		"listen[0].limits.handshake_timeout":             func(c *config.Config) { c.Listeners[0].Limits.Handshake = -1 },
		"listen[0].limits.header_timeout":                func(c *config.Config) { c.Listeners[0].Limits.Header = -1 },
		"listen[0].limits.keep_alive":                    func(c *config.Config) { c.Listeners[0].Limits.KeepAlive = -1 },
		"clusters[4].name":                               func(c *config.Config) { c.Clusters[4].Name = "" },
		"clusters[0].protocol":                           func(c *config.Config) { c.Clusters[0].Protocol = "http3" },
		"clusters[0].lb_policy":                          func(c *config.Config) { c.Clusters[0].Policy = "best" },
		"clusters[3].proxy_protocol":                     func(c *config.Config) { c.Clusters[3].ProxyProtocol = "v3" },
		"clusters[0].connect_timeout":                    func(c *config.Config) { c.Clusters[0].ConnectTimeout = -1 },
		"clusters[1].attested.require":                   func(c *config.Config) { c.Clusters[1].Attested = &config.Attested{} },
		"clusters[0].endpoints[0].address":               func(c *config.Config) { c.Clusters[0].Endpoints[0].Address = "" },
		"clusters[1].localities[0].endpoints[0].address": func(c *config.Config) { c.Clusters[1].Localities[0].Endpoints[0].Address = "" },
		"clusters[2].dns.names[0].port":                  func(c *config.Config) { c.Clusters[2].DNS.Names[0].Port = 0 },
		"listen[6].http.virtual_hosts[0].name":           func(c *config.Config) { c.Listeners[6].HTTP.VirtualHosts[0].Name = "" },
		"listen[6].http.virtual_hosts[0].routes[1].route": func(c *config.Config) {
			c.Listeners[6].HTTP.VirtualHosts[0].Routes[1].Route = &route.RouteAction{}
		},
	} {
		c, _ := parse(t, whole)
		change(&c)
		err := c.Check()
		var coded *attest.Error
		code := attest.CodeConfigValue
		if slices.Contains([]string{"listen", "listen[0].address", "listen[4].address", "listen[5].passthrough[0].cluster", "clusters[4].name", "clusters[1].attested.require"}, place) {
			code = attest.CodeConfigMissing
		}
		if !errors.As(err, &coded) || coded.Subject != place || coded.Code != code || len(err.(interface{ Unwrap() []error }).Unwrap()) != 1 {
			t.Errorf("%s: got %v", place, err)
		}
	}
	if err := new(config.Config).Check(); attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("the zero configuration: %v", err)
	}
	never, _ := parse(t, whole)
	never.Listeners[0].Limits = config.Limits{Times: config.Times{Tunnel: -1, Stall: -1, Answer: -1}}
	if err := never.Check(); err != nil {
		t.Error(err)
	}
}

// What is wrong in several ways is told in all of them, and no more than that.
func TestCheckTellsAll(t *testing.T) {
	places := func(c config.Config) (all []string) {
		for _, e := range c.Check().(interface{ Unwrap() []error }).Unwrap() {
			var coded *attest.Error
			if errors.As(e, &coded) {
				all = append(all, coded.Subject)
			}
		}
		return all
	}
	if got := places(config.Config{Listeners: make([]config.Listener, 2)}); !slices.Equal(got, []string{"listen[0].address", "listen[0]", "listen[1].address", "listen[1]"}) {
		t.Errorf("got %v", got)
	}
	c, _ := parse(t, strings.Replace(strings.Replace(whole, "prefix: /a", "prefix: a", 1), "prefix: /c", "prefix: c", 1))
	const r = "listen[6].http.virtual_hosts[0].routes"
	if got := places(c); !slices.Equal(got, []string{r + "[0].match.prefix", r + "[2].match.prefix"}) {
		t.Errorf("got %v", got)
	}
}

// A file that is wrong all over does not become a report without end.
func TestCheckIsBounded(t *testing.T) {
	c := config.Config{Listeners: make([]config.Listener, 100), Clusters: make([]config.Cluster, 100)}
	for i := range c.Listeners {
		c.Listeners[i].HTTP = &route.Config{}
	}
	if n := len(c.Check().(interface{ Unwrap() []error }).Unwrap()); n != 20 {
		t.Errorf("%d errors", n)
	}
	for _, n := range []int{0, 3, 9} {
		c := config.Config{Listeners: []config.Listener{{Address: ":1", Serving: config.Serving{Cluster: "nobody"}}}}
		for i := range n {
			c.Clusters = append(c.Clusters, config.Cluster{Config: upstream.Config{Name: fmt.Sprint("c", i)}, Localities: []upstream.LocalityEndpoints{}})
		}
		want := map[int]string{0: "of which there is none", 3: "one of the clusters c0, c1, c2", 9: "c6, c7 …"}[n]
		if err := c.Check(); !strings.Contains(err.Error(), want) {
			t.Errorf("%d: got %v", n, err)
		}
	}
}

// The words that the tags have for a file are those that are understood.
func TestWords(t *testing.T) {
	const listen = "listen:\n  - {address: \":1\", cluster: c}\n"
	const at = "listen:\n  - {address: \":1\", http: {virtual_hosts: [{name: v, domains: [\"*\"], routes: [{match: {prefix: /}, "
	const acme = "listen: [{address: \":1\", to: \"127.0.0.1:1\", public: {names: [a.example], acme: {directory: \"https://ca.example/dir\", agree_terms: true, "
	const end = "}]}]}}\nclusters:\n  - {name: c, localities: []}\n"
	files := map[string]string{
		"config.Listener.transparent":          "listen: [{address: \"127.0.0.1:1\", cluster: c, tcp: true, plain: true, transparent: %s}]\nclusters: [{name: c, attested: {require: p}, localities: []}]\n",
		"config.ACME.key_type":                 acme + "key_type: %s}}}]\n",
		"config.DNSUpdate.algorithm":           acme + "dns: {server: \"ns.a.example:53\", zone: a.example, key_name: k, secret_file: f, algorithm: %s}}}}]\n",
		"chain.Match.transport_protocol":       "listen: [{address: \":1\", chains: [{match: {transport_protocol: %s}, cluster: c}]}]\nclusters: [{name: c, localities: []}]\n",
		"chain.Match.source_type":              "listen: [{address: \":1\", chains: [{match: {source_type: %s}, cluster: c}]}]\nclusters: [{name: c, localities: []}]\n",
		"config.Cluster.protocol":              listen + "clusters:\n  - {name: c, localities: [], protocol: %s}\n",
		"config.Cluster.proxy_protocol":        "listen:\n  - {address: \":1\", cluster: c, tcp: true}\nclusters:\n  - {name: c, localities: [], proxy_protocol: %s}\n",
		"upstream.Config.lb_policy":            listen + "clusters:\n  - {name: c, localities: [], lb_policy: %s}\n",
		"upstream.HealthCheck.kind":            listen + "clusters:\n  - {name: c, localities: [], health_check: {kind: %s}}\n",
		"upstream.DNS.dns_lookup_family":       listen + "clusters:\n  - {name: c, dns: {names: [{host: localhost, port: 1}], dns_lookup_family: %s}}\n",
		"route.RedirectAction.scheme_redirect": at + "redirect: {scheme_redirect: %s}" + end,
		"route.SetHeader.append_action":        at + "route: {cluster: c}, request_headers: {set: [{name: a, append_action: %s}]}" + end,
		"route.RetryPolicy.retry_on":           at + "route: {cluster: c, retry_policy: {retry_on: [%s]}}" + end,
	}
	seen := map[string]bool{}
	var walk func(t reflect.Type, see func(owner reflect.Type, f reflect.StructField))
	walk = func(t reflect.Type, see func(reflect.Type, reflect.StructField)) {
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem(), see)
		case reflect.Struct:
			for i := range t.NumField() {
				see(t, t.Field(i))
				walk(t.Field(i).Type, see)
			}
		}
	}
	walk(reflect.TypeFor[config.Config](), func(owner reflect.Type, f reflect.StructField) {
		tag, ok := f.Tag.Lookup("yaml")
		if !ok {
			t.Errorf("%s.%s has no tag: a file can't have it, or should say so", owner, f.Name)
		}
		key, options, _ := strings.Cut(tag, ",")
		_, words, ok := strings.Cut(options, "one=")
		if !ok {
			return
		}
		name := owner.String() + "." + key
		seen[name] = true
		for word := range strings.SplitSeq(words, "|") {
			text := fmt.Sprintf(files[name], word)
			switch word {
			case "http":
				text = strings.Replace(text, "kind: http", "kind: http, path: /", 1)
			case "retriable-status-codes":
				text = strings.Replace(text, "]}}", "], retriable_status_codes: [404]}}", 1)
			}
			c, _ := parse(t, text)
			if err := c.Check(); err != nil {
				t.Errorf("%s: %s is offered, and: %v", name, word, err)
			}
		}
	})
	for name := range files {
		if !seen[name] {
			t.Errorf("%s offers no words", name)
		}
	}
}

func TestCompare(t *testing.T) {
	a, _ := parse(t, whole)
	b, _ := parse(t, whole)
	for i := range a.Listeners {
		if !a.Listeners[i].Equal(&b.Listeners[i]) {
			t.Errorf("listener %d differs from itself", i)
		}
	}
	for i := range a.Clusters {
		if !a.Clusters[i].Equal(&b.Clusters[i]) {
			t.Errorf("cluster %d differs from itself", i)
		}
	}
	id := func(v string) func(string) string { return func(name string) string { return name + v } }
	b = a.WithPolicies(id("@2"))
	if b.Listeners[0].Require != "clients.yaml@2" || b.Listeners[2].Require != "" || b.Clusters[1].Attested.Require != "ledger.yaml@2" || b.Clusters[1].Attested.Reattest != 30*time.Second {
		t.Errorf("got %+v", b)
	}
	if a.Listeners[0].Require != "clients.yaml" || a.Clusters[1].Attested.Require != "ledger.yaml" {
		t.Error("the original has changed")
	}
	if p := a.Policies(); !slices.Equal(p, []string{"clients.yaml", "ledger.yaml"}) {
		t.Errorf("got %v", p)
	}
	if b.Listeners[7].Chains[1].Require != "clients.yaml@2" || a.Listeners[7].Chains[1].Require != "clients.yaml" || b.Listeners[7].Chains[0].Require != "" {
		t.Errorf("got %+v", b.Listeners[7])
	}
	if again := a.WithPolicies(id("@3")); again.Listeners[0].Equal(&b.Listeners[0]) || again.Clusters[1].Equal(&b.Clusters[1]) || !again.Clusters[0].Equal(&b.Clusters[0]) {
		t.Error("another version of a policy makes no difference")
	}
}

// A chain is what a listener of its own would be; how connections come is the port's.
func TestChain(t *testing.T) {
	c, _ := parse(t, whole)
	l := c.Listeners[7]
	first := l.Chain(0)
	want := config.Listener{Name: "told-apart", Address: ":446", Serving: l.Chains[0].Serving, Limits: config.Limits{Times: config.Times{Header: 3 * time.Second, Tunnel: -1}}}
	got, wanted := reflect.ValueOf(first), reflect.ValueOf(want)
	for i := range got.NumField() {
		if f := got.Type().Field(i); f.IsExported() && !reflect.DeepEqual(got.Field(i).Interface(), wanted.Field(i).Interface()) {
			t.Errorf("%s is %+v", f.Name, got.Field(i))
		}
	}
	if label, ok := first.ChainLabel(); label != l.Chains[0].Label() || !ok || first.Attests() {
		t.Errorf("got %q, %v", label, ok)
	}
	if label, ok := l.ChainLabel(); ok {
		t.Errorf("the listener is the chain %q", label)
	}
	if again := l.Chain(0); !again.Equal(&first) {
		t.Error("the same chain differs")
	}
	second := l.Chain(1)
	if !second.Attests() || second.Require != "clients.yaml" || second.Cluster != "local" || second.Limits.Tunnel != 0 {
		t.Errorf("got %+v", second)
	}
	rest, ok := l.Rest()
	if label, chain := rest.ChainLabel(); chain {
		t.Errorf("the rest is the chain %q", label)
	}
	if !ok || rest.To != "127.0.0.1:80" || rest.Transparent != "" || rest.Limits.Header != 3*time.Second || rest.Limits.Connections != 0 {
		t.Errorf("got %+v, %v", rest, ok)
	}
	none := l
	none.Serving = config.Serving{}
	if _, ok := none.Rest(); ok {
		t.Error("nothing serves")
	}
	places := func(l config.Listener) (all []string) {
		for place := range l.Servings() {
			all = append(all, place)
			if len(all) == 4 {
				break
			}
		}
		return all
	}
	if got := places(l); !slices.Equal(got, []string{"", "chains[0]", "chains[1]", "chains[2]"}) {
		t.Errorf("got %q", got)
	}
	if got := places(none); !slices.Equal(got, []string{"chains[0]", "chains[1]", "chains[2]", "chains[3]"}) {
		t.Errorf("got %q", got)
	}
	if got := l.Chains[1].Label(); got != "server_names=pay.example,*.pay.example transport_protocol=tls application_protocols=jurat/1,h2" || l.Chains[0].Label() != "first" {
		t.Errorf("got %q", got)
	}
	plain := config.Serving{Plain: true, To: "127.0.0.1:1"}
	for i, tt := range []struct {
		l              config.Listener
		attests, plain bool
	}{
		{config.Listener{}, true, false},
		{config.Listener{Serving: plain}, false, true},
		{config.Listener{Chains: []config.Chain{{Serving: plain}}}, false, true},
		{config.Listener{Chains: []config.Chain{{Serving: plain}, {Serving: config.Serving{To: "a:1"}}}}, true, false},
		{config.Listener{Chains: []config.Chain{{Serving: plain}}, Serving: config.Serving{To: "a:1"}}, true, false},
		{config.Listener{Chains: []config.Chain{{Serving: plain}}, Serving: plain}, false, true},
		{config.Listener{Chains: []config.Chain{{Serving: config.Serving{Passthrough: []config.Passthrough{{}}}}}}, false, false},
	} {
		if tt.l.Attests() != tt.attests || tt.l.PlainOnly() != tt.plain {
			t.Errorf("%d: %v, %v", i, tt.l.Attests(), tt.l.PlainOnly())
		}
	}
	s := config.Serving{
		Cluster: "a", Passthrough: []config.Passthrough{{Cluster: "b"}, {Cluster: "a"}},
		HTTP: &route.Config{VirtualHosts: []route.VirtualHost{{Routes: []route.Route{{}, {Route: &route.RouteAction{
			Cluster: "c", WeightedClusters: []route.WeightedCluster{{Name: "d"}}, RequestMirrorPolicies: []route.RequestMirror{{Cluster: "e"}},
		}}}}}},
	}
	if got := s.Clusters(); !slices.Equal(got, []string{"a", "b", "c", "d", "e"}) {
		t.Errorf("got %q", got)
	}
}

func TestAddresses(t *testing.T) {
	for address, local := range map[string]bool{
		"127.0.0.1:1": true, "127.3.2.1:1": true, "[::1]:1": true, "[::ffff:127.0.0.1]:1": true, "localhost:1": true, "unix:/a": true,
		":1": false, "0.0.0.0:1": false, "[::]:1": false, "10.0.0.1:1": false, "localhost.example:1": false, "a:1": false, "systemd:a": false, "": false, "127.0.0.1": false,
	} {
		if got := config.Local(address); got != local {
			t.Errorf("%s: local %v", address, got)
		}
	}
	for _, address := range []string{":https", ":0", "127.0.0.1:", "[::1]:8443", "[fe80::1%lo]:1", "a.example:1", "unix:@a", "systemd:a:b"} {
		if err := config.CheckAddress(address); err != nil {
			t.Errorf("%s: %v", address, err)
		}
	}
	for in, want := range map[string]config.Service{
		"a:1": {Network: "tcp", Target: "a:1"}, ":1": {Network: "tcp", Target: "localhost:1"}, "h2c://a:1/": {Scheme: "h2c", Network: "tcp", Target: "a:1"}, "unix:/a": {Network: "unix", Target: "/a"},
	} {
		if s, err := config.ParseService(in); err != nil || s != want {
			t.Errorf("%s: got %+v, %v", in, s, err)
		}
	}
	for _, in := range []string{"", "a", "a:0", "a:b", "a:1/", "unix:", "ftp://a:1", "h2c://a:1/b", "h2c://b@a:1"} {
		if s, err := config.ParseService(in); attest.CodeOf(err) != attest.CodeConfigValue || s != (config.Service{}) {
			t.Errorf("%s: got %+v, %v", in, s, err)
		}
	}
	long := strings.Repeat("a", 63)
	for host, ok := range map[string]bool{
		long: true, long + "a": false, strings.Join([]string{long, long, long, long[:61]}, "."): true, strings.Join([]string{long, long, long, long[:62]}, "."): false,
		"-a": false, "a-": false, "a_b": true, "": false, "a.": true, "a..": false, "Ä": false,
	} {
		c, _ := parse(t, whole)
		c.Clusters[2].DNS.Names[0].Host = host
		if err := c.Check(); (err == nil) != ok {
			t.Errorf("%q: got %v", host, err)
		}
	}
	for in, want := range map[string]string{"10.0.0.0/8": "10.0.0.0/8", "0.0.0.0/0": "0.0.0.0/0", "::/0": "::/0", "192.0.2.1": "192.0.2.1/32", "fd00::1": "fd00::1/128"} {
		if p, err := config.ParsePrefix(in); err != nil || p.String() != want {
			t.Errorf("%s: got %s, %v", in, p, err)
		}
	}
}

// Whatever is said, Check answers, and names places that are there or would be.
func TestCheckAnything(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		var c, again config.Config
		yamltext.Draw(rt, &c)
		root, err := strictyaml.Parse("f.yaml", []byte(yamltext.Write(c)))
		if err == nil {
			err = strictyaml.Decode(root, &again)
		}
		if err != nil || !reflect.DeepEqual(c, again) {
			rt.Fatalf("%s: %v\ngot  %+v\nwant %+v", yamltext.Write(c), err, again, c)
		}
		err = c.Check()
		if err == nil {
			return
		}
		for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
			var coded *attest.Error
			if !errors.As(e, &coded) || coded.Subject == "" || coded.Want == "" || coded.Code == attest.CodeInternal {
				rt.Fatalf("got %v", e)
			}
			// The nearest value around it is no further away than a key that is not there.
			parent, _, _ := strings.Cut(coded.Subject, ".")
			if _, ok := root.At(parent); !ok && parent != "listen" {
				rt.Fatalf("there is no %s for %v", parent, e)
			}
		}
	})
}

func FuzzCheck(f *testing.F) {
	f.Add([]byte(whole))
	f.Fuzz(func(t *testing.T, raw []byte) {
		root, err := strictyaml.Parse("f.yaml", raw)
		if err != nil {
			return
		}
		var c config.Config
		if strictyaml.Decode(root, &c) != nil {
			return
		}
		err = c.Check()
		if err != nil && attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("an error without a code: %v", err)
		}
		for i := range c.Listeners {
			if h := c.Listeners[i].HTTP; h != nil {
				if _, bad := c.Table(h); err == nil && bad != nil {
					t.Fatalf("what passed does not compile: %v", bad)
				}
			}
		}
	})
}
