package snp

import (
	"bytes"
	"crypto/x509/pkix"
	"encoding/asn1"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

func FuzzParse(f *testing.F) {
	f.Add(firmware([]byte("seed")))
	for _, version := range []byte{2, 5} {
		r := firmware([]byte("seed"))
		r[0] = version
		f.Add(r)
	}
	for _, key := range []byte{1, 2, 7} { // VLEK, reserved, none
		r := firmware([]byte("seed"))
		r[0x48] = key << 2
		f.Add(r)
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		r, err := Parse(raw)
		if err != nil {
			if attest.CodeOf(err) == attest.CodeInternal {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		if len(raw) != ReportSize || !bytes.Equal(r.signed, raw[:SignedSize]) || r.signer > vlek {
			t.Fatal("accepted what it must not, or changed it")
		}
		if refs, err := leafRefs(r); err == nil {
			for _, ref := range refs {
				if len(ref.Path) > 400 || bytes.ContainsAny([]byte(ref.Path), " #%@\\") {
					t.Fatalf("path %q", ref.Path)
				}
			}
		}
	})
}

func FuzzCertTable(f *testing.F) {
	f.Add(table(guidVCEK, []byte("leaf"), guidASK, []byte("ask")))
	f.Add(make([]byte, certEntrySize))
	f.Fuzz(func(t *testing.T, raw []byte) {
		entries, err := parseCertTable(raw)
		if err != nil && attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
		total := 0
		for _, e := range entries {
			total += len(e)
		}
		if total > len(raw)/certEntrySize*len(raw) {
			t.Fatal("entries larger than the table")
		}
		if r, err := Parse(firmware([]byte("seed"))); err == nil {
			endorsements(r, entries)
		}
	})
}

func FuzzExtensions(f *testing.F) {
	f.Add(byte(1), byte(0), []byte{2, 1, 0}, []byte{2, 1, 1})
	f.Add(byte(2), byte(0), []byte{0x16, 5, 'T', 'u', 'r', 'i', 'n'}, []byte{})
	f.Add(byte(3), byte(9), []byte{2, 1, 0}, []byte{2, 1, 9})
	f.Add(byte(4), byte(0), make([]byte, 64), append([]byte{4, 8}, make([]byte, 8)...))
	f.Add(byte(5), byte(0), []byte{0x16, 1, 'x'}, []byte{})
	f.Fuzz(func(t *testing.T, last, component byte, one, two []byte) {
		id := append(asn1.ObjectIdentifier{}, arc...)
		id = append(id, int(last))
		if component > 0 {
			id = append(id, int(component))
		}
		e, err := parseExtensions([]pkix.Extension{{Id: id, Value: one}, {Id: append(id[:len(id):len(id)], 1), Value: two}})
		if err != nil {
			if attest.CodeOf(err) == attest.CodeInternal {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		if n := len(e.hwid); n != 0 && n != 8 && n != 64 || e.structVersion > 255 || len(e.csp) > 255 || len(e.productName) > 255 {
			t.Fatalf("%+v", e)
		}
	})
}

// FuzzEndorsement feeds arbitrary certificates and lists to what sorts them.
func FuzzEndorsement(f *testing.F) {
	for _, c := range AMDRoots().of(turin).intermediates {
		f.Add(c.Raw, true)
	}
	f.Fuzz(func(t *testing.T, raw []byte, certificate bool) {
		kind := attest.KindCRL
		if certificate {
			kind = attest.KindCertificate
		}
		if _, err := sortEndorsements([]attest.Endorsement{{Kind: kind, Raw: raw}}, nil); err != nil && attest.CodeOf(err) == attest.CodeInternal {
			t.Fatalf("error without a code: %v", err)
		}
	})
}
