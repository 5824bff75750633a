package tpm

import (
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Identifiers of the checks in the transcript.
const (
	checkFormat     = "authenticity.format"
	checkSigner     = "authenticity.signer"
	checkChain      = "authenticity.chain"
	checkSignature  = "authenticity.signature"
	checkRegisters  = "authenticity.registers"
	checkRevocation = "authenticity.revocation"
	checkCollect    = "attester"
)

func refuse(code attest.Code, check, got, want string) *attest.Error {
	return &attest.Error{Code: code, Check: check, Got: got, Want: want}
}

func malformed(what string) *attest.Error {
	return refuse(attest.CodeMalformed, checkFormat, what, "")
}

// quote shows text from evidence, bounded.
func quote(s string) string { return fmt.Sprintf("%.64q", s) }
