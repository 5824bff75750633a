package cose

import (
	"crypto/ecdsa"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Labels and values of a COSE_Key (RFC 9052 §7.1, RFC 9053 §7.1.1).
const (
	keyType      = 1
	keyID        = 2
	keyAlgorithm = 3
	keyCurve     = -1
	keyX         = -2
	keyY         = -3

	typeEC2 = 2
)

// ParseKey decodes a COSE_Key that holds the public key of an elliptic curve, both coordinates in full.
func ParseKey(raw []byte) (*ecdsa.PublicKey, error) {
	v, err := strictcbor.Parse(raw, strictcbor.Limits{Depth: 3, Items: 16, AnyLength: true})
	if err != nil {
		return nil, malformed("COSE_Key", err)
	}
	return KeyFrom(v)
}

// KeyFrom is ParseKey for one that lies within another document.
func KeyFrom(v strictcbor.Value) (*ecdsa.PublicKey, error) {
	for i := range v.Len() {
		key, _ := v.Entry(i)
		switch label, _ := key.Int(); label {
		case keyType, keyID, keyAlgorithm, keyCurve, keyX, keyY:
		default: // a private part, or operations that the key is for
			return nil, &attest.Error{Code: attest.CodeUnknownField, Check: checkFormat, Got: "COSE_Key parameter " + key.String()}
		}
	}
	kind, _ := v.Get(keyType).Int()
	number, _ := v.Get(keyCurve).Int()
	algorithm := map[int64]Algorithm{1: ES256, 2: ES384, 3: ES512}[number]
	curve, _ := algorithm.primitives()
	if kind != typeEC2 || curve == nil {
		return nil, &attest.Error{Code: attest.CodeUnknownAlgorithm, Check: checkFormat, Got: "a COSE_Key of another kind", Want: "EC2 with P-256, P-384 or P-521"}
	}
	if stated := v.Get(keyAlgorithm); stated.Present() {
		if n, _ := stated.Int(); Algorithm(n) != algorithm {
			return nil, &attest.Error{Code: attest.CodeUnknownAlgorithm, Check: checkFormat, Got: "a COSE_Key for another algorithm", Want: algorithm.String()}
		}
	}
	x, _ := v.Get(keyX).Bytes()
	y, _ := v.Get(keyY).Bytes() // a sign bit in place of y is not supported
	if len(x) != (curve.Params().BitSize+7)/8 {
		return nil, malformed("a COSE_Key without a coordinate in full", nil)
	}
	point := append(append([]byte{4}, x...), y...)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, malformed("a COSE_Key that is no point of its curve", err)
	}
	return key, nil
}
