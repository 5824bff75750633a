package snp

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/sha512"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Verifier verifies Evidence of format "snp" under explicit roots. It is safe for concurrent use.
type Verifier struct {
	roots  *Roots
	memory memory
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
		return nil, attest.Refuse(attest.CodeOversized, checkChain, fmt.Sprintf("%d endorsements", len(ev.Endorsements)), fmt.Sprintf("at most %d", attest.MaxEndorsements))
	}
	if endorser == nil {
		endorser = attest.NoEndorser{}
	}
	r, err := Parse(ev.Raw)
	if err != nil {
		return nil, err
	}
	s, err := sortEndorsements(ev.Endorsements, &v.memory)
	if err != nil {
		return nil, err
	}
	c, err := v.chainOf(ctx, r, &s, endorser)
	if err != nil {
		return nil, err
	}
	if err := v.verifyChain(c, now); err != nil {
		return nil, err
	}
	v.memory.keep(c)
	if err := verifySignature(r, c.leaf.key); err != nil {
		return nil, err
	}
	revocation, err := v.revocation(ctx, c, &s, endorser, now)
	if err != nil {
		return nil, err
	}
	return claims(r, c, revocation), nil
}

// chainOf gathers the chain and compares the leaf with the report. Nothing is trusted yet but the ARK.
func (v *Verifier) chainOf(ctx context.Context, r *Report, s *stapled, endorser attest.Endorser) (*chain, error) {
	l, err := leafOf(ctx, r, s, endorser, &v.memory)
	if err != nil {
		return nil, err
	}
	g, lv, err := l.fits(r)
	if err != nil {
		return nil, err
	}
	anchor := v.roots.of(g)
	if anchor == nil {
		return nil, attest.Refuse(attest.CodeUntrustedRoot, checkChain, "no root of "+g.line+" is trusted", "")
	}
	for _, ark := range s.arks {
		if !bytes.Equal(ark.Raw, anchor.ark.Raw) {
			return nil, attest.Refuse(attest.CodeUntrustedRoot, checkChain, attest.Fingerprint(ark.Raw), attest.Fingerprint(anchor.ark.Raw))
		}
	}
	ask, err := askOf(ctx, l, g, s, anchor, endorser, &v.memory)
	if err != nil {
		return nil, err
	}
	return &chain{generation: g, levels: lv, leaf: l, ask: ask, ark: anchor.ark}, nil
}

// verifySignature checks the ECDSA signature over bytes 0..0x29F (56860 chapter 10). The signature itself is the only
// part of a report that can change without being noticed: (r, n-s) verifies where (r, s) does.
func verifySignature(r *Report, key *ecdsa.PublicKey) error {
	digest := sha512.Sum384(r.signed)
	if !ecdsa.Verify(key, digest[:], r.r, r.s) {
		return attest.Refuse(attest.CodeSignature, checkSignature, "a signature that does not verify", "one by the "+r.SigningKey+" of the chain")
	}
	return nil
}

func claims(r *Report, c *chain, revocation attest.Revocation) *attest.Claims {
	privilege := int(r.VMPL)
	out := &attest.Claims{
		Vendor:     "amd",
		TEE:        "snp",
		Product:    r.Product,
		Generation: c.generation.name,
		Root:       attest.Fingerprint(c.ark.Raw),
		TCB:        claimsOf(c.levels.reported),
		Version:    int(r.Version),
		Debug:      attest.FlagOf(r.Policy.Debug()),
		Migratable: attest.FlagOf(r.Policy.Migratable()),
		Privilege:  &privilege,
		Provenance: attest.Provenance{CSP: c.leaf.csp},
		Platform:   r.platform(),
		Measured:   r.measured(),
		Numbers:    r.numbers(c.levels),
		ReportData: attest.ReportData(r.ReportData),
		Revocation: revocation,
	}
	if r.Product == "" {
		// Version 2 carries no CPUID; the certificate's product name is what AMD vouches for.
		out.Product = "EPYC " + c.generation.line
		_, out.Stepping, _ = strings.Cut(c.leaf.productName, "-")
	} else {
		out.Stepping = steppingName(r.Model, r.Stepping)
	}
	if !r.masked() {
		out.ChipID = r.ChipID[:c.generation.hwid]
	}
	out.Checks = transcript(r, c, out)
	out.NotChecked = notChecked(revocation)
	return out
}

func transcript(r *Report, c *chain, claims *attest.Claims) []attest.Check {
	pass := func(id, text, got string, source attest.Source) attest.Check {
		return attest.Check{ID: id, Status: attest.StatusPass, Text: text, Got: got, Source: source}
	}
	chip := pass(checkChip, "the certificate is for this chip", attest.Abbreviate(claims.ChipID), attest.SourceVendor)
	if c.leaf.signer == vlek {
		chip = pass(checkChip, "the certificate is for this cloud provider", c.leaf.csp, attest.SourceVendor)
	}
	checks := []attest.Check{
		pass(checkFormat, "report is well-formed", fmt.Sprintf("version %d", r.Version), attest.SourceHardware),
		pass(checkSigner, "the certificate is of the kind the report names", r.SigningKey, attest.SourceHardware),
		pass(checkProduct, "report and certificate name the same product", strings.TrimSpace(claims.Product+" "+claims.Stepping), attest.SourceHardware),
		chip,
		pass(checkTCB, "the certificate is for the reported TCB", tcbText(claims.TCB), attest.SourceVendor),
		pass(checkChain, "chain to a trusted root", claims.Root, attest.SourceVendor),
		pass(checkSignature, "the hardware's signature verifies", "ECDSA P-384", attest.SourceHardware),
	}
	if claims.Revocation.Problem == nil {
		checks = append(checks, pass(checkRevocation, "no key of the chain is revoked", "list of "+attest.Day(claims.Revocation.Issued), attest.SourceVendor))
	}
	return checks
}

func tcbText(tcb attest.TCB) string {
	parts := make([]string, 0, len(tcb))
	for component, v := range tcb {
		parts = append(parts, fmt.Sprintf("%s %d", component, v))
	}
	slices.Sort(parts)
	return strings.Join(parts, ", ")
}

func notChecked(revocation attest.Revocation) []string {
	list := []string{
		"leaf revocation: AMD's lists name the keys that an ARK certified, and all VCEKs have the same serial number",
	}
	if revocation.Problem != nil {
		list = append(list, "revocation: "+revocation.Problem.Error())
	}
	return list
}
