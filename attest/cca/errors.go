package cca

import (
	"errors"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Identifiers of the checks in the transcript.
const (
	checkFormat     = "authenticity.format"
	checkPlatform   = "authenticity.platform"
	checkLink       = "authenticity.link"
	checkSignature  = "authenticity.signature"
	checkLifecycle  = "authenticity.lifecycle"
	checkRevocation = "authenticity.revocation"
)

func malformed(got string, err error) *attest.Error {
	code := attest.CodeMalformed
	if errors.Is(err, strictcbor.ErrDuplicate) {
		code = attest.CodeDuplicateField
	}
	return &attest.Error{Code: code, Check: checkFormat, Got: got, Err: err}
}
