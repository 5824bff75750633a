package collect

import (
	"fmt"
	"path/filepath"

	"github.com/jurat-tls/jurat/attest"
)

// Scope says which enclaves get the same key to seal with on this processor. The zero Scope is refused.
type Scope uint8

// Values of Scope.
const (
	Unique  Scope = iota + 1 // this very enclave alone (MRENCLAVE): an update does not get the key
	Product                  // every enclave of its signer with its product id (MRSIGNER), which has to be trusted for that
)

const (
	checkSeal   = "seal"
	sealKeySize = 16 // 128 bits, as the processor derives them
)

// KeySource gives the keys to seal with that the processor derives for the enclave, by Gramine's files
// (Gramine documentation, "Attestation and Secret Provisioning"). They are of the security version of processor and enclave of
// now: what was sealed before an update of either, microcode included, is sealed by somebody else. There is no hint.
type KeySource struct {
	gramine gramine
	scope   Scope
}

// NewKeySource makes a KeySource of the enclave this program runs in. The error has CodeNoSealing where that is not Gramine's.
func NewKeySource(scope Scope) (*KeySource, error) { return newKeySource(gramineDirectory, scope) }

func newKeySource(dir string, scope Scope) (*KeySource, error) {
	k := &KeySource{gramine{dir}, scope}
	if k.file() == "" {
		return nil, attest.Refuse(attest.CodeNoExpectation, checkSeal, fmt.Sprintf("scope %d", scope), "which enclaves are to have the key")
	}
	// Where Gramine runs outside of an enclave, as it can for tests, this says so.
	if err := k.gramine.probe(); err != nil {
		return nil, noKey(err)
	}
	return k, nil
}

func (k *KeySource) file() string {
	return map[Scope]string{Unique: "_sgx_mrenclave", Product: "_sgx_mrsigner"}[k.scope]
}

// Root implements seal.Source.
func (k *KeySource) Root(hint []byte) (root, again []byte, err error) {
	if len(hint) > 0 {
		return nil, nil, attest.Refuse(attest.CodeSealForeign, checkSeal, fmt.Sprintf("a key with a hint of %d bytes", len(hint)), "one without, of Gramine")
	}
	root, err = read(filepath.Join(k.gramine.dir, "keys", k.file()), sealKeySize)
	if err == nil && (len(root) != sealKeySize || attest.AllZero(root)) {
		err = fmt.Errorf("a key of %d bytes, or of zeros", len(root))
	}
	if err != nil {
		return nil, nil, noKey(err)
	}
	return root, nil, nil
}

func noKey(err error) error {
	return &attest.Error{Code: attest.CodeNoSealing, Check: checkSeal, Subject: SourceGramine, Err: err}
}
