package tpm

import (
	"crypto"
	_ "crypto/sha256" // the two hashes of this package
	_ "crypto/sha512"
	"fmt"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

// Algorithms that this package accepts (part 2, table 9).
const (
	algSHA1   = 0x0004
	algSHA256 = 0x000b
	algSHA384 = 0x000c
	algNull   = 0x0010
	algRSASSA = 0x0014
	algRSAPSS = 0x0016
	algECDSA  = 0x0018
)

// hashOf finds a hash: SHA-1 and whatever else is unknown is refused.
func hashOf(algorithm uint16, check string) (crypto.Hash, error) {
	switch algorithm {
	case algSHA256:
		return crypto.SHA256, nil
	case algSHA384:
		return crypto.SHA384, nil
	case algSHA1:
		return 0, attest.Refuse(attest.CodeUnknownAlgorithm, check, "SHA-1", "SHA-256 or SHA-384")
	}
	return 0, attest.Refuse(attest.CodeUnknownAlgorithm, check, fmt.Sprintf("hash %#04x", algorithm), "SHA-256 or SHA-384")
}

// Bounds of TPM structures.
const (
	maxQuote    = 512 // TPMS_ATTEST with the longest names and data
	maxName     = 66  // TPM2B_NAME and TPM2B_DATA: an algorithm and the longest digest
	pcrCount    = 24
	pcrSelected = pcrCount / 8 // bytes of a PC Client's selection
)

// Values of a TPMS_ATTEST that a TPM made over PCRs (part 2, sections 6.2 and 6.9).
const (
	generatedValue = 0xff544347
	typeQuote      = 0x8018
)

// Quote is a decoded TPMS_ATTEST of a quote (part 2, section 10.12.8). Nothing in it has been verified.
type Quote struct {
	QualifiedSigner attest.HexBytes `json:"qualified_signer"`
	ExtraData       attest.HexBytes `json:"extra_data"` // what the caller of TPM2_Quote had signed
	Clock           uint64          `json:"clock"`      // milliseconds that the TPM was powered
	ResetCount      uint32          `json:"reset_count"`
	RestartCount    uint32          `json:"restart_count"`
	Safe            bool            `json:"clock_safe"` // no reset put the clock back
	Firmware        uint64          `json:"firmware_version"`
	Bank            string          `json:"bank"` // "sha256" or "sha384"
	PCRs            []int           `json:"pcrs"` // selected, in ascending order
	Digest          attest.HexBytes `json:"pcr_digest"`

	message []byte
	bank    crypto.Hash
}

// ParseQuote decodes a TPMS_ATTEST. It refuses one that no TPM made, that is no quote, or that is over no PCR.
func ParseQuote(message []byte) (*Quote, error) {
	if len(message) > maxQuote {
		return nil, attest.Refuse(attest.CodeOversized, checkFormat, fmt.Sprintf("a quote of %d bytes", len(message)), fmt.Sprintf("at most %d", maxQuote))
	}
	r := &reader{rest: message}
	// A restricted key signs nothing with this value that the TPM did not make itself.
	if magic := r.u32(); magic != generatedValue {
		return nil, malformed(fmt.Sprintf("a message that no TPM made: it begins with %#08x", magic))
	}
	if kind := r.u16(); kind != typeQuote {
		return nil, malformed(fmt.Sprintf("an attestation of type %#04x that is no quote", kind))
	}
	q := &Quote{
		message: slices.Clone(message), QualifiedSigner: r.sized(maxName), ExtraData: r.sized(maxName),
		Clock: r.u64(), ResetCount: r.u32(), RestartCount: r.u32(),
	}
	safe := r.u8()
	q.Safe, q.Firmware = safe == 1, r.u64()
	if err := q.parseSelection(r); err != nil {
		return nil, err
	}
	q.Digest = r.sized(maxName)
	if !r.whole() || safe > 1 {
		return nil, malformed("a quote that is cut off, with something behind it, or with a flag that is neither 0 nor 1")
	}
	return q, nil
}

// parseSelection reads TPML_PCR_SELECTION. Several banks in one quote are refused: which value of a PCR such evidence
// speaks of would be open to choice.
func (q *Quote) parseSelection(r *reader) error {
	if count := r.u32(); count != 1 {
		return attest.Refuse(attest.CodeSelection, checkRegisters, fmt.Sprintf("a quote over %d banks", count), "one bank")
	}
	var err error
	if q.bank, err = hashOf(r.u16(), checkRegisters); err != nil {
		return err
	}
	q.Bank = map[crypto.Hash]string{crypto.SHA256: "sha256", crypto.SHA384: "sha384"}[q.bank]
	if size := r.u8(); size != pcrSelected {
		return attest.Refuse(attest.CodeSelection, checkRegisters, fmt.Sprintf("a selection of %d bytes", size), fmt.Sprintf("%d", pcrSelected))
	}
	for i, b := range r.bytes(pcrSelected) {
		for bit := range 8 {
			if b>>bit&1 == 1 {
				q.PCRs = append(q.PCRs, 8*i+bit)
			}
		}
	}
	if len(q.PCRs) == 0 {
		return attest.Refuse(attest.CodeSelection, checkRegisters, "a quote over no PCR", "one over the PCRs that are to be judged")
	}
	return nil
}
