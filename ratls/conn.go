package ratls

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// bareTimeout bounds an appraisal inside a handshake whose context crypto/tls does not pass on.
const bareTimeout = 30 * time.Second

// Conn is a TLS connection whose peer was appraised as far as that was asked for.
type Conn struct {
	*tls.Conn
	result *attest.Result
}

// Result is the affirmed Attestation Result of the peer; nil at a server that does not ask its clients for evidence.
func (c *Conn) Result() *attest.Result { return c.result }

// Read gives the refusal of our own evidence its code: in TLS 1.3 a client learns of it only here.
func (c *Conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if coded := PeerError(err); attest.CodeOf(coded) == attest.CodePeerRefused {
		err = coded
	}
	return n, err
}

// Refusal is the error of a handshake whose peer was appraised and not affirmed.
type Refusal struct {
	Result *attest.Result
	Chain  [][]byte // DER certificates the peer presented, leaf first
}

func (r *Refusal) Error() string { return r.Result.Err().Error() }

// Unwrap gives the *attest.Error of the first failing check.
func (r *Refusal) Unwrap() error { return r.Result.Err() }

func baseConfig() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true}
}

// Appraising has the form of tls.Config.VerifyConnection: it refuses the connection unless the peer is affirmed. keep,
// when not nil, gets every Result with the chain it is about.
func (rp *RelyingParty) appraising(ctx context.Context, peer Peer, keep func(*attest.Result, [][]byte)) func(tls.ConnectionState) error {
	return func(cs tls.ConnectionState) error {
		ctx, cancel := context.WithTimeout(ctx, bareTimeout)
		defer cancel()
		if cs.DidResume {
			return &attest.Error{Code: attest.CodeResumed, Check: "binding.session"}
		}
		chain := rawChain(cs.PeerCertificates)
		r := rp.Appraise(ctx, chain, peer)
		if keep != nil {
			keep(r, chain)
		}
		if !r.Affirmed() {
			return &Refusal{Result: r, Chain: chain}
		}
		return nil
	}
}

func rawChain(certs []*x509.Certificate) [][]byte {
	chain := make([][]byte, len(certs))
	for i, c := range certs {
		chain[i] = c.Raw
	}
	return chain
}

// ClientConfig is a TLS configuration that connects to name only if the peer is affirmed. name is required, since
// crypto/tls does not tell its hooks about an IP address that was dialled.
func ClientConfig(rp *RelyingParty, name string) *tls.Config {
	return clientConfig(context.Background(), rp, name, nil)
}

// MutualClientConfig is ClientConfig for a client that presents id to servers that ask.
func MutualClientConfig(id *Identity, rp *RelyingParty, name string) *tls.Config {
	c := ClientConfig(rp, name)
	c.GetClientCertificate = id.GetClientCertificate
	return c
}

func clientConfig(ctx context.Context, rp *RelyingParty, name string, keep func(*attest.Result, [][]byte)) *tls.Config {
	c := baseConfig()
	c.ServerName = name
	// crypto/tls would demand a public CA. All of the verification is in VerifyConnection, which it runs either way.
	c.InsecureSkipVerify = true
	c.VerifyConnection = rp.appraising(ctx, Server(name), keep)
	return c
}

// ServerConfig is a TLS configuration that presents id to every client.
func ServerConfig(id *Identity) *tls.Config {
	c := baseConfig()
	c.GetCertificate = id.GetCertificate
	return c
}

// MutualServerConfig is a TLS configuration that presents id and serves only clients that are affirmed.
func MutualServerConfig(id *Identity, rp *RelyingParty) *tls.Config {
	return mutualServerConfig(context.Background(), id, rp, nil)
}

func mutualServerConfig(ctx context.Context, id *Identity, rp *RelyingParty, keep func(*attest.Result, [][]byte)) *tls.Config {
	c := ServerConfig(id)
	c.ClientAuth = tls.RequireAnyClientCert
	c.VerifyConnection = rp.appraising(ctx, AnyClient(), keep)
	return c
}

// Acceptor is the server's side of attested connections.
type Acceptor struct {
	config func(context.Context, func(*attest.Result, [][]byte)) *tls.Config
}

// NewAcceptor serves every client. protos are the ALPN protocols on offer, best first; none means that ALPN is ignored.
func NewAcceptor(id *Identity, protos ...string) *Acceptor {
	return &Acceptor{func(context.Context, func(*attest.Result, [][]byte)) *tls.Config {
		c := ServerConfig(id)
		c.NextProtos = protos
		return c
	}}
}

// NewMutualAcceptor serves only clients that rp affirms.
func NewMutualAcceptor(id *Identity, rp *RelyingParty, protos ...string) *Acceptor {
	return &Acceptor{func(ctx context.Context, keep func(*attest.Result, [][]byte)) *tls.Config {
		c := mutualServerConfig(ctx, id, rp, keep)
		c.NextProtos = protos
		return c
	}}
}

// Handshake makes raw an attested connection, or closes it and answers an *attest.Error or a *Refusal.
func (a *Acceptor) Handshake(ctx context.Context, raw net.Conn) (*Conn, error) {
	var result *attest.Result
	config := a.config(ctx, func(r *attest.Result, _ [][]byte) { result = r })
	return finish(ctx, tls.Server(raw, config), &result)
}

// Connector is the client's side of attested connections.
type Connector struct {
	rp     *RelyingParty
	id     *Identity
	protos []string
}

// NewConnector connects to servers that rp affirms. protos are the ALPN protocols to offer, best first.
func NewConnector(rp *RelyingParty, protos ...string) *Connector {
	return &Connector{rp: rp, protos: protos}
}

// NewMutualConnector also presents id to servers that ask for evidence.
func NewMutualConnector(id *Identity, rp *RelyingParty, protos ...string) *Connector {
	return &Connector{rp: rp, id: id, protos: protos}
}

// Handshake makes raw an attested connection to name, or closes it and answers an *attest.Error or a *Refusal.
func (c *Connector) Handshake(ctx context.Context, raw net.Conn, name string) (*Conn, error) {
	var result *attest.Result
	config := clientConfig(ctx, c.rp, name, func(r *attest.Result, _ [][]byte) { result = r })
	config.NextProtos = c.protos
	if c.id != nil {
		config.GetClientCertificate = c.id.GetClientCertificate
	}
	return finish(ctx, tls.Client(raw, config), &result)
}

// Dial connects to addr ("host:port") and makes an attested connection to its host.
func (c *Connector) Dial(ctx context.Context, addr string) (*Conn, error) {
	raw, host, err := Connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	return c.Handshake(ctx, raw, host)
}

// Connect opens the transport to addr ("host:port") for a Handshake, and answers the name to expect there.
func Connect(ctx context.Context, addr string) (net.Conn, string, error) {
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, "", &attest.Error{Code: attest.CodeUsage, Check: "transport.address", Got: addr, Want: "HOST:PORT", Err: err}
	}
	raw, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if err != nil {
		code := attest.CodeUnreachable
		if isTimeout(err) {
			code = attest.CodeTimeout
		}
		return nil, "", &attest.Error{Code: code, Check: "transport.dial", Subject: addr, Err: err}
	}
	return raw, host, nil
}

func finish(ctx context.Context, conn *tls.Conn, result **attest.Result) (*Conn, error) {
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = conn.Close()
		return nil, classify(ctx, err)
	}
	return &Conn{Conn: conn, result: *result}, nil
}

// Peek completes a TLS handshake with whatever listens at addr and answers its certificates, without judging them. The
// connection is closed before an application byte could move either way. The peer has proven that it holds the leaf's key.
func Peek(ctx context.Context, addr string) ([][]byte, error) {
	raw, host, err := Connect(ctx, addr)
	if err != nil {
		return nil, err
	}
	c := baseConfig()
	c.ServerName = host
	c.InsecureSkipVerify = true // nothing is trusted here: the caller shows the chain to a person or appraises it
	conn, err := finish(ctx, tls.Client(raw, c), new(*attest.Result))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	return rawChain(conn.ConnectionState().PeerCertificates), nil
}

// classify gives the errors of crypto/tls their codes. Some of them are known by their text only; tests hold each.
func classify(ctx context.Context, err error) error {
	var refusal *Refusal
	var coded *attest.Error
	if errors.As(err, &refusal) || errors.As(err, &coded) {
		return err
	}
	var alert tls.AlertError
	text := err.Error()
	code, check := attest.CodeHandshake, "transport.tls"
	switch {
	case ctx.Err() != nil || isTimeout(err):
		code = attest.CodeTimeout
	case strings.Contains(text, "didn't provide a certificate"):
		return &attest.Error{Code: attest.CodeNoEvidence, Check: "evidence", Got: "no certificate"}
	case strings.Contains(text, "failed to parse certificate"), strings.Contains(text, "failed to parse client certificate"):
		return badCertificate(err)
	case errors.As(err, &alert), strings.Contains(text, "remote error"):
		if strings.Contains(text, "certificate") {
			code = attest.CodePeerRefused
		}
	case errors.Is(err, io.EOF):
		err = errors.New("the peer closed the connection")
	}
	return &attest.Error{Code: code, Check: check, Err: err}
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.As(err, &ne) && ne.Timeout()
}

// PeerError gives a failure on an established connection its code: in TLS 1.3 a client learns only from its first read
// that the server refused its certificate.
func PeerError(err error) error {
	if err == nil || errors.Is(err, io.EOF) {
		return err
	}
	return classify(context.Background(), err)
}
