package azure

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
)

// Formats of the Evidence. Raw is what Pack makes; the endorsements are those of the hardware.
const (
	FormatSNP attest.Format = "azure-snp"
	FormatTDX attest.Format = "azure-tdx"
)

// Formats of the hardware's own evidence.
const (
	hardwareSNP attest.Format = "snp"
	hardwareTDX attest.Format = "tdx"
)

// Decoded is decoded raw evidence. Nothing in it has been verified.
type Decoded struct {
	HCL     *HCL
	TDQuote []byte      // empty on SEV-SNP
	Quoted  *tpm.Quoted // nil where the evidence has no TPM quote, which Verify refuses
}

// Parse decodes raw evidence of either format.
func Parse(format attest.Format, raw []byte) (*Decoded, error) {
	known, kind := []tpm.Part{tpm.PartQuote, tpm.PartSignature, tpm.PartPCRs, tpm.PartHCL}, uint32(reportSNP)
	if format == FormatTDX {
		known, kind = append(known, tpm.PartTDQuote), reportTDX
	}
	parts, err := tpm.DecodeParts(raw, known...)
	if err != nil {
		return nil, err
	}
	d := &Decoded{TDQuote: parts[tpm.PartTDQuote]}
	if d.HCL, err = ParseHCL(parts[tpm.PartHCL]); err != nil {
		return nil, err
	}
	if d.HCL.kind != kind {
		return nil, attest.Refuse(attest.CodeProductMismatch, checkFormat, fmt.Sprintf("a hardware report of type %d", d.HCL.kind), fmt.Sprintf("%d for %s", kind, format))
	}
	if parts[tpm.PartQuote] != nil {
		d.Quoted, err = tpm.ParseQuoted(parts[tpm.PartQuote], parts[tpm.PartSignature], parts[tpm.PartPCRs])
	}
	return d, err
}

// Verifier verifies Evidence of one of the formats. It is safe for concurrent use where the hardware's verifier is.
type Verifier struct {
	format   attest.Format
	hardware attest.Verifier
}

var _ attest.Verifier = (*Verifier)(nil)

// NewSNPVerifier makes a Verifier of format "azure-snp" over one of format "snp".
func NewSNPVerifier(hardware attest.Verifier) *Verifier { return &Verifier{FormatSNP, hardware} }

// NewTDXVerifier makes a Verifier of format "azure-tdx" over one of format "tdx".
func NewTDXVerifier(hardware attest.Verifier) *Verifier { return &Verifier{FormatTDX, hardware} }

// Verify implements attest.Verifier.
func (v *Verifier) Verify(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser, now time.Time) (*attest.Claims, error) {
	if ev == nil || len(ev.Raw) == 0 {
		return nil, attest.Refuse(attest.CodeNoEvidence, checkFormat, "", "")
	}
	if ev.Format != v.format {
		return nil, attest.ErrNotMine
	}
	d, err := Parse(v.format, ev.Raw)
	if err != nil {
		return nil, err
	}
	hardware := &attest.Evidence{Format: hardwareSNP, Raw: d.HCL.Hardware, Endorsements: ev.Endorsements}
	if v.format == FormatTDX {
		hardware.Format, hardware.Raw = hardwareTDX, d.TDQuote
	}
	c, err := v.hardware.Verify(ctx, hardware, endorser, now)
	if err != nil {
		return nil, err
	}
	ak, err := firstHop(d, c, v.format)
	if err != nil {
		return nil, err
	}
	if err := secondHop(d, c, ak); err != nil {
		return nil, err
	}
	if err := d.Quoted.CheckLog(ev.EventLog, c); err != nil {
		return nil, err
	}
	return c, nil
}

// firstHop checks that the hardware signed the runtime claims, and answers them.
func firstHop(d *Decoded, c *attest.Claims, format attest.Format) (*Runtime, error) {
	var want attest.ReportData
	sum := sha256.Sum256(d.HCL.Runtime)
	copy(want[:], sum[:])
	if !bytes.Equal(c.ReportData[:], want[:]) {
		return nil, attest.Refuse(attest.CodeLink, checkLink, "hardware evidence over "+attest.Abbreviate(c.ReportData[:]), attest.Abbreviate(want[:])+", the hash of the runtime claims")
	}
	if format == FormatSNP && (c.Privilege == nil || *c.Privilege != 0) {
		// The guest may ask for reports too, over claims that it made up; they tell of its lower level.
		return nil, attest.Refuse(attest.CodePrivilege, checkLink, "a report that the guest asked for", "one that the paravisor asked for, at VMPL 0")
	}
	if format == FormatTDX {
		if err := checkTDReport(d.HCL.Hardware, c); err != nil {
			return nil, err
		}
	}
	return ParseRuntime(d.HCL.Runtime)
}

// secondHop checks that the key in the runtime claims signed the quote, and turns the hardware's claims into those of the
// guest. The measurement of the paravisor keeps the name "launch": it is what the hardware measured.
func secondHop(d *Decoded, c *attest.Claims, r *Runtime) error {
	if d.Quoted == nil {
		return malformed("no TPM quote: the hardware speaks of the paravisor alone", "the quote of the vTPM")
	}
	if err := d.Quoted.Verify(r.AK); err != nil {
		return err
	}
	c.Checks = append(c.Checks, attest.Check{
		ID: checkLink, Status: attest.StatusPass, Text: "the hardware signed the key of the vTPM", Got: "HCLAkPub", Source: attest.SourceHardware,
	})
	d.Quoted.Claim(c)
	c.Module = r.VM
	c.NotChecked = append(c.NotChecked,
		"guest in the launch measurement: it covers Azure's paravisor alone; the guest is measured in the PCRs",
		"VM configuration in the runtime claims: no claim")
	return nil
}

// MarshalJSON shows decoded evidence to people.
func (d *Decoded) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Hardware attest.HexBytes `json:"hardware_report"`
		TDQuote  attest.HexBytes `json:"td_quote,omitempty"`
		Runtime  string          `json:"runtime_claims"`
		Quoted   *tpm.Quoted     `json:"tpm"`
	}{d.HCL.Hardware, d.TDQuote, string(d.HCL.Runtime), d.Quoted})
}
