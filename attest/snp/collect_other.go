//go:build !linux

package snp

// collectors: SEV-SNP guests are supported on Linux alone.
func collectors() []collector { return nil }

// errUnsupported never happens here.
var errUnsupported = errNoTEE
