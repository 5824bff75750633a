// Package vectors finds the evidence recorded from real hardware that tests verify. The project keeps no copy of it.
package vectors

import (
	"os"
	"path/filepath"
	"testing"
)

// Dir returns the directory of the vectors: JURAT_VECTORS, or shared/vectors beside a parent of the working directory.
// Where there is none the test is skipped, or fails when JURAT_NO_SKIP is 1.
func Dir(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("JURAT_VECTORS")
	if dir == "" {
		dir = search()
	}
	if info, err := os.Stat(dir); dir != "" && err == nil && info.IsDir() {
		return dir
	}
	const text = "vectors absent: set JURAT_VECTORS to their directory"
	if os.Getenv("JURAT_NO_SKIP") == "1" {
		t.Fatal(text)
	}
	t.Skip(text)
	return ""
}

// Read returns one vector, named by its path inside Dir.
func Read(t testing.TB, name string) []byte {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join(Dir(t), filepath.FromSlash(name)))
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func search() string {
	at, err := os.Getwd()
	if err != nil {
		return ""
	}
	for {
		dir := filepath.Join(at, "shared", "vectors")
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			return dir
		}
		parent := filepath.Dir(at)
		if parent == at {
			return ""
		}
		at = parent
	}
}
