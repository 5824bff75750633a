package interop

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"syscall"
	"testing"
)

// inside is set in the process that runs the tests.
const inside = "JURAT_INTEROP_INSIDE"

// Addresses of the network. All of them are this host's.
const (
	appIP     = "10.1.0.1"  // the workload whose sidecar is tested
	gatewayIP = "10.1.0.20" // of the gateway
	backend1  = "10.1.0.7"
	backend2  = "10.1.0.8"
	backend3  = "10.1.0.11"
	thiefIP   = "10.1.0.12" // where no attested service is
	storeIP   = "10.1.0.9"
	plainIP   = "10.1.0.10" // a service without TLS
	backendIP = "10.96.0.7" // of the service, where nobody listens
)

// TestMain runs the tests in a network and a tree of processes of their own: the kernel ends what is left of it.
func TestMain(m *testing.M) {
	if os.Getenv(inside) != "" {
		for _, args := range network() {
			if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
				log.Fatalf("ip %v: %v: %s", args, err, out)
			}
		}
		os.Exit(m.Run())
	}
	if _, err := exec.LookPath("ip"); err != nil {
		log.Print("interop: skipped: needs ip (test/setup.sh ip)")
		os.Exit(0)
	}
	runtime.LockOSThread() // Pdeathsig is about the thread
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	exe, err := filepath.Abs(os.Args[0])
	if err != nil {
		log.Fatal(err)
	}
	cmd := exec.CommandContext(ctx, exe, os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET | syscall.CLONE_NEWPID, Pdeathsig: syscall.SIGKILL}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	err = cmd.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		os.Exit(max(exit.ExitCode(), 1))
	case errors.Is(err, syscall.EPERM):
		fmt.Println("interop: skipped: needs namespaces:", err)
	case err != nil:
		log.Fatal(err)
	}
	os.Exit(0)
}

func network() [][]string {
	// What goes to the addresses of services leaves by no other way, for rules to take.
	all := [][]string{{"link", "set", "lo", "up"}, {"route", "add", "10.96.0.0/16", "dev", "lo"}}
	for _, a := range slices.Sorted(slices.Values([]string{appIP, gatewayIP, backend1, backend2, backend3, thiefIP, storeIP, plainIP, backendIP})) {
		all = append(all, []string{"address", "add", a + "/32", "dev", "lo"})
	}
	return all
}
