package cca_test

import (
	"bytes"
	"encoding/pem"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/test/vectors"
)

// recordedKey is the platform key of the recording, in DER.
func recordedKey(t testing.TB) []byte {
	t.Helper()
	raw := vectors.Read(t, "cca/platform.pub")
	if block, _ := pem.Decode(raw); block != nil {
		return block.Bytes
	}
	return raw
}

func TestRecording(t *testing.T) {
	t.Parallel()
	keys, err := cca.NewKeys(cca.Key{SPKI: recordedKey(t)})
	if err != nil {
		t.Fatal(err)
	}
	ev := &attest.Evidence{Format: cca.Format, Raw: vectors.Read(t, "cca/token.cbor")}
	verifier := cca.NewVerifier(keys)
	c, err := verifier.Verify(t.Context(), ev, nil, epoch)
	if err != nil {
		t.Fatal(err)
	}
	if c.Version != 1 || c.Debug != attest.Off || c.Numbers["lifecycle"] != 12291 || !bytes.Equal(c.ReportData[:], bytes.Repeat([]byte{0xab}, 64)) ||
		!bytes.HasPrefix(c.Measured["personalization"], []byte("The quick brown fox")) || !bytes.HasPrefix(c.Measured["implementation_id"], []byte("\x7fELF")) ||
		len(c.ChipID) != 33 || len(c.Measured["component3"]) != 32 || len(c.Measured["launch"]) != 32 {
		t.Errorf("%+v", c)
	}
	if _, err := cca.NewVerifier(forge{}.make(t).keys).Verify(t.Context(), ev, nil, epoch); attest.CodeOf(err) != attest.CodeSignature {
		t.Errorf("under another key: %v", err)
	}
	for at := 0; at < len(ev.Raw); at += step() {
		bad := &attest.Evidence{Format: cca.Format, Raw: slices.Clone(ev.Raw)}
		bad.Raw[at] ^= 1 << (at % 8)
		if _, err := verifier.Verify(t.Context(), bad, nil, epoch); err == nil || attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("byte %d: %v", at, err)
		}
	}
}
