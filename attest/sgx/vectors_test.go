package sgx_test

import (
	"encoding/binary"
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/test/vectors"
)

var recorded = time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC)

func version3(t testing.TB) *attest.Evidence {
	t.Helper()
	return &attest.Evidence{Format: sgx.Format, Raw: vectors.Read(t, "sgx/quote-v3.bin"), Endorsements: vectors.Collateral(t, "sgx/quote-v3.collateral.json")}
}

// openEnclave puts Open Enclave's header before a quote.
func openEnclave(quote []byte) []byte {
	raw := binary.LittleEndian.AppendUint64([]byte{1, 0, 0, 0, 2, 0, 0, 0}, uint64(len(quote)))
	return append(raw, quote...)
}

func TestRecorded(t *testing.T) {
	t.Parallel()
	bare, wrapped := version3(t), version3(t)
	wrapped.Raw = openEnclave(wrapped.Raw)
	for _, ev := range []*attest.Evidence{bare, wrapped} {
		c, err := sgx.NewVerifier(dcap.IntelRoots()).Verify(t.Context(), ev, nil, recorded)
		if err != nil {
			t.Fatal(err)
		}
		out, _ := json.MarshalIndent(c, "", " ")
		if c.Vendor != "intel" || c.TEE != "sgx" || c.Generation != "rocket-lake" || c.FMSPC.String() != "00a067110000" || c.Version != 3 ||
			c.TCBStatus != "ConfigurationAndSWHardeningNeeded" || *c.Evaluation != 17 || !slices.Equal(c.Advisories, []string{"INTEL-SA-00289", "INTEL-SA-00615"}) {
			t.Errorf("%s", out)
		}
		if c.Debug != attest.Off || c.Migratable != attest.Off || len(c.Measured["launch"]) != 32 || len(c.Measured["signer"]) != 32 || len(c.PPID) != 16 {
			t.Errorf("%s", out)
		}
		if _, ok := c.Platform["smt"]; ok || c.TCB["sgx1"] != 11 || c.TCB["pce"] != 13 || c.TCB["tdx1"] != 0 || c.Revocation.Problem != nil {
			t.Errorf("%s", out)
		}
	}
}
