package dcap

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// maxCRL bounds a revocation list in bytes.
const maxCRL = 1 << 20

// revocationList is one whose signature verified under issuer.
type revocationList struct {
	issuer  *x509.Certificate
	issued  time.Time
	expires time.Time
	revoked map[string]time.Time // by serial number
}

// list decodes a revocation list and verifies it, if it is of one of the issuers; nil otherwise.
func (v *Verifier) list(der []byte, issuers ...*x509.Certificate) (*revocationList, error) {
	if known, ok := v.lists.get(der); ok {
		for _, issuer := range issuers {
			if bytes.Equal(known.issuer.Raw, issuer.Raw) {
				return known, nil
			}
		}
	}
	if len(der) > maxCRL {
		return nil, attest.Refuse(attest.CodeOversized, checkRevocation, fmt.Sprintf("a revocation list of %d bytes", len(der)), fmt.Sprintf("at most %d", maxCRL))
	}
	crl, err := x509.ParseRevocationList(der)
	if err == nil && len(crl.Raw) != len(der) {
		err = fmt.Errorf("%d bytes after the list", len(der)-len(crl.Raw))
	}
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkRevocation, Err: err}
	}
	for _, issuer := range issuers {
		if !bytes.Equal(crl.RawIssuer, issuer.RawSubject) {
			continue
		}
		if crl.SignatureAlgorithm != x509.ECDSAWithSHA256 || issuer.CheckSignature(crl.SignatureAlgorithm, crl.RawTBSRevocationList, crl.Signature) != nil {
			return nil, attest.Refuse(attest.CodeChain, checkRevocation, "a revocation list whose signature does not verify", "one by "+attest.Quote(issuer.Subject.CommonName))
		}
		l, err := newList(crl, issuer)
		if err != nil {
			return nil, err
		}
		v.lists.put(der, l)
		return l, nil
	}
	return nil, nil
}

func newList(crl *x509.RevocationList, issuer *x509.Certificate) (*revocationList, error) {
	for _, x := range crl.Extensions {
		if x.Critical { // it could say that the list is not of all certificates, or not only of the issuer's
			return nil, attest.Refuse(attest.CodeCriticalExtension, checkRevocation, "a revocation list with critical extension "+x.Id.String(), "none")
		}
	}
	l := &revocationList{issuer, crl.ThisUpdate, crl.NextUpdate, make(map[string]time.Time, len(crl.RevokedCertificateEntries))}
	for i := range crl.RevokedCertificateEntries {
		entry := &crl.RevokedCertificateEntries[i]
		for _, x := range entry.Extensions {
			if x.Critical { // it could say that the entry is of another issuer's certificate
				return nil, attest.Refuse(attest.CodeCriticalExtension, checkRevocation, "an entry with critical extension "+x.Id.String(), "none")
			}
		}
		l.revoked[string(entry.SerialNumber.Bytes())] = entry.RevocationTime
	}
	return l, nil
}

func (l *revocationList) current(now time.Time) bool {
	return !now.Before(l.issued) && !now.After(l.expires)
}

// check looks for certificates that the list's issuer issued.
func (l *revocationList) check(certs []*x509.Certificate) error {
	for _, cert := range certs {
		if when, ok := l.revoked[string(cert.SerialNumber.Bytes())]; ok {
			return attest.Refuse(attest.CodeRevoked, checkRevocation, fmt.Sprintf("%s, serial number %x, revoked on %s", cert.Subject.CommonName, cert.SerialNumber, attest.Day(when)), "not revoked")
		}
	}
	return nil
}

// latest checks every list of the issuer, and answers the latest; nil when there is none. A key that an outdated list
// names stays revoked.
func latest(lists []*revocationList, issuer *x509.Certificate, certs []*x509.Certificate) (found *revocationList, err error) {
	for _, l := range lists {
		if !bytes.Equal(l.issuer.Raw, issuer.Raw) {
			continue
		}
		if err := l.check(certs); err != nil {
			return nil, err
		}
		if found == nil || l.issued.After(found.issued) {
			found = l
		}
	}
	return found, nil
}
