package snp

import "github.com/jurat-tls/jurat/attest"

// For tests that forge evidence.
const (
	MaxStapledCRL = maxStapledCRL
)

// StapleTable is what an Attester staples of the host's table: leaf, ASK and list.
func StapleTable(report, leaf, ask, list []byte) ([]attest.Endorsement, error) {
	r, err := Parse(report)
	if err != nil {
		return nil, err
	}
	entries, err := parseCertTable(table(guidVCEK, leaf, guidASK, ask, guidCRL, list))
	return endorsements(r, entries), err
}

// EncodeTable is a host's table of a leaf and its ASK.
func EncodeTable(leaf, ask []byte) []byte { return table(guidVCEK, leaf, guidASK, ask) }

// Remembers counts what a Verifier remembers.
func (v *Verifier) Remembers() (certificates, lists, signatures int) {
	return len(v.memory.certificates.known), len(v.memory.lists.known), len(v.memory.signatures.known)
}
