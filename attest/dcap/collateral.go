package dcap

import (
	"bytes"
	"context"
	"crypto/x509"
	"fmt"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// bundle is what a list of endorsements holds, each part verified but for dates and revocation.
type bundle struct {
	signers    []*x509.Certificate
	infos      []*tcbInfo
	identities []*qeIdentity
	lists      []*revocationList
}

// gather verifies endorsements under the chain's root. What belongs to other platforms is left for others to use; what is
// broken, or signed by someone else, refuses.
func (v *Verifier) gather(list []attest.Endorsement, chain *pckChain) (*bundle, error) {
	if len(list) > attest.MaxEndorsements {
		return nil, attest.Refuse(attest.CodeOversized, checkCollateral, fmt.Sprintf("%d endorsements", len(list)), fmt.Sprintf("at most %d", attest.MaxEndorsements))
	}
	b := new(bundle)
	for _, e := range list { // the signers come first: the rest is verified by them
		if e.Kind == attest.KindCertificate {
			if err := v.certificate(b, e.Raw, chain.root); err != nil {
				return nil, err
			}
		}
	}
	for _, e := range list {
		var err error
		switch e.Kind {
		case attest.KindCertificate:
		case attest.KindCRL:
			var l *revocationList
			if l, err = v.list(e.Raw, chain.root.Certificate, chain.ca); l != nil {
				b.lists = append(b.lists, l)
			}
		case attest.KindTCBInfo:
			b.infos, err = read(&v.infos, b.infos, e.Raw, b.signers, parseTCBInfo)
		case attest.KindQEIdentity:
			b.identities, err = read(&v.identities, b.identities, e.Raw, b.signers, parseQEIdentity)
		default:
			err = attest.Refuse(attest.CodeMalformedEndorsement, checkCollateral, "endorsement of kind "+attest.Quote(string(e.Kind)), "certificate, crl, tcb-info or qe-identity")
		}
		if err != nil {
			return nil, err
		}
	}
	return b, nil
}

// certificate is one that verified under a root.
type certificate struct {
	*x509.Certificate
	root   *root
	signer bool // of TCB info and QE identity
}

// certificate verifies a certificate that came with collateral. Roots and PCK authorities are part of the vendor's
// answers; the chain in the quote has its own copies.
func (v *Verifier) certificate(b *bundle, der []byte, r *root) error {
	c, _ := v.certs.get(der)
	if c.root != r {
		cert, err := parseCertificate(der)
		if err != nil {
			return err
		}
		c = certificate{cert, r, false}
		switch name := cert.Subject.CommonName; {
		case strings.Contains(name, nameRoot):
			if !bytes.Equal(der, r.Raw) {
				return untrusted(cert)
			}
		case strings.Contains(name, namePlatform), strings.Contains(name, nameProcessor):
			if err = checkAuthority(cert, ""); err == nil {
				err = checkIssued(cert, r.Certificate)
			}
		default:
			c.signer = true
			if err = checkLeaf(cert, nameTCB); err == nil {
				err = checkIssued(cert, r.Certificate)
			}
		}
		if err != nil {
			return err
		}
		v.certs.put(der, c)
	}
	if c.signer {
		b.signers = append(b.signers, c.Certificate)
	}
	return nil
}

// dated is TCB info or QE identity.
type dated interface{ meta() *document }

func (d *document) meta() *document { return d }

func (d *document) current(now time.Time) bool { return !now.Before(d.issued) && !now.After(d.expires) }

// later tells whether d supersedes other.
func (d *document) later(other *document) bool {
	if d.evaluation != other.evaluation {
		return d.evaluation > other.evaluation
	}
	return d.issued.After(other.issued)
}

// read verifies a document by the signers. Without any it stays out: nothing is known of it.
func read[D dated](known *memo[D], list []D, body []byte, signers []*x509.Certificate, parse func([]byte, *x509.Certificate) (D, error)) ([]D, error) {
	var err error
	for _, signer := range signers {
		if d, ok := known.get(body); ok && bytes.Equal(d.meta().signer.Raw, signer.Raw) {
			return append(list, d), nil
		}
		var d D
		if d, err = parse(body, signer); err == nil {
			known.put(body, d)
			return append(list, d), nil
		}
	}
	return list, err
}

func (b *bundle) infosOf(tee TEE, pck *PCK) (found []*tcbInfo) {
	for _, t := range b.infos {
		if t.tee == tee && t.fmspc == pck.FMSPC && t.pceID == pck.PCEID {
			found = append(found, t)
		}
	}
	return found
}

func (b *bundle) identitiesOf(tee TEE) (found []*qeIdentity) {
	for _, id := range b.identities {
		if id.tee == tee {
			found = append(found, id)
		}
	}
	return found
}

// best takes the document that is current, of those the one of the latest evaluation, and of those the one issued last.
func best[D dated](list []D, now time.Time) (found D, ok bool) {
	for _, d := range list {
		m := d.meta()
		if !ok || m.current(now) && (!found.meta().current(now) || m.later(found.meta())) {
			found, ok = d, true
		}
	}
	return found, ok
}

// choose takes a document out of those at hand, or asks for one when none of them is current.
func choose[D dated](stapled []D, of func(*bundle) []D, fetch func() (*bundle, error), now time.Time, ref attest.Ref) (D, error) {
	have, ok := best(stapled, now)
	if ok && have.meta().current(now) {
		return have, nil
	}
	where := ref.Service + ref.Path
	b, err := fetch()
	if err == nil {
		fetched, any := best(of(b), now)
		switch {
		case any && fetched.meta().current(now):
			return fetched, nil
		case any:
			have, ok = fetched, true
		default:
			err = attest.Refuse(attest.CodeEndorsementMissing, checkCollateral, "no "+string(ref.Kind)+" for this platform in the answer", where)
		}
	}
	if ok {
		m := have.meta()
		err = attest.Refuse(attest.CodeEndorsementExpired, checkCollateral, string(ref.Kind)+" valid "+attest.Day(m.issued)+" to "+attest.Day(m.expires), "one valid on "+attest.Day(now)+": "+where)
	}
	return have, err
}

// request is one verification's way to the endorser.
type request struct {
	v        *Verifier
	chain    *pckChain
	endorser attest.Endorser
}

func (r *request) fetch(ctx context.Context, ref attest.Ref) (*bundle, error) {
	list, err := r.endorser.Endorse(ctx, ref)
	if err != nil {
		return nil, coded(err)
	}
	return r.v.gather(list, r.chain)
}

// revocation checks the chains against the lists of root and PCK authority. An error means that a key is withdrawn; a list
// that is missing or stale is a claim for the policy.
func (r *request) revocation(ctx context.Context, b *bundle, signers []*x509.Certificate, now time.Time) (attest.Revocation, error) {
	certs := append([]*x509.Certificate{r.chain.root.Certificate, r.chain.ca}, signers...)
	root, err := r.lists(ctx, b, r.chain.root.Certificate, certs, rootCRLRef(), now)
	if err != nil {
		return root, err
	}
	pck, err := r.lists(ctx, b, r.chain.ca, []*x509.Certificate{r.chain.leaf}, r.chain.crlRef(), now)
	if err != nil {
		return pck, err
	}
	// How fresh the knowledge is depends on the PCK authority's list, which Intel renews within a month. The root's, which
	// comes once a year, has to be valid.
	pck.Expires = earlier(root.Expires, pck.Expires)
	if root.Problem != nil {
		pck.Problem = root.Problem
	}
	return pck, nil
}

func (r *request) lists(ctx context.Context, b *bundle, issuer *x509.Certificate, certs []*x509.Certificate, ref attest.Ref, now time.Time) (rev attest.Revocation, err error) {
	found, err := latest(b.lists, issuer, certs)
	if err != nil {
		return rev, err
	}
	where := ref.Service + ref.Path
	if found == nil || !found.current(now) {
		fetched, failed := r.fetch(ctx, ref)
		if failed == nil {
			fresh, err := latest(fetched.lists, issuer, certs)
			if err != nil {
				return rev, err
			}
			if fresh != nil && (found == nil || fresh.issued.After(found.issued)) {
				found = fresh
			}
		}
		if found == nil {
			rev.Problem = attest.Refuse(attest.CodeEndorsementMissing, checkRevocation, "no revocation list of "+attest.Quote(issuer.Subject.CommonName), where)
			if rev.Problem.Err = failed; attest.CodeOf(failed).Undecidable() {
				rev.Problem = coded(failed)
			}
			return rev, nil
		}
	}
	rev.Issued, rev.Expires = found.issued, found.expires
	if !found.current(now) {
		rev.Problem = attest.Refuse(attest.CodeEndorsementExpired, checkRevocation, "a revocation list of "+attest.Day(found.issued)+" to "+attest.Day(found.expires), "one valid on "+attest.Day(now)+": "+where)
	}
	return rev, nil
}
