package nitro

import (
	"bytes"
	"context"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// SourceDevice is the source of documents, as Probe names it.
const SourceDevice = "nsm"

// Attester collects Evidence from the Nitro Security Module of the enclave it runs in. A document carries its whole chain:
// there is nothing to staple.
type Attester struct{ *tsm.Attester }

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester over the kernel's device. The error has CodeNoTEE when there is none.
func NewAttester() (*Attester, error) {
	source, err := firstSource()
	if err != nil {
		return nil, err
	}
	return &Attester{tsm.NewAttester(source, evidence)}, nil
}

// Probe tells which interface NewAttester would use. The error has CodeNoTEE when there is none.
func Probe() (string, error) {
	source, err := firstSource()
	if err != nil {
		return "", err
	}
	return source.Name(), nil
}

func firstSource() (tsm.Source, error) { return tsm.First("a Nitro Enclave", sources()...) }

func evidence(report tsm.Report, data attest.ReportData) (*attest.Evidence, error) {
	d, err := Parse(report.Out)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(d.UserData, data[:]) {
		return nil, fmt.Errorf("a document over other data, %.8x", []byte(d.UserData))
	}
	return &attest.Evidence{Format: Format, Raw: report.Out}, nil
}

// module is the Nitro Security Module: it answers one request in CBOR.
type module interface {
	probe() error // wraps tsm.ErrAbsent when it is not there
	ask(request []byte) (response []byte, err error)
}

// device is the module as a source of documents.
type device struct{ module }

func (device) Name() string   { return SourceDevice }
func (d device) Probe() error { return d.probe() }

// Collect implements tsm.Source.
func (d device) Collect(_ context.Context, data attest.ReportData) (tsm.Report, error) {
	response, err := d.ask(encodeRequest(data))
	if err != nil {
		return tsm.Report{}, err
	}
	document, err := decodeResponse(response)
	return tsm.Report{Out: document}, err
}
