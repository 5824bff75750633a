package cose

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/asn1"
	"errors"
	"math/big"

	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Sign makes an untagged message over payload with the algorithm of key's curve, as simulated platforms do.
func Sign(key *ecdsa.PrivateKey, payload []byte) ([]byte, error) {
	algorithm := map[elliptic.Curve]Algorithm{elliptic.P256(): ES256, elliptic.P384(): ES384, elliptic.P521(): ES512}[key.Curve]
	protected, err := strictcbor.Marshal(map[int64]int64{labelAlgorithm: int64(algorithm)})
	if err != nil {
		return nil, err
	}
	signature, err := signature(key, algorithm, sigStructure(protected, payload))
	if err != nil {
		return nil, err
	}
	return strictcbor.Marshal([]any{protected, map[int64]any{}, payload, signature})
}

// Tag puts the tag of COSE_Sign1 in front of a message.
func Tag(message []byte) []byte { return append([]byte{0xc0 | tagSign1}, message...) }

// signature is r and s, each as long as the curve's order (RFC 9053 §2.1).
func signature(key *ecdsa.PrivateKey, algorithm Algorithm, signed []byte) ([]byte, error) {
	curve, h := algorithm.primitives()
	if curve == nil {
		return nil, errors.New("no algorithm for this curve")
	}
	h.Write(signed)
	der, err := ecdsa.SignASN1(rand.Reader, key, h.Sum(nil))
	if err != nil {
		return nil, err
	}
	var pair struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &pair); err != nil {
		return nil, err
	}
	size := (curve.Params().BitSize + 7) / 8
	out := make([]byte, 2*size)
	pair.R.FillBytes(out[:size])
	pair.S.FillBytes(out[size:])
	return out, nil
}

// MarshalKey encodes the public half of key as a COSE_Key.
func MarshalKey(key *ecdsa.PublicKey) ([]byte, error) {
	m, err := KeyMap(key)
	if err != nil {
		return nil, err
	}
	return strictcbor.Marshal(m)
}

// KeyMap is the public half of key as the map of a COSE_Key, to be encoded within another document.
func KeyMap(key *ecdsa.PublicKey) (map[int64]any, error) {
	point, err := key.Bytes()
	if err != nil {
		return nil, err
	}
	number := map[elliptic.Curve]int64{elliptic.P256(): 1, elliptic.P384(): 2, elliptic.P521(): 3}[key.Curve]
	size := len(point) / 2
	return map[int64]any{keyType: int64(typeEC2), keyCurve: number, keyX: point[1 : 1+size], keyY: point[1+size:]}, nil
}
