package tsm

import (
	"context"
	"errors"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// check is the identifier of every failure to collect.
const check = "attester"

// ErrAbsent says that a source is not there at all, as opposed to one that does not work.
var ErrAbsent = errors.New("not present")

// Report is what a source gave for one request. The host may have written all of Aux.
type Report struct {
	Out []byte // in the TEE's format, signed by the hardware
	Aux []byte // beside it, unsigned, such as a certificate table; empty where there is none
}

// Source asks the platform for one report over data.
type Source interface {
	Name() string
	Probe() error // wraps ErrAbsent when the source is not there
	Collect(ctx context.Context, data attest.ReportData) (Report, error)
}

// First returns the first source that is there. The error has CodeNoTEE when none is; want says what was looked for.
func First(want string, sources ...Source) (Source, error) {
	var why []error
	for _, s := range sources {
		err := s.Probe()
		if err == nil {
			return s, nil
		}
		why = append(why, fmt.Errorf("%s: %w", s.Name(), err))
		if !errors.Is(err, ErrAbsent) {
			// It is there but does not work: a different remedy.
			return nil, &attest.Error{Code: attest.CodeAttesterFailed, Check: check, Err: errors.Join(why...), Hint: "run as a user who may use it"}
		}
	}
	return nil, &attest.Error{Code: attest.CodeNoTEE, Check: check, Want: want, Err: errors.Join(why...)}
}
