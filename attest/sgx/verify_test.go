package sgx_test

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/test/dcapforge"
)

// forge makes evidence of SGX.
func forge(f dcapforge.Forge) dcapforge.Forge {
	f.SGX = true
	return f
}

func body(hook func([]byte)) dcapforge.Forge { return forge(dcapforge.Forge{Body: hook}) }

func verify(t testing.TB, m dcapforge.Made) (*attest.Claims, error) {
	t.Helper()
	m.Evidence.Format = sgx.Format
	return sgx.NewVerifier(m.Roots).Verify(t.Context(), m.Evidence, nil, dcapforge.Epoch)
}

// wants checks that err is a complete *attest.Error with this code.
func wants(err error, code attest.Code) error {
	if attest.CodeOf(err) != code {
		return fmt.Errorf("got %q (%w), want %q (%s)", attest.CodeOf(err), err, code, code.Title())
	}
	if e, ok := err.(*attest.Error); code != "" && (!ok || e.Check == "") {
		return fmt.Errorf("%#v names no check", err)
	}
	return nil
}

func TestClaims(t *testing.T) {
	t.Parallel()
	for _, f := range []dcapforge.Forge{forge(dcapforge.Forge{}), forge(dcapforge.Forge{Processor: true}), forge(dcapforge.Forge{Raw: openEnclave})} {
		c, err := verify(t, f.Make(t))
		if err != nil {
			t.Fatal(err)
		}
		if c.Vendor != "intel" || c.TEE != "sgx" || c.Generation != "emerald-rapids" || c.TCBStatus != "UpToDate" || c.Version != 3 || c.Debug != attest.Off || c.Migratable != attest.Off || c.Folded || c.Simulated {
			t.Errorf("%+v", c)
		}
		var data attest.ReportData
		copy(data[:], "report data")
		data[63] = 1
		if c.ReportData != data {
			t.Errorf("report data %x", c.ReportData)
		}
		if len(c.Measured) != 2 || !slices.Equal(c.Measured["launch"], slices.Repeat([]byte{0x11}, 32)) || !slices.Equal(c.Measured["signer"], slices.Repeat([]byte{0x12}, 32)) {
			t.Errorf("measured %v", c.Measured)
		}
		if want := map[string]uint64{"isv_prod_id": 7, "isv_svn": 8, "config_svn": 9, "misc_select": 0, "xfrm": 0xe7, "sgx_type": 1}; !maps.Equal(c.Numbers, want) {
			t.Errorf("numbers %v", c.Numbers)
		}
		want := map[string]attest.Flag{
			"mode64bit": attest.On, "provision_key": attest.Off, "einittoken_key": attest.Off, "cet": attest.Off, "kss": attest.Off, "aex_notify": attest.Off,
		}
		if !f.Processor {
			maps.Copy(want, map[string]attest.Flag{"smt": attest.On, "cached_keys": attest.Off, "dynamic_platform": attest.On})
		}
		if !maps.Equal(c.Platform, want) {
			t.Errorf("%v", c.Platform)
		}
		if len(c.Checks) != 8 || len(c.NotChecked) != 1 {
			t.Errorf("%d checks, not checked: %v", len(c.Checks), c.NotChecked)
		}
	}
	c, err := verify(t, body(func(b []byte) { b[16], b[32], b[192], b[304] = 1, 2, 3, 4 }).Make(t))
	if err != nil || c.Numbers["misc_select"] != 1 {
		t.Fatalf("%+v, %v", c, err)
	}
	for name, want := range map[string]struct {
		first byte
		size  int
	}{"isv_ext_prod_id": {2, 16}, "config_id": {3, 64}, "isv_family_id": {4, 16}} {
		if got := c.Measured[name]; len(got) != want.size || got[0] != want.first {
			t.Errorf("%s is %x", name, got)
		}
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	names := map[uint]string{2: "mode64bit", 4: "provision_key", 5: "einittoken_key", 6: "cet", 7: "kss", 10: "aex_notify"}
	for bit := range uint(64) {
		c, err := verify(t, body(func(b []byte) { binary.LittleEndian.PutUint64(b[48:], 1|1<<bit) }).Make(t))
		name, known := names[bit]
		switch {
		case bit == 0 || bit == 1:
			if err != nil || (c.Debug == attest.On) != (bit == 1) {
				t.Errorf("bit %d: %+v, %v", bit, c, err)
			}
		case known:
			if err != nil || c.Platform[name] != attest.On || c.Debug != attest.Off {
				t.Errorf("bit %d: %+v, %v", bit, c, err)
			}
		case attest.CodeOf(err) != attest.CodeReservedBits:
			t.Errorf("bit %d: %v", bit, err)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	set := func(at int) dcapforge.Forge { return body(func(b []byte) { b[at] = 1 }) }
	raw := func(change func([]byte) []byte) dcapforge.Forge {
		return forge(dcapforge.Forge{Raw: func(b []byte) []byte { return change(openEnclave(b)) }})
	}
	for name, c := range map[string]struct {
		forge dcapforge.Forge
		code  attest.Code
	}{
		"a quote of TDX":                 {dcapforge.Forge{}, attest.CodeUnknownFormat},
		"not initialised":                {body(func(b []byte) { b[48] = 4 }), attest.CodeReservedBits},
		"reserved byte 20":               {set(20), attest.CodeReservedBits},
		"reserved byte 31":               {set(31), attest.CodeReservedBits},
		"reserved byte 96":               {set(96), attest.CodeReservedBits},
		"reserved byte 127":              {set(127), attest.CodeReservedBits},
		"reserved byte 160":              {set(160), attest.CodeReservedBits},
		"reserved byte 191":              {set(191), attest.CodeReservedBits},
		"reserved byte 262":              {set(262), attest.CodeReservedBits},
		"reserved byte 303":              {set(303), attest.CodeReservedBits},
		"a changed quote":                {forge(dcapforge.Forge{Raw: func(b []byte) []byte { b[48+383] ^= 2; return b }}), attest.CodeSignature},
		"Open Enclave, local report":     {raw(func(b []byte) []byte { b[4] = 1; return b }), attest.CodeUnknownVersion},
		"Open Enclave, version 2":        {raw(func(b []byte) []byte { b[0] = 2; return b }), attest.CodeUnknownVersion},
		"Open Enclave, size too small":   {raw(func(b []byte) []byte { b[8]--; return b }), attest.CodeMalformed},
		"Open Enclave, size too large":   {raw(func(b []byte) []byte { b[15] = 1; return b }), attest.CodeMalformed},
		"Open Enclave, bytes after":      {raw(func(b []byte) []byte { return append(b, 0) }), attest.CodeMalformed},
		"Open Enclave, header alone":     {raw(func(b []byte) []byte { clear(b[8:16]); return b[:16] }), attest.CodeMalformed},
		"Open Enclave, header cut short": {raw(func(b []byte) []byte { return b[:15] }), attest.CodeMalformed},
		"Open Enclave twice":             {raw(openEnclave), attest.CodeUnknownVersion},
		"no collateral":                  {forge(dcapforge.Forge{Staple: func([]attest.Endorsement) []attest.Endorsement { return nil }}), attest.CodeEndorsementMissing},
	} {
		got, err := verify(t, c.forge.Make(t))
		if bad := wants(err, c.code); bad != nil || got != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
	m := forge(dcapforge.Forge{}).Make(t)
	m.Evidence.EventLog = []byte{1}
	if got, err := verify(t, m); wants(err, attest.CodeEventLog) != nil || got != nil {
		t.Errorf("with an event log: %v", err)
	}
	v := sgx.NewVerifier(nil)
	for name, c := range map[string]struct {
		ev   *attest.Evidence
		code attest.Code
	}{
		"nil":      {nil, attest.CodeNoEvidence},
		"empty":    {&attest.Evidence{Format: sgx.Format}, attest.CodeNoEvidence},
		"no roots": {&attest.Evidence{Format: sgx.Format, Raw: m.Evidence.Raw, Endorsements: m.Evidence.Endorsements}, attest.CodeUntrustedRoot},
		"one byte": {&attest.Evidence{Format: sgx.Format, Raw: []byte{1}}, attest.CodeMalformed},
	} {
		got, err := v.Verify(t.Context(), c.ev, nil, dcapforge.Epoch)
		if bad := wants(err, c.code); bad != nil || got != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
	if _, err := v.Verify(t.Context(), &attest.Evidence{Format: "tdx", Raw: m.Evidence.Raw}, nil, dcapforge.Epoch); err != attest.ErrNotMine {
		t.Errorf("evidence of another format: %v", err)
	}
}

// Decoding a quote for people shows what is in it.
func TestReportJSON(t *testing.T) {
	t.Parallel()
	r, err := sgx.Parse(openEnclave(forge(dcapforge.Forge{}).Make(t).Evidence.Raw))
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"version":3`, `"open_enclave":true`, `"cpu_svn":"0303020204010005`, `"misc_select":0`, `"isv_ext_prod_id":"0000`, `"attributes":5`, `"xfrm":231`, `"mrenclave":"1111`, `"mrsigner":"1212`,
		`"config_id":"0000`, `"isv_prod_id":7`, `"isv_svn":8`, `"config_svn":9`, `"isv_family_id":"0000`, `"report_data":"7265706f72742064617461`,
	} {
		if !strings.Contains(string(out), want) {
			t.Errorf("no %s in %s", want, out)
		}
	}
}

// noted answers nothing, and notes what it was asked.
type noted []attest.Ref

func (n *noted) Endorse(_ context.Context, ref attest.Ref) ([]attest.Endorsement, error) {
	*n = append(*n, ref)
	return nil, errors.New("down")
}

func TestStaple(t *testing.T) {
	t.Parallel()
	m := forge(dcapforge.Forge{}).Make(t)
	var asked noted
	ev, err := sgx.Staple(t.Context(), &attest.Evidence{Format: sgx.Format, Raw: m.Evidence.Raw}, &asked)
	if attest.CodeOf(err) != attest.CodeEndorserUnreachable || len(asked) != 4 || asked[0].Path != "/sgx/certification/v4/tcb?fmspc=b0c06f000000" || ev.Format != sgx.Format {
		t.Errorf("%v, asked %v", err, asked)
	}
	broken := &attest.Evidence{Raw: []byte{1}}
	if ev, err := sgx.Staple(t.Context(), broken, &asked); attest.CodeOf(err) != attest.CodeMalformed || ev != broken {
		t.Error(err)
	}
}
