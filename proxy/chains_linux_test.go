package proxy_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/test/netns"
)

// anywhere is a builder that listens where it is told to.
type anywhere struct{ *builder }

func (anywhere) Listen(address string) (net.Listener, error) { return net.Listen("tcp", address) }

// catch brings what the client sends to some ports, wherever they are, to another one of the proxy.
func catch(t *testing.T, mode string, port int, from ...string) {
	t.Helper()
	netns.Command(t, "nft", "flush", "ruleset")
	rules := fmt.Sprintf(`table inet jurat {
	chain prerouting {
		type nat hook prerouting priority dstnat
		iifname client tcp dport { %s, %d } redirect to :%d
	}
}`, strings.Join(from, ", "), port, port)
	if mode == "tproxy" {
		rules = fmt.Sprintf(`table inet jurat {
	chain prerouting {
		type filter hook prerouting priority mangle
		iifname client meta nfproto ipv4 tcp dport { %[1]s } tproxy ip to :%[2]d meta mark set 1 accept
		iifname client meta nfproto ipv6 tcp dport { %[1]s } tproxy ip6 to :%[2]d meta mark set 1 accept
	}
}`, strings.Join(from, ", "), port)
	}
	cmd := exec.Command("nft", "-f", "-")
	cmd.Stdin = strings.NewReader(rules)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
}

// TestTransparentChains: connections that the kernel hands over are told apart by where they were going, and go on there only where
// that is attested, or this machine, or said to be unsafe.
func TestTransparentChains(t *testing.T) {
	var args []string
	if *portable {
		args = append(args, "-portable")
	}
	netns.Run(t, func(t *testing.T, lab *netns.Lab) {
		const proxyPort, attested, db, web, open, closed, mixed, other = 15001, 443, 3306, 8080, 8081, 8082, 8443, 9999
		echo := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
		serveAt(t, inboundTCP(t, shake(nil), echo, proxy.Limits{}, nil), lab.Server.Listen(t, fmt.Sprint("[::]:", attested)))
		for _, port := range []int{db, open, closed} { // these speak first, and say who asks
			ln := lab.Server.Listen(t, fmt.Sprint("[::]:", port))
			go func() {
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() {
						defer c.Close()
						fmt.Fprintf(c, "%d\n", port)
						_, _ = io.Copy(c, c)
					}()
				}
			}()
			t.Cleanup(func() { ln.Close() })
		}
		from := func(name string) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-From", name) })
		}
		serveOrigin(t, lab.Server.Listen(t, fmt.Sprint("[::]:", web)), from("server"))
		here, err := net.Listen("tcp", fmt.Sprint("[::]:", web))
		if err != nil {
			t.Fatal(err)
		}
		serveOrigin(t, here, from("here"))
		netns.Command(t, "ip", "-4", "rule", "add", "fwmark", "1", "lookup", "100")
		netns.Command(t, "ip", "-6", "rule", "add", "fwmark", "1", "lookup", "100")
		netns.Command(t, "ip", "-4", "route", "add", "local", "default", "dev", "lo", "table", "100")
		netns.Command(t, "ip", "-6", "route", "add", "local", "default", "dev", "lo", "table", "100")

		port := func(n uint16) chain.Match { return chain.Match{DestinationPorts: []uint16{n}} }
		raw := func(cluster string) config.Serving { return config.Serving{Plain: true, TCP: true, Cluster: cluster} }
		requests := func(cluster string) config.Serving { return config.Serving{Plain: true, HTTP: allTo(cluster)} }
		onward := clusterOf("onward")
		onward.OriginalDestination, onward.Attested = &config.OriginalDestination{}, &config.Attested{Require: "p"}
		local := clusterOf("local")
		local.OriginalDestination = &config.OriginalDestination{}
		unsafe := clusterOf("unsafe")
		unsafe.OriginalDestination = &config.OriginalDestination{UnsafePlain: true}
		atServer := port(web)
		atServer.PrefixRanges = []string{netns.Server4, netns.Server6}
		vip := port(db)
		vip.PrefixRanges = []string{"198.51.100.77", "2001:db8:2::77"}
		said := make(chan string, 1)
		headed := clusterOf("headed", rawOrigin(t, func(c *net.TCPConn) { said <- line(t, c) }))
		headed.ProxyProtocol = "v1"
		far, away := clusterOf("db", net.JoinHostPort(netns.Server4, fmt.Sprint(db))), clusterOf("web", net.JoinHostPort(netns.Server6, fmt.Sprint(web)))
		far.UnsafePlain, away.UnsafePlain = true, true
		a := port(mixed)
		a.ServerNames = []string{"a.example"}
		c := &config.Config{
			Listeners: []config.Listener{{
				Name: "all", Address: fmt.Sprint("[::]:", proxyPort), UnsafeListen: true,
				Chains: []config.Chain{
					serving("onward", port(attested), raw("onward")),
					serving("vip", vip, raw("db")),
					serving("web", port(web), requests("local")),
					serving("server", atServer, config.Serving{Plain: true, HTTP: allTo("unsafe")}),
					serving("open", port(open), raw("unsafe")),
					serving("closed", port(closed), raw("local")),
					serving("a", a, config.Serving{HTTP: allTo("web")}),
					serving("headed", chain.Match{DestinationPorts: []uint16{mixed}, Default: true}, raw("headed")),
				},
			}},
			Clusters: []config.Cluster{
				onward, local, unsafe, headed, far, away,
			},
		}
		for _, mode := range []string{"redirect", "tproxy"} {
			catch(t, mode, proxyPort, "443", "3306", "8080", "8081", "8082", "8443", "9999")
			r := proxy.NewRuntime(engine(t), time.Second, proxy.Observer{}, new(journal).logger())
			c.Listeners[0].Transparent = mode
			apply(t, r, c, "1", anywhere{newBuilder(t)})
			for _, ip := range []struct{ server, near, vip string }{
				{netns.Server4, netns.Near4, "198.51.100.77"}, {netns.Server6, netns.Near6, "2001:db8:2::77"},
			} {
				t.Run(fmt.Sprint(mode, " ", ip.server), func(t *testing.T) {
					dial := func(host string, port int) net.Conn {
						t.Helper()
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						defer cancel()
						c, err := lab.Client.Dial(ctx, net.JoinHostPort(host, fmt.Sprint(port)))
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() { c.Close() })
						_ = c.SetDeadline(time.Now().Add(time.Minute))
						return c
					}
					hearsBack := func(c net.Conn) {
						t.Helper()
						_, _ = io.WriteString(c, "echo")
						hears(t, c, "echo")
						c.Close()
					}
					hearsBack(dial(ip.server, attested))
					for host, port := range map[string]int{ip.vip: db, ip.server: open} {
						conn := dial(host, port)
						if got := line(t, conn); got != fmt.Sprint(port) {
							t.Errorf("%s:%d: %s", host, port, got)
						}
						hearsBack(conn)
					}
					for host, want := range map[string]string{ip.near: "here", ip.server: "server"} {
						if got, err := whose(dial(host, web)); got != want {
							t.Errorf("%s: %q, %v", host, got, err)
						}
					}
					over := tls.Client(dial(ip.server, mixed), &tls.Config{ServerName: "a.example", InsecureSkipVerify: true})
					if got, err := whose(over); got != "server" {
						t.Errorf("by name: %q, %v", got, err)
					}
					over.Close()

					// Whoever is told where a connection comes from is told where it was going.
					_, _ = io.WriteString(dial(ip.server, mixed), "raw")
					if got, want := <-said, fmt.Sprintf(" %s ", ip.server); !strings.Contains(got, want) || !strings.HasSuffix(got, fmt.Sprintf(" %d\r", mixed)) {
						t.Errorf("the service was told %q", got)
					}
					gets := func(host string, port int) string {
						t.Helper()
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						defer cancel()
						c, err := lab.Client.Dial(ctx, net.JoinHostPort(host, fmt.Sprint(port)))
						if errors.Is(err, syscall.ECONNRESET) { // before Dial came back
							return ""
						}
						if err != nil {
							t.Fatal(err)
						}
						defer c.Close()
						_ = c.SetDeadline(time.Now().Add(time.Minute))
						_, _ = io.WriteString(c, "secret")
						got, err := io.ReadAll(c)
						if timeout(err) {
							t.Errorf("%s:%d is left open", host, port)
						}
						return string(got)
					}
					// A place of another machine gets nothing in plain.
					if got := gets(ip.server, closed); got != "" {
						t.Errorf("in plain: %q", got)
					}
					refusals := func(code attest.Code) uint64 { return statsOf(t, r, "all", "").Refused[code] }
					unmatched, own := refusals(attest.CodeNoChain), refusals(attest.CodeNotRedirected)
					for host, port := range map[string]int{ip.server: other, ip.vip: other, ip.near: db} {
						if got := gets(host, port); got != "" {
							t.Errorf("for no chain: %q", got)
						}
					}
					until(t, "what is for no chain to be refused", func() bool { return refusals(attest.CodeNoChain) == unmatched+3 })
					// The proxy does not connect to itself.
					if got := gets(ip.near, proxyPort); got != "" {
						t.Errorf("for the proxy itself: %q", got)
					}
					until(t, "what is for the proxy to be refused", func() bool { return refusals(attest.CodeNotRedirected) == own+1 })
				})
			}
			ctx, cancel := context.WithCancel(t.Context())
			cancel()
			_ = r.Shutdown(ctx)
		}
	}, args...)
}
