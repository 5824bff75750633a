package envoy_test

import (
	"bytes"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// recorded is what a real control plane sent, with our validator in it, byte for byte: test/interop records it.
func recorded(t testing.TB, file string) envoy.Set {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	set := envoy.Set{}
	for d := json.NewDecoder(bytes.NewReader(raw)); ; {
		var r struct {
			Type, Name string
			Body       []byte
		}
		if err := d.Decode(&r); err == io.EOF {
			return set
		} else if err != nil {
			t.Fatal(err)
		}
		set.Add(resource.Resource{Type: r.Type, Name: r.Name, Body: r.Body})
	}
}

// What istiod and Envoy Gateway really send is carried out, all of it.
func TestRecorded(t *testing.T) {
	files, err := filepath.Glob("testdata/recorded/*.json")
	if err != nil || len(files) == 0 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".json"), func(t *testing.T) {
			out := envoy.Translate(envoy.Input{Resources: recorded(t, file), Policies: []string{"mesh"}})
			for k, err := range out.Problems {
				t.Errorf("%s %s: %v", k.Type, k.Name, err)
			}
			for k, wait := range out.Warming {
				t.Errorf("%s %s waits for %v", k.Type, k.Name, wait)
			}
			if len(out.Config.Listeners) < 2 {
				t.Errorf("only %d listeners", len(out.Config.Listeners))
			}
			if err := out.Config.Check(); err != nil {
				t.Error(err)
			}
			attested := 0
			for i := range out.Config.Clusters {
				if a := out.Config.Clusters[i].Attested; a != nil {
					attested++
					if a.Require != "mesh" {
						t.Errorf("%s is held to %q", out.Config.Clusters[i].Name, a.Require)
					}
				}
			}
			if attested == 0 {
				t.Error("no cluster is attested")
			}
		})
	}
}
