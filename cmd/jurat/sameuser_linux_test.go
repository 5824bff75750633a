package main

import (
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestSameUser(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	own := sameUser(ln, slog.New(slog.DiscardHandler)).(*userListener)
	defer own.Close()
	dial := func() net.Conn {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	dial()
	conn, err := own.Accept()
	if err != nil {
		t.Fatal(err)
	}
	if user, err := userOf(conn); err != nil || user != uint32(os.Geteuid()) {
		t.Errorf("got %d, %v", user, err)
	}
	_ = conn.Close()
	if a, _ := net.Pipe(); a != nil {
		if _, err := userOf(a); err == nil {
			t.Error("a pipe has a user")
		}
		_ = a.Close()
	}
	if os.Geteuid() == 0 {
		t.Skip("root is let in everywhere")
	}
	own.user++ // we are somebody else now
	refused := dial()
	go func() { _, _ = own.Accept() }()
	if _, err := refused.Read(make([]byte, 1)); err == nil {
		t.Error("another user is let in")
	}
}
