package dialect

import (
	"bytes"
	"encoding/binary"

	"github.com/jurat-tls/jurat/attest"
)

// readAttestedTLS reads Flashbots' certificates: JSON in dstack's extensions. The hardware signs the key, the validity and the common
// name of the certificate; the common name is last, so that nothing can be moved from one field into another.
func readAttestedTLS(s Shown, _ Context) (*Found, error) {
	held, from, err := dstackHeld(s)
	if err != nil {
		return nil, err
	}
	if len(held) == 0 || !isJSON(held[0]) {
		return nil, ErrAbsent
	}
	for _, other := range held[1:] {
		if !bytes.Equal(other, held[0]) {
			return nil, refuse(attest.CodeDialects, "two messages", "the same in both extensions")
		}
	}
	var m struct {
		Type        string `json:"attestation_type"`
		Attestation octets `json:"attestation"`
	}
	if err := object(held[0], &m, "attestation_type", "attestation"); err != nil {
		return nil, err
	}
	switch m.Type {
	case "dcap-tdx", "gcp-tdx", "qemu-tdx":
	case "none":
		return nil, refuse(attest.CodeNoEvidence, `a message of type "none"`, "evidence")
	default:
		return nil, refuse(attest.CodeUnknownFormat, "evidence of type "+attest.Quote(m.Type), "dcap-tdx, gcp-tdx or qemu-tdx")
	}
	ev, err := only(formatTDX, m.Attestation)
	if err != nil {
		return nil, err
	}
	if s.Leaf == nil {
		return nil, nothingExpected("the certificate, whose validity and common name are signed")
	}
	validity := binary.BigEndian.AppendUint64(nil, uint64(s.Leaf.NotBefore.Unix()))
	validity = binary.BigEndian.AppendUint64(validity, uint64(s.Leaf.NotAfter.Unix()))
	name := s.Leaf.Subject.CommonName
	return &Found{
		Evidence: ev, ReportData: []attest.ReportData{whole(sha512Of(s.spki(), validity, []byte(name)))},
		Preimage: "SHA-512(SPKI, validity, common name)", Level: attest.LevelKey, Made: s.Leaf.NotBefore, Subject: name,
		Unsigned: []string{"alternative names of the certificate"}, from: from,
	}, nil
}
