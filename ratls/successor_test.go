package ratls_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
)

// shown is the leaf that a connector meets at addr.
func shown(t testing.TB, c *ratls.Connector, addr string) string {
	t.Helper()
	conn, err := c.Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	leaf, err := x509.ParseCertificate(conn.Presented().Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	if !conn.Result().Affirmed() {
		t.Fatal(conn.Result().Err())
	}
	return ratls.Pin(leaf)
}

// Who asks sees the next leaf before it serves, with and without protocols at the server; nobody else does.
func TestSuccessor(t *testing.T) {
	for name, protos := range map[string][]string{"any protocol": nil, "of HTTP": {"h2", "http/1.1"}} {
		t.Run(name, func(t *testing.T) {
			id := identity(t, "127.0.0.1")
			acc := ratls.NewAcceptor(id, protos...)
			addr := listener(t, func(raw net.Conn) {
				if conn, err := acc.Handshake(context.Background(), raw); err == nil {
					_, _ = io.Copy(io.Discard, conn)
				}
			})
			asks := ratls.NewConnector(accepting(), "h2", "http/1.1").Successor()
			plain := ratls.NewConnector(accepting(), "h2", "http/1.1").CertificateOnly()
			first := shown(t, plain, addr)
			if got := shown(t, asks, addr); got != first {
				t.Error("without a successor another leaf was shown")
			}
			id.Promote() // of which there is none
			if err := id.Prepare(t.Context()); err != nil {
				t.Fatal(err)
			}
			next := shown(t, asks, addr)
			if next == first {
				t.Error("the successor is not shown")
			}
			if got := shown(t, plain, addr); got != first {
				t.Error("the successor is shown to who did not ask")
			}
			if cert, err := id.GetClientCertificate(nil); err != nil || ratls.Pin(cert.Leaf) != first {
				t.Error("the successor is presented to a server")
			}
			id.Promote()
			if got := shown(t, plain, addr); got != next {
				t.Error("what was shown as the successor does not serve")
			}
			if got := shown(t, asks, addr); got != next {
				t.Error("a leaf that serves has a successor at once")
			}
		})
	}
}

// The successor is there for an eighth of the lifetime before it serves, also where it comes late, and at once where nothing serves.
func TestSuccessorInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		hw := &hardware{}
		var renewed, failed atomic.Int64
		id, err := ratls.NewIdentity(t.Context(), hw, []string{"a"}, [32]byte{}, ratls.IdentityOptions{Lifetime: 80 * time.Minute, OnRenew: func(_ *ratls.Leaf, err error) {
			if err != nil {
				failed.Add(1)
			} else {
				renewed.Add(1)
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { defer close(done); id.Run(ctx) }()
		asked := func() *x509.Certificate {
			c, err := id.GetCertificate(&tls.ClientHelloInfo{SupportedProtos: []string{"h2", "jurat-successor"}})
			if err != nil {
				t.Fatal(err)
			}
			return c.Leaf
		}
		first := id.Leaf().Certificate
		at := func(d time.Duration, what string, ok func() bool) {
			t.Helper()
			time.Sleep(d)
			synctest.Wait()
			if !ok() {
				t.Error(what)
			}
		}
		at(29*time.Minute, "prepared too early", func() bool { return asked().Equal(first) })
		at(2*time.Minute, "not prepared an eighth earlier", func() bool { return !asked().Equal(first) && id.Leaf().Certificate.Equal(first) })
		at(8*time.Minute, "serves too early", func() bool { return id.Leaf().Certificate.Equal(first) })
		second := asked()
		at(2*time.Minute, "does not serve", func() bool { return id.Leaf().Certificate.Equal(second) })
		hw.set(errors.New("device busy"))
		at(35*time.Minute, "a leaf without hardware", func() bool { return asked().Equal(second) && failed.Load() > 0 }) // half of the second's life is over
		hw.set(nil)
		at(time.Minute, "not prepared once the hardware is back", func() bool { return !asked().Equal(second) && id.Leaf().Certificate.Equal(second) })
		third := asked()
		at(8*time.Minute, "not shown as long as it has to be", func() bool { return id.Leaf().Certificate.Equal(second) })
		at(2*time.Minute, "does not serve", func() bool { return id.Leaf().Certificate.Equal(third) })
		hw.set(errors.New("device busy"))
		at(90*time.Minute, "an expired leaf is served", func() bool { _, err := id.GetCertificate(nil); return attest.CodeOf(err) == attest.CodeLeafExpired })
		hw.set(nil)
		at(11*time.Second, "the successor waits although nothing serves", func() bool { _, err := id.GetCertificate(nil); return err == nil })
		if n := renewed.Load(); n != 4 { // the first one included
			t.Errorf("told of %d leaves, want 4", n)
		}
		cancel()
		<-done
	})
}

// A hundred leaves come and go under load: no request of a Transport fails.
func TestTransportAcrossRotations(t *testing.T) {
	id := identity(t, "127.0.0.1")
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Proto) })}
	acc := ratls.NewAcceptor(id, "http/1.1")
	conns := make(chan net.Conn)
	addr := listener(t, func(raw net.Conn) {
		conn, err := acc.Handshake(context.Background(), raw)
		if err != nil {
			t.Log(err)
			return
		}
		gone := make(chan struct{})
		conns <- closing{conn, sync.OnceFunc(func() { close(gone) })}
		<-gone
	})
	var serving sync.WaitGroup
	ln := &handed{conns: conns, closed: make(chan struct{})}
	serving.Go(func() { _ = server.Serve(ln) })
	t.Cleanup(func() { _ = server.Close(); serving.Wait() })

	kept, anew := ratls.NewTransport(accepting()).(*http.Transport), ratls.NewTransport(accepting()).(*http.Transport)
	anew.DisableKeepAlives = true
	t.Cleanup(kept.CloseIdleConnections)
	var asked atomic.Int64
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	for i := range 4 {
		work.Go(func() {
			client := &http.Client{Transport: kept}
			if i%2 == 1 {
				client.Transport = anew
			}
			for ctx.Err() == nil {
				resp, err := client.Get("https://" + addr + "/")
				if err != nil {
					t.Errorf("after %d requests: %v", asked.Load(), err)
					return
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				asked.Add(1)
			}
		})
	}
	for range 100 {
		before := asked.Load()
		if err := id.Prepare(t.Context()); err != nil {
			t.Fatal(err)
		}
		id.Promote()
		for asked.Load() < before+4 && !t.Failed() {
			time.Sleep(time.Millisecond)
		}
	}
	cancel()
	work.Wait()
	t.Logf("%d requests across 100 rotations", asked.Load())
}

// handed is a listener of connections that come from elsewhere.
type handed struct {
	conns  chan net.Conn
	once   sync.Once
	closed chan struct{}
}

func (h *handed) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.closed:
		return nil, net.ErrClosed
	}
}

func (h *handed) Close() error {
	h.once.Do(func() { close(h.closed) })
	return nil
}

func (h *handed) Addr() net.Addr { return &net.TCPAddr{} }

// closing tells of its end.
type closing struct {
	net.Conn
	closed func()
}

func (c closing) Close() error {
	defer c.closed()
	return c.Conn.Close()
}
