package loop

import (
	"errors"
	"net"
)

// Open takes over an established connection, for handler. upper is nil for a plain one; otherwise it stands above raw, and is
// driven over memory where raw is a Wire and the system has epoll.
func (l *Loop) Open(raw net.Conn, upper Upper, handler Handler) (*Conn, error) {
	c := &Conn{loop: l, handler: handler, remote: raw.RemoteAddr()}
	var err error
	c.driver, err = l.drive(c, raw, upper)
	if err != nil {
		return nil, err
	}
	l.conns[c] = struct{}{}
	return c, nil
}

func (l *Loop) drive(c *Conn, raw net.Conn, upper Upper) (driver, error) {
	if p, ok := l.poller.(interface {
		adopt(c *Conn, raw net.Conn, wire *Wire, upper Upper) (driver, error)
	}); ok {
		wire, wired := raw.(*Wire)
		under := raw
		if wired {
			under = wire.Conn
		}
		if wired || upper == nil {
			if upper == nil {
				wire = nil
			}
			if d, err := p.adopt(c, under, wire, upper); !errors.Is(err, errors.ErrUnsupported) {
				return d, err
			}
		}
	}
	return newBlocking(c, raw, upper), nil
}
