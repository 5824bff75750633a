package interop

import (
	"bytes"
	"cmp"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/xds/client"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// istio is what the files of testdata/istio have places for.
type istio struct {
	App, Backend, Backend2, BackendService, Store, Plain string
	BackendPort, StorePort, PlainPort                    int
	Weight1, Weight2                                     int
	Policy                                               string // that peers have to meet
	Mode                                                 string // of mutual TLS
	TLS                                                  string // to the backend
	Withdrawn                                            bool   // there is no EnvoyFilter
}

func newIstio() istio {
	return istio{
		App: appIP, Backend: backend1, Backend2: backend2, BackendService: backendIP, Store: storeIP, Plain: plainIP,
		BackendPort: 8080, StorePort: 6379, PlainPort: 8080, Weight1: 90, Weight2: 10, Policy: "mesh", Mode: "STRICT", TLS: "ISTIO_MUTUAL",
	}
}

// istiod is a control plane that serves the files of a folder.
type istiod struct {
	*process
	t       *testing.T
	address string // of xDS, without TLS
	config  string // the folder
}

// What the mesh lets out: what it knows, or everything.
const (
	registryOnly = "REGISTRY_ONLY"
	allowAny     = "ALLOW_ANY"
)

func startIstiod(t *testing.T, values istio, outbound string) *istiod {
	t.Helper()
	path := program(t, "pilot-discovery")
	dir := t.TempDir()
	d := &istiod{t: t, config: filepath.Join(dir, "config"), address: "127.0.0.1:15010"}
	fill(t, "istio", d.config, values)
	replace(t, filepath.Join(dir, "mesh.yaml"), []byte("trustDomain: cluster.local\naccessLogFile: /dev/stdout\noutboundTrafficPolicy: {mode: "+outbound+"}\n"))
	d.process = start(t, []string{
		"POD_NAMESPACE=istio-system", "POD_NAME=istiod", "PILOT_CERT_PROVIDER=istiod", "XDS_AUTH=false", "PILOT_MAX_REQUESTS_PER_SECOND=2000",
	}, path, "discovery", "--registries=Kubernetes", "--kubeconfig="+kubernetes(t), "--configDir="+d.config, "--meshConfig="+filepath.Join(dir, "mesh.yaml"),
		"--httpAddr=127.0.0.1:15080", "--grpcAddr="+d.address, "--secureGRPCAddr=", "--httpsAddr=", "--monitoringAddr=127.0.0.1:15014", "--ctrlz_port=0")
	poll(t, "istiod is ready", func() error {
		resp, err := http.Get("http://127.0.0.1:15080/ready")
		if err != nil {
			return err
		}
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("ready: %s", resp.Status)
		}
		return nil
	}, d.process)
	return d
}

// change has istiod serve other values.
func (d *istiod) change(values istio) { fill(d.t, "istio", d.config, values) }

// Nodes as Istio's own agent describes them.
func sidecarNode(mode string) client.Node {
	return client.Node{
		ID: "sidecar~" + appIP + "~app-1.default~default.svc.cluster.local", Cluster: "app.default",
		Metadata: map[string]any{
			"NAMESPACE": "default", "LABELS": map[string]any{"app": "app"}, "SERVICE_ACCOUNT": "app", "CLUSTER_ID": "Kubernetes",
			"ISTIO_VERSION": "1.31.0", "INSTANCE_IPS": appIP, "INTERCEPTION_MODE": mode,
		},
		UserAgent: "jurat",
	}
}

func gatewayNode() client.Node {
	return client.Node{
		ID: "router~" + gatewayIP + "~ingress-1.istio-system~istio-system.svc.cluster.local", Cluster: "ingress.istio-system",
		Metadata: map[string]any{
			"NAMESPACE": "istio-system", "LABELS": map[string]any{"istio": "ingress"}, "SERVICE_ACCOUNT": "ingress", "CLUSTER_ID": "Kubernetes",
			"ISTIO_VERSION": "1.31.0", "INSTANCE_IPS": gatewayIP,
		},
		UserAgent: "jurat",
	}
}

// What istiod sends is understood, in both variants of the protocol, for a sidecar and for a gateway, and a change arrives.
func TestIstio(t *testing.T) {
	values := newIstio()
	d := startIstiod(t, values, registryOnly)
	means := map[string]*envoy.Translation{}
	for _, kind := range []client.Kind{client.StateOfTheWorld, client.Delta} {
		for _, node := range []struct {
			name    string
			node    client.Node
			allowed map[string]string
		}{
			{"sidecar", sidecarNode("REDIRECT"), nil},
			{"sidecar without interception", sidecarNode("NONE"), nil},
			{"gateway", gatewayNode(), nil},
		} {
			t.Run(fmt.Sprint(kind, " ", node.name), func(t *testing.T) {
				o := observe(t, kind, node.node, d.address, plain)
				poll(t, "everything has come", o.settled, d.process)
				record(t, o, fmt.Sprint("istiod-", kind, "-", node.name))
				o.judge(t, node.allowed)
				_, m := o.seen()
				if other := means[node.name]; other != nil && !reflect.DeepEqual(m.Config, other.Config) {
					t.Errorf("the other variant ended with something else:\n%+v\n%+v", other.Config, m.Config)
				}
				means[node.name] = m
			})
		}
	}
	t.Run("a change", func(t *testing.T) {
		for _, kind := range []client.Kind{client.StateOfTheWorld, client.Delta} {
			t.Run(fmt.Sprint(kind), func(t *testing.T) {
				o := observe(t, kind, sidecarNode("REDIRECT"), d.address, plain)
				poll(t, "everything has come", o.settled, d.process)
				for _, address := range []string{backend2, backend1} {
					v := values
					v.Backend = address
					d.change(v)
					poll(t, "the endpoint moves", func() error {
						return o.endpoint("outbound|80|v1|backend.default.svc.cluster.local", net.JoinHostPort(address, fmt.Sprint(values.BackendPort)))
					}, d.process)
				}
			})
		}
	})
}

// endpoint is nil if a cluster of the configuration has an endpoint and no other.
func (o *observer) endpoint(cluster, address string) error {
	_, means := o.seen()
	for _, c := range means.Config.Clusters {
		if c.Name != cluster {
			continue
		}
		var all []string
		for _, l := range c.Localities {
			for _, e := range l.Endpoints {
				all = append(all, e.Address)
			}
		}
		if !slices.Equal(all, []string{address}) {
			return fmt.Errorf("%s has %q", cluster, all)
		}
		return nil
	}
	return fmt.Errorf("no cluster %s", cluster)
}

// record writes what has come to a file of the folder that JURAT_INTEROP_RECORD names, where there is one: what xds/envoy keeps of it is what its
// tests hold it against where there is no control plane. Secrets are left out.
func record(t *testing.T, o *observer, name string) {
	t.Helper()
	dir := os.Getenv("JURAT_INTEROP_RECORD")
	if dir == "" {
		return
	}
	type resourceOf struct {
		Type, Name string
		Body       []byte
	}
	set, _ := o.seen()
	var all []resourceOf
	for k, r := range set {
		if k.Type != resource.Secret {
			all = append(all, resourceOf{k.Type, k.Name, r.Body})
		}
	}
	slices.SortFunc(all, func(a, b resourceOf) int {
		return cmp.Or(strings.Compare(a.Type, b.Type), strings.Compare(a.Name, b.Name))
	})
	var out bytes.Buffer
	for _, r := range all {
		if err := json.NewEncoder(&out).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, strings.ReplaceAll(name, " ", "-")+".json"), out.Bytes(), 0o644); err != nil {
		t.Fatal(err)
	}
}

// With what Istio does where nobody says anything, everything is sent on, and what comes in may be plain. Where that would leave a peer the choice
// not to attest itself, or would need what a proxy without interception does not know, that port is refused, and nothing else.
func TestIstioPermissive(t *testing.T) {
	values := newIstio()
	values.Mode = "PERMISSIVE"
	d := startIstiod(t, values, allowAny)
	for mode, refused := range map[string]map[string]string{
		"REDIRECT": {"Listener virtualInbound": "transport_socket.typed_config.require_client_certificate"},
		"NONE":     {"Listener 127.0.0.1_80": "only a transparent listener knows where they were going"},
	} {
		t.Run(mode, func(t *testing.T) {
			o := observe(t, client.Delta, sidecarNode(mode), d.address, plain)
			poll(t, "everything has come", o.settled, d.process)
			record(t, o, "istiod-permissive-"+mode)
			o.judge(t, refused)
		})
	}
}
