package proxy

import (
	"net"

	"github.com/jurat-tls/jurat/proxy/loop"
)

// Watch wraps a transport before the handshake, so that a Server can drive the connection without waiting for it, and can
// tell a forged end of the stream from a real one. Inbound servers do so themselves.
func Watch(raw net.Conn) net.Conn { return loop.NewWire(raw) }
