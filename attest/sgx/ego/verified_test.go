//go:build ego

package ego

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/attest/sim"
	"github.com/jurat-tls/jurat/test/trap"
)

// upToDate is a policy for enclaves without debugging on an up to date platform.
type upToDate struct{}

func (upToDate) Judge(c *attest.Claims, _ attest.Situation) attest.Judgement {
	check := attest.Check{ID: "platform", Status: attest.StatusFail, Code: attest.CodeTCBStatus}
	if c.TCBStatus == "UpToDate" && c.Debug == attest.Off && c.TEE == "sgx" {
		check.Status = attest.StatusPass
	}
	return attest.Judgement{Checks: []attest.Check{check}}
}

// TestVerified goes the whole way: our attester over the unmodified library, the quote of a simulated platform in Intel's
// format under a root of its own, and our verifier. Under that root it is affirmed, bound to the data asked for; under
// Intel's, or none, it is refused.
func TestVerified(t *testing.T) {
	if !trap.Again(t, nil) {
		return
	}
	machine, err := sim.Open("sim:sgx", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	var last atomic.Pointer[attest.Evidence]
	p := start(t)
	p.run(emulated{quote: func(data attest.ReportData) []byte {
		ev, err := machine.Attest(context.Background(), data)
		if err != nil {
			t.Error(err)
			return nil
		}
		last.Store(ev)
		return ev.Raw
	}})
	e, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	ev, err := e.Attest(t.Context(), wanted)
	if err != nil {
		t.Fatal(err)
	}
	ev.Endorsements = last.Load().Endorsements
	own, now := simulatedRoots(t, machine.Root(), ev), time.Now()
	for name, c := range map[string]struct {
		roots *dcap.Roots
		data  attest.ReportData
		code  attest.Code
	}{
		"affirmed":          {own, wanted, ""},
		"other report data": {own, attest.ReportData{3}, attest.CodeReportData},
		"under Intel's":     {dcap.IntelRoots(), wanted, attest.CodeUntrustedRoot},
		"under no root":     {nil, wanted, attest.CodeUntrustedRoot},
	} {
		appraiser := attest.NewAppraiser(attest.NoEndorser{}, sgx.NewVerifier(c.roots))
		r := appraiser.Appraise(t.Context(), ev, attest.Expect(c.data, attest.LevelKey, now), upToDate{}, now)
		if r.Code() != c.code || r.Affirmed() != (c.code == "") {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
	// The same through the header of Open Enclave, which the verifier knows too.
	ev.Raw = header(2, ev.Raw)
	claims, err := sgx.NewVerifier(own).Verify(t.Context(), ev, attest.NoEndorser{}, now)
	if err != nil || claims.ReportData != wanted {
		t.Error(err)
	}
}

// simulatedRoots finds the machine's root among the endorsements, by its name.
func simulatedRoots(t *testing.T, name string, ev *attest.Evidence) *dcap.Roots {
	t.Helper()
	for _, e := range ev.Endorsements {
		if sum := sha256.Sum256(e.Raw); "sha256:"+hex.EncodeToString(sum[:]) == name {
			roots, err := dcap.NewRoots(e.Raw)
			if err != nil {
				t.Fatal(err)
			}
			return roots
		}
	}
	t.Fatalf("the root %s is not stapled", name)
	return nil
}
