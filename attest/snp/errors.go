package snp

import (
	"github.com/jurat-tls/jurat/attest"
)

// Identifiers of the checks in the transcript.
const (
	checkFormat     = "authenticity.format"
	checkProduct    = "authenticity.product"
	checkSigner     = "authenticity.signer"
	checkChip       = "authenticity.chip"
	checkTCB        = "authenticity.tcb"
	checkChain      = "authenticity.chain"
	checkSignature  = "authenticity.signature"
	checkRevocation = "authenticity.revocation"
	checkCollect    = "attester.certificates"
)

func reserved(what string) *attest.Error {
	return attest.Refuse(attest.CodeReservedBits, checkFormat, what+" set", "zero")
}
