package snp

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// KDSService names AMD's Key Distribution Service in an attest.Ref (57230 chapter 4).
const KDSService = "amd-kds"

// LeafRefs tells where the certificate of the key that signed raw can be had. A report of version 2 does not name its
// product, and every product it could be is listed. A VLEK cannot be fetched: its cloud provider hands it out.
func LeafRefs(raw []byte) ([]attest.Ref, error) {
	r, err := Parse(raw)
	if err != nil {
		return nil, err
	}
	return leafRefs(r)
}

func leafRefs(r *Report) ([]attest.Ref, error) {
	if r.signer == vlek {
		return nil, &attest.Error{
			Code: attest.CodeEndorsementMissing, Check: checkChain, Got: "no VLEK stapled", Want: "the VLEK certificate",
			Hint: "the cloud provider supplies the VLEK to its guests: the attester must staple it, or supply it with --endorsement",
		}
	}
	if r.masked() {
		return nil, attest.Refuse(attest.CodeEndorsementMissing, checkChain, "no VCEK stapled, and the host masks the chip id to fetch it by", "the VCEK certificate")
	}
	candidates := []*generation{r.generation}
	if r.generation == nil {
		candidates = []*generation{milan, genoa}
	}
	var refs []attest.Ref
	for _, g := range candidates {
		lv, err := r.levels(g)
		if err != nil {
			return nil, err
		}
		path := fmt.Sprintf("/vcek/v1/%s/%s?%s", g.line, r.ChipID[:g.hwid], lv.reported.query())
		refs = append(refs, attest.Ref{Service: KDSService, Path: path, Kind: attest.KindCertificate})
	}
	return refs, nil
}

func chainRef(g *generation, s signer) attest.Ref {
	return attest.Ref{Service: KDSService, Path: "/" + strings.ToLower(s.String()) + "/v1/" + g.line + "/cert_chain", Kind: attest.KindCertificate}
}

func crlRef(g *generation, s signer) attest.Ref {
	return attest.Ref{Service: KDSService, Path: "/" + strings.ToLower(s.String()) + "/v1/" + g.line + "/crl", Kind: attest.KindCRL}
}

// maxStapledCRL is the largest revocation list worth carrying in a handshake, in bytes.
const maxStapledCRL = 4 << 10

// Staple returns ev with the leaf, its issuer and the revocation list added where they are missing, so that a relying
// party need not ask the vendor. It does not verify them: the relying party does. When some cannot be had it returns what
// there is, with the first error.
func Staple(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser) (*attest.Evidence, error) {
	r, err := Parse(ev.Raw)
	if err != nil {
		return ev, err
	}
	have, err := sortEndorsements(ev.Endorsements, nil)
	if err != nil {
		return ev, err
	}
	out := *ev
	out.Endorsements = append([]attest.Endorsement(nil), ev.Endorsements...)
	l, err := leafOf(ctx, r, &have, endorser, nil)
	if err != nil {
		return &out, err
	}
	g, _, err := l.fits(r)
	if err != nil {
		return &out, err
	}
	if len(have.leaves) == 0 {
		out.Endorsements = append(out.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: l.Raw})
	}
	var missing []error
	if ask, _ := onlyOne(have.asks, l.signer.issuerName(g)); ask == nil {
		ask, err := askOf(ctx, l, g, &have, new(root), endorser, nil)
		if err != nil {
			missing = append(missing, err)
		} else {
			out.Endorsements = append(out.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: ask.Raw})
		}
	}
	if len(have.crls) == 0 {
		fetched, err := fetch(ctx, endorser, crlRef(g, l.signer), nil)
		missing = append(missing, err)
		for _, crl := range fetched.crls {
			if crl.Issuer.CommonName == rootName(g) && len(crl.Raw) <= maxStapledCRL {
				out.Endorsements = append(out.Endorsements, attest.Endorsement{Kind: attest.KindCRL, Raw: crl.Raw})
				break
			}
		}
	}
	return &out, errors.Join(missing...)
}
