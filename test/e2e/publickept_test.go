package e2e

import (
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/test/pebble"
)

// A certificate outlives the process that asked for it, sealed; where another machine finds it, that is said, and it gets one of its own.
func TestPublicStorage(t *testing.T) {
	l := newLab(t)
	port := freePort(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port})
	l.write("ca.pem", string(ca.Roots))
	config := func(tee string) string {
		return l.write("jurat.yaml", fmt.Sprintf(`identity: {tee: %q, names: [127.0.0.1]}
drain: 1s
listen:
  - address: "127.0.0.1:%d"
    to: %q
    public: {names: [shop.example], acme: {directory: %q, roots: ca.pem, agree_terms: true, storage: kept}}
`, tee, port, l.page(http.NotFoundHandler()), ca.Directory))
	}
	if o := l.must(8, "serve", "-c", config("tdx"), "--check"); !strings.Contains(o.stderr, "J808") {
		t.Errorf("a TEE that seals nothing: %s", o.stderr)
	}
	if _, err := os.Stat(l.path("kept")); err == nil {
		t.Error("a check has made the directory")
	}
	// serve answers the certificate that is served, its serial number, and the log.
	serve := func(tee string) (serial, log string) {
		t.Helper()
		p := l.start("serve", "--log", "json", "-c", config(tee))
		for listens := false; serial == "" || !listens; { // in either order
			switch e := <-p.events; e.text("msg") {
			case "new public certificate":
				serial = e.text("serial")
			case "listening":
				listens = true
			case "<nil>":
				t.Fatalf("it has ended:\n%s", p.log)
			}
		}
		conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{ServerName: "shop.example", InsecureSkipVerify: true})
		if err != nil {
			t.Fatal(err)
		}
		if got := conn.ConnectionState().PeerCertificates[0].SerialNumber.Text(16); got != serial {
			t.Errorf("served %s, want %s", got, serial)
		}
		_ = conn.Close()
		p.stop()
		return serial, p.log.String()
	}
	first, _ := serve(l.tee())
	noKeys(t, l)
	before := blobs(t, l.path("kept"))
	if len(before) < 4 || ca.Orders() != 1 { // account, certificate, key, metadata
		t.Fatalf("%d files, %d orders", len(before), ca.Orders())
	}
	if second, log := serve(l.tee()); second != first || ca.Orders() != 1 || strings.Contains(log, "J852") {
		t.Errorf("%s after %s, %d orders\n%s", second, first, ca.Orders(), log)
	}
	foreign := "sim:snp:genoa,dir=" + l.path("sim-other")
	third, log := serve(foreign)
	if third == first || ca.Orders() != 2 || !strings.Contains(log, "J852") || !strings.Contains(log, "J809") {
		t.Errorf("%s after %s, %d orders\n%s", third, first, ca.Orders(), log)
	}
	after := blobs(t, l.path("kept"))
	for name, sum := range before {
		if after[name] == sum && strings.Contains(name, "shop.example") {
			t.Errorf("%s is there still", name)
		}
	}
	noKeys(t, l)
	if fourth, _ := serve(foreign); fourth != third || ca.Orders() != 2 {
		t.Errorf("%s after %s, %d orders", fourth, third, ca.Orders())
	}
}

// blobs are the digests of all files below a directory.
func blobs(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	all := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		all[path] = sha256.Sum256(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A certificate that was brought has a key that somebody else may have: no evidence is for it.
func TestNoEvidenceForAKeyFromOutside(t *testing.T) {
	l := newLab(t)
	chain, key := pebble.SelfSigned(t, "localhost")
	l.write("chain.pem", string(chain))
	l.write("key.pem", string(key))
	config := func(public string) string {
		return l.write("jurat.yaml", fmt.Sprintf("identity: {tee: %q, names: [localhost, 127.0.0.1], well_known: true}\ndrain: 1s\nlisten:\n  - address: \"127.0.0.1:0\"\n    to: \"127.0.0.1:1\"\n%s", l.tee(), public))
	}
	own := l.start("serve", "--log", "json", "-c", config(""))
	policy := l.write("nonce.yaml", strings.Replace(l.must(0, "policy", "init", "--binding", "key", own.address()).stdout, "binding: key", "binding: nonce", 1))
	l.must(0, "verify", "--well-known", "-p", policy, "https://"+own.addr+"/")
	own.stop()
	server := l.start("serve", "--log", "json", "-c", config("    public: {cert: chain.pem, unsafe_key_file: key.pem}\n"))
	_, port, _ := net.SplitHostPort(server.address())
	if o := l.jurat("verify", "--well-known", "-p", policy, "https://127.0.0.1:"+port+"/"); o.code != 0 { // which is shown the certificate with evidence
		t.Errorf("%+v", o)
	}
	if o := l.jurat("verify", "--well-known", "-p", policy, "https://localhost:"+port+"/"); o.code == 0 || !strings.Contains(o.stderr, "status 404") || !strings.Contains(o.stderr, "J105") {
		t.Errorf("%+v", o)
	}
}
