package dialect_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/test/dialectforge"
)

// What is written is what the specification has, and is read as what it is.
func TestWritten(t *testing.T) {
	value := func(leaf *x509.Certificate, id asn1.ObjectIdentifier) []byte {
		for _, e := range leaf.Extensions {
			if e.Id.Equal(id) {
				return e.Value
			}
		}
		return nil
	}
	for _, c := range []struct {
		name, tee string
		id        asn1.ObjectIdentifier
		made      func(*bench, []byte) []byte // by the specification, of our claims where those count
	}{
		{dialect.DICE, "sgx", dialectforge.OIDDICE, func(b *bench, claims []byte) []byte { return b.TaggedEvidence(60000, claims) }},
		{dialect.DICE, "tdx", dialectforge.OIDDICE, func(b *bench, claims []byte) []byte { return b.TaggedEvidence(60000, claims) }},
		{dialect.DICE, "snp", dialectforge.OIDDICE, func(b *bench, claims []byte) []byte { return b.TaggedEvidence(0x1a7504, claims) }},
		{dialect.EGo, "sgx", dialectforge.OIDOEReport, func(b *bench, _ []byte) []byte { return value(b.EGo(), dialectforge.OIDOEReport) }},
		{dialect.OpenEnclave, "sgx", dialectforge.OIDOEReport, func(b *bench, _ []byte) []byte { return value(b.OpenEnclave(), dialectforge.OIDOEReport) }},
		{dialect.GramineLegacy, "sgx", dialectforge.OIDGramine, func(b *bench, _ []byte) []byte { return value(b.Gramine(), dialectforge.OIDGramine) }},
		{dialect.Dstack, "tdx", dialectforge.OIDDstackQuote, func(b *bench, _ []byte) []byte { return value(b.DstackQuote(), dialectforge.OIDDstackQuote) }},
	} {
		t.Run(c.name+" "+c.tee, func(t *testing.T) {
			w, err := dialect.NewWriters(c.name)
			if err != nil || len(w) != 1 || w[0].Name() != c.name {
				t.Fatal(err)
			}
			b := newBench(t, c.tee)
			binding := cmw.Binding{SPKI: b.SPKI(), NotBefore: b.NotBefore, NotAfter: b.NotAfter}
			claims, err := binding.Claims()
			if err != nil {
				t.Fatal(err)
			}
			data, err := w[0].ReportData(binding)
			if err != nil {
				t.Fatal(err)
			}
			// Signatures are not alike twice: the specification's generator gets the quote that is written.
			ev := &attest.Evidence{Format: attest.Format("sim-" + c.tee), Raw: b.Quote(data)}
			b.Quote = func(wanted [64]byte) []byte {
				if wanted != data {
					t.Errorf("report data %x, want %x", data, wanted)
				}
				return ev.Raw
			}
			list, err := w[0].Extensions(ev, binding)
			if err != nil {
				t.Fatal(err)
			}
			if want := c.made(b, claims); !list[0].Id.Equal(c.id) || !bytes.Equal(list[0].Value, want) {
				t.Errorf("%s\n got  %x\n want %x", list[0].Id, list[0].Value, want)
			}
			if slices.ContainsFunc(list, func(e pkix.Extension) bool { return e.Critical }) {
				t.Error("critical")
			}
			r, _ := b.judge(dialect.Shown{Leaf: b.Certificate(list...)}, dialect.Context{}, c.name)
			if !r.Affirmed() || r.Level() != attest.LevelKey {
				t.Error(r.Level(), r.Err())
			}
			if _, err := w[0].Extensions(&attest.Evidence{Format: "nitro", Raw: ev.Raw}, binding); attest.CodeOf(err) != attest.CodeUnknownFormat {
				t.Error(err)
			}
		})
	}
	for _, names := range [][]string{{"contrast"}, {dialect.EGo, dialect.EGo}, {dialect.EGo, dialect.OpenEnclave}} {
		if _, err := dialect.NewWriters(names...); attest.CodeOf(err) != attest.CodeConfigValue {
			t.Errorf("%q: %v", names, err)
		}
	}
	if w, err := dialect.NewWriters(dialect.DICE, dialect.EGo, dialect.GramineLegacy, dialect.Dstack); err != nil || len(w) != 4 {
		t.Error(err)
	}
}
