//go:build unix

package evlog

import (
	"crypto/ed25519"
	"crypto/rand"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

const otherDir, otherWait = "EVLOG_OTHER_DIR", "EVLOG_OTHER_WAIT"

// TestOther is the other process of TestTwoProcesses.
func TestOther(t *testing.T) {
	dir := os.Getenv(otherDir)
	if dir == "" {
		return // nobody's
	}
	lockWait, _ = time.ParseDuration(os.Getenv(otherWait))
	_, key, _ := ed25519.GenerateKey(rand.Reader)
	l, err := Open(dir, key, DefaultLimits, time.Now)
	if err != nil {
		t.Fatal(attest.CodeOf(err), err)
	}
	l.mustAppend(t, "of the other")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// Two processes that write one log would each sign heads over leaves that the other cuts off.
func TestTwoProcesses(t *testing.T) {
	l, _ := begun(t)
	l.mustAppend(t, "one")
	other := func(wait string) *exec.Cmd {
		c := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestOther$")
		c.Env = append(os.Environ(), otherDir+"="+l.dir, otherWait+"="+wait)
		return c
	}
	out, err := other("0s").CombinedOutput()
	if err == nil || !strings.Contains(string(out), string(attest.CodeConfigValue)) || !strings.Contains(string(out), "another process") {
		t.Errorf("%v: %s", err, out)
	}
	waits := other("1m")
	if err := waits.Start(); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond)
	l.mustAppend(t, "two")
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := waits.Wait(); err != nil {
		t.Error(err)
	}
	a, err := Check(l.dir, UnsafeTrustAnybody())
	if err != nil || a.Head.Size != 3 || a.Kept != 3 {
		t.Errorf("%+v, %v", a, err)
	}
}
