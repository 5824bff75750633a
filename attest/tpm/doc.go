// Package tpm decodes, verifies and collects TPM 2.0 quotes. It knows nothing of TLS.
//
// Invariants:
//   - only the TPMS_ATTEST message is signed: every claim comes from it, from PCR values whose digest stands in it, or from
//     a certificate under a root that the caller passed in; there is no default root;
//   - a key is believed to be a TPM's only because a certificate under such a root says so, or because the operator named
//     it: a key that comes with the evidence vouches for nothing;
//   - a quote speaks of the PCRs in its own signed selection and of no others;
//   - SHA-1 is refused everywhere: as the bank of PCRs, and in signatures;
//   - network addresses in certificates are never used.
//
// What may change in evidence without refusal, because nobody signed it: the second half s of an ECDSA signature (n-s
// verifies where s does) and zeros in front of either half; attributes of the key in its public area, where a certificate
// or an operator vouches for the key alone and not for the TPM's name of it; the spelling of the JSON form.
//
// Numbers in comments refer to the TPM 2.0 Library, parts 1 to 3, revision 1.59.
package tpm
