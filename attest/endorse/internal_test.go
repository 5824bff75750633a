package endorse

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

var t0 = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func zero() float64 { return 0 }

func entry(t *testing.T, path string, end time.Time) *Entry {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	issuer := &x509.Certificate{KeyUsage: x509.KeyUsageCRLSign, SubjectKeyId: []byte{1}}
	crl, err := x509.CreateRevocationList(rand.Reader, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: t0.Add(-time.Hour), NextUpdate: end}, issuer, key)
	if err != nil {
		t.Fatal(err)
	}
	return &Entry{Ref: attest.Ref{Service: "s", Path: path, Kind: attest.KindCRL}, Fetched: t0, Endorsements: []attest.Endorsement{{Kind: attest.KindCRL, Raw: crl}}}
}

func at(e *Entry, path string) *Entry {
	out := *e
	out.Ref.Path = path
	return &out
}

func TestCacheIsBoundedInMemory(t *testing.T) {
	c, err := newCache("")
	if err != nil {
		t.Fatal(err)
	}
	e := entry(t, "/", t0.AddDate(1, 0, 0))
	for i := range 3 * maxKept {
		c.put(at(e, fmt.Sprint(i)), 0)
	}
	if len(c.kept) > maxKept {
		t.Errorf("%d answers in memory", len(c.kept))
	}
	for i := range 2 {
		if k := c.get(at(e, fmt.Sprint(3*maxKept-1-i)).Ref, t0, zero); len(k.Endorsements) != 1 {
			t.Error("one of the last answers is gone")
		}
	}
	onDisk, err := newCache(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []*cache{c, onDisk} {
		before := len(c.kept)
		if k := c.get(at(e, "never asked").Ref, t0, zero); len(k.Endorsements) != 0 || len(c.kept) != before {
			t.Error("what was never asked is kept")
		}
	}
}

func TestCacheIsBoundedOnDisk(t *testing.T) {
	dir := t.TempDir()
	c, err := newCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	c.files = 64
	foreign := []string{"notes.txt", strings.Repeat("0", 64), "00.json", strings.Repeat("0", 64) + "zz.json", strings.Repeat("x", 64) + ".json"}
	old := func(name string, age time.Duration) {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(file, t0, t0.Add(-age)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range foreign {
		old(name, 1e6*time.Hour)
	}
	for i := range c.files - len(foreign) - 1 {
		old(fmt.Sprintf("%064x.json", i), time.Duration(i)*time.Hour)
	}
	count := func() int {
		files, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	e := entry(t, "/", t0.AddDate(1, 0, 0))
	c.put(e, 0)
	if n := count(); n != c.files {
		t.Errorf("%d files, want all %d", n, c.files)
	}
	c.put(at(e, "/2"), 0)
	if n, want := count(), c.files-c.files/4+len(foreign)+1; n != want {
		t.Errorf("%d files after there was no room, want %d", n, want)
	}
	for _, name := range append(foreign, fmt.Sprintf("%064x.json", 0), filepath.Base(c.file(e.Ref))) { // others' files, and the youngest
		if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
			t.Error(err)
		}
	}
}

func TestCacheReadsOnlyWhatItWrote(t *testing.T) {
	dir := t.TempDir()
	c, err := newCache(dir)
	if err != nil {
		t.Fatal(err)
	}
	e := entry(t, "/", t0.AddDate(1, 0, 0))
	c.put(e, 0)
	raw, err := os.ReadFile(c.file(e.Ref))
	if err != nil {
		t.Fatal(err)
	}
	if got, ok := c.read(e.Ref); !ok || !got.Fetched.Equal(t0) || len(got.Endorsements) != 1 {
		t.Fatal(got, ok)
	}
	other := at(e, "/other")
	if err := os.WriteFile(c.file(other.Ref), raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, ok := c.read(other.Ref); ok {
		t.Error("an answer to another question")
	}
	key := *e
	key.Endorsements = []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: []byte{1}}}
	planted, err := json.Marshal(key.pack())
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{
		"cut off": raw[:len(raw)-1], "more behind it": append(raw[:len(raw):len(raw)], '{'), "unknown member": append([]byte(`{"x":1,`), raw[1:]...), "public key": planted,
		"oversized": append([]byte(strings.Repeat(" ", maxEntryFile)), raw...), "empty": nil,
	} {
		if err := os.WriteFile(c.file(e.Ref), content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, ok := c.read(e.Ref); ok {
			t.Errorf("%s is read", name)
		}
	}
}

func TestCacheWithoutDirectory(t *testing.T) {
	t.Chdir(t.TempDir())
	c, err := newCache("")
	if err != nil {
		t.Fatal(err)
	}
	e := entry(t, "/", t0.AddDate(1, 0, 0))
	c.put(e, 0)
	if files, err := os.ReadDir("."); err != nil || len(files) != 0 {
		t.Errorf("%v written, %v", files, err)
	}
	if k := c.get(e.Ref, t0, zero); len(k.Endorsements) != 1 {
		t.Error("what cannot be written is lost")
	}
	gone, err := newCache("gone")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove("gone"); err != nil {
		t.Fatal(err)
	}
	gone.put(e, 0) // nothing happens
	if k := gone.get(e.Ref, t0, zero); len(k.Endorsements) != 1 {
		t.Error("what cannot be written is lost")
	}
}

func TestExpiresIsTheFirstEnd(t *testing.T) {
	first := entry(t, "/", t0.Add(time.Hour))
	second := entry(t, "/", t0.Add(2*time.Hour))
	for _, list := range [][]attest.Endorsement{
		{first.Endorsements[0], second.Endorsements[0]}, {second.Endorsements[0], first.Endorsements[0]},
	} {
		e := &Entry{Ref: first.Ref, Endorsements: list}
		if end, err := e.Expires(); err != nil || !end.Equal(t0.Add(time.Hour)) {
			t.Error(end, err)
		}
	}
}

func TestBackoffIsBounded(t *testing.T) {
	var b backoff
	for i := range 3 * maxFailures {
		b.fail(fmt.Sprint(i), &attest.Error{Code: attest.CodeEndorserUnreachable}, t0, time.Hour, 0)
	}
	if len(b.by) > maxFailures {
		t.Errorf("%d failures remembered", len(b.by))
	}
	for range 10_000 {
		b.fail("a", &attest.Error{Code: attest.CodeEndorserUnreachable}, t0, 0, 1)
	}
	if until, err := b.blocked("a", t0); err == nil || until != t0.Add(maxWait) {
		t.Errorf("blocked until %v, %v", until, err)
	}
	if _, err := b.blocked("a", t0.Add(maxWait)); err != nil {
		t.Error("blocked when the time is over")
	}
}

func TestBudgetOfAClockThatGoesBack(t *testing.T) {
	h := newHost("h")
	for range 2 {
		if _, ok := h.spend(t0, 2); !ok {
			t.Fatal("nothing to spend")
		}
	}
	if again, ok := h.spend(t0.Add(time.Minute), 2); ok || !again.Equal(t0.Add(time.Hour)) {
		t.Errorf("again at %v, %v", again, ok)
	}
	if _, ok := h.spend(t0.Add(-240*time.Hour), 2); !ok {
		t.Error("blocked for ten days by requests in the future")
	}
}

func TestFlightsAreForgotten(t *testing.T) {
	var f flights
	if _, err := f.do(t.Context(), "a", func(context.Context) (Entry, error) { return Entry{}, nil }); err != nil || len(f.by) != 0 {
		t.Errorf("%d requests remembered, %v", len(f.by), err)
	}
}

// What says something else than before is told of, and nothing else: those who stand on it are judged again.
func TestCacheTellsWhatChanged(t *testing.T) {
	c, err := newCache("")
	if err != nil {
		t.Fatal(err)
	}
	with := func(e *Entry, all ...attest.Endorsement) *Entry {
		out := *e
		out.Endorsements = all
		return &out
	}
	e := entry(t, "/", t0.AddDate(1, 0, 0))
	one, other := e.Endorsements[0], entry(t, "/", t0.AddDate(1, 0, 0)).Endorsements[0]
	kind := one
	kind.Kind = attest.KindTCBInfo
	for i, step := range []struct {
		e    *Entry
		want bool
	}{
		{e, false},                           // the first
		{with(e, one), false},                // the same again
		{with(e, other), true},               // other bytes
		{with(e, other), false},              //
		{with(e, other, one), true},          // one more
		{with(e, one, other), true},          // another order
		{at(with(e, kind), "/other"), false}, // something else
		{with(e, one), true},                 // one less
	} {
		if got := c.put(step.e, 0); got != step.want {
			t.Errorf("step %d: %v", i, got)
		}
	}
	c.kept[e.Ref].Endorsements = []attest.Endorsement{kind}
	if !c.put(with(e, one), 0) {
		t.Error("the same bytes of another kind are the same")
	}
}
