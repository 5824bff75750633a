//go:build ego

package ego

import (
	"bytes"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"

	"github.com/edgelesssys/ego/enclave"

	"github.com/jurat-tls/jurat/attest"
)

// Scope says which enclaves get the same key on this processor. The zero Scope is refused.
type Scope uint8

// Values of Scope.
const (
	Unique  Scope = iota + 1 // this very program alone (MRENCLAVE): an update does not get the key
	Product                  // every program with this signer and product id (MRSIGNER), in this version or a later one
)

// label keeps keys for one purpose apart from those for another, and from other users of the same hardware key.
const label = "jurat sgx seal 1\x00"

// A Sealer derives keys from one key of the processor.
type Sealer struct {
	key  []byte
	info []byte
}

// NewSealer makes a Sealer over a fresh key. Keep its Info beside what is sealed: RestoreSealer needs it.
func (e *Enclave) NewSealer(scope Scope) (*Sealer, error) {
	if err := e.opened(); err != nil {
		return nil, err
	}
	derive := map[Scope]func() (key, info []byte, err error){Unique: enclave.GetRandomUniqueSealKey, Product: enclave.GetRandomProductSealKey}[scope]
	if derive == nil {
		return nil, failed(fmt.Errorf("scope %d is none", scope))
	}
	key, info, err := derive()
	if err := usable(key, err); err != nil {
		return nil, failed(err)
	}
	return &Sealer{key: key, info: info}, nil
}

// RestoreSealer makes the Sealer again that Info came from. The processor gives the key to the enclaves of its scope
// alone, and to none of an older version.
//
// The info was in the host's hands. A host that knows the key of an older, broken version of the product can give its
// info to a newer one: read with a restored Sealer, but seal what is secret with a new one.
func (e *Enclave) RestoreSealer(scope Scope, info []byte) (*Sealer, error) {
	fresh, err := e.NewSealer(scope)
	if err != nil {
		return nil, err
	}
	// The host could ask for another key with info of its own making: one that is not bound to this enclave at all, or
	// that a debug enclave gets as well. Only the versions and the key's number may differ from what we ask for.
	if len(info) != len(fresh.info) || !bytes.Equal(fixed(info), fixed(fresh.info)) {
		return nil, failed(errors.New("the info of the sealing key asks for a key of another kind"))
	}
	key, err := enclave.GetSealKey(info)
	if err := usable(key, err); err != nil {
		return nil, failed(err)
	}
	return &Sealer{key: key, info: slices.Clone(info)}, nil
}

// fixed is a key request (KEYREQUEST, Intel SDM volume 3D) without what may differ: ISVSVN, CPUSVN and KEYID.
func fixed(request []byte) []byte {
	f := slices.Clone(request)
	clear(f[4:6])
	clear(f[8:24])
	clear(f[40:72])
	return f
}

// Info is what RestoreSealer needs. It is no secret.
func (s *Sealer) Info() []byte { return slices.Clone(s.info) }

// SealKey derives the key for one context, such as the name of what is sealed. It has the strength of the processor's
// key, 128 bits.
func (s *Sealer) SealKey(context string) (key [32]byte, err error) {
	if err := usable(s.key, nil); err != nil {
		return key, failed(err)
	}
	if context == "" {
		return key, &attest.Error{Code: attest.CodeNoExpectation, Check: check, Got: "no context for a sealing key"}
	}
	derived, err := hkdf.Key(sha256.New, s.key, nil, label+context, len(key))
	copy(key[:], derived)
	return key, err
}

// KeySource gives keys to seal with, as package seal asks for them. The hint of each is what Info gives.
type KeySource struct {
	enclave *Enclave
	scope   Scope
}

// NewKeySource makes a KeySource of the keys of a Scope.
func (e *Enclave) NewKeySource(scope Scope) *KeySource { return &KeySource{e, scope} }

// Root implements seal.Source. The secret for a nil hint is a new one every time.
func (k *KeySource) Root(hint []byte) (root, again []byte, err error) {
	var s *Sealer
	if hint == nil {
		s, err = k.enclave.NewSealer(k.scope)
	} else if s, err = k.enclave.RestoreSealer(k.scope, hint); attest.CodeOf(err) == attest.CodeAttesterFailed {
		err = &attest.Error{Code: attest.CodeSealForeign, Check: "seal", Subject: "ego", Err: err}
	}
	if err != nil {
		return nil, nil, err
	}
	key, err := s.SealKey("root")
	return key[:], s.Info(), err
}
