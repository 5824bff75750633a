package upstream_test

import (
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Many pick and report while endpoints come, go, fail and are swept. Afterwards nothing is counted that goes on.
func TestConcurrent(t *testing.T) {
	for _, policy := range policies {
		c, err := upstream.New(upstream.Config{
			Policy: policy, TableSize: tableOf(policy), CircuitBreakers: upstream.CircuitBreakers{MaxRequests: 3},
			OutlierDetection: &upstream.OutlierDetection{BaseEjectionTime: time.Nanosecond, MaxEjectionPercent: 50},
		}, time.Now, rand.New(rand.NewPCG(1, 2)).Uint64)
		if err != nil {
			t.Fatal(err)
		}
		update(t, c, equal(5))
		var all sync.WaitGroup
		for loop := range uint64(4) {
			all.Go(func() {
				random := rand.New(rand.NewPCG(loop, 0))
				for range 2000 {
					e, err := c.Pick(upstream.Info{Random: random.Uint64()})
					if err != nil {
						t.Error(err)
						return
					}
					if e.Begin() == nil {
						e.Done(upstream.Outcome(random.IntN(7)), 1)
					}
				}
			})
		}
		all.Go(func() {
			for i := range 200 {
				_, _ = c.Update([]upstream.LocalityEndpoints{equal(3 + i%5)})
				c.Sweep()
				c.Stats()
			}
		})
		all.Wait()
		if s := c.Stats(); s.Requests != 0 {
			t.Errorf("%s: %+v", policy, s)
		}
	}
}
