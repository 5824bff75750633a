package sgx

// Identifiers of the checks in the transcript, beside those of attest/dcap.
const (
	checkFormat = "authenticity.format"
	checkLog    = "evidence.log"
)
