package envoy_test

import (
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

const someFile = `# two clusters and an assignment
"@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
name: outbound|8080||svc
connect_timeout: 5s
type: EDS
typed_extension_protocol_options:
  envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
    "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
    explicit_http_config: {http2_protocol_options: {}}
---
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: b
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: c
---
"@type": type.googleapis.com/jurat.config.v1alpha1.AttestationPolicy
name: mesh
serial: 42
policy: |
  policy: mesh
`

func TestLoad(t *testing.T) {
	docs, err := envoy.Load("f.yaml", []byte(someFile))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, d := range docs {
		got = append(got, d.Position+" "+d.Type[strings.LastIndexByte(d.Type, '.')+1:]+" "+d.Name)
		if err := d.Validate(); err != nil {
			t.Error(err)
		}
	}
	want := "f.yaml:2:1 Cluster outbound|8080||svc, f.yaml:12:3 Cluster b, f.yaml:14:3 ClusterLoadAssignment c, f.yaml:17:1 AttestationPolicy mesh"
	if strings.Join(got, ", ") != want {
		t.Errorf("got %s\nwant %s", strings.Join(got, ", "), want)
	}
	again, err := envoy.Load("f.yaml", []byte(someFile))
	if err != nil || string(again[0].Body) != string(docs[0].Body) {
		t.Errorf("other bytes the second time: %v", err)
	}
	text, err := envoy.Text(docs[0].Resource)
	if err != nil || !strings.Contains(string(text), "http2_protocol_options") {
		t.Errorf("%s %v", text, err)
	}
}

func TestLoadRefuses(t *testing.T) {
	const cluster = "\"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n"
	for _, c := range []struct {
		text, where string
		code        attest.Code
	}{
		{"a: 1\n", "f:1:1", attest.CodeConfigMissing},
		{"- a\n", "f:1:1", attest.CodeConfigValue},
		{"\"@type\": type.googleapis.com/envoy.config.bootstrap.v3.Bootstrap\n", "f:1:10", attest.CodeConfigValue},
		{"\"@type\": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy\n", "f:1:10", attest.CodeConfigValue},
		{cluster, "f:1:1", attest.CodeConfigMissing},
		{cluster + "name: \"\"\n", "f:1:1", attest.CodeConfigMissing},
		{cluster + "\n\nname: a\nlb_polizy: x\n", "f:5", attest.CodeConfigUnknownKey},
		{cluster + "name: a\n---\n" + cluster + "name: a\ntype: EDSS\n", "f:6", attest.CodeConfigValue},
		{cluster + "name: a\nconnect_timeout: [\n", "f:", attest.CodeConfigSyntax},
		{cluster + "name: a\ntransport_socket:\n  typed_config: {\"@type\": type.googleapis.com/x.Y}\n", "f:4", attest.CodeConfigValue},
		{"resources: 1\n", "f:1:12", attest.CodeConfigValue},
	} {
		_, err := envoy.Load("f", []byte(c.text))
		coded, ok := err.(*attest.Error)
		if !ok || coded.Code != c.code || !strings.HasPrefix(coded.Subject, c.where) {
			t.Errorf("%q: %v, want %s at %s", c.text, err, c.code, c.where)
		}
	}
	if _, err := envoy.Text(resource.Resource{Type: resource.Cluster, Body: []byte{0xff}}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	if _, err := envoy.Text(resource.Resource{Type: "x"}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
}

func FuzzLoad(f *testing.F) {
	f.Add([]byte(someFile))
	f.Fuzz(func(t *testing.T, raw []byte) {
		docs, err := envoy.Load("f", raw)
		if err != nil {
			return
		}
		for _, d := range docs {
			if _, err := envoy.Text(d.Resource); err != nil {
				t.Fatalf("%q was read, and can't be written: %v", raw, err)
			}
		}
	})
}
