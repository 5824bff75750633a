// Package ports finds ports for programs that have to be told where to listen.
package ports

import (
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
)

// From which ports are taken: below those that systems give to whoever asks for any, so that no connection of another test gets one
// before the program has it.
const first, last = 10_000, 30_000

// Free answers n addresses of loopback, each with another port, that nobody has at the moment.
func Free(t testing.TB, n int) []netip.AddrPort {
	t.Helper()
	var addrs []netip.AddrPort
	for range 100 * n {
		if len(addrs) == n {
			break
		}
		addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(first+rand.IntN(last-first)))
		ln, err := net.ListenTCP("tcp", net.TCPAddrFromAddrPort(addr))
		if err != nil {
			continue
		}
		defer ln.Close()
		addrs = append(addrs, addr)
	}
	if len(addrs) < n {
		t.Fatalf("%d of %d ports are free", len(addrs), n)
	}
	return addrs
}
