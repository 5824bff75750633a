package tdx

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tsm"
)

// Sources of quotes, as Probe names them.
const (
	SourceTSM = tsm.SourceName
	SourceQGS = "quote generation service"
)

// collected is the format of the Evidence.
const collected attest.Format = "tdx"

// ccelPath is where the kernel shows the log of the firmware's measurements (ACPI 6.5 §5.2.34, CCEL).
const ccelPath = "/sys/firmware/acpi/tables/data/CCEL"

// Attester collects Evidence from the TDX module of the machine it runs on, with the firmware's event log where the kernel
// shows one.
type Attester struct{ *tsm.Attester }

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester over the first interface that is there. The error has CodeNoTEE when none is.
func NewAttester() (*Attester, error) {
	source, err := firstSource()
	if err != nil {
		return nil, err
	}
	return newAttester(source, ccelPath), nil
}

// Probe tells which interface NewAttester would use. The error has CodeNoTEE when there is none.
func Probe() (string, error) {
	source, err := firstSource()
	if err != nil {
		return "", err
	}
	return source.Name(), nil
}

func firstSource() (tsm.Source, error) { return tsm.First("a TDX guest", sources()...) }

func newAttester(source tsm.Source, ccel string) *Attester {
	return &Attester{tsm.NewAttester(source, func(r tsm.Report, data attest.ReportData) (*attest.Evidence, error) {
		got, err := signedData(r.Out)
		if err != nil {
			return nil, err
		}
		if !bytes.Equal(got, data[:]) {
			return nil, fmt.Errorf("quote over other data, %x…", got[:4])
		}
		log, err := tsm.ReadFile(ccel, attest.MaxEventLog)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		return &attest.Evidence{Format: collected, Raw: r.Out, EventLog: log}, nil
	})}
}

// signedData finds REPORTDATA in a quote: the last 64 bytes of the 584 that every version of the TD report body begins
// with (Intel TDX DCAP quoting library API, appendix 3). Nothing of the quote is verified.
func signedData(quote []byte) ([]byte, error) {
	const header, body, size = 48, 584, 64
	at := header
	if len(quote) < at {
		return nil, fmt.Errorf("a quote of %d bytes", len(quote))
	}
	switch version := binary.LittleEndian.Uint16(quote); version {
	case 4:
	case 5:
		at += 6 // type and size of the body
	default:
		return nil, fmt.Errorf("a quote of version %d", version)
	}
	if len(quote) < at+body {
		return nil, fmt.Errorf("a quote of %d bytes", len(quote))
	}
	return quote[at+body-size : at+body], nil
}
