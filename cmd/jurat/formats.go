package main

import (
	"context"
	"encoding/json"
	"encoding/pem"
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

// format is one format of evidence: how to decode it for people, and how to complete what a bare file lacks.
type format struct {
	name  attest.Format
	parse func(raw []byte) (any, error)
	// normal gives the evidence that a file of this format holds.
	normal func(raw []byte) []byte
	// log tells whether it has registers that a log of what was measured leads to.
	log bool
}

// formats are those of hardware, in the order in which an unnamed file is tried. A simulated platform's are the same with
// "sim-" before the name.
func formats() []format {
	same := func(raw []byte) []byte { return raw }
	return []format{
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

const simulatedPrefix = "sim-"

func formatNamed(name attest.Format) *format {
	name = attest.Format(strings.TrimPrefix(string(name), simulatedPrefix))
	for _, f := range formats() {
		if f.name == name {
			return &f
		}
	}
	return nil
}

// formatNames are what --format takes.
func formatNames() string {
	var names []string
	for _, f := range formats() {
		names = append(names, string(f.name))
	}
	return strings.Join(names, ", ") + ", and sim- before each of them"
}

// logFormats are those that --event-log goes with.
func logFormats() string {
	var names []string
	for _, f := range formats() {
		if f.log {
			names = append(names, string(f.name))
		}
	}
	return strings.Join(names, ", ")
}

// guessFormat finds the format that a file decodes as; nil when none.
func guessFormat(raw []byte) *format {
	for _, f := range formats() {
		packed, err := f.pack(raw, nil)
		if err != nil {
			continue
		}
		if _, err := f.parse(packed); err == nil {
			return &f
		}
	}
	return nil
}

// pack makes raw evidence of a file and of the parts that an operator gives beside it.
func (f *format) pack(raw []byte, parts map[string][]byte) ([]byte, error) {
	switch f.name {
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
		return nil, usageError("--part belongs to the formats %s and %s", azure.FormatSNP, azure.FormatTDX)
	}
	return f.normal(raw), nil
}

// trust is what an operator trusts beside the vendors' roots that are built in.
type trust struct {
	simulation []string   // roots that the policy names
	tpm        *tpm.Roots // authorities for TPM keys; nil for none
	keys       []cca.Key  // platform keys of Arm CCA
}

// trusting gathers what the policy and the operator name. Public keys are asked of the operator's files only: no vendor's
// service has any, and a record never answers for one.
func trusting(endorser attest.Endorser, tpmRoots *tpm.Roots, simulation []string) trust {
	t := trust{simulation: simulation, tpm: tpmRoots}
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

// verifiers of this build. Simulated evidence is verified only under the roots that the policy names.
func (t trust) verifiers() []attest.Verifier {
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

// tpmRoots reads the certificates of authorities for TPM keys.
func (a *app) readTPMRoots(files []string) (*tpm.Roots, error) {
	if len(files) == 0 {
		return nil, nil
	}
	var ders [][]byte
	for _, file := range files {
		raw, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		block, rest := pem.Decode(raw)
		if block == nil {
			ders = append(ders, raw)
		}
		for ; block != nil; block, rest = pem.Decode(rest) {
			ders = append(ders, block.Bytes)
		}
	}
	return tpm.NewRoots(ders...)
}

// rows flattens decoded evidence for people: one line for each value, named by the way to it.
func rows(decoded any) ([][2]string, error) {
	raw, err := json.Marshal(decoded)
	if err != nil {
		return nil, err
	}
	dec := json.NewDecoder(strings.NewReader(string(raw)))
	dec.UseNumber()
	var out [][2]string
	if err := flatten(dec, "", &out); err != nil {
		return nil, err
	}
	return out, nil
}

// flatten reads one value in the order in which it is written.
func flatten(dec *json.Decoder, name string, out *[][2]string) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	delim, nested := tok.(json.Delim)
	if !nested {
		if tok != nil && tok != "" {
			*out = append(*out, [2]string{name, fmt.Sprint(tok)})
		}
		return nil
	}
	for i := 0; dec.More(); i++ {
		key := fmt.Sprint(i)
		if delim == '{' {
			tok, err := dec.Token()
			if err != nil {
				return err
			}
			key, _ = tok.(string)
		}
		if err := flatten(dec, strings.TrimSpace(name+" "+strings.ReplaceAll(key, "_", " ")), out); err != nil {
			return err
		}
	}
	_, err = dec.Token()
	return err
}

// parts reads NAME=FILE.
func (a *app) parts(list []string) (map[string][]byte, error) {
	var out map[string][]byte
	for _, p := range list {
		name, file, ok := strings.Cut(p, "=")
		if !ok || name == "" || out[name] != nil {
			return nil, usageError("--part %.60q is no NAME=FILE, or the name stands twice", p)
		}
		raw, err := a.readFile(file)
		if err != nil {
			return nil, err
		}
		if out == nil {
			out = map[string][]byte{}
		}
		out[name] = raw
	}
	return out, nil
}

// decode decodes evidence for people.
func decode(ev *attest.Evidence) (any, error) {
	f := formatNamed(ev.Format)
	if f == nil {
		return nil, &attest.Error{Code: attest.CodeUnknownFormat, Check: "evidence", Got: fmt.Sprintf("%.40q", string(ev.Format)), Want: formatNames()}
	}
	return f.parse(ev.Raw)
}
