package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/jurat-tls/jurat/attest/seal"
	"github.com/jurat-tls/jurat/attest/sim"
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
	keys := unsealed(t, l.path("kept"), foreign)
	if len(keys) < 2 { // of the certificate and of the account
		t.Fatalf("%d private keys were sealed", len(keys))
	}
	crash(t, l, config(foreign))
	nowhere(t, l, keys)
}

// unsealed are the private keys in a storage, which the simulated machine that sealed them can open.
func unsealed(t *testing.T, dir, tee string) (keys []*ecdsa.PrivateKey) {
	t.Helper()
	spec, err := sim.ParseSpec(tee)
	if err != nil {
		t.Fatal(err)
	}
	machine, err := spec.Open()
	if err != nil {
		t.Fatal(err)
	}
	source, err := sim.NewKeySource(machine)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := seal.New("sim", source)
	if err != nil {
		t.Fatal(err)
	}
	for path := range blobs(t, dir) {
		name, err := filepath.Rel(dir, path)
		if err != nil {
			t.Fatal(err)
		}
		key, err := url.PathUnescape(strings.TrimSuffix(filepath.ToSlash(name), "~sealed"))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		text, err := sealer.Open("public certificates: "+key, raw)
		if err != nil {
			t.Fatalf("%s: %v", key, err)
		}
		var account struct{ Key []byte }
		der := []byte(nil)
		if json.Unmarshal(text, &account) == nil && account.Key != nil {
			der = account.Key
		} else if block, _ := pem.Decode(text); block != nil && strings.HasSuffix(block.Type, "PRIVATE KEY") {
			der = block.Bytes
		} else {
			continue
		}
		private, err := x509.ParseECPrivateKey(der)
		if err != nil {
			parsed, pkcs8 := x509.ParsePKCS8PrivateKey(der)
			if private, _ = parsed.(*ecdsa.PrivateKey); private == nil {
				t.Fatalf("%s: %v, %v", key, err, pkcs8)
			}
		}
		keys = append(keys, private)
	}
	return keys
}

// crash ends a server in a way that leaves a core file, where the system and the process let it.
func crash(t *testing.T, l *lab, config string) {
	t.Helper()
	aborted := func(dir string, ready func(*process), args ...string) {
		cmd := exec.Command("sh", append([]string{"-c", `ulimit -c unlimited && exec "$0" "$@"`}, args...)...)
		cmd.Env = append(l.env(), "GOTRACEBACK=crash")
		cmd.Dir = dir
		p := l.startCommand(cmd)
		ready(p)
		if err := cmd.Process.Signal(syscall.SIGABRT); err != nil {
			t.Fatal(err)
		}
		<-p.done
	}
	control := l.path("control")
	if err := os.Mkdir(control, 0o700); err != nil {
		t.Fatal(err)
	}
	aborted(control, func(p *process) { <-p.events }, "sh", "-c", `echo '{"msg":"ready"}' >&2; kill -ABRT $$`)
	pattern, err := os.ReadFile("/proc/sys/kernel/core_pattern")
	if err != nil {
		t.Fatal(err)
	}
	// Where core files go elsewhere, nobody finds one here either way; the limits of the process are tested beside this.
	if left := blobs(t, control); len(left) == 0 && !strings.ContainsAny(string(pattern[:1]), "|/") {
		t.Error("a process that may leave a core file leaves none: the test shows nothing")
	}
	if err := os.RemoveAll(control); err != nil {
		t.Fatal(err)
	}
	before := blobs(t, l.dir)
	aborted(l.dir, func(p *process) { p.address() }, binary, "serve", "--log", "json", "-c", config)
	for path := range blobs(t, l.dir) {
		if _, there := before[path]; !there && strings.Contains(filepath.Base(path), "core") {
			t.Errorf("the server has left %s", path)
		}
	}
}

// nowhere looks for keys, in every form in which they are written, in all files.
func nowhere(t *testing.T, l *lab, keys []*ecdsa.PrivateKey) {
	t.Helper()
	found := func(raw []byte) bool {
		for _, k := range keys {
			scalar, err := k.Bytes()
			if err != nil {
				t.Fatal(err)
			}
			for _, form := range []string{string(scalar), hex.EncodeToString(scalar), base64.StdEncoding.EncodeToString(scalar)[:40], base64.RawURLEncoding.EncodeToString(scalar)[:40]} {
				if bytes.Contains(raw, []byte(form)) {
					return true
				}
			}
			der, err := x509.MarshalECPrivateKey(k)
			if err != nil {
				t.Fatal(err)
			}
			if text := base64.StdEncoding.EncodeToString(der); bytes.Contains(raw, []byte(text[:60])) { // a line of PEM has 64
				return true
			}
		}
		return false
	}
	der, err := x509.MarshalECPrivateKey(keys[0])
	if err != nil {
		t.Fatal(err)
	}
	if !found(der) || !found(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})) {
		t.Fatal("a key is not found where it is")
	}
	for path := range blobs(t, l.dir) {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if found(raw) {
			t.Errorf("%s holds a private key", path)
		}
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
