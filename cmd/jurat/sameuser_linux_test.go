package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

func TestSameUser(t *testing.T) {
	path := fmt.Sprintf("@jurat-%d-%d", os.Getpid(), time.Now().UnixNano()) // which no file system keeps from anybody
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
	accepted := make(chan struct{})
	go func() {
		defer close(accepted)
		if conn, err := own.Accept(); err == nil {
			_ = conn.Close()
			t.Error("another user is let in")
		}
	}()
	if os.Geteuid() != 0 {
		own.user++ // we are somebody else now
		if _, err := dial().Read(make([]byte, 1)); err == nil {
			t.Error("another user gets an answer")
		}
	} else { // root is let in everywhere
		hungUp := func() bool { // it was connected, and that was all
			stranger := exec.Command("curl", "--silent", "--max-time", "20", "--abstract-unix-socket", path[1:], "http://x/")
			stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
			var exit *exec.ExitError
			if err := stranger.Run(); !errors.As(err, &exit) {
				t.Fatalf("got %v", err)
			}
			switch code := exit.ExitCode(); code {
			case 52, 56:
				return true
			case 7: // before it had looked, which is as if nobody were there
				return false
			default:
				t.Fatalf("curl exits with %d", code)
				return false
			}
		}
		tries := 0
		for !hungUp() {
			if tries++; tries == 100 {
				t.Fatal("nobody listens")
			}
		}
	}
	_ = own.Close()
	<-accepted
}
