package attested_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/attested"
)

const echoMethod = "/test.Echo/Echo"

func echo(s attested.Stream) error {
	for {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if err := s.Send([]byte(strings.Join(s.Peer().Names(), ",")+"|"), m); err != nil {
			return err
		}
	}
}

func TestEcho(t *testing.T) {
	s := attested.NewServer(accept(ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), party(policy{}))), map[string]attested.Handler{echoMethod: echo}, attested.Options{})
	addr := start(t, s)
	c, err := attested.Open(t.Context(), dialer(ratls.NewMutualConnector(identity(t, "b.example", "A.example"), party(policy{})), addr), echoMethod, attested.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !c.Peer().Affirmed() || !slices.Equal(c.Peer().Names(), []string{"127.0.0.1"}) || c.Peer().Config() != [32]byte{7} {
		t.Errorf("the server is %v %v", c.Peer().Names(), c.Peer().Result())
	}
	big := bytes.Repeat([]byte("x"), 300<<10)
	for _, m := range [][]byte{[]byte("one"), {}, big} {
		if err := c.Send(m[:len(m)/2], m[len(m)/2:]); err != nil {
			t.Fatal(err)
		}
		got, err := c.Recv()
		if want := "a.example,b.example|" + string(m); err != nil || string(got) != want {
			t.Fatalf("got %.50q, %v, want %.50q", got, err, want)
		}
	}
	if err := c.CloseSend(); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Recv(); err != io.EOF {
		t.Errorf("got %v, want the end", err)
	}
	if st := s.Stats(); st.Served != 1 || st.Refused != 0 || st.Waiting != 0 {
		t.Errorf("counted %+v", st)
	}
}

// Whoever is not affirmed gets to no handler: refused by the policy, with no evidence, or over a handshake that asks for none.
func TestNotAffirmed(t *testing.T) {
	var handled atomic.Int64
	handlers := map[string]attested.Handler{echoMethod: func(attested.Stream) error { handled.Add(1); return nil }}
	id := identity(t, "127.0.0.1")
	for name, tc := range map[string]struct {
		acceptor *ratls.Acceptor
		client   *ratls.Connector
	}{
		"refused":              {ratls.NewMutualAcceptor(id, party(policy{refuse: attest.CodeDebug})), ratls.NewMutualConnector(identity(t), party(policy{}))},
		"no evidence":          {ratls.NewMutualAcceptor(id, party(policy{})), ratls.NewConnector(party(policy{}))},
		"nobody asked":         {ratls.NewAcceptor(id), ratls.NewMutualConnector(identity(t), party(policy{}))},
		"the client refuses":   {ratls.NewMutualAcceptor(id, party(policy{})), ratls.NewMutualConnector(identity(t), party(policy{refuse: attest.CodeDebug}))},
		"certificate, refused": {ratls.NewMutualAcceptor(id, party(policy{refuse: attest.CodeDebug})), ratls.NewMutualConnector(identity(t), party(policy{})).CertificateOnly()},
	} {
		t.Run(name, func(t *testing.T) {
			addr := start(t, attested.NewServer(accept(tc.acceptor), handlers, attested.Options{}))
			c, err := attested.Open(t.Context(), dialer(tc.client, addr), echoMethod, attested.ClientOptions{})
			if err == nil {
				if err = c.Send([]byte("x")); err == nil {
					_, err = c.Recv()
				}
				_ = c.Close()
			}
			if err == nil || err == io.EOF {
				t.Errorf("it went well: %v", err)
			}
		})
	}
	if handled.Load() != 0 {
		t.Error("a handler ran")
	}
}

// later is a connection whose peer fails to attest anew.
type later struct {
	attested.Conn
	refused *atomic.Bool
}

func (l later) Result() *attest.Result {
	if l.refused.Load() {
		return &attest.Result{}
	}
	return l.Conn.Result()
}

func TestNoLongerAffirmed(t *testing.T) {
	var refused atomic.Bool
	shake := accept(ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), party(policy{})))
	s := attested.NewServer(func(ctx context.Context, raw net.Conn) (attested.Conn, error) {
		conn, err := shake(ctx, raw)
		if err != nil {
			return nil, err
		}
		refused.Store(false)
		return later{conn, &refused}, nil
	}, map[string]attested.Handler{echoMethod: func(s attested.Stream) error {
		if !s.Peer().Affirmed() {
			t.Error("not affirmed")
		}
		refused.Store(true)
		if s.Peer().Affirmed() {
			t.Error("still affirmed")
		}
		return echo(s)
	}}, attested.Options{})
	addr := start(t, s)
	// A second stream on the same connection, which the client end here does not do.
	conn, err := ratls.NewMutualConnector(identity(t), party(policy{})).Dial(t.Context(), addr)
	if err != nil {
		t.Fatal(err)
	}
	cc := dialPlain(t, conn)
	if st, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, echoMethod); err != nil {
		t.Fatal(err)
	} else {
		_ = st
	}
	until(t, "refused", refused.Load)
	st, err := cc.NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, echoMethod)
	if err == nil {
		err = st.RecvMsg(new(any))
	}
	if err == nil || !strings.Contains(err.Error(), "not affirmed") {
		t.Errorf("got %v", err)
	}
}

func dialPlain(t testing.TB, conn net.Conn) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///x", grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) { return conn, nil }))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

func TestStatus(t *testing.T) {
	handlers := map[string]attested.Handler{
		"/t.T/Denied": func(attested.Stream) error {
			return &attested.Status{Code: attested.PermissionDenied, Message: "not you"}
		},
		"/t.T/Broken": func(attested.Stream) error { return errors.New("secret of the server") },
		"/t.T/Panic":  func(attested.Stream) error { panic("secret of the server") },
		"/t.T/Well":   func(attested.Stream) error { return nil },
		"/t.T/Cut":    func(s attested.Stream) error { s.Peer().Cut(); return nil },
	}
	addr := start(t, attested.NewServer(accept(ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), party(policy{}))), handlers, attested.Options{}))
	client := ratls.NewMutualConnector(identity(t), party(policy{}))
	for method, want := range map[string]attested.Code{
		"/t.T/Denied": attested.PermissionDenied, "/t.T/Broken": attested.Internal, "/t.T/Panic": attested.Internal, "/t.T/None": attested.Unimplemented, "/t.T/Cut": attested.Unavailable,
	} {
		c, err := attested.Open(t.Context(), dialer(client, addr), method, attested.ClientOptions{})
		if err == nil {
			_, err = c.Recv()
			_ = c.Close()
		}
		var s *attested.Status
		if !errors.As(err, &s) || s.Code != want || strings.Contains(s.Message, "secret") {
			t.Errorf("%s: got %v, want %d", method, err, want)
		}
	}
	c, err := attested.Open(t.Context(), dialer(client, addr), "/t.T/Well", attested.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Recv(); err != io.EOF {
		t.Errorf("got %v", err)
	}
	if _, err := attested.Open(t.Context(), nil, "t.T", attested.ClientOptions{}); err == nil {
		t.Error("no method, and no error")
	}
}

// A message above the bound ends the stream and is not held.
func TestOversized(t *testing.T) {
	addr := start(t, attested.NewServer(accept(ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), party(policy{}))), map[string]attested.Handler{echoMethod: echo}, attested.Options{Message: 1 << 10}))
	c, err := attested.Open(t.Context(), dialer(ratls.NewMutualConnector(identity(t), party(policy{})), addr), echoMethod, attested.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.Send(make([]byte, 2<<10))
	var s *attested.Status
	if _, err := c.Recv(); !errors.As(err, &s) || s.Code != attested.ResourceExhausted {
		t.Errorf("got %v", err)
	}
}

// Handshakes that strangers draw out keep the others waiting no longer than Wait, and what is too much is closed at once.
func TestAdmission(t *testing.T) {
	entered := make(chan struct{}, 100)
	shake := func(ctx context.Context, raw net.Conn) (attested.Conn, error) {
		entered <- struct{}{}
		<-ctx.Done()
		_ = raw.Close()
		return nil, ctx.Err()
	}
	s := attested.NewServer(shake, nil, attested.Options{Handshakes: 2, Queue: 3, Wait: 50 * time.Millisecond, Handshake: time.Hour})
	addr := start(t, s)
	connect := func() net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	connect()
	connect()
	<-entered
	<-entered
	var waiting []net.Conn
	for range 3 {
		waiting = append(waiting, connect())
	}
	for _, c := range waiting {
		if _, err := c.Read(make([]byte, 1)); err == nil {
			t.Error("there was something to read")
		}
	}
	until(t, "shed", func() bool { return s.Stats().Shed >= 3 && s.Stats().Waiting == 0 })
	if len(entered) != 0 {
		t.Error("more handshakes at once than allowed")
	}
	s.Stop() // with two that are drawn out
	until(t, "closed", func() bool { return s.Stats().Open == 0 })
}

func TestQueueIsBounded(t *testing.T) {
	entered := make(chan struct{}, 100)
	shake := func(ctx context.Context, raw net.Conn) (attested.Conn, error) {
		entered <- struct{}{}
		<-ctx.Done()
		_ = raw.Close()
		return nil, ctx.Err()
	}
	s := attested.NewServer(shake, nil, attested.Options{Handshakes: 1, Queue: 1, Wait: time.Hour, Handshake: time.Hour})
	addr := start(t, s)
	for range 10 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	<-entered
	until(t, "shed", func() bool { return s.Stats().Shed >= 7 })
	if o := s.Stats().Open; o > 3 {
		t.Errorf("%d are open", o)
	}
}

// A peer that reads nothing is cut, and holds the handler no longer.
func TestStall(t *testing.T) {
	ended := make(chan error, 1)
	s := attested.NewServer(accept(ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), party(policy{}))), map[string]attested.Handler{echoMethod: func(s attested.Stream) error {
		for {
			if err := s.Send(make([]byte, 64<<10)); err != nil {
				ended <- err
				return err
			}
		}
	}}, attested.Options{Stall: 50 * time.Millisecond})
	addr := start(t, s)
	c, err := attested.Open(t.Context(), dialer(ratls.NewMutualConnector(identity(t), party(policy{})), addr), echoMethod, attested.ClientOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		t.Error("the handler is held")
	}
}

func TestLocal(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan *attested.Peer, 1)
	s := attested.NewServer(nil, map[string]attested.Handler{echoMethod: func(s attested.Stream) error { got <- s.Peer(); return nil }}, attested.Options{})
	var work sync.WaitGroup
	work.Go(func() {
		if err := s.ServeLocal(ln, "envoy"); err != nil {
			t.Error(err)
		}
	})
	defer work.Wait()
	defer s.Stop()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := dialPlain(t, conn).NewStream(t.Context(), &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, echoMethod); err != nil {
		t.Fatal(err)
	}
	if p := <-got; p.Local() != "envoy" || p.Affirmed() || p.Result() != nil {
		t.Errorf("the peer is %+v", p)
	}
	again, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := s.ServeLocal(again, ""); attest.CodeOf(err) != attest.CodeConfigMissing {
		t.Errorf("got %v", err)
	}
}

// Everybody connects at once, with a queue that holds a part of them, and tries again with jitter: all are served.
func TestStorm(t *testing.T) {
	s := attested.NewServer(accept(ratls.NewMutualAcceptor(identity(t, "127.0.0.1"), party(policy{}))), map[string]attested.Handler{echoMethod: echo}, attested.Options{Handshakes: 4, Queue: 20})
	addr := start(t, s)
	client := ratls.NewMutualConnector(identity(t), party(policy{}))
	var work sync.WaitGroup
	for n := range 100 {
		work.Go(func() {
			for wait := 10 * time.Millisecond; ; wait *= 2 {
				c, err := attested.Open(t.Context(), dialer(client, addr), echoMethod, attested.ClientOptions{})
				if err == nil {
					if err = c.Send([]byte("x")); err == nil {
						_, err = c.Recv()
					}
					_ = c.Close()
				}
				if err == nil {
					return
				}
				if wait > 10*time.Second {
					t.Error("not served:", err)
					return
				}
				timer := time.NewTimer(wait * time.Duration(50+n) / 100)
				<-timer.C
			}
		})
	}
	work.Wait()
	t.Logf("%+v", s.Stats())
}
