// Package dialectforge makes the certificates, requests and documents of other attested-TLS implementations, from what is known of
// their formats and not from the code that reads them here. Evidence comes from whoever calls, under roots of a test. The hooks
// change one thing, so that nothing but the check under test can refuse the outcome.
package dialectforge

import (
	"bytes"
	"compress/gzip"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base32"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"
	"time"
)

// Forge makes things of one key. The zero hooks change nothing.
type Forge struct {
	T     testing.TB
	Key   crypto.Signer
	Quote func(data [64]byte) []byte                  // evidence whose report data are data
	Nitro func(userData, nonce []byte) []byte         // a Nitro document
	Parts func(report []byte) (message []byte)        // the message that go-sev-guest makes of a report
	CSR   func(report []byte) (vcek, crl, tcb []byte) // what endorses evidence

	NotBefore, NotAfter time.Time
	CommonName          string
	Names               []string
	Nonce               []byte
	Exported            []byte // by the TLS exporter
	HPKE                []byte

	Signed   func(preimage []byte) []byte // what is hashed
	Data     func(*[64]byte)              // the report data
	Value    func([]byte) []byte          // the extension, or the document
	Critical bool
	OID      asn1.ObjectIdentifier // in place of the right one
	Extra    []pkix.Extension
}

// NewKey makes a key of P-256.
func NewKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// SPKI is the DER of the key.
func (f *Forge) SPKI() []byte {
	der, err := x509.MarshalPKIXPublicKey(f.Key.Public())
	f.check(err)
	return der
}

// PEM is the key in PEM.
func (f *Forge) PEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: f.SPKI()})
}

func (f *Forge) check(err error) {
	f.T.Helper()
	if err != nil {
		f.T.Fatal(err)
	}
}

func (f *Forge) signed(parts ...[]byte) []byte {
	all := bytes.Join(parts, nil)
	if f.Signed != nil {
		all = f.Signed(all)
	}
	return all
}

func (f *Forge) quote(hash []byte) []byte {
	var data [64]byte
	copy(data[:], hash)
	if f.Data != nil {
		f.Data(&data)
	}
	return f.Quote(data)
}

func (f *Forge) value(v []byte) []byte {
	if f.Value != nil {
		v = f.Value(bytes.Clone(v))
	}
	return v
}

func sum256(b []byte) []byte { s := sha256.Sum256(b); return s[:] }
func sum384(b []byte) []byte { s := sha512.Sum384(b); return s[:] }
func sum512(b []byte) []byte { s := sha512.Sum512(b); return s[:] }

// Certificate makes a self-signed certificate with extensions.
func (f *Forge) Certificate(extensions ...pkix.Extension) *x509.Certificate {
	f.T.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: f.CommonName}, NotBefore: f.NotBefore, NotAfter: f.NotAfter,
		DNSNames: f.Names, ExtraExtensions: append(extensions, f.Extra...),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, f.Key.Public(), f.Key)
	f.check(err)
	leaf, err := x509.ParseCertificate(der)
	f.check(err)
	return leaf
}

// with makes a certificate with the one extension of a dialect.
func (f *Forge) with(id asn1.ObjectIdentifier, v []byte) *x509.Certificate {
	f.T.Helper()
	if f.OID != nil {
		id = f.OID
	}
	return f.Certificate(pkix.Extension{Id: id, Critical: f.Critical, Value: f.value(v)})
}

// CBOR as RFC 8949 has it.
func head(major byte, n int) []byte {
	switch {
	case n < 24:
		return []byte{major<<5 | byte(n)}
	case n < 1<<8:
		return []byte{major<<5 | 24, byte(n)}
	case n < 1<<16:
		return binary.BigEndian.AppendUint16([]byte{major<<5 | 25}, uint16(n))
	default:
		return binary.BigEndian.AppendUint32([]byte{major<<5 | 26}, uint32(n))
	}
}

// Bytes is a CBOR byte string, and Text a text.
func Bytes(b []byte) []byte { return append(head(2, len(b)), b...) }

// Text is a CBOR text string.
func Text(s string) []byte { return append(head(3, len(s)), s...) }

// Pairs is a CBOR map of encoded keys and values in turn.
func Pairs(items ...[]byte) []byte {
	return append(head(5, len(items)/2), bytes.Join(items, nil)...)
}

// Tagged is a tagged CBOR array of encoded items.
func Tagged(tag int, items ...[]byte) []byte {
	return bytes.Join(append([][]byte{head(6, tag), head(4, len(items))}, items...), nil)
}

// KeyHash is the value of the claim pubkey-hash.
func KeyHash(algorithm int, hash []byte) []byte {
	return bytes.Join([][]byte{head(4, 2), head(0, algorithm), Bytes(hash)}, nil)
}

// Claims is a claims buffer with the hash of the key, and more entries.
func (f *Forge) Claims(more ...[]byte) []byte {
	return Pairs(append([][]byte{Text("pubkey-hash"), Bytes(KeyHash(1, sum256(f.SPKI())))}, more...)...)
}

// TaggedEvidence is the value of TCG DICE's extension.
func (f *Forge) TaggedEvidence(tag int, buffer []byte) []byte {
	return Tagged(tag, Bytes(f.quote(sum256(f.signed(buffer)))), Bytes(buffer))
}

// OIDs of extensions.
var (
	OIDDICE          = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 9}
	OIDEndorsements  = asn1.ObjectIdentifier{2, 23, 133, 5, 4, 2}
	OIDIntelSGX      = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}
	OIDGramine       = asn1.ObjectIdentifier{0, 6, 9, 42, 840, 113741, 1337, 6}
	OIDOEReport      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 105, 1}
	OIDOEOldReport   = asn1.ObjectIdentifier{1, 2, 840, 113556, 10, 1, 1}
	OIDOEEvidence    = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 311, 105, 2}
	OIDOEOldEvidence = asn1.ObjectIdentifier{1, 2, 840, 113556, 10, 1, 2}
	OIDConstellation = asn1.ObjectIdentifier{1, 3, 9900, 5, 99}
	OIDContrast      = asn1.ObjectIdentifier{1, 3, 9901, 2, 1}
	OIDDstackQuote   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 62397, 1, 1}
	OIDDstack        = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 62397, 1, 8}
	OIDPrivasysTDX   = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 5, 5, 1, 6}
	OIDPrivasysSNP   = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 65230, 4, 1}
	OIDPrivasysSGX   = asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1, 0}
	OIDC8s           = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 66378, 1, 1}
	OIDEnarxSGX      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 58270, 1, 2}
	OIDEnarxSNP      = asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 58270, 1, 3}
)

// DICE is a certificate of interoperable RA-TLS, with a nonce where there is one.
func (f *Forge) DICE() *x509.Certificate {
	var more [][]byte
	if f.Nonce != nil {
		more = append(more, Text("nonce"), Bytes(f.Nonce))
	}
	return f.with(OIDDICE, f.TaggedEvidence(60000, f.Claims(more...)))
}

// RatsTLS is one of rats-tls, which has claims of its own, or with tag 0x1a7504 one of an SEV-SNP machine.
func (f *Forge) RatsTLS(tag int) *x509.Certificate {
	return f.with(OIDDICE, f.TaggedEvidence(tag, f.Claims(Text("sw-version"), Bytes([]byte("1.0")), Text("build"), Pairs(Text("id"), Bytes([]byte{7})))))
}

// SGXSDK is one of the Intel SGX SDK: the same quote in two places.
func (f *Forge) SGXSDK() *x509.Certificate {
	buffer := f.Claims()
	quote := f.quote(sum256(f.signed(buffer)))
	return f.Certificate(
		pkix.Extension{Id: OIDDICE, Value: Tagged(60000, Bytes(quote), Bytes(buffer))},
		pkix.Extension{Id: OIDIntelSGX, Value: f.value(quote)},
	)
}

// Gramine is one of Gramine from before interoperable RA-TLS.
func (f *Forge) Gramine() *x509.Certificate {
	return f.with(OIDGramine, f.quote(sum256(f.signed(f.SPKI()))))
}

// GramineBoth is one of Gramine since: a quote for each dialect.
func (f *Forge) GramineBoth() *x509.Certificate {
	return f.Certificate(
		pkix.Extension{Id: OIDGramine, Value: f.quote(sum256(f.SPKI()))},
		pkix.Extension{Id: OIDDICE, Value: f.value(f.TaggedEvidence(60000, f.Claims()))},
	)
}

// OEReport puts Open Enclave's header before a quote.
func OEReport(quote []byte) []byte {
	h := binary.LittleEndian.AppendUint32(nil, 1)
	h = binary.LittleEndian.AppendUint32(h, 2)
	return append(binary.LittleEndian.AppendUint64(h, uint64(len(quote))), quote...)
}

// EGo is one of EGo.
func (f *Forge) EGo() *x509.Certificate {
	return f.with(OIDOEReport, OEReport(f.quote(sum256(f.signed(f.SPKI())))))
}

// OpenEnclave is one of Open Enclave, under its new identifier.
func (f *Forge) OpenEnclave() *x509.Certificate {
	return f.with(OIDOEReport, OEReport(f.quote(sum256(f.signed(f.PEM(), []byte{0})))))
}

// OEClaims serializes claims as Open Enclave does: names end with a zero.
func OEClaims(pairs ...[2]string) []byte {
	le := binary.LittleEndian
	out := le.AppendUint64(le.AppendUint64(nil, 1), uint64(len(pairs)))
	for _, p := range pairs {
		out = le.AppendUint64(le.AppendUint64(out, uint64(len(p[0])+1)), uint64(len(p[1])))
		out = append(append(append(out, p[0]...), 0), p[1]...)
	}
	return out
}

// OEEvidence is one with evidence of version 3, whose claims are given.
func (f *Forge) OEEvidence(claims []byte) *x509.Certificate {
	return f.with(OIDOEEvidence, oeEvidence(3, append(f.quote(sum256(f.signed(claims))), claims...)))
}

// OELegacyEvidence is one with evidence of version 2.
func (f *Forge) OELegacyEvidence(claims []byte) *x509.Certificate {
	return f.with(OIDOEOldEvidence, oeEvidence(2, append(OEReport(f.quote(sum256(f.signed(claims)))), claims...)))
}

func oeEvidence(version uint32, body []byte) []byte {
	id, _ := hex.DecodeString("a3a21e871b4d4014b70aa125d2fbcd8c")
	out := append(binary.LittleEndian.AppendUint32(nil, version), id...)
	out = append(out, 0, 0, 0, 0) // a C compiler aligns the size
	return append(binary.LittleEndian.AppendUint64(out, uint64(len(body))), body...)
}

// Constellation is one of its aTLS on a TDX machine.
func (f *Forge) Constellation() *x509.Certificate {
	user := sum256(f.SPKI())
	doc, err := json.Marshal(struct{ RawQuote, UserData []byte }{f.quote(sum256(f.signed(user, f.Nonce))), user})
	f.check(err)
	return f.with(OIDConstellation, doc)
}

// Contrast is one of its aTLS on an SEV-SNP machine.
func (f *Forge) Contrast() *x509.Certificate {
	return f.with(OIDContrast, f.Parts(f.quote(sum512(f.signed(f.SPKI(), f.Nonce)))))
}

// Octets is v as a DER octet string.
func (f *Forge) Octets(v []byte) []byte {
	der, err := asn1.Marshal(v)
	f.check(err)
	return der
}

func (f *Forge) dstack() []byte {
	return f.quote(sum512(f.signed([]byte("ratls-cert:"), f.SPKI())))
}

// DstackQuote is one of dstack in its older form.
func (f *Forge) DstackQuote() *x509.Certificate {
	return f.with(OIDDstackQuote, f.Octets(f.dstack()))
}

// Compact is a SCALE compact number.
func Compact(n int) []byte {
	switch {
	case n < 1<<6:
		return []byte{byte(n << 2)}
	case n < 1<<14:
		return binary.LittleEndian.AppendUint16(nil, uint16(n<<2|1))
	default:
		return binary.LittleEndian.AppendUint32(nil, uint32(n<<2|2))
	}
}

func scale(variant byte, quote []byte) []byte {
	out := append([]byte{0, variant}, Compact(len(quote))...)
	out = append(out, quote...)
	if variant == 0 {
		out = append(out, Compact(0)...) // event log
	}
	out = append(append(out, Compact(0)...), make([]byte, 64)...) // runtime events, report data
	return append(out, Compact(0)...)                             // configuration
}

// Dstack is one of dstack with an attestation of version 0.
func (f *Forge) Dstack() *x509.Certificate {
	return f.with(OIDDstack, f.Octets(scale(0, f.dstack())))
}

// DstackNitro is one of an enclave under dstack.
func (f *Forge) DstackNitro() *x509.Certificate {
	user := sum512(f.signed([]byte("ratls-cert:"), f.SPKI()))
	return f.with(OIDDstack, f.Octets(scale(2, f.Nitro(user, nil))))
}

// MessagePack of texts, maps and arrays of numbers, which is how Rust writes byte strings.
func mpText(s string) []byte { return append([]byte{0xd9, byte(len(s))}, s...) }

func mpMap(items ...[]byte) []byte {
	return append([]byte{0x80 | byte(len(items)/2)}, bytes.Join(items, nil)...)
}

func mpNumbers(b []byte) []byte {
	out := binary.BigEndian.AppendUint16([]byte{0xdc}, uint16(len(b)))
	for _, v := range b {
		if v < 128 {
			out = append(out, v)
		} else {
			out = append(out, 0xcc, v)
		}
	}
	return out
}

// DstackNow is one of dstack with an attestation of version 1.
func (f *Forge) DstackNow() *x509.Certificate {
	m := mpMap(
		mpText("version"), []byte{1},
		mpText("platform"), mpMap(mpText("kind"), mpText("tdx"), mpText("data"), mpMap(mpText("quote"), mpNumbers(f.dstack()), mpText("event_log"), []byte{0x90})),
		mpText("stack"), mpMap(mpText("kind"), mpText("dstack"), mpText("data"), mpMap(mpText("config"), mpText("{}"))),
	)
	return f.with(OIDDstack, f.Octets(m))
}

// DstackDocument is what its guest agent answers.
func (f *Forge) DstackDocument() []byte {
	doc, err := json.Marshal(map[string]any{"quote": hex.EncodeToString(f.dstack()), "event_log": "[]", "report_data": "", "vm_config": "{}"})
	f.check(err)
	return f.value(doc)
}

// AttestedTLS is one of Flashbots' attested-tls: JSON in dstack's extension.
func (f *Forge) AttestedTLS() *x509.Certificate {
	validity := binary.BigEndian.AppendUint64(nil, uint64(f.NotBefore.Unix()))
	validity = binary.BigEndian.AppendUint64(validity, uint64(f.NotAfter.Unix()))
	quote := f.quote(sum512(f.signed(f.SPKI(), validity, []byte(f.CommonName))))
	return f.with(OIDDstack, f.Octets(scale(0, attestedMessage("dcap-tdx", quote))))
}

func attestedMessage(kind string, quote []byte) []byte {
	return fmt.Appendf(nil, `{"attestation_type":%q,"attestation":[%s]}`, kind, strings.Trim(strings.ReplaceAll(fmt.Sprint(quote), " ", ","), "[]"))
}

// Privasys is a deterministic certificate of a TDX machine, or with OIDPrivasysSNP of another.
func (f *Forge) Privasys() *x509.Certificate {
	minute := f.NotBefore.UTC().Format("2006-01-02T15:04Z")
	return f.with(OIDPrivasysTDX, f.quote(sum512(f.signed(sum256(f.SPKI()), []byte(minute)))))
}

// C8s is a certificate of its mesh. kind is 1 for SEV-SNP and 2 for TDX.
func (f *Forge) C8s(kind int, chain []byte) *x509.Certificate {
	der, err := asn1.Marshal(struct {
		TEE           int
		Report, Chain []byte
	}{kind, f.quote(sum384(f.signed(f.SPKI()))), chain})
	f.check(err)
	return f.with(OIDC8s, der)
}

// Evervault is one whose Nitro document is a name.
func (f *Forge) Evervault() *x509.Certificate {
	document := f.Nitro(f.signed(f.SPKI()), f.Nonce)
	f.Names = append(f.Names, hex.EncodeToString(f.value(document))+".enclave.example")
	return f.Certificate()
}

// Nitriding is the document for a certificate. The hash of the application's key is that of none.
func (f *Forge) Nitriding(leaf *x509.Certificate, appKey [32]byte) []byte {
	user := append(append([]byte{0x12, 0x20}, sum256(f.signed(leaf.Raw))...), 0x12, 0x20)
	return f.value([]byte(base64.StdEncoding.EncodeToString(f.Nitro(append(user, appKey[:]...), f.Nonce)) + "\n"))
}

// Tinfoil is a document of version 2 about a TDX machine, and the certificate that goes with it.
func (f *Forge) Tinfoil() (leaf *x509.Certificate, document []byte) {
	quote := f.quote(append(sum256(f.signed(f.SPKI())), f.HPKE...))
	var zipped bytes.Buffer
	z := gzip.NewWriter(&zipped)
	_, err := z.Write(quote)
	f.check(err)
	f.check(z.Close())
	const format = "https://tinfoil.sh/predicate/tdx-guest/v2"
	body := base64.StdEncoding.EncodeToString(zipped.Bytes())
	document, err = json.Marshal(map[string]string{"format": format, "body": body})
	f.check(err)
	document = f.value(document)
	f.Names = append(f.Names, "enclave.example")
	f.Names = append(f.Names, SpreadNames("hpke", f.HPKE)...)
	f.Names = append(f.Names, SpreadNames("hatt", []byte(hex.EncodeToString(sum256([]byte(format+body)))))...)
	return f.Certificate(), document
}

// SpreadNames spreads bytes over names, 60 characters of base32 in each.
func SpreadNames(kind string, b []byte) (names []string) {
	text := strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b))
	for i := 0; len(text) > 0; i++ {
		piece := text[:min(60, len(text))]
		text = text[len(piece):]
		names = append(names, fmt.Sprintf("%02d%s.%s.enclave.example", i, piece, kind))
	}
	return names
}

// Request makes a certificate request with an extension.
func (f *Forge) Request(e pkix.Extension) *x509.CertificateRequest {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{e}}, f.Key)
	f.check(err)
	r, err := x509.ParseCertificateRequest(der)
	f.check(err)
	return r
}

type enarxList struct {
	URL string `asn1:"utf8"`
	CRL asn1.RawValue
}

type enarxLists struct{ Lists []enarxList }

// EnarxSNP is a request of an Enarx keep on an SEV-SNP machine.
func (f *Forge) EnarxSNP() *x509.CertificateRequest {
	report := f.quote(sum384(f.signed(f.SPKI())))
	vcek, crl, _ := f.CSR(report)
	der, err := asn1.Marshal(struct {
		Certificates struct {
			VCEK asn1.RawValue
			CRL  enarxLists
		}
		Report []byte
	}{struct {
		VCEK asn1.RawValue
		CRL  enarxLists
	}{asn1.RawValue{FullBytes: vcek}, enarxLists{[]enarxList{{"https://kds.example/crl", asn1.RawValue{FullBytes: crl}}}}}, report})
	f.check(err)
	return f.Request(pkix.Extension{Id: OIDEnarxSNP, Critical: f.Critical, Value: f.value(der)})
}

// EnarxSGX is a request of an Enarx keep in an enclave.
func (f *Forge) EnarxSGX() *x509.CertificateRequest {
	quote := f.quote(sum256(f.signed(f.SPKI())))
	signer, crl, tcb := f.CSR(quote)
	type pkg struct {
		Certificates []asn1.RawValue
		Info         []byte
	}
	der, err := asn1.Marshal(struct {
		Quote []byte
		CRL   enarxLists
		TCB   pkg
	}{quote, enarxLists{[]enarxList{{"https://pcs.example/crl", asn1.RawValue{FullBytes: crl}}}}, pkg{[]asn1.RawValue{{FullBytes: signer}}, tcb}})
	f.check(err)
	return f.Request(pkix.Extension{Id: OIDEnarxSGX, Critical: f.Critical, Value: f.value(der)})
}

// Cocos is the document of an exported authenticator, with SHA-256 as the hash of the cipher suite.
func (f *Forge) Cocos() []byte {
	binding := sum256(f.signed(f.SPKI(), f.Exported))
	token := Pairs(Text("platform_type"), Text("TDX"), Text("raw_report"), Bytes(f.quote(sum512(binding))))
	sign1 := bytes.Join([][]byte{head(6, 18), head(4, 4), Bytes(nil), Pairs(), Bytes(token), Bytes(make([]byte, 64))}, nil)
	doc, err := json.Marshal(map[string]any{
		"version": 1, "media_type": "application/eat+cwt", "evidence": sign1,
		"binder": map[string]any{"exporter_label": "Attestation", "aik_pub_hash": sum256(f.SPKI()), "binding": sum256(append(f.SPKI(), f.Exported...))},
	})
	f.check(err)
	return f.value(doc)
}
