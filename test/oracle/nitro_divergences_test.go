package oracle

// nitroDivergences: "NSM" is the Attestation Process document of aws-nitro-enclaves-nsm-api.
var nitroDivergences = []divergence{
	{nitriteOracle, "*/debug", "refuses", "registers of zeros are those of an enclave that its parent can read; the policy of this comparison wants none", "NSM, Attestation Document: PCRs in debug mode"},
	{nitriteOracle, "refused/leaf is an authority", "refuses", "a document is signed by a leaf", "NSM, Certificates validity: basic constraints and key usage"},
	{nitriteOracle, "refused/unknown field", "refuses", "the fields of a document are listed; one more would be read by some and not by others", "NSM, Attestation Document specification"},
}
