package dcap

import (
	"bytes"
	"context"
	"errors"

	"github.com/jurat-tls/jurat/attest"
)

// Staple returns ev, whose quote is q, with the collateral that it lacks: TCB info, QE identity, the certificate that
// signed them, and both revocation lists, so that a relying party need not ask the vendor. It does not verify them: the
// relying party does. When some cannot be had it returns what there is, with the errors.
func Staple(ctx context.Context, ev *attest.Evidence, q *Quote, endorser attest.Endorser) (*attest.Evidence, error) {
	certs, err := parseChain(q.chain)
	if err != nil {
		return ev, err
	}
	chain := &pckChain{leaf: certs[0], ca: certs[1], service: serviceOf(certs[1])}
	if chain.pck, err = parsePCK(chain.leaf, chain.service == servicePlatform); err != nil {
		return ev, err
	}
	out := *ev
	out.Endorsements = append([]attest.Endorsement(nil), ev.Endorsements...)
	var missing []error
	for _, want := range []struct {
		ref attest.Ref
		had int // how many of this kind make it needless to ask
	}{{tcbInfoRef(q.TEE, chain.pck), 1}, {identityRef(q.TEE), 1}, {rootCRLRef(), 2}, {chain.crlRef(), 2}} {
		if count(ev.Endorsements, want.ref.Kind) >= want.had {
			continue
		}
		list, err := endorser.Endorse(ctx, want.ref)
		if err != nil {
			missing = append(missing, coded(err))
			continue
		}
		for _, e := range list {
			// The quote has the root and the authority in its chain.
			if bytes.Equal(e.Raw, certs[1].Raw) || bytes.Equal(e.Raw, certs[2].Raw) || has(out.Endorsements, e.Raw) {
				continue
			}
			out.Endorsements = append(out.Endorsements, e)
		}
	}
	if len(out.Endorsements) > attest.MaxEndorsements {
		return ev, attest.Refuse(attest.CodeOversized, checkCollateral, "more endorsements than evidence may carry", "")
	}
	return &out, errors.Join(missing...)
}

func count(list []attest.Endorsement, kind attest.Kind) (n int) {
	for _, e := range list {
		if e.Kind == kind {
			n++
		}
	}
	return n
}

func has(list []attest.Endorsement, raw []byte) bool {
	for _, e := range list {
		if bytes.Equal(e.Raw, raw) {
			return true
		}
	}
	return false
}
