package tpm_test

import (
	"bytes"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/tpm"
)

func TestForgedEvidenceVerifies(t *testing.T) {
	t.Parallel()
	k := sharedKeys()
	for name, f := range map[string]forge{
		"ECDSA P-256 SHA-256": {},
		"ECDSA P-384 SHA-384": {key: k.p384, hash: 0x0c},
		"RSASSA SHA-256":      {key: k.rsa},
		"RSASSA SHA-384":      {key: k.rsa, hash: 0x0c},
		"RSAPSS SHA-256":      {key: k.rsa, scheme: 0x16},
		"SHA-384 bank":        messageHook(func(m *message) { m.banks[0].hash = 0x0c }),
		"name in SHA-384":     publicHook(func(p *public) { p.nameAlg = 0x0c }),
		"exponent said":       {key: k.rsa, public: func(p *public) { p.exponent = 65537 }},
		"key with a policy":   publicHook(func(p *public) { p.policy = make([]byte, 32) }),
		"no firmware, no clock": messageHook(func(m *message) {
			m.clock, m.firmware, m.safe = 0, 0, 0
		}),
		"critical names in the certificate": withCert("leaf", func(c *x509.Certificate) {
			c.ExtraExtensions = append(c.ExtraExtensions, altNames())
		}),
		"certificates in another order": stapleHook(func(e []attest.Endorsement) []attest.Endorsement {
			slices.Reverse(e)
			return e
		}),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			made := f.make(t)
			c, err := made.verify(t, nil)
			if err != nil {
				t.Fatal(err)
			}
			if c.Vendor != "tcg" || c.TEE != "tpm" || c.Generation != "2.0" || c.Product != "TPM" || c.Simulated || c.ReportData != reportData || c.Folded {
				t.Errorf("%+v", c)
			}
			if c.Root != sum(made.root) || len(c.Measured) != 24 || c.Debug != attest.Absent || c.Migratable != attest.Absent || c.Measured["launch"] != nil {
				t.Errorf("%+v", c)
			}
			if c.Revocation.Problem != nil || !c.Revocation.Issued.Equal(epoch.AddDate(0, 0, -7)) || !c.Revocation.Expires.Equal(epoch.AddDate(0, 0, 7)) {
				t.Errorf("%+v", c.Revocation)
			}
			for _, check := range c.Checks {
				if check.Status != attest.StatusPass || check.ID == "" || check.Text == "" || check.Source == "" {
					t.Errorf("transcript line %+v", check)
				}
			}
			if c.Checks[1].Text != "chain of the attestation key to a trusted root" {
				t.Error(c.Checks[1].Text)
			}
			if len(c.Checks) != 5 || len(c.NotChecked) != 1 {
				t.Errorf("%d checks, not checked: %q", len(c.Checks), c.NotChecked)
			}
		})
	}
}

func altNames() pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Critical: true, Value: must(asn1.Marshal([]asn1.RawValue{{Class: 2, Tag: 4, IsCompound: true, Bytes: must(asn1.Marshal(pkix.Name{CommonName: "id:4E544300"}.ToRDNSequence()))}}))}
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

func sum(der []byte) string { return "sha256:" + hex.EncodeToString(digestOf(0x0b, der)) }

func TestClaims(t *testing.T) {
	t.Parallel()
	c, err := messageHook(func(m *message) {
		m.banks[0].selected = []byte{0x81, 0x40, 0}
		m.extra = m.extra[:32]
	}).make(t).verify(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Measured) != 3 || c.Measured["pcr0"][0] != 1 || c.Measured["pcr7"][31] != 8 || c.Measured["pcr14"][0] != 15 {
		t.Errorf("%v", c.Measured)
	}
	if want := map[string]uint64{"tpm_clock": 11, "tpm_resets": 12, "tpm_restarts": 13, "tpm_firmware": 14}; fmt.Sprint(c.Numbers) != fmt.Sprint(want) {
		t.Errorf("%v", c.Numbers)
	}
	if !c.Folded || !bytes.Equal(c.ReportData[:32], reportData[:32]) || !bytes.Equal(c.ReportData[32:], make([]byte, 32)) {
		t.Errorf("%x", c.ReportData)
	}
	if !strings.Contains(strings.Join(c.NotChecked, "\n"), "PCRs other than 0, 7, 14") {
		t.Errorf("%q", c.NotChecked)
	}
}

// Report data of any other length is none: padded, it would equal what another quote signed.
func TestReportData(t *testing.T) {
	t.Parallel()
	appraise := func(f forged, data attest.ReportData) attest.Code {
		want := attest.Expect(data, attest.LevelKey, time.Time{})
		return attest.NewAppraiser(attest.NoEndorser{}, tpm.NewVerifier(f.roots)).Appraise(t.Context(), f.evidence, want, allowAll{}, epoch).Code()
	}
	folded := reportData.Fold()
	for n := range 67 {
		f := messageHook(func(m *message) {
			m.extra = append(bytes.Clone(reportData[:]), 65, 66)[:n]
			if n == 32 {
				m.extra = folded[:32]
			}
		}).make(t)
		var padded attest.ReportData
		copy(padded[:], reportData[:min(n, 64)])
		want := attest.CodeReportData
		if n == 32 || n == 64 {
			want = ""
		}
		if got := appraise(f, reportData); got != want {
			t.Errorf("%d bytes: %q, want %q", n, got, want)
		}
		if n != 64 && n != 0 {
			if got := appraise(f, padded); got != attest.CodeReportData {
				t.Errorf("%d bytes, padded: %q", n, got)
			}
		}
		other := reportData
		other[n%64] ^= 1
		if got := appraise(f, other); got != attest.CodeReportData {
			t.Errorf("%d bytes, other data: %q", n, got)
		}
		if n == 9 {
			c, err := f.verify(t, nil)
			if err != nil || !c.ReportData.IsZero() || !strings.Contains(strings.Join(c.NotChecked, "\n"), "signed 9 bytes, 010203040506070809") {
				t.Errorf("%v, %v", c, err)
			}
		}
	}
}

type allowAll struct{}

func (allowAll) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "test", Checks: []attest.Check{{ID: "all", Status: attest.StatusPass}}}
}

// TestRefusals has one case for each check: what is forged is signed afterwards, and nothing else is wrong with it.
func TestRefusals(t *testing.T) {
	t.Parallel()
	k := sharedKeys()
	drop := func(p tpm.Part) forge { return partsHook(func(parts map[tpm.Part][]byte) { delete(parts, p) }) }
	flip := func(p tpm.Part, at int) forge {
		return partsHook(func(parts map[tpm.Part][]byte) {
			b := bytes.Clone(parts[p])
			b[(at+len(b))%len(b)] ^= 1
			parts[p] = b
		})
	}
	revoke := func(serial int64, more ...pkix.Extension) func(*x509.RevocationList) {
		return func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(serial), RevocationTime: epoch.AddDate(0, 0, -8), ExtraExtensions: more}}
		}
	}
	unknown := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true, Value: []byte{5, 0}}
	critical := func(c *x509.Certificate) { c.ExtraExtensions = append(c.ExtraExtensions, unknown) }
	expired := func(c *x509.Certificate) { c.NotAfter = epoch.AddDate(0, 0, -1) }
	future := func(c *x509.Certificate) { c.NotBefore = epoch.AddDate(0, 0, 1) }
	cases := map[string]struct {
		forge forge
		code  attest.Code
	}{
		// The encoding.
		"no magic":      {rawHook(func(b []byte) []byte { b[0] = 'X'; return b }), attest.CodeMalformed},
		"version 2":     {rawHook(func(b []byte) []byte { b[4] = 2; return b }), attest.CodeUnknownVersion},
		"trailing byte": {rawHook(func(b []byte) []byte { return append(b, 0) }), attest.CodeMalformed},
		"empty part":    {rawHook(func(b []byte) []byte { return append(b, 5, 0, 0, 0, 0) }), attest.CodeMalformed},
		"part of 4 GiB": {rawHook(func(b []byte) []byte { return append(b, 5, 0xff, 0xff, 0xff, 0xff, 1) }), attest.CodeMalformed},
		"unknown part":  {partsHook(func(p map[tpm.Part][]byte) { p[5] = []byte{1} }), attest.CodeUnknownField},
		"part of Azure": {partsHook(func(p map[tpm.Part][]byte) { p[tpm.PartHCL] = []byte{1} }), attest.CodeUnknownField},
		"part twice":    {rawHook(func(b []byte) []byte { return append(b, 4, 0, 0, 0, 1, 1) }), attest.CodeDuplicateField},
		"good parts out of order": {rawHook(func(b []byte) []byte {
			out := []byte("JTPM\x01")
			for _, p := range []tpm.Part{2, 1, 3, 4} {
				parts, err := tpm.DecodeParts(b, 1, 2, 3, 4)
				if err != nil {
					t.Error(err)
				}
				out = append(out, tpm.EncodeParts(map[tpm.Part][]byte{p: parts[p]})[5:]...)
			}
			return out
		}), attest.CodeMalformed},
		"parts out of order":   {rawHook(func([]byte) []byte { return append([]byte("JTPM\x01"), 2, 0, 0, 0, 1, 1, 1, 0, 0, 0, 1, 1) }), attest.CodeMalformed},
		"oversize":             {rawHook(func(b []byte) []byte { return append(b, make([]byte, attest.MaxRaw)...) }), attest.CodeOversized},
		"magic alone":          {rawHook(func(b []byte) []byte { return b[:5] }), attest.CodeMalformed},
		"no quote":             {drop(tpm.PartQuote), attest.CodeMalformed},
		"no signature":         {drop(tpm.PartSignature), attest.CodeMalformed},
		"no PCR values":        {drop(tpm.PartPCRs), attest.CodeSelection},
		"no key":               {drop(tpm.PartPublic), attest.CodeMalformed},
		"signature of another": {forge{signer: k.other}, attest.CodeSignature},
		// The quote.
		"not made by a TPM":       {messageHook(func(m *message) { m.magic = 0xff544348 }), attest.CodeMalformed},
		"no quote but a creation": {messageHook(func(m *message) { m.kind = 0x801a }), attest.CodeMalformed},
		"name of 67 bytes":        {messageHook(func(m *message) { m.signer = make([]byte, 67) }), attest.CodeMalformed},
		"data of 67 bytes":        {messageHook(func(m *message) { m.extra = make([]byte, 67) }), attest.CodeMalformed},
		"safe is 2":               {messageHook(func(m *message) { m.safe = 2 }), attest.CodeMalformed},
		"digest of 67 bytes":      {messageHook(func(m *message) { m.digest = make([]byte, 67) }), attest.CodeMalformed},
		"something behind":        {messageHook(func(m *message) { m.tail = []byte{0} }), attest.CodeMalformed},
		"quote of 1 KiB":          {messageHook(func(m *message) { m.tail = make([]byte, 1024) }), attest.CodeOversized},
		"no bank":                 {messageHook(func(m *message) { m.banks = nil }), attest.CodeSelection},
		"two banks":               {messageHook(func(m *message) { m.banks = append(m.banks, m.banks[0]) }), attest.CodeSelection},
		"2^32-1 banks":            {forge{encoded: func(b []byte) { copy(b[133:], []byte{255, 255, 255, 255}) }}, attest.CodeSelection},
		"SHA-1 bank":              {messageHook(func(m *message) { m.banks[0].hash = 4 }), attest.CodeUnknownAlgorithm},
		"SHA-512 bank":            {messageHook(func(m *message) { m.banks[0].hash = 0x0d }), attest.CodeUnknownAlgorithm},
		"selection of 2 bytes":    {messageHook(func(m *message) { m.banks[0].selected = []byte{0xff, 0xff} }), attest.CodeSelection},
		"selection of 4 bytes":    {messageHook(func(m *message) { m.banks[0].selected = []byte{0xff, 0xff, 0xff, 0} }), attest.CodeSelection},
		"quote over no PCR":       {messageHook(func(m *message) { m.banks[0].selected = make([]byte, 3) }), attest.CodeSelection},
		"quote over one PCR, values of all": {
			forge{message: func(m *message) { m.banks[0].selected = []byte{1, 0, 0} }, parts: func(p map[tpm.Part][]byte) { p[tpm.PartPCRs] = values(32, []byte{0xff, 0xff, 0xff}) }}, attest.CodeSelection,
		},
		"a value too few":        {partsHook(func(p map[tpm.Part][]byte) { p[tpm.PartPCRs] = p[tpm.PartPCRs][32:] }), attest.CodeSelection},
		"values of another bank": {partsHook(func(p map[tpm.Part][]byte) { p[tpm.PartPCRs] = values(48, []byte{0xff, 0xff, 0xff}) }), attest.CodeSelection},
		"first PCR changed":      {flip(tpm.PartPCRs, 0), attest.CodeSignature},
		"last PCR changed":       {flip(tpm.PartPCRs, -1), attest.CodeSignature},
		"two PCRs swapped": {partsHook(func(p map[tpm.Part][]byte) {
			v := p[tpm.PartPCRs]
			p[tpm.PartPCRs] = slices.Concat(v[32:64], v[:32], v[64:])
		}), attest.CodeSignature},
		"digest of other PCRs, signed": {messageHook(func(m *message) { m.digest = digestOf(0x0b, nil) }), attest.CodeSignature},
		"digest with the bank's hash": {
			forge{key: k.p384, hash: 0x0c, message: func(m *message) { m.digest = digestOf(0x0b, values(32, []byte{0xff, 0xff, 0xff})) }}, attest.CodeSignature,
		},
		// The signature.
		"signature changed":         {flip(tpm.PartSignature, -1), attest.CodeSignature},
		"RSA signature changed":     {forge{key: k.rsa, sig: func(b []byte) []byte { b[9] ^= 1; return b }}, attest.CodeSignature},
		"PSS signature changed":     {forge{key: k.rsa, scheme: 0x16, sig: func(b []byte) []byte { b[9] ^= 1; return b }}, attest.CodeSignature},
		"signature cut off":         {forge{sig: func(b []byte) []byte { return b[:len(b)-1] }}, attest.CodeMalformed},
		"signature with more":       {forge{sig: func(b []byte) []byte { return append(b, 0) }}, attest.CodeMalformed},
		"signature of 3 bytes":      {forge{sig: func(b []byte) []byte { return b[:3] }}, attest.CodeUnknownAlgorithm},
		"signature with SHA-1":      {forge{sig: func(b []byte) []byte { b[3] = 4; return b }}, attest.CodeUnknownAlgorithm},
		"signature with SHA-512":    {forge{sig: func(b []byte) []byte { b[3] = 0x0d; return b }}, attest.CodeUnknownAlgorithm},
		"HMAC":                      {forge{sig: func(b []byte) []byte { b[1] = 5; return b }}, attest.CodeUnknownAlgorithm},
		"ECDAA":                     {forge{sig: func(b []byte) []byte { b[1] = 0x1a; return b }}, attest.CodeUnknownAlgorithm},
		"r of 67 bytes":             {forge{sig: func(b []byte) []byte { return slices.Concat(b[:4], []byte{0, 67}, make([]byte, 67), []byte{0, 1, 1}) }}, attest.CodeMalformed},
		"PKCS1 by a key for PSS":    {forge{key: k.rsa, public: func(p *public) { p.scheme = 0x16 }}, attest.CodeSignerMismatch},
		"SHA-256 by one of SHA-384": {publicHook(func(p *public) { p.hash = 0x0c }), attest.CodeSignerMismatch},
		// The key.
		"key cut off":               {partsHook(func(p map[tpm.Part][]byte) { b := p[tpm.PartPublic]; p[tpm.PartPublic] = b[:len(b)-1] }), attest.CodeMalformed},
		"something behind the key":  {publicHook(func(p *public) { p.tail = []byte{0} }), attest.CodeMalformed},
		"unrestricted key":          {publicHook(func(p *public) { p.attributes &^= 1 << 16 }), attest.CodeSignerMismatch},
		"key that does not sign":    {publicHook(func(p *public) { p.attributes &^= 1 << 18 }), attest.CodeSignerMismatch},
		"key that decrypts":         {publicHook(func(p *public) { p.attributes |= 1 << 17 }), attest.CodeSignerMismatch},
		"key that can be moved":     {publicHook(func(p *public) { p.attributes &^= 1 << 1 }), attest.CodeSignerMismatch},
		"key with another parent":   {publicHook(func(p *public) { p.attributes &^= 1 << 4 }), attest.CodeSignerMismatch},
		"key made elsewhere":        {publicHook(func(p *public) { p.attributes &^= 1 << 5 }), attest.CodeSignerMismatch},
		"policy of 67 bytes":        {publicHook(func(p *public) { p.policy = make([]byte, 67) }), attest.CodeMalformed},
		"name in SHA-1":             {publicHook(func(p *public) { p.nameAlg = 4 }), attest.CodeUnknownAlgorithm},
		"key for SHA-1":             {publicHook(func(p *public) { p.hash = 4 }), attest.CodeUnknownAlgorithm},
		"symmetric algorithm":       {publicHook(func(p *public) { p.symmetric = 6 }), attest.CodeSignerMismatch},
		"no scheme":                 {publicHook(func(p *public) { p.scheme = 0x10 }), attest.CodeSignerMismatch},
		"key of another type":       {publicHook(func(p *public) { p.kind = 8 }), attest.CodeUnknownAlgorithm},
		"P-521":                     {forge{key: k.p521}, attest.CodeUnknownAlgorithm},
		"key derivation":            {publicHook(func(p *public) { p.kdf = 0x20 }), attest.CodeUnknownAlgorithm},
		"point off the curve":       {publicHook(func(p *public) { p.x = bytes.Repeat([]byte{1}, 32) }), attest.CodeMalformed},
		"x of 66 bytes":             {publicHook(func(p *public) { p.x = make([]byte, 66) }), attest.CodeMalformed},
		"y of 66 bytes":             {publicHook(func(p *public) { p.y = make([]byte, 66) }), attest.CodeMalformed},
		"point of 33 bytes":         {publicHook(func(p *public) { p.x = append([]byte{0}, p.x...) }), attest.CodeMalformed},
		"RSA with 1024 bits":        {forge{key: k.short}, attest.CodeUnknownAlgorithm},
		"RSA with fewer bits":       {forge{key: k.rsa, public: func(p *public) { p.bits = 3072 }}, attest.CodeUnknownAlgorithm},
		"RSA with exponent 3":       {forge{key: k.rsa, public: func(p *public) { p.exponent = 3 }}, attest.CodeUnknownAlgorithm},
		"RSA cut off":               {forge{key: k.rsa, parts: func(p map[tpm.Part][]byte) { p[tpm.PartPublic] = p[tpm.PartPublic][:18] }}, attest.CodeUnknownAlgorithm},
		"scheme cut off":            {partsHook(func(p map[tpm.Part][]byte) { p[tpm.PartPublic] = p[tpm.PartPublic][:12] }), attest.CodeSignerMismatch},
		"hash cut off":              {partsHook(func(p map[tpm.Part][]byte) { p[tpm.PartPublic] = p[tpm.PartPublic][:15] }), attest.CodeUnknownAlgorithm},
		"signed by ECC, key is RSA": {forge{key: k.rsa, signer: k.ak, scheme: 0x14}, attest.CodeMalformed},
		// The chain.
		"root expired":              {withCert("root", expired), attest.CodeChainExpired},
		"intermediate expired":      {withCert("sub", expired), attest.CodeChainExpired},
		"path too long":             {withCert("root", func(c *x509.Certificate) { c.MaxPathLenZero = true }), attest.CodeChain},
		"leaf expired":              {withCert("leaf", expired), attest.CodeChainExpired},
		"leaf not yet valid":        {withCert("leaf", future), attest.CodeChainExpired},
		"critical in intermediate":  {withCert("sub", critical), attest.CodeCriticalExtension},
		"critical in leaf":          {withCert("leaf", critical), attest.CodeCriticalExtension},
		"intermediate no authority": {withCert("sub", func(c *x509.Certificate) { c.IsCA, c.SubjectKeyId = false, []byte{1} }), attest.CodeUntrustedRoot},
		"leaf is an authority":      {withCert("leaf", func(c *x509.Certificate) { c.IsCA, c.KeyUsage = true, c.KeyUsage|x509.KeyUsageCertSign }), attest.CodeSignerMismatch},
		"leaf for encryption":       {withCert("leaf", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }), attest.CodeSignerMismatch},
		"leaf of a web server": {
			withCert("leaf", func(c *x509.Certificate) {
				c.UnknownExtKeyUsage, c.ExtKeyUsage = nil, []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			}), attest.CodeSignerMismatch,
		},
		"leaf without a purpose": {withCert("leaf", func(c *x509.Certificate) { c.UnknownExtKeyUsage = nil }), attest.CodeSignerMismatch},
		"leaf for an EK":         {withCert("leaf", func(c *x509.Certificate) { c.UnknownExtKeyUsage = []asn1.ObjectIdentifier{{2, 23, 133, 8, 1}} }), attest.CodeSignerMismatch},
		"leaf signed by another": {func() (f forge) { f.certKey.leaf = k.other; return f }(), attest.CodeUntrustedRoot},
		"sub signed by another":  {func() (f forge) { f.certKey.sub = k.other; return f }(), attest.CodeUntrustedRoot},
		"leaf of another key":    {forge{leafKey: &k.other.PublicKey}, attest.CodeLink},
		"no leaf":                {stapleHook(func(e []attest.Endorsement) []attest.Endorsement { return e[1:] }), attest.CodeLink},
		"no intermediate":        {stapleHook(func(e []attest.Endorsement) []attest.Endorsement { return e[:1] }), attest.CodeUntrustedRoot},
		"junk certificate": {stapleHook(func(e []attest.Endorsement) []attest.Endorsement {
			return append(e, attest.Endorsement{Kind: attest.KindCertificate, Raw: []byte{1}})
		}), attest.CodeMalformedEndorsement},
		"junk list": {stapleHook(func(e []attest.Endorsement) []attest.Endorsement {
			return append(e, attest.Endorsement{Kind: attest.KindCRL, Raw: []byte{1}})
		}), attest.CodeMalformedEndorsement},
		"byte after a list": {stapleHook(func(e []attest.Endorsement) []attest.Endorsement { e[2].Raw = append(e[2].Raw, 0); return e }), attest.CodeMalformedEndorsement},
		"stapled key": {stapleHook(func(e []attest.Endorsement) []attest.Endorsement {
			return append(e, attest.Endorsement{Kind: attest.KindPublicKey, Raw: must(x509.MarshalPKIXPublicKey(&k.ak.PublicKey))})
		}), attest.CodeMalformedEndorsement},
		"certificate that takes seconds to verify by": {stapleHook(func(e []attest.Endorsement) []attest.Endorsement {
			huge := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), 8192, 1), E: 65537}
			authority := &x509.Certificate{SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "TPM intermediate"}, IsCA: true, BasicConstraintsValid: true}
			return append(e, attest.Endorsement{Kind: attest.KindCertificate, Raw: must(x509.CreateCertificate(rand.Reader, authority, authority, huge, k.other))})
		}), attest.CodeUnknownAlgorithm},
		"17 endorsements": {stapleHook(func(e []attest.Endorsement) []attest.Endorsement { return append(e, make([]attest.Endorsement, 13)...) }), attest.CodeOversized},
		// Revocation.
		"leaf revoked":                {withList("sub", revoke(3)), attest.CodeRevoked},
		"intermediate revoked":        {withList("root", revoke(2)), attest.CodeRevoked},
		"revoked in an old list":      {withList("sub", func(l *x509.RevocationList) { revoke(3)(l); l.NextUpdate = epoch.AddDate(0, 0, -1) }), attest.CodeRevoked},
		"list signed by another":      {forge{crlKey: k.other}, attest.CodeChain},
		"critical extension of list":  {withList("sub", func(l *x509.RevocationList) { l.ExtraExtensions = append(l.ExtraExtensions, unknown) }), attest.CodeMalformedEndorsement},
		"critical extension of entry": {withList("sub", revoke(9, unknown)), attest.CodeMalformedEndorsement},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims, err := c.forge.make(t).verify(t, nil)
			if err := wants(err, c.code); err != nil || claims != nil {
				t.Error(err)
			}
		})
	}
	if len(cases) < 70 {
		t.Errorf("%d cases", len(cases))
	}
}

// TestSignedByteCounts flips one bit of every byte of the message.
func TestSignedByteCounts(t *testing.T) {
	t.Parallel()
	good := forge{}.make(t)
	at := bytes.Index(good.evidence.Raw, good.message)
	for i := range good.message {
		flipped := good
		flipped.evidence = &attest.Evidence{Format: tpm.Format, Raw: bytes.Clone(good.evidence.Raw), Endorsements: good.evidence.Endorsements}
		flipped.evidence.Raw[at+i] ^= 1 << (i % 8)
		if c, err := flipped.verify(t, nil); err == nil || c != nil || attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	good := forge{}.make(t)
	whole := good.evidence.Raw
	for n := range whole {
		good.evidence.Raw = whole[:n]
		want := attest.CodeMalformed
		if n == 0 {
			want = attest.CodeNoEvidence
		}
		_, err := good.verify(t, nil)
		if got := attest.CodeOf(err); got != want && got != attest.CodeSelection {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	none := &message{magic: 0xff544347, kind: 0x8018, banks: []bank{{0x0b, make([]byte, 3)}}}
	if _, err := tpm.ParseQuote(none.encode()); attest.CodeOf(err) != attest.CodeSelection {
		t.Error(err)
	}
	if _, err := tpm.Parse(nil); attest.CodeOf(err) != attest.CodeMalformed {
		t.Error(err)
	}
	// Every length of the message itself.
	for n := range good.message {
		_, err := tpm.ParseQuote(good.message[:n])
		if !slices.Contains([]attest.Code{attest.CodeMalformed, attest.CodeSelection, attest.CodeUnknownAlgorithm}, attest.CodeOf(err)) {
			t.Errorf("message of %d bytes: %v", n, err)
		}
	}
}

// A key is believed where the operator names it, and only that key.
func TestNamedKey(t *testing.T) {
	t.Parallel()
	k := sharedKeys()
	bare := stapleHook(func([]attest.Endorsement) []attest.Endorsement { return nil })
	f := bare.make(t)
	key := attest.Endorsement{Kind: attest.KindPublicKey, Raw: f.spki}
	other := attest.Endorsement{Kind: attest.KindPublicKey, Raw: must(x509.MarshalPKIXPublicKey(&k.other.PublicKey))}
	answers := func(list ...attest.Endorsement) endorser {
		return func(ref attest.Ref) ([]attest.Endorsement, error) {
			if ref != (attest.Ref{Service: "tpm", Path: "/ak?name=" + hex.EncodeToString(f.name), Kind: attest.KindPublicKey}) {
				t.Errorf("%+v", ref)
			}
			return list, nil
		}
	}
	c, err := f.verify(t, answers(other, key))
	if err != nil || c.Root != sum(f.spki) || c.Checks[1].Text != "the operator names the attestation key" {
		t.Fatalf("%v, %v", c, err)
	}
	if p := c.Revocation.Problem; p == nil || p.Code != attest.CodeEndorsementMissing || !strings.Contains(p.Remedy(), "unchecked") || !c.Revocation.Issued.IsZero() {
		t.Errorf("%+v", c.Revocation)
	}
	for name, c := range map[string]struct {
		ask  attest.Endorser
		code attest.Code
	}{
		"nobody":         {nil, attest.CodeEndorsementMissing},
		"no key":         {answers(), attest.CodeUntrustedRoot},
		"another key":    {answers(other), attest.CodeUntrustedRoot},
		"not a key":      {answers(attest.Endorsement{Kind: attest.KindCertificate, Raw: f.spki}), attest.CodeUntrustedRoot},
		"broken service": {endorser(func(attest.Ref) ([]attest.Endorsement, error) { return nil, errors.New("x") }), attest.CodeEndorserUnreachable},
		"service refuses": {endorser(func(attest.Ref) ([]attest.Endorsement, error) {
			return nil, &attest.Error{Code: attest.CodeEndorserRefused, Check: "c"}
		}), attest.CodeEndorserRefused},
	} {
		claims, err := f.verify(t, c.ask)
		if err := wants(err, c.code); err != nil || claims != nil {
			t.Errorf("%s: %v", name, err)
		}
		var e *attest.Error
		if name == "nobody" && (!errors.As(err, &e) || !strings.Contains(e.Want, hex.EncodeToString(f.name)) || !strings.Contains(e.Remedy(), "its public key, with --endorsement")) {
			t.Errorf("%s: %v does not say what is missing", name, err)
		}
	}
	// The signature still has to verify.
	forged := forge{signer: k.other, staple: bare.staple}.make(t)
	if _, err := forged.verify(t, answers(key)); attest.CodeOf(err) != attest.CodeSignature {
		t.Error(err)
	}
	// Certificates count for nothing where no root is trusted.
	withChain := forge{}.make(t)
	if _, err := tpm.NewVerifier(nil).Verify(t.Context(), withChain.evidence, nil, epoch); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Error(err)
	}
	if _, err := tpm.NewVerifier(new(tpm.Roots)).Verify(t.Context(), withChain.evidence, answers(key), epoch); err != nil {
		t.Error(err)
	}
	// Under roots that are trusted, a chain to another is not healed by a key.
	elsewhere := forge{}
	elsewhere.certKey.sub = k.other
	if _, err := elsewhere.make(t).verify(t, answers(key)); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Error(err)
	}
}

func TestRevocationClaim(t *testing.T) {
	t.Parallel()
	noLists := func(e []attest.Endorsement) []attest.Endorsement { return e[:2] }
	full := forge{}.make(t)
	lists := full.evidence.Endorsements[2:]
	answer := func(ref attest.Ref) ([]attest.Endorsement, error) {
		if ref.Service != "tpm" || ref.Kind != attest.KindCRL || !strings.HasPrefix(ref.Path, "/crl?issuer=") || len(ref.Path) != 12+64 {
			t.Errorf("%+v", ref)
		}
		return lists, nil
	}
	for name, c := range map[string]struct {
		forge forge
		ask   endorser
		code  attest.Code
	}{
		"fetched":              {stapleHook(noLists), answer, ""},
		"none":                 {stapleHook(noLists), nil, attest.CodeEndorsementMissing},
		"one missing":          {stapleHook(func(e []attest.Endorsement) []attest.Endorsement { return e[:3] }), nil, attest.CodeEndorsementMissing},
		"other one missing":    {stapleHook(func(e []attest.Endorsement) []attest.Endorsement { return append(e[:2], e[3]) }), nil, attest.CodeEndorsementMissing},
		"expired":              {withList("sub", func(l *x509.RevocationList) { l.NextUpdate = epoch.AddDate(0, 0, -1) }), nil, attest.CodeEndorsementExpired},
		"of tomorrow":          {withList("root", func(l *x509.RevocationList) { l.ThisUpdate = epoch.AddDate(0, 0, 1) }), nil, attest.CodeEndorsementExpired},
		"answer is another":    {stapleHook(noLists), func(attest.Ref) ([]attest.Endorsement, error) { return full.evidence.Endorsements[:2], nil }, attest.CodeEndorsementMissing},
		"answer is junk":       {stapleHook(noLists), func(attest.Ref) ([]attest.Endorsement, error) { return append(lists[:2:2], attest.Endorsement{}), nil }, attest.CodeEndorsementMissing},
		"answer with an error": {stapleHook(noLists), func(attest.Ref) ([]attest.Endorsement, error) { return lists, errors.New("x") }, attest.CodeEndorsementMissing},
	} {
		var ask attest.Endorser
		if c.ask != nil {
			ask = c.ask
		}
		claims, err := c.forge.make(t).verify(t, ask)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		r := claims.Revocation
		if c.code == "" && (r.Problem != nil || r.Issued.IsZero()) || c.code != "" && (r.Problem == nil || r.Problem.Code != c.code || !r.Issued.IsZero() || !r.Expires.IsZero()) {
			t.Errorf("%s: %+v", name, r)
		}
		passed := slices.ContainsFunc(claims.Checks, func(c attest.Check) bool { return c.ID == "authenticity.revocation" })
		said := slices.ContainsFunc(claims.NotChecked, func(s string) bool { return strings.HasPrefix(s, "revocation: ") })
		if passed != (c.code == "") || said == passed {
			t.Errorf("%s: checks %+v, not checked %q", name, claims.Checks, claims.NotChecked)
		}
	}
	// A stapled list that is no longer current does not keep the operator's from being asked for.
	stale := withList("sub", func(l *x509.RevocationList) { l.NextUpdate = epoch.AddDate(0, 0, -1) })
	claims, err := stale.make(t).verify(t, endorser(answer))
	if err != nil || claims.Revocation.Problem != nil {
		t.Errorf("%+v, %v", claims, err)
	}
	revoked := withList("sub", func(l *x509.RevocationList) {
		l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(3), RevocationTime: epoch}}
	}).make(t).evidence.Endorsements[2:]
	if _, err := stale.make(t).verify(t, endorser(func(attest.Ref) ([]attest.Endorsement, error) { return revoked, nil })); attest.CodeOf(err) != attest.CodeRevoked {
		t.Errorf("revoked by the operator's list: %v", err)
	}
	// What a list says beside that a key is revoked does not matter, but where it changes what the list means.
	for name, x := range map[string]pkix.Extension{
		"unknown":         {Id: asn1.ObjectIdentifier{1, 2, 3}, Value: []byte{5, 0}},
		"invalidity date": {Id: asn1.ObjectIdentifier{2, 5, 29, 24}, Value: must(asn1.MarshalWithParams(epoch, "generalized"))},
	} {
		claims, err := withList("sub", func(l *x509.RevocationList) {
			l.RevokedCertificateEntries = []x509.RevocationListEntry{{SerialNumber: big.NewInt(9), RevocationTime: epoch, ExtraExtensions: []pkix.Extension{x}}}
			l.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 2, 4}, Value: []byte{5, 0}}}
		}).make(t).verify(t, nil)
		if err != nil || claims.Revocation.Problem != nil {
			t.Errorf("%s: %v, %v", name, claims, err)
		}
	}
	// Of several lists the latest counts, of several issuers the oldest list.
	older := withList("sub", func(l *x509.RevocationList) {
		l.ThisUpdate, l.NextUpdate = epoch.AddDate(0, 0, -9), epoch.AddDate(0, 0, -8)
	}).make(t).evidence.Endorsements[3]
	for _, staple := range []func([]attest.Endorsement) []attest.Endorsement{
		func(e []attest.Endorsement) []attest.Endorsement { return append(e, older) },
		func(e []attest.Endorsement) []attest.Endorsement { return append([]attest.Endorsement{older}, e...) },
	} {
		claims, err := stapleHook(staple).make(t).verify(t, nil)
		if err != nil || claims.Revocation.Problem != nil {
			t.Errorf("%v, %v", claims, err)
		}
	}
	for _, which := range []string{"root", "sub"} {
		claims, err := withList(which, func(l *x509.RevocationList) {
			l.ThisUpdate, l.NextUpdate = epoch.AddDate(0, 0, -8), epoch.AddDate(0, 0, 1)
		}).make(t).verify(t, nil)
		if err != nil || !claims.Revocation.Issued.Equal(epoch.AddDate(0, 0, -8)) || !claims.Revocation.Expires.Equal(epoch.AddDate(0, 0, 1)) {
			t.Errorf("%v, %v", claims, err)
		}
	}
}

func TestGoogle(t *testing.T) {
	t.Parallel()
	with := func(h func(*gce)) forge {
		return withCert("leaf", func(c *x509.Certificate) {
			g := gce{"us-central1-a", 1234, "core", 6524697943022743941, "instance-1", true, nil, false}
			if h != nil {
				h(&g)
			}
			c.UnknownExtKeyUsage = nil // as Google's have none
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 21}, Value: append(g.encode(), g.tail...)}}
		})
	}
	c, err := with(nil).make(t).verify(t, nil)
	if err != nil {
		t.Fatal(err)
	}
	if c.Module != "projects/core/zones/us-central1-a/instances/6524697943022743941" || c.Product != "Google Compute Engine vTPM" || c.Numbers["security_version"] != 3 {
		t.Errorf("%+v", c)
	}
	for name, f := range map[string]struct {
		forge forge
		code  attest.Code
	}{
		"no security":       {with(func(g *gce) { g.plain = true }), attest.CodeMalformedEndorsement},
		"not in production": {with(func(g *gce) { g.production = false }), attest.CodeChain},
		"no zone":           {with(func(g *gce) { g.zone = "" }), attest.CodeMalformedEndorsement},
		"no project":        {with(func(g *gce) { g.project = "" }), attest.CodeMalformedEndorsement},
		"no instance":       {with(func(g *gce) { g.instance = 0 }), attest.CodeMalformedEndorsement},
		"trailing byte":     {with(func(g *gce) { g.tail = []byte{0} }), attest.CodeMalformedEndorsement},
		"junk": {withCert("leaf", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 11129, 2, 1, 21}, Value: []byte{1}}}
		}), attest.CodeMalformedEndorsement},
	} {
		if err := wants(second(f.forge.make(t).verify(t, nil)), f.code); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// gce is the value of Google's extension, with the fields that Google does not publish.
type gce struct {
	zone          string
	projectNumber int64
	project       string
	instance      int64
	name          string
	production    bool
	tail          []byte
	plain         bool // as Google wrote it before it spoke of security
}

func (g *gce) encode() []byte {
	utf8 := func(s string) asn1.RawValue { return asn1.RawValue{Tag: asn1.TagUTF8String, Bytes: []byte(s)} }
	if g.plain {
		return must(asn1.Marshal(struct {
			Zone     asn1.RawValue
			Number   int64
			Project  asn1.RawValue
			Instance int64
			Name     asn1.RawValue
		}{utf8(g.zone), g.projectNumber, utf8(g.project), g.instance, utf8(g.name)}))
	}
	return must(asn1.Marshal(struct {
		Zone     asn1.RawValue
		Number   int64
		Project  asn1.RawValue
		Instance int64
		Name     asn1.RawValue
		Security struct {
			Version    int  `asn1:"explicit,tag:0"`
			Production bool `asn1:"explicit,tag:1"`
			Other      bool `asn1:"explicit,tag:2"`
		} `asn1:"explicit,tag:0"`
	}{utf8(g.zone), g.projectNumber, utf8(g.project), g.instance, utf8(g.name), struct {
		Version    int  `asn1:"explicit,tag:0"`
		Production bool `asn1:"explicit,tag:1"`
		Other      bool `asn1:"explicit,tag:2"`
	}{3, g.production, true}}))
}

// asJSON turns evidence into the other form.
func asJSON(t testing.TB, f forged, hook func(doc, quote map[string]any)) []byte {
	t.Helper()
	d, err := tpm.Parse(f.evidence.Raw)
	if err != nil {
		t.Fatal(err)
	}
	var pcrs []any
	for _, n := range d.Quote.PCRs {
		pcrs = append(pcrs, d.Values[n].String())
	}
	parts := f.parts(t)
	quote := map[string]any{
		"message": base64.StdEncoding.EncodeToString(f.message), "signature": base64.StdEncoding.EncodeToString(parts[tpm.PartSignature]), "pcrs": pcrs,
	}
	doc := map[string]any{"ak_public": base64.StdEncoding.EncodeToString(f.spki), "tpm_quote": quote}
	if hook != nil {
		hook(doc, quote)
	}
	return must(json.Marshal(doc))
}

func (f forged) parts(t testing.TB) map[tpm.Part][]byte {
	t.Helper()
	parts, err := tpm.DecodeParts(f.evidence.Raw, tpm.PartQuote, tpm.PartSignature, tpm.PartPCRs, tpm.PartPublic)
	if err != nil {
		t.Fatal(err)
	}
	return parts
}

func TestJSON(t *testing.T) {
	t.Parallel()
	k := sharedKeys()
	for name, key := range map[string]forge{"ECC": {}, "RSA": {key: k.rsa}} {
		f := key.make(t)
		f.evidence.Raw = asJSON(t, f, nil)
		c, err := f.verify(t, nil)
		if err != nil || len(c.Measured) != 24 || c.ReportData != reportData {
			t.Fatalf("%s: %v, %v", name, c, err)
		}
		if !strings.Contains(strings.Join(c.NotChecked, "\n"), "attributes of the attestation key") {
			t.Errorf("%s: %q", name, c.NotChecked)
		}
		f.evidence.Endorsements = nil
		want := attest.Ref{Service: "tpm", Path: "/ak?key=" + hex.EncodeToString(digestOf(0x0b, f.spki)), Kind: attest.KindPublicKey}
		if _, err = f.verify(t, endorser(func(ref attest.Ref) ([]attest.Endorsement, error) {
			if ref != want {
				t.Errorf("%+v", ref)
			}
			return []attest.Endorsement{{Kind: attest.KindPublicKey, Raw: f.spki}}, nil
		})); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	type object = map[string]any
	good := forge{}.make(t)
	for name, c := range map[string]struct {
		hook func(doc, quote object)
		code attest.Code
	}{
		"unknown field":          {func(d, _ object) { d["x"] = 1 }, attest.CodeUnknownField},
		"unknown field of quote": {func(_, q object) { q["x"] = 1 }, attest.CodeUnknownField},
		"no key":                 {func(d, _ object) { delete(d, "ak_public") }, attest.CodeMalformed},
		"key in another case":    {func(d, _ object) { d["AK_public"] = d["ak_public"]; delete(d, "ak_public") }, attest.CodeUnknownField},
		"no quote":               {func(d, _ object) { delete(d, "tpm_quote") }, attest.CodeMalformed},
		"quote is text":          {func(d, _ object) { d["tpm_quote"] = "x" }, attest.CodeMalformed},
		"no message":             {func(_, q object) { delete(q, "message") }, attest.CodeMalformed},
		"no signature":           {func(_, q object) { delete(q, "signature") }, attest.CodeMalformed},
		"signature a number":     {func(_, q object) { q["signature"] = 7 }, attest.CodeMalformed},
		"no PCRs":                {func(_, q object) { delete(q, "pcrs") }, attest.CodeSelection},
		"empty PCRs":             {func(_, q object) { q["pcrs"] = []any{} }, attest.CodeSelection},
		"PCR a number":           {func(_, q object) { q["pcrs"].([]any)[0] = 7 }, attest.CodeMalformed},
		"PCR in no hex":          {func(_, q object) { q["pcrs"].([]any)[0] = "zz" }, attest.CodeMalformed},
		"empty PCR":              {func(_, q object) { q["pcrs"] = append(q["pcrs"].([]any), "") }, attest.CodeSelection},
		"a PCR too few":          {func(_, q object) { q["pcrs"] = q["pcrs"].([]any)[1:] }, attest.CodeSelection},
		"a PCR too many":         {func(_, q object) { q["pcrs"] = append(q["pcrs"].([]any), strings.Repeat("00", 32)) }, attest.CodeSelection},
		"two PCRs in one": {func(_, q object) {
			p := q["pcrs"].([]any)
			q["pcrs"] = append([]any{p[0].(string) + p[1].(string)}, p[2:]...)
		}, attest.CodeSelection},
		"field elsewhere":          {func(d, q object) { d["message"] = q["message"] }, attest.CodeMalformed},
		"too deep":                 {func(_, q object) { q["pcrs"] = []any{[]any{"00"}} }, attest.CodeMalformed},
		"oversize":                 {func(d, _ object) { d["ak_public"] = strings.Repeat("A", attest.MaxRaw) }, attest.CodeOversized},
		"PCR changed":              {func(_, q object) { q["pcrs"].([]any)[3] = strings.Repeat("00", 32) }, attest.CodeSignature},
		"junk after the message":   {func(_, q object) { q["message"] = q["message"].(string) + "#" }, attest.CodeMalformed},
		"junk after the signature": {func(_, q object) { q["signature"] = q["signature"].(string) + "#" }, attest.CodeMalformed},
		"junk after the key":       {func(d, _ object) { d["ak_public"] = d["ak_public"].(string) + "#" }, attest.CodeMalformed},
		"junk after a PCR":         {func(_, q object) { q["pcrs"].([]any)[0] = q["pcrs"].([]any)[0].(string) + "zz" }, attest.CodeMalformed},
		"message in no base64":     {func(_, q object) { q["message"] = "###" }, attest.CodeMalformed},
		"message with loose bits":  {func(_, q object) { q["message"] = "AB==" }, attest.CodeMalformed},
		"key in no base64":         {func(d, _ object) { d["ak_public"] = "###" }, attest.CodeMalformed},
		"junk key":                 {func(d, _ object) { d["ak_public"] = "AQ==" }, attest.CodeMalformed},
		"another key": {func(d, _ object) {
			d["ak_public"] = base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(&k.other.PublicKey)))
		}, attest.CodeLink},
		"short RSA key": {func(d, _ object) {
			d["ak_public"] = base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(&k.short.PublicKey)))
		}, attest.CodeUnknownAlgorithm},
		"long RSA key": {func(d, _ object) {
			d["ak_public"] = base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(&rsa.PublicKey{N: new(big.Int).Lsh(big.NewInt(1), 4096), E: 65537})))
		}, attest.CodeUnknownAlgorithm},
		"P-521": {func(d, _ object) {
			d["ak_public"] = base64.StdEncoding.EncodeToString(must(x509.MarshalPKIXPublicKey(&k.p521.PublicKey)))
		}, attest.CodeUnknownAlgorithm},
	} {
		f := good
		f.evidence = &attest.Evidence{Format: tpm.Format, Raw: asJSON(t, good, c.hook), Endorsements: good.evidence.Endorsements}
		if err := wants(second(f.verify(t, nil)), c.code); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		raw  []byte
		code attest.Code
	}{
		"twice":            {append([]byte(`{"ak_public":"",`), asJSON(t, good, nil)[1:]...), attest.CodeDuplicateField},
		"something behind": {append(asJSON(t, good, nil), '1'), attest.CodeMalformed},
		"cut off":          {asJSON(t, good, nil)[:100], attest.CodeMalformed},
	} {
		f := good
		f.evidence = &attest.Evidence{Format: tpm.Format, Raw: c.raw, Endorsements: good.evidence.Endorsements}
		if err := wants(second(f.verify(t, nil)), c.code); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// RSA signed by another RSA key, both in JSON: nothing but the signature tells.
	f := forge{key: k.rsa}.make(t)
	f.evidence.Raw = asJSON(t, f, func(_, q object) {
		q["signature"] = base64.StdEncoding.EncodeToString(good.parts(t)[tpm.PartSignature])
	})
	if err := wants(second(f.verify(t, nil)), attest.CodeSignature); err != nil {
		t.Error(err)
	}
	f = forge{}.make(t)
	f.evidence.Raw = asJSON(t, f, func(_, q object) {
		q["signature"] = base64.StdEncoding.EncodeToString(forge{key: k.rsa}.make(t).parts(t)[tpm.PartSignature])
	})
	if err := wants(second(f.verify(t, nil)), attest.CodeSignature); err != nil {
		t.Error(err)
	}
}

func TestRoots(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	for name, der := range map[string][]byte{"junk": {1}, "empty": nil, "no authority": f.evidence.Endorsements[0].Raw} {
		if _, err := tpm.NewRoots(der); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	// Any authority may be the anchor.
	sub, err := tpm.NewRoots(f.evidence.Endorsements[1].Raw)
	if err != nil {
		t.Fatal(err)
	}
	c, err := tpm.NewVerifier(sub).Verify(t.Context(), f.evidence, nil, epoch)
	if err != nil || c.Root != sum(f.evidence.Endorsements[1].Raw) {
		t.Error(err)
	}
}

func TestForeignFormats(t *testing.T) {
	t.Parallel()
	f := forge{}.make(t)
	f.evidence.Format = "snp"
	if _, err := f.verify(t, nil); !errors.Is(err, attest.ErrNotMine) {
		t.Error(err)
	}
	for _, ev := range []*attest.Evidence{nil, {Format: tpm.Format}} {
		f.evidence = ev
		if _, err := f.verify(t, nil); attest.CodeOf(err) != attest.CodeNoEvidence {
			t.Error(err)
		}
	}
}

// A quote beside other hardware adds to what is known of it.
func TestClaimAdds(t *testing.T) {
	t.Parallel()
	d, err := tpm.Parse(forge{}.make(t).evidence.Raw)
	if err != nil {
		t.Fatal(err)
	}
	c := &attest.Claims{Measured: map[string]attest.HexBytes{"launch": {1}}, Numbers: map[string]uint64{"guest_svn": 3}}
	d.Claim(c)
	if c.Measured["launch"] == nil || c.Measured["pcr0"] == nil || c.Numbers["guest_svn"] != 3 || c.Numbers["tpm_firmware"] == 0 {
		t.Errorf("%+v", c)
	}
}

func TestInspection(t *testing.T) {
	t.Parallel()
	d, err := tpm.Parse(forge{}.make(t).evidence.Raw)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"bank":"sha256"`, `"pcr23":"1818`, `"ak_name":"000b`, `"signature":"ECDSA with SHA-256"`, `"extra_data":"0102`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("%s is not in %s", want, raw)
		}
	}
}

// A bare signature, wrapped, is what the TPM would have answered.
func TestRSASSA(t *testing.T) {
	t.Parallel()
	whole := forge{key: sharedKeys().rsa}.make(t).parts(t)[tpm.PartSignature]
	if got := tpm.RSASSA(whole[6:]); !bytes.Equal(got, whole) {
		t.Errorf("%x, want %x", got, whole)
	}
}

// The attester chooses the certificates. A key that takes seconds to check a signature with is refused before it is.
func TestHugeAuthority(t *testing.T) {
	t.Parallel()
	const bits = 1 << 17
	f := stapleHook(func([]attest.Endorsement) []attest.Endorsement {
		k := sharedKeys()
		template := &x509.Certificate{
			SerialNumber: big.NewInt(7), Subject: pkix.Name{CommonName: "huge"}, NotBefore: epoch, NotAfter: epoch.AddDate(1, 0, 0),
			BasicConstraintsValid: true, IsCA: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{7},
		}
		key := &rsa.PublicKey{N: new(big.Int).SetBit(big.NewInt(1), bits-1, 1), E: 1<<31 - 1}
		authority := must(x509.CreateCertificate(nil, template, template, key, k.rsa))
		leaf := *template
		leaf.IsCA, leaf.KeyUsage, leaf.Subject.CommonName, leaf.SubjectKeyId = false, x509.KeyUsageDigitalSignature, "AK", nil
		var signed struct {
			Content, Algorithm asn1.RawValue
			Signature          asn1.BitString
		}
		must(asn1.Unmarshal(must(x509.CreateCertificate(nil, &leaf, template, k.ak.Public(), k.rsa)), &signed))
		signed.Signature = asn1.BitString{Bytes: append([]byte{1}, make([]byte, bits/8-1)...), BitLength: bits}
		return []attest.Endorsement{{Kind: attest.KindCertificate, Raw: must(asn1.Marshal(signed))}, {Kind: attest.KindCertificate, Raw: authority}}
	}).make(t)
	_, err := f.verify(t, nil)
	if err := wants(err, attest.CodeUnknownAlgorithm); err != nil {
		t.Error(err)
	}
}
