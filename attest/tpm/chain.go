package tpm

import (
	"bytes"
	"context"
	"crypto/rsa"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Roots are the trust anchors of attestation key certificates. The zero value and nil trust nothing.
type Roots struct{ certs []*x509.Certificate }

// NewRoots makes Roots of exactly the given certificates, in DER. Each must be an authority.
func NewRoots(ders ...[]byte) (*Roots, error) {
	r := new(Roots)
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: "roots", Err: err}
		}
		if !cert.IsCA {
			return nil, attest.Refuse(attest.CodeChain, "roots", attest.Quote(cert.Subject.String()), "an authority")
		}
		r.certs = append(r.certs, cert)
	}
	return r, nil
}

func (r *Roots) pool() *x509.CertPool {
	pool := x509.NewCertPool() // never nil: that would mean the machine's own roots
	for _, c := range r.certs {
		pool.AddCert(c)
	}
	return pool
}

func (r *Roots) empty() bool { return r == nil || len(r.certs) == 0 }

var (
	oidAltName = asn1.ObjectIdentifier{2, 5, 29, 17}
	// oidAttestationKey is tcg-kp-AIKCertificate, the purpose of a certificate of an attestation key.
	oidAttestationKey = asn1.ObjectIdentifier{2, 23, 133, 8, 3}
)

// maxRSA bounds the keys of certificates in bits, as crypto/tls does: the attester chooses them, and what a signature costs
// to check grows with the square of their size.
const maxRSA = 8192

// stapled are decoded endorsements. Nothing in them has been verified.
type stapled struct {
	certs []*x509.Certificate
	crls  []*x509.RevocationList
}

func sortEndorsements(list []attest.Endorsement) (s stapled, err error) {
	for _, e := range list {
		switch e.Kind {
		case attest.KindCertificate:
			var cert *x509.Certificate
			cert, err = x509.ParseCertificate(e.Raw)
			s.certs = append(s.certs, cert)
			if err == nil {
				if key, ok := cert.PublicKey.(*rsa.PublicKey); ok && key.N.BitLen() > maxRSA {
					return stapled{}, attest.Refuse(attest.CodeUnknownAlgorithm, checkChain, fmt.Sprintf("RSA with %d bits", key.N.BitLen()), fmt.Sprintf("at most %d", maxRSA))
				}
			}
		case attest.KindCRL:
			err = s.addCRL(e.Raw)
		default:
			// A key that comes with the evidence vouches for nothing.
			err = fmt.Errorf("endorsement of kind %s", attest.Quote(string(e.Kind)))
		}
		if err != nil {
			return stapled{}, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkChain, Err: err}
		}
	}
	return s, nil
}

// signer is what vouches for an attestation key.
type signer struct {
	root  string              // "sha256:" and hex of the root certificate, or of the key that the operator named
	chain []*x509.Certificate // leaf first, root last; nil where the operator named the key
	*instance
}

// signerOf finds out who vouches for the key: a certificate under the roots, or the operator.
func (v *Verifier) signerOf(ctx context.Context, d *Decoded, s *stapled, endorser attest.Endorser, now time.Time) (*signer, error) {
	if !v.roots.empty() && len(s.certs) > 0 {
		return v.certified(d, s, now)
	}
	return named(ctx, d, endorser)
}

// certified verifies the chain of the certificate that is for the key.
func (v *Verifier) certified(d *Decoded, s *stapled, now time.Time) (*signer, error) {
	at := slices.IndexFunc(s.certs, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubjectPublicKeyInfo, d.spki) })
	if at < 0 {
		return nil, attest.Refuse(attest.CodeLink, checkChain, "certificates of other keys", "one of the attestation key")
	}
	leaf, intermediates := s.certs[at], x509.NewCertPool()
	for _, c := range s.certs {
		intermediates.AddCert(c)
	}
	// The names in a certificate of a TPM tell the make of the chip; nothing here depends on them, critical or not.
	leaf.UnhandledCriticalExtensions = slices.DeleteFunc(leaf.UnhandledCriticalExtensions, func(id asn1.ObjectIdentifier) bool { return id.Equal(oidAltName) })
	chains, err := leaf.Verify(x509.VerifyOptions{
		Roots: v.roots.pool(), Intermediates: intermediates, CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	if err != nil {
		return nil, chainError(err)
	}
	in, err := instanceOf(leaf)
	if err != nil {
		return nil, err
	}
	// An authority certifies other keys too. With one of a web server anybody could sign what looks like a quote.
	purpose := slices.ContainsFunc(leaf.UnknownExtKeyUsage, oidAttestationKey.Equal)
	if leaf.IsCA || leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 || !purpose && in == nil {
		return nil, attest.Refuse(attest.CodeSignerMismatch, checkSigner, "a certificate that is not for an attestation key", "purpose "+oidAttestationKey.String()+" or Google's instance extension")
	}
	chain := chains[0]
	return &signer{root: attest.Fingerprint(chain[len(chain)-1].Raw), chain: chain, instance: in}, nil
}

func chainError(err error) error {
	code := attest.CodeChain
	var invalid x509.CertificateInvalidError
	var critical x509.UnhandledCriticalExtension
	var unknown x509.UnknownAuthorityError
	_ = errors.As(err, &invalid) // else its reason is not the one below
	switch {
	case errors.As(err, &unknown):
		code = attest.CodeUntrustedRoot
	case errors.As(err, &critical):
		code = attest.CodeCriticalExtension
	case invalid.Reason == x509.Expired:
		code = attest.CodeChainExpired
	}
	return &attest.Error{Code: code, Check: checkChain, Err: err}
}

// named asks the endorser, and so the operator, whether the key is one of those that it trusts.
func named(ctx context.Context, d *Decoded, endorser attest.Endorser) (*signer, error) {
	ref := d.keyRef()
	list, err := ask(ctx, endorser, ref)
	if err != nil {
		return nil, err
	}
	for _, e := range list {
		if e.Kind == attest.KindPublicKey && bytes.Equal(e.Raw, d.spki) {
			return &signer{root: attest.Fingerprint(d.spki)}, nil
		}
	}
	return nil, attest.Refuse(attest.CodeUntrustedRoot, checkChain, "attestation key "+ref.Path, "one that the operator named")
}

func ask(ctx context.Context, endorser attest.Endorser, ref attest.Ref) ([]attest.Endorsement, error) {
	list, err := endorser.Endorse(ctx, ref)
	if err == nil {
		return list, nil
	}
	var coded *attest.Error
	if !errors.As(err, &coded) {
		return nil, &attest.Error{Code: attest.CodeEndorserUnreachable, Check: checkChain, Want: ref.Service + ref.Path, Err: err}
	}
	if coded.Code == attest.CodeEndorsementMissing {
		missing := *coded
		missing.Hint = "supply the attestation key's certificate and its authority's root, or its public key, with --endorsement"
		return nil, &missing
	}
	return nil, coded
}
