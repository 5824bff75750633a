package dcap

import (
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Verifier verifies quotes under explicit roots. It is safe for concurrent use.
type Verifier struct {
	roots      *Roots
	bindings   memo[*binding]
	chains     memo[*pckChain]
	certs      memo[certificate]
	infos      memo[*tcbInfo]
	identities memo[*qeIdentity]
	lists      memo[*revocationList]
}

// NewVerifier makes a Verifier that trusts roots alone. With nil roots it refuses everything.
func NewVerifier(roots *Roots) *Verifier {
	return &Verifier{
		roots:      roots,
		bindings:   memo[*binding]{max: 2048}, // each about 5 KB, one for every platform and start of its quoting enclave
		chains:     memo[*pckChain]{max: 1024},
		certs:      memo[certificate]{max: 64},
		infos:      memo[*tcbInfo]{max: 64},
		identities: memo[*qeIdentity]{max: 16},
		lists:      memo[*revocationList]{max: 16},
	}
}

// Verified is a quote that is authentic, with what Intel says of the platform that made it.
type Verified struct {
	Quote      *Quote
	PCK        *PCK
	Product    string
	Generation string
	Root       string // "sha256:" and hex of the trust anchor's DER
	QESVN      uint16 // of the quoting enclave
	Status     Status
	Date       time.Time // of the oldest level that went into Status
	Judged     time.Time // when the older of TCB info and QE identity was issued
	Advisories []string
	Evaluation uint64 // the lower of TCB info's and QE identity's tcbEvaluationDataNumber
	Revocation attest.Revocation
}

// Verify checks the signature over q, what certifies its key, and the platform's TCB. Collateral comes from endorsements,
// and from the endorser where they lack it.
func (v *Verifier) Verify(ctx context.Context, q *Quote, endorsements []attest.Endorsement, endorser attest.Endorser, now time.Time) (*Verified, error) {
	if endorser == nil {
		endorser = attest.NoEndorser{}
	}
	b, err := v.certify(q)
	if err != nil {
		return nil, err
	}
	chain := b.chain
	if err := current(now, chain.root.Certificate, chain.ca, chain.leaf); err != nil {
		return nil, err
	}
	digest := sha256.Sum256(q.signed)
	if !ecdsa.VerifyASN1(b.key, digest[:], derSignature(q.signature)) {
		return nil, attest.Refuse(attest.CodeSignature, checkSignature, "a signature that does not verify", "one by the attestation key of the quote")
	}
	out := &Verified{Quote: q, PCK: chain.pck, Root: chain.root.fingerprint, QESVN: q.qeSVN()}
	if out.Generation, out.Product, err = processor(chain.pck.FMSPC[:]); err != nil {
		return nil, err
	}
	have, err := v.gather(endorsements, chain)
	if err != nil {
		return nil, err
	}
	r := &request{v, chain, endorser}
	info, id, err := r.collateral(ctx, have, q.TEE, now)
	if err != nil {
		return nil, err
	}
	if err := id.check(&q.certification); err != nil {
		return nil, err
	}
	signers := []*x509.Certificate{info.signer, id.signer}
	if err := current(now, signers...); err != nil {
		return nil, err
	}
	if out.Revocation, err = r.revocation(ctx, have, signers, now); err != nil {
		return nil, err
	}
	j, err := judge(info, id, chain.pck, q)
	if err != nil {
		return nil, err
	}
	out.Status, out.Date, out.Advisories = j.status, j.date, j.advisories
	out.Evaluation, out.Judged = min(info.evaluation, id.evaluation), earlier(info.issued, id.issued)
	return out, nil
}

// collateral gives TCB info and QE identity for the platform.
func (r *request) collateral(ctx context.Context, have *bundle, tee TEE, now time.Time) (*tcbInfo, *qeIdentity, error) {
	pck := r.chain.pck
	infoRef, idRef := tcbInfoRef(tee, pck), identityRef(tee)
	info, err := choose(have.infosOf(tee, pck), func(b *bundle) []*tcbInfo { return b.infosOf(tee, pck) }, func() (*bundle, error) { return r.fetch(ctx, infoRef) }, now, infoRef)
	if err != nil {
		return nil, nil, err
	}
	id, err := choose(have.identitiesOf(tee), func(b *bundle) []*qeIdentity { return b.identitiesOf(tee) }, func() (*bundle, error) { return r.fetch(ctx, idRef) }, now, idRef)
	return info, id, err
}
