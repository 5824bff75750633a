package attested

import (
	"context"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
)

// Conn is a connection whose peer was appraised; *ratls.Conn is one.
type Conn interface {
	net.Conn
	// Result is that of the peer, nil where it was not asked for evidence. It is replaced when the peer attests anew.
	Result() *attest.Result
	// Presented is what the peer showed for its Result.
	Presented() ratls.Presented
}

// Handshake makes raw an attested connection, or closes it and answers an error. It ends when ctx does.
type Handshake func(ctx context.Context, raw net.Conn) (Conn, error)

// Dial connects to a peer and appraises it.
type Dial func(ctx context.Context) (Conn, error)

// Peer is the verified other end of a connection. The zero value is nobody.
type Peer struct {
	conn   net.Conn
	result func() *attest.Result
	names  []string
	config [32]byte
	local  string
}

// newPeer answers who is at the other end of conn: nobody who is not affirmed.
func newPeer(conn Conn) (*Peer, error) {
	if r := conn.Result(); !r.Affirmed() {
		if r == nil {
			return nil, &attest.Error{Code: attest.CodeNoEvidence, Check: "xds.peer", Subject: addressOf(conn), Got: "a connection without an appraisal"}
		}
		return nil, r.Err()
	}
	content, err := ratls.OpenPresented(conn.Presented())
	if err != nil {
		return nil, err
	}
	p := &Peer{conn: conn, result: conn.Result, config: content.Config}
	for _, n := range content.Leaf.DNSNames {
		p.names = append(p.names, strings.ToLower(n))
	}
	for _, ip := range content.Leaf.IPAddresses {
		if addr, ok := netip.AddrFromSlice(ip); ok {
			p.names = append(p.names, addr.Unmap().String())
		}
	}
	slices.Sort(p.names)
	p.names = slices.Compact(p.names)
	return p, nil
}

// Result is the Attestation Result of the peer as it is now: one that attests anew while it is connected has another. It is nil for
// a Local peer, and for nobody.
func (p *Peer) Result() *attest.Result {
	if p == nil || p.result == nil {
		return nil
	}
	return p.result()
}

// Affirmed reports whether the peer is affirmed now. A Local peer is not: nobody appraised it.
func (p *Peer) Affirmed() bool { return p.Result().Affirmed() }

// Names are the DNS names and addresses that the peer's evidence is for, in lower case and in order. The caller must not change
// them.
func (p *Peer) Names() []string { return p.names }

// Config is the digest of the peer's measured configuration, to which its evidence commits.
func (p *Peer) Config() [32]byte { return p.config }

// Local is the name of the local listener that the peer came by, which was not appraised; "" for every other peer.
func (p *Peer) Local() string { return p.local }

// Address is where the peer connects from. Nobody vouches for it.
func (p *Peer) Address() string { return addressOf(p.conn) }

// Cut closes the connection to the peer, with every stream on it.
func (p *Peer) Cut() {
	if p.conn != nil {
		_ = p.conn.Close()
	}
}

func addressOf(conn net.Conn) string {
	if conn == nil || conn.RemoteAddr() == nil {
		return ""
	}
	return conn.RemoteAddr().String()
}
