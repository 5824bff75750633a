//go:build !linux

package snp

import (
	"errors"

	"github.com/jurat-tls/jurat/attest/tsm"
)

// sources: SEV-SNP guests are supported on Linux alone.
func sources() []tsm.Source { return nil }

func keyDevice() guestDevice { return noGuest{} }

// noGuest is a device that is not there.
type noGuest struct{}

func (noGuest) open() error { return tsm.ErrAbsent }

func (noGuest) request(uintptr, []byte, []byte, []byte) (firmware, vmm uint32, err error) {
	return 0, 0, errors.New("SEV-SNP guests are supported on Linux alone")
}
