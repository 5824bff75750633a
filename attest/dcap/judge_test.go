package dcap_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/test/dcapforge"
)

const (
	utd  = dcap.UpToDate
	swh  = dcap.SWHardeningNeeded
	cfg  = dcap.ConfigurationNeeded
	cs   = dcap.ConfigurationAndSWHardeningNeeded
	ood  = dcap.OutOfDate
	oodc = dcap.OutOfDateConfigurationNeeded
	rev  = dcap.Revoked
)

// converged is the table of Intel's library: what a platform's status becomes beside a component that is out of date.
var converged = map[dcap.Status]dcap.Status{utd: ood, swh: ood, cfg: oodc, cs: oodc, ood: ood, oodc: oodc}

// TestStatuses has every status of the platform, of the TDX module and of the quoting enclave beside one another.
func TestStatuses(t *testing.T) {
	t.Parallel()
	platform := []dcap.Status{utd, swh, cfg, cs, ood, oodc, rev}
	component := []dcap.Status{utd, ood, rev}
	cases := 0
	for kind, base := range kinds {
		modules := component
		if base.SGX {
			modules = component[:1]
		}
		for _, p := range platform {
			for _, m := range modules {
				for _, q := range component {
					cases++
					want := p
					if m == ood {
						want = converged[want]
					}
					if q == ood {
						want = converged[want]
					}
					if p == rev || m == rev || q == rev {
						want = rev
					}
					f := base
					// The module runs as it was launched, so that nothing advises a relaunch.
					f.Info = func(in map[string]any) {
						l := in["tcbLevels"].([]any)[0].(map[string]any)
						l["tcbStatus"], l["advisoryIDs"] = string(p), []string{"platform", "shared"}
						if !base.SGX {
							in["tdxModuleIdentities"] = []any{dcapforge.Module("TDX_01", dcapforge.ISVLevel(7, "UpToDate"), dcapforge.ISVLevel(4, string(m), "module", "shared"))}
						}
					}
					f.Identity = set("tcbLevels", []any{dcapforge.ISVLevel(4, string(q), "qe", "shared")})
					v, err := verify(t, f.Make(t), nil)
					name := fmt.Sprintf("%s: platform %s, module %s, QE %s", kind, p, m, q)
					if want == rev {
						if bad := wants(err, attest.CodeTCBRevoked); bad != nil || v != nil {
							t.Errorf("%s: %v", name, bad)
						}
						continue
					}
					if err != nil {
						t.Errorf("%s: %v", name, err)
						continue
					}
					advisories := []string{"platform", "shared", "qe"}
					if !base.SGX {
						advisories = append(advisories, "module")
					}
					slices.Sort(advisories)
					got := slices.Clone(v.Advisories)
					slices.Sort(got)
					if v.Status != want || !slices.Equal(got, advisories) {
						t.Errorf("%s: %s %v, want %s %v", name, v.Status, v.Advisories, want, advisories)
					}
				}
			}
		}
	}
	if cases != 7*3+3*7*9 {
		t.Errorf("%d cases", cases)
	}
}

// The level chosen is the highest that is reached, by every component, the PCE and the module's number.
func TestLevels(t *testing.T) {
	t.Parallel()
	c := dcapforge.Components
	above := func(i int) []byte {
		up := c
		up[i]++
		return up[:]
	}
	tdx := func(i int, svn byte) []byte {
		level := []byte{5, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
		level[i] = svn
		return level
	}
	low := dcapforge.Level([]byte{0}, []byte{0}, 0, "OutOfDate")
	for name, l := range map[string]struct {
		level   map[string]any
		reached bool
	}{
		"all equal":        {dcapforge.Level(c[:], dcapforge.TDXSVN[:], dcapforge.PCESVN, "UpToDate"), true},
		"PCE above":        {dcapforge.Level(c[:], dcapforge.TDXSVN[:], dcapforge.PCESVN+1, "UpToDate"), false},
		"component 1":      {dcapforge.Level(above(0), dcapforge.TDXSVN[:], 1, "UpToDate"), false},
		"component 8":      {dcapforge.Level(above(7), dcapforge.TDXSVN[:], 1, "UpToDate"), false},
		"component 16":     {dcapforge.Level(above(15), dcapforge.TDXSVN[:], 1, "UpToDate"), false},
		"TDX component 3":  {dcapforge.Level(c[:], tdx(2, 4), 1, "UpToDate"), false},
		"TDX component 16": {dcapforge.Level(c[:], tdx(15, 1), 1, "UpToDate"), false},
		// The module has an identity of its own for these, since its version is above 0.
		"TDX component 1": {dcapforge.Level(c[:], tdx(0, 99), 1, "UpToDate"), true},
		"TDX component 2": {dcapforge.Level(c[:], tdx(1, 99), 1, "UpToDate"), true},
	} {
		f := forge{Info: set("tcbLevels", []any{low, l.level})}
		v, err := verify(t, f.Make(t), nil)
		if err != nil || (v.Status == dcap.UpToDate) != l.reached {
			t.Errorf("%s: %+v, %v", name, v, err)
		}
	}
	// A module of version 0 has none: the level's first two count.
	for svn, want := range map[byte]dcap.Status{6: dcap.UpToDate, 7: dcap.OutOfDate} {
		f := forge{Info: set("tcbLevels", []any{low, dcapforge.Level(c[:], tdx(0, svn), 1, "UpToDate")}), Body: func(b []byte) { b[1] = 0 }}
		v, err := verify(t, f.Make(t), nil)
		if err != nil || v.Status != want {
			t.Errorf("module 0, level %d: %+v, %v", svn, v, err)
		}
	}
	// Levels of the module and of the quoting enclave.
	for svn, want := range map[byte]dcap.Status{2: dcap.OutOfDate, 3: dcap.OutOfDate, 4: dcap.UpToDate, 9: dcap.UpToDate} {
		module := forge{Body: func(b []byte) { b[0] = svn }}
		qe := forge{QE: func(b []byte) { b[258] = svn }}
		for _, f := range []forge{module, qe} {
			v, err := verify(t, f.Make(t), nil)
			if err != nil || v.Status != want {
				t.Errorf("svn %d: %+v, %v", svn, v, err)
			}
		}
	}
	// A platform whose SGX level is withdrawn is withdrawn, though a lower level that its TDX components reach is not.
	f := forge{Info: set("tcbLevels", []any{dcapforge.Level([]byte{2}, tdx(2, 9), 1, "Revoked"), dcapforge.Level([]byte{1}, tdx(2, 1), 1, "UpToDate")})}
	if _, err := verify(t, f.Make(t), nil); attest.CodeOf(err) != attest.CodeTCBRevoked {
		t.Error(err)
	}
}

// Of two SGX levels that differ in the PCE's number alone, the higher counts, whatever their order.
func TestLevelsInOrder(t *testing.T) {
	t.Parallel()
	for _, list := range [][]any{
		{dcapforge.Level([]byte{1}, nil, 2, "OutOfDate"), dcapforge.Level([]byte{1}, nil, 3, "UpToDate")},
		{dcapforge.Level([]byte{1}, nil, 3, "UpToDate"), dcapforge.Level([]byte{1}, nil, 2, "OutOfDate")},
	} {
		f := forge{SGX: true, Info: set("tcbLevels", list)}
		if v, err := verify(t, f.Make(t), nil); err != nil || v.Status != dcap.UpToDate {
			t.Errorf("%+v, %v", v, err)
		}
	}
	high, low := dcapforge.Level([]byte{1}, []byte{0, 0, 3}, 3, "UpToDate"), dcapforge.Level([]byte{1}, []byte{0, 0, 1}, 3, "OutOfDate")
	for _, list := range [][]any{{high, low}, {low, high}} {
		f := forge{Info: set("tcbLevels", list)}
		if v, err := verify(t, f.Make(t), nil); err != nil || v.Status != dcap.UpToDate {
			t.Errorf("%+v, %v", v, err)
		}
	}
}

// The date is that of the oldest level that went into the status.
func TestDate(t *testing.T) {
	t.Parallel()
	dates := map[string]string{"platform": "2026-02-11T00:00:00Z", "module": "2026-02-11T00:00:00Z", "qe": "2026-02-11T00:00:00Z"}
	for oldest := range dates {
		at := func(part string) string {
			if part == oldest {
				return "2025-01-01T00:00:00Z"
			}
			return dates[part]
		}
		f := forge{
			Info: func(m map[string]any) {
				m["tcbLevels"].([]any)[0].(map[string]any)["tcbDate"] = at("platform")
				m["tdxModuleIdentities"].([]any)[1].(map[string]any)["tcbLevels"].([]any)[0].(map[string]any)["tcbDate"] = at("module")
			},
			Identity: level(set("tcbDate", at("qe"))),
		}
		v, err := verify(t, f.Make(t), nil)
		if err != nil || !v.Date.Equal(time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("%s: %+v, %v", oldest, v, err)
		}
	}
}

// TestRelaunch has the cases of TDX 1.5 in which the module was updated after the guest's launch.
func TestRelaunch(t *testing.T) {
	t.Parallel()
	const (
		advised  = dcap.TDRelaunchAdvised
		advisedC = dcap.TDRelaunchAdvisedConfigurationNeeded
	)
	type situation struct {
		platform, module, qe dcap.Status // of the levels that the launch reached
		sgx                  dcap.Status // of the level that the platform reaches by its SGX components, if it is another
		launch, running      []byte      // TEE_TCB_SVN and TEE_TCB_SVN2
		want                 dcap.Status
	}
	launch := []byte{4, 1, 2}
	for name, c := range map[string]situation{
		"the latest module runs":                     {utd, ood, utd, "", launch, []byte{7, 1, 3}, advised},
		"a later module runs":                        {utd, ood, utd, "", launch, []byte{9, 1, 9}, advised},
		"a module of another version runs":           {utd, ood, utd, "", launch, []byte{3, 3, 3}, advised},
		"a module of another version, outdated":      {utd, ood, utd, "", launch, []byte{2, 3, 3}, ood},
		"a module of version 0 runs":                 {utd, ood, utd, "", launch, []byte{5, 0, 3}, advised},
		"a module of version 0, outdated":            {utd, ood, utd, "", launch, []byte{4, 0, 3}, ood},
		"a module of version 0, outdated microcode":  {utd, ood, utd, "", launch, []byte{5, 0, 2}, ood},
		"the same module runs":                       {utd, ood, utd, "", launch, launch, ood},
		"the module is not the latest":               {utd, ood, utd, "", launch, []byte{6, 1, 3}, ood},
		"the microcode is not the latest":            {utd, ood, utd, "", launch, []byte{7, 1, 2}, ood},
		"the platform needs hardening":               {swh, ood, utd, "", launch, []byte{7, 1, 3}, advised},
		"the platform needs configuration":           {cfg, ood, utd, "", launch, []byte{7, 1, 3}, advisedC},
		"the platform needs configuration, and more": {cs, ood, utd, "", launch, []byte{7, 1, 3}, advisedC},
		"the platform is outdated":                   {ood, ood, utd, "", launch, []byte{7, 1, 3}, ood},
		"only its TDX components are":                {ood, ood, utd, utd, launch, []byte{7, 1, 3}, advised},
		"its TDX components are, configuration":      {ood, ood, utd, cfg, launch, []byte{7, 1, 3}, advisedC},
		"its TDX components are, hardening":          {ood, ood, utd, cs, launch, []byte{7, 1, 3}, advisedC},
		"its TDX components need configuration":      {oodc, ood, utd, swh, launch, []byte{7, 1, 3}, advisedC},
		"its SGX components are":                     {ood, ood, utd, ood, launch, []byte{7, 1, 3}, ood},
		"its SGX components are, configuration":      {ood, ood, utd, oodc, launch, []byte{7, 1, 3}, ood},
		"the module was not":                         {ood, utd, utd, utd, launch, []byte{7, 1, 3}, ood},
		"the quoting enclave is":                     {utd, ood, ood, "", launch, []byte{7, 1, 3}, ood},
		"nothing is":                                 {utd, utd, utd, "", launch, []byte{7, 1, 3}, utd},
		"launched under version 0":                   {ood, utd, utd, utd, []byte{5, 0, 2}, []byte{7, 1, 3}, ood},
	} {
		f := forge{Version: 5, TD15: true}
		f.Info = func(in map[string]any) {
			// The first level is the latest: it has TDX components that the launch did not reach.
			sgx := c.sgx
			if sgx == "" {
				sgx = c.platform
			}
			in["tcbLevels"] = []any{
				dcapforge.Level([]byte{2}, []byte{5, 0, 3}, 1, string(sgx)),
				dcapforge.Level([]byte{1}, []byte{0, 0, 1}, 1, string(c.platform)),
			}
			in["tdxModuleIdentities"] = []any{
				dcapforge.Module("TDX_01", dcapforge.ISVLevel(4, string(c.module)), dcapforge.ISVLevel(7, "UpToDate")),
				dcapforge.Module("TDX_03", dcapforge.ISVLevel(3, "UpToDate")),
			}
		}
		f.Identity = set("tcbLevels", []any{dcapforge.ISVLevel(4, string(c.qe))})
		f.Body = func(b []byte) {
			clear(b[:16])
			clear(b[584:600])
			copy(b, c.launch)
			copy(b[584:], c.running)
		}
		if v, err := verify(t, f.Make(t), nil); err != nil || v.Status != c.want {
			t.Errorf("%s: %+v, %v; want %s", name, v, err, c.want)
		}
		// In TDX 1.0 nothing tells which module runs now.
		f.TD15 = false
		body := f.Body
		f.Body = func(b []byte) { body(append(b, make([]byte, 64)...)); clear(b[:16]); copy(b, c.launch) }
		old := c.want
		switch {
		case old == advised:
			old = ood
		case old == advisedC:
			old = oodc
			if c.platform == ood {
				old = ood
			}
		}
		if v, err := verify(t, f.Make(t), nil); err != nil || v.Status != old {
			t.Errorf("%s, TDX 1.0: %+v, %v; want %s", name, v, err, old)
		}
	}
	// Where nothing tells which module runs, zeros are not taken for it.
	zeros := forge{Version: 5, Info: func(in map[string]any) {
		in["tcbLevels"] = []any{dcapforge.Level([]byte{1}, []byte{0}, 1, "UpToDate")}
		in["tdxModuleIdentities"] = []any{dcapforge.Module("TDX_01", dcapforge.ISVLevel(4, "OutOfDate"))}
	}}
	if v, err := verify(t, zeros.Make(t), nil); err != nil || v.Status != ood {
		t.Errorf("%+v, %v", v, err)
	}
	// A module that runs and is not listed leaves the status open.
	f := forge{Version: 5, TD15: true, Body: func(b []byte) { b[0] = 2; b[585] = 9 }}
	if _, err := verify(t, f.Make(t), nil); attest.CodeOf(err) != attest.CodeTCBUnknown {
		t.Error(err)
	}
}
