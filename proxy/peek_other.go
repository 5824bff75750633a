//go:build !linux

package proxy

import (
	"net"

	"github.com/jurat-tls/jurat/proxy/clienthello"
)

// peekHello waits until it is clear whether raw begins with a ClientHello, and what that says. Whoever gets the connection that it
// answers reads all of it.
func peekHello(raw net.Conn) (hello clienthello.Hello, isTLS bool, heard net.Conn, err error) {
	return readHello(raw)
}
