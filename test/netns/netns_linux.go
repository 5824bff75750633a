package netns

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// Addresses of the hosts.
const (
	Client4, Client6 = "192.0.2.2", "2001:db8:1::2"
	Server4, Server6 = "198.51.100.2", "2001:db8:2::2"
	Near4, Near6     = "192.0.2.1", "2001:db8:1::1"    // of the proxy, for the client
	Far4, Far6       = "198.51.100.1", "2001:db8:2::1" // of the proxy, for the server
)

// Mark is on packets that the rules let pass.
const Mark = 0x6a

// inside is set in the process that runs on the proxy.
const inside = "JURAT_NETNS"

// Lab is the network, seen from the proxy.
type Lab struct{ Client, Server *Host }

// Host is one of the others.
type Host struct{ fd int }

// Run has f test on the proxy, in a process of its own that runs the calling test alone; args are further flags for it. The
// test is skipped where the system has not what it takes.
func Run(t *testing.T, f func(t *testing.T, lab *Lab), args ...string) {
	t.Helper()
	if os.Getenv(inside) != "" {
		f(t, build(t))
		return
	}
	for _, program := range []string{"ip", "nft"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("needs %s", program)
		}
	}
	// Everything that the rules of Redirect and TProxy take, without which there is nothing to test.
	probe := isolated(t.Context(), "nft", "-f", "-")
	probe.Stdin = strings.NewReader(redirectRules(1, 1) + strings.Replace(tproxyRules(1, 1), "table inet jurat", "table inet other", 1))
	if out, err := probe.CombinedOutput(); err != nil {
		t.Skipf("needs network namespaces, nftables and TPROXY: %v: %s", err, bytes.TrimSpace(out))
	}
	cmd := isolated(t.Context(), os.Args[0], append([]string{"-test.run=^" + t.Name() + "$", "-test.count=1", "-test.timeout=2m"}, args...)...)
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// isolated is a command in a network of its own, where it may do everything.
func isolated(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if uid := os.Geteuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags |= syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getegid(), Size: 1}}
	}
	return cmd
}

func build(t *testing.T) *Lab {
	t.Helper()
	lab := &Lab{Client: newHost(t), Server: newHost(t)}
	Command(t, "ip", "link", "set", "lo", "up")
	for _, side := range []struct {
		host                       *Host
		link                       string
		their4, their6, our4, our6 string
	}{
		{lab.Client, "client", Client4, Client6, Near4, Near6},
		{lab.Server, "server", Server4, Server6, Far4, Far6},
	} {
		Command(t, "ip", "link", "add", side.link, "type", "veth", "peer", "name", "eth0")
		Command(t, "ip", "link", "set", "eth0", "netns", fmt.Sprintf("/proc/%d/fd/%d", os.Getpid(), side.host.fd))
		Command(t, "ip", "address", "add", side.our4+"/24", "dev", side.link)
		Command(t, "ip", "address", "add", side.our6+"/64", "dev", side.link, "nodad")
		Command(t, "ip", "link", "set", side.link, "up")
		h := side.host
		h.Command(t, "ip", "link", "set", "lo", "up")
		h.Command(t, "ip", "address", "add", side.their4+"/24", "dev", "eth0")
		h.Command(t, "ip", "address", "add", side.their6+"/64", "dev", "eth0", "nodad")
		h.Command(t, "ip", "link", "set", "eth0", "up")
		h.Command(t, "ip", "route", "add", "default", "via", side.our4)
		h.Command(t, "ip", "route", "add", "default", "via", side.our6)
	}
	for _, file := range []string{"ipv4/ip_forward", "ipv6/conf/all/forwarding"} {
		if err := os.WriteFile("/proc/sys/net/"+file, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	return lab
}

// newHost makes a network on a thread that ends with its goroutine, and keeps hold of it.
func newHost(t *testing.T) *Host {
	t.Helper()
	h := new(Host)
	err := onThread(func() (err error) {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return err
		}
		h.fd, err = unix.Open(fmt.Sprintf("/proc/self/task/%d/ns/net", unix.Gettid()), unix.O_RDONLY|unix.O_CLOEXEC, 0)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Close(h.fd) })
	return h
}

func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: nothing else may run on a thread that is elsewhere
		done <- f()
	}()
	return <-done
}

// Do runs f where sockets that it makes, and programs that it starts, are the host's. What f starts in other goroutines is not.
func (h *Host) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(h.fd, unix.CLONE_NEWNET); err != nil {
			return err
		}
		return f()
	})
}

// Listen listens on the host.
func (h *Host) Listen(t *testing.T, address string) net.Listener {
	t.Helper()
	var ln net.Listener
	err := h.Do(func() (err error) {
		ln, err = net.Listen("tcp", address)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// Dial connects from the host.
func (h *Host) Dial(ctx context.Context, address string) (c net.Conn, err error) {
	err = h.Do(func() (err error) {
		c, err = new(net.Dialer).DialContext(ctx, "tcp", address)
		return err
	})
	return c, err
}

// Command runs a program on the host.
func (h *Host) Command(t *testing.T, args ...string) {
	t.Helper()
	if err := h.Do(func() error { return command("", args...) }); err != nil {
		t.Fatal(err)
	}
}

// Command runs a program on the proxy.
func Command(t *testing.T, args ...string) {
	t.Helper()
	if err := command("", args...); err != nil {
		t.Fatal(err)
	}
}

func command(stdin string, args ...string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdin = strings.NewReader(stdin)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(args, " "), err, out)
	}
	return nil
}

// Redirect brings connections to a port of the server to another port of the proxy, by REDIRECT: those of the client, and
// those of the proxy itself that do not bear Mark.
func (*Lab) Redirect(t *testing.T, from, to int) {
	t.Helper()
	if err := command(redirectRules(from, to), "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// What is meant for the proxy's own port is redirected too, as rules for all ports do.
func redirectRules(from, to int) string {
	return fmt.Sprintf(`table inet jurat {
	chain prerouting {
		type nat hook prerouting priority dstnat
		iifname client tcp dport { %[1]d, %[2]d } redirect to :%[2]d
	}
	chain output {
		type nat hook output priority -100
		meta mark != %[3]d tcp dport %[1]d redirect to :%[2]d
	}
}
`, from, to, Mark)
}

// TProxy is Redirect by TPROXY.
func (*Lab) TProxy(t *testing.T, from, to int) {
	t.Helper()
	if err := command(tproxyRules(from, to), "nft", "-f", "-"); err != nil {
		t.Fatal(err)
	}
	for _, family := range []string{"-4", "-6"} { // what the rules marked is for this host, wherever it was meant to go
		Command(t, "ip", family, "rule", "add", "fwmark", "1", "lookup", "100")
		Command(t, "ip", family, "route", "add", "local", "default", "dev", "lo", "table", "100")
	}
}

// The first rule brings the answers to connections that bear a foreign address.
func tproxyRules(from, to int) string {
	return fmt.Sprintf(`table inet jurat {
	chain prerouting {
		type filter hook prerouting priority mangle
		meta l4proto tcp socket transparent 1 socket wildcard 0 meta mark set 1 accept
		iifname { client, lo } meta nfproto ipv4 tcp dport %[1]d tproxy ip to :%[2]d meta mark set 1 accept
		iifname { client, lo } meta nfproto ipv6 tcp dport %[1]d tproxy ip6 to :%[2]d meta mark set 1 accept
	}
	chain output {
		type route hook output priority mangle
		meta mark != %[3]d tcp dport %[1]d meta mark set 1
	}
}
`, from, to, Mark)
}
