package transparent

import (
	"context"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
)

// soOriginalDst is SO_ORIGINAL_DST of <linux/netfilter_ipv4.h>, and IP6T_SO_ORIGINAL_DST of <linux/netfilter_ipv6/ip6_tables.h>.
const soOriginalDst = 80

// OriginalDestination answers where conn was going before REDIRECT brought it here. A connection that came by itself is
// refused with attest.CodeNotRedirected: its destination is the proxy.
func OriginalDestination(conn net.Conn) (netip.AddrPort, error) {
	to, _, err := originalDestination(conn)
	return to, err
}

// originalDestination is OriginalDestination, and the port that the connection was redirected to. What conn itself says of its
// addresses does not count: it may have them from a PROXY header.
func originalDestination(conn net.Conn) (to netip.AddrPort, port uint16, err error) {
	unknown := func(err error) error {
		return &attest.Error{Code: attest.CodeNotRedirected, Check: "transparent", Got: "a connection without a destination before it", Err: err}
	}
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return netip.AddrPort{}, 0, unknown(errors.ErrUnsupported)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return netip.AddrPort{}, 0, unknown(err)
	}
	var here netip.AddrPort
	var failed error
	err = rc.Control(func(fd uintptr) {
		here, failed = local(int(fd))
		switch {
		case failed != nil:
		case here.Addr().Is4():
			to, failed = original4(int(fd))
		default:
			to, failed = original6(int(fd))
		}
	})
	switch err := errors.Join(err, failed); {
	case err != nil:
		return netip.AddrPort{}, 0, unknown(err)
	case to.Port() == here.Port() && to.Addr().WithZone("") == here.Addr():
		return netip.AddrPort{}, 0, notRedirected(to, "a connection that nothing redirected")
	}
	return to, here.Port(), nil
}

// local is the address of a socket, without its zone.
func local(fd int) (netip.AddrPort, error) {
	sa, err := unix.Getsockname(fd)
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)), nil
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port)), nil
	}
	if err == nil {
		return netip.AddrPort{}, errFamily
	}
	return netip.AddrPort{}, os.NewSyscallError("getsockname", err)
}

var errFamily = errors.New("an address that is not of IP")

// original4 reads a struct sockaddr_in into what is as long at least: family, port and address.
func original4(fd int) (netip.AddrPort, error) {
	raw, err := unix.GetsockoptIPv6Mreq(fd, unix.SOL_IP, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockopt", err)
	}
	b := raw.Multiaddr
	if binary.NativeEndian.Uint16(b[:2]) != unix.AF_INET {
		return netip.AddrPort{}, errFamily
	}
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte(b[4:8])), binary.BigEndian.Uint16(b[2:4])), nil
}

// original6 reads a struct sockaddr_in6, which this one begins with.
func original6(fd int) (netip.AddrPort, error) {
	raw, err := unix.GetsockoptIPv6MTUInfo(fd, unix.SOL_IPV6, soOriginalDst)
	if err != nil {
		return netip.AddrPort{}, os.NewSyscallError("getsockopt", err)
	}
	if raw.Addr.Family != unix.AF_INET6 {
		return netip.AddrPort{}, errFamily
	}
	ip := netip.AddrFrom16(raw.Addr.Addr)
	if raw.Addr.Scope_id != 0 {
		ip = ip.WithZone(strconv.FormatUint(uint64(raw.Addr.Scope_id), 10))
	}
	var port [2]byte
	binary.NativeEndian.PutUint16(port[:], raw.Addr.Port)
	return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(port[:])), nil
}

func listen(ctx context.Context, mode Mode, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false) // its sockets don't know the options that this is about
	if mode == TProxy {
		lc.Control = func(_, _ string, c syscall.RawConn) error { return makeTransparent(c) }
	}
	ln, err := lc.Listen(ctx, network, address)
	if err == nil {
		return ln, nil
	}
	var coded *attest.Error
	if errors.As(err, &coded) {
		return nil, coded
	}
	return nil, &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: address, Err: err}
}

// adopt makes a socket what listen would have made of it.
func adopt(mode Mode, ln net.Listener) error {
	if mode != TProxy {
		return nil
	}
	c, err := ln.(syscall.Conn).SyscallConn()
	if err != nil {
		return &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: ln.Addr().String(), Err: err}
	}
	is := 0
	_ = c.Control(func(fd uintptr) { is, _ = unix.GetsockoptInt(int(fd), unix.SOL_IP, unix.IP_TRANSPARENT) })
	if is != 0 {
		return nil // a service manager may have had the right to do it, which this process has not
	}
	return makeTransparent(c)
}

// makeTransparent lets a socket have addresses that are not this machine's. One of IPv6 that takes connections of IPv4 too has
// one flag for both.
func makeTransparent(c syscall.RawConn) error {
	family := 0
	_ = c.Control(func(fd uintptr) { family, _ = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DOMAIN) })
	if family == unix.AF_INET6 {
		return set(c, "IPV6_TRANSPARENT", unix.SOL_IPV6, unix.IPV6_TRANSPARENT, 1)
	}
	return set(c, "IP_TRANSPARENT", unix.SOL_IP, unix.IP_TRANSPARENT, 1)
}

func set(c syscall.RawConn, name string, level, option, value int) error {
	var failed error
	err := c.Control(func(fd uintptr) { failed = unix.SetsockoptInt(int(fd), level, option, value) })
	if err = errors.Join(err, failed); err == nil {
		return nil
	}
	return &attest.Error{Code: attest.CodeNotPermitted, Check: "transparent", Got: name, Hint: "give the process CAP_NET_ADMIN", Err: err}
}

// isLocal reports whether an address is this machine's: nothing else can be bound.
func isLocal(ip netip.Addr) bool {
	family, to := unix.AF_INET6, unix.Sockaddr(&unix.SockaddrInet6{Addr: ip.As16()})
	if ip.Is4() {
		family, to = unix.AF_INET, &unix.SockaddrInet4{Addr: ip.As4()}
	} else if ip.IsLinkLocalUnicast() {
		return true // of which interface can't be told for sure
	}
	fd, err := unix.Socket(family, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return true // with no descriptors left a loop is the last thing to begin
	}
	defer unix.Close(fd)
	return unix.Bind(fd, to) == nil
}

// Dialer makes connections that leave like that. Without the right to, what it answers has attest.CodeNotPermitted.
func (o Outgoing) Dialer() *net.Dialer {
	d := &net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
		if o.Mark != 0 {
			if err := set(c, "SO_MARK", unix.SOL_SOCKET, unix.SO_MARK, int(o.Mark)); err != nil {
				return err
			}
		}
		if !o.Source.IsValid() {
			return nil
		}
		// The port is chosen when the server is known. Chosen before, every client would have as many connections as there are
		// ports, whatever it connects to.
		if err := set(c, "IP_BIND_ADDRESS_NO_PORT", unix.SOL_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1); err != nil {
			return err
		}
		return makeTransparent(c)
	}}
	if o.Source.IsValid() {
		ip := o.Source.Unmap()
		d.LocalAddr = &net.TCPAddr{IP: ip.AsSlice(), Zone: ip.Zone()}
	}
	return d
}
