package dcap

import (
	"errors"

	"github.com/jurat-tls/jurat/attest"
)

// Identifiers of the checks in the transcript.
const (
	checkFormat     = "authenticity.format"
	checkProduct    = "authenticity.product"
	checkQE         = "authenticity.qe"
	checkModule     = "authenticity.module"
	checkTCB        = "authenticity.tcb"
	checkChain      = "authenticity.chain"
	checkSignature  = "authenticity.signature"
	checkRevocation = "authenticity.revocation"
	checkCollateral = "authenticity.collateral"
)

// coded gives an endorser's error a code where it has none.
func coded(err error) *attest.Error {
	var e *attest.Error
	if errors.As(err, &e) {
		return e
	}
	return &attest.Error{Code: attest.CodeEndorserUnreachable, Check: checkCollateral, Err: err}
}
