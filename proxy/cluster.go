package proxy

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/loopback"
	"github.com/jurat-tls/jurat/proxy/transparent"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Protocol is what HTTP requests go to a cluster in.
type Protocol uint8

// The protocols. WebSocket goes in HTTP/1.1 where an endpoint that HTTP/2 is spoken to does not take it (RFC 8441).
const (
	ProtocolAuto Protocol = iota // HTTP/1.1 to plain endpoints, but gRPC in HTTP/2; what an attested endpoint agrees to
	ProtocolHTTP1
	ProtocolHTTP2 // with prior knowledge, where endpoints are plain
)

// DialEndpoint connects to an endpoint and appraises it. protocols are what may be agreed on, the best first; none for raw
// bytes. Give the handshake a Watch of the transport below it. An error with a method Appraisal() *attest.Result tells what an
// endpoint proved that is refused.
type DialEndpoint func(ctx context.Context, to upstream.Identity, protocols ...string) (Conn, error)

// Cluster is endpoints that do the same, and how they are connected to. Servers share it.
type Cluster struct {
	balance  *upstream.Cluster
	dial     DialEndpoint // nil where endpoints are plain
	protocol Protocol
	timeout  time.Duration
	keep     time.Duration
	proxy    int      // version of the PROXY header that raw connections begin with; 0 for none
	stats    counters // of attested connections
	onward   bool     // it is where a connection was going
	anywhere bool     // what is not attested may be another machine
}

// How long a connection to an endpoint is kept open without a use. Plain: below the 5 s after which Node closes, or a request
// would meet the close. Attested: below the 2 minutes of a jurat, since the next one costs a quote.
const (
	keepPlain    = 4 * time.Second
	keepAttested = 90 * time.Second
)

// NewPlainCluster is for services beside this proxy: whatever is sent to them is sent in plain. What is not on a loopback address, once
// its name was resolved, or a unix socket is not connected to, unless Anywhere says otherwise. timeout bounds connecting; 0 takes 5 s.
func NewPlainCluster(balance *upstream.Cluster, protocol Protocol, timeout time.Duration) *Cluster {
	if timeout <= 0 {
		timeout = 5 * time.Second
	}
	return &Cluster{balance: balance, protocol: protocol, timeout: timeout, keep: keepPlain}
}

// NewAttestedCluster is for peers that have to be affirmed before they get a byte. timeout bounds connecting and the
// appraisal; 0 takes 10 s.
func NewAttestedCluster(balance *upstream.Cluster, dial DialEndpoint, protocol Protocol, timeout time.Duration) *Cluster {
	if dial == nil { // never in plain by mistake
		dial = func(context.Context, upstream.Identity, ...string) (Conn, error) {
			return nil, &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errors.New("no way to connect")}
		}
	}
	if timeout <= 0 {
		timeout = 10 * time.Second
	}
	return &Cluster{balance: balance, dial: dial, protocol: protocol, timeout: timeout, keep: keepAttested}
}

// Balance is what chooses among the endpoints.
func (c *Cluster) Balance() *upstream.Cluster { return c.balance }

// Anywhere says whether endpoints that are not attested may be other machines. It is called before c is used.
func (c *Cluster) Anywhere(unsafe bool) { c.anywhere = unsafe }

// Attested reports whether endpoints have to be affirmed.
func (c *Cluster) Attested() bool { return c.dial != nil }

// Stats counts the attested connections to the endpoints.
func (c *Cluster) Stats() Stats { return c.stats.snapshot() }

// OnwardOnly makes c where connections were going before a transparent listener took them: it has no other endpoints then. What is not
// attested has to be this machine, by any of its addresses, unless Anywhere says otherwise: the clients choose where the bytes go. It is
// called before c is used.
func (c *Cluster) OnwardOnly() { c.onward = true }

// endpointAt answers where a connection was going as an endpoint.
func (c *Cluster) endpointAt(to netip.AddrPort) (*upstream.Endpoint, error) {
	if !to.IsValid() {
		return nil, upstream.ErrNoEndpoint
	}
	return c.balance.Beside(upstream.Identity{Address: to.String()}), nil
}

// pick chooses an endpoint, for a connection that was going somewhere.
func (c *Cluster) pick(info upstream.Info, to netip.AddrPort) (*upstream.Endpoint, error) {
	if c.onward {
		return c.endpointAt(to)
	}
	return c.balance.Pick(info)
}

// scheme is what requests go by.
func (c *Cluster) scheme() string {
	if c.Attested() {
		return "https"
	}
	return "http"
}

// offers are the protocols to agree on for a request that is to share its connection, or not.
func (c *Cluster) offers(shared bool) []string {
	switch {
	case !shared:
		return []string{"http/1.1"}
	case c.protocol == ProtocolHTTP2:
		return []string{"h2"}
	default:
		return []string{"h2", "http/1.1"}
	}
}

// connect answers a connection to an endpoint, which is a *link where it is attested, or an *attest.Error.
func (c *Cluster) connect(ctx context.Context, to upstream.Identity, protocols ...string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	if !c.Attested() {
		here := netip.Addr.IsLoopback
		if c.onward {
			here = transparent.Mine
		}
		if c.anywhere {
			here = func(netip.Addr) bool { return true }
		}
		return dialPlain(ctx, to, here)
	}
	conn, err := c.appraised(ctx, to, protocols)
	if err != nil {
		c.stats.refuse(attest.CodeOf(err))
		return nil, err
	}
	c.stats.established(conn.Result())
	c.stats.active.Add(1)
	l := newLink(conn, &c.stats, func(*link) { c.stats.active.Add(-1) })
	l.heed()
	return l, nil
}

func (c *Cluster) appraised(ctx context.Context, to upstream.Identity, protocols []string) (conn Conn, err error) {
	defer func() {
		if p := recover(); p != nil {
			conn, err = nil, &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errPanic}
		}
	}()
	conn, err = c.dial(ctx, to, protocols...)
	var refused interface{ Appraisal() *attest.Result }
	if errors.As(err, &refused) {
		c.balance.Appraised(to, refused.Appraisal())
	}
	switch {
	case err != nil:
		return nil, withCode(ctx, err)
	case conn == nil:
		return nil, &attest.Error{Code: attest.CodeInternal, Check: "transport", Err: errors.New("no connection")}
	}
	c.balance.Appraised(to, conn.Result())
	if err := affirmedPeer(conn.Result()); err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// affirmedPeer is what a peer that was dialled has to be.
func affirmedPeer(r *attest.Result) error {
	if r == nil {
		return &attest.Error{Code: attest.CodeNoEvidence, Check: "evidence"}
	}
	return r.Err()
}

// dialPlain connects to where what is sent may be in plain. That is judged by the address that is connected to: what a name such as
// localhost means is for the DNS to say, and with it for whoever runs the network.
func dialPlain(ctx context.Context, to upstream.Identity, here func(netip.Addr) bool) (net.Conn, error) {
	network, address := "tcp", to.Address
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		network, address = "unix", path
	}
	dialer := net.Dialer{Control: func(network, address string, c syscall.RawConn) error {
		if network == "unix" {
			return nil
		}
		if at, err := netip.ParseAddrPort(address); err != nil || !here(at.Addr().Unmap().WithZone("")) {
			return &attest.Error{Code: attest.CodeNoPolicy, Check: "target", Subject: to.Address, Got: address + ", another machine, in plain", Hint: "let it be this machine, or attested, or say unsafe_to or unsafe_plain"}
		}
		return loopback.Control(network, address, c)
	}}
	conn, err := dialer.DialContext(ctx, network, address)
	var away *attest.Error
	switch {
	case errors.As(err, &away):
		return nil, away
	case err != nil:
		return nil, &attest.Error{Code: attest.CodeBackendUnreachable, Check: "backend", Subject: to.Address, Err: err}
	}
	return conn, nil
}

// resetConn breaks off what connect answered.
func resetConn(raw net.Conn) {
	if l, ok := raw.(*link); ok {
		l.reset()
		return
	}
	loop.Reset(raw)
}

// raw connects to an endpoint of the cluster for the raw bytes of l, which may be nil, and to another one where that fails. The
// endpoint gets the PROXY header that it is to get, and first. done is to be called at the end of the connection.
func (c *Cluster) raw(ctx context.Context, l *link, first []byte, random func() uint64) (conn net.Conn, done func(upstream.Outcome), err error) {
	header, err := c.header(l)
	if err != nil {
		return nil, nil, &attest.Error{Code: attest.CodeInternal, Check: "backend", Subject: c.balance.Name(), Err: err}
	}
	first = append(header, first...)
	var tried []*upstream.Endpoint
	for range 3 {
		if c.onward && len(tried) > 0 {
			break
		}
		e, pickErr := c.pick(upstream.Info{Random: random(), Tried: tried, Attempts: 4 * len(tried)}, onward(ctx))
		if slices.Contains(tried, e) { // there is no other: what it has answered, it would answer again
			break
		}
		if pickErr == nil {
			pickErr = e.BeginConnection()
		}
		if pickErr != nil {
			if err == nil {
				err = c.unavailable(pickErr)
			}
			return nil, nil, err
		}
		began := time.Now()
		if conn, err = c.connect(ctx, e.Identity()); err == nil {
			err = c.say(ctx, conn, first)
		}
		if err == nil {
			return conn, func(o upstream.Outcome) { e.DoneConnection(o, time.Since(began)) }, nil
		}
		e.DoneConnection(upstream.ConnectFailure, time.Since(began))
		tried = append(tried, e)
		if ctx.Err() != nil {
			break
		}
	}
	return nil, nil, err
}

// say writes the first bytes of a connection. A failure is one of connecting.
func (c *Cluster) say(ctx context.Context, conn net.Conn, first []byte) error {
	if len(first) == 0 {
		return nil
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	_ = conn.SetWriteDeadline(time.Now().Add(c.timeout))
	_, err := conn.Write(first) // at once: receivers may refuse a part of a header
	_ = conn.SetWriteDeadline(time.Time{})
	stop()
	if err != nil {
		resetConn(conn)
		return &attest.Error{Code: attest.CodeBackendUnreachable, Check: "backend", Subject: c.balance.Name(), Err: err}
	}
	return nil
}

// unavailable is an error of Pick or Begin in words for people.
func (c *Cluster) unavailable(err error) error {
	code := attest.CodeNoEndpoint
	if errors.Is(err, upstream.ErrOverflow) {
		code = attest.CodeOverload
	}
	return &attest.Error{Code: code, Check: "cluster", Subject: c.balance.Name()}
}
