package proxy_test

import (
	"os"
	"os/exec"
	"testing"
)

// TestPortable runs all tests again with the engine that works on every system.
func TestPortable(t *testing.T) {
	if *portable {
		return
	}
	out, err := exec.CommandContext(t.Context(), os.Args[0], "-portable", "-test.timeout=8m").CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
