package proxy

import (
	randv2 "math/rand/v2"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Backend is the address of the service behind an inbound server. The zero value is none.
type Backend struct {
	scheme          string // "", "http" or "h2c", as written
	network, target string // for net.Dial
	proxy           int    // version of the PROXY protocol that connections begin with, or 0
}

// ParseBackend reads what config.ParseService does.
func ParseBackend(s string) (Backend, error) {
	service, err := config.ParseService(s)
	return Backend{scheme: service.Scheme, network: service.Network, target: service.Target}, err
}

func badBackend(got, want string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "backend", Got: strconv.Quote(got), Want: want}
}

func (b Backend) String() string {
	switch {
	case b.network == "unix":
		return "unix:" + b.target
	case b.scheme != "":
		return b.scheme + "://" + b.target
	default:
		return b.target
	}
}

// CheckRaw reports why raw TCP cannot be carried to b: bytes have no scheme.
func (b Backend) CheckRaw() error {
	if b.target == "" || b.scheme != "" {
		return badBackend(b.String(), "host:port or unix:/path for raw TCP")
	}
	return nil
}

// Cluster is b as the one endpoint of a cluster, without bounds of its own. timeout bounds connecting; 0 takes 5 s.
func (b Backend) Cluster(timeout time.Duration) (*Cluster, error) {
	balance, err := upstream.New(upstream.Config{
		Name:            b.String(),
		CircuitBreakers: upstream.CircuitBreakers{MaxConnections: -1, MaxPendingRequests: -1, MaxRequests: -1, MaxRetries: -1},
	}, time.Now, randv2.Uint64)
	if err != nil {
		return nil, err
	}
	id := upstream.Identity{Address: b.target}
	if b.network == "unix" {
		id.Address = "unix:" + b.target
	}
	if _, err := balance.Update([]upstream.LocalityEndpoints{{Endpoints: []upstream.EndpointConfig{{Identity: id}}}}); err != nil {
		return nil, err
	}
	protocol := ProtocolAuto
	if b.scheme == "h2c" {
		protocol = ProtocolHTTP2
	}
	c := NewPlainCluster(balance, protocol, timeout)
	c.proxy = b.proxy
	return c, nil
}
