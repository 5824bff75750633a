package dcap_test

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"testing"

	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/test/bench"
	"github.com/jurat-tls/jurat/test/dcapforge"
)

// BenchmarkWarm verifies quotes of platforms that were seen before. With the attestation key known one verification of
// P-256 cannot be avoided; with a new one there is also that of the quoting enclave's report.
func BenchmarkWarm(b *testing.B) {
	key := dcapforge.NewKey()
	digest := sha256.Sum256([]byte("message"))
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		b.Fatal(err)
	}
	bare := func() error {
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			return errors.New("does not verify")
		}
		return nil
	}
	for _, c := range []struct{ name, kind string }{{"sgx", "sgx"}, {"tdx", "tdx, version 4"}, {"tdx-1.5", "tdx 1.5, version 5"}} {
		m := kinds[c.kind].Make(b)
		v := dcap.NewVerifier(m.Roots)
		whole := func() error {
			q, err := dcap.Parse(m.Evidence.Raw)
			if err != nil {
				return err
			}
			got, err := v.Verify(b.Context(), q, m.Evidence.Endorsements, nil, dcapforge.Epoch)
			if err == nil {
				got.Claims()
			}
			return err
		}
		bench.Compare(b, c.name+"/1×P-256", 1.3, whole, bare)
		bench.Compare(b, c.name+"-new-AK/1×P-256", 2.3, func() error {
			dcap.ForgetBindings(v)
			return whole()
		}, bare)
	}
}
