package upstream

import "sync/atomic"

// counts are of one endpoint.
type counts struct {
	outcomes    [outcomes]atomic.Uint64
	nanoseconds atomic.Uint64
}

type clusterCounts struct {
	noEndpoint, panicked atomic.Uint64
	hedges, hedgesWon    atomic.Uint64
	ejections            [ejections]atomic.Uint64
	ejectionsOverflow    atomic.Uint64
	checks               [2]atomic.Uint64 // failed, passed
}

// EndpointStats is what an endpoint has seen.
type EndpointStats struct {
	Active          int64  `json:"active"` // requests
	Success         uint64 `json:"success"`
	ServerErrors    uint64 `json:"server_errors"` // other than GatewayErrors
	GatewayErrors   uint64 `json:"gateway_errors"`
	ConnectFailures uint64 `json:"connect_failures"`
	Timeouts        uint64 `json:"timeouts"`
	Resets          uint64 `json:"resets"`
	NoVerdict       uint64 `json:"no_verdict"`
	Nanoseconds     uint64 `json:"nanoseconds"` // that requests took, all together

	FailedCheck bool `json:"failed_active_health_check"`
	Ejected     bool `json:"ejected"`
	Unhealthy   bool `json:"unhealthy"` // configuration says so
}

// Stats is a snapshot of the endpoint's counters.
func (e *Endpoint) Stats() EndpointStats {
	n := func(o Outcome) uint64 { return e.counts.outcomes[o].Load() }
	flags := e.flags.Load()
	return EndpointStats{
		Active: e.Active(), Success: n(Success), ServerErrors: n(ServerError), GatewayErrors: n(GatewayError),
		ConnectFailures: n(ConnectFailure), Timeouts: n(Timeout), Resets: n(Reset), NoVerdict: n(NoVerdict), Nanoseconds: e.counts.nanoseconds.Load(),
		FailedCheck: flags&failedCheck != 0, Ejected: flags&ejected != 0, Unhealthy: flags&saidSo != 0,
	}
}

// Stats is what a cluster has seen.
type Stats struct {
	Endpoints int `json:"endpoints"`
	Healthy   int `json:"healthy"`

	Connections int64 `json:"connections"` // now, and so the next three
	Pending     int64 `json:"pending"`
	Requests    int64 `json:"requests"`
	Retries     int64 `json:"retries"`

	ConnectionsOverflow uint64 `json:"connections_overflow"` // refused by a circuit breaker, and so the next three
	PendingOverflow     uint64 `json:"pending_overflow"`
	RequestsOverflow    uint64 `json:"requests_overflow"`
	RetriesOverflow     uint64 `json:"retries_overflow"`

	NoEndpoint uint64 `json:"no_endpoint"` // picks that found none
	Panic      uint64 `json:"panic"`       // picks in panic

	Hedges    uint64 `json:"hedges"`     // tries that were begun beside slow ones
	HedgesWon uint64 `json:"hedges_won"` // of them, those whose answer counted

	Ejections5xx         uint64 `json:"ejections_5xx"`
	EjectionsGateway     uint64 `json:"ejections_gateway_failure"`
	EjectionsLocalOrigin uint64 `json:"ejections_local_origin"`
	EjectionsSuccessRate uint64 `json:"ejections_success_rate"`
	EjectionsOverflow    uint64 `json:"ejections_overflow"` // that were one too many

	ChecksFailed uint64 `json:"checks_failed"`
	ChecksPassed uint64 `json:"checks_passed"`
}

// Hedge counts a try that is begun beside a slow one.
func (c *Cluster) Hedge() { c.stats.hedges.Add(1) }

// HedgeWon counts one of them whose answer counts.
func (c *Cluster) HedgeWon() { c.stats.hedgesWon.Add(1) }

// Stats is a snapshot of the cluster's counters.
func (c *Cluster) Stats() Stats {
	b, s := &c.breaker, &c.stats
	out := Stats{
		Connections: b.used[Connections].Load(), Pending: b.used[Pending].Load(), Requests: b.used[Requests].Load(), Retries: b.used[Retries].Load(),
		ConnectionsOverflow: b.overflow[Connections].Load(), PendingOverflow: b.overflow[Pending].Load(),
		RequestsOverflow: b.overflow[Requests].Load(), RetriesOverflow: b.overflow[Retries].Load(),
		NoEndpoint: s.noEndpoint.Load(), Panic: s.panicked.Load(), Hedges: s.hedges.Load(), HedgesWon: s.hedgesWon.Load(),
		Ejections5xx: s.ejections[by5xx].Load(), EjectionsGateway: s.ejections[byGatewayFailure].Load(),
		EjectionsLocalOrigin: s.ejections[byLocalOrigin].Load(), EjectionsSuccessRate: s.ejections[bySuccessRate].Load(),
		EjectionsOverflow: s.ejectionsOverflow.Load(), ChecksFailed: s.checks[0].Load(), ChecksPassed: s.checks[1].Load(),
	}
	for _, e := range c.Endpoints() {
		out.Endpoints++
		if e.Healthy() {
			out.Healthy++
		}
	}
	return out
}
