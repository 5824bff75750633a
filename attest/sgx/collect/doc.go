// Package collect gets SGX evidence from the two library operating systems that can run this program unchanged inside
// an enclave: Gramine, by the files of /dev/attestation, and Occlum, by requests to /dev/sgx. EGo, which needs its
// library and a C compiler, is the package ego beside this one.
//
// The evidence is the DCAP quote of version 3 as the quoting enclave signed it; collateral is not part of it. What an
// Attester returns has been looked at only so far as to see that the quote is over the report data asked for: whether
// it is authentic is for a Verifier to say.
package collect
