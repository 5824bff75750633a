// Package api is the messages that we add to Envoy's API (jurat/config/v1alpha1/attestation.proto): whom to let in, what to
// show, policies and reference values. It reads and writes them, and knows nothing of who sends them or of what becomes of
// them.
//
// A message comes by itself, or in one of the two TypedStruct: a control plane that does not know our types can carry them
// so. What is read is bounded, and strict: an unknown field, an unknown value and an absent decision are errors. The errors
// are *attest.Error, whose Subject is the field.
package api

//go:generate ../../test/protos.sh
