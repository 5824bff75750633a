//go:build !linux

package proxy

import "net"

// look shows judge the first bytes of a connection, and more of them each time, until it is clear to judge what they are. Whoever gets the
// connection that it answers reads all of it. The error is io.EOF where nothing came, io.ErrUnexpectedEOF where the other end said no
// more before it was clear.
func look(raw net.Conn, judge func(p []byte) (clear bool)) (net.Conn, error) {
	return readAhead(raw, judge)
}
