package tpm_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/test/vectors"
)

var today = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

// recorded is evidence of a TPM that others recorded, and its key.
func recorded(t testing.TB) (*attest.Evidence, []byte) {
	t.Helper()
	raw := vectors.Read(t, "tpm/evidence.json")
	var doc struct {
		Key string `json:"ak_public"`
	}
	if err := json.Unmarshal(raw, &doc); err != nil {
		t.Fatal(err)
	}
	key, err := base64.StdEncoding.DecodeString(doc.Key)
	if err != nil {
		t.Fatal(err)
	}
	return &attest.Evidence{Format: tpm.Format, Raw: raw}, key
}

// The recorded evidence is authentic where the operator names its key, and nothing vouches for it where not.
func TestRecording(t *testing.T) {
	t.Parallel()
	ev, key := recorded(t)
	operator := endorser(func(attest.Ref) ([]attest.Endorsement, error) {
		return []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: key}}, nil
	})
	c, err := tpm.NewVerifier(nil).Verify(t.Context(), ev, operator, today)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Measured) != 24 || c.Measured["pcr17"].String() != strings.Repeat("ff", 32) || c.Measured["pcr0"].String() != strings.Repeat("00", 32) || c.Numbers["tpm_firmware"] != 0x2019102300163636 {
		t.Errorf("%+v", c)
	}
	if c.Folded || c.ReportData[0] != 0xa0 || c.ReportData[63] != 0 {
		t.Errorf("%x", c.ReportData)
	}
	result := attest.NewAppraiser(operator, tpm.NewVerifier(nil)).Appraise(t.Context(), ev, attest.Expect(c.ReportData, attest.LevelKey, time.Time{}), allowAll{}, today)
	if !result.Affirmed() {
		t.Error(result.Err())
	}
	if _, err := tpm.NewVerifier(nil).Verify(t.Context(), ev, nil, today); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Error(err)
	}
	if _, err := tpm.NewVerifier(nil).Verify(t.Context(), ev, endorser(func(attest.Ref) ([]attest.Endorsement, error) {
		return []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: forge{}.make(t).spki}}, nil
	}), today); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Error(err)
	}
}

// Every character of the message and of the PCR values counts.
func TestRecordingEveryByteCounts(t *testing.T) {
	t.Parallel()
	ev, key := recorded(t)
	operator := endorser(func(attest.Ref) ([]attest.Endorsement, error) {
		return []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: key}}, nil
	})
	for at, c := range ev.Raw {
		flipped := &attest.Evidence{Format: tpm.Format, Raw: bytes.Clone(ev.Raw)}
		flipped.Raw[at] ^= 1
		if bytes.ContainsAny([]byte{c, flipped.Raw[at]}, " \n\t\r!") {
			continue // between the tokens
		}
		if _, err := tpm.NewVerifier(nil).Verify(t.Context(), flipped, operator, today); err == nil || attest.CodeOf(err) == attest.CodeInternal {
			t.Errorf("byte %d, %q: %v", at, c, err)
		}
	}
}
