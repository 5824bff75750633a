package azure_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/azure"
	"github.com/jurat-tls/jurat/attest/tpm"
)

type allowAll struct{}

func (allowAll) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "test", Checks: []attest.Check{{ID: "all", Status: attest.StatusPass}}}
}

func TestForgedEvidenceVerifies(t *testing.T) {
	t.Parallel()
	for name, f := range map[string]forge{
		"SNP":               {},
		"TDX":               {tdx: true},
		"HCL version 1":     {hcl: set(4, 1)},
		"request version 2": {version: 2},
		"TDX, request 2":    {version: 2, tdx: true},
		"without user data": {runtime: func(m map[string]any) { delete(m, "user-data") }},
		"no key but the AK": {runtime: func(m map[string]any) { m["keys"] = m["keys"].([]any)[:1] }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ev := f.make(t)
			c, err := verify(t, ev)
			if err != nil {
				t.Fatal(err)
			}
			tee, launch, registers := "snp", byte('p'), 3
			if f.tdx {
				tee, launch, registers = "tdx", 0x10, 7
			}
			if c.TEE != tee || c.Debug != attest.Off || c.Measured["launch"][0] != launch || c.Measured["pcr0"][0] != 1 || c.Measured["pcr7"][0] != 8 || len(c.Measured) != registers {
				t.Errorf("%+v", c)
			}
			if c.Module != "VM-1" || !c.Folded || c.ReportData != reportData.Fold() {
				t.Errorf("%+v", c)
			}
			if text := strings.Join(c.NotChecked, "\n"); !strings.Contains(text, "paravisor alone") || !strings.Contains(text, "PCRs other than 0, 7") {
				t.Error(text)
			}
			links := 0
			for _, check := range c.Checks {
				if check.Status != attest.StatusPass || check.ID == "" || check.Text == "" || check.Source == "" {
					t.Errorf("transcript line %+v", check)
				}
				if check.ID == "authenticity.link" {
					links++
				}
			}
			if links != 1 || len(c.Checks) != 3 {
				t.Errorf("%+v", c.Checks)
			}
			appraiser := attest.NewAppraiser(attest.NoEndorser{}, verifierOf(ev))
			if r := appraiser.Appraise(t.Context(), ev, attest.Expect(reportData, attest.LevelKey, time.Time{}), allowAll{}, epoch); !r.Affirmed() {
				t.Error(r.Err())
			}
			other := reportData
			other[0] ^= 1
			if r := appraiser.Appraise(t.Context(), ev, attest.Expect(other, attest.LevelKey, time.Time{}), allowAll{}, epoch); r.Code() != attest.CodeReportData {
				t.Error(r.Err())
			}
		})
	}
}

// Without PCR values the quote binds the data, and measures nothing.
func TestWithoutValues(t *testing.T) {
	t.Parallel()
	c, err := verify(t, forge{parts: func(p map[tpm.Part][]byte) { delete(p, tpm.PartPCRs) }}.make(t))
	if err != nil || len(c.Measured) != 1 || !c.Folded || !strings.Contains(strings.Join(c.NotChecked, "\n"), "no values") {
		t.Errorf("%+v, %v", c, err)
	}
}

// TestRefusals has one case for each check: whatever depends on the change is made after it, and nothing else is wrong.
func TestRefusals(t *testing.T) {
	t.Parallel()
	k := sharedKeys()
	drop := func(p tpm.Part) func(map[tpm.Part][]byte) {
		return func(parts map[tpm.Part][]byte) { delete(parts, p) }
	}
	jwk := func(name string, v any) forge { return forge{jwk: func(m map[string]any) { m[name] = v }} }
	top := func(name string, v any) forge { return forge{runtime: func(m map[string]any) { m[name] = v }} }
	flip := func(at int) func([]byte) []byte {
		return func(b []byte) []byte {
			b[(at+len(b))%len(b)] ^= 1
			return b
		}
	}
	cases := map[string]struct {
		forge forge
		code  attest.Code
	}{
		// The encoding.
		"junk":                  {forge{raw: func([]byte) []byte { return []byte("x") }}, attest.CodeMalformed},
		"trailing byte":         {forge{raw: func(b []byte) []byte { return append(b, 0) }}, attest.CodeMalformed},
		"oversize":              {forge{raw: func(b []byte) []byte { return append(b, make([]byte, attest.MaxRaw)...) }}, attest.CodeOversized},
		"no HCL report":         {forge{parts: drop(tpm.PartHCL)}, attest.CodeMalformed},
		"no quote":              {forge{parts: drop(tpm.PartQuote)}, attest.CodeMalformed},
		"no signature":          {forge{parts: drop(tpm.PartSignature)}, attest.CodeMalformed},
		"TD quote on SNP":       {forge{parts: func(p map[tpm.Part][]byte) { p[tpm.PartTDQuote] = []byte{1} }}, attest.CodeUnknownField},
		"key of its own":        {forge{parts: func(p map[tpm.Part][]byte) { p[tpm.PartPublic] = []byte{1} }}, attest.CodeUnknownField},
		"no TD quote":           {forge{tdx: true, parts: drop(tpm.PartTDQuote)}, attest.CodeMalformed},
		"hardware not accepted": {forge{tdx: true, tdQuote: func(b []byte) []byte { return b[1:] }}, attest.CodeMalformed},
		// The HCL report.
		"another magic":            {forge{hcl: set(0, 'X')}, attest.CodeMalformed},
		"HCL version 0":            {forge{hcl: set(4, 0)}, attest.CodeUnknownVersion},
		"HCL version 3":            {forge{hcl: set(4, 3)}, attest.CodeUnknownVersion},
		"length in the header":     {forge{hcl: flip(8)}, attest.CodeMalformed},
		"request for a key":        {forge{hcl: set(12, 1)}, attest.CodeMalformed},
		"status":                   {forge{hcl: set(16, 1)}, attest.CodeReservedBits},
		"reserved":                 {forge{hcl: set(31, 1)}, attest.CodeReservedBits},
		"length of the data":       {forge{hcl: flip(1216)}, attest.CodeMalformed},
		"request version 0":        {forge{hcl: set(1220, 0)}, attest.CodeUnknownVersion},
		"request version 3":        {forge{hcl: set(1220, 3)}, attest.CodeUnknownVersion},
		"capability 8":             {forge{version: 2, hcl: set(1236, 8)}, attest.CodeReservedBits},
		"VBS report":               {forge{hcl: set(1224, 1)}, attest.CodeProductMismatch},
		"no hardware report":       {forge{hcl: set(1224, 3)}, attest.CodeProductMismatch},
		"TDX as SNP":               {forge{hcl: set(1224, 4)}, attest.CodeProductMismatch},
		"SNP as TDX":               {forge{tdx: true, hcl: set(1224, 2)}, attest.CodeProductMismatch},
		"SHA-384":                  {forge{hcl: set(1228, 2)}, attest.CodeUnknownAlgorithm},
		"length of the claims":     {forge{hcl: flip(1232)}, attest.CodeMalformed},
		"padding":                  {forge{hcl: func(b []byte) []byte { return append(b, 0) }}, attest.CodeMalformed},
		"no claims":                {forge{json: func([]byte) []byte { return nil }}, attest.CodeMalformed},
		"claims of 17 KiB":         {top("user-data", strings.Repeat("0", 17<<10)), attest.CodeMalformed},
		"header alone":             {forge{hcl: func(b []byte) []byte { return b[:32] }}, attest.CodeMalformed},
		"version 2 without bitmap": {forge{hcl: func(b []byte) []byte { return set(1220, 2)(b[:1236]) }}, attest.CodeMalformed},
		// The first hop.
		"claims changed":             {forge{hcl: func(b []byte) []byte { return bytes.Replace(b, []byte("VM-1"), []byte("VM-2"), 1) }}, attest.CodeLink},
		"key changed":                {forge{hcl: func(b []byte) []byte { i := bytes.Index(b, []byte(`"n":"`)); b[i+9] ^= 1; return b }}, attest.CodeLink},
		"report over other claims":   {forge{hardware: func(b []byte) { b[0x50] ^= 1 }}, attest.CodeLink},
		"report with more data":      {forge{hardware: func(b []byte) { b[0x8f] = 1 }}, attest.CodeLink},
		"report over no claims":      {forge{hardware: func(b []byte) { clear(b[0x50:0x70]) }}, attest.CodeLink},
		"report for the guest":       {forge{hardware: func(b []byte) { b[0x30] = 2 }}, attest.CodePrivilege},
		"report for nobody":          {forge{hardware: func(b []byte) { b[0x30] = 9 }}, attest.CodePrivilege},
		"quote over other claims":    {forge{tdx: true, tdQuote: flip(0)}, attest.CodeLink},
		"TDREPORT over other claims": {forge{tdx: true, hcl: flip(32 + 0x80)}, attest.CodeLink},
		"TDREPORT with more data":    {forge{tdx: true, hcl: flip(32 + 0xbf)}, attest.CodeLink},
		"MRTD of another":            {forge{tdx: true, tdQuote: flip(64)}, attest.CodeLink},
		"RTMR0 of another":           {forge{tdx: true, tdQuote: flip(64 + 48)}, attest.CodeLink},
		"RTMR1 of another":           {forge{tdx: true, tdQuote: flip(64 + 96)}, attest.CodeLink},
		"RTMR2 of another":           {forge{tdx: true, tdQuote: flip(64 + 144)}, attest.CodeLink},
		"RTMR3 of another":           {forge{tdx: true, tdQuote: flip(-1)}, attest.CodeLink},
		"no TDREPORT":                {forge{tdx: true, hardware: func(b []byte) { b[0] = 0 }}, attest.CodeMalformed},
		"TDREPORT too long":          {forge{tdx: true, hardware: func(b []byte) { b[1024] = 1 }}, attest.CodeMalformed},
		// The runtime claims, all of them signed.
		"no JSON":                  {forge{json: func([]byte) []byte { return []byte("x") }}, attest.CodeMalformed},
		"something behind":         {forge{json: func(b []byte) []byte { return append(b, "{}"...) }}, attest.CodeMalformed},
		"keys twice":               {forge{json: func(b []byte) []byte { return append([]byte(`{"keys":[],`), b[1:]...) }}, attest.CodeDuplicateField},
		"keys in two cases":        {forge{json: func(b []byte) []byte { return append([]byte(`{"Keys":[],`), b[1:]...) }}, attest.CodeMalformed},
		"modulus twice":            {forge{json: func(b []byte) []byte { return bytes.Replace(b, []byte(`"n":`), []byte(`"n":"","n":`), 1) }}, attest.CodeDuplicateField},
		"VM in another case":       {forge{json: func(b []byte) []byte { return bytes.Replace(b, []byte(`"vmUniqueId"`), []byte(`"vmuniqueid"`), 1) }}, attest.CodeMalformed},
		"unknown field":            {top("x", 1), attest.CodeMalformed},
		"unknown field of the key": {jwk("x", 1), attest.CodeMalformed},
		"no keys":                  {top("keys", []any{}), attest.CodeMalformed},
		"no HCLAkPub":              {jwk("kid", "HCLakPub"), attest.CodeMalformed},
		"two HCLAkPub":             {forge{runtime: func(m map[string]any) { m["keys"] = append(m["keys"].([]any), m["keys"].([]any)[0]) }}, attest.CodeDuplicateField},
		"no configuration":         {forge{runtime: func(m map[string]any) { delete(m, "vm-configuration") }}, attest.CodeMalformed},
		"configuration is text":    {top("vm-configuration", "x"), attest.CodeMalformed},
		"no VM":                    {top("vm-configuration", map[string]any{}), attest.CodeMalformed},
		"too deep":                 {top("vm-configuration", map[string]any{"vmUniqueId": "x", "a": []any{[]any{[]any{}}}}), attest.CodeMalformed},
		"key for encryption":       {jwk("key_ops", []string{"encrypt"}), attest.CodeSignerMismatch},
		"key for two things":       {jwk("key_ops", []string{"sign", "encrypt"}), attest.CodeSignerMismatch},
		"key for nothing":          {jwk("key_ops", nil), attest.CodeSignerMismatch},
		"EC key":                   {jwk("kty", "EC"), attest.CodeUnknownAlgorithm},
		"exponent 3":               {jwk("e", "Aw"), attest.CodeUnknownAlgorithm},
		"modulus in no base64":     {jwk("n", "###"), attest.CodeMalformed},
		"modulus of 3072 bits":     {forge{signer: k.long, jwk: func(m map[string]any) { m["n"] = base64.RawURLEncoding.EncodeToString(k.long.N.Bytes()) }}, attest.CodeUnknownAlgorithm},
		"modulus 0":                {jwk("n", ""), attest.CodeUnknownAlgorithm},
		// The second hop.
		"quote by another key": {forge{signer: k.other}, attest.CodeSignature},
		"quote by the EK":      {forge{tdx: true, signer: k.other}, attest.CodeSignature},
		"quote changed":        {forge{parts: func(p map[tpm.Part][]byte) { flip(50)(p[tpm.PartQuote]) }}, attest.CodeSignature},
		"signature changed":    {forge{parts: func(p map[tpm.Part][]byte) { flip(-1)(p[tpm.PartSignature]) }}, attest.CodeSignature},
		"PCR changed":          {forge{parts: func(p map[tpm.Part][]byte) { flip(0)(p[tpm.PartPCRs]) }}, attest.CodeSignature},
		"a PCR too many":       {forge{parts: func(p map[tpm.Part][]byte) { p[tpm.PartPCRs] = make([]byte, 96) }}, attest.CodeSelection},
		"quote over no PCR": {forge{message: func(b []byte) []byte {
			return bytes.Replace(b, []byte{0x0b, 3, 0x81, 0, 0}, []byte{0x0b, 3, 0, 0, 0}, 1)
		}}, attest.CodeSelection},
		"quote over no PCR, no values": {forge{
			message: func(b []byte) []byte {
				return bytes.Replace(b, []byte{0x0b, 3, 0x81, 0, 0}, []byte{0x0b, 3, 0, 0, 0}, 1)
			},
			parts: drop(tpm.PartPCRs),
		}, attest.CodeSelection},
		"SHA-1 bank": {forge{message: func(b []byte) []byte {
			return bytes.Replace(b, []byte{0x0b, 3, 0x81, 0, 0}, []byte{0x04, 3, 0x81, 0, 0}, 1)
		}}, attest.CodeUnknownAlgorithm},
		"no quote but a certificate": {forge{message: set(5, 0x17)}, attest.CodeMalformed},
		"not made by a TPM":          {forge{message: set(0, 0)}, attest.CodeMalformed},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			claims, err := verify(t, c.forge.make(t))
			if err := wants(err, c.code); err != nil || claims != nil {
				t.Error(err)
			}
		})
	}
	if len(cases) < 70 {
		t.Errorf("%d cases", len(cases))
	}
}

func TestTruncated(t *testing.T) {
	t.Parallel()
	for _, f := range []forge{{}, {tdx: true}} {
		ev := f.make(t)
		whole := ev.Raw
		for n := range whole {
			ev.Raw = whole[:n]
			if c, err := verify(t, ev); err == nil || c != nil || attest.CodeOf(err) == attest.CodeInternal {
				t.Fatalf("%d bytes: %v", n, err)
			}
		}
		hcl, _ := f.makeHCL()
		for n := range hcl {
			if _, err := azure.ParseHCL(hcl[:n]); attest.CodeOf(err) != attest.CodeMalformed {
				t.Fatalf("HCL report of %d bytes: %v", n, err)
			}
		}
	}
}

// Few bytes may change: those that neither hop signed. Of the hardware's own evidence the tests of its verifier speak.
func TestEveryByteCounts(t *testing.T) {
	t.Parallel()
	for _, f := range []forge{{version: 2}, {version: 2, tdx: true}} {
		ev := f.make(t)
		hcl, _ := f.makeHCL()
		start := bytes.Index(ev.Raw, []byte("HCLA"))
		free := map[int]bool{start + 4: true, start + 1236: true} // version 1 or 2, capabilities
		for at := range ev.Raw {
			if at >= start+32 && at < start+1216 || at >= start+len(hcl) && f.tdx {
				continue // the hardware's
			}
			for bit := range 8 {
				flipped := *ev
				flipped.Raw = bytes.Clone(ev.Raw)
				flipped.Raw[at] ^= 1 << bit
				if c, err := verify(t, &flipped); (err == nil || c != nil) && !free[at] || attest.CodeOf(err) == attest.CodeInternal {
					t.Fatalf("TDX %v, byte %d, bit %d: %v", f.tdx, at, bit, err)
				}
			}
		}
	}
}

func TestForeignFormats(t *testing.T) {
	t.Parallel()
	for _, f := range []forge{{}, {tdx: true}} {
		ev := f.make(t)
		other := azure.NewTDXVerifier(hardware("tdx"))
		if f.tdx {
			other = azure.NewSNPVerifier(hardware("snp"))
		}
		if _, err := other.Verify(t.Context(), ev, nil, epoch); !errors.Is(err, attest.ErrNotMine) {
			t.Error(err)
		}
	}
	for _, ev := range []*attest.Evidence{nil, {Format: azure.FormatSNP}} {
		if _, err := azure.NewSNPVerifier(hardware("snp")).Verify(t.Context(), ev, nil, epoch); attest.CodeOf(err) != attest.CodeNoEvidence {
			t.Error(err)
		}
	}
}

func TestPack(t *testing.T) {
	t.Parallel()
	f := forge{tdx: true}
	ev := f.make(t)
	hcl, room := f.makeHCL()
	message, signature, values := f.makeQuote()
	files := func() map[string][]byte {
		return map[string][]byte{
			"hcl": append(bytes.Clone(hcl), make([]byte, 300)...), "tpm-quote": message, "tpm-signature": signature[6:], "pcrs": values,
			"td-quote": append(bytes.Clone(room[0x80:0xc0]), registers()...),
		}
	}
	raw, err := azure.Pack(files())
	if err != nil || !bytes.Equal(raw, ev.Raw) {
		t.Errorf("%x, %v", raw, err)
	}
	whole := files()
	whole["tpm-signature"], whole["hcl"] = signature, hcl
	if raw, err := azure.Pack(whole); err != nil || !bytes.Equal(raw, ev.Raw) {
		t.Errorf("%x, %v", raw, err)
	}
	// What is no padded HCL report is packed as it is, and refused later.
	for name, hook := range map[string]func(map[string][]byte){
		"no HCL report":   func(m map[string][]byte) { delete(m, "hcl") },
		"HCL cut off":     func(m map[string][]byte) { m["hcl"] = m["hcl"][:1300] },
		"HCL and more":    func(m map[string][]byte) { m["hcl"] = append(m["hcl"], 1) },
		"header cut off":  func(m map[string][]byte) { m["hcl"] = m["hcl"][:31] },
		"header too long": func(m map[string][]byte) { copy(m["hcl"][8:], []byte{255, 255, 255, 255}) },
	} {
		m := files()
		hook(m)
		raw, err := azure.Pack(m)
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		spoilt := *ev
		spoilt.Raw = raw
		if _, err := verify(t, &spoilt); attest.CodeOf(err) != attest.CodeMalformed {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, c := range map[string]struct {
		hook func(map[string][]byte)
		code attest.Code
	}{
		"unknown file": {func(m map[string][]byte) { m["x"] = nil }, attest.CodeUsage},
		"oversize":     {func(m map[string][]byte) { m["td-quote"] = make([]byte, attest.MaxRaw) }, attest.CodeOversized},
	} {
		m := files()
		c.hook(m)
		if raw, err := azure.Pack(m); attest.CodeOf(err) != c.code || raw != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEventLog(t *testing.T) {
	t.Parallel()
	ev := forge{}.make(t)
	ev.EventLog = []byte("x")
	if _, err := verify(t, ev); attest.CodeOf(err) != attest.CodeMalformed {
		t.Error(err)
	}
}

func TestInspection(t *testing.T) {
	t.Parallel()
	d, err := azure.Parse(azure.FormatTDX, forge{tdx: true}.make(t).Raw)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"hardware_report":"8100`, `"td_quote":"`, `HCLAkPub`, `"pcr7":"0808`, `"signature":"RSASSA with SHA-256"`} {
		if !strings.Contains(string(raw), want) {
			t.Errorf("%s is not in %s", want, raw)
		}
	}
}
