package sim_test

import (
	"bytes"
	"encoding/hex"
	"slices"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/sim"
)

func TestCCA(t *testing.T) {
	t.Parallel()
	value := bytes.Repeat([]byte{7}, 32)
	for spec, version := range map[string]int{"sim:cca": 1, "sim:cca:2023": 1, "sim:cca:2024": 2} {
		c := unnamed(t, opened(t, spec+",measurement="+hex.EncodeToString(value)+",rem2="+hex.EncodeToString(value)), "cca")
		if c.Version != version || c.Debug != attest.Off || !bytes.Equal(c.Measured["launch"], value) || !bytes.Equal(c.Measured["rem2"], value) || len(c.ChipID) != 33 {
			t.Errorf("%s: %+v", spec, c)
		}
	}
	if c := unnamed(t, opened(t, "sim:cca,debug=on"), "cca"); c.Debug != attest.On {
		t.Errorf("%+v", c)
	}
	m := opened(t, "sim:cca,lifecycle=0x6000")
	if _, err := verify(t, evidenceOf(t, m), m.Root()); attest.CodeOf(err) != attest.CodeLifecycle {
		t.Error(err)
	}
	for _, bad := range []string{",debug=yes", ",lifecycle=secured", ",measurement=00", ",rem4=00", ",rem0=xx", ",staple=no", ",nonsense=1", ":2022"} {
		if _, err := sim.Open("sim:cca"+bad, "", clock); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%s: %v", bad, err)
		}
	}
}

func TestCCAKeys(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	open := func(spec string) *sim.CCA {
		m, err := sim.Open(spec, dir, clock)
		if err != nil {
			t.Fatal(err)
		}
		return m.(*sim.CCA)
	}
	m := open("sim:cca")
	if m.Root() != open("sim:cca:2024").Root() {
		t.Error("two platforms in one directory")
	}
	ev := evidenceOf(t, m)
	for name, c := range map[string]struct {
		change func(*attest.Evidence)
		want   attest.Code
	}{
		"no key":      {func(ev *attest.Evidence) { ev.Endorsements = nil }, attest.CodeEndorsementMissing},
		"two keys":    {func(ev *attest.Evidence) { ev.Endorsements = slices.Repeat(ev.Endorsements, 2) }, attest.CodeChain},
		"certificate": {func(ev *attest.Evidence) { ev.Endorsements = []attest.Endorsement{{Kind: attest.KindCertificate}} }, attest.CodeMalformedEndorsement},
		"other token": {func(ev *attest.Evidence) { ev.Raw = evidenceOf(t, opened(t, "sim:cca")).Raw }, attest.CodeSignature},
	} {
		bad := *ev
		c.change(&bad)
		if _, err := verify(t, &bad, m.Root()); attest.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
	if bare := evidenceOf(t, open("sim:cca,staple=off")); len(bare.Endorsements) != 0 {
		t.Error("stapled nevertheless")
	}
	// As hardware it is as good as the key that its operator names, and no better.
	real := *ev
	real.Format = cca.Format
	if _, err := cca.NewVerifier(nil).Verify(t.Context(), &real, m.Endorser(), now); attest.CodeOf(err) != attest.CodeUntrustedRoot {
		t.Errorf("as hardware: %v", err)
	}
	if _, err := m.Endorser().Endorse(t.Context(), attest.Ref{Service: "arm-cca", Path: "/cpak", Kind: attest.KindPublicKey}); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Error(err)
	}
}
