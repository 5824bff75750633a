package dcap_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"fmt"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/test/dcapforge"
)

type forge = dcapforge.Forge

// endorser answers every request by its path.
type endorser func(attest.Ref) ([]attest.Endorsement, error)

func (e endorser) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	return e(ref)
}

func verify(t testing.TB, m dcapforge.Made, ask attest.Endorser) (*dcap.Verified, error) {
	t.Helper()
	q, err := dcap.Parse(m.Evidence.Raw)
	if err != nil {
		return nil, err
	}
	return dcap.NewVerifier(m.Roots).Verify(t.Context(), q, m.Evidence.Endorsements, ask, dcapforge.Epoch)
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

// kinds are the quotes that everything is tried with.
var kinds = map[string]forge{
	"sgx":                {SGX: true, Processor: true},
	"tdx, version 4":     {},
	"tdx 1.0, version 5": {Version: 5},
	"tdx 1.5, version 5": {Version: 5, TD15: true},
}

func TestForgedEvidenceVerifies(t *testing.T) {
	t.Parallel()
	for name, f := range kinds {
		m := f.Make(t)
		v, err := verify(t, m, nil)
		if err != nil {
			t.Fatal(name, err)
		}
		if v.Status != dcap.UpToDate || v.Generation != "emerald-rapids" || v.Product != "Xeon Emerald Rapids" || v.QESVN != 5 || v.Evaluation != 20 || len(v.Advisories) != 0 {
			t.Errorf("%s: %+v", name, v)
		}
		date := time.Date(2026, 2, 11, 0, 0, 0, 0, time.UTC)
		if !v.Date.Equal(date) || !strings.HasPrefix(v.Root, "sha256:") || v.PCK.Components != dcapforge.Components || v.PCK.PCESVN != 11 || !bytes.Equal(v.PCK.FMSPC[:], dcapforge.FMSPC) {
			t.Errorf("%s: %+v %+v", name, v, v.PCK)
		}
		r := v.Revocation
		if r.Problem != nil || !r.Issued.Equal(dcapforge.Epoch.AddDate(0, 0, -7)) || !r.Expires.Equal(dcapforge.Epoch.AddDate(0, 0, 7)) {
			t.Errorf("%s: %+v", name, r)
		}
		if f.SGX {
			if v.PCK.SMT != attest.Absent || v.PCK.Instance != nil || v.Quote.QESVN != 10 || v.Quote.PCESVN != 11 {
				t.Errorf("%s: %+v", name, v.PCK)
			}
			continue
		}
		if v.PCK.SMT != attest.On || v.PCK.CachedKeys != attest.Off || v.PCK.DynamicPlatform != attest.On || len(v.PCK.Instance) != 16 {
			t.Errorf("%s: %+v", name, v.PCK)
		}
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	for name, f := range kinds {
		v, err := verify(t, f.Make(t), nil)
		if err != nil {
			t.Fatal(err)
		}
		c := v.Claims()
		tee, n, checks := "tdx", 34, 9
		if f.SGX {
			tee, n, checks = "sgx", 18, 8
		}
		if c.Vendor != "intel" || c.TEE != tee || c.Product != v.Product || c.Generation != v.Generation || c.Root != v.Root || c.TCBStatus != "UpToDate" || c.Version != int(v.Quote.Version) ||
			!c.TCBDate.Equal(v.Date) || *c.Evaluation != 20 || c.FMSPC.String() != "b0c06f000000" || c.PPID.String() != strings.Repeat("17", 16) || c.Numbers["sgx_type"] != 1 || c.Revocation != v.Revocation {
			t.Errorf("%s: %+v", name, c)
		}
		if len(c.TCB) != n || c.TCB["pce"] != 11 || c.TCB["qe"] != 5 || c.TCB["sgx5"] != 4 || c.TCB["sgx16"] != 0 {
			t.Errorf("%s: TCB %v", name, c.TCB)
		}
		flags := map[string]attest.Flag{"smt": attest.On, "cached_keys": attest.Off, "dynamic_platform": attest.On}
		if f.SGX {
			flags = map[string]attest.Flag{}
		} else if c.TCB["tdx1"] != 6 || c.TCB["tdx3"] != 3 {
			t.Errorf("%s: TCB %v", name, c.TCB)
		}
		if !maps.Equal(c.Platform, flags) {
			t.Errorf("%s: %v", name, c.Platform)
		}
		if len(c.Checks) != checks || len(c.NotChecked) != 1 {
			t.Errorf("%s: %d checks, %d not checked", name, len(c.Checks), len(c.NotChecked))
		}
		for _, check := range c.Checks {
			if check.ID == "authenticity.tcb" && check.Got != "UpToDate since "+attest.Day(v.Date) {
				t.Errorf("%s: %s", name, check.Got)
			}
			if check.Status != attest.StatusPass || check.ID == "" || check.Text == "" || check.Got == "" || check.Source == "" {
				t.Errorf("%s: transcript line %+v", name, check)
			}
		}
		v.Revocation.Problem = &attest.Error{Code: attest.CodeEndorsementMissing}
		v.Advisories = []string{"INTEL-SA-00001"}
		if c := v.Claims(); len(c.Checks) != checks-1 || len(c.NotChecked) != 2 || !strings.Contains(fmt.Sprint(c.Checks), "INTEL-SA-00001") {
			t.Errorf("%s: %d checks, %d not checked", name, len(c.Checks), len(c.NotChecked))
		}
	}
}

func criticalExtension(c *x509.Certificate) {
	c.ExtraExtensions = append(c.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}})
}

func expired(c *x509.Certificate)     { c.NotAfter = dcapforge.Epoch.Add(-time.Second) }
func notYetValid(c *x509.Certificate) { c.NotBefore = dcapforge.Epoch.Add(time.Second) }
func subject(cn string) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: cn} }
}

func usage(u x509.KeyUsage) func(*x509.Certificate) {
	return func(c *x509.Certificate) { c.KeyUsage = u }
}

func sha512(c *x509.Certificate) { c.SignatureAlgorithm = x509.ECDSAWithSHA512 }

func revokes(serial int64) func(*x509.RevocationList) {
	return func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = append(l.RevokedCertificateEntries, x509.RevocationListEntry{SerialNumber: big.NewInt(serial), RevocationTime: dcapforge.Epoch.AddDate(0, 0, -8)})
	}
}

func outdated(l *x509.RevocationList) {
	l.ThisUpdate, l.NextUpdate = dcapforge.Epoch.AddDate(-1, 0, 0), dcapforge.Epoch.AddDate(0, 0, -1)
}

func set(key string, value any) func(map[string]any) {
	return func(m map[string]any) { m[key] = value }
}

func without(key string) func(map[string]any) {
	return func(m map[string]any) { delete(m, key) }
}

// level changes the first TCB level of a document.
func level(change func(map[string]any)) func(map[string]any) {
	return func(m map[string]any) { change(m["tcbLevels"].([]any)[0].(map[string]any)) }
}

func tcb(change func(map[string]any)) func(map[string]any) {
	return level(func(l map[string]any) { change(l["tcb"].(map[string]any)) })
}

// replace changes the text of a document before it is signed.
func replace(old, with string) func(string) string {
	return func(s string) string {
		if !strings.Contains(s, old) {
			panic(old)
		}
		return strings.Replace(s, old, with, 1)
	}
}

// staple changes one endorsement after it was signed.
func staple(at int, change func([]byte) []byte) func([]attest.Endorsement) []attest.Endorsement {
	return func(list []attest.Endorsement) []attest.Endorsement {
		list[at].Raw = change(slices.Clone(list[at].Raw))
		return list
	}
}

func bytesOf(old, with string) func([]byte) []byte {
	return func(b []byte) []byte {
		if !bytes.Contains(b, []byte(old)) {
			panic(old)
		}
		return bytes.Replace(b, []byte(old), []byte(with), 1)
	}
}

func drop(at ...int) func([]attest.Endorsement) []attest.Endorsement {
	return func(list []attest.Endorsement) []attest.Endorsement {
		var out []attest.Endorsement
		for i, e := range list {
			if !slices.Contains(at, i) {
				out = append(out, e)
			}
		}
		return out
	}
}

func add(kind attest.Kind, raw []byte) func([]attest.Endorsement) []attest.Endorsement {
	return func(list []attest.Endorsement) []attest.Endorsement {
		return append(list, attest.Endorsement{Kind: kind, Raw: raw})
	}
}

func trailing(b []byte) []byte { return append(b, 0) }

// fields replaces, adds (at -1) or removes (value nil) a field of the SGX extension.
func field(at int, f dcapforge.Field) func([]dcapforge.Field) []dcapforge.Field {
	return func(list []dcapforge.Field) []dcapforge.Field {
		switch {
		case at < 0:
			return append(list, f)
		case f.ID == nil:
			return slices.Delete(slices.Clone(list), at, at+1)
		}
		list[at] = f
		return list
	}
}

func tcbField(at int, f dcapforge.Field) func([]dcapforge.Field) []dcapforge.Field {
	return field(1, dcapforge.Field{ID: dcapforge.OID(2), Value: field(at, f)(dcapforge.TCB())})
}

func octet(n int) []byte { return make([]byte, n) }

// oid is short for a field of the SGX extension.
func oid(value any, arcs ...int) dcapforge.Field {
	return dcapforge.Field{ID: dcapforge.OID(arcs...), Value: value}
}

// chainPEM changes the certificates of the chain in the quote.
func chainPEM(change func([]*pem.Block) []*pem.Block) func([]byte) []byte {
	return func(text []byte) []byte {
		var blocks []*pem.Block
		for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
			blocks = append(blocks, block)
		}
		var out []byte
		for _, b := range change(blocks) {
			out = append(out, pem.EncodeToMemory(b)...)
		}
		return out
	}
}

func selfSigned(t testing.TB, cn string) []byte {
	t.Helper()
	key := dcapforge.NewKey()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(9), Subject: pkix.Name{CommonName: cn}, NotBefore: dcapforge.Epoch.AddDate(-1, 0, 0), NotAfter: dcapforge.Epoch.AddDate(1, 0, 0),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign | x509.KeyUsageCRLSign, IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// refusal is one thing that is wrong, and the code that it must give.
type refusal struct {
	code   attest.Code
	change func(*forge)
}

func refusals(t testing.TB) map[string]refusal {
	t.Helper()
	other := dcapforge.NewKey()
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	rsaKey, _ := rsa.GenerateKey(rand.Reader, 2048)
	foreign := selfSigned(t, "Other SGX Root CA")
	const (
		chain       = attest.CodeChain
		bad         = attest.CodeMalformedEndorsement
		unknown     = attest.CodeUnknownField
		duplicate   = attest.CodeDuplicateField
		algorithm   = attest.CodeUnknownAlgorithm
		missing     = attest.CodeEndorsementMissing
		oversize    = attest.CodeOversized
		revoked     = attest.CodeRevoked
		chainDate   = attest.CodeChainExpired
		stale       = attest.CodeEndorsementExpired
		untrusted   = attest.CodeUntrustedRoot
		critical    = attest.CodeCriticalExtension
		quotingEncl = attest.CodeQuotingEnclave
	)
	return map[string]refusal{
		// Root.
		"root expired":       {chainDate, func(f *forge) { f.Cert.Root = expired }},
		"root not yet valid": {chainDate, func(f *forge) { f.Cert.Root = notYetValid }},
		"another root in the PEM": {untrusted, func(f *forge) {
			f.Chain = chainPEM(func(b []*pem.Block) []*pem.Block { b[2].Bytes = foreign; return b })
		}},
		"another root stapled":   {untrusted, func(f *forge) { f.Staple = add(attest.KindCertificate, foreign) }},
		"root revoked by itself": {revoked, func(f *forge) { f.RootCRL = revokes(1) }},

		// PCK authority.
		"authority expired":                     {chainDate, func(f *forge) { f.Cert.CA = expired }},
		"authority not yet valid":               {chainDate, func(f *forge) { f.Cert.CA = notYetValid }},
		"authority revoked":                     {revoked, func(f *forge) { f.RootCRL = revokes(2) }},
		"authority revoked by an outdated list": {revoked, func(f *forge) { f.RootCRL = func(l *x509.RevocationList) { revokes(2)(l); outdated(l) } }},
		"authority signed by another key":       {chain, func(f *forge) { f.Key.CA = other }},
		"authority signed with SHA-512":         {chain, func(f *forge) { f.Cert.CA = sha512 }},
		"authority of another name":             {chain, func(f *forge) { f.Cert.CA = subject("SGX PCK CA") }},
		"authority that is none":                {chain, func(f *forge) { f.Cert.CA = func(c *x509.Certificate) { c.IsCA = false } }},
		"authority that may not certify":        {chain, func(f *forge) { f.Cert.CA = usage(x509.KeyUsageCRLSign) }},
		"authority that may not revoke":         {chain, func(f *forge) { f.Cert.CA = usage(x509.KeyUsageCertSign) }},
		"authority with a critical extension":   {critical, func(f *forge) { f.Cert.CA = criticalExtension }},
		"authority with a key on P-384":         {algorithm, func(f *forge) { f.Key.CAPublic = &p384.PublicKey }},
		"authority issued by another name": {chain, func(f *forge) {
			f.Chain = chainPEM(func(b []*pem.Block) []*pem.Block { b[1].Bytes = selfSigned(t, "SGX PCK Platform CA"); return b })
		}},

		"authority of another issuer": {chain, func(f *forge) { f.Issuer.CA = "Other SGX Root CA" }},

		// PCK certificate.
		"PCK of another issuer":           {chain, func(f *forge) { f.Issuer.PCK = "Other SGX PCK Platform CA" }},
		"PCK expired":                     {chainDate, func(f *forge) { f.Cert.PCK = expired }},
		"PCK not yet valid":               {chainDate, func(f *forge) { f.Cert.PCK = notYetValid }},
		"PCK revoked":                     {revoked, func(f *forge) { f.PCKCRL = revokes(3) }},
		"PCK revoked by an outdated list": {revoked, func(f *forge) { f.PCKCRL = func(l *x509.RevocationList) { revokes(3)(l); outdated(l) } }},
		"PCK signed by another key":       {chain, func(f *forge) { f.Key.PCK = other }},
		"PCK signed with SHA-512":         {chain, func(f *forge) { f.Cert.PCK = sha512 }},
		"PCK of another name":             {chain, func(f *forge) { f.Cert.PCK = subject("SGX TCB Signing") }},
		"PCK that is an authority":        {chain, func(f *forge) { f.Cert.PCK = func(c *x509.Certificate) { c.IsCA = true } }},
		"PCK that may not sign":           {chain, func(f *forge) { f.Cert.PCK = usage(x509.KeyUsageKeyAgreement) }},
		"PCK with a critical extension":   {critical, func(f *forge) { f.Cert.PCK = criticalExtension }},
		"PCK with a key on P-384":         {algorithm, func(f *forge) { f.Key.PCKPublic = &p384.PublicKey }},
		"PCK with an RSA key":             {algorithm, func(f *forge) { f.Key.PCKPublic = &rsaKey.PublicKey }},
		"PCK issued by another": {chain, func(f *forge) {
			f.Chain = chainPEM(func(b []*pem.Block) []*pem.Block { return []*pem.Block{b[0], b[2], b[2]} })
		}},

		// Chain in the quote.
		"chain in another order":     {untrusted, func(f *forge) { f.Chain = chainPEM(func(b []*pem.Block) []*pem.Block { slices.Reverse(b); return b }) }},
		"chain of two":               {bad, func(f *forge) { f.Chain = chainPEM(func(b []*pem.Block) []*pem.Block { return b[:2] }) }},
		"chain of four":              {bad, func(f *forge) { f.Chain = chainPEM(func(b []*pem.Block) []*pem.Block { return append(b, b[2]) }) }},
		"empty chain":                {bad, func(f *forge) { f.Chain = func([]byte) []byte { return nil } }},
		"chain with text before":     {bad, func(f *forge) { f.Chain = func(b []byte) []byte { return append([]byte("x\n"), b...) } }},
		"chain with text between":    {bad, func(f *forge) { f.Chain = bytesOf("-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\nx\n") }},
		"chain with text after":      {bad, func(f *forge) { f.Chain = func(b []byte) []byte { return append(b[:len(b)-1], 'x') } }},
		"chain with two zeros after": {bad, func(f *forge) { f.Chain = trailing }},
		"chain with PEM headers": {bad, func(f *forge) {
			f.Chain = bytesOf("-----BEGIN CERTIFICATE-----\n", "-----BEGIN CERTIFICATE-----\nA: b\n\n")
		}},
		"chain with a broken block before": {bad, func(f *forge) {
			f.Chain = func(b []byte) []byte { return append([]byte("-----BEGIN CERTIFICATE-----\n!\n"), b...) }
		}},
		"chain with another PEM type": {bad, func(f *forge) {
			f.Chain = func(b []byte) []byte { return bytes.ReplaceAll(b, []byte(" CERTIFICATE-"), []byte(" X-")) }
		}},
		"certificate that is junk": {bad, func(f *forge) {
			f.Chain = chainPEM(func(b []*pem.Block) []*pem.Block { b[0].Bytes = []byte("x"); return b })
		}},
		"bytes after a certificate": {bad, func(f *forge) {
			f.Chain = chainPEM(func(b []*pem.Block) []*pem.Block { b[0].Bytes = append(b[0].Bytes, 0); return b })
		}},

		// SGX extension.
		"no SGX extension":       {bad, func(f *forge) { f.Extension = func([]dcapforge.Field) []dcapforge.Field { return nil } }},
		"no PPID":                {bad, func(f *forge) { f.Extension = field(0, dcapforge.Field{}) }},
		"no TCB":                 {bad, func(f *forge) { f.Extension = field(1, dcapforge.Field{}) }},
		"no PCEID":               {bad, func(f *forge) { f.Extension = field(2, dcapforge.Field{}) }},
		"no FMSPC":               {bad, func(f *forge) { f.Extension = field(3, dcapforge.Field{}) }},
		"no type":                {bad, func(f *forge) { f.Extension = field(4, dcapforge.Field{}) }},
		"PPID of 15 bytes":       {bad, func(f *forge) { f.Extension = field(0, oid(octet(15), 1)) }},
		"PPID that is no string": {bad, func(f *forge) { f.Extension = field(0, oid(7, 1)) }},
		// What verifies is remembered by all of its bytes, and nobody signs the space in it.
		"chain with much space": {attest.CodeOversized, func(f *forge) {
			f.Chain = func(b []byte) []byte { return append(bytes.Repeat([]byte(" "), 16<<10), b...) }
		}},
		"PPID of another class": {bad, func(f *forge) {
			f.Extension = field(0, oid(asn1.RawValue{FullBytes: append([]byte{0x84, 16}, octet(16)...)}, 1))
		}},
		"PPID in pieces": {bad, func(f *forge) {
			f.Extension = field(0, oid(asn1.RawValue{FullBytes: append([]byte{0x24, 16}, octet(16)...)}, 1))
		}},
		"PCEID of 3 bytes": {bad, func(f *forge) { f.Extension = field(2, oid(octet(3), 3)) }},
		"FMSPC of 5 bytes": {bad, func(f *forge) { f.Extension = field(3, oid(octet(5), 4)) }},
		"FMSPC twice":      {duplicate, func(f *forge) { f.Extension = field(-1, oid(dcapforge.FMSPC, 4)) }},
		"unknown field":    {unknown, func(f *forge) { f.Extension = field(-1, oid(1, 8)) }},
		"field 0":          {unknown, func(f *forge) { f.Extension = field(-1, oid(1, 0)) }},
		"field under another parent": {unknown, func(f *forge) {
			f.Extension = field(-1, dcapforge.Field{ID: asn1.ObjectIdentifier{1, 2, 3, 4, 5, 6, 7, 4}, Value: 1})
		}},
		"field of a field":         {unknown, func(f *forge) { f.Extension = field(-1, oid(1, 4, 1)) }},
		"type 3":                   {unknown, func(f *forge) { f.Extension = field(4, oid(asn1.Enumerated(3), 5)) }},
		"type -1":                  {unknown, func(f *forge) { f.Extension = field(4, oid(asn1.Enumerated(-1), 5)) }},
		"type that is an INTEGER":  {bad, func(f *forge) { f.Extension = field(4, oid(0, 5)) }},
		"TCB that is no SEQUENCE":  {bad, func(f *forge) { f.Extension = field(1, oid(0, 2)) }},
		"TCB without component 16": {bad, func(f *forge) { f.Extension = tcbField(15, dcapforge.Field{}) }},
		"TCB without component 1":  {bad, func(f *forge) { f.Extension = tcbField(0, dcapforge.Field{}) }},
		"TCB without PCESVN":       {bad, func(f *forge) { f.Extension = tcbField(16, dcapforge.Field{}) }},
		"TCB without CPUSVN":       {bad, func(f *forge) { f.Extension = tcbField(17, dcapforge.Field{}) }},
		"TCB component 19":         {unknown, func(f *forge) { f.Extension = tcbField(-1, oid(0, 2, 19)) }},
		"TCB component twice":      {duplicate, func(f *forge) { f.Extension = tcbField(-1, oid(9, 2, 1)) }},
		"TCB component of 256":     {bad, func(f *forge) { f.Extension = tcbField(0, oid(256, 2, 1)) }},
		"TCB component of -1":      {bad, func(f *forge) { f.Extension = tcbField(0, oid(-1, 2, 1)) }},
		"TCB component no INTEGER": {bad, func(f *forge) { f.Extension = tcbField(0, oid(true, 2, 1)) }},
		"PCESVN of 65536":          {bad, func(f *forge) { f.Extension = tcbField(16, oid(65536, 2, 17)) }},
		"CPUSVN of 17 bytes":       {bad, func(f *forge) { f.Extension = tcbField(17, oid(octet(17), 2, 18)) }},
		"instance of 15 bytes":     {bad, func(f *forge) { f.Processor = true; f.Extension = field(-1, oid(octet(15), 6)) }},
		"unknown flag": {unknown, func(f *forge) {
			f.Processor = true
			f.Extension = field(-1, oid([]dcapforge.Field{oid(true, 7, 4)}, 7))
		}},
		"flag twice": {duplicate, func(f *forge) {
			f.Processor = true
			f.Extension = field(-1, oid([]dcapforge.Field{oid(true, 7, 3), oid(false, 7, 3)}, 7))
		}},
		"flag that is no BOOLEAN": {bad, func(f *forge) { f.Processor = true; f.Extension = field(-1, oid([]dcapforge.Field{oid(1, 7, 3)}, 7)) }},
		"bytes after the fields": {bad, func(f *forge) {
			f.Cert.PCK = func(c *x509.Certificate) { c.ExtraExtensions[0].Value = append(c.ExtraExtensions[0].Value, 5, 0) }
		}},
		"SGX extension twice": {bad, func(f *forge) {
			f.Cert.PCK = func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, c.ExtraExtensions[0]) }
		}},
		"unknown product": {attest.CodeUnknownProduct, func(f *forge) { f.Extension = field(3, oid([]byte{0, 0xf0, 0x6f, 0, 0, 0}, 4)) }},

		// Quoting enclave and attestation key.
		"QE report signed by another key": {attest.CodeSignature, func(f *forge) { f.Key.QE = other }},
		"QE report for another key":       {attest.CodeLink, func(f *forge) { f.QE = func(r []byte) { r[320] ^= 1 } }},
		"QE report with more in its data": {attest.CodeLink, func(f *forge) { f.QE = func(r []byte) { r[383] = 1 } }},
		"another key in the quote": {attest.CodeLink, func(f *forge) {
			f.Key64 = func(k []byte) { p, _ := other.PublicKey.Bytes(); copy(k, p[1:]) }
		}},
		"attestation key that is no point": {algorithm, func(f *forge) {
			f.QE = func(r []byte) { copy(r[320:], linkOf(make([]byte, 64))) }
			f.Key64 = func(k []byte) { clear(k) }
		}},
		"quote signed by another key": {attest.CodeSignature, func(f *forge) { f.Key.Quote = other }},
		"QE with MISCSELECT":          {quotingEncl, func(f *forge) { f.QE = func(r []byte) { r[16] = 1 } }},
		"QE under debug":              {quotingEncl, func(f *forge) { f.QE = func(r []byte) { r[48] |= 2 } }},
		"QE of another signer":        {quotingEncl, func(f *forge) { f.QE = func(r []byte) { r[128] ^= 1 } }},
		"QE of another product":       {quotingEncl, func(f *forge) { f.QE = func(r []byte) { r[256] = 1 } }},
		"QE of another vendor":        {quotingEncl, func(f *forge) { f.Header = func(h []byte) { h[12] ^= 1 } }},

		// TCB signing certificate.
		"signer of another issuer":         {chain, func(f *forge) { f.Issuer.TCB = "Other SGX Root CA" }},
		"signer expired":                   {chainDate, func(f *forge) { f.Cert.TCB = expired }},
		"signer not yet valid":             {chainDate, func(f *forge) { f.Cert.TCB = notYetValid }},
		"signer revoked":                   {revoked, func(f *forge) { f.RootCRL = revokes(4) }},
		"signer signed by another key":     {chain, func(f *forge) { f.Key.TCB = other }},
		"signer signed with SHA-512":       {chain, func(f *forge) { f.Cert.TCB = sha512 }},
		"signer that is an authority":      {chain, func(f *forge) { f.Cert.TCB = func(c *x509.Certificate) { c.IsCA = true } }},
		"signer that may not sign":         {chain, func(f *forge) { f.Cert.TCB = usage(x509.KeyUsageKeyAgreement) }},
		"signer with a critical extension": {critical, func(f *forge) { f.Cert.TCB = criticalExtension }},
		"signer with a key on P-384":       {algorithm, func(f *forge) { f.Key.TCBPublic = &p384.PublicKey }},
		"PCK certificate as signer":        {chain, func(f *forge) { f.Cert.TCB = subject("SGX PCK Certificate") }},
		"authority stapled by another":     {chain, func(f *forge) { f.Staple = add(attest.KindCertificate, selfSigned(t, "SGX PCK Platform CA")) }},
		"processor CA stapled by another":  {chain, func(f *forge) { f.Staple = add(attest.KindCertificate, selfSigned(t, "SGX PCK Processor CA")) }},
		"signer by another root":           {chain, func(f *forge) { f.Staple = add(attest.KindCertificate, selfSigned(t, "SGX TCB Signing")) }},
		"certificate of a stranger":        {chain, func(f *forge) { f.Staple = add(attest.KindCertificate, selfSigned(t, "example.com")) }},
		"authority that is none, stapled": {chain, func(f *forge) {
			f.Cert.TCB = subject("SGX PCK Platform CA")
		}},

		// Endorsements.
		"no endorsements":             {missing, func(f *forge) { f.Staple = func([]attest.Endorsement) []attest.Endorsement { return nil } }},
		"no TCB info":                 {missing, func(f *forge) { f.Staple = drop(dcapforge.TCBInfo) }},
		"no QE identity":              {missing, func(f *forge) { f.Staple = drop(dcapforge.QEIdentity) }},
		"no signer":                   {missing, func(f *forge) { f.Staple = drop(dcapforge.TCBCert) }},
		"endorsement of another kind": {bad, func(f *forge) { f.Staple = add("note", []byte("x")) }},
		"certificate of junk":         {bad, func(f *forge) { f.Staple = add(attest.KindCertificate, []byte("x")) }},
		"list of junk":                {bad, func(f *forge) { f.Staple = add(attest.KindCRL, []byte("x")) }},
		"TCB info of junk":            {bad, func(f *forge) { f.Staple = add(attest.KindTCBInfo, []byte("x")) }},
		"too many endorsements": {oversize, func(f *forge) {
			f.Staple = func(list []attest.Endorsement) []attest.Endorsement { return slices.Repeat(list, 3) }
		}},
		"bytes after the signer":   {bad, func(f *forge) { f.Staple = staple(dcapforge.TCBCert, trailing) }},
		"bytes after a list":       {bad, func(f *forge) { f.Staple = staple(dcapforge.PCKCRL, trailing) }},
		"a list that is too large": {oversize, func(f *forge) { f.Staple = add(attest.KindCRL, make([]byte, 1<<20+1)) }},

		// Revocation lists.
		"root's list by another key": {chain, func(f *forge) { f.Key.RootCRL = other }},
		"PCK list by another key":    {chain, func(f *forge) { f.Key.PCKCRL = other }},
		"list signed with SHA-512": {chain, func(f *forge) {
			f.PCKCRL = func(l *x509.RevocationList) { l.SignatureAlgorithm = x509.ECDSAWithSHA512 }
		}},
		"list with a critical extension": {critical, func(f *forge) {
			f.PCKCRL = func(l *x509.RevocationList) {
				l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 28}, Critical: true, Value: []byte{0x30, 0}}}
			}
		}},
		"entry with a critical extension": {critical, func(f *forge) {
			f.PCKCRL = func(l *x509.RevocationList) {
				revokes(50)(l)
				l.RevokedCertificateEntries[0].ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 29}, Critical: true, Value: []byte{0x30, 0}}}
			}
		}},

		// Documents.
		"TCB info signed by another key":    {chain, func(f *forge) { f.Key.Info = other }},
		"QE identity signed by another key": {chain, func(f *forge) { f.Key.Identity = other }},
		"TCB info changed":                  {chain, func(f *forge) { f.Staple = staple(dcapforge.TCBInfo, bytesOf(`"OutOfDate"`, `"UpToDate"`)) }},
		"QE identity changed":               {chain, func(f *forge) { f.Staple = staple(dcapforge.QEIdentity, bytesOf(`"OutOfDate"`, `"UpToDate"`)) }},
		"space in the TCB info":             {chain, func(f *forge) { f.Staple = staple(dcapforge.TCBInfo, bytesOf(`"fmspc":`, `"fmspc": `)) }},
		"TCB info without signature": {bad, func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, func(b []byte) []byte { return append(b[:bytes.Index(b, []byte(`,"signature"`))], '}') })
		}},
		"signature that is no text": {bad, func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, func(b []byte) []byte { return append(b[:bytes.Index(b, []byte(`,"signature"`))], `,"signature":1}`...) })
		}},
		"signature cut": {bad, func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, func(b []byte) []byte { return append(b[:len(b)-4], `"}`...) })
		}},
		"field beside what is signed": {unknown, func(f *forge) { f.Staple = staple(dcapforge.TCBInfo, bytesOf(`{"tcbInfo"`, `{"x":1,"tcbInfo"`)) }},
		"list instead of an object": {bad, func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, func(b []byte) []byte { return []byte(`[` + string(b) + `]`) })
		}},
		"twin of the TCB info": {duplicate, func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, bytesOf(`,"signature"`, `,"tcbInfo":{},"signature"`))
		}},
		"twin of the TCB info in capitals": {bad, func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, bytesOf(`,"signature"`, `,"TCBINFO":{},"signature"`))
		}},
		"twin of the QE identity in capitals": {bad, func(f *forge) {
			f.Staple = staple(dcapforge.QEIdentity, bytesOf(`,"signature"`, `,"EnclaveIdentity":{},"signature"`))
		}},
		"twin of the signature": {duplicate, func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, bytesOf(`,"signature"`, `,"signature":"","signature"`))
		}},
		"twin in what is signed":     {duplicate, func(f *forge) { f.InfoText = replace(`"fmspc":`, `"fmspc":"000000000000","fmspc":`) }},
		"twin of a status":           {duplicate, func(f *forge) { f.InfoText = replace(`"tcbStatus":`, `"tcbStatus":"UpToDate","tcbStatus":`) }},
		"capitals in what is signed": {bad, func(f *forge) { f.InfoText = replace(`"tcbStatus":`, `"tcbstatus":`) }},
		"QE identity as TCB info": {unknown, func(f *forge) {
			f.Staple = func(list []attest.Endorsement) []attest.Endorsement {
				list[dcapforge.TCBInfo].Raw = list[dcapforge.QEIdentity].Raw
				return list
			}
		}},
		"bytes after the TCB info": {bad, func(f *forge) { f.Staple = staple(dcapforge.TCBInfo, trailing) }},
		"TCB info too large": {bad, func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), 256<<10)...) })
		}},
		"TCB info too deep":              {bad, func(f *forge) { f.InfoText = replace(`"fmspc":`, `"x":[[[[[[[[1]]]]]]]],"fmspc":`) }},
		"TCB info of version 2":          {attest.CodeUnknownVersion, func(f *forge) { f.Info = set("version", 2) }},
		"TCB info of version 4":          {attest.CodeUnknownVersion, func(f *forge) { f.Info = set("version", 4) }},
		"QE identity of version 3":       {attest.CodeUnknownVersion, func(f *forge) { f.Identity = set("version", 3) }},
		"TCB info of another TEE":        {unknown, func(f *forge) { f.Info = set("id", "TDX2") }},
		"QE identity of another enclave": {unknown, func(f *forge) { f.Identity = set("id", "QVE") }},
		"TCB info of type 1":             {unknown, func(f *forge) { f.Info = set("tcbType", 1) }},
		"TCB info without type":          {unknown, func(f *forge) { f.Info = without("tcbType") }},
		"TCB info for another FMSPC":     {missing, func(f *forge) { f.Info = set("fmspc", "00806F050000") }},
		"TCB info for another PCEID":     {missing, func(f *forge) { f.Info = set("pceId", "0001") }},
		"FMSPC that is no hex":           {bad, func(f *forge) { f.Info = set("fmspc", "x") }},
		"PCEID that is no hex":           {bad, func(f *forge) { f.Info = set("pceId", "00000") }},
		"FMSPC that is a number":         {bad, func(f *forge) { f.Info = set("fmspc", 1) }},
		"TCB info not yet valid":         {stale, func(f *forge) { f.Info = set("issueDate", "2026-11-01T00:00:01Z") }},
		"TCB info expired":               {stale, func(f *forge) { f.Info = set("nextUpdate", "2026-10-31T23:59:59Z") }},
		"QE identity not yet valid":      {stale, func(f *forge) { f.Identity = set("issueDate", "2026-11-01T00:00:01Z") }},
		"QE identity expired":            {stale, func(f *forge) { f.Identity = set("nextUpdate", "2026-10-31T23:59:59Z") }},
		"TCB info without issueDate":     {bad, func(f *forge) { f.Info = without("issueDate") }},
		"TCB info without nextUpdate":    {bad, func(f *forge) { f.Info = without("nextUpdate") }},
		"TCB info without evaluation":    {bad, func(f *forge) { f.Info = without("tcbEvaluationDataNumber") }},
		"evaluation below zero":          {bad, func(f *forge) { f.Info = set("tcbEvaluationDataNumber", -1) }},
		"date that is none":              {bad, func(f *forge) { f.Info = set("issueDate", "yesterday") }},
		"TCB info without levels":        {bad, func(f *forge) { f.Info = set("tcbLevels", []any{}) }},
		"QE identity without levels":     {bad, func(f *forge) { f.Identity = without("tcbLevels") }},
		"TCB info with 513 levels": {bad, func(f *forge) {
			f.Info = func(m map[string]any) { m["tcbLevels"] = slices.Repeat(m["tcbLevels"].([]any)[:1], 513) }
		}},
		"QE identity with 513 levels": {bad, func(f *forge) {
			f.Identity = func(m map[string]any) { m["tcbLevels"] = slices.Repeat(m["tcbLevels"].([]any)[:1], 513) }
		}},
		"two levels for the same TCB": {duplicate, func(f *forge) {
			f.Info = func(m map[string]any) { m["tcbLevels"] = slices.Repeat(m["tcbLevels"].([]any)[:1], 2) }
		}},
		"two QE levels for the same SVN": {duplicate, func(f *forge) {
			f.Identity = func(m map[string]any) { m["tcbLevels"] = slices.Repeat(m["tcbLevels"].([]any)[:1], 2) }
		}},
		"level without pcesvn":     {bad, func(f *forge) { f.Info = tcb(without("pcesvn")) }},
		"level without components": {bad, func(f *forge) { f.Info = tcb(without("sgxtcbcomponents")) }},
		"level with 17 components": {bad, func(f *forge) {
			f.Info = tcb(func(m map[string]any) {
				m["sgxtcbcomponents"] = append(m["sgxtcbcomponents"].([]any), map[string]any{"svn": 0})
			})
		}},
		"component without svn": {bad, func(f *forge) {
			f.Info = tcb(func(m map[string]any) { m["sgxtcbcomponents"].([]any)[15] = map[string]any{} })
		}},
		"component of 256": {bad, func(f *forge) {
			f.Info = tcb(func(m map[string]any) { m["sgxtcbcomponents"].([]any)[0] = map[string]any{"svn": 256} })
		}},
		"level without date":              {bad, func(f *forge) { f.Info = level(without("tcbDate")) }},
		"level without status":            {unknown, func(f *forge) { f.Info = level(without("tcbStatus")) }},
		"level of unknown status":         {unknown, func(f *forge) { f.Info = level(set("tcbStatus", "uptodate")) }},
		"level of a converged status":     {unknown, func(f *forge) { f.Info = level(set("tcbStatus", "TDRelaunchAdvised")) }},
		"level with 257 advisories":       {oversize, func(f *forge) { f.Info = level(set("advisoryIDs", slices.Repeat([]string{"x"}, 257))) }},
		"QE level without svn":            {bad, func(f *forge) { f.Identity = tcb(without("isvsvn")) }},
		"QE level of a platform's status": {unknown, func(f *forge) { f.Identity = level(set("tcbStatus", "SWHardeningNeeded")) }},
		"QE identity without product":     {bad, func(f *forge) { f.Identity = without("isvprodid") }},
		"QE identity without mrsigner":    {bad, func(f *forge) { f.Identity = without("mrsigner") }},
		"QE identity without miscselect":  {bad, func(f *forge) { f.Identity = without("miscselect") }},
		"QE identity without its mask":    {bad, func(f *forge) { f.Identity = without("miscselectMask") }},
		"QE identity without attributes":  {bad, func(f *forge) { f.Identity = without("attributes") }},
		"QE identity without their mask":  {bad, func(f *forge) { f.Identity = without("attributesMask") }},
		"QE identity that is a list":      {bad, func(f *forge) { f.IDText = func(string) string { return "[]" } }},

		// Levels.
		"platform below all levels": {attest.CodeTCBUnknown, func(f *forge) {
			f.Info = func(m map[string]any) { m["tcbLevels"] = m["tcbLevels"].([]any)[:1]; tcb(set("pcesvn", 12))(m) }
		}},
		"components below all levels": {attest.CodeTCBUnknown, func(f *forge) {
			f.Info = func(m map[string]any) {
				m["tcbLevels"] = m["tcbLevels"].([]any)[:1]
				tcb(func(m map[string]any) { m["sgxtcbcomponents"].([]any)[15] = map[string]any{"svn": 1} })(m)
			}
		}},
		"quoting enclave below all levels": {attest.CodeTCBUnknown, func(f *forge) { f.QE = func(r []byte) { r[258] = 1 } }},
	}
}

// tdxRefusals are those that only quotes of TDX can have.
func tdxRefusals() map[string]refusal {
	const (
		bad    = attest.CodeMalformedEndorsement
		module = attest.CodeTDXModule
	)
	modules := func(change func([]any) []any) func(map[string]any) {
		return func(m map[string]any) { m["tdxModuleIdentities"] = change(m["tdxModuleIdentities"].([]any)) }
	}
	first := func(change func(map[string]any)) func(map[string]any) {
		return modules(func(l []any) []any { change(l[1].(map[string]any)); return l })
	}
	return map[string]refusal{
		"TCB info of SGX":               {attest.CodeEndorsementMissing, func(f *forge) { f.Info = set("id", "SGX") }},
		"QE identity of SGX":            {attest.CodeEndorsementMissing, func(f *forge) { f.Identity = set("id", "QE") }},
		"no TDX module":                 {bad, func(f *forge) { f.Info = without("tdxModule") }},
		"level without TDX components":  {bad, func(f *forge) { f.Info = tcb(without("tdxtcbcomponents")) }},
		"TDX module of another signer":  {module, func(f *forge) { f.Body = func(b []byte) { b[64] = 1 } }},
		"TDX module not as identified":  {module, func(f *forge) { f.Info = first(set("mrsigner", strings.Repeat("01", 48))) }},
		"TDX module with attributes":    {module, func(f *forge) { f.Body = func(b []byte) { b[112] = 1 } }},
		"TDX module without attributes": {module, func(f *forge) { f.Info = first(set("attributes", "0100000000000000")) }},
		"module 0 of another signer": {module, func(f *forge) {
			f.Body = func(b []byte) { b[1] = 0 }
			f.Info = func(m map[string]any) { m["tdxModule"].(map[string]any)["mrsigner"] = strings.Repeat("01", 48) }
		}},
		"TDX module of unknown version":            {attest.CodeTCBUnknown, func(f *forge) { f.Body = func(b []byte) { b[1] = 2 } }},
		"TDX module of unknown version and signer": {attest.CodeTCBUnknown, func(f *forge) { f.Body = func(b []byte) { b[1], b[64] = 2, 1 } }},
		"no TDX module identities":                 {attest.CodeTCBUnknown, func(f *forge) { f.Info = without("tdxModuleIdentities") }},
		"TDX module below all levels":              {attest.CodeTCBUnknown, func(f *forge) { f.Body = func(b []byte) { b[0] = 1 } }},
		"TDX components below all levels":          {attest.CodeTCBUnknown, func(f *forge) { f.Body = func(b []byte) { b[2] = 1 } }},
		"module 0 below all levels":                {attest.CodeTCBUnknown, func(f *forge) { f.Body = func(b []byte) { b[0], b[1] = 4, 0 } }},
		"module identity twice":                    {attest.CodeDuplicateField, func(f *forge) { f.Info = modules(func(l []any) []any { return append(l, l[0]) }) }},
		"module identity without id":               {bad, func(f *forge) { f.Info = first(without("id")) }},
		"module identity of a number alone":        {bad, func(f *forge) { f.Info = first(set("id", "01")) }},
		"module identity of no number":             {bad, func(f *forge) { f.Info = first(set("id", "TDX_X1")) }},
		"module identity without signer":           {bad, func(f *forge) { f.Info = first(without("mrsigner")) }},
		"module identity without attributes":       {bad, func(f *forge) { f.Info = first(without("attributes")) }},
		"module identity without levels":           {bad, func(f *forge) { f.Info = first(without("tcbLevels")) }},
		"module of a platform's status": {attest.CodeUnknownField, func(f *forge) {
			f.Info = first(set("tcbLevels", []any{dcapforge.ISVLevel(4, "ConfigurationNeeded")}))
		}},
		"65 TDX modules": {attest.CodeOversized, func(f *forge) {
			f.Info = modules(func([]any) (l []any) {
				for i := range 65 {
					l = append(l, dcapforge.Module(fmt.Sprintf("TDX_%02X", i+1), dcapforge.ISVLevel(1, "UpToDate")))
				}
				return l
			})
		}},
		"TDX module without signer": {bad, func(f *forge) {
			f.Info = func(m map[string]any) { delete(m["tdxModule"].(map[string]any), "mrsigner") }
		}},
		"instance is missing":      {bad, func(f *forge) { f.Extension = field(5, dcapforge.Field{}) }},
		"configuration is no list": {bad, func(f *forge) { f.Extension = field(6, oid(octet(3), 7)) }},
		"configuration is missing": {bad, func(f *forge) { f.Extension = field(6, dcapforge.Field{}) }},
	}
}

// sgxRefusals are those that only quotes of SGX can have.
func sgxRefusals() map[string]refusal {
	return map[string]refusal{
		"TCB info of TDX": {attest.CodeEndorsementMissing, func(f *forge) {
			f.Info = func(m map[string]any) {
				m["id"], m["tdxModule"] = "TDX", dcapforge.Module("")
				m["tcbLevels"] = []any{dcapforge.Level([]byte{1}, []byte{}, 1, "UpToDate")}
			}
		}},
		"QE identity of TDX": {attest.CodeEndorsementMissing, func(f *forge) { f.Identity = set("id", "TD_QE") }},
	}
}

// TestRefusals has one case for each check: what is forged is signed afterwards, and nothing else is wrong with it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	cases := 0
	for kind, f := range kinds {
		list := refusals(t)
		if f.SGX {
			maps.Copy(list, sgxRefusals())
		} else {
			maps.Copy(list, tdxRefusals())
		}
		cases += len(list)
		for name, c := range list {
			t.Run(kind+"/"+name, func(t *testing.T) {
				t.Parallel()
				f := f
				if strings.HasPrefix(name, "authority") {
					f.Staple = drop(dcapforge.CACert) // or its copy there would be found wrong
				}
				c.change(&f)
				v, err := verify(t, f.Make(t), nil)
				if bad := wants(err, c.code); bad != nil || v != nil {
					t.Error(bad)
				}
			})
		}
	}
	if cases < 120 {
		t.Errorf("only %d cases", cases)
	}
}

// linkOf is what a quoting enclave has in its report for a key.
func linkOf(key []byte) []byte {
	h := sha256.Sum256(append(slices.Clone(key), "thirty-two bytes of qe auth data"...))
	return h[:]
}

// What is not wrong is not refused.
func TestTolerated(t *testing.T) {
	t.Parallel()
	cases := map[string]func(*forge){
		"reason in an entry": func(f *forge) {
			f.PCKCRL = func(l *x509.RevocationList) {
				revokes(50)(l)
				l.RevokedCertificateEntries[0].ReasonCode = 1
			}
		},
		"serials of others": func(f *forge) { f.PCKCRL = revokes(1); f.RootCRL = revokes(3) },
		"list of a stranger": func(f *forge) {
			stranger := forge{Processor: !f.Processor}.Make(t)
			f.Staple = add(attest.KindCRL, stranger.Evidence.Endorsements[dcapforge.PCKCRL].Raw)
		},
		"information in levels": func(f *forge) { f.Info = level(set("note", []any{"x"})) },
		"levels in any order": func(f *forge) {
			f.Info = func(m map[string]any) { slices.Reverse(m["tcbLevels"].([]any)) }
			f.Identity = func(m map[string]any) { slices.Reverse(m["tcbLevels"].([]any)) }
		},
		"chain with CR LF": func(f *forge) {
			f.Chain = func(b []byte) []byte { return bytes.ReplaceAll(b, []byte("\n"), []byte("\r\n")) }
		},
		"chain with space":     func(f *forge) { f.Chain = bytesOf("-----END CERTIFICATE-----\n", "-----END CERTIFICATE-----\n \n") },
		"chain without a zero": func(f *forge) { f.Chain = func(b []byte) []byte { return bytes.TrimSuffix(b, []byte{0}) } },
		"no QE auth data":      func(f *forge) { f.QEAuth = []byte{} },
		"signature in capitals": func(f *forge) {
			f.Staple = staple(dcapforge.TCBInfo, func(b []byte) []byte {
				i := bytes.LastIndex(b, []byte(`:"`))
				return append(b[:i:i], bytes.ToUpper(b[i:])...)
			})
		},
		"XFRM of the quoting enclave": func(f *forge) { f.QE = func(r []byte) { r[56] = 7 } },
		"a second signer": func(f *forge) {
			f.Staple = func(list []attest.Endorsement) []attest.Endorsement {
				return append(list, list[dcapforge.TCBCert], list[dcapforge.TCBInfo])
			}
		},
	}
	for kind, f := range kinds {
		for name, change := range cases {
			f := f
			change(&f)
			if _, err := verify(t, f.Make(t), nil); err != nil {
				t.Errorf("%s, %s: %v", kind, name, err)
			}
		}
	}
}
