// Package nitro decodes, verifies and collects attestation documents of AWS Nitro Enclaves. It knows nothing of TLS.
//
// Invariants:
//   - every claim comes from the signed payload or from a certificate under a root that the caller passed in; there is no
//     default root;
//   - the document must bring its whole chain, root first, each certificate checked for its own role, P-384 throughout;
//   - an unknown field, digest, algorithm, key or critical extension refuses;
//   - report data is user data of exactly 64 bytes: shorter user data binds nothing and is never padded;
//   - network addresses in certificates are never used.
//
// All of a document is signed but for its signature, of which (r, n-s) verifies where (r, s) does, and the tag that may
// stand in front.
//
// "NSM" in comments is the Attestation Process document of aws-nitro-enclaves-nsm-api.
package nitro
