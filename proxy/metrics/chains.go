package metrics

import "github.com/jurat-tls/jurat/proxy"

// chain is a number about each chain.
func chain(kind, name, help string, f func(*proxy.Stats) float64) definition {
	return definition{Family: Family{"jurat_chain_" + name, kind, []string{"listener", "chain"}, help}, numbers: func(s *state, emit number) {
		eachChain(s, func(listener string, c *proxy.ChainStatus) { emit(f(&c.Stats), listener, c.Name) })
	}}
}

func eachChain(s *state, f func(listener string, c *proxy.ChainStatus)) {
	for i := range s.Listeners {
		for j := range s.Listeners[i].Chains {
			f(s.Listeners[i].Name, &s.Listeners[i].Chains[j])
		}
	}
}

func chains() []definition {
	return []definition{
		chain(Counter, "accepted_connections_total", "Connections that the chain was for, before any handshake.", func(s *proxy.Stats) float64 { return float64(s.Accepted) }),
		chain(Counter, "handshakes_total", "Attested connections established.", func(s *proxy.Stats) float64 { return float64(s.Handshakes) }),
		{Family: Family{"jurat_chain_refused_connections_total", Counter, []string{"listener", "chain", "code"}, "Connections of the chain refused before a byte of the application moved, by error code."}, numbers: func(s *state, emit number) {
			eachChain(s, func(listener string, c *proxy.ChainStatus) {
				for k, n := range c.Stats.Refused {
					emit(float64(n), listener, c.Name, code(k))
				}
			})
		}},
		chain(Gauge, "active_connections", "Connections open now.", func(s *proxy.Stats) float64 { return float64(s.Active) }),
		chain(Counter, "requests_total", "HTTP requests begun.", func(s *proxy.Stats) float64 { return float64(s.Requests) }),
		chain(Counter, "received_bytes_total", "Application bytes received.", func(s *proxy.Stats) float64 { return float64(s.BytesIn) }),
		chain(Counter, "sent_bytes_total", "Application bytes sent.", func(s *proxy.Stats) float64 { return float64(s.BytesOut) }),
	}
}
