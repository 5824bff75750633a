package sim_test

import (
	"bytes"
	"errors"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/sim"
)

func machine(t *testing.T, spec, dir string) sim.Machine {
	t.Helper()
	m, err := sim.Open(spec, dir, clock)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func attested(t *testing.T, m sim.Machine) *attest.Evidence {
	t.Helper()
	ev, err := m.Attest(t.Context(), data)
	if err != nil {
		t.Fatal(err)
	}
	return ev
}

func TestTPM(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seven := strings.Repeat("7a", 32)
	m := machine(t, "sim:tpm,pcr7="+seven, dir)
	ev := attested(t, m)
	c, err := verify(t, ev, m.Root())
	if err != nil {
		t.Fatal(err)
	}
	if c.Vendor != "sim" || !c.Simulated || c.TEE != "tpm" || c.Product != "SIMULATED TPM" || c.Root != m.Root() || !c.Folded || c.ReportData != data.Fold() || c.Revocation.Problem != nil {
		t.Errorf("%+v", c)
	}
	if c.Measured["pcr7"].String() != seven || len(c.Measured) != 24 || bytes.Equal(c.Measured["pcr0"], make([]byte, 32)) || !bytes.Equal(c.Measured["pcr23"], make([]byte, 32)) {
		t.Errorf("%v", c.Measured)
	}
	if !strings.Contains(m.String(), "SIMULATED") || !strings.Contains(m.String(), m.Root()) {
		t.Error(m)
	}
	// The root stays, and is nobody else's.
	if again := machine(t, "sim:tpm", dir); again.Root() != m.Root() {
		t.Error("another root")
	}
	other := machine(t, "sim:tpm", "")
	if other.Root() == m.Root() {
		t.Error("the same root")
	}
	for _, root := range []string{"", other.Root()} {
		if _, err := verify(t, ev, root); attest.CodeOf(err) != attest.CodeSimulated {
			t.Error(err)
		}
	}
	bare := *ev
	bare.Endorsements = ev.Endorsements[:1]
	if _, err := verify(t, &bare, m.Root()); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Error(err)
	}
	// Without the list, the machine's service answers.
	bare.Endorsements = ev.Endorsements[:2]
	if c, err = sim.NewVerifier([]string{m.Root()}).Verify(t.Context(), &bare, m.Endorser(), now); err != nil || c.Revocation.Problem != nil {
		t.Errorf("%+v, %v", c, err)
	}
	if c, err = verify(t, &bare, m.Root()); err != nil || c.Revocation.Problem == nil {
		t.Errorf("%+v, %v", c, err)
	}
	if _, err := m.Endorser().Endorse(t.Context(), attest.Ref{Service: "tpm", Path: "/ak?name=00", Kind: attest.KindPublicKey}); attest.CodeOf(err) != attest.CodeEndorsementMissing {
		t.Error(err)
	}
	w := httptest.NewRecorder()
	m.Service().ServeHTTP(w, httptest.NewRequest("GET", "/crl?issuer=00", nil))
	if w.Code != 404 {
		t.Error(w.Code)
	}
	if _, err := verify(t, attested(t, machine(t, "sim:tpm,revoked=on", dir)), m.Root()); attest.CodeOf(err) != attest.CodeRevoked {
		t.Error(err)
	}
	if _, err := m.Attest(t.Context(), attest.ReportData{}); attest.CodeOf(err) != attest.CodeNoExpectation {
		t.Error(err)
	}
}

func TestTPMSpecs(t *testing.T) {
	t.Parallel()
	for _, spec := range []string{
		"sim:tpm:genoa", "sim:tpm,debug=on", "sim:tpm,revoked=maybe", "sim:tpm,pcr24=" + strings.Repeat("00", 32), "sim:tpm,pcr7=00", "sim:tpm,pcr=" + strings.Repeat("00", 32),
		"sim:tpm,pcr7=" + strings.Repeat("zz", 32), "sim:tpm,quote-time=-1s", "sim:azure-snp,pcr7=00", "sim:azure-snp,revoked=on", "sim:azure-snp:none",
	} {
		if _, err := sim.Open(spec, "", clock); attest.CodeOf(err) != attest.CodeUsage {
			t.Errorf("%s: %v", spec, err)
		}
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "sim-tpm.pem"), []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := sim.Open("sim:tpm", dir, clock); attest.CodeOf(err) != attest.CodeConfigValue {
		t.Error(err)
	}
}

func TestAzure(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	seven := strings.Repeat("7a", 32)
	m := machine(t, "sim:azure-snp:genoa,debug=on,tcb.snp=99,pcr7="+seven, dir)
	ev := attested(t, m)
	c, err := verify(t, ev, m.Root())
	if err != nil {
		t.Fatal(err)
	}
	if c.Vendor != "sim" || !c.Simulated || c.TEE != "snp" || c.Generation != "genoa" || c.Root != m.Root() || !c.Folded || c.ReportData != data.Fold() || c.Debug != attest.On || c.TCB["snp"] != 99 {
		t.Errorf("%+v", c)
	}
	if c.Measured["pcr7"].String() != seven || !bytes.Equal(c.Measured["launch"], sim.DefaultMeasurement()) || !strings.HasPrefix(c.Module, "SIMULATED-") {
		t.Errorf("%+v", c)
	}
	if !strings.Contains(m.String(), "SIMULATED") || !strings.Contains(m.String(), "Azure") {
		t.Error(m)
	}
	if _, err := verify(t, ev); attest.CodeOf(err) != attest.CodeSimulated {
		t.Error(err)
	}
	// Evidence of one kind is none of another.
	plain := *ev
	plain.Format = sim.Format
	if _, err := verify(t, &plain, m.Root()); err == nil || errors.Is(err, attest.ErrNotMine) {
		t.Error(err)
	}
	// Another machine under the same root has another key: the second hop tells.
	other := attested(t, machine(t, "sim:azure-snp", dir))
	if bytes.Equal(ev.Raw, other.Raw) {
		t.Error("two machines with one report")
	}
	size := len(ev.Raw)
	for _, e := range ev.Endorsements {
		size += len(e.Raw)
	}
	if size > 12<<10 {
		t.Errorf("evidence with endorsements has %d bytes", size)
	}
}
