package agent_test

import (
	"errors"
	"maps"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/guard"
	"github.com/jurat-tls/jurat/xds/resource"
)

// replace hands the agent another file, and has what it makes of that carried out unless there is an error.
func (b *bench) replace(limits string, floor *policy.Policy, static string, own map[string]*policy.Policy, fail error) error {
	b.Helper()
	c := decode[config.Config](b, static)
	return b.Replace(decode[guard.Limits](b, limits), floor, &c, own, func(c *config.Config, policies map[string]guard.Policy) error {
		if fail == nil {
			b.proxy.config, b.proxy.policies = c, policies
		}
		return fail
	})
}

func TestReplace(t *testing.T) {
	b := running(t, agent.Options{})
	const all = "out>pay pay=10.0.0.1:8443,/xds:mesh"
	floor, ledger := parsePolicy(t, floorText), parsePolicy(t, floorText)
	own := map[string]*policy.Policy{"ledger.yaml": ledger}
	// Wider limits, another floor, another file: what was sent goes on, on that.
	wider := strings.Replace(limitsText, "10.0.0.0/8:8443", "10.0.0.0/8", 1)
	if err := b.replace(wider, floor, strings.Replace(staticText, "9000", "9001", 1), own, nil); err != nil {
		t.Fatal(err)
	}
	b.want(all)
	if p := b.proxy.policies["xds:mesh"]; len(p.Layers) != 2 || p.Layers[1] != floor || b.proxy.policies["ledger.yaml"].Layers[0] != ledger || b.proxy.config.Listeners[0].Address != "127.0.0.1:9001" {
		t.Errorf("got %+v", b.proxy.policies)
	}
	b.ok(endpointsText("pay", "10.0.0.1:9443")) // which the limits before did not allow
	b.want("out>pay pay=10.0.0.1:9443,/xds:mesh")

	// What was accepted has to keep to them, and everything stays as it is where that is not so, or can't be carried out.
	broken := errors.New("no")
	for name, c := range map[string]struct {
		limits, static string
		own            map[string]*policy.Policy
		fail           error
		code           attest.Code
	}{
		"a target is elsewhere":   {limitsText, staticText, own, nil, attest.CodeLimitTarget},
		"no such listener":        {strings.Replace(wider, "15001", "15009", 1), staticText, own, nil, attest.CodeLimitListener},
		"no such policy":          {strings.Replace(wider, "mesh*", "other", 1), staticText, own, nil, attest.CodeLimitPolicy},
		"limits that mean nought": {strings.Replace(wider, "10.0.0.0/8\"", "nonsense/\"", 1), staticText, own, nil, attest.CodeConfigValue},
		"it can't be carried out": {wider, staticText, own, broken, attest.CodeInternal},
	} {
		before := *b.proxy
		policies := maps.Clone(before.policies)
		if err := b.replace(c.limits, floor, c.static, c.own, c.fail); err == nil || c.fail == nil && attest.CodeOf(err) != c.code || c.fail != nil && !errors.Is(err, c.fail) {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(before, *b.proxy) || !maps.EqualFunc(policies, b.proxy.policies, func(a, b guard.Policy) bool { return reflect.DeepEqual(a, b) }) {
			t.Errorf("%s: something changed", name)
		}
		b.ok(endpointsText("pay", "10.0.0.1:9443", "10.0.0.2:9443")) // by the limits that there were
		b.ok(endpointsText("pay", "10.0.0.1:9443"))
	}
	// Narrower ones hold from then on.
	if err := b.replace(strings.Replace(wider, "10.0.0.0/8\"", "10.0.0.1:9443\"", 1), floor, staticText, own, nil); err != nil {
		t.Fatal(err)
	}
	b.refused(endpointsText("pay", "10.0.0.2:9443"))
}

// A policy of the file that something refers to can't go: what runs would stop.
func TestReplaceKeepsWhatRuns(t *testing.T) {
	b := newBench(t, limitsText, agent.Options{})
	b.ok(clusterText("pay", "pay", "ledger.yaml"))
	b.ok(endpointsText("pay", "10.0.0.1:8443"))
	b.want("pay=10.0.0.1:8443,/xds:ledger.yaml")
	floor := parsePolicy(t, floorText)
	without := "listen:\n  - {name: static, address: \"127.0.0.1:9000\", plain: true, tcp: true, to: \"127.0.0.1:1\"}\n"
	err := b.replace(limitsText, floor, without, nil, nil)
	if attest.CodeOf(err) != attest.CodeConfigMissing || !strings.Contains(err.Error(), "ledger.yaml") || !strings.Contains(err.Error(), `Cluster "pay"`) {
		t.Errorf("got %v", err)
	}
	b.want("pay=10.0.0.1:8443,/xds:ledger.yaml")
	if err := b.replace(limitsText, floor, without, map[string]*policy.Policy{"ledger.yaml": floor}, nil); err != nil {
		t.Error(err)
	}
}

// What was withdrawn stays so, and comes back as the new file has it.
func TestReplaceWhileAway(t *testing.T) {
	b := newBench(t, limitsText+"longest_outage: 24h\n", agent.Options{})
	b.ok(clusterText("pay", "pay", "mesh"))
	b.ok(policyText("mesh", 5, pushedText))
	b.ok(endpointsText("pay", "10.0.0.1:8443"))
	if err := b.Away(24 * time.Hour); err != nil {
		t.Fatal(err)
	}
	b.want("")
	floor := parsePolicy(t, floorText)
	if err := b.replace(limitsText+"longest_outage: 48h\n", floor, strings.Replace(staticText, "9000", "9001", 1), map[string]*policy.Policy{"ledger.yaml": floor}, nil); err != nil {
		t.Fatal(err)
	}
	b.want("")
	if b.proxy.config.Listeners[0].Address != "127.0.0.1:9001" || b.proxy.policies["ledger.yaml"].Layers[0] != floor {
		t.Errorf("got %+v", b.proxy)
	}
	if err := b.Away(0); err != nil {
		t.Fatal(err)
	}
	b.want("pay=10.0.0.1:8443,/xds:mesh")
	if p := b.proxy.policies["xds:mesh"]; len(p.Layers) != 2 || p.Layers[1] != floor || b.Running() == nil || len(b.asked.names[resource.Endpoints]) != 1 {
		t.Errorf("got %+v", p)
	}
}
