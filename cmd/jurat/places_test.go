package main

import (
	"maps"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
)

// A chain has a place of its own, which stays when the policy there changes, and is no other's when that of another chain does, however
// alike the two are.
func TestPlaceOf(t *testing.T) {
	serving := func(require string) config.Serving { return config.Serving{Require: require, To: "127.0.0.1:1"} }
	c := &config.Config{Listeners: []config.Listener{
		{Name: "one", Address: ":1", Serving: serving("a")},
		{Name: "many", Address: ":2", Serving: serving("rest"), Chains: []config.Chain{
			{Name: "x", Match: chain.Match{ServerNames: []string{"x.example"}}, Serving: serving("b")},
			{Match: chain.Match{ServerNames: []string{"y.example"}}, Serving: serving("c")},
			{Name: "same", Match: chain.Match{ServerNames: []string{"z.example"}}, Serving: serving("b")},
			{Name: "like the rest", Serving: serving("rest")},
		}},
		{Name: `many chain x`, Address: ":3", Serving: serving("d")},
		{Name: `x" of listener many`, Address: ":4", Serving: serving("e"), Chains: []config.Chain{{Name: "x", Serving: serving("f")}}},
	}}
	places := (&serveConfig{Proxy: *c, XDS: &xdsConfig{Require: "p"}}).places()
	if got := places[atControlPlane]; !slices.Equal(got, []string{"p"}) {
		t.Errorf("the control plane demands %v", got)
	}
	seen := map[string]bool{atControlPlane: true}
	look := func(alone config.Listener) {
		t.Helper()
		place := placeOf(&alone)
		if got := places[place]; !slices.Equal(got, []string{alone.Require}) || seen[place] {
			t.Errorf("%s demands %v, not %s; it is that of others: %v", place, got, alone.Require, seen[place])
		}
		seen[place] = true
	}
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if rest, ok := l.Rest(); len(l.Chains) > 0 && ok {
			look(rest)
		} else {
			look(*l)
		}
		for j := range l.Chains {
			look(l.Chain(j))
		}
	}
	if len(places) != len(seen) {
		t.Errorf("there are more: %v", slices.Sorted(maps.Keys(places)))
	}
}

// What a chain that is a forward proxy demands of targets is its own as well.
func TestPlaceOfForward(t *testing.T) {
	forward := func(require ...string) (s config.Serving) {
		s.Plain = true
		for _, r := range require {
			s.Forward = append(s.Forward, config.Forward{Hosts: []string{"*"}, Require: r})
		}
		return s
	}
	l := config.Listener{Name: "out", Address: "127.0.0.1:1", Serving: forward("lax", "laxer"), Chains: []config.Chain{
		{Name: "strict", Match: chain.Match{SourcePorts: []uint16{1}}, Serving: forward("strict", "stricter")},
	}}
	places := (&serveConfig{Proxy: config.Config{Listeners: []config.Listener{l}}}).places()
	rest, _ := l.Rest()
	for _, alone := range []config.Listener{rest, l.Chain(0)} {
		for i, f := range alone.Forward {
			if got := places[atForward(&alone, i)]; !slices.Equal(got, []string{f.Require}) {
				t.Errorf("%s demands %v, not %s", atForward(&alone, i), got, f.Require)
			}
		}
	}
	if len(places) != 4 {
		t.Errorf("got %v", places)
	}
}
