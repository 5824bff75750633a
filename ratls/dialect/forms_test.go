package dialect_test

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-sev-guest/abi"
	spb "github.com/google/go-sev-guest/proto/sevsnp"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/ratls/cmw"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/test/dialectforge"
	"github.com/jurat-tls/jurat/test/vectors"
)

// The recorded certificate speaks two dialects, with a quote for each. Both are for its key.
func TestRecorded(t *testing.T) {
	block, _ := pem.Decode(vectors.Read(t, "ratls/gramine-cert.pem"))
	leaf, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	for _, allow := range [][]string{nil, {"gramine"}, {dialect.GramineLegacy}, {dialect.DICE, dialect.GramineLegacy}} {
		r, err := dialect.NewReader(allow...)
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Read(dialect.Shown{Leaf: leaf}, dialect.Context{})
		if err != nil || len(found) != 2 {
			t.Fatalf("%v: %d, %v", allow, len(found), err)
		}
		if want := map[bool]string{true: dialect.GramineLegacy, false: dialect.DICE}[len(allow) == 1 && allow[0] == dialect.GramineLegacy]; found[0].Dialect != want {
			t.Errorf("%v: %s counts, want %s", allow, found[0].Dialect, want)
		}
		for _, f := range found {
			report, err := sgx.Parse(f.Evidence.Raw)
			if err != nil {
				t.Fatal(err)
			}
			if len(f.ReportData) != 1 || !bytes.Equal(report.ReportData, f.ReportData[0][:]) || f.Level != attest.LevelKey || !f.Made.IsZero() {
				t.Errorf("%s: level %s, report data %x, expected %x", f.Dialect, f.Level, report.ReportData, f.ReportData)
			}
		}
		// Intel signed both. What the vendor says about such machines today is not at hand.
		appraiser := attest.NewAppraiser(attest.NoEndorser{}, sgx.NewVerifier(dcap.IntelRoots()))
		res := dialect.Appraise(t.Context(), appraiser, found, anything{new(attest.Situation)}, time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC))
		if !res.Code().Undecidable() {
			t.Errorf("%s: %v", res.Verdict(), res.Err())
		}
	}
	r, err := dialect.NewReader(dialect.EGo, dialect.Contrast)
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Read(dialect.Shown{Leaf: leaf}, dialect.Context{})
	if err != nil {
		t.Fatal(err)
	}
	if res := dialect.Appraise(t.Context(), attest.NewAppraiser(nil), found, nil, now); res.Code() != attest.CodeDialect {
		t.Error(res.Err())
	}
}

// A report that was taken apart is put together as it was, of every generation.
func TestReportsAreWhole(t *testing.T) {
	for _, name := range []string{"snp/milan-v2.report", "snp/milan-v3-vlek.report", "snp/turin-v5.report"} {
		raw := vectors.Read(t, name)
		b := newBench(t, "snp")
		b.Quote = func([64]byte) []byte { return raw }
		r, err := dialect.NewReader(dialect.Contrast)
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Read(dialect.Shown{Leaf: b.Contrast()}, dialect.Context{Nonce: nonce})
		if err != nil {
			t.Fatal(err)
		}
		want := slices.Clone(raw)
		if parsed, err := abi.ReportToProto(raw); err != nil {
			t.Fatal(err)
		} else if again, err := abi.ReportToAbiBytes(parsed); err == nil {
			want = again
		}
		if !bytes.Equal(found[0].Evidence.Raw, want) {
			for i := range want {
				if want[i] != found[0].Evidence.Raw[i] {
					t.Fatalf("%s: byte %#x is %#x, want %#x", name, i, found[0].Evidence.Raw[i], want[i])
				}
			}
		}
	}
}

func TestContrastMessages(t *testing.T) {
	b := newBench(t, "snp")
	parsed, err := abi.ReportToProto(b.Quote([64]byte{1}))
	if err != nil {
		t.Fatal(err)
	}
	message := func(m proto.Message) []byte {
		raw, err := proto.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		return raw
	}
	changed := func(change func(*spb.Report), more ...byte) []byte {
		r := proto.Clone(parsed).(*spb.Report)
		change(r)
		return protowire.AppendBytes([]byte{0x0a}, append(message(r), more...))
	}
	good := message(&spb.Attestation{Report: parsed})
	after := func(more ...byte) []byte { return append(slices.Clone(good), more...) }
	read := func(raw []byte) ([]*dialect.Found, error) {
		r, err := dialect.NewReader(dialect.Contrast)
		if err != nil {
			t.Fatal(err)
		}
		leaf := b.Certificate(pkix.Extension{Id: dialectforge.OIDContrast, Value: raw})
		return r.Read(dialect.Shown{Leaf: leaf}, dialect.Context{Nonce: nonce})
	}
	for want, chain := range map[string]*spb.CertificateChain{
		"":              nil,
		"certificate b": {VlekCert: []byte("b")},
		"certificate a, certificate b, certificate c, certificate d": {VcekCert: []byte("a"), VlekCert: []byte("b"), AskCert: []byte("c"), ArkCert: []byte("d")},
	} {
		found, err := read(message(&spb.Attestation{Report: parsed, CertificateChain: chain}))
		if err != nil {
			t.Fatal(err)
		}
		var kept []string
		for _, e := range found[0].Evidence.Endorsements {
			kept = append(kept, string(e.Kind)+" "+string(e.Raw))
		}
		if got := strings.Join(kept, ", "); got != want {
			t.Errorf("%s, want %s", got, want)
		}
	}
	for name, c := range map[string]struct {
		raw  []byte
		want attest.Code
	}{
		"long field":         {changed(func(r *spb.Report) { r.ReportData = append(r.ReportData, 0) }), attest.CodeMalformed},
		"short field":        {changed(func(r *spb.Report) { r.ReportData = r.ReportData[:63] }), attest.CodeMalformed},
		"large number":       {changed(func(r *spb.Report) { r.CurrentBuild = 256 }), attest.CodeMalformed},
		"number for bytes":   {changed(func(r *spb.Report) { r.ReportData = nil }, 11<<3, 1), attest.CodeMalformed},
		"bytes for a number": {changed(func(r *spb.Report) { r.GuestSvn = 0 }, 2<<3|2, 1, 0), attest.CodeMalformed},
		"no report":          {nil, attest.CodeMalformed},
		"bytes left out":     {changed(func(r *spb.Report) { r.FamilyId = nil }), attest.CodeMalformed},
		"number left out":    {changed(func(r *spb.Report) { r.GuestSvn = 0 }), ""},
		"report elsewhere":   {slices.Concat([]byte{0x8a, 0x80, 0x20}, good[1:]), attest.CodeMalformed},
		"report twice":       {after(good...), attest.CodeDuplicateField},
		"field twice":        {changed(func(*spb.Report) {}, 8, 2), attest.CodeDuplicateField},
		"group":              {after(0x12, 1, 0x0b), attest.CodeMalformed},
		"endless tag":        {after(bytes.Repeat([]byte{0xff}, 11)...), attest.CodeMalformed},
		"endless number":     {after(append([]byte{3 << 3}, bytes.Repeat([]byte{0xff}, 11)...)...), attest.CodeMalformed},
		"endless length":     {after(append([]byte{0x12}, bytes.Repeat([]byte{0xff}, 11)...)...), attest.CodeMalformed},
		"truncated tag":      {after(0x80), attest.CodeMalformed},
		"truncated number":   {after(3<<3, 0x80), attest.CodeMalformed},
		"truncated length":   {after(0x12, 0x80), attest.CodeMalformed},
		"truncated bytes":    {after(0x12, 5, 1), attest.CodeMalformed},
		"inner":              {changed(func(*spb.Report) {}, 0x80), attest.CodeMalformed},
		"inner chain":        {after(0x12, 1, 0x80), attest.CodeMalformed},
		"endless":            {after(bytes.Repeat([]byte{7 << 3, 1}, 64)...), attest.CodeMalformed},
		"as much as may be":  {after(bytes.Repeat([]byte{7 << 3, 1}, 63)...), ""},
	} {
		if _, err := read(c.raw); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

// A thief of a leaf's key can put our own evidence into a certificate of another dialect. It stays what it is.
func TestOwnClaimsElsewhere(t *testing.T) {
	b := newBench(t, "tdx")
	b.Names = []string{"a.example"}
	spki := b.SPKI()
	buffer, err := cmw.Binding{SPKI: spki, NotBefore: b.NotBefore, NotAfter: b.NotAfter.Truncate(time.Second), DNSNames: b.Names, Config: [32]byte{7}}.Claims()
	if err != nil {
		t.Fatal(err)
	}
	evidence := pkix.Extension{Id: dialectforge.OIDDICE, Value: b.TaggedEvidence(60000, buffer)}
	judge := func(change func(*x509.Certificate)) *attest.Result {
		leaf := b.Certificate(evidence)
		change(leaf)
		r, _ := b.judge(dialect.Shown{Leaf: leaf}, dialect.Context{}, dialect.DICE)
		return r
	}
	if r := judge(func(*x509.Certificate) {}); !r.Affirmed() || !r.EvidenceTime().Equal(b.NotBefore) {
		t.Fatal(r.Err())
	}
	r, err := dialect.NewReader(dialect.DICE)
	if err != nil {
		t.Fatal(err)
	}
	found, err := r.Read(dialect.Shown{Leaf: b.Certificate(evidence)}, dialect.Context{})
	if err != nil || !found[0].Names || found[0].Config != [32]byte{7} {
		t.Fatal(err, found)
	}
	for name, change := range map[string]func(*x509.Certificate){
		"later":       func(c *x509.Certificate) { c.NotAfter = c.NotAfter.Add(time.Second) },
		"earlier":     func(c *x509.Certificate) { c.NotBefore = c.NotBefore.Add(-time.Second) },
		"other name":  func(c *x509.Certificate) { c.DNSNames = []string{"b.example"} },
		"no name":     func(c *x509.Certificate) { c.DNSNames = nil },
		"address":     func(c *x509.Certificate) { c.IPAddresses = []net.IP{{127, 0, 0, 1}} },
		"odd address": func(c *x509.Certificate) { c.IPAddresses = []net.IP{{127}} },
		"URI":         func(c *x509.Certificate) { c.URIs = []*url.URL{{Host: "b.example"}} },
		"mail":        func(c *x509.Certificate) { c.EmailAddresses = []string{"a@b.example"} },
	} {
		if r := judge(change); r.Code() != attest.CodeReportData {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
	request := b.Request(evidence)
	if _, err := r.Read(dialect.Shown{Request: request}, dialect.Context{}); attest.CodeOf(err) != attest.CodeNoExpectation {
		t.Error(err) // names and validity are not in a request
	}
	short := dialectforge.Pairs(dialectforge.Text("pubkey-hash"), dialectforge.Bytes(dialectforge.KeyHash(1, sum(spki))), dialectforge.Text("profile"), dialectforge.Text("jurat-certificate-1"))
	evidence.Value = b.TaggedEvidence(60000, short)
	if r := judge(func(*x509.Certificate) {}); r.Code() != attest.CodeMalformed {
		t.Error(r.Err())
	}
}

// at reads one extension in one dialect.
func at(t *testing.T, b *bench, allow string, c dialect.Context, extensions ...pkix.Extension) ([]*dialect.Found, error) {
	t.Helper()
	r, err := dialect.NewReader(allow)
	if err != nil {
		t.Fatal(err)
	}
	return r.Read(dialect.Shown{Leaf: b.Certificate(extensions...)}, c)
}

func TestDICEForms(t *testing.T) {
	b := newBench(t, "sgx")
	quote := dialectforge.Bytes(b.Quote([64]byte{1}))
	hash := func(algorithm int, of []byte) []byte {
		return dialectforge.Pairs(dialectforge.Text("pubkey-hash"), dialectforge.Bytes(dialectforge.KeyHash(algorithm, of)))
	}
	text, octets := dialectforge.Text, dialectforge.Bytes
	good := b.Claims()
	sum384, sum512 := sha384(b.SPKI()), sha512(b.SPKI())
	for name, c := range map[string]struct {
		value []byte
		want  attest.Code
	}{
		"good":               {dialectforge.Tagged(60000, quote, octets(good)), ""},
		"SHA-384":            {dialectforge.Tagged(60000, quote, octets(hash(7, sum384))), ""},
		"SHA-512":            {dialectforge.Tagged(60000, quote, octets(hash(8, sum512))), ""},
		"other algorithm":    {dialectforge.Tagged(60000, quote, octets(hash(2, sum(b.SPKI())))), attest.CodeUnknownAlgorithm},
		"algorithm mixed":    {dialectforge.Tagged(60000, quote, octets(hash(7, sum(b.SPKI())))), attest.CodeReportData},
		"hash of PEM":        {dialectforge.Tagged(60000, quote, octets(hash(1, sum(b.PEM())))), attest.CodeReportData},
		"truncated hash":     {dialectforge.Tagged(60000, quote, octets(hash(1, sum(b.SPKI())[:16]))), attest.CodeReportData},
		"no hash":            {dialectforge.Tagged(60000, quote, octets(dialectforge.Pairs(text("nonce"), octets(nonce)))), attest.CodeMalformed},
		"hash as text":       {dialectforge.Tagged(60000, quote, octets(dialectforge.Pairs(text("pubkey-hash"), text("x")))), attest.CodeMalformed},
		"hash of no pair":    {dialectforge.Tagged(60000, quote, octets(dialectforge.Pairs(text("pubkey-hash"), octets([]byte{0x81, 1})))), attest.CodeMalformed},
		"hash of no CBOR":    {dialectforge.Tagged(60000, quote, octets(dialectforge.Pairs(text("pubkey-hash"), octets([]byte{0xff})))), attest.CodeMalformed},
		"hash of texts":      {dialectforge.Tagged(60000, quote, octets(dialectforge.Pairs(text("pubkey-hash"), octets([]byte{0x82, 0x61, 'a', 0x61, 'b'})))), attest.CodeMalformed},
		"hash by a name":     {dialectforge.Tagged(60000, quote, octets(dialectforge.Pairs(text("pubkey-hash"), octets([]byte{0x82, 0x61, 'a', 0x41, 1})))), attest.CodeMalformed},
		"hash, other bytes":  {dialectforge.Tagged(60000, quote, octets(dialectforge.Pairs(text("pubkey-hash"), octets([]byte{0x82, 1, 0x61, 'b'})))), attest.CodeMalformed},
		"empty nonce":        {dialectforge.Tagged(60000, quote, octets(b.Claims(text("nonce"), octets(nil)))), ""}, // which is nobody's
		"nonce as text":      {dialectforge.Tagged(60000, quote, octets(b.Claims(text("nonce"), text("x")))), attest.CodeMalformed},
		"claim twice":        {dialectforge.Tagged(60000, quote, octets(b.Claims(text("a"), octets(nil), text("a"), octets(nil)))), attest.CodeMalformed},
		"claim by number":    {dialectforge.Tagged(60000, quote, octets(b.Claims([]byte{1}, octets(nil)))), attest.CodeMalformed},
		"claims cut short":   {dialectforge.Tagged(60000, quote, octets(good[:len(good)-1])), attest.CodeMalformed},
		"claims and more":    {dialectforge.Tagged(60000, quote, octets(append(slices.Clone(good), 0))), attest.CodeMalformed},
		"indefinite claims":  {dialectforge.Tagged(60000, quote, octets(append(append([]byte{0xbf}, good[1:]...), 0xff))), attest.CodeMalformed},
		"claims are no map":  {dialectforge.Tagged(60000, quote, octets([]byte{0x80})), attest.CodeMalformed},
		"three":              {dialectforge.Tagged(60000, quote, octets(good), octets(nil)), attest.CodeMalformed},
		"one":                {dialectforge.Tagged(60000, quote), attest.CodeMalformed},
		"no tag":             {dialectforge.Tagged(60000, quote, octets(good))[3:], attest.CodeMalformed},
		"text for a quote":   {dialectforge.Tagged(60000, text("x"), octets(good)), attest.CodeMalformed},
		"text for claims":    {dialectforge.Tagged(60000, quote, text("x")), attest.CodeMalformed},
		"local report":       {dialectforge.Tagged(60001, quote, octets(good)), attest.CodeUnknownFormat},
		"SGX report":         {dialectforge.Tagged(60002, quote, octets(good)), attest.CodeUnknownFormat},
		"CoCo":               {dialectforge.Tagged(0xc0c000, quote, octets(good)), attest.CodeUnknownFormat},
		"quote as SNP":       {dialectforge.Tagged(0x1a7504, quote, octets(good)), attest.CodeMalformed},
		"no quote":           {dialectforge.Tagged(60000, octets([]byte("quote")), octets(good)), attest.CodeUnknownFormat},
		"in an octet string": {b.Octets(dialectforge.Tagged(60000, quote, octets(good))), attest.CodeMalformed},
	} {
		found, err := at(t, b, dialect.DICE, dialect.Context{}, pkix.Extension{Id: dialectforge.OIDDICE, Value: c.value})
		if attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
		if c.want == "" && (found[0].ReportData[0] == (attest.ReportData{}) || found[0].Level != attest.LevelKey) {
			t.Errorf("%s: %+v", name, found[0])
		}
	}
}

func TestQuoteHeaders(t *testing.T) {
	b := newBench(t, "sgx")
	for name, c := range map[string]struct {
		change func([]byte) []byte
		want   attest.Code
	}{
		"SGX":         {func(q []byte) []byte { return q }, ""},
		"version 2":   {func(q []byte) []byte { q[0] = 2; return q }, attest.CodeUnknownFormat},
		"version 6":   {func(q []byte) []byte { q[0] = 6; return q }, attest.CodeUnknownFormat},
		"other key":   {func(q []byte) []byte { q[2] = 3; return q }, attest.CodeUnknownFormat},
		"other TEE":   {func(q []byte) []byte { q[4] = 1; return q }, attest.CodeUnknownFormat},
		"TDX":         {func(q []byte) []byte { q[4] = 0x81; return q }, attest.CodeUnknownFormat},
		"header only": {func(q []byte) []byte { return q[:47] }, attest.CodeUnknownFormat},
	} {
		q := c.change(b.Quote([64]byte{1}))
		if _, err := at(t, b, dialect.GramineLegacy, dialect.Context{}, pkix.Extension{Id: dialectforge.OIDGramine, Value: q}); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestEndorsementsOfDICE(t *testing.T) {
	b := newBench(t, "sgx")
	list := [][]byte{{1}}
	crl := []byte{0x30, 1, 0} // a signature ends with a zero now and then
	for _, e := range []string{
		`{"tcbInfo":{}}` + "\x00", string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("one")})) + string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("two")})) + "\x00",
		string(crl), string(crl) + "\x00", "00" + strings.Repeat("x", 48), "0\x05cut", "0\x01more\x00", hex.EncodeToString([]byte{0x30, 2, 0, 0}) + "\x00", "", string(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("list")})), `{"enclaveIdentity":{}}`,
		string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("two")})), "2026-01-01",
		strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("three")}))) + "\x00",
	} {
		list = append(list, dialectforge.Bytes([]byte(e)))
	}
	evidence := pkix.Extension{Id: dialectforge.OIDDICE, Value: b.TaggedEvidence(60000, b.Claims())}
	read := func(value []byte, critical bool) ([]*dialect.Found, error) {
		return at(t, b, dialect.DICE, dialect.Context{}, evidence, pkix.Extension{Id: dialectforge.OIDEndorsements, Critical: critical, Value: value})
	}
	found, err := read(dialectforge.Tagged(60000, list...), true)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range found[0].Evidence.Endorsements {
		got = append(got, fmt.Sprintf("%s %q", e.Kind, e.Raw))
	}
	want := []string{`tcb-info "{\"tcbInfo\":{}}"`, `certificate "one"`, `certificate "two"`, `crl "0\x01\x00"`, `crl "00` + strings.Repeat("x", 48) + `"`, `crl "0\x05cut"`, `crl "0\x01more"`, `crl "0\x02\x00\x00"`, `crl "list"`, `qe-identity "{\"enclaveIdentity\":{}}"`, `certificate "three"`}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	many := [][]byte{{1}}
	for i := range 16 {
		many = append(many, dialectforge.Bytes([]byte{0x30, 1, byte(i)}))
	}
	if _, err := read(dialectforge.Tagged(60000, many...), false); attest.CodeOf(err) != "" {
		t.Error(err)
	}
	chain := ""
	for i := range 17 {
		chain += string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{byte(i)}}))
	}
	for name, c := range map[string]struct {
		value []byte
		want  attest.Code
	}{
		"another tag":    {dialectforge.Tagged(60001, list...), attest.CodeMalformed},
		"no tag":         {[]byte{0x81, 1}, attest.CodeMalformed},
		"nothing in it":  {dialectforge.Tagged(60000, []byte{1}), attest.CodeMalformed},
		"text":           {dialectforge.Tagged(60000, []byte{1}, dialectforge.Text("x")), attest.CodeMalformed},
		"no CBOR":        {[]byte{0xff}, attest.CodeMalformed},
		"too many":       {dialectforge.Tagged(60000, append(many, many...)...), attest.CodeMalformed},
		"too many of it": {dialectforge.Tagged(60000, []byte{1}, dialectforge.Bytes([]byte(chain))), attest.CodeOversized},
	} {
		if _, err := read(c.value, false); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %s", name, err, c.want)
		}
	}
}

func TestOpenEnclaveForms(t *testing.T) {
	b := newBench(t, "sgx")
	key := append(b.PEM(), 0)
	report := dialectforge.OEReport(b.Quote([64]byte(append(sum(key), make([]byte, 32)...))))
	evidence := b.OEEvidence(key).Extensions[0]
	for _, e := range b.OEEvidence(key).Extensions {
		if e.Id.Equal(dialectforge.OIDOEEvidence) {
			evidence = e
		}
	}
	edit := func(raw []byte, at int, v ...byte) []byte {
		raw = slices.Clone(raw)
		copy(raw[at:], v)
		return raw
	}
	claims := func(pairs ...[2]string) []byte { return dialectforge.OEClaims(pairs...) }
	value := func(c []byte) []byte {
		for _, e := range b.OEEvidence(c).Extensions {
			if e.Id.Equal(dialectforge.OIDOEEvidence) {
				return e.Value
			}
		}
		return nil
	}
	k := [2]string{"key", string(key)}
	for name, c := range map[string]struct {
		id    asn1.ObjectIdentifier
		value []byte
		want  attest.Code
	}{
		"report":                {dialectforge.OIDOEReport, report, ""},
		"report, version":       {dialectforge.OIDOEReport, edit(report, 0, 2), attest.CodeUnknownVersion},
		"report, local":         {dialectforge.OIDOEReport, edit(report, 4, 1), attest.CodeUnknownVersion},
		"report, too long":      {dialectforge.OIDOEReport, edit(report, 8, 0xff, 0xff), attest.CodeMalformed},
		"report, endless":       {dialectforge.OIDOEReport, edit(report, 8, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff), attest.CodeMalformed},
		"report, too short":     {dialectforge.OIDOEReport, edit(report, 8, 1, 0), attest.CodeMalformed},
		"report, no quote":      {dialectforge.OIDOEReport, dialectforge.OEReport(make([]byte, 100)), attest.CodeUnknownFormat},
		"report, header":        {dialectforge.OIDOEReport, report[:15], attest.CodeMalformed},
		"report, as evidence":   {dialectforge.OIDOEEvidence, report, attest.CodeUnknownFormat},
		"evidence":              {dialectforge.OIDOEEvidence, evidence.Value, ""},
		"evidence, old OID":     {dialectforge.OIDOEOldEvidence, evidence.Value, ""},
		"evidence, version":     {dialectforge.OIDOEEvidence, edit(evidence.Value, 0, 4), attest.CodeUnknownVersion},
		"evidence, legacy":      {dialectforge.OIDOEEvidence, edit(evidence.Value, 0, 2), attest.CodeUnknownVersion},
		"evidence, format":      {dialectforge.OIDOEEvidence, edit(evidence.Value, 4, 0), attest.CodeUnknownFormat},
		"evidence, size":        {dialectforge.OIDOEEvidence, edit(evidence.Value, 24, 0), attest.CodeMalformed},
		"evidence, header":      {dialectforge.OIDOEEvidence, evidence.Value[:31], attest.CodeMalformed},
		"evidence, no body":     {dialectforge.OIDOEEvidence, edit(evidence.Value[:32], 24, 0, 0, 0), attest.CodeMalformed},
		"evidence, signature":   {dialectforge.OIDOEEvidence, edit(evidence.Value, 32+432, 0xff, 0xff, 0xff, 0xff), attest.CodeMalformed},
		"claims":                {dialectforge.OIDOEEvidence, value(claims(k)), ""},
		"claims without key":    {dialectforge.OIDOEEvidence, value(claims([2]string{"a", "b"})), attest.CodeReportData},
		"claims, key twice":     {dialectforge.OIDOEEvidence, value(claims(k, k)), attest.CodeReportData},
		"claims, key in a name": {dialectforge.OIDOEEvidence, value(claims([2]string{string(key), "x"})), attest.CodeReportData},
		"claims, no NUL":        {dialectforge.OIDOEEvidence, value(claims([2]string{"key", string(b.PEM())})), attest.CodeReportData},
		"claims, none":          {dialectforge.OIDOEEvidence, value(nil), attest.CodeReportData},
		"claims, version":       {dialectforge.OIDOEEvidence, value(edit(claims(k), 0, 2)), attest.CodeReportData},
		"claims, endless":       {dialectforge.OIDOEEvidence, value(edit(claims(k), 8, 65)), attest.CodeReportData},
		"claims, more":          {dialectforge.OIDOEEvidence, value(append(claims(k), 0)), attest.CodeReportData},
		"claims, too few":       {dialectforge.OIDOEEvidence, value(edit(claims(k), 8, 2)), attest.CodeMalformed},
		"claims, long name":     {dialectforge.OIDOEEvidence, value(edit(claims(k), 16, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), attest.CodeMalformed},
		"claims, long value":    {dialectforge.OIDOEEvidence, value(edit(claims(k), 24, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff)), attest.CodeMalformed},
	} {
		if _, err := at(t, b, dialect.OpenEnclave, dialect.Context{}, pkix.Extension{Id: c.id, Value: c.value}); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	both := func(second []byte) error {
		_, err := at(t, b, dialect.OpenEnclave, dialect.Context{}, pkix.Extension{Id: dialectforge.OIDOEReport, Critical: true, Value: report}, pkix.Extension{Id: dialectforge.OIDOEOldReport, Critical: true, Value: second})
		return err
	}
	if err := both(report); err != nil {
		t.Error(err)
	}
	if err := both(dialectforge.OEReport(b.Quote([64]byte{2}))); attest.CodeOf(err) != attest.CodeDialects {
		t.Error(err)
	}
	quote := b.Quote([64]byte{3})
	b.Quote = func([64]byte) []byte { return quote }
	for name, c := range map[string]struct {
		claims []byte
		want   attest.Code
	}{"one quote": {key, ""}, "one quote, of other claims": {claims(k), attest.CodeDialects}} {
		_, err := at(t, b, dialect.OpenEnclave, dialect.Context{}, pkix.Extension{Id: dialectforge.OIDOEReport, Value: dialectforge.OEReport(quote)}, pkix.Extension{Id: dialectforge.OIDOEEvidence, Value: value(c.claims)})
		if attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := at(t, b, dialect.EGo, dialect.Context{}, pkix.Extension{Id: dialectforge.OIDOEReport, Value: report[:15]}); attest.CodeOf(err) != attest.CodeMalformed {
		t.Error(err)
	}
	if _, err := at(t, b, dialect.EGo, dialect.Context{}, pkix.Extension{Id: dialectforge.OIDOEReport, Value: append(slices.Clone(report), 0)}); attest.CodeOf(err) != attest.CodeMalformed {
		t.Error(err)
	}
}

// Identifiers that several use are told apart by what is in them, and what is not read is refused.
func TestPlaces(t *testing.T) {
	b := newBench(t, "tdx")
	quote := b.Quote([64]byte{1})
	message := func(kind string) []byte {
		return b.Octets(fmt.Appendf(nil, `{"attestation_type":%q,"attestation":[1,2,3]}`, kind))
	}
	id := func(arcs ...int) asn1.ObjectIdentifier { return arcs }
	dstack := func(v []byte) pkix.Extension { return pkix.Extension{Id: dialectforge.OIDDstack, Value: v} }
	old := func(v []byte) pkix.Extension { return pkix.Extension{Id: dialectforge.OIDDstackQuote, Value: v} }
	scale := func(raw ...byte) []byte { return b.Octets(raw) }
	constellation := func(text string) []pkix.Extension {
		return []pkix.Extension{{Id: dialectforge.OIDConstellation, Value: []byte(text)}}
	}
	json := func(quote, user []byte) string {
		return fmt.Sprintf(`{"RawQuote":%q,"UserData":%q}`, base64.StdEncoding.EncodeToString(quote), base64.StdEncoding.EncodeToString(user))
	}
	short, err := asn1.Marshal(struct {
		TEE   int
		Quote []byte
	}{2, quote})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		allow string
		ext   []pkix.Extension
		want  attest.Code
	}{
		"constellation, TPM":            {dialect.Constellation, []pkix.Extension{{Id: id(1, 3, 9900, 4, 2), Value: []byte("{}")}}, attest.CodeUnknownFormat},
		"constellation, dummy":          {dialect.Constellation, []pkix.Extension{{Id: id(1, 3, 9900, 1, 1), Value: []byte("{}")}}, attest.CodeUnknownFormat},
		"constellation, right":          {dialect.Constellation, constellation(json(quote, sum(b.SPKI()))), ""},
		"constellation, other user":     {dialect.Constellation, constellation(json(quote, sum(b.PEM()))), attest.CodeReportData},
		"constellation, no quote":       {dialect.Constellation, constellation(json(nil, sum(b.SPKI()))), attest.CodeUnknownFormat},
		"constellation, two":            {dialect.Constellation, constellation(json(quote, sum(b.SPKI())) + "{}"), attest.CodeMalformed},
		"constellation, key twice":      {dialect.Constellation, constellation(strings.Replace(json(quote, sum(b.SPKI())), "{", `{"UserData":"",`, 1)), attest.CodeMalformed},
		"constellation, other case":     {dialect.Constellation, constellation(strings.Replace(json(quote, sum(b.SPKI())), "{", `{"userdata":"",`, 1)), attest.CodeMalformed},
		"constellation, misspelt":       {dialect.Constellation, constellation(strings.Replace(json(quote, sum(b.SPKI())), "RawQuote", "rawquote", 1)), attest.CodeMalformed},
		"constellation, no user":        {dialect.Constellation, constellation(`{"RawQuote":"AA=="}`), attest.CodeMalformed},
		"constellation, numbers":        {dialect.Constellation, constellation(`{"RawQuote":1,"UserData":2}`), attest.CodeMalformed},
		"constellation, a list":         {dialect.Constellation, constellation(`[1]`), attest.CodeMalformed},
		"contrast, TDX":                 {dialect.Contrast, []pkix.Extension{{Id: id(1, 3, 9901, 2, 2), Value: []byte{}}}, attest.CodeUnknownFormat},
		"enarx, no TEE":                 {dialect.Enarx, []pkix.Extension{{Id: id(1, 3, 6, 1, 4, 1, 58270, 1, 1), Value: []byte{}}}, attest.CodeUnknownFormat},
		"white paper":                   {dialect.DICE, []pkix.Extension{{Id: id(1, 2, 840, 113741, 1337, 6), Value: quote}}, attest.CodeUnknownFormat},
		"oversized":                     {dialect.DICE, []pkix.Extension{{Id: id(1, 2, 3), Value: make([]byte, dialect.MaxExtension+1)}}, attest.CodeOversized},
		"as large as may be":            {dialect.DICE, []pkix.Extension{{Id: id(1, 2, 3), Value: make([]byte, dialect.MaxExtension)}}, ""},
		"dstack, not DER":               {dialect.Dstack, []pkix.Extension{old([]byte{0x0c, 1, 'a'})}, attest.CodeMalformed},
		"dstack, a quote alone":         {dialect.Dstack, []pkix.Extension{old(quote)}, attest.CodeMalformed},
		"dstack, empty":                 {dialect.Dstack, []pkix.Extension{dstack(b.Octets([]byte{}))}, attest.CodeUnknownFormat},
		"dstack, DER and more":          {dialect.Dstack, []pkix.Extension{old(append(b.Octets(quote), 0))}, attest.CodeMalformed},
		"dstack, both":                  {dialect.Dstack, []pkix.Extension{old(b.Octets(quote)), dstack(b.Octets(append(append([]byte{0, 0}, dialectforge.Compact(len(quote))...), quote...)))}, ""},
		"dstack, two quotes":            {dialect.Dstack, []pkix.Extension{old(b.Octets(quote)), dstack(b.Octets(append(append([]byte{0, 0}, dialectforge.Compact(len(quote))...), b.Quote([64]byte{2})...)))}, attest.CodeDialects},
		"dstack, GCP":                   {dialect.Dstack, []pkix.Extension{dstack(scale(slices.Concat([]byte{0, 1}, dialectforge.Compact(len(quote)), quote)...))}, attest.CodeUnknownFormat},
		"dstack, SCALE, older place":    {dialect.Dstack, []pkix.Extension{old(scale(slices.Concat([]byte{0, 0}, dialectforge.Compact(len(quote)), quote)...))}, attest.CodeUnknownFormat},
		"dstack, SCALE, nothing":        {dialect.Dstack, []pkix.Extension{dstack(scale(0))}, attest.CodeUnknownFormat},
		"dstack, SCALE, no length":      {dialect.Dstack, []pkix.Extension{dstack(scale(0, 0))}, attest.CodeMalformed},
		"dstack, SCALE, empty":          {dialect.Dstack, []pkix.Extension{dstack(scale(0, 0, 0))}, attest.CodeMalformed},
		"dstack, SCALE, long":           {dialect.Dstack, []pkix.Extension{dstack(scale(0, 0, 8, 1))}, attest.CodeMalformed},
		"dstack, SCALE, longer":         {dialect.Dstack, []pkix.Extension{dstack(scale(0, 0, 2, 1))}, attest.CodeMalformed},
		"dstack, SCALE, huge":           {dialect.Dstack, []pkix.Extension{dstack(scale(0, 0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1))}, attest.CodeMalformed},
		"dstack, SCALE, endless":        {dialect.Dstack, []pkix.Extension{dstack(scale(0, 0, 0xfe, 0xff, 0xff, 0xff))}, attest.CodeMalformed},
		"dstack, SCALE, eight bytes":    {dialect.Dstack, []pkix.Extension{dstack(scale(append(binary.LittleEndian.AppendUint64([]byte{0, 0}, uint64(len(quote))<<2|3), quote...)...))}, attest.CodeMalformed},
		"dstack, SCALE, no quote":       {dialect.Dstack, []pkix.Extension{dstack(scale(0, 0, 4, 1))}, attest.CodeUnknownFormat},
		"flashbots, older place":        {dialect.AttestedTLS, []pkix.Extension{old(message("dcap-tdx"))}, attest.CodeUnknownFormat},
		"flashbots, none":               {dialect.AttestedTLS, []pkix.Extension{old(message("none"))}, attest.CodeNoEvidence},
		"flashbots, azure":              {dialect.AttestedTLS, []pkix.Extension{old(message("azure-tdx"))}, attest.CodeUnknownFormat},
		"flashbots, no list":            {dialect.AttestedTLS, []pkix.Extension{old(b.Octets([]byte(`{"attestation_type":"dcap-tdx","attestation":"AA=="}`)))}, attest.CodeMalformed},
		"flashbots, no byte":            {dialect.AttestedTLS, []pkix.Extension{old(b.Octets([]byte(`{"attestation_type":"dcap-tdx","attestation":[256]}`)))}, attest.CodeMalformed},
		"flashbots, two messages":       {dialect.AttestedTLS, []pkix.Extension{dstack(message("none")), old(message("dcap-tdx"))}, attest.CodeDialects},
		"flashbots' beside dstack's":    {dialect.AttestedTLS, []pkix.Extension{dstack(message("dcap-tdx")), old(b.Octets(quote))}, attest.CodeDialects},
		"dstack's beside flashbots'":    {dialect.Dstack, []pkix.Extension{dstack(scale(slices.Concat([]byte{0, 0}, dialectforge.Compact(len(quote)), quote)...)), old(message("dcap-tdx"))}, attest.CodeDialects},
		"both, and neither allowed":     {dialect.DICE, []pkix.Extension{dstack(scale(slices.Concat([]byte{0, 0}, dialectforge.Compact(len(quote)), quote)...)), old(message("dcap-tdx"))}, attest.CodeDialect},
		"flashbots' as dstack":          {dialect.Dstack, []pkix.Extension{old(message("dcap-tdx"))}, attest.CodeDialect},
		"dstack's as flashbots'":        {dialect.AttestedTLS, []pkix.Extension{old(b.Octets(quote))}, ""}, // and is not allowed
		"privasys, SGX":                 {dialect.Privasys, []pkix.Extension{{Id: dialectforge.OIDPrivasysSGX, Value: quote}}, attest.CodeNoExpectation},
		"privasys, mock":                {dialect.Privasys, []pkix.Extension{{Id: dialectforge.OIDPrivasysTDX, Value: []byte("MOCK_QUOTE:x")}}, attest.CodeUnknownFormat},
		"privasys, two":                 {dialect.Privasys, []pkix.Extension{{Id: dialectforge.OIDPrivasysTDX, Value: quote}, {Id: dialectforge.OIDPrivasysSNP, Value: quote}}, attest.CodeDialects},
		"privasys, other TEE":           {dialect.Privasys, []pkix.Extension{{Id: dialectforge.OIDPrivasysSNP, Value: quote}}, attest.CodeMalformed},
		"c8s, envelope":                 {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: c8s(t, 2, []byte("{}"), nil)}}, attest.CodeUnknownFormat},
		"c8s, envelope for SNP":         {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: c8s(t, 1, []byte("{}"), nil)}}, attest.CodeUnknownFormat},
		"c8s, other TEE":                {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: c8s(t, 3, quote, nil)}}, attest.CodeUnknownFormat},
		"c8s, quote as report":          {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: c8s(t, 1, quote, nil)}}, attest.CodeMalformed},
		"c8s, bad chain":                {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: c8s(t, 2, quote, []byte("x"))}}, attest.CodeMalformed},
		"c8s, chain":                    {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: c8s(t, 2, quote, b.Certificate().Raw)}}, ""},
		"c8s, long chain":               {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: c8s(t, 2, quote, bytes.Repeat(b.Certificate().Raw, 17))}}, attest.CodeMalformed},
		"c8s, no chain at all":          {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: short}}, attest.CodeMalformed},
		"c8s, DER and more":             {dialect.C8s, []pkix.Extension{{Id: dialectforge.OIDC8s, Value: append(c8s(t, 2, quote, nil), 0)}}, attest.CodeMalformed},
		"SGX SDK, neither":              {dialect.SGXSDK, []pkix.Extension{{Id: dialectforge.OIDIntelSGX, Value: []byte{1, 2}}}, attest.CodeUnknownFormat},
		"SGX SDK, empty":                {dialect.SGXSDK, []pkix.Extension{{Id: dialectforge.OIDIntelSGX, Value: []byte{}}}, attest.CodeUnknownFormat},
		"enarx in a certificate":        {dialect.Enarx, []pkix.Extension{{Id: dialectforge.OIDEnarxSNP, Value: []byte{0x30, 0}}}, attest.CodeMalformed},
		"enarx SGX in a certificate":    {dialect.Enarx, []pkix.Extension{{Id: dialectforge.OIDEnarxSGX, Value: []byte{0x30, 0}}}, attest.CodeMalformed},
		"enarx, no report":              {dialect.Enarx, []pkix.Extension{{Id: dialectforge.OIDEnarxSNP, Value: []byte{0x30, 12, 0x30, 6, 0x30, 0, 0x30, 2, 0x30, 0, 4, 2, 1, 2}}}, attest.CodeMalformed},
		"enarx, no quote":               {dialect.Enarx, []pkix.Extension{{Id: dialectforge.OIDEnarxSGX, Value: []byte{0x30, 12, 4, 0, 0x30, 2, 0x30, 0, 0x30, 4, 0x30, 0, 4, 0}}}, attest.CodeUnknownFormat},
		"what nobody knows, uncritical": {dialect.DICE, []pkix.Extension{{Id: id(1, 2, 3), Value: quote}}, ""},
	} {
		if _, err := at(t, b, c.allow, dialect.Context{Nonce: nonce}, c.ext...); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func c8s(t *testing.T, tee int, report, chain []byte) []byte {
	t.Helper()
	der, err := asn1.Marshal(struct {
		TEE           int
		Report, Chain []byte
	}{tee, report, chain})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestMessagePack(t *testing.T) {
	b := newBench(t, "tdx")
	quote := b.Quote([64]byte{1})
	text := func(s string) []byte { return append([]byte{0xa0 | byte(len(s))}, s...) }
	pairs := func(items ...[]byte) []byte {
		return append([]byte{0x80 | byte(len(items)/2)}, bytes.Join(items, nil)...)
	}
	bin := func(raw []byte) []byte {
		return append(binary.BigEndian.AppendUint32([]byte{0xc6}, uint32(len(raw))), raw...)
	}
	message := func(kind string, data ...[]byte) []byte {
		return pairs(text("version"), []byte{1}, text("platform"), pairs(text("kind"), text(kind), text("data"), pairs(data...)))
	}
	listed := func(first ...byte) []byte { // as Rust writes it
		list := append(binary.BigEndian.AppendUint16([]byte{0xdc}, uint16(len(quote))), first...)
		for _, v := range quote[2:] {
			list = append(list, 0xcc, v)
		}
		return message("tdx", text("quote"), list)
	}
	extra := func(v ...byte) []byte { return message("tdx", text("quote"), bin(quote), text("x"), v) }
	report := make([]byte, 0x4a0)
	for name, c := range map[string]struct {
		raw  []byte
		want attest.Code
	}{
		"binary":          {message("tdx", text("quote"), bin(quote)), ""},
		"nitro":           {message("nitro-enclave", text("nsm_quote"), []byte{0xc4, 2, 0x84, 0x40}), ""},
		"nitro, tagged":   {message("nitro-enclave", text("nsm_quote"), []byte{0xc4, 3, 0xd2, 0x84, 0x40}), ""},
		"nitro, two tags": {message("nitro-enclave", text("nsm_quote"), []byte{0xc4, 4, 0xd2, 0xd2, 0x84, 0x40}), attest.CodeMalformed},
		"nitro, tag only": {message("nitro-enclave", text("nsm_quote"), []byte{0xc4, 3, 0xd2, 0x83, 0x40}), attest.CodeMalformed},
		"nitro, other":    {message("nitro-enclave", text("nsm_quote"), []byte{0xc4, 3, 0xd1, 0x84, 0x40}), attest.CodeMalformed},
		"nitro, none":     {message("nitro-enclave", text("nsm_quote"), []byte{0xc4, 2, 1, 2}), attest.CodeMalformed},
		"snp":             {message("sev-snp", text("report"), bin(report), text("cert_chain"), []byte{0x92, 0xc4, 1, 1, 0x91, 2}), ""},
		"snp, no report":  {message("sev-snp", text("report"), bin(report[1:])), attest.CodeMalformed},
		"snp, long chain": {message("sev-snp", text("report"), bin(report), text("cert_chain"), append([]byte{0xdc, 0, 17}, bytes.Repeat([]byte{0xc4, 0}, 17)...)), attest.CodeOversized},
		"gcp":             {message("gcp-tdx", text("quote"), bin(quote)), attest.CodeUnknownFormat},
		"no platform":     {pairs(text("version"), []byte{1}), attest.CodeUnknownFormat},
		"no version":      {pairs(), attest.CodeUnknownVersion},
		"version 2":       {pairs(text("version"), []byte{2}), attest.CodeUnknownVersion},
		"version as text": {pairs(text("version"), text("1")), attest.CodeUnknownVersion},
		"key twice":       {pairs(text("version"), []byte{1}, text("version"), []byte{1}), attest.CodeDuplicateField},
		"number as key":   {pairs([]byte{1}, []byte{1}), attest.CodeMalformed},
		"truncated key":   {extra(0x81, 0xa2, 1), attest.CodeMalformed},
		"and more":        {append(message("tdx", text("quote"), bin(quote)), 0), attest.CodeMalformed},
		"numbers":         {listed(4, 0), ""},
		"no byte":         {listed(0xcd, 1, 4, 0), attest.CodeUnknownFormat},
		"no number":       {listed(4, 0xc0), attest.CodeUnknownFormat},
		"float":           {extra(0xcb, 0, 0, 0, 0, 0, 0, 0, 0), attest.CodeMalformed},
		"never used":      {extra(0xc1), attest.CodeMalformed},
		"extension":       {extra(0xd4, 0, 0), attest.CodeMalformed},
		"deep":            {extra(0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0x91, 0), attest.CodeMalformed},
		"not too deep":    {extra(0x91, 0x91, 0x91, 0x91, 0), ""},
		"endless list":    {extra(0xdd, 0xff, 0xff, 0xff, 0xff), attest.CodeMalformed},
		"endless map":     {extra(0xdf, 0xff, 0xff, 0xff, 0xff), attest.CodeMalformed},
		"endless text":    {extra(0xdb, 0xff, 0xff, 0xff, 0xff), attest.CodeMalformed},
		"all kinds": {extra(bytes.Join([][]byte{
			{0xdc, 0, 17},
			{0xc0},
			{0xc2},
			{0xc3},
			{0xcc, 1},
			{0xcd, 1, 1},
			{0xce, 1, 1, 1, 1},
			{0xcf, 1, 1, 1, 1, 1, 1, 1, 1},
			{0xd0, 1},
			{0xd1, 1, 1},
			{0xd2, 1, 1, 1, 1},
			{0xd3, 1, 1, 1, 1, 1, 1, 1, 1},
			{0xff},
			{0xd9, 1, 'a'},
			{0xda, 0, 1, 'a'},
			{0xc5, 0, 1, 1},
			{0xde, 0, 1, 0xa1, 'a', 1},
			{0xdd, 0, 0, 0, 1, 1},
		}, nil)...), ""},
		"truncated number": {extra(0xcf, 1), attest.CodeMalformed},
		"no number at all": {extra(0xcf), attest.CodeMalformed},
		"no signed one":    {extra(0xd3), attest.CodeMalformed},
		"no length at all": {extra(0xda), attest.CodeMalformed},
		"truncated signed": {extra(0xd3, 1), attest.CodeMalformed},
		"truncated length": {extra(0xda, 1), attest.CodeMalformed},
		"truncated text":   {extra(0xa3, 1), attest.CodeMalformed},
		"missing":          {extra(), attest.CodeMalformed},
	} {
		_, err := at(t, b, dialect.Dstack, dialect.Context{}, pkix.Extension{Id: dialectforge.OIDDstack, Value: b.Octets(c.raw)})
		if attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

// document reads one, for a certificate or none.
func document(t *testing.T, allow string, c dialect.Context, leaf *x509.Certificate, raw []byte) ([]*dialect.Found, error) {
	t.Helper()
	r, err := dialect.NewReader(allow)
	if err != nil {
		t.Fatal(err)
	}
	return r.Read(dialect.Shown{Leaf: leaf, Document: raw}, c)
}

func TestTinfoilDocuments(t *testing.T) {
	b := newBench(t, "tdx")
	leaf, doc := b.Tinfoil()
	names := func(n ...string) *x509.Certificate {
		copied := *leaf
		copied.DNSNames = n
		return &copied
	}
	hpke := dialectforge.SpreadNames("hpke", b.HPKE)
	given := dialect.Context{HPKE: b.HPKE}
	body := func(raw []byte) []byte {
		return fmt.Appendf(nil, `{"format":"https://tinfoil.sh/predicate/tdx-guest/v2","body":%q}`, base64.StdEncoding.EncodeToString(raw))
	}
	for name, c := range map[string]struct {
		leaf *x509.Certificate
		doc  []byte
		ctx  dialect.Context
		want attest.Code
	}{
		"right":               {leaf, doc, dialect.Context{}, ""},
		"key given":           {names("a.example"), doc, given, ""},
		"no key":              {names("a.example"), doc, dialect.Context{}, attest.CodeNoExpectation},
		"short key":           {names("a.example"), doc, dialect.Context{HPKE: b.HPKE[:31]}, attest.CodeNoExpectation},
		"no certificate":      {nil, doc, given, attest.CodeNoExpectation},
		"version 1":           {leaf, bytes.Replace(doc, []byte("guest/v2"), []byte("guest/v1"), 1), given, attest.CodeUnknownVersion},
		"other TEE":           {leaf, bytes.Replace(doc, []byte("tdx-guest"), []byte("sev-snp-guest"), 1), given, attest.CodeMalformed},
		"another document":    {names(append(dialectforge.SpreadNames("hatt", []byte(hex.EncodeToString(sum(nil)))), hpke...)...), doc, given, attest.CodeReportData},
		"piece twice":         {names(append(hpke, hpke...)...), doc, dialect.Context{}, attest.CodeMalformed},
		"piece missing":       {names(strings.Replace(hpke[0], "00", "01", 1)), doc, dialect.Context{}, attest.CodeMalformed},
		"piece without place": {names("xx" + hpke[0][2:]), doc, dialect.Context{}, attest.CodeMalformed},
		"no base32":           {names("001.hpke.example"), doc, dialect.Context{}, attest.CodeMalformed},
		"hash, no base32":     {names("001.hatt.example"), doc, given, attest.CodeMalformed},
		"short label":         {names("0.hpke.example"), doc, dialect.Context{}, attest.CodeNoExpectation},
		"no base64":           {leaf, []byte(`{"format":"https://tinfoil.sh/predicate/tdx-guest/v2","body":"*"}`), given, attest.CodeMalformed},
		"no gzip":             {leaf, body([]byte("x")), given, attest.CodeMalformed},
		"gzip cut short":      {leaf, body(zip(t, make([]byte, 5000))[:20]), given, attest.CodeMalformed},
		"bomb":                {leaf, body(zip(t, make([]byte, 64<<20))), given, attest.CodeOversized},
		"no body":             {leaf, []byte(`{"format":"https://tinfoil.sh/predicate/tdx-guest/v2"}`), given, attest.CodeMalformed},
		"two bodies":          {leaf, []byte(`{"format":"https://tinfoil.sh/predicate/tdx-guest/v2","body":"","body":""}`), given, attest.CodeMalformed},
		"too large":           {leaf, make([]byte, dialect.MaxDocument+1), given, attest.CodeOversized},
	} {
		_, err := document(t, dialect.Tinfoil, c.ctx, c.leaf, c.doc)
		if attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestOtherDocuments(t *testing.T) {
	b := newBench(t, "tdx")
	leaf := b.Certificate()
	cocos := b.Forge.Cocos()
	app := [32]byte{9}
	nitriding := b.Forge.Nitriding(leaf, app)
	token := func(raw []byte) []byte {
		return fmt.Appendf(nil, `{"version":1,"evidence":%q,"binder":{"aik_pub_hash":""}}`, base64.StdEncoding.EncodeToString(raw))
	}
	zeros := dialectforge.Pairs(dialectforge.Text("raw_report"), dialectforge.Bytes(make([]byte, 0x4a0)))
	in64 := func(raw []byte) []byte { return []byte(base64.StdEncoding.EncodeToString(raw)) }
	live := connected(b)
	deaf, mute := live, live
	deaf.Exporter = nil
	mute.Request = nil
	broken := live
	broken.Exporter = func(string, []byte, int) ([]byte, error) { return nil, fmt.Errorf("none") }
	long := live
	long.Suite = 0x1302
	for name, c := range map[string]struct {
		allow string
		leaf  *x509.Certificate
		doc   []byte
		ctx   dialect.Context
		want  attest.Code
	}{
		"cocos":                    {dialect.Cocos, leaf, cocos, live, ""},
		"cocos, no exporter":       {dialect.Cocos, leaf, cocos, deaf, attest.CodeNoExpectation},
		"cocos, no request":        {dialect.Cocos, leaf, cocos, mute, attest.CodeNoExpectation},
		"cocos, broken exporter":   {dialect.Cocos, leaf, cocos, broken, attest.CodeNoExpectation},
		"cocos, no leaf":           {dialect.Cocos, nil, cocos, live, attest.CodeNoExpectation},
		"cocos, another hash":      {dialect.Cocos, leaf, cocos, long, attest.CodeReportData},
		"cocos, label":             {dialect.Cocos, leaf, bytes.Replace(cocos, []byte(`"Attestation"`), []byte(`"EXPORTER-x"`), 1), live, attest.CodeUnknownAlgorithm},
		"cocos, no label":          {dialect.Cocos, leaf, bytes.Replace(cocos, []byte(`"Attestation"`), []byte(`""`), 1), live, ""},
		"cocos, version":           {dialect.Cocos, leaf, bytes.Replace(cocos, []byte(`"version":1`), []byte(`"version":2`), 1), live, attest.CodeUnknownVersion},
		"cocos, no evidence":       {dialect.Cocos, leaf, bytes.Replace(cocos, []byte(`"evidence"`), []byte(`"evid3nce"`), 1), live, attest.CodeMalformed},
		"cocos, key of others":     {dialect.Cocos, leaf, bytes.Replace(cocos, in64(sum(b.SPKI())), in64(sum(nil)), 1), live, attest.CodeReportData},
		"cocos, binding of others": {dialect.Cocos, leaf, bytes.Replace(cocos, in64(sum(append(b.SPKI(), b.Exported...))), in64(sum(nil)), 1), live, attest.CodeReportData},
		"cocos, no token":          {dialect.Cocos, leaf, token([]byte{0xff}), live, attest.CodeMalformed},
		"cocos, no payload":        {dialect.Cocos, leaf, token([]byte{0x84, 0x40, 0xa0, 0x41, 0xff, 0x40}), live, attest.CodeMalformed},
		"cocos, a list":            {dialect.Cocos, leaf, []byte(`["aik_pub_hash"]`), live, attest.CodeMalformed},
		"cocos, an empty message":  {dialect.Cocos, leaf, token([]byte{0x80}), live, attest.CodeMalformed},
		"cocos, a longer message":  {dialect.Cocos, leaf, token(append([]byte{0x85, 0x40, 0xa0}, append(dialectforge.Bytes(zeros), 0x40, 0x40)...)), live, attest.CodeMalformed},
		"cocos, no report":         {dialect.Cocos, leaf, token([]byte{0xa0}), live, attest.CodeMalformed},
		"cocos, an empty report":   {dialect.Cocos, leaf, token(dialectforge.Pairs(dialectforge.Text("raw_report"), dialectforge.Bytes(nil))), live, attest.CodeUnknownFormat},
		"cocos, a report, no key":  {dialect.Cocos, leaf, token(zeros), live, attest.CodeReportData},
		"nitriding":                {dialect.Nitriding, leaf, nitriding, dialect.Context{AppKey: app}, ""},
		"nitriding, no leaf":       {dialect.Nitriding, nil, nitriding, dialect.Context{AppKey: app}, attest.CodeNoExpectation},
		"nitriding as tinfoil":     {dialect.Tinfoil, leaf, nitriding, dialect.Context{}, ""},
		"dstack, no leaf":          {dialect.Dstack, nil, b.DstackDocument(), dialect.Context{}, attest.CodeNoExpectation},
		"dstack, no hex":           {dialect.Dstack, leaf, []byte(`{"quote":"xy"}`), dialect.Context{}, attest.CodeMalformed},
		"dstack, no quote":         {dialect.Dstack, leaf, []byte(`{"a":"quote","quote":""}`), dialect.Context{}, attest.CodeUnknownFormat},
		"dstack, two quotes":       {dialect.Dstack, leaf, []byte(`{"quote":"","quote":""}`), dialect.Context{}, attest.CodeMalformed},
		"dstack, quote elsewhere":  {dialect.Dstack, leaf, []byte(`{"a":{"quote":""}}`), dialect.Context{}, attest.CodeMalformed},
		"nothing in base64":        {dialect.Nitriding, leaf, []byte("aGVsbG8="), dialect.Context{}, ""},
	} {
		_, err := document(t, c.allow, c.ctx, c.leaf, c.doc)
		if attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	// Beside a document the certificate is what it is for, and its own evidence another matter.
	for _, own := range []*x509.Certificate{b.DICE(), b.Evervault()} {
		found, err := document(t, dialect.Nitriding, dialect.Context{}, own, nitriding)
		if err != nil || len(found) != 1 || found[0].Dialect != dialect.Nitriding {
			t.Errorf("%+v, %v", found, err)
		}
	}
	// The application's key is part of what is signed.
	for key, ok := range map[[32]byte]bool{app: true, {}: false} {
		r, _ := b.judge(dialect.Shown{Leaf: leaf, Document: nitriding}, dialect.Context{AppKey: key}, dialect.Nitriding)
		if r.Affirmed() != ok {
			t.Errorf("%v: %v", key, r.Err())
		}
	}
}

func TestEvervaultNames(t *testing.T) {
	b := newBench(t, "nitro")
	document := hex.EncodeToString(b.Nitro(b.SPKI(), nil))
	for name, c := range map[string]struct {
		names []string
		want  attest.Code
	}{
		"one":         {[]string{document + ".a.example", "a.example"}, ""},
		"two":         {[]string{document + ".a.example", document + ".b.example"}, attest.CodeDuplicateExtension},
		"no hex":      {[]string{strings.Repeat("x", 64) + ".a.example"}, attest.CodeMalformed},
		"more":        {[]string{document + "x.a.example"}, attest.CodeMalformed},
		"no document": {[]string{strings.Repeat("00", 32) + ".a.example"}, attest.CodeMalformed},
		"a name":      {[]string{strings.Repeat("a", 63) + ".a.example"}, ""},
	} {
		b.Names = c.names
		if _, err := at(t, b, dialect.Evervault, dialect.Context{}); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func TestEnarxRequests(t *testing.T) {
	for name, tee := range map[string]string{"snp": "snp", "sgx": "sgx"} {
		b := newBench(t, tee)
		var r *x509.CertificateRequest
		if tee == "snp" {
			r = b.EnarxSNP()
		} else {
			r = b.EnarxSGX()
		}
		reader, err := dialect.NewReader(dialect.Enarx)
		if err != nil {
			t.Fatal(err)
		}
		found, err := reader.Read(dialect.Shown{Request: r}, dialect.Context{})
		if err != nil {
			t.Fatal(err)
		}
		kinds := map[attest.Kind]int{}
		for _, e := range found[0].Evidence.Endorsements {
			kinds[e.Kind]++
			if len(e.Raw) == 0 {
				t.Errorf("%s: an empty %s", name, e.Kind)
			}
		}
		if kinds[attest.KindCertificate] != 1 || kinds[attest.KindCRL] != 1 || (kinds[attest.KindTCBInfo] == 1) != (tee == "sgx") {
			t.Errorf("%s: %v", name, kinds)
		}
		twice := *r
		twice.Extensions = append(slices.Clone(r.Extensions), r.Extensions[len(r.Extensions)-1])
		if _, err := reader.Read(dialect.Shown{Request: &twice}, dialect.Context{}); attest.CodeOf(err) != attest.CodeDuplicateExtension {
			t.Error(err)
		}
		// Who asks for a usual extension to be critical asks for no more than that.
		for id, want := range map[string]attest.Code{"1.2.3": attest.CodeCriticalExtension, "2.5.29.15": ""} {
			demanding := *r
			e := pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3}, Critical: true}
			if want == "" {
				e.Id = asn1.ObjectIdentifier{2, 5, 29, 15}
			}
			demanding.Extensions = append(slices.Clone(r.Extensions), e)
			if _, err := reader.Read(dialect.Shown{Request: &demanding}, dialect.Context{}); attest.CodeOf(err) != want {
				t.Errorf("%s: critical %s: %v", name, id, err)
			}
		}
		both := *r
		other := newBench(t, map[string]string{"snp": "sgx", "sgx": "snp"}[tee])
		theirs := other.EnarxSGX
		if tee == "sgx" {
			theirs = other.EnarxSNP
		}
		both.Extensions = append(slices.Clone(r.Extensions), theirs().Extensions...)
		if _, err := reader.Read(dialect.Shown{Request: &both}, dialect.Context{}); attest.CodeOf(err) != attest.CodeDialects {
			t.Error(err)
		}
	}
}
