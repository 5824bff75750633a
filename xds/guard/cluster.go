package guard

import (
	"cmp"
	"slices"

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
	if c.Attested != nil {
		k.held("attested.require", c.Attested.Require, "attested.reattest", c.Attested.Reattest, nil)
	}
	known := map[uint64]bool{}
	note := func(at string, targets uint64) {
		if !known[targets] {
			known[targets] = true
			all = append(all, reach{targets, at})
		}
	}
	for at, e := range c.Identities() {
		note(at, k.admit(at, c, e))
	}
	if o := c.OriginalDestination; o != nil {
		note("original_destination", k.onward(c, o))
	}
	k.reaches[c.Name] = all
	return all
}

// admit answers the targets that an endpoint is in.
func (k *check) admit(at string, c *config.Cluster, e upstream.Identity) (targets uint64) {
	if e.Transport != "" { // a peer that is told to be another one by what an endpoint says of itself
		k.add("transport", attest.CodeLimitPlain, at+".transport", quote(e.Transport), "nothing: how endpoints are reached is said by their cluster")
		return 0
	}
	to := parsePlace(e.Address)
	name, require := "", ""
	if c.Attested != nil {
		name, require = evidenceName(c.Attested, e, to), k.policies[c.Attested.Require].Name
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
		if t.under(require) {
			targets |= 1 << i
		}
	}
	switch {
	case targets != 0:
	case !place:
		k.add("target", attest.CodeLimitTarget, at+".address", quote(e.Address), "a place in the targets of the limits")
	case c.Attested == nil:
		k.add("plain", attest.CodeLimitPlain, at+".address", quote(e.Address)+" in plain", "a cluster that is attested")
	case !kind:
		k.add("target", attest.CodeLimitTarget, at+".address", quote(e.Address)+", a target in plain", "a place in the targets that are attested")
	case !called:
		k.add("name", attest.CodeLimitTarget, at+".address", "evidence for "+quote(name), "for one of the names of the target")
	default:
		k.add("policy", attest.CodeLimitPolicy, at+".address", quote(require), "one of the policies of the target")
	}
	return targets
}

// onward answers the targets that stand for where connections were going, which those who connect decide.
func (k *check) onward(c *config.Cluster, o *config.OriginalDestination) (targets uint64) {
	const at = "original_destination"
	if o.UnsafePlain {
		k.add("bypass", attest.CodeLimitBypass, at+".unsafe_plain", "wherever connections were going, in plain", "this machine")
		return 0
	}
	for i := range k.targets {
		switch t := &k.targets[i]; {
		case t.Plain != (c.Attested == nil):
		case t.Plain:
			if slices.ContainsFunc(t.to, func(p pattern) bool { return p.loopback && p.port == 0 }) {
				targets |= 1 << i
			}
		case slices.ContainsFunc(t.to, func(p pattern) bool { return p.any && p.port == 0 }) && t.calledOnward(c.Attested.Name) && t.under(k.policies[c.Attested.Require].Name):
			targets |= 1 << i
		}
	}
	if targets == 0 {
		k.add("target", attest.CodeLimitTarget, at, "wherever connections were going", "* in an attested target of the limits for any place, or loopback in a plain one for this machine")
	}
	return targets
}

// calledOnward reports whether evidence may be for a name, or, where there is none, for whatever address a connection was going to.
func (t *target) calledOnward(name string) bool {
	if name == "" {
		return slices.ContainsFunc(t.names, func(p pattern) bool { return p.any })
	}
	return t.called(name)
}

// under reports whether a policy of that name may be what peers are held to.
func (t *target) under(policy string) bool { return t.Policies == nil || named(t.Policies, policy) }

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
	h, _ := parseHost(name)
	return slices.ContainsFunc(t.names, func(p pattern) bool { return p.coversHost(h) })
}
