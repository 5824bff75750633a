package dcap

import (
	"crypto/ecdsa"
	"crypto/sha256"
)

// VerifyRaw verifies a signature in the form of a quote.
func VerifyRaw(key *ecdsa.PublicKey, message, signature []byte) bool {
	digest := sha256.Sum256(message)
	return ecdsa.VerifyASN1(key, digest[:], derSignature(signature))
}

// Fingerprints names roots.
func Fingerprints(r *Roots) (list []string) {
	for _, one := range r.list {
		list = append(list, one.fingerprint)
	}
	return list
}

// Decoders without the verification before them, for fuzzing.
func DecodePCK(der []byte) (*PCK, error) { return parseSGXExtension(der, arcConfiguration) }

func DecodeChain(text []byte) error {
	_, err := parseChain(text)
	return err
}

func DecodeTCBInfo(value []byte) (levels, modules int, err error) {
	t, err := decodeTCBInfo(value, nil)
	if err != nil {
		return 0, 0, err
	}
	return len(t.levels), len(t.modules), nil
}

func DecodeQEIdentity(value []byte) (levels int, err error) {
	id, err := decodeQEIdentity(value, nil)
	if err != nil {
		return 0, err
	}
	return len(id.levels), nil
}

// ForgetBindings forgets which attestation keys are certified, and nothing else.
func ForgetBindings(v *Verifier) {
	v.bindings.mu.Lock()
	defer v.bindings.mu.Unlock()
	clear(v.bindings.good)
}
