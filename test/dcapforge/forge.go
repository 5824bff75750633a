// Package dcapforge makes evidence in Intel's format under a root of its own, good but for what a test wants wrong with
// it. The hooks change one thing before it is signed, so that nothing but the check under test can refuse the evidence.
package dcapforge

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
)

// Epoch is when forged evidence verifies.
var Epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// Forge says what to make. The zero value is a quote of TDX, version 4, of an up to date Emerald Rapids.
type Forge struct {
	SGX       bool // instead of TDX
	Version   uint16
	TD15      bool // body of TDX 1.5 in version 5
	Processor bool // PCK certificate by the Processor CA

	Cert struct{ Root, CA, PCK, TCB func(*x509.Certificate) }
	Key  struct { // other keys than the right ones
		CA, PCK, TCB, QE, Quote, Info, Identity, RootCRL, PCKCRL *ecdsa.PrivateKey // what is signed with
		CAPublic, PCKPublic, TCBPublic                           crypto.PublicKey  // what is certified
	}
	Issuer    struct{ CA, PCK, TCB string } // other names of issuers than the right ones
	Extension func([]Field) []Field         // of the PCK certificate
	Header    func([]byte)
	Body      func([]byte)
	QE        func([]byte) // report of the quoting enclave
	QEAuth    []byte
	Info      func(map[string]any)
	Identity  func(map[string]any)
	InfoText  func(string) string // of the TCB info as it is signed
	IDText    func(string) string
	RootCRL   func(*x509.RevocationList)
	PCKCRL    func(*x509.RevocationList)

	// After signing.
	Key64  func([]byte) // attestation key in the quote
	Chain  func([]byte) []byte
	Raw    func([]byte) []byte
	Staple func([]attest.Endorsement) []attest.Endorsement
}

// Places in the list of endorsements.
const (
	TCBInfo = iota
	QEIdentity
	RootCRL
	PCKCRL
	TCBCert
	RootCert
	CACert
)

// Made is forged evidence. Evidence has no format: it is for a caller to say.
type Made struct {
	Evidence *attest.Evidence
	Root     []byte
	Roots    *dcap.Roots
	Signed   int // bytes of the quote that the attestation key signed

	RootKey, TCBKey, caKey *ecdsa.PrivateKey
	ca                     *x509.Certificate
}

// Reissue makes one more list of the PCK authority.
func (m Made) Reissue(t testing.TB, hook func(*x509.RevocationList)) []byte {
	t.Helper()
	return revocations(t, m.ca, m.caKey, hook)
}

// Signer issues one more TCB signing certificate.
func (m Made) Signer(t testing.TB, serial int64) (der []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	root, err := x509.ParseCertificate(m.Root)
	if err != nil {
		t.Fatal(err)
	}
	key = NewKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), Subject: name("Test SGX TCB Signing"), KeyUsage: x509.KeyUsageDigitalSignature,
		NotBefore: Epoch.AddDate(-1, 0, 0), NotAfter: Epoch.AddDate(1, 0, 0),
	}
	if der, err = x509.CreateCertificate(rand.Reader, template, root, &key.PublicKey, m.RootKey); err != nil {
		t.Fatal(err)
	}
	return der, key
}

// Document makes one more TCB info, or QE identity, signed by key.
func (f Forge) Document(kind attest.Kind, change func(map[string]any), key *ecdsa.PrivateKey) attest.Endorsement {
	if kind == attest.KindTCBInfo {
		return attest.Endorsement{Kind: kind, Raw: signed("tcbInfo", f.info(), change, nil, key)}
	}
	return attest.Endorsement{Kind: kind, Raw: signed("enclaveIdentity", f.identity(), change, nil, key)}
}

// Field is one entry of the SGX extension, or of one nested in it.
type Field struct {
	ID    asn1.ObjectIdentifier
	Value any
}

// OID is 1.2.840.113741.1.13.1 and more arcs.
func OID(arcs ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 2, 840, 113741, 1, 13, 1}, arcs...)
}

// Platform is that of all forged evidence.
var (
	Components = [16]byte{3, 3, 2, 2, 4, 1, 0, 5}
	TDXSVN     = [16]byte{6, 1, 3}
	FMSPC      = []byte{0xb0, 0xc0, 0x6f, 0, 0, 0}
)

// PCESVN of the platform.
const PCESVN = 11

// TCB makes the SGX extension's TCB field.
func TCB() []Field {
	var list []Field
	for i, v := range Components {
		list = append(list, Field{OID(2, i+1), int(v)})
	}
	return append(list, Field{OID(2, 17), PCESVN}, Field{OID(2, 18), Components[:]})
}

func (f *Forge) fields() []Field {
	list := []Field{
		{OID(1), slices.Repeat([]byte{0x17}, 16)},
		{OID(2), TCB()},
		{OID(3), []byte{0, 0}},
		{OID(4), FMSPC},
		{OID(5), asn1.Enumerated(1)},
	}
	if !f.Processor {
		list = append(list, Field{OID(6), slices.Repeat([]byte{0x18}, 16)}, Field{OID(7), []Field{{OID(7, 1), true}, {OID(7, 2), false}, {OID(7, 3), true}}})
	}
	return list
}

// Encode writes a value of the SGX extension in DER.
func Encode(v any) []byte {
	if fields, ok := v.([]Field); ok {
		var list []struct {
			ID    asn1.ObjectIdentifier
			Value asn1.RawValue
		}
		for _, f := range fields {
			list = append(list, struct {
				ID    asn1.ObjectIdentifier
				Value asn1.RawValue
			}{f.ID, asn1.RawValue{FullBytes: Encode(f.Value)}})
		}
		v = list
	}
	if raw, ok := v.(asn1.RawValue); ok && raw.FullBytes != nil {
		return raw.FullBytes
	}
	der, err := asn1.Marshal(v)
	if err != nil {
		panic(err)
	}
	return der
}

// Level makes a TCB level of the platform.
func Level(sgx, tdx []byte, pce int, status string, advisories ...string) map[string]any {
	list := func(svns []byte) []any {
		out := make([]any, 16)
		for i := range out {
			svn := 0
			if i < len(svns) {
				svn = int(svns[i])
			}
			out[i] = map[string]any{"svn": svn}
		}
		return out
	}
	level := map[string]any{
		"tcb":     map[string]any{"sgxtcbcomponents": list(sgx), "pcesvn": pce},
		"tcbDate": "2026-02-11T00:00:00Z", "tcbStatus": status,
	}
	if tdx != nil {
		level["tcb"].(map[string]any)["tdxtcbcomponents"] = list(tdx)
	}
	if len(advisories) > 0 {
		level["advisoryIDs"] = advisories
	}
	return level
}

// ISVLevel makes a TCB level of an enclave or module.
func ISVLevel(svn int, status string, advisories ...string) map[string]any {
	level := map[string]any{"tcb": map[string]any{"isvsvn": svn}, "tcbDate": "2026-03-11T00:00:00Z", "tcbStatus": status}
	if len(advisories) > 0 {
		level["advisoryIDs"] = advisories
	}
	return level
}

// Module makes the identity of a TDX module.
func Module(version string, levels ...any) map[string]any {
	m := map[string]any{"mrsigner": hex.EncodeToString(make([]byte, 48)), "attributes": "0000000000000000", "attributesMask": "FFFFFFFFFFFFFFFF"}
	if version != "" {
		m["id"], m["tcbLevels"] = version, levels
	}
	return m
}

func (f *Forge) info() map[string]any {
	info := map[string]any{
		"id": "SGX", "version": 3, "issueDate": "2026-10-20T00:00:00Z", "nextUpdate": "2026-11-20T00:00:00Z",
		"fmspc": "B0C06F000000", "pceId": "0000", "tcbType": 0, "tcbEvaluationDataNumber": 21,
	}
	low, high, tdx := []byte{1}, []byte{2, 2, 2, 2, 3, 1, 0, 5}, []byte(nil)
	if !f.SGX {
		tdx = []byte{5, 0, 2}
		info["id"] = "TDX"
		info["tdxModule"] = Module("")
		info["tdxModuleIdentities"] = []any{Module("TDX_03", ISVLevel(3, "UpToDate")), Module("TDX_01", ISVLevel(4, "UpToDate"), ISVLevel(2, "OutOfDate", "INTEL-SA-00003"))}
	}
	info["tcbLevels"] = []any{Level(high, tdx, 11, "UpToDate"), Level(low, tdx, 5, "OutOfDate", "INTEL-SA-00001")}
	return info
}

var (
	qeSigner   = slices.Repeat([]byte{0xdc}, 32)
	vendor     = []byte{0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07}
	attributes = []byte{0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
)

func (f *Forge) identity() map[string]any {
	id := "TD_QE"
	if f.SGX {
		id = "QE"
	}
	return map[string]any{
		"id": id, "version": 2, "issueDate": "2026-10-21T00:00:00Z", "nextUpdate": "2026-11-21T00:00:00Z", "tcbEvaluationDataNumber": 20,
		"miscselect": "00000000", "miscselectMask": "FFFFFFFF", "attributes": hex.EncodeToString(attributes), "attributesMask": "FBFFFFFFFFFFFFFF0000000000000000",
		"mrsigner": hex.EncodeToString(qeSigner), "isvprodid": 2,
		"tcbLevels": []any{ISVLevel(4, "UpToDate"), ISVLevel(2, "OutOfDate", "INTEL-SA-00002")},
	}
}

func name(cn string) pkix.Name {
	return pkix.Name{Organization: []string{"Test"}, CommonName: cn}
}

// NewKey makes a key on P-256.
func NewKey() *ecdsa.PrivateKey {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	return key
}

func or(key, fallback *ecdsa.PrivateKey) *ecdsa.PrivateKey {
	if key != nil {
		return key
	}
	return fallback
}

func orPublic(key crypto.PublicKey, fallback *ecdsa.PrivateKey) crypto.PublicKey {
	if key != nil {
		return key
	}
	return &fallback.PublicKey
}

// Sign signs like the hardware: R and S, 32 bytes each.
func Sign(key *ecdsa.PrivateKey, message []byte) []byte {
	digest := sha256.Sum256(message)
	der, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		panic(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(der, &rs); err != nil {
		panic(err)
	}
	out := make([]byte, 64)
	rs.R.FillBytes(out[:32])
	rs.S.FillBytes(out[32:])
	return out
}

// Make makes the evidence.
func (f Forge) Make(t testing.TB) Made {
	t.Helper()
	rootKey, caKey, pckKey, tcbKey, quoteKey := NewKey(), NewKey(), NewKey(), NewKey(), NewKey()
	certify := func(template, parent *x509.Certificate, public crypto.PublicKey, signer *ecdsa.PrivateKey, issuerName string, hook func(*x509.Certificate)) *x509.Certificate {
		t.Helper()
		template.NotBefore, template.NotAfter = Epoch.AddDate(-1, 0, 0), Epoch.AddDate(1, 0, 0)
		if hook != nil {
			hook(template)
		}
		if parent == nil {
			parent = template
		}
		issuer := *parent
		issuer.PublicKey = &signer.PublicKey // the forger may sign with any key
		if issuerName != "" {
			issuer.RawSubject, issuer.Subject = nil, name(issuerName)
		}
		raw, err := x509.CreateCertificate(rand.Reader, template, &issuer, public, signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return &x509.Certificate{Raw: raw}
		}
		return cert
	}
	authority := func(cn string, serial int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: name(cn), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	}
	root := certify(authority("Test SGX Root CA", 1), nil, &rootKey.PublicKey, rootKey, "", f.Cert.Root)
	caName := "Test SGX PCK Platform CA"
	if f.Processor {
		caName = "Test SGX PCK Processor CA"
	}
	ca := certify(authority(caName, 2), root, orPublic(f.Key.CAPublic, caKey), or(f.Key.CA, rootKey), f.Issuer.CA, f.Cert.CA)
	fields := f.fields()
	if f.Extension != nil {
		fields = f.Extension(fields)
	}
	pck := &x509.Certificate{SerialNumber: big.NewInt(3), Subject: name("Test SGX PCK Certificate"), KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageContentCommitment, BasicConstraintsValid: true}
	if fields != nil {
		pck.ExtraExtensions = []pkix.Extension{{Id: OID(), Value: Encode(fields)}}
	}
	pck = certify(pck, ca, orPublic(f.Key.PCKPublic, pckKey), or(f.Key.PCK, caKey), f.Issuer.PCK, f.Cert.PCK)
	tcb := certify(&x509.Certificate{SerialNumber: big.NewInt(4), Subject: name("Test SGX TCB Signing"), KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true},
		root, orPublic(f.Key.TCBPublic, tcbKey), or(f.Key.TCB, rootKey), f.Issuer.TCB, f.Cert.TCB)

	var chain []byte
	for _, c := range []*x509.Certificate{pck, ca, root} {
		chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	chain = append(chain, 0)
	if f.Chain != nil {
		chain = f.Chain(chain)
	}
	list := []attest.Endorsement{
		{Kind: attest.KindTCBInfo, Raw: signed("tcbInfo", f.info(), f.Info, f.InfoText, or(f.Key.Info, tcbKey))},
		{Kind: attest.KindQEIdentity, Raw: signed("enclaveIdentity", f.identity(), f.Identity, f.IDText, or(f.Key.Identity, tcbKey))},
		{Kind: attest.KindCRL, Raw: revocations(t, root, or(f.Key.RootCRL, rootKey), f.RootCRL)},
		{Kind: attest.KindCRL, Raw: revocations(t, ca, or(f.Key.PCKCRL, caKey), f.PCKCRL)},
		{Kind: attest.KindCertificate, Raw: tcb.Raw},
		{Kind: attest.KindCertificate, Raw: root.Raw},
		{Kind: attest.KindCertificate, Raw: ca.Raw},
	}
	if f.Staple != nil {
		list = f.Staple(list)
	}
	roots, err := dcap.NewRoots(root.Raw)
	if err != nil {
		t.Fatal(err)
	}
	raw, signed := f.quote(or(f.Key.QE, pckKey), quoteKey, chain)
	if f.Raw != nil {
		raw = f.Raw(raw)
	}
	return Made{&attest.Evidence{Raw: raw, Endorsements: list}, root.Raw, roots, signed, rootKey, tcbKey, caKey, ca}
}

func signed(key string, value map[string]any, hook func(map[string]any), text func(string) string, signer *ecdsa.PrivateKey) []byte {
	if hook != nil {
		hook(value)
	}
	raw, err := json.Marshal(value)
	if err != nil {
		panic(err)
	}
	if text != nil {
		raw = []byte(text(string(raw)))
	}
	return Envelope(key, raw, signer)
}

// Envelope signs a document as Intel's service answers it.
func Envelope(key string, value []byte, signer *ecdsa.PrivateKey) []byte {
	return []byte(`{"` + key + `":` + string(value) + `,"signature":"` + hex.EncodeToString(Sign(signer, value)) + `"}`)
}

func revocations(t testing.TB, issuer *x509.Certificate, signer *ecdsa.PrivateKey, hook func(*x509.RevocationList)) []byte {
	t.Helper()
	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: Epoch.AddDate(0, 0, -7), NextUpdate: Epoch.AddDate(0, 0, 7)}
	if hook != nil {
		hook(list)
	}
	as := *issuer
	as.PublicKey = &signer.PublicKey
	as.KeyUsage |= x509.KeyUsageCRLSign // the forger may sign anything
	if as.SubjectKeyId == nil {
		as.SubjectKeyId = []byte{1}
	}
	raw, err := x509.CreateRevocationList(rand.Reader, list, &as, signer)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func (f *Forge) quote(pck, own *ecdsa.PrivateKey, chain []byte) (raw []byte, signedSize int) {
	le := binary.LittleEndian
	header := make([]byte, dcap.HeaderSize)
	version := f.Version
	if version == 0 {
		version = 4
		if f.SGX {
			version = 3
		}
	}
	le.PutUint16(header, version)
	le.PutUint16(header[2:], 2)
	if !f.SGX {
		le.PutUint32(header[4:], 0x81)
	} else {
		le.PutUint16(header[8:], 10)
		le.PutUint16(header[10:], PCESVN)
	}
	copy(header[12:], vendor)
	if f.Header != nil {
		f.Header(header)
	}
	body := f.body()
	if f.Body != nil {
		f.Body(body)
	}
	raw = header
	if version == 5 {
		kind := uint16(2)
		if f.TD15 {
			kind = 3
		}
		raw = le.AppendUint32(le.AppendUint16(raw, kind), uint32(len(body)))
	}
	raw = append(raw, body...)
	signedSize = len(raw)
	data := Sign(or(f.Key.Quote, own), raw)
	public, err := own.PublicKey.Bytes()
	if err != nil {
		panic(err)
	}
	key := slices.Clone(public[1:])

	auth := f.QEAuth
	if auth == nil {
		auth = []byte("thirty-two bytes of qe auth data")
	}
	report := make([]byte, dcap.EnclaveReport)
	copy(report, Components[:])
	copy(report[48:], attributes)
	report[56] = 0xe7 // XFRM, which the identity's mask leaves out
	copy(report[128:], qeSigner)
	le.PutUint16(report[256:], 2)
	le.PutUint16(report[258:], 5)
	sum := sha256.Sum256(append(slices.Clone(key), auth...))
	copy(report[320:], sum[:])
	if f.QE != nil {
		f.QE(report)
	}
	if f.Key64 != nil {
		f.Key64(key)
	}
	certification := append(slices.Clone(report), Sign(pck, report)...)
	certification = append(le.AppendUint16(certification, uint16(len(auth))), auth...)
	certification = append(le.AppendUint32(le.AppendUint16(certification, 5), uint32(len(chain))), chain...)
	data = append(data, key...)
	if version > 3 {
		data = le.AppendUint32(le.AppendUint16(data, 6), uint32(len(certification)))
	}
	data = append(data, certification...)
	return append(le.AppendUint32(raw, uint32(len(data))), data...), signedSize
}

func (f *Forge) body() []byte {
	fill := func(at []byte, v byte) {
		for i := range at {
			at[i] = v
		}
	}
	if f.SGX {
		body := make([]byte, dcap.EnclaveReport)
		copy(body, Components[:])
		body[48], body[56] = 5, 0xe7 // INIT and MODE64BIT; XFRM
		fill(body[64:96], 0x11)      // MRENCLAVE
		fill(body[128:160], 0x12)    // MRSIGNER
		body[256], body[258], body[260] = 7, 8, 9
		copy(body[320:], "report data")
		body[383] = 1
		return body
	}
	body := make([]byte, dcap.TDReport10)
	if f.TD15 {
		body = make([]byte, dcap.TDReport15)
		copy(body[584:], TDXSVN[:])
	}
	copy(body, TDXSVN[:])
	fill(body[16:64], 0x21)   // MRSEAM
	body[123] = 0x10          // SEPT_VE_DISABLE
	body[128] = 0xe7          // XFAM
	fill(body[136:184], 0x22) // MRTD
	for i := range 4 {
		fill(body[328+48*i:][:48], 0x30+byte(i))
	}
	copy(body[520:], "report data")
	body[583] = 1
	return body
}
