package cca

import "github.com/jurat-tls/jurat/attest/tsm"

// NewTestAttester makes an Attester over a source of the test's.
func NewTestAttester(source tsm.Source) *Attester { return newAttester(source) }

// Known is how many platforms v remembers.
func Known(v *Verifier) int { return len(v.known.good) }
