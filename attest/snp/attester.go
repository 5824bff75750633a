package snp

import (
	"bytes"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// Sources of reports, as Probe names them.
const (
	SourceTSM    = tsm.SourceName
	SourceDevice = "sev-guest"
)

// Attester collects Evidence from the firmware of the machine it runs on. It staples the certificates that the host
// supplies where they fit the report; see Staple for the others.
type Attester struct{ *tsm.Attester }

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester over the first interface of the kernel that is there. The error has CodeNoTEE when none is.
func NewAttester() (*Attester, error) {
	source, err := firstSource()
	if err != nil {
		return nil, err
	}
	return newAttester(source), nil
}

func newAttester(source tsm.Source) *Attester {
	return &Attester{tsm.NewAttester(source, evidence)}
}

// Probe tells which interface NewAttester would use. The error has CodeNoTEE when there is none.
func Probe() (string, error) {
	source, err := firstSource()
	if err != nil {
		return "", err
	}
	return source.Name(), nil
}

func firstSource() (tsm.Source, error) { return tsm.First("an SEV-SNP guest", sources()...) }

func evidence(report tsm.Report, data attest.ReportData) (*attest.Evidence, error) {
	r, err := Parse(report.Out)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(r.ReportData, data[:]) {
		return nil, fmt.Errorf("report over other data, %s", attest.Abbreviate(r.ReportData))
	}
	ev := &attest.Evidence{Format: Format, Raw: report.Out}
	// A table that does not decode is the host's fault and no reason to fail: its certificates can be fetched.
	entries, _ := parseCertTable(report.Aux)
	ev.Endorsements = endorsements(r, entries)
	return ev, nil
}
