package proxy

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
)

// watched notices the end of the transport. crypto/tls reports one at a record boundary as a plain io.EOF, like the
// peer's own goodbye, although anyone on the path can forge it: with this the two can be told apart.
type watched struct {
	net.Conn
	eof atomic.Bool
}

// Watch wraps a transport before the handshake, so that a Server can tell a forged end of the stream from a real one.
// Inbound servers do so themselves.
func Watch(raw net.Conn) net.Conn {
	if _, ok := raw.(*watched); ok {
		return raw
	}
	return &watched{Conn: raw}
}

func (w *watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if errors.Is(err, io.EOF) {
		w.eof.Store(true)
	}
	return n, err
}

// reset closes c so that the other end sees an error instead of an end of file.
func reset(c net.Conn) {
	if w, ok := c.(*watched); ok {
		c = w.Conn
	}
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
