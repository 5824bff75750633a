package tdx_test

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
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/test/dcapforge"
)

type forge = dcapforge.Forge

var kinds = map[string]forge{
	"version 4":          {},
	"TDX 1.0, version 5": {Version: 5},
	"TDX 1.5, version 5": {Version: 5, TD15: true},
}

func verify(t testing.TB, m dcapforge.Made) (*attest.Claims, error) {
	t.Helper()
	m.Evidence.Format = tdx.Format
	return tdx.NewVerifier(m.Roots).Verify(t.Context(), m.Evidence, nil, dcapforge.Epoch)
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

func attributes(bits ...uint) func([]byte) {
	return func(b []byte) {
		var v uint64
		for _, bit := range bits {
			v |= 1 << bit
		}
		binary.LittleEndian.PutUint64(b[120:], v)
	}
}

func TestClaims(t *testing.T) {
	t.Parallel()
	for name, f := range kinds {
		c, err := verify(t, f.Make(t))
		if err != nil {
			t.Fatal(name, err)
		}
		if c.Vendor != "intel" || c.TEE != "tdx" || c.Generation != "emerald-rapids" || c.TCBStatus != "UpToDate" || c.Debug != attest.Off || c.Migratable != attest.Off || c.Folded || c.Simulated || c.Privilege != nil {
			t.Errorf("%s: %+v", name, c)
		}
		var data attest.ReportData
		copy(data[:], "report data")
		data[63] = 1
		if c.ReportData != data {
			t.Errorf("%s: report data %x", name, c.ReportData)
		}
		want := map[string]byte{"launch": 0x22, "mrseam": 0x21, "rtmr0": 0x30, "rtmr1": 0x31, "rtmr2": 0x32, "rtmr3": 0x33}
		if len(c.Measured) != len(want) {
			t.Errorf("%s: measured %v", name, c.Measured)
		}
		for register, fill := range want {
			if !slices.Equal(c.Measured[register], slices.Repeat([]byte{fill}, 48)) {
				t.Errorf("%s: %s is %x", name, register, c.Measured[register])
			}
		}
		if c.Numbers["xfam"] != 0xe7 {
			t.Errorf("%s: %v", name, c.Numbers)
		}
		flags := map[string]attest.Flag{
			"smt": attest.On, "cached_keys": attest.Off, "dynamic_platform": attest.On,
			"sept_ve_disable": attest.On, "pks": attest.Off, "key_locker": attest.Off, "perfmon": attest.Off,
		}
		if !maps.Equal(c.Platform, flags) {
			t.Errorf("%s: %v", name, c.Platform)
		}
		if len(c.Checks) != 9 || len(c.NotChecked) != 2 {
			t.Errorf("%s: %d checks, not checked: %v", name, len(c.Checks), c.NotChecked)
		}
	}
}

func TestAttributes(t *testing.T) {
	t.Parallel()
	for _, bit := range []uint{0, 4, 5, 6} {
		if c, err := verify(t, forge{Body: attributes(bit)}.Make(t)); err != nil || c.Debug != attest.On || c.Migratable != attest.Off {
			t.Errorf("bit %d: %+v, %v", bit, c, err)
		}
	}
	if c, err := verify(t, forge{Body: attributes(29)}.Make(t)); err != nil || c.Migratable != attest.On || c.Debug != attest.Off {
		t.Errorf("%+v, %v", c, err)
	}
	names := map[uint]string{16: "icssd", 27: "lass", 28: "sept_ve_disable", 30: "pks", 31: "key_locker", 62: "tpa", 63: "perfmon"}
	always := []uint{28, 30, 31, 63}
	for bit, name := range names {
		c, err := verify(t, forge{Body: attributes(bit)}.Make(t))
		if err != nil || c.Platform[name] != attest.On || c.Debug != attest.Off {
			t.Errorf("bit %d: %+v, %v", bit, c, err)
			continue
		}
		for other, name := range names {
			want := attest.Absent
			if slices.Contains(always, other) {
				want = attest.Off
			}
			if other != bit && c.Platform[name] != want {
				t.Errorf("bit %d: %s is %s", bit, name, c.Platform[name])
			}
		}
	}
	// Every other bit refuses.
	for bit := range uint(64) {
		if _, known := names[bit]; known || slices.Contains([]uint{0, 4, 5, 6, 29}, bit) {
			continue
		}
		if _, err := verify(t, forge{Body: attributes(bit)}.Make(t)); attest.CodeOf(err) != attest.CodeReservedBits {
			t.Errorf("bit %d: %v", bit, err)
		}
	}
}

func TestMeasured(t *testing.T) {
	t.Parallel()
	c, err := verify(t, forge{Body: func(b []byte) {
		for i, at := range []int{184, 232, 280} {
			b[at] = byte(i + 1)
		}
	}}.Make(t))
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range []string{"mrconfigid", "mrowner", "mrownerconfig"} {
		if len(c.Measured[name]) != 48 || c.Measured[name][0] != byte(i+1) {
			t.Errorf("%s is %x", name, c.Measured[name])
		}
	}
	// A signer of the module other than Intel, should Intel ever name one.
	signer := strings.Repeat("07", 48)
	c, err = verify(t, forge{
		Body: func(b []byte) { copy(b[64:112], slices.Repeat([]byte{7}, 48)) },
		Info: func(m map[string]any) {
			m["tdxModuleIdentities"].([]any)[1].(map[string]any)["mrsigner"] = signer
		},
	}.Make(t))
	if err != nil || c.Measured["mrsignerseam"].String() != signer {
		t.Errorf("%+v, %v", c, err)
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		forge forge
		code  attest.Code
	}{
		"a quote of SGX":          {forge{SGX: true}, attest.CodeUnknownFormat},
		"SEAMATTRIBUTES":          {forge{Body: func(b []byte) { b[119] = 1 }}, attest.CodeReservedBits},
		"a service TD":            {forge{Version: 5, TD15: true, Body: func(b []byte) { b[600] = 1 }}, attest.CodeReservedBits},
		"a service TD, last byte": {forge{Version: 5, TD15: true, Body: func(b []byte) { b[647] = 1 }}, attest.CodeReservedBits},
		"a quote that ends early": {forge{Raw: func(b []byte) []byte { return b[:600] }}, attest.CodeMalformed},
		"a changed quote":         {forge{Raw: func(b []byte) []byte { b[48+583] ^= 1; return b }}, attest.CodeSignature},
		"a service TD, no collateral": {forge{
			Version: 5, TD15: true, Body: func(b []byte) { b[600] = 1 },
			Staple: func([]attest.Endorsement) []attest.Endorsement { return nil },
		}, attest.CodeEndorsementMissing},
	} {
		got, err := verify(t, c.forge.Make(t))
		if bad := wants(err, c.code); bad != nil || got != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
	v := tdx.NewVerifier(nil)
	m := forge{}.Make(t)
	for name, c := range map[string]struct {
		ev   *attest.Evidence
		code attest.Code
	}{
		"nil":        {nil, attest.CodeNoEvidence},
		"empty":      {&attest.Evidence{Format: tdx.Format}, attest.CodeNoEvidence},
		"no roots":   {&attest.Evidence{Format: tdx.Format, Raw: m.Evidence.Raw, Endorsements: m.Evidence.Endorsements}, attest.CodeUntrustedRoot},
		"one byte":   {&attest.Evidence{Format: tdx.Format, Raw: []byte{4}}, attest.CodeMalformed},
		"other root": {&attest.Evidence{Format: tdx.Format, Raw: forge{}.Make(t).Evidence.Raw}, attest.CodeUntrustedRoot},
	} {
		got, err := v.Verify(t.Context(), c.ev, nil, dcapforge.Epoch)
		if bad := wants(err, c.code); bad != nil || got != nil {
			t.Errorf("%s: %v", name, bad)
		}
	}
	if _, err := v.Verify(t.Context(), &attest.Evidence{Format: "sgx", Raw: m.Evidence.Raw}, nil, dcapforge.Epoch); err != attest.ErrNotMine {
		t.Errorf("evidence of another format: %v", err)
	}
}

// Decoding a quote for people shows what is in it.
func TestReportJSON(t *testing.T) {
	t.Parallel()
	r, err := tdx.Parse(forge{Version: 5, TD15: true, Body: func(b []byte) { b[600] = 9 }}.Make(t).Evidence.Raw)
	if err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`"version":5`, `"tee_tcb_svn":"06010300`, `"mrtd":"2222`, `"rtmr":["3030`, `"attributes":268435456`, `"xfam":231`, `"report_data":"7265706f72742064617461`,
		`"tee_tcb_svn2":"06010300`, `"mrservicetd":"0900`, `"mrseam":"2121`, `"mrsignerseam":"0000`, `"mrconfigid":"0000`, `"mrowner":"0000`, `"mrownerconfig":"0000`,
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
	m := forge{}.Make(t)
	var asked noted
	ev, err := tdx.Staple(t.Context(), &attest.Evidence{Format: tdx.Format, Raw: m.Evidence.Raw}, &asked)
	if attest.CodeOf(err) != attest.CodeEndorserUnreachable || len(asked) != 4 || asked[0].Path != "/tdx/certification/v4/tcb?fmspc=b0c06f000000" || ev.Format != tdx.Format {
		t.Errorf("%v, asked %v", err, asked)
	}
	broken := &attest.Evidence{Raw: []byte{1}}
	if ev, err := tdx.Staple(t.Context(), broken, &asked); attest.CodeOf(err) != attest.CodeMalformed || ev != broken {
		t.Error(err)
	}
}
