package proxy

import (
	"net"
	"net/netip"
	"sync"
)

// peers counts the connections of each address.
type peers struct {
	most int

	mu    sync.Mutex
	count map[netip.Prefix]int
}

// enter counts a connection from an address, and reports whether it may be. leave takes it back, and is nil where it may not.
func (p *peers) enter(from net.Addr) (leave func(), ok bool) {
	a, ok := from.(*net.TCPAddr)
	if !ok { // of this machine
		return func() {}, true
	}
	addr, _ := netip.AddrFromSlice(a.IP)
	addr = addr.Unmap()
	bits := 32
	if addr.Is6() { // who has one address has all of these
		bits = 64
	}
	key, err := addr.Prefix(bits)
	if err != nil {
		return nil, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.count[key] >= p.most {
		return nil, false
	}
	if p.count == nil {
		p.count = map[netip.Prefix]int{}
	}
	p.count[key]++
	return sync.OnceFunc(func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if p.count[key]--; p.count[key] == 0 {
			delete(p.count, key)
		}
	}), true
}
