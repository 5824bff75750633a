package nitro

// Identifiers of the checks in the transcript.
const (
	checkFormat     = "authenticity.format"
	checkChain      = "authenticity.chain"
	checkTime       = "authenticity.time"
	checkSignature  = "authenticity.signature"
	checkRevocation = "authenticity.revocation"
	checkCollect    = "attester"
)
