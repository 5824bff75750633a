package tdx

// Identifiers of the checks in the transcript, beside those of attest/dcap.
const (
	checkFormat  = "authenticity.format"
	checkService = "authenticity.service_td"
	checkLog     = "evidence.log"
)
