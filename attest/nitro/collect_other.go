//go:build !linux

package nitro

import "github.com/jurat-tls/jurat/attest/tsm"

// sources: enclaves run Linux.
func sources() []tsm.Source { return nil }
