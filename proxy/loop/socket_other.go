//go:build !linux

package loop

import "net"

// Accepting answers ln: what the loops could do about it, they can on Linux only.
func (g *Group) Accepting(ln net.Listener) net.Listener { return ln }

func home(net.Conn) *Loop { return nil }
