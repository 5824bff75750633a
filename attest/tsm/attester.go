package tsm

import (
	"context"

	"github.com/jurat-tls/jurat/attest"
)

// Decode turns a report into Evidence. It must refuse a report over other data.
type Decode func(r Report, data attest.ReportData) (*attest.Evidence, error)

// Attester collects Evidence from one source. It is safe for concurrent use; the platform works on one report at a time,
// and so does the Attester.
type Attester struct {
	source Source
	decode Decode
	turn   chan struct{}
}

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester.
func NewAttester(source Source, decode Decode) *Attester {
	return &Attester{source: source, decode: decode, turn: make(chan struct{}, 1)}
}

// Source names the source in use.
func (a *Attester) Source() string { return a.source.Name() }

// Attest implements attest.Attester. It returns when ctx is done even if the platform does not answer; the turn then
// passes on when the platform does.
func (a *Attester) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	if data.IsZero() {
		return nil, &attest.Error{Code: attest.CodeNoExpectation, Check: check, Got: "report data of zeros"}
	}
	report, err := a.collect(ctx, data)
	if err != nil {
		return nil, a.failed(err)
	}
	ev, err := a.decode(report, data)
	if err != nil {
		return nil, a.failed(err)
	}
	return ev, nil
}

func (a *Attester) failed(err error) error {
	return &attest.Error{Code: attest.CodeAttesterFailed, Check: check, Subject: a.source.Name(), Err: err}
}

func (a *Attester) collect(ctx context.Context, data attest.ReportData) (Report, error) {
	select {
	case a.turn <- struct{}{}:
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
	type answer struct {
		report Report
		err    error
	}
	answers := make(chan answer, 1)
	go func() {
		defer func() { <-a.turn }()
		report, err := a.source.Collect(ctx, data)
		answers <- answer{report, err}
	}()
	select {
	case got := <-answers:
		return got.report, got.err
	case <-ctx.Done():
		return Report{}, ctx.Err()
	}
}
