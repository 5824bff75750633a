package inspect_test

import (
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	adminv3 "github.com/envoyproxy/go-control-plane/envoy/admin/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	jurat "github.com/jurat-tls/jurat/xds/api/jurat/config/v1alpha1"
	"github.com/jurat-tls/jurat/xds/inspect"
	"github.com/jurat-tls/jurat/xds/resource"
)

const secret = "secret-key-bytes"

var now = time.Date(2026, 3, 1, 12, 0, 0, 5, time.UTC)

func of(t testing.TB, name, version string, m proto.Message) resource.Resource {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return resource.Resource{Type: a.GetTypeUrl(), Name: name, Version: version, Body: a.GetValue()}
}

func held(r resource.Resource, running *resource.Resource) inspect.Resource {
	return inspect.Resource{Resource: r, Condition: inspect.Accepted, Standing: inspect.Synced, Since: now, Running: running}
}

func all(t testing.TB) []inspect.Resource {
	listener := func(version, stat string) resource.Resource {
		return of(t, "out", version, &listenerv3.Listener{Name: "out", StatPrefix: stat})
	}
	old, newest := listener("1", "old"), listener("2", "new")
	cluster := of(t, "pay", "3", &clusterv3.Cluster{Name: "pay"})
	key := of(t, "tls", "4", &tlsv3.Secret{Name: "tls", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
		PrivateKey: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: secret}},
	}}})
	eds := of(t, "pay", "5", &endpointv3.ClusterLoadAssignment{ClusterName: "pay"})
	route := of(t, "r", "6", &routev3.RouteConfiguration{Name: "r"})
	refused := held(cluster, &cluster)
	refused.Condition, refused.Standing = inspect.Refused, inspect.Rejected
	refused.Refusal = &inspect.Refusal{Version: "9", Reason: "J905: plain\xff", Time: now}
	asked := func(typ, name string, c inspect.Condition) inspect.Resource {
		return inspect.Resource{Resource: resource.Resource{Type: typ, Name: name}, Condition: c, Standing: inspect.NotSent}
	}
	gone := asked(resource.Cluster, "gone", inspect.DoesNotExist)
	gone.Running = &resource.Resource{Type: resource.Cluster, Name: "gone", Version: "1", Body: of(t, "gone", "1", &clusterv3.Cluster{Name: "gone"}).Body}
	never := asked(resource.Listener, "never", inspect.Refused)
	never.Refusal = &inspect.Refusal{Version: "1", Reason: "no"}
	return []inspect.Resource{
		held(of(t, "mesh", "7", &jurat.AttestationPolicy{Name: "mesh", Policy: "x"}), nil),
		refused, gone, asked(resource.Cluster, "wanted", inspect.Requested), held(eds, &eds), held(key, &key), asked(resource.Secret, "late", inspect.TimedOut),
		held(newest, &old), never, held(route, &route), asked(resource.Route, "none", inspect.DoesNotExist),
	}
}

func dump(t *testing.T, endpoints bool) (*adminv3.ConfigDump, string) {
	t.Helper()
	b := &inspect.Bootstrap{
		Node:   inspect.Node{ID: "pay.example/1", Cluster: "pay", Agent: "jurat", Version: "1.0", Metadata: map[string]any{"NAMESPACE": "default", "api_token": secret, "list": []any{1.0, nil, true}}},
		Server: "control:18000", Delta: true, Admin: "127.0.0.1", Port: 15000, Since: now,
	}
	configs, err := inspect.Dump(b, all(t), map[string]string{resource.Listener: "2", resource.Cluster: "3"}, endpoints)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(map[string]any{"configs": configs})
	if err != nil {
		t.Fatal(err)
	}
	out := new(adminv3.ConfigDump)
	if err := protojson.Unmarshal(raw, out); err != nil { // strictly: an unknown field is an error
		t.Fatalf("%v\n%s", err, raw)
	}
	if strings.Contains(string(raw), secret) || strings.Contains(string(raw), base64.StdEncoding.EncodeToString([]byte(secret))) {
		t.Errorf("a secret is shown: %s", raw)
	}
	return out, string(raw)
}

func section[M proto.Message](t *testing.T, d *adminv3.ConfigDump, into M) M {
	t.Helper()
	for _, a := range d.GetConfigs() {
		if a.MessageIs(into) {
			if err := a.UnmarshalTo(into); err != nil {
				t.Fatal(err)
			}
			return into
		}
	}
	t.Fatalf("there is no %T", into)
	return into
}

func TestDump(t *testing.T) {
	d, _ := dump(t, true)
	boot := section(t, d, new(adminv3.BootstrapConfigDump))
	node := boot.GetBootstrap().GetNode()
	if node.GetId() != "pay.example/1" || node.GetUserAgentVersion() != "1.0" || node.GetMetadata().GetFields()["NAMESPACE"].GetStringValue() != "default" ||
		boot.GetBootstrap().GetAdmin().GetAddress().GetSocketAddress().GetPortValue() != 15000 || !boot.GetLastUpdated().AsTime().Equal(now) ||
		boot.GetBootstrap().GetDynamicResources().GetAdsConfig().GetApiType() != corev3.ApiConfigSource_DELTA_GRPC {
		t.Errorf("bootstrap %v", boot)
	}

	l := section(t, d, new(adminv3.ListenersConfigDump))
	if l.GetVersionInfo() != "2" || len(l.GetDynamicListeners()) != 2 {
		t.Fatalf("listeners %v", l)
	}
	out, never := l.GetDynamicListeners()[0], l.GetDynamicListeners()[1]
	read := func(a *anypb.Any) string {
		m := new(listenerv3.Listener)
		if err := a.UnmarshalTo(m); err != nil {
			t.Fatal(err)
		}
		return m.GetStatPrefix()
	}
	if out.GetName() != "out" || out.GetActiveState().GetVersionInfo() != "1" || read(out.GetActiveState().GetListener()) != "old" || out.GetActiveState().GetLastUpdated() != nil ||
		out.GetWarmingState().GetVersionInfo() != "2" || read(out.GetWarmingState().GetListener()) != "new" || !out.GetWarmingState().GetLastUpdated().AsTime().Equal(now) ||
		out.GetErrorState() != nil || out.GetClientStatus() != adminv3.ClientResourceStatus_ACKED {
		t.Errorf("out: %v", out)
	}
	if never.GetActiveState() != nil || never.GetWarmingState() != nil || never.GetErrorState().GetDetails() != "no" || never.GetClientStatus() != adminv3.ClientResourceStatus_NACKED {
		t.Errorf("never: %v", never)
	}

	c := section(t, d, new(adminv3.ClustersConfigDump))
	if c.GetVersionInfo() != "3" || len(c.GetDynamicActiveClusters()) != 2 || len(c.GetDynamicWarmingClusters()) != 1 {
		t.Fatalf("clusters %v", c)
	}
	pay, gone, wanted := c.GetDynamicActiveClusters()[0], c.GetDynamicActiveClusters()[1], c.GetDynamicWarmingClusters()[0]
	if pay.GetVersionInfo() != "3" || pay.GetClientStatus() != adminv3.ClientResourceStatus_NACKED || pay.GetErrorState().GetVersionInfo() != "9" ||
		!strings.HasPrefix(pay.GetErrorState().GetDetails(), "J905: plain") || !pay.GetErrorState().GetLastUpdateAttempt().AsTime().Equal(now) {
		t.Errorf("pay: %v", pay)
	}
	if gone.GetClientStatus() != adminv3.ClientResourceStatus_DOES_NOT_EXIST || wanted.GetClientStatus() != adminv3.ClientResourceStatus_REQUESTED || wanted.GetVersionInfo() != "" {
		t.Errorf("gone: %v, wanted: %v", gone, wanted)
	}
	name := new(clusterv3.Cluster)
	if err := wanted.GetCluster().UnmarshalTo(name); err != nil || name.GetName() != "wanted" {
		t.Errorf("wanted: %v %v", name, err)
	}

	s := section(t, d, new(adminv3.SecretsConfigDump))
	if len(s.GetDynamicActiveSecrets()) != 1 || s.GetDynamicActiveSecrets()[0].GetName() != "tls" || s.GetDynamicActiveSecrets()[0].GetVersionInfo() != "4" ||
		len(s.GetDynamicWarmingSecrets()) != 1 || s.GetDynamicWarmingSecrets()[0].GetClientStatus() != adminv3.ClientResourceStatus_TIMEOUT {
		t.Errorf("secrets %v", s)
	}
	kept := new(tlsv3.Secret)
	if err := s.GetDynamicActiveSecrets()[0].GetSecret().UnmarshalTo(kept); err != nil || kept.GetTlsCertificate().GetPrivateKey().GetInlineString() != "[redacted]" {
		t.Errorf("%v %v", kept, err)
	}
	r := section(t, d, new(adminv3.RoutesConfigDump))
	if len(r.GetDynamicRouteConfigs()) != 2 || r.GetDynamicRouteConfigs()[0].GetVersionInfo() != "6" || r.GetDynamicRouteConfigs()[1].GetClientStatus() != adminv3.ClientResourceStatus_DOES_NOT_EXIST {
		t.Errorf("routes %v", r)
	}
	e := section(t, d, new(adminv3.EndpointsConfigDump))
	if len(e.GetDynamicEndpointConfigs()) != 1 || e.GetDynamicEndpointConfigs()[0].GetVersionInfo() != "5" {
		t.Errorf("endpoints %v", e)
	}
	if _, raw := dump(t, false); strings.Contains(raw, "EndpointsConfigDump") {
		t.Error("endpoints that nobody asked for")
	}
}

// What can't be read is shown as that, and no word of it.
func TestDumpOfGarbage(t *testing.T) {
	r := held(resource.Resource{Type: resource.Cluster, Name: "x", Version: "1", Body: []byte("\x0a\xff" + secret)}, nil)
	configs, err := inspect.Dump(&inspect.Bootstrap{Admin: "/run/admin"}, []inspect.Resource{r}, nil, false)
	if err != nil || !strings.Contains(string(configs[1]), "not to be read") || strings.Contains(string(configs[1]), secret) || !strings.Contains(string(configs[0]), `"path":"/run/admin"`) {
		t.Errorf("%v: %s", err, configs)
	}
}
