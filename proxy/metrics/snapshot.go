package metrics

import (
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/accesslog"
	"github.com/jurat-tls/jurat/proxy/tally"
	"github.com/jurat-tls/jurat/proxy/upstream"
	"github.com/jurat-tls/jurat/ratls/batch"
	"github.com/jurat-tls/jurat/ratls/enforce"
)

// Snapshot is everything that is shown, at one moment. What is nil or empty is not shown.
type Snapshot struct {
	Listeners []Listener
	Clusters  []Cluster
	Enforced  *enforce.Stats // nil where no policy is in force
	Identity  *Identity      // nil where no evidence is presented
	Public    []PublicCertificate
	// ControlPlane is nil where there is none.
	ControlPlane *ControlPlane
	AccessLog    *accesslog.Stats
}

// Listener is one that is listened on.
type Listener struct {
	Name     string // as configured. Of two with one name the sum is shown
	Stats    proxy.Stats
	Requests tally.RequestStats
	Peers    tally.PeerStats     // of clients
	Chains   []proxy.ChainStatus // where its connections are told apart; they are in what is above too
}

// Cluster is a set of endpoints.
type Cluster struct {
	Name      string
	Stats     upstream.Stats
	Endpoints []Endpoint
	Peers     tally.PeerStats // of endpoints
}

// Endpoint is one address of a Cluster.
type Endpoint struct {
	Address string // as configured, or as discovered
	Stats   upstream.EndpointStats
}

// Identity is what this proxy proves to its peers.
type Identity struct {
	TEE       string
	Simulated bool
	Evidence  time.Time // when the evidence in the certificate was made; zero when that is unknown
	NotAfter  time.Time // when the certificate expires
	Quotes    batch.Stats
}

// PublicCertificate is one for clients that know nothing of evidence.
type PublicCertificate struct {
	Name     string
	NotAfter time.Time // zero where there is none
	Obtained uint64
	Failures uint64
	Code     attest.Code // of the last try; "" where that was no failure
}

// Build is what the binary was made of.
type Build struct {
	Version, Revision, Go string
}
