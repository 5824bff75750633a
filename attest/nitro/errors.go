package nitro

import (
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Identifiers of the checks in the transcript.
const (
	checkFormat     = "authenticity.format"
	checkChain      = "authenticity.chain"
	checkTime       = "authenticity.time"
	checkSignature  = "authenticity.signature"
	checkRevocation = "authenticity.revocation"
	checkCollect    = "attester"
)

func refuse(code attest.Code, check, got, want string) *attest.Error {
	return &attest.Error{Code: code, Check: check, Got: got, Want: want}
}

// quote shows text from evidence, bounded.
func quote(s string) string { return fmt.Sprintf("%.64q", s) }
