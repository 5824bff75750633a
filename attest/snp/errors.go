package snp

import (
	"fmt"

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

func refuse(code attest.Code, check, got, want string) *attest.Error {
	return &attest.Error{Code: code, Check: check, Got: got, Want: want}
}

func reserved(what string) *attest.Error {
	return refuse(attest.CodeReservedBits, checkFormat, what+" set", "zero")
}

// quote shows text from evidence, bounded.
func quote(s string) string { return fmt.Sprintf("%.64q", s) }
