package guard

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/route"
)

func (k *check) listener(l *config.Listener) {
	limit := k.listeners[l.Address]
	if limit == nil {
		k.add("listener", attest.CodeLimitListener, "address", quote(l.Address), "an address in the listeners of the limits")
		return
	}
	if l.Transparent != "" && (!limit.Transparent || len(l.Chains) == 0) {
		k.add("bypass", attest.CodeLimitBypass, "transparent", "connections that were meant for others", "transparent in the limits, and chains that say where they go")
	}
	for i, s := range l.ProxyProtocol {
		p, _ := config.ParsePrefix(s) // what is none is within none
		if !slices.ContainsFunc(limit.prefixes, func(q netip.Prefix) bool { return within(p, q) }) {
			k.add("proxy_protocol", attest.CodeLimitClients, fmt.Sprintf("proxy_protocol[%d]", i), quote(s), "within the prefixes of the limits")
		}
	}
	if l.Serves() {
		k.serving("", &l.Serving, limit)
	}
	for i := range l.Chains {
		k.serving(fmt.Sprintf("chains[%d].", i), &l.Chains[i].Serving, limit)
	}
}

// serving checks what becomes of connections. at is its place in the listener.
func (k *check) serving(at string, s *config.Serving, limit *admitted) {
	k.clients(at, s, limit)
	k.bypass(at, s)
	if s.To != "" {
		k.service(at+"to", s.To, limit)
	}
	if s.Cluster != "" {
		k.leads(at+"cluster", s.Cluster, limit)
	}
	if s.HTTP != nil {
		k.routes(at+"http", s.HTTP, s.Plain, limit)
	}
}

// clients checks who is let in.
func (k *check) clients(at string, s *config.Serving, limit *admitted) {
	kind := "attested"
	switch {
	case s.Plain:
		kind = "plain"
	case s.Require == "":
		kind = "anybody"
	}
	if s.Require == "" && k.nowhere(s) {
		return // who gets nowhere needs no proof of anything
	}
	if want := cmp.Or(limit.Clients, "attested"); kind != want && !(kind == "attested" && want == "anybody") {
		k.add("clients", attest.CodeLimitClients, strings.TrimSuffix(at, "."), "clients: "+kind, want)
	}
	if s.Require != "" {
		k.held(at+"require", s.Require, at+"reattest", s.Reattest, limit.Policies)
	}
}

func within(p, q netip.Prefix) bool { return p.Bits() >= q.Bits() && q.Contains(p.Addr()) }

// nowhere reports whether all that becomes of connections is that they end: they are for a cluster without endpoints, by which a control
// plane says that it wants them refused.
func (k *check) nowhere(s *config.Serving) bool {
	c := k.clusters[s.Cluster]
	return s.TCP && c != nil && len(k.reach(c)) == 0
}

// bypass refuses what no rule about targets can be held against.
func (k *check) bypass(at string, s *config.Serving) {
	for _, way := range []struct {
		set       bool
		key, what string
	}{
		{len(s.Passthrough) > 0, "passthrough", "TLS that is not ended here"},
		{len(s.Forward) > 0, "forward", "targets of the clients' choice"},
		{s.Credentials != "", "credentials", "a file of passwords"},
		{s.Public != nil, "public", "a certificate for clients that know nothing of evidence"},
	} {
		if way.set {
			k.add("bypass", attest.CodeLimitBypass, at+way.key, way.what, "none that came over xDS")
		}
	}
}

// service checks a service that a listener names itself, which is reached in plain.
func (k *check) service(at, service string, limit *admitted) {
	s, _ := config.ParseService(service) // what is none is nowhere
	address := s.Target
	if s.Network == "unix" {
		address = "unix:" + address
	}
	to := parsePlace(address)
	var targets uint64
	for i := range k.targets {
		if t := &k.targets[i]; t.Plain && t.leads(to) {
			targets |= 1 << i
		}
	}
	if targets&limit.to == 0 {
		k.add("target", attest.CodeLimitTarget, at, quote(service)+" in plain", "a place in the plain targets that the limits name for this listener")
	}
}

// leads checks that everything a cluster leads to is meant for a listener. What is wrong with a cluster of xDS itself has been told.
func (k *check) leads(at, name string, limit *admitted) {
	c := k.clusters[name]
	if c == nil {
		k.add("target", attest.CodeLimitTarget, at, quote(name), "the name of a cluster")
		return
	}
	for _, r := range k.reach(c) {
		if r.targets&limit.to == 0 {
			k.add("target", attest.CodeLimitTarget, at, quote(name)+", of which "+r.at+" leads elsewhere", "places in the targets that the limits name for this listener")
			return
		}
	}
}

func (k *check) routes(at string, c *route.Config, plain bool, limit *admitted) {
	k.edits(at, c.RequestHeaders, c.ResponseHeaders)
	for i := range c.VirtualHosts {
		h := &c.VirtualHosts[i]
		at := fmt.Sprintf("%s.virtual_hosts[%d]", at, i)
		k.edits(at, h.RequestHeaders, h.ResponseHeaders)
		for j := range h.Routes {
			r := &h.Routes[j]
			at := fmt.Sprintf("%s.routes[%d]", at, j)
			k.edits(at, r.RequestHeaders, r.ResponseHeaders)
			if r.Route != nil {
				k.action(at+".route", r.Route, limit)
			}
			if r.Redirect != nil {
				k.redirect(at+".redirect", r.Redirect, plain, limit)
			}
			// Whoever asked takes it for an answer of the peer.
			if d := r.DirectResponse; d != nil && !k.limits.Answers && (d.Status < 400 || d.Body != "") {
				k.add("answers", attest.CodeLimitContent, at+".direct_response", fmt.Sprintf("status %d and %d bytes", d.Status, len(d.Body)), "an error without a body, or answers in the limits")
			}
		}
	}
}

func (k *check) action(at string, a *route.RouteAction, limit *admitted) {
	if a.Cluster != "" {
		k.leads(at+".cluster", a.Cluster, limit)
	}
	for i := range a.WeightedClusters {
		w := &a.WeightedClusters[i]
		at := fmt.Sprintf("%s.weighted_clusters[%d]", at, i)
		k.leads(at+".name", w.Name, limit)
		k.edits(at, w.RequestHeaders, w.ResponseHeaders)
	}
	for i, m := range a.RequestMirrorPolicies {
		at := fmt.Sprintf("%s.request_mirror_policies[%d].cluster", at, i)
		if c := k.clusters[m.Cluster]; c != nil && c.Attested == nil {
			k.add("mirror", attest.CodeLimitBypass, at, "copies of requests to "+quote(m.Cluster)+" in plain", "an attested cluster")
			continue
		}
		k.leads(at, m.Cluster, limit)
	}
	if a.PrefixRewrite != "" || a.RegexRewrite != nil || a.HostRewrite != "" {
		k.rewrite(at, "another path or host")
	}
	for i, h := range a.HashPolicy {
		// Where a client has no such cookie it gets one, in the answer of the peer: under the name of one of the peer's own.
		if h.Cookie != nil && h.Cookie.TTL != 0 {
			k.rewrite(fmt.Sprintf("%s.hash_policy[%d].cookie.ttl", at, i), "answers that set a cookie")
		}
	}
}

func (k *check) edits(at string, edits ...route.HeaderMutation) {
	for _, e := range edits {
		if len(e.Remove) > 0 || len(e.Set) > 0 {
			k.rewrite(at, "other headers")
			return
		}
	}
}

func (k *check) rewrite(at, what string) {
	if !k.limits.Rewrite {
		k.add("rewrite", attest.CodeLimitContent, at, what, "requests and answers as they are, or rewrite in the limits")
	}
}

// redirect checks where clients are sent: whoever follows leaves the proxy, and says there what was meant for the peer. From TLS to TLS
// of the same name is no way out, from plaintext to TLS is one: nothing there is attested. Nor is the listener's own port, which Envoy Gateway
// says in every redirect.
func (k *check) redirect(at string, r *route.RedirectAction, plain bool, limit *admitted) {
	own := false
	if at := parsePlace(limit.Address); at.port != 0 && !limit.Transparent {
		own = r.Port == at.port && r.Scheme == ""
	}
	if r.Host == "" && (r.Port == 0 || own) && (r.Scheme == "" || r.Scheme == "https" && !plain) {
		return
	}
	h, _ := parseHost(r.Host)
	if r.Scheme == "http" || !slices.ContainsFunc(k.redirects, func(p pattern) bool { return p.coversHost(h) }) {
		k.add("redirects", attest.CodeLimitContent, at, quote(r.Scheme+"://"+r.Host), "the same scheme, host and port, or one of redirects in the limits, and never http")
	}
}
