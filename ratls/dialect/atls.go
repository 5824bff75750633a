package dialect

import (
	"bytes"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"

	"github.com/jurat-tls/jurat/attest"
)

// askConstellation has the nonce travel as the server name: standard base64, as Constellation writes it.
func askConstellation(_ string, nonce []byte) (string, []string) {
	return base64.StdEncoding.EncodeToString(nonce), nil
}

// askContrast has it travel as an application protocol, which leaves the server name to be one.
func askContrast(name string, nonce []byte) (string, []string) {
	return name, []string{"atls:v1:nonce:" + hex.EncodeToString(nonce)}
}

// readConstellation reads Constellation's aTLS, which cvm-reverse-proxy speaks as well, where the evidence is a quote of TDX. The
// copy of the user data beside it has to be what this leaf makes it, and satisfies nothing.
func readConstellation(s Shown, c Context) (*Found, error) {
	arc := asn1.ObjectIdentifier{1, 3, 9900}
	for _, e := range s.extensions() {
		if below(e.Id, arc) && !e.Id.Equal(append(arc, 5, 99)) {
			return nil, refuse(attest.CodeUnknownFormat, "a document of "+e.Id.String()+", about a virtual TPM, or none", append(arc, 5, 99).String()+", a quote of TDX")
		}
	}
	ext, err := s.extension(append(arc, 5, 99))
	if err != nil {
		return nil, err
	}
	if ext == nil {
		return nil, ErrAbsent
	}
	var doc struct {
		RawQuote []byte
		UserData []byte
	}
	if err := object(ext.Value, &doc, "RawQuote", "UserData"); err != nil {
		return nil, err
	}
	ev, err := only(formatTDX, doc.RawQuote)
	if err != nil {
		return nil, err
	}
	key := sha256Of(s.spki())
	if !bytes.Equal(doc.UserData, key) {
		return nil, otherKey("UserData", doc.UserData, key)
	}
	nonce := c.nonce()
	if nonce == nil {
		return nil, nothingExpected("the nonce that was sent as the server name")
	}
	return &Found{
		Evidence: ev, ReportData: []attest.ReportData{whole(sha256Of(key, nonce))}, Preimage: "SHA-256(SHA-256(SPKI), nonce)",
		Level: attest.LevelNonce, Made: c.Asked, Unsigned: []string{unsignedLeaf, "UserData"}, from: []asn1.ObjectIdentifier{ext.Id},
	}, nil
}

// readContrast reads Contrast's aTLS, where the evidence is a report of SEV-SNP, taken apart into fields.
func readContrast(s Shown, c Context) (*Found, error) {
	arc := asn1.ObjectIdentifier{1, 3, 9901, 2}
	for _, e := range s.extensions() {
		if below(e.Id, arc) && !e.Id.Equal(append(arc, 1)) {
			return nil, refuse(attest.CodeUnknownFormat, "a document of "+e.Id.String(), append(arc, 1).String()+", a report of SEV-SNP")
		}
	}
	ext, err := s.extension(append(arc, 1))
	if err != nil {
		return nil, err
	}
	if ext == nil {
		return nil, ErrAbsent
	}
	ev, err := snpMessage(ext.Value)
	if err != nil {
		return nil, err
	}
	nonce := c.nonce()
	if nonce == nil {
		return nil, nothingExpected("the nonce that was sent as an application protocol or as the server name")
	}
	// The DER of a key says where it ends, so that no other key and nonce are the same bytes.
	return &Found{
		Evidence: ev, ReportData: []attest.ReportData{whole(sha512Of(s.spki(), nonce))}, Preimage: "SHA-512(SPKI, nonce)",
		Level: attest.LevelNonce, Made: c.Asked, Unsigned: []string{unsignedLeaf}, from: []asn1.ObjectIdentifier{ext.Id},
	}, nil
}
