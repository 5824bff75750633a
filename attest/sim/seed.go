package sim

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/asn1"
	"math/big"
)

// seed is the secret of one simulated chip, from which everything else that is its own is derived.
type seed []byte

const seedSize = 32

// derive makes n bytes that depend on the chip and on info alone.
func (s seed) derive(info string, n int) []byte {
	out, err := hkdf.Key(sha256.New, s, nil, info, n)
	if err != nil {
		panic(err) // n is a small constant
	}
	return out
}

// key makes a key that depends on the chip and on info alone.
func (s seed) key(curve elliptic.Curve, info string) (*ecdsa.PrivateKey, error) {
	order := curve.Params().N
	size := (order.BitLen() + 7) / 8
	// 64 more bits than the order has make the bias of the reduction negligible.
	k := new(big.Int).SetBytes(s.derive(info, size+8))
	k.Mod(k, new(big.Int).Sub(order, big.NewInt(1)))
	k.Add(k, big.NewInt(1))
	return ecdsa.ParseRawPrivateKey(curve, k.FillBytes(make([]byte, size)))
}

// signatureParts takes an ECDSA signature in DER apart, for hardware writes its two numbers in other ways.
func signatureParts(der []byte) (r, s *big.Int, err error) {
	var signature struct{ R, S *big.Int }
	_, err = asn1.Unmarshal(der, &signature)
	return signature.R, signature.S, err
}
