package azure

import (
	"context"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
)

// What the paravisor put into the guest's vTPM.
const (
	indexHCL = 0x01400001
	handleAK = 0x81000003
)

// QuoteTD has the host's quoting service make a TD quote from a TDREPORT.
type QuoteTD func(ctx context.Context, tdReport []byte) ([]byte, error)

// Attester collects Evidence inside one of Azure's confidential VMs. It is safe for concurrent use; the vTPM works on one
// quote at a time.
type Attester struct {
	device  *tpm.Device
	format  attest.Format
	hcl     []byte
	tdInput []byte
	pcrs    []int
	log     string
	quoteTD QuoteTD
	turn    chan struct{}
}

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester over the SHA-256 bank of the PCRs named. The error has CodeNoTEE where the vTPM is not
// that of a confidential VM. log is the path of the firmware's event log, such as tpm.LogPath; empty: none is sent along.
// quoteTD is used on TDX alone.
func NewAttester(device *tpm.Device, pcrs []int, log string, quoteTD QuoteTD) (*Attester, error) {
	padded, err := device.ReadIndex(indexHCL)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeNoTEE, Check: checkCollect, Want: "a confidential VM of Azure", Err: err}
	}
	a := &Attester{device: device, hcl: trim(padded), pcrs: pcrs, log: log, quoteTD: quoteTD, turn: make(chan struct{}, 1)}
	hcl, err := ParseHCL(a.hcl)
	if err != nil {
		return nil, failed(err)
	}
	switch hcl.kind {
	case reportSNP:
		a.format = FormatSNP
	case reportTDX:
		a.format, a.tdInput = FormatTDX, hcl.Hardware[:tdReportSize]
	default:
		return nil, &attest.Error{Code: attest.CodeNoTEE, Check: checkCollect, Want: "a confidential VM of Azure with SEV-SNP or TDX"}
	}
	return a, nil
}

func failed(err error) error {
	return &attest.Error{Code: attest.CodeAttesterFailed, Check: checkCollect, Subject: "Azure vTPM", Err: err}
}

// Format of the Evidence that it collects.
func (a *Attester) Format() attest.Format { return a.format }

// Close gives back the TPM.
func (a *Attester) Close() error { return a.device.Close() }

// Attest implements attest.Attester. What the vTPM signs is the fold of data.
func (a *Attester) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	if data.IsZero() {
		return nil, attest.Refuse(attest.CodeNoExpectation, checkCollect, "report data of zeros", "")
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return nil, failed(ctx.Err())
	}
	parts, err := a.device.QuoteBy(handleAK, data, a.pcrs)
	if err != nil {
		return nil, err
	}
	parts[tpm.PartHCL] = a.hcl
	if a.format == FormatTDX {
		if parts[tpm.PartTDQuote], err = a.quoteTD(ctx, a.tdInput); err != nil {
			return nil, failed(err)
		}
	}
	ev := &attest.Evidence{Format: a.format, Raw: tpm.EncodeParts(parts)}
	ev.EventLog, err = tpm.ReadLog(a.log)
	if err != nil {
		return nil, failed(err)
	}
	return ev, nil
}
