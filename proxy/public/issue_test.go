package public

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"
	"github.com/mholt/acmez/v3/acme"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/test/pebble"
)

// grudging is a CA that makes accounts, and refuses every order.
type grudging struct {
	*httptest.Server
	problem string // with which it refuses
	advises bool   // when a certificate is to be renewed
	advice  string // the answer then

	mu       sync.Mutex
	accounts int
	orders   []map[string]any
}

func newGrudging(t *testing.T, problem string) *grudging {
	g := &grudging{problem: problem, advises: true}
	g.Server = httptest.NewTLSServer(g)
	t.Cleanup(g.Close)
	return g
}

func (g *grudging) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.mu.Lock()
	defer g.mu.Unlock()
	w.Header().Set("Replay-Nonce", rand.Text())
	w.Header().Set("Content-Type", "application/json")
	switch path, _, _ := strings.Cut(r.URL.Path[1:], "/"); path {
	case "dir":
		dir := map[string]string{"newNonce": g.URL + "/nonce", "newAccount": g.URL + "/account", "newOrder": g.URL + "/order"}
		if g.advises {
			dir["renewalInfo"] = g.URL + "/renewal"
		}
		_ = json.NewEncoder(w).Encode(dir)
	case "account":
		g.accounts++
		w.Header().Set("Location", fmt.Sprintf("%s/account/%d", g.URL, g.accounts))
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"status":"valid"}`)
	case "order":
		var jws struct{ Payload string }
		order := map[string]any{}
		err := json.NewDecoder(r.Body).Decode(&jws)
		raw, bad := base64.RawURLEncoding.DecodeString(jws.Payload)
		if err = errors.Join(err, bad, json.Unmarshal(raw, &order)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		g.orders = append(g.orders, order)
		w.Header().Set("Content-Type", "application/problem+json")
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprintf(w, `{"type":%q,"detail":"no","status":400}`, g.problem)
	case "renewal":
		w.Header().Set("Retry-After", "3600")
		fmt.Fprint(w, g.advice)
	}
}

// issuer is one that asks g.
func (g *grudging) issuer(t *testing.T, storage certmagic.Storage) *issuer {
	t.Helper()
	c, _ := idle(t, NewMemory(), ACME{Directory: g.URL + "/dir", Roots: g.roots()})
	c.issuer.storage = &Storage{values: storage}
	return c.issuer
}

func (g *grudging) roots() *x509.CertPool {
	roots := x509.NewCertPool()
	roots.AddCert(g.Certificate())
	return roots
}

func csr(t *testing.T) *x509.CertificateRequest {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{DNSNames: []string{"shop.example"}}, key)
	if err != nil {
		t.Fatal(err)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	return request
}

// A CA is told what is replaced where it advises on that, and not otherwise.
func TestReplaces(t *testing.T) {
	old := valid(t, time.Now(), time.Now().Add(time.Hour)).Leaf
	id, err := acme.ARIUniqueIdentifier(old)
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		name    string
		advises bool
		ctx     context.Context
		want    any
	}{
		{"a renewal", true, context.WithValue(t.Context(), replacesKey{}, old), id},
		{"a first one", true, t.Context(), nil},
		{"a renewal by a CA that gives no advice", false, context.WithValue(t.Context(), replacesKey{}, old), nil},
	} {
		g := newGrudging(t, "urn:ietf:params:acme:error:rejectedIdentifier")
		g.advises = test.advises
		_, err := g.issuer(t, NewMemory().values).Issue(test.ctx, csr(t))
		if attest.CodeOf(describe(err, "")) != attest.CodePublicFailed || g.accounts != 1 || len(g.orders) != 1 || g.orders[0]["replaces"] != test.want {
			t.Errorf("%s: %v, %d accounts, %v", test.name, err, g.accounts, g.orders)
		}
	}
}

// undeleted is a storage that keeps everything.
type undeleted struct{ certmagic.Storage }

func (undeleted) Delete(context.Context, string) error { return errStorage }

// An account that the CA does not know any more is made once again, and no more often.
func TestForgottenAccount(t *testing.T) {
	g := newGrudging(t, acme.ProblemTypeAccountDoesNotExist)
	var problem acme.Problem
	if _, err := g.issuer(t, NewMemory().values).Issue(t.Context(), csr(t)); !errors.As(err, &problem) || g.accounts != 2 || len(g.orders) != 2 {
		t.Errorf("%v, %d accounts, %d orders", err, g.accounts, len(g.orders))
	}
	for _, storage := range []certmagic.Storage{undeleted{NewMemory().values}, failing{}} {
		if _, err := g.issuer(t, storage).Issue(t.Context(), csr(t)); attest.CodeOf(err) != attest.CodeStoreBroken {
			t.Errorf("%T: %v", storage, err)
		}
	}
	chain, key := pebble.SelfSigned(t, "shop.example")
	i := g.issuer(t, failing{})
	if err := i.Revoke(t.Context(), certmagic.CertificateResource{CertificatePEM: chain, PrivateKeyPEM: key}, 1); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Error(err)
	}
	if err := i.Revoke(t.Context(), certmagic.CertificateResource{CertificatePEM: chain, PrivateKeyPEM: []byte("text")}, 1); err == nil || attest.CodeOf(err) == attest.CodeStoreBroken {
		t.Error(err)
	}
}

// What a CA advises is taken as it is, where it advises anything.
func TestAdvice(t *testing.T) {
	g := newGrudging(t, "")
	i := g.issuer(t, NewMemory().values)
	leaf := valid(t, time.Now(), time.Now().Add(time.Hour)).Leaf
	g.advice = `{"suggestedWindow":{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"}}`
	renew, ask, err := i.advice(t.Context(), leaf)
	if wait := time.Until(ask); err != nil || renew.Year() != 2020 || wait < 59*time.Minute || wait > time.Hour {
		t.Errorf("%s, %s, %v", renew, ask, err)
	}
	g.mu.Lock()
	g.advice = `{}`
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
	defer cancel()
	if renew, ask, err = i.advice(ctx, leaf); err == nil || !renew.IsZero() || !ask.IsZero() {
		t.Errorf("%s, %s, %v", renew, ask, err)
	}
	silent := newGrudging(t, "")
	silent.advises = false
	if renew, ask, err = silent.issuer(t, NewMemory().values).advice(t.Context(), leaf); err != nil || !renew.IsZero() || !ask.IsZero() {
		t.Errorf("%s, %s, %v", renew, ask, err)
	}
}

// slow is a storage that is asked, and does not answer.
type slow struct {
	certmagic.Storage
	asked, answers chan struct{}
}

func (s slow) Stat(context.Context, string) (certmagic.KeyInfo, error) {
	s.asked <- struct{}{}
	<-s.answers
	return certmagic.KeyInfo{}, errStorage
}

// Who has ended Run has nothing running any more.
func TestRunEnds(t *testing.T) {
	c, _ := idle(t, NewMemory(), ACME{Directory: noCA})
	s := slow{NewMemory().values, make(chan struct{}), make(chan struct{})}
	c.issuer.storage = &Storage{values: s}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	<-s.asked
	cancel()
	select {
	case <-done:
		t.Error("something is running still")
	case <-time.After(20 * time.Millisecond):
	}
	close(s.answers)
	<-done
}
