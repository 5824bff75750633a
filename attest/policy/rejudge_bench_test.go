package policy_test

import (
	"context"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

type fixed struct{ claims *attest.Claims }

func (f fixed) Verify(context.Context, *attest.Evidence, attest.Endorser, time.Time) (*attest.Claims, error) {
	return f.claims, nil
}

// What one open connection costs when a policy has changed.
func BenchmarkRejudge(b *testing.B) {
	p := parse(b, base+"rules:\n- {name: smt, when: 'claims.platform.smt', effect: warn}\n")
	c := claims()
	c.ReportData[0] = 1
	c.Platform = map[string]attest.Flag{"smt": attest.Off}
	r := attest.NewAppraiser(attest.NoEndorser{}, fixed{c}).Appraise(b.Context(), &attest.Evidence{Raw: []byte{1}}, attest.Expect(c.ReportData, attest.LevelSession, now), attest.Stack{{Name: "p", Policy: p}, {Name: "q", Policy: p}}, now)
	if !r.Affirmed() {
		b.Fatal(r.Err())
	}
	b.ReportAllocs()
	for b.Loop() {
		if !r.Rejudge(attest.Stack{{Name: "p", Policy: p}, {Name: "q", Policy: p}}, now).Affirmed() {
			b.Fatal()
		}
	}
}
