package agent_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/xds/agent"
	"github.com/jurat-tls/jurat/xds/client"
)

// What an update takes beside a thousand clusters.
func BenchmarkOffer(b *testing.B) {
	many := newBench(b, limitsText, agent.Options{})
	var clusters, endpoints []string
	for i := range 1000 {
		name := fmt.Sprint("c", i)
		clusters, endpoints = append(clusters, clusterText(name, name, "mesh")), append(endpoints, endpointsText(name, "10.0.0.1:8443", "10.0.0.2:8443"))
	}
	many.ok(clusters...)
	many.ok(endpoints...)
	many.ok(policyText("mesh", 1, pushedText))
	many.ok(listenerText("out", "15001", "routes"))
	many.ok(routesText("routes", "c1"))
	serial := 1
	for what, text := range map[string]func() string{
		"policy": func() string {
			serial++
			return policyText("mesh", serial, strings.Replace(pushedText, "workload", fmt.Sprintf("tcb: {snp: %d}\nworkload", serial%100), 1))
		},
		"endpoints": func() string {
			serial++
			return endpointsText("c1", fmt.Sprintf("10.0.0.%d:8443", serial%200))
		},
	} {
		b.Run(what, func(b *testing.B) {
			var updates []*client.Update
			for range b.N {
				changed := load(b, "1", text())
				updates = append(updates, &client.Update{Type: changed[0].Type, Changed: changed})
			}
			b.ResetTimer()
			for _, u := range updates {
				if err := many.Offer(u); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
