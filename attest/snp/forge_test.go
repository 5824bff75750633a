package snp_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha512"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
)

// keys are shared by all tests: RSA keys of 4096 bits are slow to make. Where JURAT_TEST_KEYS names a directory, they are
// kept there for the next run.
type keys struct {
	ark, ask, other, short *rsa.PrivateKey
	leaf, otherLeaf        *ecdsa.PrivateKey
}

var sharedKeys = sync.OnceValue(func() *keys {
	k := new(keys)
	var wg sync.WaitGroup
	for _, at := range []struct {
		key  **rsa.PrivateKey
		name string
		bits int
	}{{&k.ark, "ark", 4096}, {&k.ask, "ask", 4096}, {&k.other, "other", 4096}, {&k.short, "short", 3072}} {
		wg.Go(func() { *at.key = rsaKey(at.name, at.bits) })
	}
	k.leaf, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	k.otherLeaf, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	wg.Wait()
	return k
})

func rsaKey(name string, bits int) *rsa.PrivateKey {
	file := filepath.Join(os.Getenv("JURAT_TEST_KEYS"), "snp-"+name)
	keep := os.Getenv("JURAT_TEST_KEYS") != ""
	if keep {
		if raw, err := os.ReadFile(file); err == nil {
			if key, err := x509.ParsePKCS1PrivateKey(raw); err == nil {
				return key
			}
		}
	}
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	if keep {
		_ = os.WriteFile(file, x509.MarshalPKCS1PrivateKey(key), 0o600)
	}
	return key
}

// forge makes evidence in AMD's format under a root of its own. The hooks change one thing before it is signed, so that
// nothing but the check under test can refuse the evidence.
type forge struct {
	version       int // of the report; 0: 3
	turin         bool
	family, model byte // 0: Milan, or Turin
	line          string
	vlek          bool
	cert          struct{ ark, ask, leaf func(*x509.Certificate) }
	key           struct { // signers, nil: the right one
		ask, leaf, crl *rsa.PrivateKey
		askOwn         *rsa.PrivateKey // the ASK's own key
		report         *ecdsa.PrivateKey
		leafPublic     crypto.PublicKey
	}
	report func([]byte)                                    // before it is signed
	raw    func([]byte) []byte                             // after
	crl    func(*x509.RevocationList)                      //
	staple func([]attest.Endorsement) []attest.Endorsement // leaf, ASK, CRL
}

var epoch = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

func name(cn string) pkix.Name {
	return pkix.Name{Organization: []string{"Test"}, CommonName: cn}
}

func oid(arcs ...int) asn1.ObjectIdentifier {
	return append(asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 3704, 1}, arcs...)
}

func der(v any, params string) []byte {
	out, err := asn1.MarshalWithParams(v, params)
	if err != nil {
		panic(err)
	}
	return out
}

func (f *forge) productLine() string {
	switch {
	case f.line != "":
		return f.line
	case f.turin:
		return "Turin"
	}
	return "Milan"
}

func chip(n int) []byte {
	id := make([]byte, n)
	for i := range id {
		id[i] = byte(i + 1)
	}
	return id
}

// tcb of every forged report: distinct numbers, so that a swap shows.
var (
	tcbMilan = [8]byte{3, 2, 0, 0, 0, 0, 22, 115}
	tcbTurin = [8]byte{5, 3, 2, 22, 0, 0, 0, 115}
)

func (f *forge) extensions() []pkix.Extension {
	var list []pkix.Extension
	add := func(value []byte, arcs ...int) { list = append(list, pkix.Extension{Id: oid(arcs...), Value: value}) }
	version, tcb, n := 0, tcbMilan, 64
	order := []int{1, 2, 4, 5, 6, 7, 3, 8}
	if f.turin {
		version, tcb, n = 1, tcbTurin, 8
		order = []int{9, 1, 2, 3, 5, 6, 7, 8}
	}
	product := f.productLine()
	if !f.vlek && !f.turin {
		product += "-B0"
	}
	add(der(version, ""), 1)
	add(der(product, "ia5"), 2)
	for i, arc := range order {
		add(der(int(tcb[i]), ""), 3, arc)
	}
	if f.vlek {
		add(der("CN=cc.example", "ia5"), 5)
	} else {
		add(chip(n), 4)
	}
	return list
}

type forged struct {
	evidence *attest.Evidence
	ark      []byte
	roots    *snp.Roots
	crl      []byte
}

// signer signs the same bytes once: RSA with 4096 bits takes longer than all else. Where keys are kept for the next run, so
// are signatures.
type signer struct{ *rsa.PrivateKey }

var signed sync.Map

// Sign implements crypto.Signer.
func (s signer) Sign(random io.Reader, digest []byte, opts crypto.SignerOpts) ([]byte, error) {
	_, pss := opts.(*rsa.PSSOptions)
	name := fmt.Sprintf("signature-%x", sha512.Sum512(fmt.Append(nil, s.N, digest, pss, opts.HashFunc())))
	if known, ok := signed.Load(name); ok {
		return known.([]byte), nil
	}
	dir := os.Getenv("JURAT_TEST_KEYS")
	if dir != "" {
		if known, err := os.ReadFile(filepath.Join(dir, name)); err == nil && len(known) == s.Size() {
			return known, nil
		}
	}
	signature, err := s.PrivateKey.Sign(random, digest, opts)
	if err == nil {
		signed.Store(name, signature)
		if dir != "" {
			err = os.WriteFile(filepath.Join(dir, name), signature, 0o600)
		}
	}
	return signature, err
}

func (f forge) make(t testing.TB) forged {
	t.Helper()
	k, line := sharedKeys(), f.productLine()
	or := func(key, fallback *rsa.PrivateKey) *rsa.PrivateKey {
		if key != nil {
			return key
		}
		return fallback
	}
	certify := func(template, parent *x509.Certificate, public crypto.PublicKey, key *rsa.PrivateKey, hook func(*x509.Certificate)) *x509.Certificate {
		t.Helper()
		template.SignatureAlgorithm = x509.SHA384WithRSAPSS
		template.NotBefore, template.NotAfter = epoch.AddDate(-1, 0, 0), epoch.AddDate(1, 0, 0)
		if hook != nil {
			hook(template)
		}
		if parent == nil {
			parent = template
		}
		issuer := *parent
		issuer.PublicKey = &key.PublicKey // the forger may sign with any key
		raw, err := x509.CreateCertificate(rand.Reader, template, &issuer, public, signer{key})
		if err != nil {
			t.Fatal(err)
		}
		cert, err := x509.ParseCertificate(raw)
		if err != nil { // some tests make certificates that Go does not read either
			return &x509.Certificate{Raw: raw}
		}
		return cert
	}
	authority := func(cn string, serial int64) *x509.Certificate {
		return &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: name(cn), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign}
	}
	ark := certify(authority("ARK-"+line, 1), nil, &k.ark.PublicKey, k.ark, f.cert.ark)
	askName, leafName := "SEV-"+line, "SEV-VCEK"
	if f.vlek {
		askName, leafName = "SEV-VLEK-"+line, "SEV-VLEK"
	}
	askKey := or(f.key.askOwn, k.ask)
	ask := certify(authority(askName, 2), ark, &askKey.PublicKey, or(f.key.ask, k.ark), f.cert.ask)
	public := crypto.PublicKey(&k.leaf.PublicKey)
	if f.key.leafPublic != nil {
		public = f.key.leafPublic
	}
	leaf := certify(&x509.Certificate{SerialNumber: big.NewInt(0), Subject: name(leafName), ExtraExtensions: f.extensions()}, ask, public, or(f.key.leaf, askKey), f.cert.leaf)

	list := &x509.RevocationList{Number: big.NewInt(1), ThisUpdate: epoch.AddDate(0, 0, -7), NextUpdate: epoch.AddDate(0, 0, 7), SignatureAlgorithm: x509.SHA384WithRSAPSS}
	if f.crl != nil {
		f.crl(list)
	}
	key := or(f.key.crl, k.ark)
	issuer := *ark
	issuer.PublicKey = &key.PublicKey
	crl, err := x509.CreateRevocationList(rand.Reader, list, &issuer, signer{key})
	if err != nil {
		t.Fatal(err)
	}
	roots, err := snp.NewRoots(snp.Root{Generation: map[string]string{"Milan": "milan", "Genoa": "genoa", "Turin": "turin"}[line], ARK: ark.Raw})
	if err != nil {
		t.Fatal(err)
	}
	ev := &attest.Evidence{Format: snp.Format, Raw: f.makeReport(t), Endorsements: []attest.Endorsement{
		{Kind: attest.KindCertificate, Raw: leaf.Raw}, {Kind: attest.KindCertificate, Raw: ask.Raw}, {Kind: attest.KindCRL, Raw: crl},
	}}
	if f.staple != nil {
		ev.Endorsements = f.staple(ev.Endorsements)
	}
	return forged{ev, ark.Raw, roots, crl}
}

func (f *forge) makeReport(t testing.TB) []byte {
	t.Helper()
	r := make([]byte, snp.ReportSize)
	version, tcb, n := f.version, tcbMilan, 64
	if version == 0 {
		version = 3
	}
	family, model := f.family, f.model
	if family == 0 {
		family, model = 0x19, 0x01
	}
	if f.turin {
		tcb, n, family, model = tcbTurin, 8, 0x1a, 0x02
	}
	le := binary.LittleEndian
	le.PutUint32(r, uint32(version))
	le.PutUint64(r[0x08:], 0x3001f)
	le.PutUint32(r[0x34:], 1)
	le.PutUint64(r[0x40:], 1)
	copy(r[0x50:], "report data")
	copy(r[0x90:], "measurement")
	for _, at := range []int{0x38, 0x180, 0x1e0, 0x1f0} {
		copy(r[at:], tcb[:])
	}
	if version >= 3 {
		r[0x188], r[0x189], r[0x18a] = family, model, 1
	}
	if f.vlek {
		r[0x48] = 1 << 2
	} else {
		copy(r[0x1a0:], chip(n))
	}
	if f.report != nil {
		f.report(r)
	}
	key := sharedKeys().leaf
	if f.key.report != nil {
		key = f.key.report
	}
	sign(t, r, key)
	if f.raw != nil {
		r = f.raw(r)
	}
	return r
}

func sign(t testing.TB, r []byte, key *ecdsa.PrivateKey) {
	t.Helper()
	digest := sha512.Sum384(r[:snp.SignedSize])
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	if err != nil {
		t.Fatal(err)
	}
	var rs struct{ R, S *big.Int }
	if _, err := asn1.Unmarshal(signature, &rs); err != nil {
		t.Fatal(err)
	}
	for i, v := range []*big.Int{rs.R, rs.S} {
		b := v.FillBytes(make([]byte, 72))
		slices.Reverse(b)
		copy(r[snp.SignedSize+72*i:], b)
	}
}

// extension returns a hook that sets one extension of the leaf; a nil value removes it.
func extension(value []byte, arcs ...int) func(*x509.Certificate) {
	return func(c *x509.Certificate) {
		id := oid(arcs...)
		i := slices.IndexFunc(c.ExtraExtensions, func(x pkix.Extension) bool { return x.Id.Equal(id) })
		switch {
		case i < 0:
			c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: id, Value: value})
		case value == nil:
			c.ExtraExtensions = slices.Delete(c.ExtraExtensions, i, i+1)
		default:
			c.ExtraExtensions[i].Value = value
		}
	}
}

func set(at int, value byte) func([]byte) { return func(r []byte) { r[at] = value } }

func criticalExtension(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
}

func leafHook(h func(*x509.Certificate)) (f forge) { f.cert.leaf = h; return f }
func askHook(h func(*x509.Certificate)) (f forge)  { f.cert.ask = h; return f }
func reportHook(h func([]byte)) forge              { return forge{report: h} }
func (f forge) v(version int) forge                { f.version = version; return f }
func (f forge) onTurin() forge                     { f.turin = true; return f }
func (f forge) asVLEK() forge                      { f.vlek = true; return f }

// endorser answers every request alike.
type endorser func(attest.Ref) ([]attest.Endorsement, error)

func (f forged) verify(t testing.TB, ask attest.Endorser) (*attest.Claims, error) {
	t.Helper()
	return snp.NewVerifier(f.roots).Verify(t.Context(), f.evidence, ask, epoch)
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

// parallel runs t beside others. A short run goes one by one, so that -failfast ends it early.
func parallel(t *testing.T) {
	t.Helper()
	if !testing.Short() {
		t.Parallel()
	}
}
