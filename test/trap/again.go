package trap

import (
	"os"
	"os/exec"
	"regexp"
	"syscall"
	"testing"
)

const inside = "JURAT_TEST_INSIDE"

// Again runs the calling test once more in a process of its own and reports its failure, unless this is that process:
// then it answers true, and the test goes on. The process starts with the attributes given.
func Again(t *testing.T, attributes *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(inside) == t.Name() {
		return true
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+anchored(t.Name())+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"="+t.Name())
	cmd.SysProcAttr = attributes
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a process of its own: %v\n%s", err, out)
	} else if !regexp.MustCompile(`(?m)^\s*--- PASS: ` + regexp.QuoteMeta(t.Name()) + ` `).Match(out) {
		t.Errorf("the test did not run in a process of its own\n%s", out)
	}
	return false
}

// anchored makes a pattern for one test or subtest: "-test.run" matches the elements between slashes one by one.
func anchored(name string) string {
	return regexp.MustCompile(`/`).ReplaceAllString(regexp.QuoteMeta(name), "$$/^")
}
