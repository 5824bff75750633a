package e2e

import (
	"net/http"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest/evlog"
)

// Two sidecars keep what they appraised, affirmed and refused: each log is whole, and a policy can be tried on it.
func TestSidecarsKeepALog(t *testing.T) {
	l := newLab(t)
	policy := l.symmetricPolicy()
	server := l.start("serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", l.page(http.HandlerFunc(echo)), "--require", policy, "--log-dir", l.path("server.log"))
	address := server.address()
	client := l.start("forward", "--log", "json", "--tee", l.tee(), "-p", policy, "--listen", "127.0.0.1:0", "--log-dir", l.path("client.log"), address)
	stranger := l.start("forward", "--log", "json", "--tee", l.tee("debug=on"), "-p", policy, "--listen", "127.0.0.1:0", address)
	front := client.address()
	for range 3 { // the same evidence again and again is recorded once
		resp, err := http.Get("http://" + front + "/")
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		http.DefaultClient.CloseIdleConnections()
	}
	if resp, err := http.Get("http://" + stranger.address() + "/"); err == nil {
		_ = resp.Body.Close()
	}
	stranger.stop()
	client.stop()
	server.stop()

	for name, want := range map[string]uint64{"client.log": 1, "server.log": 2} {
		audit, err := evlog.Check(l.path(name), evlog.UnsafeTrustAnybody())
		if err != nil {
			t.Fatal(err)
		}
		if audit.Head.Size != want || audit.Unsigned != 0 {
			t.Errorf("%s: %d records, %d unsigned; want %d", name, audit.Head.Size, audit.Unsigned, want)
		}
	}
	out := l.must(6, "policy", "test", policy, "--log", l.path("server.log"), "--unsafe-any-key")
	if strings.Count(out.stdout, "affirmed") != 1 || !strings.Contains(out.stdout, "J504") {
		t.Errorf("server's log:\n%s", out.stdout)
	}
	l.must(0, "policy", "test", policy, "--log", l.path("client.log"), "--unsafe-any-key")
}
