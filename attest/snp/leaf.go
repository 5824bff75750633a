package snp

import (
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
	spl           map[int]uint8 // by the last arc
	hwid          []byte        // VCEK only
	csp           string        // VLEK only
}

// leaf is a VCEK or VLEK certificate.
type leaf struct {
	*x509.Certificate
	extensions
	signer signer
	key    *ecdsa.PublicKey
}

// parseLeaf decodes a certificate whose subject is that of a VCEK or VLEK.
func parseLeaf(cert *x509.Certificate) (*leaf, error) {
	l := &leaf{Certificate: cert, signer: vcek}
	switch cert.Subject.CommonName {
	case vcek.leafName():
	case vlek.leafName():
		l.signer = vlek
	default:
		return nil, refuse(attest.CodeSignerMismatch, checkSigner, quote(cert.Subject.CommonName), "SEV-VCEK or SEV-VLEK")
	}
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P384() {
		return nil, refuse(attest.CodeUnknownAlgorithm, checkSigner, cert.PublicKeyAlgorithm.String(), "an ECDSA key on P-384")
	}
	l.key = key
	var err error
	l.extensions, err = parseExtensions(cert.Extensions)
	return l, err
}

func parseExtensions(list []pkix.Extension) (e extensions, err error) {
	e.structVersion, e.spl = -1, map[int]uint8{}
	seen := map[string]bool{}
	for _, x := range list {
		id := x.Id.String()
		if seen[id] {
			return e, refuse(attest.CodeDuplicateExtension, checkChain, id, "once")
		}
		seen[id] = true
		if len(x.Id) <= len(arc) || !x.Id[:len(arc)].Equal(arc) {
			continue
		}
		switch tail := x.Id[len(arc):]; {
		case len(tail) == 1 && tail[0] == arcStructVersion:
			e.structVersion, err = integer(x)
		case len(tail) == 1 && tail[0] == arcProductName:
			e.productName, err = text(x)
		case len(tail) == 2 && tail[0] == arcSPL && tail[1] >= 1 && tail[1] <= 9:
			var v int
			v, err = integer(x)
			e.spl[tail[1]] = uint8(v)
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
	return refuse(attest.CodeMalformedEndorsement, checkChain, fmt.Sprintf("extension %s: %s", x.Id, why), "")
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
	rest, err := asn1.UnmarshalWithParams(x.Value, &v, "ia5")
	if err != nil || len(rest) != 0 || v == "" || len(v) > 255 {
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

// checkProduct checks that certificate and report speak of the same product, and settles which generation that is.
func (l *leaf) checkProduct(r *Report) (*generation, error) {
	g, err := generationOf(l.productName)
	if err != nil {
		return nil, err
	}
	if r.generation == nil && g == turin {
		return nil, refuse(attest.CodeProductMismatch, checkProduct, "a certificate of Turin", "Milan or Genoa, as the report has version 2")
	}
	if r.generation != nil && r.generation != g {
		return nil, refuse(attest.CodeProductMismatch, checkProduct, "a certificate of "+g.line, r.generation.line+" as in the report")
	}
	if got, want := l.Issuer.CommonName, l.signer.issuerName(g); got != want {
		return nil, refuse(attest.CodeProductMismatch, checkProduct, "a certificate issued by "+quote(got), want)
	}
	if l.structVersion != g.version {
		return nil, refuse(attest.CodeProductMismatch, checkProduct, fmt.Sprintf("structVersion %d", l.structVersion), fmt.Sprint(g.version))
	}
	return g, r.checkLayout(g)
}

// checkTCB compares the certificate with REPORTED_TCB, the level that the signing key was derived for.
func (l *leaf) checkTCB(r *Report, g *generation) error {
	want, err := g.layout.decode(r.ReportedTCB)
	if err != nil {
		return err
	}
	named := map[int]bool{}
	for component, reported := range want {
		at := tcbExtension[component]
		named[at] = true
		endorsed, ok := l.spl[at]
		if !ok {
			return refuse(attest.CodeTCBMismatch, checkTCB, "no "+component+" in the certificate", fmt.Sprintf("%s %d as reported", component, reported))
		}
		if uint64(endorsed) != reported {
			return refuse(attest.CodeTCBMismatch, checkTCB, fmt.Sprintf("a certificate for %s %d", component, endorsed), fmt.Sprintf("%s %d as reported", component, reported))
		}
	}
	for at, v := range l.spl {
		if !named[at] && v != 0 {
			return refuse(attest.CodeTCBMismatch, checkTCB, fmt.Sprintf("a certificate with reserved component %d at %d", at, v), "0")
		}
	}
	return nil
}

// checkChip compares the certificate's chip with the report's. A VLEK belongs to a cloud provider instead.
func (l *leaf) checkChip(r *Report, g *generation) error {
	if l.signer == vlek {
		if l.hwid != nil || l.csp == "" {
			return refuse(attest.CodeSignerMismatch, checkChip, "a VLEK that does not name a cloud provider alone", "extension "+arc.String()+".5 and no chip")
		}
		return nil
	}
	if l.csp != "" {
		return refuse(attest.CodeSignerMismatch, checkChip, "a VCEK that names a cloud provider", "a chip")
	}
	if r.masked() {
		return &attest.Error{
			Code: attest.CodeChipMismatch, Check: checkChip, Got: "a report without chip id", Want: "the chip that the VCEK is for",
			Hint: "the host masks the chip id; it must not where a VCEK signs",
		}
	}
	if len(l.hwid) != g.hwid || string(l.hwid) != string(r.ChipID[:g.hwid]) {
		return refuse(attest.CodeChipMismatch, checkChip, "a certificate for chip "+abbreviate(l.hwid), abbreviate(r.ChipID[:g.hwid]))
	}
	return nil
}

func abbreviate(b []byte) string {
	s := attest.HexBytes(b).String()
	if len(s) > 20 {
		return s[:8] + "…" + s[len(s)-8:]
	}
	return s
}
