package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/attest/policy"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/cmd/internal/judge"
	"github.com/jurat-tls/jurat/ratls"
)

// request is a jurat_request, of which nothing belongs to the caller any more. An absent field is nil or empty.
type request struct {
	record, chain, evidence []byte
	target                  string
	policy                  []byte
	time                    string
	endorsements            string
	format                  string
	parts                   map[string][]byte
	eventLog                []byte
	stapled                 [][]byte
	reportData              []byte
	anyReportData           bool
	unsafeBinding           string
}

// contained answers what f does, and in place of a panic an error: unwinding into C would end the program.
func contained(f func() (int, []byte)) (code int, answer []byte) {
	defer func() {
		if p := recover(); p != nil {
			code, answer = failure(&attest.Error{Code: attest.CodeInternal, Check: "libjurat", Err: fmt.Errorf("panic: %.200v", p)})
		}
	}()
	return f()
}

// failure is the answer where there is no verdict.
func failure(err error) (int, []byte) {
	type problem struct {
		Code    attest.Code `json:"code"`
		Check   string      `json:"check"`
		Message string      `json:"message"`
		Remedy  string      `json:"remedy"`
	}
	told := problem{Code: attest.CodeOf(err), Message: err.Error()}
	var coded *attest.Error
	if errors.As(err, &coded) {
		told.Check, told.Remedy = coded.Check, coded.Remedy()
	}
	var b bytes.Buffer
	if err := judge.WriteJSON(&b, map[string]problem{"error": told}); err != nil {
		return 1, nil
	}
	return told.Code.Exit(), b.Bytes()
}

// answer judges r and answers the code and the JSON of jurat_appraise. now is asked where r names no time and there is none.
func (r *request) answer(now func() time.Time) (int, []byte) {
	v, err := r.verdict(now)
	if err != nil {
		return failure(err)
	}
	var b bytes.Buffer
	if err := judge.WriteJSON(&b, v); err != nil {
		return failure(err)
	}
	if v.Verdict == attest.Affirmed.String() {
		return 0, b.Bytes()
	}
	return v.Code.Exit(), b.Bytes()
}

// verdict judges r. An error is one for which "jurat verify" writes no verdict either.
func (r *request) verdict(now func() time.Time) (judge.Verdict, error) {
	at, err := r.at()
	if err != nil {
		return judge.Verdict{}, err
	}
	if err := r.check(); err != nil {
		return judge.Verdict{}, err
	}
	party, err := r.party()
	if err != nil {
		return judge.Verdict{}, err
	}
	target, shown, result, err := r.appraise(context.Background(), party, at)
	if err == nil {
		return judge.VerdictOf(target, shown, result), nil
	}
	if code := attest.CodeOf(err).Exit(); code == 1 || code == 2 {
		return judge.Verdict{}, err
	}
	if at.IsZero() {
		at = now()
	}
	target = ""
	if r.evidence == nil {
		target = r.target
	}
	return judge.VerdictOf(target, ratls.Presented{}, attest.RefusedResult(err, at)), nil
}

// check refuses what does not go together. Unused, a field that was meant as a condition would be one that is waived.
func (r *request) check() error {
	inputs := 0
	for _, in := range [][]byte{r.record, r.chain, r.evidence} {
		if in != nil {
			inputs++
		}
	}
	switch {
	case inputs != 1:
		return wrong("%d of record, chain and evidence, want one", inputs)
	case r.policy == nil:
		return wrong("no policy")
	case r.record == nil && r.time == "":
		return wrong("no time: a chain and evidence have none of their own")
	case r.chain != nil && r.target == "":
		return wrong("a chain without the target that it is of")
	case r.evidence != nil && r.format == "":
		return wrong("evidence without a format; formats: %s", judge.FormatNames())
	case r.evidence == nil && (r.format != "" || len(r.parts) > 0 || r.eventLog != nil):
		return wrong("format, parts and event_log belong to evidence")
	case r.chain != nil:
		return r.bareOnly()
	}
	return nil
}

func (r *request) bareOnly() error {
	if r.reportData != nil || r.anyReportData || len(r.stapled) > 0 {
		return wrong("report_data, unsafe_any_report_data and stapled belong to evidence: a chain says itself what was signed")
	}
	return nil
}

// at is when to judge; zero for the record's own time.
func (r *request) at() (time.Time, error) {
	if r.time == "" {
		return time.Time{}, nil
	}
	t, err := time.Parse(time.RFC3339Nano, r.time)
	if y := t.UTC().Year(); err != nil || t.IsZero() || y < 0 || y > 9999 {
		return time.Time{}, wrong("time %.40q is not RFC 3339 (2026-11-23T12:00:00Z)", r.time)
	}
	return t.UTC(), nil
}

func (r *request) party() (judge.Party, error) {
	p, err := policy.Parse("policy", r.policy, policy.NoFiles)
	if err != nil {
		return judge.Party{}, err
	}
	if r.unsafeBinding != "" {
		level, err := judge.UnsafeLevel(r.unsafeBinding)
		if err != nil {
			return judge.Party{}, err
		}
		p = p.UnsafeBinding(level)
	}
	var chain endorse.Chain
	if r.endorsements != "" {
		static, err := endorse.Open(r.endorsements)
		if err != nil {
			return judge.Party{}, err
		}
		chain = append(chain, static)
	}
	return judge.Party{Policy: p, Endorser: append(chain, attest.NoEndorser{})}, nil
}

func (r *request) appraise(ctx context.Context, party judge.Party, at time.Time) (target string, shown ratls.Presented, result *attest.Result, err error) {
	if r.evidence != nil {
		result, err = r.judgeEvidence(ctx, party, at)
		return r.target, shown, result, err
	}
	rec, err := r.recorded(at)
	if err != nil {
		return "", shown, nil, err
	}
	if at.IsZero() {
		at = rec.Time
	}
	if len(rec.Chain) > 0 {
		if err := r.bareOnly(); err != nil {
			return "", shown, nil, err
		}
		shown, result = party.Chain(ctx, rec, at)
		return rec.Target, shown, result, nil
	}
	// What a record of bare evidence says of its report data came with it and satisfies nothing.
	want, party, stapled, err := r.beside(party)
	if err == nil && len(stapled) > 0 {
		err = wrong("a record has its endorsements; beside it, stapled gives public keys only")
	}
	if err != nil {
		return "", shown, nil, err
	}
	return r.target, shown, party.Bare(ctx, judge.Recorded(rec, party.Endorser), rec.Evidence, want, at), nil
}

// recorded is the record, or one of the chain, held to the same rules.
func (r *request) recorded(at time.Time) (*record.Record, error) {
	raw := r.record
	if r.chain != nil {
		certs, err := x509.ParseCertificates(r.chain)
		if err != nil || len(certs) == 0 {
			return nil, &attest.Error{Code: attest.CodeMalformedCertificate, Check: "evidence", Err: err}
		}
		host, _, err := net.SplitHostPort(r.target)
		if err != nil || host == "" {
			return nil, wrong("target %.100q is not HOST:PORT", r.target)
		}
		rec := &record.Record{Time: at, Target: r.target, ServerName: host}
		for _, c := range certs {
			rec.Chain = append(rec.Chain, c.Raw)
		}
		if raw, err = record.Encode(rec); err != nil {
			return nil, err
		}
	}
	return record.Decode(raw)
}

func (r *request) judgeEvidence(ctx context.Context, party judge.Party, at time.Time) (*attest.Result, error) {
	want, party, stapled, err := r.beside(party)
	if err != nil {
		return nil, err
	}
	ev, err := judge.Evidence(r.format, r.evidence, r.parts, r.eventLog)
	if err != nil {
		return nil, err
	}
	ev.Endorsements = stapled
	return party.Bare(ctx, party.Endorser, ev, want, at), nil
}

// beside is what a request has to say beside evidence that is bound to nothing.
func (r *request) beside(party judge.Party) (attest.Expectation, judge.Party, []attest.Endorsement, error) {
	want := attest.UnsafeExpectAnything()
	if r.anyReportData == (r.reportData != nil) {
		return want, party, nil, wrong("one of report_data and unsafe_any_report_data: a missing expectation is an error")
	}
	if !r.anyReportData {
		data, err := judge.ReportData(r.reportData)
		if err != nil {
			return want, party, nil, wrong("%w", err)
		}
		want = attest.Expect(data, attest.LevelNone, time.Time{})
	}
	var given []attest.Endorsement
	for _, raw := range r.stapled {
		all, err := endorse.Parse(raw)
		if err != nil {
			return want, party, nil, err
		}
		given = append(given, all...)
	}
	party, stapled := party.With(given)
	return want, party, stapled, nil
}

func wrong(format string, args ...any) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: "request", Err: fmt.Errorf(format, args...)}
}
