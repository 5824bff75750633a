package sim_test

import (
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
	"github.com/jurat-tls/jurat/attest/sim"
)

func TestSealedBySimulation(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	source := func(spec, dir string) (*sim.KeySource, error) {
		t.Helper()
		m, err := sim.Open(spec, dir, time.Now)
		if err != nil {
			t.Fatal(err)
		}
		return sim.NewKeySource(m)
	}
	sealer := func(spec, dir string) *seal.Sealer {
		t.Helper()
		k, err := source(spec, dir)
		if err != nil {
			t.Fatal(err)
		}
		s, err := seal.New("sim", k)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, c := range []struct {
		sealed, opened, dir string
		code                attest.Code
	}{
		{"sim:snp", "sim:snp", dir, ""},
		{"sim:snp", "sim:snp,debug=on", dir, attest.CodeSealForeign},
		{"sim:snp", "sim:snp,measurement=" + strings.Repeat("ab", 48), dir, attest.CodeSealForeign},
		{"sim:snp", "sim:snp", elsewhere, attest.CodeSealForeign},
		{"sim:snp", "sim:azure-snp", dir, attest.CodeSealForeign},
		{"sim:azure-snp", "sim:azure-snp", dir, ""},
		{"sim:azure-snp", "sim:azure-snp,pcr7=" + strings.Repeat("ab", 32), dir, attest.CodeSealForeign},
		{"sim:azure-snp", "sim:azure-snp,debug=on", dir, attest.CodeSealForeign},
		{"sim:azure-snp", "sim:azure-snp,measurement=" + strings.Repeat("ab", 48), dir, attest.CodeSealForeign},
		{"sim:sgx", "sim:sgx", dir, ""},
		{"sim:sgx", "sim:sgx,measurement=" + strings.Repeat("ab", 32), dir, attest.CodeSealForeign},
		{"sim:sgx", "sim:sgx,debug=on", dir, attest.CodeSealForeign},
		{"sim:sgx", "sim:snp", dir, attest.CodeSealForeign},
	} {
		sealed, err := sealer(c.sealed, dir).Seal("c", []byte("plain"))
		if err != nil {
			t.Fatal(err)
		}
		got, err := sealer(c.opened, c.dir).Open("c", sealed)
		if attest.CodeOf(err) != c.code || err == nil && string(got) != "plain" {
			t.Errorf("%s by %s: %q, %v", c.sealed, c.opened, got, err)
		}
	}
	for _, spec := range []string{"sim:tdx", "sim:nitro", "sim:cca", "sim:tpm"} {
		if k, err := source(spec, dir); attest.CodeOf(err) != attest.CodeNoSealing || k != nil || !strings.Contains(err.Error(), "SIMULATED") {
			t.Errorf("%s: %v", spec, err)
		}
	}
	k, err := source("sim:snp", dir)
	if err != nil {
		t.Fatal(err)
	}
	if root, _, err := k.Root([]byte("x")); attest.CodeOf(err) != attest.CodeSealForeign || root != nil {
		t.Error(err)
	}
}
