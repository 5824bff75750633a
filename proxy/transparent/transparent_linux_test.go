package transparent_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/transparent"
	"github.com/jurat-tls/jurat/test/netns"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	servicePort = 443
	proxyPort   = 15001
)

// A connection that rules bring here still knows where it was going, and one that was meant for the proxy is told apart.
func TestNetwork(t *testing.T) {
	netns.Run(t, func(t *testing.T, lab *netns.Lab) {
		service := serve(t, lab)
		for _, mode := range []transparent.Mode{transparent.Redirect, transparent.TProxy} {
			netns.Command(t, "nft", "flush", "ruleset")
			if mode == transparent.Redirect {
				lab.Redirect(t, servicePort, proxyPort)
			} else {
				lab.TProxy(t, servicePort, proxyPort)
			}
			for _, tt := range []struct {
				listen, server, near, far, client string
				open                              func(context.Context, transparent.Mode, string, string) (net.Listener, error)
			}{
				{"0.0.0.0", netns.Server4, netns.Near4, netns.Far4, netns.Client4, transparent.Listen},
				{"::", netns.Server6, netns.Near6, netns.Far6, netns.Client6, transparent.Listen},
				{"::", netns.Server4, netns.Near4, netns.Far4, netns.Client4, transparent.Listen},
				{"0.0.0.0", netns.Server4, netns.Near4, netns.Far4, netns.Client4, adopted},
				{"::", netns.Server6, netns.Near6, netns.Far6, netns.Client6, adopted},
			} {
				t.Run(fmt.Sprint(mode, " ", tt.server, " at ", tt.listen), func(t *testing.T) {
					ln, err := tt.open(t.Context(), mode, "tcp", net.JoinHostPort(tt.listen, fmt.Sprint(proxyPort)))
					if err != nil {
						t.Fatal(err)
					}
					defer ln.Close()

					// The client gets here whatever server it wants.
					c := arrives(t, ln, func(ctx context.Context) (c net.Conn, err error) {
						err = lab.Client.Do(func() error {
							var d net.Dialer
							d.SetMultipathTCP(true) // which the rules must not be got round by
							c, err = d.DialContext(ctx, "tcp", net.JoinHostPort(tt.server, fmt.Sprint(servicePort)))
							return err
						})
						return c, err
					})
					want := netip.AddrPortFrom(netip.MustParseAddr(tt.server), servicePort)
					if got, err := transparent.Destination(mode, c); got != want || err != nil {
						t.Errorf("got %s, %v, want %s", got, err, want)
					}
					if host, _, _ := net.SplitHostPort(c.RemoteAddr().String()); host != tt.client {
						t.Errorf("from %s", host)
					}
					if got, err := transparent.Destination(mode, struct{ net.Conn }{c}); attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid() {
						t.Errorf("hidden: got %s, %v", got, err)
					}
					if got, err := transparent.Destination("", c); attest.CodeOf(err) != attest.CodeConfigValue || got.IsValid() {
						t.Errorf("no mode: got %s, %v", got, err)
					}

					// So does the proxy itself, but for what bears the mark.
					c = arrives(t, ln, func(ctx context.Context) (net.Conn, error) {
						return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(tt.server, fmt.Sprint(servicePort)))
					})
					if got, err := transparent.Destination(mode, c); got != want || err != nil {
						t.Errorf("got %s, %v, want %s", got, err, want)
					}
					if got := service(transparent.Outgoing{Mark: netns.Mark}, want); got != tt.far {
						t.Errorf("the server sees %s, want %s", got, tt.far)
					}
					if mode == transparent.TProxy {
						if got := service(transparent.Outgoing{Mark: netns.Mark, Source: netip.MustParseAddr(tt.client)}, want); got != tt.client {
							t.Errorf("the server sees %s, want %s", got, tt.client)
						}
					}

					// Another machine may have something at the port that the proxy has here.
					if mode == transparent.Redirect {
						want := netip.AddrPortFrom(netip.MustParseAddr(tt.server), proxyPort)
						c := arrives(t, ln, func(ctx context.Context) (net.Conn, error) { return lab.Client.Dial(ctx, want.String()) })
						if got, err := transparent.Destination(mode, c); got != want || err != nil {
							t.Errorf("got %s, %v, want %s", got, err, want)
						}
					}

					// Connections to the proxy are refused, at whichever of its addresses.
					for _, to := range []string{tt.near, tt.far} {
						c := arrives(t, ln, func(ctx context.Context) (net.Conn, error) {
							return lab.Client.Dial(ctx, net.JoinHostPort(to, fmt.Sprint(proxyPort)))
						})
						if got, err := transparent.Destination(mode, c); attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid() {
							t.Errorf("to %s: got %s, %v", to, got, err)
						}
						if mode == transparent.Redirect {
							if got, err := transparent.Destination(mode, elsewhere{c.(*net.TCPConn)}); attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid() {
								t.Errorf("to %s, as a PROXY header has it: got %s, %v", to, got, err)
							}
						}
						if got, err := transparent.OriginalDestination(c); (mode == transparent.TProxy || to == tt.near) && (attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid()) {
							t.Errorf("to %s, which nothing redirects: got %s, %v", to, got, err)
						}
					}
					c = arrives(t, ln, func(ctx context.Context) (net.Conn, error) {
						return new(net.Dialer).DialContext(ctx, "tcp", net.JoinHostPort(tt.near, fmt.Sprint(proxyPort)))
					})
					if got, err := transparent.Destination(mode, c); attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid() {
						t.Errorf("from the proxy itself: got %s, %v", got, err)
					}
				})
			}
		}
	})
}

// elsewhere is a connection with an address that somebody else said.
type elsewhere struct{ *net.TCPConn }

func (elsewhere) LocalAddr() net.Addr { return &net.TCPAddr{IP: net.IPv4(203, 0, 113, 1), Port: 80} }

// adopted is Listen by two: one opens the socket and the other makes it what it has to be.
func adopted(ctx context.Context, mode transparent.Mode, network, address string) (net.Listener, error) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(ctx, network, address)
	if err != nil {
		return nil, err
	}
	return transparent.Adopt(mode, ln)
}

// One client may have as many connections as it has ports to each server, and not to all of them together.
func TestSourcePorts(t *testing.T) {
	netns.Run(t, func(t *testing.T, lab *netns.Lab) {
		lab.TProxy(t, servicePort, proxyPort)
		if err := os.WriteFile("/proc/sys/net/ipv4/ip_local_port_range", []byte("40000 40001"), 0); err != nil {
			t.Fatal(err)
		}
		for range 8 {
			ln := lab.Server.Listen(t, "[::]:0")
			defer ln.Close()
			for _, addresses := range [][2]string{{netns.Server4, netns.Client4}, {netns.Server6, netns.Client6}} {
				to := net.JoinHostPort(addresses[0], fmt.Sprint(ln.Addr().(*net.TCPAddr).Port))
				c, err := transparent.Outgoing{Mark: netns.Mark, Source: netip.MustParseAddr(addresses[1])}.Dialer().DialContext(t.Context(), "tcp", to)
				if err != nil {
					t.Fatal(err)
				}
				defer c.Close()
			}
		}
	})
}

// arrives connects, and answers what was accepted.
func arrives(t *testing.T, ln net.Listener, dial func(context.Context) (net.Conn, error)) net.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	out, err := dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { out.Close() })
	_ = ln.(interface{ SetDeadline(time.Time) error }).SetDeadline(time.Now().Add(10 * time.Second))
	in, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

// serve runs a server that says whom it sees. The answer asks it.
func serve(t *testing.T, lab *netns.Lab) func(transparent.Outgoing, netip.AddrPort) string {
	ln := lab.Server.Listen(t, fmt.Sprint("[::]:", servicePort))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			host, _, _ := net.SplitHostPort(c.RemoteAddr().String())
			_, _ = io.WriteString(c, host)
			c.Close()
		}
	}()
	t.Cleanup(func() {
		ln.Close()
		<-done
	})
	return func(o transparent.Outgoing, to netip.AddrPort) string {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		c, err := o.Dialer().DialContext(ctx, "tcp", to.String())
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		got, err := io.ReadAll(c)
		if err != nil {
			return err.Error()
		}
		return string(got)
	}
}

// TestNotPermitted: who may not do it is told what is missing.
func TestNotPermitted(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	check := func(what string, err error) {
		var coded *attest.Error
		if !errors.As(err, &coded) || coded.Code != attest.CodeNotPermitted || coded.Hint == "" || !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: got %v", what, err)
		}
	}
	ready := map[string]net.Listener{}
	if os.Geteuid() == 0 {
		for _, network := range []string{"tcp4", "tcp6"} {
			if ready[network], err = transparent.Listen(t.Context(), transparent.TProxy, network, ":0"); err != nil {
				t.Fatal(err)
			}
			defer ready[network].Close()
		}
	}
	powerless(t, func() {
		_, err := transparent.Adopt(transparent.TProxy, ln)
		check("adopted", err)
		for network, ln := range ready { // somebody else had the right
			f, err := ln.(interface{ File() (*os.File, error) }).File()
			if err != nil {
				t.Error(err)
				continue
			}
			inherited, err := net.FileListener(f)
			f.Close()
			if err != nil {
				t.Error(err)
				continue
			}
			if _, err := transparent.Adopt(transparent.TProxy, inherited); err != nil {
				t.Errorf("%s: %v", network, err)
			}
			inherited.Close()
		}
		for _, network := range []string{"tcp4", "tcp6", "tcp"} {
			_, err := transparent.Listen(t.Context(), transparent.TProxy, network, ":0")
			check(network, err)
		}
		for what, o := range map[string]transparent.Outgoing{"mark": {Mark: 1}, "source": {Source: netip.MustParseAddr("127.0.0.1")}} {
			_, err := o.Dialer().DialContext(t.Context(), "tcp", ln.Addr().String())
			check(what, err)
		}
		c, err := transparent.Outgoing{}.Dialer().DialContext(t.Context(), "tcp", ln.Addr().String())
		if err != nil {
			t.Errorf("nothing asked for: %v", err)
			return
		}
		c.Close()
		redirect, err := transparent.Listen(t.Context(), transparent.Redirect, "tcp", "127.0.0.1:0")
		if err != nil {
			t.Errorf("nothing asked for: %v", err)
			return
		}
		redirect.Close()
	})
}

// powerless runs f, which must not end the test, on a thread that has no capabilities.
func powerless(t *testing.T, f func()) {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // for good: the thread ends with the goroutine
		head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		err := unix.Capset(&head, &none[0])
		defer func() { done <- err }()
		if err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// TestNothingRedirected: what nothing brought here has no other destination.
func TestNothingRedirected(t *testing.T) {
	for _, address := range []string{"127.0.0.1:0", "[::1]:0"} {
		ln, err := transparent.Listen(t.Context(), transparent.Redirect, "tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c := arrives(t, ln, func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", ln.Addr().String())
		})
		for _, mode := range []transparent.Mode{transparent.Redirect, transparent.TProxy} {
			if got, err := transparent.Destination(mode, c); attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid() {
				t.Errorf("%s: got %s, %v", mode, got, err)
			}
		}
		for what, c := range map[string]net.Conn{"no descriptor": struct{ net.Conn }{c}, "no socket": pipe(t)} {
			if got, err := transparent.OriginalDestination(c); attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid() {
				t.Errorf("%s: got %s, %v", what, got, err)
			}
			for _, mode := range []transparent.Mode{transparent.Redirect, transparent.TProxy} {
				if got, err := transparent.Destination(mode, c); attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid() {
					t.Errorf("%s, %s: got %s, %v", what, mode, got, err)
				}
			}
		}
		c.Close()
		if got, err := transparent.OriginalDestination(c); attest.CodeOf(err) != attest.CodeNotRedirected || got.IsValid() {
			t.Errorf("closed: got %s, %v", got, err)
		}
	}
}

func pipe(t *testing.T) net.Conn {
	a, b := net.Pipe()
	t.Cleanup(func() { a.Close(); b.Close() })
	return a
}

func shut(t *testing.T) net.Listener {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	return ln
}

func TestModes(t *testing.T) {
	for _, m := range []transparent.Mode{transparent.Redirect, transparent.TProxy} {
		if got, err := transparent.ParseMode(string(m)); got != m || err != nil {
			t.Errorf("%q: got %q, %v", m, got, err)
		}
	}
	for _, s := range []string{"", "REDIRECT", "none"} {
		if got, err := transparent.ParseMode(s); got != "" || attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%q: got %q, %v", s, got, err)
		}
		if ln, err := transparent.Listen(t.Context(), transparent.Mode(s), "tcp", "127.0.0.1:0"); ln != nil || attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%q: got %v, %v", s, ln, err)
		}
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, mode := range []transparent.Mode{"", "none"} {
		if got, err := transparent.Adopt(mode, ln); got != nil || attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%q: got %v, %v", mode, got, err)
		}
	}
	unix, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close()
	for what, ln := range map[string]net.Listener{"unix": struct{ net.Listener }{unix}, "closed": shut(t)} {
		if got, err := transparent.Adopt(transparent.TProxy, ln); got != nil || attest.CodeOf(err) == "" || attest.CodeOf(err) == attest.CodeInternal {
			t.Errorf("%s: got %v, %v", what, got, err)
		}
	}
	if _, err := transparent.Listen(t.Context(), transparent.Redirect, "tcp", ln.Addr().String()); attest.CodeOf(err) != attest.CodeListen {
		t.Errorf("an address in use: got %v", err)
	}
}

// TestMine: an address is this machine's where an interface has it, whatever sockets may be bound to.
func TestMine(t *testing.T) {
	for text, want := range map[string]bool{
		"127.0.0.1": true, "127.3.2.1": true, "::1": true, "::ffff:127.0.0.1": true,
		"192.0.2.1": false, "::ffff:192.0.2.1": false, "0.0.0.0": false, "::": false, "fe80::1": false, "169.254.1.1": false, "224.0.0.1": false,
	} {
		if got := transparent.Mine(netip.MustParseAddr(text)); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
	if transparent.Mine(netip.Addr{}) {
		t.Error("no address is this machine's")
	}
	all, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range all {
		ip, _ := netip.AddrFromSlice(a.(*net.IPNet).IP)
		if ip = ip.Unmap(); transparent.Mine(ip) == ip.IsLinkLocalUnicast() {
			t.Errorf("%s: %v", ip, transparent.Mine(ip))
		}
	}
}
