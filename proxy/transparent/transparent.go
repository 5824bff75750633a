// Package transparent is for connections that the kernel's rules (nftables, iptables) bring to the proxy although they were
// meant for somebody else, and for the proxy's own connections, which the same rules must let pass.
//
// Two ways are known. REDIRECT changes the destination of a connection, and the kernel tells which one it was. TPROXY leaves
// it as it was, and hands the connection to a socket that may have foreign addresses. Both take a machine that runs Linux.
//
// Rules for connections to port 443, where the proxy listens on 15001 and its own connections bear the mark 0x6a. Without the
// mark, what the proxy sends would come back to it for ever; connections that come in by an interface need no rule for output.
//
//	table inet jurat {                                         # REDIRECT
//		chain prerouting {
//			type nat hook prerouting priority dstnat
//			iifname eth1 tcp dport 443 redirect to :15001
//		}
//		chain output {
//			type nat hook output priority -100
//			meta mark != 0x6a tcp dport 443 redirect to :15001
//		}
//	}
//
//	ip rule add fwmark 1 lookup 100                            # TPROXY; the same with ip -6
//	ip route add local default dev lo table 100
//	table inet jurat {
//		chain prerouting {
//			type filter hook prerouting priority mangle
//			meta l4proto tcp socket transparent 1 socket wildcard 0 meta mark set 1 accept
//			iifname eth1 meta nfproto ipv4 tcp dport 443 tproxy ip to :15001 meta mark set 1 accept
//			iifname eth1 meta nfproto ipv6 tcp dport 443 tproxy ip6 to :15001 meta mark set 1 accept
//		}
//	}
package transparent

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

// Mode is the way in which connections come here. The zero value is none, and refuses them.
type Mode string

// The modes.
const (
	Redirect Mode = "redirect" // REDIRECT, or DNAT to an address of this machine
	TProxy   Mode = "tproxy"
)

// ParseMode reads the name of a mode.
func ParseMode(s string) (Mode, error) {
	if m := Mode(s); m == Redirect || m == TProxy {
		return m, nil
	}
	return "", badMode(s)
}

func badMode(s string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "transparent", Got: fmt.Sprintf("%.40q", s), Want: "redirect or tproxy"}
}

// Listen opens a socket for the connections of a mode. network is that of net.Listen. TProxy needs CAP_NET_ADMIN: without it
// the error has attest.CodeNotPermitted.
func Listen(ctx context.Context, mode Mode, network, address string) (net.Listener, error) {
	if _, err := ParseMode(string(mode)); err != nil {
		return nil, err
	}
	ln, err := listen(ctx, mode, network, address)
	if err != nil {
		return nil, err
	}
	return remember(mode, ln)
}

// Adopt is Listen for a socket that somebody else has opened: the service manager, or the proxy that ran before this one.
func Adopt(mode Mode, ln net.Listener) (net.Listener, error) {
	if _, err := ParseMode(string(mode)); err != nil {
		return nil, err
	}
	known, err := remember(mode, ln)
	if err == nil {
		err = adopt(mode, ln)
	}
	if err != nil {
		return nil, err
	}
	return known, nil
}

// remember has connections know which port they came by, where that can't be seen of them.
func remember(mode Mode, ln net.Listener) (net.Listener, error) {
	if mode != TProxy {
		return ln, nil
	}
	tcp, ok := ln.(*net.TCPListener)
	if !ok {
		return nil, &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: ln.Addr().String(), Got: fmt.Sprintf("%T", ln), Want: "TCP"}
	}
	at, err := addrPort(tcp.Addr())
	if err != nil {
		return nil, err
	}
	return &listener{tcp, at.Port()}, nil
}

type listener struct {
	*net.TCPListener
	port uint16
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.AcceptTCP()
	if err != nil {
		return nil, err
	}
	return &accepted{c, l.port}, nil
}

type accepted struct {
	*net.TCPConn
	port uint16 // of the listener
}

// Destination answers where conn, which a listener of Listen or Adopt accepted, was going before it was brought here. A
// connection that was meant for the proxy itself, at any address of this machine, is refused with attest.CodeNotRedirected: the
// proxy would connect to itself, and to itself again, until it has no descriptor left.
func Destination(mode Mode, conn net.Conn) (netip.AddrPort, error) {
	to, port, err := destination(mode, conn)
	switch {
	case err != nil:
		return netip.AddrPort{}, err
	case to.Port() == port && isLocal(to.Addr()):
		return netip.AddrPort{}, notRedirected(to, "the address that the proxy listens on")
	}
	return to, nil
}

// destination is Destination, and the port that the proxy listens on.
func destination(mode Mode, conn net.Conn) (to netip.AddrPort, port uint16, err error) {
	switch mode {
	case Redirect: // which has made the proxy's own port that of the connection
		return originalDestination(conn)
	case TProxy:
		c, ok := conn.(*accepted)
		if !ok {
			return to, 0, &attest.Error{Code: attest.CodeNotRedirected, Check: "transparent", Got: "a connection of a listener that is not known"}
		}
		to, err = addrPort(c.LocalAddr())
		return to, c.port, err
	}
	return to, 0, badMode(string(mode))
}

func notRedirected(to netip.AddrPort, what string) error {
	return &attest.Error{Code: attest.CodeNotRedirected, Check: "transparent", Subject: to.String(), Got: what}
}

// Mine reports whether an address is one that this machine has, and nobody else gets what is sent there: loopback, or that of an
// interface. What can't be found out is not.
func Mine(ip netip.Addr) bool {
	ip = ip.Unmap().WithZone("")
	if ip.IsLoopback() {
		return true
	}
	if ip.IsLinkLocalUnicast() { // of which interface is not known
		return false
	}
	all, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(all, func(a net.Addr) bool {
		n, ok := a.(*net.IPNet)
		if !ok {
			return false
		}
		own, _ := netip.AddrFromSlice(n.IP)
		return own.Unmap() == ip
	})
}

// addrPort is the address of a TCP socket. What IPv6 has for an address of IPv4 is that.
func addrPort(a net.Addr) (netip.AddrPort, error) {
	tcp, ok := a.(*net.TCPAddr)
	if !ok {
		return netip.AddrPort{}, &attest.Error{Code: attest.CodeNotRedirected, Check: "transparent", Got: fmt.Sprintf("%T", a), Want: "TCP"}
	}
	ap := tcp.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port()), nil
}

// Outgoing is how connections of the proxy itself leave.
type Outgoing struct {
	// Mark is on their packets (SO_MARK), so that the rules let them pass instead of bringing them back here; 0 for none, where
	// the rules know the proxy by other means, such as its user. It needs CAP_NET_ADMIN.
	Mark uint32
	// Source is the address that they come from although it may not be this machine's: that of the client, where the server
	// shall see it. The rules have to bring the answers here, as they do for TPROXY. The zero value is the address of this
	// machine. It needs CAP_NET_ADMIN.
	Source netip.Addr
}
