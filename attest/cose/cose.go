// Package cose reads COSE_Sign1 messages (RFC 9052) signed with ECDSA (RFC 9053): nothing else of COSE, because nothing else
// is evidence here.
package cose

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"math/big"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Identifiers of the checks in the transcript.
const (
	checkFormat    = "authenticity.format"
	checkSignature = "authenticity.signature"
)

// Algorithm is the number of a signature algorithm in IANA's registry.
type Algorithm int64

// Algorithms that Verify knows (RFC 9053 §2.1). Each goes with one curve here, so that no key is used in two ways.
const (
	ES256 Algorithm = -7  // P-256
	ES384 Algorithm = -35 // P-384
	ES512 Algorithm = -36 // P-521
)

func (a Algorithm) String() string {
	switch a {
	case ES256:
		return "ES256"
	case ES384:
		return "ES384"
	case ES512:
		return "ES512"
	}
	return fmt.Sprintf("algorithm %d", int64(a))
}

// Labels of header parameters (RFC 9052 §3.1).
const (
	labelAlgorithm   = 1
	labelContentType = 3
	labelKeyID       = 4
)

const (
	tagSign1  = 18
	maxKeyID  = 64
	maxHeader = 256
)

// Sign1 is a decoded message. Nothing in it has been verified.
type Sign1 struct {
	Tagged    bool // tag 18 stands in front
	Algorithm Algorithm
	Payload   []byte
	// UnprotectedKeyID is a key identifier that is not signed; nil when there is none.
	UnprotectedKeyID []byte

	protected, signature []byte
}

// Parse decodes one message: [protected, unprotected, payload, signature]. Its slices share memory with raw. Every byte of
// it is either signed, or the signature, or can only be what it is; but for the tag and an unprotected key identifier.
func Parse(raw []byte) (*Sign1, error) {
	v, err := strictcbor.Parse(raw, strictcbor.Limits{Depth: 4, Items: 8})
	if err != nil {
		return nil, malformed("COSE_Sign1", err)
	}
	m := new(Sign1)
	if number, content, ok := v.Tag(); ok {
		if number != tagSign1 {
			return nil, malformed(fmt.Sprintf("tag %d", number), nil)
		}
		m.Tagged, v = true, content
	}
	fields, _ := v.Array()
	if len(fields) != 4 {
		return nil, malformed("no array of four", nil)
	}
	var ok [3]bool
	m.protected, ok[0] = fields[0].Bytes()
	m.Payload, ok[1] = fields[2].Bytes()
	m.signature, ok[2] = fields[3].Bytes()
	if ok != [3]bool{true, true, true} || !fields[1].IsMap() {
		return nil, malformed("not byte string, map, byte string, byte string", nil)
	}
	if err := m.parseUnprotected(fields[1]); err != nil {
		return nil, err
	}
	return m, m.parseProtected()
}

// parseUnprotected lets pass a key identifier only. An algorithm here in particular is anybody's choice.
func (m *Sign1) parseUnprotected(header strictcbor.Value) error {
	for i := range header.Len() {
		key, value := header.Entry(i)
		id, ok := value.Bytes()
		if label, _ := key.Int(); label != labelKeyID || !ok || len(id) > maxKeyID {
			return &attest.Error{Code: attest.CodeUnknownField, Check: checkFormat, Got: "unsigned header parameter " + key.String()}
		}
		m.UnprotectedKeyID = id
	}
	return nil
}

// parseProtected reads the signed header. A parameter that this build does not know might change the meaning of the
// message, and one that lists critical parameters (crit, label 2) lists what this build does not know (RFC 9052 §3.1).
func (m *Sign1) parseProtected() error {
	if len(m.protected) > maxHeader {
		return malformed(fmt.Sprintf("a protected header of %d bytes", len(m.protected)), nil)
	}
	header, err := strictcbor.Parse(m.protected, strictcbor.Limits{Depth: 3, Items: 8, AnyLength: true})
	if err != nil {
		return malformed("protected header", err)
	}
	for i := range header.Len() {
		key, _ := header.Entry(i)
		switch label, _ := key.Int(); label {
		case labelAlgorithm, labelContentType, labelKeyID:
		default:
			return &attest.Error{Code: attest.CodeUnknownField, Check: checkFormat, Got: "header parameter " + key.String()}
		}
	}
	algorithm, _ := header.Get(labelAlgorithm).Int()
	m.Algorithm = Algorithm(algorithm) // none is 0, which Verify does not know
	return nil
}

// Verify checks the signature by key over the protected header and the payload. The algorithm is the one that is signed,
// and the key must be of its curve.
func (m *Sign1) Verify(key *ecdsa.PublicKey) error {
	curve, h := m.Algorithm.primitives()
	if curve == nil {
		return &attest.Error{Code: attest.CodeUnknownAlgorithm, Check: checkSignature, Got: m.Algorithm.String(), Want: "ES256, ES384 or ES512"}
	}
	if key == nil || key.Curve != curve {
		return &attest.Error{Code: attest.CodeUnknownAlgorithm, Check: checkSignature, Got: m.Algorithm.String() + " with a key of another kind", Want: "a key of " + curve.Params().Name}
	}
	size := (curve.Params().BitSize + 7) / 8
	if len(m.signature) != 2*size {
		return &attest.Error{Code: attest.CodeSignature, Check: checkSignature, Got: fmt.Sprintf("a signature of %d bytes", len(m.signature)), Want: fmt.Sprintf("%d bytes", 2*size)}
	}
	h.Write(sigStructure(m.protected, m.Payload))
	r, s := new(big.Int).SetBytes(m.signature[:size]), new(big.Int).SetBytes(m.signature[size:])
	if !ecdsa.Verify(key, h.Sum(nil), r, s) {
		return &attest.Error{Code: attest.CodeSignature, Check: checkSignature, Got: "a signature that does not verify", Want: m.Algorithm.String() + " by the endorsed key"}
	}
	return nil
}

// primitives are the curve and the hash of a; nil for an unknown algorithm.
func (a Algorithm) primitives() (elliptic.Curve, hash.Hash) {
	switch a {
	case ES256:
		return elliptic.P256(), sha256.New()
	case ES384:
		return elliptic.P384(), sha512.New384()
	case ES512:
		return elliptic.P521(), sha512.New()
	}
	return nil, nil
}

// sigStructure is what is signed (RFC 9052 §4.4): ["Signature1", protected, external_aad, payload], without external data.
func sigStructure(protected, payload []byte) []byte {
	const context = "Signature1"
	out := make([]byte, 0, len(protected)+len(payload)+32)
	out = append(out, 0x84, 0x60|byte(len(context)))
	out = append(out, context...)
	out = appendBytes(out, protected)
	out = append(out, 0x40)
	return appendBytes(out, payload)
}

// appendBytes writes a byte string with the shortest length (RFC 8949 §4.2.1).
func appendBytes(out, b []byte) []byte {
	switch n := len(b); {
	case n < 24:
		out = append(out, 0x40|byte(n))
	case n < 1<<8:
		out = append(out, 0x58, byte(n))
	case n < 1<<16:
		out = binary.BigEndian.AppendUint16(append(out, 0x59), uint16(n))
	default:
		out = binary.BigEndian.AppendUint32(append(out, 0x5a), uint32(n))
	}
	return append(out, b...)
}

func malformed(got string, err error) error {
	code := attest.CodeMalformed
	if errors.Is(err, strictcbor.ErrDuplicate) {
		code = attest.CodeDuplicateField
	}
	return &attest.Error{Code: code, Check: checkFormat, Got: got, Err: err}
}
