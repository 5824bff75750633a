package proxy

import (
	"context"
	"net"
	"strconv"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/config"
)

// Backend is the address of the service behind an inbound server. The zero value is none.
type Backend struct {
	scheme          string // "", "http" or "h2c", as written
	network, target string // for net.Dial
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

// authority is the Host of a request that came without one, as HTTP/1.0 allows.
func (b Backend) authority() string {
	if b.network == "unix" {
		return "localhost"
	}
	return b.target
}

// dial connects to the service, or answers an *attest.Error.
func (b Backend) dial(ctx context.Context, limit time.Duration) (net.Conn, error) {
	d := net.Dialer{Timeout: limit}
	conn, err := d.DialContext(ctx, b.network, b.target)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeBackendUnreachable, Check: "backend", Subject: b.String(), Err: err}
	}
	return conn, nil
}
