// Package swtpm runs a software TPM for tests: the program swtpm, of the Debian package of that name.
package swtpm

import (
	"net"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

// Start starts a TPM of its own for the test, and connects to it. The test is skipped where the program is absent.
func Start(t testing.TB) net.Conn {
	t.Helper()
	program, err := exec.LookPath("swtpm")
	if err != nil {
		t.Skip("swtpm is absent (test/setup.sh all fetches it)")
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(pair[0])
	unix.CloseOnExec(pair[1])
	ours, theirs := os.NewFile(uintptr(pair[0]), "swtpm"), os.NewFile(uintptr(pair[1]), "swtpm")
	defer ours.Close()
	defer theirs.Close()
	// It ends when the connection does.
	cmd := exec.Command(program, "socket", "--tpm2", "--fd", "3", "--terminate", "--tpmstate", "dir="+t.TempDir(), "--flags", "not-need-init,startup-clear")
	cmd.ExtraFiles = []*os.File{theirs}
	cmd.Stderr = t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	conn, err := net.FileConn(ours)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = conn.Close()
		_ = cmd.Wait()
	})
	return conn
}
