package tpm_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/test/vectors"
)

func seeds(f *testing.F) []forged {
	f.Helper()
	k := sharedKeys()
	return []forged{
		forge{}.make(f), forge{key: k.rsa}.make(f), forge{key: k.rsa, scheme: 0x16}.make(f), forge{key: k.p384, hash: 0x0c}.make(f),
		messageHook(func(m *message) { m.banks[0].selected = []byte{0x80, 0, 1} }).make(f),
	}
}

func coded(t *testing.T, err error) {
	t.Helper()
	if attest.CodeOf(err) == attest.CodeInternal {
		t.Fatalf("error without a code: %v", err)
	}
}

func FuzzEvidence(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s.evidence.Raw)
		f.Add(asJSON(f, s, nil))
	}
	if dir := vectors.Find(); dir != "" {
		if raw, err := os.ReadFile(filepath.Join(dir, "tpm/evidence.json")); err == nil {
			f.Add(raw)
		}
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		d, err := tpm.Parse(raw)
		if err != nil {
			coded(t, err)
			return
		}
		if len(raw) > attest.MaxRaw || len(d.Values) != len(d.Quote.PCRs) || len(d.Quote.PCRs) == 0 {
			t.Fatalf("%+v", d)
		}
		// Nobody vouches for the key.
		ev := &attest.Evidence{Format: tpm.Format, Raw: raw}
		if c, err := tpm.NewVerifier(nil).Verify(t.Context(), ev, nil, epoch); err == nil || c != nil {
			t.Fatal("accepted without a root")
		}
		if parts, err := tpm.DecodeParts(raw, tpm.PartQuote, tpm.PartSignature, tpm.PartPCRs, tpm.PartPublic); err == nil && !bytes.Equal(tpm.EncodeParts(parts), raw) {
			t.Fatal("two encodings of the same evidence")
		}
	})
}

func FuzzQuote(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s.message)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		q, err := tpm.ParseQuote(raw)
		if err != nil {
			coded(t, err)
			return
		}
		if len(q.ExtraData) > 66 || len(q.PCRs) == 0 || len(q.PCRs) > 24 || q.Bank == "" {
			t.Fatalf("%+v", q)
		}
	})
}

func FuzzPublic(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s.parts(f)[tpm.PartPublic])
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		p, err := tpm.ParsePublic(raw)
		if err != nil {
			coded(t, err)
			return
		}
		if p.Key == nil || len(p.Name) < 34 {
			t.Fatalf("%+v", p)
		}
	})
}

func FuzzSignature(f *testing.F) {
	for _, s := range seeds(f) {
		f.Add(s.parts(f)[tpm.PartSignature], s.message)
	}
	k := sharedKeys()
	f.Fuzz(func(t *testing.T, raw, message []byte) {
		if _, err := tpm.ParseSignature(raw); err != nil {
			coded(t, err)
			return
		}
		q, err := tpm.ParseQuoted(message, raw, nil)
		if err != nil {
			coded(t, err)
			return
		}
		// Whatever the signature is, a key that signed nothing verifies none.
		if q.Verify(&k.other.PublicKey) == nil {
			t.Fatal("verified")
		}
	})
}
