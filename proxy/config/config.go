// Package config is what a proxy does, in one form: listeners, and the clusters that they forward to. The YAML file, the
// flags and xDS all produce it, and proxy.Runtime carries it out.
//
// A Config is plain data. Check says all that is wrong with it, without opening, resolving or asking anything: what passes
// can still fail for what the world is like, such as an address that is taken, and not for what it says. The zero Config
// does not pass.
//
// Policies are named here and not understood: who builds the connections knows them.
//
// The tags are those of strictyaml.Decode. A number or a time of 0 is the default, which its comment names, and a negative
// one is what the word in its tag says. The first sentence about a type and the comment of a field are what the reference
// and editors show.
package config

import (
	"cmp"
	"fmt"
	"iter"
	"net"
	"slices"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Config is a whole configuration.
type Config struct {
	Listeners []Listener `yaml:"listen"`   // where connections come in
	Clusters  []Cluster  `yaml:"clusters"` // where they can go
}

// Listener takes connections on one address, and says what becomes of them: of all, of those that are for none of Chains, or
// nothing, where Chains take all that is served.
type Listener struct {
	Name    string `yaml:"name"`             // in logs and metrics, default the address
	Address string `yaml:"address,required"` // host:port, unix:/path or systemd:NAME

	UnsafeListen bool `yaml:"unsafe_listen"` // other machines may connect although clients are taken in plain
	// The prefixes of addresses, such as 10.0.0.0/8, that may say in a PROXY header where a connection comes from. They
	// have to, and nobody else is let in.
	ProxyProtocol []string `yaml:"proxy_protocol"`
	// The kernel hands over connections that were meant for others. Without Chains they go on to where they were going: with
	// tcp, plain and an attested cluster, whose endpoints are not used. With Chains, clusters are what they say; one with
	// original_destination is where a connection was going.
	Transparent string `yaml:"transparent,one=redirect|tproxy"`

	// What is not TLS and begins like a request has the application protocol http/1.0, http/1.1 or h2c, for chains that are told apart by
	// those. Clients that wait for the server to speak first are for none of them, and are not served.
	DetectHTTP bool `yaml:"detect_http"`

	Serving `yaml:",inline"`
	Chains  []Chain `yaml:"chains"` // connections that something else becomes of than what is said here; where nothing is, all others are refused
	Limits  Limits  `yaml:"limits"` // what strangers can make it hold

	chain *string `yaml:"-"` // the label of the chain that it was made of; nil for none
}

// Chain is what becomes of some of the connections of a listener. Of several that are for a connection, the most specific one counts.
type Chain struct {
	Name    string      `yaml:"name"`           // in logs and metrics, default the text of Match
	Match   chain.Match `yaml:"match,required"` // which connections it is for
	Serving `yaml:",inline"`
	Times   Times `yaml:"times"` // how long things may take, default what the limits of the listener say
}

// Serving is what becomes of connections: one of To, Cluster, HTTP, Passthrough and Forward.
type Serving struct {
	// Clients are taken as they are, in plain: for those of this machine. Others get our evidence before a byte moves.
	Plain    bool          `yaml:"plain"`
	Require  string        `yaml:"require"`  // the policy that clients have to meet, a file beside this one; without it they are asked for nothing
	Reattest time.Duration `yaml:"reattest"` // how often clients have to attest anew, default (and at most) half of the policy's freshness.evidence

	// A certificate for clients that know nothing of evidence, on the same port. They show none either: it stands beside no require.
	Public *Public `yaml:"public" json:",omitempty"`

	To          string        `yaml:"to"`                          // the service, on this machine: host:port, http://host:port, h2c://host:port or unix:/path
	UnsafeTo    bool          `yaml:"unsafe_to" json:",omitempty"` // the service may be another machine: what was protected up to here goes there in plain
	Cluster     string        `yaml:"cluster"`                     // the cluster that gets every connection or request
	TCP         bool          `yaml:"tcp"`                         // to or cluster get raw bytes, not requests
	HTTP        *route.Config `yaml:"http"`                        // the routes of requests
	Passthrough []Passthrough `yaml:"passthrough"`                 // TLS that is not ended here, by the server name that the client asks for

	Forward     []Forward `yaml:"forward"`     // a proxy for HTTP CONNECT and SOCKS5: where its clients may go, and what has to be met there; the first that covers a target counts
	Credentials string    `yaml:"credentials"` // a file with the USER:PASSWORD that clients of forward have to say
}

// Passthrough forwards TLS connections that are not ended here.
type Passthrough struct {
	Names   []string `yaml:"server_names,required"` // pay.example, *.example for all below it, or * for all others and for none
	Cluster string   `yaml:"cluster,required"`      // the cluster that gets them
}

// Forward is targets that clients of a forward proxy may ask for.
type Forward struct {
	Hosts    []string      `yaml:"hosts,required"`   // HOST[:PORT]: a name, an IP address, *.example for all below it, or * for all
	Require  string        `yaml:"require,required"` // the policy that they have to meet, a file beside this one
	Reattest time.Duration `yaml:"reattest"`         // how often they have to attest anew, default (and at most) half of the policy's freshness.evidence
}

// Limits bound what strangers can make a listener hold.
type Limits struct {
	Connections        int `yaml:"connections"`                             // open at once, default 16384
	ConnectionsPerPeer int `yaml:"connections_per_peer,negative=unlimited"` // open at once from one address (IPv6: one /64), default all but an eighth of them
	Handshakes         int `yaml:"handshakes"`                              // under way at once, default 4096
	Times              `yaml:",inline"`
}

// Times bound how long strangers can make a connection be held.
type Times struct {
	Handshake time.Duration `yaml:"handshake_timeout"`             // for a handshake, default 10 s
	Header    time.Duration `yaml:"header_timeout"`                // for the head of a request, default 10 s
	KeepAlive time.Duration `yaml:"keep_alive"`                    // of an HTTP connection without a request, default 2 min
	Tunnel    time.Duration `yaml:"tunnel_idle,negative=never"`    // of a raw connection on which nothing moves, default 1 h
	Stall     time.Duration `yaml:"stall_timeout,negative=never"`  // of a body that does not move, default 1 min
	Answer    time.Duration `yaml:"answer_timeout,negative=never"` // from the end of a request to the head of its answer, default 60 s
}

// Cluster is endpoints that do the same, and how to connect to them: one of Endpoints, Localities, DNS and OriginalDestination.
type Cluster struct {
	upstream.Config `yaml:",inline"`

	// What endpoints have to prove before they get a byte. Without it they are connected to in plain: for what runs beside
	// this proxy, and for where passthrough sends TLS that is not ended here.
	Attested    *Attested `yaml:"attested"`
	UnsafePlain bool      `yaml:"unsafe_plain" json:",omitempty"` // endpoints that are not attested may be other machines: what was protected up to here goes there in plain
	Protocol    string    `yaml:"protocol,one=auto|http1|http2"`  // of requests, default auto

	ConnectTimeout time.Duration `yaml:"connect_timeout"`          // default 5 s, or 10 s where Attested
	ProxyProtocol  string        `yaml:"proxy_protocol,one=v1|v2"` // begin connections with a PROXY header that says who the client is: raw ones only

	Endpoints  []upstream.EndpointConfig    `yaml:"endpoints"`  // by their addresses
	Localities []upstream.LocalityEndpoints `yaml:"localities"` // by where they are; an empty list is a cluster that has no endpoint yet
	DNS        *upstream.DNS                `yaml:"dns"`        // by names that are resolved again and again
	// Where a connection was going before the kernel handed it to a transparent listener; connections of other listeners find no
	// endpoint.
	OriginalDestination *OriginalDestination `yaml:"original_destination"`
}

// OriginalDestination is where a connection was going. In plain, that has to be this machine.
type OriginalDestination struct {
	UnsafePlain bool `yaml:"unsafe_plain"` // what is not attested may be another machine: whatever the client chooses gets the bytes in plain
}

// Attested is what the endpoints of a cluster have to prove.
type Attested struct {
	Require  string        `yaml:"require,required"` // the policy that they have to meet, a file beside this one
	Name     string        `yaml:"name"`             // what their evidence has to be for, default the endpoint's hostname, or the host in its address
	Reattest time.Duration `yaml:"reattest"`         // how often they have to attest anew, default (and at most) half of the policy's freshness.evidence
	Dialects []string      `yaml:"dialects"`         // in which certificates of others may carry evidence, such as ego, contrast or dice (docs/dialects.md); the hardware then signs no name, default dice, in certificates for the name
}

// Identities are the endpoints that a cluster names, by their places: "endpoints[0]" and so on. The address of a name is the name.
func (c *Cluster) Identities() iter.Seq2[string, upstream.Identity] {
	return func(yield func(string, upstream.Identity) bool) {
		for i, e := range c.Endpoints {
			if !yield(fmt.Sprintf("endpoints[%d]", i), e.Identity) {
				return
			}
		}
		for i := range c.Localities {
			for j, e := range c.Localities[i].Endpoints {
				if !yield(fmt.Sprintf("localities[%d].endpoints[%d]", i, j), e.Identity) {
					return
				}
			}
		}
		if c.DNS == nil {
			return
		}
		for i, n := range c.DNS.Names {
			address := net.JoinHostPort(n.Host, strconv.Itoa(int(n.Port)))
			if !yield(fmt.Sprintf("dns.names[%d]", i), upstream.Identity{Address: address, Hostname: n.Host, Transport: n.Transport}) {
				return
			}
		}
	}
}

// Away are the endpoints that a cluster names and that are not on this machine, as far as names tell: addresses by their places.
func (c *Cluster) Away() iter.Seq2[string, string] {
	return func(yield func(string, string) bool) {
		for place, e := range c.Identities() {
			here := Local(e.Address)
			if c.DNS != nil {
				here = localHost(e.Hostname) // which may be called unix
			}
			if !here && !yield(place, e.Address) {
				return
			}
		}
	}
}

// Leaves reports whether one of them would be connected to in plain.
func (c *Cluster) Leaves() bool {
	for range c.Away() {
		return c.Attested == nil
	}
	return false
}

// Opaque are the names of the clusters that get nothing but TLS which is not ended here.
func (c *Config) Opaque() map[string]bool {
	opaque := map[string]bool{}
	for i := range c.Listeners {
		for _, s := range c.Listeners[i].Servings() {
			for _, name := range s.Clusters() {
				only, seen := opaque[name]
				opaque[name] = len(s.Passthrough) > 0 && (only || !seen)
			}
		}
	}
	return opaque
}

// Label is what the listener is called in logs and metrics.
func (l *Listener) Label() string {
	if l.Name != "" {
		return l.Name
	}
	return l.Address
}

// Servings are all that can become of connections of the listener, by their places: "" for what it says itself, and "chains[0]" and so on.
func (l *Listener) Servings() iter.Seq2[string, *Serving] {
	return func(yield func(string, *Serving) bool) {
		if (len(l.Chains) == 0 || l.Serves()) && !yield("", &l.Serving) {
			return
		}
		for i := range l.Chains {
			if !yield(fmt.Sprintf("chains[%d]", i), &l.Chains[i].Serving) {
				return
			}
		}
	}
}

// Attests reports whether any clients of the listener get our evidence: it then needs an identity.
func (l *Listener) Attests() bool {
	for _, s := range l.Servings() {
		if s.Attests() {
			return true
		}
	}
	return false
}

// PlainOnly reports whether all clients of the listener are taken in plain.
func (l *Listener) PlainOnly() bool {
	for _, s := range l.Servings() {
		if !s.Plain {
			return false
		}
	}
	return true
}

// Label is what the chain is called in logs and metrics.
func (c *Chain) Label() string {
	if c.Name != "" {
		return c.Name
	}
	return c.Match.String()
}

// Rest is the label of what a listener with chains does with connections that are for none of them.
const Rest = "default"

// Chain answers chain i as a listener of its own, with the name and the address of l, that knows nothing of how connections come there.
func (l *Listener) Chain(i int) Listener {
	c := &l.Chains[i]
	label := c.Label()
	alone := Listener{Name: l.Name, Address: l.Address, Serving: c.Serving, chain: &label}
	t, own := &l.Limits.Times, &c.Times
	alone.Limits.Times = Times{
		cmp.Or(own.Handshake, t.Handshake), cmp.Or(own.Header, t.Header), cmp.Or(own.KeepAlive, t.KeepAlive),
		cmp.Or(own.Tunnel, t.Tunnel), cmp.Or(own.Stall, t.Stall), cmp.Or(own.Answer, t.Answer),
	}
	return alone
}

// ChainLabel is that of the chain that l was made of (Chain). It answers false where it was made of none.
func (l *Listener) ChainLabel() (string, bool) {
	if l.chain == nil {
		return "", false
	}
	return *l.chain, true
}

// Rest is Chain for connections that are for no chain. It answers false where they are refused.
func (l *Listener) Rest() (Listener, bool) {
	return Listener{Name: l.Name, Address: l.Address, Serving: l.Serving, Limits: Limits{Times: l.Limits.Times}}, l.Serves()
}

// Matches answers which connections each of the chains is for. One that is for some application protocols, and has a public certificate by
// ACME, is also for those of the CA.
func (l *Listener) Matches() []chain.Match {
	all := make([]chain.Match, len(l.Chains))
	for i := range l.Chains {
		m := l.Chains[i].Match
		if len(m.ApplicationProtocols) > 0 && l.Chains[i].Challenged() {
			m.ApplicationProtocols = append(slices.Clone(m.ApplicationProtocols), challengeProtocol)
		}
		all[i] = m
	}
	return all
}

// challengeProtocol is that of RFC 8737.
const challengeProtocol = "acme-tls/1"

// Challenged reports whether a CA comes here with challenges by TLS.
func (s *Serving) Challenged() bool {
	return s.Public != nil && s.Public.ACME != nil && !s.Public.ACME.NoALPN
}

// Attests reports whether clients get our evidence.
func (s *Serving) Attests() bool { return !s.Plain && len(s.Passthrough) == 0 }

// Clusters answers the names of the clusters that connections or their requests can go to.
func (s *Serving) Clusters() []string {
	var names []string
	add := func(name string) {
		if name != "" && !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	add(s.Cluster)
	for _, p := range s.Passthrough {
		add(p.Cluster)
	}
	if s.HTTP == nil {
		return names
	}
	for _, v := range s.HTTP.VirtualHosts {
		for _, r := range v.Routes {
			if r.Route == nil {
				continue
			}
			add(r.Route.Cluster)
			for _, w := range r.Route.WeightedClusters {
				add(w.Name)
			}
			for _, m := range r.Route.RequestMirrorPolicies {
				add(m.Cluster)
			}
		}
	}
	return names
}

// Serves reports whether there is a way for connections to go.
func (s *Serving) Serves() bool {
	return s.To != "" || s.Cluster != "" || s.HTTP != nil || len(s.Passthrough) > 0 || len(s.Forward) > 0
}

// Cluster answers the cluster of that name, nil where there is none.
func (c *Config) Cluster(name string) *Cluster {
	for i := range c.Clusters {
		if c.Clusters[i].Name == name {
			return &c.Clusters[i]
		}
	}
	return nil
}

// Static answers the endpoints that the configuration names, for upstream.Cluster.Update; those of DNS are not among them.
func (c *Cluster) Static() []upstream.LocalityEndpoints {
	if len(c.Endpoints) > 0 {
		return []upstream.LocalityEndpoints{{Endpoints: c.Endpoints}}
	}
	return c.Localities
}
