package public

import (
	"bytes"
	"context"
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
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
	left := int64(4*bodyLimit + 1)
	client := &http.Client{Transport: careful{transport, &left}}
	for path, want := range map[string]time.Duration{"/": 0, "/busy": 7 * time.Second} {
		var patience time.Duration
		for _, ctx := range []context.Context{t.Context(), context.WithValue(t.Context(), patienceKey{}, &patience)} { // not all ask how long
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+path, nil)
			if err != nil {
				t.Fatal(err)
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			if err != nil || len(body) != bodyLimit {
				t.Errorf("%s: %d bytes, %v", path, len(body), err)
			}
		}
		if patience != want {
			t.Errorf("%s: patience %s", path, patience)
		}
	}
	resp, err := client.Get(s.URL)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if _ = resp.Body.Close(); err != nil || len(body) != 1 {
		t.Errorf("%d bytes more than it may say, %v", len(body), err)
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
	if err := s.Present(t.Context(), one); err != nil || !open() {
		t.Fatal("not open", err)
	}
	s.storage = &Storage{values: failing{}}
	if err := s.Present(t.Context(), two); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Error(err)
	}
	if err := s.CleanUp(t.Context(), two); attest.CodeOf(err) != attest.CodeStoreBroken || !open() {
		t.Error("closed by what was never pending", err)
	}
	if err := s.CleanUp(t.Context(), one); attest.CodeOf(err) != attest.CodeStoreBroken || open() {
		t.Error("open still", err)
	}
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
	var log bytes.Buffer
	c, err := NewCertificates([]string{"shop.example"}, ACME{Directory: "https://ca.example/dir", ALPN: true}, storage, time.Now, slog.New(slog.NewTextHandler(&log, nil)))
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
	if n := strings.Count(log.String(), "and is removed"); n != 3 {
		t.Errorf("told of %d", n)
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
	var log bytes.Buffer
	i, err := newIssuer(ACME{Directory: "https://ca.example/dir", ALPN: true}, storage, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := i.load(t.Context()); ok || log.Len() > 0 {
		t.Errorf("an account out of nothing: %t, %s", ok, &log)
	}
	pkcs8 := func(key any, err error) string {
		der, failed := x509.MarshalPKCS8PrivateKey(key)
		if err = errors.Join(err, failed); err != nil {
			t.Fatal(err)
		}
		return base64.StdEncoding.EncodeToString(der)
	}
	signs, agrees := pkcs8(ecdsa.GenerateKey(elliptic.P256(), rand.Reader)), pkcs8(ecdh.X25519().GenerateKey(rand.Reader))
	const good = `{"status":"valid","location":"https://ca.example/1"}`
	for text, want := range map[string]bool{
		"text": false, "{}": false,
		`{"account":` + good + `,"key":"AAAA"}`:                                                              false,
		`{"account":` + good + `,"key":"` + signs + `"}`:                                                     true,
		`{"account":` + good + `,"key":"` + agrees + `"}`:                                                    false,
		`{"account":` + good + `,"key":"` + signs + `"} and more`:                                            false,
		`{"account":{"status":"valid","location":"https://ca.example/1","contact":1},"key":"` + signs + `"}`: false,
		`{"account":{"status":"revoked","location":"https://ca.example/1"},"key":"` + signs + `"}`:           false,
		`{"account":{"status":"valid"},"key":"` + signs + `"}`:                                               false,
	} {
		if err := storage.values.Store(t.Context(), i.account, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if a, ok := i.load(t.Context()); ok != want || ok && a.PrivateKey == nil {
			t.Errorf("%q is an account: %t", text, ok)
		}
	}
}

// unwritten is a storage that takes nothing.
type unwritten struct{ certmagic.Storage }

func (unwritten) Store(context.Context, string, []byte) error { return errStorage }

// There is one account, for as long as it can be kept, and none without what the CA wants of it.
func TestRegistered(t *testing.T) {
	ca, strict := pebble.Start(t, pebble.Options{}), pebble.Start(t, pebble.Options{External: map[string]string{"kid-1": "zWNDZM6eQGHWpSRTPal5eIUYFTu7EajVIoguysqZ9wG44nMEtx3MUAsUDkMTQ12W"}})
	account := func(ca *pebble.CA, storage certmagic.Storage, a Account) (acme.Account, error) {
		roots := x509.NewCertPool()
		roots.AppendCertsFromPEM(ca.Roots)
		i, err := newIssuer(ACME{Directory: ca.Directory, Roots: roots, ALPN: true, Account: a}, &Storage{values: storage}, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer i.transport.CloseIdleConnections()
		return i.registered(t.Context(), i.client())
	}
	storage := NewMemory().values
	ours := Account{Email: "ops@shop.example"}
	first, err := account(ca, storage, ours)
	if err != nil || len(first.Contact) != 1 || first.Contact[0] != "mailto:ops@shop.example" {
		t.Fatalf("%+v, %v", first, err)
	}
	if again, err := account(ca, storage, ours); err != nil || again.Location != first.Location {
		t.Errorf("%+v, %v", again, err)
	}
	if other, err := account(ca, storage, Account{}); err != nil || other.Location == first.Location || len(other.Contact) != 0 {
		t.Errorf("%+v, %v", other, err)
	}
	for _, storage := range []certmagic.Storage{failing{}, unwritten{NewMemory().values}} {
		if _, err := account(ca, storage, ours); attest.CodeOf(err) != attest.CodeStoreBroken {
			t.Error(err)
		}
	}
	if _, err := account(ca, NewMemory().values, Account{ExternalID: "kid-1", ExternalKey: "!"}); err == nil {
		t.Error("bound by what is no key")
	}
	if _, err := account(strict, NewMemory().values, ours); err == nil {
		t.Error("bound to nothing")
	}
}

// Each failure has the code of what is to be done about it, and what a CA says is fit for a log.
func TestDescribe(t *testing.T) {
	for _, test := range []struct {
		err  error
		code attest.Code
		says string
	}{
		{fmt.Errorf("storing: %w", &attest.Error{Code: attest.CodeOversized}), attest.CodeOversized, "storing"},
		{fmt.Errorf("order: %w", acme.Problem{Type: "urn:x", Detail: "a\x1b[2Jb\x7fc"}), attest.CodePublicFailed, "urn:x: a [2Jb c"},
		{acme.Problem{Type: acme.ProblemTypeRateLimited}, attest.CodeCALimit, "rateLimited"},
		{acme.Problem{Type: "urn:x", Status: 429}, attest.CodeCALimit, "urn:x"},
		{fmt.Errorf("asking: %w", &url.Error{Op: "Get", URL: "https://ca.example", Err: io.EOF}), attest.CodeCAUnreachable, "ca.example"},
		{fmt.Errorf("asking: %w", &net.OpError{Op: "dial", Err: io.EOF}), attest.CodeCAUnreachable, "dial"},
		{fmt.Errorf("asking: %w", context.DeadlineExceeded), attest.CodeCAUnreachable, "deadline"},
		{errors.New("a\nb"), attest.CodePublicFailed, "a b"},
	} {
		if err := describe(test.err, "shop.example"); attest.CodeOf(err) != test.code || !strings.Contains(err.Error(), test.says) {
			t.Errorf("%v: %v", test.err, err)
		}
	}
}

// inTheWay is a storage that has everything, of which nothing can be had.
type inTheWay struct{ failing }

func (inTheWay) Exists(context.Context, string) bool { return true }

// unlocked is a storage in which no lock can be had.
type unlocked struct{ certmagic.Storage }

func (unlocked) Lock(context.Context, string) error { return errStorage }

// putSite stores what there is of a certificate for shop.example.
func putSite(t *testing.T, c *Certificates, values certmagic.Storage, chain, key []byte) {
	t.Helper()
	for _, part := range []struct {
		key   string
		value []byte
	}{{certmagic.StorageKeys.SitePrivateKey(c.issuer.key, "shop.example"), key}, {certmagic.StorageKeys.SiteCert(c.issuer.key, "shop.example"), chain}} {
		if part.value == nil {
			continue
		}
		if err := values.Store(t.Context(), part.key, part.value); err != nil {
			t.Fatal(err)
		}
	}
}

// Half of a certificate is none: somebody is writing it. And what is right is not removed, whoever takes it for broken.
func TestHalfStored(t *testing.T) {
	chain, key := pebble.SelfSigned(t, "shop.example")
	for name, half := range map[string][2][]byte{"certificate": {chain, nil}, "key": {nil, key}} {
		storage := NewMemory()
		c, s := idle(t, storage, ACME{Directory: noCA})
		putSite(t, c, storage.values, half[0], half[1])
		if err := c.reload(t.Context(), s); err != nil || s.cert.Load() != nil {
			t.Errorf("%s: %v", name, err)
		}
		if all, err := storage.values.List(t.Context(), "certificates", true); err != nil || len(all) < 2 {
			t.Errorf("%s: it is gone: %q, %v", name, all, err)
		}
	}
	storage := NewMemory()
	c, s := idle(t, storage, ACME{Directory: noCA})
	putSite(t, c, storage.values, chain, key)
	if cert, err := c.discard(t.Context(), s.name); err != nil || cert == nil {
		t.Error("what is right by now is not answered", err)
	}
	if err := c.reload(t.Context(), s); err != nil || s.cert.Load() == nil {
		t.Fatal("it is not served", err)
	}
	served := s.cert.Load()
	if err := c.reload(t.Context(), s); err != nil || s.cert.Load() != served {
		t.Error("the same is another one", err)
	}
	putSite(t, c, storage.values, []byte("text"), nil)
	for _, values := range []certmagic.Storage{unlocked{storage.values}, unwritten{storage.values}, undeleted{storage.values}, failing{}} {
		c.issuer.storage = &Storage{values: values}
		if err := c.reload(t.Context(), s); attest.CodeOf(err) != attest.CodeStoreBroken || s.cert.Load() != served {
			t.Errorf("%T: %v", values, err)
		}
	}
	if !storage.values.Exists(t.Context(), certmagic.StorageKeys.SitePrivateKey(c.issuer.key, "shop.example")) {
		t.Error("a key was removed for want of a lock, or of a place to write to")
	}
}

// fixed is a storage whose file is as info says.
type fixed struct {
	certmagic.Storage
	info certmagic.KeyInfo
	err  error
}

func (f *fixed) Stat(context.Context, string) (certmagic.KeyInfo, error) { return f.info, f.err }

// What others have stored is known by its time and its size.
func TestChanged(t *testing.T) {
	c, s := idle(t, NewMemory(), ACME{Directory: noCA})
	f := &fixed{}
	c.issuer.storage = &Storage{values: f}
	now := time.Now()
	for i, step := range []struct {
		info certmagic.KeyInfo
		err  error
		want bool
	}{
		{certmagic.KeyInfo{}, fs.ErrNotExist, false},
		{certmagic.KeyInfo{Modified: now, Size: 1}, nil, true},
		{certmagic.KeyInfo{Modified: now, Size: 1}, nil, false},
		{certmagic.KeyInfo{}, fs.ErrNotExist, false},
		{certmagic.KeyInfo{Modified: now, Size: 1}, nil, false},
		{certmagic.KeyInfo{Modified: now, Size: 2}, nil, true},
		{certmagic.KeyInfo{Modified: now.Add(1), Size: 2}, nil, true},
	} {
		f.info, f.err = step.info, step.err
		if got := c.changed(t.Context(), s); got != step.want {
			t.Errorf("step %d: %t", i, got)
		}
	}
}

// What fails on the way to a certificate is told as what it is, and costs none that there is.
func TestObtainFails(t *testing.T) {
	c, s := idle(t, NewMemory(), ACME{Directory: noCA})
	ended, end := context.WithCancel(t.Context())
	end()
	for range together {
		c.places <- struct{}{}
	}
	if err := c.obtain(ended, s, false, true, new(time.Duration)); !errors.Is(err, context.Canceled) {
		t.Error("more at once than there are to be:", err)
	}
	for range together {
		<-c.places
	}
	cert := valid(t, time.Now(), time.Now().Add(time.Hour))
	c.take(s, cert)
	if err := c.Revoke(t.Context(), "shop.example", 1); err == nil || s.cert.Load() != cert || c.Status()[0].Leaf != cert.Leaf {
		t.Error("one that could not be revoked is not served any more", err)
	}
	s.cert.Store(nil)
	c.issuer.storage = &Storage{values: inTheWay{}}
	if err := c.obtain(t.Context(), s, false, true, new(time.Duration)); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Error(err)
	}
}

// A challenge is answered for names of ours alone, and where it is asked for.
func TestChallengeOfOthers(t *testing.T) {
	storage := NewMemory()
	c, _ := idle(t, storage, ACME{Directory: noCA})
	for _, name := range []string{"shop.example", "other.example"} {
		if err := c.issuer.challenges.add(t.Context(), pendingChallenge(acme.ChallengeTypeTLSALPN01, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Challenge(t.Context(), "SHOP.example"); err != nil {
		t.Error(err)
	}
	if _, err := c.Challenge(t.Context(), "other.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Error(err)
	}
	c.issuer.ALPN = false
	if _, err := c.Challenge(t.Context(), "shop.example"); attest.CodeOf(err) != attest.CodeNoPublic {
		t.Error(err)
	}
}
