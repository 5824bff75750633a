package sim_test

import (
	"bytes"
	"encoding/hex"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/nitro"
	"github.com/jurat-tls/jurat/attest/sim"
)

// unnamed checks what holds of every machine whose root does not come as a certificate among the endorsements.
func unnamed(t *testing.T, m sim.Machine, tee string) *attest.Claims {
	t.Helper()
	ev := evidenceOf(t, m)
	if root, err := sim.RootOf(ev); err != nil || root != m.Root() || ev.Format != attest.Format("sim-"+tee) {
		t.Errorf("RootOf: %q, %v; format %s", root, err, ev.Format)
	}
	if s := m.String(); !strings.HasPrefix(s, "SIMULATED ") || !strings.Contains(s, m.Root()) {
		t.Errorf("%s", s)
	}
	c, err := verify(t, ev, m.Root())
	if err != nil {
		t.Fatal(err)
	}
	if c.Vendor != "sim" || !c.Simulated || c.TEE != tee || !strings.HasPrefix(c.Product, "SIMULATED ") || c.Root != m.Root() || c.ReportData != data {
		t.Errorf("%+v", c)
	}
	if _, err := verify(t, ev); attest.CodeOf(err) != attest.CodeSimulated {
		t.Errorf("without a root: %v", err)
	}
	if _, err := verify(t, ev, "sha256:"+strings.Repeat("0", 64)); attest.CodeOf(err) != attest.CodeSimulated {
		t.Errorf("under another root: %v", err)
	}
	if _, err := m.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
		t.Errorf("zero report data: %v", err)
	}
	return c
}

func TestNitro(t *testing.T) {
	t.Parallel()
	c := unnamed(t, opened(t, "sim:nitro"), "nitro")
	if c.Debug != attest.Off || c.Revocation.Problem != nil || !bytes.Equal(c.Measured["launch"], sim.DefaultMeasurement()) || !c.Made.Equal(now) || c.Module == "" {
		t.Errorf("%+v", c)
	}
	value := bytes.Repeat([]byte{7}, 48)
	c = unnamed(t, opened(t, "sim:nitro,measurement="+hex.EncodeToString(value)+",pcr8="+hex.EncodeToString(value)+",module=i-7-enc7"), "nitro")
	if !bytes.Equal(c.Measured["launch"], value) || !bytes.Equal(c.Measured["pcr8"], value) || c.Module != "i-7-enc7" {
		t.Errorf("%+v", c)
	}
	if c = unnamed(t, opened(t, "sim:nitro,debug=on"), "nitro"); c.Debug != attest.On {
		t.Errorf("%+v", c)
	}
	for spec, want := range map[string]attest.Code{
		"revoked=region": attest.CodeRevoked, "revoked=zone": attest.CodeRevoked,
		"expired=region": attest.CodeChainExpired, "expired=zone": attest.CodeChainExpired, "expired=instance": attest.CodeChainExpired, "expired=leaf": attest.CodeChainExpired,
		"clock=-72h": attest.CodeChainExpired, "clock=72h": attest.CodeChainExpired,
	} {
		m := opened(t, "sim:nitro,"+spec)
		if _, err := verify(t, evidenceOf(t, m), m.Root()); attest.CodeOf(err) != want {
			t.Errorf("%s: %v", spec, err)
		}
	}
	for _, bad := range []string{"debug=yes", "measurement=00", "pcr16=" + hex.EncodeToString(value), "pcrx=00", "pcr1=00", "revoked=leaf", "expired=root", "nonsense=1"} {
		if _, err := sim.Open("sim:nitro,"+bad, "", clock); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%s: %v", bad, err)
		}
	}
	if _, err := sim.Open("sim:nitro:two", "", clock); attest.CodeOf(err) != attest.CodeUsage {
		t.Errorf("a product: %v", err)
	}
}

func TestNitroStage(t *testing.T) {
	t.Parallel()
	m := opened(t, "sim:nitro").(*sim.Nitro)
	judge := func() attest.Code {
		_, err := verify(t, evidenceOf(t, m), m.Root())
		return attest.CodeOf(err)
	}
	for _, step := range []struct {
		what string
		want attest.Code
	}{{"revoked=zone", attest.CodeRevoked}, {"revoked=none", ""}, {"expired=leaf", attest.CodeChainExpired}, {"expired=none", ""}} {
		if err := m.Stage(step.what); err != nil {
			t.Fatal(err)
		}
		if got := judge(); got != step.want {
			t.Errorf("%s: %s", step.what, got)
		}
	}
	for _, bad := range []string{"revoked=leaf", "debug=on", ""} {
		if err := m.Stage(bad); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestNitroLists(t *testing.T) {
	t.Parallel()
	m := opened(t, "sim:nitro")
	ev := evidenceOf(t, m)
	ev.Endorsements = nil
	v := sim.NewVerifier([]string{m.Root()})
	for want, endorser := range map[attest.Code]attest.Endorser{"": m.Endorser(), attest.CodeEndorsementMissing: attest.NoEndorser{}} {
		c, err := v.Verify(t.Context(), ev, endorser, now)
		if err != nil {
			t.Fatal(err)
		}
		if p := c.Revocation.Problem; (p == nil) != (want == "") || p != nil && p.Code != want {
			t.Errorf("got %v, want %q", p, want)
		}
	}
	if _, err := m.Endorser().Endorse(t.Context(), attest.Ref{Service: nitro.Service, Path: "/other", Kind: attest.KindCRL}); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Error(err)
	}
}

// The same directory has the same root, whose documents verify as time goes by.
func TestNitroDirectory(t *testing.T) {
	t.Parallel()
	dir, at := t.TempDir(), now
	open := func() sim.Machine {
		m, err := sim.Open("sim:nitro", dir, func() time.Time { return at })
		if err != nil {
			t.Fatal(err)
		}
		return m
	}
	first, second := open(), open()
	if first.Root() != second.Root() {
		t.Error("two roots in one directory")
	}
	v := sim.NewVerifier([]string{first.Root()})
	for range 5 {
		ev := evidenceOf(t, first)
		if _, err := v.Verify(t.Context(), ev, nil, at); err != nil {
			t.Errorf("at %v: %v", at, err)
		}
		at = at.Add(40 * time.Minute)
	}
	real := *evidenceOf(t, first)
	real.Format = nitro.Format
	if _, err := nitro.NewVerifier(nitro.AWSRoots()).Verify(t.Context(), &real, nil, at); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Errorf("as hardware: %v", err)
	}
}
