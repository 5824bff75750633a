package cmw

import (
	"bytes"
	"encoding/asn1"
	"encoding/hex"
	"net/netip"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/strictcbor"
)

func evidence() *attest.Evidence {
	return &attest.Evidence{Format: "snp", Raw: []byte("report"), Endorsements: []attest.Endorsement{{Kind: attest.KindCertificate, Raw: []byte("leaf")}}}
}

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		ev := &attest.Evidence{Format: attest.Format(rapid.StringMatching(`[a-z]{1,8}`).Draw(t, "format")), Raw: rapid.SliceOf(rapid.Byte()).Draw(t, "raw")}
		for range rapid.IntRange(0, 5).Draw(t, "n") {
			ev.Endorsements = append(ev.Endorsements, attest.Endorsement{Kind: "certificate", Raw: rapid.SliceOf(rapid.Byte()).Draw(t, "endorsement")})
		}
		config := [32]byte(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "config"))
		der, err := Marshal(ev, config)
		if err != nil {
			t.Fatal(err)
		}
		got, gotConfig, err := Unmarshal(der)
		if err != nil {
			t.Fatal(err)
		}
		if got.Format != ev.Format || !bytes.Equal(got.Raw, ev.Raw) || gotConfig != config || len(got.Endorsements) != len(ev.Endorsements) {
			t.Fatalf("got %v, want %v", got, ev)
		}
		for i, e := range ev.Endorsements {
			if got.Endorsements[i].Kind != e.Kind || !bytes.Equal(got.Endorsements[i].Raw, e.Raw) {
				t.Fatalf("endorsement %d: got %v, want %v", i, got.Endorsements[i], e)
			}
		}
	})
}

func der(t *testing.T, v []byte) []byte {
	t.Helper()
	out, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestUnmarshalRefuses(t *testing.T) {
	good, err := Marshal(evidence(), [32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	wrap := func(typ string, ind uint64, value []byte) []byte {
		rec, err := strictcbor.Marshal(record{Type: typ, Value: value, Ind: ind})
		if err != nil {
			t.Fatal(err)
		}
		return der(t, rec)
	}
	value := func(hexValue string) []byte {
		raw, err := hex.DecodeString(hexValue)
		if err != nil {
			t.Fatal(err)
		}
		return wrap(MediaType, indEvidence, raw)
	}
	config := "045820" + hex.EncodeToString(make([]byte, 32))
	for name, c := range map[string]struct {
		in   []byte
		want attest.Code
	}{
		"empty":                  {nil, attest.CodeMalformed},
		"truncated":              {good[:len(good)-1], attest.CodeMalformed},
		"trailing":               {append(slices.Clip(good), 0), attest.CodeMalformed},
		"not an octet string":    {[]byte{0x0c, 1, 'x'}, attest.CodeMalformed},
		"oversized":              {make([]byte, MaxExtension+1), attest.CodeOversized},
		"other media type":       {wrap("application/eat+cwt", indEvidence, []byte{0xa0}), attest.CodeUnknownFormat},
		"other indicator":        {wrap(MediaType, 8, []byte{0xa0}), attest.CodeUnknownFormat},
		"empty map":              {value("a0"), attest.CodeMalformed},
		"missing config":         {value("a3" + "0163736e70" + "024101" + "0380"), attest.CodeMalformed},
		"short config":           {value("a4" + "0163736e70" + "024101" + "0380" + "044101"), attest.CodeMalformed},
		"unknown key":            {value("a5" + "0163736e70" + "024101" + "0380" + config + "0500"), attest.CodeMalformed},
		"duplicate key":          {value("a5" + "0163736e70" + "0163736e70" + "024101" + "0380" + config), attest.CodeMalformed},
		"unsorted keys":          {value("a4" + "024101" + "0163736e70" + "0380" + config), attest.CodeMalformed},
		"null for an empty list": {value("a4" + "0163736e70" + "024101" + "03f6" + config), attest.CodeMalformed},
		"long form of a length":  {value("a4" + "0163736e70" + "02580101" + "0380" + config), attest.CodeMalformed},
		"indefinite length":      {value("bf" + "0163736e70" + "024101" + "0380" + config + "ff"), attest.CodeMalformed},
		"tag":                    {value("d864a4" + "0163736e70" + "024101" + "0380" + config), attest.CodeMalformed},
		"endless list announced": {value("a4" + "0163736e70" + "024101" + "039affffffff" + config), attest.CodeMalformed},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, err := Unmarshal(c.in)
			if attest.CodeOf(err) != c.want {
				t.Fatalf("got %v, want %s", err, c.want)
			}
		})
	}
	if _, _, err := Unmarshal(value("a4" + "0163736e70" + "024101" + "0380" + config)); err != nil {
		t.Fatalf("the form the cases above vary is refused: %v", err)
	}
}

func TestMarshalKeepsItsBound(t *testing.T) {
	ev := evidence()
	ev.Raw = make([]byte, MaxExtension)
	if _, err := Marshal(ev, [32]byte{}); attest.CodeOf(err) != attest.CodeOversized {
		t.Fatalf("got %v, want %s", err, attest.CodeOversized)
	}
}

// Every field that the hardware is said to sign changes the report data.
func TestReportDataCommits(t *testing.T) {
	base := func() Binding {
		return Binding{
			SPKI: []byte("key"), NotBefore: time.Unix(100, 0), NotAfter: time.Unix(200, 0),
			DNSNames: []string{"a.example"}, IPs: []netip.Addr{netip.MustParseAddr("127.0.0.1")}, Config: [32]byte{1},
		}
	}
	data := func(b Binding) attest.ReportData {
		rd, err := b.ReportData()
		if err != nil {
			t.Fatal(err)
		}
		return rd
	}
	want := data(base())
	for name, change := range map[string]func(*Binding){
		"key":        func(b *Binding) { b.SPKI = []byte("other") },
		"not before": func(b *Binding) { b.NotBefore = time.Unix(101, 0) },
		"not after":  func(b *Binding) { b.NotAfter = time.Unix(201, 0) },
		"name":       func(b *Binding) { b.DNSNames = []string{"b.example"} },
		"more names": func(b *Binding) { b.DNSNames = append(b.DNSNames, "b.example") },
		"no name":    func(b *Binding) { b.DNSNames = nil },
		"address":    func(b *Binding) { b.IPs = nil },
		"a name that looks like an address": func(b *Binding) {
			b.DNSNames, b.IPs = append(b.DNSNames, "127.0.0.1"), nil
		},
		"config": func(b *Binding) { b.Config = [32]byte{2} },
	} {
		b := base()
		change(&b)
		if data(b) == want {
			t.Errorf("%s: the report data did not change", name)
		}
	}
	if [32]byte(want[32:]) != [32]byte{} {
		t.Error("the second half of the report data is not zero")
	}
}

// The claims buffer is a wire format: verifiers elsewhere depend on these bytes.
func TestClaimsGolden(t *testing.T) {
	got, err := Binding{
		SPKI: []byte("key"), NotBefore: time.Unix(1_700_000_000, 0), NotAfter: time.Unix(1_700_003_600, 0),
		DNSNames: []string{"localhost"}, IPs: []netip.Addr{netip.MustParseAddr("::1")},
	}.Claims()
	if err != nil {
		t.Fatal(err)
	}
	const want = "a6" + "656e616d6573" + "82" + "6d646e733a6c6f63616c686f7374" + "6669703a3a3a31" +
		"66636f6e666967" + "5820" + "0000000000000000000000000000000000000000000000000000000000000000" +
		"6770726f66696c65" + "73" + "6a757261742d63657274696669636174652d31" +
		"696e6f742d6166746572" + "1a6553ff10" +
		"6a6e6f742d6265666f7265" + "1a6553f100" +
		"6b7075626b65792d68617368" + "5824" + "8201" + "5820" + "2c70e12b7a0646f92279f427c7b38e7334d8e5389cff167a1dc30e73f826b683"
	if hex.EncodeToString(got) != want {
		t.Fatalf("got  %x\nwant %s", got, want)
	}
}

func FuzzUnmarshal(f *testing.F) {
	good, err := Marshal(evidence(), [32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(good)
	f.Add([]byte{4, 0})
	f.Fuzz(func(t *testing.T, in []byte) {
		ev, config, err := Unmarshal(in)
		if err != nil {
			if code := attest.CodeOf(err); code == attest.CodeInternal {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		again, err := Marshal(ev, config)
		if err != nil || !bytes.Equal(in, again) {
			t.Fatalf("accepted %x, which encodes as %x (%v)", in, again, err)
		}
	})
}
