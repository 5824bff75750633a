//go:build !noxds

package main

import (
	"bytes"
	"log/slog"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func TestKeptFile(t *testing.T) {
	f := keptFile(filepath.Join(t.TempDir(), "kept"))
	if raw, err := f.Load(); raw != nil || err != nil {
		t.Errorf("got %q, %v", raw, err)
	}
	for _, text := range []string{"first", "second"} {
		if err := f.Save([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if raw, err := f.Load(); string(raw) != text || err != nil {
			t.Errorf("got %q, %v", raw, err)
		}
	}
	if left, err := os.ReadDir(filepath.Dir(string(f))); len(left) != 1 || err != nil {
		t.Errorf("there is more: %v, %v", left, err)
	}
	if info, err := os.Stat(string(f)); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("others can read it: %v, %v", info.Mode(), err)
	}
	nowhere := keptFile(filepath.Join(t.TempDir(), "none", "kept"))
	if err := nowhere.Save(nil); err == nil {
		t.Error("nothing")
	}
	dir := keptFile(t.TempDir())
	if _, err := dir.Load(); err == nil {
		t.Error("a directory was read")
	}
}

func TestFetch(t *testing.T) {
	for given, want := range map[time.Duration]time.Duration{0: 15 * time.Second, -1: 0, time.Minute: time.Minute} {
		if got := (&xdsConfig{Fetch: given}).fetch(); got != want {
			t.Errorf("%v: got %v", given, got)
		}
	}
}

func TestControlPlaneAddress(t *testing.T) {
	for given, want := range map[string]string{"control.example": "control.example:443", "control.example:18000": "control.example:18000", "[::1]:1": "[::1]:1", "https://control.example": "control.example:443"} {
		if got, err := (&xdsConfig{Server: given}).address(); err != nil || got != want {
			t.Errorf("%s: got %q, %v", given, got, err)
		}
	}
}

// A file with a control plane is not read again while it runs: what the limits are was measured at the start.
func TestNoReloadWithControlPlane(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "jurat.yaml")
	text := "xds: {server: \"127.0.0.1:1\", require: p.yaml, limits: {}}\nidentity: {tee: sim}\n"
	for name, raw := range map[string]string{file: text, filepath.Join(dir, "p.yaml"): policyText} {
		if err := os.WriteFile(name, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	var out bytes.Buffer
	o := &operation{app: testApp(), log: newLogger(&out, false, new(slog.LevelVar))}
	o.reload(t.Context(), &serveConfig{source: file})
	if !bytes.Contains(out.Bytes(), []byte("restart only")) {
		t.Errorf("got %s", out.String())
	}
}
