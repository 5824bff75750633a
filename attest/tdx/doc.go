// Package tdx decodes and verifies TDX quotes, of versions 4 and 5. It knows nothing of TLS.
//
// What makes a quote authentic, and how Intel judges the platform, is in attest/dcap. Here is what the body of the quote
// means: the report of a trust domain (Intel TDX Module ABI Specification, TDREPORT_STRUCT; quote format, A.3.2).
//
// Invariants:
//   - every claim comes from the signed body, or from a certificate or collateral under a root that the caller passed in;
//   - a reserved attribute, and a service TD, whose power over the guest nobody here judges, refuse;
//   - an event log says something only where it leads to the signed registers.
package tdx
