package e2e

import (
	"archive/zip"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	order "encoding/binary"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
)

// service is what a client talks to.
type service int

const (
	web service = iota
	calls
	redis
	postgres
	postgresUpgraded // where TLS is asked for in plain first, as before PostgreSQL 17
)

// offer serves on ln, until the test ends.
func (l *lab) offer(s service, ln net.Listener, dir string) {
	if s == web || s == calls {
		h := &http.Server{Handler: registries(dir), ErrorLog: log.New(io.Discard, "", 0), Protocols: new(http.Protocols)}
		h.Protocols.SetHTTP1(true)
		h.Protocols.SetUnencryptedHTTP2(true)
		go func() { _ = h.Serve(ln) }()
		l.Cleanup(func() { _ = h.Close() })
		return
	}
	serve := redisService
	if s != redis {
		serve = postgresService
	}
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(patience))
				serve(conn)
			}()
		}
	}()
	l.Cleanup(func() { _ = ln.Close() })
}

// redisService answers everything with the secret.
func redisService(conn net.Conn) {
	for buf := make([]byte, 4096); ; {
		if _, err := conn.Read(buf); err != nil {
			return
		}
		if _, err := fmt.Fprintf(conn, "+%s\r\n", secret); err != nil {
			return
		}
	}
}

const (
	sslRequest = 80877103
	gssRequest = 80877104
)

// startup reads the first message of a client of PostgreSQL's, and answers its code.
func startup(conn net.Conn) (uint32, error) {
	var head [8]byte
	if _, err := io.ReadFull(conn, head[:]); err != nil {
		return 0, err
	}
	_, err := io.CopyN(io.Discard, conn, int64(order.BigEndian.Uint32(head[:4]))-8)
	return order.BigEndian.Uint32(head[4:]), err
}

// postgresService lets everybody in, and has the secret for its version.
func postgresService(conn net.Conn) {
	for {
		code, err := startup(conn)
		if err != nil {
			return
		}
		if code != sslRequest && code != gssRequest {
			break
		}
		if _, err := conn.Write([]byte("N")); err != nil {
			return
		}
	}
	message := func(kind byte, body string) {
		out := order.BigEndian.AppendUint32([]byte{kind}, uint32(len(body)+4))
		_, _ = conn.Write(append(out, body...))
	}
	message('R', "\x00\x00\x00\x00")
	message('S', "server_version\x0015.0 ("+secret+")\x00")
	message('S', "client_encoding\x00UTF8\x00")
	message('K', "\x00\x00\x00\x01\x00\x00\x00\x01")
	message('Z', "I")
	_, _ = io.Copy(io.Discard, conn)
}

// upgrading agrees to TLS when asked in plain, and goes on without what was asked.
type upgrading struct{ net.Listener }

func (u upgrading) Accept() (net.Conn, error) {
	for {
		conn, err := u.Listener.Accept()
		if err != nil {
			return nil, err
		}
		_ = conn.SetDeadline(time.Now().Add(patience))
		if code, err := startup(conn); err == nil && code == sslRequest {
			if _, err = conn.Write([]byte("S")); err == nil {
				return conn, nil
			}
		}
		_ = conn.Close()
	}
}

// registries is the site, and what tools that fetch packages, buckets and calls talk to.
func registries(dir string) http.Handler {
	var wheel bytes.Buffer
	z := zip.NewWriter(&wheel)
	for name, content := range map[string]string{
		"demo/__init__.py":            "",
		"demo-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: demo\nVersion: 1.0\n",
		"demo-1.0.dist-info/WHEEL":    "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
		"demo-1.0.dist-info/RECORD":   "",
	} {
		if w, err := z.Create(name); err == nil {
			_, _ = io.WriteString(w, content)
		}
	}
	_ = z.Close()
	const file = "demo-1.0-py3-none-any.whl"
	mux := http.NewServeMux()
	mux.Handle("/", http.FileServer(http.Dir(dir)))
	mux.HandleFunc("/simple/demo/", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!DOCTYPE html><html><body><a href="/wheels/%s#sha256=%x">%[1]s</a></body></html>`, file, sha256.Sum256(wheel.Bytes()))
	})
	mux.HandleFunc("/wheels/"+file, func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write(wheel.Bytes()) })
	mux.HandleFunc("/npm/demo", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"name":"demo","dist-tags":{"latest":"1.0.0"},"versions":{"1.0.0":{"name":"demo","version":"1.0.0","description":%q,"dist":{"tarball":"https://%s/demo.tgz","shasum":"00"}}}}`, secret, r.Host)
	})
	mux.HandleFunc("/cargo/config.json", func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, `{"dl":"https://%s/crates"}`, r.Host) })
	mux.HandleFunc("/cargo/de/mo/demo", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"name":"demo","vers":"1.0.0","deps":[],"cksum":"%064d","features":{},"yanked":false}`+"\n", 0)
	})
	mux.HandleFunc("/buckets", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/xml")
		fmt.Fprintf(w, `<ListAllMyBucketsResult><Buckets><Bucket><Name>%s</Name><CreationDate>2026-01-01T00:00:00.000Z</CreationDate></Bucket></Buckets></ListAllMyBucketsResult>`, secret)
	})
	mux.HandleFunc("/demo.Demo/Get", func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		_, _ = w.Write(append(order.BigEndian.AppendUint32([]byte{0}, uint32(len(secret))), secret...))
		w.Header().Set("Grpc-Status", "0")
	})
	return mux
}

// pylib is where test/setup.sh puts what Debian does not have.
func pylib() string {
	dir, _ := filepath.Abs("../../bin/pylib")
	return dir
}

// fetchInJava makes a program for the JVM, and answers its folder.
func fetchInJava(l *lab) string {
	l.Helper()
	java := l.path("java")
	source := l.write("Fetch.java", `public class Fetch {
	public static void main(String[] args) throws Exception {
		new java.net.URL(args[0]).openConnection().getInputStream().transferTo(System.out);
	}
}
`)
	if o := l.run("javac", "-d", java, source); o.code != 0 {
		l.Fatal(o.stderr)
	}
	return java
}

// tools are the clients that talk to registries, clouds and databases.
func tools(l *lab) []client {
	l.Helper()
	const authorities = "/etc/ssl/certs/ca-certificates.crt"
	python := func(program string) func(*lab, string) []string {
		return func(_ *lab, addr string) []string {
			return []string{"env", "PYTHONPATH=" + pylib(), "python3", "-c", program, addr}
		}
	}
	port := func(addr string) string { return addr[strings.LastIndex(addr, ":")+1:] }
	java := fetchInJava(l)
	if o := l.run("keytool", "-importcert", "-noprompt", "-alias", "a", "-file", l.path("certs/authority.pem"), "-keystore", l.path("authority.p12"), "-storetype", "PKCS12", "-storepass", "changeit"); o.code != 0 {
		l.Fatal(o.stdout + o.stderr)
	}
	const project = `set -e
CARGO_HOME=$(mktemp -d "$3/cargo.XXXXXX"); export CARGO_HOME CARGO_NET_RETRY=0 CARGO_REGISTRIES_LAB_INDEX="sparse+https://$1/cargo/"
export RUSTUP_HOME="$2" CARGO_UNSTABLE_SPARSE_REGISTRY=true RUSTC_BOOTSTRAP=1
mkdir "$CARGO_HOME/p" "$CARGO_HOME/p/src"; cd "$CARGO_HOME/p"; : > src/lib.rs
printf '[package]\nname = "probe"\nversion = "0.1.0"\nedition = "2021"\n[dependencies]\ndemo = { version = "1.0", registry = "lab" }\n' > Cargo.toml
cargo -q generate-lockfile; cat Cargo.lock`
	rustup := os.Getenv("RUSTUP_HOME")
	if home, err := os.UserHomeDir(); err == nil && rustup == "" {
		rustup = filepath.Join(home, ".rustup")
	}
	return []client{
		{"npm", []string{"npm_config_cafile=" + authorities}, func(l *lab, addr string) []string {
			return []string{"sh", "-c", `exec npm view demo description --registry "https://$1/npm/" --fetch-retries=0 --no-update-notifier --cache "$(mktemp -d "$2/npm.XXXXXX")"`, "npm", addr, l.dir}
		}, web},
		{"pip", []string{"PIP_CERT=" + authorities}, func(l *lab, addr string) []string {
			return []string{"python3", "-m", "pip", "download", "--disable-pip-version-check", "--no-cache-dir", "--no-deps", "--retries", "0", "-d", l.path("wheels"), "-i", "https://" + addr + "/simple/", "demo"}
		}, web},
		{"cargo", nil, func(l *lab, addr string) []string {
			return []string{"sh", "-c", project, "cargo", addr, rustup, l.dir}
		}, web},
		{"java", []string{"JAVA_TOOL_OPTIONS=-Djavax.net.ssl.trustStore=" + l.path("authority.p12") + " -Djavax.net.ssl.trustStorePassword=changeit"}, func(_ *lab, addr string) []string {
			return []string{"java", "-XX:TieredStopAtLevel=1", "-cp", java, "Fetch", "https://" + addr + "/file"}
		}, web},
		{"aws", []string{"AWS_CA_BUNDLE=" + authorities, "AWS_MAX_ATTEMPTS=1"}, func(_ *lab, addr string) []string {
			return []string{"aws", "s3api", "list-buckets", "--endpoint-url", "https://" + addr + "/buckets", "--no-sign-request", "--region", "us-east-1"}
		}, web},
		// Google's libraries for Python stand on httplib2 and requests.
		{"python httplib2", []string{"HTTPLIB2_CA_CERTS=" + authorities}, python("import sys,httplib2; print(httplib2.Http(timeout=20).request('https://'+sys.argv[1]+'/file')[1].decode())"), web},
		{"python grpc", []string{"GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=" + authorities}, python("import sys,grpc; print(grpc.secure_channel(sys.argv[1],grpc.ssl_channel_credentials()).unary_unary('/demo.Demo/Get')(b'',timeout=20).decode())"), calls},
		{"deno", []string{"DENO_TLS_CA_STORE=system"}, func(l *lab, addr string) []string {
			return []string{"env", "DENO_DIR=" + l.path("deno"), "DENO_NO_UPDATE_CHECK=1", filepath.Join(pylib(), "bin/deno"), "eval", "console.log(await (await fetch(Deno.args[0])).text())", "https://" + addr + "/file"}
		}, web},
		{"redis-cli", nil, func(_ *lab, addr string) []string {
			return []string{"redis-cli", "--tls", "-h", "127.0.0.1", "-p", port(addr), "ping"}
		}, redis},
		{"libpq 17", []string{"PGSSLMODE=verify-full", "PGSSLNEGOTIATION=direct", "PGSSLROOTCERT=" + authorities}, python("import sys,psycopg; h,p=sys.argv[1].split(':'); print(psycopg.connect(host=h,port=p,user='a',dbname='d',connect_timeout=20).info.parameter_status('server_version'))"), postgres},
		{"psql", []string{"PGSSLMODE=verify-full", "PGSSLROOTCERT=" + authorities}, func(_ *lab, addr string) []string {
			return []string{"psql", "-X", "-h", "127.0.0.1", "-p", port(addr), "-U", "a", "-d", "d", "-c", `\echo :SERVER_VERSION_NAME`}
		}, postgresUpgraded},
	}
}

// impostors are all that may stand in the place of the server at honest. The first is one that the system trusts.
func impostors(l *lab, honest string, ca authority, dir string) []*impostor {
	l.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		l.Fatal(err)
	}
	own := func(copied *x509.Certificate) tls.Certificate {
		template := &x509.Certificate{
			SerialNumber: big.NewInt(3), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, KeyUsage: x509.KeyUsageDigitalSignature,
			NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		}
		if copied != nil { // everything but the key
			template = &x509.Certificate{
				SerialNumber: copied.SerialNumber, Subject: copied.Subject, NotBefore: copied.NotBefore, NotAfter: copied.NotAfter,
				ExtraExtensions: copied.Extensions,
			}
		}
		der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
		if err != nil {
			l.Fatal(err)
		}
		return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
	}
	chain, err := ratls.Peek(l.Context(), honest)
	if err != nil {
		l.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(chain[0])
	if err != nil {
		l.Fatal(err)
	}
	attested := func(config sim.Config) tls.Certificate {
		platform, err := sim.New(config)
		if err != nil {
			l.Fatal(err)
		}
		id, err := ratls.NewIdentity(l.Context(), platform, []string{"127.0.0.1"}, [32]byte{1}, ratls.IdentityOptions{})
		if err != nil {
			l.Fatal(err)
		}
		l.Cleanup(id.Close)
		cert, err := id.GetCertificate(nil)
		if err != nil {
			l.Fatal(err)
		}
		return *cert
	}
	return []*impostor{
		newImpostor(l, "a certificate of an authority of the system's", "J105", ca.cert, dir),
		newImpostor(l, "a certificate of its own", "J105", own(nil), dir),
		newImpostor(l, "evidence of another measurement", "J502", attested(sim.Config{Dir: l.path("sim"), Product: "genoa", Measurement: bytes.Repeat([]byte{7}, 48)}), dir),
		newImpostor(l, "evidence that is relayed", "J401", own(leaf), dir),
		newImpostor(l, "evidence of a simulation that the policy does not name", "J507", attested(sim.Config{Product: "genoa"}), dir),
	}
}
