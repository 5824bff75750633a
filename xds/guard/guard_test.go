package guard_test

import (
	"errors"
	"fmt"
	"math"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/xds/guard"
)

const (
	launch = "55d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d0"

	floorText = `policy: floor
platforms: {allow: [amd milan+]}
tcb: {snp: 20}
workload: {measurement: {any_of: [{value: ` + launch + `, name: v1}]}, debug: off}
binding: session
freshness: {evidence: 2h}
`
	strictText = `policy: strict
platforms: {allow: [amd genoa+]}
tcb: {snp: 23}
workload: {measurement: {any_of: [{value: ` + launch + `, name: v1}]}, debug: off}
binding: session
freshness: {evidence: 1h}
`
	// Whom it lets in is nobody that the floor refuses, but for how evidence is bound.
	keyText = `policy: key
platforms: {allow: [amd genoa+]}
tcb: {snp: 23}
workload: {measurement: {any_of: [{value: ` + launch + `, name: v1}]}, debug: off}
binding: key
freshness: {evidence: 1h}
`
	looseText = `policy: loose
platforms: {allow: [amd *, intel *]}
workload: {measurement: any, debug: off}
binding: session
freshness: {evidence: 1h}
`
)

func parsePolicy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// policies are those that the tests' configurations name.
func policies(t testing.TB) map[string]guard.Policy {
	floor, strict, key, loose := parsePolicy(t, floorText), parsePolicy(t, strictText), parsePolicy(t, keyText), parsePolicy(t, looseText)
	return map[string]guard.Policy{
		"mesh-strict":   {Name: "mesh-strict", Pushed: true, Layers: []*policy.Policy{strict}},
		"mesh-strict-2": {Name: "mesh-strict-2", Pushed: true, Layers: []*policy.Policy{strict}},
		"mesh-loose":    {Name: "mesh-loose", Pushed: true, Layers: []*policy.Policy{loose, floor}}, // which the floor below it makes up for
		"mesh-bare":     {Name: "mesh-bare", Pushed: true, Layers: []*policy.Policy{loose}},
		"mesh-none":     {Name: "mesh-none", Pushed: true},
		"mesh-nil":      {Name: "mesh-nil", Pushed: true, Layers: []*policy.Policy{strict, nil}},
		"mesh-key":      {Name: "mesh-key", Pushed: true, Layers: []*policy.Policy{key}},
		"ledger.yaml":   {Name: "ledger.yaml", Layers: []*policy.Policy{strict}},
		"weak.yaml":     {Name: "weak.yaml", Layers: []*policy.Policy{loose}},
	}
}

func decode[T any](t testing.TB, text string) T {
	t.Helper()
	root, err := strictyaml.Parse("f.yaml", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var out T
	if err := strictyaml.Decode(root, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

const limitsText = `
floor: floor.yaml
policies: [mesh-*]
attested: ["pay|*"]
targets:
  - {name: pay, to: ["10.0.0.0/8:8443", "*.pay.example:443", "[fd00::/8]:8443", "unix:/run/peers/*"], names: ["*.pay.example", pay.example, localhost]}
  - {name: log, to: ["10.9.0.0/16", log.example], policies: [mesh-stric, "mesh-strict", "ledger*"]}
  - {name: app, to: ["loopback:8080", "unix:/run/app.sock", "localhost:8080"], plain: true}
  - {name: near, to: ["192.0.2.0/24"], plain: true, unsafe_plain: true}
listeners:
  - {address: "127.0.0.1:15001", clients: plain, to: [pay]}
  - {address: "127.0.0.1:15002", clients: plain, to: [pay, log, near]}
  - {address: "0.0.0.0:15003", clients: plain, unsafe_listen: true, to: [app]}
  - {address: ":15006", to: [app], policies: [mesh-strict], proxy_protocol: [10.0.0.0/16]}
  - {address: ":15007", clients: anybody, to: [app]}
`

const measuredText = `
listen:
  - {name: static, address: "127.0.0.1:9000", plain: true, tcp: true, cluster: ledger}
  - {address: "127.0.0.1:9001", plain: true, tcp: true, cluster: side}
clusters:
  - {name: ledger, attested: {require: ledger.yaml, name: log.example}, endpoints: [{address: "10.9.0.1:443"}]}
  - {name: side, endpoints: [{address: "127.0.0.1:7000"}]}
  - {name: weak, attested: {require: weak.yaml, name: log.example}, endpoints: [{address: "10.9.0.1:443"}]}
`

// The static part, and a configuration that uses all that the limits allow.
const afterText = `
listen:
  - {name: static, address: "127.0.0.1:9000", plain: true, tcp: true, cluster: ledger}
  - {address: "127.0.0.1:9001", plain: true, tcp: true, cluster: side}
  - {name: out, address: "127.0.0.1:15001", plain: true, tcp: true, cluster: "pay|one"}
  - name: routes
    address: "127.0.0.1:15002"
    plain: true
    http:
      virtual_hosts:
        - name: all
          domains: ["*"]
          routes:
            - {match: {prefix: /l}, route: {cluster: ledger}}
            - {match: {prefix: /m}, route: {cluster: "pay|one", request_mirror_policies: [{cluster: logs}]}}
            - {match: {prefix: /w}, route: {weighted_clusters: [{name: named, weight: 1}, {name: near, weight: 0}]}}
            - {match: {path: /old}, redirect: {path_redirect: /new}}
            - {match: {prefix: /}, direct_response: {status: 404}}
  - {name: open, address: "0.0.0.0:15003", plain: true, unsafe_listen: true, to: "127.0.0.1:8080"}
  - {name: in, address: ":15006", require: mesh-strict, reattest: 30m, proxy_protocol: [10.0.2.0/24], to: "http://127.0.0.1:8080"}
  - {name: public, address: ":15007", cluster: local}
clusters:
  - {name: ledger, attested: {require: ledger.yaml, name: log.example}, endpoints: [{address: "10.9.0.1:443"}]}
  - {name: side, endpoints: [{address: "127.0.0.1:7000"}]}
  - {name: weak, attested: {require: weak.yaml, name: log.example}, endpoints: [{address: "10.9.0.1:443"}]}
  - name: "pay|one"
    attested: {require: mesh-loose}
    localities:
      - {endpoints: [{address: "10.0.0.1:8443", hostname: a.pay.example}, {address: "[fd00::1]:8443", hostname: Pay.Example.}]}
      - {priority: 1, endpoints: [{address: "B.pay.example.:443"}, {address: "unix:/run/peers/a/1.sock"}]}
  - {name: logs, attested: {require: mesh-strict, reattest: 30m}, endpoints: [{address: "10.9.1.1:99"}, {address: "log.example:1"}]}
  - {name: named, attested: {require: mesh-strict, name: x.pay.example}, dns: {names: [{host: c.pay.example, port: 443}]}}
  - {name: near, endpoints: [{address: "192.0.2.7:80"}]}
  - {name: local, endpoints: [{address: "[::1]:8080"}, {address: "unix:/run/app.sock"}, {address: "localhost:8080"}, {address: "[::ffff:127.0.0.9]:8080"}]}
  - {name: later, localities: []}
`

// Limits and a configuration of connections that were meant for others, and of targets that are anywhere.
const (
	wideLimits = `
floor: floor.yaml
policies: [mesh-*]
targets:
  - {name: wide, to: ["*", "log.example:99"], names: ["*"], policies: [mesh-strict]}
  - {name: here, to: [loopback], plain: true}
  - {name: meant, to: ["*"], names: [x.pay.example]}
  - {name: other, to: ["log.example"]}
listeners:
  - {address: "0.0.0.0:15010", clients: plain, unsafe_listen: true, transparent: true, to: [wide, here]}
  - {address: "127.0.0.1:15011", clients: plain, to: [meant]}
`

	wideText = `
listen:
  - name: meant for others
    address: "0.0.0.0:15010"
    unsafe_listen: true
    transparent: redirect
    plain: true
    tcp: true
    cluster: onward
    chains:
      - {name: mine, match: {prefix_ranges: [10.0.0.1]}, plain: true, tcp: true, cluster: here}
      - name: two
        match: {destination_ports: [80]}
        plain: true
        http: {virtual_hosts: [{name: a, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: wide}}]}]}
  - {name: named, address: "127.0.0.1:15011", plain: true, tcp: true, cluster: meant}
clusters:
  - {name: logs, attested: {require: mesh-loose}, endpoints: [{address: "log.example:1"}]}
  - {name: onward, attested: {require: mesh-strict}, original_destination: {}}
  - {name: here, original_destination: {}}
  - {name: wide, attested: {require: mesh-strict}, endpoints: [{address: "anywhere.example:1"}]}
  - {name: meant, attested: {require: mesh-loose, name: x.pay.example}, original_destination: {}}
`
)

func newGuard(t testing.TB, text string) *guard.Guard {
	t.Helper()
	g, err := guard.New(decode[guard.Limits](t, text), parsePolicy(t, floorText))
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// replaced is text with something else in it, which has to be there once.
func replaced(t testing.TB, text, old, with string) string {
	t.Helper()
	if n := strings.Count(text, old); n != 1 {
		t.Fatalf("%q is there %d times", old, n)
	}
	return strings.Replace(text, old, with, 1)
}

// rules are the rules that an error is about, each with its code, without repetitions.
func rules(err error) string {
	var all []string
	seen := map[string]bool{}
	for _, v := range violations(err) {
		text := strings.TrimPrefix(v.Err.Check, "limits.") + " " + string(v.Err.Code)
		if !seen[text] {
			all = append(all, text)
		}
		seen[text] = true
	}
	return strings.Join(all, ", ")
}

func violations(err error) (all []*guard.Violation) {
	if err == nil {
		return nil
	}
	for _, e := range err.(interface{ Unwrap() []error }).Unwrap() {
		var v *guard.Violation
		if !errors.As(e, &v) {
			panic(e)
		}
		all = append(all, v)
	}
	return all
}

func TestCheck(t *testing.T) {
	const (
		measured = "measured J901"
		listener = "listener J902"
		clients  = "clients J903"
		target   = "target J904"
		name     = "name J904"
		plain    = "plain J905"
		bypass   = "bypass J907"
	)
	listenOnce := func(rest string) [2]string {
		return [2]string{"  - {name: public, address: \":15007\", cluster: local}\n", rest}
	}
	route := func(rest string) [2]string {
		return [2]string{"            - {match: {prefix: /l}, route: {cluster: ledger}}\n", "            - " + rest + "\n"}
	}
	cluster := func(rest string) [2]string {
		return [2]string{"  - {name: later, localities: []}\n", "  - " + rest + "\n"}
	}
	for what, test := range map[string]struct {
		change [2]string
		want   string
		at     string // in the first error
	}{
		"all that is wide, and allowed": {[2]string{"name: mine", "name: mine"}, "", ""},
		"all that is allowed":           {[2]string{"later", "later"}, "", ""},

		// What was measured.
		"a static listener leads elsewhere":            {[2]string{"plain: true, tcp: true, cluster: ledger", "plain: true, tcp: true, cluster: side"}, measured, `listener "static"`},
		"a static listener is gone":                    {[2]string{"  - {name: static, address: \"127.0.0.1:9000\", plain: true, tcp: true, cluster: ledger}\n", ""}, measured, `listener "static"`},
		"a static listener is there twice":             {listenOnce("  - {name: x, address: \"127.0.0.1:9001\", plain: true, tcp: true, cluster: side}\n"), measured, `listener "x": address`},
		"a listener with the name of a static":         {[2]string{"name: public", "name: static"}, measured, `listener "static": name`},
		"a listener named like a static one's address": {[2]string{"name: public", "name: \"127.0.0.1:9001\""}, measured, `name`},
		"two listeners with one name":                  {[2]string{"name: public", "name: open"}, measured, `listener "open": name`},
		"two listeners with one address":               {[2]string{`":15007", cluster: local`, `":15006", cluster: local`}, measured, `address`},
		"a static cluster leads elsewhere":             {[2]string{"127.0.0.1:7000", "127.0.0.1:8080"}, measured, `cluster "side"`},
		"a static cluster is gone":                     {[2]string{"  - {name: side, endpoints: [{address: \"127.0.0.1:7000\"}]}\n", ""}, measured, `cluster "side"`},
		"a static cluster is there twice":              {cluster(`{name: side, endpoints: [{address: "127.0.0.1:7000"}]}`), measured, `cluster "side"`},
		"two clusters with one name":                   {cluster(`{name: near, endpoints: [{address: "192.0.2.8:80"}]}`), measured, `cluster "near"`},

		// Where connections may come in.
		"another address":                          {[2]string{":15007", ":15008"}, listener, `listener "public": address`},
		"the same address spelt otherwise":         {[2]string{`":15007"`, `"0.0.0.0:15007"`}, listener, ``},
		"clients in plain instead of attested":     {[2]string{`{name: in, address: ":15006", require: mesh-strict, reattest: 30m,`, `{name: in, address: ":15006", plain: true,`}, clients, `listener "in"`},
		"clients without evidence":                 {[2]string{"require: mesh-strict, reattest: 30m,", ""}, clients, `listener "in"`},
		"clients in plain instead of anybody":      {[2]string{`":15007", cluster`, `":15007", plain: true, cluster`}, clients, ``},
		"attested clients instead of anybody":      {[2]string{`":15007", cluster`, `":15007", require: mesh-strict, cluster`}, "", ""},
		"attested clients instead of plain":        {[2]string{`"127.0.0.1:15001", plain: true`, `"127.0.0.1:15001", require: mesh-strict`}, clients, ``},
		"anybody instead of plain":                 {[2]string{`"127.0.0.1:15001", plain: true`, `"127.0.0.1:15001"`}, clients, ``},
		"unsafe_listen where it is not for":        {[2]string{`"127.0.0.1:15001", plain: true`, `"127.0.0.1:15001", plain: true, unsafe_listen: true`}, "", ``},
		"clients may be held to another policy":    {[2]string{"require: mesh-strict, reattest: 30m, proxy", "require: ledger.yaml, proxy"}, "policy J906", `listener "in": require`},
		"clients attest anew too seldom":           {[2]string{"require: mesh-strict, reattest: 30m, proxy", "require: mesh-strict, reattest: 31m, proxy"}, "reattest J906", `listener "in": reattest`},
		"anybody may say who the client is":        {[2]string{"10.0.2.0/24", "10.0.0.0/8"}, "proxy_protocol J903", `listener "in": proxy_protocol[0]`},
		"others may say who the client is":         {[2]string{"10.0.2.0/24", "10.2.2.0/24"}, "proxy_protocol J903", ``},
		"who the client is, of the other family":   {[2]string{"10.0.2.0/24", "\"fd00::/8\""}, "proxy_protocol J903", ``},
		"PROXY headers where none are allowed":     {[2]string{`":15007", cluster`, `":15007", proxy_protocol: [10.0.2.0/24], cluster`}, "proxy_protocol J903", ``},
		"PROXY headers from what is not a prefix":  {[2]string{"10.0.2.0/24", "10.0.2.0.0"}, "proxy_protocol J903", ``},
		"a policy for clients that does not exist": {[2]string{`":15007", cluster`, `":15007", require: mesh-nobody, cluster`}, "policy J906", `require`},
		"a policy for clients that is too loose":   {[2]string{`":15007", cluster`, `":15007", require: mesh-bare, cluster`}, "floor J906", `require`},

		// Past the rules.
		"TLS that is not ended":               {listenOnce(`  - {name: public, address: ":15007", passthrough: [{server_names: ["*"], cluster: local}]}` + "\n"), bypass, `passthrough`},
		"connections go on":                   {[2]string{`plain: true, tcp: true, cluster: "pay|one"`, `plain: true, tcp: true, transparent: redirect, cluster: "pay|one"`}, bypass, `transparent`},
		"clients say where":                   {[2]string{`plain: true, tcp: true, cluster: "pay|one"`, `plain: true, forward: [{hosts: ["*"], require: mesh-strict}]`}, bypass, `forward`},
		"a public certificate":                {[2]string{`":15007", cluster`, `":15007", public: {cert: f, unsafe_key_file: f}, cluster`}, bypass, `public`},
		"evidence of other programs":          {[2]string{"{require: mesh-loose}", "{require: mesh-loose, dialects: [ego]}"}, bypass, `cluster "pay|one": attested.dialects`},
		"passwords":                           {[2]string{`plain: true, tcp: true, cluster: "pay|one"`, `plain: true, tcp: true, credentials: f, cluster: "pay|one"`}, bypass, `credentials`},
		"copies in plain":                     {route(`{match: {prefix: /}, route: {cluster: near, request_mirror_policies: [{cluster: near}]}}`), "mirror J907", `http.virtual_hosts[0].routes[0].route.request_mirror_policies[0].cluster`},
		"copies to nowhere":                   {route(`{match: {prefix: /}, route: {cluster: near, request_mirror_policies: [{cluster: nobody}]}}`), target, `request_mirror_policies[0].cluster`},
		"copies to where they may not":        {route(`{match: {prefix: /}, route: {cluster: near, request_mirror_policies: [{cluster: weak}]}}`), "floor J906, policy J906, " + target, ``},
		"answers that nobody gave":            {route(`{match: {prefix: /}, direct_response: {status: 200}}`), "answers J908", `direct_response`},
		"answers with a body":                 {route(`{match: {prefix: /}, direct_response: {status: 404, body: paid}}`), "answers J908", ``},
		"other paths":                         {route(`{match: {prefix: /}, route: {cluster: ledger, prefix_rewrite: /x}}`), "rewrite J908", `routes[0].route`},
		"other paths by an expression":        {route(`{match: {prefix: /}, route: {cluster: ledger, regex_rewrite: {pattern: a}}}`), "rewrite J908", ``},
		"another authority":                   {route(`{match: {prefix: /}, route: {cluster: ledger, host_rewrite_literal: x}}`), "rewrite J908", ``},
		"a cookie of its own":                 {route(`{match: {prefix: /}, route: {cluster: ledger, hash_policy: [{source_ip: true}, {cookie: {name: session, ttl: 1h}}]}}`), "rewrite J908", `routes[0].route.hash_policy[1]`},
		"a cookie for a session":              {route(`{match: {prefix: /}, route: {cluster: ledger, hash_policy: [{cookie: {name: session, ttl: session}}]}}`), "rewrite J908", `routes[0].route.hash_policy[0]`},
		"other headers of a route":            {route(`{match: {prefix: /}, request_headers: {remove: [a]}, route: {cluster: ledger}}`), "rewrite J908", `routes[0]`},
		"other headers of answers":            {route(`{match: {prefix: /}, response_headers: {set: [{name: a}]}, route: {cluster: ledger}}`), "rewrite J908", `routes[0]`},
		"other headers of a share":            {route(`{match: {prefix: /}, route: {weighted_clusters: [{name: ledger, weight: 1, request_headers: {remove: [a]}}]}}`), "rewrite J908", `weighted_clusters[0]`},
		"other headers of answers of a share": {route(`{match: {prefix: /}, route: {weighted_clusters: [{name: ledger, weight: 1, response_headers: {remove: [a]}}]}}`), "rewrite J908", ``},
		"other headers of a host":             {[2]string{"          domains: [\"*\"]\n", "          domains: [\"*\"]\n          request_headers: {remove: [a]}\n"}, "rewrite J908", `http.virtual_hosts[0]`},
		"other headers of all":                {[2]string{"    http:\n", "    http:\n      response_headers: {remove: [a]}\n"}, "rewrite J908", `http`},
		"to another host":                     {route(`{match: {prefix: /}, redirect: {host_redirect: evil.example}}`), "redirects J908", `redirect`},
		"to another port":                     {route(`{match: {prefix: /}, redirect: {port_redirect: 99}}`), "redirects J908", ``},
		"to TLS that is not attested":         {route(`{match: {prefix: /}, redirect: {scheme_redirect: https}}`), "redirects J908", ``},
		"to plaintext":                        {route(`{match: {prefix: /}, redirect: {scheme_redirect: http}}`), "redirects J908", ``},

		// Where bytes may go.
		"a route to nowhere":                          {route(`{match: {prefix: /}, route: {cluster: nobody}}`), target, `http.virtual_hosts[0].routes[0].route.cluster`},
		"a route to a target of another listener":     {route(`{match: {prefix: /}, route: {cluster: local}}`), target, `routes[0].route.cluster`},
		"a share for a target of another listener":    {[2]string{"{name: near, weight: 0}", "{name: local, weight: 0}"}, target, `weighted_clusters[1].name`},
		"a listener to a target of another":           {[2]string{`tcp: true, cluster: "pay|one"`, `tcp: true, cluster: logs`}, target, `listener "out": cluster`},
		"a listener to a static cluster of others":    {[2]string{`tcp: true, cluster: "pay|one"`, `tcp: true, cluster: side`}, target, ``},
		"a listener to a static cluster, too loose":   {[2]string{`tcp: true, cluster: "pay|one"`, `tcp: true, cluster: weak`}, "floor J906, policy J906, " + target, `cluster "weak": attested.require`},
		"a service of its own elsewhere":              {[2]string{`to: "127.0.0.1:8080"`, `to: "192.0.2.1:80"`}, target, `listener "open": to`},
		"a service of its own in no target":           {[2]string{`to: "127.0.0.1:8080"`, `to: "203.0.113.1:80"`}, target, `listener "open": to`},
		"a service of its own that is to be attested": {[2]string{`to: "127.0.0.1:8080"`, `to: "10.0.0.1:8443"`}, target, `listener "open": to`},
		"a service of its own at a socket":            {[2]string{`to: "127.0.0.1:8080"`, `to: "unix:/run/app.sock"`}, "", ``},
		"a service of its own at another socket":      {[2]string{`to: "127.0.0.1:8080"`, `to: "unix:/run/other.sock"`}, target, ``},
		"a service that is no address":                {[2]string{`to: "127.0.0.1:8080"`, `to: "ftp://127.0.0.1:8080"`}, target, ``},
		"an endpoint elsewhere":                       {[2]string{"192.0.2.7:80", "203.0.113.7:80"}, "target J904", `cluster "near": endpoints[0].address`},
		"an endpoint at another port":                 {[2]string{"10.0.0.1:8443", "10.0.0.1:8444"}, "target J904", `cluster "pay|one": localities[0].endpoints[0].address`},
		"an endpoint with a name that looks alike":    {[2]string{"B.pay.example.:443", "pay.example:443"}, "target J904", `localities[1].endpoints[0].address`},
		"an endpoint with a longer name":              {[2]string{"B.pay.example.:443", "b.pay.example.evil.example:443"}, "target J904", ``},
		"an endpoint with half a name":                {[2]string{"B.pay.example.:443", "evilpay.example:443"}, "target J904", ``},
		"a name of the DNS elsewhere":                 {[2]string{"host: c.pay.example", "host: evil.example"}, "target J904", `cluster "named": dns.names[0].address`},
		"an address as a name of the DNS":             {[2]string{"host: c.pay.example", "host: \"::1\""}, "target J904", ``},
		"a socket by way of another directory":        {[2]string{"unix:/run/peers/a/1.sock", "unix:/run/peers/../app.sock"}, "target J904", ``},
		"a socket beside the directory":               {[2]string{"unix:/run/peers/a/1.sock", "unix:/run/peers.sock"}, "target J904", ``},
		"a socket with a path that is not whole":      {[2]string{"unix:/run/peers/a/1.sock", "unix:run/peers/a/1.sock"}, "target J904", ``},
		"a socket without a path in the file system":  {[2]string{"unix:/run/peers/a/1.sock", "unix:@a"}, "target J904", ``},
		"no address":                            {[2]string{"10.0.0.1:8443", "10.0.0.1"}, "target J904", ``},
		"no port":                               {[2]string{"10.0.0.1:8443", "10.0.0.1:http"}, "target J904", ``},
		"port 0":                                {[2]string{"10.9.1.1:99", "10.9.1.1:0"}, "target J904", ``},
		"an address on a link":                  {[2]string{"[fd00::1]:8443", "[fd00::1%eth0]:8443"}, "target J904", ``},
		"an address as only some read it":       {[2]string{"[::1]:8080", "127.1:8080"}, "target J904", ``},
		"an IPv4 address written as IPv6":       {[2]string{"10.0.0.1:8443", "[::ffff:10.0.0.1]:8443"}, "", ``},
		"a plain peer that has to be attested":  {[2]string{"192.0.2.7:80", "10.0.0.1:8443"}, plain, `cluster "near": endpoints[0].address`},
		"a peer loses its validator":            {[2]string{"  - {name: named, attested: {require: mesh-strict, name: x.pay.example},", "  - {name: named,"}, plain, `cluster "named": dns.names[0].address`},
		"a name that says attested, in plain":   {[2]string{"later, localities: []", `"pay|two", endpoints: [{address: "127.0.0.1:8080"}]`}, "attested J905", `cluster "pay|two": attested`},
		"an attested peer at a target in plain": {[2]string{`"10.9.1.1:99"`, `"127.0.0.1:8080"`}, target, `cluster "logs": endpoints[0].address`},
		"evidence for another name":             {[2]string{"hostname: a.pay.example", "hostname: evil.example"}, name, `cluster "pay|one": localities[0].endpoints[0].address`},
		"evidence for another name in all":      {[2]string{"name: x.pay.example", "name: evil.example"}, name, `cluster "named": dns.names[0].address`},
		"evidence for an address":               {[2]string{", hostname: a.pay.example", ""}, name, ``},
		"evidence for no name":                  {[2]string{"hostname: a.pay.example", "hostname: \"a..example\""}, name, ``},
		"evidence for a name of a socket":       {[2]string{"\"unix:/run/peers/a/1.sock\"", "\"unix:/run/peers/a/1.sock\", hostname: evil.example"}, name, ``},

		"a name without a label":               {[2]string{"anywhere.example:1", "anywhere..example:1"}, target, `cluster "wide": endpoints[0].address`},
		"a name of too many letters":           {[2]string{"anywhere.example:1", strings.Repeat("a.", 126) + "aa:1"}, target, ``},
		"a name of as many letters as can be":  {[2]string{"anywhere.example:1", strings.Repeat("a.", 126) + "a:1"}, "", ``},
		"a name with other letters":            {[2]string{"anywhere.example:1", "a*.example:1"}, target, ``},
		"a port that is too high":              {[2]string{"anywhere.example:1", "anywhere.example:65536"}, target, ``},
		"any address on a link":                {[2]string{"anywhere.example:1", "[fe80::1%eth0]:1"}, target, ``},
		"any address":                          {[2]string{"anywhere.example:1", "[fe80::1]:1"}, "", ``},
		"a socket is not anywhere":             {[2]string{"anywhere.example:1", "unix:/run/app.sock"}, target, ``},
		"evidence for what is no name":         {[2]string{"anywhere.example:1\"", "anywhere.example:1\", hostname: \"a..b\""}, name, ``},
		"an IPv6 address as a name of the DNS": {[2]string{"host: c.pay.example, port: 443", "host: \"fd00::1\", port: 8443"}, "", ``},

		// Where connections were going.
		"connections of others where none are allowed": {[2]string{`plain: true, tcp: true, cluster: meant`, `transparent: redirect, chains: [{match: {}, plain: true, tcp: true, cluster: meant}]`}, bypass, `listener "named": transparent`},
		"connections of others go on by themselves":    {[2]string{"    chains:\n      - {name: mine, match: {prefix_ranges: [10.0.0.1]}, plain: true, tcp: true, cluster: here}\n      - name: two\n        match: {destination_ports: [80]}\n        plain: true\n        http: {virtual_hosts: [{name: a, domains: [\"*\"], routes: [{match: {prefix: /}, route: {cluster: wide}}]}]}\n", ""}, bypass, `listener "meant for others": transparent`},
		"anywhere in plain":                            {[2]string{"{name: here, original_destination: {}}", "{name: here, original_destination: {unsafe_plain: true}}"}, bypass, `cluster "here": original_destination.unsafe_plain`},
		"anywhere for any name":                        {[2]string{"{name: meant, attested: {require: mesh-loose, name: x.pay.example},", "{name: meant, attested: {require: mesh-loose},"}, target, `cluster "meant": original_destination`},
		"anywhere for another name":                    {[2]string{"{name: meant, attested: {require: mesh-loose, name: x.pay.example},", "{name: meant, attested: {require: mesh-loose, name: y.pay.example},"}, target, ``},
		"anywhere under another policy":                {[2]string{"{name: onward, attested: {require: mesh-strict}", "{name: onward, attested: {require: mesh-loose}"}, target, `cluster "onward": original_destination`},
		"this machine for those who may not":           {[2]string{"tcp: true, cluster: meant}", "tcp: true, cluster: here}"}, target, `listener "named": cluster`},
		"what is for no chain to another target":       {[2]string{"    cluster: onward\n", "    cluster: logs\n"}, target, `listener "meant for others": cluster`},
		"a chain for nobody":                           {[2]string{"tcp: true, cluster: here}", "tcp: true, cluster: nobody}"}, target, `listener "meant for others": chains[0].cluster`},
		"a chain to another target":                    {[2]string{"tcp: true, cluster: here}", "tcp: true, cluster: logs}"}, target, `listener "meant for others": chains[0].cluster`},
		"a chain to a service elsewhere":               {[2]string{"plain: true, tcp: true, cluster: here}", "plain: true, to: \"192.0.2.1:1\"}"}, target, `listener "meant for others": chains[0].to`},
		"routes of a chain to another target":          {[2]string{"{cluster: wide}", "{cluster: logs}"}, target, `chains[1].http.virtual_hosts[0].routes[0].route.cluster`},
		"clients of a chain":                           {[2]string{"plain: true, tcp: true, cluster: here}", "tcp: true, cluster: here}"}, clients, `listener "meant for others": chains[0]`},
		"a policy for clients of a chain":              {[2]string{"plain: true, tcp: true, cluster: here}", "require: mesh-bare, tcp: true, cluster: here}"}, clients + ", floor J906", `listener "meant for others": chains[0]`},
		"past the rules by a chain":                    {[2]string{"plain: true, tcp: true, cluster: here}", "plain: true, passthrough: [{server_names: [\"*\"], cluster: here}]}"}, bypass, `chains[0].passthrough`},
		"to TLS that is not attested, by a chain":      {[2]string{"route: {cluster: wide}", "redirect: {scheme_redirect: https}"}, "redirects J908", `chains[1].http`},

		"a name that says attested, and nothing else":  {[2]string{"later, localities: []", `"pay|two", localities: []`}, "", ``},
		"a name that says attested, without endpoints": {[2]string{"later, localities: []", `"pay|two", connect_timeout: 1s, localities: []`}, "attested J905", ``},
		"a cluster that gets nothing":                  {cluster(`{name: later, endpoints: [{address: "203.0.113.7:80"}]}`), "", ``},
		"a cluster that is asked how it is":            {cluster(`{name: later, endpoints: [{address: "203.0.113.7:80"}], health_check: {kind: tcp}}`), "target J904", `cluster "later": endpoints[0].address`},
		"plain clients that get nowhere":               {listenOnce(`  - {name: public, address: ":15007", unsafe_listen: true, plain: true, tcp: true, cluster: later}` + "\n"), "", ``},
		"a policy that is too loose, to nowhere":       {listenOnce(`  - {name: public, address: ":15007", require: mesh-bare, tcp: true, cluster: later}` + "\n"), "floor J906", ``},
		"plain clients with requests to nowhere":       {listenOnce(`  - {name: public, address: ":15007", unsafe_listen: true, plain: true, cluster: later}` + "\n"), clients, ``},

		// Under what.
		"no such policy":                   {[2]string{"attested: {require: mesh-loose}", "attested: {require: nobody}"}, "policy J906", `cluster "pay|one": attested.require`},
		"a policy without anything in it":  {[2]string{"attested: {require: mesh-loose}", "attested: {require: mesh-none}"}, "policy J906", ``},
		"a policy with a layer missing":    {[2]string{"attested: {require: mesh-loose}", "attested: {require: mesh-nil}"}, "policy J906", ``},
		"a policy without the floor":       {[2]string{"attested: {require: mesh-loose}", "attested: {require: mesh-bare}"}, "floor J906", ``},
		"a weaker binding":                 {[2]string{"attested: {require: mesh-loose}", "attested: {require: mesh-key}"}, "floor J906", ``},
		"another policy than the target's": {[2]string{"{name: logs, attested: {require: mesh-strict, reattest: 30m}", "{name: logs, attested: {require: mesh-loose}"}, "policy J906", `cluster "logs": endpoints[0].address`},
		"another policy that begins alike": {[2]string{"{name: logs, attested: {require: mesh-strict, reattest: 30m}", "{name: logs, attested: {require: mesh-strict-2}"}, "policy J906", ``},
		"peers attest anew too seldom":     {[2]string{"{name: logs, attested: {require: mesh-strict, reattest: 30m}", "{name: logs, attested: {require: mesh-strict, reattest: 31m}"}, "reattest J906", `cluster "logs": attested.reattest`},
	} {
		t.Run(what, func(t *testing.T) {
			limits, before, after := limitsText, measuredText, afterText
			if !strings.Contains(after, test.change[0]) {
				limits, before, after = wideLimits, "clusters: []", wideText
			}
			m, a := decode[config.Config](t, before), decode[config.Config](t, replaced(t, after, test.change[0], test.change[1]))
			err := newGuard(t, limits).Check(&m, &a, policies(t))
			got := rules(err)
			if got != test.want && !strings.HasPrefix(got, test.want+", target J904") || got != "" && test.want == "" {
				t.Fatalf("got %q: %v", got, err)
			}
			if got != "" && !strings.Contains(violations(err)[0].Err.Subject, test.at) {
				t.Errorf("it is about %s", violations(err)[0].Err.Subject)
			}
			told := map[string]bool{}
			for _, v := range violations(err) {
				if told[v.Err.Error()] {
					t.Errorf("told twice: %v", v)
				}
				told[v.Err.Error()] = true
			}
		})
	}
}

// What can't be said in a file.
func TestCheckValues(t *testing.T) {
	for what, test := range map[string]struct {
		change func(*config.Config, map[string]guard.Policy)
		want   string
	}{
		"an endpoint that says how it is reached": {func(c *config.Config, _ map[string]guard.Policy) {
			c.Cluster("pay|one").Localities[0].Endpoints[0].Transport = "plain"
		}, "transport J905, target J904"},
		"a name that says how it is reached": {func(c *config.Config, _ map[string]guard.Policy) {
			c.Cluster("named").DNS.Names[0].Transport = "plain"
		}, "transport J905, target J904"},
		"never attest anew": {func(c *config.Config, _ map[string]guard.Policy) {
			c.Cluster("logs").Attested.Reattest = -1
		}, "reattest J906"},
		"seldom, by the second of two layers": {func(c *config.Config, p map[string]guard.Policy) {
			p["mesh-strict"] = guard.Policy{Name: "mesh-strict", Pushed: true, Layers: []*policy.Policy{p["mesh-loose"].Layers[1], p["mesh-strict"].Layers[0]}}
			c.Cluster("logs").Attested.Reattest = 45 * time.Minute
		}, "reattest J906"},
		"chains without end": {func(c *config.Config, _ map[string]guard.Policy) {
			nobody := config.Chain{Serving: config.Serving{Plain: true, TCP: true, Cluster: "later"}}
			for i := range c.Listeners {
				if l := &c.Listeners[i]; l.Name == "in" {
					l.Chains = slices.Repeat([]config.Chain{nobody}, 65536)
				}
			}
		}, "most J909"},
		"a socket with a zero byte": {func(c *config.Config, _ map[string]guard.Policy) {
			c.Cluster("pay|one").Localities[1].Endpoints[1].Address = "unix:/run/peers/a\x00"
		}, "target J904"},
		"a policy by a name that is not allowed": {func(_ *config.Config, p map[string]guard.Policy) {
			p["other"] = guard.Policy{Name: "other", Pushed: true, Layers: p["mesh-strict"].Layers}
		}, "policies J906"},
		"a static policy by any name": {func(_ *config.Config, p map[string]guard.Policy) {
			p["other"] = guard.Policy{Name: "other", Layers: p["mesh-strict"].Layers}
		}, ""},
		"tables without end": {func(c *config.Config, _ map[string]guard.Policy) {
			for _, name := range []string{"named", "near"} {
				c.Cluster(name).Policy, c.Cluster(name).TableSize = "maglev", math.MaxInt
			}
		}, "most J909"},
		"tables that make up for others": {func(c *config.Config, _ map[string]guard.Policy) {
			c.Cluster("named").Policy, c.Cluster("named").TableSize = "maglev", 9<<20
			c.Cluster("near").Policy, c.Cluster("near").MaximumRingSize = "ring_hash", 8<<20
			c.Cluster("logs").Policy, c.Cluster("logs").TableSize = "maglev", -(20 << 20)
		}, "most J909"},
		"clients in plain that others can be": {func(c *config.Config, _ map[string]guard.Policy) {
			for i := range c.Listeners {
				if l := &c.Listeners[i]; l.Address == ":15007" {
					l.Plain = true
				}
			}
		}, "clients J903"},
	} {
		t.Run(what, func(t *testing.T) {
			m, a, p := decode[config.Config](t, measuredText), decode[config.Config](t, afterText), policies(t)
			test.change(&a, p)
			if got := rules(newGuard(t, limitsText).Check(&m, &a, p)); got != test.want {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestLimits(t *testing.T) {
	for what, test := range map[string]struct {
		limits, after [2]string
		want          string
	}{
		"rewriting is allowed":           {[2]string{"floor:", "rewrite: true\nfloor:"}, [2]string{"{cluster: ledger}}", "{cluster: ledger, prefix_rewrite: /x, host_rewrite_literal: x}, request_headers: {remove: [a]}}"}, ""},
		"answers are allowed":            {[2]string{"floor:", "answers: true\nfloor:"}, [2]string{"status: 404", "status: 200, body: hello"}, ""},
		"a redirect is allowed":          {[2]string{"floor:", "redirects: [\"*.example\", 10.0.0.0/8]\nfloor:"}, [2]string{"path_redirect: /new", "host_redirect: www.example, scheme_redirect: https, port_redirect: 8443"}, ""},
		"a redirect to its own port":     {[2]string{"floor:", "floor:"}, [2]string{"path_redirect: /new", "path_redirect: /new, port_redirect: 15002"}, ""},
		"nor its own port by TLS":        {[2]string{"floor:", "floor:"}, [2]string{"path_redirect: /new", "port_redirect: 15002, scheme_redirect: https"}, "redirects J908"},
		"another redirect is not":        {[2]string{"floor:", "redirects: [\"*.example\", 10.0.0.0/8]\nfloor:"}, [2]string{"path_redirect: /new", "host_redirect: www.example.evil"}, "redirects J908"},
		"nor one to plaintext":           {[2]string{"floor:", "redirects: [\"*.example\", 10.0.0.0/8]\nfloor:"}, [2]string{"path_redirect: /new", "host_redirect: www.example, scheme_redirect: http"}, "redirects J908"},
		"a weaker binding, by the floor": {[2]string{"floor:", "binding: nonce\nfloor:"}, [2]string{"later", "later"}, ""},
		"no listener":                    {[2]string{"most", "most"}, [2]string{"later", "later"}, ""},
		"listeners":                      {[2]string{"floor:", "most: {listeners: 4}\nfloor:"}, [2]string{"later", "later"}, "most J909"},
		"clusters":                       {[2]string{"floor:", "most: {clusters: 5}\nfloor:"}, [2]string{"later", "later"}, "most J909"},
		"endpoints":                      {[2]string{"floor:", "most: {endpoints: 11}\nfloor:"}, [2]string{"later", "later"}, "most J909"},
		"routes":                         {[2]string{"floor:", "most: {routes: 5}\nfloor:"}, [2]string{"later", "later"}, "most J909"},
		"policies":                       {[2]string{"floor:", "most: {policies: 5}\nfloor:"}, [2]string{"later", "later"}, "most J909"},
		"as many as there are":           {[2]string{"floor:", "most: {listeners: 5, clusters: 6, endpoints: 12, routes: 6, policies: 7, points: 12}\nfloor:"}, [2]string{"later", "later"}, ""},
		"points of a ring":               {[2]string{"floor:", "most: {points: 2097163}\nfloor:"}, [2]string{`  - name: "pay|one"`, "  - lb_policy: ring_hash\n    name: \"pay|one\""}, "most J909"},
		"points of a ring, as many":      {[2]string{"floor:", "most: {points: 2097164}\nfloor:"}, [2]string{`  - name: "pay|one"`, "  - lb_policy: ring_hash\n    name: \"pay|one\""}, ""},
		"points of a large ring":         {[2]string{"floor:", "most: {points: 4000011}\nfloor:"}, [2]string{`  - name: "pay|one"`, "  - lb_policy: ring_hash\n    minimum_ring_size: 2000000\n    name: \"pay|one\""}, "most J909"},
		"points of a small ring":         {[2]string{"floor:", "most: {points: 2012}\nfloor:"}, [2]string{`  - name: "pay|one"`, "  - lb_policy: ring_hash\n    maximum_ring_size: 1000\n    name: \"pay|one\""}, ""},
		"points of a table":              {[2]string{"floor:", "most: {points: 65548}\nfloor:"}, [2]string{"{name: named, attested: {require: mesh-strict, name: x.pay.example},", "{name: named, attested: {require: mesh-strict, name: x.pay.example}, lb_policy: maglev,"}, "most J909"},
		"points of a table, as many":     {[2]string{"floor:", "most: {points: 65549}\nfloor:"}, [2]string{"{name: named, attested: {require: mesh-strict, name: x.pay.example},", "{name: named, attested: {require: mesh-strict, name: x.pay.example}, lb_policy: maglev,"}, ""},
		"points of a table of its size":  {[2]string{"floor:", "most: {points: 113}\nfloor:"}, [2]string{"{name: named, attested: {require: mesh-strict, name: x.pay.example},", "{name: named, attested: {require: mesh-strict, name: x.pay.example}, lb_policy: maglev, table_size: 101,"}, ""},
		"points without end":             {[2]string{"floor:", "most: {points: 8388619}\nfloor:"}, [2]string{"{name: named, attested: {require: mesh-strict, name: x.pay.example},", "{name: named, attested: {require: mesh-strict, name: x.pay.example}, lb_policy: maglev, table_size: 999999999999,"}, "most J909"},
	} {
		t.Run(what, func(t *testing.T) {
			limits := limitsText
			if test.limits[0] != test.limits[1] {
				limits = replaced(t, limits, test.limits[0], test.limits[1])
			}
			m, a := decode[config.Config](t, measuredText), decode[config.Config](t, replaced(t, afterText, test.after[0], test.after[1]))
			if err := newGuard(t, limits).Check(&m, &a, policies(t)); rules(err) != test.want {
				t.Errorf("got %v", err)
			}
		})
	}
}

// The floor may be weaker than the binding that the limits demand.
func TestBinding(t *testing.T) {
	floor := parsePolicy(t, strings.Replace(floorText, "binding: session", "binding: none", 1))
	after := replaced(t, afterText, "attested: {require: mesh-loose}", "attested: {require: mesh-key}")
	for binding, want := range map[string]string{"": "binding J906", "session": "binding J906", "nonce": "binding J906", "key": "", "none": ""} {
		limits := decode[guard.Limits](t, limitsText)
		limits.Binding = binding
		g, err := guard.New(limits, floor)
		if err != nil {
			t.Fatal(err)
		}
		m, a := decode[config.Config](t, measuredText), decode[config.Config](t, after)
		if err := g.Check(&m, &a, policies(t)); rules(err) != want {
			t.Errorf("%q: got %v", binding, err)
		}
	}
}

// Where clients came by TLS, TLS of the same name is no way out.
func TestRedirectWithinTLS(t *testing.T) {
	m := config.Config{}
	a := decode[config.Config](t, `
listen:
  - address: ":15007"
    http: {virtual_hosts: [{name: a, domains: ["*"], routes: [{match: {prefix: /}, redirect: {scheme_redirect: https}}]}]}
`)
	if err := newGuard(t, limitsText).Check(&m, &a, nil); err != nil {
		t.Error(err)
	}
	a.Listeners[0].HTTP.VirtualHosts[0].Routes[0].Redirect.Scheme = "http"
	if got := rules(newGuard(t, limitsText).Check(&m, &a, nil)); got != "redirects J908" {
		t.Error(got)
	}
	a.Listeners[0].HTTP.VirtualHosts[0].Routes[0].Redirect.Scheme = "https"
	a.Listeners[0].HTTP.VirtualHosts[0].Routes[0].Redirect.Port = 99
	if got := rules(newGuard(t, limitsText).Check(&m, &a, nil)); got != "redirects J908" {
		t.Error(got)
	}
}

// Limits that say nothing let nothing in, and leave what was measured alone.
func TestZero(t *testing.T) {
	none, err := guard.New(guard.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := decode[config.Config](t, measuredText)
	for _, g := range []*guard.Guard{none, {}} {
		if err := g.Check(&m, &m, policies(t)); rules(err) != "policies J906" && rules(err) != "policies J906, most J909" {
			t.Errorf("got %v", err)
		}
		if err := g.Check(&m, &m, nil); err != nil {
			t.Error(err)
		}
		for _, added := range []string{
			`clusters: [{name: a, endpoints: [{address: "127.0.0.1:1"}]}]`,
			`clusters: [{name: a, attested: {require: mesh-strict}, localities: []}]`,
			`listen: [{address: "127.0.0.1:1", plain: true, cluster: ledger}]`,
			`listen: [{address: ":1", require: mesh-strict, to: "127.0.0.1:1"}]`,
		} {
			more := decode[config.Config](t, added)
			a := config.Config{Listeners: append(more.Listeners, m.Listeners...), Clusters: append(more.Clusters, m.Clusters...)}
			strict := policies(t)["mesh-strict"]
			strict.Pushed = false
			if err := g.Check(&m, &a, map[string]guard.Policy{"mesh-strict": strict}); err == nil {
				t.Errorf("%s: nothing", added)
			}
		}
	}
}

func TestNew(t *testing.T) {
	const target, listener = `{name: app, to: [loopback], plain: true}`, `{address: ":1", to: [app]}`
	for limits, want := range map[string]string{
		`{floor: f, targets: [` + target + `], listeners: [` + listener + `]}`: "",
		`{binding: key}`: "",
		`{floor: f, targets: [{name: a, to: ["*:443", "10.0.0.0/8", "[::1]:1", "::1", "unix:/a/b", "unix:/a/*", a.example, "*.example:1"], names: [loopback]}]}`: "",

		`{targets: [{name: a, to: ["127.0.0.0/8", "127.0.0.1:80", "::1", "[::1]:80", "localhost:80", loopback, "unix:/a", "unix:/a/*"], plain: true}]}`: "",
		`{targets: [{name: a, to: [a.example, "10.0.0.0/8", "0.0.0.0/0"], plain: true, unsafe_plain: true}]}`:                                           "",
		`{targets: [{name: a, to: [loopback, "10.0.0.0/8"], plain: true}]}`:                                                                             "targets[0].to[1]",
		`{targets: [{name: a, to: ["126.0.0.0/7"], plain: true}]}`:                                                                                      "targets[0].to[0]",
		`{targets: [{name: a, to: ["::/127"], plain: true}]}`:                                                                                           "targets[0].to[0]",
		`{targets: [{name: a, to: [a.example], plain: true}]}`:                                                                                          "targets[0].to[0]",
		`{floor: f, targets: [{name: a, to: [a.example], unsafe_plain: true}]}`:                                                                         "targets[0].unsafe_plain",
		`{targets: [{name: a, to: ["*"], plain: true, unsafe_plain: true}]}`:                                                                            "targets[0].to[0]",
		`{targets: [{name: a, to: ["*"], plain: true}]}`:                                                                                                "targets[0].to[0]",
		`{targets: [{name: a, to: ["*.example"], plain: true}]}`:                                                                                        "targets[0].to[0]",
		`{targets: [{name: a, to: [loopback, "10.0.0.1/8"], plain: true}]}`:                                                                             "targets[0].to[1]",
		`{targets: [{name: a, to: ["::ffff:10.0.0.0/104"], plain: true}]}`:                                                                              "targets[0].to[0]",
		`{floor: f, targets: [{name: a, to: ["*.10.0.0.1"]}]}`:                                                                                          "targets[0].to[0]",
		`{targets: [{name: a, to: ["a.example:0"], plain: true}]}`:                                                                                      "targets[0].to[0]",
		`{targets: [{name: a, to: ["a b"], plain: true}]}`:                                                                                              "targets[0].to[0]",
		`{targets: [{name: a, to: ["unix:/*"], plain: true}]}`:                                                                                          "targets[0].to[0]",
		`{floor: f, targets: [{name: a, to: ["fe80::1%eth0"]}]}`:                                                                                        "targets[0].to[0]",
		`{targets: [{name: a, to: ["a b:80"], plain: true}]}`:                                                                                           "targets[0].to[0]",
		`{targets: [{name: a, to: ["unix:ab"], plain: true}]}`:                                                                                          "targets[0].to[0]",
		`{targets: [{name: a, to: ["unix:/a/../b"], plain: true}]}`:                                                                                     "targets[0].to[0]",
		`{targets: [{name: a, to: [], plain: true}]}`:                                                                                                   "targets[0].to",
		`{targets: [{name: a, to: [loopback], names: [a.example], plain: true}]}`:                                                                       "targets[0].plain",
		`{targets: [{name: a, to: [loopback], policies: [a], plain: true}]}`:                                                                            "targets[0].plain",
		`{floor: f, targets: [{name: a, to: [loopback], names: ["a:1"]}]}`:                                                                              "targets[0].names[0]",
		`{targets: [` + target + `, ` + target + `]}`:                                                                                                   "targets[1].name",
		`{floor: f, targets: [` + target + `], listeners: [{address: "1", to: [app]}]}`:                                                                 "listeners[0].address",
		`{floor: f, targets: [` + target + `], listeners: [` + listener + `, ` + listener + `]}`:                                                        "listeners[1].address",
		`{floor: f, targets: [` + target + `], listeners: [{address: ":1", clients: plain, to: [app]}]}`:                                                "listeners[0].address",
		`{floor: f, targets: [` + target + `], listeners: [{address: ":1", unsafe_listen: true, to: [app]}]}`:                                           "listeners[0].unsafe_listen",
		`{floor: f, targets: [` + target + `], listeners: [{address: "127.0.0.1:1", clients: plain, policies: [a], to: [app]}]}`:                        "listeners[0].policies",
		`{floor: f, targets: [` + target + `], listeners: [{address: ":1", proxy_protocol: [a], to: [app]}]}`:                                           "listeners[0].proxy_protocol[0]",
		`{floor: f, targets: [` + target + `], listeners: [{address: ":1", to: []}]}`:                                                                   "listeners[0].to",
		`{floor: f, targets: [` + target + `], listeners: [{address: ":1", to: [b]}]}`:                                                                  "listeners[0].to[0]",
		`{redirects: ["a:1"]}`: "redirects[0]",
	} {
		l := decode[guard.Limits](t, limits)
		var floor *policy.Policy
		if l.Floor != "" {
			floor = parsePolicy(t, floorText)
		}
		_, err := guard.New(l, floor)
		var coded *attest.Error
		switch {
		case want == "" && err == nil:
		case !errors.As(err, &coded) || coded.Subject != want || coded.Code != attest.CodeConfigValue:
			t.Errorf("%s: got %v", limits, err)
		}
	}
	for what, limits := range map[string]guard.Limits{
		"binding":         {Binding: "strong"},
		"most.listeners":  {Most: guard.Most{Listeners: -1}},
		"most.clusters":   {Most: guard.Most{Clusters: -1}},
		"most.endpoints":  {Most: guard.Most{Endpoints: -1}},
		"most.routes":     {Most: guard.Most{Routes: -1}},
		"most.policies":   {Most: guard.Most{Policies: -1}},
		"most.points":     {Most: guard.Most{Points: -1}},
		"targets":         {Targets: make([]guard.Target, 65)},
		"targets[0].name": {Targets: []guard.Target{{To: []string{"loopback"}, Plain: true}}},
		"listeners[0].clients": {
			Targets:   []guard.Target{{Name: "a", To: []string{"loopback"}, Plain: true}},
			Listeners: []guard.Listener{{Address: ":1", Clients: "friends", To: []string{"a"}}},
		},
	} {
		var coded *attest.Error
		if _, err := guard.New(limits, parsePolicy(t, floorText)); !errors.As(err, &coded) || coded.Subject != what {
			t.Errorf("%s: got %v", what, err)
		}
	}
	for _, text := range []string{`{targets: [{name: a, to: [a.example]}]}`, `{targets: [` + target + `], listeners: [` + listener + `]}`} {
		var coded *attest.Error
		if _, err := guard.New(decode[guard.Limits](t, text), nil); !errors.As(err, &coded) || coded.Code != attest.CodeConfigMissing || coded.Subject != "floor" {
			t.Errorf("%s: got %v", text, err)
		}
	}
	for _, text := range []string{`{targets: [` + target + `], listeners: [{address: "127.0.0.1:1", clients: plain, to: [app]}]}`, `{rewrite: true}`} {
		if _, err := guard.New(decode[guard.Limits](t, text), nil); err != nil {
			t.Errorf("%s: got %v", text, err)
		}
	}
}

func TestLongestOutage(t *testing.T) {
	for text, want := range map[string]string{"{}": "24h0m0s", "{longest_outage: 1h}": "1h0m0s", "{longest_outage: never}": "0s"} {
		l := decode[guard.Limits](t, text)
		if got := l.LongestOutage().String(); got != want {
			t.Errorf("%s: got %s", text, got)
		}
	}
}

// A hostile configuration does not make the report endless.
func TestBounded(t *testing.T) {
	var a config.Config
	for i := range 1000 {
		a.Clusters = append(a.Clusters, decode[config.Config](t, fmt.Sprintf(`clusters: [{name: c%d, health_check: {kind: tcp}, endpoints: [{address: "203.0.113.1:1"}]}]`, i)).Clusters...)
	}
	err := newGuard(t, limitsText).Check(&config.Config{}, &a, nil)
	if n := len(violations(err)); n != 20 {
		t.Errorf("got %d", n)
	}
}

// Where connections were going is in targets that are everywhere, and this machine in those that are loopback.
func TestOnward(t *testing.T) {
	for target, want := range map[string][2]string{ // attested, in plain
		`{to: ["*"], names: ["*"]}`:                                                   {"", "target J904"},
		`{to: ["*"], names: [x.example]}`:                                             {"target J904", "target J904"},
		`{to: ["*:443"], names: ["*"]}`:                                               {"target J904", "target J904"},
		`{to: ["0.0.0.0/0", "::/0"], names: ["*"]}`:                                   {"target J904", "target J904"},
		`{to: [loopback], names: ["*"]}`:                                              {"target J904", "target J904"},
		`{to: ["*"], names: ["*"], policies: [mesh-loose]}`:                           {"target J904", "target J904"},
		`{to: [loopback], plain: true}`:                                               {"target J904", ""},
		`{to: ["loopback:80"], plain: true}`:                                          {"target J904", "target J904"},
		`{to: ["127.0.0.0/8", "0.0.0.0/0", "::/0"], plain: true, unsafe_plain: true}`: {"target J904", "target J904"},
	} {
		limits := guard.Limits{Policies: []string{"*"}, Targets: []guard.Target{decode[guard.Target](t, strings.Replace(target, "{", "{name: a, ", 1))}}
		g, err := guard.New(limits, parsePolicy(t, floorText))
		if err != nil {
			t.Fatal(err)
		}
		for i, text := range []string{`clusters: [{name: c, attested: {require: mesh-strict}, health_check: {kind: tcp}, original_destination: {}}]`, `clusters: [{name: c, health_check: {kind: tcp}, original_destination: {}}]`} {
			a := decode[config.Config](t, text)
			if err := g.Check(&config.Config{}, &a, policies(t)); rules(err) != want[i] {
				t.Errorf("%s, %s: got %v", target, text, err)
			}
		}
	}
}

func TestViolation(t *testing.T) {
	limits := decode[guard.Limits](t, limitsText)
	limits.Most.Listeners = 1
	g, err := guard.New(limits, parsePolicy(t, floorText))
	if err != nil {
		t.Fatal(err)
	}
	m, a := decode[config.Config](t, measuredText), decode[config.Config](t, replaced(t, afterText, "127.0.0.1:7000", "127.0.0.1:1"))
	err = g.Check(&m, &a, policies(t))
	all := violations(err)
	if len(all) != 2 {
		t.Fatalf("got %v", err)
	}
	if v := all[0]; v.Part != guard.PartCluster || v.Name != "side" || v.Err.Subject != `cluster "side"` {
		t.Errorf("got %+v", v)
	}
	if v := all[1]; v.Part != guard.PartWhole || v.Err.Subject != "listeners" {
		t.Errorf("got %+v", v)
	}
	var coded *attest.Error
	if !errors.As(err, &coded) || coded != all[0].Err {
		t.Errorf("got %v", coded)
	}
}

// What passes as an address is, to those who dial it, what the limits say.
func FuzzAddress(f *testing.F) {
	for _, s := range []string{"10.0.0.1:443", "[::ffff:10.0.0.1]:443", "a.pay.example:443", "unix:/run/peers/1", "unix:/run/peers/../x", "10.0.0.1:0443", "010.0.0.1:443", "10.0.0.1%a:443", "[10.0.0.1]:443", "A.PAY.EXAMPLE.:443"} {
		f.Add(s)
	}
	g, err := guard.New(decode[guard.Limits](f, `{targets: [{name: a, to: ["10.0.0.0/8:443", "*.pay.example:443", "unix:/run/peers/*"]}, {name: b, to: ["10.0.0.0/8:443", a.pay.example, "unix:/run/peers/*"], plain: true, unsafe_plain: true}]}`), parsePolicy(f, floorText))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, address string) {
		c := config.Config{Clusters: []config.Cluster{{Config: upstream.Config{Name: "c", HealthCheck: new(upstream.HealthCheck)}, Endpoints: []upstream.EndpointConfig{{Identity: upstream.Identity{Address: address}}}}}}
		if g.Check(&config.Config{}, &c, nil) != nil {
			return
		}
		if path, ok := strings.CutPrefix(address, "unix:"); ok {
			if !strings.HasPrefix(filepath.Clean(path), "/run/peers/") {
				t.Fatalf("%q", address)
			}
			return
		}
		host, port, err := net.SplitHostPort(address)
		if err != nil {
			t.Fatalf("%q: %v", address, err)
		}
		if n, err := net.LookupPort("tcp", port); err != nil || n != 443 && !strings.EqualFold(strings.TrimSuffix(host, "."), "a.pay.example") {
			t.Fatalf("%q: port %d, %v", address, n, err)
		}
		if ip := net.ParseIP(host); ip != nil {
			if ip4 := ip.To4(); ip4 == nil || ip4[0] != 10 {
				t.Fatalf("%q", address)
			}
			return
		}
		if !strings.EqualFold(strings.TrimSuffix(host, "."), "a.pay.example") {
			t.Fatalf("%q", address)
		}
	})
}
