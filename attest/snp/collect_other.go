//go:build !linux

package snp

import (
	"errors"

	"github.com/jurat-tls/jurat/attest/tsm"
)

// sources: SEV-SNP guests are supported on Linux alone.
func sources() []tsm.Source { return nil }

func keyDevice() (guestDevice, error) {
	return nil, keyFailed(errors.New("SEV-SNP guests are supported on Linux alone"))
}
