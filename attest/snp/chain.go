package snp

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// chain is a leaf with its authorities.
type chain struct {
	generation *generation
	levels     levels
	leaf       *leaf
	ask        *x509.Certificate // the ASVK where the leaf is a VLEK
	ark        *x509.Certificate
}

// stapled are decoded endorsements, sorted by role. Nothing in them has been verified.
type stapled struct {
	leaves []*leaf
	asks   []*x509.Certificate
	arks   []*x509.Certificate
	crls   []*x509.RevocationList
}

// sortEndorsements decodes what known does not know.
func sortEndorsements(list []attest.Endorsement, known *memory) (s stapled, err error) {
	for _, e := range list {
		switch e.Kind {
		case attest.KindCertificate:
			err = s.addCertificate(e.Raw, known)
		case attest.KindCRL:
			err = s.addCRL(e.Raw, known)
		default:
			err = attest.Refuse(attest.CodeMalformedEndorsement, checkChain, "endorsement of kind "+attest.Quote(string(e.Kind)), "certificate or crl")
		}
		if err != nil {
			return s, err
		}
	}
	return s, nil
}

func (s *stapled) addCertificate(der []byte, known *memory) error {
	e, ok := known.certificate(der)
	if !ok {
		cert, err := parseCertificate(der)
		if err != nil {
			return err
		}
		e.cert = cert
		if e.leaf, err = parseLeaf(cert); err != nil {
			return err
		}
	}
	switch name := e.cert.Subject.CommonName; {
	case e.leaf != nil:
		s.leaves = append(s.leaves, e.leaf)
	case strings.HasPrefix(name, "ARK-"):
		s.arks = append(s.arks, e.cert)
	case strings.HasPrefix(name, "SEV-"):
		s.asks = append(s.asks, e.cert)
	default:
		return attest.Refuse(attest.CodeChain, checkChain, "a certificate of "+attest.Quote(name), "one of AMD's chain")
	}
	return nil
}

// findLeaf finds the certificate of the key that signed r. Where several of the right kind are there, the one that fits
// the report is taken, so that a bundle may hold many.
func (s *stapled) findLeaf(r *Report) *leaf {
	var found *leaf
	for _, l := range s.leaves {
		if l.signer != r.signer {
			continue
		}
		if _, _, err := l.fits(r); err == nil {
			return l
		}
		found = l
	}
	return found
}

// leafOf takes the leaf that came with the evidence, or asks for it.
func leafOf(ctx context.Context, r *Report, s *stapled, endorser attest.Endorser, known *memory) (*leaf, error) {
	if l := s.findLeaf(r); l != nil {
		return l, nil
	}
	if len(s.leaves) > 0 {
		return nil, attest.Refuse(attest.CodeSignerMismatch, checkSigner, "a "+s.leaves[0].signer.String(), "a "+r.signer.String()+" as the report says")
	}
	refs, err := leafRefs(r)
	if err != nil {
		return nil, err
	}
	var missing error
	for _, ref := range refs {
		fetched, err := fetch(ctx, endorser, ref, known)
		if err != nil {
			missing = err
			if attest.CodeOf(err) == attest.CodeEndorsementMissing {
				continue
			}
			return nil, err
		}
		if l := fetched.findLeaf(r); l != nil {
			return l, nil
		}
		missing = attest.Refuse(attest.CodeEndorsementMissing, checkChain, "no "+r.signer.String()+" in the answer", ref.Service+ref.Path)
	}
	return nil, missing
}

// askOf takes the authority that issued l: from the evidence, from the roots, or from the vendor, in this order.
func askOf(ctx context.Context, l *leaf, g *generation, s *stapled, anchor *root, endorser attest.Endorser, known *memory) (*x509.Certificate, error) {
	name := l.signer.issuerName(g)
	for _, certs := range [][]*x509.Certificate{s.asks, anchor.intermediates} {
		if ask, err := onlyOne(certs, name); ask != nil || err != nil {
			return ask, err
		}
	}
	ref := chainRef(g, l.signer)
	fetched, err := fetch(ctx, endorser, ref, known)
	if err != nil {
		return nil, err
	}
	ask, err := onlyOne(fetched.asks, name)
	if ask == nil && err == nil {
		err = attest.Refuse(attest.CodeEndorsementMissing, checkChain, "no "+name+" in the answer", ref.Service+ref.Path)
	}
	return ask, err
}

func onlyOne(certs []*x509.Certificate, name string) (found *x509.Certificate, err error) {
	for _, c := range certs {
		if c.Subject.CommonName != name {
			continue
		}
		if found != nil && !bytes.Equal(found.Raw, c.Raw) {
			return nil, attest.Refuse(attest.CodeChain, checkChain, "several certificates of "+name, "one")
		}
		found = c
	}
	return found, nil
}

func fetch(ctx context.Context, endorser attest.Endorser, ref attest.Ref, known *memory) (stapled, error) {
	list, err := endorser.Endorse(ctx, ref)
	if err != nil {
		return stapled{}, coded(err)
	}
	if len(list) > attest.MaxEndorsements {
		return stapled{}, attest.Refuse(attest.CodeOversized, checkChain, "too many endorsements", "")
	}
	return sortEndorsements(list, known)
}

// coded gives an endorser's error a code where it has none.
func coded(err error) *attest.Error {
	var e *attest.Error
	if errors.As(err, &e) {
		return e
	}
	return &attest.Error{Code: attest.CodeEndorserUnreachable, Check: checkChain, Err: err}
}

// verifyChain checks roles, names, validity and signatures from the anchor to the leaf.
func (v *Verifier) verifyChain(c *chain, now time.Time) error {
	if err := checkAuthority(c.ask, c.leaf.signer.issuerName(c.generation)); err != nil {
		return err
	}
	if c.leaf.IsCA {
		return attest.Refuse(attest.CodeChain, checkChain, "a "+c.leaf.signer.String()+" that is an authority", "none")
	}
	if len(c.leaf.UnhandledCriticalExtensions) != 0 {
		return critical(c.leaf.Certificate)
	}
	for _, cert := range []*x509.Certificate{c.ark, c.ask, c.leaf.Certificate} {
		if now.Before(cert.NotBefore) || now.After(cert.NotAfter) {
			return attest.Refuse(attest.CodeChainExpired, checkChain, cert.Subject.CommonName+" valid "+attest.Day(cert.NotBefore)+" to "+attest.Day(cert.NotAfter), "valid on "+attest.Day(now))
		}
	}
	for _, pair := range [][2]*x509.Certificate{{c.ark, c.ask}, {c.ask, c.leaf.Certificate}} {
		issuer, cert := pair[0], pair[1]
		if !bytes.Equal(cert.RawIssuer, issuer.RawSubject) {
			return attest.Refuse(attest.CodeChain, checkChain, attest.Quote(cert.Subject.CommonName)+" issued by "+attest.Quote(cert.Issuer.String()), issuer.Subject.CommonName)
		}
		if !v.memory.verify(issuer, cert.RawTBSCertificate, cert.Signature) {
			return attest.Refuse(attest.CodeChain, checkChain, "a signature that does not verify on "+attest.Quote(cert.Subject.CommonName), "one by "+issuer.Subject.CommonName)
		}
	}
	return nil
}
