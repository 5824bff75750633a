package sgx_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/test/vectors"
)

func FuzzParse(f *testing.F) {
	for _, name := range []string{"sgx/quote-v3.bin"} {
		if raw, err := os.ReadFile(filepath.Join(vectors.Find(), name)); err == nil {
			f.Add(raw)
		}
	}
	quote := body(nil).Make(f).Evidence.Raw
	f.Add(quote)
	f.Add(openEnclave(quote))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := sgx.Parse(raw)
		if attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
		if err == nil && len(r.ReportData) != 64 {
			t.Fatalf("%+v", r)
		}
	})
}
