package sim

import (
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// KeySource gives keys to seal with as a simulated machine's hardware would: of its chip, of what is measured, and of whether it
// can be debugged. They protect nothing: the secret of the chip lies beside what it seals, wherever the machine has its Dir.
type KeySource struct{ root []byte }

// NewKeySource makes a KeySource of a machine. The error has CodeNoSealing for one whose hardware has no key to seal with.
func NewKeySource(m Machine) (*KeySource, error) {
	switch m := m.(type) {
	case *Platform:
		return &KeySource{m.authority.seed.sealKey("snp", m.config.Debug, m.config.Measurement)}, nil
	case *azureMachine: // by its TPM, which is the paravisor's
		pcrs := m.config.Measurement
		for _, v := range m.soft.pcrs {
			pcrs = append(pcrs[:len(pcrs):len(pcrs)], v[:]...)
		}
		return &KeySource{m.authority.seed.sealKey("azure", m.config.Debug, pcrs)}, nil
	case *DCAP:
		if m.config.tee == teeSGX {
			return &KeySource{m.authority.seed.sealKey("sgx", m.config.debug, m.config.measurement)}, nil
		}
	}
	return nil, attest.Refuse(attest.CodeNoSealing, "seal", "SIMULATED hardware that has no key to seal with", "sim:snp, sim:sgx or sim:azure-snp")
}

// sealKey derives a key that depends on the chip and on what runs there.
func (s seed) sealKey(tee string, debug bool, measured []byte) []byte {
	return s.derive(fmt.Sprintf("seal %s %t %x", tee, debug, measured), seedSize)
}

// Root implements seal.Source. There are no hints.
func (k *KeySource) Root(hint []byte) (root, again []byte, err error) {
	if len(hint) > 0 {
		return nil, nil, attest.Refuse(attest.CodeSealForeign, "seal", fmt.Sprintf("a key with a hint of %d bytes", len(hint)), "one without, of simulated hardware")
	}
	return k.root, nil, nil
}
