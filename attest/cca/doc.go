// Package cca decodes, verifies and collects attestation tokens of Arm CCA realms. It knows nothing of TLS.
//
// A token is two tokens: the platform's, signed by the platform's key (CPAK), and the realm's, signed by a key of the
// realm management monitor (RAK), whose hash the platform token carries. CPAKs are bare keys, and there is no authority
// above them.
//
// Invariants:
//   - a platform key is trusted because the caller passed it in, never because it came with the evidence or out of a
//     record, whoever wrote that;
//   - every claim comes from one of the two signed payloads;
//   - an unknown profile, form, hash, algorithm, lifecycle state or header parameter refuses;
//   - the verification service that a token names is never asked.
//
// All of a token is signed but for its signatures, of which (r, n-s) verifies where (r, s) does, and a key identifier that
// may stand in an unprotected header. Which of the two forms a token has can change as well.
//
// "RMM" in comments is Arm DEN0137, section A7.2; "draft" is draft-ffm-rats-cca-token.
package cca
