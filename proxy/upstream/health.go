package upstream

import (
	"context"
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// HealthCheck asks every endpoint again and again. An endpoint is not healthy before it has passed once.
type HealthCheck struct {
	Kind             string   `yaml:"kind,required,one=http|tcp|grpc"` // tcp is content with a connection, grpc asks grpc.health.v1
	Path             string   `yaml:"path"`                            // of http: where to GET
	Host             string   `yaml:"host"`                            // of http and grpc: the authority, default the endpoint's hostname
	ExpectedStatuses []Status `yaml:"expected_statuses"`               // of http, default 200
	Service          string   `yaml:"service_name"`                    // of grpc: the one asked about

	Timeout            time.Duration `yaml:"timeout"`              // of one check, default 1 s
	Interval           time.Duration `yaml:"interval"`             // from one check to the next, default 5 s
	UnhealthyInterval  time.Duration `yaml:"unhealthy_interval"`   // the same while the endpoint fails, default Interval
	IntervalJitter     time.Duration `yaml:"interval_jitter,zero"` // up to this is added each time, default none
	HealthyThreshold   int           `yaml:"healthy_threshold"`    // passes in a row that end a failure; the first ever is enough, default 2
	UnhealthyThreshold int           `yaml:"unhealthy_threshold"`  // failures in a row that make one, default 3
}

// Status is a range of status codes.
type Status struct {
	Start int `yaml:"start,required"` // the first
	End   int `yaml:"end,required"`   // the first that is no longer in it
}

// Prober makes one health check. ctx ends when its time is over; nil is a pass.
type Prober interface {
	Probe(ctx context.Context, e *Endpoint, check *HealthCheck) error
}

func (h *HealthCheck) complete(k *checker) {
	const at = "health_check."
	switch h.Kind {
	case "http":
		if !strings.HasPrefix(h.Path, "/") || strings.ContainsFunc(h.Path, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
			k.bad(at+"path", strconv.Quote(h.Path), "a path that begins with a slash")
		}
		if len(h.ExpectedStatuses) == 0 {
			h.ExpectedStatuses = []Status{{200, 201}}
		}
		for i, s := range h.ExpectedStatuses {
			if s.Start < 100 || s.End > 600 || s.Start >= s.End {
				k.bad(fmt.Sprintf(at+"expected_statuses[%d]", i), fmt.Sprintf("%d to %d", s.Start, s.End), "a range within 100 to 600")
			}
		}
	case "tcp", "grpc":
	default:
		k.bad(at+"kind", strconv.Quote(h.Kind), "http, tcp or grpc")
	}
	if h.Kind != "http" && (h.Path != "" || len(h.ExpectedStatuses) > 0) {
		k.bad(at+"path", strconv.Quote(h.Path), "neither path nor expected_statuses but with http")
	}
	k.duration(at+"timeout", &h.Timeout, time.Second)
	k.duration(at+"interval", &h.Interval, 5*time.Second)
	k.duration(at+"unhealthy_interval", &h.UnhealthyInterval, h.Interval)
	k.duration(at+"interval_jitter", &h.IntervalJitter, 0)
	k.number(at+"healthy_threshold", &h.HealthyThreshold, 2, 1, math.MaxInt32)
	k.number(at+"unhealthy_threshold", &h.UnhealthyThreshold, 3, 1, math.MaxInt32)
}

// Expected reports whether an answer with this status is a pass of an http check.
func (h *HealthCheck) Expected(status int) bool {
	for _, s := range h.ExpectedStatuses {
		if s.Start <= status && status < s.End {
			return true
		}
	}
	return false
}

// health is the state of the checks of an endpoint.
type health struct {
	checked  bool
	streak   int // results in a row that contradict the state
	inFlight bool
	due      time.Time
}

// result takes the result of a check and the state so far, and answers the new state: whether the endpoint fails.
func (h *health) result(config *HealthCheck, failing, passed bool) bool {
	threshold := config.UnhealthyThreshold
	switch {
	case !h.checked: // the first pass is enough; a failure changes nothing
		threshold = 1
	case passed:
		threshold = config.HealthyThreshold
	}
	h.checked = true
	if passed != failing {
		h.streak = 0
		return failing
	}
	if h.streak++; h.streak >= threshold {
		h.streak = 0
		return !failing
	}
	return failing
}

// check starts the checks that are due, and answers how long it is until the next one.
func (c *Cluster) check(start func(*Endpoint)) time.Duration {
	c.mu.Lock()
	defer c.mu.Unlock()
	now, wait := c.now(), time.Duration(math.MaxInt64)
	for _, m := range c.members {
		h := &m.health
		switch {
		case h.inFlight:
		case !h.due.After(now):
			h.inFlight = true
			start(m.Endpoint)
		default:
			wait = min(wait, h.due.Sub(now))
		}
	}
	return wait
}

// checked takes the result of a check.
func (c *Cluster) checked(e *Endpoint, passed bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	config, h := c.config.HealthCheck, &e.health
	failing := h.result(config, e.flags.Load()&failedCheck != 0, passed)
	changed := e.set(failedCheck, failing)
	interval := config.Interval
	if failing {
		interval = config.UnhealthyInterval
	}
	h.inFlight, h.due = false, c.now().Add(interval+time.Duration(below(c.random(), uint64(config.IntervalJitter)+1)))
	c.stats.checks[b2i(passed)].Add(1)
	if changed {
		c.rebuild()
	}
	c.awake()
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
