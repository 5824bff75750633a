package ratls

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/enforce"
	"github.com/jurat-tls/jurat/ratls/session"
)

// NewTransport is an http.RoundTripper that sends a request only over connections whose peer rp affirms. It speaks https
// alone, and no proxy from the environment is used: a request that the policy does not cover fails.
func NewTransport(rp *RelyingParty) http.RoundTripper {
	return newTransport(NewConnector(rp, "h2", "http/1.1"))
}

// NewMutualTransport is NewTransport for a client that presents id to servers that ask for evidence.
func NewMutualTransport(id *Identity, rp *RelyingParty) http.RoundTripper {
	return newTransport(NewMutualConnector(id, rp, "h2", "http/1.1"))
}

func newTransport(c *Connector) http.RoundTripper {
	c = c.WithSession(session.Options{Protocols: []string{"http/1.1"}}) // net/http speaks no other over what is not a *tls.Conn
	refuse := baseConfig()
	// net/http would use this configuration only on a path that avoids DialTLSContext; there must be none.
	refuse.VerifyConnection = func(tls.ConnectionState) error {
		return &attest.Error{Code: attest.CodeNoExpectation, Check: "evidence"}
	}
	return &http.Transport{
		DialContext: func(_ context.Context, _, addr string) (net.Conn, error) {
			return nil, &attest.Error{Code: attest.CodeUsage, Check: "transport", Subject: addr, Got: "http", Want: "https", Err: errors.New("plain HTTP is never attested")}
		},
		DialTLSContext: func(ctx context.Context, _, addr string) (net.Conn, error) {
			raw, host, err := Connect(ctx, addr)
			if err != nil {
				return nil, err
			}
			told := &telling{Conn: raw}
			conn, err := c.Handshake(ctx, told, host)
			if err != nil {
				return nil, err
			}
			told.closed.Store(&conn.standing)
			if plain, ok := conn.stream.(*tls.Conn); ok {
				return plain, nil // net/http reads the negotiated protocol from a *tls.Conn only
			}
			return conn, nil
		},
		TLSClientConfig:       refuse,
		ForceAttemptHTTP2:     true,
		MaxIdleConnsPerHost:   16,
		IdleConnTimeout:       90 * time.Second,
		ExpectContinueTimeout: time.Second,
	}
}

// telling is a transport that ends what stands on the connection above it: net/http closes a *tls.Conn, and knows no Conn.
type telling struct {
	net.Conn
	closed atomic.Pointer[*enforce.Standing]
}

// Close implements net.Conn.
func (t *telling) Close() error {
	if s := t.closed.Load(); s != nil {
		(*s).Done()
	}
	return t.Conn.Close()
}

// SetLinger lets the connection be reset.
func (t *telling) SetLinger(sec int) error {
	if c, ok := t.Conn.(interface{ SetLinger(int) error }); ok {
		return c.SetLinger(sec)
	}
	return errors.ErrUnsupported
}
