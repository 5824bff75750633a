// Package pebble runs Let's Encrypt's test CA, with a DNS in which every name is this machine, and a front that can fail.
package pebble

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/test/ports"
)

// Options say how the CA is.
type Options struct {
	TLSPort, HTTPPort int               // where it looks for challenges; 0 for a port where nothing is
	Validity          time.Duration     // of certificates; 0 for 90 days
	Blocked           []string          // names that it refuses
	External          map[string]string // accounts have to be bound to one of these: keys in base64 by their ids
	DNS               string            // host:port of another DNS
}

// CA is one that runs until the test ends.
type CA struct {
	Directory string // URL, at the front
	Roots     []byte // of the CA's own server, in PEM
	mode      atomic.Pointer[mode]
	orders    atomic.Int64
	manage    string
	client    *http.Client
}

type mode struct {
	status     int // 0 for none: the connection breaks
	retryAfter string
	path       string // that is concerned; "" for all
	body       string
}

// Start starts one, or skips where the programs can't be had.
func Start(t testing.TB, o Options) *CA {
	t.Helper()
	dir := t.TempDir()
	cert, key, roots := serverCertificate(t)
	for name, raw := range map[string][]byte{"cert.pem": cert, "key.pem": key} {
		if err := os.WriteFile(filepath.Join(dir, name), raw, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	addrs := ports.Free(t, 4)
	acme, manage, resolver, control := addrs[0].String(), addrs[1].String(), addrs[2].String(), addrs[3].String()
	if o.DNS == "" {
		o.DNS = resolver
		run(t, "pebble-challtestsrv", "-http01", "", "-https01", "", "-doh", "", "-tlsalpn01", "", "-dnsserver", resolver, "-management", control, "-defaultIPv6", "")
	}
	validity := int(o.Validity / time.Second)
	if validity == 0 {
		validity = 90 * 24 * 3600
	}
	config := map[string]any{"pebble": map[string]any{
		"listenAddress": acme, "managementListenAddress": manage, "certificate": filepath.Join(dir, "cert.pem"), "privateKey": filepath.Join(dir, "key.pem"),
		"httpPort": max(o.HTTPPort, 1), "tlsPort": max(o.TLSPort, 1), "domainBlocklist": o.Blocked, "keyAlgorithm": "ecdsa", "retryAfter": map[string]int{"authz": 1, "order": 1},
		"externalAccountBindingRequired": o.External != nil, "externalAccountMACKeys": o.External,
		"profiles": map[string]any{"default": map[string]any{"description": "for tests", "validityPeriod": validity}},
	}}
	raw, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "pebble.json")
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, "pebble", "-config", file, "-dnsserver", o.DNS)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(roots)
	c := &CA{Roots: roots, manage: manage, client: &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, DisableKeepAlives: true}}}
	for _, addr := range []string{acme, manage} {
		wait(t, addr)
	}
	wait(t, o.DNS)
	c.front(t, acme, cert, key, pool)
	return c
}

const newOrder = "/order-plz"

// front is what clients connect to.
func (c *CA) front(t testing.TB, to string, cert, key []byte, pool *x509.CertPool) {
	pair, err := tls.X509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{pair}})
	if err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}}
	proxy := &httputil.ReverseProxy{ErrorLog: log.New(io.Discard, "", 0), Transport: transport, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(&url.URL{Scheme: "https", Host: to})
		r.Out.Host = r.In.Host // of which the CA makes its addresses
	}, ModifyResponse: func(r *http.Response) error {
		if r.Request.URL.Path == newOrder && r.StatusCode == http.StatusCreated { // it also refuses good nonces now and then
			c.orders.Add(1)
		}
		return nil
	}}
	s := &http.Server{ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m := c.mode.Load()
		if m == nil || !strings.HasPrefix(r.URL.Path, m.path) {
			proxy.ServeHTTP(w, r)
			return
		}
		if r.URL.Path == newOrder {
			c.orders.Add(1)
		}
		if m.status == 0 {
			panic(http.ErrAbortHandler)
		}
		if m.retryAfter != "" {
			w.Header().Set("Retry-After", m.retryAfter)
		}
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(m.status)
		_, _ = io.WriteString(w, m.body)
	})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = s.Serve(ln)
	}()
	t.Cleanup(func() {
		_ = s.Close()
		<-done
		transport.CloseIdleConnections()
	})
	c.Directory = "https://" + ln.Addr().String() + "/dir"
}

// Orders is how many orders there were, of which some may have been refused for their rate.
func (c *CA) Orders() int { return int(c.orders.Load()) }

// Down breaks every connection off, until Up.
func (c *CA) Down() { c.mode.Store(&mode{}) }

// Limit refuses every new order for its rate, with a Retry-After, until Up.
func (c *CA) Limit(retryAfter string) {
	c.mode.Store(&mode{http.StatusTooManyRequests, retryAfter, newOrder, `{"type":"urn:ietf:params:acme:error:rateLimited","detail":"too many","status":429}`})
}

// Up has it answer again.
func (c *CA) Up() { c.mode.Store(nil) }

// Root is that of the certificates, in PEM.
func (c *CA) Root(t testing.TB) []byte {
	t.Helper()
	return c.get(t, "/roots/0")
}

// Revoked reports whether a certificate is revoked.
func (c *CA) Revoked(t testing.TB, cert *x509.Certificate) bool {
	t.Helper()
	var out struct{ Status string }
	if err := json.Unmarshal(c.get(t, fmt.Sprintf("/cert-status-by-serial/%x", cert.SerialNumber)), &out); err != nil {
		t.Fatal(err)
	}
	return out.Status == "Revoked"
}

// Advise has it say from now on that a certificate should have been renewed a while ago, as CAs do of those that they have revoked. Its
// own answer to that is a window of one second, which some clients take for none.
func (c *CA) Advise(t testing.TB, cert *x509.Certificate) {
	t.Helper()
	ago := time.Now().Add(-time.Hour).UTC()
	advice, err := json.Marshal(map[string]any{"suggestedWindow": map[string]time.Time{"start": ago, "end": ago.Add(30 * time.Minute)}})
	if err != nil {
		t.Fatal(err)
	}
	body, err := json.Marshal(map[string]string{"Certificate": string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert.Raw})), "ARIResponse": string(advice)})
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.client.Post("https://"+c.manage+"/set-renewal-info/", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		t.Fatal(resp.Status)
	}
}

func (c *CA) get(t testing.TB, path string) []byte {
	t.Helper()
	resp, err := c.client.Get("https://" + c.manage + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s %v %s", path, resp.Status, err, raw)
	}
	return raw
}

// program answers where a program is that the module in tool names: the go command builds it once.
func program(t testing.TB, name string) string {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	cmd := exec.Command("go", "tool", "-n", name)
	cmd.Dir = filepath.Join(filepath.Dir(file), "tool")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("%s can't be built: %v: %s", name, err, stderr.String())
	}
	return strings.TrimSpace(string(out))
}

// run runs a program until the test ends.
func run(t testing.TB, name string, args ...string) {
	t.Helper()
	cmd := exec.Command(program(t, name), args...)
	cmd.Env = append(os.Environ(), "PEBBLE_VA_NOSLEEP=1", "PEBBLE_AUTHZREUSE=0")
	cmd.SysProcAttr = attributes()
	var output lines
	cmd.Stdout, cmd.Stderr = &output, &output
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		timer := time.AfterFunc(5*time.Second, func() { _ = cmd.Process.Kill() })
		_ = cmd.Wait()
		timer.Stop()
		if t.Failed() {
			t.Logf("%s:\n%s", name, output.tail())
		}
	})
}

// lines keeps the last ones.
type lines struct {
	mu  sync.Mutex
	buf []byte
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.buf = append(l.buf, p...)
	l.buf = l.buf[max(0, len(l.buf)-8<<10):]
	return len(p), nil
}

func (l *lines) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return string(l.buf)
}

// wait waits until something listens.
func wait(t testing.TB, addr string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	for {
		conn, err := new(net.Dialer).DialContext(ctx, "tcp", addr)
		if err == nil {
			_ = conn.Close()
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("nothing at %s: %v", addr, err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// SelfSigned makes a certificate for an hour, and its key, in PEM.
func SelfSigned(t testing.TB, names ...string) (chain, key []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), DNSNames: names}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw})
}

// serverCertificate is of the CA's own server.
func serverCertificate(t testing.TB) (cert, key, roots []byte) {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	cert = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return cert, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: raw}), cert
}
