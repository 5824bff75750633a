package grpccreds

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc/credentials"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
)

// handshakeTimeout bounds a server's handshake, of which gRPC only closes the transport when it is over time.
const handshakeTimeout = 30 * time.Second

// protocol is what gRPC speaks, in ALPN.
const protocol = "h2"

// NewClient are credentials of a client whose servers rp has to affirm.
func NewClient(rp *ratls.RelyingParty) credentials.TransportCredentials {
	return client{connector: ratls.NewConnector(rp, protocol)}
}

// NewMutualClient are those of a client that presents id to servers that ask for evidence.
func NewMutualClient(id *ratls.Identity, rp *ratls.RelyingParty) credentials.TransportCredentials {
	return client{connector: ratls.NewMutualConnector(id, rp, protocol)}
}

// NewServer are credentials of a server that presents id, and asks its clients for nothing.
func NewServer(id *ratls.Identity) credentials.TransportCredentials {
	return server{acceptor: ratls.NewAcceptor(id, protocol)}
}

// NewMutualServer are those of a server whose clients rp has to affirm.
func NewMutualServer(id *ratls.Identity, rp *ratls.RelyingParty) credentials.TransportCredentials {
	return server{acceptor: ratls.NewMutualAcceptor(id, rp, protocol)}
}

// AuthInfo is what gRPC keeps of a handshake: peer.Peer has it.
type AuthInfo struct {
	credentials.CommonAuthInfo
	conn *ratls.Conn
}

// AuthType implements credentials.AuthInfo.
func (AuthInfo) AuthType() string { return "attested" }

// Result is what is known of the peer now: it is replaced whenever the peer attests anew. It is nil at a server that asks its clients
// for nothing.
func (a AuthInfo) Result() *attest.Result {
	if a.conn == nil {
		return nil
	}
	return a.conn.Result()
}

// Result is what is known now of the peer of a call, whose AuthInfo peer.FromContext, or the call option grpc.Peer, has. It is nil
// where that is not one of ours, and a nil Result affirms nobody.
func Result(info credentials.AuthInfo) *attest.Result {
	a, _ := info.(AuthInfo)
	return a.Result()
}

// checked is what a handshake answers to gRPC, which speaks HTTP/2 where that was agreed on.
func checked(conn *ratls.Conn) (net.Conn, credentials.AuthInfo, error) {
	if got := conn.ConnectionState().NegotiatedProtocol; got != protocol {
		_ = conn.Close()
		return nil, nil, &attest.Error{Code: attest.CodeHandshake, Check: "transport.alpn", Got: fmt.Sprintf("%.40q", got), Want: protocol}
	}
	return conn, AuthInfo{credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}, conn}, nil
}

// both is what the two ends have in common.
type both struct{}

// Info implements credentials.TransportCredentials.
func (both) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "attested"}
}

// OverrideServerName implements credentials.TransportCredentials.
func (both) OverrideServerName(string) error {
	return errors.New("evidence is for the name by which a peer is reached, which nothing overrides")
}

type client struct {
	both
	connector *ratls.Connector
}

// ClientHandshake implements credentials.TransportCredentials.
func (c client) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	name, _, err := net.SplitHostPort(authority)
	if err != nil {
		name = authority // which has no port
	}
	conn, err := c.connector.Handshake(ctx, raw, name)
	if err != nil {
		return nil, nil, err
	}
	return checked(conn)
}

// ServerHandshake implements credentials.TransportCredentials.
func (client) ServerHandshake(net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are credentials of a client")
}

// Clone implements credentials.TransportCredentials.
func (c client) Clone() credentials.TransportCredentials { return c }

type server struct {
	both
	acceptor *ratls.Acceptor
}

// ServerHandshake implements credentials.TransportCredentials.
func (s server) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	ctx, cancel := context.WithTimeout(context.Background(), handshakeTimeout)
	defer cancel()
	conn, err := s.acceptor.Handshake(ctx, raw)
	if err != nil {
		return nil, nil, err
	}
	return checked(conn)
}

// ClientHandshake implements credentials.TransportCredentials.
func (server) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errors.New("these are credentials of a server")
}

// Clone implements credentials.TransportCredentials.
func (s server) Clone() credentials.TransportCredentials { return s }
