package upstream

import (
	"context"
	"sync"
	"time"
)

// Run makes health checks with prober, which may be nil where none are configured, and sweeps outliers, until ctx ends.
func (c *Cluster) Run(ctx context.Context, prober Prober) {
	var all sync.WaitGroup
	defer all.Wait()
	if o := c.config.OutlierDetection; o != nil {
		all.Go(func() {
			for sleep(ctx, o.Interval, nil) {
				c.Sweep()
			}
		})
	}
	config := c.config.HealthCheck
	if config == nil {
		return
	}
	for {
		wait := c.check(func(e *Endpoint) {
			all.Go(func() {
				within, cancel := context.WithTimeout(ctx, config.Timeout)
				defer cancel()
				err := prober.Probe(within, e, config)
				if ctx.Err() == nil { // else the check was cut short by this side
					c.checked(e, err == nil)
				}
			})
		})
		if !sleep(ctx, wait, c.wake) {
			return
		}
	}
}

// sleep waits for the time or for wake, and reports whether ctx goes on.
func sleep(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wake:
	}
	return true
}
