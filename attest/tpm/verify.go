package tpm

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Verifier verifies Evidence of format "tpm". It is safe for concurrent use.
type Verifier struct{ roots *Roots }

var _ attest.Verifier = (*Verifier)(nil)

// NewVerifier makes a Verifier that believes certificates under roots, and without any only keys that the endorser names.
func NewVerifier(roots *Roots) *Verifier { return &Verifier{roots: roots} }

// Verify implements attest.Verifier.
func (v *Verifier) Verify(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser, now time.Time) (*attest.Claims, error) {
	if ev == nil || len(ev.Raw) == 0 {
		return nil, attest.Refuse(attest.CodeNoEvidence, checkFormat, "", "")
	}
	if ev.Format != Format {
		return nil, attest.ErrNotMine
	}
	if len(ev.Endorsements) > attest.MaxEndorsements {
		return nil, attest.Refuse(attest.CodeOversized, checkChain, fmt.Sprintf("%d endorsements", len(ev.Endorsements)), fmt.Sprintf("at most %d", attest.MaxEndorsements))
	}
	if endorser == nil {
		endorser = attest.NoEndorser{}
	}
	d, err := Parse(ev.Raw)
	if err != nil {
		return nil, err
	}
	s, err := sortEndorsements(ev.Endorsements)
	if err != nil {
		return nil, err
	}
	by, err := v.signerOf(ctx, d, &s, endorser, now)
	if err != nil {
		return nil, err
	}
	if err := d.Verify(d.Key); err != nil {
		return nil, err
	}
	r, err := revocation(ctx, by, &s, endorser, now)
	if err != nil {
		return nil, err
	}
	c := claims(d, by, r)
	if err := d.CheckLog(ev.EventLog, c); err != nil {
		return nil, err
	}
	return c, nil
}

// generation is the only one there is: version 1.2 has another format altogether.
const generation = "2.0"

func claims(d *Decoded, by *signer, r attest.Revocation) *attest.Claims {
	c := &attest.Claims{Vendor: "tcg", TEE: "tpm", Product: "TPM", Generation: generation, Root: by.root, Version: 2, Revocation: r}
	who := "the operator names the attestation key"
	if by.chain != nil {
		who = "chain of the attestation key to a trusted root"
	}
	c.Checks = []attest.Check{
		pass(checkFormat, "evidence is well-formed", d.Signature.String(), attest.SourceHardware),
		pass(checkChain, who, c.Root, attest.SourceVendor),
	}
	d.Claim(c)
	if r.Problem == nil {
		c.Checks = append(c.Checks, pass(checkRevocation, "no key of the chain is revoked", "list of "+attest.Day(r.Issued), attest.SourceVendor))
	} else {
		c.NotChecked = append(c.NotChecked, "revocation: "+r.Problem.Error())
	}
	if by.instance != nil {
		c.Product, c.Module = "Google Compute Engine vTPM", by.instance.String()
		c.Numbers["security_version"] = uint64(by.instance.Security.Version)
	}
	if d.Name == nil {
		c.NotChecked = append(c.NotChecked, "attributes of the attestation key: the evidence does not carry them")
	}
	c.NotChecked = append(c.NotChecked, "memory encryption and debugging: a TPM tells nothing about them")
	return c
}

// Claim adds to c what the quote signed: PCRs, clock and counters, and the report data. The caller has verified q.
func (q *Quoted) Claim(c *attest.Claims) {
	if c.Measured == nil {
		c.Measured = map[string]attest.HexBytes{}
	}
	if c.Numbers == nil {
		c.Numbers = map[string]uint64{}
	}
	c.Numbers["tpm_firmware"] = q.Quote.Firmware
	c.Numbers["tpm_clock"] = q.Quote.Clock
	c.Numbers["tpm_resets"] = uint64(q.Quote.ResetCount)
	c.Numbers["tpm_restarts"] = uint64(q.Quote.RestartCount)
	var names []string
	for _, n := range q.Quote.PCRs {
		names = append(names, fmt.Sprint(n))
		if q.Values != nil {
			c.Measured[registerName(n)] = q.Values[n]
		}
	}
	list := strings.Join(names, ", ")
	c.Checks = append(c.Checks, pass(checkSignature, "the TPM's signature verifies", q.Signature.String(), attest.SourceHardware))
	if q.Values != nil {
		c.Checks = append(c.Checks, pass(checkRegisters, "the PCR values are those signed", q.Quote.Bank+": "+list, attest.SourceHardware))
	} else {
		c.NotChecked = append(c.NotChecked, "PCRs: the quote covers "+list+", but the evidence has no values")
	}
	if len(q.Quote.PCRs) < pcrCount {
		c.NotChecked = append(c.NotChecked, "PCRs other than "+list+": the quote does not cover them")
	}
	c.ReportData, c.Folded = attest.ReportData{}, false
	switch extra := q.Quote.ExtraData; len(extra) {
	case len(c.ReportData):
		copy(c.ReportData[:], extra)
	case foldedSize:
		copy(c.ReportData[:], extra)
		c.Folded = true
	default:
		// Padded, it would equal what another quote signed. Zeros equal no expectation.
		c.NotChecked = append(c.NotChecked, fmt.Sprintf("report data: the quote signed %d bytes, %s, which is not the form of one", len(extra), extra))
	}
}

// foldedSize is the length of a folded report data; see attest.ReportData.Fold.
const foldedSize = 32

func pass(id, text, got string, source attest.Source) attest.Check {
	return attest.Check{ID: id, Status: attest.StatusPass, Text: text, Got: got, Source: source}
}
