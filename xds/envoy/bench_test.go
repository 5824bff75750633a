package envoy_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/xds/envoy"
)

// A mesh of 1,000 attested services, with ten endpoints each and a route to each.
func BenchmarkTranslate(b *testing.B) {
	var all []string
	var hosts []string
	for i := range 1000 {
		all = append(all, fmt.Sprintf("%sname: outbound|80||s%d\ntype: EDS\neds_cluster_config: {eds_config: {ads: {}}}\ntransport_socket: %s\n", aCluster, i, upTLS))
		text := fmt.Sprintf("%scluster_name: outbound|80||s%d\nendpoints:\n- lb_endpoints:\n", someEDS, i)
		for j := range 10 {
			text += fmt.Sprintf("  - {endpoint: {address: {socket_address: {address: 10.%d.%d.%d, port_value: 80}}}, metadata: {filter_metadata: {envoy.transport_socket_match: {tlsMode: istio}}}}\n", i/250, i%250, j)
		}
		all = append(all, text)
		hosts = append(hosts, fmt.Sprintf("{name: s%d, domains: [s%d, s%d.default], routes: [{match: {prefix: /}, route: {cluster: 'outbound|80||s%d', timeout: 0s}}]}", i, i, i, i))
	}
	all = append(all, aRoute+"name: r\nvirtual_hosts: ["+strings.Join(hosts, ", ")+"]\n",
		aListener+"name: l\n"+address("127.0.0.1", "80")+"filter_chains: [{filters: ["+rdsOf("r")+"]}]\n", policyM)
	set := load(b, docs(all...))
	b.ReportAllocs()
	for b.Loop() {
		if out := envoy.Translate(envoy.Input{Resources: set}); len(out.Config.Clusters) != 1000 || len(out.Config.Listeners) != 1 {
			b.Fatal(render(out))
		}
	}
}
