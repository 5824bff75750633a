//go:build unix && !linux

package handover

import "net"

// sameUser has nothing to ask here: the permissions of the socket keep others out.
func sameUser(*net.UnixConn) error { return nil }
