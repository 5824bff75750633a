package sgx

import (
	"context"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
)

// Verifier verifies Evidence of format "sgx" under explicit roots. It is safe for concurrent use.
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
	if len(ev.EventLog) != 0 {
		return nil, attest.Refuse(attest.CodeEventLog, checkLog, "an event log with an enclave", "none: an enclave has no registers that it could lead to")
	}
	verified, err := v.core.Verify(ctx, r.Quote, ev.Endorsements, endorser, now)
	if err != nil {
		return nil, err
	}
	claims := verified.Claims()
	r.claim(claims)
	return claims, nil
}

// claim adds what the body of the quote says.
func (r *Report) claim(out *attest.Claims) {
	out.Debug = attest.FlagOf(r.Attributes.Debug())
	out.Migratable = attest.Off // an enclave's keys and memory do not leave its processor
	for _, b := range attributeBits {
		out.Platform[b.name] = attest.FlagOf(r.Attributes>>b.bit&1 == 1)
	}
	out.ReportData = attest.ReportData(r.ReportData)
	out.Measured["launch"] = r.MREnclave
	out.Measured["signer"] = r.MRSigner
	for name, value := range map[string]attest.HexBytes{"config_id": r.ConfigID, "isv_ext_prod_id": r.ISVExtProdID, "isv_family_id": r.ISVFamilyID} {
		if !attest.AllZero(value) {
			out.Measured[name] = value
		}
	}
	out.Numbers["isv_prod_id"] = uint64(r.ISVProdID)
	out.Numbers["isv_svn"] = uint64(r.ISVSVN)
	out.Numbers["config_svn"] = uint64(r.ConfigSVN)
	out.Numbers["misc_select"] = uint64(r.MiscSelect)
	out.Numbers["xfrm"] = r.XFRM
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
