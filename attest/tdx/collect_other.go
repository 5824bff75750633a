//go:build !linux

package tdx

import "github.com/jurat-tls/jurat/attest/tsm"

// sources: TDX guests are supported on Linux alone.
func sources() []tsm.Source { return nil }
