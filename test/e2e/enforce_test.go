package e2e

import (
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestPolicyOnOpenConnections: a policy file changes under a proxy with connections open. Those that it refuses end at once, long
// before the configuration before it is drained; what another policy covers goes on.
func TestPolicyOnOpenConnections(t *testing.T) {
	l := newLab(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				_, _ = io.Copy(c, c)
			}()
		}
	}()
	server := l.start("serve", "--tee", l.tee(), "--name", "localhost", "--name", "127.0.0.1", "--listen", "127.0.0.1:0", "--to", ln.Addr().String(), "--tcp", "--log", "json", "--offline")
	back := server.address()
	l.policyFor(back)
	good, err := os.ReadFile(l.path("policy.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	l.write("other.yaml", string(good))
	one, two, admin := free(t), free(t), free(t)
	cfg := l.write("front.yaml", fmt.Sprintf(`
listen:
  - {name: one, address: %s, plain: true, tcp: true, cluster: one}
  - {name: two, address: %s, plain: true, tcp: true, cluster: two}
clusters:
  - {name: one, attested: {require: policy.yaml, name: localhost}, endpoints: [{address: %q}]}
  - {name: two, attested: {require: other.yaml, name: localhost}, endpoints: [{address: %q}]}
admin: {address: %q}
drain: 1m
`, one, two, back, back, admin))
	client := l.start("serve", "-c", cfg, "--log", "json", "--offline")
	client.address()
	dial := func(addr string) net.Conn {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	echo := func(c net.Conn) error {
		_ = c.SetDeadline(time.Now().Add(patience))
		if _, err := io.WriteString(c, "hello"); err != nil {
			return err
		}
		_, err := io.ReadFull(c, make([]byte, 5))
		return err
	}
	a, b := dial(one), dial(two)
	for _, c := range []net.Conn{a, b} {
		if err := echo(c); err != nil {
			t.Fatal(err)
		}
	}
	if _, body := l.web("http://" + admin + "/stats/prometheus"); !strings.Contains(body, `jurat_appraised_connections{generation="genoa",level="session",`) {
		t.Errorf("no open connection in %s", body)
	}

	bad := strings.Replace(string(good), "platforms:\n", "platforms:\n  deny: [{vendor: sim, because: a rehearsal}]\n", 1)
	if bad == string(good) {
		t.Fatalf("no platforms in %s", good)
	}
	l.write("policy.yaml", bad)
	changed := time.Now()
	if err := client.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	_ = a.SetReadDeadline(time.Now().Add(patience))
	if n, err := a.Read(make([]byte, 1)); n > 0 || err == nil || err == io.EOF {
		t.Errorf("got %d bytes, %v", n, err)
	}
	if took := time.Since(changed); took > 30*time.Second {
		t.Errorf("after %s, when it was drained", took)
	}
	refused := client.wait("peer refused on an open connection")
	if refused.text("code") != "J503" || refused.text("place") != "cluster one" {
		t.Errorf("got %v", refused)
	}
	if err := echo(b); err != nil {
		t.Errorf("the other one: %v", err)
	}
	if err := echo(dial(one)); err == nil {
		t.Error("a new connection to whom the policy denies")
	}
	if err := echo(dial(two)); err != nil {
		t.Error(err)
	}
	if _, body := l.web("http://" + admin + "/stats/prometheus"); !strings.Contains(body, "jurat_rejudged_refused_connections_total 1\n") {
		t.Error("it was not counted")
	}
}
