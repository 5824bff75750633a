package proxy

import (
	"context"
	"net"
	"net/netip"
	"slices"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/clienthello"
	"github.com/jurat-tls/jurat/proxy/proxyproto"
)

// AcceptProxy makes every connection begin with a header of the PROXY protocol, of either version, before the handshake and
// within its limits. Where the header says whose connection is forwarded, logs, X-Forwarded-For and the handshake see those
// addresses instead of the load balancer's. Of its TLVs nothing is believed and nothing is passed on.
//
// trusted is who may say so, by the address that connects: anybody can write a header. Connections of others are refused,
// and so are those without a header: where it is optional, a client that reaches the port can be whoever it likes. Peers on
// Unix sockets have no address, and are refused.
//
// It is called before Serve. Without it no header is read.
func (s *Server) AcceptProxy(trusted []netip.Prefix) error {
	if len(trusted) == 0 {
		return &attest.Error{Code: attest.CodeConfigMissing, Check: "proxy_protocol", Want: "the addresses of the load balancers"}
	}
	prefixes := make([]netip.Prefix, len(trusted))
	for i, p := range trusted {
		if p.Addr().Is4In6() {
			p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
		}
		if !p.IsValid() {
			return &attest.Error{Code: attest.CodeConfigValue, Check: "proxy_protocol", Got: trusted[i].String(), Want: "a prefix such as 192.0.2.0/24 or 2001:db8::/32"}
		}
		prefixes[i] = p.Masked()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.served { // connections that are accepted meanwhile would be treated either way
		return &attest.Error{Code: attest.CodeInternal, Check: "proxy_protocol", Got: "a server that serves already"}
	}
	s.trusted = prefixes
	return nil
}

// introduced reads the header in which peer says whose connection it forwards, where that was agreed on, and answers peer
// with the addresses in it.
func (s *Server) introduced(ctx context.Context, peer net.Conn) (net.Conn, error) {
	if s.trusted == nil {
		return peer, nil
	}
	if !s.trusts(peer.RemoteAddr()) {
		return peer, &attest.Error{Code: attest.CodeProxyPeer, Check: "transport.proxy"}
	}
	stop := context.AfterFunc(ctx, func() { _ = peer.Close() })
	h, err := proxyproto.Read(peer)
	stop()
	switch {
	case ctx.Err() != nil:
		return peer, ctx.Err() // peer is closed, or about to be
	case err != nil:
		return peer, &attest.Error{Code: attest.CodeProxyHeader, Check: "transport.proxy", Err: err}
	case h.Kind == proxyproto.UDP, h.Kind == proxyproto.UnixDatagram:
		return peer, &attest.Error{Code: attest.CodeProxyHeader, Check: "transport.proxy", Got: h.Kind.String(), Want: "a stream"}
	}
	return proxyproto.NewConn(peer, h), nil
}

// trusts reports whether a peer at addr may speak for others. The text of an address would not do: a client can bind a Unix
// socket to a path that reads like one.
func (s *Server) trusts(addr net.Addr) bool {
	tcp, _ := addr.(*net.TCPAddr) // nil has no address
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	return slices.ContainsFunc(s.trusted, func(p netip.Prefix) bool { return p.Contains(ip) })
}

// WithProxyProtocol is b with connections that begin with a header of the PROXY protocol, version 1 or 2, in which the
// service learns the client's address. In version 2 it also learns the server name and the protocol that the client asked
// for and, where the client was appraised, what it proved: proxyproto.TypeResult holds the value of HeaderResult. That is
// what was proved when the connection began; it may have been appraised anew since.
//
// It is for raw TCP: connections that carry requests of several clients can't begin with the address of one.
func (b Backend) WithProxyProtocol(version int) (Backend, error) {
	if err := b.CheckRaw(); err != nil {
		return Backend{}, err
	}
	if version != 1 && version != 2 {
		return Backend{}, badBackend(b.String(), "version 1 or 2 of the PROXY protocol")
	}
	b.proxy = version
	return b, nil
}

// WithProxyProtocol has raw connections to endpoints begin with a header, as Backend.WithProxyProtocol says. It is called before
// c is used.
func (c *Cluster) WithProxyProtocol(version int) error {
	if version != 1 && version != 2 {
		return badBackend(c.balance.Name(), "version 1 or 2 of the PROXY protocol")
	}
	c.proxy = version
	return nil
}

// header is what the service is told of the client of l, before anything else; nil where it expects none.
func (c *Cluster) header(l *link) ([]byte, error) {
	if c.proxy == 0 || l == nil {
		return nil, nil
	}
	to := l.conn.LocalAddr()
	if l.onward.IsValid() {
		to = net.TCPAddrFromAddrPort(l.onward)
	}
	h := proxyproto.Describe(c.proxy, l.conn.RemoteAddr(), to)
	if h.Version == 2 {
		h.Checksum = true
		add := func(t proxyproto.Type, value string) {
			if value != "" {
				h.TLVs = append(h.TLVs, proxyproto.TLV{Type: t, Value: []byte(value)})
			}
		}
		add(proxyproto.TypeALPN, l.state.NegotiatedProtocol)
		// crypto/tls takes any bytes for a name.
		if _, ok := clienthello.HostName(l.state.ServerName); ok {
			add(proxyproto.TypeAuthority, l.state.ServerName)
		}
		if id := l.identity(); id != nil {
			add(proxyproto.TypeResult, id.result)
		}
	}
	return proxyproto.Append(nil, h)
}
