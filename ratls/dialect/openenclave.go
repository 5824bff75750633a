package dialect

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/jurat-tls/jurat/attest"
)

func oidOEReport() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 105, 1}
}

func oidOEOldReport() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113556, 10, 1, 1}
}

func oidOEEvidence() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 105, 2}
}

func oidOEOldEvidence() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{1, 2, 840, 113556, 10, 1, 2}
}

// Headers of Open Enclave (openenclave, internal/report.h and common/attest_plugin.h), little-endian: that of a report, and that of
// evidence, whose size is aligned to 8 bytes.
const (
	oeReportHeader   = 16
	oeReportVersion  = 1
	oeReportRemote   = 2
	oeEvidenceHeader = 32
	oeEvidenceLegacy = 2 // a report with its header follows
	oeEvidenceNow    = 3 // a quote follows
)

// oeSGXECDSA names evidence that is a quote of SGX.
var oeSGXECDSA = [16]byte{0xa3, 0xa2, 0x1e, 0x87, 0x1b, 0x4d, 0x40, 0x14, 0xb7, 0x0a, 0xa1, 0x25, 0xd2, 0xfb, 0xcd, 0x8c}

// readEGo reads EGo's certificates: a report of Open Enclave, of the hash of the key in DER.
func readEGo(s Shown, _ Context) (*Found, error) {
	ext, err := s.extension(oidOEReport())
	if err != nil {
		return nil, err
	}
	if ext == nil {
		return nil, ErrAbsent
	}
	raw, rest, err := oeReport(ext.Value)
	if err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, malformed("bytes after an Open Enclave report", nil)
	}
	return oeFound(raw, sha256Of(s.spki()), "SHA-256(SPKI)", ext.Id)
}

// readOpenEnclave reads those of Open Enclave itself, under its old and its new identifiers: a report or evidence of the hash of the
// key as C passes it on.
func readOpenEnclave(s Shown, _ Context) (*Found, error) {
	var found *Found
	for _, place := range []struct {
		id   asn1.ObjectIdentifier
		read func(value, spki []byte, id asn1.ObjectIdentifier) (*Found, error)
	}{
		{oidOEReport(), oeReportOf}, {oidOEOldReport(), oeReportOf}, {oidOEEvidence(), oeEvidenceOf}, {oidOEOldEvidence(), oeEvidenceOf},
	} {
		ext, err := s.extension(place.id)
		if err != nil {
			return nil, err
		}
		if ext == nil {
			continue
		}
		f, err := place.read(ext.Value, s.spki(), ext.Id)
		if err != nil {
			return nil, err
		}
		if found != nil && (!bytes.Equal(found.Evidence.Raw, f.Evidence.Raw) || !slices.Equal(found.ReportData, f.ReportData)) {
			return nil, refuse(attest.CodeDialects, "other evidence in "+ext.Id.String()+" than in "+found.from[0].String(), "the same")
		}
		if found != nil {
			f.from = append(found.from, f.from...)
		}
		found = f
	}
	if found == nil {
		return nil, ErrAbsent
	}
	return found, nil
}

func oeFound(raw, hash []byte, preimage string, id asn1.ObjectIdentifier) (*Found, error) {
	ev, err := only(formatSGX, raw)
	if err != nil {
		return nil, err
	}
	return &Found{
		Evidence: ev, ReportData: []attest.ReportData{whole(hash)}, Preimage: preimage,
		Level: attest.LevelKey, Unsigned: []string{unsignedLeaf}, from: []asn1.ObjectIdentifier{id},
	}, nil
}

func oeReportOf(value, spki []byte, id asn1.ObjectIdentifier) (*Found, error) {
	raw, rest, err := oeReport(value)
	if err != nil {
		return nil, err
	}
	if len(rest) != 0 {
		return nil, malformed("bytes after an Open Enclave report", nil)
	}
	return oeFound(raw, sha256Of(pemNUL(spki)), "SHA-256(PEM and NUL)", id)
}

// oeReport takes the header off a report, and answers what follows it.
func oeReport(raw []byte) (quote, rest []byte, err error) {
	le := binary.LittleEndian
	if len(raw) < oeReportHeader {
		return nil, nil, malformed("a truncated Open Enclave report", nil)
	}
	version, kind, size := le.Uint32(raw), le.Uint32(raw[4:]), le.Uint64(raw[8:])
	switch {
	case version != oeReportVersion:
		return nil, nil, refuse(attest.CodeUnknownVersion, fmt.Sprintf("an Open Enclave report of version %d", version), "1")
	case kind != oeReportRemote:
		return nil, nil, refuse(attest.CodeUnknownVersion, fmt.Sprintf("an Open Enclave report of type %d", kind), "2, SGX remote")
	case size > uint64(len(raw)-oeReportHeader):
		return nil, nil, malformed("a truncated Open Enclave report", nil)
	}
	end := oeReportHeader + int(size)
	return raw[oeReportHeader:end], raw[end:], nil
}

// oeEvidenceOf reads evidence: a quote, and a buffer of claims that the hardware signs the hash of. The buffer is the key, or a list
// of claims of which one is.
func oeEvidenceOf(value, spki []byte, id asn1.ObjectIdentifier) (*Found, error) {
	le := binary.LittleEndian
	if len(value) < oeEvidenceHeader {
		return nil, malformed("truncated Open Enclave evidence", nil)
	}
	version, format, size := le.Uint32(value), [16]byte(value[4:]), le.Uint64(value[24:])
	if format != oeSGXECDSA {
		return nil, refuse(attest.CodeUnknownFormat, fmt.Sprintf("Open Enclave evidence of format %x", format), fmt.Sprintf("%x, SGX ECDSA", oeSGXECDSA))
	}
	if size != uint64(len(value)-oeEvidenceHeader) {
		return nil, malformed("Open Enclave evidence of another length", nil)
	}
	raw, claims, err := oeBody(version, value[oeEvidenceHeader:])
	if err != nil {
		return nil, err
	}
	key := pemNUL(spki)
	if !bytes.Equal(claims, key) {
		if err := oeClaims(claims, key); err != nil {
			return nil, err
		}
	}
	return oeFound(raw, sha256Of(claims), "SHA-256(claims)", id)
}

// oeBody tells the quote from the claims after it.
func oeBody(version uint32, body []byte) (quote, claims []byte, err error) {
	switch version {
	case oeEvidenceLegacy:
		return oeReport(body)
	case oeEvidenceNow:
		// The signature's length is after the header and the report of the quote.
		const fixed = quoteHeader + 384 + 4
		if len(body) < fixed {
			return nil, nil, malformed("truncated Open Enclave evidence", nil)
		}
		signature := binary.LittleEndian.Uint32(body[fixed-4:])
		if uint64(signature) > uint64(len(body)-fixed) {
			return nil, nil, malformed("truncated Open Enclave evidence", nil)
		}
		end := fixed + int(signature)
		return body[:end], body[end:], nil
	}
	return nil, nil, refuse(attest.CodeUnknownVersion, fmt.Sprintf("Open Enclave evidence of version %d", version), "2 or 3")
}

// maxClaims bounds the claims in a buffer.
const maxClaims = 64

// oeClaims demands a serialized list of claims, exactly one of which is the key.
func oeClaims(raw, key []byte) error {
	le := binary.LittleEndian
	if len(raw) < 16 || le.Uint64(raw) != 1 || le.Uint64(raw[8:]) > maxClaims {
		return otherKey("claims", sha256Of(raw), sha256Of(key))
	}
	n, rest, keys := le.Uint64(raw[8:]), raw[16:], 0
	for range n {
		if len(rest) < 16 {
			return malformed("truncated Open Enclave claims", nil)
		}
		name, value := le.Uint64(rest), le.Uint64(rest[8:])
		rest = rest[16:]
		if name > uint64(len(rest)) || value > uint64(len(rest))-name {
			return malformed("truncated Open Enclave claims", nil)
		}
		if bytes.Equal(rest[name:name+value], key) {
			keys++
		}
		rest = rest[name+value:]
	}
	if len(rest) != 0 || keys != 1 {
		return otherKey("claims", sha256Of(raw), sha256Of(key))
	}
	return nil
}
