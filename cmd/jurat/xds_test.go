//go:build !noxds

package main

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/xds/guard"
)

// No name that a control plane gives is the place of something else: what is demanded there would be demanded instead.
func TestPlacesAreApart(t *testing.T) {
	serving := func(require string) config.Serving { return config.Serving{Require: require, To: "127.0.0.1:1"} }
	c := &config.Config{Listeners: []config.Listener{
		{Name: "in", Address: ":1", Chains: []config.Chain{{Name: "main", Match: chain.Match{ServerNames: []string{"x.example"}}, Serving: serving("strict")}}},
		{Name: "in chain main", Address: ":2", Serving: serving("other")},
		{Name: `"in chain main"`, Address: ":3", Serving: serving("third")},
		{Name: "in chain", Address: ":4", Chains: []config.Chain{{Name: "main chain a", Match: chain.Match{ServerNames: []string{"x.example"}}, Serving: serving("fourth")}}},
		{Name: "in chain main chain", Address: ":5", Chains: []config.Chain{{Name: "a", Match: chain.Match{ServerNames: []string{"x.example"}}, Serving: serving("fifth")}}},
	}}
	if got := len((&serveConfig{Proxy: *c}).places()); got != len(c.Listeners) {
		t.Errorf("%d listeners have %d places", len(c.Listeners), got)
	}
	alone := c.Listeners[0].Chain(0)
	if demands := (&serveConfig{Proxy: *c}).places()[placeOf(&alone)]; len(demands) != 1 || demands[0] != "strict" {
		t.Errorf("%s demands %v", placeOf(&alone), demands)
	}
}

// What came over xDS stands on the floor wherever peers are appraised, also under a policy of the file, and nothing of the file does.
func TestPlacesStandOnTheFloor(t *testing.T) {
	parse := func(name string) *policy.Policy {
		p, err := policy.Parse(name, []byte(policyText), policy.NoFiles)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	floor, own, pushed := parse("floor.yaml"), parse("own.yaml"), parse("xds:mesh")
	cluster := func(name, require string) config.Cluster {
		return config.Cluster{Config: upstream.Config{Name: name}, Attested: &config.Attested{Require: require}}
	}
	g := &generation{serveConfig: &serveConfig{policies: map[string]*policy.Policy{"floor.yaml": floor, "own.yaml": own}}}
	d := &delivery{
		generation: g, floor: "floor.yaml",
		config: &config.Config{
			Listeners: []config.Listener{
				{Name: "static", Address: ":1", Serving: config.Serving{Require: "own.yaml"}},
				{Name: "in", Address: ":2", Serving: config.Serving{Require: "xds:mesh"}, Chains: []config.Chain{{Name: "x", Serving: config.Serving{Require: "xds:own.yaml"}}}},
			},
			Clusters: []config.Cluster{cluster("ledger", "own.yaml"), cluster("pay", "xds:mesh"), cluster("side", "xds:own.yaml")},
		},
		policies: map[string]guard.Policy{
			"floor.yaml": {Layers: []*policy.Policy{floor}}, "own.yaml": {Layers: []*policy.Policy{own}},
			"xds:mesh": {Pushed: true, Layers: []*policy.Policy{pushed, floor}}, "xds:own.yaml": {Layers: []*policy.Policy{own, floor}},
		},
	}
	change := d.change()
	if want := map[string][]string{
		"listener static": {"own.yaml"}, "listener in": {"xds:mesh", "floor.yaml"}, `chain "x" of listener in`: {"xds:own.yaml", "floor.yaml"},
		"cluster ledger": {"own.yaml"}, "cluster pay": {"xds:mesh", "floor.yaml"}, "cluster side": {"xds:own.yaml", "floor.yaml"},
	}; !reflect.DeepEqual(change.Places, want) {
		t.Errorf("got %v", change.Places)
	}
	if want := map[string]attest.Policy{"floor.yaml": floor, "own.yaml": own, "xds:mesh": pushed, "xds:own.yaml": own}; !reflect.DeepEqual(change.Policies, want) {
		t.Errorf("got %v", change.Policies)
	}
	// Whatever the layers of a policy are that the guard was shown, the same are in force.
	for place, demands := range change.Places {
		var stack []*policy.Policy
		for _, name := range demands {
			stack = append(stack, change.Policies[name].(*policy.Policy))
		}
		if !slices.Equal(stack, d.policies[demands[0]].Layers) {
			t.Errorf("%s: the guard was shown other layers", place)
		}
	}
}

func TestKeptFile(t *testing.T) {
	f := keptFile(filepath.Join(t.TempDir(), "kept"))
	if raw, err := f.Load(); raw != nil || err != nil {
		t.Errorf("got %q, %v", raw, err)
	}
	for _, text := range []string{"first", "second"} {
		if err := f.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if raw, err := f.Load(); string(raw) != text || err != nil {
			t.Errorf("got %q, %v", raw, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(string(f))); len(left) != 1 || err != nil {
		t.Errorf("there is more: %v, %v", left, err)
	}
	if info, err := os.Stat(string(f)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read it: %v, %v", info.Mode(), err)
	}
	nowhere := keptFile(filepath.Join(t.TempDir(), "none", "kept"))
	if err := nowhere.Save(nil); err == nil {
		t.Error("nothing")
	}
	dir := keptFile(t.TempDir())
	if _, err := dir.Load(); err == nil {
		t.Error("a directory was read")
	}
}

func TestFetch(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{0: 15 * time.Second, -1: 0, time.Minute: time.Minute} {
		if got := (&xdsConfig{Fetch: given}).fetch(); got != want {
			t.Errorf("%v: got %v", given, got)
		}
	}
}

// What a proxy is called by default is what a control plane of ours believes: one of its names, and which of its instances.
func TestNode(t *testing.T) {
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		id    string
		names []string
		want  string
	}{
		{"", []string{"127.0.0.1", "localhost", "pay.example", "z.example"}, "pay.example/" + host},
		{"", []string{"127.0.0.1", "localhost"}, host},
		{"", nil, host},
		{"x", []string{"pay.example"}, "x"},
	} {
		if n := (&xdsConfig{Node: nodeConfig{ID: test.id}}).node(test.names); n.ID != test.want {
			t.Errorf("%q of %q: got %q", test.id, test.names, n.ID)
		}
	}
}

func TestControlPlaneAddress(t *testing.T) {
	for given, want := range map[string]string{"control.example": "control.example:443", "control.example:18000": "control.example:18000", "[::1]:1": "[::1]:1", "https://control.example": "control.example:443"} {
		if got, err := (&xdsConfig{Server: given}).address(); err != nil || got != want {
			t.Errorf("%s: got %q, %v", given, got, err)
		}
	}
}

// Who the control plane is, and what it knows of us, is what it was at the start; all else can change.
func TestFixedXDS(t *testing.T) {
	config := func(change func(*serveConfig)) *serveConfig {
		c := &serveConfig{XDS: &xdsConfig{Server: "a:1", Require: "p.yaml", Protocol: "delta", State: "kept", Node: nodeConfig{Cluster: "x", Metadata: map[string]string{"a": "b"}}}, Names: []string{"pay.example"}}
		if change != nil {
			change(c)
		}
		return c
	}
	for name, test := range map[string]struct {
		key    string
		change func(*serveConfig)
	}{
		"nothing":                {"", nil},
		"limits":                 {"", func(c *serveConfig) { c.XDS.Limits.Floor = "floor.yaml" }},
		"the policy":             {"", func(c *serveConfig) { c.XDS.Require, c.XDS.Reattest = "q.yaml", time.Hour }},
		"the server":             {"xds.server", func(c *serveConfig) { c.XDS.Server = "b:1" }},
		"the protocol":           {"xds.protocol", func(c *serveConfig) { c.XDS.Protocol = "sotw" }},
		"how long is waited":     {"xds.initial_fetch_timeout", func(c *serveConfig) { c.XDS.Fetch = time.Second }},
		"what is kept where":     {"xds.state", func(c *serveConfig) { c.XDS.State = "" }},
		"metadata":               {"xds.node", func(c *serveConfig) { c.XDS.Node.Metadata = map[string]string{"a": "c"} }},
		"the id":                 {"xds.node", func(c *serveConfig) { c.XDS.Node.ID = "a" }},
		"what the id is of":      {"identity.names", func(c *serveConfig) { c.Names = []string{"other.example"} }},
		"no control plane now":   {"xds", func(c *serveConfig) { c.XDS = nil }},
		"other names, and an id": {"", func(c *serveConfig) { c.Names = []string{"other.example"} }},
	} {
		first := config(nil)
		next := config(test.change)
		if name == "other names, and an id" {
			first.XDS.Node.ID, next.XDS.Node.ID = "a", "a"
		}
		err := fixedXDS(first, next)
		if test.key == "" && err != nil || test.key != "" && (attest.CodeOf(err) != attest.CodeConfigValue || !strings.Contains(err.Error(), "J703") || err.(*attest.Error).Subject != test.key) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := fixedXDS(&serveConfig{}, config(nil)); err == nil {
		t.Error("a control plane where there was none")
	}
	if err := fixedXDS(&serveConfig{}, &serveConfig{}); err != nil {
		t.Error(err)
	}
}

// TestNodeMetadata: control planes ask for maps and lists as well.
func TestNodeMetadata(t *testing.T) {
	c, err := load(t, "xds: {server: a, require: p.yaml, node: {id: n, metadata: {A: x, B: '{\"app\": \"pay\"}', C: '[1]', D: '1'}}, limits: {}}\n")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"A": "x", "B": map[string]any{"app": "pay"}, "C": []any{1.0}, "D": "1"}
	if got := c.XDS.node(nil); got.ID != "n" || !reflect.DeepEqual(got.Metadata, want) {
		t.Errorf("got %+v", got)
	}
}
