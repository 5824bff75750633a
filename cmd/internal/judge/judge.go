// Package judge appraises what is at hand and tells the verdict: what "jurat verify" and the C library have in common, so that
// both give the same bytes for the same input.
package judge

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/ratls/ea"
	"github.com/jurat-tls/jurat/ratls/session"
)

// Party is a relying party: what it demands, and whom it asks for endorsements.
type Party struct {
	Policy   *policy.Policy
	Endorser attest.Endorser
	TPM      *tpm.Roots      // authorities for TPM keys; nil for none
	Dialects *dialect.Reader // nil allows what is taken without a word
}

// Asking is the same party in a connection's terms, at the times that now tells, with endorsements from endorser.
func (p Party) Asking(endorser attest.Endorser, now func() time.Time) *ratls.RelyingParty {
	return ratls.NewRelyingParty(attest.NewAppraiser(endorser, attest.NewMemo(p.Verifiers(endorser)...)), p.Policy, now).WithDialects(p.Dialects)
}

// Verifiers check evidence for it, with endorsements from endorser.
func (p Party) Verifiers(endorser attest.Endorser) []attest.Verifier {
	return Trusting(endorser, p.TPM, p.Policy.SimulationRoots()).Verifiers()
}

// Chain judges the chain of a record, and what its peer presented beside it, with the endorsements of that day.
func (p Party) Chain(ctx context.Context, rec *record.Record, at time.Time) (ratls.Presented, *attest.Result) {
	shown := Presented(rec)
	rp := p.Asking(Recorded(rec, p.Endorser), func() time.Time { return at })
	return shown, rp.AppraisePresented(ctx, shown, PeerOf(rec))
}

// Bare judges evidence that came without a chain, with endorsements from endorser.
func (p Party) Bare(ctx context.Context, endorser attest.Endorser, ev *attest.Evidence, want attest.Expectation, at time.Time) *attest.Result {
	return attest.NewAppraiser(endorser, p.Verifiers(p.Endorser)...).Appraise(ctx, ev, want, p.Policy, at)
}

// With is p for an operator who gives endorsements along with evidence, and answers those of them that count as stapled to it.
// Public keys among them are the operator's anchors, and must never pass for something that came with the evidence.
func (p Party) With(given []attest.Endorsement) (Party, []attest.Endorsement) {
	var keys, stapled []attest.Endorsement
	for _, e := range given {
		if e.Kind == attest.KindPublicKey {
			keys = append(keys, e)
		} else {
			stapled = append(stapled, e)
		}
	}
	if len(keys) > 0 {
		p.Endorser = endorse.Chain{endorse.NewStatic(keys...), p.Endorser}
	}
	return p, stapled
}

// Presented is what the peer of a record presented.
func Presented(rec *record.Record) ratls.Presented {
	p := ratls.Presented{Chain: rec.Chain}
	if s := rec.Session; s != nil {
		sender := ea.Server
		if rec.Client {
			sender = ea.Client
		}
		p.Session = &session.Presented{Profile: session.Profile(s.Profile), Suite: s.Suite, Sender: sender, Chain: rec.Chain, Attestation: s.Attestation, Challenge: s.Challenge, Exporter: s.Exporter, Asked: s.Asked}
	}
	return p
}

// PeerOf is whom a recorded appraisal was of.
func PeerOf(rec *record.Record) ratls.Peer {
	if rec.Client {
		return ratls.AnyClient()
	}
	return ratls.Server(rec.ServerName)
}

// Recorded answers as it was recorded, and asks the operator for the keys that are anchors: a record must not bring its own.
func Recorded(rec *record.Record, operator attest.Endorser) attest.Endorser {
	return endorse.Chain{rec.Endorser(), anchors{operator}}
}

// anchors passes on requests for public keys only. No vendor's service has any, so that nothing is fetched.
type anchors struct{ next attest.Endorser }

// Endorse implements attest.Endorser.
func (a anchors) Endorse(ctx context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	if ref.Kind != attest.KindPublicKey {
		return attest.NoEndorser{}.Endorse(ctx, ref)
	}
	return a.next.Endorse(ctx, ref)
}

// Evidence makes evidence of what an operator has of it: the file of a format, the parts that lie beside it, a log of what was
// measured. Errors have codes.
func Evidence(format string, raw []byte, parts map[string][]byte, log []byte) (*attest.Evidence, error) {
	kind := FormatNamed(attest.Format(format))
	if kind == nil {
		return nil, wrong("format %.40q is not known; formats: %s", format, FormatNames())
	}
	if log != nil && !kind.Log {
		return nil, wrong("an event log belongs to the formats %s: %s has no registers that it could lead to", LogFormats(), format)
	}
	packed, err := kind.Pack(raw, parts)
	if err != nil {
		return nil, err
	}
	return &attest.Evidence{Format: attest.Format(format), Raw: packed, EventLog: log}, nil
}

// ReportData is what the hardware should have signed. Shorter input is refused rather than padded: padding would let two
// different values be equal.
func ReportData(raw []byte) (attest.ReportData, error) {
	var data attest.ReportData
	if len(raw) != len(data) {
		return data, fmt.Errorf("report data of %d bytes, want 64 (128 characters in hex)", len(raw))
	}
	copy(data[:], raw)
	if data.IsZero() {
		return data, errors.New("report data of zeros, which commit to nothing")
	}
	return data, nil
}

// UnsafeLevel reads a level that a policy's least binding may be lowered to, whatever the policy says.
func UnsafeLevel(level string) (attest.Level, error) {
	switch l := attest.Level(level); l {
	case attest.LevelKey, attest.LevelNonce, attest.LevelPinned:
		return l, nil
	}
	return "", wrong("an unsafe binding of %.40q is not known; it is key, nonce or pinned", level)
}

func wrong(format string, args ...any) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "input", Hint: "see jurat help, or jurat.h", Err: fmt.Errorf(format, args...)}
}
