// Package loopback is for connections that never leave the machine, such as those to the service beside the proxy.
//
// They have no bottleneck to find. Where the system's congestion control is BBR, which sends by timers at the rate that it takes for
// that of the path, each of them costs those timers all the same: a sixth of what the proxy needs for bulk. They are given Reno, which
// every system lets everybody choose, and which has nothing to do as long as nothing is lost. Other connections, and other choices of
// the system, are left alone.
package loopback

import (
	"net"
	"net/netip"
	"syscall"
)

// Ease is for a socket that listens: it eases what it will accept, where that can only come from this machine.
func Ease(ln net.Listener) {
	at, ok := ln.Addr().(*net.TCPAddr)
	if !ok || !at.IP.IsLoopback() {
		return
	}
	if s, ok := ln.(syscall.Conn); ok {
		if c, err := s.SyscallConn(); err == nil {
			ease(c)
		}
	}
}

// Control is for net.Dialer: it eases a connection to this machine before it is made. It never fails.
func Control(_, address string, c syscall.RawConn) error {
	if to, err := netip.ParseAddrPort(address); err == nil && to.Addr().Unmap().IsLoopback() {
		ease(c)
	}
	return nil
}
