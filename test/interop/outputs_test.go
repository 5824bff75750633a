package interop

import (
	"encoding/json"
	"errors"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"go.yaml.in/yaml/v3"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// What Envoy Gateway's own tests expect it to send, for nearly three hundred configurations, is translated, or refused with a code and a place.
// Those whose TLS is by certificates alone, and those with extensions that are not carried out, are refused.
func TestEnvoyGatewayOutputs(t *testing.T) {
	list := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/envoyproxy/gateway")
	list.Dir, list.Env = "gateway", append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off")
	module, err := list.Output()
	if err != nil || strings.TrimSpace(string(module)) == "" {
		t.Skipf("the module of Envoy Gateway is absent (make interop brings it): %v", err)
	}
	files, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(module)), "internal/xds/translator/testdata/out/xds-ir/*.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]string{
		"clusters": resource.Cluster, "endpoints": resource.Endpoints, "listeners": resource.Listener, "routes": resource.Route, "secrets": resource.Secret,
	}
	sets := map[string]envoy.Set{}
	refused := map[string]bool{}
	for _, file := range files {
		name, kind, _ := strings.Cut(strings.TrimSuffix(filepath.Base(file), ".yaml"), ".")
		typ, ok := types[kind]
		if !ok {
			continue // what became of policies
		}
		if sets[name] == nil {
			sets[name] = envoy.Set{}
		}
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var list []map[string]any
		if err := yaml.Unmarshal(raw, &list); err != nil {
			t.Fatal(err)
		}
		for _, body := range list {
			body["@type"] = typ
			text, err := json.Marshal(body)
			if err != nil {
				t.Fatal(err)
			}
			docs, err := envoy.Load(file, text)
			if err != nil {
				refused[name] = true
				coded(t, name, err)
			}
			for _, d := range docs {
				sets[name].Add(d.Resource)
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(sets)) {
		means := envoy.Translate(envoy.Input{Resources: sets[name]})
		for k, err := range means.Problems {
			refused[name] = true
			coded(t, name+" "+short(k), err)
		}
		if len(means.Config.Listeners) > 0 {
			if err := means.Config.Check(); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	t.Logf("%d of %d configurations are carried out", len(sets)-len(refused), len(sets))
	if n := len(sets) - len(refused); n < len(sets)/4 {
		t.Errorf("only %d are carried out", n)
	}
}

// coded checks that an error says what is wrong, where, and has a code.
func coded(t *testing.T, what string, err error) {
	t.Helper()
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			coded(t, what, e)
		}
		return
	}
	var e *attest.Error
	if !errors.As(err, &e) || e.Code == "" || e.Subject == "" {
		t.Errorf("%s: an error without code or place: %v", what, err)
	}
}
