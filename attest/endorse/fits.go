package endorse

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"fmt"
	"net/url"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// fits tells whether e is what the vendor's service would answer: the names and numbers in the path are compared with those
// in e. A wrong answer does no harm, the verifier compares again.
func fits(e attest.Endorsement, ref attest.Ref) bool {
	u, err := url.ParseRequestURI(ref.Path)
	if err != nil {
		return false
	}
	switch strings.TrimPrefix(ref.Service, simulated) {
	case amdService:
		return fitsAMD(e, u)
	case intelService:
		return fitsIntel(e, u)
	}
	// Nobody has a service for the rest: it is for the operator to have the right ones at hand, and for the verifier to
	// compare. A key that the request names by its digest is told from others, of which there may be many.
	if key := u.Query().Get("key"); key != "" {
		sum := sha256.Sum256(e.Raw)
		return hex.EncodeToString(sum[:]) == key
	}
	return true
}

func fitsAMD(e attest.Endorsement, u *url.URL) bool {
	parts := strings.Split(u.Path, "/") // "", "vcek", "v1", "Genoa", rest
	if len(parts) != 5 {
		return false
	}
	key, line, rest := strings.ToUpper(parts[1]), parts[3], parts[4]
	if e.Kind == attest.KindCRL {
		crl, err := x509.ParseRevocationList(e.Raw)
		return err == nil && rest == "crl" && crl.Issuer.CommonName == "ARK-"+line
	}
	cert, err := x509.ParseCertificate(e.Raw)
	if err != nil {
		return false
	}
	issuer := "SEV-" + line
	if key == "VLEK" {
		issuer = "SEV-VLEK-" + line
	}
	if rest == "cert_chain" {
		return cert.Subject.CommonName == issuer
	}
	return cert.Issuer.CommonName == issuer && sameChip(cert, rest, u.Query())
}

// splArcs are the last arcs of the extensions 1.3.6.1.4.1.3704.1.3.x by the name that the KDS gives them.
var splArcs = map[string]string{"blSPL": "1", "teeSPL": "2", "snpSPL": "3", "ucodeSPL": "8", "fmcSPL": "9"}

func sameChip(cert *x509.Certificate, chip string, query url.Values) bool {
	values := map[string][]byte{}
	for _, x := range cert.Extensions {
		values[x.Id.String()] = x.Value
	}
	id := values["1.3.6.1.4.1.3704.1.4"]
	if len(id) == len(chip)/2+2 { // some certificates wrap it in one more OCTET STRING
		id = id[2:]
	}
	if hex.EncodeToString(id) != strings.ToLower(chip) {
		return false
	}
	for name := range query {
		var have int
		if _, err := asn1.Unmarshal(values["1.3.6.1.4.1.3704.1.3."+splArcs[name]], &have); err != nil || fmt.Sprintf("%02d", have) != query.Get(name) {
			return false
		}
	}
	return true
}

// fitsIntel compares with the names that Intel gives its authorities and documents; others' have them within theirs.
func fitsIntel(e attest.Endorsement, u *url.URL) bool {
	tdx := strings.HasPrefix(u.Path, "/tdx/")
	switch e.Kind {
	case attest.KindTCBInfo:
		d, _ := readDocument(e)
		return d.ID == pick(tdx, "TDX", "SGX") && strings.EqualFold(d.FMSPC, u.Query().Get("fmspc"))
	case attest.KindQEIdentity:
		d, _ := readDocument(e)
		return d.ID == pick(tdx, "TD_QE", "QE")
	case attest.KindCRL:
		issuer := map[string]string{"platform": "SGX PCK Platform CA", "processor": "SGX PCK Processor CA", "": intelRoot}[u.Query().Get("ca")]
		crl, err := x509.ParseRevocationList(e.Raw)
		return err == nil && issuer != "" && strings.Contains(crl.Issuer.CommonName, issuer)
	}
	return false
}

const intelRoot = "SGX Root CA"

func pick(is bool, yes, no string) string {
	if is {
		return yes
	}
	return no
}

// accompanies tells whether a certificate belongs to what Intel's service sends along as the issuer chain: the root and what
// the root issued.
func accompanies(e attest.Endorsement, ref attest.Ref) bool {
	if strings.TrimPrefix(ref.Service, simulated) != intelService {
		return false
	}
	cert, err := x509.ParseCertificate(e.Raw)
	return err == nil && strings.Contains(cert.Issuer.CommonName, intelRoot)
}
