package azure

import (
	"github.com/jurat-tls/jurat/attest"
)

// Identifiers of the checks in the transcript.
const (
	checkFormat  = "authenticity.format"
	checkLink    = "authenticity.link"
	checkCollect = "attester"
)

func malformed(got, want string) *attest.Error {
	return attest.Refuse(attest.CodeMalformed, checkFormat, got, want)
}
