package admin

import "syscall"

// early sets the mode of a socket before it has a name: afterwards others would have a moment to connect.
func early(_, _ string, c syscall.RawConn) error {
	return c.Control(func(fd uintptr) { _ = syscall.Fchmod(int(fd), 0o600) })
}
