package e2e

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/wellknown"
	"github.com/jurat-tls/jurat/test/pebble"
	"github.com/jurat-tls/jurat/test/ports"
)

// freePort answers one that was free a moment ago: a CA has to be told beforehand where it will find us.
func freePort(t testing.TB) int {
	t.Helper()
	return int(ports.Free(t, 1)[0].Port())
}

// shop is a client that trusts a CA and knows nothing of evidence.
func shop(t testing.TB, addr string, root []byte) (*http.Client, *x509.CertPool) {
	t.Helper()
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(root) {
		t.Fatal("no root")
	}
	transport := &http.Transport{
		ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: roots},
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, addr)
		},
	}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 10 * time.Second}, roots
}

// relyingParty is one with a policy of the lab.
func relyingParty(t testing.TB, file string) *ratls.RelyingParty {
	t.Helper()
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	p, err := policy.Parse(file, raw, policy.NoFiles)
	if err != nil {
		t.Fatal(err)
	}
	return ratls.NewRelyingParty(attest.NewAppraiser(attest.NoEndorser{}, sim.NewVerifier(p.SimulationRoots())), p, time.Now)
}

// On one port everybody gets what they ask for: curl a certificate of the CA, a jurat a session, a program that checks evidence a
// certificate with evidence for the same name. Certificates are renewed meanwhile, and no request fails for it.
func TestOnePort(t *testing.T) {
	need(t, "curl", "chromium", "certutil")
	l := newLab(t)
	port := freePort(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port, Validity: 20 * time.Second})
	l.write("ca.pem", string(ca.Roots))
	l.write("root.pem", string(ca.Root(t)))
	var told sync.Map // of what the service was told about its clients
	service := l.page(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		told.Store(r.Header.Get("Jurat-Result"), true)
		fmt.Fprintf(w, "hello over %s", r.Proto)
	}))
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	file := l.write("jurat.yaml", fmt.Sprintf(`identity: {tee: %q, names: [127.0.0.1, shop.example], well_known: true}
drain: 1s
admin: {address: "unix:%s"}
listen:
  - address: %q
    to: %q
    public: {names: [shop.example, localhost], acme: {directory: %q, roots: ca.pem, agree_terms: true, email: ops@shop.example}}
`, l.tee(), l.path("admin"), addr, service, ca.Directory))
	if o := l.must(0, "serve", "-c", file, "--check"); !strings.HasPrefix(o.stdout, "ok: listeners: 1,") {
		t.Fatal(o.stdout)
	}
	server := l.start("serve", "--log", "json", "-c", file)
	server.address()
	issued := func(name string) event { // the next one for a name
		for {
			if e := server.wait("new public certificate"); e.text("name") == name {
				return e
			}
		}
	}
	got := map[string]event{}
	for len(got) < 2 { // in either order
		e := server.wait("new public certificate")
		got[e.text("name")] = e
	}
	first := got["shop.example"]
	limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", server.cmd.Process.Pid))
	if err == nil && !strings.Contains(strings.Join(strings.Fields(string(limits)), " "), "Max core file size 0 0") {
		t.Errorf("there can be core dumps:\n%s", limits)
	}

	// Requests from now until the end: over connections of their own, and over those that are there.
	ctx, cancel := context.WithCancel(t.Context())
	var load sync.WaitGroup
	var requests, failed, fresh atomic.Int64
	serials := sync.Map{}
	for i := range 4 {
		client, _ := shop(t, addr, ca.Root(t))
		load.Go(func() {
			for ctx.Err() == nil {
				if i%2 == 0 {
					client.CloseIdleConnections()
					fresh.Add(1)
				}
				resp, err := client.Get("https://shop.example/")
				requests.Add(1)
				if err == nil {
					serials.Store(resp.TLS.PeerCertificates[0].SerialNumber.String(), true)
					_, err = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
				if err != nil {
					failed.Add(1)
					t.Error(err)
				}
				select {
				case <-ctx.Done():
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
	}

	curl := func(args ...string) outcome {
		return l.run("curl", append([]string{"-qsS", "--cacert", l.path("root.pem"), "--resolve", fmt.Sprintf("shop.example:%d:127.0.0.1", port)}, args...)...)
	}
	target := fmt.Sprintf("https://shop.example:%d/", port)
	if o := curl(target); o.code != 0 || o.stdout != "hello over HTTP/1.1" && o.stdout != "hello over HTTP/2.0" {
		t.Errorf("curl: %d %s%s", o.code, o.stdout, o.stderr)
	}
	if o := curl("--tls-max", "1.2", "--http1.1", target); o.code != 0 {
		t.Errorf("curl in TLS 1.2: %d %s%s", o.code, o.stdout, o.stderr)
	}
	if o := curl(fmt.Sprintf("https://127.0.0.1:%d/", port)); o.code == 0 { // which gets evidence, and trusts it not
		t.Errorf("curl by another name: %s", o.stdout)
	}

	key := l.policyFor(addr)
	raw, err := os.ReadFile(key)
	if err != nil {
		t.Fatal(err)
	}
	session := l.write("session.yaml", strings.Replace(string(raw), "binding: key", "binding: session", 1))
	if string(raw) == strings.Replace(string(raw), "binding: key", "binding: session", 1) {
		t.Fatalf("no binding in %s", raw)
	}
	var verdict struct {
		Binding, Level string
	}
	o := l.must(0, "verify", "--json", "-p", session, addr)
	if err := json.Unmarshal([]byte(o.stdout), &verdict); err != nil || verdict.Level != "session" && verdict.Binding != "session" {
		t.Errorf("verify: %v\n%s", err, o.stdout)
	}
	attested := func(policy string, protos ...string) error {
		config := ratls.ClientConfig(relyingParty(t, policy), "shop.example")
		config.NextProtos = protos
		conn, err := tls.Dial("tcp", addr, config)
		if err != nil {
			return err
		}
		defer conn.Close()
		_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
		answer, err := io.ReadAll(conn)
		if err == nil && !strings.Contains(string(answer), "hello over") {
			err = errors.New(string(answer))
		}
		return err
	}
	if err := attested(key, ratls.KeyALPN, "http/1.1"); err != nil {
		t.Errorf("Go at key: %v", err)
	}
	if err := attested(session, ratls.KeyALPN, "http/1.1"); attest.CodeOf(err) != attest.CodeBindingTooWeak {
		t.Errorf("Go at key, where session is demanded: %v", err)
	}
	if err := attested(key, "http/1.1"); attest.CodeOf(err) != attest.CodeNoEvidence {
		t.Errorf("Go with the public certificate: %v", err)
	}

	// The document is for the key that its connection shows: that of the public certificate here.
	wellKnownOverPublic(l, port, session)

	// Another configuration, and with it other objects everywhere.
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	l.write("jurat.yaml", strings.Replace(string(text), "well_known: true}", "well_known: true, lifetime: 50m}", 1))
	if err := server.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	server.wait("configuration changed")

	last := first
	for seen := map[string]bool{first.text("serial"): true}; len(seen) < 4; seen[last.text("serial")] = true { // three renewals
		last = issued("shop.example")
	}
	if o := curl(target); o.code != 0 {
		t.Errorf("curl at the end: %d %s%s", o.code, o.stdout, o.stderr)
	}
	admin := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", l.path("admin"))
	}, DisableKeepAlives: true}}
	for path, want := range map[string]string{"/stats/prometheus": `jurat_public_certificate_obtained_total{name="shop.example"} `, "/certs": "public shop.example"} {
		resp, err := admin.Get("http://localhost" + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if !strings.Contains(string(body), want) {
			t.Errorf("%s: %s", path, body)
		}
	}
	cancel()
	load.Wait()
	different := 0
	serials.Range(func(any, any) bool { different++; return true })
	t.Logf("%d requests, %d of them over new connections, %d failed; %d certificates seen, the last until %s", requests.Load(), fresh.Load(), failed.Load(), different, last.text("until"))
	if different < 3 || failed.Load() != 0 {
		t.Errorf("%d certificates", different)
	}
	told.Range(func(result, _ any) bool {
		if result != "" {
			t.Errorf("the service was told that a client has proved %q", result)
		}
		return true
	})
	server.stop()
	noKeys(t, l)
}

// wellKnownOverPublic asks for evidence over connections with the public certificate: by curl, by jurat, and by a browser that trusts the CA.
func wellKnownOverPublic(l *lab, port int, session string) {
	l.Helper()
	nonce := make([]byte, 32)
	_, _ = rand.Read(nonce)
	var document *wellknown.Document
	for range 3 { // a certificate lives for seconds here
		o := l.run("curl", "-qsS", "--cacert", l.path("root.pem"), "--resolve", fmt.Sprintf("shop.example:%d:127.0.0.1", port), "-D", l.path("head"),
			"-w", "%{stderr}%{certs}", fmt.Sprintf("https://shop.example:%d%s?%s", port, wellknown.Path, wellknown.Query(nonce)))
		d, err := wellknown.Unmarshal([]byte(o.stdout))
		if o.code != 0 || err != nil {
			l.Errorf("%v: %+v", err, o)
			return
		}
		document = d
		_, text, _ := strings.Cut(o.stderr, "-----BEGIN")
		block, _ := pem.Decode([]byte("-----BEGIN" + text))
		if block == nil {
			l.Fatalf("no certificate: %s", o.stderr)
		}
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			l.Fatal(err)
		}
		if !slices.Equal(leaf.DNSNames, []string{"shop.example"}) || d.Connection != sha256.Sum256(leaf.RawSubjectPublicKeyInfo) || d.Identity == d.Connection || !bytes.Equal(d.Nonce, nonce) {
			l.Errorf("for %q: %+v", leaf.DNSNames, d)
		}
	}
	raw, err := os.ReadFile(session)
	if err != nil {
		l.Fatal(err)
	}
	target := fmt.Sprintf("https://localhost:%d/", port)
	weak := l.write("nonce.yaml", strings.Replace(string(raw), "binding: session", "binding: nonce", 1))
	var verdict struct{ Verdict, Binding string }
	o := l.must(0, "verify", "--json", "--well-known", "-p", weak, target)
	if err := json.Unmarshal([]byte(o.stdout), &verdict); err != nil || verdict.Verdict != "affirmed" || verdict.Binding != "nonce" {
		l.Errorf("verify --well-known: %v\n%s", err, o.stdout)
	}
	// A browser takes the certificate, and the page what it is shown over it; by another name there is one that no authority knows.
	l.trusting(l.path("root.pem"))
	root := sha256.Sum256(arkOf(l.T, document.Evidence))
	for base, says := range map[string]string{fmt.Sprintf("https://shop.example:%d", port): "affirmed", fmt.Sprintf("https://127.0.0.1:%d", port): "refused"} {
		params := url.Values{"target": {base}, "root": {hex.EncodeToString(root[:])}, "measurement": {hex.EncodeToString(document.Evidence.Raw[0x90:0xc0])}}
		if got, checks := l.browseWith(params, "--host-resolver-rules=MAP shop.example 127.0.0.1"); got != says {
			l.Errorf("%s in a browser: %s\n%s", base, got, checks)
		}
	}
	if o := l.jurat("verify", "--well-known", "-p", session, target); o.code == 0 || !strings.Contains(o.stderr, string(attest.CodeBindingTooWeak)) {
		l.Errorf("verify --well-known, where session is demanded: %+v", o)
	}
}

// noKeys looks at every file of a lab, but those of the simulated vendor.
func noKeys(t *testing.T, l *lab) {
	t.Helper()
	err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() || strings.HasPrefix(path, l.path("sim")) {
			return err
		}
		raw, err := os.ReadFile(path)
		if strings.Contains(string(raw), "PRIVATE KEY") {
			t.Errorf("%s holds a private key", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Beside a public certificate, who is asked for evidence is still asked: the challenge of the CA gets to the chain that is for it, and a
// client without evidence does not get to the one that demands it.
func TestOnePortChains(t *testing.T) {
	l := newLab(t)
	port := freePort(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port})
	l.write("ca.pem", string(ca.Roots))
	web := l.page(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "web"+r.Header.Get("Jurat-Result"))
	}))
	peers := l.page(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.WriteString(w, "peers "+r.Header.Get("Jurat-Result"))
	}))
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	// A first server tells what the platform is.
	early := l.start("serve", "--log", "json", "--tee", l.tee(), "--listen", "127.0.0.1:0", "--to", web)
	policy := l.policyFor(early.address())
	early.stop()
	file := l.write("jurat.yaml", fmt.Sprintf(`identity: {tee: %q, names: [127.0.0.1, shop.example]}
drain: 1s
listen:
  - address: %q
    chains:
      - name: web
        match: {application_protocols: [h2, http/1.1]}
        to: %q
        public: {names: [shop.example], acme: {directory: %q, roots: ca.pem, agree_terms: true}}
      - name: peers
        match: {application_protocols: [jurat/1, jurat-key/1]}
        to: %q
        require: policy.yaml
`, l.tee(), addr, web, ca.Directory, peers))
	server := l.start("serve", "--log", "json", "-c", file)
	server.address()
	server.wait("new public certificate")
	client, roots := shop(t, addr, ca.Root(t))
	// Nor does it get there, or pass for one that has, by what it says in a request.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://shop.example/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = "127.0.0.1"
	req.Header.Set("Jurat-Result", "verdict=affirmed")
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if string(body) != "web" {
		t.Errorf("got %q", body)
	}
	// Who asks for the chain of the peers has to show evidence.
	for _, protos := range [][]string{
		{ratls.KeyALPN}, {"jurat/1"}, {"http/1.1", ratls.KeyALPN}, {ratls.KeyALPN, "http/1.1"}, {"acme-tls/1", ratls.KeyALPN}, {"jurat/1", "acme-tls/1"}, {"acme-tls/1", "http/1.1", "jurat/1"},
	} {
		conn, err := tls.Dial("tcp", addr, &tls.Config{ServerName: "shop.example", NextProtos: protos, RootCAs: roots, InsecureSkipVerify: true})
		if err == nil {
			_, _ = io.WriteString(conn, "GET / HTTP/1.0\r\nHost: shop.example\r\n\r\n")
			body, err = io.ReadAll(conn)
			_ = conn.Close()
		}
		if err == nil && strings.Contains(string(body), "peers") {
			t.Errorf("%q: served without evidence: %s", protos, body)
		}
	}
	forward := l.start("forward", "--log", "json", "--drain", "1s", "--tee", l.tee(), "-p", policy, "--listen", "127.0.0.1:0", addr)
	resp, err = http.Get("http://" + forward.address() + "/")
	if err != nil {
		t.Fatal(err)
	}
	body, _ = io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	if !strings.HasPrefix(string(body), "peers verdict=affirmed") {
		t.Errorf("got %q", body)
	}
}
