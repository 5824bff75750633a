package attest_test

import (
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Evidence of an open connection is verified again: what it stands on is then the claims of today, under the checks of the
// connection itself.
func TestRenew(t *testing.T) {
	data := attest.ReportData{1}
	ev := &attest.Evidence{Raw: data[:]}
	var claims *attest.Claims
	var broken error
	a := attest.NewAppraiser(attest.NoEndorser{}, verifier(func(*attest.Evidence) (*attest.Claims, error) { return claims, broken }))
	old := session(t, attest.LevelSession, now.Add(-time.Minute), accepting("p"))
	reconnected := old.Reconnect(accepting("p"), now, pass("binding.name"))
	good := func() *attest.Claims {
		return &attest.Claims{Vendor: "anew", ReportData: data, Checks: []attest.Check{pass("authenticity.crl"), pass("authenticity.chain")}, NotChecked: []string{"news"}}
	}
	other := good()
	other.ReportData = attest.ReportData{2}
	folded := good()
	folded.Folded = true
	revoked := &attest.Error{Code: attest.CodeRevoked, Check: "authenticity.chain"}
	later := now.Add(time.Minute)
	for name, c := range map[string]struct {
		old    *attest.Result
		claims *attest.Claims
		err    error
		ev     *attest.Evidence
		policy attest.Policy
		want   attest.Code
		checks string
	}{
		"affirmed":             {old, good(), nil, ev, accepting("q"), "", "binding.name binding.exporter authenticity.crl authenticity.chain binding.report_data platform.allowed"},
		"a reconnect":          {reconnected, good(), nil, ev, accepting("q"), "", "binding.name authenticity.crl authenticity.chain binding.reconnect platform.allowed"},
		"refused by policy":    {old, good(), nil, ev, failing("q", attest.CodeDebug), attest.CodeDebug, "binding.name binding.exporter authenticity.crl authenticity.chain binding.report_data first denied"},
		"no policy":            {old, good(), nil, ev, nil, attest.CodeEmptyPolicy, ""},
		"revoked":              {old, nil, revoked, ev, accepting("q"), attest.CodeRevoked, "authenticity.chain"},
		"other evidence":       {old, good(), nil, &attest.Evidence{Raw: []byte("other")}, accepting("q"), attest.CodeInternal, "authenticity"},
		"none":                 {old, good(), nil, nil, accepting("q"), attest.CodeNoEvidence, "evidence"},
		"other report data":    {old, other, nil, ev, accepting("q"), attest.CodeReportData, "binding.report_data"},
		"folded":               {old, folded, nil, ev, accepting("q"), attest.CodeReportData, "binding.report_data"},
		"never judged":         {attest.RefusedResult(revoked, now), good(), nil, ev, accepting("q"), attest.CodeRevoked, "authenticity.chain"},
		"no Result":            {nil, good(), nil, ev, accepting("q"), attest.CodeEmptyPolicy, "policy"},
		"a verifier that lies": {old, nil, nil, ev, accepting("q"), attest.CodeInternal, "authenticity"},
	} {
		t.Run(name, func(t *testing.T) {
			claims, broken = c.claims, c.err
			r := c.old.Renew(a.Reverify(t.Context(), c.ev, later), c.policy, later)
			if r.Code() != c.want || r.Affirmed() != (c.want == "") || !r.Time().Equal(later) {
				t.Errorf("got %q at %s: %v", r.Code(), r.Time(), r.Checks())
			}
			if got := ids(r); c.checks != "" && got != c.checks {
				t.Errorf("checks %s", got)
			}
			if c.want == "" && (r.Claims() != c.claims || !r.EvidenceTime().Equal(c.old.EvidenceTime()) || r.NotChecked()[0] != "news" || r.EvidenceDigest() != c.old.EvidenceDigest()) {
				t.Errorf("%+v", r)
			}
			if c.want == "" { // as often as one likes
				if again := r.Renew(a.Reverify(t.Context(), c.ev, later), c.policy, later); ids(again) != c.checks || len(again.NotChecked()) != len(r.NotChecked()) {
					t.Errorf("checks %s", ids(again))
				}
				if again := r.Rejudge(c.policy, later); ids(again) != c.checks {
					t.Errorf("checks %s", ids(again))
				}
			}
		})
	}
	if r := old.Renew(attest.Renewal{}, accepting("q"), later); r.Affirmed() || r.Code() != attest.CodeNoEvidence {
		t.Errorf("the zero Renewal renews: %v", r.Err())
	}
}
