package guard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// reach checks where a cluster leads, and under what. What is wrong is told once, whoever leads there.
func (k *check) reach(c *config.Cluster) []reach {
	if all, done := k.reaches[c.Name]; done {
		return all
	}
	part, name := k.part, k.name
	defer func() { k.part, k.name = part, name }()
	k.part, k.name = PartCluster, c.Name
	var all []reach
	held := true
	switch {
	case c.Attested != nil:
		held = k.held("attested.require", c.Attested.Require, "attested.reattest", c.Attested.Reattest, nil)
	case named(k.limits.Attested, c.Name):
		k.add("attested", attest.CodeLimitPlain, "attested", "a plain cluster", "an attested one: the limits say so of its name")
		held = false
	}
	known := map[uint64]bool{}
	each(c, func(at string, e upstream.Identity) {
		targets := k.admit(at, c, e)
		if !held {
			targets = 0
		}
		if !known[targets] {
			known[targets] = true
			all = append(all, reach{targets, at})
		}
	})
	k.reaches[c.Name] = all
	return all
}

// each calls f with every endpoint that a cluster names. The address of a name is the name.
func each(c *config.Cluster, f func(at string, e upstream.Identity)) {
	for i, e := range c.Endpoints {
		f(fmt.Sprintf("endpoints[%d]", i), e.Identity)
	}
	for i := range c.Localities {
		for j, e := range c.Localities[i].Endpoints {
			f(fmt.Sprintf("localities[%d].endpoints[%d]", i, j), e.Identity)
		}
	}
	if c.DNS != nil {
		for i, n := range c.DNS.Names {
			address := n.Host
			if strings.Contains(address, ":") {
				address = "[" + address + "]"
			}
			f(fmt.Sprintf("dns.names[%d]", i), upstream.Identity{Address: fmt.Sprintf("%s:%d", address, n.Port), Hostname: n.Host, Transport: n.Transport})
		}
	}
}

// admit answers the targets that an endpoint is in.
func (k *check) admit(at string, c *config.Cluster, e upstream.Identity) (targets uint64) {
	if e.Transport != "" { // a peer that is told to be another one by what an endpoint says of itself
		k.add("transport", attest.CodeLimitPlain, at+".transport", quote(e.Transport), "nothing: how endpoints are reached is said by their cluster")
		return 0
	}
	to, ok := parsePlace(e.Address)
	if !ok {
		k.add("target", attest.CodeLimitTarget, at+".address", quote(e.Address), "an address in one of its spellings: host:port, or unix: and a clean path")
		return 0
	}
	name := ""
	if c.Attested != nil {
		name = evidenceName(c.Attested, e, to)
	}
	place, kind, called := false, false, false
	for i := range k.targets {
		t := &k.targets[i]
		if !t.leads(to) {
			continue
		}
		place = true
		if t.Plain != (c.Attested == nil) {
			continue
		}
		kind = true
		if !t.Plain && !t.called(name) {
			continue
		}
		called = true
		if !t.Plain && t.Policies != nil && !named(t.Policies, k.policies[c.Attested.Require].Name) {
			continue
		}
		targets |= 1 << i
	}
	switch {
	case targets != 0:
	case !place:
		k.add("target", attest.CodeLimitTarget, at+".address", quote(e.Address), "a place in the targets of the limits")
	case !kind && c.Attested == nil:
		k.add("plain", attest.CodeLimitPlain, at+".address", quote(e.Address)+" in plain", "a cluster that is attested")
	case !kind:
		k.add("target", attest.CodeLimitTarget, at+".address", quote(e.Address)+", a target in plain", "a place in the targets that are attested")
	case !called:
		k.add("name", attest.CodeLimitTarget, at+".address", "evidence for "+quote(name), "for one of the names of the target")
	default:
		k.add("policy", attest.CodeLimitPolicy, at+".address", quote(k.policies[c.Attested.Require].Name), "one of the policies of the target")
	}
	return targets
}

// evidenceName is what the evidence of an endpoint has to be for. A socket has no name of its own, and its peer is localhost.
func evidenceName(a *config.Attested, e upstream.Identity, to place) string {
	of := to.name
	switch {
	case to.path != "":
		of = "localhost"
	case to.ip.IsValid():
		of = to.ip.String()
	}
	return cmp.Or(a.Name, e.Hostname, of)
}

func (t *target) leads(to place) bool {
	return slices.ContainsFunc(t.to, func(p pattern) bool { return p.covers(to) })
}

// called reports whether evidence may be for a name.
func (t *target) called(name string) bool {
	h, ok := parseHost(name)
	return ok && slices.ContainsFunc(t.names, func(p pattern) bool { return p.coversHost(h) })
}
