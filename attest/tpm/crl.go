package tpm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

func (s *stapled) addCRL(der []byte) error {
	crl, err := x509.ParseRevocationList(der)
	if err != nil {
		return err
	}
	if len(crl.Raw) != len(der) {
		return fmt.Errorf("%d bytes after the list", len(der)-len(crl.Raw))
	}
	s.crls = append(s.crls, crl)
	return nil
}

// revocation checks each certificate of the chain but its root against its issuer's list. A revoked key is an error; a
// list that is missing or stale is a claim for the policy.
func revocation(ctx context.Context, by *signer, s *stapled, endorser attest.Endorser, now time.Time) (r attest.Revocation, err error) {
	if by.chain == nil {
		r.Problem = attest.Refuse(attest.CodeEndorsementMissing, checkRevocation, "an attestation key that the operator named", "a revocation list, which only an authority has")
		r.Problem.Hint = "withdraw such a key where it is named, and say revocation: unchecked in the policy"
		return r, nil
	}
	for i, cert := range by.chain[:len(by.chain)-1] {
		one, err := revocationOf(ctx, cert, by.chain[i+1], s, endorser, now)
		if err != nil {
			return r, err
		}
		if r.Problem == nil {
			r.Problem = one.Problem
		}
		if r.Issued.IsZero() || one.Issued.Before(r.Issued) {
			r.Issued = one.Issued
		}
		if r.Expires.IsZero() || one.Expires.Before(r.Expires) {
			r.Expires = one.Expires
		}
	}
	if r.Problem != nil {
		r.Issued, r.Expires = time.Time{}, time.Time{}
	}
	return r, nil
}

// revocationOf asks the endorser where no list that came with the evidence is current.
func revocationOf(ctx context.Context, cert, issuer *x509.Certificate, s *stapled, endorser attest.Endorser, now time.Time) (attest.Revocation, error) {
	sum := sha256.Sum256(issuer.RawSubjectPublicKeyInfo)
	ref := attest.Ref{Service: Service, Path: "/crl?issuer=" + hex.EncodeToString(sum[:]), Kind: attest.KindCRL}
	stapled := listsOf(issuer, s.crls)
	r, err := judge(stapled, cert, issuer, ref, now)
	if r.Problem == nil { // as it is beside an error
		return r, err
	}
	list, err := endorser.Endorse(ctx, ref)
	if err != nil {
		return r, nil
	}
	fetched, _ := sortEndorsements(list) // nothing where one of them does not decode
	return judge(append(listsOf(issuer, fetched.crls), stapled...), cert, issuer, ref, now)
}

// judge looks for cert in all lists of its issuer, and tells how fresh the latest is.
func judge(crls []*x509.RevocationList, cert, issuer *x509.Certificate, ref attest.Ref, now time.Time) (r attest.Revocation, err error) {
	var latest *x509.RevocationList
	for _, crl := range crls {
		if err := checkRevoked(crl, cert, issuer); err != nil {
			return r, err
		}
		if latest == nil || crl.ThisUpdate.After(latest.ThisUpdate) {
			latest = crl
		}
	}
	if latest == nil {
		r.Problem = attest.Refuse(attest.CodeEndorsementMissing, checkRevocation, "no list of "+attest.Quote(issuer.Subject.String()), ref.Service+ref.Path)
		return r, nil
	}
	r.Issued, r.Expires = latest.ThisUpdate, latest.NextUpdate
	if now.Before(latest.ThisUpdate) || now.After(latest.NextUpdate) {
		r.Problem = attest.Refuse(attest.CodeEndorsementExpired, checkRevocation, "a list of "+attest.Day(latest.ThisUpdate)+" to "+attest.Day(latest.NextUpdate), "one valid on "+attest.Day(now))
	}
	return r, nil
}

func listsOf(issuer *x509.Certificate, all []*x509.RevocationList) (lists []*x509.RevocationList) {
	for _, crl := range all {
		if bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
			lists = append(lists, crl)
		}
	}
	return lists
}

// checkRevoked looks for cert in a list of its issuer. A key that an outdated list names stays revoked. A list with a
// critical extension may speak of some certificates only, or of those of others.
func checkRevoked(crl *x509.RevocationList, cert, issuer *x509.Certificate) error {
	if err := crl.CheckSignatureFrom(issuer); err != nil {
		return &attest.Error{Code: attest.CodeChain, Check: checkRevocation, Got: "a revocation list that its issuer did not sign", Err: err}
	}
	for _, x := range crl.Extensions {
		if x.Critical {
			return attest.Refuse(attest.CodeMalformedEndorsement, checkRevocation, "a revocation list with critical extension "+x.Id.String(), "")
		}
	}
	for _, entry := range crl.RevokedCertificateEntries {
		for _, x := range entry.Extensions {
			if x.Critical { // such as certificateIssuer: the entry is of a certificate of another authority (RFC 5280 §5.3.3)
				return attest.Refuse(attest.CodeMalformedEndorsement, checkRevocation, "an entry with critical extension "+x.Id.String(), "")
			}
		}
		if entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
			return attest.Refuse(attest.CodeRevoked, checkRevocation, fmt.Sprintf("%s, serial number %x, revoked on %s", attest.Quote(cert.Subject.String()), cert.SerialNumber, attest.Day(entry.RevocationTime)), "not revoked")
		}
	}
	return nil
}
