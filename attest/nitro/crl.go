package nitro

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Service names AWS's revocation lists in an attest.Ref. AWS publishes them at addresses that certificates name, which are
// never used: lists come with the evidence, or from an Endorser that has them.
const Service = "aws-nitro"

func crlRef() attest.Ref { return attest.Ref{Service: Service, Path: "/crl", Kind: attest.KindCRL} }

// revocation checks c against the lists that came with the evidence, or else against the Endorser's. An error means that a
// key is withdrawn or a list is not authentic; a list that is missing or stale is a claim for the policy.
func (v *Verifier) revocation(ctx context.Context, c chain, stapled []attest.Endorsement, endorser attest.Endorser, now time.Time) (attest.Revocation, error) {
	r, err := judge(c, stapled, now)
	if r.Problem == nil { // as it is beside an error
		return r, err
	}
	fetched, err := endorser.Endorse(ctx, crlRef())
	if err != nil {
		var e *attest.Error
		if errors.As(err, &e) && e.Code != attest.CodeEndorsementMissing && e.Code.Undecidable() {
			r.Problem = e // the lists could not be asked for: another remedy
		}
		return r, nil
	}
	if len(fetched) > attest.MaxEndorsements {
		return attest.Revocation{}, attest.Refuse(attest.CodeOversized, checkRevocation, fmt.Sprintf("%d endorsements", len(fetched)), "")
	}
	return judge(c, append(fetched, stapled...), now)
}

// judge looks at every list that an authority of c issued. The chain counts as checked when there is a current one of each
// authority that publishes one, which is where a certificate names a distribution point: AWS's root and regional
// authorities. Leaves live for hours and an instance's certificate for a day; they are never listed.
func judge(c chain, list []attest.Endorsement, now time.Time) (r attest.Revocation, err error) {
	latest := make([]*x509.RevocationList, len(c))
	for _, e := range list {
		switch {
		case e.Kind == attest.KindCertificate && c.has(e.Raw):
			continue // it says nothing new
		case e.Kind != attest.KindCRL:
			return r, attest.Refuse(attest.CodeMalformedEndorsement, checkChain, "endorsement of kind "+attest.Quote(string(e.Kind)), "revocation lists: a document brings its own chain")
		}
		crl, err := x509.ParseRevocationList(e.Raw)
		if err == nil && len(crl.Raw) != len(e.Raw) {
			err = fmt.Errorf("%d bytes after the list", len(e.Raw)-len(crl.Raw))
		}
		if err != nil {
			return r, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkRevocation, Err: err}
		}
		for i, issuer := range c[:len(c)-1] {
			if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
				continue
			}
			if err := checkRevoked(crl, issuer, c[i+1]); err != nil {
				return r, err
			}
			if latest[i] == nil || crl.ThisUpdate.After(latest[i].ThisUpdate) {
				latest[i] = crl
			}
		}
	}
	var missing []string
	var used []*x509.RevocationList
	for i, cert := range c[1:] {
		crl := latest[i]
		switch {
		case len(cert.CRLDistributionPoints) == 0:
		case crl == nil:
			missing = append(missing, attest.Quote(c[i].Subject.CommonName))
		default:
			used = append(used, crl)
		}
	}
	if len(used) > 0 { // the oldest, and the first to expire
		r.Issued = slices.MinFunc(used, func(a, b *x509.RevocationList) int { return a.ThisUpdate.Compare(b.ThisUpdate) }).ThisUpdate
		r.Expires = slices.MinFunc(used, func(a, b *x509.RevocationList) int { return a.NextUpdate.Compare(b.NextUpdate) }).NextUpdate
	}
	switch {
	case len(missing) > 0:
		r.Problem = &attest.Error{
			Code: attest.CodeEndorsementMissing, Check: checkRevocation,
			Got: "no revocation list of " + strings.Join(missing, ", "), Want: "a current list of each",
			Hint: "AWS has validators leave revocation unchecked: say revocation: unchecked in the policy, or supply AWS's lists with --endorsement",
		}
	case len(used) == 0:
		r.Problem = attest.Refuse(attest.CodeEndorsementMissing, checkRevocation, "a chain whose authorities publish no revocation list", "")
	case now.Before(r.Issued) || now.After(r.Expires):
		r.Problem = attest.Refuse(attest.CodeEndorsementExpired, checkRevocation, "revocation lists valid from "+stamp(r.Issued)+" to "+stamp(r.Expires), "valid at "+stamp(now))
	}
	return r, nil
}

// checkRevoked verifies a list of issuer and looks for the certificate that follows it.
func checkRevoked(crl *x509.RevocationList, issuer, cert *link) error {
	if err := crl.CheckSignatureFrom(issuer.Certificate); err != nil {
		return &attest.Error{Code: attest.CodeChain, Check: checkRevocation, Got: "a revocation list whose signature does not verify", Want: "one by " + issuer.Subject.CommonName, Err: err}
	}
	for _, x := range crl.Extensions {
		if x.Critical { // it may cover only some certificates
			return attest.Refuse(attest.CodeMalformedEndorsement, checkRevocation, "a revocation list with critical extension "+x.Id.String(), "")
		}
	}
	for _, entry := range crl.RevokedCertificateEntries {
		if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			return attest.Refuse(attest.CodeRevoked, checkRevocation, fmt.Sprintf("%s, serial number %x, revoked on %s", attest.Quote(cert.Subject.CommonName), cert.SerialNumber, stamp(entry.RevocationTime)), "not revoked")
		}
	}
	return nil
}
