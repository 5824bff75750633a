package public

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/test/pebble"
)

// A CA can't make us hold what it likes, and is left alone when it says so.
func TestCareful(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/busy" {
			w.Header().Set("Retry-After", "7")
			w.WriteHeader(http.StatusServiceUnavailable)
		}
		_, _ = w.Write(make([]byte, 2*bodyLimit))
	}))
	defer s.Close()
	transport := &http.Transport{DisableKeepAlives: true}
	client := &http.Client{Transport: careful{transport}}
	for path, want := range map[string]time.Duration{"/": 0, "/busy": 7 * time.Second} {
		var patience time.Duration
		req, err := http.NewRequestWithContext(context.WithValue(t.Context(), patienceKey{}, &patience), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if err != nil || len(body) != bodyLimit || patience != want {
			t.Errorf("%s: %d bytes, %v, patience %s", path, len(body), err, patience)
		}
	}
	s.Close()
	if _, err := client.Get(s.URL); err == nil {
		t.Error("nobody has answered")
	}
}

func pendingChallenge(typ, name string) acme.Challenge {
	return acme.Challenge{Type: typ, Token: "token", KeyAuthorization: "token.thumbprint", Identifier: acme.Identifier{Type: "dns", Value: name}}
}

// Only the CA's question is answered: for the name, at the path.
func TestWeb(t *testing.T) {
	s := &web{challenges: newChallenges(NewMemory(), "ca")}
	if err := s.add(t.Context(), pendingChallenge(acme.ChallengeTypeHTTP01, "shop.example")); err != nil {
		t.Fatal(err)
	}
	const at = "/.well-known/acme-challenge/token"
	for _, test := range []struct {
		method, host, path string
		status             int
	}{
		{"GET", "shop.example", at, 200},
		{"GET", "SHOP.example:80", at, 200},
		{"HEAD", "shop.example", at, 200},
		{"GET", "other.example", at, 404},
		{"GET", "shop.example", at + "2", 404},
		{"GET", "shop.example", "/", 404},
		{"GET", "other.example", "/.well-known/acme-challenge/", 404},
		{"POST", "shop.example", at, 404},
	} {
		r := httptest.NewRequest(test.method, "http://"+test.host+test.path, nil)
		w := httptest.NewRecorder()
		s.ServeHTTP(w, r)
		if w.Code != test.status || (w.Body.String() == "token.thumbprint") != (test.status == 200) {
			t.Errorf("%+v: %d %q", test, w.Code, w.Body)
		}
	}
}

// failing is a storage in which nothing can be done.
type failing struct{ certmagic.Storage }

var errStorage = &attest.Error{Code: attest.CodeStoreBroken}

func (failing) Load(context.Context, string) ([]byte, error) { return nil, errStorage }
func (failing) Store(context.Context, string, []byte) error  { return errStorage }
func (failing) Delete(context.Context, string) error         { return errStorage }
func (failing) Lock(context.Context, string) error           { return errStorage }
func (failing) Stat(context.Context, string) (info certmagic.KeyInfo, _ error) {
	return info, errStorage
}

// The address is open while a challenge is pending, of whichever name, and no longer; what fails costs the challenge alone.
func TestWebOpens(t *testing.T) {
	var ln net.Listener
	var refuses error
	s := &web{challenges: newChallenges(NewMemory(), "ca"), listen: func(string) (net.Listener, error) {
		if refuses != nil {
			return nil, refuses
		}
		var err error
		ln, err = net.Listen("tcp", "127.0.0.1:0")
		return ln, err
	}}
	open := func() bool {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err == nil {
			_ = conn.Close()
		}
		return err == nil
	}
	one, two := pendingChallenge(acme.ChallengeTypeHTTP01, "one.example"), pendingChallenge(acme.ChallengeTypeHTTP01, "two.example")
	if err := s.Present(t.Context(), one); err != nil || !open() {
		t.Fatal("not open", err)
	}
	refuses = errors.New("in use")
	if err := s.Present(t.Context(), two); err != nil {
		t.Fatal("opened again", err)
	}
	if err := s.CleanUp(t.Context(), one); err != nil || !open() {
		t.Fatal("closed too early", err)
	}
	if err := s.CleanUp(t.Context(), two); err != nil || open() {
		t.Fatal("open still", err)
	}
	if err := s.Present(t.Context(), one); !errors.Is(err, refuses) {
		t.Error(err)
	}
	if err := s.CleanUp(t.Context(), one); err != nil {
		t.Error(err)
	}
	refuses = nil
	s.storage = &Storage{values: failing{}}
	if err := s.Present(t.Context(), one); attest.CodeOf(err) != attest.CodeStoreBroken || open() {
		t.Error(err)
	}
	if err := s.CleanUp(t.Context(), one); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Error(err)
	}
	if _, err := s.find(t.Context(), one.Type, "one.example"); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Error(err)
	}
}

// What another process has been asked is answered, and what lies in its place is not.
func TestStoredChallenge(t *testing.T) {
	storage := NewMemory()
	one, two := newChallenges(storage, "ca"), newChallenges(storage, "ca")
	ch := pendingChallenge(acme.ChallengeTypeTLSALPN01, "shop.example")
	if err := one.add(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	cert, err := two.certificate(t.Context(), "shop.example")
	if err != nil || len(cert.Certificate) != 1 {
		t.Fatal(err)
	}
	if _, err := newChallenges(storage, "another").certificate(t.Context(), "shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Error(err)
	}
	for _, other := range []any{pendingChallenge(acme.ChallengeTypeTLSALPN01, "other.example"), pendingChallenge(acme.ChallengeTypeHTTP01, "shop.example"), "text"} {
		raw, _ := json.Marshal(other)
		if err := storage.values.Store(t.Context(), two.key(acme.ChallengeTypeTLSALPN01, "shop.example"), raw); err != nil {
			t.Fatal(err)
		}
		if _, err := two.find(t.Context(), acme.ChallengeTypeTLSALPN01, "shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
			t.Errorf("%v: %v", other, err)
		}
	}
	if err := one.remove(t.Context(), ch); err != nil {
		t.Fatal(err)
	}
	if _, err := one.find(t.Context(), ch.Type, "shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Error(err)
	}
}

// closed is a sealer that opens nothing any more.
type closed struct{ xor }

func (closed) Open(string, []byte) ([]byte, error) { return nil, errors.New("no key") }

// What is stored is used as far as it is right: nothing older, nothing for another name, and it is not removed for want of a key.
func TestStored(t *testing.T) {
	storage := NewMemory()
	c, err := NewCertificates([]string{"shop.example"}, ACME{Directory: "https://ca.example/dir", ALPN: true}, storage, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	s := c.slots["shop.example"]
	keys := certmagic.StorageKeys
	put := func(values certmagic.Storage, chain, key []byte) {
		t.Helper()
		err := values.Store(t.Context(), keys.SiteCert(c.issuer.key, "shop.example"), chain)
		if err = errors.Join(err, values.Store(t.Context(), keys.SitePrivateKey(c.issuer.key, "shop.example"), key)); err != nil {
			t.Fatal(err)
		}
	}
	oldChain, oldKey := pebble.SelfSigned(t, "shop.example")
	old, err := pair(oldChain, oldKey, "shop.example")
	if err != nil {
		t.Fatal(err)
	}
	for {
		chain, key := pebble.SelfSigned(t, "shop.example")
		put(storage.values, chain, key)
		if err := c.reload(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if s.cert.Load().Leaf.NotAfter.After(old.Leaf.NotAfter) { // which has whole seconds
			break
		}
		s.cert.Store(nil)
	}
	served := s.cert.Load()
	put(storage.values, oldChain, oldKey)
	if err := c.reload(t.Context(), s); err != nil || s.cert.Load() != served {
		t.Error("an older one is served", err)
	}
	foreignChain, foreignKey := pebble.SelfSigned(t, "other.example")
	for name, v := range map[string][2][]byte{"of another name": {foreignChain, foreignKey}, "under another key": {oldChain, foreignKey}, "none": {[]byte("text"), oldKey}} {
		put(storage.values, v[0], v[1])
		if err := c.reload(t.Context(), s); err != nil || s.cert.Load() != served {
			t.Errorf("%s: %v", name, err)
		}
		if storage.values.Exists(t.Context(), keys.SiteCert(c.issuer.key, "shop.example")) {
			t.Errorf("%s: it stays in the way", name)
		}
	}
	dir := t.TempDir()
	full, err := NewDirectory(dir, xor{})
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	put(full.values, oldChain, oldKey)
	if c.issuer.storage, err = NewDirectory(dir, closed{}); err != nil {
		t.Fatal(err)
	}
	defer c.issuer.storage.Close()
	if err := c.reload(t.Context(), s); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Error(err)
	}
	if got, err := full.values.Load(t.Context(), keys.SiteCert(c.issuer.key, "shop.example")); err != nil || !bytes.Equal(got, oldChain) {
		t.Errorf("removed, although nothing is wrong with it: %v", err)
	}
}

// An account that can't be used is no account.
func TestAccount(t *testing.T) {
	storage := NewMemory()
	i, err := newIssuer(ACME{Directory: "https://ca.example/dir", ALPN: true}, storage, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{"", "text", "{}", `{"account":{"status":"valid","location":"https://ca.example/1"},"key":"AAAA"}`} {
		if text != "" {
			if err := storage.values.Store(t.Context(), i.account, []byte(text)); err != nil {
				t.Fatal(err)
			}
		}
		if _, ok := i.load(t.Context()); ok {
			t.Errorf("%q is an account", text)
		}
	}
}
