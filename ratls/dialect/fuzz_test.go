package dialect_test

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/test/dialectforge"
)

func places() []asn1.ObjectIdentifier {
	return []asn1.ObjectIdentifier{
		dialectforge.OIDDICE, dialectforge.OIDEndorsements, dialectforge.OIDIntelSGX, dialectforge.OIDGramine, dialectforge.OIDOEReport, dialectforge.OIDOEOldReport,
		dialectforge.OIDOEEvidence, dialectforge.OIDOEOldEvidence, dialectforge.OIDConstellation, dialectforge.OIDContrast, dialectforge.OIDDstackQuote, dialectforge.OIDDstack,
		dialectforge.OIDPrivasysTDX, dialectforge.OIDPrivasysSNP, dialectforge.OIDPrivasysSGX, dialectforge.OIDC8s, dialectforge.OIDEnarxSGX, dialectforge.OIDEnarxSNP,
	}
}

// fakeBench makes things around evidence that only begins as evidence does: readers look no further.
func fakeBench(t testing.TB, tee string) *bench {
	b := newBench(t, tee)
	b.Quote = func(data [64]byte) []byte {
		switch tee {
		case "snp":
			return append(data[:], make([]byte, 0x4a0-64)...)
		case "sgx":
			return append([]byte{3, 0, 2, 0, 0, 0, 0, 0}, make([]byte, 500)...)
		}
		return append([]byte{4, 0, 2, 0, 0x81, 0, 0, 0}, make([]byte, 60)...)
	}
	b.Nitro = func(user, nonce []byte) []byte { return append([]byte{0x84, 0x40}, append(user, nonce...)...) }
	b.Parts = func([]byte) []byte {
		report := []byte{8, 2, 16, 3}
		for number, size := range map[protowire.Number]int{4: 16, 5: 16, 11: 64, 12: 48, 13: 32, 14: 48, 15: 48, 16: 32, 17: 32, 19: 64, 28: 512} {
			report = protowire.AppendBytes(protowire.AppendTag(report, number, protowire.BytesType), make([]byte, size))
		}
		return append(protowire.AppendBytes([]byte{0x0a}, report), 0x12, 3, 0x0a, 1, 'x')
	}
	b.CSR = func([]byte) (cert, crl, tcb []byte) { return []byte{0x30, 0}, []byte{0x30, 0}, []byte("{}") }
	return b
}

// sound checks what holds of whatever is read.
func sound(t *testing.T, s dialect.Shown, c dialect.Context) {
	t.Helper()
	r, err := dialect.NewReader(dialect.Known()...)
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Read(s, c)
	if err != nil {
		if attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
		return
	}
	for _, f := range found {
		if f.Evidence == nil || len(f.Evidence.Raw) == 0 || !f.Level.Valid() || f.Level == attest.LevelNone || f.Level == attest.LevelSession {
			t.Fatalf("%+v", f)
		}
		if len(f.ReportData) == 0 && len(f.Signed) == 0 {
			t.Fatalf("%s expects nothing", f.Dialect)
		}
		for _, d := range f.ReportData {
			if d.IsZero() {
				t.Fatalf("%s expects zeros", f.Dialect)
			}
		}
	}
}

// Nothing in an extension, and no two extensions, make a reader panic or expect nothing.
func FuzzExtension(f *testing.F) {
	for _, s := range shapes() {
		b := fakeBench(f, s.tee)
		shown := s.make(b)
		for _, e := range append(extensionsOf(shown), pkix.Extension{}) {
			for i, id := range places() {
				if id.Equal(e.Id) {
					f.Add(i, e.Value, 0, []byte{})
					f.Add(i, e.Value, (i+1)%len(places()), e.Value)
				}
			}
		}
	}
	key := fakeBench(f, "tdx").Certificate()
	f.Fuzz(func(t *testing.T, first int, value []byte, second int, other []byte) {
		leaf := *key
		leaf.Extensions = nil
		for i, v := range map[int][]byte{first: value, second: other} {
			if i >= 0 && i < len(places()) && len(v) > 0 {
				leaf.Extensions = append(leaf.Extensions, pkix.Extension{Id: places()[i], Value: v})
			}
		}
		sound(t, dialect.Shown{Leaf: &leaf}, dialect.Context{Nonce: nonce})
		sound(t, dialect.Shown{Request: &x509.CertificateRequest{Extensions: leaf.Extensions, RawSubjectPublicKeyInfo: key.RawSubjectPublicKeyInfo}}, dialect.Context{})
	})
}

func extensionsOf(s dialect.Shown) []pkix.Extension {
	switch {
	case s.Request != nil:
		return s.Request.Extensions
	case s.Leaf != nil:
		return s.Leaf.Extensions
	}
	return nil
}

// The same of documents.
func FuzzDocument(f *testing.F) {
	for _, s := range shapes() {
		if s.document {
			f.Add(s.make(fakeBench(f, s.tee)).Document)
		}
	}
	key := fakeBench(f, "tdx").Certificate()
	f.Fuzz(func(t *testing.T, raw []byte) {
		if raw == nil {
			raw = []byte{}
		}
		sound(t, dialect.Shown{Leaf: key, Document: raw}, dialect.Context{HPKE: make([]byte, 32)})
		sound(t, dialect.Shown{Document: raw}, dialect.Context{Nonce: nonce})
	})
}

// The same of names.
func FuzzNames(f *testing.F) {
	for _, tee := range []string{"tdx", "nitro"} {
		b := fakeBench(f, tee)
		if tee == "nitro" {
			b.Evervault()
		} else {
			b.Tinfoil()
		}
		f.Add(b.Names[0], b.Names[len(b.Names)-1])
	}
	b := fakeBench(f, "tdx")
	key := b.Certificate()
	_, doc := b.Tinfoil()
	f.Fuzz(func(t *testing.T, one, two string) {
		leaf := *key
		leaf.DNSNames = []string{one, two}
		sound(t, dialect.Shown{Leaf: &leaf}, dialect.Context{})
		sound(t, dialect.Shown{Leaf: &leaf, Document: doc}, dialect.Context{})
	})
}
