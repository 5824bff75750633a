package oracle

// ccaDivergences: "RMM" is Arm DEN0137, section A7.2; "draft" is draft-ffm-rats-cca-token.
var ccaDivergences = []divergence{
	{veraison, "2024/good", "affirms", "the collection may be a CMW record too", "draft, CCA attestation token: tag 907"},
	{veraison, "refused/a third token", "refuses", "a collection holds the two tokens and nothing else", "draft, CDDL of the collection"},
	{veraison, "refused/three registers", "refuses", "a realm has four extensible measurements", "RMM A7.2, realm extensible measurements: [4*4]"},
	{veraison, "refused/five registers", "refuses", "a realm has four extensible measurements", "RMM A7.2, realm extensible measurements: [4*4]"},
	{veraison, "refused/unknown hash", "refuses", "a measurement by an unknown hash says nothing", "RMM A7.2, realm hash algorithm: sha-256 or sha-512"},
	{veraison, "refused/lifecycle not secured", "refuses", "only a secured platform keeps its keys from debuggers", "draft, security lifecycle: secured is 0x3000 to 0x30ff"},
}
