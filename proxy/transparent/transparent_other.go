//go:build !linux

package transparent

import (
	"context"
	"net"
	"net/netip"
	"runtime"
	"syscall"

	"github.com/jurat-tls/jurat/attest"
)

func onlyLinux() error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "transparent", Got: "a transparent proxy on " + runtime.GOOS, Want: "Linux"}
}

// OriginalDestination answers where conn was going before REDIRECT brought it here. It does on Linux only.
func OriginalDestination(net.Conn) (netip.AddrPort, error) { return netip.AddrPort{}, onlyLinux() }

func originalDestination(net.Conn) (netip.AddrPort, uint16, error) {
	return netip.AddrPort{}, 0, onlyLinux()
}

func listen(context.Context, Mode, string, string) (net.Listener, error) { return nil, onlyLinux() }

func adopt(Mode, net.Listener) error { return onlyLinux() }

func isLocal(netip.Addr) bool { return true }

// Dialer makes connections that leave like that. On Linux only it can do more than net.Dialer.
func (o Outgoing) Dialer() *net.Dialer {
	if o == (Outgoing{}) {
		return new(net.Dialer)
	}
	return &net.Dialer{Control: func(string, string, syscall.RawConn) error { return onlyLinux() }}
}
