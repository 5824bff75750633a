package envoy_test

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/xds/envoy"
)

var update = flag.Bool("update", false, "rewrite the expected translations")

// What control planes send, and what becomes of it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".yaml"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			out := envoy.Translate(envoy.Input{Resources: load(t, string(raw)), Policies: []string{"stores"}})
			sound(t, out)
			got, golden := render(out), strings.TrimSuffix(file, ".yaml")+".golden"
			if *update {
				if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(want) != got {
				t.Errorf("%s is not what it says; if that is meant: go test ./xds/envoy -update\n%s", golden, got)
			}
		})
	}
}

// sound checks what holds for every translation.
func sound(t testing.TB, out *envoy.Translation) {
	t.Helper()
	if len(out.Config.Listeners) > 0 {
		if err := out.Config.Check(); err != nil {
			t.Errorf("does not pass Check: %v", err)
		}
	}
}
