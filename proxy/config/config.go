// Package config is what a proxy does, in one form: listeners, and the clusters that they forward to. The YAML file, the
// flags and xDS all produce it, and proxy.Runtime carries it out.
//
// Policies are named here and not understood: who builds the connections knows them.
package config

import (
	"time"

	"github.com/jurat-tls/jurat/proxy/route"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Config is a whole configuration.
type Config struct {
	Listeners []Listener `yaml:"listen"`
	Clusters  []Cluster  `yaml:"clusters"`
}

// Listener takes connections on one address. It has one of To, Cluster, HTTP and Passthrough.
type Listener struct {
	Name    string `yaml:"name"`    // in logs and metrics; Address where there is none
	Address string `yaml:"address"` // host:port, unix:/path or systemd:NAME

	// Plain clients are taken as they are: for the clients of this machine. Others get our evidence before a byte moves.
	Plain bool `yaml:"plain"`
	// UnsafeListen lets other machines connect to a Plain listener.
	UnsafeListen bool          `yaml:"unsafe_listen"`
	Require      string        `yaml:"require"`  // the policy that clients have to meet; "" asks them for nothing
	Reattest     time.Duration `yaml:"reattest"` // how often they have to attest anew; 0 for half of the policy's freshness.evidence

	// ProxyProtocol is who may say in a PROXY header where a connection comes from: prefixes of addresses. It is then required.
	ProxyProtocol []string `yaml:"proxy_protocol"`
	// Transparent listeners get connections that were meant for others: "redirect" or "tproxy".
	Transparent string `yaml:"transparent"`

	To          string        `yaml:"to"`      // the service, as proxy.ParseBackend reads it
	Cluster     string        `yaml:"cluster"` // the cluster that gets every connection or request
	TCP         bool          `yaml:"tcp"`     // To or Cluster get raw bytes instead of HTTP
	HTTP        *route.Config `yaml:"http"`
	Passthrough []Passthrough `yaml:"passthrough"` // TLS that is not ended here, by server name

	Limits Limits `yaml:"limits"`
}

// Passthrough forwards TLS connections as they are.
type Passthrough struct {
	Names   []string `yaml:"server_names"` // "pay.example", "*.example", or "*" for all others and for none
	Cluster string   `yaml:"cluster"`
}

// Limits of a listener. 0 takes the default, which docs/proxy.md names.
type Limits struct {
	Connections        int           `yaml:"connections"`
	ConnectionsPerPeer int           `yaml:"connections_per_peer"` // from one address (IPv6: one /64)
	Handshakes         int           `yaml:"handshakes"`
	Handshake          time.Duration `yaml:"handshake_timeout"`
	Header             time.Duration `yaml:"header_timeout"`
	KeepAlive          time.Duration `yaml:"keep_alive"`
	Tunnel             time.Duration `yaml:"tunnel_idle"`
	Stall              time.Duration `yaml:"stall_timeout"`
	Answer             time.Duration `yaml:"answer_timeout"`
}

// Cluster is endpoints that do the same, and how to connect to them.
type Cluster struct {
	upstream.Config `yaml:",inline"`

	// Attested endpoints have to meet a policy before they get a byte. The others are connected to in plain: for what runs
	// beside this proxy.
	Attested *Attested `yaml:"attested"`
	Protocol string    `yaml:"protocol"` // "auto" (the default), "http1" or "http2"

	ConnectTimeout time.Duration `yaml:"connect_timeout"` // 5 s; 10 s where Attested
	ProxyProtocol  string        `yaml:"proxy_protocol"`  // "", "v1" or "v2": say who the client is, on raw connections

	// One of these.
	Endpoints  []upstream.EndpointConfig    `yaml:"endpoints"`
	Localities []upstream.LocalityEndpoints `yaml:"localities"`
	DNS        *upstream.DNS                `yaml:"dns"`
}

// Attested is what the endpoints of a cluster have to prove.
type Attested struct {
	Require  string        `yaml:"require"`  // the policy
	Name     string        `yaml:"name"`     // what their evidence has to be for; the endpoint's hostname, or its host
	Reattest time.Duration `yaml:"reattest"` // how often they have to attest anew; 0 for half of the policy's freshness.evidence
}
