package public

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
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
	again   string // and the Retry-After of it

	mu       sync.Mutex
	advised  int
	accounts int
	orders   []map[string]any
}

func newGrudging(t *testing.T, problem string) *grudging {
	g := &grudging{problem: problem, advises: true, again: "3600"}
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
		g.advised++
		w.Header().Set("Retry-After", g.again)
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
	s := slow{NewMemory().values, make(chan struct{}, 16), make(chan struct{})}
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
	if n := c.Status()[0].Failures; n != 0 {
		t.Errorf("%d failures", n)
	}
}

// waiting is a storage whose locks somebody else has.
type waiting struct {
	certmagic.Storage
	asked chan struct{}
}

func (w waiting) Lock(ctx context.Context, _ string) error {
	w.asked <- struct{}{}
	<-ctx.Done()
	return ctx.Err()
}

// What ends because all ends is no failure.
func TestEndIsNoFailure(t *testing.T) {
	c, _ := idle(t, NewMemory(), ACME{Directory: noCA})
	s := waiting{NewMemory().values, make(chan struct{})}
	c.issuer.storage = &Storage{values: s}
	putSite(t, c, s, []byte("text"), []byte("text"))
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	<-s.asked
	cancel()
	for {
		select {
		case <-s.asked:
			continue
		case <-done:
		}
		break
	}
	if n := c.Status()[0].Failures; n != 0 {
		t.Errorf("%d failures", n)
	}
}

// Each pause is longer than the one before, up to a limit, and lasts for no more than a quarter of what is left of a certificate.
func TestPause(t *testing.T) {
	c, s := idle(t, NewMemory(), ACME{Directory: noCA, Retry: time.Minute, Longest: time.Hour})
	now := time.Now()
	expired, valid := valid(t, now.Add(-2*time.Hour), now.Add(-time.Hour)), valid(t, now.Add(-time.Hour), now.Add(40*time.Minute+30*time.Second))
	for _, test := range []struct {
		cert   *tls.Certificate
		failed int
		want   time.Duration
	}{
		{nil, 0, time.Minute},
		{nil, 1, 3 * time.Minute},
		{nil, 3, 27 * time.Minute},
		{nil, 4, time.Hour},
		{nil, 1000, time.Hour},
		{expired, 3, 27 * time.Minute},
		{valid, 0, time.Minute},
		{valid, 3, 10 * time.Minute},
	} {
		s.cert.Store(test.cert)
		if got := c.pause(s, test.failed, nil); got < test.want || got > test.want*9/8+10*time.Second {
			t.Errorf("%s after %d failures, want %s", got, test.failed, test.want)
		}
	}
}

func (g *grudging) asked() int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return len(g.orders)
}

// soon polls for a condition.
func soon(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: " + what)
		}
	}
}

// running has Certificates for shop.example run, by a clock that may be ahead.
func (g *grudging) running(t *testing.T, storage certmagic.Storage, ahead *atomic.Int64, a ACME) *Certificates {
	t.Helper()
	a.Directory, a.Roots, a.ALPN, a.Poll = g.URL+"/dir", g.roots(), true, 5*time.Millisecond
	c, err := NewCertificates([]string{"shop.example"}, a, &Storage{values: storage}, func() time.Time { return time.Now().Add(time.Duration(ahead.Load())) }, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); c.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return c
}

// After a failure there is a pause, but for who is woken, and where the clock was set back.
func TestPauses(t *testing.T) {
	g := newGrudging(t, "urn:ietf:params:acme:error:rejectedIdentifier")
	ahead := new(atomic.Int64)
	ahead.Store(int64(48 * time.Hour))
	c := g.running(t, NewMemory().values, ahead, ACME{Retry: time.Hour})
	next := func() time.Duration { st := c.Status()[0]; return st.Next.Sub(st.ErrAt) }
	soon(t, "a first failure", func() bool { return c.Status()[0].Failures == 1 && next() > 0 })
	if wait := next(); wait < time.Hour || wait > 9*time.Hour/8 || g.asked() != 1 {
		t.Errorf("asked %d times, next in %s", g.asked(), wait)
	}
	ahead.Store(0)
	soon(t, "another try by a clock that was set back", func() bool { return c.Status()[0].Failures == 2 })
	c.slots["shop.example"].wake <- struct{}{}
	soon(t, "another try of who is woken", func() bool { return c.Status()[0].Failures == 3 })
	if g.asked() != 3 {
		t.Errorf("asked %d times", g.asked())
	}
}

// What others store is served at once, and what can't be used of it is told.
func TestStoredByOthers(t *testing.T) {
	g := newGrudging(t, "urn:ietf:params:acme:error:rejectedIdentifier")
	g.advises = false
	values := unlocked{NewMemory().values}
	first, firstKey := pebble.SelfSigned(t, "shop.example")
	c, _ := idle(t, &Storage{values: values}, ACME{Directory: g.URL + "/dir"})
	putSite(t, c, values, first, firstKey)
	c = g.running(t, values, new(atomic.Int64), ACME{})
	was, err := c.Certificate("shop.example")
	if err != nil {
		t.Fatal(err)
	}
	second, secondKey := pebble.SelfSigned(t, "shop.example")
	putSite(t, c, values, second, secondKey)
	soon(t, "another certificate", func() bool {
		is, err := c.Certificate("shop.example")
		return err == nil && !is.Leaf.Equal(was.Leaf)
	})
	putSite(t, c, values, []byte("text"), nil)
	soon(t, "what is wrong", func() bool { return attest.CodeOf(c.Status()[0].Err) == attest.CodeStoreBroken })
	if is, err := c.Certificate("shop.example"); err != nil || is.Leaf.Equal(was.Leaf) || g.asked() != 0 {
		t.Error("it is not served any more", err)
	}
}

// A certificate is due after two thirds of its life, or earlier where the CA says so of that one.
func TestDue(t *testing.T) {
	_, s := idle(t, NewMemory(), ACME{Directory: noCA})
	if at, forced := s.due(); !at.IsZero() || forced {
		t.Errorf("%s, forced: %t", at, forced)
	}
	now := time.Now().Truncate(time.Second)
	cert, other := valid(t, now.Add(-time.Hour), now.Add(2*time.Hour)), valid(t, now.Add(-time.Hour), now.Add(2*time.Hour))
	if got := s.until(); got != "none" {
		t.Error(got)
	}
	s.cert.Store(cert)
	if got := s.until(); got != cert.Leaf.NotAfter.UTC().Format(time.RFC3339) {
		t.Error(got)
	}
	for name, test := range map[string]struct {
		advice advice
		wait   time.Duration
		forced bool
	}{
		"no advice":                   {advice{}, time.Hour, false},
		"advice":                      {advice{of: cert.Leaf, renew: now.Add(time.Minute)}, time.Minute, true},
		"advice for whenever":         {advice{of: cert.Leaf}, time.Hour, false},
		"advice to wait":              {advice{of: cert.Leaf, renew: now.Add(90 * time.Minute)}, time.Hour, false},
		"advice for the one that was": {advice{of: other.Leaf, renew: now.Add(time.Minute)}, time.Hour, false},
	} {
		s.advice = test.advice
		if at, forced := s.due(); forced != test.forced || at.Sub(now).Round(time.Second) != test.wait {
			t.Errorf("%s: in %s, forced: %t", name, at.Sub(now), forced)
		}
	}
}

// A CA is asked for advice when it wants to be, within reason, and what it has said lasts until it says something else.
func TestAdvised(t *testing.T) {
	g := newGrudging(t, "")
	start := time.Now().Truncate(time.Second)
	window := func(at time.Time) string {
		return fmt.Sprintf(`{"suggestedWindow":{"start":%q,"end":%q}}`, at.UTC().Format(time.RFC3339), at.Add(3*time.Second).UTC().Format(time.RFC3339))
	}
	g.advice = window(start.Add(time.Hour))
	ended, end := context.WithCancel(t.Context())
	end()
	c, s := idle(t, NewMemory(), ACME{Directory: g.URL + "/dir", Roots: g.roots()})
	var now time.Time
	c.now = func() time.Time { return now }
	cert, next := valid(t, start, start.Add(90*24*time.Hour)), valid(t, start, start.Add(8*time.Hour))
	for i, step := range []struct {
		ctx     context.Context
		cert    *tls.Certificate
		at      time.Duration // since the start
		again   string
		advised int           // so far
		renew   time.Duration // since the start; 0 for whenever
		ask     time.Duration // since the start
	}{
		{t.Context(), nil, 0, "3600", 0, 0, 0},
		{t.Context(), cert, 0, "3600", 1, time.Hour, time.Hour},
		{t.Context(), cert, 59 * time.Minute, "3600", 1, time.Hour, time.Hour},
		{ended, cert, 61 * time.Minute, "3600", 1, time.Hour, 61*time.Minute + adviceEvery}, // what it has said is kept
		{t.Context(), cert, -48 * time.Hour, "", 2, time.Hour, -48*time.Hour + adviceEvery}, // a clock that was set back
		{t.Context(), cert, 0, "999999", 3, time.Hour, adviceEvery},
		{t.Context(), cert, 90*24*time.Hour - time.Hour, "", 4, time.Hour, 90*24*time.Hour - 45*time.Minute},
		{t.Context(), cert, 91 * 24 * time.Hour, "", 5, time.Hour, 91*24*time.Hour + time.Minute}, // by then it has expired
		{ended, next, 0, "3600", 5, 0, 2 * time.Hour},                                             // what it has said is of another one
	} {
		g.mu.Lock()
		g.again = step.again
		g.mu.Unlock()
		now = start.Add(step.at)
		s.cert.Store(step.cert)
		c.advise(step.ctx, s)
		renew, ask := s.advice.renew.Sub(start), s.advice.ask.Sub(start)
		if s.advice.renew.IsZero() {
			renew = 0
		}
		if s.advice.ask.IsZero() {
			ask = 0
		}
		if g.advised != step.advised || (renew-step.renew).Abs() > 5*time.Second || (ask-step.ask).Abs() > 5*time.Second {
			t.Errorf("step %d: advised %d times, renewal after %s, asked again after %s", i, g.advised, renew, ask)
		}
	}
	silent := newGrudging(t, "")
	silent.advises = false
	c, s = idle(t, NewMemory(), ACME{Directory: silent.URL + "/dir", Roots: silent.roots()})
	s.cert.Store(cert)
	c.advise(t.Context(), s)
	if at, forced := s.due(); forced || at.Sub(start) != 60*24*time.Hour {
		t.Errorf("renewal after %s without advice, forced: %t", at.Sub(start), forced)
	}
}
