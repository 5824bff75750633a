// Package cmw encodes what a leaf certificate carries about attestation: the id-pe-cmw extension with the Evidence
// (draft-ietf-rats-msg-wrap), and the claims buffer that the hardware signs. Decoding accepts exactly what encoding
// would have produced: one byte string has one meaning and one meaning has one byte string.
package cmw

import (
	"encoding/asn1"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// MediaType names the content of the CMW record.
const MediaType = "application/vnd.jurat.evidence+cbor"

// MaxExtension bounds the value of the extension in bytes, enforced before it is parsed. The whole Certificate message
// has to stay under 60 KB for clients built on rustls and OpenSSL.
const MaxExtension = 56 << 10

// indEvidence is the CMW indicator bit for evidence.
const indEvidence = 1 << 2

// OID is id-pe-cmw.
func OID() asn1.ObjectIdentifier { return asn1.ObjectIdentifier{1, 3, 6, 1, 5, 5, 7, 1, 35} }

// record is the CMW record: [type, value, ind].
type record struct {
	_     struct{} `cbor:",toarray"`
	Type  string
	Value []byte
	Ind   uint64
}

// payload is the value of the record: what the attester sends beside the certificate's own fields.
type payload struct {
	Format       string        `cbor:"1,keyasint"`
	Raw          []byte        `cbor:"2,keyasint"`
	Endorsements []endorsement `cbor:"3,keyasint"`
	Config       []byte        `cbor:"4,keyasint"`
}

type endorsement struct {
	_    struct{} `cbor:",toarray"`
	Kind string
	Raw  []byte
}

// MarshalRecord encodes evidence and the digest of the measured configuration as a CMW record.
func MarshalRecord(ev *attest.Evidence, config [32]byte) ([]byte, error) {
	return wrap(MediaType, payload{Format: string(ev.Format), Raw: ev.Raw, Config: config[:], Endorsements: pack(ev.Endorsements)})
}

// Marshal encodes them as the value of the id-pe-cmw extension.
func Marshal(ev *attest.Evidence, config [32]byte) ([]byte, error) {
	rec, err := MarshalRecord(ev, config)
	if err != nil {
		return nil, err
	}
	der, err := asn1.Marshal(rec)
	if err != nil {
		return nil, err
	}
	if len(der) > MaxExtension {
		return nil, &attest.Error{Code: attest.CodeOversized, Check: "evidence", Got: fmt.Sprintf("an extension of %d bytes", len(der)), Want: fmt.Sprintf("at most %d", MaxExtension)}
	}
	return der, nil
}

// Unmarshal is the inverse of Marshal. Its errors are *attest.Error.
func Unmarshal(der []byte) (*attest.Evidence, [32]byte, error) {
	var config [32]byte
	if len(der) > MaxExtension {
		return nil, config, &attest.Error{Code: attest.CodeOversized, Check: "evidence", Got: fmt.Sprintf("an extension of %d bytes", len(der)), Want: fmt.Sprintf("at most %d", MaxExtension)}
	}
	var cborCMW []byte
	rest, err := asn1.Unmarshal(der, &cborCMW)
	if err != nil {
		return nil, config, malformed("id-pe-cmw is not a DER octet string", err)
	}
	if len(rest) != 0 {
		return nil, config, malformed("bytes after id-pe-cmw", nil)
	}
	return UnmarshalRecord(cborCMW)
}

// UnmarshalRecord is the inverse of MarshalRecord. Its errors are *attest.Error.
func UnmarshalRecord(raw []byte) (*attest.Evidence, [32]byte, error) {
	var config [32]byte
	if len(raw) > MaxExtension {
		return nil, config, &attest.Error{Code: attest.CodeOversized, Check: "evidence", Got: fmt.Sprintf("%d bytes", len(raw)), Want: fmt.Sprintf("at most %d", MaxExtension)}
	}
	var rec record
	if err := strictcbor.Unmarshal(raw, &rec); err != nil {
		return nil, config, malformed("CMW record", err)
	}
	if rec.Type != MediaType || rec.Ind != indEvidence {
		return nil, config, &attest.Error{Code: attest.CodeUnknownFormat, Check: "evidence", Got: fmt.Sprintf("%.60q", rec.Type), Want: MediaType}
	}
	var p payload
	if err := strictcbor.Unmarshal(rec.Value, &p); err != nil {
		return nil, config, malformed("CMW value", err)
	}
	if len(p.Config) != len(config) {
		return nil, config, malformed(fmt.Sprintf("a configuration digest of %d bytes", len(p.Config)), nil)
	}
	copy(config[:], p.Config)
	return &attest.Evidence{Format: attest.Format(p.Format), Raw: p.Raw, Endorsements: unpack(p.Endorsements)}, config, nil
}

func pack(list []attest.Endorsement) []endorsement {
	var out []endorsement
	for _, e := range list {
		out = append(out, endorsement{Kind: string(e.Kind), Raw: e.Raw})
	}
	return out
}

func unpack(list []endorsement) []attest.Endorsement {
	var out []attest.Endorsement
	for _, e := range list {
		out = append(out, attest.Endorsement{Kind: attest.Kind(e.Kind), Raw: e.Raw})
	}
	return out
}

func malformed(got string, err error) error {
	return &attest.Error{Code: attest.CodeMalformed, Check: "evidence", Got: got, Err: err}
}
