package public_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	library "github.com/mholt/acmez/v3/acme"
	"go.uber.org/goleak"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/public"
	"github.com/jurat-tls/jurat/test/pebble"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// aead is a Sealer with a key in memory.
type aead struct{ cipher.AEAD }

func newSealer(t testing.TB) public.Sealer {
	t.Helper()
	key := make([]byte, 32)
	_, _ = rand.Read(key)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	a, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		t.Fatal(err)
	}
	return aead{a}
}

func (a aead) Seal(context string, plain []byte) ([]byte, error) {
	return a.AEAD.Seal(nil, nil, plain, []byte(context)), nil
}

func (a aead) Open(context string, sealed []byte) ([]byte, error) {
	return a.AEAD.Open(nil, nil, sealed, []byte(context))
}

// site accepts connections, as a listener does that has public certificates.
type site struct {
	ln   net.Listener
	mu   sync.Mutex
	of   source
	done chan struct{}
}

type source interface {
	Certificate(name string) (*tls.Certificate, error)
	Challenge(ctx context.Context, name string) (*tls.Certificate, error)
}

func newSite(t testing.TB) (*site, int) {
	t.Helper()
	s := &site{done: make(chan struct{})}
	raw, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.ln = tls.NewListener(raw, &tls.Config{GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) {
		s.mu.Lock()
		of := s.of
		s.mu.Unlock()
		if of == nil {
			return nil, errors.New("none")
		}
		get, protos := of.Certificate, []string(nil)
		if len(h.SupportedProtos) == 1 && h.SupportedProtos[0] == "acme-tls/1" {
			get = func(name string) (*tls.Certificate, error) { return of.Challenge(h.Context(), name) }
			protos = h.SupportedProtos
		}
		cert, err := get(h.ServerName)
		if err != nil || cert == nil {
			return nil, errors.Join(err, errors.New("no certificate"))
		}
		return &tls.Config{Certificates: []tls.Certificate{*cert}, NextProtos: protos, SessionTicketsDisabled: true}, nil
	}})
	go func() {
		defer close(s.done)
		var work sync.WaitGroup
		defer work.Wait()
		for {
			conn, err := s.ln.Accept()
			if err != nil {
				return
			}
			work.Go(func() {
				defer conn.Close()
				_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
				_ = conn.(*tls.Conn).Handshake()
			})
		}
	}()
	t.Cleanup(func() { _ = s.ln.Close(); <-s.done })
	return s, raw.Addr().(*net.TCPAddr).Port
}

func (s *site) use(of source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.of = of
}

func pool(pem []byte) *x509.CertPool {
	p := x509.NewCertPool()
	p.AppendCertsFromPEM(pem)
	return p
}

// acme is what most tests ask for.
func acme(ca *pebble.CA) public.ACME {
	return public.ACME{Directory: ca.Directory, Roots: pool(ca.Roots), ALPN: true, Retry: 100 * time.Millisecond, Longest: time.Second, Poll: 50 * time.Millisecond}
}

// start makes Certificates that run until the test, or the function that it answers, ends them.
func start(t testing.TB, s *site, storage *public.Storage, a public.ACME, names ...string) (*public.Certificates, func()) {
	t.Helper()
	return startAt(t, s, storage, a, time.Now, names...)
}

func startAt(t testing.TB, s *site, storage *public.Storage, a public.ACME, now func() time.Time, names ...string) (*public.Certificates, func()) {
	t.Helper()
	c, err := public.NewCertificates(names, a, storage, now, slog.New(slog.NewTextHandler(testWriter{t}, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if s != nil {
		s.use(c)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	end := sync.OnceFunc(func() { cancel(); <-done })
	t.Cleanup(end)
	return c, end
}

type testWriter struct{ testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.Log(strings.TrimSpace(string(p)))
	return len(p), nil
}

// until polls for a condition.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(60 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// served waits for a certificate other than one.
func served(t testing.TB, c source, name string, other *tls.Certificate) *tls.Certificate {
	t.Helper()
	var cert *tls.Certificate
	until(t, "a certificate for "+name, func() bool {
		now, err := c.Certificate(name)
		cert = now
		return err == nil && now != nil && (other == nil || !now.Leaf.Equal(other.Leaf))
	})
	return cert
}

func TestIssueAndRenew(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port, Validity: 12 * time.Second})
	c, end := start(t, s, public.NewMemory(), acme(ca), "shop.example", "www.shop.example")
	first := served(t, c, "shop.example", nil)
	roots := pool(ca.Root(t))
	conn, err := tls.Dial("tcp", s.ln.Addr().String(), &tls.Config{ServerName: "shop.example", RootCAs: roots})
	if err != nil {
		t.Fatal(err)
	}
	_ = conn.Close()
	served(t, c, "WWW.shop.example", nil)
	if cert, err := c.Certificate("other.example"); cert != nil || err != nil {
		t.Fatal(cert, err)
	}
	second := served(t, c, "shop.example", first)
	if pub := second.PrivateKey.(*ecdsa.PrivateKey).PublicKey; pub.Equal(&first.PrivateKey.(*ecdsa.PrivateKey).PublicKey) {
		t.Fatal("renewed under the same key")
	}
	if left := first.Leaf.NotAfter.Sub(second.Leaf.NotBefore); left < 0 {
		t.Fatalf("renewed %s after it had expired", -left)
	}
	until(t, "two of each", func() bool {
		for _, st := range c.Status() {
			if st.Obtained < 2 || st.Leaf == nil {
				return false
			}
		}
		return true
	})
	for _, st := range c.Status() {
		if st.Failures > 1 || st.Err != nil { // one for the certificate in 256 whose number Pebble can't find again, to replace it
			t.Errorf("%+v", st)
		}
	}
	end()
	if _, err := c.Challenge(t.Context(), "shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Fatal(err)
	}
}

// A certificate is there again, without another order, after a restart; the key is in no file.
func TestDirectory(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port})
	dir, sealer := t.TempDir(), newSealer(t)
	open := func() *public.Storage {
		st, err := public.NewDirectory(dir, sealer)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = st.Close() })
		return st
	}
	a := acme(ca)
	a.KeyType = public.RSA2048
	c, end := start(t, s, open(), a, "shop.example")
	first := served(t, c, "shop.example", nil)
	if _, ok := first.PrivateKey.(*rsa.PrivateKey); !ok {
		t.Fatalf("%T", first.PrivateKey)
	}
	end()
	der, err := x509.MarshalPKCS8PrivateKey(first.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	files := absent(t, dir, secrets(first.PrivateKey, der)...)
	if files < 4 { // certificate, key, metadata, account
		t.Fatalf("%d files", files)
	}
	if idle, err := public.NewCertificates([]string{"shop.example"}, a, open(), time.Now, nil); err != nil {
		t.Fatal(err)
	} else if cert, err := idle.Certificate("shop.example"); err != nil || !cert.Leaf.Equal(first.Leaf) {
		t.Fatal("what is stored is not served at once", err)
	}
	again, end := start(t, s, open(), a, "shop.example")
	if cert := served(t, again, "shop.example", nil); !cert.Leaf.Equal(first.Leaf) || ca.Orders() != 1 {
		t.Fatal("another certificate", ca.Orders())
	}
	end()
	// What somebody has changed is made anew.
	err = filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if strings.HasSuffix(path, ".key~sealed") {
			return os.WriteFile(path, []byte("something else"), 0o600)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	third, end := start(t, s, open(), a, "shop.example")
	if cert := served(t, third, "shop.example", nil); cert.Leaf.Equal(first.Leaf) || ca.Orders() != 2 {
		t.Fatal("the same certificate", ca.Orders())
	}
	end()
}

// secrets are forms of a key that a file could have.
func secrets(key any, der []byte) [][]byte {
	all := [][]byte{der, []byte(base64.StdEncoding.EncodeToString(der)[40:100]), []byte("PRIVATE KEY")}
	if k, ok := key.(*rsa.PrivateKey); ok {
		all = append(all, k.D.Bytes(), k.Primes[0].Bytes(), k.Primes[1].Bytes(), []byte(base64.StdEncoding.EncodeToString(x509.MarshalPKCS1PrivateKey(k))[400:460]))
	}
	if k, ok := key.(*ecdsa.PrivateKey); ok {
		d, _ := k.Bytes()
		all = append(all, d)
	}
	return all
}

// absent counts the files below a directory, of which none has any of the secrets.
func absent(t *testing.T, dir string, secrets ...[]byte) (files int) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		files++
		for _, s := range secrets {
			if bytes.Contains(raw, s) || bytes.Contains([]byte(path), s) {
				t.Errorf("%s has a secret", path)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// Two processes with one directory make one order, and the CA's connection may come to either.
func TestTwo(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port})
	dir, sealer := t.TempDir(), newSealer(t)
	var all []*public.Certificates
	for range 2 {
		st, err := public.NewDirectory(dir, sealer)
		if err != nil {
			t.Fatal(err)
		}
		c, end := start(t, s, st, acme(ca), "shop.example") // the last one gets all connections
		t.Cleanup(func() { end(); _ = st.Close() })
		all = append(all, c)
	}
	first := served(t, all[0], "shop.example", nil)
	if second := served(t, all[1], "shop.example", nil); !first.Leaf.Equal(second.Leaf) || ca.Orders() != 1 {
		t.Fatal(ca.Orders(), "orders")
	}
}

// While the CA is away, or can't reach us, or refuses, what is there is served; when it is back, there is another one.
func TestFailAndRecover(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port, Validity: 15 * time.Second, Blocked: []string{"blocked.example"}})
	c, _ := start(t, s, public.NewMemory(), acme(ca), "shop.example", "blocked.example")
	status := func(name string) public.Status {
		for _, st := range c.Status() {
			if st.Name == name {
				return st
			}
		}
		t.Fatal(name)
		panic("unreachable")
	}
	first := served(t, c, "shop.example", nil)
	until(t, "the CA refuses", func() bool { return attest.CodeOf(status("blocked.example").Err) == attest.CodePublicFailed })
	if !strings.Contains(status("blocked.example").Err.Error(), "rejectedIdentifier") {
		t.Error(status("blocked.example").Err)
	}
	if _, err := c.Certificate("blocked.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Fatal(err)
	}

	ca.Down()
	until(t, "the CA is away", func() bool { return attest.CodeOf(status("shop.example").Err) == attest.CodeCAUnreachable })
	if cert, err := c.Certificate("shop.example"); err != nil || !cert.Leaf.Equal(first.Leaf) {
		t.Fatal("the certificate that there was is gone", err)
	}
	ca.Up()
	second := served(t, c, "shop.example", first)
	if status("shop.example").Failures == 0 {
		t.Error("no failure was counted")
	}

	s.use(nil) // the CA does not get through to us
	until(t, "the challenge fails", func() bool { return attest.CodeOf(status("shop.example").Err) == attest.CodePublicFailed })
	if err := status("shop.example").Err.Error(); !strings.Contains(err, "acme:error") {
		t.Error(err)
	}
	until(t, "the certificate has expired", func() bool {
		_, err := c.Certificate("shop.example")
		return attest.CodeOf(err) == attest.CodeNoPublic && time.Now().After(second.Leaf.NotAfter)
	})
	s.use(c)
	served(t, c, "shop.example", second)
}

// Who is told to come back later does.
func TestRateLimit(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port})
	ca.Limit("3")
	c, _ := start(t, s, public.NewMemory(), acme(ca), "shop.example")
	until(t, "a limit", func() bool { return attest.CodeOf(c.Status()[0].Err) == attest.CodeCALimit })
	orders := ca.Orders()
	st := c.Status()[0]
	ca.Up()
	served(t, c, "shop.example", nil)
	if wait := time.Since(st.ErrAt); wait < 2900*time.Millisecond {
		t.Errorf("asked again after %s", wait)
	}
	if ca.Orders() != orders+1 {
		t.Errorf("%d orders, and then %d", orders, ca.Orders())
	}
}

func TestRevoke(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port})
	c, _ := start(t, s, public.NewMemory(), acme(ca), "shop.example")
	first := served(t, c, "shop.example", nil)
	if err := c.Revoke(t.Context(), "shop.example", 1); err != nil {
		t.Fatal(err)
	}
	if !ca.Revoked(t, first.Leaf) {
		t.Fatal("it is not revoked")
	}
	second := served(t, c, "shop.example", first)
	if ca.Revoked(t, second.Leaf) {
		t.Fatal("the new one is revoked")
	}
	if err := c.Revoke(t.Context(), "other.example", 1); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Fatal(err)
	}
}

// What others have revoked is replaced: the CA says so when it is asked again (RFC 9773).
func TestRevokedByOthers(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port})
	clock := new(shifted)
	c, _ := startAt(t, s, public.NewMemory(), acme(ca), clock.now, "shop.example")
	first := served(t, c, "shop.example", nil)
	client := &library.Client{Directory: ca.Directory, HTTPClient: &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool(ca.Roots)}, DisableKeepAlives: true}}}
	if err := client.RevokeCertificate(t.Context(), library.Account{}, first.Leaf, first.PrivateKey.(crypto.Signer), 1); err != nil {
		t.Fatal(err)
	}
	ca.Advise(t, first.Leaf)
	clock.set(25 * time.Hour)
	second := served(t, c, "shop.example", first)
	if ca.Revoked(t, second.Leaf) || !ca.Revoked(t, first.Leaf) {
		t.Fatal("the wrong one is revoked")
	}
}

// A CA that refuses to replace the certificate that there is, as it does where our account is another one now, issues one all the same.
func TestReplacesNothing(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port})
	dir := t.TempDir()
	st, err := public.NewDirectory(dir, newSealer(t))
	if err != nil {
		t.Fatal(err)
	}
	c, end := start(t, s, st, acme(ca), "shop.example")
	t.Cleanup(func() { end(); _ = st.Close() })
	first := served(t, c, "shop.example", nil)
	end()
	if err := os.RemoveAll(filepath.Join(dir, "accounts")); err != nil {
		t.Fatal(err)
	}
	ca.Advise(t, first.Leaf)
	c, end = start(t, s, st, acme(ca), "shop.example")
	served(t, c, "shop.example", first)
	if st := c.Status()[0]; st.Failures != 1 {
		t.Errorf("%d failures", st.Failures)
	}
}

// shifted is a clock that may be wrong.
type shifted struct {
	mu sync.Mutex
	by time.Duration
}

func (s *shifted) now() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Now().Add(s.by)
}

func (s *shifted) set(by time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.by = by
}

func TestHTTP(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	port := ln.Addr().(*net.TCPAddr).Port
	_ = ln.Close()
	ca := pebble.Start(t, pebble.Options{HTTPPort: port})
	a := acme(ca)
	a.ALPN, a.HTTP, a.Listen = false, addr, func(address string) (net.Listener, error) { return net.Listen("tcp", address) }
	c, _ := start(t, nil, public.NewMemory(), a, "shop.example", "www.shop.example")
	served(t, c, "shop.example", nil)
	served(t, c, "www.shop.example", nil)
	if _, err := c.Challenge(t.Context(), "shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Fatal(err)
	}
	until(t, "nobody listens", func() bool {
		conn, err := net.Dial("tcp", addr)
		if err == nil {
			_ = conn.Close()
		}
		return err != nil
	})
}

func TestExternalAccount(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port, External: map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}})
	a := acme(ca)
	c, end := start(t, s, public.NewMemory(), a, "shop.example")
	until(t, "refused", func() bool { return attest.CodeOf(c.Status()[0].Err) == attest.CodePublicFailed })
	end()
	a.Account = public.Account{Email: "ops@shop.example", ExternalID: "kid-1", ExternalKey: "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}
	c, _ = start(t, s, public.NewMemory(), a, "shop.example")
	served(t, c, "shop.example", nil)
}

// With a clock that is wrong nothing is served that has expired by it, and the CA is not asked without a pause.
func TestClock(t *testing.T) {
	t.Parallel()
	s, port := newSite(t)
	ca := pebble.Start(t, pebble.Options{TLSPort: port, Validity: time.Hour})
	a := acme(ca)
	a.Retry, a.Longest = time.Second, time.Minute
	clock := &shifted{by: 48 * time.Hour}
	c, _ := startAt(t, s, public.NewMemory(), a, clock.now, "shop.example")
	until(t, "of no use", func() bool { return c.Status()[0].Failures > 1 })
	if _, err := c.Certificate("shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Fatal(err)
	}
	if n := ca.Orders(); n > 4 {
		t.Errorf("%d orders", n)
	}
	clock.set(0)
	served(t, c, "shop.example", nil)
}

func TestNotAllowed(t *testing.T) {
	good := public.ACME{Directory: "https://ca.example/dir", ALPN: true}
	with := func(f func(*public.ACME)) public.ACME { a := good; f(&a); return a }
	for _, test := range []struct {
		name  string
		names []string
		acme  public.ACME
		code  attest.Code
	}{
		{"plain directory", []string{"a.example"}, with(func(a *public.ACME) { a.Directory = "http://ca.example/dir" }), attest.CodeConfigValue},
		{"no directory", []string{"a.example"}, with(func(a *public.ACME) { a.Directory = "" }), attest.CodeConfigValue},
		{"no URL", []string{"a.example"}, with(func(a *public.ACME) { a.Directory = "https://ca.example/\x7f" }), attest.CodeConfigValue},
		{"no host", []string{"a.example"}, with(func(a *public.ACME) { a.Directory = "https://:443/dir" }), attest.CodeConfigValue},
		{"a user", []string{"a.example"}, with(func(a *public.ACME) { a.Directory = "https://user:password@ca.example/dir" }), attest.CodeConfigValue},
		{"key type", []string{"a.example"}, with(func(a *public.ACME) { a.KeyType = "dsa" }), attest.CodeConfigValue},
		{"no challenge", []string{"a.example"}, with(func(a *public.ACME) { a.ALPN = false }), attest.CodeConfigValue},
		{"half an external account", []string{"a.example"}, with(func(a *public.ACME) { a.Account.ExternalID = "x" }), attest.CodeConfigValue},
		{"wildcard without dns-01", []string{"*.a.example"}, good, attest.CodeConfigValue},
		{"upper case", []string{"A.example"}, good, attest.CodeConfigValue},
		{"an empty name", []string{""}, good, attest.CodeConfigValue},
		{"no name", nil, good, attest.CodeConfigMissing},
	} {
		if _, err := public.NewCertificates(test.names, test.acme, public.NewMemory(), time.Now, nil); attest.CodeOf(err) != test.code || strings.Contains(err.Error(), "password") {
			t.Errorf("%s: %v", test.name, err)
		}
	}
	for _, storage := range []*public.Storage{nil, new(public.Storage)} {
		if _, err := public.NewCertificates([]string{"a.example"}, good, storage, time.Now, nil); attest.CodeOf(err) != attest.CodeInternal {
			t.Error(err)
		}
	}
	if _, err := public.NewDirectory(t.TempDir(), nil); attest.CodeOf(err) != attest.CodeNoSealing {
		t.Error(err)
	}
}

func TestFiles(t *testing.T) {
	chain, key := pebble.SelfSigned(t, "shop.example", "*.shop.example")
	var mu sync.Mutex
	read := func() ([]byte, []byte, error) { mu.Lock(); defer mu.Unlock(); return chain, key, nil }
	now := time.Now()
	f, err := public.NewFiles(nil, read, func() time.Time { return now }, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, ours := range map[string]bool{"shop.example": true, "a.shop.example": true, "b.a.shop.example": false, "other.example": false, "": false} {
		if cert, err := f.Certificate(name); err != nil || (cert != nil) != ours {
			t.Errorf("%q: %v %v", name, cert != nil, err)
		}
	}
	now = now.Add(2 * time.Hour)
	if _, err := f.Certificate("shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Error(err)
	}
	if _, err := f.Challenge(t.Context(), "shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Error(err)
	}
	for _, names := range [][]string{{"other.example"}, {"*.example"}, {"*.example", "shop.example"}} {
		if _, err := public.NewFiles(names, read, time.Now, nil); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Error(names, err)
		}
	}
	if one, err := public.NewFiles([]string{"a.shop.example"}, read, time.Now, nil); err != nil {
		t.Error(err)
	} else if cert, err := one.Certificate("a.shop.example"); err != nil || cert == nil {
		t.Error("one of the names that an asterisk stands for", err)
	}
	longer, longerKey := pebble.SelfSigned(t, "x.shop.example", "*.shop.example.org")
	if _, err := public.NewFiles([]string{"*.shop.example"}, func() ([]byte, []byte, error) { return longer, longerKey, nil }, time.Now, nil); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	nameless, namelessKey := pebble.SelfSigned(t)
	if _, err := public.NewFiles(nil, func() ([]byte, []byte, error) { return nameless, namelessKey, nil }, time.Now, nil); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	_, otherKey := pebble.SelfSigned(t, "shop.example")
	if _, err := public.NewFiles(nil, func() ([]byte, []byte, error) { return chain, otherKey, nil }, time.Now, nil); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
}
