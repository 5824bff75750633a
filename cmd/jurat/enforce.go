package main

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

// The places where peers are appraised, as long as configurations come and go. No two of them have one name, whatever listeners and
// chains are called: what one demands would count for the other.
func atListener(l *config.Listener) string { return "listener " + l.Label() }
func atCluster(c *config.Cluster) string   { return "cluster " + c.Name }

func atChain(l *config.Listener, chain string) string {
	return "chain " + strconv.Quote(chain) + " of " + atListener(l)
}

func atForward(alone *config.Listener, i int) string {
	return fmt.Sprintf("forward %d of %s", i, placeOf(alone))
}

// placeOf is the place of a listener, or of a chain of one, which comes as the listener that it would be alone. It is no other chain's
// that is like it: a chain stays when the other one is replaced, and would then be held to what that demands.
func placeOf(alone *config.Listener) string {
	if chain, ok := alone.ChainLabel(); ok {
		return atChain(alone, chain)
	}
	return atListener(alone)
}

// places are those of the configuration, with the policies that each demands.
func (c *serveConfig) places() map[string][]string {
	return c.placesOf(&c.Proxy, func(name string) []string { return []string{name} })
}

// placesOf are those of a configuration and of the control plane, with the policies that each demands; demands says which those are for
// what is named there.
func (c *serveConfig) placesOf(conf *config.Config, demands func(name string) []string) map[string][]string {
	all := map[string][]string{}
	add := func(alone *config.Listener) {
		if alone.Require != "" {
			all[placeOf(alone)] = demands(alone.Require)
		}
		for i, f := range alone.Forward {
			all[atForward(alone, i)] = demands(f.Require)
		}
	}
	for i := range conf.Listeners {
		l := &conf.Listeners[i]
		add(l)
		for j := range l.Chains {
			alone := l.Chain(j)
			add(&alone)
		}
	}
	for i := range conf.Clusters {
		if cl := &conf.Clusters[i]; cl.Attested != nil {
			all[atCluster(cl)] = demands(cl.Attested.Require)
		}
	}
	if c.XDS != nil {
		all[atControlPlane] = []string{c.XDS.Require}
	}
	c.SDS.places(all)
	c.replicas(all)
	return all
}

// change puts a configuration into force, in the place of another one, which may be nil.
func (c *serveConfig) change(before *serveConfig) enforce.Change {
	change := enforce.Change{Policies: map[string]attest.Policy{}, Places: c.places()}
	if before != nil {
		for name := range before.policies {
			change.Policies[name] = nil
		}
	}
	for name, p := range c.policies {
		change.Policies[name] = p
	}
	return change
}

// announce puts what is new in a configuration into force beside what there is: its clusters may be connected to before it is
// applied.
func (g *generation) announce() {
	change := enforce.Change{Policies: map[string]attest.Policy{}, Places: g.places()}
	if g.replaced != nil {
		maps.Copy(change.Places, g.replaced.places()) // which demand what they did until then
	}
	known := g.shared.enforcer.Policies()
	for name, p := range g.policies {
		if known[name] == nil {
			change.Policies[name] = p
		}
	}
	g.shared.enforcer.Publish(change)
}

// withdraw takes back what was announced.
func (g *generation) withdraw() {
	if g.replaced != nil {
		g.shared.enforcer.Publish(g.replaced.change(g.serveConfig))
	}
}

// Commit has the policies of the generation hold from now on, for connections of all generations.
func (g *generation) Commit() {
	var before *serveConfig
	if g.replaced != nil {
		before = g.replaced.serveConfig
	}
	g.sweep = g.shared.enforcer.Publish(g.change(before))
}

// enforce judges the connections that are open by what Commit has put into force.
func (g *generation) enforce(ctx context.Context) {
	if g.sweep != nil {
		g.sweep(ctx)
		g.sweep = nil
	}
}

// appraisers verify for policies. Where the same simulated platforms are trusted it is the same one.
type appraisers struct {
	endorser *endorsers

	mu    sync.Mutex
	known map[string]*attest.Appraiser
}

// of is who verifies for the policies of a place. That a root is trusted for the verification is no more than that: each of the
// policies has to name it.
func (a *appraisers) of(stack attest.Stack) *attest.Appraiser {
	var roots []string
	for _, l := range stack {
		if p, ok := l.Policy.(*policy.Policy); ok {
			roots = append(roots, p.SimulationRoots()...)
		}
	}
	slices.Sort(roots)
	roots = slices.Compact(roots)
	key := strings.Join(roots, " ")
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known[key] == nil {
		if a.known == nil || len(a.known) >= maxAppraisers {
			a.known = map[string]*attest.Appraiser{}
		}
		endorser := recording{a.endorser}
		a.known[key] = attest.NewAppraiser(endorser, attest.NewMemo(judge.Trusting(endorser, a.endorser.tpm, roots).Verifiers()...))
	}
	return a.known[key]
}

// maxAppraisers bounds what is kept where simulated platforms come and go.
const maxAppraisers = 64

// settling is how long changes of endorsements are gathered: vendors' lists come in numbers.
const settling = time.Second

// enforcing judges open connections whenever endorsements have changed, or a rule begins or ends, until ctx ends.
func (o *operation) enforcing(ctx context.Context) {
	var work sync.WaitGroup
	defer work.Wait()
	work.Go(func() { o.shared.enforcer.Run(ctx) })
	for {
		select {
		case <-ctx.Done():
			return
		case <-o.shared.endorser.changed:
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(settling):
		}
		select {
		case <-o.shared.endorser.changed:
		default:
		}
		o.shared.enforcer.Endorsed(ctx)
	}
}

// maxRefusalLines bounds what is said of single connections when many end at once.
const maxRefusalLines = 100

// swept tells of open connections that were judged again.
func swept(log *slog.Logger) func(*enforce.Sweep) {
	return func(w *enforce.Sweep) {
		log.Info("policy in force", "epoch", w.Epoch, "judged", w.Judged, "refused", w.Refused, "verified", w.Verified, "unproven", w.Unproven, "took", w.Took.String())
		for i, r := range w.Refusals {
			if i == maxRefusalLines {
				log.Warn("more peers refused on open connections", "connections", len(w.Refusals)-i)
				break
			}
			log.Warn("peer refused on an open connection", "place", r.Place, "remote", r.Peer, "code", string(r.Is.Code()), "error", r.Is.Err().Error())
		}
		for k, n := range w.Warnings {
			log.Warn("a rule that only reports has something to say about open connections", "place", k.Place, "policy", k.Policy, "check", k.ID, "code", string(k.Code), "line", k.Line, "text", k.Text, "connections", n)
		}
	}
}
