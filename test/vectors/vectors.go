// Package vectors finds the evidence recorded from real hardware that tests verify. The project keeps no copy of it.
package vectors

import (
	"os"
	"path/filepath"
	"testing"
)

// known is what JURAT_VECTORS holds where it is known that there are none: no set-up can fetch them.
const known = "absent"

// Find returns the directory of the vectors: JURAT_VECTORS, or shared/vectors beside a parent of the working directory.
// It is empty where there is none.
func Find() string {
	dir := os.Getenv("JURAT_VECTORS")
	if dir == "" {
		dir = search()
	}
	if info, err := os.Stat(dir); dir == "" || err != nil || !info.IsDir() {
		return ""
	}
	return dir
}

// Dir is Find for a test, which is skipped where there is none; it fails instead when JURAT_NO_SKIP is 1, unless
// JURAT_VECTORS says that they are absent.
func Dir(t testing.TB) string {
	t.Helper()
	if dir := Find(); dir != "" {
		return dir
	}
	const text = "vectors absent: set JURAT_VECTORS to their directory"
	if os.Getenv("JURAT_NO_SKIP") == "1" && os.Getenv("JURAT_VECTORS") != known {
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
