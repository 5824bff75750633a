package judge

import (
	"context"
	"fmt"
	"maps"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/attest/tpm"
)

// Format is one format of evidence: how to decode it for people, and how to complete what a bare file lacks.
type Format struct {
	Name  attest.Format
	parse func(raw []byte) (any, error)
	// normal gives the evidence that a file of this format holds.
	normal func(raw []byte) []byte
	// Log tells whether it has registers that a log of what was measured leads to.
	Log bool
}

// formats are those of hardware, in the order in which an unnamed file is tried. A simulated platform's are the same with
// "sim-" before the name.
func formats() []Format {
	same := func(raw []byte) []byte { return raw }
	return []Format{
		{snp.Format, func(raw []byte) (any, error) { return snp.Parse(raw) }, same, false},
		{tdx.Format, func(raw []byte) (any, error) { return tdx.Parse(raw) }, same, true},
		{sgx.Format, func(raw []byte) (any, error) { return sgx.Parse(raw) }, same, false},
		{nitro.Format, func(raw []byte) (any, error) { return nitro.Parse(raw) }, nitro.Unwrap, false},
		{cca.Format, func(raw []byte) (any, error) { return cca.Parse(raw) }, same, false},
		{azure.FormatSNP, func(raw []byte) (any, error) { return azure.Parse(azure.FormatSNP, raw) }, same, true},
		{azure.FormatTDX, func(raw []byte) (any, error) { return azure.Parse(azure.FormatTDX, raw) }, same, true},
		{tpm.Format, func(raw []byte) (any, error) { return tpm.Parse(raw) }, same, true},
	}
}

// SimulatedPrefix stands before the format of a simulated platform.
const SimulatedPrefix = "sim-"

// FormatNamed finds a format by its name, with or without SimulatedPrefix; nil when there is none.
func FormatNamed(name attest.Format) *Format {
	name = attest.Format(strings.TrimPrefix(string(name), SimulatedPrefix))
	for _, f := range formats() {
		if f.Name == name {
			return &f
		}
	}
	return nil
}

// FormatNames are what --format takes.
func FormatNames() string {
	var names []string
	for _, f := range formats() {
		names = append(names, string(f.Name))
	}
	return strings.Join(names, ", ") + ", and sim- before each of them"
}

// LogFormats are those that --event-log goes with.
func LogFormats() string {
	var names []string
	for _, f := range formats() {
		if f.Log {
			names = append(names, string(f.Name))
		}
	}
	return strings.Join(names, ", ")
}

// GuessFormat finds the format that a file decodes as; nil when none.
func GuessFormat(raw []byte) *Format {
	for _, f := range formats() {
		packed, err := f.Pack(raw, nil)
		if err != nil {
			continue
		}
		if _, err := f.parse(packed); err == nil {
			return &f
		}
	}
	return nil
}

// Pack makes raw evidence of a file and of the parts that an operator gives beside it.
func (f *Format) Pack(raw []byte, parts map[string][]byte) ([]byte, error) {
	switch f.Name {
	case azure.FormatSNP, azure.FormatTDX:
		if len(parts) == 0 && !strings.HasPrefix(string(raw), "HCLA") {
			return raw, nil // packed already
		}
		files := maps.Clone(parts)
		if files == nil {
			files = map[string][]byte{}
		}
		files[azure.NameHCL] = raw
		return azure.Pack(files)
	}
	if len(parts) > 0 {
		return nil, wrong("parts belong to the formats %s and %s", azure.FormatSNP, azure.FormatTDX)
	}
	return f.normal(raw), nil
}

// Trust is what an operator trusts beside the vendors' roots that are built in.
type Trust struct {
	simulation []string   // roots that the policy names
	tpm        *tpm.Roots // authorities for TPM keys; nil for none
	keys       []cca.Key  // platform keys of Arm CCA
}

// Trusting gathers what the policy and the operator name. Public keys are asked of the operator's files only: no vendor's
// service has any, and a record never answers for one.
func Trusting(endorser attest.Endorser, tpmRoots *tpm.Roots, simulation []string) Trust {
	t := Trust{simulation: simulation, tpm: tpmRoots}
	keys, err := endorser.Endorse(context.Background(), attest.Ref{Service: "arm-cca", Path: "/cpak", Kind: attest.KindPublicKey})
	if err != nil {
		return t
	}
	for _, k := range keys {
		if key := (cca.Key{SPKI: k.Raw}); k.Kind == attest.KindPublicKey {
			if _, err := cca.NewKeys(key); err == nil { // a key of another TEE is no anchor here
				t.keys = append(t.keys, key)
			}
		}
	}
	return t
}

// Verifiers of this build. Simulated evidence is verified only under the roots that the policy names.
func (t Trust) Verifiers() []attest.Verifier {
	hardware, intel := snp.NewVerifier(snp.AMDRoots()), tdx.NewVerifier(dcap.IntelRoots())
	keys, _ := cca.NewKeys(t.keys...) // each was tried before
	var verifiers []attest.Verifier
	if len(t.simulation) > 0 {
		verifiers = append(verifiers, sim.NewForeignVerifier(t.simulation)) // before those of hardware, which would refuse the root
	}
	return append(
		verifiers,
		hardware, intel, sgx.NewVerifier(dcap.IntelRoots()), nitro.NewVerifier(nitro.AWSRoots()), cca.NewVerifier(keys),
		azure.NewSNPVerifier(hardware), azure.NewTDXVerifier(intel), tpm.NewVerifier(t.tpm), sim.NewVerifier(t.simulation),
	)
}

// Decode decodes evidence for people. Nothing in it has been checked.
func Decode(ev *attest.Evidence) (any, error) {
	f := FormatNamed(ev.Format)
	if f == nil {
		return nil, &attest.Error{Code: attest.CodeUnknownFormat, Check: "evidence", Got: fmt.Sprintf("%.40q", string(ev.Format)), Want: FormatNames()}
	}
	return f.parse(ev.Raw)
}
