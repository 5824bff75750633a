package grpcads_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	cluster "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpoint "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	"github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	stock "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/config"
	sotwserver "github.com/envoyproxy/go-control-plane/pkg/server/sotw/v3"
	"github.com/envoyproxy/go-control-plane/pkg/server/v3"
	testresource "github.com/envoyproxy/go-control-plane/pkg/test/resource/v3"
	testv3 "github.com/envoyproxy/go-control-plane/pkg/test/v3"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/client/protocol"
	"github.com/jurat-tls/jurat/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 2 * time.Minute // nothing takes that long on a machine that is not busy

// until waits for a condition.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			t.Fatalf("no %s", what)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// listen serves on loopback until the test ends, or stop is called.
func listen(t *testing.T, register func(*grpc.Server)) (address string, stop func()) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer(grpc.MaxRecvMsgSize(64 << 20))
	register(s)
	var done sync.WaitGroup
	done.Go(func() { _ = s.Serve(l) })
	stop = func() { s.Stop(); done.Wait() }
	t.Cleanup(stop)
	return l.Addr().String(), stop
}

// wire is the network: connections that can be cut.
type wire struct {
	mu    sync.Mutex
	conns []net.Conn
	dials atomic.Int64
}

func (w *wire) dial(ctx context.Context, address string) (net.Conn, error) {
	w.dials.Add(1)
	c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err == nil {
		w.mu.Lock()
		w.conns = append(w.conns, c)
		w.mu.Unlock()
	}
	return c, err
}

func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.conns {
		_ = c.Close()
	}
	w.conns = nil
}

// follower is a Sink that subscribes to what is referred to, as go-control-plane finds it.
type follower struct {
	t       *testing.T
	client  *client.Client
	mu      sync.Mutex
	held    map[string]map[string][]byte
	refuse  func(*client.Update) error
	missing []string
	offers  int
}

func (f *follower) Offer(u *client.Update) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.offers++
	if f.refuse != nil {
		if err := f.refuse(u); err != nil {
			return err
		}
	}
	if f.held[u.Type] == nil {
		f.held[u.Type] = map[string][]byte{}
	}
	for _, r := range u.Changed {
		f.held[u.Type][r.Name] = r.Body
	}
	for _, n := range u.Removed {
		delete(f.held[u.Type], n)
	}
	if u.Type != resource.Cluster && u.Type != resource.Listener {
		return nil
	}
	all := map[string]types.ResourceWithTTL{}
	for n, b := range f.held[u.Type] {
		m, err := (&anypb.Any{TypeUrl: u.Type, Value: b}).UnmarshalNew()
		if err != nil {
			return err
		}
		all[n] = types.ResourceWithTTL{Resource: m}
	}
	refs := cache.GetResourceReferences(all)
	next := map[string]string{resource.Cluster: resource.Endpoints, resource.Listener: resource.Route}[u.Type]
	names := slices.Collect(maps.Keys(refs[next]))
	for n := range f.held[next] {
		if !slices.Contains(names, n) {
			delete(f.held[next], n)
		}
	}
	return f.client.Subscribe(next, names, 0)
}

func (f *follower) Missing(typ string, names []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.missing = append(f.missing, names...)
}

// has reports whether the follower has what the snapshot has.
func (f *follower) has(snapshot cache.ResourceSnapshot) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, typ := range []string{resource.Cluster, resource.Endpoints, resource.Listener, resource.Route, resource.Secret} {
		want := snapshot.GetResources(typ)
		if len(f.held[typ]) != len(want) {
			return false
		}
		for n, m := range want {
			raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
			if err != nil || !bytes.Equal(raw, f.held[typ][n]) {
				return false
			}
		}
	}
	return true
}

// follow runs a client until the test ends or stop is called.
func follow(t *testing.T, address string, w *wire, kind client.Kind, change func(*client.Config, *grpcads.Config)) (f *follower, stop func()) {
	t.Helper()
	c := client.Config{
		Kind: kind, Random: rand.Float64, Node: client.Node{ID: "test-id", Cluster: "test"},
		Backoff: client.Backoff{First: 10 * time.Millisecond, Most: 100 * time.Millisecond},
	}
	g := grpcads.Config{}
	if change != nil {
		change(&c, &g)
	}
	transport, err := grpcads.New(address, w.dial, g)
	if err != nil {
		t.Fatal(err)
	}
	f = &follower{t: t, held: map[string]map[string][]byte{}}
	f.client, err = client.New(c, transport, f)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var done sync.WaitGroup
	stop = sync.OnceFunc(func() {
		cancel()
		done.Wait()
		_ = transport.Close()
	})
	t.Cleanup(stop)
	if g.Only == "" {
		for _, typ := range []string{resource.Cluster, resource.Listener} {
			if err := f.client.Subscribe(typ, []string{"*"}, 0); err != nil {
				t.Fatal(err)
			}
		}
	}
	done.Go(func() {
		if err := f.client.Run(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
	return f, stop
}

// go-control-plane's own driver, but for the Envoy: its snapshots, one after the other, over its server, in each of its modes. Then with
// connections that are cut, and servers that are restarted.
func TestStockServer(t *testing.T) {
	for _, mode := range []struct {
		name    string
		kind    client.Kind
		ads     bool
		xds     string
		options []config.XDSOption
	}{
		{"xds", client.StateOfTheWorld, false, testresource.Xds, nil},
		{"ads", client.StateOfTheWorld, true, testresource.Ads, nil},
		{"ads, ordered", client.StateOfTheWorld, true, testresource.Ads, []config.XDSOption{sotwserver.WithOrderedADS()}},
		{"xds, delta", client.Delta, false, testresource.Delta, nil},
		{"ads, delta", client.Delta, true, testresource.Delta, nil},
	} {
		t.Run(mode.name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			snapshots := cache.NewSnapshotCache(mode.ads, cache.IDHash{}, nil)
			callbacks := &testv3.Callbacks{}
			var stop func()
			serve := func() (address string) {
				address, stop = listen(t, func(s *grpc.Server) {
					testv3.RegisterServer(s, server.NewServer(ctx, snapshots, callbacks, mode.options...))
				})
				return address
			}
			generator := testresource.TestSnapshot{
				Xds: mode.xds, UpstreamPort: 18080, BasePort: 9000, NumClusters: 7, NumHTTPListeners: 5, NumTCPListeners: 3, TLS: true,
			}
			var w wire
			address := serve()
			f, end := follow(t, address, &w, mode.kind, nil)
			var snapshot *cache.Snapshot
			subscribed := false
			for i := range 40 {
				generator.Version = fmt.Sprintf("v%d", i)
				generator.NumClusters = 3 + i%6 // some go, some come
				generator.NumHTTPListeners = 1 + i%4
				snapshot = generator.Generate()
				if !subscribed {
					subscribed = true
					secrets := slices.Collect(maps.Keys(snapshot.GetResources(stock.SecretType)))
					if err := f.client.Subscribe(resource.Secret, secrets, 0); err != nil {
						t.Fatal(err)
					}
				}
				if err := snapshots.SetSnapshot(ctx, "test-id", snapshot); err != nil {
					t.Fatal(err)
				}
				if i%4 == 1 {
					w.cut()
				}
				if i%2 == 0 { // or the next one comes while this one is under way
					until(t, "version "+generator.Version, func() bool { return f.has(snapshot) })
				}
			}
			until(t, "last version", func() bool { return f.has(snapshot) })
			st := f.client.Status()
			for _, s := range st.Types {
				if s.Refused > 0 || s.Waiting > 0 || s.Accepted == 0 {
					t.Errorf("%+v", s)
				}
			}
			// While there is no server everything stays, and the next one finds it.
			stop()
			until(t, "end of the stream", func() bool { return !f.client.Status().Open })
			if !f.has(snapshot) {
				t.Error("something went with the server")
			}
			end()
		})
	}
}

// A refusal is answered with the same response at once by some servers. It does not become a loop.
func TestStockServerRefused(t *testing.T) {
	for _, kind := range []client.Kind{client.StateOfTheWorld, client.Delta} {
		t.Run(kind.String(), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			snapshots := cache.NewSnapshotCache(true, cache.IDHash{}, nil)
			generator := testresource.TestSnapshot{Xds: testresource.Ads, Version: "1", NumClusters: 2, NumHTTPListeners: 1, BasePort: 9000}
			good := generator.Generate()
			var refusals atomic.Int64
			var message atomic.Pointer[string]
			refused := func(s string) { message.Store(&s); refusals.Add(1) }
			callbacks := server.CallbackFuncs{
				StreamRequestFunc: func(_ int64, r *discovery.DiscoveryRequest) error {
					if r.ErrorDetail != nil {
						refused(r.ErrorDetail.Message)
						if r.VersionInfo != "1" || r.TypeUrl != resource.Cluster {
							t.Errorf("refused as version %q of %s", r.VersionInfo, r.TypeUrl)
						}
					}
					return nil
				},
				StreamDeltaRequestFunc: func(_ int64, r *discovery.DeltaDiscoveryRequest) error {
					if r.ErrorDetail != nil {
						refused(r.ErrorDetail.Message)
					}
					return nil
				},
			}
			address, _ := listen(t, func(s *grpc.Server) { testv3.RegisterServer(s, server.NewServer(ctx, snapshots, callbacks)) })
			var w wire
			f, _ := follow(t, address, &w, kind, nil)
			if err := snapshots.SetSnapshot(ctx, "test-id", good); err != nil {
				t.Fatal(err)
			}
			until(t, "first version", func() bool { return f.has(good) })
			f.mu.Lock()
			f.refuse = func(u *client.Update) error {
				if u.Type == resource.Cluster && len(u.Changed) > 0 {
					return &client.Rejection{Resources: map[string]string{u.Changed[0].Name: "not here"}}
				}
				return nil
			}
			f.mu.Unlock()
			generator.Version = "2"
			bad := generator.Generate()
			if err := snapshots.SetSnapshot(ctx, "test-id", bad); err != nil {
				t.Fatal(err)
			}
			until(t, "refusal", func() bool { return refusals.Load() > 0 })
			time.Sleep(2 * time.Second) // what would be a loop has time to be one
			if n := refusals.Load(); n > 10 {
				t.Errorf("%d refusals in two seconds", n)
			}
			if s := *message.Load(); !strings.Contains(s, `"cluster-2-0": not here`) {
				t.Errorf("refused with %q", s)
			}
			f.mu.Lock()
			kept := len(f.held[resource.Cluster]) == 2 && f.held[resource.Cluster]["cluster-1-0"] != nil
			f.refuse = nil
			f.mu.Unlock()
			if !kept {
				t.Error("what was accepted is gone")
			}
			generator.Version = "3"
			fixed := generator.Generate()
			if err := snapshots.SetSnapshot(ctx, "test-id", fixed); err != nil {
				t.Fatal(err)
			}
			until(t, "version that is in order", func() bool { return f.has(fixed) })
		})
	}
}

// Types of our own come out of a cache of their own beside Envoy's, and one change beside 10,000 endpoints is one small message in the delta protocol.
func TestStockLinearCache(t *testing.T) {
	for _, kind := range []client.Kind{client.StateOfTheWorld, client.Delta} {
		t.Run(kind.String(), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			policies := cache.NewLinearCache(resource.AttestationPolicy)
			many := 10_000
			all := map[string]types.Resource{}
			for i := range many {
				n := fmt.Sprintf("outbound|%d||service-%d.default.svc.cluster.local", i%65536, i)
				all[n] = &endpoint.ClusterLoadAssignment{ClusterName: n}
			}
			ends := cache.NewLinearCache(resource.Endpoints, cache.WithInitialResources(all))
			mux := &cache.MuxCache{
				Classify:      func(r *cache.Request) string { return r.TypeUrl },
				ClassifyDelta: func(r *cache.DeltaRequest) string { return r.TypeUrl },
				Caches: map[string]cache.Cache{
					resource.AttestationPolicy: policies, resource.Endpoints: ends,
					resource.Cluster:  cache.NewLinearCache(resource.Cluster),
					resource.Listener: cache.NewLinearCache(resource.Listener),
				},
			}
			policy := func(n, text string) types.Resource { // the message has its name in field 1, as ours have
				return &cluster.Cluster{Name: n, AltStatName: text}
			}
			if err := policies.UpdateResource("floor", policy("floor", "1")); err != nil {
				t.Fatal(err)
			}
			address, _ := listen(t, func(s *grpc.Server) { testv3.RegisterServer(s, server.NewServer(ctx, mux, nil)) })
			var w wire
			f, _ := follow(t, address, &w, kind, nil)
			if err := f.client.Subscribe(resource.AttestationPolicy, []string{"*"}, 0); err != nil {
				t.Fatal(err)
			}
			if err := f.client.Subscribe(resource.Endpoints, slices.Collect(maps.Keys(all)), 0); err != nil {
				t.Fatal(err)
			}
			f.mu.Lock() // the follower would take the names away
			f.refuse = func(u *client.Update) error { return nil }
			f.mu.Unlock()
			count := func(typ string) int {
				f.mu.Lock()
				defer f.mu.Unlock()
				return len(f.held[typ])
			}
			until(t, "policy", func() bool { return count(resource.AttestationPolicy) == 1 })
			// The follower gives up the endpoints of clusters that are not there; so they are wanted once more.
			until(t, "clusters", func() bool {
				s := f.client.Status()
				return slices.IndexFunc(s.Types, func(s protocol.TypeStatus) bool { return s.Type == resource.Cluster && s.Accepted > 0 }) >= 0
			})
			if err := f.client.Subscribe(resource.Endpoints, slices.Collect(maps.Keys(all)), 0); err != nil {
				t.Fatal(err)
			}
			until(t, "endpoints", func() bool { return count(resource.Endpoints) == many })
			began := time.Now()
			if err := policies.UpdateResource("urgent", policy("urgent", "deny")); err != nil {
				t.Fatal(err)
			}
			until(t, "urgent policy", func() bool { return count(resource.AttestationPolicy) == 2 })
			t.Logf("%d endpoints; a policy beside them takes %v", many, time.Since(began))
			if kind == client.Delta {
				if err := policies.DeleteResource("floor"); err != nil {
					t.Fatal(err)
				}
				until(t, "removal", func() bool { return count(resource.AttestationPolicy) == 1 })
			}
		})
	}
}

// Resources with a time to live stay as long as the server says so, and go with it.
func TestStockHeartbeat(t *testing.T) {
	for _, kind := range []client.Kind{client.StateOfTheWorld} { // the delta server sends none
		t.Run(kind.String(), func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			beat, faint := context.WithCancel(ctx)
			snapshots := cache.NewSnapshotCacheWithHeartbeating(beat, true, cache.IDHash{}, nil, 50*time.Millisecond)
			ttl := time.Second
			snapshot, err := cache.NewSnapshotWithTTLs("1", map[stock.Type][]types.ResourceWithTTL{
				stock.ClusterType: {
					{Resource: testresource.MakeCluster(testresource.Ads, "lasting")},
					{Resource: testresource.MakeCluster(testresource.Ads, "fleeting"), TTL: &ttl},
				},
				stock.EndpointType: {{Resource: testresource.MakeEndpoint("lasting", 1)}, {Resource: testresource.MakeEndpoint("fleeting", 1)}},
			})
			if err != nil {
				t.Fatal(err)
			}
			if err := snapshots.SetSnapshot(ctx, "test-id", snapshot); err != nil {
				t.Fatal(err)
			}
			address, _ := listen(t, func(s *grpc.Server) { testv3.RegisterServer(s, server.NewServer(ctx, snapshots, nil)) })
			var w wire
			f, _ := follow(t, address, &w, kind, nil)
			until(t, "snapshot", func() bool { return f.has(snapshot) })
			time.Sleep(2 * ttl)
			if !f.has(snapshot) {
				t.Fatal("it went though the server sent its heartbeats")
			}
			if st := f.client.Status(); st.Types[0].Refused > 0 || st.Types[0].Accepted < 10 {
				t.Errorf("%+v", st.Types[0])
			}
			faint()
			until(t, "end of it", func() bool {
				f.mu.Lock()
				defer f.mu.Unlock()
				return len(f.held[resource.Cluster]) == 1 && f.held[resource.Cluster]["lasting"] != nil
			})
		})
	}
}

// A server of secrets alone.
func TestStockSecrets(t *testing.T) {
	for _, kind := range []client.Kind{client.StateOfTheWorld, client.Delta} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		snapshots := cache.NewSnapshotCache(false, cache.IDHash{}, nil)
		generator := testresource.TestSnapshot{Xds: testresource.Xds, Version: "1", TLS: true}
		snapshot := generator.Generate()
		if err := snapshots.SetSnapshot(ctx, "test-id", snapshot); err != nil {
			t.Fatal(err)
		}
		address, _ := listen(t, func(s *grpc.Server) { testv3.RegisterServer(s, server.NewServer(ctx, snapshots, nil)) })
		var w wire
		f, _ := follow(t, address, &w, kind, func(_ *client.Config, g *grpcads.Config) { g.Only = resource.Secret })
		if err := f.client.Subscribe(resource.Secret, slices.Collect(maps.Keys(snapshot.GetResources(stock.SecretType))), 0); err != nil {
			t.Fatal(err)
		}
		until(t, "secrets", func() bool { return f.has(snapshot) })
	}
}
