package snp

import (
	"bytes"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"fmt"

	"github.com/google/go-sev-guest/verify/trust"

	"github.com/jurat-tls/jurat/attest"
)

// Roots are the trust anchors, one ARK per generation. The zero value and nil trust nothing.
type Roots struct {
	byGeneration map[string]*root
}

type root struct {
	ark *x509.Certificate
	// intermediates spare fetching the ASK and ASVK. They are no anchors: each is verified under ark when it is used.
	intermediates []*x509.Certificate
}

// Root is a trust anchor that a caller names explicitly.
type Root struct {
	Generation    string   // such as "milan"
	ARK           []byte   // DER
	Intermediates [][]byte // DER; may be empty
}

// NewRoots makes Roots of exactly the given anchors.
func NewRoots(anchors ...Root) (*Roots, error) {
	roots := &Roots{byGeneration: map[string]*root{}}
	for _, a := range anchors {
		g := generationNamed(a.Generation)
		if g == nil || roots.byGeneration[g.name] != nil {
			return nil, attest.Refuse(attest.CodeUnknownProduct, "roots", attest.Quote(a.Generation), "each of milan, genoa, turin at most once")
		}
		ark, err := parseCertificate(a.ARK)
		if err != nil {
			return nil, err
		}
		if err := checkRoot(ark, g); err != nil {
			return nil, err
		}
		entry := &root{ark: ark}
		for _, der := range a.Intermediates {
			cert, err := parseCertificate(der)
			if err != nil {
				return nil, err
			}
			entry.intermediates = append(entry.intermediates, cert)
		}
		roots.byGeneration[g.name] = entry
	}
	return roots, nil
}

// AMDRoots are AMD's ARKs of Milan, Genoa and Turin with their ASKs and ASVKs.
func AMDRoots() *Roots {
	var anchors []Root
	for generation, bundles := range map[string][][]byte{
		milan.name: {trust.AskArkMilanVcekBytes, trust.AskArkMilanVlekBytes},
		genoa.name: {trust.AskArkGenoaVcekBytes, trust.AskArkGenoaVlekBytes},
		turin.name: {trust.AskArkTurinVcekBytes, trust.AskArkTurinVlekBytes},
	} {
		anchor := Root{Generation: generation}
		for _, bundle := range bundles {
			// Each bundle is the ASK or ASVK followed by the ARK; what follows the last PEM block is ignored.
			ask, rest := pem.Decode(bundle)
			ark, _ := pem.Decode(rest)
			anchor.Intermediates, anchor.ARK = append(anchor.Intermediates, ask.Bytes), ark.Bytes
		}
		anchors = append(anchors, anchor)
	}
	roots, _ := NewRoots(anchors...) // nil where they do not decode: then nothing is trusted
	return roots
}

func (r *Roots) of(g *generation) *root {
	if r == nil {
		return nil
	}
	return r.byGeneration[g.name]
}

// checkRoot checks that a self-signed certificate has the form of an ARK. Its signature adds nothing to the caller's trust.
func checkRoot(ark *x509.Certificate, g *generation) error {
	if err := checkAuthority(ark, rootName(g)); err != nil {
		return err
	}
	if !bytes.Equal(ark.RawIssuer, ark.RawSubject) || ark.KeyUsage&x509.KeyUsageCRLSign == 0 {
		return attest.Refuse(attest.CodeChain, checkChain, rootName(g)+" not self-issued or unable to sign CRLs", "an ARK")
	}
	return nil
}

// checkAuthority checks the form of an ARK, ASK or ASVK (57230 tables 5 to 7).
func checkAuthority(cert *x509.Certificate, name string) error {
	if cert.Subject.CommonName != name {
		return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(cert.Subject.CommonName), name)
	}
	if !cert.IsCA || cert.KeyUsage&x509.KeyUsageCertSign == 0 {
		return attest.Refuse(attest.CodeChain, checkChain, name+" may not sign certificates", "an authority")
	}
	if len(cert.UnhandledCriticalExtensions) != 0 {
		return critical(cert)
	}
	if key, ok := cert.PublicKey.(*rsa.PublicKey); !ok || key.N.BitLen() != 4096 {
		return attest.Refuse(attest.CodeUnknownAlgorithm, checkChain, name+" with another key", "RSA with 4096 bits")
	}
	return nil
}

func critical(cert *x509.Certificate) error {
	return attest.Refuse(attest.CodeCriticalExtension, checkChain, fmt.Sprintf("%s in %s", cert.UnhandledCriticalExtensions[0], attest.Quote(cert.Subject.CommonName)), "")
}

// parseCertificate decodes exactly one certificate.
func parseCertificate(der []byte) (*x509.Certificate, error) {
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformedEndorsement, Check: checkChain, Err: err}
	}
	return cert, nil
}
