package tpm

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"fmt"
	"math/big"

	"github.com/jurat-tls/jurat/attest"
)

// Object types, curves and attributes (part 2, tables 9, 10 and 32).
const (
	typeRSA = 0x0001
	typeECC = 0x0023

	curveP256 = 0x0003
	curveP384 = 0x0004

	attrFixedTPM        = 1 << 1
	attrFixedParent     = 1 << 4
	attrSensitiveOrigin = 1 << 5
	attrRestricted      = 1 << 16
	attrDecrypt         = 1 << 17
	attrSign            = 1 << 18

	// An attestation key was made in this TPM, can't leave it, and signs nothing but what the TPM itself made.
	attrRequired = attrFixedTPM | attrFixedParent | attrSensitiveOrigin | attrRestricted | attrSign
)

// Public is a decoded TPMT_PUBLIC of an attestation key (part 2, section 12.2.4).
type Public struct {
	Key  crypto.PublicKey
	Name attest.HexBytes // the TPM's own name of the key, which commits to its attributes

	scheme uint16
	hash   crypto.Hash
}

// ParsePublic decodes a TPMT_PUBLIC, and refuses one that is not of an attestation key.
func ParsePublic(raw []byte) (*Public, error) {
	if len(raw) == 0 {
		return nil, malformed("no attestation key")
	}
	r := &reader{rest: raw}
	kind, nameAlg, attributes := r.u16(), r.u16(), r.u32()
	_ = r.sized(maxName) // policy: who may use the key
	if attributes&attrRequired != attrRequired || attributes&attrDecrypt != 0 {
		return nil, attest.Refuse(attest.CodeSignerMismatch, checkSigner, fmt.Sprintf("a key with attributes %#x", attributes), "an attestation key: made in its TPM, bound to it, restricted to signing what the TPM made")
	}
	nameHash, err := hashOf(nameAlg, checkSigner)
	if err != nil {
		return nil, err
	}
	p := new(Public)
	if err := p.parseScheme(r); err != nil {
		return nil, err
	}
	switch kind {
	case typeRSA:
		p.Key, err = parseRSA(r)
	case typeECC:
		p.Key, err = parseECC(r)
	default:
		err = attest.Refuse(attest.CodeUnknownAlgorithm, checkSigner, fmt.Sprintf("a key of type %#04x", kind), "RSA or ECC")
	}
	if !r.whole() && err == nil {
		err = malformed("a public area that is cut off, or with something behind it")
	}
	if err != nil {
		return nil, err
	}
	h := nameHash.New()
	h.Write(raw)
	p.Name = h.Sum([]byte{byte(nameAlg >> 8), byte(nameAlg)}) // part 1, section 16
	return p, nil
}

// parseScheme reads the symmetric algorithm, which a signing key has not, and the signing scheme, which a restricted one
// must have.
func (p *Public) parseScheme(r *reader) (err error) {
	symmetric, scheme := r.u16(), r.u16()
	if symmetric != algNull || scheme != algRSASSA && scheme != algRSAPSS && scheme != algECDSA {
		return attest.Refuse(attest.CodeSignerMismatch, checkSigner, fmt.Sprintf("symmetric algorithm %#04x, scheme %#04x", symmetric, scheme), "a key that signs with RSASSA, RSAPSS or ECDSA")
	}
	p.scheme = scheme
	p.hash, err = hashOf(r.u16(), checkSigner)
	return err
}

func parseRSA(r *reader) (crypto.PublicKey, error) {
	bits, exponent := r.u16(), r.u32()
	key := &rsa.PublicKey{N: new(big.Int).SetBytes(r.sized(maxSignature)), E: 65537}
	if exponent != 0 && exponent != 65537 || key.N.BitLen() != int(bits) {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkSigner, fmt.Sprintf("RSA with %d of %d bits and exponent %d", key.N.BitLen(), bits, exponent), "exponent 65537")
	}
	return key, nil
}

func parseECC(r *reader) (crypto.PublicKey, error) {
	curveID, kdf, x, y := r.u16(), r.u16(), r.sized(maxName), r.sized(maxName)
	curve := map[uint16]elliptic.Curve{curveP256: elliptic.P256(), curveP384: elliptic.P384()}[curveID]
	if curve == nil || kdf != algNull {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkSigner, fmt.Sprintf("curve %#04x with key derivation %#04x", curveID, kdf), "P-256 or P-384 without")
	}
	size := (curve.Params().BitSize + 7) / 8
	point := make([]byte, 1+2*size)
	point[0] = 4
	if len(x) > size || len(y) > size {
		return nil, malformed("a point that is longer than its curve")
	}
	copy(point[1+size-len(x):], x)
	copy(point[1+2*size-len(y):], y)
	key, err := ecdsa.ParseUncompressedPublicKey(curve, point)
	if err != nil {
		return nil, &attest.Error{Code: attest.CodeMalformed, Check: checkFormat, Err: err}
	}
	return key, nil
}
