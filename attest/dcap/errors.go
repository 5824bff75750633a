package dcap

import (
	"errors"
	"fmt"
	"time"

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

func refuse(code attest.Code, check, got, want string) *attest.Error {
	return &attest.Error{Code: code, Check: check, Got: got, Want: want}
}

// coded gives an endorser's error a code where it has none.
func coded(err error) *attest.Error {
	var e *attest.Error
	if errors.As(err, &e) {
		return e
	}
	return &attest.Error{Code: attest.CodeEndorserUnreachable, Check: checkCollateral, Err: err}
}

// quote shows text from evidence, bounded.
func quote(s string) string { return fmt.Sprintf("%.64q", s) }

func day(t time.Time) string { return t.UTC().Format(time.DateOnly) }

func zero(b []byte) bool {
	for _, v := range b {
		if v != 0 {
			return false
		}
	}
	return true
}
