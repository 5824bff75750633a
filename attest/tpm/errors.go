package tpm

import (
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

func malformed(what string) *attest.Error {
	return attest.Refuse(attest.CodeMalformed, checkFormat, what, "")
}
