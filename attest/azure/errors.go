package azure

import (
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Identifiers of the checks in the transcript.
const (
	checkFormat  = "authenticity.format"
	checkLink    = "authenticity.link"
	checkCollect = "attester"
)

func refuse(code attest.Code, check, got, want string) *attest.Error {
	return &attest.Error{Code: code, Check: check, Got: got, Want: want}
}

func malformed(got, want string) *attest.Error {
	return refuse(attest.CodeMalformed, checkFormat, got, want)
}

// quote shows text from evidence, bounded.
func quote(s string) string { return fmt.Sprintf("%.64q", s) }

func abbreviate(b []byte) string {
	s := attest.HexBytes(b).String()
	if len(s) > 20 {
		return s[:8] + "…" + s[len(s)-8:]
	}
	return s
}
