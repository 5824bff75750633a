package control_test

import (
	"context"
	"maps"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/client/grpcads"
	"github.com/jurat-tls/jurat/xds/control"
	"github.com/jurat-tls/jurat/xds/resource"
)

// sink accepts everything but what is called bad.
type sink struct {
	mu  sync.Mutex
	has map[string]map[string]string
}

func (s *sink) Offer(u *client.Update) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, r := range u.Changed {
		if value(r.Body) == "bad" {
			return &client.Rejection{Resources: map[string]string{r.Name: "it is bad"}}
		}
	}
	if s.has == nil {
		s.has = map[string]map[string]string{}
	}
	if s.has[u.Type] == nil {
		s.has[u.Type] = map[string]string{}
	}
	for _, r := range u.Changed {
		s.has[u.Type][r.Name] = value(r.Body)
	}
	for _, n := range u.Removed {
		delete(s.has[u.Type], n)
	}
	return nil
}

func (s *sink) Missing(string, []string) {}

func (s *sink) is(typ string, want map[string]string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return maps.Equal(s.has[typ], want)
}

// The client of this module against the control plane of this module, over attested connections, through a restart.
func TestOurClient(t *testing.T) {
	for _, kind := range []client.Kind{client.Delta, client.StateOfTheWorld} {
		t.Run(kind.String(), func(t *testing.T) {
			files := with(good, "g/a.yaml", "cds c1 a\neds c1 a\nlds l1 a")
			p := at(t, files, control.Options{})
			p.t = t
			s := &sink{}
			connector := ratls.NewMutualConnector(identity(t, amd("genoa")), party())
			var mu sync.Mutex
			addr := func() string { mu.Lock(); defer mu.Unlock(); return p.addr }
			tr, err := grpcads.New("control", func(ctx context.Context, _ string) (net.Conn, error) { return connector.Dial(ctx, addr()) }, grpcads.Config{})
			if err != nil {
				t.Fatal(err)
			}
			defer tr.Close()
			c, err := client.New(client.Config{Kind: kind, Node: client.Node{ID: "n"}, Random: rand.Float64, Backoff: client.Backoff{First: 10 * time.Millisecond, Most: 100 * time.Millisecond}}, tr, s)
			if err != nil {
				t.Fatal(err)
			}
			for typ, names := range map[string][]string{resource.Cluster: {"*"}, resource.Listener: {"*"}, resource.Endpoints: {"c1", "c2"}} {
				if err := c.Subscribe(typ, names, 0); err != nil {
					t.Fatal(err)
				}
			}
			ctx, cancel := context.WithCancel(t.Context())
			var work sync.WaitGroup
			work.Go(func() { _ = c.Run(ctx) })
			defer work.Wait()
			defer cancel()
			until(t, "first state", func() bool {
				return s.is(resource.Cluster, map[string]string{"c1": "a"}) && s.is(resource.Listener, map[string]string{"l1": "a"}) && s.is(resource.Endpoints, map[string]string{"c1": "a"})
			})
			until(t, "synced", func() bool { return standing(p) == 1 })
			p.mustApply(with(files, "g/a.yaml", "cds c1 bad\neds c1 b\nlds l1 a"))
			until(t, "rejected", func() bool {
				st := p.Status().Proxies
				return len(st) == 1 && st[0].Standing == control.Rejected && st[0].Types[resource.Endpoints].Standing == control.Synced
			})
			p.mustApply(with(files, "g/a.yaml", "cds c2 b\neds c2 b\nlds l1 b"))
			until(t, "changed", func() bool {
				return s.is(resource.Cluster, map[string]string{"c2": "b"}) && s.is(resource.Listener, map[string]string{"l1": "b"})
			})
			until(t, "synced", func() bool { return standing(p) == 1 })
			p.stop()
			p.write(with(files, "g/a.yaml", "cds c2 c\neds c2 c"))
			mu.Lock()
			p.start(control.Options{})
			mu.Unlock()
			until(t, "after the restart", func() bool {
				return s.is(resource.Cluster, map[string]string{"c2": "c"}) && s.is(resource.Listener, map[string]string{})
			})
			until(t, "synced", func() bool { return standing(p) == 1 })
			// The policy refuses it: it keeps what it has, and comes back to nothing.
			p.mustApply(with(files, "g/a.yaml", "cds c2 d", "policies/proxies.yaml", "policy: proxies\nplatforms:\n  allow: [intel tdx]\nworkload:\n  measurement: any\n  debug: off\nfreshness: {evidence: 1h}\n"))
			until(t, "refused", func() bool { return len(p.Status().Refused) > 2 })
			if !s.is(resource.Cluster, map[string]string{"c2": "c"}) {
				t.Error("it got something")
			}
			if r := p.Status().Refused[0]; r.ID != "n" && r.ID != "" || r.Reason == "" {
				t.Errorf("%+v", r)
			}
		})
	}
}
