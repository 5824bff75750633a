// Package attest holds the words of remote attestation as RFC 9334 defines them: Evidence, Endorsements, Claims,
// Appraisal and the Attestation Result. It imports nothing else of this module.
//
// Invariants:
//   - the zero value of every type refuses: a zero Result is a refusal, a zero Expectation never matches, a zero Flag
//     satisfies no rule;
//   - only Appraiser.Appraise makes an affirmed Result, and only from bytes that the hardware signed;
//   - an unknown format, product, version or critical field is an error, never a guess.
package attest

//go:generate go -C ../test/tools run ./gencodes ../../attest/codes.yaml ../../attest/codes_gen.go ../../docs/codes.md
