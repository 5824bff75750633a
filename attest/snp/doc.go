// Package snp decodes, verifies and collects AMD SEV-SNP attestation reports. It knows nothing of TLS.
//
// Invariants:
//   - only bytes 0..0x29F of a report are signed, and every claim comes from them or from a certificate under a root that
//     the caller passed in; there is no default root;
//   - the chain has exactly three certificates (ARK, ASK or ASVK, VCEK or VLEK), each checked for its own role;
//   - an unknown version, product, TCB layout, reserved bit or critical extension refuses;
//   - network addresses are built from the report's own checked fields, never taken from a certificate.
//
// Numbers in comments refer to AMD document 56860 (SEV-SNP firmware ABI), 57230 (VCEK certificate and KDS) and 56421
// (GHCB).
package snp
