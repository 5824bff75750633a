package dialect

import (
	"encoding/asn1"

	"github.com/jurat-tls/jurat/attest"
)

func oidGramine() asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{0, 6, 9, 42, 840, 113741, 1337, 6}
}

// readGramineLegacy reads what Gramine wrote before interoperable RA-TLS, and beside it since: a raw SGX quote under an identifier
// that its authors encoded twice, so that it reads 0.6.9.42.840.113741.1337.6.
func readGramineLegacy(s Shown, _ Context) (*Found, error) {
	ext, err := s.extension(oidGramine())
	if err != nil {
		return nil, err
	}
	if ext == nil {
		return nil, ErrAbsent
	}
	ev, err := only(formatSGX, ext.Value)
	if err != nil {
		return nil, err
	}
	return &Found{
		Evidence: ev, ReportData: []attest.ReportData{whole(sha256Of(s.spki()))}, Preimage: "SHA-256(SPKI)",
		Level: attest.LevelKey, Unsigned: []string{unsignedLeaf}, from: []asn1.ObjectIdentifier{ext.Id},
	}, nil
}
