package dialect

import (
	"encoding/binary"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// snpField is one field of an SEV-SNP report (AMD 56860, table ATTESTATION_REPORT) and its number in the message that go-sev-guest
// makes of a report.
type snpField struct {
	number   uint64
	at, size int
	bytes    bool // else a number, little-endian in the report
}

func snpFields() []snpField {
	return []snpField{
		{1, 0x000, 4, false},
		{2, 0x004, 4, false},
		{3, 0x008, 8, false},
		{4, 0x010, 16, true},
		{5, 0x020, 16, true},
		{6, 0x030, 4, false},
		{7, 0x034, 4, false},
		{8, 0x038, 8, false},
		{9, 0x040, 8, false},
		{10, 0x048, 4, false},
		{11, 0x050, 64, true},
		{12, 0x090, 48, true},
		{13, 0x0c0, 32, true},
		{14, 0x0e0, 48, true},
		{15, 0x110, 48, true},
		{16, 0x140, 32, true},
		{17, 0x160, 32, true},
		{18, 0x180, 8, false},
		{19, 0x1a0, 64, true},
		{20, 0x1e0, 8, false},
		{21, 0x1e8, 1, false},
		{22, 0x1e9, 1, false},
		{23, 0x1ea, 1, false},
		{24, 0x1ec, 1, false},
		{25, 0x1ed, 1, false},
		{26, 0x1ee, 1, false},
		{27, 0x1f0, 8, false},
		{28, 0x2a0, 512, true},
		{30, 0x1f8, 8, false},
		{31, 0x200, 8, false},
	}
}

// snpCPUID is the number of family, model and stepping, which are packed as in CPUID and lie in three bytes of a report.
const snpCPUID = 29

// snpMessage puts the report together again of which a message of go-sev-guest holds the fields, and takes the certificates that lie
// beside it. The signature is over the report, so that a field that is wrong, missing or put elsewhere shows.
func snpMessage(raw []byte) (*attest.Evidence, error) {
	fields, err := protobuf(raw)
	if err != nil {
		return nil, err
	}
	report := make([]byte, reportSize)
	inner, err := protobuf(fields[1].bytes)
	if err != nil {
		return nil, err
	}
	for _, f := range snpFields() {
		v := inner[f.number] // a number that is left out is zero
		switch {
		case f.bytes != v.isBytes, f.bytes && len(v.bytes) != f.size, v.number>>(8*f.size) != 0:
			return nil, malformed(fmt.Sprintf("field %d of a report", f.number), nil)
		case f.bytes:
			copy(report[f.at:], v.bytes)
		default:
			var wide [8]byte
			binary.LittleEndian.PutUint64(wide[:], v.number)
			copy(report[f.at:f.at+f.size], wide[:])
		}
	}
	eax := inner[snpCPUID].number
	report[0x188] = byte(eax>>8&0xf + eax>>20&0xff)
	report[0x189] = byte(eax>>4&0xf | eax>>12&0xf0)
	report[0x18a] = byte(eax & 0xf)
	ev := &attest.Evidence{Format: formatSNP, Raw: report}
	chain, err := protobuf(fields[2].bytes)
	if err != nil {
		return nil, err
	}
	for _, n := range []uint64{1, 6, 2, 3} { // VCEK, VLEK, ASK, ARK
		if der := chain[n].bytes; len(der) > 0 {
			ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: der})
		}
	}
	return ev, nil
}

// protoValue is the value of one field.
type protoValue struct {
	isBytes bool
	number  uint64
	bytes   []byte
}

// maxProtoFields bounds a message.
const maxProtoFields = 64

// protobuf reads the fields of one message. Those that may repeat are not of interest here, and of the others a second one is
// refused: protobuf would take the last.
func protobuf(raw []byte) (map[uint64]protoValue, error) {
	out := map[uint64]protoValue{}
	const mapOfExtras = 7
	for n := 0; len(raw) > 0; n++ {
		tag, size := binary.Uvarint(raw)
		if size <= 0 || n == maxProtoFields {
			return nil, malformed("a protobuf message", nil)
		}
		raw = raw[size:]
		number := tag >> 3
		var v protoValue
		switch tag & 7 {
		case 0:
			v.number, size = binary.Uvarint(raw)
			if size <= 0 {
				return nil, malformed("a protobuf message", nil)
			}
			raw = raw[size:]
		case 2:
			length, size := binary.Uvarint(raw)
			if size <= 0 || length > uint64(len(raw)-size) {
				return nil, malformed("a truncated protobuf message", nil)
			}
			v.isBytes, v.bytes = true, raw[size:size+int(length)]
			raw = raw[size+int(length):]
		default:
			return nil, malformed(fmt.Sprintf("wire type %d of protobuf", tag&7), nil)
		}
		if _, twice := out[number]; twice && number != mapOfExtras {
			return nil, refuse(attest.CodeDuplicateField, fmt.Sprintf("field %d", number), "once")
		}
		out[number] = v
	}
	return out, nil
}
