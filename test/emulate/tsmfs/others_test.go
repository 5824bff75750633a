//go:build linux

package tsmfs_test

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/cca"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/record"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/attest/tdx"
	"github.com/jurat-tls/jurat/attest/tsm"
	"github.com/jurat-tls/jurat/test/emulate/tsmfs"
)

// TestOtherGuests: a TDX guest and an Arm realm have neither privilege levels nor an auxblob. The real binary finds out
// which it is in; its evidence verifies under the simulated machine's root, and under the vendor's it does not.
func TestOtherGuests(t *testing.T) {
	for _, c := range []struct {
		spec, provider string
		format         attest.Format
		vendor         attest.Verifier
		code           attest.Code // under the vendor's root
	}{
		{"sim:tdx", tsm.ProviderTDX, tdx.Format, tdx.NewVerifier(dcap.IntelRoots()), attest.CodeUntrustedRoot},
		{"sim:cca", tsm.ProviderCCA, cca.Format, cca.NewVerifier(nil), attest.CodeUntrustedRoot},
	} {
		t.Run(c.spec, func(t *testing.T) {
			machine, err := sim.Open(c.spec, t.TempDir(), time.Now)
			if err != nil {
				t.Fatal(err)
			}
			// The TDX driver answers EBUSY while a request that was given up still runs.
			mounted(t, tsmfs.Platform{Provider: c.provider, Floor: -1, Report: func(data []byte, _ int) ([]byte, []byte, syscall.Errno) {
				ev, err := machine.Attest(context.Background(), attest.ReportData(data))
				if err != nil {
					return nil, nil, syscall.EIO
				}
				return ev.Raw, nil, 0
			}}, tsmfs.Faults{Busy: 1})

			out, _ := jurat(t, plain, 0, "doctor", "--json")
			var found struct {
				TEE, Device string
				OK          bool
			}
			if err := json.Unmarshal([]byte(out), &found); err != nil || found.TEE != string(c.format) || found.Device != tsm.SourceName || !found.OK {
				t.Fatalf("%s, %v", out, err)
			}
			data := attest.ReportData{5, 63: 6}
			file := filepath.Join(t.TempDir(), "evidence.jurat")
			jurat(t, plain, 0, "attest", "--report-data", hex.EncodeToString(data[:]), "--offline", "--out", file)
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			r, err := record.Decode(raw)
			if err != nil || r.Evidence.Format != c.format {
				t.Fatal(r, err)
			}
			// The vendor's collateral comes beside the evidence, as from its service.
			own, err := machine.Attest(t.Context(), data)
			if err != nil {
				t.Fatal(err)
			}
			named := &attest.Evidence{Format: own.Format, Raw: r.Evidence.Raw, Endorsements: own.Endorsements}
			root, err := sim.RootOf(named)
			if err != nil {
				t.Fatal(err)
			}
			want := attest.Expect(data, attest.LevelKey, time.Time{})
			result := attest.NewAppraiser(machine.Endorser(), sim.NewVerifier([]string{root})).Appraise(t.Context(), named, want, anyPlatform{}, time.Now())
			if !result.Affirmed() {
				t.Errorf("under the machine's own root: %v", result.Err())
			}
			named.Format = c.format
			result = attest.NewAppraiser(machine.Endorser(), c.vendor).Appraise(t.Context(), named, want, anyPlatform{}, time.Now())
			if result.Affirmed() || result.Code() != c.code {
				t.Errorf("under the vendor's root: %v", result.Err())
			}
		})
	}
}

// TestProviders: what one TEE's driver offers is no other TEE's, and the bound is kept.
func TestProviders(t *testing.T) {
	token := func(data []byte, _ int) ([]byte, []byte, syscall.Errno) {
		return append([]byte("token over "), data...), nil, 0
	}
	mounted(t, tsmfs.Platform{Provider: tsm.ProviderCCA, Floor: -1, Report: token}, tsmfs.Faults{})
	data := attest.ReportData{7}
	r, err := tsm.NewConfigfs(tsm.ProviderCCA, 4096, 0).Collect(t.Context(), data)
	if err != nil || string(r.Out) != "token over "+string(data[:]) {
		t.Errorf("%q, %v", r.Out, err)
	}
	if _, err := tsm.NewConfigfs(tsm.ProviderCCA, 20, 0).Collect(t.Context(), data); err == nil {
		t.Error("the bound is not kept")
	}
	for _, other := range []string{tsm.ProviderSNP, tsm.ProviderTDX} {
		if err := tsm.NewConfigfs(other, 4096, 0).Probe(); !errors.Is(err, tsm.ErrAbsent) {
			t.Errorf("%s: %v", other, err)
		}
	}
}
