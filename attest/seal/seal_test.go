package seal_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
)

// platform gives a root for each hint.
type platform struct {
	machine string
	latest  string   // the hint of the root to seal with
	asked   []string // hints
	odd     func(root, hint []byte) ([]byte, []byte, error)
}

func (p *platform) Root(hint []byte) ([]byte, []byte, error) {
	p.asked = append(p.asked, fmt.Sprintf("%t %s", hint != nil, hint))
	if hint == nil {
		hint = []byte(p.latest)
	}
	root := []byte(fmt.Sprintf("%-40s", p.machine+" "+string(hint)))
	if p.odd != nil {
		return p.odd(root, hint)
	}
	return root, hint, nil
}

func sealer(t testing.TB, name string, p *platform) *seal.Sealer {
	t.Helper()
	s, err := seal.New(name, p)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		hint := rapid.StringN(0, 50, 200).Draw(t, "hint")
		context := rapid.StringN(1, 50, 200).Draw(t, "context")
		plain := rapid.SliceOf(rapid.Byte()).Draw(t, "plain")
		first, err := seal.New("snp", &platform{machine: "A", latest: hint})
		if err != nil {
			t.Fatal(err)
		}
		sealed, err := first.Seal(context, plain)
		if err != nil {
			t.Fatal(err)
		}
		// After a restart, when the platform gives another root to seal with.
		second, err := seal.New("snp", &platform{machine: "A", latest: "another"})
		if err != nil {
			t.Fatal(err)
		}
		got, err := second.Open(context, sealed)
		if err != nil || !bytes.Equal(got, plain) {
			t.Fatalf("%q, %v", got, err)
		}
		at, bit := rapid.IntRange(0, len(sealed)-1).Draw(t, "at"), rapid.IntRange(0, 7).Draw(t, "bit")
		changed := slices.Clone(sealed)
		changed[at] ^= 1 << bit
		if got, err := second.Open(context, changed); err == nil || got != nil || attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("changed at %d: %v", at, err)
		}
		if got, err := second.Open(context, sealed[:at]); err == nil || got != nil {
			t.Fatalf("cut at %d: %v", at, err)
		}
	})
}

func TestSealedIsSecretAndFresh(t *testing.T) {
	t.Parallel()
	s := sealer(t, "snp", &platform{machine: "A"})
	plain := []byte("a private key that nobody is to see")
	seen := map[string]bool{}
	for range 50 {
		sealed, err := s.Seal("context", plain)
		if err != nil {
			t.Fatal(err)
		}
		// The salt makes keys, and the nonce counts for itself.
		at := len("jurat sealed 1\n") + 1 + 3 + 2
		salt, nonce, body := string(sealed[at:at+32]), string(sealed[at+64:at+76]), sealed[at+76:]
		if seen[salt] || seen[nonce] || bytes.Contains(sealed, plain[:8]) || len(body) != len(plain)+16 {
			t.Fatalf("%q", sealed)
		}
		seen[salt], seen[nonce] = true, true
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	s := sealer(t, "snp", &platform{machine: "A", latest: "hint"})
	sealed, err := s.Seal("context", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	at := func(off int) []byte { // behind the hint
		changed := slices.Clone(sealed)
		changed[len("jurat sealed 1\n")+1+3+2+4+off] ^= 1
		return changed
	}
	frame := func(platform, hint, rest int) []byte { // of lengths as they are said
		b := append([]byte("jurat sealed 1\n"), byte(platform))
		b = append(b, make([]byte, min(platform, 40))...)
		b = append(b, byte(hint>>8), byte(hint))
		return append(b, make([]byte, rest)...)
	}
	failing := &platform{machine: "A", latest: "hint"}
	gone := sealer(t, "snp", failing)
	failing.latest = "other"
	later := sealer(t, "snp", failing)
	failing.odd = func([]byte, []byte) ([]byte, []byte, error) {
		return nil, nil, attest.Refuse(attest.CodeSealForeign, "seal", "other registers", "")
	}
	for name, c := range map[string]struct {
		sealer  *seal.Sealer
		context string
		sealed  []byte
		code    attest.Code
		want    string
	}{
		"as it is":                  {s, "context", sealed, "", ""},
		"a root that is known":      {gone, "context", sealed, "", ""},
		"the platform refuses":      {later, "context", sealed, attest.CodeSealForeign, "other registers"},
		"another platform":          {sealer(t, "sgx", &platform{machine: "A", latest: "hint"}), "context", sealed, attest.CodeSealForeign, `"snp", want sgx`},
		"another machine":           {sealer(t, "snp", &platform{machine: "B", latest: "hint"}), "context", sealed, attest.CodeSealForeign, "this software sealed on this machine"},
		"another context":           {s, "contexts", sealed, attest.CodeSealContext, `"contexts"`},
		"no context":                {s, "", sealed, attest.CodeNoExpectation, ""},
		"a long context":            {s, strings.Repeat("c", seal.MaxContext+1), sealed, attest.CodeNoExpectation, ""},
		"another salt":              {s, "context", at(0), attest.CodeSealForeign, ""},
		"another value of the root": {s, "context", at(32 + 15), attest.CodeSealForeign, ""},
		"another of the context":    {s, "context", at(32 + 16), attest.CodeSealContext, ""},
		"another nonce":             {s, "context", at(64), attest.CodeSealBroken, ""},
		"another ciphertext":        {s, "context", at(64 + 12), attest.CodeSealBroken, ""},
		"more behind it":            {s, "context", append(slices.Clone(sealed), 0), attest.CodeSealBroken, "other bytes"},
		"less of it":                {s, "context", sealed[:len(sealed)-1], attest.CodeSealBroken, "other bytes"},
		"nothing left of it":        {s, "context", sealed[:len(sealed)-6], attest.CodeSealBroken, "do not add up"},
		"nothing":                   {s, "context", nil, attest.CodeSealBroken, "never sealed"},
		"a later version":           {s, "context", append([]byte("jurat sealed 2\n"), sealed[15:]...), attest.CodeUnknownVersion, `"jurat sealed 2"`},
		"plain":                     {s, "context", []byte("jurat xds kept 1\n..."), attest.CodeSealBroken, "never sealed"},
		"too large":                 {s, "context", append(slices.Clone(sealed), make([]byte, seal.MaxPlain)...), attest.CodeSealBroken, "do not add up"},
		"a long platform":           {s, "context", frame(33, 0, 500), attest.CodeSealBroken, "do not add up"},
		"a platform of that length": {s, "context", frame(32, 0, 500), attest.CodeSealForeign, ""},
		"a platform that is cut":    {s, "context", frame(255, 0, 150), attest.CodeSealBroken, "do not add up"},
		"a long hint":               {s, "context", append([]byte("jurat sealed 1\n\x03snp\x10\x01"), make([]byte, 5000)...), attest.CodeSealBroken, "do not add up"},
		"a hint that is cut":        {s, "context", append([]byte("jurat sealed 1\n\x03snp\x0f\xff"), make([]byte, 1000)...), attest.CodeSealBroken, "do not add up"},
		"the zero sealer":           {&seal.Sealer{}, "context", sealed, attest.CodeNoSealing, ""},
		"no sealer":                 {nil, "context", sealed, attest.CodeNoSealing, ""},
	} {
		got, err := c.sealer.Open(c.context, c.sealed)
		if attest.CodeOf(err) != c.code || err == nil && string(got) != "plain" || err != nil && (got != nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
}

// What stands in front is authenticated also where nothing else looks at it: the root is the same for two hints here.
func TestFrontIsAuthenticated(t *testing.T) {
	t.Parallel()
	p := &platform{odd: func(_, hint []byte) ([]byte, []byte, error) { return bytes.Repeat([]byte{7}, 32), hint, nil }, latest: "1"}
	s := sealer(t, "snp", p)
	sealed, err := s.Seal("context", []byte("plain"))
	if err != nil {
		t.Fatal(err)
	}
	moved := bytes.Replace(sealed, []byte("\x00\x011"), []byte("\x00\x012"), 1)
	if _, err := s.Open("context", moved); bytes.Equal(moved, sealed) || attest.CodeOf(err) != attest.CodeSealBroken {
		t.Error(err)
	}
}

func TestSealRefuses(t *testing.T) {
	t.Parallel()
	s := sealer(t, "snp", &platform{machine: "A"})
	long := strings.Repeat("c", seal.MaxContext)
	for name, c := range map[string]struct {
		sealer  *seal.Sealer
		context string
		plain   []byte
		code    attest.Code
	}{
		"nothing":          {s, "c", nil, ""},
		"longest context":  {s, long, []byte("x"), ""},
		"longer context":   {s, long + "c", []byte("x"), attest.CodeNoExpectation},
		"no context":       {s, "", []byte("x"), attest.CodeNoExpectation},
		"most":             {s, "c", make([]byte, seal.MaxPlain), ""},
		"more":             {s, "c", make([]byte, seal.MaxPlain+1), attest.CodeOversized},
		"the zero sealer":  {&seal.Sealer{}, "c", []byte("x"), attest.CodeNoSealing},
		"no sealer at all": {nil, "c", []byte("x"), attest.CodeNoSealing},
	} {
		sealed, err := c.sealer.Seal(c.context, c.plain)
		if attest.CodeOf(err) != c.code || err != nil && sealed != nil {
			t.Errorf("%s: %v", name, err)
		}
		if err != nil {
			continue
		}
		if got, err := s.Open(c.context, sealed); err != nil || !bytes.Equal(got, c.plain) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	broken := errors.New("firmware")
	for name, c := range map[string]struct {
		platform string
		source   seal.Source
		code     attest.Code
	}{
		"works":             {strings.Repeat("p", seal.MaxPlatform), &platform{}, ""},
		"no name":           {"", &platform{}, attest.CodeNoExpectation},
		"a long name":       {strings.Repeat("p", seal.MaxPlatform+1), &platform{}, attest.CodeNoExpectation},
		"a line":            {"snp\n", &platform{}, attest.CodeNoExpectation},
		"no ASCII":          {"snp\u00e9", &platform{}, attest.CodeNoExpectation},
		"no source":         {"snp", nil, attest.CodeNoExpectation},
		"a short secret":    {"snp", &platform{odd: func(r, h []byte) ([]byte, []byte, error) { return r[:15], h, nil }}, attest.CodeAttesterFailed},
		"a secret of zeros": {"snp", &platform{odd: func(_, h []byte) ([]byte, []byte, error) { return make([]byte, 32), h, nil }}, attest.CodeAttesterFailed},
		"the longest hint":  {"snp", &platform{latest: strings.Repeat("h", seal.MaxHint)}, ""},
		"a longer hint":     {"snp", &platform{latest: strings.Repeat("h", seal.MaxHint+1)}, attest.CodeAttesterFailed},
		"a failure":         {"snp", &platform{odd: func([]byte, []byte) ([]byte, []byte, error) { return nil, nil, broken }}, attest.CodeInternal},
	} {
		s, err := seal.New(c.platform, c.source)
		if attest.CodeOf(err) != c.code || (s == nil) != (err != nil) || s != nil && s.Platform() != c.platform {
			t.Errorf("%s: %v", name, err)
		}
		if name == "a failure" && !errors.Is(err, broken) {
			t.Error("the reason is lost:", err)
		}
	}
}

// A Source that answers for another hint than was asked for has not done what it was asked.
func TestAnotherHint(t *testing.T) {
	t.Parallel()
	sealed, err := sealer(t, "snp", &platform{latest: "old"}).Seal("c", nil)
	if err != nil {
		t.Fatal(err)
	}
	p := &platform{latest: "new"}
	s := sealer(t, "snp", p)
	p.odd = func(root, _ []byte) ([]byte, []byte, error) { return root, []byte("new"), nil }
	if _, err := s.Open("c", sealed); attest.CodeOf(err) != attest.CodeAttesterFailed {
		t.Error(err)
	}
}

// The platform is asked once for each hint, and a bounded number of roots is remembered; the current one always.
func TestRootsAreRemembered(t *testing.T) {
	t.Parallel()
	var old [][]byte
	for i := range 12 {
		sealed, err := sealer(t, "snp", &platform{latest: fmt.Sprint(i)}).Seal("c", []byte("x"))
		if err != nil {
			t.Fatal(err)
		}
		old = append(old, sealed)
	}
	p := &platform{latest: "now"}
	s := sealer(t, "snp", p)
	now, err := s.Seal("c", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, sealed := range append(old, now) {
			for range 2 {
				if _, err := s.Open("c", sealed); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	if len(p.asked) != 1+2*12 || p.asked[0] != "false " || slices.Contains(p.asked, "true now") {
		t.Errorf("%d times: %q", len(p.asked), p.asked)
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	old, err := sealer(t, "snp", &platform{latest: "old"}).Seal("c", []byte("x"))
	if err != nil {
		t.Fatal(err)
	}
	s := sealer(t, "snp", &platform{latest: "new"})
	var work sync.WaitGroup
	for range 8 {
		work.Go(func() {
			sealed, err := s.Seal("c", []byte("x"))
			if err == nil {
				_, err = s.Open("c", sealed)
			}
			if err == nil {
				_, err = s.Open("c", old)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	work.Wait()
}

func TestFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	path := filepath.Join(dir, "kept")
	p := &platform{machine: "A"}
	f := seal.NewFile(sealer(t, "snp", p), path, "context")
	if got, err := f.Load(); got != nil || err != nil {
		t.Errorf("before anything was saved: %q, %v", got, err)
	}
	for _, content := range []string{"first", "", "second"} {
		if err := f.Save([]byte(content)); err != nil {
			t.Fatal(err)
		}
		got, err := seal.NewFile(sealer(t, "snp", p), path, "context").Load()
		if err != nil || string(got) != content {
			t.Errorf("%q, %v", got, err)
		}
	}
	raw, err := os.ReadFile(path)
	if err != nil || bytes.Contains(raw, []byte("second")) {
		t.Errorf("%q, %v", raw, err)
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%v, %v", left, err)
	}
	for name, c := range map[string]struct {
		file *seal.File
		code attest.Code
	}{
		"another name":    {seal.NewFile(sealer(t, "snp", p), path, "other"), attest.CodeSealContext},
		"another machine": {seal.NewFile(sealer(t, "snp", &platform{machine: "B"}), path, "context"), attest.CodeSealForeign},
		"a directory":     {seal.NewFile(sealer(t, "snp", p), dir, "context"), attest.CodeInternal},
	} {
		if got, err := c.file.Load(); attest.CodeOf(err) != c.code || got != nil || !strings.Contains(err.Error(), dir) {
			t.Errorf("%s: %q, %v", name, got, err)
		}
	}
	for name, bad := range map[string]*seal.File{
		"no directory": seal.NewFile(sealer(t, "snp", p), filepath.Join(dir, "absent", "kept"), "context"),
		"no context":   seal.NewFile(sealer(t, "snp", p), path, ""),
		"no sealer":    seal.NewFile(nil, path, "context"),
		"a directory":  seal.NewFile(sealer(t, "snp", p), dir, "context"),
	} {
		if err := bad.Save([]byte("x")); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	if err := os.WriteFile(path, make([]byte, 65<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); attest.CodeOf(err) != attest.CodeSealBroken {
		t.Error(err)
	}
}

func FuzzOpen(f *testing.F) {
	s := sealer(f, "snp", &platform{machine: "A", latest: "hint"})
	for _, plain := range []string{"", "plain"} {
		sealed, err := s.Seal("context", []byte(plain))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(sealed)
		f.Add(sealed[:len(sealed)-1])
	}
	f.Add([]byte("jurat sealed 2\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		plain, err := s.Open("context", raw)
		if err != nil && (plain != nil || attest.CodeOf(err) == attest.CodeInternal) {
			t.Errorf("%q, %v", plain, err)
		}
	})
}
