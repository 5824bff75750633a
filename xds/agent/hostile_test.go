package agent_test

import (
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/guard"
	"github.com/jurat-tls/jurat/xds/resource"
)

// arsenal is what a hostile control plane sends, by type.
func arsenal(t testing.TB) map[string][]resource.Resource {
	var texts []string
	for _, name := range []string{"pay", "two", "ledger", "jurat:nowhere"} {
		for _, endpoints := range []string{"pay", "two"} {
			for _, policy := range []string{"mesh", "mesh2", "ledger.yaml", "other", ""} {
				texts = append(texts, clusterText(fmt.Sprintf("%q", name), endpoints, policy))
			}
		}
		texts = append(texts, `"@type": `+clusterURL+"\nname: "+fmt.Sprintf("%q", name)+"\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\n")
		texts = append(texts, `"@type": `+clusterURL+"\nname: "+fmt.Sprintf("%q", name)+"\ntype: STRICT_DNS\nload_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: evil.example, port_value: 443}}}}]}]}\n")
	}
	for _, name := range []string{"pay", "two"} {
		for _, addresses := range [][]string{nil, {"10.0.0.1:8443"}, {"10.0.0.2:8443", "10.0.0.3:8443"}, {"192.0.2.1:443"}, {"10.0.0.1:8443", "127.0.0.1:80"}, {"127.0.0.1:80"}, {"10.0.0.1:22"}} {
			texts = append(texts, endpointsText(name, addresses...))
		}
	}
	for _, name := range []string{"out", "more", "static"} {
		for _, port := range []string{"15001", "15002", "9000", "15003"} {
			for _, routes := range []string{"routes", "later"} {
				texts = append(texts, listenerText(name, port, routes))
			}
		}
	}
	for _, name := range []string{"routes", "later"} {
		for _, cluster := range []string{"pay", "two", "ledger", "nobody"} {
			texts = append(texts, routesText(name, cluster))
		}
		texts = append(texts, strings.Replace(routesText(name, "pay"), "route: {cluster: pay}", `redirect: {host_redirect: evil.example}`, 1))
		texts = append(texts, strings.Replace(routesText(name, "pay"), "route: {cluster: pay}", `direct_response: {status: 200}`, 1))
		texts = append(texts, strings.Replace(routesText(name, "pay"), "route: {cluster: pay}", `route: {cluster: two, request_mirror_policies: [{cluster: pay}]}`, 1))
	}
	for _, name := range []string{"mesh", "mesh2", "other", "ledger.yaml"} {
		for serial := 1; serial < 4; serial++ {
			texts = append(texts, policyText(name, serial, pushedText), policyText(name, serial, strings.Replace(pushedText, "genoa+", "turin+", 1)), policyText(name, serial, "policy: x"))
			texts = append(texts, policyText(name, serial, pushedText+"floor: below.yaml\n")+"reference_values: [values]\n")
		}
	}
	all := map[string][]resource.Resource{}
	for _, r := range load(t, "1", texts...) {
		all[r.Type] = append(all[r.Type], r)
	}
	for serial := uint64(1); serial < 4; serial++ {
		for _, text := range []string{floorText, "nonsense"} {
			raw, err := api.References{Name: "values", Serial: serial, Files: map[string][]byte{"below.yaml": []byte(text)}}.Encode()
			if err != nil {
				t.Fatal(err)
			}
			all[resource.ReferenceValues] = append(all[resource.ReferenceValues], resource.Resource{Type: resource.ReferenceValues, Name: "values", Body: raw})
		}
	}
	for typ, list := range all { // and what is no message, or one of another resource
		all[typ] = append(all[typ], resource.Resource{Type: typ, Name: "pay", Body: []byte{0xff}}, resource.Resource{Type: typ, Name: "pay"}, resource.Resource{Type: typ, Name: "else", Body: list[0].Body})
	}
	return all
}

var hostileTypes = []string{resource.Cluster, resource.Endpoints, resource.Listener, resource.Route, resource.AttestationPolicy, resource.ReferenceValues}

// attack sends what the dice say, and looks at what becomes of it. It answers how many updates were accepted.
func attack(t testing.TB, weapons map[string][]resource.Resource, dice func(n int) int, steps int) (accepted, live int) {
	b := newBench(t, limitsText, agent.Options{})
	g, err := guard.New(decode[guard.Limits](t, limitsText), parsePolicy(t, floorText))
	if err != nil {
		t.Fatal(err)
	}
	serials := map[string]uint64{}
	floor := parsePolicy(t, floorText).ID()
	for range steps {
		before := *b.proxy
		typ := hostileTypes[dice(len(hostileTypes))]
		u := &client.Update{Type: typ, Cause: protocol.Cause(dice(5) % 4)}
		refused := false
		switch dice(12) {
		case 0:
			b.Missing(typ, []string{[]string{"pay", "two", "routes", "mesh", "*"}[dice(5)]})
		case 1:
			b.proxy.fail = nil
			_ = b.Away([]time.Duration{0, time.Hour, 25 * time.Hour}[dice(3)])
			before = *b.proxy
		case 2:
			u.Removed = []string{[]string{"pay", "two", "routes", "mesh", "out", "values"}[dice(6)]}
			refused = b.Offer(u) != nil
		case 3:
			b.proxy.fail = fmt.Errorf("it does not work")
			u.Changed = []resource.Resource{weapons[typ][dice(len(weapons[typ]))]}
			_ = b.Offer(u)
			b.proxy.fail = nil
			before.fail = nil
		default:
			for range 1 + dice(2) {
				r := weapons[typ][dice(len(weapons[typ]))]
				if !slices.ContainsFunc(u.Changed, func(o resource.Resource) bool { return o.Name == r.Name }) {
					u.Changed = append(u.Changed, r)
				}
			}
			if refused = b.Offer(u) != nil; refused {
				break
			}
			accepted++
			for _, r := range u.Changed {
				if r.Type != resource.AttestationPolicy {
					continue
				}
				p, err := api.DecodePolicy(r.Type, r.Body)
				if err != nil || p.Serial < serials[p.Name] {
					t.Fatalf("accepted %q with %d after %d, %v", p.Name, p.Serial, serials[p.Name], err)
				}
				serials[p.Name] = p.Serial
			}
		}
		if refused && !reflect.DeepEqual(before, *b.proxy) {
			t.Fatalf("%+v was refused, and something changed", u)
		}
		if err := g.Check(b.static, b.proxy.config, b.proxy.policies); err != nil {
			t.Fatalf("after %+v: %v", u, err)
		}
		set, withdrawn := b.Used()
		if means := envoy.Translate(envoy.Input{Resources: set, Policies: []string{"ledger.yaml"}}); !withdrawn && len(means.Config.Listeners) != len(b.proxy.config.Listeners)-len(b.static.Listeners) {
			t.Fatalf("after %+v: %d listeners are used, and %d meant", u, len(b.proxy.config.Listeners), len(means.Config.Listeners))
		} else if !withdrawn {
			brought := means.Config.WithPolicies(func(name string) string { return agent.Prefix + name })
			for _, l := range brought.Listeners {
				if !slices.ContainsFunc(b.proxy.config.Listeners, func(m config.Listener) bool { return m.Equal(&l) }) {
					t.Fatalf("after %+v: the listener %s is another one", u, l.Name)
				}
			}
			for name, p := range means.Policies {
				if q, ok := b.proxy.policies[agent.Prefix+name]; ok && q.Layers[0].Name() != "mesh" {
					t.Fatalf("after %+v: the policy %s is not %+v", u, name, p)
				}
			}
		}
		for name, p := range b.proxy.policies {
			if strings.HasPrefix(name, agent.Prefix) && (len(p.Layers) != 2 || p.Layers[1].ID() != floor) {
				t.Fatalf("%s does not stand on the floor", name)
			}
		}
		for _, m := range b.static.Listeners {
			if !slices.ContainsFunc(b.proxy.config.Listeners, func(l config.Listener) bool { return l.Equal(&m) }) {
				t.Fatal("the static listener is not what it was")
			}
		}
		if len(b.proxy.config.Listeners) > len(b.static.Listeners) {
			live++
		}
		b.Status()
	}
	return accepted, live
}

func TestHostile(t *testing.T) {
	weapons := arsenal(t)
	accepted, live, attacks := 0, 0, uint64(30)
	if testing.Short() {
		attacks = 6
	}
	for seed := range attacks {
		r := rand.New(rand.NewPCG(seed, 1))
		a, l := attack(t, weapons, r.IntN, 120)
		accepted, live = accepted+a, live+l
	}
	t.Logf("%d accepted, %d steps with a listener", accepted, live)
	if accepted < 10*int(attacks) || live < 2*int(attacks) {
		t.Error("nothing much was tried")
	}
}

func FuzzHostile(f *testing.F) {
	weapons := arsenal(f)
	for seed := range uint64(8) {
		r := rand.New(rand.NewPCG(seed, 2))
		raw := make([]byte, 200)
		for i := range raw {
			raw[i] = byte(r.Uint32())
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) > 400 {
			raw = raw[:400]
		}
		i := 0
		attack(t, weapons, func(n int) int {
			if i == len(raw) {
				return 0
			}
			i++
			return int(raw[i-1]) % n
		}, len(raw)/5)
	})
}

// FuzzBody offers one resource with any content.
func FuzzBody(f *testing.F) {
	for i, typ := range hostileTypes {
		for _, r := range arsenal(f)[typ] {
			f.Add(uint8(i), r.Name, r.Body)
		}
	}
	f.Fuzz(func(t *testing.T, which uint8, name string, body []byte) {
		b := running(t, agent.Options{})
		before := *b.proxy
		typ := hostileTypes[int(which)%len(hostileTypes)]
		r := resource.Resource{Type: typ, Name: name, Body: body}
		if r.Validate() != nil {
			return
		}
		if err := b.Offer(&client.Update{Type: typ, Changed: []resource.Resource{r}}); err != nil {
			if !reflect.DeepEqual(before, *b.proxy) {
				t.Fatal("it was refused, and something changed")
			}
			return
		}
		g, err := guard.New(decode[guard.Limits](t, limitsText), parsePolicy(t, floorText))
		if err != nil {
			t.Fatal(err)
		}
		if err := g.Check(b.static, b.proxy.config, b.proxy.policies); err != nil {
			t.Fatal(err)
		}
	})
}
