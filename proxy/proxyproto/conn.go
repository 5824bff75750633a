package proxyproto

import (
	"net"
	"net/netip"
	"syscall"
)

// NewConn is raw with the addresses that h says, as LocalAddr and RemoteAddr; raw itself where h is not Addressed. A socket
// of TCP or of Unix keeps all of its other methods, and with them its descriptor and half-closing; of anything else that has
// both these are left, and of any other net.Conn nothing but that interface.
func NewConn(raw net.Conn, h Header) net.Conn {
	if !h.Addressed() {
		return raw
	}
	local, remote := h.netAddr(h.Destination, h.DestinationPath), h.netAddr(h.Source, h.SourcePath)
	switch raw := raw.(type) {
	case *net.TCPConn:
		return &tcpConn{raw, local, remote}
	case *net.UnixConn:
		return &unixConn{raw, local, remote}
	case socket:
		return &socketConn{raw, local, remote}
	default:
		return &conn{raw, local, remote}
	}
}

// netAddr is one of the addresses of h in the form of the net package, which writes abstract names with an @ in front.
func (h Header) netAddr(a netip.AddrPort, path string) net.Addr {
	if path != "" && path[0] == 0 {
		path = "@" + path[1:]
	}
	switch h.Kind {
	case TCP:
		return net.TCPAddrFromAddrPort(a)
	case UDP:
		return net.UDPAddrFromAddrPort(a)
	case Unix:
		return &net.UnixAddr{Name: path, Net: "unix"}
	default:
		return &net.UnixAddr{Name: path, Net: "unixgram"}
	}
}

type tcpConn struct {
	*net.TCPConn
	local, remote net.Addr
}

func (c *tcpConn) LocalAddr() net.Addr  { return c.local }
func (c *tcpConn) RemoteAddr() net.Addr { return c.remote }

type unixConn struct {
	*net.UnixConn
	local, remote net.Addr
}

func (c *unixConn) LocalAddr() net.Addr  { return c.local }
func (c *unixConn) RemoteAddr() net.Addr { return c.remote }

// socket is what is told of a connection by more than its addresses.
type socket interface {
	net.Conn
	syscall.Conn
	CloseWrite() error
	SetLinger(sec int) error
}

type socketConn struct {
	socket
	local, remote net.Addr
}

func (c *socketConn) LocalAddr() net.Addr  { return c.local }
func (c *socketConn) RemoteAddr() net.Addr { return c.remote }

type conn struct {
	net.Conn
	local, remote net.Addr
}

func (c *conn) LocalAddr() net.Addr  { return c.local }
func (c *conn) RemoteAddr() net.Addr { return c.remote }

// Describe is the header of a connection from source to destination, in a version. It is one of kind Unknown where the
// version can't tell of such addresses.
func Describe(version int, source, destination net.Addr) Header {
	h := Header{Version: version, Kind: Unknown}
	switch s := source.(type) {
	case *net.TCPAddr:
		d, _ := destination.(*net.TCPAddr) // nil is no address
		from, to := plain(s.AddrPort()), plain(d.AddrPort())
		if from.Addr().Is4() != to.Addr().Is4() { // as where one end is seen through a socket of both families
			from, to = mapped(from), mapped(to)
		}
		if from.IsValid() && to.IsValid() {
			h.Kind, h.Source, h.Destination = TCP, from, to
		}
	case *net.UnixAddr:
		d, ok := destination.(*net.UnixAddr)
		if !ok || version != 2 {
			return h
		}
		if from, to := rawPath(s.Name), rawPath(d.Name); isPath(from) && isPath(to) {
			h.Kind, h.SourcePath, h.DestinationPath = Unix, from, to
		}
	}
	return h
}

// plain is a without a zone, which means something on its own machine only, and as IPv4 where it is that.
func plain(a netip.AddrPort) netip.AddrPort {
	return netip.AddrPortFrom(a.Addr().Unmap().WithZone(""), a.Port())
}

func mapped(a netip.AddrPort) netip.AddrPort {
	if !a.IsValid() {
		return a
	}
	return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
}

// rawPath is a name of the net package as the kernel has it. A socket without a name is "" or "@" there.
func rawPath(name string) string {
	switch {
	case name == "@":
		return ""
	case name != "" && name[0] == '@':
		return "\x00" + name[1:]
	}
	return name
}
