package cca

import (
	"errors"
	"fmt"

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

func refuse(code attest.Code, check, got, want string) *attest.Error {
	return &attest.Error{Code: code, Check: check, Got: got, Want: want}
}

func malformed(got string, err error) *attest.Error {
	code := attest.CodeMalformed
	if errors.Is(err, strictcbor.ErrDuplicate) {
		code = attest.CodeDuplicateField
	}
	return &attest.Error{Code: code, Check: checkFormat, Got: got, Err: err}
}

// quote shows text from evidence, bounded.
func quote(s string) string { return fmt.Sprintf("%.64q", s) }
