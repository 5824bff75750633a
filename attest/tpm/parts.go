package tpm

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

// Part is the tag of one part of raw evidence.
type Part uint8

// Parts of evidence that a TPM signed. The others belong to formats that build on it.
const (
	PartQuote     Part = 1  // TPMS_ATTEST, as TPM2_Quote answers it
	PartSignature Part = 2  // TPMT_SIGNATURE, likewise
	PartPCRs      Part = 3  // the values of the PCRs in the quote's selection, lowest number first
	PartPublic    Part = 4  // TPMT_PUBLIC of the attestation key
	PartHCL       Part = 16 // Azure's HCL report, without padding
	PartTDQuote   Part = 17 // TD quote over the TDREPORT in the HCL report
)

// partsMagic begins raw evidence; the last byte is the version of the encoding.
var partsMagic = [5]byte{'J', 'T', 'P', 'M', 1}

// EncodeParts writes parts in their one encoding: the magic, and for each part in ascending order its tag, its length in
// four bytes (big endian) and its bytes. Empty parts are left out.
func EncodeParts(parts map[Part][]byte) []byte {
	out := slices.Clone(partsMagic[:])
	for _, p := range slices.Sorted(maps.Keys(parts)) {
		if len(parts[p]) == 0 {
			continue
		}
		out = append(out, byte(p))
		out = binary.BigEndian.AppendUint32(out, uint32(len(parts[p])))
		out = append(out, parts[p]...)
	}
	return out
}

// DecodeParts reads what EncodeParts wrote, of the parts that the caller knows.
func DecodeParts(raw []byte, known ...Part) (map[Part][]byte, error) {
	if len(raw) > attest.MaxRaw {
		return nil, attest.Refuse(attest.CodeOversized, checkFormat, fmt.Sprintf("%d bytes", len(raw)), fmt.Sprintf("at most %d", attest.MaxRaw))
	}
	r := &reader{rest: raw}
	magic := r.bytes(len(partsMagic))
	if r.cut || string(magic[:4]) != string(partsMagic[:4]) {
		return nil, malformed("no TPM evidence")
	}
	if magic[4] != partsMagic[4] {
		return nil, attest.Refuse(attest.CodeUnknownVersion, checkFormat, fmt.Sprintf("version %d", magic[4]), fmt.Sprintf("version %d", partsMagic[4]))
	}
	parts := map[Part][]byte{}
	for last := Part(0); !r.rest.Empty(); {
		p := Part(r.u8())
		body := r.bytes(int(r.u32()))
		if len(body) == 0 {
			return nil, malformed("a part that is cut off or empty")
		}
		switch {
		case parts[p] != nil:
			return nil, attest.Refuse(attest.CodeDuplicateField, checkFormat, fmt.Sprintf("part %d twice", p), "once")
		case p < last:
			return nil, malformed("parts out of order")
		case !slices.Contains(known, p):
			return nil, attest.Refuse(attest.CodeUnknownField, checkFormat, fmt.Sprintf("part %d", p), "a part of this format")
		}
		parts[p], last = body, p
	}
	return parts, nil
}
