package nitro_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/test/vectors"
)

// seeds adds the recordings where they are present.
func seeds(f *testing.F) {
	for _, name := range []string{"production", "debug"} {
		if raw, err := os.ReadFile(filepath.Join(vectors.Find(), "nitro", name+".cose")); err == nil {
			f.Add(raw)
			f.Add(nitro.Unwrap(raw))
		}
	}
}

func FuzzVerify(f *testing.F) {
	good := forge{}.make(f)
	f.Add(good.evidence.Raw)
	seeds(f)
	v := nitro.NewVerifier(good.roots)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := v.Verify(t.Context(), &attest.Evidence{Format: nitro.Format, Raw: raw}, nil, epoch)
		switch {
		case attest.CodeOf(err) == attest.CodeInternal:
			t.Fatalf("error without a code: %v", err)
		case err == nil && c.ReportData != userData:
			t.Fatal("a document that nobody signed is accepted")
		}
		if d, err := nitro.Parse(raw); err == nil && (len(d.PCRs) > 32 || len(d.CABundle) > 8 || len(d.UserData) > 512) {
			t.Fatalf("%+v", d)
		}
	})
}

func FuzzUnwrap(f *testing.F) {
	seeds(f)
	f.Add([]byte{0, 2, 4, 7, 0})
	f.Fuzz(func(t *testing.T, raw []byte) {
		if got := nitro.Unwrap(raw); !bytes.Contains(raw, got) {
			t.Fatalf("%x is nothing of %x", got, raw)
		}
	})
}

func FuzzEndorsement(f *testing.F) {
	good := forge{}.make(f)
	f.Add(good.lists[0].Raw)
	v := nitro.NewVerifier(good.roots)
	f.Fuzz(func(t *testing.T, raw []byte) {
		ev := &attest.Evidence{Format: nitro.Format, Raw: good.evidence.Raw, Endorsements: []attest.Endorsement{{Kind: attest.KindCRL, Raw: raw}}}
		if _, err := v.Verify(t.Context(), ev, nil, epoch); attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
	})
}
