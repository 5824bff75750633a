//go:build !linux

package snp

import "github.com/jurat-tls/jurat/attest/tsm"

// sources: SEV-SNP guests are supported on Linux alone.
func sources() []tsm.Source { return nil }
