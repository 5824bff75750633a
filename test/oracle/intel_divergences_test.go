package oracle

// intelDivergences: "QVL" is Intel's Quote Verification Library with its numbered steps, "PCS" the Provisioning
// Certification Service's API 4, "quote format" the appendix of Intel's quoting library APIs.
var intelDivergences = []divergence{
	{tdxGuest, "good/*, Processor CA", "affirms", "the Processor CA issues PCK certificates as the Platform CA does", "PCS, Get PCK CRL: ca is processor or platform"},
	{oasis, "good/tdx v5*", "affirms", "version 5 carries the bodies of TDX 1.0 and 1.5", "quote format (TDX, A.3), version 5"},
	{oasis, "good/recorded tdx, padded", "affirms", "zeros behind a quote come from the fixed size of the buffer a guest reads it from; nothing in them is read", "quote format, A.4: the signature data tells its own length"},
	{oasis, "refused/tdx*/trailing zero*", "affirms", "the same", "quote format, A.4: the signature data tells its own length"},
	{tdxGuest, "refused/tdx*/trailing bytes", "refuses", "bytes behind a quote that are no padding belong to something unknown", "quote format, A.4: the signature data tells its own length"},

	{tdxGuest, "status/tdx*/platform *", "refuses", "the statuses of platform and TDX module converge to the worse of both, also where the module has levels of its own", "QVL 4.1.2.4.17.4, convergeTcbStatusWithTdxModuleStatus"},
	{oasis, "status/*/platform SWHardeningNeeded", "refuses", "a status other than UpToDate is for the policy to name; this comparison names none", "PCS, tcbStatus"},

	{tdxGuest, "time/*/* early", "refuses", "collateral that was issued later than now is not valid yet", "PCS, Get TCB Info: issueDate is the time of creation"},

	{oasis, "refused/*/PCK certificate revoked", "refuses", "revocation lists are part of the collateral", "QVL 4.1.2.4.7"},
	{oasis, "refused/*/PCK authority revoked", "refuses", "revocation lists are part of the collateral", "QVL, sgxAttestationVerifyPCKCertificate: root CA CRL"},
	{oasis, "refused/*/TCB signing certificate revoked", "refuses", "revocation lists are part of the collateral", "QVL, sgxAttestationVerifyTCBInfo: root CA CRL"},
	{oasis, "refused/*/root CRL by another key", "refuses", "revocation lists are part of the collateral", "QVL, sgxAttestationVerifyPCKCertificate: root CA CRL"},
	{oasis, "refused/*/PCK CRL by another key", "refuses", "revocation lists are part of the collateral", "QVL 4.1.2.4.5 and 4.1.2.4.6"},
	{oasis, "flip/*/root CRL", "refuses", "revocation lists are part of the collateral", "QVL, sgxAttestationVerifyPCKCertificate: root CA CRL"},
	{oasis, "flip/*/PCK CRL", "refuses", "revocation lists are part of the collateral", "QVL 4.1.2.4.5 and 4.1.2.4.6"},
	{oasis, "refused/*/another PCE", "refuses", "TCB info is of one FMSPC and one PCE", "QVL 4.1.2.4.10: PCEID of TCB info and PCK certificate"},
	{tdxGuest, "refused/*/another vendor of the QE", "refuses", "the format of the rest is the vendor's", "quote format, A.3.1: QE vendor id"},
	{tdxGuest, "refused/*/debug", "refuses", "verification and validation are two calls there; here the policy of this comparison wants no debugging", "Intel TDX Module ABI, ATTRIBUTES.DEBUG"},

	{tdxGuest, "text/loose bits", "refuses", "bytes have one spelling in base64, so that a chain has one too", "RFC 4648, section 3.5: canonical encoding"},
	{oasis, "text/loose bits", "refuses", "bytes have one spelling in base64, so that a chain has one too", "RFC 4648, section 3.5: canonical encoding"},
	{tdxGuest, "text/vertical tab", "affirms", "space around certificates says nothing", "RFC 7468, section 3: W"},
	{oasis, "text/vertical tab", "affirms", "space around certificates says nothing", "RFC 7468, section 3: W"},
	{tdxGuest, "text/space behind it", "affirms", "space around certificates says nothing", "RFC 7468, section 3: W"},
	{oasis, "text/a byte behind", "refuses", "behind a chain there is the zero that ends a text in C, and nothing else", "quote format, A.4: certification data of type 5"},
}
