package dialect

import (
	"encoding/asn1"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// readPrivasys reads Privasys' deterministic certificates: a raw quote or report, of the key and of the minute in which the
// certificate begins to be valid. Its challenge needs an extension of the ClientHello that crypto/tls does not send, and its enclaves
// (SGX) have no deterministic form.
func readPrivasys(s Shown, _ Context) (*Found, error) {
	var f *Found
	for _, place := range []struct {
		id   asn1.ObjectIdentifier
		read func([]byte) (*attest.Evidence, error)
	}{
		{asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 5, 5, 1, 6}, func(raw []byte) (*attest.Evidence, error) { return only(formatTDX, raw) }},
		{asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 65230, 4, 1}, report},
		{asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1, 0}, func([]byte) (*attest.Evidence, error) {
			return nil, nothingExpected("a challenge in the ClientHello, which is not sent")
		}},
	} {
		ext, err := s.extension(place.id)
		if err != nil {
			return nil, err
		}
		if ext == nil {
			continue
		}
		if f != nil {
			return nil, refuse(attest.CodeDialects, "evidence of two TEEs", "of one")
		}
		ev, err := place.read(ext.Value)
		if err != nil {
			return nil, err
		}
		f = &Found{Evidence: ev, from: []asn1.ObjectIdentifier{ext.Id}}
	}
	if f == nil {
		return nil, ErrAbsent
	}
	if s.Leaf == nil {
		return nil, nothingExpected("the certificate, whose beginning is signed")
	}
	made := s.Leaf.NotBefore.UTC()
	f.ReportData = []attest.ReportData{whole(sha512Of(sha256Of(s.spki()), []byte(made.Format("2006-01-02T15:04Z"))))}
	f.Preimage, f.Level, f.Made = "SHA-512(SHA-256(SPKI), minute of NotBefore)", attest.LevelKey, made.Truncate(time.Minute)
	f.Unsigned = []string{"names and end of validity of the certificate", "extensions about configuration, workload and GPU"}
	return f, nil
}
