package client

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jurat-tls/jurat/xds/resource"
)

// Counts are asked for every few seconds while there is a stream, and told when they have changed, to a control plane that counts.
func TestCountsAreTold(t *testing.T) {
	for who, want := range map[string][]string{
		"jurat":  {"0 s: 1", "10 s: 2", "20 s: 3"},
		"istiod": {"0 s: 1"},
		"":       {"0 s: 1"},
	} {
		t.Run(who, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var mu sync.Mutex
				var told []string
				asked, open := 0, uint64(1)
				began := time.Now()
				p := &control{play: func(_ int, s *end) error {
					for {
						r, err := s.read()
						if err != nil {
							return nil
						}
						if r.Node != nil {
							mu.Lock()
							told = append(told, fmt.Sprintf("%.0f s: %v", time.Since(began).Seconds(), r.Node.Metadata["jurat"].(map[string]any)["open"]))
							mu.Unlock()
						}
						if r.Nonce == "" {
							m := response(resource.Cluster, "1", "a")
							m.ControlPlane = who
							if s.write(m) != nil {
								return nil
							}
						}
					}
				}}
				c := make1(t, p, &sink{}, func(c *Config) {
					c.Kind, c.CountsEvery = Delta, 10*time.Second
					c.Counts = func() Counts {
						mu.Lock()
						defer mu.Unlock()
						asked++
						return Counts{Open: open}
					}
				})
				if err := c.Subscribe(resource.Cluster, []string{"*"}, 0); err != nil {
					t.Fatal(err)
				}
				stop := run(t, c)
				for range 2 { // what changes twice in between is told once
					for range 5 {
						time.Sleep(time.Second)
						mu.Lock()
						open = uint64(time.Since(began).Seconds())/10 + 2
						mu.Unlock()
					}
					time.Sleep(6 * time.Second)
				}
				time.Sleep(40 * time.Second)
				synctest.Wait()
				mu.Lock()
				if !slices.Equal(told, want) || asked < 5 || asked > 10 {
					t.Errorf("told %q, asked %d times", told, asked)
				}
				mu.Unlock()
				stop()
			})
		})
	}
}
