package short_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
	"github.com/jurat-tls/jurat/xds/short"
)

func load(t testing.TB, text string) ([]envoy.Document, error) {
	t.Helper()
	n, err := strictyaml.Parse("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if !short.Is(n) {
		t.Fatal("not of the short form")
	}
	return short.Load(n)
}

func TestForms(t *testing.T) {
	for name, text := range map[string]string{
		"raw to a service":    "listen: [{address: '127.0.0.1:8000', plain: true, tcp: true, to: '127.0.0.1:9000'}]",
		"requests, a service": "listen: [{address: '127.0.0.1:8000', plain: true, to: '127.0.0.1:9000'}]",
		"h2c":                 "listen: [{address: '127.0.0.1:8000', plain: true, to: 'h2c://127.0.0.1:9000'}]",
		"a socket":            "listen: [{address: '127.0.0.1:8000', plain: true, to: 'unix:/run/s'}]",
		"attested":            "listen: [{address: '0.0.0.0:8443', name: in, require: clients.yaml, reattest: 10m, to: '127.0.0.1:9000'}]",
		"evidence for all":    "listen: [{address: '0.0.0.0:8443', to: '127.0.0.1:9000'}]",
		"attested upstream": `
listen: [{address: '127.0.0.1:8000', plain: true, tcp: true, cluster: ledger}]
clusters:
- {name: ledger, connect_timeout: 1500ms, attested: {require: ledger, name: ledger.example, reattest: 1m}, endpoints: [{address: '192.0.2.1:8443'}, {address: '192.0.2.2:8443', hostname: b.example, load_balancing_weight: 3}]}`,
		"routes": `
listen:
- address: 127.0.0.1:8000
  plain: true
  http:
    ignore_port_in_host_matching: true
    virtual_hosts:
    - name: a
      domains: [a.example, "*.a.example"]
      routes:
      - {name: x, match: {path: /x, headers: [{name: v, string_match: {exact: "1"}}, {name: w, present_match: false}]}, route: {cluster: one, timeout: 3s, retry_policy: {retry_on: [5xx], per_try_timeout: 1s, hedge: {}}}}
      - {match: {path_separated_prefix: /y, ignore_case: true}, route: {weighted_clusters: [{name: one, weight: 90}, {name: two, weight: 10}], prefix_rewrite: /z, timeout: never}}
      - {match: {safe_regex: "/r.*", query_parameters: [{name: q, string_match: {prefix: a}}]}, route: {cluster: two, host_rewrite_literal: b.example, regex_rewrite: {pattern: "r", substitution: "s"}}}
      - {match: {prefix: /old}, redirect: {host_redirect: new.example, response_code: 308, strip_query: true}}
      - {match: {prefix: /}, direct_response: {status: 404, body: "nothing here"}}
    - {name: rest, domains: ["*"]}
clusters:
- {name: one, lb_policy: least_request, choice_count: 3, circuit_breakers: {max_connections: 10, max_requests: unlimited}, endpoints: [{address: '127.0.0.1:1'}]}
- {name: two, protocol: http2, localities: [{locality: r/z, priority: 1, endpoints: [{address: '127.0.0.1:2'}]}, {priority: 0, endpoints: [{address: '[::1]:3'}]}]}`,
		"names": `
listen: [{address: '127.0.0.1:8000', plain: true, tcp: true, cluster: d}]
clusters: [{name: d, unsafe_plain: true, dns: {names: [{host: a.example, port: 80}], dns_refresh_rate: 10s, dns_lookup_family: v4_only}}]`,
		"elsewhere": `
listen:
- {address: '127.0.0.1:8000', plain: true, to: '10.0.0.1:2', unsafe_to: true}
- {address: '127.0.0.1:8001', plain: true, to: '127.0.0.1:2', unsafe_to: true}
- {address: '127.0.0.1:8002', plain: true, tcp: true, cluster: here}
clusters:
- {name: here, unsafe_plain: true, endpoints: [{address: '127.0.0.1:3'}]}
- {name: nowhere, unsafe_plain: true, localities: []}`,
		"a name": `
listen: [{address: ':8000', unsafe_listen: true, plain: true, tcp: true, cluster: d}]
clusters: [{name: d, healthy_panic_threshold: never, attested: {require: p}, endpoints: [{address: 'ledger.example:8443'}]}]`,
		"times": "listen: [{address: '127.0.0.1:8000', plain: true, tcp: true, to: '127.0.0.1:9000', limits: {tunnel_idle: never, handshake_timeout: 3s}}]",
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := load(t, text)
			if err != nil {
				t.Fatal(err)
			}
			for _, d := range docs {
				if d.Position == "" || !strings.HasPrefix(d.Position, "f.yaml:") || d.Validate() != nil {
					t.Errorf("%+v", d)
				}
			}
		})
	}
}

// What resources can't say is an error at its place.
func TestRefused(t *testing.T) {
	for name, tc := range map[string]struct{ text, where string }{
		"limits":      {"listen:\n- address: 127.0.0.1:8000\n  plain: true\n  to: 127.0.0.1:9000\n  limits: {connections: 5}", "f.yaml:5:25"},
		"proxy":       {"listen:\n- address: 127.0.0.1:8000\n  plain: true\n  tcp: true\n  to: 127.0.0.1:9000\n  proxy_protocol: [10.0.0.0/8]", "f.yaml:6:"},
		"transparent": {"listen:\n- address: 127.0.0.1:8000\n  plain: true\n  tcp: true\n  cluster: c\n  transparent: redirect\nclusters: [{name: c, attested: {require: p}, localities: []}]", "f.yaml:6:"},
		"headers":     {"listen:\n- address: 127.0.0.1:8000\n  plain: true\n  http:\n    virtual_hosts: [{name: a, domains: ['*']}]\n    unsafe_keep_escaped_slashes: true", "f.yaml:6:"},
		"a bad value": {"listen:\n- address: 127.0.0.1:x-y-z:1\n  plain: true\n  to: 127.0.0.1:9000", "f.yaml:2:"},
		"a bad key":   {"listen:\n- addres: 127.0.0.1:1", "f.yaml:2:"},
		"no cluster":  {"listen:\n- {address: '127.0.0.1:1', plain: true, tcp: true, cluster: none}", "f.yaml:2:"},
		"a hedge": {"listen:\n- address: 127.0.0.1:8000\n  plain: true\n  http: {virtual_hosts: [{name: a, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: [5xx], hedge: {after: 1s}}}}]}]}\n" +
			"clusters: [{name: c, endpoints: [{address: '127.0.0.1:2'}]}]", "f.yaml:4:"},
		"health checks": {"listen:\n- {address: '127.0.0.1:1', plain: true, tcp: true, cluster: c}\nclusters:\n- name: c\n  endpoints: [{address: '127.0.0.1:2'}]\n  health_check: {tcp: {}}", "f.yaml:"},
	} {
		t.Run(name, func(t *testing.T) {
			docs, err := load(t, tc.text)
			if err == nil {
				t.Fatalf("%d resources", len(docs))
			}
			if code := attest.CodeOf(err); code != attest.CodeConfigValue && code != attest.CodeConfigUnknownKey && code != attest.CodeConfigMissing || !strings.HasPrefix(err.Error(), tc.where) {
				t.Errorf("got %v, want %s", err, tc.where)
			}
		})
	}
}

// Policies are called by what the resources are called, whatever the file of the short form says.
func TestPolicies(t *testing.T) {
	docs, err := load(t, "listen: [{address: '0.0.0.0:8443', require: clients.yaml, to: '127.0.0.1:9000'}]")
	if err != nil {
		t.Fatal(err)
	}
	in := envoy.Input{Resources: envoy.Set{}}
	for _, d := range docs {
		in.Resources.Add(d.Resource)
	}
	if needs := envoy.Translate(in).Needs[resource.AttestationPolicy]; len(needs) != 1 || needs[0] != "clients" {
		t.Errorf("needs %v", needs)
	}
}

// Of the examples of the documentation each is turned into resources, or refused with a place.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob("../../docs/examples/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(err)
	}
	taken := 0
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var keep []string
		in := false
		for line := range strings.Lines(string(raw)) {
			if line[0] != ' ' && line[0] != '-' && line[0] != '#' && line[0] != '\n' {
				in = strings.HasPrefix(line, "listen:") || strings.HasPrefix(line, "clusters:")
			}
			if in {
				keep = append(keep, line)
			}
		}
		if len(keep) == 0 {
			continue // all of it comes from a control plane
		}
		docs, err := load(t, strings.Join(keep, ""))
		if err == nil {
			taken++
			t.Logf("%s: %d resources", filepath.Base(file), len(docs))
			continue
		}
		t.Logf("%s: %v", filepath.Base(file), err)
		if !strings.Contains(err.Error(), "f.yaml:") {
			t.Errorf("%s: no place: %v", file, err)
		}
	}
	if taken < 3 {
		t.Errorf("%d examples", taken)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add("listen: [{address: '127.0.0.1:8000', plain: true, tcp: true, to: '127.0.0.1:9000'}]")
	f.Add("listen: [{address: '127.0.0.1:8000', plain: true, http: {virtual_hosts: [{name: a, domains: ['*'], routes: [{match: {prefix: /}, direct_response: {status: 404}}]}]}}]")
	f.Add("listen: [{address: '127.0.0.1:8000', plain: true, tcp: true, cluster: d}]\nclusters: [{name: d, unsafe_plain: true, dns: {names: [{host: a.example, port: 80}]}}]")
	f.Fuzz(func(t *testing.T, text string) {
		n, err := strictyaml.Parse("f.yaml", []byte(text))
		if err != nil || !short.Is(n) {
			return
		}
		docs, err := short.Load(n)
		if err == nil && len(docs) == 0 {
			t.Error("good, and nothing")
		}
	})
}
