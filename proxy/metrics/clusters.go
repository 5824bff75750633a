package metrics

import "github.com/jurat-tls/jurat/proxy/upstream"

// cluster is a number about each cluster.
func cluster(kind, name, help string, f func(*upstream.Stats) float64) definition {
	return definition{Family: Family{"jurat_cluster_" + name, kind, []string{"cluster"}, help}, numbers: func(s *state, emit number) {
		for i := range s.Clusters {
			emit(f(&s.Clusters[i].Stats), s.Clusters[i].Name)
		}
	}}
}

// clusterBy is several numbers about each cluster, told apart by a label.
func clusterBy(kind, name, label, help string, f func(*upstream.Stats, func(v float64, label string))) definition {
	return definition{Family: Family{"jurat_cluster_" + name, kind, []string{"cluster", label}, help}, numbers: func(s *state, emit number) {
		for i := range s.Clusters {
			f(&s.Clusters[i].Stats, func(v float64, label string) { emit(v, s.Clusters[i].Name, label) })
		}
	}}
}

// endpoint is numbers about each endpoint, told apart by extra labels.
func endpoint(kind, name, help string, extra []string, f func(*upstream.EndpointStats, number)) definition {
	return definition{Family: Family{"jurat_endpoint_" + name, kind, append([]string{"cluster", "endpoint"}, extra...), help}, numbers: func(s *state, emit number) {
		for i := range s.Clusters {
			c := &s.Clusters[i]
			for j := range c.Endpoints {
				e := &c.Endpoints[j]
				f(&e.Stats, func(v float64, labels ...string) { emit(v, append([]string{c.Name, e.Address}, labels...)...) })
			}
		}
	}}
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func clusters() []definition {
	return []definition{
		cluster(Gauge, "endpoints", "Endpoints of the cluster.", func(s *upstream.Stats) float64 { return float64(s.Endpoints) }),
		cluster(Gauge, "healthy_endpoints", "Endpoints that nothing speaks against.", func(s *upstream.Stats) float64 { return float64(s.Healthy) }),
		cluster(Gauge, "active_connections", "Connections to endpoints open now.", func(s *upstream.Stats) float64 { return float64(s.Connections) }),
		cluster(Gauge, "pending_requests", "Requests that wait for a connection.", func(s *upstream.Stats) float64 { return float64(s.Pending) }),
		cluster(Gauge, "active_requests", "Requests that endpoints are busy with.", func(s *upstream.Stats) float64 { return float64(s.Requests) }),
		cluster(Gauge, "active_retries", "Retries that endpoints are busy with.", func(s *upstream.Stats) float64 { return float64(s.Retries) }),
		clusterBy(Counter, "overflows_total", "resource", "What a circuit breaker refused.", func(s *upstream.Stats, emit func(float64, string)) {
			emit(float64(s.ConnectionsOverflow), "connections")
			emit(float64(s.PendingOverflow), "pending")
			emit(float64(s.RequestsOverflow), "requests")
			emit(float64(s.RetriesOverflow), "retries")
		}),
		cluster(Counter, "picks_without_endpoint_total", "Requests for which there was no endpoint to go to.", func(s *upstream.Stats) float64 { return float64(s.NoEndpoint) }),
		cluster(Counter, "picks_in_panic_total", "Requests that went to any endpoint because too few were healthy.", func(s *upstream.Stats) float64 { return float64(s.Panic) }),
		cluster(Counter, "hedges_total", "Tries that were begun beside slow ones.", func(s *upstream.Stats) float64 { return float64(s.Hedges) }),
		cluster(Counter, "hedges_won_total", "Of them, those whose answer counted.", func(s *upstream.Stats) float64 { return float64(s.HedgesWon) }),
		clusterBy(Counter, "ejections_total", "reason", "Endpoints taken out by outlier detection.", func(s *upstream.Stats, emit func(float64, string)) {
			emit(float64(s.Ejections5xx), "5xx")
			emit(float64(s.EjectionsGateway), "gateway_failure")
			emit(float64(s.EjectionsLocalOrigin), "local_origin")
			emit(float64(s.EjectionsSuccessRate), "success_rate")
		}),
		cluster(Counter, "ejections_overflow_total", "Endpoints that were not taken out because as many were out as may be.", func(s *upstream.Stats) float64 { return float64(s.EjectionsOverflow) }),
		clusterBy(Counter, "health_checks_total", "result", "Active health checks made.", func(s *upstream.Stats, emit func(float64, string)) {
			emit(float64(s.ChecksPassed), "passed")
			emit(float64(s.ChecksFailed), "failed")
		}),
		{Family: Family{"jurat_cluster_appraisals_total", Counter, peerLabels("cluster"), "Appraisals of endpoints, by verdict and by what they proved."}, numbers: func(s *state, emit number) {
			for i := range s.Clusters {
				peers(s.Clusters[i].Name, &s.Clusters[i].Peers, emit)
			}
		}},
		{Family: Family{"jurat_cluster_evidence_age_seconds", Histogram, []string{"cluster"}, "How old the evidence of endpoints was when it was appraised."}, distributions: func(s *state, emit distribution) {
			for i := range s.Clusters {
				emit(seconds(s.Clusters[i].Peers.Ages), s.Clusters[i].Name)
			}
		}},
	}
}

func endpoints() []definition {
	return []definition{
		endpoint(Gauge, "active_requests", "Requests that the endpoint is busy with.", nil, func(s *upstream.EndpointStats, emit number) { emit(float64(s.Active)) }),
		endpoint(Counter, "requests_total", "Tries of requests at the endpoint, by what came of them.", []string{"outcome"}, func(s *upstream.EndpointStats, emit number) {
			emit(float64(s.Success), "success")
			emit(float64(s.ServerErrors), "server_error")
			emit(float64(s.GatewayErrors), "gateway_error")
			emit(float64(s.ConnectFailures), "connect_failure")
			emit(float64(s.Timeouts), "timeout")
			emit(float64(s.Resets), "reset")
			emit(float64(s.NoVerdict), "no_verdict")
		}),
		endpoint(Counter, "request_seconds_total", "Time that tries at the endpoint took, all together.", nil, func(s *upstream.EndpointStats, emit number) { emit(float64(s.Nanoseconds) / 1e9) }),
		endpoint(Gauge, "healthy", "1 where nothing speaks against the endpoint.", nil, func(s *upstream.EndpointStats, emit number) {
			emit(truth(!s.FailedCheck && !s.Ejected && !s.Unhealthy))
		}),
		endpoint(Gauge, "unhealthy", "1 for each reason that speaks against the endpoint.", []string{"reason"}, func(s *upstream.EndpointStats, emit number) {
			emit(truth(s.FailedCheck), "failed_check")
			emit(truth(s.Ejected), "ejected")
			emit(truth(s.Unhealthy), "configured")
		}),
	}
}
