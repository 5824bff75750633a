package tpm

import (
	"context"
	"crypto/x509"
	"fmt"
	"io"
	"os"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

// Indices where Google Compute Engine keeps the templates and certificates of a vTPM's attestation keys.
var gceKeys = []struct{ template, certificate uint32 }{
	{0x01c10003, 0x01c10002}, // ECC
	{0x01c10001, 0x01c10000}, // RSA
}

// LogPath is where the kernel shows the firmware's event log.
const LogPath = "/sys/kernel/security/tpm0/binary_bios_measurements"

// Attester collects Evidence of format "tpm". It is safe for concurrent use; a TPM works on one quote at a time.
type Attester struct {
	device      *Device
	key         *key
	public      *Public
	certificate []byte
	pcrs        []int
	log         string
	turn        chan struct{}
}

var _ attest.Attester = (*Attester)(nil)

// NewAttester makes an Attester over the SHA-256 bank of the PCRs named, with the attestation key that the cloud
// provisioned, or else one of its own. log is the path of the firmware's event log; empty: none is sent along.
func NewAttester(device *Device, pcrs []int, log string) (*Attester, error) {
	pcrs, err := checkPCRs(pcrs)
	if err != nil {
		return nil, err
	}
	a := &Attester{device: device, pcrs: pcrs, log: log, turn: make(chan struct{}, 1)}
	for _, g := range gceKeys {
		// The absence of the template says that this is another cloud.
		if template, err := device.ReadIndex(g.template); err == nil {
			if a.key, err = device.create(template); err != nil {
				return nil, failed(err)
			}
			a.certificate, _ = device.ReadIndex(g.certificate)
			break
		}
	}
	if a.key == nil {
		if a.key, err = device.create(template()); err != nil {
			return nil, failed(err)
		}
	}
	if a.public, err = ParsePublic(a.key.public); err != nil {
		return nil, failed(err)
	}
	return a, nil
}

func checkPCRs(pcrs []int) ([]int, error) {
	pcrs = slices.Clone(pcrs)
	slices.Sort(pcrs)
	if len(pcrs) == 0 || pcrs[0] < 0 || pcrs[len(pcrs)-1] >= pcrCount || len(slices.Compact(slices.Clone(pcrs))) != len(pcrs) {
		return nil, attest.Refuse(attest.CodeSelection, checkCollect, fmt.Sprintf("PCRs %v", pcrs), "some of 0 to 23, each once")
	}
	return pcrs, nil
}

func failed(err error) error {
	return &attest.Error{Code: attest.CodeAttesterFailed, Check: checkCollect, Subject: "TPM", Err: err}
}

// AK is the attestation key, for an operator who wants to name it: the TPM's name of it, and its SubjectPublicKeyInfo.
func (a *Attester) AK() (name, spki []byte, err error) {
	spki, err = x509.MarshalPKIXPublicKey(a.public.Key)
	return a.public.Name, spki, err
}

// Close gives back the TPM.
func (a *Attester) Close() error { return a.device.Close() }

// Attest implements attest.Attester. What the TPM signs is the fold of data: many have no room for more.
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
	folded := data.Fold()
	message, signature, values, err := a.device.quote(a.key, folded[:foldedSize], a.pcrs)
	if err != nil {
		return nil, failed(err)
	}
	ev := &attest.Evidence{Format: Format, Raw: EncodeParts(map[Part][]byte{
		PartQuote: message, PartSignature: signature, PartPCRs: values, PartPublic: a.key.public,
	})}
	if len(a.certificate) > 0 {
		ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: a.certificate})
	}
	if ev.EventLog, err = ReadLog(a.log); err != nil {
		return nil, failed(err)
	}
	return ev, nil
}

// ReadLog reads an event log for Evidence: none where the path is empty or the log is larger than Evidence may carry.
func ReadLog(path string) ([]byte, error) {
	if path == "" {
		return nil, nil
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	log, err := io.ReadAll(io.LimitReader(f, attest.MaxEventLog+1))
	if err != nil || len(log) > attest.MaxEventLog {
		return nil, err
	}
	return log, nil
}
