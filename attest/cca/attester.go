package cca

import (
	"bytes"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// Attester collects Evidence from the realm management monitor under the realm it runs in. Platform keys are not stapled:
// a relying party trusts those that it names itself.
type Attester struct{ *tsm.Attester }

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester over configfs-tsm. The error has CodeNoTEE when this is no realm.
func NewAttester() (*Attester, error) {
	source, err := firstSource()
	if err != nil {
		return nil, err
	}
	return newAttester(source), nil
}

func newAttester(source tsm.Source) *Attester { return &Attester{tsm.NewAttester(source, evidence)} }

// Probe tells which interface NewAttester would use. The error has CodeNoTEE when there is none.
func Probe() (string, error) {
	source, err := firstSource()
	if err != nil {
		return "", err
	}
	return source.Name(), nil
}

func firstSource() (tsm.Source, error) {
	return tsm.First("an Arm CCA realm", tsm.NewConfigfs(tsm.ProviderCCA, MaxToken, 0))
}

func evidence(report tsm.Report, data attest.ReportData) (*attest.Evidence, error) {
	t, err := Parse(report.Out)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(t.Realm.Challenge, data[:]) {
		return nil, fmt.Errorf("a token over other data, %.8x", []byte(t.Realm.Challenge))
	}
	return &attest.Evidence{Format: Format, Raw: report.Out}, nil
}
