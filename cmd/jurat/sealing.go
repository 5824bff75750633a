package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"slices"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/seal"
	"github.com/jurat-tls/jurat/attest/sgx/collect"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/attest/tpm"
	"github.com/jurat-tls/jurat/internal/durable"
)

// openSealer makes the sealer of the platform that spec names, as openTEE does. The error has CodeNoSealing where that has no key to seal with.
func openSealer(spec string) (*seal.Sealer, error) {
	if err := checkTEE(spec); err != nil {
		return nil, err
	}
	name := teeName(spec)
	if name == "sim" {
		machine, err := openMachine(spec)
		if err != nil {
			return nil, err
		}
		source, err := sim.NewKeySource(machine)
		if err != nil {
			return nil, err
		}
		return seal.New(name, source)
	}
	t := teeNamed(name)
	if name == "auto" {
		var err error
		if t, err = find(); err != nil {
			return nil, err
		}
	}
	if t.seal == nil {
		return nil, noSealing(t.name)
	}
	source, err := t.seal()
	if err != nil {
		return nil, err
	}
	return seal.New(t.name, source)
}

// seals reports whether the platform that spec names can have a key to seal with, as far as the name tells.
func seals(spec string) bool {
	t := teeNamed(teeName(spec))
	return spec != "" && (t == nil || t.seal != nil)
}

func noSealing(tee string) error {
	return attest.Refuse(attest.CodeNoSealing, "seal", fmt.Sprintf("%s, which has no key to seal with", cmp.Or(tee, "no TEE")), "snp, sgx with Gramine, ego, azure or tpm")
}

func sealByChip() (seal.Source, error) { return snp.KeySource{}, nil }

// sealByEnclave seals for this very enclave: what has another measurement attests to something else.
func sealByEnclave() (seal.Source, error) { return collect.NewKeySource(collect.Unique) }

func sealByTPM() (seal.Source, error) { return tpmKeys{}, nil }

// tpmKeys opens the TPM for each key, which is asked for once in a process.
type tpmKeys struct{}

// sealedPCRs are those that are quoted, but for the one that grows with every file that IMA measures.
func sealedPCRs() []int {
	return slices.DeleteFunc(quotedPCRs(), func(n int) bool { return n == 10 })
}

// Root implements seal.Source.
func (tpmKeys) Root(hint []byte) (root, again []byte, err error) {
	device, err := tpm.Open(tpm.DevicePath)
	if err != nil {
		return nil, nil, err
	}
	defer device.Close()
	source, err := tpm.NewKeySource(device, sealedPCRs())
	if err != nil {
		return nil, nil, err
	}
	return source.Root(hint)
}

// store keeps bytes over restarts.
type store interface {
	Load() ([]byte, error) // nothing and no error where nothing is kept
	Save([]byte) error
}

// leftAside is a store of what is sealed. What this software on this machine did not seal is not there, and that is said.
type leftAside struct {
	store
	log *slog.Logger
}

// Load implements store.
func (s leftAside) Load() ([]byte, error) {
	raw, err := s.store.Load()
	switch code := attest.CodeOf(err); code {
	case attest.CodeSealForeign, attest.CodeSealContext, attest.CodeSealBroken, attest.CodeUnknownVersion:
		s.log.Error("what was kept is left aside, as if there were nothing", "code", string(code), "error", err.Error())
		return nil, nil
	}
	return raw, err
}

// keptFile is a file that is replaced as a whole, and read as it is.
type keptFile string

// Load implements store.
func (f keptFile) Load() ([]byte, error) {
	raw, err := os.ReadFile(string(f))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return raw, err
}

// Save implements store.
func (f keptFile) Save(raw []byte) error { return durable.WriteFile(string(f), raw) }
