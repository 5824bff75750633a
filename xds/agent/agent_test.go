package agent_test

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/strictyaml"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/guard"
	"github.com/jurat-tls/jurat/xds/resource"
)

const (
	launch    = "55d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d055d0"
	floorText = `policy: floor
platforms: {allow: [amd milan+]}
workload: {measurement: {any_of: [{value: ` + launch + `, name: v1}]}, debug: off}
binding: session
freshness: {evidence: 2h}
`
	pushedText = `policy: mesh
platforms: {allow: [amd genoa+]}
workload: {measurement: any, debug: off}
binding: session
freshness: {evidence: 1h}
`

	limitsText = `
floor: floor.yaml
policies: [mesh*]
targets:
  - {name: pay, to: ["10.0.0.0/8:8443"], names: ["*.pay.example"]}
  - {name: app, to: ["loopback"], plain: true}
  - {name: log, to: ["10.9.0.1:443"], names: [log.example]}
listeners:
  - {address: "127.0.0.1:15001", clients: plain, to: [pay, log]}
  - {address: "127.0.0.1:15002", clients: plain, to: [pay, log]}
  - {address: "0.0.0.0:15006", to: [app]}
`
	staticText = `
listen:
  - {name: static, address: "127.0.0.1:9000", plain: true, tcp: true, cluster: ledger}
clusters:
  - {name: ledger, attested: {require: ledger.yaml, name: log.example}, endpoints: [{address: "10.9.0.1:443"}]}
`
)

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

func parsePolicy(t testing.TB, text string) *policy.Policy {
	t.Helper()
	p, err := policy.Parse("p.yaml", []byte(text), policy.NoFiles)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// proxy is what an Agent configures.
type proxy struct {
	config   *config.Config
	policies map[string]guard.Policy
	applied  int
	fail     error
}

func (p *proxy) Apply(c *config.Config, policies map[string]guard.Policy) error {
	if p.fail != nil {
		return p.fail
	}
	p.config, p.policies = c, policies
	p.applied++
	return nil
}

// asked is what is subscribed to.
type asked struct {
	names map[string][]string
	fail  error
}

func (a *asked) Subscribe(typ string, names []string, _ time.Duration) error {
	if a.fail != nil {
		return a.fail
	}
	a.names[typ] = slices.Clone(names)
	return nil
}

// memory is a Store.
type memory struct {
	raw   []byte
	fail  error
	saved int
}

func (m *memory) Load() ([]byte, error) { return m.raw, m.fail }

func (m *memory) Save(raw []byte) error {
	if m.fail != nil {
		return m.fail
	}
	m.raw = raw
	m.saved++
	return nil
}

// bench is an Agent with all that it needs.
type bench struct {
	testing.TB
	*agent.Agent
	proxy  *proxy
	asked  *asked
	static *config.Config
}

func newBench(t testing.TB, limits string, options agent.Options) *bench {
	t.Helper()
	static := decode[config.Config](t, staticText)
	b := &bench{TB: t, proxy: &proxy{config: &static}, asked: &asked{names: map[string][]string{}}, static: &static}
	var err error
	b.Agent, err = agent.New(decode[guard.Limits](t, limits), parsePolicy(t, floorText), &static,
		map[string]*policy.Policy{"ledger.yaml": parsePolicy(t, floorText)}, b.proxy, options)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.Start(b.asked); err != nil {
		t.Fatal(err)
	}
	return b
}

const (
	typePrefix = "type.googleapis.com/"
	clusterURL = typePrefix + "envoy.config.cluster.v3.Cluster"
)

// clusterText is a cluster with endpoints of a name, attested under a policy, or in plain for "".
func clusterText(name, endpoints, policy string) string {
	text := `"@type": ` + clusterURL + `
name: ` + name + `
type: EDS
eds_cluster_config: {service_name: ` + endpoints + `, eds_config: {ads: {}, resource_api_version: V3}}
`
	if policy == "" {
		return text
	}
	return text + `transport_socket:
  name: envoy.transport_sockets.tls
  typed_config:
    "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
    common_tls_context:
      validation_context:
        custom_validator_config:
          name: jurat
          typed_config: {"@type": type.googleapis.com/jurat.config.v1alpha1.AttestationValidator, policy: ` + policy + `, pki_mode: EVIDENCE_ONLY, name: a.pay.example}
`
}

func endpointsText(name string, addresses ...string) string {
	text := `"@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
cluster_name: ` + name + `
endpoints: [{lb_endpoints: [`
	for _, a := range addresses {
		host, port, _ := strings.Cut(a, ":")
		text += `{endpoint: {address: {socket_address: {address: ` + host + `, port_value: ` + port + `}}}},`
	}
	return text + "]}]\n"
}

// listenerText is a plain listener for requests with routes of a name.
func listenerText(name, port, routes string) string {
	return `"@type": type.googleapis.com/envoy.config.listener.v3.Listener
name: ` + name + `
address: {socket_address: {address: 127.0.0.1, port_value: ` + port + `}}
filter_chains:
- filters:
  - name: envoy.filters.network.http_connection_manager
    typed_config:
      "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
      stat_prefix: x
      http_filters:
      - name: envoy.filters.http.router
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
      rds: {config_source: {ads: {}, resource_api_version: V3}, route_config_name: ` + routes + `}
`
}

func routesText(name, cluster string) string {
	return `"@type": type.googleapis.com/envoy.config.route.v3.RouteConfiguration
name: ` + name + `
virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: /}, route: {cluster: ` + cluster + `}}]}]
`
}

func policyText(name string, serial int, text string) string {
	return fmt.Sprintf(`"@type": type.googleapis.com/jurat.config.v1alpha1.AttestationPolicy
name: %s
serial: %d
policy: %q
`, name, serial, text)
}

// load reads resources.
func load(t testing.TB, version string, texts ...string) (all []resource.Resource) {
	t.Helper()
	for _, text := range texts {
		docs, err := envoy.Load("r.yaml", []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range docs {
			d.Resource.Version = version
			all = append(all, d.Resource)
		}
	}
	return all
}

func (b *bench) offer(version string, texts ...string) error {
	b.Helper()
	changed := load(b, version, texts...)
	defer b.Kept()
	return b.Offer(&client.Update{Type: changed[0].Type, Version: version, Changed: changed})
}

// ok offers what has to be accepted.
func (b *bench) ok(texts ...string) {
	b.Helper()
	if err := b.offer("1", texts...); err != nil {
		b.Fatal(err)
	}
}

// refused offers what has to be refused, and leave everything as it was.
func (b *bench) refused(texts ...string) *client.Rejection {
	b.Helper()
	before, wanted := *b.proxy, maps.Clone(b.asked.names)
	err := b.offer("2", texts...)
	var r *client.Rejection
	if !errors.As(err, &r) {
		b.Fatalf("got %v", err)
	}
	if !reflect.DeepEqual(before, *b.proxy) || !reflect.DeepEqual(wanted, b.asked.names) {
		b.Fatal("something changed")
	}
	return r
}

func (b *bench) removed(typ string, names ...string) error {
	return b.Offer(&client.Update{Type: typ, Removed: names})
}

// shape is the configuration in few words, without what is static.
func (b *bench) shape() string {
	var parts []string
	for i := range b.proxy.config.Listeners {
		l := &b.proxy.config.Listeners[i]
		if l.Name == "static" {
			continue
		}
		to := l.Serving.Clusters()
		for _, c := range l.Chains {
			to = append(to, c.Serving.Clusters()...)
		}
		parts = append(parts, fmt.Sprintf("%s>%s", l.Name, strings.Join(to, "+")))
	}
	for i := range b.proxy.config.Clusters {
		c := &b.proxy.config.Clusters[i]
		if c.Name == "ledger" {
			continue
		}
		text := c.Name + "="
		for _, l := range c.Static() {
			for _, e := range l.Endpoints {
				text += e.Address + ","
			}
		}
		if c.Attested != nil {
			text += "/" + c.Attested.Require
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, " ")
}

func (b *bench) want(shape string) {
	b.Helper()
	if got := b.shape(); got != shape {
		b.Fatalf("got  %s\nwant %s", got, shape)
	}
}

// running is a bench with a configuration at work.
func running(t testing.TB, options agent.Options) *bench {
	b := newBench(t, limitsText, options)
	b.ok(clusterText("pay", "pay", "mesh"))
	b.ok(policyText("mesh", 5, pushedText))
	b.ok(endpointsText("pay", "10.0.0.1:8443"))
	b.ok(listenerText("out", "15001", "routes"))
	b.ok(routesText("routes", "pay"))
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	return b
}

// What is incomplete is not used, and what it refers to is asked for.
func TestWarming(t *testing.T) {
	b := newBench(t, limitsText, agent.Options{})
	if w := b.asked.names; !slices.Equal(w[resource.Cluster], []string{"*"}) || !slices.Equal(w[resource.Listener], []string{"*"}) || len(w) != 2 {
		t.Fatalf("got %v", w)
	}
	b.ok(clusterText("pay", "service", "mesh"))
	b.want("")
	if w := b.asked.names; !slices.Equal(w[resource.Endpoints], []string{"service"}) || !slices.Equal(w[resource.AttestationPolicy], []string{"mesh"}) {
		t.Fatalf("got %v", w)
	}
	b.ok(endpointsText("service", "10.0.0.1:8443"))
	b.want("")
	b.ok(policyText("mesh", 1, pushedText))
	b.want("pay=10.0.0.1:8443,/xds:mesh")
	p := b.proxy.policies["xds:mesh"]
	if p.Name != "mesh" || !p.Pushed || len(p.Layers) != 2 || p.Layers[1].Name() != "floor" || p.Layers[0].Name() != "mesh" {
		t.Errorf("got %+v", p)
	}
	b.ok(listenerText("out", "15001", "routes"))
	b.want("pay=10.0.0.1:8443,/xds:mesh")
	if w := b.asked.names[resource.Route]; !slices.Equal(w, []string{"routes"}) {
		t.Fatalf("got %v", w)
	}
	s := b.Status()
	if len(s.Warming) != 1 || s.Warming[0].Name != "out" || s.Warming[0].Old || !slices.Equal(s.Warming[0].For, []string{"RouteConfiguration routes"}) {
		t.Errorf("got %+v", s.Warming)
	}
	if _, ok := b.Running()[envoy.Key{Type: resource.Listener, Name: "out"}]; ok || len(b.Running()) != 3 {
		t.Errorf("running: %v", b.Running())
	}
	b.ok(routesText("routes", "pay"))
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	if _, ok := b.Running()[envoy.Key{Type: resource.Listener, Name: "out"}]; !ok || len(b.Running()) != 5 {
		t.Errorf("running: %v", b.Running())
	}
	if s := b.Status(); len(s.Warming) != 0 || len(s.Policies) != 1 || s.Policies[0].Serial != 1 || s.Types[resource.Cluster].Resources != 1 || s.Types[resource.Cluster].Accepted != 1 {
		t.Errorf("got %+v", s)
	}
	for _, m := range b.static.Listeners {
		if !slices.ContainsFunc(b.proxy.config.Listeners, func(l config.Listener) bool { return l.Equal(&m) }) {
			t.Error("the static listener is gone")
		}
	}
}

// What was in use goes on until what is new is complete.
func TestMakeBeforeBreak(t *testing.T) {
	b := running(t, agent.Options{})
	const before = "out>pay pay=10.0.0.1:8443,/xds:mesh"
	b.ok(clusterText("pay", "other", "mesh2")) // other endpoints, under another policy
	b.want(before)
	if s := b.Status(); len(s.Warming) == 0 || s.Warming[0].Name != "pay" || !s.Warming[0].Old {
		t.Errorf("got %+v", s.Warming)
	}
	if r := b.Running()[envoy.Key{Type: resource.Cluster, Name: "pay"}]; strings.Contains(string(r.Body), "other") {
		t.Errorf("running: %q", r.Body)
	}
	if w := b.asked.names; !slices.Equal(w[resource.Endpoints], []string{"other", "pay"}) || !slices.Equal(w[resource.AttestationPolicy], []string{"mesh", "mesh2"}) {
		t.Fatalf("got %v", w)
	}
	b.ok(endpointsText("pay", "10.0.0.2:8443")) // of the old one, which is still in use
	b.want("out>pay pay=10.0.0.2:8443,/xds:mesh")
	b.ok(endpointsText("other", "10.0.0.3:8443"))
	b.want("out>pay pay=10.0.0.2:8443,/xds:mesh")
	b.ok(policyText("mesh2", 1, pushedText))
	b.want("out>pay pay=10.0.0.3:8443,/xds:mesh2")
	if w := b.asked.names; !slices.Equal(w[resource.Endpoints], []string{"other"}) || !slices.Equal(w[resource.AttestationPolicy], []string{"mesh2"}) {
		t.Errorf("got %v", w)
	}

	b.ok(listenerText("out", "15001", "later")) // other routes
	b.want("out>pay pay=10.0.0.3:8443,/xds:mesh2")
	b.ok(clusterText("pay", "other", "mesh2"), clusterText("new", "new", "mesh2"))
	b.ok(routesText("later", "new")) // to a cluster that waits
	b.want("out>pay pay=10.0.0.3:8443,/xds:mesh2")
	b.ok(endpointsText("new", "10.0.0.4:8443"))
	b.want("out>new new=10.0.0.4:8443,/xds:mesh2 pay=10.0.0.3:8443,/xds:mesh2")

	// Routes that lead to what waits are what they were.
	b.ok(clusterText("pay", "other", "mesh2"), clusterText("new", "new", "mesh2"), clusterText("third", "third", "mesh2"))
	b.ok(routesText("later", "third"))
	b.want("out>new new=10.0.0.4:8443,/xds:mesh2 pay=10.0.0.3:8443,/xds:mesh2")
	b.ok(routesText("later", "new"))
	b.want("out>new new=10.0.0.4:8443,/xds:mesh2 pay=10.0.0.3:8443,/xds:mesh2")
	if err := b.removed(resource.Cluster, "third"); err != nil {
		t.Fatal(err)
	}
	// Routes that led to what was not there go on doing so while it waits.
	b.ok(routesText("later", "fourth"))
	b.want("out>fourth new=10.0.0.4:8443,/xds:mesh2 pay=10.0.0.3:8443,/xds:mesh2 fourth=")
	b.ok(clusterText("fourth", "fourth", "mesh2"))
	b.want("out>fourth new=10.0.0.4:8443,/xds:mesh2 pay=10.0.0.3:8443,/xds:mesh2 fourth=")
	b.ok(endpointsText("fourth", "10.0.0.5:8443"))
	b.want("out>fourth fourth=10.0.0.5:8443,/xds:mesh2 new=10.0.0.4:8443,/xds:mesh2 pay=10.0.0.3:8443,/xds:mesh2")
	b.ok(routesText("later", "new"))
	if err := b.removed(resource.Cluster, "fourth"); err != nil {
		t.Fatal(err)
	}

	// A cluster goes last.
	if err := b.removed(resource.Cluster, "new"); err != nil {
		t.Fatal(err)
	}
	b.want("out>new new=10.0.0.4:8443,/xds:mesh2 pay=10.0.0.3:8443,/xds:mesh2")
	b.ok(routesText("later", "pay"))
	b.want("out>pay pay=10.0.0.3:8443,/xds:mesh2")
	if err := b.removed(resource.Listener, "out"); err != nil {
		t.Fatal(err)
	}
	b.want("pay=10.0.0.3:8443,/xds:mesh2")
	if w := b.asked.names[resource.Route]; len(w) != 0 {
		t.Errorf("got %v", w)
	}
	if err := b.removed(resource.Cluster, "pay"); err != nil {
		t.Fatal(err)
	}
	b.want("")
	if !reflect.DeepEqual(b.proxy.config.Clusters, b.static.Clusters) || !reflect.DeepEqual(b.proxy.config.Listeners, b.static.Listeners) {
		t.Error("something is left")
	}
}

// A cluster takes the place of another one in one update, as a control plane says it to who comes back to it. What leads to the old
// one, which has to be attested, keeps it until it leads to the new one, and nobody is refused for what is gone.
func TestReplacedAtOnce(t *testing.T) {
	b := newBench(t, limitsText+`attested: ["pay*"]`, agent.Options{})
	b.ok(clusterText("pay", "pay", "mesh"))
	b.ok(policyText("mesh", 5, pushedText))
	b.ok(endpointsText("pay", "10.0.0.1:8443"))
	b.ok(listenerText("out", "15001", "routes"))
	b.ok(routesText("routes", "pay"))
	if err := b.Offer(&client.Update{Type: resource.Cluster, Changed: load(t, "2", clusterText("pay2", "pay2", "mesh")), Removed: []string{"pay"}}); err != nil {
		t.Fatal(err)
	}
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	b.ok(endpointsText("pay2", "10.0.0.2:8443"))
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh pay2=10.0.0.2:8443,/xds:mesh")
	b.ok(routesText("routes", "pay2"))
	b.want("out>pay2 pay2=10.0.0.2:8443,/xds:mesh")
	// What is wrong with the new one is said at once, all the same.
	if err := b.Offer(&client.Update{Type: resource.Cluster, Changed: load(t, "3", clusterText("pay3", "pay3", "")+"connect_timeout: 1s\n"), Removed: []string{"pay2"}}); err == nil || !strings.Contains(err.Error(), "pay3") || strings.Contains(err.Error(), "pay2") {
		t.Errorf("got %v", err)
	}
}

// Two listeners change places.
func TestSwap(t *testing.T) {
	b := running(t, agent.Options{})
	b.ok(listenerText("a", "15001", "routes"), listenerText("out", "15002", "later"))
	b.want("a>pay pay=10.0.0.1:8443,/xds:mesh") // what is complete has the address
	b.ok(routesText("later", "pay"))
	b.want("a>pay out>pay pay=10.0.0.1:8443,/xds:mesh")
}

// What does not come in time is gone without.
func TestMissing(t *testing.T) {
	b := newBench(t, limitsText, agent.Options{})
	b.ok(clusterText("pay", "service", "mesh"))
	b.ok(policyText("mesh", 1, pushedText))
	b.ok(listenerText("out", "15001", "routes"))
	b.want("")
	b.Missing(resource.Route, []string{"routes"})
	b.Missing(resource.Listener, []string{"*"})
	b.want("")
	b.Missing(resource.Endpoints, []string{"service"})
	b.want("pay=/xds:mesh")
	b.ok(endpointsText("service", "10.0.0.1:8443"))
	b.want("pay=10.0.0.1:8443,/xds:mesh")
	// What does not exist is not waited for either.
	b.ok(clusterText("pay", "service", "mesh"), clusterText("two", "two", "mesh"))
	b.want("pay=10.0.0.1:8443,/xds:mesh")
	if err := b.removed(resource.Endpoints, "two"); err != nil {
		t.Fatal(err)
	}
	b.want("pay=10.0.0.1:8443,/xds:mesh two=/xds:mesh")
	// Endpoints that are in use stay.
	if err := b.removed(resource.Endpoints, "service"); err != nil {
		t.Fatal(err)
	}
	b.want("pay=10.0.0.1:8443,/xds:mesh two=/xds:mesh")
	// Nobody is let in without a policy.
	b.ok(clusterText("pay", "service", "mesh9"), clusterText("two", "two", "mesh"))
	b.Missing(resource.AttestationPolicy, []string{"mesh9"})
	b.want("pay=10.0.0.1:8443,/xds:mesh two=/xds:mesh")
	b.proxy.fail = errors.New("no")
	b.Missing(resource.Endpoints, []string{"service"})
	b.want("pay=10.0.0.1:8443,/xds:mesh two=/xds:mesh")
}

// What the limits do not allow is refused, and says why.
func TestLimits(t *testing.T) {
	b := running(t, agent.Options{})
	for what, test := range map[string]struct {
		text string
		name string // of the resource; "" for none of the update's
		code attest.Code
	}{
		"endpoints elsewhere":            {endpointsText("pay", "192.0.2.1:443"), "", attest.CodeLimitTarget},
		"a listener elsewhere":           {listenerText("more", "1", "routes"), "more", attest.CodeLimitListener},
		"in place of a static cluster":   {clusterText("ledger", "pay", "mesh"), "ledger", attest.CodeLimitMeasured},
		"in place of a static listener":  {listenerText("static", "15002", "routes"), "static", attest.CodeLimitMeasured},
		"at a static listener's address": {listenerText("x", "9000", "routes"), "x", attest.CodeLimitMeasured},
		"in plain":                       {clusterText("pay", "pay", ""), "pay", attest.CodeLimitPlain},
		"a policy that may not be":       {policyText("other", 1, pushedText), "other", attest.CodeLimitPolicy},
		"a policy that is none":          {policyText("mesh", 6, "policy: x\n"), "mesh", attest.CodeConfigMissing},
		"a policy of the static file":    {policyText("ledger.yaml", 6, pushedText), "ledger.yaml", attest.CodeConfigValue},
		"an older policy":                {policyText("mesh", 4, pushedText), "mesh", attest.CodeRollback},
		"another policy for the same":    {policyText("mesh", 5, strings.Replace(pushedText, "genoa+", "turin+", 1)), "mesh", attest.CodeRollback},
		"a policy that asks too seldom":  {strings.Replace(clusterText("pay", "pay", "mesh"), "EVIDENCE_ONLY", "EVIDENCE_ONLY, reattest: 3600s", 1), "pay", attest.CodeLimitPolicy},
		"a route to nowhere that is":     {routesText("routes", "ledger2"), "", ""},
		"TLS without a validator":        {strings.Split(clusterText("pay", "pay", "mesh"), "    common_tls")[0] + "    common_tls_context: {}\n", "pay", attest.CodeConfigMissing},
	} {
		t.Run(what, func(t *testing.T) {
			b := *b
			b.TB = t
			if test.code == "" {
				return
			}
			r := b.refused(test.text)
			if text := r.Resources[test.name]; test.name != "" && (!strings.Contains(text, string(test.code)) || len(r.Resources) != 1) || test.name == "" && !strings.Contains(r.Reason, string(test.code)) {
				t.Errorf("got %+v", r)
			}
			s := b.Status()
			if last := s.Types[load(t, "", test.text)[0].Type].Refusal; last == nil || last.Code != test.code || !last.Stands {
				t.Errorf("got %+v", last)
			}
		})
	}
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	b.ok(endpointsText("pay", "10.0.0.2:8443"))
	if last := b.Status().Types[resource.Endpoints]; last.Refusal == nil || last.Refusal.Stands || last.Refused == 0 {
		t.Errorf("got %+v", last)
	}
	// A route can lead to what is static, and to what nobody describes.
	b.ok(routesText("routes", "ledger"))
	b.want("out>ledger pay=10.0.0.2:8443,/xds:mesh")
	b.ok(routesText("routes", "nobody"))
	b.want("out>nobody pay=10.0.0.2:8443,/xds:mesh nobody=")
}

// Whoever sent what is wrong is told, although it is not complete yet.
func TestEarly(t *testing.T) {
	b := newBench(t, strings.Replace(limitsText, "policies: [mesh*]", "policies: [mesh*]\nattested: [\"must*\"]", 1), agent.Options{})
	r := b.refused(clusterText("must", "later", "") + "connect_timeout: 1s\n")
	if !strings.Contains(r.Resources["must"], string(attest.CodeLimitPlain)) {
		t.Errorf("got %+v", r)
	}
}

// A policy that denies is carried out at once, and nothing else changes.
func TestDenial(t *testing.T) {
	b := running(t, agent.Options{})
	before := b.proxy.config
	b.ok(policyText("mesh", 6, strings.Replace(pushedText, "allow: [amd genoa+]", "allow: [amd genoa+], deny: [amd turin]", 1)))
	if !reflect.DeepEqual(before, b.proxy.config) || b.proxy.policies["xds:mesh"].Layers[0].ID() == parsePolicy(t, pushedText).ID() {
		t.Error("another configuration, or the same policy")
	}
	n := b.proxy.applied
	b.ok(policyText("mesh", 6, strings.Replace(pushedText, "allow: [amd genoa+]", "allow: [amd genoa+], deny: [amd turin]", 1)))
	if b.proxy.applied != n {
		t.Error("the same was applied again")
	}
}

// Files that a policy names come with it, or as reference values of their own.
func TestReferences(t *testing.T) {
	b := running(t, agent.Options{})
	withFloor := pushedText + "floor: below.yaml\n"
	policyRefs := func(serial int) string { return policyText("mesh", serial, withFloor) + "reference_values: [values]\n" }
	if r := b.refused(policyText("mesh", 6, withFloor)); !strings.Contains(r.Resources["mesh"], "below.yaml") {
		t.Errorf("got %+v", r)
	}
	b.ok(policyRefs(7))
	if w := b.asked.names[resource.ReferenceValues]; !slices.Equal(w, []string{"values"}) {
		t.Fatalf("got %v", w)
	}
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	if len(b.Status().Warming) == 0 {
		t.Error("nothing waits")
	}
	send := func(serial uint64, text string) error {
		raw, err := api.References{Name: "values", Serial: serial, Files: map[string][]byte{"below.yaml": []byte(text)}}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b.Offer(&client.Update{Type: resource.ReferenceValues, Changed: []resource.Resource{{Type: resource.ReferenceValues, Name: "values", Body: raw}}})
	}
	if err := send(1, "nonsense: ["); err == nil || !strings.Contains(err.Error(), "below.yaml") {
		t.Errorf("got %v", err)
	}
	if err := send(2, floorText); err != nil {
		t.Fatal(err)
	}
	first := b.proxy.policies["xds:mesh"].Layers[0].ID()
	if err := send(1, floorText); err == nil || !strings.Contains(err.Error(), string(attest.CodeRollback)) {
		t.Errorf("got %v", err)
	}
	if err := send(3, strings.Replace(floorText, "milan+", "genoa+", 1)); err != nil {
		t.Fatal(err)
	}
	if b.proxy.policies["xds:mesh"].Layers[0].ID() == first {
		t.Error("the policy is the same as before")
	}
	b.refused(policyText("mesh", 8, withFloor)) // whose file is not there any more
	b.ok(policyText("mesh", 8, pushedText))
	if w := b.asked.names[resource.ReferenceValues]; len(w) != 0 {
		t.Errorf("got %v", w)
	}
	b.ok(policyRefs(9)) // which wait again
	if w := b.asked.names[resource.ReferenceValues]; !slices.Equal(w, []string{"values"}) || len(b.Status().Warming) == 0 {
		t.Errorf("got %v", w)
	}
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	if err := send(4, floorText); err != nil {
		t.Fatal(err)
	}
	if len(b.Status().Warming) != 0 {
		t.Error("something waits")
	}
}

// What can't be carried out is refused.
func TestTargetFails(t *testing.T) {
	b := running(t, agent.Options{})
	b.proxy.fail = errors.New("the address is taken")
	if r := b.refused(endpointsText("pay", "10.0.0.2:8443")); !strings.Contains(r.Reason, "the address is taken") {
		t.Errorf("got %+v", r)
	}
	// Serials of what was refused do not count.
	b.refused(policyText("mesh", 9, strings.Replace(pushedText, "genoa+", "turin+", 1)))
	b.proxy.fail = nil
	b.ok(policyText("mesh", 6, strings.Replace(pushedText, "genoa+", "turin+", 1)))
	b.ok(endpointsText("pay", "10.0.0.3:8443"))
	b.want("out>pay pay=10.0.0.3:8443,/xds:mesh")
}

// Serials outlive the process.
func TestStore(t *testing.T) {
	m := &memory{}
	running(t, agent.Options{Store: m})
	if m.saved != 1 {
		t.Errorf("saved %d times", m.saved)
	}
	again := newBench(t, limitsText, agent.Options{Store: m})
	if r := again.refused(policyText("mesh", 4, pushedText)); !strings.Contains(r.Resources["mesh"], string(attest.CodeRollback)) {
		t.Errorf("got %+v", r)
	}
	again.ok(policyText("mesh", 5, pushedText))

	m.fail = errors.New("the disk is full")
	static := decode[config.Config](t, staticText)
	if _, err := agent.New(guard.Limits{}, nil, &static, nil, &proxy{}, agent.Options{Store: m}); attest.CodeOf(err) != attest.CodeXDSKept {
		t.Errorf("got %v", err)
	}
	if _, err := agent.New(guard.Limits{}, nil, &static, nil, &proxy{}, agent.Options{Store: &memory{raw: []byte("x")}}); attest.CodeOf(err) != attest.CodeXDSKept {
		t.Errorf("got %v", err)
	}
	// An urgent denial is not held up by a disk that is full.
	again.ok(policyText("mesh", 6, strings.Replace(pushedText, "genoa+", "turin+", 1)))
	if s := again.Status(); !s.Unkept {
		t.Errorf("got %+v", s)
	}
	m.fail = nil
	again.ok(policyText("mesh", 6, strings.Replace(pushedText, "genoa+", "turin+", 1)))
	if s := again.Status(); s.Unkept {
		t.Errorf("got %+v", s)
	}
	third := newBench(t, limitsText, agent.Options{Store: m})
	third.refused(policyText("mesh", 5, pushedText))
}

func TestOrderedVersions(t *testing.T) {
	b := newBench(t, limitsText+"ordered_versions: true\n", agent.Options{})
	if err := b.offer("7", clusterText("pay", "pay", "mesh")); err != nil {
		t.Fatal(err)
	}
	for _, version := range []string{"6", "", "x", "07", "08", "-1"} {
		if err := b.offer(version, clusterText("pay", "pay2", "mesh")); err == nil || !strings.Contains(err.Error(), string(attest.CodeRollback)) {
			t.Errorf("%q: got %v", version, err)
		}
	}
	if err := b.offer("7", clusterText("pay", "pay2", "mesh")); err == nil {
		t.Error("other content under the same version")
	}
	if err := b.removed(resource.Cluster, "pay"); err != nil {
		t.Fatal(err)
	}
	if err := b.offer("6", clusterText("pay", "pay", "mesh")); err == nil {
		t.Error("an older one came back")
	}
	if err := b.offer("8", clusterText("pay", "pay2", "mesh")); err != nil {
		t.Error(err)
	}
}

// Without a control plane for too long, the static file is all there is.
func TestAway(t *testing.T) {
	var log strings.Builder
	b := running(t, agent.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	defer func() {
		if !strings.Contains(log.String(), "code="+string(attest.CodeControlPlaneAway)) {
			t.Error("nothing is said of it")
		}
	}()
	away := func(d time.Duration) {
		t.Helper()
		if err := b.Away(d); err != nil {
			t.Fatal(err)
		}
	}
	const all = "out>pay pay=10.0.0.1:8443,/xds:mesh"
	away(0)
	away(24*time.Hour - 1)
	b.want(all)
	b.proxy.fail = errors.New("no")
	if err := b.Away(24 * time.Hour); err == nil {
		t.Error("nothing was tried")
	}
	b.proxy.fail = nil
	away(24 * time.Hour)
	b.want("")
	if s := b.Status(); !s.Withdrawn {
		t.Errorf("got %+v", s)
	}
	if set, withdrawn := b.Used(); len(set) == 0 || !withdrawn || len(b.Running()) != 0 {
		t.Errorf("got %v", set)
	}
	away(time.Minute) // which makes nobody appear
	b.want("")
	// What nobody has sent changes nothing.
	for _, cause := range []protocol.Cause{protocol.Restored, protocol.Again, protocol.Expired} {
		if err := b.Offer(&client.Update{Type: resource.Endpoints, Changed: load(t, "1", endpointsText("pay", "10.0.0.2:8443")), Cause: cause}); err != nil {
			t.Fatal(err)
		}
		b.want("")
	}
	b.proxy.fail = errors.New("no")
	if err := b.Away(0); err == nil {
		t.Error("nothing was tried")
	}
	b.proxy.fail = nil
	away(0)
	b.want("out>pay pay=10.0.0.2:8443,/xds:mesh")
	away(25 * time.Hour)
	b.want("")
	b.ok(endpointsText("pay", "10.0.0.3:8443"))
	b.want("out>pay pay=10.0.0.3:8443,/xds:mesh")

	never := newBench(t, limitsText+"longest_outage: never\n", agent.Options{})
	never.ok(clusterText("pay", "pay", "ledger.yaml"))
	never.ok(endpointsText("pay", "10.0.0.1:8443"))
	if err := never.Away(10000 * time.Hour); err != nil {
		t.Fatal(err)
	}
	never.want("pay=10.0.0.1:8443,/xds:ledger.yaml")
	if p := never.proxy.policies["xds:ledger.yaml"]; p.Pushed || len(p.Layers) != 2 {
		t.Errorf("got %+v", p)
	}
}

// A rejection is bounded, whatever was sent.
func TestRejectionIsBounded(t *testing.T) {
	b := newBench(t, limitsText, agent.Options{})
	var texts []string
	for i := range 100 {
		texts = append(texts, listenerText(fmt.Sprintf("%q", fmt.Sprint(i, strings.Repeat("é", 500))), fmt.Sprint(i+1), "routes"))
	}
	b.ok(texts...)
	b.ok(clusterText("a", "a", "ledger.yaml"))
	r := b.refused(routesText("routes", "a"))
	if len(r.Error()) > 20000 || len(r.Error()) == 0 {
		t.Errorf("got %d bytes", len(r.Error()))
	}
	if s := b.Status(); s.Types[resource.Route].Refused != 1 {
		t.Errorf("got %+v", s)
	}
}

// What never settles changes nothing.
func TestNoEnd(t *testing.T) {
	n, endless := 0, false
	b := newBench(t, limitsText, agent.Options{Translate: func(in envoy.Input) *envoy.Translation {
		out := envoy.Translate(in)
		if n++; endless && n > 1 { // it is right alone, never beside anything, and never gone
			out.Problems = map[envoy.Key]error{{Type: resource.Cluster, Name: "pay"}: errors.New("no")}
			out.Needs[resource.Cluster] = []string{"pay"}
		}
		return out
	}})
	b.ok(clusterText("pay", "pay", "ledger.yaml"))
	n, endless = 0, true
	b.Missing(resource.Endpoints, []string{"pay"})
	b.want("")
	if n < 16 {
		t.Errorf("given up after %d", n)
	}
}

// A denial is as quick as it is because nothing waits; where something does, it is looked at with the rest.
func TestDenialWhileOthersWait(t *testing.T) {
	turin := strings.Replace(pushedText, "genoa+", "turin+", 1)
	id := parsePolicy(t, turin).ID()
	b := running(t, agent.Options{})
	// A cluster that is gone, and still led to.
	if err := b.removed(resource.Cluster, "pay"); err != nil {
		t.Fatal(err)
	}
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	b.ok(policyText("mesh", 6, turin))
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	if got := b.proxy.policies["xds:mesh"].Layers[0].ID(); got != id {
		t.Errorf("got %s", got)
	}
	// A policy that does without what was waited for.
	b = running(t, agent.Options{})
	b.ok(clusterText("pay", "pay", "mesh"), clusterText("two", "pay", "mesh2"))
	b.ok(policyText("mesh2", 1, pushedText+"floor: below.yaml\n") + "reference_values: [values]\n")
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh")
	b.ok(policyText("mesh2", 2, pushedText))
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh two=10.0.0.1:8443,/xds:mesh2")
	// Another policy goes in the same update, and stays where it is in use.
	changed := load(t, "1", policyText("mesh2", 3, turin))
	if err := b.Offer(&client.Update{Type: resource.AttestationPolicy, Changed: changed, Removed: []string{"mesh"}}); err != nil {
		t.Fatal(err)
	}
	b.want("out>pay pay=10.0.0.1:8443,/xds:mesh two=10.0.0.1:8443,/xds:mesh2")
	if got := b.proxy.policies["xds:mesh2"].Layers[0].ID(); got != id {
		t.Errorf("got %s", got)
	}
}

func TestStart(t *testing.T) {
	static := decode[config.Config](t, staticText)
	if _, err := agent.New(guard.Limits{Binding: "x"}, nil, &static, nil, &proxy{}, agent.Options{}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Errorf("got %v", err)
	}
	a, err := agent.New(guard.Limits{}, nil, &static, nil, &proxy{}, agent.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Start(&asked{fail: errors.New("no")}); err == nil {
		t.Error("nothing")
	}
	// A subscription that fails is made with the next update.
	b := newBench(t, limitsText, agent.Options{})
	b.asked.fail = errors.New("no")
	b.ok(clusterText("pay", "pay", "ledger.yaml"))
	b.asked.fail = nil
	b.ok(clusterText("pay", "pay", "ledger.yaml"))
	if w := b.asked.names[resource.Endpoints]; !slices.Equal(w, []string{"pay"}) {
		t.Errorf("got %v", w)
	}
}

// What a control plane names once and never again is not kept, whether it was accepted or not.
func TestParsedPoliciesAreForgotten(t *testing.T) {
	b := running(t, agent.Options{})
	for i := range 20 {
		name := fmt.Sprintf("mesh-%d", i)
		b.ok(clusterText("two", "two", name))
		b.ok(policyText(name, 1, pushedText))
		b.ok(clusterText("two", "two", fmt.Sprintf("other-%d", i)))
		b.refused(policyText(fmt.Sprintf("other-%d", i), 1, pushedText))
	}
	if n := b.Parsed(); n > 3 {
		t.Errorf("%d policies are kept", n)
	}
}
