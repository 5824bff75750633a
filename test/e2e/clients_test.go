package e2e

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

const secret = "the page behind the proxy"

// client is an unmodified program that gets the secret from a service, or the repository beside it.
type client struct {
	name string
	// trusting makes the program use the system's trust store outside jurat exec where it would not by itself.
	trusting []string
	args     func(l *lab, addr string) []string
	service  service // that it talks to, HTTP where it is not said
}

func clients(l *lab, goClient string) []client {
	url := func(addr string) string { return "https://" + addr + "/file" }
	all := []client{
		{"curl", nil, func(_ *lab, addr string) []string { return []string{"curl", "-sS", "--max-time", "20", url(addr)} }, web},
		{"wget", nil, func(_ *lab, addr string) []string {
			return []string{"wget", "-qO-", "--tries=1", "--timeout=20", url(addr)}
		}, web},
		{"git", nil, func(_ *lab, addr string) []string {
			return []string{"git", "ls-remote", "https://" + addr + "/repo.git"}
		}, web},
		{"python urllib", nil, func(_ *lab, addr string) []string {
			return []string{"python3", "-c", "import sys,urllib.request as r; print(r.urlopen(sys.argv[1],timeout=20).read().decode())", url(addr)}
		}, web},
		// requests brings its own list of authorities; the variable is what Debian and many deployments set.
		{"python requests", []string{"REQUESTS_CA_BUNDLE=/etc/ssl/certs/ca-certificates.crt"}, func(_ *lab, addr string) []string {
			return []string{"python3", "-c", "import sys,requests; r=requests.get(sys.argv[1],timeout=20); r.raise_for_status(); print(r.text)", url(addr)}
		}, web},
		{"node", []string{"NODE_OPTIONS=--use-openssl-ca"}, func(_ *lab, addr string) []string {
			return []string{"node", "-e", "fetch(process.argv[1]).then(r=>r.text()).then(t=>console.log(t)).catch(e=>{console.error(e);process.exit(1)})", url(addr)}
		}, web},
		{"go", nil, func(_ *lab, addr string) []string { return []string{goClient, url(addr)} }, web},
		{"openssl s_client", nil, func(l *lab, addr string) []string {
			request := l.write("request", "GET /file HTTP/1.0\r\n\r\n")
			return []string{"sh", "-c", `exec openssl s_client -quiet -ign_eof -verify_return_error -verify_ip 127.0.0.1 -connect "$1" < "$2"`, "s_client", addr, request}
		}, web},
	}
	return append(all, tools(l)...)
}

// buildGoClient builds a program that knows net/http and nothing of jurat.
func buildGoClient(l *lab) string {
	l.Helper()
	src := l.write("main.go", `package main

import (
	"io"
	"log"
	"net/http"
	"os"
)

func main() {
	resp, err := http.Get(os.Args[1])
	if err != nil {
		log.Fatal(err)
	}
	_, _ = io.Copy(os.Stdout, resp.Body)
}
`)
	out := l.path("goclient")
	if o := l.run("go", "build", "-o", out, src); o.code != 0 {
		l.Fatal(o.stderr)
	}
	return out
}

// site makes a folder with a file and a bare repository, as a plain web server would serve it.
func site(l *lab) string {
	l.Helper()
	dir := l.path("site")
	script := `set -e
mkdir -p "$1"; cd "$1"; printf %s "$2" > file
git init -q work; cd work
git -c user.name=a -c user.email=a@b.example commit -q --allow-empty -m first
git clone -q --bare . ../repo.git; cd ../repo.git; git update-server-info; rm -rf ../work`
	if o := l.run("sh", "-c", script, "site", dir, secret); o.code != 0 {
		l.Fatal(o.stderr)
	}
	return dir
}

// authority is a CA that the system trusts, and that gave an impostor a certificate.
type authority struct {
	store string // a folder as /etc/ssl/certs: one file with everything, and one file by hash
	cert  tls.Certificate
}

func newAuthority(l *lab) authority {
	l.Helper()
	sign := func(template, parent *x509.Certificate, pub, key *ecdsa.PrivateKey) []byte {
		der, err := x509.CreateCertificate(rand.Reader, template, parent, pub.Public(), key)
		if err != nil {
			l.Fatal(err)
		}
		return der
	}
	newKey := func() *ecdsa.PrivateKey {
		key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			l.Fatal(err)
		}
		return key
	}
	caKey, key := newKey(), newKey()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "an authority of the system"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	caDER := sign(ca, ca, caKey, caKey)
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "impostor"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	leafDER := sign(leaf, ca, key, caKey)
	store := l.path("certs")
	if err := os.Mkdir(store, 0o755); err != nil {
		l.Fatal(err)
	}
	var out bytes.Buffer
	if err := pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: caDER}); err != nil {
		l.Fatal(err)
	}
	l.write("certs/ca-certificates.crt", out.String())
	l.write("certs/authority.pem", out.String())
	if o := l.run("openssl", "rehash", store); o.code != 0 {
		l.Fatal(o.stderr)
	}
	return authority{store, tls.Certificate{Certificate: [][]byte{leafDER, caDER}, PrivateKey: key}}
}

// impostor serves the same under a certificate of its own, and counts what it is sent.
type impostor struct {
	name  string
	code  string // of its refusal
	addrs map[service]string
	mu    sync.Mutex
	read  int
	open  int // connections
}

func newImpostor(l *lab, name, code string, cert tls.Certificate, dir string) *impostor {
	l.Helper()
	i := &impostor{name: name, code: code, addrs: map[service]string{}}
	config := &tls.Config{Certificates: []tls.Certificate{cert}, NextProtos: []string{"h2", "http/1.1", "postgresql"}}
	for _, s := range []service{web, calls, redis, postgres, postgresUpgraded} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			l.Fatal(err)
		}
		i.addrs[s] = ln.Addr().String()
		if s == postgresUpgraded {
			ln = upgrading{ln}
		}
		l.offer(s, counting{tls.NewListener(ln, config), i}, dir)
	}
	return i
}

// taken answers how many bytes of requests arrived since the last call. Its connections have to end before: the last words of who has
// been answered belong to that.
func (i *impostor) taken() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	for end := time.Now().Add(5 * time.Second); i.open > 0 && time.Now().Before(end); {
		i.mu.Unlock()
		time.Sleep(time.Millisecond)
		i.mu.Lock()
	}
	n := i.read
	i.read = 0
	return n
}

type counting struct {
	net.Listener
	i *impostor
}

func (c counting) Accept() (net.Conn, error) {
	conn, err := c.Listener.Accept()
	if err != nil {
		return nil, err
	}
	c.i.mu.Lock()
	defer c.i.mu.Unlock()
	c.i.open++
	return countingConn{conn, c.i, new(sync.Once)}, nil
}

type countingConn struct {
	net.Conn
	i    *impostor
	once *sync.Once
}

func (c countingConn) Close() error {
	defer c.once.Do(func() {
		c.i.mu.Lock()
		defer c.i.mu.Unlock()
		c.i.open--
	})
	return c.Conn.Close()
}

func (c countingConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	c.i.mu.Lock()
	c.i.read += n
	c.i.mu.Unlock()
	return n, err
}

// carelessHome is a folder with files of the user's that have tools take whoever is at addr.
func carelessHome(l *lab, addr string) string {
	l.Helper()
	for name, content := range map[string]string{
		".curlrc":              "insecure\n",
		".wgetrc":              "check_certificate = off\n",
		".gitconfig":           "[http]\n\tsslVerify = false\n[http \"https://" + addr + "\"]\n\tsslVerify = false\n",
		".npmrc":               "strict-ssl=false\n",
		".config/pip/pip.conf": "[global]\ntrusted-host = " + addr + "\n[download]\ntrusted-host = " + addr + "\n",
	} {
		file := filepath.Join(l.path("home"), name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			l.Fatal(err)
		}
		l.write(filepath.Join("home", name), content)
	}
	return l.path("home")
}

// inStore runs a command with the authority's folder in place of the system's trust store.
func (l *lab) inStore(store string, extra []string, args ...string) outcome {
	l.Helper()
	script := `mount --bind "$1" /etc/ssl/certs && shift && exec "$@"`
	cmd := exec.CommandContext(l.Context(), "unshare", append([]string{"-m", "sh", "-c", script, "sh", store}, args...)...)
	cmd.Env = append(l.env(), extra...)
	return l.finish(cmd)
}

// Every usual client reaches the attested server through exec, and none sends a byte to an impostor, whatever it shows. Without exec
// the same client is taken in by one that the system trusts, which shows that it is a real one.
func TestClients(t *testing.T) {
	need(t, "curl", "wget", "git", "python3", "node", "openssl", "unshare", "npm", "cargo", "javac", "java", "keytool", "psql", "redis-cli", "aws")
	if exec.Command("python3", "-c", "import requests, pip").Run() != nil {
		t.Skip("python3-requests or python3-pip is absent (test/setup.sh all fetches it)")
	}
	if _, err := os.Stat(pylib()); err != nil {
		t.Skip("bin/pylib is absent (test/setup.sh all fetches it)")
	}
	if os.Geteuid() != 0 {
		t.Skip("root is needed to put an authority into the system's trust store, in a mount namespace")
	}
	l := newLab(t)
	dir := site(l)
	ca := newAuthority(l)
	honest, appraised := map[service]string{}, []string{}
	for s, how := range map[service][]string{web: {}, calls: {}, redis: {"--tcp"}, postgres: {"--tcp"}} {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		l.offer(s, ln, dir)
		to := ln.Addr().String()
		if s == calls {
			to = "h2c://" + to
		}
		honest[s] = l.start(append([]string{"serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", to}, how...)...).address()
		appraised = append(appraised, "--to", honest[s])
	}
	policy := l.policyFor(honest[web])
	// psql of before PostgreSQL 17 asks for TLS first, in plain: jurat forward is its way in.
	plain := l.start("forward", "--log", "json", "-p", policy, "--listen", "127.0.0.1:0", honest[postgres]).address()
	impostors := impostors(l, honest[web], ca, dir)
	believed := impostors[0]
	good := func(o outcome) bool {
		return o.code == 0 && (strings.Contains(o.stdout, secret) || strings.Contains(o.stdout, "HEAD") || strings.Contains(o.stdout, "demo"))
	}
	all := clients(l, buildGoClient(l))
	for _, c := range all {
		t.Run(c.name, func(t *testing.T) {
			// What is appraised is always the right server; the command then goes where it is told to.
			through := func(to string) []string {
				return slices.Concat([]string{binary, "exec", "-p", policy}, appraised, []string{"--"}, c.args(l, to))
			}
			if c.service == postgresUpgraded {
				o := l.inStore(ca.store, []string{"PGSSLMODE=disable"}, c.args(l, plain)...)
				if !good(o) {
					t.Errorf("through forward: exit %d\n%s%s", o.code, o.stdout, o.stderr)
				}
			} else if o := l.inStore(ca.store, c.trusting, through(honest[c.service])...); !good(o) {
				t.Errorf("right server: exit %d\n%s%s", o.code, o.stdout, o.stderr)
			}
			o := l.inStore(ca.store, c.trusting, c.args(l, believed.addrs[c.service])...)
			if n := believed.taken(); n == 0 || !good(o) {
				t.Errorf("without exec the impostor was not believed, so this shows nothing: exit %d\n%s%s", o.code, o.stdout, o.stderr)
			}
			for _, bad := range impostors {
				o := l.inStore(ca.store, c.trusting, through(bad.addrs[c.service])...)
				if n := bad.taken(); n != 0 || good(o) || o.code == 0 {
					t.Errorf("%s: %d bytes of a request, exit %d\n%s%s", bad.name, n, o.code, o.stdout, o.stderr)
				}
			}
		})
	}
	t.Run("wget where the machine's configuration verifies nothing", func(t *testing.T) {
		careless := []string{"SYSTEM_WGETRC=" + l.write("wgetrc", "check_certificate = off\n")}
		fetch := []string{"wget", "-qO-", "--tries=1", "--timeout=20", "https://" + believed.addrs[web] + "/file"}
		if o := l.inStore(l.dir, careless, fetch...); !good(o) || believed.taken() == 0 {
			t.Errorf("without exec the impostor was not believed, so this shows nothing: exit %d\n%s%s", o.code, o.stdout, o.stderr)
		}
		o := l.inStore(ca.store, careless, append([]string{binary, "exec", "-p", policy, "--to", honest[web], "--"}, fetch...)...)
		if n := believed.taken(); n != 0 || good(o) {
			t.Errorf("impostor: %d bytes of a request, exit %d\n%s%s", n, o.code, o.stdout, o.stderr)
		}
	})
	t.Run("a home whose files verify nothing", func(t *testing.T) {
		careless := []string{"HOME=" + carelessHome(l, believed.addrs[web]), "XDG_CONFIG_HOME="}
		for _, c := range all {
			if !slices.Contains([]string{"curl", "wget", "git", "npm", "pip"}, c.name) {
				continue
			}
			t.Run(c.name, func(t *testing.T) {
				args := c.args(l, believed.addrs[web])
				_ = l.inStore(l.dir, careless, args...)
				if believed.taken() == 0 {
					t.Error("without exec the impostor was not believed, so this shows nothing")
				}
				o := l.inStore(ca.store, careless, append([]string{binary, "exec", "-p", policy, "--to", honest[web], "--"}, args...)...)
				if n := believed.taken(); n != 0 || good(o) {
					t.Errorf("impostor: %d bytes of a request, exit %d\n%s%s", n, o.code, o.stdout, o.stderr)
				}
			})
		}
	})
	for _, bad := range impostors {
		t.Run("appraising "+bad.name, func(t *testing.T) {
			to := bad.addrs[web]
			o := l.inStore(ca.store, nil, binary, "exec", "-p", policy, "--to", to, "--", "curl", "-sS", "https://"+to+"/file")
			if o.code != 125 || bad.taken() != 0 || !strings.Contains(o.stderr, bad.code) {
				t.Errorf("exec: exit %d\n%s%s", o.code, o.stdout, o.stderr)
			}
			front := l.start("forward", "--log", "json", "-p", policy, "--listen", "127.0.0.1:0", "--proxy", "--allow", "127.0.0.1").address()
			o = l.run("curl", "-sS", "--proxytunnel", "-D", "-", "-x", "http://"+front, "http://"+to+"/file")
			if o.code != 56 || bad.taken() != 0 || !strings.Contains(o.stdout, "Jurat-Error: "+bad.code) {
				t.Errorf("forward: exit %d\n%s%s", o.code, o.stdout, o.stderr)
			}
		})
	}
}

// The handshake of a simulated SEV-SNP platform, whose evidence has the size of the real one, stays within one initial
// congestion window.
func TestCertificateMessageIsSmall(t *testing.T) {
	need(t, "openssl")
	l := newLab(t)
	addr := l.start("serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1").address()
	o := l.run("sh", "-c", `openssl s_client -connect "$1" -showcerts -msg </dev/null`, "sh", addr)
	var size int
	for line := range strings.SplitSeq(o.stdout, "\n") {
		var n int
		if i := strings.Index(line, "Handshake [length "); i >= 0 && strings.HasSuffix(line, ", Certificate") && strings.HasPrefix(line, "<<<") {
			if _, err := fmt.Sscanf(line[i:], "Handshake [length %x]", &n); err == nil {
				size = n
			}
		}
	}
	t.Logf("Certificate message: %d bytes", size)
	if size == 0 || size >= 13<<10 {
		t.Fatalf("Certificate message of %d bytes, want less than %d\n%.2000s", size, 13<<10, o.stdout)
	}
}

// The private key of the leaf is nowhere in the files of the server, and curl's environment holds no key.
func TestNoKeyOnDisk(t *testing.T) {
	l := newLab(t)
	l.start("serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", "127.0.0.1:1").address()
	root := l.path("sim")
	err := filepath.WalkDir(l.dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasPrefix(path, root) {
			return err // the simulated vendor's own keys are there, as they would be at the vendor
		}
		raw, err := os.ReadFile(path)
		if bytes.Contains(raw, []byte("PRIVATE KEY")) {
			t.Errorf("%s holds a private key", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
