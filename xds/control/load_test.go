package control_test

import (
	"context"
	"fmt"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"

	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

// TestLoad measures pushes to many clients, which are in this process, too: JURAT_LOAD=1000,5000 go test -run TestLoad -v
func TestLoad(t *testing.T) {
	counts := os.Getenv("JURAT_LOAD")
	if counts == "" {
		return
	}
	for text := range strings.SplitSeq(counts, ",") {
		n, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		for _, kind := range []string{"plain", "attested"} {
			t.Run(fmt.Sprintf("%s-%d", kind, n), func(t *testing.T) { load(t, n, kind == "attested") })
		}
	}
}

func load(t *testing.T, n int, attested bool) {
	// A policy of 4 KiB, and what a small sidecar gets.
	long := func(policy string) string { return policy + "# " + strings.Repeat("x", 4<<10) + "\n" }
	var text strings.Builder
	for i := range 20 {
		fmt.Fprintf(&text, "cds c%d %s\neds c%d %s\nlds l%d %s\n", i, strings.Repeat("x", 500), i, strings.Repeat("x", 200), i, strings.Repeat("x", 1000))
	}
	groups := "groups:\n- {name: g, require: proxies, any: true, nodes: ['*']}\n"
	if !attested {
		groups = "groups:\n- {name: g, local: test}\n"
	}
	files := map[string]string{"groups.yaml": groups, "policies/proxies.yaml": long(proxiesPolicy), "g/a.yaml": text.String()}
	p := at(t, files, control.Options{Poll: time.Hour, Rejudge: time.Hour})
	dial := func(ctx context.Context) (net.Conn, error) { return new(net.Dialer).DialContext(ctx, "unix", p.local) }
	if attested {
		c := ratls.NewMutualConnector(identity(t, amd("genoa")), party())
		dial = func(ctx context.Context) (net.Conn, error) { return c.Dial(ctx, p.addr) }
	}
	var synced, refused atomic.Int64
	arrived := make([]atomic.Int64, n) // when the policy of the last change came
	var epoch atomic.Uint64
	round := make(chan struct{}, n)
	ctx, cancel := context.WithCancel(t.Context())
	var work sync.WaitGroup
	t.Cleanup(func() { cancel(); work.Wait() })
	started := time.Now()
	connect := func(i int) {
		for wait := 50 * time.Millisecond; ctx.Err() == nil; wait = min(2*wait, 5*time.Second) {
			cc := over(t, dial)
			s, err := discovery.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(ctx)
			if err == nil {
				_ = subscriber(s, i, &synced, func(v uint64) {
					if v >= epoch.Load() && epoch.Load() > 0 {
						arrived[i].Store(time.Now().UnixNano())
						round <- struct{}{}
					}
				})
			}
			_ = cc.Close()
			refused.Add(1)
			timer := time.NewTimer(wait/2 + time.Duration(i)*wait/2/time.Duration(n))
			select {
			case <-timer.C:
			case <-ctx.Done():
			}
		}
	}
	for i := range n { // all at once
		work.Go(func() { connect(i) })
	}
	for synced.Load() < int64(n) {
		if time.Since(started) > 3*time.Minute {
			t.Fatalf("%d of %d", synced.Load(), n)
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Logf("all %d connected at once and synced in %v, %d tries failed, %+v", n, time.Since(started).Round(10*time.Millisecond), refused.Load(), p.server.Stats())
	until(t, "synced", func() bool { return standing(p) == n })
	debug.FreeOSMemory()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	t.Logf("memory of both sides: heap %d MiB, stacks %d MiB, resident %s", m.HeapInuse>>20, m.StackInuse>>20, resident())
	var p50, p99, last []time.Duration
	for k := range 7 {
		next := with(files, "policies/proxies.yaml", long(denyMilan)+fmt.Sprintf("# %d\n", k))
		p.write(next)
		read, err := control.ReadDirectory(p.dir)
		if err != nil {
			t.Fatal(err)
		}
		epoch.Store(p.Status().Serial + 1)
		begin := time.Now()
		if err := p.Apply(read, "load"); err != nil {
			t.Fatal(err)
		}
		took := time.Since(begin)
		for range n {
			select {
			case <-round:
			case <-time.After(time.Minute):
				t.Fatal("not all were told")
			}
		}
		all := make([]time.Duration, n)
		for i := range all {
			all[i] = time.Duration(arrived[i].Load() - begin.UnixNano())
		}
		slices.Sort(all)
		t.Logf("change %d: taken in %v, received p50 %v, p99 %v, last %v", k, took.Round(time.Millisecond), all[n/2].Round(time.Millisecond), all[n*99/100].Round(time.Millisecond), all[n-1].Round(time.Millisecond))
		p50, p99, last = append(p50, all[n/2]), append(p99, all[n*99/100]), append(last, all[n-1])
		until(t, "synced", func() bool { return standing(p) == n })
	}
	median := func(d []time.Duration) time.Duration { slices.Sort(d); return d[len(d)/2].Round(time.Millisecond) }
	t.Logf("medians of %d changes: p50 %v, p99 %v, last %v; resident %s", len(p99), median(p50), median(p99), median(last), resident())
}

func standing(p *plane) (synced int) {
	for _, one := range p.Status().Proxies {
		if one.Standing == control.Synced {
			synced++
		}
	}
	return synced
}

// subscriber asks as a proxy does, acknowledges everything, and tells of policies.
func subscriber(s grpc.BidiStreamingClient[discovery.DeltaDiscoveryRequest, discovery.DeltaDiscoveryResponse], i int, synced *atomic.Int64, policy func(uint64)) error {
	for _, typ := range []string{resource.AttestationPolicy, resource.Cluster, resource.Endpoints, resource.Listener} {
		if err := s.Send(&discovery.DeltaDiscoveryRequest{Node: &core.Node{Id: fmt.Sprint("proxy-", i)}, TypeUrl: typ, ResourceNamesSubscribe: []string{"*"}}); err != nil {
			return err
		}
	}
	for first := 4; ; first-- {
		m, err := s.Recv()
		if err != nil {
			return err
		}
		if m.TypeUrl == resource.AttestationPolicy {
			v, _ := strconv.ParseUint(m.Resources[0].Version, 10, 64)
			policy(v)
		}
		if err := s.Send(&discovery.DeltaDiscoveryRequest{TypeUrl: m.TypeUrl, ResponseNonce: m.Nonce}); err != nil {
			return err
		}
		if first == 1 {
			synced.Add(1)
		}
	}
}

func resident() string {
	raw, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return "unknown"
}
