package guard_test

import (
	"flag"
	"fmt"
	"net"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/xds/guard"
)

// spot is where bytes end up, as a person reads an address.
type spot struct {
	ip   string
	name string
	port int
	path string
	evil bool // no address that anything should be decided by
}

var spots = map[string]spot{
	"10.0.0.1:443":                       {ip: "10.0.0.1", port: 443},
	"10.0.0.1:80":                        {ip: "10.0.0.1", port: 80},
	"10.9.0.1:443":                       {ip: "10.9.0.1", port: 443},
	"203.0.113.1:443":                    {ip: "203.0.113.1", port: 443},
	"127.0.0.1:8080":                     {ip: "127.0.0.1", port: 8080},
	"127.0.0.1:9":                        {ip: "127.0.0.1", port: 9},
	"[::1]:8080":                         {ip: "::1", port: 8080},
	"[::ffff:127.0.0.1]:8080":            {ip: "127.0.0.1", port: 8080},
	"[::ffff:203.0.113.1]:8080":          {ip: "203.0.113.1", port: 8080},
	"pay.example:443":                    {name: "pay.example", port: 443},
	"A.Pay.Example.:443":                 {name: "a.pay.example", port: 443},
	"evil.example:443":                   {name: "evil.example", port: 443},
	"a.pay.example.evil.example:443":     {name: "a.pay.example.evil.example", port: 443},
	"localhost:8080":                     {name: "localhost", port: 8080},
	"unix:/run/app.sock":                 {path: "/run/app.sock"},
	"unix:/run/peers/1":                  {path: "/run/peers/1"},
	"unix:/run/peers/../app.sock":        {evil: true},
	"unix:/run/peers/../../etc/evilsock": {evil: true},
	"127.1:8080":                         {name: "127.1", port: 8080},
	"[fe80::1%eth0]:443":                 {evil: true},
	"10.0.0.1":                           {evil: true},
	"":                                   {evil: true},
}

func cidr(text string) func(spot) bool {
	_, n, err := net.ParseCIDR(text)
	if err != nil {
		panic(err)
	}
	return func(s spot) bool { return s.ip != "" && n.Contains(net.ParseIP(s.ip)) }
}

func isLoopback(s spot) bool { return s.ip != "" && net.ParseIP(s.ip).IsLoopback() }

// regions are what patterns of the limits mean.
var regions = map[string]func(spot) bool{
	"10.0.0.0/8:443":     func(s spot) bool { return cidr("10.0.0.0/8")(s) && s.port == 443 },
	"10.0.0.1":           func(s spot) bool { return s.ip == "10.0.0.1" },
	"203.0.113.0/24":     cidr("203.0.113.0/24"),
	"loopback":           isLoopback,
	"loopback:8080":      func(s spot) bool { return isLoopback(s) && s.port == 8080 },
	"::1":                func(s spot) bool { return s.ip == "::1" },
	"*.pay.example:443":  func(s spot) bool { return s.port == 443 && strings.HasSuffix(s.name, ".pay.example") },
	"pay.example":        func(s spot) bool { return s.name == "pay.example" },
	"*":                  func(s spot) bool { return s.path == "" },
	"localhost:8080":     func(s spot) bool { return s.name == "localhost" && s.port == 8080 },
	"unix:/run/app.sock": func(s spot) bool { return s.path == "/run/app.sock" },
	"unix:/run/peers/*":  func(s spot) bool { return strings.HasPrefix(s.path, "/run/peers/") },
}

var plainRegions = []string{"10.0.0.0/8:443", "loopback", "loopback:8080", "::1", "pay.example", "localhost:8080", "unix:/run/app.sock", "unix:/run/peers/*"}

// callers are what names of the limits mean.
var callers = map[string]func(string) bool{
	"pay.example": func(n string) bool { return strings.EqualFold(strings.TrimSuffix(n, "."), "pay.example") },
	"*.pay.example": func(n string) bool {
		return strings.HasSuffix(strings.ToLower(strings.TrimSuffix(n, ".")), ".pay.example")
	},
	"*":         func(n string) bool { return n != "" },
	"10.0.0.1":  func(n string) bool { return n == "10.0.0.1" },
	"localhost": func(n string) bool { return n == "localhost" },
}

// peers are some who might be let in.
func peers() (all []peer) {
	now := time.Date(2026, 11, 20, 12, 0, 0, 0, time.UTC)
	measured, other := attest.HexBytes{}, attest.HexBytes(make([]byte, 48))
	for range 24 {
		measured = append(measured, 0x55, 0xd0)
	}
	for _, generation := range []string{"milan", "genoa"} {
		for _, tcb := range []uint64{19, 21, 23} {
			for _, m := range []attest.HexBytes{measured, other} {
				for _, level := range []attest.Level{attest.LevelKey, attest.LevelSession} {
					zero := 0
					all = append(all, peer{&attest.Claims{
						Vendor: "amd", TEE: "snp", Product: "EPYC", Generation: generation, Stepping: "B1",
						TCB: attest.TCB{"snp": tcb}, Debug: attest.Off, Migratable: attest.Off, Privilege: &zero,
						Measured:   map[string]attest.HexBytes{"launch": m},
						Revocation: attest.Revocation{Issued: now.Add(-time.Hour), Expires: now.Add(time.Hour)},
					}, attest.Situation{Level: level, Made: now.Add(-time.Minute), Now: now}})
				}
			}
		}
	}
	return all
}

type peer struct {
	claims    *attest.Claims
	situation attest.Situation
}

func (p peer) meets(layers ...*policy.Policy) bool {
	for _, l := range layers {
		j := l.Judge(p.claims, p.situation)
		if len(j.Checks) == 0 || slices.ContainsFunc(j.Checks, func(c attest.Check) bool { return c.Status == attest.StatusFail }) {
			return false
		}
	}
	return len(layers) > 0
}

// world is what the oracle looks at.
type world struct {
	limits   guard.Limits
	floor    *policy.Policy
	policies map[string]guard.Policy
	peers    []peer
}

// wrong is what is dangerous about a configuration, by the statement that the package makes; "" is nothing.
func (w *world) wrong(measured, after *config.Config) string {
	for _, m := range measured.Listeners {
		if n := count(after.Listeners, func(l config.Listener) bool { return reflect.DeepEqual(l, m) }); n != 1 {
			return fmt.Sprintf("the static listener %s is there %d times", m.Address, n)
		}
	}
	for _, m := range measured.Clusters {
		if n := count(after.Clusters, func(c config.Cluster) bool { return reflect.DeepEqual(c, m) }); n != 1 {
			return fmt.Sprintf("the static cluster %s is there %d times", m.Name, n)
		}
	}
	clusters := map[string]config.Cluster{}
	for _, c := range after.Clusters {
		if _, twice := clusters[c.Name]; twice {
			return "two clusters " + c.Name
		}
		clusters[c.Name] = c
	}
	addresses := map[string]bool{}
	for _, l := range after.Listeners {
		if addresses[l.Address] {
			return "two listeners at " + l.Address
		}
		addresses[l.Address] = true
		if slices.ContainsFunc(measured.Listeners, func(m config.Listener) bool { return m.Address == l.Address }) {
			continue
		}
		if text := w.listener(l, clusters); text != "" {
			return "listener " + l.Address + ": " + text
		}
	}
	for name, c := range clusters { // health checks go out whether or not a route is there
		if slices.ContainsFunc(measured.Clusters, func(m config.Cluster) bool { return m.Name == name }) {
			continue
		}
		var all []string
		for _, t := range w.limits.Targets {
			all = append(all, t.Name)
		}
		if c.Attested == nil && w.limits.Attested != nil && strings.HasPrefix(c.Name, "must-") && leads(c) {
			return "a plain cluster whose name says that it is attested"
		}
		if c.HealthCheck == nil {
			continue
		}
		if text := w.cluster(c, all); text != "" {
			return "cluster " + name + ": " + text
		}
	}
	return ""
}

// leads reports whether anything can get somewhere by a cluster.
func leads(c config.Cluster) bool {
	return len(c.Endpoints) > 0 || slices.ContainsFunc(c.Localities, func(l upstream.LocalityEndpoints) bool { return len(l.Endpoints) > 0 }) ||
		c.DNS != nil || c.OriginalDestination != nil
}

func count[T any](list []T, f func(T) bool) (n int) {
	for _, v := range list {
		if f(v) {
			n++
		}
	}
	return n
}

func (w *world) listener(l config.Listener, clusters map[string]config.Cluster) string {
	i := slices.IndexFunc(w.limits.Listeners, func(m guard.Listener) bool { return m.Address == l.Address })
	if i < 0 {
		return "no such listener is allowed"
	}
	limit := w.limits.Listeners[i]
	if l.Transparent != "" && (!limit.Transparent || len(l.Chains) == 0) {
		return "connections of others go wherever they want"
	}
	all := []config.Serving{l.Serving}
	if !l.Serves() && len(l.Chains) > 0 {
		all = nil
	}
	for _, c := range l.Chains {
		all = append(all, c.Serving)
	}
	for _, s := range all {
		if text := w.serving(l.Address, s, limit, clusters); text != "" {
			return text
		}
	}
	return ""
}

// serving is what is wrong with what becomes of some connections.
func (w *world) serving(address string, l config.Serving, limit guard.Listener, clusters map[string]config.Cluster) string {
	if c := clusters[l.Cluster]; l.TCP && l.Cluster != "" && !leads(c) {
		if l.Plain || l.Require == "" {
			return "" // all that happens is that the connection ends
		}
	}
	local := strings.HasPrefix(address, "127.") || strings.HasPrefix(address, "unix:")
	switch {
	case l.Plain && limit.Clients != "plain":
		return "clients in plain"
	case l.Plain && !local && !limit.UnsafeListen:
		return "others can connect in plain"
	case !l.Plain && l.Require == "" && limit.Clients != "anybody":
		return "nobody is asked for evidence"
	case !l.Plain && l.Require != "":
		if text := w.policy(l.Require, l.Reattest, limit.Policies); text != "" {
			return text
		}
	}
	if l.Passthrough != nil || l.Forward != nil {
		return "bytes get past"
	}
	if l.To != "" {
		if text := w.place(strings.TrimPrefix(l.To, "http://"), nil, "", limit.To); text != "" {
			return "to: " + text
		}
	}
	names := []string{l.Cluster}
	if l.HTTP != nil {
		// Whatever is called a cluster somewhere below.
		names = append(names, references(reflect.ValueOf(*l.HTTP))...)
		for _, h := range l.HTTP.VirtualHosts {
			for _, r := range h.Routes {
				if r.Redirect != nil && r.Redirect.Host != "" || r.DirectResponse != nil && r.DirectResponse.Status == 200 {
					return "an answer that nobody gave"
				}
				if r.Route != nil {
					for _, m := range r.Route.RequestMirrorPolicies {
						if clusters[m.Cluster].Attested == nil {
							return "copies in plain"
						}
					}
				}
			}
		}
	}
	for _, name := range names {
		if name == "" {
			continue
		}
		c, ok := clusters[name]
		if !ok {
			return "no cluster " + name
		}
		if text := w.cluster(c, limit.To); text != "" {
			return "cluster " + name + ": " + text
		}
	}
	return ""
}

// references are the names of clusters in routes: all texts in fields that are called Cluster, and the names of shares.
func references(v reflect.Value) (all []string) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			all = references(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			all = append(all, references(v.Index(i))...)
		}
	case reflect.Struct:
		if w, ok := v.Interface().(route.WeightedCluster); ok {
			return []string{w.Name}
		}
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.Name == "Cluster" && f.Type.Kind() == reflect.String {
				all = append(all, v.Field(i).String())
			} else {
				all = append(all, references(v.Field(i))...)
			}
		}
	}
	return all
}

// cluster is what is wrong with sending bytes to a cluster, where they may go to some targets.
func (w *world) cluster(c config.Cluster, targets []string) string {
	var all []upstream.Identity
	for _, e := range c.Endpoints {
		all = append(all, e.Identity)
	}
	for _, l := range c.Localities {
		for _, e := range l.Endpoints {
			all = append(all, e.Identity)
		}
	}
	if c.DNS != nil {
		for _, n := range c.DNS.Names {
			all = append(all, upstream.Identity{Address: net.JoinHostPort(n.Host, fmt.Sprint(n.Port)), Hostname: n.Host})
		}
	}
	if o := c.OriginalDestination; o != nil {
		if o.UnsafePlain || !slices.ContainsFunc(w.limits.Targets, func(t guard.Target) bool {
			region := "*"
			if t.Plain {
				region = "loopback"
			} else if c.Attested != nil && !slices.ContainsFunc(t.Names, func(n string) bool { return n == "*" || c.Attested.Name != "" && callers[n](c.Attested.Name) }) {
				return false
			}
			return slices.Contains(targets, t.Name) && t.Plain == (c.Attested == nil) && slices.Contains(t.To, region) &&
				(t.Policies == nil || slices.Contains(t.Policies, c.Attested.Require))
		}) {
			return "wherever connections were going"
		}
	}
	for _, e := range all {
		if text := w.place(e.Address, c.Attested, e.Hostname, targets); text != "" {
			return text
		}
		if e.Transport != "" {
			return "an endpoint that says how it is reached"
		}
	}
	if c.Attested != nil {
		return w.policy(c.Attested.Require, c.Attested.Reattest, nil)
	}
	return ""
}

func (w *world) place(address string, a *config.Attested, hostname string, targets []string) string {
	s, ok := spots[address]
	if !ok {
		panic(address)
	}
	if s.evil {
		return "the address " + address
	}
	for _, t := range w.limits.Targets {
		if !slices.Contains(targets, t.Name) || !slices.ContainsFunc(t.To, func(r string) bool { return regions[r](s) }) || t.Plain != (a == nil) {
			continue
		}
		if a == nil {
			return ""
		}
		name := hostname
		switch {
		case a.Name != "":
			name = a.Name
		case hostname != "":
		case s.path != "":
			name = "localhost"
		case s.ip != "":
			name = s.ip
		default:
			name = s.name
		}
		if !slices.ContainsFunc(t.Names, func(n string) bool { return callers[n](name) }) {
			continue
		}
		if t.Policies != nil && !slices.Contains(t.Policies, a.Require) {
			continue
		}
		return ""
	}
	return fmt.Sprintf("bytes go to %s (attested: %v, for %q)", address, a != nil, hostname)
}

// policy is what is wrong with letting those in who meet a policy.
func (w *world) policy(name string, reattest time.Duration, allowed []string) string {
	p := w.policies[name]
	if p.Pushed && !strings.HasPrefix(name, "mesh-") || allowed != nil && !slices.Contains(allowed, name) {
		return "the policy " + name
	}
	level := attest.Level(w.limits.Binding)
	if level == "" {
		level = attest.LevelSession
	}
	if slices.Contains(p.Layers, nil) {
		return "a layer is missing"
	}
	for _, peer := range w.peers {
		if peer.meets(p.Layers...) && (!peer.meets(w.floor) || !peer.situation.Level.AtLeast(level)) {
			return fmt.Sprintf("%s lets in %s with %v, bound at %s", name, peer.claims.Generation, peer.claims.TCB, peer.situation.Level)
		}
	}
	if len(p.Layers) == 0 {
		return "nobody can be let in"
	}
	if reattest > time.Hour || reattest < 0 { // no policy here takes evidence of more than two hours
		return "evidence is too old"
	}
	return ""
}

// maker draws limits and configurations over few words, so that they meet.
type maker struct {
	*rapid.T
	careful bool // most of it is right
}

func (m maker) chance(percent int, what string) bool {
	if m.careful && percent < 10 {
		percent = 1
	}
	if m.careful && percent > 80 {
		percent = 99
	}
	return rapid.IntRange(0, 99).Draw(m.T, what) < percent
}

func pick[T any](m maker, what string, all ...T) T {
	return rapid.SampledFrom(all).Draw(m.T, what)
}

// seldom is a value, and now and then one of some others.
func (m maker) seldom(value, what string, others ...string) string {
	if m.chance(85, what) {
		return value
	}
	return pick(m, what, others...)
}

func some[T any](m maker, what string, least, most int, f func() T) (out []T) {
	for range rapid.IntRange(least, most).Draw(m.T, what) {
		out = append(out, f())
	}
	return out
}

func keys[V any](m map[string]V) []string {
	var all []string
	for k := range m {
		all = append(all, k)
	}
	slices.Sort(all)
	return all
}

var listenAddresses = []string{"127.0.0.1:1", "127.0.0.1:2", ":3", "0.0.0.0:4", "unix:/run/in"}

func (m maker) limits() guard.Limits {
	l := guard.Limits{Floor: "f", Policies: []string{"mesh-*"}, Binding: m.seldom("key", "binding", "", "session")}
	if m.chance(50, "attested") {
		l.Attested = []string{"must-*"}
	}
	for i := range rapid.IntRange(1, 3).Draw(m.T, "targets") {
		t := guard.Target{Name: fmt.Sprint("t", i)}
		if t.Plain = m.chance(40, "plain"); t.Plain {
			t.UnsafePlain = true
			t.To = some(m, "to", 1, 3, func() string { return pick(m, "to", plainRegions...) })
		} else {
			t.To = some(m, "to", 1, 4, func() string { return pick(m, "to", keys(regions)...) })
			t.Names = append(some(m, "names", 0, 3, func() string { return pick(m, "name", keys(callers)...) }), m.seldom("*", "name", keys(callers)...))
			if m.chance(20, "policies") {
				t.Policies = some(m, "policies", 1, 2, func() string { return pick(m, "policy", "mesh-strict", "mesh-loose", "ledger.yaml") })
			}
		}
		l.Targets = append(l.Targets, t)
	}
	target := func() string { return pick(m, "target", l.Targets...).Name }
	for _, a := range listenAddresses {
		if m.chance(10, "no listener") {
			continue
		}
		g := guard.Listener{Address: a, To: some(m, "to", 1, 4, target), Clients: pick(m, "clients", "", "plain", "plain", "anybody", "attested")}
		if m.careful {
			g.To = nil
			for _, t := range l.Targets {
				g.To = append(g.To, t.Name)
			}
		}
		if g.Clients == "plain" {
			g.UnsafeListen = strings.Contains(a, ":3") || strings.Contains(a, ":4") || m.chance(20, "unsafe")
			g.Transparent = m.chance(50, "transparent")
		} else if m.chance(20, "policies") {
			g.Policies = []string{"mesh-strict"}
		}
		l.Listeners = append(l.Listeners, g)
	}
	return l
}

// place is an address, mostly one that is in a target of a kind.
func (m maker) place(l *guard.Limits, plain bool) string {
	if m.chance(96, "fits") {
		var fits []string
		for _, a := range keys(spots) {
			if slices.ContainsFunc(l.Targets, func(t guard.Target) bool {
				return t.Plain == plain && !spots[a].evil && slices.ContainsFunc(t.To, func(r string) bool { return regions[r](spots[a]) })
			}) {
				fits = append(fits, a)
			}
		}
		if len(fits) > 0 {
			return pick(m, "address", fits...)
		}
	}
	return pick(m, "address", keys(spots)...)
}

func (m maker) cluster(l *guard.Limits, name string) config.Cluster {
	c := config.Cluster{Config: upstream.Config{Name: name}}
	plain := m.chance(40, "plain")
	if !plain {
		c.Attested = &config.Attested{
			Require:  m.seldom("mesh-strict", "require", "mesh-loose", "mesh-key", "mesh-bare", "mesh-none", "ledger.yaml", "weak.yaml", "nobody"),
			Name:     pick(m, "name", "", "", "pay.example", "a.pay.example", "10.0.0.1"),
			Reattest: pick(m, "reattest", 0, 20*time.Minute),
		}
		if m.chance(3, "reattest") {
			c.Attested.Reattest = pick(m, "reattest", 5*time.Hour, -1)
		}
		if m.chance(3, "name") {
			c.Attested.Name = "evil.example"
		}
	}
	if attested := slices.DeleteFunc(slices.Clone(l.Targets), func(t guard.Target) bool { return t.Plain }); !plain && len(attested) > 0 && m.chance(80, "names fit") {
		t := pick(m, "target", attested...)
		c.Attested.Name = map[string]string{"*.pay.example": "a.pay.example", "*": "anything.example"}[t.Names[0]]
		if c.Attested.Name == "" {
			c.Attested.Name = t.Names[0]
		}
		if t.Policies != nil {
			c.Attested.Require = t.Policies[0]
		}
	}
	if m.chance(30, "asked") {
		c.HealthCheck = &upstream.HealthCheck{Kind: "tcp"}
	}
	endpoint := func() upstream.EndpointConfig {
		e := upstream.EndpointConfig{Identity: upstream.Identity{Address: m.place(l, plain), Hostname: m.seldom("", "hostname", "pay.example", "a.pay.example", "evil.example")}}
		if m.chance(1, "transport") {
			e.Transport = "raw"
		}
		return e
	}
	switch pick(m, "kind", "endpoints", "endpoints", "endpoints", "endpoints", "localities", "localities", "dns", "onward") {
	case "onward":
		if slices.ContainsFunc(l.Targets, func(t guard.Target) bool { return t.Plain && slices.Contains(t.To, "loopback") }) {
			c.Attested = nil
		}
		c.OriginalDestination = &config.OriginalDestination{UnsafePlain: m.chance(5, "anywhere")}
	case "endpoints":
		c.Endpoints = some(m, "endpoints", 1, 2, endpoint)
	case "localities":
		c.Localities = some(m, "localities", 0, 2, func() upstream.LocalityEndpoints {
			return upstream.LocalityEndpoints{Endpoints: some(m, "endpoints", 0, 2, endpoint)}
		})
	default:
		c.DNS = &upstream.DNS{Names: some(m, "names", 1, 2, func() upstream.DNSName {
			return upstream.DNSName{Host: pick(m, "host", "pay.example", "evil.example", "localhost", "10.0.0.1"), Port: 443}
		})}
		for i := range c.DNS.Names {
			if n := &c.DNS.Names[i]; n.Host == "localhost" {
				n.Port = 8080
			}
		}
	}
	return c
}

func (m maker) listener(address string, clusters []string, clients string) config.Listener {
	l := config.Listener{Address: address, Serving: m.serving(clusters, clients), UnsafeListen: m.chance(3, "unsafe")}
	if m.chance(3, "transparent") {
		l.Transparent = "redirect"
	}
	if !m.chance(25, "chains") {
		return l
	}
	l.Chains = some(m, "chains", 1, 2, func() config.Chain { return config.Chain{Serving: m.serving(clusters, clients)} })
	if m.chance(50, "transparent") {
		l.Transparent = "redirect"
	}
	if m.chance(50, "chains alone") {
		l.Serving = config.Serving{}
	}
	return l
}

// serving is something that becomes of connections, mostly with the clients that the limits want.
func (m maker) serving(clusters []string, clients string) (l config.Serving) {
	cluster := func() string { return pick(m, "cluster", clusters...) }
	if !m.chance(90, "as wanted") {
		clients = pick(m, "clients", "plain", "attested", "anybody")
	}
	switch clients {
	case "plain":
		l.Plain = true
	case "attested":
		l.Require = m.seldom("mesh-strict", "require", "mesh-loose", "mesh-bare", "ledger.yaml", "weak.yaml")
		l.Reattest = pick(m, "reattest", 0, 0, 20*time.Minute)
		if m.chance(3, "reattest") {
			l.Reattest = 5 * time.Hour
		}
	}
	switch m.seldom("http", "kind", "cluster", "cluster", "to", "past") {
	case "cluster":
		l.Cluster, l.TCP = cluster(), m.chance(50, "tcp")
	case "to":
		l.To = pick(m, "to", "127.0.0.1:8080", "http://10.0.0.1:443", "unix:/run/app.sock", "localhost:8080")
	case "http":
		h := route.VirtualHost{Name: "all", Domains: []string{"*"}}
		h.Routes = some(m, "routes", 1, 3, func() route.Route {
			r := route.Route{Match: route.RouteMatch{Prefix: "/"}}
			switch m.seldom("route", "action", "shares", "mirror", "redirect", "answer") {
			case "route":
				r.Route = &route.RouteAction{Cluster: cluster()}
			case "shares":
				r.Route = &route.RouteAction{WeightedClusters: some(m, "shares", 1, 2, func() route.WeightedCluster { return route.WeightedCluster{Name: cluster()} })}
			case "mirror":
				r.Route = &route.RouteAction{Cluster: cluster(), RequestMirrorPolicies: []route.RequestMirror{{Cluster: cluster()}}}
			case "redirect":
				r.Redirect = &route.RedirectAction{Path: "/new", Host: pick(m, "host", "", "", "evil.example")}
			case "answer":
				r.DirectResponse = &route.DirectResponse{Status: pick(m, "status", 200, 404, 503)}
			}
			return r
		})
		l.HTTP = &route.Config{VirtualHosts: []route.VirtualHost{h}}
	default:
		switch pick(m, "past", "passthrough", "forward") {
		case "passthrough":
			l.Passthrough = []config.Passthrough{{Names: []string{"*"}, Cluster: cluster()}}
		case "forward":
			l.Forward = []config.Forward{{Hosts: []string{"*"}, Require: "mesh-strict"}}
		}
	}
	return l
}

// What passes sends no byte to where the limits do not say, and lets nobody in who does not meet the floor: as far as somebody can tell
// who knows the statement and not the code.
func TestNothingPassesThatIsWrong(t *testing.T) {
	const configurations = 20000
	set := flag.Lookup("rapid.checks")
	before := set.Value.String()
	if err := set.Value.Set(fmt.Sprint(configurations)); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = set.Value.Set(before) }()
	w := world{floor: parsePolicy(t, floorText), policies: policies(t), peers: peers()}
	if n := count(w.peers, func(p peer) bool { return p.meets(w.floor) }); n == 0 || n == len(w.peers) {
		t.Fatalf("%d of the peers meet the floor", n)
	}
	drawn, passed, with := 0, 0, map[string]int{}
	rapid.Check(t, func(rt *rapid.T) {
		drawn++
		m := maker{T: rt}
		m.careful = m.chance(60, "careful")
		w := w
		w.limits = m.limits()
		g, err := guard.New(w.limits, w.floor)
		if err != nil {
			rt.Fatal(err)
		}
		measured := config.Config{
			Listeners: []config.Listener{{Name: "static", Address: "127.0.0.1:9000", Serving: config.Serving{Cluster: "static", Plain: true}}},
			Clusters: []config.Cluster{
				m.cluster(&w.limits, "static"),
				m.cluster(&w.limits, "static2"),
			},
		}
		after := config.Config{Listeners: slices.Clone(measured.Listeners), Clusters: slices.Clone(measured.Clusters)}
		names := []string{"static", "static2"}
		for i := range rapid.IntRange(0, 3).Draw(rt, "clusters") {
			name := fmt.Sprint("c", i)
			if m.chance(20, "named") {
				name = fmt.Sprint("must-", i)
			}
			if m.chance(1, "shadow") {
				name = "static"
			}
			after.Clusters = append(after.Clusters, m.cluster(&w.limits, name))
			names = append(names, name)
		}
		for range rapid.IntRange(1, 2).Draw(rt, "listeners") {
			address := m.seldom(pick(m, "address", listenAddresses...), "address", append(listenAddresses, ":5", "127.0.0.1:9000")...)
			clients := "attested"
			if i := slices.IndexFunc(w.limits.Listeners, func(g guard.Listener) bool { return g.Address == address }); i >= 0 && w.limits.Listeners[i].Clients != "" {
				clients = w.limits.Listeners[i].Clients
			}
			l := m.listener(address, names, clients)
			after.Listeners = append(after.Listeners, l)
		}
		if m.chance(1, "static changes") {
			after.Listeners[0].Cluster = pick(m, "cluster", names...)
		}
		if m.chance(1, "static is gone") {
			after.Clusters = after.Clusters[1:]
		}
		problem := w.wrong(&measured, &after)
		err = g.Check(&measured, &after, w.policies)
		if err == nil && problem != "" {
			rt.Fatalf("%s\nlimits: %+v\nmeasured: %+v\nafter: %+v", problem, w.limits, measured, after)
		}
		if err != nil && problem == "" {
			with["refused although nothing is wrong"]++
			if !excusable(err) {
				rt.Fatalf("refused although nothing is wrong: %v\nlimits: %+v\nmeasured: %+v\nafter: %+v", err, w.limits, measured, after)
			}
		}
		if err != nil {
			return
		}
		passed++
		for _, l := range after.Listeners[1:] {
			with[fmt.Sprintf("listener plain=%v", l.Plain)]++
			with[fmt.Sprintf("chains=%v", len(l.Chains) > 0)]++
			if l.Transparent != "" {
				with["transparent"]++
			}
			if l.HTTP != nil {
				with["routes"]++
			}
		}
		for _, c := range after.Clusters[2:] {
			with[fmt.Sprintf("cluster attested=%v", c.Attested != nil)]++
			if c.OriginalDestination != nil {
				with["onward"]++
			}
		}
	})
	t.Logf("%d of %d passed: %v", passed, drawn, with)
	if !t.Failed() && passed < drawn/60 {
		t.Errorf("only %d of %d passed", passed, drawn)
	}
	for _, what := range []string{"listener plain=true", "listener plain=false", "routes", "chains=true", "transparent", "onward", "cluster attested=true", "cluster attested=false"} {
		if !t.Failed() && !testing.Short() && with[what] < drawn/2500 {
			t.Errorf("only %d with %s", with[what], what)
		}
	}
}

// excusable reports whether a refusal is one that the oracle is not about.
func excusable(err error) bool {
	return !slices.ContainsFunc(violations(err), func(v *guard.Violation) bool {
		return !slices.Contains([]string{"limits.clients", "limits.attested", "limits.policy", "limits.reattest", "limits.floor", "limits.binding", "limits.target"}, v.Err.Check)
	})
}
