package snp

import (
	"encoding/json"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

// TestParseAlone: what a certificate would contradict as well is refused without one, too.
func TestParseAlone(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		change map[int]byte
		code   attest.Code
	}{
		"good":                         {nil, ""},
		"VLEK":                         {map[int]byte{0x48: 1 << 2}, ""},
		"unknown signing key":          {map[int]byte{0x48: 2 << 2}, attest.CodeSignerMismatch},
		"reserved byte of TCB":         {map[int]byte{0x182: 1}, attest.CodeReservedBits},
		"reserved byte of current TCB": {map[int]byte{0x3a: 1}, attest.CodeReservedBits},
		"reserved byte of Turin":       {map[int]byte{0x188: 0x1a, 0x186: 1}, attest.CodeReservedBits},
		"long chip id of Turin":        {map[int]byte{0x188: 0x1a, 0x1df: 1}, attest.CodeReservedBits},
		"unknown product":              {map[int]byte{0x189: 0x50}, attest.CodeUnknownProduct},
	} {
		raw := firmware([]byte("data"))
		for at, v := range c.change {
			raw[at] = v
		}
		r, err := Parse(raw)
		if attest.CodeOf(err) != c.code || (r == nil) != (err != nil) {
			t.Errorf("%s: %v, %v", name, r, err)
		}
	}
}

func TestReportJSON(t *testing.T) {
	t.Parallel()
	r, err := Parse(firmware([]byte("data")))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got["product"] != "EPYC Milan" || got["reported_tcb"] != "0000000000000000" || got["signing_key"] != "VCEK" || got["report_data"].(string)[:8] != "64617461" {
		t.Errorf("%s", raw)
	}
}
