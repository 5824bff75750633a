// Package transparent is for connections that the kernel's rules (nftables, iptables) bring to the proxy although they were
// meant for somebody else, and for the proxy's own connections, which the same rules must let pass.
//
// Two ways are known. REDIRECT changes the destination of a connection, and the kernel tells which one it was. TPROXY leaves
// it as it was, and hands the connection to a socket that may have foreign addresses. Both take a machine that runs Linux.
package transparent

import (
	"context"
	"fmt"
	"net"
	"net/netip"

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
	return listen(ctx, mode, network, address)
}

// Destination answers where conn was going before it was brought here. listening are the addresses that this proxy listens
// on, one at least: a connection that was meant for one of them is refused with attest.CodeNotRedirected, since the proxy
// would connect to itself, and to itself again, until it has no descriptor left.
func Destination(mode Mode, conn net.Conn, listening []net.Addr) (netip.AddrPort, error) {
	var to netip.AddrPort
	err := badMode(string(mode))
	switch mode {
	case Redirect:
		to, err = OriginalDestination(conn)
	case TProxy:
		to, err = addrPort(conn.LocalAddr())
	}
	if err != nil {
		return netip.AddrPort{}, err
	}
	if len(listening) == 0 {
		return netip.AddrPort{}, notRedirected(to, "an address to listen on that is not known")
	}
	for _, a := range listening {
		own, err := addrPort(a)
		if err != nil {
			return netip.AddrPort{}, err
		}
		if own.Port() != to.Port() {
			continue
		}
		if ip := own.Addr(); ip.WithZone("") == to.Addr().WithZone("") || ip.IsUnspecified() && isLocal(to.Addr()) {
			return netip.AddrPort{}, notRedirected(to, "the address that the proxy listens on")
		}
	}
	return to, nil
}

func notRedirected(to netip.AddrPort, what string) error {
	return &attest.Error{Code: attest.CodeNotRedirected, Check: "transparent", Subject: to.String(), Got: what}
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
