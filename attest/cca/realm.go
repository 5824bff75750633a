package cca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	_ "crypto/sha256" // makes crypto.SHA256 available
	_ "crypto/sha512" // and SHA384, SHA512
	"fmt"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
)

// Realm is the realm's token (RMM A7.2.3.1).
type Realm struct {
	Profile          string             `json:"profile,omitempty"`
	Challenge        attest.HexBytes    `json:"challenge"` // what the realm had signed
	Personalization  attest.HexBytes    `json:"personalization"`
	Initial          attest.HexBytes    `json:"initial_measurement"`
	Extensible       [4]attest.HexBytes `json:"extensible_measurements"`
	HashAlgorithm    string             `json:"hash_algorithm"`
	PublicKey        attest.HexBytes    `json:"public_key"` // RAK
	KeyHashAlgorithm string             `json:"public_key_hash_algorithm"`

	key     *ecdsa.PublicKey
	ignored []string
}

// Labels of the realm's claims.
const (
	labelPersonalization = 44235
	labelRealmHash       = 44236
	labelPublicKey       = 44237
	labelInitial         = 44238
	labelExtensible      = 44239
	labelKeyHash         = 44240
)

// hashes by their names in IANA's registry of named information.
var hashes = map[string]crypto.Hash{"sha-256": crypto.SHA256, "sha-384": crypto.SHA384, "sha-512": crypto.SHA512}

var hashSizes = []int{32, 48, 64}

func hashNamed(name string) (crypto.Hash, error) {
	h, ok := hashes[name]
	if !ok {
		return 0, attest.Refuse(attest.CodeUnknownAlgorithm, checkFormat, "hash "+attest.Quote(name), "sha-256, sha-384 or sha-512")
	}
	return h, nil
}

func (r *Realm) parse(payload []byte) (err error) {
	c, err := parseClaims(payload, "realm claims")
	if err != nil {
		return err
	}
	if r.Profile, err = c.profile(); err != nil {
		return err
	}
	if r.Challenge, err = c.bytes(labelChallenge, "realm challenge", 64); err != nil {
		return err
	}
	if r.Personalization, err = c.bytes(labelPersonalization, "personalization value", 64); err != nil {
		return err
	}
	if r.HashAlgorithm, err = c.text(labelRealmHash, "realm hash algorithm"); err != nil {
		return err
	}
	hash, err := hashNamed(r.HashAlgorithm)
	if err != nil {
		return err
	}
	if r.Initial, err = c.bytes(labelInitial, "initial measurement", hash.Size()); err != nil {
		return err
	}
	list, _ := c.Get(labelExtensible).Array()
	if len(list) != len(r.Extensible) {
		return malformed(fmt.Sprintf("%d extensible measurements", len(list)), nil)
	}
	for i, v := range list {
		b, _ := v.Bytes()
		if len(b) != hash.Size() {
			return malformed(fmt.Sprintf("extensible measurement of %d bytes", len(b)), nil)
		}
		r.Extensible[i] = b
	}
	if r.KeyHashAlgorithm, err = c.text(labelKeyHash, "hash algorithm of the realm's key"); err != nil {
		return err
	}
	r.ignored = c.unknown(labelProfile, labelChallenge, labelPersonalization, labelRealmHash, labelInitial, labelExtensible, labelKeyHash, labelPublicKey)
	return r.parseKey(c)
}

// parseKey decodes the RAK: a COSE_Key, and before there were profiles a bare point of P-384.
func (r *Realm) parseKey(c claims) (err error) {
	r.PublicKey, _ = c.Get(labelPublicKey).Bytes()
	if r.Profile != "" {
		r.key, err = cose.ParseKey(r.PublicKey)
		return err
	}
	if r.key, err = ecdsa.ParseUncompressedPublicKey(elliptic.P384(), r.PublicKey); err != nil {
		return malformed("a key of the realm's that is no point of P-384", err)
	}
	return nil
}

// hashOfKey is what the platform token has to carry.
func (r *Realm) hashOfKey() ([]byte, error) {
	hash, err := hashNamed(r.KeyHashAlgorithm)
	if err != nil {
		return nil, err
	}
	h := hash.New()
	h.Write(r.PublicKey)
	return h.Sum(nil), nil
}
