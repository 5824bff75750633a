package guard

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/proxy/config"
)

// Guard is limits that are ready to be held against configurations. The zero Guard refuses all that is not measured. It is
// immutable and safe for concurrent use.
type Guard struct {
	limits    Limits
	most      Most
	floor     *policy.Policy
	targets   []target
	listeners map[string]*admitted
	redirects []pattern
}

// target is a compiled Target.
type target struct {
	*Target
	to, names []pattern
}

// admitted is a compiled Listener.
type admitted struct {
	*Listener
	prefixes []netip.Prefix
	to       uint64 // targets
}

// New compiles limits. floor is what the file that they name says; without one nothing can be attested. The error joins an *attest.Error
// for each value that is not allowed, whose Subject is its place in limits, such as "targets[0].to[1]".
func New(limits Limits, floor *policy.Policy) (*Guard, error) {
	g := &Guard{limits: limits, most: limits.Most.complete(), floor: floor, listeners: map[string]*admitted{}}
	var k checker
	if !g.limits.binding().Valid() {
		k.bad("binding", quote(limits.Binding), "none, pinned, key, nonce or session")
	}
	if len(limits.Targets) > maxTargets {
		k.bad("targets", strconv.Itoa(len(limits.Targets)), fmt.Sprintf("at most %d", maxTargets))
		return nil, errors.Join(k.errs...)
	}
	bits := map[string]uint64{}
	for i := range limits.Targets {
		t := &g.limits.Targets[i]
		at := fmt.Sprintf("targets[%d]", i)
		if t.Name == "" || bits[t.Name] != 0 {
			k.bad(at+".name", quote(t.Name), "a name that no other target has")
		}
		bits[t.Name] = 1 << i
		g.targets = append(g.targets, k.target(at, t))
	}
	for i := range limits.Listeners {
		l := &g.limits.Listeners[i]
		at := fmt.Sprintf("listeners[%d]", i)
		if g.listeners[l.Address] != nil {
			k.bad(at+".address", quote(l.Address), "an address that is not there before")
		}
		g.listeners[l.Address] = k.listener(at, l, bits)
	}
	for i, s := range limits.Redirects {
		p, ok := parseHosts(s)
		if !ok {
			k.bad(fmt.Sprintf("redirects[%d]", i), quote(s), "a name, *.example, an address or a prefix of addresses")
		}
		g.redirects = append(g.redirects, p)
	}
	if floor == nil && g.attests() {
		k.errs = append(k.errs, &attest.Error{Code: attest.CodeConfigMissing, Check: "config", Subject: "floor", Want: "the policy that peers have to meet, whatever is pushed"})
	}
	k.most(&limits.Most)
	if len(k.errs) > 0 {
		return nil, errors.Join(k.errs...)
	}
	return g, nil
}

// attests reports whether some peer has to attest.
func (g *Guard) attests() bool {
	for i := range g.targets {
		if !g.targets[i].Plain {
			return true
		}
	}
	for _, l := range g.listeners {
		if l.Clients != "plain" {
			return true
		}
	}
	return false
}

type checker struct{ errs []error }

func (k *checker) bad(at, got, want string) {
	k.errs = append(k.errs, &attest.Error{Code: attest.CodeConfigValue, Check: "config", Subject: at, Got: got, Want: want})
}

func quote(s string) string { return fmt.Sprintf("%.100q", s) }

func (k *checker) target(at string, t *Target) target {
	out := target{Target: t}
	if len(t.To) == 0 {
		k.bad(at+".to", "nothing", "HOST[:PORT] or unix:/path")
	}
	for i, s := range t.To {
		p, ok := parsePattern(s)
		switch at := fmt.Sprintf("%s.to[%d]", at, i); {
		case !ok:
			k.bad(at, quote(s), "HOST[:PORT] or unix:/path, where HOST is a prefix, an address, loopback, a name, *.example or *")
		case t.Plain && !p.fixed():
			k.bad(at, quote(s), "addresses, names without *, or sockets: nothing else says where plaintext goes")
		case t.Plain && !t.UnsafePlain && !p.local():
			k.bad(at, quote(s)+", which is not this machine and would get everything in plain", "loopback, a unix socket, or unsafe_plain: true")
		}
		out.to = append(out.to, p)
	}
	for i, s := range t.Names {
		p, ok := parseHosts(s)
		if !ok {
			k.bad(fmt.Sprintf("%s.names[%d]", at, i), quote(s), "a prefix, an address, loopback, a name, *.example or *")
		}
		out.names = append(out.names, p)
	}
	if len(t.Names) == 0 {
		out.names = out.to
	}
	if t.Plain && (len(t.Names) > 0 || len(t.Policies) > 0) {
		k.bad(at+".plain", "true", "neither names nor policies beside it: nothing is attested in plain")
	}
	if t.UnsafePlain && !t.Plain {
		k.bad(at+".unsafe_plain", "true", "plain beside it")
	}
	return out
}

func (k *checker) listener(at string, l *Listener, targets map[string]uint64) *admitted {
	out := &admitted{Listener: l}
	if err := config.CheckAddress(l.Address); err != nil {
		k.bad(at+".address", quote(l.Address), "host:port or unix:/path")
	}
	switch l.Clients {
	case "", "attested", "anybody":
		if l.UnsafeListen {
			k.bad(at+".unsafe_listen", "true", "clients: plain beside it")
		}
	case "plain":
		if !config.Local(l.Address) && !l.UnsafeListen {
			k.bad(at+".address", quote(l.Address)+", which other machines can reach in plain", "a loopback address or a unix socket, or unsafe_listen: true")
		}
		if len(l.Policies) > 0 {
			k.bad(at+".policies", "policies of clients that show no evidence", "other clients")
		}
	default:
		k.bad(at+".clients", quote(l.Clients), "attested, anybody or plain")
	}
	for i, s := range l.ProxyProtocol {
		p, err := config.ParsePrefix(s)
		if err != nil {
			k.bad(fmt.Sprintf("%s.proxy_protocol[%d]", at, i), quote(s), "a prefix of addresses such as 10.0.0.0/8")
		}
		out.prefixes = append(out.prefixes, p)
	}
	if len(l.To) == 0 {
		k.bad(at+".to", "nothing", "the name of a target")
	}
	for i, name := range l.To {
		if targets[name] == 0 {
			k.bad(fmt.Sprintf("%s.to[%d]", at, i), quote(name), "the name of one of the targets")
		}
		out.to |= targets[name]
	}
	return out
}

func (k *checker) most(m *Most) {
	for _, f := range []struct {
		key string
		n   int
	}{
		{"listeners", m.Listeners},
		{"clusters", m.Clusters},
		{"endpoints", m.Endpoints},
		{"routes", m.Routes},
		{"policies", m.Policies},
		{"points", m.Points},
	} {
		if f.n < 0 {
			k.bad("most."+f.key, strconv.Itoa(f.n), "0 or above")
		}
	}
}
