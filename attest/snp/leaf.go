package snp

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// arc is 1.3.6.1.4.1.3704.1, under which AMD's extensions stand (57230 table 8).
var arc = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}

// Last arcs of AMD's extensions.
const (
	arcStructVersion = 1
	arcProductName   = 2
	arcSPL           = 3 // one more arc names the component
	arcHWID          = 4
	arcCSP           = 5
)

// extensions are AMD's extensions of a VCEK or VLEK certificate.
type extensions struct {
	structVersion int
	productName   string
	spl           [10]spl // by the last arc
	hwid          []byte  // VCEK only
	csp           string  // VLEK only
}

// spl is the security version number of one component.
type spl struct {
	there bool
	value uint8
}

// leaf is a VCEK or VLEK certificate.
type leaf struct {
	*x509.Certificate
	extensions
	signer signer
	key    *ecdsa.PublicKey
}

// parseLeaf decodes a certificate whose subject is that of a VCEK or VLEK. It answers nil for any other.
func parseLeaf(cert *x509.Certificate) (*leaf, error) {
	l := &leaf{Certificate: cert, signer: vcek}
	switch cert.Subject.CommonName {
	case vcek.leafName():
	case vlek.leafName():
		l.signer = vlek
	default:
		return nil, nil
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, attest.Refuse(attest.CodeUnknownAlgorithm, checkSigner, cert.PublicKeyAlgorithm.String(), "an ECDSA key on P-384")
	}
	l.key = key
	var err error
	l.extensions, err = parseExtensions(cert.Extensions)
	return l, err
}

// parseExtensions takes AMD's extensions out of a certificate's. None occurs twice: crypto/x509 refuses such certificates.
func parseExtensions(list []pkix.Extension) (e extensions, err error) {
	e.structVersion = -1
	for _, x := range list {
		if len(x.Id) <= len(arc) || !x.Id[:len(arc)].Equal(arc) {
			continue
		}
		switch tail := x.Id[len(arc):]; {
		case len(tail) == 1 && tail[0] == arcStructVersion:
			e.structVersion, err = integer(x)
		case len(tail) == 1 && tail[0] == arcProductName:
			e.productName, err = text(x)
		case len(tail) == 2 && tail[0] == arcSPL && tail[1] >= 1 && tail[1] < len(e.spl):
			var v int
			v, err = integer(x)
			e.spl[tail[1]] = spl{true, uint8(v)}
		case len(tail) == 1 && tail[0] == arcHWID:
			e.hwid, err = hwid(x)
		case len(tail) == 1 && tail[0] == arcCSP:
			e.csp, err = text(x)
		case tail[0] == arcSPL:
			// A component that this build does not know could be the vulnerable one.
			err = malformed(x, "no TCB component that is known")
		}
		if err != nil {
			return e, err
		}
	}
	return e, nil
}

func malformed(x pkix.Extension, why string) *attest.Error {
	return attest.Refuse(attest.CodeMalformedEndorsement, checkChain, fmt.Sprintf("extension %s: %s", x.Id, why), "")
}

// integer decodes an INTEGER from 0 to 255.
func integer(x pkix.Extension) (int, error) {
	var v int
	if rest, err := asn1.Unmarshal(x.Value, &v); err != nil || len(rest) != 0 || v < 0 || v > 255 {
		return 0, malformed(x, "no INTEGER from 0 to 255")
	}
	return v, nil
}

// text decodes an IA5String of at most 255 printable characters.
func text(x pkix.Extension) (string, error) {
	var v string
	rest, _ := asn1.UnmarshalWithParams(x.Value, &v, "ia5") // where that fails v stays empty
	if len(rest) != 0 || v == "" || len(v) > 255 {
		return "", malformed(x, "no IA5String")
	}
	for _, c := range []byte(v) {
		if c < ' ' || c > '~' {
			return "", malformed(x, "not printable")
		}
	}
	return v, nil
}

// hwid takes the bytes as they are, as in most certificates, or out of one more OCTET STRING, as in others.
func hwid(x pkix.Extension) ([]byte, error) {
	switch v := x.Value; {
	case len(v) == 64 || len(v) == 8:
		return v, nil
	case (len(v) == 66 || len(v) == 10) && v[0] == asn1.TagOctetString && int(v[1]) == len(v)-2:
		return v[2:], nil
	}
	return nil, malformed(x, "no identifier of 8 or 64 bytes")
}

// fits checks that the certificate is for the key that signed the report: same product, chip and TCB level.
func (l *leaf) fits(r *Report) (*generation, levels, error) {
	g, lv, err := l.checkProduct(r)
	if err == nil {
		err = l.checkChip(r, g)
	}
	if err == nil {
		err = l.checkTCB(lv.reported)
	}
	return g, lv, err
}

// checkProduct checks that certificate and report speak of the same product. It settles which generation that is, and with
// it the levels.
func (l *leaf) checkProduct(r *Report) (*generation, levels, error) {
	g, err := l.generationFor(r)
	if err != nil {
		return nil, levels{}, err
	}
	lv, err := r.levels(g)
	return g, lv, err
}

func (l *leaf) generationFor(r *Report) (*generation, error) {
	g, err := generationOf(l.productName)
	if err != nil {
		return nil, err
	}
	if r.generation == nil && g == turin {
		return nil, attest.Refuse(attest.CodeProductMismatch, checkProduct, "a certificate of Turin", "Milan or Genoa, as the report has version 2")
	}
	if r.generation != nil && r.generation != g {
		return nil, attest.Refuse(attest.CodeProductMismatch, checkProduct, "a certificate of "+g.line, r.generation.line+" as in the report")
	}
	if got, want := l.Issuer.CommonName, l.signer.issuerName(g); got != want {
		return nil, attest.Refuse(attest.CodeProductMismatch, checkProduct, "a certificate issued by "+attest.Quote(got), want)
	}
	if l.structVersion != g.version {
		return nil, attest.Refuse(attest.CodeProductMismatch, checkProduct, fmt.Sprintf("structVersion %d", l.structVersion), fmt.Sprint(g.version))
	}
	return g, nil
}

// checkTCB compares the certificate with REPORTED_TCB, the level that the signing key was derived for.
func (l *leaf) checkTCB(reported tcb) error {
	rest := l.spl
	for _, c := range reported.components() {
		endorsed := rest[c.arc]
		rest[c.arc] = spl{}
		if !endorsed.there {
			return attest.Refuse(attest.CodeTCBMismatch, checkTCB, "no "+c.name+" in the certificate", fmt.Sprintf("%s %d as reported", c.name, c.value))
		}
		if endorsed.value != c.value {
			return attest.Refuse(attest.CodeTCBMismatch, checkTCB, fmt.Sprintf("a certificate for %s %d", c.name, endorsed.value), fmt.Sprintf("%s %d as reported", c.name, c.value))
		}
	}
	for arc, left := range rest {
		if left.value != 0 {
			return attest.Refuse(attest.CodeTCBMismatch, checkTCB, fmt.Sprintf("a certificate with reserved component %d at %d", arc, left.value), "0")
		}
	}
	return nil
}

// checkChip compares the certificate's chip with the report's. A VLEK belongs to a cloud provider instead.
func (l *leaf) checkChip(r *Report, g *generation) error {
	if l.signer == vlek {
		if l.hwid != nil || l.csp == "" {
			return attest.Refuse(attest.CodeSignerMismatch, checkChip, "a VLEK that does not name a cloud provider alone", "extension "+arc.String()+".5 and no chip")
		}
		return nil
	}
	if l.csp != "" {
		return attest.Refuse(attest.CodeSignerMismatch, checkChip, "a VCEK that names a cloud provider", "a chip")
	}
	if r.masked() {
		return &attest.Error{
			Code: attest.CodeChipMismatch, Check: checkChip, Got: "a report without chip id", Want: "the chip that the VCEK is for",
			Hint: "the host masks the chip id; it must not where a VCEK signs",
		}
	}
	if !bytes.Equal(l.hwid, r.ChipID[:g.hwid]) {
		return attest.Refuse(attest.CodeChipMismatch, checkChip, "a certificate for chip "+attest.Abbreviate(l.hwid), attest.Abbreviate(r.ChipID[:g.hwid]))
	}
	return nil
}
