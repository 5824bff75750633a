// Package sgx decodes and verifies SGX quotes of version 3, bare or in Open Enclave's header. It knows nothing of TLS.
//
// What makes a quote authentic, and how Intel judges the platform, is in attest/dcap. Here is what the body of the quote
// means: the report of an enclave (Intel SDM volume 3D, chapter 38.15).
//
// Invariants:
//   - every claim comes from the signed body, or from a certificate or collateral under a root that the caller passed in;
//   - a reserved bit refuses.
package sgx
