package snp

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

func verifyPSS(key *rsa.PublicKey, tbs, signature []byte) error {
	digest := sha512.Sum384(tbs)
	return rsa.VerifyPSS(key, crypto.SHA384, digest[:], signature, &rsa.PSSOptions{SaltLength: 48})
}

// Extensions of a CRL and of its entries (RFC 5280 §5.2 and §5.3).
var (
	oidIssuingPoint      = asn1.ObjectIdentifier{2, 5, 29, 28}
	oidCertificateIssuer = asn1.ObjectIdentifier{2, 5, 29, 29}
)

func (s *stapled) addCRL(der []byte, known *memory) error {
	crl, ok := known.list(der)
	if !ok {
		var err error
		crl, err = x509.ParseRevocationList(der)
		if err == nil && len(crl.Raw) != len(der) {
			err = fmt.Errorf("%d bytes after the list", len(der)-len(crl.Raw))
		}
		if err != nil {
			return &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkRevocation, Err: err}
		}
	}
	s.crls = append(s.crls, crl)
	return nil
}

// revocation checks c against the list that came with the evidence, or else against the vendor's. An error means that a
// key is withdrawn or the stapled list is not authentic; a list that is missing or stale is a claim for the policy.
func (v *Verifier) revocation(ctx context.Context, c *chain, s *stapled, endorser attest.Endorser, now time.Time) (attest.Revocation, error) {
	stapled, err := v.latest(s.crls, c)
	if err != nil {
		return attest.Revocation{}, err
	}
	if stapled != nil && current(stapled, now) {
		return judge(stapled, now), nil
	}
	ref := crlRef(c.generation, c.leaf.signer)
	answer, err := fetch(ctx, endorser, ref, &v.memory)
	fetched, unfit := v.latest(answer.crls, c)
	switch {
	case attest.CodeOf(unfit) == attest.CodeRevoked:
		return attest.Revocation{}, unfit
	case fetched != nil:
		return judge(fetched, now), nil
	case stapled != nil:
		return judge(stapled, now), nil
	case err == nil:
		err = attest.Refuse(attest.CodeEndorsementMissing, checkRevocation, "no list of "+c.ark.Subject.CommonName+" in the answer", ref.Service+ref.Path)
	}
	problem := coded(err)
	if !problem.Code.Undecidable() {
		// What the service sent is no list of this ARK; it says nothing about the evidence.
		problem = &attest.Error{Code: attest.CodeEndorsementMissing, Check: checkRevocation, Want: ref.Service + ref.Path, Err: problem}
	}
	return attest.Revocation{Problem: problem}, nil
}

func current(list *x509.RevocationList, now time.Time) bool {
	return !now.Before(list.ThisUpdate) && !now.After(list.NextUpdate)
}

func judge(list *x509.RevocationList, now time.Time) attest.Revocation {
	r := attest.Revocation{Issued: list.ThisUpdate, Expires: list.NextUpdate}
	if !current(list, now) {
		r.Problem = attest.Refuse(attest.CodeEndorsementExpired, checkRevocation, "a revocation list of "+attest.Day(r.Issued)+" to "+attest.Day(r.Expires), "one valid on "+attest.Day(now))
	}
	return r
}

// latest checks every list that the chain's ARK issued, and answers the latest, nil when there is none. A key that an
// outdated list names stays revoked.
func (v *Verifier) latest(crls []*x509.RevocationList, c *chain) (latest *x509.RevocationList, err error) {
	for _, crl := range crls {
		if !bytes.Equal(crl.RawIssuer, c.ark.RawSubject) {
			continue
		}
		if !v.memory.verify(c.ark, crl.RawTBSRevocationList, crl.Signature) {
			return nil, attest.Refuse(attest.CodeChain, checkRevocation, "a revocation list whose signature does not verify", "one by "+c.ark.Subject.CommonName)
		}
		v.memory.lists.put(sha256.Sum256(crl.Raw), crl)
		if err := checkRevoked(crl, c); err != nil {
			return nil, err
		}
		if latest == nil || crl.ThisUpdate.After(latest.ThisUpdate) {
			latest = crl
		}
	}
	return latest, nil
}

// checkRevoked looks for the chain's certificates in the list. An entry speaks of a certificate of the list's issuer, until
// an entry names another issuer for itself and those after it (RFC 5280 §5.3.3).
func checkRevoked(crl *x509.RevocationList, c *chain) error {
	for _, x := range crl.Extensions {
		if x.Critical && !(x.Id.Equal(oidIssuingPoint) && coversEverything(x)) {
			return attest.Refuse(attest.CodeMalformedEndorsement, checkRevocation, "a revocation list with critical extension "+x.Id.String(), "")
		}
	}
	issuer := c.ark.RawSubject
	for _, entry := range crl.RevokedCertificateEntries {
		for _, x := range entry.Extensions {
			switch {
			case x.Id.Equal(oidCertificateIssuer):
				name, err := certificateIssuer(x)
				if err != nil {
					return err
				}
				issuer = name
			case x.Critical:
				return attest.Refuse(attest.CodeMalformedEndorsement, checkRevocation, "an entry with critical extension "+x.Id.String(), "")
			}
		}
		for _, cert := range []*x509.Certificate{c.ark, c.ask, c.leaf.Certificate} {
			if bytes.Equal(issuer, cert.RawIssuer) && entry.SerialNumber.Cmp(cert.SerialNumber) == 0 {
				return attest.Refuse(attest.CodeRevoked, checkRevocation, fmt.Sprintf("%s, serial number %x, revoked on %s", cert.Subject.CommonName, cert.SerialNumber, attest.Day(entry.RevocationTime)), "not revoked")
			}
		}
	}
	return nil
}

// coversEverything tells whether an issuingDistributionPoint leaves the list complete: it may name where the list is
// found and say that it is indirect, but not restrict it to some certificates or reasons.
func coversEverything(x pkix.Extension) bool {
	var point struct {
		Name        asn1.RawValue  `asn1:"optional,tag:0"`
		OnlyUser    bool           `asn1:"optional,tag:1"`
		OnlyCA      bool           `asn1:"optional,tag:2"`
		SomeReasons asn1.BitString `asn1:"optional,tag:3"`
		Indirect    bool           `asn1:"optional,tag:4"`
		OnlyAttr    bool           `asn1:"optional,tag:5"`
	}
	rest, err := asn1.Unmarshal(x.Value, &point)
	return err == nil && len(rest) == 0 && !point.OnlyUser && !point.OnlyAttr && point.SomeReasons.BitLength == 0
}

// certificateIssuer decodes GeneralNames with exactly one directoryName.
func certificateIssuer(x pkix.Extension) ([]byte, error) {
	var names []asn1.RawValue
	rest, _ := asn1.Unmarshal(x.Value, &names) // where that fails there are no names
	if len(rest) != 0 || len(names) != 1 || names[0].Class != asn1.ClassContextSpecific || names[0].Tag != 4 {
		return nil, attest.Refuse(attest.CodeMalformedEndorsement, checkRevocation, "an entry with an issuer that is no name", "")
	}
	return names[0].Bytes, nil
}
