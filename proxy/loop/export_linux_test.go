package loop

import (
	"fmt"
	"net"
	"os"
	"strings"
)

// FD is the descriptor that the loop watches.
func (c *Conn) FD() int { return c.driver.(*polled).fd }

// Unread is how many connections of the loop of c are to be read on with, without having to wait. It is called in the loop.
func (c *Conn) Unread() int { return len(c.driver.(*polled).poll.unread) }

// Early is how many sockets the loops of g watch that no Conn has yet.
func (g *Group) Early() (n int) {
	for _, l := range g.loops {
		p := l.poller.(*epoll)
		p.mu.Lock()
		n += len(p.early)
		p.mu.Unlock()
	}
	return n
}

// Watched is how many descriptors the kernel watches for g.
func (g *Group) Watched() (n int) {
	for _, l := range g.loops {
		raw, _ := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.poller.(*epoll).fd))
		n += strings.Count(string(raw), "tfd:")
	}
	return n
}

// TCPAddr is what an address that the kernel has written says.
func TCPAddr(raw [28]byte) *net.TCPAddr { return tcpAddr((*sockaddr)(&raw)) }

// Next has what g watches next numbered from below n on.
func (g *Group) Next(n int32) {
	for _, l := range g.loops {
		p := l.poller.(*epoll)
		p.mu.Lock()
		p.last = n
		p.mu.Unlock()
	}
}
