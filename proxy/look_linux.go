package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// look shows judge the first bytes of a connection, and more of them each time, until it is clear to judge what they are. Nothing is
// taken: whoever gets the connection that it answers reads all of it. The error is io.EOF where nothing came, io.ErrUnexpectedEOF where
// the other end said no more before it was clear. It ends with an error when raw is closed.
func look(raw net.Conn, judge func(p []byte) (clear bool)) (net.Conn, error) {
	sc, ok := raw.(syscall.Conn)
	if !ok {
		return readAhead(raw, judge)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return raw, err
	}
	p, n, over := make([]byte, 2<<10), 0, false
	failed := rc.Read(func(fd uintptr) bool {
		for {
			got, _, e := unix.Recvfrom(int(fd), p, unix.MSG_PEEK)
			switch {
			case errors.Is(e, unix.EINTR):
				continue
			case errors.Is(e, unix.EAGAIN):
				return false
			case e != nil:
				err = os.NewSyscallError("recvfrom", e)
				return true
			case got == 0:
				err = io.EOF
				return true
			case got == n && over:
				err = io.ErrUnexpectedEOF
				return true
			case got == n:
				if over = ended(fd); over {
					continue // what came before the end is there now
				}
				return false // until more arrives: the descriptor is watched for that, not for what is there
			}
			if n = got; judge(p[:n]) {
				return true
			}
			switch n {
			case maxLook:
				err = errLook
				return true
			case len(p):
				p = make([]byte, maxLook)
			}
		}
	})
	if failed != nil {
		err = failed
	}
	return raw, err
}

// ended reports whether the other end will send no more than what is there.
func ended(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0
}
