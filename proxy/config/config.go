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
	"time"

	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Config is a whole configuration.
type Config struct {
	Listeners []Listener `yaml:"listen"`   // where connections come in
	Clusters  []Cluster  `yaml:"clusters"` // where they can go
}

// Listener takes connections on one address, and has one of To, Cluster, HTTP, Passthrough and Forward.
type Listener struct {
	Name    string `yaml:"name"`             // in logs and metrics, default the address
	Address string `yaml:"address,required"` // host:port, unix:/path or systemd:NAME

	// Clients are taken as they are, in plain: for those of this machine. Others get our evidence before a byte moves.
	Plain bool `yaml:"plain"`
	// Other machines may connect although Plain is set.
	UnsafeListen bool          `yaml:"unsafe_listen"`
	Require      string        `yaml:"require"`  // the policy that clients have to meet, a file beside this one; without it they are asked for nothing
	Reattest     time.Duration `yaml:"reattest"` // how often clients have to attest anew, default (and at most) half of the policy's freshness.evidence

	// The prefixes of addresses, such as 10.0.0.0/8, that may say in a PROXY header where a connection comes from. They
	// have to, and nobody else is let in.
	ProxyProtocol []string `yaml:"proxy_protocol"`
	// The kernel hands over connections that were meant for others, which go on to where they were going: with tcp, plain and
	// an attested cluster, whose endpoints are not used.
	Transparent string `yaml:"transparent,one=redirect|tproxy"`

	To          string        `yaml:"to"`          // the service: host:port, http://host:port, h2c://host:port or unix:/path
	Cluster     string        `yaml:"cluster"`     // the cluster that gets every connection or request
	TCP         bool          `yaml:"tcp"`         // to or cluster get raw bytes, not requests
	HTTP        *route.Config `yaml:"http"`        // the routes of requests
	Passthrough []Passthrough `yaml:"passthrough"` // TLS that is not ended here, by the server name that the client asks for

	Forward     []Forward `yaml:"forward"`     // a proxy for HTTP CONNECT and SOCKS5: where its clients may go, and what has to be met there; the first that covers a target counts
	Credentials string    `yaml:"credentials"` // a file with the USER:PASSWORD that clients of forward have to say

	Limits Limits `yaml:"limits"` // what strangers can make it hold
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
	Connections        int           `yaml:"connections"`                             // open at once, default 16384
	ConnectionsPerPeer int           `yaml:"connections_per_peer,negative=unlimited"` // open at once from one address (IPv6: one /64), default all but an eighth of them
	Handshakes         int           `yaml:"handshakes"`                              // under way at once, default 4096
	Handshake          time.Duration `yaml:"handshake_timeout"`                       // for a handshake, default 10 s
	Header             time.Duration `yaml:"header_timeout"`                          // for the head of a request, default 10 s
	KeepAlive          time.Duration `yaml:"keep_alive"`                              // of an HTTP connection without a request, default 2 min
	Tunnel             time.Duration `yaml:"tunnel_idle,negative=never"`              // of a raw connection on which nothing moves, default 1 h
	Stall              time.Duration `yaml:"stall_timeout,negative=never"`            // of a body that does not move, default 1 min
	Answer             time.Duration `yaml:"answer_timeout,negative=never"`           // from the end of a request to the head of its answer, default 60 s
}

// Cluster is endpoints that do the same, and how to connect to them: one of Endpoints, Localities and DNS.
type Cluster struct {
	upstream.Config `yaml:",inline"`

	// What endpoints have to prove before they get a byte. Without it they are connected to in plain: for what runs beside
	// this proxy.
	Attested *Attested `yaml:"attested"`
	Protocol string    `yaml:"protocol,one=auto|http1|http2"` // of requests, default auto

	ConnectTimeout time.Duration `yaml:"connect_timeout"`          // default 5 s, or 10 s where Attested
	ProxyProtocol  string        `yaml:"proxy_protocol,one=v1|v2"` // begin connections with a PROXY header that says who the client is: raw ones only

	Endpoints  []upstream.EndpointConfig    `yaml:"endpoints"`  // by their addresses
	Localities []upstream.LocalityEndpoints `yaml:"localities"` // by where they are; an empty list is a cluster that has no endpoint yet
	DNS        *upstream.DNS                `yaml:"dns"`        // by names that are resolved again and again
}

// Attested is what the endpoints of a cluster have to prove.
type Attested struct {
	Require  string        `yaml:"require,required"` // the policy that they have to meet, a file beside this one
	Name     string        `yaml:"name"`             // what their evidence has to be for, default the endpoint's hostname, or the host in its address
	Reattest time.Duration `yaml:"reattest"`         // how often they have to attest anew, default (and at most) half of the policy's freshness.evidence
}

// Label is what the listener is called in logs and metrics.
func (l *Listener) Label() string {
	if l.Name != "" {
		return l.Name
	}
	return l.Address
}

// Attests reports whether clients of the listener get our evidence: it then needs an identity.
func (l *Listener) Attests() bool { return !l.Plain && len(l.Passthrough) == 0 }

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
