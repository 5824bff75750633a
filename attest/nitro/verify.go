package nitro

import (
	"context"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Verifier verifies Evidence of format "nitro" under explicit roots. It is safe for concurrent use.
type Verifier struct {
	roots *Roots
	known links
}

var _ attest.Verifier = (*Verifier)(nil)

// NewVerifier makes a Verifier that trusts roots alone. With nil roots it refuses everything.
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
		return nil, attest.Refuse(attest.CodeOversized, checkRevocation, fmt.Sprintf("%d endorsements", len(ev.Endorsements)), fmt.Sprintf("at most %d", attest.MaxEndorsements))
	}
	if endorser == nil {
		endorser = attest.NoEndorser{}
	}
	d, err := Parse(ev.Raw)
	if err != nil {
		return nil, err
	}
	c, err := v.verifyChain(d, now)
	if err != nil {
		return nil, err
	}
	if err := d.message.Verify(c.leaf().key); err != nil {
		return nil, err
	}
	revocation, err := v.revocation(ctx, c, ev.Endorsements, endorser, now)
	if err != nil {
		return nil, err
	}
	return claims(d, c, revocation), nil
}

func claims(d *Document, c chain, revocation attest.Revocation) *attest.Claims {
	out := &attest.Claims{
		Vendor:     "aws",
		TEE:        "nitro",
		Product:    "Nitro Enclaves",
		Generation: "nitro", // AWS names no generations
		Root:       attest.Fingerprint(c.root().Raw),
		Version:    1,
		Debug:      attest.FlagOf(d.debug()),
		Migratable: attest.Off, // an enclave ends with its instance: nothing can move it
		Provenance: attest.Provenance{Module: d.ModuleID},
		Measured:   d.measured(),
		ReportData: d.reportData(),
		Made:       d.Timestamp,
		Revocation: revocation,
	}
	pass := func(id, text, got string, source attest.Source) {
		out.Checks = append(out.Checks, attest.Check{ID: id, Status: attest.StatusPass, Text: text, Got: got, Source: source})
	}
	pass(checkFormat, "document is well-formed", d.ModuleID, attest.SourceHardware)
	pass(checkChain, "chain to a trusted root", out.Root, attest.SourceVendor)
	pass(checkTime, "document was made while its key was valid", stamp(d.Timestamp), attest.SourceHardware)
	pass(checkSignature, "the hardware's signature verifies", "ECDSA P-384", attest.SourceHardware)
	if revocation.Problem == nil {
		pass(checkRevocation, "no key of the chain is revoked", "lists of "+stamp(revocation.Issued), attest.SourceVendor)
	} else {
		out.NotChecked = append(out.NotChecked, "revocation: "+revocation.Problem.Error())
	}
	if n := len(d.UserData); n != len(out.ReportData) {
		out.NotChecked = append(out.NotChecked, fmt.Sprintf("user data of %d bytes: signed, but no report data, which has 64", n))
	}
	for _, field := range []struct {
		name  string
		value []byte
	}{{"nonce", d.Nonce}, {"public key", d.PublicKey}} {
		if len(field.value) > 0 {
			out.NotChecked = append(out.NotChecked, field.name+" in the document: signed, its digest is a claim that only some dialects compare")
		}
	}
	return out
}
