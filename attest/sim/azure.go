package sim

import (
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/attest/tpm"
)

func azureSNPKind() kind {
	return kind{
		name:   string(azure.FormatSNP),
		syntax: "azure-snp, as snp, and with pcr0=HEX to pcr23=HEX: the measurement is the paravisor's, the PCRs are the guest's",
		open:   openAzureSNP,
		check: func(s *Spec) error {
			hardware, err := newSoftTPM(nil, time.Time{}).take(s)
			if err != nil {
				return err
			}
			return checkSNP(hardware)
		},
		root: snpRoot,
		verifier: func(root []byte) (attest.Verifier, error) {
			hardware, err := snpVerifier(root)
			if err != nil {
				return nil, err
			}
			return azure.NewSNPVerifier(hardware), nil
		},
	}
}

// azureMachine is a simulated SEV-SNP machine whose guest is a paravisor, which emulates a TPM for another guest.
type azureMachine struct {
	*Platform
	soft *softTPM
	hcl  []byte
	now  func() time.Time
}

func openAzureSNP(s *Spec) (Machine, error) {
	ak, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	m := &azureMachine{soft: newSoftTPM(ak, time.Time{})}
	hardware, err := m.soft.take(s)
	if err != nil {
		return nil, err
	}
	cfg, err := snpConfig(hardware)
	if err != nil {
		return nil, err
	}
	if m.Platform, err = New(cfg); err != nil {
		return nil, err
	}
	m.now = m.config.Now
	m.soft.start = m.now()
	m.hcl, err = m.makeHCL(&ak.PublicKey)
	return m, err
}

// take takes the options of the TPM, and answers a spec with those of the hardware.
func (t *softTPM) take(s *Spec) (*Spec, error) {
	hardware := *s
	hardware.options = nil
	for _, o := range s.options {
		mine, err := t.set(o)
		if err != nil {
			return nil, err
		}
		if !mine {
			hardware.options = append(hardware.options, o)
		}
	}
	return &hardware, nil
}

// makeHCL writes an HCL report whose runtime claims hold the key of the vTPM: the paravisor makes it once, at its start.
func (m *azureMachine) makeHCL(ak *rsa.PublicKey) ([]byte, error) {
	id := make([]byte, 16)
	_, _ = rand.Read(id)
	claims, err := json.Marshal(map[string]any{
		"keys": []any{map[string]any{
			"kid": "HCLAkPub", "key_ops": []string{"sign"}, "kty": "RSA", "e": "AQAB", "n": base64.RawURLEncoding.EncodeToString(ak.N.Bytes()),
		}},
		"vm-configuration": map[string]any{"tpm-enabled": true, "vmUniqueId": "SIMULATED-" + attest.HexBytes(id).String()},
	})
	if err != nil {
		return nil, err
	}
	var data attest.ReportData
	sum := sha256.Sum256(claims)
	copy(data[:], sum[:])
	hardware, err := m.report(data)
	if err != nil {
		return nil, err
	}
	const requestSize = 20
	le := binary.LittleEndian
	out := []byte("HCLA")
	for _, v := range []uint32{2, uint32(32 + snp.ReportSize + requestSize + len(claims)), 2, 0, 0, 0, 0} { // version, size, AK_CERT_REQUEST
		out = le.AppendUint32(out, v)
	}
	out = append(out, hardware...)
	for _, v := range []uint32{uint32(requestSize + len(claims)), 1, 2, 1, uint32(len(claims))} { // size, version, SNP, SHA-256
		out = le.AppendUint32(out, v)
	}
	return append(out, claims...), nil
}

// Attest implements attest.Attester. The endorsements of the processor are stapled.
func (m *azureMachine) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	return m.pace.attest(ctx, data, func() (*attest.Evidence, error) {
		ev, err := m.evidence(data)
		if err != nil {
			return nil, err
		}
		parts, err := m.soft.quote(data, m.now())
		if err != nil {
			return nil, err
		}
		parts[tpm.PartHCL] = m.hcl
		ev.Format, ev.Raw = simulated+azure.FormatSNP, tpm.EncodeParts(parts)
		return ev, nil
	})
}

// String describes the machine for a log line.
func (m *azureMachine) String() string { return m.Platform.String() + ", under Azure's paravisor" }
