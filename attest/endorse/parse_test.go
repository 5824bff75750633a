package endorse_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/test/fakepcs"
	"github.com/jurat-tls/jurat/test/vectors"
)

func block(kind string, der []byte) string {
	return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
}

// spki makes a public key out of a certificate's.
func spki(t testing.TB) []byte {
	t.Helper()
	_, rest, ok := bytes.Cut(pcs(t).Root, []byte{0x30, 0x59, 0x30, 0x13, 0x06, 0x07}) // a SubjectPublicKeyInfo on P-256
	if !ok {
		t.Fatal("no key")
	}
	return append([]byte{0x30, 0x59, 0x30, 0x13, 0x06, 0x07}, rest[:0x5b-6]...)
}

// nineFields is the form in which collateral is exchanged.
func nineFields(t testing.TB) map[string]string {
	p := pcs(t)
	part := func(path, member string) (text, signature string) {
		var body map[string]json.RawMessage
		if err := json.Unmarshal([]byte(p.Body(path)), &body); err != nil {
			t.Fatal(err)
		}
		return string(body[member]), strings.Trim(string(body["signature"]), `"`)
	}
	chain := block("CERTIFICATE", p.Signing) + block("CERTIFICATE", p.Root)
	info, infoSignature := part(tcbRef.Path, "tcbInfo")
	identity, identitySignature := part(identityRef.Path, "enclaveIdentity")
	return map[string]string{
		"tcb_info": info, "tcb_info_signature": infoSignature, "tcb_info_issuer_chain": chain,
		"qe_identity": identity, "qe_identity_signature": identitySignature, "qe_identity_issuer_chain": chain,
		"pck_crl": hex.EncodeToString(p.PlatformCRL), "pck_crl_issuer_chain": block("CERTIFICATE", p.Platform) + block("CERTIFICATE", p.Root),
		"root_ca_crl": hex.EncodeToString(p.RootCRL),
	}
}

func toJSON(t testing.TB, v any) []byte {
	t.Helper()
	raw, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestParse(t *testing.T) {
	t.Parallel()
	p := pcs(t)
	key := attest.Endorsement{Kind: attest.KindPublicKey, Raw: spki(t)}
	info := attest.Endorsement{Kind: attest.KindTCBInfo, Raw: []byte(p.Body(tcbRef.Path))}
	identity := attest.Endorsement{Kind: attest.KindQEIdentity, Raw: []byte(p.Body(identityRef.Path))}
	signing, root, platform := certificate(p.Signing), certificate(p.Root), certificate(p.Platform)
	twin := `{"TCBINFO":{"id":"x"},` + string(info.Raw[1:])
	inPEM := nineFields(t)
	inPEM["pck_crl"] = block("X509 CRL", p.PlatformCRL)
	part, part0 := nineFields(t), nineFields(t)
	delete(part, "tcb_info")
	bundle := &endorse.Bundle{Entries: []endorse.Entry{{Ref: tcbRef, Fetched: now, Endorsements: answers(p)[tcbRef]}, {Ref: identityRef, Fetched: now, Endorsements: answers(p)[identityRef]}}}
	raw, err := bundle.Encode()
	if err != nil {
		t.Fatal(err)
	}
	whole := []attest.Endorsement{info, identity, list(p.RootCRL), list(p.PlatformCRL), signing, root, platform}
	for name, c := range map[string]struct {
		in   string
		want []attest.Endorsement
	}{
		"certificate in DER":     {string(p.Root), []attest.Endorsement{root}},
		"list in DER":            {string(p.RootCRL), []attest.Endorsement{list(p.RootCRL)}},
		"list in hex":            {hex.EncodeToString(p.RootCRL) + "\n", []attest.Endorsement{list(p.RootCRL)}},
		"key in DER":             {string(key.Raw), []attest.Endorsement{key}},
		"key in PEM":             {block("PUBLIC KEY", key.Raw), []attest.Endorsement{key}},
		"PEM with text around":   {"Intel\n" + block("CERTIFICATE", p.Signing) + "and\n" + block("X509 CRL", p.RootCRL) + "end\n", []attest.Endorsement{signing, list(p.RootCRL)}},
		"TCB info":               {string(info.Raw), []attest.Endorsement{info}},
		"behind white space":     {"\n\t " + string(info.Raw), []attest.Endorsement{{Kind: info.Kind, Raw: []byte("\n\t " + string(info.Raw))}}},
		"QE identity":            {string(identity.Raw), []attest.Endorsement{identity}},
		"keys in two cases":      {twin, []attest.Endorsement{{Kind: attest.KindTCBInfo, Raw: []byte(twin)}}}, // the verifier judges
		"nine fields":            {string(toJSON(t, nineFields(t))), whole},
		"nine fields, PEM":       {string(toJSON(t, inPEM)), whole},
		"one of nine, TCB info":  {string(toJSON(t, map[string]string{"tcb_info": part0["tcb_info"], "tcb_info_signature": part0["tcb_info_signature"]})), whole[:1]},
		"one of nine, identity":  {string(toJSON(t, map[string]string{"qe_identity": part0["qe_identity"], "qe_identity_signature": part0["qe_identity_signature"]})), whole[1:2]},
		"one of nine, root list": {string(toJSON(t, map[string]string{"root_ca_crl": part0["root_ca_crl"]})), whole[2:3]},
		"one of nine, PCK list":  {string(toJSON(t, map[string]string{"pck_crl": part0["pck_crl"]})), whole[3:4]},
		"some of nine fields":    {string(toJSON(t, part)), whole[1:]},
		"bundle":                 {string(raw), []attest.Endorsement{info, signing, root, identity}},
	} {
		got, err := endorse.Parse([]byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if name == "bundle" { // in the order of its entries
			got = []attest.Endorsement{got[3], got[1], got[2], got[0]}
		}
		if !same(got, c.want) {
			t.Errorf("%s: %d endorsements", name, len(got))
		}
	}
}

func TestParseRefuses(t *testing.T) {
	t.Parallel()
	p := pcs(t)
	with := func(key, value string) string {
		fields := nineFields(t)
		fields[key] = value
		return string(toJSON(t, fields))
	}
	cert := block("CERTIFICATE", p.Root)
	info := p.Body(tcbRef.Path)
	for name, in := range map[string]string{
		"nothing":                       "",
		"junk":                          "junk",
		"private key":                   block("PRIVATE KEY", []byte("x")),
		"certificate and junk":          cert + block("CERTIFICATE", []byte("x")),
		"PEM cut off":                   cert + cert[:len(cert)-30],
		"PEM cut off before another":    cert[:len(cert)-30] + "\n" + cert,
		"PEM cut off between two":       cert + cert[:len(cert)-30] + "\n" + cert,
		"PEM with a digit that is none": strings.Replace(cert, "MII", "MI$", 1) + cert,
		"too many blocks":               strings.Repeat(cert, 1025),
		"bytes after a certificate":     string(p.Root) + "x",
		"bytes after a list":            string(p.RootCRL) + "x",
		"bytes after a key":             string(spki(t)) + "x",
		"other JSON":                    `{"a":1}`,
		"JSON cut off":                  `{"tcbInfo":`,
		"TCB info, id a number":         `{"tcbInfo":{"id":5,"nextUpdate":"2026-12-01T00:00:00Z"},"signature":"00"}`,
		"null TCB info":                 `{"tcbInfo":null}`,
		"TCB info, then more":           info + "{}",
		"TCB info, no time":             `{"tcbInfo":{"nextUpdate":"soon"},"signature":"00"}`,
		"two values for TCB info":       with("tcb_info", `{"nextUpdate":"2026-12-01T00:00:00Z"},"signature":"00","x":{}`),
		"text for TCB info":             with("tcb_info", `"TDX"`),
		"no signature":                  with("tcb_info_signature", ""),
		"signature with a quote":        with("tcb_info_signature", `00","x":"`),
		"certificate for a list":        with("pck_crl", cert),
		"list for a certificate":        with("tcb_info_issuer_chain", block("X509 CRL", p.RootCRL)),
		"key for a certificate":         with("qe_identity_issuer_chain", block("PUBLIC KEY", spki(t))),
		"junk for a list":               with("root_ca_crl", "junk"),
		"document for a chain":          with("pck_crl_issuer_chain", info),
		"number for TCB info":           `{"tcb_info":1}`,
		"bundle of another version":     `{"jurat_endorsements":2,"entries":[]}`,
		"bundle with an unknown member": `{"jurat_endorsements":1,"entries":[],"trust":"me"}`,
		"bundle, then more":             `{"jurat_endorsements":1,"entries":[]} {}`,
	} {
		if got, err := endorse.Parse([]byte(in)); attest.CodeOf(err) != attest.CodeMalformedEndorsement || got != nil {
			t.Errorf("%s: %d, %v", name, len(got), err)
		}
	}
}

func TestStaticForIntel(t *testing.T) {
	t.Parallel()
	p := pcs(t)
	dir := t.TempDir()
	write := func(name, content string) {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for i, ref := range []attest.Ref{tcbRef, sgxTCBRef, identityRef, sgxQERef} {
		write(fmt.Sprintf("%d.json", i), p.Body(ref.Path))
	}
	write("chain.pem", block("CERTIFICATE", p.Signing)+block("CERTIFICATE", p.Root)+block("CERTIFICATE", p.Platform))
	write("platform.crl", string(p.PlatformCRL))
	write("processor.crl", string(p.ProcessorCRL))
	write("root.crl", hex.EncodeToString(p.RootCRL))
	write("again.crl", string(p.RootCRL))
	write("amd.der", string(platform(t).ARK()))
	s, err := endorse.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	chain := []attest.Endorsement{certificate(p.Signing), certificate(p.Root), certificate(p.Platform)}
	for ref, want := range answers(p) {
		for _, prefix := range []string{"", "sim-"} {
			ref.Service = prefix + "intel-pcs"
			if got, err := s.Endorse(t.Context(), ref); err != nil || !same(got, append(want[:1:1], chain...)) {
				t.Errorf("%s: %d endorsements, %v", ref.Path, len(got), err)
			}
		}
	}
	for _, r := range []attest.Ref{
		intelRef("/tdx/certification/v4/tcb?fmspc=000000000000", attest.KindTCBInfo), intelRef("/tdx/certification/v4/tcb", attest.KindTCBInfo),
		intelRef("/sgx/certification/v4/pckcrl?ca=other&encoding=der", attest.KindCRL), intelRef("x", attest.KindCRL),
		intelRef("/sgx/certification/v4/pckcert", attest.KindCertificate), intelRef(tcbRef.Path, attest.KindPublicKey),
		{Service: "amd-kds", Path: rootRef.Path, Kind: attest.KindCRL},
	} {
		if got, err := s.Endorse(t.Context(), r); attest.CodeOf(err) != attest.CodeEndorsementMissing {
			t.Errorf("%v: %d, %v", r, len(got), err)
		}
	}
	// Only Intel's chains come along.
	if got, err := s.Endorse(t.Context(), attest.Ref{Service: "tpm", Path: "/crl?issuer=00", Kind: attest.KindCRL}); err != nil || len(got) != 3 {
		t.Errorf("%d lists, %v", len(got), err)
	}
}

// Whoever keeps the answers of every day is not given the oldest of them, and not without what signed them.
func TestStaticOfManyDays(t *testing.T) {
	t.Parallel()
	p := pcs(t)
	var all []attest.Endorsement
	document := func(p *fakepcs.PCS) attest.Endorsement {
		return attest.Endorsement{Kind: attest.KindTCBInfo, Raw: []byte(p.Body(tcbRef.Path))}
	}
	for day := range attest.MaxEndorsements + 4 {
		old, err := fakepcs.New(now.AddDate(0, 0, -60-day), 30*24*time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, list(old.RootCRL), document(old))
	}
	s := endorse.NewStatic(append(all, list(p.RootCRL), document(p), certificate(p.Signing), certificate(p.Root))...)
	for ref, latest := range map[attest.Ref]attest.Endorsement{rootRef: list(p.RootCRL), tcbRef: document(p)} {
		got, err := s.Endorse(t.Context(), ref)
		if err != nil || len(got) != attest.MaxEndorsements || !same(got[:1], []attest.Endorsement{latest}) || !same(got[len(got)-2:], []attest.Endorsement{certificate(p.Signing), certificate(p.Root)}) {
			t.Errorf("%s: %d, %v", ref.Path, len(got), err)
		}
	}
}

// What a caller hands over undecoded fits nothing.
func TestStaticOfJunk(t *testing.T) {
	t.Parallel()
	var all []attest.Endorsement
	for _, kind := range []attest.Kind{attest.KindCertificate, attest.KindCRL, attest.KindTCBInfo, attest.KindQEIdentity} {
		all = append(all, attest.Endorsement{Kind: kind, Raw: []byte("junk " + kind)})
	}
	s := endorse.NewStatic(all...)
	for _, ref := range []attest.Ref{tcbRef, identityRef, platformRef, rootRef, chainRef, crlRef} {
		if got, err := s.Endorse(t.Context(), ref); attest.CodeOf(err) != attest.CodeEndorsementMissing {
			t.Errorf("%v: %v, %v", ref, got, err)
		}
	}
	if got, err := endorse.NewStatic(append(all, list(pcs(t).RootCRL))...).Endorse(t.Context(), rootRef); err != nil || len(got) != 1 {
		t.Errorf("%v, %v", got, err)
	}
}

func TestStaticKeys(t *testing.T) {
	t.Parallel()
	key := attest.Endorsement{Kind: attest.KindPublicKey, Raw: spki(t)}
	all := []attest.Endorsement{key, key, certificate(pcs(t).Root)}
	for i := range 2 * attest.MaxEndorsements {
		all = append(all, attest.Endorsement{Kind: attest.KindPublicKey, Raw: fmt.Append(nil, i)})
	}
	last := all[len(all)-1].Raw
	sum := sha256.Sum256(last)
	s := endorse.NewStatic(all...)
	// None of the operator's anchors is left out, however many there are.
	for path, want := range map[string]int{"/platform": 1 + 2*attest.MaxEndorsements, "/ak?name=000b00": 1 + 2*attest.MaxEndorsements, "/ak?key=" + hex.EncodeToString(sum[:]): 1} {
		got, err := s.Endorse(t.Context(), attest.Ref{Service: "tpm", Path: path, Kind: attest.KindPublicKey})
		if err != nil || len(got) != want || got[0].Kind != attest.KindPublicKey {
			t.Errorf("%s: %d keys, %v", path, len(got), err)
		}
		if want == 1 && !bytes.Equal(got[0].Raw, last) {
			t.Errorf("%s: another key", path)
		}
	}
	few := endorse.NewStatic(all[:3]...)
	if got, err := few.Endorse(t.Context(), attest.Ref{Service: "arm-cca", Path: "/platform", Kind: attest.KindPublicKey}); err != nil || !same(got, all[:1]) {
		t.Errorf("%d keys, %v", len(got), err)
	}
}

func FuzzParse(f *testing.F) {
	p, err := fakepcs.New(now, 1)
	if err != nil {
		f.Fatal(err)
	}
	f.Add([]byte(p.Body(tcbRef.Path)))
	f.Add(p.RootCRL)
	f.Add([]byte(block("CERTIFICATE", p.Signing) + block("PUBLIC KEY", spki(f))))
	f.Add(toJSON(f, nineFields(f)))
	b := &endorse.Bundle{Entries: []endorse.Entry{{Ref: tcbRef, Fetched: now, Endorsements: answers(p)[tcbRef]}}}
	raw, err := b.Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	if dir := vectors.Find(); dir != "" {
		f.Add(vectors.Read(f, "tdx/quote-v4.collateral.json"))
		f.Add(vectors.Read(f, "sgx/quote-v3.collateral.json"))
		f.Add(vectors.Read(f, "cca/platform.pub"))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		got, err := endorse.Parse(raw)
		if (err == nil) == (got == nil) && !bytes.Contains(raw, []byte("jurat_endorsements")) {
			t.Fatalf("%d endorsements, %v", len(got), err)
		}
		if bundle, err := endorse.DecodeBundle(raw); err == nil {
			again, err := bundle.Encode()
			if err != nil {
				t.Fatal(err)
			}
			once, err := endorse.DecodeBundle(again)
			if err != nil {
				t.Fatal(err)
			}
			if twice, err := once.Encode(); err != nil || !bytes.Equal(again, twice) {
				t.Fatalf("not the same bytes: %v", err)
			}
		}
		s := endorse.NewStatic(got...)
		for ref := range answers(p) {
			if list, err := s.Endorse(t.Context(), ref); err == nil && (len(list) == 0 || len(list) > attest.MaxEndorsements || list[0].Kind != ref.Kind) {
				t.Fatalf("%d for %v", len(list), ref)
			}
		}
	})
}
