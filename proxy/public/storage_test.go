package public

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
	"unicode/utf8"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
)

// xor is a Sealer that is none, but for that it shows what was changed or moved.
type xor struct{}

func (xor) Seal(context string, plain []byte) ([]byte, error) {
	sealed := append([]byte(context+"\x00"), plain...)
	for i := range sealed {
		sealed[i] ^= 0x5a
	}
	return sealed, nil
}

func (xor) Open(context string, sealed []byte) ([]byte, error) {
	plain := bytes.Clone(sealed)
	for i := range plain {
		plain[i] ^= 0x5a
	}
	plain, ok := bytes.CutPrefix(plain, []byte(context+"\x00"))
	if !ok {
		return nil, errors.New("it is of another context")
	}
	return plain, nil
}

// plain is a Sealer that seals nothing.
type plain struct{}

func (plain) Seal(_ string, p []byte) ([]byte, error) { return append([]byte("sealed:"), p...), nil }
func (plain) Open(_ string, p []byte) ([]byte, error) { return p[7:], nil }

func newTestDirectory(t testing.TB) (*directory, string) {
	t.Helper()
	dir := t.TempDir()
	s, err := NewDirectory(dir, xor{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	d := s.values.(*directory)
	d.beat, d.stale = 20*time.Millisecond, 300*time.Millisecond
	return d, dir
}

// All kinds of storage do what a map does.
func TestStorageModel(t *testing.T) {
	clean := []string{"a", "b", "a.b", "A", ".locks", "x~sealed", "%41", "ä", " ", "c d"}
	newDirectory := func(t *rapid.T) (*Storage, func()) {
		dir, err := os.MkdirTemp("", "storage-*")
		if err != nil {
			t.Fatal(err)
		}
		s, err := NewDirectory(dir, xor{})
		if err != nil {
			t.Fatal(err)
		}
		return s, func() { _ = errors.Join(s.Close(), os.RemoveAll(dir)) }
	}
	t.Run("directory", func(t *testing.T) { testModel(t, append(slices.Clone(clean), ".", ".."), newDirectory) })
	t.Run("memory of another replica", func(t *testing.T) {
		testModel(t, clean, func(*rapid.T) (*Storage, func()) { return overWire(t, NewMemory()) })
	})
}

func testModel(t *testing.T, parts []string, open func(*rapid.T) (*Storage, func())) {
	rapid.Check(t, func(t *rapid.T) {
		s, end := open(t)
		defer end()
		model := map[string]string{}
		part := rapid.SampledFrom(parts)
		key := rapid.Custom(func(t *rapid.T) string {
			return strings.Join(rapid.SliceOfN(part, 1, 3).Draw(t, "parts"), "/")
		})
		ctx := context.Background()
		t.Repeat(map[string]func(*rapid.T){
			"store": func(t *rapid.T) {
				k, v := key.Draw(t, "key"), rapid.String().Draw(t, "value")
				model[k] = v
				if err := s.values.Store(ctx, k, []byte(v)); err != nil {
					t.Fatal(err)
				}
			},
			"delete": func(t *rapid.T) {
				k := key.Draw(t, "key")
				for have := range model {
					if have == k || strings.HasPrefix(have, k+"/") {
						delete(model, have)
					}
				}
				if err := s.values.Delete(ctx, k); err != nil {
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				m := NewMemory()
				for k, v := range model {
					if err := m.values.Store(ctx, k, []byte(v)); err != nil {
						t.Fatal(err)
					}
				}
				for k, v := range model {
					got, err := s.values.Load(ctx, k)
					if err != nil || string(got) != v {
						t.Fatalf("%q: %q %v", k, got, err)
					}
				}
				k := key.Draw(t, "prefix")
				_, present := model[k]
				for _, s := range []*Storage{s, m} {
					if got, err := s.values.Load(ctx, k); present != (err == nil) || !present && !errors.Is(err, fs.ErrNotExist) {
						t.Fatalf("%q: %q %v", k, got, err)
					}
				}
				for _, prefix := range []string{"", k} {
					for _, recursive := range []bool{false, true} {
						want, werr := m.values.List(ctx, prefix, recursive)
						got, err := s.values.List(ctx, prefix, recursive)
						// A directory may be left behind in which nothing is any more.
						got = slices.DeleteFunc(got, func(k string) bool { return !m.values.Exists(ctx, k) })
						if !slices.Equal(got, want) || werr == nil && err != nil {
							t.Fatalf("%q %v: %q %v, want %q", prefix, recursive, got, err, want)
						}
					}
				}
				if info, err := m.values.Stat(ctx, k); err == nil {
					got, err := s.values.Stat(ctx, k)
					if err != nil || got.IsTerminal != info.IsTerminal || !s.values.Exists(ctx, k) {
						t.Fatalf("%q: %+v %v", k, got, err)
					}
				}
			},
		})
	})
}

// Whatever a key is, its file is below the directory, and the key is that of no other file.
func FuzzPath(f *testing.F) {
	for _, k := range []string{"certificates/ca/shop.example/shop.example.key", "../../etc/passwd", "/etc/passwd", "a//b", ".", "..", "a/..", ".locks/x", "%2e%2e/x", "a\x00b", strings.Repeat("x", 300)} {
		f.Add(k)
	}
	f.Fuzz(func(t *testing.T, key string) {
		name, err := pathOf(key)
		if err != nil {
			return
		}
		if !filepath.IsLocal(name) || strings.ContainsAny(name, "\x00\\~") || strings.HasPrefix(name, ".") || strings.Contains(name, "/.") {
			t.Fatalf("%q becomes %q", key, name)
		}
		if again, ok := keyOf(name); !ok || again != key {
			t.Fatalf("%q becomes %q, and that %q", key, name, again)
		}
	})
}

func FuzzKey(f *testing.F) {
	for _, n := range []string{"a/b", "%41", "%4", "%", "..", "A", ".new-x", ""} {
		f.Add(n)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if key, ok := keyOf(name); ok {
			if again, err := pathOf(key); err != nil || again != name {
				t.Fatalf("%q becomes %q, and that %q", name, key, again)
			}
		}
	})
}

// What was stored is found by its name in whatever version, and what has no name of a file is refused.
func TestNames(t *testing.T) {
	for key, want := range map[string]string{
		"certificates/ca-1/wildcard_.shop.example/A": "certificates/ca-1/wildcard_.shop.example/%41",
		"accounts/ca-0123456789":                     "accounts/ca-0123456789",
		strings.Repeat("x", maxName):                 strings.Repeat("x", maxName),
	} {
		if got, err := pathOf(key); err != nil || got != want {
			t.Errorf("%q is at %q, %v", key, got, err)
		}
	}
	d, dir := newTestDirectory(t)
	for _, key := range []string{"", "a//b", strings.Repeat("x", maxName+1)} {
		err := d.Store(t.Context(), key, []byte("x"))
		_, loaded := d.Load(t.Context(), key)
		_, stated := d.Stat(t.Context(), key)
		errs := map[string]error{"store": err, "load": loaded, "stat": stated, "delete": d.Delete(t.Context(), key)}
		if key != "" { // which is all
			_, errs["list"] = d.List(t.Context(), key, true)
		}
		for what, err := range errs {
			var coded *attest.Error
			if !errors.As(err, &coded) || coded.Code != attest.CodeInternal {
				t.Errorf("%s of %q: %v", what, key, err)
			}
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Error(left, err)
	}
}

// What others have put into the directory is nothing that is stored.
func TestForeignFiles(t *testing.T) {
	d, dir := newTestDirectory(t)
	for _, name := range []string{"a/plain", "a/.new-x~sealed", "a/A~sealed", "a/~sealed", "~sealed", ".git/b~sealed"} {
		if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700), os.WriteFile(filepath.Join(dir, name), nil, 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Store(t.Context(), "a/b/c", []byte("value")); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		prefix    string
		recursive bool
		want      []string
	}{{"", false, []string{"a"}}, {"", true, []string{"a", "a/b", "a/b/c"}}, {"a", false, []string{"a/b"}}} {
		if got, err := d.List(t.Context(), test.prefix, test.recursive); err != nil || !slices.Equal(got, test.want) {
			t.Errorf("%+v: %q %v", test, got, err)
		}
	}
	if d.Exists(t.Context(), "a/plain") {
		t.Error("a file that is not sealed is there")
	}
	if _, err := d.List(t.Context(), "a/plain/b", true); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// What can't be done is an error, for what it is, and nothing is left of it.
func TestDirectoryFails(t *testing.T) {
	d, dir := newTestDirectory(t)
	for _, name := range []string{"file", locks} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(filepath.Join(dir, "a", "taken"+sealed, "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := NewDirectory(filepath.Join(dir, "file", "below"), xor{}); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
	for _, key := range []string{"file/below", "a/taken"} {
		if err := d.Store(t.Context(), key, []byte("value")); err == nil || errors.Is(err, fs.ErrInvalid) {
			t.Errorf("%s: %v", key, err)
		}
	}
	if left, err := os.ReadDir(filepath.Join(dir, "a")); err != nil || len(left) != 1 {
		t.Error(left, err)
	}
	if _, err := d.read("a/taken"+sealed, 10); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Error(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*d.stale)
	defer cancel()
	if err := d.Lock(ctx, "x"); err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	if err := errors.Join(d.close(), d.close()); err != nil {
		t.Error(err)
	}
	if _, err := d.List(t.Context(), "", false); err == nil || errors.Is(err, fs.ErrNotExist) {
		t.Error("nothing is there to a storage that is closed:", err)
	}
}

// What lies in another place, or was changed, or is a link or a pipe, does not open.
func TestMoved(t *testing.T) {
	d, dir := newTestDirectory(t)
	ctx := t.Context()
	for _, k := range []string{"a/one", "a/two"} {
		if err := d.Store(ctx, k, []byte("value of "+k)); err != nil {
			t.Fatal(err)
		}
	}
	one, two := filepath.Join(dir, "a", "one~sealed"), filepath.Join(dir, "a", "two~sealed")
	raw, err := os.ReadFile(one)
	if err != nil || bytes.Contains(raw, []byte("value of")) {
		t.Fatalf("%q %v", raw, err)
	}
	if err := os.Rename(one, two); err != nil {
		t.Fatal(err)
	}
	if v, err := d.Load(ctx, "a/two"); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Fatalf("%q %v", v, err)
	}
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, one); err != nil {
		t.Fatal(err)
	}
	if v, err := d.Load(ctx, "a/one"); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Fatalf("%q through a link that leads out, %v", v, err)
	}
	if err := os.Truncate(two, 4<<20); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Load(ctx, "a/two"); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Fatal(err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "a")); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(one, 0o700); err != nil { // a directory where a file is expected
		t.Fatal(err)
	}
	if _, err := d.Load(ctx, "a/one"); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Fatal(err)
	}
}

func TestSealsNothing(t *testing.T) {
	dir := t.TempDir()
	s, err := NewDirectory(dir, plain{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	secret := []byte("a secret of some length")
	if err := s.values.Store(t.Context(), "a", secret); attest.CodeOf(err) != attest.CodeStoreBroken {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(dir); len(entries) != 0 {
		t.Fatal(entries)
	}
	for _, s := range []*Storage{s, NewMemory()} {
		if err := s.values.Store(t.Context(), "a", make([]byte, maxValue+1)); attest.CodeOf(err) != attest.CodeOversized {
			t.Error(err)
		}
		if err := s.values.Unlock(t.Context(), "a"); attest.CodeOf(err) != attest.CodeInternal {
			t.Error(err)
		}
	}
}

// Of many that want a lock, one at a time has it: of one process, of several, and where one has died with it.
func TestLock(t *testing.T) {
	shared, dir := newTestDirectory(t)
	other := func() *directory {
		s, err := NewDirectory(dir, xor{})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		d := s.values.(*directory)
		d.beat, d.stale = shared.beat, shared.stale
		return d
	}
	died := other()
	if err := died.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	died.held["x"].end() // it shows no more that it has it
	began := time.Now()
	stores := []interface {
		Lock(context.Context, string) error
		Unlock(context.Context, string) error
	}{shared, shared, other()}
	m := NewMemory().values
	holder := NewMemory()
	one, endOne := overWire(t, holder)
	defer endOne()
	two, endTwo := overWire(t, holder)
	defer endTwo()
	for _, group := range [][]interface {
		Lock(context.Context, string) error
		Unlock(context.Context, string) error
	}{stores, {m, m, m}, {one.values, two.values, holder.values}} {
		rounds := 10
		if group[0] == one.values { // which asks again once in a second
			rounds = 2
		}
		var in atomic.Int32
		var work sync.WaitGroup
		for _, s := range group {
			work.Go(func() {
				for range rounds {
					if err := s.Lock(t.Context(), "x"); err != nil {
						t.Error(err)
						return
					}
					if n := in.Add(1); n != 1 {
						t.Errorf("%d have the lock", n)
					}
					in.Add(-1)
					if err := s.Unlock(t.Context(), "x"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		work.Wait()
	}
	if took := time.Since(began); took < shared.stale {
		t.Errorf("a lock that was held was taken away after %s", took)
	}
	if err := shared.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if err := died.Unlock(t.Context(), "x"); err != nil { // which has nothing to give back
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*shared.stale) // for as long as it is held, however long that is
	defer cancel()
	before, err := os.Stat(filepath.Join(dir, locks))
	if err != nil {
		t.Fatal(err)
	}
	if err := stores[2].Lock(ctx, "x"); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatal(err)
	}
	if after, err := os.Stat(filepath.Join(dir, locks)); err != nil || !after.ModTime().Equal(before.ModTime()) {
		t.Error("the lock was away in between", err)
	}
	ended, end := context.WithCancel(t.Context())
	end()
	if err := shared.Unlock(ended, "x"); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(m.Lock(t.Context(), "x"), m.Lock(t.Context(), "y")); err != nil {
		t.Fatal(err)
	}
	if err := m.Lock(ended, "x"); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if entries, _ := os.ReadDir(filepath.Join(dir, locks)); len(entries) != 0 {
		t.Error(entries)
	}
}

// Who has just made the file of a lock, and has not written to it yet, has the lock.
func TestLockWithoutOwner(t *testing.T) {
	d, dir := newTestDirectory(t)
	file := filepath.Join(dir, lockName("x"))
	if err := errors.Join(os.Mkdir(filepath.Dir(file), 0o700), os.WriteFile(file, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if err := d.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(began); took < d.stale {
		t.Errorf("it was taken away after %s", took)
	}
}

// A lock that was taken meanwhile is put back by who comes late to clear the one before.
func TestLateClear(t *testing.T) {
	d, dir := newTestDirectory(t)
	if err := d.Lock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	d.clear(lockName("x"), []byte("of the one before"))
	if _, err := os.Stat(filepath.Join(dir, lockName("x"))); err != nil {
		t.Fatal(err)
	}
	if err := d.Unlock(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	left := []byte("of who has left")
	if err := os.WriteFile(filepath.Join(dir, lockName("x")), left, 0o600); err != nil {
		t.Fatal(err)
	}
	d.clear(lockName("x"), left)
	if entries, err := os.ReadDir(filepath.Join(dir, locks)); err != nil || len(entries) != 0 {
		t.Error(entries, err)
	}
}

func TestRetryAfter(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for text, want := range map[string]time.Duration{
		"": 0, "0": 0, "3": 3 * time.Second, "86401": maxPatience, "99999999999999999999": 0, "-3": 0, "soon": 0,
		"Fri, 02 Jan 2026 03:04:35 GMT": 30 * time.Second, "Thu, 01 Jan 2026 03:04:35 GMT": 0, "Fri, 02 Jan 2027 03:04:35 GMT": maxPatience,
	} {
		if got := retryAfter(text, now); got != want {
			t.Errorf("%q: %s, want %s", text, got, want)
		}
	}
}

func TestPrintable(t *testing.T) {
	if got := printable("a\x1b[31m\nb\xff" + strings.Repeat("x", 600)); strings.ContainsAny(got, "\x1b\n") || !utf8.ValidString(got) || len(got) > 510 {
		t.Errorf("%q", got)
	}
}
