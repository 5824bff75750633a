package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// once is a test that fails when it is run for the first time, with a line of its own.
const once = `
func Test%(t *testing.T) {
	t.Run("part", func(t *testing.T) {
		if _, err := os.Stat("%"); err != nil {
			os.WriteFile("%", nil, 0o600)
			LINE
		}
	})
}
`

func TestAgain(t *testing.T) {
	for name, c := range map[string]struct {
		tests    []string // names of those that fail once
		line     string
		more     string
		unsteady int
		ok       bool
	}{
		"none":            {ok: true},
		"one":             {tests: []string{"A"}, unsteady: 1, ok: true},
		"two":             {tests: []string{"A", "B"}, unsteady: 2, ok: true},
		"three":           {tests: []string{"A", "B", "C"}},
		"one always":      {more: `func TestZ(t *testing.T) { t.Error("no") }`},
		"panic":           {tests: []string{"A"}, line: `panic("no")`},
		"goroutine left":  {tests: []string{"A"}, line: `t.Error("found unexpected goroutines")`},
		"race":            {tests: []string{"A"}, line: `println("WARNING: DATA RACE"); t.Fail()`},
		"outside of them": {more: `func TestMain(m *testing.M) { m.Run(); os.Exit(1) }`},
		"does not build":  {more: `nothing`},
		"skips then":      {tests: []string{"A"}, more: `func init() { if _, err := os.Stat("A"); err == nil { os.Remove("A"); os.Exit(0) } }`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			text := "package p\n\nimport (\n\t\"os\"\n\t\"testing\"\n)\n\nvar _ = os.Stat\n\nfunc TestGood(*testing.T) {}\n" + c.more + "\n"
			for _, n := range c.tests {
				text += strings.NewReplacer("%", n, "LINE", cmp.Or(c.line, `t.Error("no")`)).Replace(once)
			}
			for file, content := range map[string]string{"go.mod": "module p\n\ngo 1.26\n", "p_test.go": text} {
				if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			args, got := []string{"test", "-json"}, &totals{output: map[string][]string{}, failed: map[suspect]bool{}}
			if err := got.run(dir, append(args, "./...")); err != nil {
				t.Fatal(err)
			}
			if unsteady, ok := got.again(args); unsteady != c.unsteady || ok != c.ok {
				t.Errorf("%d unsteady, %t; want %d, %t", unsteady, ok, c.unsteady, c.ok)
			}
		})
	}
}
