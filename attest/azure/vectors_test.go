package azure_test

import (
	"bytes"
	"context"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/test/vectors"
)

var today = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)

func recordedSNP(t testing.TB, files map[string][]byte) *attest.Evidence {
	t.Helper()
	files["hcl"] = vectors.Read(t, "azure/snp.hcl")
	raw, err := azure.Pack(files)
	if err != nil {
		t.Fatal(err)
	}
	ev := &attest.Evidence{Format: azure.FormatSNP, Raw: raw}
	for block, rest := pem.Decode(vectors.Read(t, "azure/snp.vcek.pem")); block != nil; block, rest = pem.Decode(rest) {
		ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: block.Bytes})
	}
	return ev
}

// The first hop of the recorded evidence holds under AMD's root. The recorded quote is of another VM: neither key in the
// runtime claims made it, and it must not pass for theirs.
func TestRecordedSNP(t *testing.T) {
	t.Parallel()
	real := azure.NewSNPVerifier(snp.NewVerifier(snp.AMDRoots()))
	_, err := real.Verify(t.Context(), recordedSNP(t, map[string][]byte{}), nil, today)
	if err := wants(err, attest.CodeMalformed); err != nil || !strings.Contains(errorText(real, t, recordedSNP(t, map[string][]byte{})), "no TPM quote") {
		t.Error(err)
	}
	ev := recordedSNP(t, map[string][]byte{"tpm-quote": vectors.Read(t, "azure/snp.tpm-quote.msg"), "tpm-signature": vectors.Read(t, "azure/snp.tpm-quote.sig")})
	if _, err := real.Verify(t.Context(), ev, nil, today); attest.CodeOf(err) != attest.CodeSignature || !strings.Contains(err.Error(), "RSASSA") {
		t.Error(err)
	}
	d, err := azure.Parse(azure.FormatSNP, ev.Raw)
	if err != nil {
		t.Fatal(err)
	}
	if q := d.Quoted.Quote; string(q.ExtraData) != "challenge" || len(q.PCRs) != 9 || q.PCRs[8] != 14 {
		t.Errorf("%+v", q)
	}
	r, err := azure.ParseRuntime(d.HCL.Runtime)
	if err != nil || r.VM != "911B0EF8-9DBA-48B0-B275-4E4DF2D39252" {
		t.Errorf("%+v, %v", r, err)
	}
	// The claims, changed, are not those that the processor signed; neither is another processor's report.
	ev.Raw = bytes.Replace(ev.Raw, []byte("911B0EF8"), []byte("911B0EF9"), 1)
	if _, err := real.Verify(t.Context(), ev, nil, today); attest.CodeOf(err) != attest.CodeLink {
		t.Error(err)
	}
	if _, err := real.Verify(t.Context(), recordedSNP(t, map[string][]byte{}), nil, today.AddDate(20, 0, 0)); attest.CodeOf(err) != attest.CodeChainExpired {
		t.Error(err)
	}
}

func errorText(v *azure.Verifier, t testing.TB, ev *attest.Evidence) string {
	t.Helper()
	_, err := v.Verify(t.Context(), ev, nil, today)
	if err == nil {
		return ""
	}
	return err.Error()
}

// tdQuote is a Verifier that believes a TD quote of version 4: what it says of the body is enough for the links.
type tdQuote struct{}

func (tdQuote) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	body := ev.Raw[48:]
	c := &attest.Claims{Measured: map[string]attest.HexBytes{"launch": body[136:184]}}
	for i, name := range []string{"rtmr0", "rtmr1", "rtmr2", "rtmr3"} {
		c.Measured[name] = body[328+48*i:][:48]
	}
	copy(c.ReportData[:], body[520:584])
	return c, nil
}

// The recorded TD quote was made from the TDREPORT in the HCL report, which was made over the runtime claims. There is no
// TPM quote: the evidence is not complete.
func TestRecordedTDX(t *testing.T) {
	t.Parallel()
	pack := func(hcl, quote []byte) *attest.Evidence {
		raw, err := azure.Pack(map[string][]byte{"hcl": hcl, "td-quote": quote})
		if err != nil {
			t.Fatal(err)
		}
		return &attest.Evidence{Format: azure.FormatTDX, Raw: raw}
	}
	hcl, quote := vectors.Read(t, "azure/tdx.hcl"), vectors.Read(t, "azure/tdx.td-quote.bin")
	verifier := azure.NewTDXVerifier(tdQuote{})
	if text := errorText(verifier, t, pack(hcl, quote)); !strings.Contains(text, "no TPM quote") {
		t.Error(text)
	}
	change := func(b []byte, at int) []byte {
		b = bytes.Clone(b)
		b[at] ^= 1
		return b
	}
	for name, ev := range map[string]*attest.Evidence{
		"report data of the quote":  pack(hcl, change(quote, 48+520)),
		"MRTD of the quote":         pack(hcl, change(quote, 48+136)),
		"RTMR3 of the quote":        pack(hcl, change(quote, 48+472)),
		"report data of the report": pack(change(hcl, 32+0x80), quote),
		"MRTD of the report":        pack(change(hcl, 32+0x210), quote),
		"runtime claims":            pack(bytes.Replace(hcl, []byte("6332533D"), []byte("6332533E"), 1), quote),
	} {
		if _, err := verifier.Verify(t.Context(), ev, nil, today); attest.CodeOf(err) != attest.CodeLink {
			t.Errorf("%s: %v", name, err)
		}
	}
	d, err := azure.Parse(azure.FormatTDX, pack(hcl, quote).Raw)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := azure.ParseRuntime(d.HCL.Runtime); err != nil || r.VM != "6332533D-5649-4D02-8AA7-8F64B7C3EE21" || len(d.TDQuote) != len(quote) {
		t.Errorf("%+v, %v", r, err)
	}
}
