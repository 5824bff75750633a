package main

import (
	"log/slog"
	"net"
	"os"
	"syscall"
)

// sameUser passes on connections of programs that run as this process's user, or as root, who can read its memory anyway. The mode
// of a socket says the same, until somebody changes it.
func sameUser(ln net.Listener, log *slog.Logger) net.Listener {
	return &userListener{ln, log, uint32(os.Geteuid())}
}

type userListener struct {
	net.Listener
	log  *slog.Logger
	user uint32
}

func (l *userListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		user, err := userOf(conn)
		if err == nil && (user == l.user || user == 0) {
			return conn, nil
		}
		l.log.Warn("a connection of another user is refused", "uid", user)
		_ = conn.Close()
	}
}

// userOf is the user of the process that connected.
func userOf(conn net.Conn) (uint32, error) {
	none := ^uint32(0)
	unix, ok := conn.(*net.UnixConn)
	if !ok {
		return none, net.UnknownNetworkError("not unix")
	}
	raw, err := unix.SyscallConn()
	if err != nil {
		return none, err
	}
	var cred *syscall.Ucred
	var failed error
	if err := raw.Control(func(fd uintptr) {
		cred, failed = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	}); err != nil {
		return none, err
	}
	if failed != nil {
		return none, failed
	}
	return cred.Uid, nil
}
