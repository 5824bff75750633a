package main

import (
	"log/slog"
	"net"
	"path/filepath"
	"testing"

	"github.com/jurat-tls/jurat/proxy"
)

// The format of the access log may be left out.
func TestAccessLogDefaults(t *testing.T) {
	o := &operation{app: testApp(), log: slog.New(slog.DiscardHandler)}
	var observer proxy.Observer
	done, err := o.openLog(&serveConfig{dir: t.TempDir(), Process: processConfig{AccessLog: &accessLogConfig{Path: "log"}}}, &observer)
	if err != nil || observer.Log == nil {
		t.Fatalf("got %v", err)
	}
	done(t.Context())
}

// A socket that nobody listens at any more is in nobody's way; one at which somebody does, or a file, is.
func TestAbandonedSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	left, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	left.SetUnlinkOnClose(false)
	var l listeners
	if _, err := l.open("unix:" + path); err == nil {
		t.Fatal("somebody listens there")
	}
	left.Close()
	ln, err := l.open("unix:" + path)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
}
