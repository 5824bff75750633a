// Package azure verifies evidence of Azure's confidential VMs. There the TEE attests the paravisor, which emulates a TPM
// for the guest, and the TPM attests the guest: two hops.
//
//	hardware report --report data--> SHA-256 of the runtime claims --HCLAkPub--> TPM quote --extraData--> our data
//
// Invariants:
//   - the hardware report is verified by the verifier of that hardware, which the caller passes in;
//   - the runtime claims are hashed, compared with what the hardware signed, and only then believed;
//   - the TPM quote verifies under the key in the runtime claims and under no other;
//   - the launch measurement covers the paravisor alone, the PCRs cover the guest; both are claims, under their own names.
//
// What may change in evidence without refusal, because nobody signed it: the version of an HCL report, 1 or 2; the three
// bits of its capabilities; and on TDX what of the TDREPORT does not stand in the TD quote.
//
// Names of structures are those of OpenHCL, whose source describes them (openhcl_attestation_protocol, igvm_attest).
package azure
