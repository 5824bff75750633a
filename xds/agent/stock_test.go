package agent_test

import (
	"os"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/guard"
	"github.com/jurat-tls/jurat/xds/resource"
)

// What istiod sends a sidecar is taken by limits that say what a sidecar does, and by none that say less.
func TestSidecar(t *testing.T) {
	const limits = `
floor: floor.yaml
rewrite: true
answers: true
attested: ["outbound|*"]
targets:
  - {name: mesh, to: ["10.0.0.0/8"], names: ["*"]}
  - {name: app, to: [loopback], plain: true}
listeners:
  - {address: "0.0.0.0:15006", transparent: true, to: [app]}
  - {address: "0.0.0.0:15001", clients: plain, unsafe_listen: true, transparent: true, to: [mesh]}
`
	raw, err := os.ReadFile("../envoy/testdata/istio-sidecar.yaml")
	if err != nil {
		t.Fatal(err)
	}
	docs, err := envoy.Load("istio-sidecar.yaml", raw)
	if err != nil {
		t.Fatal(err)
	}
	byType := map[string][]resource.Resource{}
	for _, d := range docs {
		byType[d.Type] = append(byType[d.Type], d.Resource)
	}
	static, own := config.Config{}, map[string]*policy.Policy{"mesh": parsePolicy(t, floorText), "stores": parsePolicy(t, floorText)}
	for what, test := range map[string]struct{ old, with, code string }{
		"all of it":                  {"rewrite", "rewrite", ""},
		"no connections of others":   {"transparent: true, to: [app]", "to: [app]", string(attest.CodeLimitBypass)},
		"nothing may be edited":      {"rewrite: true\n", "", string(attest.CodeLimitContent)},
		"peers are elsewhere":        {"10.0.0.0/8", "192.0.2.0/24", string(attest.CodeLimitTarget)},
		"peers are somebody else":    {`names: ["*"]`, "names: [x.example]", string(attest.CodeLimitTarget)},
		"clients may be anywhere":    {`clients: plain, unsafe_listen: true, transparent`, "transparent", string(attest.CodeLimitClients)},
		"the app is not in plain":    {"{name: app, to: [loopback], plain: true}", "{name: app, to: [loopback]}", string(attest.CodeLimitTarget)},
		"no such listener":           {`  - {address: "0.0.0.0:15006", transparent: true, to: [app]}` + "\n", "", string(attest.CodeLimitListener)},
		"what is outbound is in app": {"to: [mesh]}", "to: [app]}", string(attest.CodeLimitTarget)},
	} {
		t.Run(what, func(t *testing.T) {
			p := &proxy{config: &static}
			a, err := agent.New(decode[guard.Limits](t, strings.Replace(limits, test.old, test.with, 1)), parsePolicy(t, floorText), &static, own, p, agent.Options{})
			if err != nil {
				t.Fatal(err)
			}
			said := ""
			for _, typ := range []string{resource.Cluster, resource.Endpoints, resource.Listener, resource.Route} {
				if err := a.Offer(&client.Update{Type: typ, Changed: byType[typ]}); err != nil {
					said += err.Error()
				}
			}
			if test.code != "" {
				if !strings.Contains(said, test.code) {
					t.Errorf("got %s", said)
				}
				return
			}
			if said != "" || len(a.Status().Warming) > 0 || len(p.config.Listeners) != 2 {
				t.Errorf("got %+v, %s", a.Status().Warming, said)
			}
		})
	}
}
