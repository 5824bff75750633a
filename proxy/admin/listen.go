package admin

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"github.com/jurat-tls/jurat/attest"
)

// Listen opens "host:port" or "unix:/path". host is localhost or a loopback address, unless UnsafeAnyAddress; a socket gets the
// mode 0600, and one that a process left behind is replaced. The error is an *attest.Error: CodeConfigValue for what is not
// allowed, CodeListen for what can't be opened.
func Listen(ctx context.Context, address string, opts Options) (net.Listener, error) {
	path, local := strings.CutPrefix(address, "unix:")
	if local {
		return listenUnix(ctx, address, path)
	}
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return nil, notAllowed(address, "localhost:port, [::1]:port or unix:/path")
	}
	if !opts.UnsafeAnyAddress && !isLoopback(host) && host != "localhost" {
		return nil, notAllowed(address, wantLocal)
	}
	ln, err := new(net.ListenConfig).Listen(ctx, "tcp", address)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeListen, Check: "admin", Subject: address, Err: err}
	}
	// localhost is what a file of the machine says it is.
	if err := checkListener(ln, opts); err != nil {
		_ = ln.Close()
		return nil, err
	}
	return ln, nil
}

const wantLocal = "a loopback address, or a unix socket of mode 0600: everybody who reaches it can end this process"

func notAllowed(got, want string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "admin", Subject: "admin.address", Got: fmt.Sprintf("%.100q", got), Want: want}
}

func isLoopback(host string) bool {
	ip, _ := netip.ParseAddr(host) // the zero Addr is none
	return ip.Unmap().IsLoopback()
}

func listenUnix(ctx context.Context, address, path string) (net.Listener, error) {
	if path == "" || path[0] == '@' { // a name without a file has no mode
		return nil, notAllowed(address, "unix:/path")
	}
	open := func() (net.Listener, error) {
		config := net.ListenConfig{Control: early}
		return config.Listen(ctx, "unix", path)
	}
	ln, err := open()
	if err != nil && abandoned(path) {
		if err = os.Remove(path); err == nil {
			ln, err = open()
		}
	}
	if err == nil {
		if err = os.Chmod(path, 0o600); err != nil {
			_ = ln.Close()
		}
	}
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeListen, Check: "admin", Subject: address, Err: err}
	}
	return ln, nil
}

// abandoned reports whether path is a socket that nobody listens on.
func abandoned(path string) bool {
	info, err := os.Lstat(path)
	if err != nil || info.Mode().Type() != fs.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

// checkListener refuses what others could reach.
func checkListener(ln net.Listener, opts Options) error {
	if opts.UnsafeAnyAddress {
		return nil
	}
	switch a := ln.Addr().(type) {
	case *net.TCPAddr:
		if a.IP.IsLoopback() {
			return nil
		}
	case *net.UnixAddr:
		if info, err := os.Stat(a.Name); err == nil && info.Mode().Perm()&0o077 == 0 {
			return nil
		}
	}
	return notAllowed(ln.Addr().String(), wantLocal)
}
