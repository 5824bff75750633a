package sim

import (
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// What a simulated machine made is told from hardware's by its chain, where nothing else says so.
func TestForeignVerifier(t *testing.T) {
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	for _, spec := range []string{"sim:tdx", "sim:sgx", "sim:nitro", "sim:snp:genoa"} {
		m, err := Open(spec, "", func() time.Time { return at })
		if err != nil {
			t.Fatal(err)
		}
		made, err := m.Attest(t.Context(), attest.ReportData{1})
		if err != nil {
			t.Fatal(err)
		}
		ev := &attest.Evidence{Format: attest.Format(strings.TrimPrefix(string(made.Format), "sim-")), Raw: made.Raw}
		if spec == "sim:snp:genoa" {
			ev.Endorsements = made.Endorsements // a report has no chain
		}
		kept := len(ev.Endorsements)
		claims, err := NewForeignVerifier([]string{m.Root()}).Verify(t.Context(), ev, m.Endorser(), at)
		if err != nil || !claims.Simulated || claims.ReportData != (attest.ReportData{1}) {
			t.Errorf("%s: %+v, %v", spec, claims, err)
		}
		if len(ev.Endorsements) != kept || strings.HasPrefix(string(ev.Format), "sim-") {
			t.Errorf("%s: the evidence was changed", spec)
		}
		for name, v := range map[string]attest.Verifier{"no root": NewForeignVerifier(nil), "another root": NewForeignVerifier([]string{"sha256:00"})} {
			if _, err := v.Verify(t.Context(), ev, m.Endorser(), at); err != attest.ErrNotMine {
				t.Errorf("%s, %s: %v", spec, name, err)
			}
		}
		ours := NewForeignVerifier([]string{m.Root()})
		if _, err := ours.Verify(t.Context(), made, m.Endorser(), at); err != attest.ErrNotMine {
			t.Errorf("%s, marked: %v", spec, err)
		}
		if _, err := ours.Verify(t.Context(), &attest.Evidence{Format: ev.Format, Raw: []byte("x")}, nil, at); err != attest.ErrNotMine {
			t.Errorf("%s, not its own: %v", spec, err)
		}
		if _, err := ours.Verify(t.Context(), nil, nil, at); err != attest.ErrNotMine {
			t.Errorf("%s, none: %v", spec, err)
		}
	}
}
