package config

import (
	"reflect"
	"slices"
)

// Equal reports whether two listeners are the same in everything but the contents of what they name.
func (l *Listener) Equal(other *Listener) bool { return reflect.DeepEqual(l, other) }

// Equal reports whether two clusters are the same in everything but the contents of what they name.
func (c *Cluster) Equal(other *Cluster) bool { return reflect.DeepEqual(c, other) }

// Policies answers the names of all policies, each once, in order.
func (c *Config) Policies() []string {
	var names []string
	c.WithPolicies(func(name string) string {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		return name
	})
	return names
}

// WithPolicies answers c with id(name) in place of every name of a policy: two such configurations are equal only where
// the policies are the same, whatever became of the files. c is not changed, and shares the rest with the answer.
func (c *Config) WithPolicies(id func(name string) string) Config {
	out := Config{slices.Clone(c.Listeners), slices.Clone(c.Clusters)}
	for i := range out.Listeners {
		l := &out.Listeners[i]
		l.Serving = l.withPolicies(id)
		l.Chains = slices.Clone(l.Chains)
		for j := range l.Chains {
			l.Chains[j].Serving = l.Chains[j].withPolicies(id)
		}
	}
	for i := range out.Clusters {
		if a := out.Clusters[i].Attested; a != nil {
			attested := *a
			attested.Require = id(a.Require)
			out.Clusters[i].Attested = &attested
		}
	}
	return out
}

func (s Serving) withPolicies(id func(name string) string) Serving {
	if s.Require != "" {
		s.Require = id(s.Require)
	}
	s.Public = s.Public.withPolicies(id)
	s.Forward = slices.Clone(s.Forward)
	for i := range s.Forward {
		s.Forward[i].Require = id(s.Forward[i].Require)
	}
	return s
}

func (p *Public) withPolicies(id func(name string) string) *Public {
	if p == nil || p.ACME == nil || p.ACME.Share == nil && p.ACME.StorageAt == nil {
		return p
	}
	out, acme := *p, *p.ACME
	out.ACME = &acme
	if acme.Share != nil {
		share := *acme.Share
		share.Require, acme.Share = id(share.Require), &share
	}
	if acme.StorageAt != nil {
		at := *acme.StorageAt
		at.Require, acme.StorageAt = id(at.Require), &at
	}
	return &out
}
