package tpm_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/cryptobyte"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
)

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// keys are shared by all tests.
type keys struct {
	root, sub, other, ak *ecdsa.PrivateKey
	p384, p521           *ecdsa.PrivateKey
	rsa, short           *rsa.PrivateKey
}

var sharedKeys = sync.OnceValue(func() *keys {
	k := new(keys)
	for _, at := range []struct {
		key   **ecdsa.PrivateKey
		curve elliptic.Curve
	}{{&k.root, elliptic.P256()}, {&k.sub, elliptic.P256()}, {&k.other, elliptic.P256()}, {&k.ak, elliptic.P256()}, {&k.p384, elliptic.P384()}, {&k.p521, elliptic.P521()}} {
		*at.key, _ = ecdsa.GenerateKey(at.curve, rand.Reader)
	}
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.short, _ = rsa.GenerateKey(rand.Reader, 1024)
	return k
})

// message is a TPMS_ATTEST to be.
type message struct {
	magic            uint32
	kind             uint16
	signer, extra    []byte
	clock            uint64
	resets, restarts uint32
	safe             uint8
	firmware         uint64
	banks            []bank
	digest           []byte // nil: of the values
	tail             []byte
	values           map[int][]byte // of some PCRs
}

// pcrs are the values of the PCRs in a selection.
func (m *message) pcrs(size int, selected []byte) (out []byte) {
	for i := range 8 * len(selected) {
		switch {
		case selected[i/8]>>(i%8)&1 == 0:
		case m.values[i] != nil:
			out = append(out, m.values[i]...)
		default:
			out = append(out, bytes.Repeat([]byte{byte(i + 1)}, size)...)
		}
	}
	return out
}

type bank struct {
	hash     uint16
	selected []byte
}

// forge makes evidence in the format of a TPM under a root of its own. The hooks change one thing before it is signed, so
// that nothing but the check under test can refuse the evidence.
type forge struct {
	key     crypto.Signer // nil: ECC on P-256
	scheme  uint16        // 0: the natural one
	hash    uint16        // 0: SHA-256
	message func(*message)
	encoded func([]byte)
	public  func(*public)
	signer  crypto.Signer             // signs instead of the key
	sig     func([]byte) []byte       // TPMT_SIGNATURE
	parts   func(map[tpm.Part][]byte) //
	raw     func([]byte) []byte       //
	cert    struct{ root, sub, leaf func(*x509.Certificate) }
	certKey struct{ sub, leaf *ecdsa.PrivateKey } // signers instead of the root and the intermediate
	leafKey crypto.PublicKey
	crl     struct{ root, sub func(*x509.RevocationList) }
	crlKey  *ecdsa.PrivateKey
	staple  func([]attest.Endorsement) []attest.Endorsement // leaf, intermediate, list of the root, list of the intermediate
	log     []byte
}

// public is a TPMT_PUBLIC to be.
type public struct {
	kind, nameAlg     uint16
	attributes        uint32
	policy            []byte
	symmetric, scheme uint16
	hash              uint16
	bits              uint16
	exponent          uint32
	curve, kdf        uint16
	x, y              []byte // modulus in x
	tail              []byte
}

func add2B(b *cryptobyte.Builder, v []byte) {
	b.AddUint16LengthPrefixed(func(b *cryptobyte.Builder) { b.AddBytes(v) })
}

func (m *message) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint32(m.magic)
	b.AddUint16(m.kind)
	add2B(&b, m.signer)
	add2B(&b, m.extra)
	b.AddUint64(m.clock)
	b.AddUint32(m.resets)
	b.AddUint32(m.restarts)
	b.AddUint8(m.safe)
	b.AddUint64(m.firmware)
	b.AddUint32(uint32(len(m.banks)))
	for _, k := range m.banks {
		b.AddUint16(k.hash)
		b.AddUint8(uint8(len(k.selected)))
		b.AddBytes(k.selected)
	}
	add2B(&b, m.digest)
	b.AddBytes(m.tail)
	return b.BytesOrPanic()
}

func (p *public) encode() []byte {
	var b cryptobyte.Builder
	b.AddUint16(p.kind)
	b.AddUint16(p.nameAlg)
	b.AddUint32(p.attributes)
	add2B(&b, p.policy)
	b.AddUint16(p.symmetric)
	b.AddUint16(p.scheme)
	if p.scheme != 0x10 {
		b.AddUint16(p.hash)
	}
	if p.kind == 0x23 {
		b.AddUint16(p.curve)
		b.AddUint16(p.kdf)
		add2B(&b, p.x)
		add2B(&b, p.y)
	} else {
		b.AddUint16(p.bits)
		b.AddUint32(p.exponent)
		add2B(&b, p.x)
	}
	b.AddBytes(p.tail)
	return b.BytesOrPanic()
}

func digestOf(hash uint16, b []byte) []byte {
	if hash == 0x0c {
		sum := sha512.Sum384(b)
		return sum[:]
	}
	sum := sha256.Sum256(b)
	return sum[:]
}

// values of the PCRs in a selection: PCR n is n+1 throughout.
func values(size int, selected []byte) []byte { return new(message).pcrs(size, selected) }

func signWith(key crypto.Signer, scheme, hash uint16, msg []byte) []byte {
	h := map[uint16]crypto.Hash{0x0b: crypto.SHA256, 0x0c: crypto.SHA384, 0x04: crypto.SHA1, 0x0d: crypto.SHA512}[hash]
	w := h.New()
	w.Write(msg)
	digest := w.Sum(nil)
	var b cryptobyte.Builder
	b.AddUint16(scheme)
	b.AddUint16(hash)
	switch k := key.(type) {
	case *ecdsa.PrivateKey:
		der, err := ecdsa.SignASN1(rand.Reader, k, digest)
		if err != nil {
			panic(err)
		}
		var rs struct{ R, S *big.Int }
		if _, err := asn1.Unmarshal(der, &rs); err != nil {
			panic(err)
		}
		add2B(&b, rs.R.Bytes())
		add2B(&b, rs.S.Bytes())
	case *rsa.PrivateKey:
		var opts crypto.SignerOpts = h
		if scheme == 0x16 {
			opts = &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash, Hash: h}
		}
		sig, err := k.Sign(rand.Reader, digest, opts)
		if err != nil {
			panic(err)
		}
		add2B(&b, sig)
	}
	return b.BytesOrPanic()
}

func publicOf(key crypto.PublicKey, scheme, hash uint16) *public {
	p := &public{nameAlg: 0x0b, attributes: 0x50072, symmetric: 0x10, scheme: scheme, hash: hash, kdf: 0x10}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		point, err := k.Bytes()
		if err != nil {
			panic(err)
		}
		half := len(point) / 2
		p.kind, p.x, p.y = 0x23, point[1:1+half], point[1+half:]
		p.curve = map[int]uint16{256: 3, 384: 4, 521: 5}[k.Curve.Params().BitSize]
	case *rsa.PublicKey:
		p.kind, p.x, p.bits = 0x01, k.N.Bytes(), uint16(k.N.BitLen())
	}
	return p
}

type forged struct {
	evidence *attest.Evidence
	roots    *tpm.Roots
	root     []byte
	name     []byte // of the attestation key
	spki     []byte
	message  []byte
}

func (f forge) make(t testing.TB) forged {
	t.Helper()
	k := sharedKeys()
	key, scheme, hash := f.key, f.scheme, f.hash
	if key == nil {
		key = k.ak
	}
	if scheme == 0 {
		scheme = 0x18
		if _, ok := key.(*rsa.PrivateKey); ok {
			scheme = 0x14
		}
	}
	if hash == 0 {
		hash = 0x0b
	}
	p := publicOf(key.Public(), scheme, hash)
	if f.public != nil {
		f.public(p)
	}
	area := p.encode()
	m := &message{
		magic: 0xff544347, kind: 0x8018, signer: append([]byte{0, 0x0b}, make([]byte, 32)...), extra: reportData[:],
		clock: 11, resets: 12, restarts: 13, safe: 1, firmware: 14, banks: []bank{{0x0b, []byte{0xff, 0xff, 0xff}}},
	}
	if f.message != nil {
		f.message(m)
	}
	size := 32
	if len(m.banks) > 0 && m.banks[0].hash == 0x0c {
		size = 48
	}
	var pcrs []byte
	for _, b := range m.banks {
		pcrs = append(pcrs, m.pcrs(size, b.selected)...)
	}
	if m.digest == nil {
		m.digest = digestOf(hash, pcrs)
	}
	msg := m.encode()
	if f.encoded != nil {
		f.encoded(msg)
	}
	signer := key
	if f.signer != nil {
		signer = f.signer
	}
	sig := signWith(signer, scheme, hash, msg)
	if f.sig != nil {
		sig = f.sig(sig)
	}
	parts := map[tpm.Part][]byte{tpm.PartQuote: msg, tpm.PartSignature: sig, tpm.PartPCRs: pcrs, tpm.PartPublic: area}
	if f.parts != nil {
		f.parts(parts)
	}
	raw := tpm.EncodeParts(parts)
	if f.raw != nil {
		raw = f.raw(raw)
	}
	out := f.certify(t, key.Public())
	out.evidence = &attest.Evidence{Format: tpm.Format, Raw: raw, Endorsements: out.evidence.Endorsements, EventLog: f.log}
	sum := sha256.Sum256(area)
	out.name = append([]byte{0, 0x0b}, sum[:]...)
	out.message = msg
	return out
}

// certify makes the chain root, intermediate, leaf for the key.
func (f *forge) certify(t testing.TB, ak crypto.PublicKey) forged {
	t.Helper()
	k := sharedKeys()
	certify := func(template, parent *x509.Certificate, public crypto.PublicKey, signer *ecdsa.PrivateKey, hook func(*x509.Certificate)) *x509.Certificate {
		t.Helper()
		template.NotBefore, template.NotAfter = epoch.AddDate(-1, 0, 0), epoch.AddDate(1, 0, 0)
		if hook != nil {
			hook(template)
		}
		if parent == nil {
			parent = template
		}
		issuer := *parent
		issuer.PublicKey = &signer.PublicKey // the forger may sign with any key
		der, err := x509.CreateCertificate(rand.Reader, template, &issuer, public, signer)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return cert
	}
	authority := func(name string, serial int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	}
	or := func(key, fallback *ecdsa.PrivateKey) *ecdsa.PrivateKey {
		if key != nil {
			return key
		}
		return fallback
	}
	root := certify(authority("TPM root", 1), nil, &k.root.PublicKey, k.root, f.cert.root)
	sub := certify(authority("TPM intermediate", 2), root, &k.sub.PublicKey, or(f.certKey.sub, k.root), f.cert.sub)
	public := ak
	if f.leafKey != nil {
		public = f.leafKey
	}
	leaf := certify(&x509.Certificate{
		SerialNumber: big.NewInt(3), Subject: pkix.Name{CommonName: "AK"}, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature, UnknownExtKeyUsage: []asn1.ObjectIdentifier{{2, 23, 133, 8, 3}},
	}, sub, public, or(f.certKey.leaf, k.sub), f.cert.leaf)
	list := func(issuer *x509.Certificate, key *ecdsa.PrivateKey, hook func(*x509.RevocationList)) []byte {
		t.Helper()
		template := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: epoch.AddDate(0, 0, -7), NextUpdate: epoch.AddDate(0, 0, 7)}
		if hook != nil {
			hook(template)
		}
		forged := *issuer
		if f.crlKey != nil {
			key = f.crlKey
			forged.PublicKey = &key.PublicKey
		}
		der, err := x509.CreateRevocationList(rand.Reader, template, &forged, key)
		if err != nil {
			t.Fatal(err)
		}
		return der
	}
	endorsements := []attest.Endorsement{
		{Kind: attest.KindCertificate, Raw: leaf.Raw},
		{Kind: attest.KindCertificate, Raw: sub.Raw},
		{Kind: attest.KindCRL, Raw: list(root, k.root, f.crl.root)},
		{Kind: attest.KindCRL, Raw: list(sub, k.sub, f.crl.sub)},
	}
	if f.staple != nil {
		endorsements = f.staple(endorsements)
	}
	roots, err := tpm.NewRoots(root.Raw)
	if err != nil {
		t.Fatal(err)
	}
	spki, err := x509.MarshalPKIXPublicKey(ak)
	if err != nil {
		t.Fatal(err)
	}
	return forged{evidence: &attest.Evidence{Endorsements: endorsements}, roots: roots, root: root.Raw, spki: spki}
}

var reportData = func() (d attest.ReportData) {
	for i := range d {
		d[i] = byte(i + 1)
	}
	return d
}()

func messageHook(h func(*message)) forge          { return forge{message: h} }
func publicHook(h func(*public)) forge            { return forge{public: h} }
func partsHook(h func(map[tpm.Part][]byte)) forge { return forge{parts: h} }
func rawHook(h func([]byte) []byte) forge         { return forge{raw: h} }

func stapleHook(h func([]attest.Endorsement) []attest.Endorsement) forge { return forge{staple: h} }

// endorser answers every request alike.
type endorser func(attest.Ref) ([]attest.Endorsement, error)

func (e endorser) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	return e(ref)
}

func (f forged) verify(t testing.TB, ask attest.Endorser) (*attest.Claims, error) {
	t.Helper()
	return tpm.NewVerifier(f.roots).Verify(t.Context(), f.evidence, ask, epoch)
}

// wants checks that err is a complete *attest.Error with this code.
func wants(err error, code attest.Code) error {
	if attest.CodeOf(err) != code {
		return fmt.Errorf("got %q (%w), want %q (%s)", attest.CodeOf(err), err, code, code.Title())
	}
	if e, ok := err.(*attest.Error); code != "" && (!ok || e.Check == "") {
		return fmt.Errorf("%#v names no check", err)
	}
	return nil
}

func withCert(which string, h func(*x509.Certificate)) (f forge) {
	*map[string]*func(*x509.Certificate){"root": &f.cert.root, "sub": &f.cert.sub, "leaf": &f.cert.leaf}[which] = h
	return f
}

func withList(issuer string, h func(*x509.RevocationList)) (f forge) {
	*map[string]*func(*x509.RevocationList){"root": &f.crl.root, "sub": &f.crl.sub}[issuer] = h
	return f
}
