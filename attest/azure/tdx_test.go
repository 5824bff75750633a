package azure_test

import (
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/test/dcapforge"
	"github.com/jurat-tls/jurat/test/vectors"
)

// TestOverTheRealVerifierOfTDX runs both hops over forged quotes in Intel's format.
func TestOverTheRealVerifierOfTDX(t *testing.T) {
	t.Parallel()
	for name, quote := range map[string]dcapforge.Forge{"version 4": {}, "TDX 1.5": {Version: 5, TD15: true}} {
		var made dcapforge.Made
		ev := forge{tdx: true, tdQuote: func(parts []byte) []byte {
			quote.Body = func(body []byte) {
				copy(body[520:584], parts)
				copy(body[136:184], parts[64:])
				copy(body[328:520], parts[64+48:])
			}
			made = quote.Make(t)
			return made.Evidence.Raw
		}}.make(t)
		ev.Endorsements = made.Evidence.Endorsements
		verifier := azure.NewTDXVerifier(tdx.NewVerifier(made.Roots))
		c, err := verifier.Verify(t.Context(), ev, nil, dcapforge.Epoch)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if c.Vendor != "intel" || c.TEE != "tdx" || c.Root == "" || c.TCBStatus != "UpToDate" || !c.Folded || c.ReportData != reportData.Fold() || c.Measured["launch"][0] != 0x10 || c.Measured["pcr7"][0] != 8 || c.Module != "VM-1" {
			t.Errorf("%s: %+v", name, c)
		}
		ev.Endorsements = nil
		if _, err := verifier.Verify(t.Context(), ev, nil, dcapforge.Epoch); attest.CodeOf(err) != attest.CodeEndorsementMissing {
			t.Errorf("%s: %v", name, err)
		}
		ev.Endorsements = made.Evidence.Endorsements
		if _, err := azure.NewTDXVerifier(tdx.NewVerifier(nil)).Verify(t.Context(), ev, nil, dcapforge.Epoch); attest.CodeOf(err) != attest.CodeUntrustedRoot {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The recorded TD quote is Intel's; its collateral is missing.
func TestRecordedOverTheRealVerifierOfTDX(t *testing.T) {
	t.Parallel()
	raw, err := azure.Pack(map[string][]byte{"hcl": vectors.Read(t, "azure/tdx.hcl"), "td-quote": vectors.Read(t, "azure/tdx.td-quote.bin")})
	if err != nil {
		t.Fatal(err)
	}
	_, err = azure.NewTDXVerifier(tdx.NewVerifier(dcap.IntelRoots())).Verify(t.Context(), &attest.Evidence{Format: azure.FormatTDX, Raw: raw}, nil, today)
	if attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Error(err)
	}
}
