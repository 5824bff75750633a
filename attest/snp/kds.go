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
		return nil, refuse(attest.CodeEndorsementMissing, checkChain, "no VCEK stapled, and the host masks the chip id to fetch it by", "the VCEK certificate")
	}
	candidates := []*generation{r.generation}
	if r.generation == nil {
		candidates = []*generation{milan, genoa}
	}
	var refs []attest.Ref
	for _, g := range candidates {
		tcb, err := g.layout.decode(r.ReportedTCB)
		if err != nil {
			return nil, err
		}
		var path strings.Builder
		fmt.Fprintf(&path, "/vcek/v1/%s/%s?", g.line, r.ChipID[:g.hwid])
		if fmc, ok := tcb["fmc"]; ok {
			fmt.Fprintf(&path, "fmcSPL=%02d&", fmc)
		}
		fmt.Fprintf(&path, "blSPL=%02d&teeSPL=%02d&snpSPL=%02d&ucodeSPL=%02d", tcb["bootloader"], tcb["tee"], tcb["snp"], tcb["microcode"])
		refs = append(refs, attest.Ref{Service: KDSService, Path: path.String(), Kind: attest.KindCertificate})
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
	have, err := sortEndorsements(ev.Endorsements)
	if err != nil {
		return ev, err
	}
	out := *ev
	out.Endorsements = append([]attest.Endorsement(nil), ev.Endorsements...)
	l, err := leafOf(ctx, r, &have, endorser)
	if err != nil {
		return &out, err
	}
	g, err := l.checkProduct(r)
	if err == nil {
		err = l.checkChip(r, g)
	}
	if err == nil {
		err = l.checkTCB(r, g)
	}
	if err != nil {
		return &out, err
	}
	if len(have.leaves) == 0 {
		out.Endorsements = append(out.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: l.Raw})
	}
	var missing []error
	if ask, err := onlyOne(have.asks, l.signer.issuerName(g)); err != nil || ask == nil {
		if ask, err = askOf(ctx, l, g, &have, new(root), endorser); err == nil {
			out.Endorsements = append(out.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: ask.Raw})
		} else {
			missing = append(missing, err)
		}
	}
	if len(have.crls) == 0 {
		fetched, err := fetch(ctx, endorser, crlRef(g, l.signer))
		if err != nil {
			missing = append(missing, err)
		}
		for _, crl := range fetched.crls {
			if crl.Issuer.CommonName == rootName(g) && len(crl.Raw) <= maxStapledCRL {
				out.Endorsements = append(out.Endorsements, attest.Endorsement{Kind: attest.KindCRL, Raw: crl.Raw})
				break
			}
		}
	}
	return &out, errors.Join(missing...)
}
