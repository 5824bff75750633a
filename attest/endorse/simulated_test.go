package endorse_test

import (
	"bytes"
	"crypto/x509"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/endorse"
	"github.com/jurat-tls/jurat/attest/sim"
)

// What simulated machines of Intel serve is fetched, kept and handed on as Intel's is.
func TestSimulatedIntel(t *testing.T) {
	t.Parallel()
	for _, tee := range []string{"tdx", "sgx"} {
		spec, err := sim.ParseSpec("sim:" + tee + ",dir=" + t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		machine, err := spec.Open()
		if err != nil {
			t.Fatal(err)
		}
		ev, err := machine.Attest(t.Context(), attest.ReportData{1})
		if err != nil {
			t.Fatal(err)
		}
		bare := *ev // but for the root, which names itself
		bare.Endorsements = slices.DeleteFunc(slices.Clone(ev.Endorsements), func(e attest.Endorsement) bool {
			cert, err := x509.ParseCertificate(e.Raw)
			return err != nil || !bytes.Equal(cert.RawIssuer, cert.RawSubject)
		})
		s := serve(t, machine.Service().ServeHTTP)
		service := s.kds(t, t.TempDir(), time.Now)
		for how, endorser := range map[string]attest.Endorser{"service": service, "what was stapled": endorse.NewStatic(ev.Endorsements...)} {
			claims, err := sim.NewVerifier([]string{machine.Root()}).Verify(t.Context(), &bare, endorser, time.Now())
			if err != nil || claims.TCBStatus != "UpToDate" || claims.Revocation.Problem != nil {
				t.Errorf("%s from %s: %+v, %v", tee, how, claims, err)
			}
		}
		if s.requests.Load() != 4 {
			t.Errorf("%s: %d requests", tee, s.requests.Load())
		}
	}
}
