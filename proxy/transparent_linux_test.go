package proxy_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy"
	"github.com/jurat-tls/jurat/proxy/transparent"
	"github.com/jurat-tls/jurat/test/netns"
)

// TestTransparent: clients connect to a server and know of no proxy. Theirs are the only connections that the rules bring to
// it, and none goes round in circles.
func TestTransparent(t *testing.T) {
	var args []string
	if *portable {
		args = append(args, "-portable")
	}
	netns.Run(t, func(t *testing.T, lab *netns.Lab) {
		const servicePort, proxyPort = 443, 15001
		seen := make(chan string, 1) // by the server
		peer := inboundTCP(t, func(ctx context.Context, raw net.Conn) (proxy.Conn, error) {
			seen <- raw.RemoteAddr().(*net.TCPAddr).IP.String()
			return shake(nil)(ctx, raw)
		}, rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) }), proxy.Limits{}, nil)
		serveAt(t, peer, lab.Server.Listen(t, fmt.Sprint("[::]:", servicePort)))

		for _, mode := range []transparent.Mode{transparent.Redirect, transparent.TProxy} {
			netns.Command(t, "nft", "flush", "ruleset")
			if mode == transparent.Redirect {
				lab.Redirect(t, servicePort, proxyPort)
			} else {
				lab.TProxy(t, servicePort, proxyPort)
			}
			var refuses atomic.Bool
			targets := make(chan string, 1)
			s := proxy.NewTransparent(engine(t), mode, func(ctx context.Context, target string) (proxy.Conn, error) {
				targets <- target
				if refuses.Load() {
					return nil, &attest.Error{Code: attest.CodeDebug, Subject: target}
				}
				o := transparent.Outgoing{Mark: netns.Mark}
				if mode == transparent.TProxy {
					o.Source = proxy.ClientAddr(ctx).(*net.TCPAddr).AddrPort().Addr()
				}
				raw, err := o.Dialer().DialContext(ctx, "tcp", target)
				if err != nil {
					return nil, err
				}
				c, err := overTLS(ctx, proxy.Watch(raw))
				if err != nil {
					return nil, err
				}
				return &conn{c, affirmed()}, nil
			}, nil, proxy.Limits{})
			ln, err := transparent.Listen(t.Context(), mode, "tcp", fmt.Sprint("[::]:", proxyPort))
			if err != nil {
				t.Fatal(err)
			}
			stop := serveAt(t, s, ln)
			for _, tt := range []struct{ server, near, far, client string }{
				{netns.Server4, netns.Near4, netns.Far4, netns.Client4},
				{netns.Server6, netns.Near6, netns.Far6, netns.Client6},
			} {
				t.Run(fmt.Sprint(mode, " ", tt.server), func(t *testing.T) {
					dial := func(to string) net.Conn {
						ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
						defer cancel()
						c, err := lab.Client.Dial(ctx, to)
						if err != nil {
							t.Fatal(err)
						}
						t.Cleanup(func() { c.Close() })
						_ = c.SetDeadline(time.Now().Add(time.Minute))
						return c
					}
					want := netip.AddrPortFrom(netip.MustParseAddr(tt.server), servicePort).String()
					before := s.Stats()

					refuses.Store(false)
					c := dial(want)
					_, _ = io.WriteString(c, "echo")
					hears(t, c, "echo")
					if got := <-targets; got != want {
						t.Errorf("the target is %s, want %s", got, want)
					}
					source := tt.far
					if mode == transparent.TProxy {
						source = tt.client
					}
					if got := <-seen; got != source {
						t.Errorf("the server sees %s, want %s", got, source)
					}

					refuses.Store(true)
					c = dial(want)
					_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
					told(t, c, http.StatusBadGateway, attest.CodeDebug, "(J504)")
					if got := <-targets; got != want {
						t.Errorf("the target is %s, want %s", got, want)
					}

					for _, own := range []string{tt.near, tt.far} {
						c := dial(net.JoinHostPort(own, fmt.Sprint(proxyPort)))
						_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
						told(t, c, http.StatusBadGateway, attest.CodeNotRedirected, "(J118)")
					}
					select {
					case got := <-targets:
						t.Errorf("connected to %s", got)
					case got := <-seen:
						t.Errorf("the server sees another connection, of %s", got)
					default:
					}
					after := s.Stats()
					if n := after.Accepted - before.Accepted; n != 4 {
						t.Errorf("%d connections came, want 4", n)
					}
					if n := after.Refused[attest.CodeNotRedirected] - before.Refused[attest.CodeNotRedirected]; n != 2 {
						t.Errorf("%d were refused as the proxy's own, want 2", n)
					}
				})
			}
			stop()
		}
	}, args...)
}

// serveAt serves until stop is called or the test ends.
func serveAt(t *testing.T, s *proxy.Server, ln net.Listener) (stop func()) {
	served := make(chan error, 1)
	go func() { served <- s.Serve(ln) }()
	stopped := false
	stop = func() {
		if stopped {
			return
		}
		stopped = true
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		_ = s.Shutdown(ctx)
		if err := <-served; err != nil {
			t.Errorf("serve: %v", err)
		}
	}
	t.Cleanup(stop)
	return stop
}

// TestTransparentWithoutMode: a server that does not know how connections come to it refuses them.
func TestTransparentWithoutMode(t *testing.T) {
	for mode, want := range map[transparent.Mode]attest.Code{
		"": attest.CodeConfigValue, "any": attest.CodeConfigValue, transparent.Redirect: attest.CodeNotRedirected, transparent.TProxy: attest.CodeNotRedirected,
	} {
		s := proxy.NewTransparent(engine(t), mode, func(context.Context, string) (proxy.Conn, error) {
			t.Error("dialled")
			return nil, nil
		}, nil, proxy.Limits{})
		c := knock(t, "tcp", start(t, s), "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		told(t, c, http.StatusBadGateway, want, strings.ToUpper(string(want)))
	}
}
