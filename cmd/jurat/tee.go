package main

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/attest/seal"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/attest/sgx/collect"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/attest/tpm"
)

// teeUsage describes the value of --tee.
func teeUsage() string {
	return "`platform` that makes our evidence: auto, " + strings.Join(teeNames(), ", ") + ", or " + sim.Syntax()
}

// platform makes our evidence.
type platform struct {
	attest.Attester
	name      string
	simulated bool
}

// staple adds a vendor's endorsements to evidence.
type staple func(context.Context, *attest.Evidence, attest.Endorser) (*attest.Evidence, error)

// tee is one kind of hardware.
type tee struct {
	name string
	auto bool // whether "auto" may choose it
	// probe tells through which interface it is reached; an error with CodeNoTEE where it is not here.
	probe  func() (string, error)
	open   func() (attest.Attester, error)
	staple staple // nil where the evidence carries all that there is
	// seal gives keys to seal with; nil where the hardware has none.
	seal func() (seal.Source, error)
}

// hardware is the table of TEEs, in the order in which "auto" looks for them. A bare TPM measures a boot and encrypts no
// memory: it has to be asked for by name.
func hardware() []tee {
	return []tee{
		{string(snp.Format), true, snp.Probe, func() (attest.Attester, error) { return snp.NewAttester() }, snp.Staple, sealByChip},
		{string(tdx.Format), true, tdx.Probe, func() (attest.Attester, error) { return tdx.NewAttester() }, tdx.Staple, nil},
		{string(cca.Format), true, cca.Probe, func() (attest.Attester, error) { return cca.NewAttester() }, nil, nil},
		{string(nitro.Format), true, nitro.Probe, func() (attest.Attester, error) { return nitro.NewAttester() }, nil, nil},
		{string(sgx.Format), true, collect.Probe, func() (attest.Attester, error) { return collect.NewAttester() }, sgx.Staple, sealByEnclave},
		{"ego", builtForEGo, probeEGo, openEGo, sgx.Staple, sealByEGo},
		{"azure", true, probeAzure, openAzure, nil, sealByTPM},
		{string(tpm.Format), false, probeTPM, openTPM, nil, sealByTPM},
	}
}

// quotedPCRs are those of the firmware, the boot loader and the kernel.
func quotedPCRs() []int { return []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14} }

func probeTPM() (string, error) {
	device, err := tpm.Open(tpm.DevicePath)
	if err != nil {
		return "", err
	}
	return tpm.DevicePath, device.Close()
}

func openTPM() (attest.Attester, error) {
	device, err := tpm.Open(tpm.DevicePath)
	if err != nil {
		return nil, err
	}
	return tpm.NewAttester(device, quotedPCRs(), tpm.LogPath)
}

func probeAzure() (string, error) {
	a, err := newAzure()
	if err != nil {
		return "", err
	}
	return string(a.Format()) + " through " + tpm.DevicePath, a.Close()
}

func openAzure() (attest.Attester, error) { return newAzure() }

func newAzure() (*azure.Attester, error) {
	device, err := tpm.Open(tpm.DevicePath)
	if err != nil {
		return nil, err
	}
	return azure.NewAttester(device, quotedPCRs(), tpm.LogPath, azure.QuoteThrough(&http.Client{Timeout: quoteTimeout}, azure.MetadataService))
}

func teeNames() []string {
	var names []string
	for _, t := range hardware() {
		names = append(names, t.name)
	}
	return names
}

func teeName(spec string) string {
	name, _, _ := strings.Cut(spec, ",")
	name, _, _ = strings.Cut(name, ":")
	return name
}

func teeNamed(name string) *tee {
	for _, t := range hardware() {
		if t.name == name {
			return &t
		}
	}
	return nil
}

// checkTEE checks the value of --tee as far as that goes without opening the platform.
func checkTEE(spec string) error {
	name := teeName(spec)
	switch {
	case name == "sim":
		machine, err := sim.ParseSpec(spec)
		if err != nil {
			return err
		}
		return machine.Check()
	case name != "auto" && teeNamed(name) == nil:
		return usageError("--tee %.40q is not known; it is auto, %s or sim", spec, strings.Join(teeNames(), ", "))
	case name != spec:
		return usageError("--tee %s takes no options", name)
	}
	return nil
}

// find chooses the TEE that "auto" means here. One that is here and does not work is not passed over for another.
func find() (*tee, error) {
	var absent []error
	for _, t := range hardware() {
		if !t.auto {
			continue
		}
		_, err := t.probe()
		if err == nil {
			return &t, nil
		}
		if attest.CodeOf(err) != attest.CodeNoTEE {
			return nil, err
		}
		absent = append(absent, err)
	}
	return nil, &attest.Error{Code: attest.CodeNoTEE, Check: "attester.collect", Want: "a confidential VM or an enclave", Err: errors.Join(absent...)}
}

// openTEE opens the platform that spec names. "auto" is the hardware that is here and never a simulation: a proxy that
// silently proved nothing would be worse than one that does not start.
func openTEE(spec string, endorser attest.Endorser, log *slog.Logger) (*platform, error) {
	if err := checkTEE(spec); err != nil {
		return nil, err
	}
	name := teeName(spec)
	if name == "sim" {
		return openSimulation(spec)
	}
	t := teeNamed(name)
	if name == "auto" {
		var err error
		if t, err = find(); err != nil {
			return nil, err
		}
	}
	attester, err := t.open()
	if err != nil {
		return nil, err
	}
	if t.staple != nil {
		attester = &stapler{attester, t.staple, endorser, log}
	}
	return &platform{Attester: attester, name: t.name}, nil
}

func openSimulation(spec string) (*platform, error) {
	p, err := openMachine(spec)
	if err != nil {
		return nil, err
	}
	return &platform{Attester: p, name: p.String(), simulated: true}, nil
}

func openMachine(spec string) (sim.Machine, error) {
	machine, err := sim.ParseSpec(spec)
	if err != nil {
		return nil, err
	}
	if machine.Dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return nil, usageError("no directory for the simulated root: %v; say --tee sim,dir=PATH", err)
		}
		machine.Dir = filepath.Join(cache, "jurat", "sim")
	}
	return machine.Open()
}

// stapler adds the vendor's endorsements to evidence, so that relying parties need not ask the vendor. Without them the
// evidence is as good; a relying party then fetches them itself.
type stapler struct {
	attest.Attester
	staple   staple
	endorser attest.Endorser
	log      *slog.Logger
}

// Attest implements attest.Attester.
func (s *stapler) Attest(ctx context.Context, data attest.ReportData) (*attest.Evidence, error) {
	ev, err := s.Attester.Attest(ctx, data)
	if err != nil {
		return nil, err
	}
	stapled, err := s.staple(ctx, ev, s.endorser)
	if err != nil {
		var coded *attest.Error
		if !errors.As(err, &coded) || !coded.Code.Undecidable() {
			return nil, err
		}
		s.log.Warn("endorsements not stapled", "code", coded.Code, "error", err.Error())
		if stapled == nil {
			return ev, nil
		}
	}
	return stapled, nil
}
