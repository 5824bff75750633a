package loopback_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/proxy/loopback"
)

// congestion is what controls a socket's.
func congestion(t *testing.T, c any) (name string) {
	t.Helper()
	raw, err := c.(syscall.Conn).SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { name, _ = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) })
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimRight(name, "\x00")
}

// choose sets what a socket begins with, and reports whether that can be had here.
func choose(name string) func(network, address string, c syscall.RawConn) error {
	return func(_, _ string, c syscall.RawConn) error {
		var failed error
		if err := c.Control(func(fd uintptr) { failed = unix.SetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION, name) }); err != nil {
			return err
		}
		return failed
	}
}

// needs skips a test where the kernel does not have it, or does not let us choose it.
func needs(t *testing.T, name string, err error) {
	t.Helper()
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EPERM) {
		t.Skip(name, "cannot be had here:", err)
	}
	t.Fatal(err)
}

func TestEase(t *testing.T) {
	ctx := t.Context()
	for _, tt := range []struct{ at, before, after string }{
		{"127.0.0.1:0", "bbr", "reno"},
		{"[::1]:0", "bbr", "reno"},
		{"0.0.0.0:0", "bbr", "bbr"}, // others may come in here
		{"127.0.0.1:0", "cubic", "cubic"},
		{"127.0.0.1:0", "reno", "reno"},
	} {
		t.Run(tt.at+" "+tt.before, func(t *testing.T) {
			ln, err := (&net.ListenConfig{Control: choose(tt.before)}).Listen(ctx, "tcp", tt.at)
			if err != nil {
				needs(t, tt.before, err)
			}
			defer ln.Close()
			loopback.Ease(ln)
			_, port, _ := net.SplitHostPort(ln.Addr().String())
			host, _, _ := net.SplitHostPort(tt.at)
			if host == "0.0.0.0" {
				host = "127.0.0.1"
			}
			dialed, err := new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(host, port))
			if err != nil {
				t.Fatal(err)
			}
			defer dialed.Close()
			accepted, err := ln.Accept()
			if err != nil {
				t.Fatal(err)
			}
			defer accepted.Close()
			if got := congestion(t, accepted); got != tt.after {
				t.Errorf("got %s, want %s", got, tt.after)
			}
		})
	}
}

func TestControl(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, tt := range []struct{ says, before, after string }{
		{"", "bbr", "reno"},
		{"[::ffff:127.0.0.1]:80", "bbr", "reno"},
		{"192.0.2.1:80", "bbr", "bbr"},
		{"", "cubic", "cubic"},
	} {
		t.Run(tt.says+" "+tt.before, func(t *testing.T) {
			d := net.Dialer{ControlContext: func(_ context.Context, network, address string, c syscall.RawConn) error {
				if err := choose(tt.before)(network, address, c); err != nil {
					return err
				}
				if tt.says != "" {
					address = tt.says
				}
				return loopback.Control(network, address, c)
			}}
			c, err := d.DialContext(t.Context(), "tcp", ln.Addr().String())
			if err != nil {
				needs(t, tt.before, err)
			}
			defer c.Close()
			if got := congestion(t, c); got != tt.after {
				t.Errorf("got %s, want %s", got, tt.after)
			}
		})
	}
}
