package tdx_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/test/vectors"
)

func FuzzParse(f *testing.F) {
	for _, name := range []string{"tdx/quote-v4.bin", "tdx/quote-v5.bin"} {
		if raw, err := os.ReadFile(filepath.Join(vectors.Find(), name)); err == nil {
			f.Add(raw)
		}
	}
	for _, k := range kinds {
		f.Add(k.Make(f).Evidence.Raw)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := tdx.Parse(raw)
		if attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
		if err == nil && len(r.ReportData) != 64 {
			t.Fatalf("%+v", r)
		}
	})
}
