package loop

import (
	"net"
	"syscall"
)

// adopter is a poller that drives descriptors.
type adopter interface {
	adopt(c *Conn, raw net.Conn, wire *Wire, upper Upper) (driver, error)
}

// Prepare has raw, above which a connection was established, wait for Open. It may wait, and is called from anywhere but the
// loop.
func (l *Loop) Prepare(raw net.Conn) {
	if wire, ok := raw.(*Wire); ok && l.adopts(wire.Conn) {
		wire.detach()
	}
}

// adopts reports whether the poller can drive raw.
func (l *Loop) adopts(raw net.Conn) bool {
	_, described := raw.(syscall.Conn)
	_, able := l.poller.(adopter)
	return described && able
}

// Open takes over an established connection, for handler. upper is nil for a plain one; otherwise it stands above raw, which
// was prepared, and is driven over memory where raw is a Wire and the system has epoll.
func (l *Loop) Open(raw net.Conn, upper Upper, handler Handler) (*Conn, error) {
	c := &Conn{loop: l, handler: handler, remote: raw.RemoteAddr()}
	var err error
	c.driver, err = l.drive(c, raw, upper)
	if err != nil {
		return nil, err
	}
	if u, ok := upper.(interface{ Gone() }); ok {
		c.gone = u.Gone
	}
	l.conns[c] = struct{}{}
	return c, nil
}

func (l *Loop) drive(c *Conn, raw net.Conn, upper Upper) (driver, error) {
	wire, wired := raw.(*Wire)
	under := raw
	if wired {
		under = wire.Conn
	}
	if upper == nil {
		wire = nil
	}
	if !l.adopts(under) || upper != nil && !wired {
		return newBlocking(c, raw, upper), nil
	}
	return l.poller.(adopter).adopt(c, under, wire, upper)
}
