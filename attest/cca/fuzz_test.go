package cca_test

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/test/vectors"
)

func FuzzVerify(f *testing.F) {
	good := forge{}.make(f)
	for _, g := range []generation{v2023, legacy, v2024} {
		f.Add(forge{generation: g}.token(f))
	}
	if raw, err := os.ReadFile(filepath.Join(vectors.Find(), "cca", "token.cbor")); err == nil {
		f.Add(raw)
	}
	v := cca.NewVerifier(good.keys)
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, err := v.Verify(t.Context(), &attest.Evidence{Format: cca.Format, Raw: raw}, nil, epoch)
		switch {
		case attest.CodeOf(err) == attest.CodeInternal:
			t.Fatalf("error without a code: %v", err)
		case err == nil && c.ReportData != challenge:
			t.Fatal("a token that nobody signed is accepted")
		}
	})
}

func FuzzKey(f *testing.F) {
	f.Add(spki(f, &keys().cpak.PublicKey))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if _, err := cca.NewKeys(cca.Key{SPKI: raw}); attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
	})
}
