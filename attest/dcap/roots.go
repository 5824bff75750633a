package dcap

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// Words that the common name of a certificate has in it by its role (QVL, X509Constants).
const (
	nameRoot      = "SGX Root CA"
	namePlatform  = "SGX PCK Platform CA"
	nameProcessor = "SGX PCK Processor CA"
	namePCK       = "SGX PCK Certificate"
	nameTCB       = "SGX TCB Signing"
)

// Roots are the trust anchors. The zero value and nil trust nothing.
type Roots struct {
	list []*root
}

type root struct {
	*x509.Certificate
	fingerprint string
}

// NewRoots makes Roots of exactly the given certificates, in DER.
func NewRoots(ders ...[]byte) (*Roots, error) {
	roots := new(Roots)
	for _, der := range ders {
		cert, err := parseCertificate(der)
		if err != nil {
			return nil, err
		}
		if err := checkAuthority(cert, nameRoot); err != nil {
			return nil, err
		}
		if !bytes.Equal(cert.RawIssuer, cert.RawSubject) {
			return nil, attest.Refuse(attest.CodeChain, checkChain, "a root issued by "+attest.Quote(cert.Issuer.CommonName), "itself")
		}
		roots.list = append(roots.list, &root{cert, attest.Fingerprint(der)})
	}
	return roots, nil
}

// IntelRoots is Intel's SGX Root CA, which SGX and TDX share.
func IntelRoots() *Roots {
	block, _ := pem.Decode([]byte(intelRoot))
	roots, _ := NewRoots(block.Bytes) // it decodes; if it did not, nil would trust nothing
	return roots
}

// find answers the root that is this certificate, byte for byte.
func (r *Roots) find(der []byte) *root {
	if r == nil {
		return nil
	}
	for _, one := range r.list {
		if bytes.Equal(one.Raw, der) {
			return one
		}
	}
	return nil
}

func untrusted(cert *x509.Certificate) *attest.Error {
	return attest.Refuse(attest.CodeUntrustedRoot, checkChain, attest.Quote(cert.Subject.CommonName)+", "+attest.Fingerprint(cert.Raw), "a trusted root")
}

// checkRole checks the form of any certificate of Intel's chains.
func checkRole(cert *x509.Certificate, name string) error {
	if !strings.Contains(cert.Subject.CommonName, name) {
		return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(cert.Subject.CommonName), "a certificate of "+name)
	}
	if len(cert.UnhandledCriticalExtensions) != 0 {
		return attest.Refuse(attest.CodeCriticalExtension, checkChain, fmt.Sprintf("%s in %s", cert.UnhandledCriticalExtensions[0], attest.Quote(cert.Subject.CommonName)), "")
	}
	if key, ok := cert.PublicKey.(*ecdsa.PublicKey); !ok || key.Curve != elliptic.P256() {
		return attest.Refuse(attest.CodeUnknownAlgorithm, checkChain, attest.Quote(cert.Subject.CommonName)+" with another key", "ECDSA on P-256")
	}
	return nil
}

// checkAuthority checks the form of a certificate that certifies others and signs revocation lists.
func checkAuthority(cert *x509.Certificate, name string) error {
	const may = x509.KeyUsageCertSign | x509.KeyUsageCRLSign
	if !cert.IsCA || cert.KeyUsage&may != may {
		return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(cert.Subject.CommonName)+" may not sign certificates and revocation lists", "an authority")
	}
	return checkRole(cert, name)
}

// checkLeaf checks the form of a certificate that signs other things.
func checkLeaf(cert *x509.Certificate, name string) error {
	if cert.IsCA || cert.KeyUsage&x509.KeyUsageDigitalSignature == 0 {
		return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(cert.Subject.CommonName)+" may not sign data, or is an authority", "a signer")
	}
	return checkRole(cert, name)
}

// checkIssued checks that issuer's name and key are those that cert was issued by.
func checkIssued(cert, issuer *x509.Certificate) error {
	if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
		return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(cert.Subject.CommonName)+" issued by "+attest.Quote(cert.Issuer.CommonName), attest.Quote(issuer.Subject.CommonName))
	}
	if cert.SignatureAlgorithm != x509.ECDSAWithSHA256 || issuer.CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
		return attest.Refuse(attest.CodeChain, checkChain, "a signature that does not verify on "+attest.Quote(cert.Subject.CommonName), "one by "+attest.Quote(issuer.Subject.CommonName))
	}
	return nil
}

// parseCertificate decodes exactly one certificate.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkChain, Err: err}
	}
	return cert, nil
}
