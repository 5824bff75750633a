package grpcads_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/mem"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/resource"
)

// raw is a codec of bytes: a server with it can send anything.
type raw struct{}

func (raw) Name() string { return "proto" }

func (raw) Marshal(v any) (mem.BufferSlice, error) {
	return mem.BufferSlice{mem.SliceBuffer(*v.(*[]byte))}, nil
}

func (raw) Unmarshal(data mem.BufferSlice, v any) error {
	*v.(*[]byte) = data.Materialize()
	return nil
}

// hostile is a server that does with every stream what play does.
func hostile(t *testing.T, play func(n int64, s grpc.ServerStream) error) (address string, streams *atomic.Int64) {
	streams = new(atomic.Int64)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.ForceServerCodecV2(raw{}), grpc.MaxSendMsgSize(1<<30), grpc.UnknownServiceHandler(func(_ any, s grpc.ServerStream) error {
		return play(streams.Add(1), s)
	}))
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String(), streams
}

func send(s grpc.ServerStream, b []byte) error { return s.SendMsg(&b) }

func recv(t *testing.T, s grpc.ServerStream) (*discovery.DeltaDiscoveryRequest, error) {
	var b []byte
	if err := s.RecvMsg(&b); err != nil {
		return nil, err
	}
	r := &discovery.DeltaDiscoveryRequest{}
	if err := proto.Unmarshal(b, r); err != nil {
		t.Error(err)
	}
	return r, nil
}

func marshal(t *testing.T, m proto.Message) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func clusters(t *testing.T, nonce string, names ...string) *discovery.DeltaDiscoveryResponse {
	r := &discovery.DeltaDiscoveryResponse{TypeUrl: resource.Cluster, Nonce: nonce}
	for _, n := range names {
		r.Resources = append(r.Resources, &discovery.Resource{
			Name: n, Version: "1", Resource: &anypb.Any{TypeUrl: resource.Cluster, Value: marshal(t, &cluster.Cluster{Name: n})},
		})
	}
	return r
}

// A control plane that was good once and turns hostile changes nothing, in whatever way it is hostile, and is tried again at intervals.
func TestHostileServer(t *testing.T) {
	empty := protowire.AppendBytes(protowire.AppendTag(nil, 2, protowire.BytesType), nil)
	head := marshal(t, &discovery.DeltaDiscoveryResponse{TypeUrl: resource.Cluster, Nonce: "x"})
	for name, c := range map[string]struct {
		play  func(s grpc.ServerStream) error
		nacks bool   // the stream goes on, and the server is told
		says  string // why
	}{
		"hangs up":          {func(grpc.ServerStream) error { return io.EOF }, false, "EOF"},
		"refuses":           {func(grpc.ServerStream) error { return status.Error(codes.ResourceExhausted, "too\nmany") }, false, `ResourceExhausted: "too\nmany"`},
		"sends garbage":     {func(s grpc.ServerStream) error { return send(s, []byte{0xff, 0xff, 0xff}) }, false, "cannot be read"},
		"sends nothing":     {func(s grpc.ServerStream) error { return send(s, nil) }, false, "J951"},
		"sends no nonce":    {func(s grpc.ServerStream) error { return send(s, marshal(t, clusters(t, "", "b"))) }, false, "nonce"},
		"sends too much":    {func(s grpc.ServerStream) error { return send(s, make([]byte, 3<<20)) }, false, "larger than max"},
		"sends long errors": {func(grpc.ServerStream) error { return status.Error(codes.Internal, strings.Repeat("x", 5000)) }, false, "xxx..."},
		"sends half a million empty resources": {
			func(s grpc.ServerStream) error {
				return send(s, append(head, strings.Repeat(string(empty), 500_000)...))
			}, true, "500000 resources",
		},
		"sends a broken resource": {
			func(s grpc.ServerStream) error { return send(s, append(head, 0x12, 0x01, 0xff)) }, true, "cannot be read",
		},
		"sends one resource twice": {
			func(s grpc.ServerStream) error { return send(s, marshal(t, clusters(t, "x", "b", "b"))) }, true, `"b" twice`,
		},
		"sends another type": {func(s grpc.ServerStream) error {
			r := clusters(t, "x", "b")
			r.Resources[0].Resource.TypeUrl = resource.Listener
			return send(s, marshal(t, r))
		}, true, "listener.v3.Listener"},
	} {
		t.Run(name, func(t *testing.T) {
			refused := make(chan string, 100)
			address, streams := hostile(t, func(n int64, s grpc.ServerStream) error {
				if _, err := recv(t, s); err != nil {
					return err
				}
				if n == 1 {
					if err := send(s, marshal(t, clusters(t, "1", "a"))); err != nil {
						return err
					}
					if _, err := recv(t, s); err != nil {
						return err
					}
					return errors.New("now for the other side of me")
				}
				if err := c.play(s); err != nil {
					return err
				}
				for {
					r, err := recv(t, s)
					if err != nil {
						return err
					}
					if r.ErrorDetail != nil {
						refused <- r.ErrorDetail.Message
					}
				}
			})
			var w wire
			f, stop := follow(t, address, &w, client.Delta, func(_ *client.Config, g *grpcads.Config) { g.MaxMessage = 2 << 20 })
			if c.nacks {
				select {
				case m := <-refused:
					if !strings.Contains(m, c.says) || !strings.Contains(m, "J95") {
						t.Errorf("refused with %q", m)
					}
				case <-time.After(patience):
					t.Fatal("not refused")
				}
			} else {
				until(t, "third stream", func() bool { return streams.Load() >= 4 })
				if e := f.client.Status().LastError; !strings.Contains(e, c.says) || strings.Contains(e, "\n") || len(e) > 1000 {
					t.Errorf("%q does not say %q", e, c.says)
				}
			}
			stop()
			f.mu.Lock()
			defer f.mu.Unlock()
			if len(f.held[resource.Cluster]) != 1 || f.held[resource.Cluster]["a"] == nil || f.offers != 1 {
				t.Errorf("%v after %d offers", f.held, f.offers)
			}
		})
	}
}

// A server that floods costs a bounded amount of memory: what is not taken is not read.
func TestFlood(t *testing.T) {
	sent := new(atomic.Int64)
	address, _ := hostile(t, func(n int64, s grpc.ServerStream) error {
		if _, err := recv(t, s); err != nil {
			return err
		}
		names := make([]string, 1000)
		for i := range names {
			names[i] = strings.Repeat("x", 1000) + fmt.Sprint(i)
		}
		r := clusters(t, "1", names...)
		for i := 0; ; i++ {
			r.Nonce = fmt.Sprint(i)
			if err := send(s, marshal(t, r)); err != nil {
				return err
			}
			sent.Add(1)
		}
	})
	var w wire
	f, stop := follow(t, address, &w, client.Delta, func(c *client.Config, _ *grpcads.Config) { c.Rate, c.Burst = 20, 5 })
	until(t, "response", func() bool { return len(f.client.Resources(resource.Cluster)) == 1000 })
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	time.Sleep(time.Second)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if n := sent.Load(); n > 80 {
		t.Errorf("%d responses of 2 MB were read in a second", n)
	}
	if grown := int64(after.HeapAlloc) - int64(before.HeapAlloc); grown > 64<<20 {
		t.Errorf("%d bytes more after a second", grown)
	}
	stop()
}

// One hundred thousand resources in one response.
func TestManyResources(t *testing.T) {
	names := make([]string, 100_000)
	for i := range names {
		names[i] = fmt.Sprintf("outbound|%d||service-%d.default.svc.cluster.local", i%65536, i)
	}
	response := clusters(t, "1", names...)
	response.TypeUrl = resource.Secret // which the follower does not look into
	for _, r := range response.Resources {
		r.Resource.TypeUrl = resource.Secret
	}
	message := marshal(t, response)
	acked := make(chan *discovery.DeltaDiscoveryRequest, 1)
	address, _ := hostile(t, func(n int64, s grpc.ServerStream) error {
		for {
			r, err := recv(t, s)
			switch {
			case err != nil:
				return err
			case r.TypeUrl == resource.Secret && r.ResponseNonce == "":
				if err := send(s, message); err != nil {
					return err
				}
			case r.TypeUrl == resource.Secret:
				acked <- r
			}
		}
	})
	var w wire
	f, _ := follow(t, address, &w, client.Delta, nil)
	if err := f.client.Subscribe(resource.Secret, []string{resource.Wildcard}, 0); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	select {
	case r := <-acked:
		if r.ErrorDetail != nil {
			t.Error(r.ErrorDetail)
		}
	case <-time.After(patience):
		t.Fatal("no answer")
	}
	t.Logf("%d MB in %v", len(message)>>20, time.Since(began))
	if n := len(f.client.Resources(resource.Secret)); n != 100_000 {
		t.Errorf("%d", n)
	}
}

func TestDial(t *testing.T) {
	if _, err := grpcads.New("", (&wire{}).dial, grpcads.Config{}); err == nil {
		t.Error("no address")
	}
	if _, err := grpcads.New("a:1", nil, grpcads.Config{}); err == nil {
		t.Error("no dialer")
	}
	if _, err := grpcads.New("a:1", (&wire{}).dial, grpcads.Config{Only: resource.AttestationPolicy}); err == nil {
		t.Error("a service that is not there")
	}

	t.Run("why there is no connection", func(t *testing.T) {
		why := &attest.Error{Code: attest.CodeMeasurement, Got: "another one"}
		tr, err := grpcads.New("control.example:1", func(context.Context, string) (net.Conn, error) { return nil, why }, grpcads.Config{})
		if err != nil {
			t.Fatal(err)
		}
		defer tr.Close()
		for range 2 {
			_, err = tr.Open(t.Context(), client.Delta)
			var e *attest.Error
			if !errors.As(err, &e) || e.Code != attest.CodeUnreachable || e.Subject != "control.example:1" || !errors.Is(err, error(why)) {
				t.Errorf("%v", err)
			}
		}
		if _, err := tr.Open(t.Context(), 0); err == nil {
			t.Error("a stream of no kind")
		}
	})
	t.Run("in time", func(t *testing.T) {
		ended := make(chan struct{})
		tr, err := grpcads.New("control.example:1", func(ctx context.Context, _ string) (net.Conn, error) {
			<-ctx.Done()
			close(ended)
			return nil, ctx.Err()
		}, grpcads.Config{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
		defer cancel()
		if _, err := tr.Open(ctx, client.Delta); err == nil {
			t.Error("open")
		}
		<-ended
		if err := tr.Close(); err != nil {
			t.Error(err)
		}
		if _, err := tr.Open(t.Context(), client.Delta); !errors.Is(err, net.ErrClosed) {
			t.Error(err)
		}
	})
	t.Run("one connection for many streams", func(t *testing.T) {
		address, streams := hostile(t, func(n int64, s grpc.ServerStream) error { return status.Error(codes.ResourceExhausted, "") })
		var w wire
		_, stop := follow(t, address, &w, client.Delta, nil)
		until(t, "fifth stream", func() bool { return streams.Load() >= 5 })
		if n := w.dials.Load(); n != 1 {
			t.Errorf("%d connections", n)
		}
		w.cut()
		n := streams.Load()
		until(t, "sixth", func() bool { return streams.Load() > n+1 })
		stop()
		if n := w.dials.Load(); n != 2 {
			t.Errorf("%d connections", n)
		}
	})
	t.Run("what is sent with a stream", func(t *testing.T) {
		got := make(chan metadata.MD, 1)
		address, _ := hostile(t, func(_ int64, s grpc.ServerStream) error {
			md, _ := metadata.FromIncomingContext(s.Context())
			method, _ := grpc.Method(s.Context())
			md.Set("method", method)
			select {
			case got <- md:
			default:
			}
			return io.EOF
		})
		var w wire
		for only, method := range map[string]string{
			"": "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources", resource.Secret: "/envoy.service.secret.v3.SecretDiscoveryService/DeltaSecrets",
		} {
			n := 0
			_, stop := follow(t, address, &w, client.Delta, func(_ *client.Config, g *grpcads.Config) {
				g.Only = only
				g.Header = func(context.Context) (map[string]string, error) {
					if n++; n == 1 {
						return nil, errors.New("no token yet")
					}
					return map[string]string{"authorization": fmt.Sprint("Bearer ", n)}, nil
				}
			})
			md := <-got
			stop()
			if md.Get("authorization")[0] != "Bearer 2" || md.Get(":authority")[0] != address || md.Get("method")[0] != method {
				t.Error(md)
			}
			for len(got) > 0 {
				<-got
			}
		}
	})
}
