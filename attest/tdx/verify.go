package tdx

import (
	"context"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
)

// Verifier verifies Evidence of format "tdx" under explicit roots. It is safe for concurrent use.
type Verifier struct {
	core *dcap.Verifier
}

var _ attest.Verifier = (*Verifier)(nil)

// NewVerifier makes a Verifier that trusts roots alone. With nil roots it refuses everything.
func NewVerifier(roots *dcap.Roots) *Verifier { return &Verifier{dcap.NewVerifier(roots)} }

// Verify implements attest.Verifier.
func (v *Verifier) Verify(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser, now time.Time) (*attest.Claims, error) {
	if ev == nil || len(ev.Raw) == 0 {
		return nil, attest.Refuse(attest.CodeNoEvidence, checkFormat, "", "")
	}
	if ev.Format != Format {
		return nil, attest.ErrNotMine
	}
	r, err := Parse(ev.Raw)
	if err != nil {
		return nil, err
	}
	verified, err := v.core.Verify(ctx, r.Quote, ev.Endorsements, endorser, now)
	if err != nil {
		return nil, err
	}
	if !attest.AllZero(r.MRServiceTD) {
		return nil, attest.Refuse(attest.CodeReservedBits, checkService, "MRSERVICETD "+r.MRServiceTD.String()+": a service TD is bound to the guest", "zero")
	}
	claims := verified.Claims()
	r.claim(claims)
	if err := r.checkLog(ev.EventLog, claims); err != nil {
		return nil, err
	}
	return claims, nil
}

// claim adds what the body of the quote says.
func (r *Report) claim(out *attest.Claims) {
	out.Debug = attest.FlagOf(r.Attributes.Debug())
	out.Migratable = attest.FlagOf(r.Attributes.Migratable())
	for _, b := range attributeBits {
		if on := r.Attributes>>b.bit&1 == 1; on || b.always {
			out.Platform[b.name] = attest.FlagOf(on)
		}
	}
	out.Numbers["xfam"] = r.XFAM
	out.ReportData = attest.ReportData(r.ReportData)
	out.Measured["launch"] = r.MRTD
	for i, name := range registers {
		out.Measured[name] = r.RTMR[i]
	}
	out.Measured["mrseam"] = r.MRSeam
	for name, value := range map[string]attest.HexBytes{
		"mrsignerseam": r.MRSignerSeam, "mrconfigid": r.MRConfigID, "mrowner": r.MROwner, "mrownerconfig": r.MROwnerConfig,
	} {
		if !attest.AllZero(value) {
			out.Measured[name] = value
		}
	}
}

// Staple returns ev with the collateral added where it is missing, so that a relying party need not ask the vendor. It does
// not verify it: the relying party does. When some cannot be had it returns what there is, with the errors.
func Staple(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser) (*attest.Evidence, error) {
	r, err := Parse(ev.Raw)
	if err != nil {
		return ev, err
	}
	return dcap.Staple(ctx, ev, r.Quote, endorser)
}
