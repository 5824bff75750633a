package tdx

import "github.com/jurat-tls/jurat/attest"

// Identifiers of the checks in the transcript, beside those of attest/dcap.
const (
	checkFormat  = "authenticity.format"
	checkService = "authenticity.service_td"
	checkLog     = "evidence.log"
)

func refuse(code attest.Code, check, got, want string) *attest.Error {
	return &attest.Error{Code: code, Check: check, Got: got, Want: want}
}
