//go:build linux

package tsmfs_test

import (
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/test/emulate"
	"github.com/jurat-tls/jurat/test/emulate/tsmfs"
)

// inside says that this process has a mount namespace of its own.
const inside = "JURAT_MOUNT_NAMESPACE"

// mountPoint is where the kernel would show configfs-tsm.
const mountPoint = "/sys/kernel/config/tsm"

var (
	program string // the real jurat
	unable  string // why nothing can be mounted; empty: it can
)

// TestMain runs the tests again in a mount namespace of their own, where /sys/kernel is an empty directory.
func TestMain(m *testing.M) {
	emulate.Main()
	if os.Getenv(inside) == "" {
		os.Exit(outside(m))
	}
	if err := errors.Join(unix.Mount("tmpfs", "/sys/kernel", "tmpfs", 0, "mode=0755"), os.MkdirAll(mountPoint, 0o755)); err != nil {
		log.Fatal(err)
	}
	os.Exit(m.Run())
}

func outside(m *testing.M) int {
	dir, err := os.MkdirTemp("", "jurat-devices-")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	build := exec.Command("go", "build", "-trimpath", "-buildvcs=false", "-o", filepath.Join(dir, "jurat"), "./cmd/jurat")
	build.Dir = "../../.."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		log.Fatalf("%v\n%s", err, out)
	}
	cmd := exec.Command(os.Args[0], os.Args[1:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Env = append(os.Environ(), inside+"="+dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	switch err := cmd.Start(); {
	case err != nil:
		unable = fmt.Sprintf("no mount namespace: %v", err)
		return m.Run()
	default:
		_ = cmd.Wait()
		return cmd.ProcessState.ExitCode()
	}
}

// mounted mounts an emulation for one test.
func mounted(t *testing.T, p tsmfs.Platform, f tsmfs.Faults) *tsmfs.FS {
	t.Helper()
	if _, err := os.Stat("/dev/fuse"); err != nil && unable == "" {
		unable = err.Error()
	}
	if unable != "" {
		t.Skipf("%s (root and /dev/fuse are needed)", unable)
	}
	program = filepath.Join(os.Getenv(inside), "jurat")
	fs, err := tsmfs.Mount(mountPoint, p, f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := fs.Unmount(); err != nil {
			t.Error(err)
		}
		if n := fs.Entries(); n != 0 {
			t.Errorf("%d entries left behind", n)
		}
	})
	return fs
}
