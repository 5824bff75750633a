package tpm

import "crypto/sha256"

// ParseSealed takes the hint of a key apart.
func ParseSealed(hint []byte) (parts [4][]byte, err error) {
	o, err := parseSealed(hint)
	if err != nil {
		return parts, err
	}
	return [4][]byte{o.public, o.private, o.creation, o.ticket}, nil
}

// MakeFor is what somebody can have a TPM make who may use it: an object that opens when the PCRs have other values than now.
func (k *KeySource) MakeFor(values, root []byte) (hint []byte, err error) {
	storage, err := k.device.storageKey()
	if err != nil {
		return nil, err
	}
	defer k.device.flush(storage.handle)
	digest := sha256.Sum256(values)
	return k.make(storage, digest[:], root)
}
