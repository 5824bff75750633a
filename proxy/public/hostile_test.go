package public

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/mholt/acmez/v3/acme"

	"github.com/jurat-tls/jurat/attest"
)

// liar is a CA that makes challenges for what it likes, and others of them once they are answered.
type liar struct {
	*httptest.Server
	authorizations []string // JSON members of each
	then           string   // JSON members of a challenge, when it is told to look
	looked         int
}

func (l *liar) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Replay-Nonce", rand.Text())
	w.Header().Set("Content-Type", "application/json")
	what, which, _ := strings.Cut(r.URL.Path[1:], "/")
	switch what {
	case "dir":
		_ = json.NewEncoder(w).Encode(map[string]string{"newNonce": l.URL + "/nonce", "newAccount": l.URL + "/account", "newOrder": l.URL + "/order"})
	case "account":
		w.Header().Set("Location", l.URL+"/account/1")
		w.WriteHeader(http.StatusCreated)
		fmt.Fprint(w, `{"status":"valid"}`)
	case "order":
		w.Header().Set("Location", l.URL+"/order/1")
		w.WriteHeader(http.StatusCreated)
		var urls []string
		for i := range l.authorizations {
			urls = append(urls, fmt.Sprintf("%s/authorization/%d", l.URL, i))
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"status": "pending", "authorizations": urls})
	case "authorization":
		var i int
		_, _ = fmt.Sscan(which, &i)
		fmt.Fprintf(w, `{"status":%q,%s}`, map[bool]string{true: "invalid", false: "pending"}[l.looked > 0], strings.ReplaceAll(l.authorizations[i], "URL", l.URL))
	case "challenge":
		l.looked++
		fmt.Fprintf(w, `{"status":"pending"%s}`, l.then)
	}
}

// records is a zone.
type records struct {
	all            map[string]bool
	added, removed int
}

func (r *records) Add(_ context.Context, name, value string) error {
	r.added++
	r.all[name+" "+value] = true
	return nil
}

func (r *records) Remove(_ context.Context, name, value string) error {
	r.removed++
	delete(r.all, name+" "+value)
	return nil
}

// What a CA says that a challenge is for is looked at: nothing is stored or removed under the key of something else, no record goes to
// another name, and what was set up for a challenge is taken away again, whatever it is called by then.
func TestLyingCA(t *testing.T) {
	authorization := func(typ, name string) string {
		return fmt.Sprintf(`"identifier":{"type":"dns","value":%q},"challenges":[{"type":%q,"url":"URL/challenge/1","token":%q,"status":"pending"}]`, name, typ, rand.Text())
	}
	const mine = "shop.example"
	for _, test := range []struct {
		name           string
		authorizations []string
		then           string
		added          int
	}{
		{"what was asked for", []string{authorization(acme.ChallengeTypeDNS01, mine)}, "", 1},
		{"records of another name", []string{authorization(acme.ChallengeTypeDNS01, "mail.example")}, "", 0},
		{"two records", []string{authorization(acme.ChallengeTypeDNS01, mine), authorization(acme.ChallengeTypeDNS01, mine)}, "", 1},
		{"a record that is another one later", []string{authorization(acme.ChallengeTypeDNS01, mine)}, `,"keyAuthorization":"another"`, 1},
		{"accounts", []string{authorization(acme.ChallengeTypeTLSALPN01, "../../../accounts")}, "", 0},
		{"certificates", []string{authorization(acme.ChallengeTypeHTTP01, "../../../certificates/other/shop.example/shop.example.key")}, "", 0},
		{"accounts, later", []string{authorization(acme.ChallengeTypeTLSALPN01, mine)}, `,"identifier":{"type":"dns","value":"../../../accounts"}`, 0},
		{"certificates, later", []string{authorization(acme.ChallengeTypeHTTP01, mine)}, `,"type":"../../certificates","identifier":{"type":"dns","value":"other"}`, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			l := &liar{authorizations: test.authorizations, then: test.then}
			l.Server = httptest.NewTLSServer(l)
			defer l.Close()
			roots := x509.NewCertPool()
			roots.AddCert(l.Certificate())
			zone := &records{all: map[string]bool{}}
			values := NewMemory().values.(*memory)
			var open net.Listener
			c, err := newIssuer(ACME{
				Directory: l.URL + "/dir", Roots: roots, ALPN: true, DNS: zone, HTTP: "127.0.0.1:0",
				Listen: func(address string) (net.Listener, error) {
					ln, err := net.Listen("tcp", address)
					open = ln
					return ln, err
				},
			}, &Storage{values: values}, slog.New(slog.DiscardHandler))
			if err != nil {
				t.Fatal(err)
			}
			defer c.transport.CloseIdleConnections()
			account, err := c.registered(t.Context(), c.client())
			if err != nil || account.Location == "" {
				t.Fatal(account, err)
			}
			for _, key := range []string{"accounts/other/1", "certificates/other/shop.example/shop.example.key"} {
				if err := values.Store(t.Context(), key, []byte("kept")); err != nil {
					t.Fatal(err)
				}
			}
			before := maps.Clone(values.values)
			_, err = c.Issue(t.Context(), csr(t))
			if attest.CodeOf(describe(err, "")) != attest.CodePublicFailed {
				t.Error(err)
			}
			same := func(a, b kept) bool { return string(a.value) == string(b.value) }
			if !maps.EqualFunc(before, values.values, same) {
				t.Errorf("stored: %q, was %q", slices.Sorted(maps.Keys(values.values)), slices.Sorted(maps.Keys(before)))
			}
			if len(zone.all) > 0 || zone.added != test.added || zone.removed != test.added {
				t.Errorf("records: %v of %d, %d removed", zone.all, zone.added, zone.removed)
			}
			if open != nil {
				if conn, err := net.Dial("tcp", open.Addr().String()); err == nil {
					_ = conn.Close()
					t.Error("open still")
				}
			}
		})
	}
}

// A zone is waited for, and nothing else.
func TestAskedWaits(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := (&asked{Solver: txt{wait: time.Hour}}).Wait(ctx, acme.Challenge{}); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := (&asked{Solver: alpn{}}).Wait(ctx, acme.Challenge{}); err != nil {
		t.Error(err)
	}
}

// A CA that has one authorization after the other is not listened to for ever.
func TestEndlessCA(t *testing.T) {
	var said atomic.Int64
	l := &liar{authorizations: make([]string, 10*sayLimit/bodyLimit)}
	l.Server = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasPrefix(r.URL.Path, "/authorization") {
			said.Add(1)
			w.Header().Set("Replay-Nonce", rand.Text())
			w.Header().Set("Content-Type", "application/json")
			fmt.Fprintf(w, `{"status":"valid","challenges":[{"type":%q}]}`, strings.Repeat("x", bodyLimit-100))
			return
		}
		l.ServeHTTP(w, r)
	}))
	defer l.Close()
	roots := x509.NewCertPool()
	roots.AddCert(l.Certificate())
	c, _ := idle(t, NewMemory(), ACME{Directory: l.URL + "/dir", Roots: roots})
	if _, err := c.issuer.Issue(t.Context(), csr(t)); attest.CodeOf(describe(err, "")) != attest.CodePublicFailed || said.Load() > 2*sayLimit/bodyLimit {
		t.Errorf("%d bodies, %v", said.Load(), err)
	}
}

// Who owns the disk can make a lock look like one that was left behind. Within this process nobody takes it for that.
func TestLockWithinProcess(t *testing.T) {
	d, dir := newTestDirectory(t)
	if err := d.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, lockName("x"))
	if err := errors.Join(os.Remove(file), os.WriteFile(file, []byte("still"), 0o600)); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*d.stale)
	defer cancel()
	if err := d.Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if err := d.Unlock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	short, stop := context.WithTimeout(t.Context(), d.stale/2)
	defer stop()
	if err := d.Lock(short, "x"); !errors.Is(err, context.DeadlineExceeded) { // another process may have it
		t.Fatal(err)
	}
	for range 2 {
		if err := errors.Join(d.Lock(t.Context(), "x"), d.Unlock(t.Context(), "x")); err != nil {
			t.Fatal(err)
		}
	}
}
