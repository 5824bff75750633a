package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A package with one check of each kind; its tests leave exactly the checks named in survivors unnoticed.
var example = map[string]string{
	"go.mod": "module example\n\ngo 1.26\n",
	"a.go": `package a

import "errors"

var errBad = errors.New("bad")

func Checked(n int) error {
	if n < 0 || n > 9 {
		return errBad
	}
	return nil
}

func Unchecked(n int) error {
	if n == 7 {
		return errBad
	}
	return nil
}

func Half(a, b bool) bool { return a && b }

func Kind(k string) error {
	switch k {
	case "x":
		return nil
	default:
		return errBad
	}
}

func Never() error {
	if errBad == nil {
		return errBad
	}
	return nil
}

func String() string {
	if errBad == nil {
		return "text"
	}
	return ""
}
`,
	"a_test.go": `package a

import "testing"

func TestAll(t *testing.T) {
	if Checked(-1) == nil || Checked(10) == nil || Checked(5) != nil || Unchecked(1) != nil || Kind("x") != nil || Kind("y") == nil {
		t.Fatal()
	}
	if Half(true, true) != true || Half(false, true) || Never() != nil {
		t.Fatal()
	}
}
`,
	"allow.txt": "a.go | Never | never | errBad == nil | it never holds\n",
}

func TestSurvivors(t *testing.T) {
	dir := t.TempDir()
	for name, text := range example {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	tool := filepath.Join(t.TempDir(), "mutation")
	if out, err := exec.Command("go", "build", "-o", tool, ".").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	run := func(args ...string) (string, int) {
		cmd := exec.Command(tool, args...)
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "GOFLAGS=", "GOWORK=off")
		out, _ := cmd.CombinedOutput()
		return string(out), cmd.ProcessState.ExitCode()
	}
	out, code := run("-allow", "allow.txt", ".")
	for _, want := range []string{
		"a.go:15: Unchecked: never: n == 7: survives",
		"a.go:21: Half: && without: b: survives",
		"1 change nothing, 2 survive",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if code != 1 || strings.Count(out, ": survives")+strings.Count(out, ": never reached") != 2 {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if out, code := run("-run", "hecked|Kind", "."); code != 1 || !strings.Contains(out, "Unchecked") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if out, code := run("-run", " Checked|Kind", "."); code != 0 || !strings.Contains(out, " 0 survive") {
		t.Errorf("exit %d:\n%s", code, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "allow.txt"), []byte("a.go | Checked | never | n == 1 | no such check\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, _ := run("-allow", "allow.txt", "."); !strings.Contains(out, "obsolete: allow.txt:1") {
		t.Errorf("%s", out)
	}
}
