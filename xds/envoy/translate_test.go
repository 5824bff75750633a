package envoy_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Snippets of resources.
const (
	aType     = `"@type": type.googleapis.com/`
	aCluster  = aType + "envoy.config.cluster.v3.Cluster\n"
	aListener = aType + "envoy.config.listener.v3.Listener\n"
	aRoute    = aType + "envoy.config.route.v3.RouteConfiguration\n"
	someEDS   = aType + "envoy.config.endpoint.v3.ClusterLoadAssignment\n"
	aSecret   = aType + "envoy.extensions.transport_sockets.tls.v3.Secret\n"
	aPolicy   = aType + "jurat.config.v1alpha1.AttestationPolicy\n"
	someRefs  = aType + "jurat.config.v1alpha1.ReferenceValues\n"
	validator = `{name: v, typed_config: {"@type": type.googleapis.com/jurat.config.v1alpha1.AttestationValidator, policy: mesh, pki_mode: EVIDENCE_ONLY}}`
	upTLS     = `{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context: {custom_validator_config: ` + validator + `}}}}`
	plainTLS  = `{name: tls, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {}}}`
	router    = `{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}`
	policyM   = aPolicy + "name: mesh\nserial: 1\npolicy: text\n"
)

func tcp(cluster string) string {
	return `{name: tcp, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: "` + cluster + `"}}`
}

func rdsOf(name string) string {
	return `{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, rds: {config_source: {ads: {}}, route_config_name: ` + name + `}, http_filters: [` + router + `]}}`
}

func address(host, port string) string {
	return `address: {socket_address: {address: "` + host + `", port_value: ` + port + `}}` + "\n"
}

func docs(all ...string) string { return strings.Join(all, "---\n") }

// names are those of resources in a map, "Type name", in order.
func names[V any](m map[envoy.Key]V) string {
	var all []string
	for _, k := range keys(m) {
		all = append(all, k.Type[strings.LastIndexByte(k.Type, '.')+1:]+" "+k.Name)
	}
	return strings.Join(all, ", ")
}

func translate(t testing.TB, text string, policies ...string) *envoy.Translation {
	t.Helper()
	out := envoy.Translate(envoy.Input{Resources: load(t, text), Policies: policies})
	sound(t, out)
	return out
}

// What is referred to and has not come keeps who refers to it out, and nobody else.
func TestWarming(t *testing.T) {
	attested := aCluster + "name: c\ntransport_socket: " + upTLS + "\n"
	eds := aCluster + "name: c\ntype: EDS\neds_cluster_config: {eds_config: {ads: {}}, service_name: s}\n"
	listener := aListener + "name: l\n" + address("127.0.0.1", "80")
	for name, c := range map[string]struct {
		text, warming, waits, clusters, listeners string
	}{
		"endpoints":              {eds, "Cluster c", "ClusterLoadAssignment s", "", ""},
		"endpoints came":         {docs(eds, someEDS+"cluster_name: s\n"), "", "", "c", ""},
		"policy":                 {attested, "Cluster c", "AttestationPolicy mesh", "", ""},
		"policy came":            {docs(attested, policyM), "", "", "c", ""},
		"reference values":       {docs(attested, policyM+"reference_values: [r]\n"), "Cluster c", "ReferenceValues r", "", ""},
		"reference values came":  {docs(attested, policyM+"reference_values: [r]\n", someRefs+"name: r\nserial: 1\nfiles: {a: ''}\n"), "", "", "c", ""},
		"routes":                 {listener + "filter_chains: [{filters: [" + rdsOf("r") + "]}]\n", "Listener l", "RouteConfiguration r", "", ""},
		"routes came":            {docs(listener+"filter_chains: [{filters: ["+rdsOf("r")+"]}]\n", aRoute+"name: r\n"), "", "", "", "l"},
		"cluster that waits":     {docs(listener+"filter_chains: [{filters: ["+tcp("c")+"]}]\n", eds), "Cluster c, Listener l", "Cluster c", "", ""},
		"cluster with a problem": {docs(listener+"filter_chains: [{filters: ["+tcp("c")+"]}]\n", aCluster+"name: c\ntransport_socket: "+plainTLS+"\n"), "Listener l", "Cluster c", "", ""},
		"no such cluster":        {listener + "filter_chains: [{filters: [" + tcp("c") + "]}]\n", "", "", "c", "l"},
		"secret": {
			aCluster + "name: c\ntransport_socket: {name: tls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, common_tls_context: {validation_context_sds_secret_config: {name: s}}}}\n",
			"Cluster c", "Secret s", "", "",
		},
		"secret of clients": {
			listener + "filter_chains: [{transport_socket: {name: tls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, require_client_certificate: true, common_tls_context: {validation_context_sds_secret_config: {name: s}}}}, filters: [" + tcp("c") + "]}]\n",
			"Listener l", "Secret s", "", "",
		},
		"others": {docs(eds, aCluster+"name: d\n", aCluster+"name: e\n"), "Cluster c", "ClusterLoadAssignment s", "d e", ""},
	} {
		out := translate(t, c.text)
		var clusters, listeners []string
		for _, l := range out.Config.Listeners {
			listeners = append(listeners, l.Name)
		}
		for _, l := range out.Config.Clusters {
			clusters = append(clusters, l.Name)
		}
		waits := map[envoy.Key]bool{}
		for k, all := range out.Warming {
			for _, w := range all {
				if k.Type != resource.Listener || c.clusters != "" || c.warming == "Listener l" {
					waits[w] = true
				}
			}
		}
		if name == "cluster that waits" {
			waits = map[envoy.Key]bool{{Type: resource.Cluster, Name: "c"}: true}
		}
		if got := names(out.Warming); got != c.warming || names(waits) != c.waits {
			t.Errorf("%s: warming %q for %q, want %q for %q\n%s", name, got, names(waits), c.warming, c.waits, render(out))
		}
		if strings.Join(clusters, " ") != c.clusters || strings.Join(listeners, " ") != c.listeners {
			t.Errorf("%s: clusters %q, listeners %q\n%s", name, clusters, listeners, render(out))
		}
	}
}

// A cluster that no resource describes is one that nothing gets through to.
func TestNoSuchCluster(t *testing.T) {
	out := translate(t, aListener+"name: l\n"+address("127.0.0.1", "80")+"filter_chains: [{filters: ["+tcp("gone")+"]}]\n")
	c := out.Config.Cluster("gone")
	if c == nil || c.Localities == nil || len(c.Localities) != 0 || c.OriginalDestination != nil || c.DNS != nil {
		t.Fatalf("%+v", c)
	}
	if got := out.Needs[resource.Cluster]; !slices.Equal(got, []string{"gone"}) {
		t.Errorf("needs %q", got)
	}
}

func TestPolicies(t *testing.T) {
	attested := aCluster + "name: c\ntransport_socket: " + upTLS + "\n"
	if out := translate(t, attested, "mesh"); out.Config.Cluster("c") == nil || len(out.Needs) != 0 {
		t.Errorf("a policy of the proxy's own is waited for: %s", render(out))
	}
	out := translate(t, docs(attested, policyM), "mesh")
	if names(out.Problems) != "AttestationPolicy mesh" || len(out.Policies) != 0 || out.Config.Cluster("c") == nil {
		t.Errorf("an AttestationPolicy in the place of a policy of the proxy's own: %s", render(out))
	}
	out = translate(t, docs(policyM+"files: {a: ''}\nreference_values: [r]\n", someRefs+"name: r\nserial: 1\nfiles: {a: ''}\n"))
	if names(out.Problems) != "AttestationPolicy mesh" || len(out.Policies) != 0 {
		t.Errorf("a file twice: %s", render(out))
	}
	out = translate(t, docs(policyM+"reference_values: [r, s]\n", someRefs+"name: r\nserial: 1\nfiles: {a: ''}\n", someRefs+"name: s\nserial: 1\nfiles: {a: ''}\n"))
	if names(out.Problems) != "AttestationPolicy mesh" {
		t.Errorf("a file twice: %s", render(out))
	}
	out = translate(t, aPolicy+"name: mesh\nserial: 0\npolicy: text\n")
	if names(out.Problems) != "AttestationPolicy mesh" {
		t.Errorf("no serial: %s", render(out))
	}
	out = translate(t, someRefs+"name: r\nserial: 1\n")
	if names(out.Problems) != "ReferenceValues r" || len(out.References) != 0 {
		t.Errorf("no file: %s", render(out))
	}
}

// A resource that calls itself something else than it was called on its way is a problem, for every type.
func TestNames(t *testing.T) {
	set := load(t, docs(aCluster+"name: x\n", aListener+"name: x\n"+address("127.0.0.1", "80")+"filter_chains: [{filters: ["+tcp("c")+"]}]\n", aRoute+"name: x\n",
		someEDS+"cluster_name: x\n", aSecret+"name: x\n", aPolicy+"name: x\nserial: 1\npolicy: t\n", someRefs+"name: x\nserial: 1\nfiles: {a: ''}\n"))
	if out := envoy.Translate(envoy.Input{Resources: set}); len(out.Problems) != 0 {
		t.Fatal(render(out))
	}
	renamed := envoy.Set{}
	for k, r := range set {
		renamed[envoy.Key{Type: k.Type, Name: "y"}] = r
	}
	out := envoy.Translate(envoy.Input{Resources: renamed})
	if len(out.Problems) != len(set) || len(out.Config.Clusters)+len(out.Config.Listeners)+len(out.Policies)+len(out.References) != 0 {
		t.Error(render(out))
	}
	if out := translate(t, aCluster+"name: jurat:nowhere\n"); names(out.Problems) != "Cluster jurat:nowhere" {
		t.Error(render(out))
	}
}

// Bytes that are no resource are a problem of theirs alone.
func TestGarbage(t *testing.T) {
	for _, typ := range []string{resource.Listener, resource.Route, resource.Cluster, resource.Endpoints, resource.Secret, resource.AttestationPolicy, resource.ReferenceValues} {
		for name, body := range map[string][]byte{
			"garbage": {0xff}, "too much": make([]byte, resource.MaxBody+1),
			"unknown field": protowire.AppendVarint(protowire.AppendTag([]byte{10, 1, 'x'}, 999, protowire.VarintType), 1),
		} {
			set := load(t, aCluster+"name: good\n")
			set.Add(resource.Resource{Type: typ, Name: "x", Body: body})
			out := envoy.Translate(envoy.Input{Resources: set})
			if len(out.Problems) != 1 || out.Problems[envoy.Key{Type: typ, Name: "x"}] == nil || out.Config.Cluster("good") == nil {
				t.Errorf("%s of %s: %s", name, typ, render(out))
			}
		}
	}
}

// Istio's own extensions come as they are, too, not only in a TypedStruct.
func TestOpaque(t *testing.T) {
	set := load(t, aListener+"name: l\n"+address("127.0.0.1", "80")+`filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, route_config: {}, http_filters: [{name: alpn}, `+router+`]}}]}]`+"\n")
	key := envoy.Key{Type: resource.Listener, Name: "l"}
	r := set[key]
	withType := func(typ string) *envoy.Translation {
		// A typed_config is put into the filter "alpn" by hand: no type of that name is there to be written in a file.
		filter := append([]byte{10, 4}, "alpn"...)
		packed := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), []byte(typ))
		packed = protowire.AppendBytes(protowire.AppendTag(packed, 2, protowire.BytesType), []byte("anything"))
		full := protowire.AppendBytes(protowire.AppendTag(slices.Clone(filter), 4, protowire.BytesType), packed)
		s := maps.Clone(set)
		c := r
		c.Body = replaceNested(t, r.Body, filter, full)
		s[key] = c
		return envoy.Translate(envoy.Input{Resources: s})
	}
	if out := withType("type.googleapis.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig"); len(out.Config.Listeners) != 1 {
		t.Error(render(out))
	}
	for _, typ := range []string{"type.googleapis.com/istio.envoy.config.filter.http.alpn.v9.FilterConfig", "example.com/istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig", ""} {
		if out := withType(typ); len(out.Config.Listeners) != 0 || len(out.Problems) != 1 {
			t.Errorf("%q: %s", typ, render(out))
		}
	}
}

// replaceNested replaces a field's bytes anywhere in a serialized message, and corrects the lengths around it.
func replaceNested(t testing.TB, raw, old, with []byte) []byte {
	var walk func(b []byte) ([]byte, bool)
	walk = func(b []byte) ([]byte, bool) {
		if string(b) == string(old) {
			return with, true
		}
		var out []byte
		changed := false
		for len(b) > 0 {
			num, typ, n := protowire.ConsumeTag(b)
			if n < 0 {
				return nil, false
			}
			m := protowire.ConsumeFieldValue(num, typ, b[n:])
			if m < 0 {
				return nil, false
			}
			if typ == protowire.BytesType {
				v, _ := protowire.ConsumeBytes(b[n:])
				if inner, ok := walk(v); ok {
					out, changed = protowire.AppendBytes(protowire.AppendTag(out, num, typ), inner), true
					b = b[n+m:]
					continue
				}
			}
			out = append(out, b[:n+m]...)
			b = b[n+m:]
		}
		return out, changed
	}
	out, ok := walk(raw)
	if !ok {
		t.Fatal("not there")
	}
	return out
}

// Translations are pure: whatever order things are found in, the answer is the same.
func TestDeterministic(t *testing.T) {
	for file, set := range corpus(t) {
		want := render(envoy.Translate(input(set)))
		for range 20 {
			if got := render(envoy.Translate(input(maps.Clone(set)))); got != want {
				t.Fatalf("%s: two translations differ:\n%s\n%s", file, got, want)
			}
		}
	}
}

// What is refused, and at which place.
func TestRefuses(t *testing.T) {
	downTLS := func(rest string) string {
		return aListener + "name: x\n" + address("0.0.0.0", "443") + "filter_chains: [{transport_socket: {name: tls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, " + rest + "}}, filters: [" + tcp("c") + "]}]\n"
	}
	up := func(rest string) string {
		return aCluster + "name: x\ntransport_socket: {name: tls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext, " + rest + "}}\n"
	}
	withValidator := "validation_context: {custom_validator_config: " + validator + "}"
	listener := func(rest string) string {
		return aListener + "name: x\n" + address("127.0.0.1", "80") + rest + "\n"
	}
	manager := func(rest string) string {
		return listener(`filter_chains: [{filters: [{name: http, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, ` + rest + `}}]}]`)
	}
	route := func(rest string) string {
		return aRoute + "name: x\nvirtual_hosts: [{name: v, domains: ['*'], routes: [{" + rest + "}]}]\n"
	}
	endpoint := func(rest string) string {
		return someEDS + "cluster_name: x\nendpoints: [{lb_endpoints: [{" + rest + "}]}]\n"
	}
	ip := "endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 80}}}"
	hcmAt := "filter_chains[0].filters[0].typed_config"
	for name, c := range map[string]struct{ text, at string }{
		// How peers prove what they are.
		"TLS by certificates":             {aCluster + "name: x\ntransport_socket: " + plainTLS + "\n", "transport_socket.typed_config"},
		"TLS without anything":            {up("sni: a"), "transport_socket.typed_config"},
		"a secret from a file":            {up("common_tls_context: {validation_context_sds_secret_config: {name: s, sds_config: {path_config_source: {path: /etc/s.yaml}}}}"), "transport_socket.typed_config.common_tls_context.validation_context_sds_secret_config.sds_config"},
		"a secret from a path":            {up("common_tls_context: {validation_context_sds_secret_config: {name: s, sds_config: {path: /etc/s.yaml}}}"), "transport_socket.typed_config.common_tls_context.validation_context_sds_secret_config.sds_config"},
		"half a secret from a file":       {up("common_tls_context: {combined_validation_context: {default_validation_context: {}, validation_context_sds_secret_config: {name: s, sds_config: {path_config_source: {path: /etc/s.yaml}}}}}"), "transport_socket.typed_config.common_tls_context.combined_validation_context.validation_context_sds_secret_config.sds_config"},
		"TLS 1.2 at most":                 {up("common_tls_context: {tls_params: {tls_maximum_protocol_version: TLSv1_2}, " + withValidator + "}"), "transport_socket.typed_config.common_tls_context.tls_params.tls_maximum_protocol_version"},
		"FIPS":                            {up("common_tls_context: {tls_params: {compliance_policies: [FIPS_202205]}, " + withValidator + "}"), "transport_socket.typed_config.common_tls_context.tls_params.compliance_policies"},
		"key log":                         {up("common_tls_context: {key_log: {path: /tmp/keys}, " + withValidator + "}"), "transport_socket.typed_config.common_tls_context.key_log"},
		"custom handshaker":               {up("common_tls_context: {custom_handshaker: {name: x}, " + withValidator + "}"), "transport_socket.typed_config.common_tls_context.custom_handshaker"},
		"another selector":                {up(`common_tls_context: {custom_tls_certificate_selector: {name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}, ` + withValidator + "}"), "transport_socket.typed_config.common_tls_context.custom_tls_certificate_selector.typed_config"},
		"another validator":               {up(`common_tls_context: {validation_context: {custom_validator_config: {name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}}}`), "transport_socket.typed_config.common_tls_context.validation_context.custom_validator_config.typed_config"},
		"an empty validator":              {up(`common_tls_context: {validation_context: {custom_validator_config: {name: x}}}`), "transport_socket.typed_config.common_tls_context.validation_context.custom_validator_config.typed_config"},
		"an unknown transport socket":     {aCluster + "name: x\ntransport_socket: {name: quic}\n", "transport_socket.typed_config"},
		"a transport socket of clients":   {aCluster + "name: x\ntransport_socket: {name: tls, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext}}\n", "transport_socket.typed_config"},
		"a PROXY header around nothing":   {aCluster + "name: x\ntransport_socket: {name: p, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport}}\n", "transport_socket.typed_config.transport_socket"},
		"a match without a socket":        {aCluster + "name: x\ntransport_socket_matches: [{name: a}]\n", "transport_socket_matches[0].transport_socket"},
		"optional client certificates":    {downTLS("common_tls_context: {" + withValidator + "}"), "filter_chains[0].transport_socket.typed_config.require_client_certificate"},
		"certificates of clients alone":   {downTLS("require_client_certificate: true, common_tls_context: {}"), "filter_chains[0].transport_socket.typed_config"},
		"identity and certificates":       {downTLS(`require_client_certificate: true, common_tls_context: {custom_tls_certificate_selector: {name: i, typed_config: {"@type": type.googleapis.com/jurat.config.v1alpha1.AttestedIdentity}}}`), "filter_chains[0].transport_socket.typed_config.require_client_certificate"},
		"require_sni":                     {downTLS("require_client_certificate: true, require_sni: true, common_tls_context: {" + withValidator + "}"), "filter_chains[0].transport_socket.typed_config.require_sni"},
		"clients with a name":             {downTLS("require_client_certificate: true, common_tls_context: {validation_context: {custom_validator_config: " + strings.Replace(validator, "policy:", "name: a.example, policy:", 1) + "}}"), "filter_chains[0].transport_socket.typed_config"},
		"clients by a socket of services": {aListener + "name: x\n" + address("0.0.0.0", "443") + "filter_chains: [{transport_socket: " + upTLS + ", filters: [" + tcp("c") + "]}]\n", "filter_chains[0].transport_socket.typed_config"},
		"a secret with another validator": {aSecret + `name: x` + "\n" + `validation_context: {custom_validator_config: {name: x, typed_config: {"@type": type.googleapis.com/jurat.config.v1alpha1.AttestedIdentity}}}` + "\n", "validation_context.custom_validator_config.typed_config"},

		// Clusters.
		"an unknown type":               {aCluster + "name: x\ntype: 77\n", "type"},
		"a custom type":                 {aCluster + "name: x\ncluster_type: {name: redis}\n", "cluster_type.typed_config"},
		"EDS without a source":          {aCluster + "name: x\ntype: EDS\n", "eds_cluster_config.eds_config"},
		"EDS from a file":               {aCluster + "name: x\ntype: EDS\neds_cluster_config: {eds_config: {path: /eds.yaml}}\n", "eds_cluster_config.eds_config.path"},
		"EDS beside STATIC":             {aCluster + "name: x\neds_cluster_config: {eds_config: {ads: {}}}\n", "eds_cluster_config"},
		"endpoints beside EDS":          {aCluster + "name: x\ntype: EDS\neds_cluster_config: {eds_config: {ads: {}}}\nload_assignment: {cluster_name: x}\n", "load_assignment"},
		"subsets":                       {aCluster + "name: x\nlb_subset_config: {}\n", "lb_subset_config"},
		"a policy of load balancing":    {aCluster + "name: x\nlb_policy: CLUSTER_PROVIDED\n", "lb_policy"},
		"a policy that is absent":       {aCluster + "name: x\nlb_policy: LOAD_BALANCING_POLICY_CONFIG\n", "load_balancing_policy"},
		"no policies":                   {aCluster + "name: x\nload_balancing_policy: {}\n", "load_balancing_policy.policies"},
		"slow start":                    {aCluster + "name: x\nlb_policy: LEAST_REQUEST\nleast_request_lb_config: {slow_start_config: {}}\n", "least_request_lb_config.slow_start_config"},
		"a ring of another policy":      {aCluster + "name: x\nring_hash_lb_config: {}\n", "ring_hash_lb_config"},
		"half a percent":                {aCluster + "name: x\ncommon_lb_config: {healthy_panic_threshold: {value: 0.5}}\n", "common_lb_config.healthy_panic_threshold"},
		"no connections at all":         {aCluster + "name: x\ncircuit_breakers: {thresholds: [{max_connections: 0}]}\n", "circuit_breakers.thresholds[0].max_connections"},
		"an unknown priority":           {aCluster + "name: x\ncircuit_breakers: {thresholds: [{priority: 9}]}\n", "circuit_breakers.thresholds[0].priority"},
		"a connection per client":       {aCluster + "name: x\nconnection_pool_per_downstream_connection: true\n", "connection_pool_per_downstream_connection"},
		"ejected now and then":          {aCluster + "name: x\noutlier_detection: {enforcing_consecutive_5xx: 50}\n", "outlier_detection.enforcing_consecutive_5xx"},
		"ejected by percentage":         {aCluster + "name: x\noutlier_detection: {enforcing_failure_percentage: 100}\n", "outlier_detection.enforcing_failure_percentage"},
		"a short ejection":              {aCluster + "name: x\noutlier_detection: {base_ejection_time: 60s, max_ejection_time: 1s}\n", "outlier_detection.max_ejection_time"},
		"two health checks":             {aCluster + "name: x\nhealth_checks: [{tcp_health_check: {}}, {tcp_health_check: {}}]\n", "health_checks"},
		"no health check":               {aCluster + "name: x\nhealth_checks: [{timeout: 1s}]\n", "health_checks[0]"},
		"a health check by POST":        {aCluster + "name: x\nhealth_checks: [{http_health_check: {path: /, method: POST}}]\n", "health_checks[0].http_health_check.method"},
		"a status of 700":               {aCluster + "name: x\nhealth_checks: [{http_health_check: {path: /, expected_statuses: [{start: 200, end: 700}]}}]\n", "health_checks[0].http_health_check.expected_statuses[0]"},
		"a negative time":               {aCluster + "name: x\nconnect_timeout: -1s\n", "connect_timeout"},
		"no time":                       {aCluster + "name: x\nconnect_timeout: 0s\n", "connect_timeout"},
		"a thousand years":              {aCluster + "name: x\nconnect_timeout: 31556952000s\n", "connect_timeout"},
		"HTTP/3":                        {aCluster + `name: x` + "\n" + `typed_extension_protocol_options: {a: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions, explicit_http_config: {http3_protocol_options: {}}}}` + "\n", `typed_extension_protocol_options["a"].explicit_http_config.http3_protocol_options`},
		"no protocol":                   {aCluster + `name: x` + "\n" + `typed_extension_protocol_options: {a: {"@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions}}` + "\n", `typed_extension_protocol_options["a"]`},
		"other options":                 {aCluster + `name: x` + "\n" + `typed_extension_protocol_options: {a: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}` + "\n", `typed_extension_protocol_options["a"]`},
		"a filter to the service":       {aCluster + `name: x` + "\n" + `filters: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC}}]` + "\n", "filters[0]"},
		"a filter without anything":     {aCluster + "name: x\nfilters: [{name: a}]\n", "filters[0]"},
		"connecting from an address":    {aCluster + "name: x\nupstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}}\n", "upstream_bind_config"},
		"from an address elsewhere":     {aCluster + "name: x\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\nupstream_bind_config: {source_address: {address: 10.0.0.6, port_value: 0}}\n", "upstream_bind_config.source_address"},
		"original addresses by header":  {aCluster + "name: x\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\noriginal_dst_lb_config: {use_http_header: true}\n", "original_dst_lb_config"},
		"original addresses that match": {aCluster + "name: x\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\ntransport_socket_matches: [{match: {}, transport_socket: " + upTLS + "}]\n", "transport_socket_matches"},
		"original addresses by PKI":     {aCluster + "name: x\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\ntransport_socket: " + plainTLS + "\n", "transport_socket.typed_config"},
		"names without names":           {aCluster + "name: x\ntype: STRICT_DNS\n", "load_assignment"},
		"two logical names":             {aCluster + "name: x\ntype: LOGICAL_DNS\nload_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{" + ip + "}, {" + ip + "}]}]}\n", "load_assignment"},
		"a socket among names":          {aCluster + "name: x\ntype: STRICT_DNS\nload_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {address: {pipe: {path: /a}}}}]}]}\n", "load_assignment.endpoints[0].lb_endpoints[0].endpoint.address"},
		"a name that is ill":            {aCluster + "name: x\ntype: STRICT_DNS\nload_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{health_status: DRAINING, " + ip + "}]}]}\n", "load_assignment.endpoints[0].lb_endpoints[0].health_status"},
		"a name with another name":      {aCluster + "name: x\ntype: STRICT_DNS\nload_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{endpoint: {hostname: b.example, address: {socket_address: {address: a.example, port_value: 80}}}}]}]}\n", "load_assignment.endpoints[0].lb_endpoints[0].endpoint.hostname"},
		"another resolver":              {aCluster + `name: x` + "\n" + `type: STRICT_DNS` + "\n" + `typed_dns_resolver_config: {name: c, typed_config: {"@type": type.googleapis.com/envoy.extensions.network.dns_resolver.cares.v3.CaresDnsResolverConfig, resolvers: [{socket_address: {address: 10.0.0.53, port_value: 53}}]}}` + "\nload_assignment: {cluster_name: x, endpoints: [{lb_endpoints: [{" + ip + "}]}]}\n", "typed_dns_resolver_config.typed_config.resolvers"},

		// Endpoints.
		"a name in EDS":          {endpoint("endpoint: {address: {socket_address: {address: a.example, port_value: 80}}}"), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address"},
		"an address with a zone": {endpoint("endpoint: {address: {socket_address: {address: 'fe80::1%eth0', port_value: 80}}}"), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.address"},
		"port 0":                 {endpoint("endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 0}}}"), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value"},
		"port 70000":             {endpoint("endpoint: {address: {socket_address: {address: 10.0.0.1, port_value: 70000}}}"), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.port_value"},
		"a named port":           {endpoint("endpoint: {address: {socket_address: {address: 10.0.0.1, named_port: http}}}"), "endpoints[0].lb_endpoints[0].endpoint.address.socket_address.named_port"},
		"an internal address":    {endpoint("endpoint: {address: {envoy_internal_address: {server_listener_name: a}}}"), "endpoints[0].lb_endpoints[0].endpoint.address.envoy_internal_address"},
		"no address":             {endpoint("endpoint: {}"), "endpoints[0].lb_endpoints[0].endpoint.address"},
		"no endpoint":            {endpoint(""), "endpoints[0].lb_endpoints[0].endpoint"},
		"a relative socket":      {endpoint("endpoint: {address: {pipe: {path: a}}}"), "endpoints[0].lb_endpoints[0].endpoint.address.pipe.path"},
		"an abstract socket":     {endpoint(`endpoint: {address: {pipe: {path: "/a\0b"}}}`), "endpoints[0].lb_endpoints[0].endpoint.address.pipe.path"},
		"degraded":               {endpoint("health_status: DEGRADED, " + ip), "endpoints[0].lb_endpoints[0].health_status"},
		"no weight":              {endpoint("load_balancing_weight: 0, " + ip), "endpoints[0].lb_endpoints[0].load_balancing_weight"},
		"priority 128":           {someEDS + "cluster_name: x\nendpoints: [{priority: 128}]\n", "endpoints[0].priority"},
		"drop_overloads":         {someEDS + "cluster_name: x\npolicy: {drop_overloads: [{category: a}]}\n", "policy.drop_overloads"},
		"more addresses":         {endpoint("endpoint: {additional_addresses: [{}], address: {socket_address: {address: 10.0.0.1, port_value: 80}}}"), "endpoints[0].lb_endpoints[0].endpoint.additional_addresses"},

		// Listeners.
		"no chain":                             {listener(""), "filter_chains"},
		"no filter":                            {listener("filter_chains: [{}]"), "filter_chains[0].filters"},
		"no address to listen":                 {aListener + "name: x\nfilter_chains: [{filters: [" + tcp("c") + "]}]\n", "address"},
		"more listen addresses":                {listener("additional_addresses: [{}]\nfilter_chains: [{filters: [" + tcp("c") + "]}]"), "additional_addresses"},
		"UDP":                                  {listener("udp_listener_config: {}\nfilter_chains: [{filters: [" + tcp("c") + "]}]"), "udp_listener_config"},
		"an API listener":                      {listener("api_listener: {}"), "api_listener"},
		"a matcher":                            {listener("filter_chain_matcher: {}\nfilter_chains: [{filters: [" + tcp("c") + "]}]"), "filter_chain_matcher"},
		"a default that matches":               {listener("default_filter_chain: {filter_chain_match: {destination_port: 1}, filters: [" + tcp("c") + "]}"), "default_filter_chain.filter_chain_match"},
		"the same twice":                       {listener("filter_chains: [{filters: [" + tcp("c") + "]}, {filters: [" + tcp("c") + "]}]"), "chains[1].match"},
		"port 0 to match":                      {listener("filter_chains: [{filter_chain_match: {destination_port: 0}, filters: [" + tcp("c") + "]}]"), "filter_chains[0].filter_chain_match.destination_port"},
		"a suffix to match":                    {listener("filter_chains: [{filter_chain_match: {address_suffix: a}, filters: [" + tcp("c") + "]}]"), "filter_chains[0].filter_chain_match.address_suffix"},
		"no prefix to match":                   {listener("filter_chains: [{filter_chain_match: {prefix_ranges: [{address_prefix: a}]}, filters: [" + tcp("c") + "]}]"), "filter_chains[0].filter_chain_match.prefix_ranges[0]"},
		"a source of 9":                        {listener("filter_chains: [{filter_chain_match: {source_type: 9}, filters: [" + tcp("c") + "]}]"), "filter_chains[0].filter_chain_match.source_type"},
		"quic to match":                        {listener("filter_chains: [{filter_chain_match: {transport_protocol: quic}, filters: [" + tcp("c") + "]}]"), "chains[0].match.transport_protocol"},
		"a name to match":                      {listener("filter_chains: [{filter_chain_match: {server_names: ['a*.example']}, filters: [" + tcp("c") + "]}]"), "chains[0].match.server_names[0]"},
		"PROXY from some":                      {listener(`listener_filters: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.proxy_protocol.v3.ProxyProtocol, allow_requests_without_proxy_protocol: true}}]` + "\nfilter_chains: [{filters: [" + tcp("c") + "]}]"), "listener_filters[0].typed_config.allow_requests_without_proxy_protocol"},
		"a filter that is none":                {listener("listener_filters: [{name: p}]\nfilter_chains: [{filters: [" + tcp("c") + "]}]"), "listener_filters[0].typed_config"},
		"a filter of others":                   {listener(`listener_filters: [{name: p, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]` + "\nfilter_chains: [{filters: [" + tcp("c") + "]}]"), "listener_filters[0].typed_config"},
		"filters behind tcp":                   {listener("filter_chains: [{filters: [" + tcp("c") + ", " + tcp("c") + "]}]"), "filter_chains[0].filters[0].typed_config"},
		"rbac at the end":                      {listener(`filter_chains: [{filters: [{name: r, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.rbac.v3.RBAC}}]}]`), "filter_chains[0].filters[0].typed_config"},
		"nothing at the end":                   {listener(`filter_chains: [{filters: [{name: r}]}]`), "filter_chains[0].filters[0].typed_config"},
		"tcp to nothing":                       {listener("filter_chains: [{filters: [" + tcp("") + "]}]"), "filter_chains[0].filters[0].typed_config.cluster"},
		"tcp to several":                       {listener(`filter_chains: [{filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, weighted_clusters: {clusters: [{name: a, weight: 1}, {name: b, weight: 1}]}}}]}]`), "filter_chains[0].filters[0].typed_config.weighted_clusters"},
		"tunnels":                              {listener(`filter_chains: [{filters: [{name: t, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, cluster: a, tunneling_config: {hostname: a}}}]}]`), "filter_chains[0].filters[0].typed_config.tunneling_config"},
		"HTTP in plain without http_inspector": {listener("bind_to_port: false\nfilter_chains: [{filter_chain_match: {application_protocols: [http/1.1]}, filters: [" + tcp("c") + "]}]"), "filter_chains[0].filter_chain_match.application_protocols"},

		// HTTP.
		"no routes":                         {manager("http_filters: [" + router + "]"), hcmAt},
		"routes without name":               {manager("rds: {config_source: {ads: {}}}, http_filters: [" + router + "]"), hcmAt + ".rds.route_config_name"},
		"routes from nowhere":               {manager("rds: {route_config_name: a}, http_filters: [" + router + "]"), hcmAt + ".rds.config_source"},
		"scoped routes":                     {manager("scoped_routes: {name: a}, http_filters: [" + router + "]"), hcmAt + ".scoped_routes"},
		"no router":                         {manager("route_config: {}"), hcmAt + ".http_filters"},
		"behind the router":                 {manager("route_config: {}, http_filters: [" + router + ", " + router + "]"), hcmAt + ".http_filters[1].typed_config"},
		"a filter that is not known":        {manager(`route_config: {}, http_filters: [{name: a, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/envoy.extensions.filters.http.lua.v3.Lua}}, ` + router + "]"), hcmAt + ".http_filters[0].typed_config"},
		"a filter without config":           {manager("route_config: {}, http_filters: [{name: a}, " + router + "]"), hcmAt + ".http_filters[0].typed_config"},
		"another kind of filter":            {manager(`route_config: {}, http_filters: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.raw_buffer.v3.RawBuffer}}, ` + router + "]"), hcmAt + ".http_filters[0].typed_config"},
		"an unknown field in a TypedStruct": {manager(`route_config: {}, http_filters: [{name: a, typed_config: {"@type": type.googleapis.com/xds.type.v3.TypedStruct, type_url: type.googleapis.com/envoy.extensions.filters.http.router.v3.Router, value: {a: 1}}}]`), hcmAt + ".http_filters[0].typed_config"},
		"faults":                            {manager(`route_config: {}, http_filters: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.fault.v3.HTTPFault, abort: {http_status: 503}}}, ` + router + "]"), hcmAt + ".http_filters[0].typed_config.abort"},
		"rules":                             {manager(`route_config: {}, http_filters: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {}}}, ` + router + "]"), hcmAt + ".http_filters[0].typed_config.rules"},
		"rules with DENY":                   {manager(`route_config: {}, http_filters: [{name: a, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {action: DENY, policies: {a: {}}}}}, ` + router + "]"), hcmAt + ".http_filters[0].typed_config.rules"},
		"a request timeout":                 {manager("route_config: {}, request_timeout: 5s, http_filters: [" + router + "]"), hcmAt + ".request_timeout"},
		"CONNECT":                           {manager("route_config: {}, upgrade_configs: [{upgrade_type: CONNECT}], http_filters: [" + router + "]"), hcmAt + ".upgrade_configs[0]"},
		"no WebSocket":                      {manager("route_config: {}, upgrade_configs: [{upgrade_type: websocket, enabled: false}], http_filters: [" + router + "]"), hcmAt + ".upgrade_configs[0]"},
		"bodies of replies":                 {manager("route_config: {}, local_reply_config: {}, http_filters: [" + router + "]"), hcmAt + ".local_reply_config"},
		"the host's port":                   {manager("route_config: {}, strip_any_host_port: true, http_filters: [" + router + "]"), hcmAt + ".strip_any_host_port"},

		// Routes.
		"no action":                   {route("match: {prefix: /}"), "virtual_hosts[0].routes[0]"},
		"no match":                    {route("redirect: {https_redirect: true}"), "virtual_hosts[0].routes[0].match"},
		"a cluster by header":         {route("match: {prefix: /}, route: {cluster_header: x}"), "virtual_hosts[0].routes[0].route.cluster_header"},
		"no cluster":                  {route("match: {prefix: /}, route: {}"), "virtual_hosts[0].routes[0].route"},
		"a path by a template":        {route("match: {path_match_policy: {name: a}}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.path_match_policy"},
		"a header by an empty text":   {route("match: {prefix: /, headers: [{name: a, string_match: {prefix: ''}}]}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.headers[0].string_match"},
		"a header by nothing":         {route("match: {prefix: /, headers: [{name: a, string_match: {}}]}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.headers[0].string_match"},
		"a header by exactly nothing": {route("match: {prefix: /, headers: [{name: a, exact_match: ''}]}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.headers[0].exact_match"},
		"a header by an extension":    {route("match: {prefix: /, headers: [{name: a, string_match: {custom: {name: a}}}]}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.headers[0].string_match.custom"},
		"metadata":                    {route("match: {prefix: /, dynamic_metadata: [{filter: a}]}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.dynamic_metadata"},
		"half of the requests":        {route("match: {prefix: /, runtime_fraction: {default_value: {numerator: 50}}}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.runtime_fraction"},
		"a path that is none":         {route("match: {prefix: a}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.prefix"},
		"an expression":               {route("match: {safe_regex: {regex: '('}}, route: {cluster: c}"), "virtual_hosts[0].routes[0].match.safe_regex"},
		"an operator":                 {route("match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: '%DOWNSTREAM_REMOTE_ADDRESS%'}}]"), "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value"},
		"half an operator":            {route("match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: '100%'}}]"), "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value"},
		"who the client is":           {route("match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: jurat-result, value: fine}}]"), "virtual_hosts[0].routes[0].request_headers.set[0].name"},
		"an action of tomorrow":       {route("match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: b}, append_action: 9}]"), "virtual_hosts[0].routes[0].request_headers_to_add[0].append_action"},
		"two actions":                 {route("match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a, value: b}, append_action: ADD_IF_ABSENT, append: true}]"), "virtual_hosts[0].routes[0].request_headers_to_add[0].append"},
		"overwritten by nothing":      {route("match: {prefix: /}, route: {cluster: c}, request_headers_to_add: [{header: {key: a}, append_action: OVERWRITE_IF_EXISTS_OR_ADD}]"), "virtual_hosts[0].routes[0].request_headers_to_add[0].header.value"},
		"a retry on a word":           {route("match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 'envoy-ratelimited'}}"), "virtual_hosts[0].routes[0].route.retry_policy.retry_on[0]"},
		"hedges from the beginning":   {route("match: {prefix: /}, route: {cluster: c, hedge_policy: {initial_requests: 2}}"), "virtual_hosts[0].routes[0].route.hedge_policy.initial_requests"},
		"hedges by chance":            {route("match: {prefix: /}, route: {cluster: c, hedge_policy: {additional_request_chance: {numerator: 1}}}"), "virtual_hosts[0].routes[0].route.hedge_policy.additional_request_chance"},
		"a retry by priority":         {route("match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 5xx, retry_priority: {name: a}}}"), "virtual_hosts[0].routes[0].route.retry_policy.retry_priority"},
		"a retry elsewhere":           {route("match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 5xx, retry_host_predicate: [{name: a}]}}"), "virtual_hosts[0].routes[0].route.retry_policy.retry_host_predicate[0]"},
		"a negative number":           {route("match: {prefix: /}, route: {cluster: c, retry_policy: {retry_on: 5xx, host_selection_retry_max_attempts: -1}}"), "virtual_hosts[0].routes[0].route.retry_policy.host_selection_retry_max_attempts"},
		"a hash of nothing":           {route("match: {prefix: /}, route: {cluster: c, hash_policy: [{}]}"), "virtual_hosts[0].routes[0].route.hash_policy[0]"},
		"a hash of no address":        {route("match: {prefix: /}, route: {cluster: c, hash_policy: [{connection_properties: {}}]}"), "virtual_hosts[0].routes[0].route.hash_policy[0].connection_properties.source_ip"},
		"a priority":                  {route("match: {prefix: /}, route: {cluster: c, priority: HIGH}"), "virtual_hosts[0].routes[0].route.priority"},
		"subsets of a cluster":        {route("match: {prefix: /}, route: {cluster: c, metadata_match: {}}"), "virtual_hosts[0].routes[0].route.metadata_match"},
		"another sum":                 {route("match: {prefix: /}, route: {weighted_clusters: {clusters: [{name: c, weight: 1}], total_weight: 3}}"), "virtual_hosts[0].routes[0].route.weighted_clusters.total_weight"},
		"no weighted cluster":         {route("match: {prefix: /}, route: {weighted_clusters: {}}"), "virtual_hosts[0].routes[0].route.weighted_clusters.clusters"},
		"port 70000 to go to":         {route("match: {prefix: /}, redirect: {port_redirect: 70000}"), "virtual_hosts[0].routes[0].redirect.port_redirect"},
		"a redirect of 9":             {route("match: {prefix: /}, redirect: {response_code: 9}"), "virtual_hosts[0].routes[0].redirect.response_code"},
		"an answer of 99":             {route("match: {prefix: /}, direct_response: {status: 99}"), "virtual_hosts[0].routes[0].direct_response.status"},
		"an answer out of a file":     {route("match: {prefix: /}, direct_response: {status: 200, body: {filename: /etc/shadow}}"), "virtual_hosts[0].routes[0].direct_response.body.filename"},
		"an answer of nothing":        {route("match: {prefix: /}, direct_response: {status: 200, body: {}}"), "virtual_hosts[0].routes[0].direct_response.body"},
		"CORS":                        {route(`match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {cors: {"@type": type.googleapis.com/envoy.extensions.filters.http.cors.v3.CorsPolicy}}`), `virtual_hosts[0].routes[0].typed_per_filter_config["cors"]`},
		"rules of a route":            {route(`match: {prefix: /}, route: {cluster: c}, typed_per_filter_config: {a: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {}}}}`), `virtual_hosts[0].routes[0].typed_per_filter_config["a"].rbac.rules`},
		"TLS for some":                {aRoute + "name: x\nvirtual_hosts: [{name: v, domains: ['*'], require_tls: EXTERNAL_ONLY}]\n", "virtual_hosts[0].require_tls"},
		"hosts on demand":             {aRoute + "name: x\nvhds: {}\n", "vhds"},
		"a domain twice":              {aRoute + "name: x\nvirtual_hosts: [{name: v, domains: [a]}, {name: w, domains: [a]}]\n", "virtual_hosts[1].domains[0]"},
		"the most specific wins":      {aRoute + "name: x\nmost_specific_header_mutations_wins: true\n", "most_specific_header_mutations_wins"},
	} {
		out := envoy.Translate(envoy.Input{Resources: load(t, c.text), Policies: []string{"mesh"}})
		sound(t, out)
		if len(out.Problems) != 1 || len(out.Config.Listeners) != 0 || len(out.Config.Clusters) != 0 {
			t.Errorf("%s: not one problem, and nothing else:\n%s", name, render(out))
			continue
		}
		var subjects []string
		for _, err := range out.Problems {
			subjects = subjectsOf(err)
		}
		if !slices.Contains(subjects, c.at) {
			t.Errorf("%s: at %q, want %q\n%s", name, subjects, c.at, render(out))
		}
	}
}

func subjectsOf(err error) []string {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []string
		for _, e := range joined.Unwrap() {
			all = append(all, subjectsOf(e)...)
		}
		return all
	}
	var coded *attest.Error
	if errors.As(err, &coded) {
		return []string{coded.Subject}
	}
	return []string{"no *attest.Error"}
}

// An EDS update can't have an attested cluster take endpoints in plain, or others than the one validator is for.
func TestEndpointsOfAnAttestedCluster(t *testing.T) {
	other := strings.Replace(upTLS, "policy: mesh", "policy: weaker", 1)
	cluster := aCluster + "name: c\ntype: EDS\neds_cluster_config: {eds_config: {ads: {}}, service_name: s}\ntransport_socket_matches:\n" +
		"- {match: {m: a}, transport_socket: " + upTLS + "}\n- {match: {m: b}, transport_socket: " + other + "}\n- {match: {m: c}, transport_socket: " + plainTLS + "}\n- {match: {}, transport_socket: {name: envoy.transport_sockets.raw_buffer}}\n"
	endpoints := func(words ...string) string {
		text := someEDS + "cluster_name: s\nendpoints:\n- lb_endpoints:\n"
		for i, w := range words {
			text += "  - {endpoint: {address: {socket_address: {address: 10.0.0." + string(rune('1'+i)) + ", port_value: 80}}}, metadata: {filter_metadata: {envoy.transport_socket_match: {" + w + "}}}}\n"
		}
		return text
	}
	for name, c := range map[string]struct {
		words []string
		at    string
	}{
		"all of one validator":   {[]string{"m: a", "m: a, n: x"}, ""},
		"one in plain":           {[]string{"m: a", ""}, "endpoints[0].lb_endpoints[1]"},
		"a word that is like it": {[]string{"m: A"}, "endpoints[0].lb_endpoints[0]"},
		"another kind of value":  {[]string{"m: [a]"}, "endpoints[0].lb_endpoints[0]"},
		"two validators":         {[]string{"m: a", "m: b"}, "endpoints[0].lb_endpoints[1]"},
		"certificates":           {[]string{"m: a", "m: c"}, "endpoints[0].lb_endpoints[1].transport_socket_matches[2].transport_socket.typed_config"},
	} {
		out := translate(t, docs(cluster, endpoints(c.words...)), "mesh", "weaker")
		got := out.Config.Cluster("c")
		if c.at == "" {
			if got == nil || got.Attested == nil || got.Attested.Require != "mesh" {
				t.Errorf("%s: %s", name, render(out))
			}
			continue
		}
		err := out.Problems[envoy.Key{Type: resource.Endpoints, Name: "s"}]
		if got != nil || err == nil || !slices.Contains(subjectsOf(err), c.at) {
			t.Errorf("%s: %s", name, render(out))
		}
	}
	// Without an endpoint the first validator counts.
	out := translate(t, docs(cluster, someEDS+"cluster_name: s\n"), "mesh", "weaker")
	if got := out.Config.Cluster("c"); got == nil || got.Attested == nil || got.Attested.Require != "mesh" {
		t.Error(render(out))
	}
	// Names that endpoints are called do not change what they have to prove.
	if a := out.Config.Cluster("c").Attested; a.Name != "" || a.Reattest != 0 {
		t.Errorf("%+v", a)
	}
}

// A cluster whose TLS nobody uses is as plain as its endpoints say, and no endpoint can use that TLS.
func TestUnusedTLS(t *testing.T) {
	cluster := aCluster + "name: c\ntransport_socket: " + plainTLS + "\ntransport_socket_matches: [{match: {m: plain}, transport_socket: {name: envoy.transport_sockets.raw_buffer}}]\n"
	assignment := func(word string) string {
		return "load_assignment: {cluster_name: c, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: 80}}}, metadata: {filter_metadata: {envoy.transport_socket_match: {m: " + word + "}}}}]}]}\n"
	}
	if out := translate(t, cluster+assignment("plain")); out.Config.Cluster("c") == nil || out.Config.Cluster("c").Attested != nil {
		t.Error(render(out))
	}
	for _, text := range []string{cluster + assignment("other"), cluster} {
		if out := translate(t, text); len(out.Problems) != 1 || out.Config.Cluster("c") != nil {
			t.Error(render(out))
		}
	}
}

func TestServerNames(t *testing.T) {
	for sni, want := range map[string]string{
		"": "", "pay.example": "pay.example",
		"outbound_.8080_._.pay.default.svc.cluster.local": "pay.default.svc.cluster.local",
		"outbound_.8080_.v1_.pay.example":                 "pay.example",
		"outbound_.8080":                                  "outbound_.8080",
	} {
		text := strings.Replace(upTLS, "common_tls_context:", "sni: '"+sni+"', common_tls_context:", 1)
		out := translate(t, aCluster+"name: c\ntransport_socket: "+text+"\n", "mesh")
		if c := out.Config.Cluster("c"); c == nil || c.Attested.Name != want {
			t.Errorf("%q: %s", sni, render(out))
		}
	}
}

// Original destinations: in plain on this machine where the control plane says so, elsewhere as "unsafe", and attested with
// a validator.
func TestOriginalDestination(t *testing.T) {
	cluster := aCluster + "name: c\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\n"
	for text, want := range map[string]struct{ unsafe, attested bool }{
		cluster: {true, false},
		cluster + "upstream_bind_config: {source_address: {address: 127.0.0.6, port_value: 0}}\n": {false, false},
		cluster + "upstream_bind_config: {source_address: {address: '::6', port_value: 0}}\n":     {false, false},
		cluster + "transport_socket: " + upTLS + "\n":                                             {false, true},
	} {
		out := translate(t, text, "mesh")
		c := out.Config.Cluster("c")
		if c == nil || c.OriginalDestination == nil || c.OriginalDestination.UnsafePlain != want.unsafe || (c.Attested != nil) != want.attested {
			t.Errorf("%s\n%s", text, render(out))
		}
	}
}

// While a virtual listener waits, or is not sound, what it is for goes nowhere: it must not become what others send on in plain.
func TestVirtualListenerNotYet(t *testing.T) {
	port := aListener + "name: out\n" + address("127.0.0.1", "15001") + "use_original_dst: true\nfilter_chains: [{filters: [" + tcp("passthrough") + "]}]\n"
	passthrough := aCluster + "name: passthrough\ntype: ORIGINAL_DST\nlb_policy: CLUSTER_PROVIDED\n"
	virtual := func(rest string) string {
		return aListener + "name: v\n" + address("10.0.0.1", "80") + "bind_to_port: false\n" + rest + "\n"
	}
	for name, c := range map[string]struct{ text, cluster string }{
		"sound":    {virtual("filter_chains: [{filters: [" + tcp("c") + "]}]"), "c"},
		"waits":    {virtual("filter_chains: [{filters: [" + rdsOf("r") + "]}]"), "jurat:nowhere"},
		"refused":  {virtual("freebind: true\nfilter_chains: [{filters: [" + tcp("c") + "]}]"), "jurat:nowhere"},
		"no match": {virtual("filter_chains: [{filter_chain_match: {destination_port: 81}, filters: [" + tcp("c") + "]}]"), "jurat:nowhere"},
		"no range": {virtual("filter_chains: [{filter_chain_match: {prefix_ranges: [{address_prefix: 10.1.0.0, prefix_len: 16}]}, filters: [" + tcp("c") + "]}]"), "jurat:nowhere"},
		"in range": {virtual("filter_chains: [{filter_chain_match: {prefix_ranges: [{address_prefix: 10.0.0.0, prefix_len: 16}]}, filters: [" + tcp("c") + "]}]"), "c"},
		"cluster":  {docs(virtual("filter_chains: [{filters: ["+tcp("eds")+"]}]"), aCluster+"name: eds\ntype: EDS\neds_cluster_config: {eds_config: {ads: {}}}\n"), "jurat:nowhere"},
		"twice":    {virtual("filter_chains: [{filters: [" + tcp("c") + "]}, {filters: [" + tcp("d") + "]}]"), "jurat:nowhere"},
	} {
		out := translate(t, docs(port, passthrough, c.text))
		if len(out.Config.Listeners) != 1 {
			t.Errorf("%s: %s", name, render(out))
			continue
		}
		var got string
		for _, ch := range out.Config.Listeners[0].Chains {
			if slices.Equal(ch.Match.DestinationPorts, []uint16{80}) && slices.Equal(ch.Match.PrefixRanges, []string{"10.0.0.1/32"}) {
				got = ch.Cluster
			}
		}
		if got != c.cluster {
			t.Errorf("%s: to %q, want %q\n%s", name, got, c.cluster, render(out))
		}
		if n := out.Config.Cluster("jurat:nowhere"); c.cluster == "jurat:nowhere" && (n == nil || len(n.Static()) != 0 || n.OriginalDestination != nil) {
			t.Errorf("%s: %+v", name, n)
		}
	}
	// Of this one not even the address is known.
	set := load(t, docs(port, passthrough))
	set.Add(resource.Resource{Type: resource.Listener, Name: "v", Body: []byte{0xff}})
	out := envoy.Translate(envoy.Input{Resources: set})
	if len(out.Config.Listeners) != 0 || names(out.Warming) != "Listener out" {
		t.Error(render(out))
	}
}

func TestOneAddress(t *testing.T) {
	listener := func(name string) string {
		return aListener + "name: " + name + "\n" + address("127.0.0.1", "80") + "filter_chains: [{filters: [" + tcp("c") + "]}]\n"
	}
	out := translate(t, docs(listener("a"), listener("b")))
	if len(out.Config.Listeners) != 1 || names(out.Problems) != "Listener b" {
		t.Error(render(out))
	}
}

// A copy goes to an attested cluster alone where the requests do, and a cluster that is not there is none.
func TestMirrors(t *testing.T) {
	text := docs(aCluster+"name: c\ntransport_socket: "+upTLS+"\n", aCluster+"name: plain\n",
		aListener+"name: l\n"+address("127.0.0.1", "80")+"filter_chains: [{filters: ["+rdsOf("r")+"]}]\n")
	for cluster, fine := range map[string]bool{"c": true, "plain": false, "gone": false} {
		out := translate(t, docs(text, aRoute+"name: r\nvirtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c, request_mirror_policies: [{cluster: "+cluster+"}]}}]}]\n"), "mesh")
		if (len(out.Config.Listeners) == 1) != fine || (names(out.Problems) == "Listener l") == fine {
			t.Errorf("%s: %s", cluster, render(out))
		}
	}
}

// Addresses that others reach are said to be so, and those that nobody else reaches are not.
func TestUnsafeListen(t *testing.T) {
	chains := "filter_chains: [{filters: [" + tcp("c") + "]}]\n"
	for text, want := range map[string]bool{
		address("0.0.0.0", "80"): true, address("127.0.0.1", "80"): false, address("::1", "80"): false, "address: {pipe: {path: /a}}\n": false,
	} {
		out := translate(t, aListener+"name: l\n"+text+chains)
		if len(out.Config.Listeners) != 1 || out.Config.Listeners[0].UnsafeListen != want || !out.Config.Listeners[0].Plain {
			t.Errorf("%s: %s", text, render(out))
		}
	}
}

// HTTP is told from other things in plain where http_inspector does so, for every listener that hands over to one that has it.
func TestDetectHTTP(t *testing.T) {
	inspector := `listener_filters: [{name: h, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}]` + "\n"
	chains := "filter_chains: [{filter_chain_match: {transport_protocol: raw_buffer, application_protocols: [http/1.1]}, filters: [" + tcp("c") + "]}, {filter_chain_match: {transport_protocol: raw_buffer}, filters: [" + tcp("d") + "]}]\n"
	alone := aListener + "name: l\n" + address("127.0.0.1", "80")
	port := aListener + "name: p\n" + address("127.0.0.1", "15001") + "use_original_dst: true\nfilter_chains: [{filters: [" + tcp("e") + "]}]\n"
	for name, c := range map[string]struct {
		text string
		want bool
	}{
		"with it":        {alone + inspector + chains, true},
		"without it":     {alone + chains, false},
		"nothing to ask": {alone + inspector + "filter_chains: [{filters: [" + tcp("c") + "]}]\n", false},
		"handed over":    {docs(port, aListener+"name: v\n"+address("10.0.0.1", "80")+"bind_to_port: false\n"+inspector+chains), true},
	} {
		out := translate(t, c.text)
		if len(out.Config.Listeners) != 1 || out.Config.Listeners[0].DetectHTTP != c.want {
			t.Errorf("%s: %s", name, render(out))
		}
	}
}

// Times of streams are those of the user of routes, where a route does not say.
func TestIdle(t *testing.T) {
	routes := aRoute + "name: r\nvirtual_hosts: [{name: v, domains: ['*'], routes: [{match: {prefix: /}, route: {cluster: c}}]}]\n"
	listener := func(name, port, idle string) string {
		return aListener + "name: " + name + "\n" + address("127.0.0.1", port) + "filter_chains: [{filters: [" + strings.Replace(rdsOf("r"), "rds:", "stream_idle_timeout: "+idle+", rds:", 1) + "]}]\n"
	}
	out := translate(t, docs(routes, listener("a", "80", "0s"), listener("b", "81", "7s")))
	if len(out.Config.Listeners) != 2 {
		t.Fatal(render(out))
	}
	idle := func(l config.Listener) string { return l.HTTP.VirtualHosts[0].Routes[0].Route.IdleTimeout.String() }
	if a, b := idle(out.Config.Listeners[0]), idle(out.Config.Listeners[1]); a != "-1ns" || b != "7s" {
		t.Errorf("%s %s", a, b)
	}
}

// What a few megabytes would be made of is bounded before it is made: by resource, and for all of them together.
func TestTooMuch(t *testing.T) {
	name := protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType), "x")
	many := func(n int) []byte { // empty elements of field 4 of a RouteConfiguration, which are 2 bytes each
		return append(slices.Clone(name), bytes.Repeat([]byte{4<<3 | 2, 0}, n)...)
	}
	set := envoy.Set{}
	set.Add(resource.Resource{Type: resource.Route, Name: "x", Body: many(2_000_000)})
	out := envoy.Translate(envoy.Input{Resources: set})
	if err := out.Problems[envoy.Key{Type: resource.Route, Name: "x"}]; attest.CodeOf(err) != attest.CodeOversized {
		t.Error(err)
	}
	if _, err := envoy.Text(set[envoy.Key{Type: resource.Route, Name: "x"}]); attest.CodeOf(err) != attest.CodeOversized {
		t.Error(err)
	}
	// Many who refer to a large one are as much as many large ones.
	var hosts []string
	for i := range 600 {
		hosts = append(hosts, fmt.Sprintf("{name: v%d, domains: [d%d]}", i, i))
	}
	set = load(t, aRoute+"name: r\nvirtual_hosts: ["+strings.Join(hosts, ", ")+"]\n")
	for i := range 60 {
		for k, r := range load(t, aListener+fmt.Sprintf("name: l%d\n", i)+address("127.0.0.1", fmt.Sprint(1000+i))+"filter_chains: [{filters: ["+rdsOf("r")+"]}]\n") {
			set[k] = r
		}
	}
	out = envoy.TranslateWithin(envoy.Input{Resources: set}, 20_000)
	oversized := 0
	for _, err := range out.Problems {
		if attest.CodeOf(err) == attest.CodeOversized {
			oversized++
		}
	}
	if oversized == 0 || len(out.Config.Listeners) == 0 || len(out.Config.Listeners)+oversized != 60 {
		t.Errorf("%d listeners, %d too many", len(out.Config.Listeners), oversized)
	}
}
