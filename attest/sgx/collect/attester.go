package collect

import (
	"context"
	"errors"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Sources of quotes, as Probe names them.
const (
	SourceGramine = "gramine"
	SourceOcclum  = "occlum"
)

const checkCollect = "attester"

// errNoTEE says that a source is not there at all.
var errNoTEE = errors.New("not present")

// source asks the quoting enclave for one quote over data.
type source interface {
	name() string
	probe() error // wraps errNoTEE when the source is not there
	quote(data attest.ReportData) ([]byte, error)
}

// Attester collects Evidence of the enclave it runs in. It is safe for concurrent use; both library operating systems
// keep one request at a time, and so does the Attester.
type Attester struct {
	source source
	turn   chan struct{}
}

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester over the library operating system that is there. The error has CodeNoTEE when none is.
func NewAttester() (*Attester, error) {
	s, err := firstOf(sources())
	if err != nil {
		return nil, err
	}
	return newAttester(s), nil
}

func newAttester(s source) *Attester { return &Attester{source: s, turn: make(chan struct{}, 1)} }

// Probe tells which one NewAttester would use. The error has CodeNoTEE when there is none.
func Probe() (string, error) {
	s, err := firstOf(sources())
	if err != nil {
		return "", err
	}
	return s.name(), nil
}

func firstOf(all []source) (source, error) {
	var why []error
	for _, s := range all {
		err := s.probe()
		if err == nil {
			return s, nil
		}
		why = append(why, fmt.Errorf("%s: %w", s.name(), err))
		if !errors.Is(err, errNoTEE) {
			// It is there but does not work: a different remedy.
			return nil, &attest.Error{Code: attest.CodeAttesterFailed, Check: checkCollect, Err: errors.Join(why...), Hint: "allow DCAP attestation in the manifest of the enclave"}
		}
	}
	return nil, &attest.Error{Code: attest.CodeNoTEE, Check: checkCollect, Want: "an SGX enclave with Gramine or Occlum", Err: errors.Join(why...)}
}

// Source names the library operating system in use.
func (a *Attester) Source() string { return a.source.name() }

// Attest implements attest.Attester.
func (a *Attester) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	failed := func(err error) error {
		return &attest.Error{Code: attest.CodeAttesterFailed, Check: checkCollect, Subject: a.source.name(), Err: err}
	}
	if data.IsZero() {
		return nil, &attest.Error{Code: attest.CodeNoExpectation, Check: checkCollect, Got: "report data of zeros"}
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return nil, failed(ctx.Err())
	}
	if err := ctx.Err(); err != nil {
		return nil, failed(err)
	}
	quote, err := a.source.quote(data)
	if err != nil {
		return nil, failed(err)
	}
	ev, err := Evidence(quote, data)
	if err != nil {
		return nil, failed(err)
	}
	return ev, nil
}
