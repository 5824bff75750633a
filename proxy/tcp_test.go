package proxy_test

import (
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy"
)

type halfCloser interface {
	net.Conn
	CloseWrite() error
}

// TestTCP: the service answers only once the client has ended its direction, so half-closing must pass both ways.
func TestTCP(t *testing.T) {
	const size = 64 << 20
	addr := rawOrigin(t, func(c *net.TCPConn) {
		sum := digest(t, c)
		if _, err := c.Write(sum[:]); err != nil {
			t.Error(err)
		}
		if _, err := io.Copy(c, randomBytes(2, size)); err != nil {
			t.Error(err)
		}
	})
	in := inboundTCP(t, shake(affirmed()), addr, proxy.Limits{}, nil)
	for i, w := range ways(t, in) {
		t.Run(w.name, func(t *testing.T) {
			raw, err := w.dial("")(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			c := raw.(halfCloser)
			defer c.Close()
			if _, err := io.Copy(c, randomBytes(1, size)); err != nil {
				t.Fatal(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Fatal(err)
			}
			var sum [32]byte
			if _, err := io.ReadFull(c, sum[:]); err != nil {
				t.Fatal(err)
			}
			if sum != digest(t, randomBytes(1, size)) {
				t.Error("the service got other bytes")
			}
			if digest(t, c) != digest(t, randomBytes(2, size)) {
				t.Error("the client got other bytes")
			}
			if s := w.stats(); s.BytesIn != uint64(i+1)*size || s.BytesOut != uint64(i+1)*(size+32) {
				t.Errorf("counted %+v", s)
			}
		})
	}
}

// TestServiceSpeaksFirst: a server that greets needs no byte of the client.
func TestServiceSpeaksFirst(t *testing.T) {
	addr := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.WriteString(c, "220 ready\r\n") })
	for _, w := range ways(t, inboundTCP(t, shake(nil), addr, proxy.Limits{}, nil)) {
		c, err := w.dial("")(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(c); err != nil || string(got) != "220 ready\r\n" {
			t.Errorf("%s: got %q, %v", w.name, got, err)
		}
		c.Close()
	}
}

// TestTruncation: what was cut off must not look finished to the other side, whichever side was cut.
func TestTruncation(t *testing.T) {
	ends := make(chan error, 1)
	addr := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half")
		_, err := io.ReadAll(c)
		ends <- err
	})
	in := inboundTCP(t, shake(nil), addr, proxy.Limits{}, nil)
	inAddr := start(t, in)
	out := start(t, proxy.NewOutbound(engine(t), dialer(inAddr, affirmed()), nil, proxy.Limits{}))

	t.Run("client vanishes", func(t *testing.T) {
		c, err := dialTLS(t.Context(), inAddr)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		c.NetConn().Close() // the end of the transport without the goodbye of TLS: anybody on the path can send it
		if err := <-ends; err == nil {
			t.Error("the service took a forged end for a real one")
		}
	})
	t.Run("client ends", func(t *testing.T) {
		c, err := dialTLS(t.Context(), inAddr)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		if err := <-ends; err != nil {
			t.Errorf("the service saw %v", err)
		}
	})

	resetting := rawOrigin(t, func(c *net.TCPConn) {
		_, _ = io.WriteString(c, "half")
		_, _ = io.ReadFull(c, make([]byte, 1))
		_ = c.SetLinger(0)
	})
	in2 := start(t, inboundTCP(t, shake(nil), resetting, proxy.Limits{}, nil))
	out2 := start(t, proxy.NewOutbound(engine(t), dialer(in2, affirmed()), nil, proxy.Limits{}))
	for name, dial := range map[string]dialFunc{
		"service resets": direct(in2)(""),
		"service resets behind outbound": func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", out2)
		},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
				t.Fatal(err)
			}
			_, _ = c.Write([]byte("x"))
			// A client of crypto/tls cannot tell a bare end from a goodbye, so the transport must say it.
			if n, err := io.Copy(io.Discard, c); err == nil {
				t.Errorf("the client took %d more bytes and a proper end", n)
			}
		})
	}

	t.Run("local client resets", func(t *testing.T) {
		c, err := net.Dial("tcp", out)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
			t.Fatal(err)
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		c.Close()
		if err := <-ends; err == nil {
			t.Error("the service took a reset for an end")
		}
	})
}

// TestForgedEndTowardsLocalClient: a bare end of the peer's transport reaches the local client as a reset.
func TestForgedEndTowardsLocalClient(t *testing.T) {
	cut := make(chan struct{})
	addr := rawOrigin(t, func(raw *net.TCPConn) {
		c, err := shake(nil)(t.Context(), raw)
		if err != nil {
			return
		}
		_, _ = io.WriteString(c, "half")
		<-cut // then raw is closed without a goodbye
	})
	out := start(t, proxy.NewOutbound(engine(t), dialer(addr, affirmed()), nil, proxy.Limits{}))
	c, err := net.Dial("tcp", out)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, 4)); err != nil {
		t.Fatal(err)
	}
	close(cut)
	if _, err := io.ReadAll(c); err == nil {
		t.Error("the client took a forged end for a real one")
	}
}

func TestIdleTunnelEnds(t *testing.T) {
	addr := rawOrigin(t, func(c *net.TCPConn) { _, _ = io.Copy(c, c) })
	logs := new(journal)
	in := start(t, inboundTCP(t, shake(nil), addr, proxy.Limits{Tunnel: 300 * time.Millisecond}, logs.logger()))
	c, err := dialTLS(t.Context(), in)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	// Activity keeps it: four exchanges, a hundred milliseconds apart, last longer than the limit.
	begin := time.Now()
	for range 4 {
		<-time.After(100 * time.Millisecond)
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, make([]byte, 1)); err != nil {
			t.Fatalf("after %v: %v", time.Since(begin), err)
		}
	}
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("read a byte")
	}
	until(t, "the log", func() bool { return strings.Contains(logs.String(), "nothing moved for too long") })
}

func TestTCPUnixBackend(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		c, err := ln.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		_, _ = io.Copy(c, c)
	}()
	c, err := dialTLS(t.Context(), start(t, inboundTCP(t, shake(nil), "unix:"+path, proxy.Limits{}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "hello")
	_ = c.CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Fatalf("got %q, %v", got, err)
	}
}

func TestTCPServiceDown(t *testing.T) {
	ln := listen(t)
	ln.Close()
	logs := new(journal)
	c, err := dialTLS(t.Context(), start(t, inboundTCP(t, shake(nil), ln.Addr().String(), proxy.Limits{}, logs.logger())))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if got, err := io.ReadAll(c); err == nil || len(got) > 0 {
		t.Errorf("got %q, %v", got, err)
	}
	if !strings.Contains(logs.String(), `"code":"J104"`) {
		t.Errorf("logged %s", logs)
	}
	if errors.Is(err, context.DeadlineExceeded) {
		t.Error("hung")
	}
}
