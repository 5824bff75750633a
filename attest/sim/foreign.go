package sim

import (
	"context"
	"encoding/pem"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// NewForeignVerifier makes a Verifier of what simulated machines of these roots have made where its carrier, another program's, has no
// room to say so: Evidence of a format of hardware whose own chain leads to one of them. It answers attest.ErrNotMine for all other
// Evidence, which verifiers of hardware are then asked about.
func NewForeignVerifier(roots []string) attest.Verifier {
	return foreign{NewVerifier(roots).(*verifier)}
}

type foreign struct{ *verifier }

// Verify implements attest.Verifier.
func (f foreign) Verify(ctx context.Context, ev *attest.Evidence, endorser attest.Endorser, now time.Time) (*attest.Claims, error) {
	if ev == nil {
		return nil, attest.ErrNotMine
	}
	k := kindWhere(func(k *kind) bool { return k.name == string(ev.Format) })
	if k == nil {
		return nil, attest.ErrNotMine
	}
	marked := *ev
	marked.Format = k.format()
	marked.Endorsements = slices.Clone(ev.Endorsements)
	der, err := k.root(&marked)
	if err != nil {
		// Intel's quotes bring their chain, in PEM, and its root at the end.
		var last []byte
		for block, rest := pem.Decode(ev.Raw); block != nil; block, rest = pem.Decode(rest) {
			last = block.Bytes
		}
		marked.Endorsements = append(marked.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: last})
		der, err = k.root(&marked)
	}
	if err != nil || !f.roots[attest.Fingerprint(der)] {
		return nil, attest.ErrNotMine
	}
	return f.verifier.Verify(ctx, &marked, endorser, now)
}
