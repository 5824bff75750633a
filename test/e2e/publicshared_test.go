package e2e

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/jurat-tls/jurat/test/pebble"
)

// Replicas on two machines have one account, one order and one certificate, whichever of them the CA asks. The key is on the disk of none of
// them, a third one that is no replica gets nothing, and one that the policy refuses from now on is cut off. Without the holder the other goes on.
func TestPublicShared(t *testing.T) {
	l := newLab(t)
	portA, portB, portC, share := freePort(t), freePort(t), freePort(t), freePort(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: portB}) // which asks the one that has not ordered
	l.write("ca.pem", string(ca.Roots))
	service := l.page(http.NotFoundHandler())
	teeA, teeB := l.tee(), "sim:snp:genoa,dir="+l.path("sim-b")
	teeC := l.tee("measurement=" + strings.Repeat("ab", 48)) // the holder's machine, and another software
	var policies, roots []string
	for _, tee := range []string{teeA, teeB} {
		p := l.start("serve", "--log", "json", "--tee", tee, "--listen", "127.0.0.1:0", "--to", service)
		text := l.must(0, "policy", "init", p.address()).stdout
		p.stop()
		policies, roots = append(policies, text), append(roots, regexp.MustCompile(`sha256:[0-9a-f]{64}`).FindString(text))
	}
	only := func(roots ...string) {
		var allow []string
		for _, r := range roots {
			allow = append(allow, fmt.Sprintf("{vendor: sim, generation: genoa, root: %q}", r))
		}
		l.write("replicas.yaml", regexp.MustCompile(`allow: \[.*\]`).ReplaceAllString(policies[0], "allow: ["+strings.Join(allow, ", ")+"]"))
	}
	only(roots...)
	config := func(name, tee string, port int, where string) string {
		return l.write(name, fmt.Sprintf(`identity: {tee: %q, names: [127.0.0.1]}
drain: 1s
listen:
  - address: "127.0.0.1:%d"
    to: %q
    public: {names: [shop.example], acme: {directory: %q, roots: ca.pem, agree_terms: true, %s}}
`, tee, port, service, ca.Directory, where))
	}
	at := fmt.Sprintf(`storage_at: {address: "127.0.0.1:%d", require: replicas.yaml}`, share)
	holds := func(more string) string {
		return config("a.yaml", teeA, portA, fmt.Sprintf(`storage: kept, share: {address: "127.0.0.1:%d", require: replicas.yaml}%s`, share, more))
	}
	fileB, fileA := config("b.yaml", teeB, portB, at), holds("")
	certificate := func(p *process) string {
		t.Helper()
		return p.wait("new public certificate").text("serial")
	}
	trusted := x509.NewCertPool()
	trusted.AppendCertsFromPEM(ca.Root(t))
	shown := func(port int) string {
		t.Helper()
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{ServerName: "shop.example", RootCAs: trusted})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16)
	}

	b := l.start("serve", "--log", "json", "-c", fileB)
	if e := b.wait("no storage of public certificates: those that are there stay in use until they expire"); e.text("code") != "J857" {
		t.Errorf("without a holder: %v", e)
	}
	a := l.start("serve", "--log", "json", "-c", fileA)
	a.wait("replica affirmed") // without which nobody would answer the CA
	serial := certificate(a)
	if got := certificate(b); got != serial || shown(portA) != serial || shown(portB) != serial || ca.Orders() != 1 {
		t.Errorf("%s and %s, shown %s and %s, %d orders", serial, got, shown(portA), shown(portB), ca.Orders())
	}

	c := l.start("serve", "--log", "json", "-c", config("c.yaml", teeC, portC, at))
	if e := c.wait("no new public certificate"); e.text("code") != "J103" {
		t.Errorf("who is no replica: %v", e)
	}
	if e := a.wait("no replica"); e.text("code") != "J502" {
		t.Errorf("who is no replica, at the holder: %v", e)
	}
	if conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", portC), &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true}); err == nil {
		_ = conn.Close()
		t.Error("who is no replica has a certificate")
	}
	c.stop()

	only(roots[0])
	if err := a.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	if e := a.wait("peer refused on an open connection"); e.text("place") != fmt.Sprintf("share 127.0.0.1:%d", share) {
		t.Errorf("who is a replica no more: %v", e)
	}
	if shown(portA) != serial || shown(portB) != serial {
		t.Error("a certificate was lost")
	}

	if err := a.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-a.done
	only(roots...)
	text, err := os.ReadFile(fileB)
	if err != nil {
		t.Fatal(err)
	}
	l.write("b.yaml", strings.Replace(string(text), "names: [127.0.0.1]}", "names: [127.0.0.1], lifetime: 50m}", 1))
	if err := b.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	b.wait("configuration changed")
	if shown(portB) != serial {
		t.Error("without the holder the certificate was lost")
	}
	l.must(0, "verify", "-p", l.write("b-policy.yaml", policies[1]), fmt.Sprintf("127.0.0.1:%d", portB))
	b.stop()

	noKeys(t, l)
	keys := unsealed(t, l.path("kept"), teeA)
	if len(keys) < 2 {
		t.Fatalf("%d private keys were sealed", len(keys))
	}
	nowhere(t, l, keys)
	if ca.Orders() != 1 {
		t.Errorf("%d orders", ca.Orders())
	}
}

// A new configuration begins to share, goes on, or ends; another process takes over where replicas come to. What is wrong changes nothing.
func TestPublicShareChanges(t *testing.T) {
	l := newLab(t)
	chain, _ := pebble.SelfSigned(t, "ca.example")
	l.write("ca.pem", string(chain)) // of a CA that is not there
	port, share := freePort(t), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	l.write("replicas.yaml", "policy: replicas\nplatforms: {allow: [amd genoa+]}\nworkload: {measurement: any, debug: off}\nfreshness: {evidence: 90m}\n")
	write := func(more string) string {
		return l.write("jurat.yaml", fmt.Sprintf(`identity: {tee: %q, names: [127.0.0.1]}
drain: 1s
takeover: takeover
listen:
  - address: "127.0.0.1:%d"
    to: "127.0.0.1:1"
    public: {names: [shop.example], acme: {directory: "https://127.0.0.1:1/dir", roots: ca.pem, agree_terms: true%s}}
`, l.tee(), port, more))
	}
	shared := fmt.Sprintf(`, share: {address: %q, require: replicas.yaml}`, share)
	open := func() bool {
		conn, err := net.Dial("tcp", share)
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}
	p := l.start("serve", "--log", "json", "-c", write(""))
	p.address()
	change := func(more, want string) {
		t.Helper()
		write(more)
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		p.wait(want)
	}
	if open() {
		t.Fatal("it is shared")
	}
	change(shared, "configuration changed")
	if !open() {
		t.Error("it is not shared")
	}
	change(", storage: kept"+shared, "the configuration stays as it is")
	change(shared+", email: a@b.example", "configuration changed")
	if !open() {
		t.Error("it is shared no more")
	}
	change("", "configuration changed")
	if open() {
		t.Error("it is shared still")
	}
	change(shared, "configuration changed")
	next := l.start("serve", "--log", "json", "-c", l.path("jurat.yaml"))
	next.wait("public certificates are shared")
	<-p.done
	if !open() {
		t.Error("the next process does not share")
	}
	next.stop()
	if open() {
		t.Error("it is shared after the end")
	}
}
