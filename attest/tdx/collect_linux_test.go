package tdx

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

func TestDevice(t *testing.T) {
	t.Parallel()
	absent := tdxGuest{filepath.Join(t.TempDir(), "tdx_guest")}
	if err := absent.open(); !errors.Is(err, tsm.ErrAbsent) {
		t.Error(err)
	}
	if _, err := absent.report(attest.ReportData{1}); !errors.Is(err, unix.ENOENT) {
		t.Errorf("a report without a device: %v", err)
	}
	if err := (tdxGuest{t.TempDir()}).open(); !errors.Is(err, unix.EISDIR) || errors.Is(err, tsm.ErrAbsent) {
		t.Errorf("a directory: %v", err)
	}
	other := tdxGuest{"/dev/null"} // a device that does not know the request
	if err := other.open(); err != nil {
		t.Error(err)
	}
	if _, err := other.report(attest.ReportData{1}); !errors.Is(err, unix.ENOTTY) {
		t.Error(err)
	}
	if getReport0 != 0xc4405401 {
		t.Errorf("%#x", getReport0)
	}
}

// TestDial dials a socket of another family, which this machine has.
func TestDial(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := dialHost(ctx, 4050); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	name := filepath.Join(t.TempDir(), "service")
	if _, err := dial(t.Context(), unix.AF_UNIX, &unix.SockaddrUnix{Name: name}); !errors.Is(err, unix.ENOENT) {
		t.Error(err)
	}
	if _, err := dial(t.Context(), -1, nil); !errors.Is(err, unix.EAFNOSUPPORT) {
		t.Error(err)
	}
	l, err := net.Listen("unix", name)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := dial(t.Context(), unix.AF_UNIX, &unix.SockaddrUnix{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.(*os.File).SetReadDeadline(time.Now().Add(time.Hour)); err != nil {
		t.Errorf("Close would not end a Read: %v", err)
	}
	done := make(chan error)
	go func() { _, err := c.Read(make([]byte, 1)); done <- err }()
	host, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer host.Close()
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; err == nil {
		t.Error("Close does not end a Read")
	}
}
