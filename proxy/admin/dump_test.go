package admin_test

import (
	"encoding/json"
	"net/http"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/admin"
)

func TestConfigDumpQueries(t *testing.T) {
	addr := serve(t, local, source(&did{}), admin.Options{})
	const types = `"type.googleapis.com/envoy.`
	clusters := func(elements ...string) string {
		return `{"@type": ` + types + `admin.v3.ClustersConfigDump", "version_info": "12345678901234567", "dynamic_active_clusters": [` + strings.Join(elements, ",") + `]}`
	}
	pay := `{"version_info": "1", "cluster": {"@type": ` + types + `config.cluster.v3.Cluster", "name": "pay", "type": "STATIC"}}`
	of := func(typ, fields string) string {
		return `{"@type": ` + types + `admin.v3.` + typ + `", ` + fields + `}`
	}
	for query, want := range map[string]string{
		"resource=dynamic_listeners": of("ListenersConfigDump.DynamicListener", `"name": "out", "active_state": {"version_info": "3"}`),
		"resource=dynamic_active_clusters&mask=cluster.name,version_info": of("ClustersConfigDump.DynamicCluster", `"version_info": "1", "cluster": {"@type": `+types+`config.cluster.v3.Cluster", "name": "pay"}`) + "," +
			of("ClustersConfigDump.DynamicCluster", `"version_info": "2", "cluster": {"@type": `+types+`config.cluster.v3.Cluster", "name": "side"}`),
		"resource=dynamic_active_clusters&name_regex=p.y&mask=version_info": of("ClustersConfigDump.DynamicCluster", `"version_info": "1"`),
		"resource=dynamic_active_clusters&name_regex=p":                     "",
		"resource=dynamic_active_clusters&mask=cluster.name.more":           of("ClustersConfigDump.DynamicCluster", `"cluster": {"@type": `+types+`config.cluster.v3.Cluster"}`) + "," + of("ClustersConfigDump.DynamicCluster", `"cluster": {"@type": `+types+`config.cluster.v3.Cluster"}`),
		"resource=static_clusters":                                          "",
		"resource=dynamic_endpoint_configs":                                 "",
		"resource=dynamic_endpoint_configs&include_eds":                     of("EndpointsConfigDump.DynamicEndpointConfig", `"endpoint_config": {"@type": `+types+`config.endpoint.v3.ClusterLoadAssignment", "cluster_name": "pay"}`),
		"resource=dynamic_endpoint_configs&include_eds&name_regex=pay":      of("EndpointsConfigDump.DynamicEndpointConfig", `"endpoint_config": {"@type": `+types+`config.endpoint.v3.ClusterLoadAssignment", "cluster_name": "pay"}`),
		"mask=bootstrap.node.id,version_info":                               of("BootstrapConfigDump", `"bootstrap": {"node": {"id": "a"}}`) + "," + of("ClustersConfigDump", `"version_info": "12345678901234567"`),
		"name_regex=pay":                                                    of("BootstrapConfigDump", `"bootstrap": {"node": {"id": "a", "cluster": "b"}}`) + "," + clusters(pay) + "," + `{"@type": ` + types + `admin.v3.ListenersConfigDump"}`,
	} {
		a := ask(t, addr, http.MethodGet, "/config_dump?"+query)
		var got, expected any
		if err := json.Unmarshal([]byte(a.body), &got); err != nil || a.status != http.StatusOK {
			t.Errorf("%s: %d %v %s", query, a.status, err, a.body)
			continue
		}
		if err := json.Unmarshal([]byte(`{"configs": [`+want+`]}`), &expected); err != nil {
			t.Fatalf("%v: %s", err, want)
		}
		if !reflect.DeepEqual(got, expected) {
			t.Errorf("%s: got %s\nwant %s", query, a.body, want)
		}
	}
	for query, want := range map[string]int{
		"resource=nonsense": 404, "resource=" + url.QueryEscape("version_info"): 404, "mask=a..b": 400, "mask=,": 400, "mask=A": 400, "mask=" + url.QueryEscape("a b"): 400, "name_regex=(": 400, "name_regex=" + url.QueryEscape("(x*){999}"): 400, "name_regex=" + url.QueryEscape("a)|(b"): 400,
	} {
		if a := ask(t, addr, http.MethodGet, "/config_dump?"+query); a.status != want || strings.Contains(a.body, "configs") {
			t.Errorf("%s: %+v", query, a)
		}
	}
	// What is asked for by name is of the control plane: what runs in words of our own is no such resource.
	if a := ask(t, addr, http.MethodGet, "/config_dump?include_eds"); !strings.Contains(a.body, "cluster_name") || !strings.Contains(a.body, `"jurat"`) {
		t.Errorf("%+v", a)
	}
	s := source(&did{})
	s.Configs = func(bool) ([]json.RawMessage, error) { return nil, errBroken }
	if a := ask(t, serve(t, local, s, admin.Options{}), http.MethodGet, "/config_dump"); a.status != 500 || strings.Contains(a.body, "broken") {
		t.Errorf("%+v", a)
	}
	s.Configs = nil
	if a := ask(t, serve(t, local, s, admin.Options{}), http.MethodGet, "/config_dump"); a.status != 200 || !strings.Contains(a.body, "static") {
		t.Errorf("%+v", a)
	}
}
