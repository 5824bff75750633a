package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/jurat-tls/jurat/attest"
)

// systemdPrefix marks a listening address that is a socket inherited from systemd: "systemd:NAME", with the name of
// FileDescriptorName= in the socket unit.
const systemdPrefix = "systemd:"

// listeners opens listening sockets; inherited ones are taken over once.
type listeners struct {
	once      sync.Once
	inherited map[string][]net.Listener
	err       error
}

func (l *listeners) open(address string) (net.Listener, error) {
	name, ok := strings.CutPrefix(address, systemdPrefix)
	if !ok {
		ln, err := net.Listen(network(address))
		if err != nil && abandoned(address, err) {
			ln, err = net.Listen(network(address))
		}
		if err != nil {
			return nil, &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: address, Err: err}
		}
		return ln, nil
	}
	l.once.Do(func() { l.inherited, l.err = activation.ListenersWithNames() })
	if l.err != nil {
		return nil, &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: address, Err: l.err}
	}
	if len(l.inherited[name]) == 0 {
		return nil, &attest.Error{Code: attest.CodeListen, Check: "listen", Subject: address, Got: "no such socket inherited", Hint: fmt.Sprintf("start from a systemd socket unit with FileDescriptorName=%s", name)}
	}
	ln := l.inherited[name][0]
	l.inherited[name] = l.inherited[name][1:]
	return ln, nil
}

// abandoned removes the unix socket that a process has left behind, at which nobody listens any more.
func abandoned(address string, err error) bool {
	path, ok := strings.CutPrefix(address, "unix:")
	if !ok || !errors.Is(err, syscall.EADDRINUSE) {
		return false
	}
	if info, err := os.Lstat(path); err != nil || info.Mode().Type() != os.ModeSocket {
		return false
	}
	c, err := net.Dial("unix", path)
	if err == nil {
		_ = c.Close()
		return false
	}
	return errors.Is(err, syscall.ECONNREFUSED) && os.Remove(path) == nil
}

func isSystemd(address string) bool { return strings.HasPrefix(address, systemdPrefix) }

// network splits an address into the arguments of net.Listen and net.Dial.
func network(address string) (string, string) {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return "unix", path
	}
	return "tcp", address
}

// notify tells the service manager, if there is one.
func notify(state string) { _, _ = daemon.SdNotify(false, state) }

// watchdog keeps the service manager's watchdog content as long as alive answers.
func watchdog(ctx context.Context, alive func() bool) {
	interval, err := daemon.SdWatchdogEnabled(false)
	if err != nil || interval == 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			if alive() {
				notify(daemon.SdNotifyWatchdog)
			}
		}
	}
}
