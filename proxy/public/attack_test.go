package public

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/caddyserver/certmagic"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/test/pebble"
)

// idle makes Certificates for shop.example that nobody runs.
func idle(t *testing.T, storage *Storage, a ACME) (*Certificates, *slot) {
	t.Helper()
	a.ALPN = true
	c, err := NewCertificates([]string{"shop.example"}, a, storage, time.Now, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.issuer.transport.CloseIdleConnections)
	return c, c.slots["shop.example"]
}

const noCA = "https://ca.example/dir"

// valid makes a certificate for shop.example.
func valid(t *testing.T, from, until time.Time) *tls.Certificate {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// A CA's certificates name its key.
	template := &x509.Certificate{SerialNumber: big.NewInt(from.UnixNano()), NotBefore: from, NotAfter: until, DNSNames: []string{"shop.example"}}
	ca := &x509.Certificate{Subject: pkix.Name{CommonName: "CA"}, SubjectKeyId: []byte{1, 2, 3}}
	der, err := x509.CreateCertificate(rand.Reader, template, ca, k.Public(), k)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k, Leaf: leaf}
}

// A renewed certificate may live for less long than the one before: where the CA, or its profile, is another one now.
func TestShorterLife(t *testing.T) {
	c, s := idle(t, NewMemory(), ACME{Directory: noCA})
	now := time.Now()
	long, short := valid(t, now.Add(-60*24*time.Hour), now.Add(30*24*time.Hour)), valid(t, now.Add(-time.Hour), now.Add(6*24*time.Hour))
	for _, cert := range []*tls.Certificate{long, short} {
		if c.take(s, cert); s.cert.Load() != cert {
			t.Fatalf("one until %s is not served", cert.Leaf.NotAfter)
		}
	}
	if c.take(s, long); s.cert.Load() != short {
		t.Error("an older one is served")
	}
	s.cert.Store(valid(t, now.Add(-2*time.Hour), now.Add(-time.Hour)))
	if c.take(s, long); s.cert.Load() != long {
		t.Error("one that has expired is served on")
	}
}

// Whatever somebody puts in the place of a file that is stored, it is removed: it would stand in the way of a certificate for ever.
func TestInTheWay(t *testing.T) {
	for name, put := range map[string]func(file string) error{
		"text":          func(file string) error { return os.WriteFile(file, []byte("text"), 0o600) },
		"huge":          func(file string) error { return errors.Join(os.WriteFile(file, nil, 0o600), os.Truncate(file, 8<<20)) },
		"dangling link": func(file string) error { return os.Symlink("nowhere", file) },
		"link outside":  func(file string) error { return os.Symlink("/etc/hosts", file) },
		"link to self":  func(file string) error { return os.Symlink(filepath.Base(file), file) },
		"directory":     func(file string) error { return os.MkdirAll(filepath.Join(file, "x"), 0o700) },
	} {
		for what, key := range map[string]func(issuer, name string) string{
			"certificate": certmagic.StorageKeys.SiteCert, "key": certmagic.StorageKeys.SitePrivateKey, "metadata": certmagic.StorageKeys.SiteMeta,
		} {
			t.Run(name+" as "+what, func(t *testing.T) {
				d, dir := newTestDirectory(t)
				c, s := idle(t, &Storage{values: d}, ACME{Directory: noCA})
				chain, private := pebble.SelfSigned(t, "shop.example")
				keys := certmagic.StorageKeys
				for k, v := range map[string][]byte{
					keys.SiteCert(c.issuer.key, s.name): chain, keys.SitePrivateKey(c.issuer.key, s.name): private, keys.SiteMeta(c.issuer.key, s.name): []byte("{}"),
				} {
					if err := d.Store(t.Context(), k, v); err != nil {
						t.Fatal(err)
					}
				}
				at, err := pathOf(key(c.issuer.key, s.name))
				if err != nil {
					t.Fatal(err)
				}
				file := filepath.Join(dir, at) + sealed
				if err := errors.Join(os.Remove(file), put(file)); err != nil {
					t.Fatal(err)
				}
				if err := c.reload(t.Context(), s); err != nil || s.cert.Load() != nil {
					t.Errorf("%v, served: %v", err, s.cert.Load())
				}
				if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
					t.Errorf("it is there still: %v", err)
				}
			})
		}
	}
}

// elusive is a storage in which what is there can't be had.
type elusive struct{ certmagic.Storage }

func (elusive) Exists(context.Context, string) bool { return true }

// Files that vanish as soon as they are there cost a certificate, and nothing else.
func TestVanished(t *testing.T) {
	c, s := idle(t, NewMemory(), ACME{Directory: noCA})
	c.issuer.storage = &Storage{values: elusive{c.issuer.storage.values}}
	if err := c.obtain(t.Context(), s, false, true, new(time.Duration)); attest.CodeOf(err) != attest.CodePublicFailed {
		t.Error(err)
	}
}

// A CA that would have everything renewed at once, whatever it has just issued, is not asked without an end.
func TestHastyAdvice(t *testing.T) {
	var s *httptest.Server
	s = httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if r.URL.Path == "/dir" {
			fmt.Fprintf(w, `{"newNonce":%q,"newAccount":%q,"newOrder":%q,"renewalInfo":%q}`, s.URL+"/n", s.URL+"/a", s.URL+"/o", s.URL+"/r")
			return
		}
		fmt.Fprint(w, `{"suggestedWindow":{"start":"2020-01-01T00:00:00Z","end":"2020-01-02T00:00:00Z"}}`)
	}))
	defer s.Close()
	roots := x509.NewCertPool()
	roots.AddCert(s.Certificate())
	for _, test := range []struct {
		name      string
		got, life time.Duration // since when, and how long it lives
		due       time.Duration // from now, at least; 0 for at once
	}{
		{"issued just now", 0, 90 * 24 * time.Hour, time.Hour},
		{"issued just now, for minutes", 0, 8 * time.Minute, 2 * time.Minute},
		{"issued before the start", -24 * 365 * time.Hour, 90 * 24 * time.Hour, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			c, slot := idle(t, NewMemory(), ACME{Directory: s.URL + "/dir", Roots: roots})
			now := time.Now().Truncate(time.Second)
			slot.got = now.Add(test.got)
			slot.cert.Store(valid(t, now, now.Add(test.life)))
			c.advise(t.Context(), slot)
			at, forced := slot.due()
			if wait := at.Sub(now); !forced || test.due == 0 && wait > 0 || test.due != 0 && wait != test.due {
				t.Errorf("due in %s, forced: %t", wait, forced)
			}
		})
	}
}

// There is evidence for keys that are ours alone, and for no others.
func TestOutside(t *testing.T) {
	if c, _ := idle(t, NewMemory(), ACME{Directory: noCA}); c.Outside() {
		t.Error("a key that is made here is called another's")
	}
	chain, key := pebble.SelfSigned(t, "shop.example")
	f, err := NewFiles(nil, func() ([]byte, []byte, error) { return chain, key, nil }, time.Now, nil)
	if err != nil || !f.Outside() {
		t.Error("a key from a file is called ours", err)
	}
}

// A name is found in its own spelling, in any case, or under the asterisk that stands for one label; and nothing else is.
func TestSpellings(t *testing.T) {
	all := map[string]string{"shop.example": "shop", "*.wild.example": "wild", "xn--bcher-kva.example": "books"}
	for name, want := range map[string]string{
		"shop.example": "shop", "SHOP.Example": "shop", "a.wild.example": "wild", "A.WILD.example": "wild", "xn--Bcher-kva.example": "books",
		"shop.example.": "", "www.shop.example": "", "wild.example": "", "a.b.wild.example": "", "bücher.example": "", "": "", ".": "", "*": "", "127.0.0.1": "", "::1": "",
		"shop.example\x00": "", " shop.example": "", "shop.example:443": "", "*.example": "", "example": "",
	} {
		if got, ok := lookUp(all, name); got != want || ok != (want != "") {
			t.Errorf("%q: %q", name, got)
		}
	}
}
