package dialect

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/asn1"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// readC8s reads the certificates of c8s' mesh: a report of SEV-SNP or a quote, of the key alone. The nonce of its issuance never
// reaches a handshake. What its control plane adds is signed by that.
func readC8s(s Shown, _ Context) (*Found, error) {
	ext, err := s.extension(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 66378, 1, 1})
	if err != nil {
		return nil, err
	}
	if ext == nil {
		return nil, ErrAbsent
	}
	var a struct {
		TEE    int
		Report []byte
		Chain  []byte
	}
	if rest, err := asn1.Unmarshal(ext.Value, &a); err != nil || len(rest) != 0 {
		return nil, malformed("TEEAttestation", err)
	}
	const snp, tdx = 1, 2
	var ev *attest.Evidence
	switch {
	case isJSON(a.Report):
		err = refuse(attest.CodeUnknownFormat, "the envelope of an attestation service", "a bare report or quote")
	case a.TEE == snp:
		ev, err = report(a.Report)
	case a.TEE == tdx:
		ev, err = only(formatTDX, a.Report)
	default:
		err = refuse(attest.CodeUnknownFormat, fmt.Sprintf("TEE %d", a.TEE), "1 or 2")
	}
	if err != nil {
		return nil, err
	}
	if len(a.Chain) > 0 {
		certs, err := x509.ParseCertificates(a.Chain)
		if err != nil || len(certs) > attest.MaxEndorsements {
			return nil, malformed("certificates beside the report", err)
		}
		for _, c := range certs {
			ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: c.Raw})
		}
	}
	return &Found{
		Evidence: ev, ReportData: []attest.ReportData{whole(sha384Of(c8sKey(s)))}, Preimage: "SHA-384(SPKI)", Level: attest.LevelKey,
		Unsigned: []string{unsignedLeaf, "extensions about workload and sandbox"}, from: []asn1.ObjectIdentifier{ext.Id},
	}, nil
}

// c8sKey is what is hashed: the DER of a key, but for Ed25519 the key itself.
func c8sKey(s Shown) []byte {
	if s.Leaf != nil {
		if key, ok := s.Leaf.PublicKey.(ed25519.PublicKey); ok {
			return key
		}
	}
	return s.spki()
}
