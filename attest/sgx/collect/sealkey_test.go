package collect

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
)

// tree is /dev/attestation with some files.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func gramineWith(program, signer string) map[string]string {
	return map[string]string{"attestation_type": "dcap", "keys/_sgx_mrenclave": program, "keys/_sgx_mrsigner": signer}
}

const keyA, keyB, keyC = "sixteen bytes: A", "sixteen bytes: B", "sixteen bytes: C"

func TestKeyOfGramine(t *testing.T) {
	t.Parallel()
	sealer := func(scope Scope, files map[string]string) *seal.Sealer {
		t.Helper()
		source, err := newKeySource(tree(t, files), scope)
		if err != nil {
			t.Fatal(err)
		}
		s, err := seal.New("sgx", source)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		name           string
		sealed, opened Scope
		files          map[string]string
		code           attest.Code
	}{
		{"the enclave", Unique, Unique, gramineWith(keyA, keyB), ""},
		{"the product", Product, Product, gramineWith(keyA, keyB), ""},
		{"the product, by another enclave", Product, Product, gramineWith(keyC, keyB), ""},
		{"the enclave, by another one", Unique, Unique, gramineWith(keyC, keyB), attest.CodeSealForeign},
		{"the product, by another's", Product, Product, gramineWith(keyA, keyC), attest.CodeSealForeign},
		{"another scope", Product, Unique, gramineWith(keyA, keyB), attest.CodeSealForeign},
	} {
		sealed, err := sealer(c.sealed, gramineWith(keyA, keyB)).Seal("c", []byte("plain"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := sealer(c.opened, c.files).Open("c", sealed)
		if attest.CodeOf(err) != c.code || err == nil && string(got) != "plain" {
			t.Errorf("%s: %q, %v", c.name, got, err)
		}
	}
}

func TestNoKeyOfGramine(t *testing.T) {
	t.Parallel()
	good := gramineWith(keyA, keyB)
	without := func(name, content string) map[string]string {
		files := gramineWith(keyA, keyB)
		if files[name] = content; content == "" {
			delete(files, name)
		}
		return files
	}
	for name, c := range map[string]struct {
		files map[string]string
		scope Scope
		hint  []byte
		code  attest.Code
	}{
		"works":               {good, Unique, nil, ""},
		"the hint of none":    {good, Unique, []byte{}, ""},
		"a hint":              {good, Unique, []byte("x"), attest.CodeSealForeign},
		"no scope":            {good, 0, nil, attest.CodeNoExpectation},
		"an unknown scope":    {good, 3, nil, attest.CodeNoExpectation},
		"no Gramine":          {nil, Unique, nil, attest.CodeNoSealing},
		"outside an enclave":  {without("attestation_type", "none"), Unique, nil, attest.CodeNoSealing},
		"no keys":             {without("keys/_sgx_mrenclave", ""), Unique, nil, attest.CodeNoSealing},
		"a short key":         {without("keys/_sgx_mrenclave", keyA[1:]), Unique, nil, attest.CodeNoSealing},
		"a long key":          {without("keys/_sgx_mrenclave", keyA+"x"), Unique, nil, attest.CodeNoSealing},
		"an endless key":      {without("keys/_sgx_mrenclave", string(make([]byte, 1<<20))), Unique, nil, attest.CodeNoSealing},
		"a key of zeros":      {without("keys/_sgx_mrenclave", string(make([]byte, 16))), Unique, nil, attest.CodeNoSealing},
		"only another's keys": {without("keys/_sgx_mrsigner", ""), Product, nil, attest.CodeNoSealing},
	} {
		source, err := newKeySource(tree(t, c.files), c.scope)
		var root, again []byte
		if err == nil {
			root, again, err = source.Root(c.hint)
		}
		if attest.CodeOf(err) != c.code || err == nil && (!bytes.Equal(root, []byte(keyA)) || len(again) != 0) || err != nil && root != nil {
			t.Errorf("%s: %q, %v", name, root, err)
		}
		if name == "no keys" && !errors.Is(err, fs.ErrNotExist) {
			t.Error("the reason is lost:", err)
		}
	}
	if _, err := os.Stat("/dev/attestation"); err != nil {
		if _, err := NewKeySource(Unique); attest.CodeOf(err) != attest.CodeNoSealing {
			t.Error(err)
		}
	}
}
