package nitro_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cose"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

// Places in the chain.
const (
	root = iota
	regional
	zonal
	instance
	leaf
	levels
)

func newKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// keys are the same in all tests: the right ones, one for each level, and one that certifies nothing.
var keys = sync.OnceValue(func() (all [levels + 1]*ecdsa.PrivateKey) {
	for i := range all {
		all[i], _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	}
	return all
})

func otherKey() *ecdsa.PrivateKey { return keys()[levels] }

// forge makes evidence in AWS's format under a root of its own. The hooks change one thing before it is signed, so that
// nothing but the check under test can refuse the evidence.
type forge struct {
	cert    [levels]func(*x509.Certificate)
	public  [levels]crypto.PublicKey  // in the certificate; nil: the right one
	signer  [levels]*ecdsa.PrivateKey // of the certificate; nil: the right one
	payload func(map[string]any)      // before it is signed
	bytes   func([]byte) []byte       // the payload, encoded
	key     *ecdsa.PrivateKey         // that signs the document; nil: the leaf's
	message func([]byte) []byte       // the document
	crl     func([]*x509.RevocationList) []*x509.RevocationList
	crlKey  [2]*ecdsa.PrivateKey // of the root's list and the region's
	staple  func([]attest.Endorsement) []attest.Endorsement
}

var epoch = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

type forged struct {
	evidence *attest.Evidence
	certs    [levels]*x509.Certificate
	roots    *nitro.Roots
	lists    []attest.Endorsement // of the root and the region
}

// userData is report data of every forged document.
var userData = attest.ReportData{1, 2, 3, 63: 64}

func pcr(n byte) []byte { return slices.Repeat([]byte{n}, 48) }

// base is the chain and the lists of a forge without hooks.
var base = sync.OnceValue(func() (out forged) {
	for i := range levels {
		out.certs[i] = forge{}.certify(i, out.certs)
	}
	out.lists = forge{}.revocationLists(out.certs)
	return out
})

func must(err error) {
	if err != nil {
		panic(err)
	}
}

// certify makes the certificate at a place under that before.
func (f forge) certify(i int, certs [levels]*x509.Certificate) *x509.Certificate {
	names := [levels]string{"test.nitro-enclaves", "region.test.nitro-enclaves", "zone.region.test.nitro-enclaves", "i-1.region.test.nitro-enclaves", "i-1-enc1.region.test"}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(int64(100 + i)), Subject: pkix.Name{Organization: []string{"Test"}, CommonName: names[i]},
		NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(time.Hour), SignatureAlgorithm: x509.ECDSAWithSHA384,
		BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, MaxPathLen: instance - i,
		SubjectKeyId: []byte{byte(i)},
	}
	switch i {
	case root:
		template.MaxPathLen = -1
	case regional, zonal:
		template.CRLDistributionPoints = []string{"http://crl.invalid/" + names[i]}
	case instance:
		template.MaxPathLenZero = true
	case leaf:
		template.IsCA, template.KeyUsage, template.MaxPathLen = false, x509.KeyUsageDigitalSignature, 0
	}
	if f.cert[i] != nil {
		f.cert[i](template)
	}
	parent, signer := template, keys()[i]
	if i > root {
		parent, signer = certs[i-1], keys()[i-1]
	}
	if f.signer[i] != nil {
		signer = f.signer[i]
	}
	public := crypto.PublicKey(&keys()[i].PublicKey)
	if f.public[i] != nil {
		public = f.public[i]
	}
	issuer := *parent
	issuer.PublicKey = &signer.PublicKey // the forger may sign with any key
	der, err := x509.CreateCertificate(rand.Reader, template, &issuer, public, signer)
	must(err)
	cert, err := x509.ParseCertificate(der)
	must(err)
	return cert
}

func (f forge) make(t testing.TB) forged {
	t.Helper()
	out, own := base(), [levels]bool{}
	for i := range levels {
		own[i] = i > root && own[i-1] || f.cert[i] != nil || f.public[i] != nil || f.signer[i] != nil
		if own[i] {
			out.certs[i] = f.certify(i, out.certs)
		}
	}
	var err error
	if out.roots, err = nitro.NewRoots(out.certs[root].Raw); err != nil {
		t.Fatal(err)
	}
	if own[regional] || f.crl != nil || f.crlKey != [2]*ecdsa.PrivateKey{} {
		out.lists = f.revocationLists(out.certs)
	}
	out.lists = slices.Clone(out.lists)
	out.evidence = &attest.Evidence{Format: nitro.Format, Raw: f.document(t, out.certs), Endorsements: out.lists}
	if f.staple != nil {
		out.evidence.Endorsements = f.staple(out.lists)
	}
	return out
}

func (f forge) revocationLists(certs [levels]*x509.Certificate) (out []attest.Endorsement) {
	lists := []*x509.RevocationList{}
	for range 2 {
		lists = append(lists, &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: epoch.Add(-time.Hour), NextUpdate: epoch.Add(time.Hour)})
	}
	if f.crl != nil {
		lists = f.crl(lists)
	}
	for i, list := range lists {
		issuer, signer := *certs[i], keys()[i]
		if f.crlKey[i] != nil {
			signer = f.crlKey[i]
		}
		issuer.PublicKey, issuer.KeyUsage = &signer.PublicKey, x509.KeyUsageCRLSign
		der, err := x509.CreateRevocationList(rand.Reader, list, &issuer, signer)
		must(err)
		out = append(out, attest.Endorsement{Kind: attest.KindCRL, Raw: der})
	}
	return out
}

func (f forge) document(t testing.TB, certs [levels]*x509.Certificate) []byte {
	t.Helper()
	payload := map[string]any{
		"module_id": "i-1-enc1", "digest": "SHA384", "timestamp": epoch.UnixMilli(),
		"pcrs":        map[any]any{0: pcr(1), 1: pcr(2), 2: pcr(3), 3: pcr(0), 4: pcr(5)},
		"certificate": certs[leaf].Raw, "cabundle": [][]byte{certs[root].Raw, certs[regional].Raw, certs[zonal].Raw, certs[instance].Raw},
		"public_key": nil, "user_data": userData[:], "nonce": nil,
	}
	if f.payload != nil {
		f.payload(payload)
	}
	raw, err := strictcbor.Marshal(payload)
	if err != nil {
		t.Fatal(err)
	}
	if f.bytes != nil {
		raw = f.bytes(raw)
	}
	key := keys()[leaf]
	if f.key != nil {
		key = f.key
	}
	message, err := cose.Sign(key, raw)
	if err != nil {
		t.Fatal(err)
	}
	if f.message != nil {
		message = f.message(message)
	}
	return message
}

func certHook(level int, h func(*x509.Certificate)) (f forge) { f.cert[level] = h; return f }

func set(name string, value any) forge {
	return forge{payload: func(m map[string]any) { m[name] = value }}
}

func without(name string) forge {
	return forge{payload: func(m map[string]any) { delete(m, name) }}
}

func setPCR(key, value any) forge {
	return forge{payload: func(m map[string]any) { m["pcrs"].(map[any]any)[key] = value }}
}

func bundle(h func([][]byte) [][]byte) forge {
	return forge{payload: func(m map[string]any) { m["cabundle"] = h(m["cabundle"].([][]byte)) }}
}

func criticalExtension(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
}

func (f forged) verify(t testing.TB, now time.Time) (*attest.Claims, error) {
	t.Helper()
	return nitro.NewVerifier(f.roots).Verify(t.Context(), f.evidence, nil, now)
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
