// Package dcap is what Intel's SGX and TDX have in common: quotes signed by a quoting enclave, the PCK certificate that
// certifies it, and the collateral by which Intel judges the platform. It knows nothing of TLS, and nothing of what the
// body of a quote means to an enclave or a guest: attest/sgx and attest/tdx do.
//
// Invariants:
//   - collateral is verified first, and then decoded from exactly the bytes that were signed;
//   - the chains have fixed lengths, each certificate is checked for its own role, and the root is one that the caller
//     passed in; a root that comes with the evidence is compared, never trusted;
//   - what verified is remembered by the whole of its bytes; dates, revocation and the status of the platform are judged
//     anew every time, and the signature over a quote is verified every time;
//   - an unknown version, type, status, component, reserved bit or critical extension refuses;
//   - no network address is taken from evidence: requests are built from fields of verified certificates.
//
// "QVL" in comments is Intel's Quote Verification Library, whose numbered steps (4.1.2.4 and so on) are followed; "PCS" is
// the Provisioning Certification Service's API, version 4; "quote format" is the appendix of Intel's TDX DCAP Quoting
// Library API (versions 4 and 5) and SGX ECDSA Quote Library API (version 3).
package dcap
