package snp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

// Sources of reports, as Probe names them.
const (
	SourceTSM    = "configfs-tsm"
	SourceDevice = "sev-guest"
)

// Paths of the kernel's two interfaces.
const (
	tsmDirectory = "/sys/kernel/config/tsm/report"
	devicePath   = "/dev/sev-guest"
)

// errNoTEE says that a source is not there at all.
var errNoTEE = errors.New("not present")

// collector asks the firmware for one report over data, and the host for its certificate table.
type collector interface {
	name() string
	probe() error // wraps errNoTEE when the source is not there
	collect(ctx context.Context, data attest.ReportData) (report, table []byte, err error)
}

// Attester collects Evidence from the firmware of the machine it runs on. It is safe for concurrent use; the firmware
// works on one report at a time, and so does the Attester.
type Attester struct {
	source collector
	turn   chan struct{}
}

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester over the first interface of the kernel that is there. The error has CodeNoTEE when none is.
func NewAttester() (*Attester, error) {
	source, err := firstOf(collectors())
	if err != nil {
		return nil, err
	}
	return newAttester(source), nil
}

func newAttester(source collector) *Attester {
	return &Attester{source: source, turn: make(chan struct{}, 1)}
}

// Probe tells which interface NewAttester would use. The error has CodeNoTEE when there is none.
func Probe() (string, error) {
	source, err := firstOf(collectors())
	if err != nil {
		return "", err
	}
	return source.name(), nil
}

func firstOf(sources []collector) (collector, error) {
	var why []error
	for _, c := range sources {
		err := c.probe()
		if err == nil {
			return c, nil
		}
		why = append(why, fmt.Errorf("%s: %w", c.name(), err))
		if !errors.Is(err, errNoTEE) {
			// It is there but does not work: a different remedy.
			return nil, &attest.Error{Code: attest.CodeAttesterFailed, Check: checkCollect, Err: errors.Join(why...), Hint: "run as a user who may use it"}
		}
	}
	return nil, &attest.Error{Code: attest.CodeNoTEE, Check: checkCollect, Want: "an SEV-SNP guest", Err: errors.Join(why...)}
}

// Source names the interface in use.
func (a *Attester) Source() string { return a.source.name() }

// Attest implements attest.Attester. It staples the certificates that the host supplies where they fit the report; see
// Staple for the others.
func (a *Attester) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	failed := func(err error) error {
		return &attest.Error{Code: attest.CodeAttesterFailed, Check: checkCollect, Subject: a.source.name(), Err: err}
	}
	if data.IsZero() {
		return nil, refuse(attest.CodeNoExpectation, checkCollect, "report data of zeros", "")
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
	raw, table, err := a.source.collect(ctx, data)
	if err != nil {
		return nil, failed(err)
	}
	r, err := Parse(raw)
	if err != nil {
		return nil, failed(err)
	}
	if !bytes.Equal(r.ReportData, data[:]) {
		return nil, failed(fmt.Errorf("report over other data, %s", abbreviate(r.ReportData)))
	}
	ev := &attest.Evidence{Format: Format, Raw: slices.Clone(raw)}
	if entries, err := parseCertTable(table); err == nil {
		ev.Endorsements = endorsements(r, entries)
	}
	return ev, nil
}
