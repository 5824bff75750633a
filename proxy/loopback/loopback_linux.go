package loopback

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// ease changes a socket that is not connected: one that was paced for a moment is paced for ever.
func ease(c syscall.RawConn) {
	_ = c.Control(func(fd uintptr) {
		if now, err := unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION); err == nil && strings.HasPrefix(now, "bbr") {
			_ = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, "reno")
		}
	})
}
