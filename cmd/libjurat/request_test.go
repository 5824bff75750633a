package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

const anyPolicy = `policy: any
platforms: {allow: [amd *]}
workload: {measurement: any, debug: any, privilege: 3, migration: any}
binding: none
`

var noon = time.Date(2026, 11, 1, 12, 0, 0, 0, time.UTC)

func clock() time.Time { return noon }

// answered holds every answer to what jurat.h says of it, and gives the code in it.
func answered(t *testing.T, code int, raw []byte) attest.Code {
	t.Helper()
	var v struct {
		Verdict *string
		Code    attest.Code
		Error   *struct{ Code attest.Code }
	}
	if err := json.Unmarshal(raw, &v); err != nil || raw[len(raw)-1] != '\n' {
		t.Fatalf("%v: %q", err, raw)
	}
	switch {
	case (v.Verdict == nil) == (v.Error == nil):
		t.Fatalf("neither or both of a verdict and an error: %s", raw)
	case v.Error != nil && (code != v.Error.Code.Exit() || code == 0):
		t.Fatalf("code %d with %s", code, raw)
	case v.Error != nil:
		return v.Error.Code
	case (code == 0) != (*v.Verdict == "affirmed"):
		t.Fatalf("code %d with %s", code, raw)
	}
	return v.Code
}

func TestAPanicIsAnAnswer(t *testing.T) {
	code, raw := contained(func() (int, []byte) { panic("oops") })
	if got := answered(t, code, raw); got != attest.CodeInternal || code != 1 {
		t.Errorf("%d, %s", code, raw)
	}
	code, raw = contained(func() (int, []byte) { return 6, []byte("x") })
	if code != 6 || string(raw) != "x" {
		t.Errorf("%d, %s", code, raw)
	}
}

func TestRequest(t *testing.T) {
	bare := func(change func(*request)) *request {
		r := &request{evidence: []byte("x"), format: "snp", policy: []byte(anyPolicy), time: "2026-11-01T00:00:00Z", anyReportData: true}
		change(r)
		return r
	}
	chain := func(change func(*request)) *request {
		r := &request{chain: []byte("x"), target: "a.example:443", policy: []byte(anyPolicy), time: "2026-11-01T00:00:00Z"}
		change(r)
		return r
	}
	recorded := func(change func(*request)) *request {
		r := &request{record: []byte(`{"jurat":1,"time":"2026-10-01T00:00:00Z","target":"x","evidence":{"format":"snp","raw":"eA=="}}`), policy: []byte(anyPolicy), anyReportData: true}
		change(r)
		return r
	}
	usage := attest.CodeConfigValue
	for name, c := range map[string]struct {
		r    *request
		want attest.Code
	}{
		"nothing":              {&request{}, usage},
		"evidence":             {bare(func(*request) {}), attest.CodeMalformed},
		"no policy":            {bare(func(r *request) { r.policy = nil }), usage},
		"no time":              {bare(func(r *request) { r.time = "" }), usage},
		"time, a date":         {bare(func(r *request) { r.time = "2026-11-01" }), usage},
		"time zero":            {bare(func(r *request) { r.time = "0001-01-01T00:00:00Z" }), usage},
		"time after all years": {bare(func(r *request) { r.time = "9999-12-31T23:59:59-12:00" }), usage},
		"time before them":     {bare(func(r *request) { r.time = "0000-01-01T00:00:00+12:00" }), usage},
		"no format":            {bare(func(r *request) { r.format = "" }), usage},
		"another format":       {bare(func(r *request) { r.format = "snq" }), usage},
		"both inputs":          {bare(func(r *request) { r.record = []byte("{}") }), usage},
		"no expectation":       {bare(func(r *request) { r.anyReportData = false }), usage},
		"two expectations":     {bare(func(r *request) { r.reportData = make([]byte, 64) }), usage},
		"short report data":    {bare(func(r *request) { r.anyReportData, r.reportData = false, []byte("x") }), usage},
		"report data of zeros": {bare(func(r *request) { r.anyReportData, r.reportData = false, make([]byte, 64) }), usage},
		"parts of one file":    {bare(func(r *request) { r.parts = map[string][]byte{"a": {1}} }), usage},
		"a log of nothing":     {bare(func(r *request) { r.eventLog = []byte("x") }), usage},
		"stapled junk":         {bare(func(r *request) { r.stapled = [][]byte{[]byte("junk")} }), attest.CodeMalformedEndorsement},
		"binding none":         {bare(func(r *request) { r.unsafeBinding = "none" }), usage},
		"no such directory":    {bare(func(r *request) { r.endorsements = "/nowhere/at/all" }), attest.CodeConfigValue},
		"a policy that names files": {bare(func(r *request) {
			r.policy = []byte(strings.Replace(anyPolicy, "measurement: any", "measurement: {file: x}", 1))
		}), attest.CodeConfigValue},
		"chain of junk":          {chain(func(*request) {}), attest.CodeMalformedCertificate},
		"chain without target":   {chain(func(r *request) { r.target = "" }), usage},
		"chain of a host alone":  {chain(func(r *request) { r.chain, r.target = selfSigned(t), "a.example" }), usage},
		"chain without evidence": {chain(func(r *request) { r.chain = selfSigned(t) }), attest.CodeNoEvidence},
		"chain and report data":  {chain(func(r *request) { r.reportData = make([]byte, 64) }), usage},
		"chain and any":          {chain(func(r *request) { r.anyReportData = true }), usage},
		"chain and stapled":      {chain(func(r *request) { r.stapled = [][]byte{{1}} }), usage},
		"chain and format":       {chain(func(r *request) { r.format = "snp" }), usage},
		"record":                 {recorded(func(*request) {}), attest.CodeMalformed},
		"record and format":      {recorded(func(r *request) { r.format = "snp" }), usage},
		"record and log":         {recorded(func(r *request) { r.eventLog = []byte("x") }), usage},
		"record without word":    {recorded(func(r *request) { r.anyReportData = false }), usage},
		"record and certificate": {recorded(func(r *request) { r.stapled = [][]byte{selfSigned(t)} }), usage},
		"record after all years": {recorded(func(r *request) {
			r.record = []byte(strings.Replace(string(r.record), "2026-10-01T00:00:00Z", "9999-12-31T23:59:59-12:00", 1))
		}), attest.CodeMalformedRecord},
		"record of junk": {recorded(func(r *request) { r.record = []byte("{}") }), attest.CodeMalformedRecord},
	} {
		t.Run(name, func(t *testing.T) {
			code, raw := c.r.answer(clock)
			if got := answered(t, code, raw); got != c.want {
				t.Errorf("%s, want %s: %s", got, c.want, raw)
			}
		})
	}
}

// A verdict is at the time that was asked for; of a record, at its own; and now where there is none.
func TestTimeOfAVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		record, time, want string
	}{
		"its own":      {`{"jurat":1,"time":"2026-10-01T00:00:00Z","target":"x","evidence":{"format":"snp","raw":"eA=="}}`, "", "2026-10-01T00:00:00Z"},
		"another":      {`{"jurat":1,"time":"2026-10-01T00:00:00Z","target":"x","evidence":{"format":"snp","raw":"eA=="}}`, "2026-09-01T01:00:00+01:00", "2026-09-01T00:00:00Z"},
		"none":         {"{}", "", noon.Format(time.RFC3339)},
		"none, and at": {"{}", "2026-09-01T00:00:00Z", "2026-09-01T00:00:00Z"},
	} {
		r := &request{record: []byte(c.record), time: c.time, policy: []byte(anyPolicy), anyReportData: true}
		_, raw := r.answer(clock)
		var v struct{ Time string }
		if err := json.Unmarshal(raw, &v); err != nil || v.Time != c.want {
			t.Errorf("%s: %q, want %q (%v)", name, v.Time, c.want, err)
		}
	}
}

func FuzzAnswer(f *testing.F) {
	f.Add(uint8(0), []byte(`{"jurat":1,"time":"2026-10-01T00:00:00Z","target":"x","evidence":{"format":"snp","raw":"eA=="}}`), "x", "snp", []byte(anyPolicy))
	f.Add(uint8(1), selfSigned(f), "a.example:443", "", []byte(anyPolicy))
	f.Add(uint8(2), []byte("HCLA"), "", "azure-snp", []byte(anyPolicy))
	f.Fuzz(func(t *testing.T, kind uint8, input []byte, target, format string, policy []byte) {
		r := &request{target: target, time: "2026-11-01T00:00:00Z", policy: policy}
		switch kind % 3 {
		case 0:
			r.record, r.anyReportData = input, kind&4 != 0
		case 1:
			r.chain = input
		case 2:
			r.evidence, r.format, r.anyReportData = input, format, true
		}
		code, raw := r.answer(clock) // uncontained: a panic is to be seen
		answered(t, code, raw)
	})
}
