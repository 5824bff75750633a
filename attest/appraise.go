package attest

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"maps"
	"slices"
	"time"
)

// Appraiser appraises Evidence: it finds the Verifier, compares what the hardware signed with what was expected, and
// asks the Policy. It is safe for concurrent use.
type Appraiser struct {
	endorser  Endorser
	verifiers []Verifier
}

// NewAppraiser makes an Appraiser that tries the verifiers in order. The endorser is asked for what evidence does not
// carry; NoEndorser{} keeps the appraisal offline.
func NewAppraiser(endorser Endorser, verifiers ...Verifier) *Appraiser {
	return &Appraiser{endorser: endorser, verifiers: verifiers}
}

// Appraise appraises ev at the time now. It always returns a Result, and an affirmed one only if the evidence is
// authentic, the hardware signed what want expects, and every check of the policy passed. Once evidence is authentic and
// bound, all of the policy is evaluated, so that the transcript shows everything that is wrong at once.
func (a *Appraiser) Appraise(ctx context.Context, ev *Evidence, want Expectation, policy Policy, now time.Time) *Result {
	r := &Result{time: now, level: want.level}
	if ev != nil && len(ev.Raw) > 0 {
		r.digest = ev.Digest()
	}
	if err := a.appraise(ctx, r, ev, want, policy, now); err != nil {
		r.fail(err)
	}
	r.conclude()
	return r
}

func (a *Appraiser) appraise(ctx context.Context, r *Result, ev *Evidence, want Expectation, policy Policy, now time.Time) error {
	if !want.level.Valid() || !want.matchable() {
		return &Error{Code: CodeNoExpectation, Check: "binding.report_data"}
	}
	r.checks = append(r.checks, want.checks...)
	if err := bounded(ev); err != nil {
		return err
	}
	claims, err := a.verify(ctx, ev, now)
	if err != nil {
		return err
	}
	r.claims, r.kind, r.verified = claims, claims.Kind(), len(r.checks)
	r.checks = append(r.checks, claims.Checks...)
	r.notChecked = append(r.notChecked, claims.NotChecked...)
	if err := r.bound(claims, &want); err != nil {
		return err
	}
	for _, u := range want.unsigned {
		r.notChecked = append(r.notChecked, "unsigned: "+u)
	}
	// Where the hardware signs a time of its own, the attester's clock can't make the evidence younger. Bare evidence is
	// judged at any age.
	made := want.made
	if signed := claims.Made; want.level != LevelNone && !signed.IsZero() && (made.IsZero() || signed.Before(made)) {
		made = signed
	}
	// Without a monotonic reading, which stands still while a machine sleeps: evidence that is judged again later grows old.
	return r.judge(policy, Situation{Level: want.level, Made: made.Round(0), Now: now, Config: want.config})
}

// bound compares what the hardware signed with what was expected. Only those bytes are compared, never a copy from an unsigned
// envelope.
func (r *Result) bound(claims *Claims, want *Expectation) error {
	const id = "binding.report_data"
	switch {
	case want.any:
		r.notChecked = append(r.notChecked, "report data: the evidence proves nothing about who sent it")
		return nil
	case len(want.signed) > 0:
		for _, name := range slices.Sorted(maps.Keys(want.signed)) {
			digest := want.signed[name]
			if got := claims.Measured[name]; subtle.ConstantTimeCompare(got, digest[:]) != 1 {
				return &Error{Code: CodeReportData, Check: id, Got: name + " " + Abbreviate(got), Want: Abbreviate(digest[:])}
			}
			r.pass(id, bindingText(want.level), name+" "+Abbreviate(digest[:]), "", SourceHardware)
		}
		return nil
	}
	got := claims.ReportData
	for _, expected := range append([]ReportData{want.data}, want.others...) {
		if claims.Folded {
			expected = expected.Fold()
		}
		if subtle.ConstantTimeCompare(got[:], expected[:]) == 1 {
			r.pass(id, bindingText(want.level), Abbreviate(got[:]), "", SourceHardware)
			return nil
		}
	}
	expected := want.data
	if claims.Folded {
		expected = expected.Fold()
	}
	return &Error{Code: CodeReportData, Check: id, Got: Abbreviate(got[:]), Want: Abbreviate(expected[:])}
}

// Reverify verifies evidence of open connections again, for Result.Renew: since it was verified a key may have been revoked, or
// the vendor may have changed its mind about a TCB.
func (a *Appraiser) Reverify(ctx context.Context, ev *Evidence, now time.Time) Renewal {
	if err := bounded(ev); err != nil {
		return Renewal{err: err}
	}
	claims, err := a.verify(ctx, ev, now)
	return Renewal{claims: claims, kind: claims.Kind(), digest: ev.Digest(), err: err}
}

// verify asks the verifiers in turn. A panic in a decoder is contained here: it must not take down a proxy that serves
// other peers.
func (a *Appraiser) verify(ctx context.Context, ev *Evidence, now time.Time) (claims *Claims, err error) {
	defer func() {
		if p := recover(); p != nil {
			claims, err = nil, &Error{Code: CodeInternal, Check: "authenticity", Err: fmt.Errorf("decoder panicked: %v", p)}
		}
	}()
	claims, err = verifyWith(ctx, a.verifiers, ev, a.endorser, now)
	if errors.Is(err, ErrNotMine) {
		return nil, &Error{Code: CodeUnknownFormat, Check: "authenticity.format", Got: fmt.Sprintf("%.40q", string(ev.Format))}
	}
	return claims, err
}

func bounded(ev *Evidence) error {
	if ev == nil || len(ev.Raw) == 0 {
		return &Error{Code: CodeNoEvidence, Check: "evidence"}
	}
	if len(ev.Raw) > MaxRaw {
		return &Error{Code: CodeOversized, Check: "evidence", Got: fmt.Sprintf("%d bytes", len(ev.Raw)), Want: fmt.Sprintf("at most %d", MaxRaw)}
	}
	if len(ev.Endorsements) > MaxEndorsements {
		return &Error{Code: CodeOversized, Check: "evidence", Got: fmt.Sprintf("%d endorsements", len(ev.Endorsements)), Want: fmt.Sprintf("at most %d", MaxEndorsements)}
	}
	if len(ev.EventLog) > MaxEventLog {
		return &Error{Code: CodeOversized, Check: "evidence.log", Got: fmt.Sprintf("%d bytes", len(ev.EventLog)), Want: fmt.Sprintf("at most %d", MaxEventLog)}
	}
	for _, e := range ev.Endorsements {
		if len(e.Raw) > MaxEndorsement {
			return &Error{Code: CodeOversized, Check: "endorsements", Got: fmt.Sprintf("%d bytes", len(e.Raw)), Want: fmt.Sprintf("at most %d", MaxEndorsement)}
		}
	}
	return nil
}

func (r *Result) fail(err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = &Error{Code: CodeInternal, Check: "internal", Err: err}
	}
	c := Check{ID: e.Check, Status: StatusFail, Text: e.Code.Title(), Got: e.Got, Want: e.Want, Code: e.Code, Remedy: e.Remedy()}
	if c.Got == "" && e.Err != nil {
		c.Got = e.Err.Error()
	}
	r.checks = append(r.checks, c)
}

func bindingText(l Level) string {
	switch l {
	case LevelSession:
		return "evidence signs this TLS session"
	case LevelNonce:
		return "evidence signs this TLS key and our nonce"
	case LevelKey, LevelPinned:
		return "evidence signs this TLS key"
	default:
		return "evidence signs the given report data"
	}
}
