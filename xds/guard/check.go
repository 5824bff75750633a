package guard

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Policy is one that a configuration names.
type Policy struct {
	Name   string // as the control plane says it
	Pushed bool   // it came over xDS, not with the static file
	// What peers have to meet, each of them: what was pushed, and what is stacked below it. None at all is nothing that anybody meets.
	Layers []*policy.Policy
}

// Part is what of a configuration a Violation is about.
type Part string

// The parts of a configuration.
const (
	PartWhole    Part = ""
	PartListener Part = "listener"
	PartCluster  Part = "cluster"
	PartPolicy   Part = "policy"
)

// Violation is one way in which a configuration goes beyond the limits.
type Violation struct {
	Part Part
	Name string        // of the listener, the cluster or the policy
	Err  *attest.Error // Check is the rule, "limits." and a word; Subject is the place, such as `cluster "pay": endpoints[0].address`
}

func (v *Violation) Error() string { return v.Err.Error() }

// Unwrap gives the *attest.Error.
func (v *Violation) Unwrap() error { return v.Err }

// maxViolations bounds what is told.
const maxViolations = 20

// Check reports how after, the configuration that would be carried out, goes beyond the limits. measured is what the static file
// says, which after has to contain as it is: all else in it is taken for what xDS has brought. Where a cluster leads that gets no byte, since no
// listener leads there and nobody asks how its endpoints are, is not looked at: control planes send such clusters. policies are those that after names, by
// these names. The error joins a *Violation for each value that is not allowed, the first 20 of them; nil is a proof that the
// package's rules hold.
func (g *Guard) Check(measured, after *config.Config, policies map[string]Policy) error {
	k := &check{Guard: g, policies: policies, judged: map[string]*attest.Error{}, clusters: map[string]*config.Cluster{}, reaches: map[string][]reach{}}
	clusters := k.added(measured.Clusters, after.Clusters)
	listeners := k.opened(measured.Listeners, after.Listeners)
	for i := range after.Clusters {
		k.clusters[after.Clusters[i].Name] = &after.Clusters[i]
	}
	k.pushed()
	k.counts(listeners, clusters)
	for _, c := range clusters {
		k.part, k.name = PartCluster, c.Name
		switch {
		case c.Attested == nil && named(k.limits.Attested, c.Name) && !bare(c):
			k.add("attested", attest.CodeLimitPlain, "attested", "a plain cluster", "an attested one: the limits say so of its name")
		case c.Attested != nil && len(c.Attested.Dialects) > 0: // in which no name is signed that targets could be told by
			k.add("bypass", attest.CodeLimitBypass, "attested.dialects", "evidence of other programs", "none that came over xDS")
		case len(k.targets) == 0:
			k.add("target", attest.CodeLimitTarget, "", "a cluster", "none: the limits have no targets")
		case c.HealthCheck != nil: // which needs nobody who leads there
			k.reach(c)
		}
	}
	for _, l := range listeners {
		k.part, k.name = PartListener, l.Label()
		k.listener(l)
	}
	return errors.Join(k.errs...)
}

// bare reports whether a cluster is nothing but a name, which stands for one that nobody has described.
func bare(c *config.Cluster) bool {
	rest := *c
	if rest.Name = ""; len(rest.Localities) == 0 {
		rest.Localities = nil
	}
	return rest.Equal(new(config.Cluster))
}

// check is one Check.
type check struct {
	*Guard
	policies map[string]Policy
	judged   map[string]*attest.Error // what is wrong with each of them
	clusters map[string]*config.Cluster
	reaches  map[string][]reach // of clusters
	part     Part
	name     string
	errs     []error
}

// reach is endpoints of a cluster that the same targets admit.
type reach struct {
	targets uint64 // none where it is not allowed at all
	at      string // the first of the endpoints
}

func (k *check) add(rule string, code attest.Code, at, got, want string) {
	k.addErr(at, &attest.Error{Code: code, Check: "limits." + rule, Got: got, Want: want})
}

func (k *check) addErr(at string, err *attest.Error) {
	if len(k.errs) == maxViolations {
		return
	}
	e := *err
	switch {
	case k.part == PartWhole:
		e.Subject = at
	case at == "":
		e.Subject = string(k.part) + " " + quote(k.name)
	default:
		e.Subject = string(k.part) + " " + quote(k.name) + ": " + at
	}
	k.errs = append(k.errs, &Violation{k.part, k.name, &e})
}

// added answers the clusters that are not in the static file, whose own have to be there.
func (k *check) added(measured, after []config.Cluster) (all []*config.Cluster) {
	static, seen := map[string]*config.Cluster{}, map[string]bool{}
	for i := range measured {
		static[measured[i].Name] = &measured[i]
	}
	for i := range after {
		c := &after[i]
		k.part, k.name = PartCluster, c.Name
		switch m := static[c.Name]; {
		case seen[c.Name]:
			k.add("measured", attest.CodeLimitMeasured, "", "two clusters of that name", "one")
		case m == nil:
			all = append(all, c)
		case !m.Equal(c):
			k.add("measured", attest.CodeLimitMeasured, "", "another cluster than that of the static file", "a name that is not in the file")
		}
		seen[c.Name] = true
	}
	for i := range measured {
		if name := measured[i].Name; !seen[name] {
			k.part, k.name = PartCluster, name
			k.add("measured", attest.CodeLimitMeasured, "", "nothing", "the cluster of the static file")
		}
	}
	return all
}

// opened answers the listeners that are not in the static file, whose own have to be there.
func (k *check) opened(measured, after []config.Listener) (all []*config.Listener) {
	static, seen, taken := map[string]*config.Listener{}, map[string]bool{}, map[string]bool{}
	for i := range measured {
		static[measured[i].Address] = &measured[i]
	}
	for i := range after {
		l := &after[i]
		k.part, k.name = PartListener, l.Label()
		switch m := static[l.Address]; {
		case seen[l.Address]:
			k.add("measured", attest.CodeLimitMeasured, "address", quote(l.Address)+" twice", "an address of its own")
		case taken[l.Label()]:
			k.add("measured", attest.CodeLimitMeasured, "name", "two listeners of that name", "one")
		case m != nil && !m.Equal(l):
			k.add("measured", attest.CodeLimitMeasured, "", "another listener than that of the static file", "an address that is not in the file")
		case m == nil:
			all = append(all, l)
		}
		seen[l.Address], taken[l.Label()] = true, true
	}
	for i := range measured {
		if !seen[measured[i].Address] {
			k.part, k.name = PartListener, measured[i].Label()
			k.add("measured", attest.CodeLimitMeasured, "", "nothing", "the listener of the static file")
		}
	}
	return all
}

// pushed checks the names of the policies that came over xDS.
func (k *check) pushed() {
	n := 0
	for _, key := range slices.Sorted(maps.Keys(k.policies)) {
		p := k.policies[key]
		if !p.Pushed {
			continue
		}
		n++
		if k.part, k.name = PartPolicy, p.Name; !named(k.limits.Policies, p.Name) {
			k.add("policies", attest.CodeLimitPolicy, "", "a policy of that name", "one of the names in policies of the limits")
		}
	}
	k.part = PartWhole
	k.most("policies", n, k.Guard.most.Policies)
}

func (k *check) most(key string, n, most int) {
	if n > most {
		k.part = PartWhole
		k.add("most", attest.CodeLimitCount, key, strconv.Itoa(n), "at most "+strconv.Itoa(most))
	}
}

// counts bounds what a configuration makes the proxy hold.
func (k *check) counts(listeners []*config.Listener, clusters []*config.Cluster) {
	routes, endpoints, points := 0, 0, 0
	for _, l := range listeners {
		routes += routesOf(&l.Serving) + len(l.Chains)
		for i := range l.Chains {
			routes += routesOf(&l.Chains[i].Serving)
		}
	}
	for _, c := range clusters {
		n, tables := 0, map[uint32]bool{}
		for _, l := range c.Static() {
			n += len(l.Endpoints)
			tables[l.Priority] = true
		}
		if c.DNS != nil {
			for _, name := range c.DNS.Names {
				n++
				tables[name.Priority] = true
			}
		}
		endpoints += n
		points += n + len(tables)*pointsOf(&c.Config)
	}
	k.most("listeners", len(listeners), k.Guard.most.Listeners)
	k.most("clusters", len(clusters), k.Guard.most.Clusters)
	k.most("endpoints", endpoints, k.Guard.most.Endpoints)
	k.most("routes", routes, k.Guard.most.Routes)
	k.most("points", points, k.Guard.most.Points)
}

func routesOf(s *config.Serving) (n int) {
	if s.HTTP != nil {
		for i := range s.HTTP.VirtualHosts {
			n += 1 + len(s.HTTP.VirtualHosts[i].Routes)
		}
	}
	return n
}

// pointsOf is how large a table of a cluster gets, at most. What is out of the range that clusters allow counts as much as may be.
func pointsOf(c *upstream.Config) int {
	const most = 8 << 20
	size := 0
	switch c.Policy {
	case "ring_hash":
		size = c.MaximumRingSize
		if size == 0 {
			size = max(1<<20, c.MinimumRingSize)
		}
	case "maglev":
		if size = c.TableSize; size == 0 {
			size = 65537
		}
	}
	if size < 0 || size > most {
		return most
	}
	return size
}

// judge reports what is wrong with a policy by which peers are let in; nil is nothing.
func (k *check) judge(name string) *attest.Error {
	if err, done := k.judged[name]; done {
		return err
	}
	k.judged[name] = k.tooLoose(k.policies[name])
	return k.judged[name]
}

func (k *check) tooLoose(p Policy) *attest.Error {
	refuse := func(rule, got, want string) *attest.Error {
		return &attest.Error{Code: attest.CodeLimitPolicy, Check: "limits." + rule, Got: got, Want: want}
	}
	if len(p.Layers) == 0 || slices.Contains(p.Layers, nil) {
		return refuse("policy", "no policy of that name", "one that is pushed, or in the static file")
	}
	if !slices.ContainsFunc(p.Layers, func(l *policy.Policy) bool { return len(l.Looser(k.floor)) == 0 }) {
		return refuse("floor", fmt.Sprintf("a policy that is looser than the floor: %.200s", p.Layers[0].Looser(k.floor)[0]), "one that is at least as strict, or stands on it")
	}
	want := k.limits.binding()
	if !slices.ContainsFunc(p.Layers, func(l *policy.Policy) bool { return l.LeastBinding().AtLeast(want) }) {
		return refuse("binding", string(p.Layers[0].LeastBinding()), "at least "+string(want))
	}
	return nil
}

// evidenceAge is how old evidence may be at most.
func (p *Policy) evidenceAge() time.Duration {
	least := p.Layers[0].EvidenceAge()
	for _, l := range p.Layers[1:] {
		least = min(least, l.EvidenceAge())
	}
	return least
}

// held checks the policy that peers are held to, and how often they attest anew. allowed are names; nil is all.
func (k *check) held(at, require, reattestAt string, reattest time.Duration, allowed []string) {
	if err := k.judge(require); err != nil {
		k.addErr(at, err)
		return
	}
	p := k.policies[require]
	if allowed != nil && !named(allowed, p.Name) {
		k.add("policy", attest.CodeLimitPolicy, at, quote(p.Name), "one of the policies that the limits name for this")
	}
	if most := max(p.evidenceAge()/2, config.MinReattest); reattest < 0 || reattest > most {
		k.add("reattest", attest.CodeLimitPolicy, reattestAt, reattest.String(), "at most "+most.String()+", half of the policy's freshness.evidence")
	}
}
