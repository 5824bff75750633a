package dialect

import (
	"encoding/asn1"

	"github.com/jurat-tls/jurat/attest"
)

// enarxLists is Enarx' CrlList: addresses, none of which is ever asked, and the lists from there.
type enarxLists struct {
	Lists []struct {
		URL asn1.RawValue
		CRL asn1.RawValue
	}
}

// readEnarx reads what an Enarx keep asks Steward to certify: a certificate request with evidence and all that endorses it. That the
// key was there when the request was made is all that is shown: it is learnt outside TLS.
func readEnarx(s Shown, _ Context) (*Found, error) {
	var found *Found
	for _, place := range []struct {
		last int
		read func([]byte) (*Found, error)
		hash func(...[]byte) []byte
		name string
	}{
		{2, enarxSGX, sha256Of, "SHA-256(SPKI)"}, {3, enarxSNP, sha384Of, "SHA-384(SPKI)"}, {1, func([]byte) (*Found, error) {
			return nil, refuse(attest.CodeUnknownFormat, "a keep without a TEE", "evidence")
		}, sha256Of, ""},
	} {
		ext, err := s.extension(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 58270, 1, place.last})
		if err != nil {
			return nil, err
		}
		if ext == nil {
			continue
		}
		if ext.Critical {
			return nil, refuse(attest.CodeCriticalExtension, ext.Id.String(), "one that is not critical")
		}
		if found != nil {
			return nil, refuse(attest.CodeDialects, "evidence of two TEEs", "of one")
		}
		if found, err = place.read(ext.Value); err != nil {
			return nil, err
		}
		found.ReportData = []attest.ReportData{whole(place.hash(s.spki()))}
		found.Preimage, found.Level, found.from = place.name, attest.LevelPinned, []asn1.ObjectIdentifier{ext.Id}
		found.Unsigned = []string{"names in the request"}
	}
	if found == nil {
		return nil, ErrAbsent
	}
	return found, nil
}

func der(raw []byte, into any) error {
	if rest, err := asn1.Unmarshal(raw, into); err != nil || len(rest) != 0 {
		return malformed("evidence in DER", err)
	}
	return nil
}

func (l *enarxLists) endorse(ev *attest.Evidence) {
	for _, e := range l.Lists {
		ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: attest.KindCRL, Raw: e.CRL.FullBytes})
	}
}

func enarxSNP(raw []byte) (*Found, error) {
	var e struct {
		Certificates struct {
			VCEK asn1.RawValue
			CRL  enarxLists
		}
		Report []byte
	}
	if err := der(raw, &e); err != nil {
		return nil, err
	}
	ev, err := report(e.Report)
	if err != nil {
		return nil, err
	}
	ev.Endorsements = []attest.Endorsement{{Kind: attest.KindCertificate, Raw: e.Certificates.VCEK.FullBytes}}
	e.Certificates.CRL.endorse(ev)
	return &Found{Evidence: ev}, nil
}

func enarxSGX(raw []byte) (*Found, error) {
	var e struct {
		Quote []byte
		CRL   enarxLists
		TCB   struct {
			Certificates []asn1.RawValue
			Info         []byte
		}
	}
	if err := der(raw, &e); err != nil {
		return nil, err
	}
	ev, err := only(formatSGX, e.Quote)
	if err != nil {
		return nil, err
	}
	ev.Endorsements = []attest.Endorsement{{Kind: attest.KindTCBInfo, Raw: e.TCB.Info}}
	for _, c := range e.TCB.Certificates {
		ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: c.FullBytes})
	}
	e.CRL.endorse(ev)
	return &Found{Evidence: ev}, nil
}
