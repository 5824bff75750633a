package tpm

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rsa"
	"crypto/x509"
	"fmt"
	"math/big"

	"golang.org/x/crypto/cryptobyte"

	"github.com/jurat-tls/jurat/attest"
)

const maxSignature = 512 // bytes of RSA with 4096 bits

// Signature is a decoded TPMT_SIGNATURE (part 2, section 11.3.4).
type Signature struct {
	scheme uint16
	hash   crypto.Hash
	rsa    []byte
	r, s   *big.Int
}

// ParseSignature decodes a TPMT_SIGNATURE: RSASSA, RSAPSS or ECDSA with SHA-256 or SHA-384.
func ParseSignature(raw []byte) (*Signature, error) {
	if len(raw) == 0 {
		return nil, malformed("no signature")
	}
	r := &reader{rest: raw}
	sig := &Signature{scheme: r.u16()}
	var err error
	if sig.hash, err = hashOf(r.u16(), checkSignature); err != nil {
		return nil, err
	}
	switch sig.scheme {
	case algRSASSA, algRSAPSS:
		sig.rsa = r.sized(maxSignature)
	case algECDSA:
		sig.r = new(big.Int).SetBytes(r.sized(maxName))
		sig.s = new(big.Int).SetBytes(r.sized(maxName))
	default:
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkSignature, fmt.Sprintf("scheme %#04x", sig.scheme), "RSASSA, RSAPSS or ECDSA")
	}
	if !r.whole() {
		return nil, malformed("a signature that is cut off, or with something behind it")
	}
	return sig, nil
}

// RSASSA wraps a bare RSASSA-PKCS1-v1_5 signature with SHA-256 into a TPMT_SIGNATURE.
func RSASSA(bare []byte) []byte {
	var b cryptobyte.Builder
	b.AddUint16(algRSASSA)
	b.AddUint16(algSHA256)
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(bare) })
	return b.BytesOrPanic()
}

func (s *Signature) String() string {
	name := map[uint16]string{algRSASSA: "RSASSA", algRSAPSS: "RSAPSS", algECDSA: "ECDSA"}[s.scheme]
	return name + " with " + s.hash.String()
}

// Quoted is a quote as a TPM answers it, with the PCR values that belong to it. Nothing in it has been verified.
type Quoted struct {
	Quote     *Quote
	Signature *Signature
	// Values of the PCRs in the quote's selection, by number; nil where the evidence has none.
	Values map[int]attest.HexBytes
}

// ParseQuoted decodes a quote, its signature and, unless pcrs is empty, the values of exactly the PCRs it selects.
func ParseQuoted(message, signature, pcrs []byte) (*Quoted, error) {
	q, err := ParseQuote(message)
	if err != nil {
		return nil, err
	}
	sig, err := ParseSignature(signature)
	if err != nil {
		return nil, err
	}
	out := &Quoted{Quote: q, Signature: sig}
	if len(pcrs) == 0 {
		return out, nil
	}
	// A quote over some PCRs must not pass as one over all: there are as many values as PCRs are selected.
	size := q.bank.Size()
	if len(pcrs) != size*len(q.PCRs) {
		return nil, attest.Refuse(attest.CodeSelection, checkRegisters, fmt.Sprintf("%d bytes of PCR values", len(pcrs)), fmt.Sprintf("the %d PCRs that the quote selects, %d bytes each", len(q.PCRs), size))
	}
	out.Values = map[int]attest.HexBytes{}
	for i, n := range q.PCRs {
		out.Values[n] = bytes.Clone(pcrs[i*size : (i+1)*size])
	}
	return out, nil
}

// Verify checks the signature by key, and that the PCR values are those that were signed.
func (q *Quoted) Verify(key crypto.PublicKey) error {
	if err := q.Signature.verify(key, q.Quote.message); err != nil {
		return err
	}
	return q.digest()
}

// digest checks that the PCR values, where there are any, are those with the digest in the quote.
func (q *Quoted) digest() error {
	if q.Values == nil {
		return nil
	}
	h := q.Signature.hash.New() // part 3, section 18.4: the hash of the signing scheme, whatever the bank
	for _, n := range q.Quote.PCRs {
		h.Write(q.Values[n])
	}
	if got := h.Sum(nil); !bytes.Equal(got, q.Quote.Digest) {
		return attest.Refuse(attest.CodeSignature, checkRegisters, "PCR values with digest "+attest.Abbreviate(got), "those signed, "+attest.Abbreviate(q.Quote.Digest))
	}
	return nil
}

func (s *Signature) verify(key crypto.PublicKey, message []byte) error {
	h := s.hash.New()
	h.Write(message)
	digest := h.Sum(nil)
	ok := false
	switch k := key.(type) {
	case *rsa.PublicKey:
		switch s.scheme {
		case algRSASSA:
			ok = rsa.VerifyPKCS1v15(k, s.hash, digest, s.rsa) == nil
		case algRSAPSS:
			ok = rsa.VerifyPSS(k, s.hash, digest, s.rsa, nil) == nil
		}
	case *ecdsa.PublicKey:
		ok = s.scheme == algECDSA && ecdsa.Verify(k, digest, s.r, s.s)
	}
	if !ok {
		return attest.Refuse(attest.CodeSignature, checkSignature, "a signature that does not verify ("+s.String()+")", "one by the attestation key")
	}
	return nil
}

// encodeKey makes the SubjectPublicKeyInfo of a key. It refuses keys that this package does not know, that are too short
// to believe or too long to be verified cheaply.
func encodeKey(key crypto.PublicKey) ([]byte, error) {
	ok := false
	switch k := key.(type) {
	case *rsa.PublicKey:
		ok = k.N.BitLen() >= 2048 && k.N.BitLen() <= 4096
	case *ecdsa.PublicKey:
		ok = k.Curve == elliptic.P256() || k.Curve == elliptic.P384()
	}
	if ok {
		return x509.MarshalPKIXPublicKey(key)
	}
	return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkSigner, fmt.Sprintf("an attestation key of type %T", key), "RSA with 2048 to 4096 bits, ECC on P-256 or P-384")
}
