package tdx_test

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/test/vectors"
)

var recorded = time.Date(2025, 6, 25, 0, 0, 0, 0, time.UTC)

func version4(t testing.TB) *attest.Evidence {
	t.Helper()
	return &attest.Evidence{Format: tdx.Format, Raw: vectors.Read(t, "tdx/quote-v4.bin"), Endorsements: vectors.Collateral(t, "tdx/quote-v4.collateral.json")}
}

func TestRecordedVersion4(t *testing.T) {
	t.Parallel()
	c, err := tdx.NewVerifier(dcap.IntelRoots()).Verify(t.Context(), version4(t), nil, recorded)
	if err != nil {
		t.Fatal(err)
	}
	out, _ := json.MarshalIndent(c, "", " ")
	if c.Vendor != "intel" || c.TEE != "tdx" || c.Generation != "emerald-rapids" || c.Product != "Xeon Emerald Rapids" || c.FMSPC.String() != "b0c06f000000" ||
		c.TCBStatus != "UpToDate" || c.Version != 4 || *c.Evaluation != 17 || len(c.Advisories) != 0 || !c.TCBDate.Equal(time.Date(2024, 3, 13, 0, 0, 0, 0, time.UTC)) {
		t.Errorf("%s", out)
	}
	if c.Debug != attest.Off || c.Migratable != attest.Off || c.Platform["sept_ve_disable"] != attest.On || c.Platform["smt"] == attest.Absent || len(c.PPID) != 16 {
		t.Errorf("%s", out)
	}
	if len(c.Measured["launch"]) != 48 || len(c.Measured["rtmr3"]) != 48 || c.TCB["tdx1"] != 6 || c.TCB["tdx2"] != 1 || c.TCB["tdx3"] != 3 || c.TCB["pce"] != 11 || c.TCB["qe"] == 0 {
		t.Errorf("%s", out)
	}
	if c.Revocation.Problem != nil || c.Root != "sha256:44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3" {
		t.Errorf("%+v", c.Revocation)
	}
}

func TestRecordedVersion5(t *testing.T) {
	t.Parallel()
	ev := &attest.Evidence{Format: tdx.Format, Raw: vectors.Read(t, "tdx/quote-v5.bin")}
	r, err := tdx.Parse(ev.Raw)
	if err != nil {
		t.Fatal(err)
	}
	// A service TD is bound to this guest, which refuses it; but first of all nobody knows what its platform is worth.
	if r.Quote.Version != 5 || len(r.TEETCBSVN2) != 16 || r.MRServiceTD[0] == 0 {
		t.Errorf("%+v", r)
	}
	c, err := tdx.NewVerifier(dcap.IntelRoots()).Verify(t.Context(), ev, nil, recorded)
	if attest.CodeOf(err) != attest.CodeEndorsementMissing || c != nil {
		t.Errorf("without collateral: %v", err)
	}
	ev.Raw = slices.Clone(ev.Raw)
	ev.Raw[100] ^= 1
	if _, err = tdx.NewVerifier(dcap.IntelRoots()).Verify(t.Context(), ev, nil, recorded); attest.CodeOf(err) != attest.CodeSignature {
		t.Errorf("changed: %v", err)
	}
}
