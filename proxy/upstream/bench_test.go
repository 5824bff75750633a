package upstream_test

import (
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/upstream"
)

func benchCluster(b testing.TB, policy string, n int) *upstream.Cluster {
	c, _ := newCluster(b, upstream.Config{Policy: policy, OutlierDetection: &upstream.OutlierDetection{}})
	l := equal(n)
	for i := range l.Endpoints {
		l.Endpoints[i].Weight = uint32(1 + i%3)
	}
	update(b, c, l)
	return c
}

func BenchmarkPick(b *testing.B) {
	for _, policy := range policies {
		c := benchCluster(b, policy, 100)
		b.Run(policy, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for n := uint64(1); pb.Next(); n += 0x9e3779b97f4a7c15 {
					if _, err := c.Pick(upstream.Info{Random: n, Hash: n, HasHash: true}); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
}

func BenchmarkBeginDone(b *testing.B) {
	c := benchCluster(b, "least_request", 100)
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for n := uint64(1); pb.Next(); n += 0x9e3779b97f4a7c15 {
			e, _ := c.Pick(upstream.Info{Random: n})
			if e.Begin() == nil {
				e.Done(upstream.Success, time.Millisecond)
			}
		}
	})
}

func BenchmarkUpdate(b *testing.B) {
	for _, policy := range policies {
		c := benchCluster(b, policy, 100)
		all := []upstream.LocalityEndpoints{equal(100)}
		b.Run(policy, func(b *testing.B) {
			for b.Loop() {
				_, _ = c.Update(all)
			}
		})
	}
}

func TestPickAllocatesNothing(t *testing.T) {
	for _, policy := range policies {
		c := benchCluster(t, policy, 100)
		tried := c.Endpoints()[:3]
		if n := testing.AllocsPerRun(100, func() {
			e, err := c.Pick(upstream.Info{Random: 1, Tried: tried, Attempts: 3})
			if err != nil || e.Begin() != nil {
				t.Fatal(err)
			}
			e.Done(upstream.Success, 1)
		}); n != 0 {
			t.Errorf("%s: %v allocations", policy, n)
		}
	}
}
