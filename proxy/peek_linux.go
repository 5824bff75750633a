package proxy

import (
	"errors"
	"io"
	"net"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/proxy/clienthello"
)

// peekHello waits until it is clear whether raw begins with a ClientHello, and what that says. Nothing is taken: whoever gets the
// connection that it answers reads all of it. What begins like TLS, and is no sound ClientHello, is an error: a service might be less
// strict. It ends with an error when raw is closed.
func peekHello(raw net.Conn) (hello clienthello.Hello, isTLS bool, heard net.Conn, err error) {
	sc, ok := raw.(syscall.Conn)
	if !ok {
		return readHello(raw)
	}
	rc, err := sc.SyscallConn()
	if err != nil {
		return hello, false, raw, err
	}
	var scanner clienthello.Scanner
	p, n, over := make([]byte, 2<<10), 0, false
	failed := rc.Read(func(fd uintptr) bool {
		for {
			var got int
			got, _, err = unix.Recvfrom(int(fd), p, unix.MSG_PEEK)
			switch {
			case errors.Is(err, unix.EINTR):
				continue
			case errors.Is(err, unix.EAGAIN):
				return false
			case err != nil:
				err = os.NewSyscallError("recvfrom", err)
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
			if n = got; !clienthello.Begins(p[:n]) {
				return true
			}
			hello, err = scanner.Parse(p[:n])
			if !errors.Is(err, clienthello.ErrMore) {
				isTLS = err == nil
				return true
			}
			if n == len(p) {
				p = append(make([]byte, 0, clienthello.MaxSize), p...)[:clienthello.MaxSize]
			}
		}
	})
	if failed != nil {
		err = failed
	}
	return hello, isTLS, raw, err
}

// ended reports whether the other end will send no more than what is there.
func ended(fd uintptr) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0
}
