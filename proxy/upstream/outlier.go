package upstream

import (
	"math"
	"sync/atomic"
	"time"
)

// OutlierDetection takes endpoints out for a while that answer badly. Negative turns off what it bounds.
type OutlierDetection struct {
	Consecutive5xx            int `yaml:"consecutive_5xx,negative=off"`             // so many in a row are too many, default 5
	ConsecutiveGatewayFailure int `yaml:"consecutive_gateway_failure,negative=off"` // the same of 502, 503, 504 and no answer, default off
	// Failures without an answer are counted by themselves. Else they count as 503 does.
	SplitExternalLocalOriginErrors bool `yaml:"split_external_local_origin_errors"`
	ConsecutiveLocalOriginFailure  int  `yaml:"consecutive_local_origin_failure,negative=off"` // the same of those, where they are split, default 5

	Interval           time.Duration `yaml:"interval"`                          // between sweeps, default 10 s
	BaseEjectionTime   time.Duration `yaml:"base_ejection_time"`                // times the number of ejections in a row, default 30 s
	MaxEjectionTime    time.Duration `yaml:"max_ejection_time"`                 // the most that this comes to, default 300 s, but at least the base
	MaxEjectionPercent int           `yaml:"max_ejection_percent,negative=off"` // of the endpoints, yet one of several may go, default 10

	SuccessRateMinimumHosts  int `yaml:"success_rate_minimum_hosts,negative=off"` // that have the volume, or rates are not compared, default 5
	SuccessRateRequestVolume int `yaml:"success_rate_request_volume"`             // in an interval, default 100
	SuccessRateStdevFactor   int `yaml:"success_rate_stdev_factor"`               // thousandths of the standard deviation below the mean, default 1900
}

func (o *OutlierDetection) complete(k *checker) {
	const at, most = "outlier_detection.", math.MaxInt32
	k.number(at+"consecutive_5xx", &o.Consecutive5xx, 5, math.MinInt, most)
	k.number(at+"consecutive_local_origin_failure", &o.ConsecutiveLocalOriginFailure, 5, math.MinInt, most)
	k.duration(at+"interval", &o.Interval, 10*time.Second)
	k.duration(at+"base_ejection_time", &o.BaseEjectionTime, 30*time.Second)
	k.duration(at+"max_ejection_time", &o.MaxEjectionTime, max(5*time.Minute, o.BaseEjectionTime))
	if o.MaxEjectionTime < o.BaseEjectionTime {
		k.bad(at+"max_ejection_time", o.MaxEjectionTime.String(), "at least the base_ejection_time of "+o.BaseEjectionTime.String())
	}
	k.number(at+"max_ejection_percent", &o.MaxEjectionPercent, 10, -1, 100)
	k.number(at+"success_rate_minimum_hosts", &o.SuccessRateMinimumHosts, 5, -1, most)
	k.number(at+"success_rate_request_volume", &o.SuccessRateRequestVolume, 100, 1, most)
	k.number(at+"success_rate_stdev_factor", &o.SuccessRateStdevFactor, 1900, 1, most)
}

// monitor is what outlier detection knows of an endpoint.
type monitor struct {
	serverErrors, gatewayErrors, localErrors atomic.Int64  // in a row
	total, success                           atomic.Uint64 // in this interval

	// Under the cluster's lock:
	ejections int // in a row: each sweep without one takes one off
	until     time.Time
}

// ejection says why.
type ejection uint8

const (
	by5xx ejection = iota
	byGatewayFailure
	byLocalOrigin
	bySuccessRate
	ejections
)

// observe counts an outcome, and ejects where it was one too many.
func (c *Cluster) observe(e *Endpoint, o Outcome) {
	config := c.config.OutlierDetection
	if config == nil || o == NoVerdict || o >= outcomes {
		return
	}
	m := &e.monitor
	if config.SplitExternalLocalOriginErrors {
		if o.local() {
			c.count(e, &m.localErrors, config.ConsecutiveLocalOriginFailure, byLocalOrigin)
			return
		}
		reset(&m.localErrors)
	}
	m.total.Add(1)
	if o == Success {
		m.success.Add(1)
		reset(&m.serverErrors)
		reset(&m.gatewayErrors)
		return
	}
	c.count(e, &m.serverErrors, config.Consecutive5xx, by5xx)
	if o == ServerError {
		reset(&m.gatewayErrors)
	} else {
		c.count(e, &m.gatewayErrors, config.ConsecutiveGatewayFailure, byGatewayFailure)
	}
}

// reset writes only where it has to: a line of memory that is only read stays in every core's cache.
func reset(n *atomic.Int64) {
	if n.Load() != 0 {
		n.Store(0)
	}
}

func (c *Cluster) count(e *Endpoint, n *atomic.Int64, limit int, why ejection) {
	if got := n.Add(1); limit > 0 && got%int64(limit) == 0 {
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.eject(e, why) {
			c.rebuild()
		}
	}
}

// eject takes e out, and reports whether it did. The lock is held.
func (c *Cluster) eject(e *Endpoint, why ejection) bool {
	config := c.config.OutlierDetection
	if e.flags.Load()&(ejected|removed) != 0 {
		return false
	}
	n := 0
	for _, m := range c.members {
		if m.flags.Load()&ejected != 0 {
			n++
		}
	}
	most := config.MaxEjectionPercent * len(c.members) / 100
	if config.MaxEjectionPercent > 0 && len(c.members) > 1 {
		most = max(most, 1)
	}
	if n >= most {
		c.stats.ejectionsOverflow.Add(1)
		return false
	}
	m := &e.monitor
	m.ejections++
	m.until = c.now().Add(min(config.BaseEjectionTime*time.Duration(m.ejections), config.MaxEjectionTime))
	c.stats.ejections[why].Add(1)
	return e.set(ejected, true)
}

// Sweep ends ejections whose time is over, and ejects by success rate. It is due once per interval.
func (c *Cluster) Sweep() {
	if c.config.OutlierDetection == nil {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now, changed := c.now(), false
	for _, e := range c.members {
		m := &e.monitor
		switch {
		case e.flags.Load()&ejected == 0:
			m.ejections = max(m.ejections-1, 0)
		case !now.Before(m.until):
			for _, n := range []*atomic.Int64{&m.serverErrors, &m.gatewayErrors, &m.localErrors} {
				n.Store(0)
			}
			changed = e.set(ejected, false) || changed
		}
	}
	if c.unsuccessful() || changed {
		c.rebuild()
	}
}

// unsuccessful ejects the endpoints whose success rate is far below that of the others, and reports whether there were any.
func (c *Cluster) unsuccessful() bool {
	config := c.config.OutlierDetection
	type rated struct {
		*Endpoint
		rate float64
	}
	var all []rated
	sum := 0.0
	for _, e := range c.members {
		total, success := e.monitor.total.Swap(0), e.monitor.success.Swap(0)
		if e.flags.Load()&ejected == 0 && total >= uint64(config.SuccessRateRequestVolume) {
			rate := float64(success) / float64(total)
			all = append(all, rated{e.Endpoint, rate})
			sum += rate
		}
	}
	if config.SuccessRateMinimumHosts < 0 || len(all) < config.SuccessRateMinimumHosts {
		return false
	}
	mean, variance := sum/float64(len(all)), 0.0
	for _, r := range all {
		variance += (r.rate - mean) * (r.rate - mean)
	}
	least := mean - math.Sqrt(variance/float64(len(all)))*float64(config.SuccessRateStdevFactor)/1000
	changed := false
	for _, r := range all {
		if r.rate < least {
			changed = c.eject(r.Endpoint, bySuccessRate) || changed
		}
	}
	return changed
}
