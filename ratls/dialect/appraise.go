package dialect

import (
	"bytes"
	"context"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// CheckID names the line of a transcript that says which dialect counted.
const CheckID = "binding.dialect"

// Appraise verifies all that was found, which is what Reader.Read answers, and judges the first by policy: it has to be allowed. The
// others have to be authentic, for the same key, and of the same machine and software. checks were made on the way here.
func Appraise(ctx context.Context, a *attest.Appraiser, found []*Found, policy attest.Policy, now time.Time, checks ...attest.Check) *attest.Result {
	if len(found) == 0 {
		return attest.RefusedResult(&attest.Error{Code: attest.CodeNoEvidence, Check: "evidence"}, now)
	}
	first := found[0]
	if !first.Allowed {
		return attest.RefusedResult(notAllowed(first.Dialect), now)
	}
	text := first.Dialect + ", " + first.Preimage
	var others []*attest.Claims
	for _, f := range found[1:] {
		r := a.Appraise(ctx, endorsedAs(first.Evidence, f.Evidence), f.Expect(), taken{}, now)
		if !r.Affirmed() {
			return attest.RefusedResult(in(f.Dialect, true, r.Err()), now)
		}
		others = append(others, r.Claims())
		text += "; also " + f.Dialect
	}
	if len(others) > 0 && policy != nil { // without a policy nothing is taken
		policy = &agreeing{policy, others}
	}
	check := attest.Check{ID: CheckID, Status: attest.StatusPass, Text: "dialect is allowed, and binds at level " + string(first.Level), Got: text, Source: attest.SourceLocal}
	return a.Appraise(ctx, first.Evidence, first.Expect().With(append(checks, check)...), policy, now)
}

// endorsedAs gives evidence that brought no endorsements those of other evidence: most dialects have no room for them, and what is
// stapled is verified wherever it comes from.
func endorsedAs(other, ev *attest.Evidence) *attest.Evidence {
	if len(ev.Endorsements) > 0 {
		return ev
	}
	copied := *ev
	copied.Endorsements = other.Endorsements
	return &copied
}

// DialectOf is the dialect in which a Result's evidence was read; empty for this program's own.
func DialectOf(r *attest.Result) string {
	for _, c := range r.Checks() {
		if c.ID == CheckID && c.Status == attest.StatusPass {
			name, _, _ := strings.Cut(c.Got, ", ")
			return name
		}
	}
	return ""
}

// taken affirms whatever is authentic and bound: what is allowed is for the first finding to say.
type taken struct{}

// Judge implements attest.Policy.
func (taken) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{Checks: []attest.Check{{ID: CheckID, Status: attest.StatusPass}}}
}

// agreeing is a policy that also demands that claims agree with others.
type agreeing struct {
	attest.Policy
	others []*attest.Claims
}

// Judge implements attest.Policy.
func (a *agreeing) Judge(c *attest.Claims, s attest.Situation) attest.Judgement {
	j := a.Policy.Judge(c, s)
	check := attest.Check{ID: "binding.dialects", Status: attest.StatusPass, Text: "all evidence is of one machine and one software", Source: attest.SourceHardware}
	for _, o := range a.others {
		if what := differ(c, o); what != "" {
			check.Status, check.Code, check.Text = attest.StatusFail, attest.CodeDialects, attest.CodeDialects.Title()
			check.Got, check.Remedy = "another "+what, attest.CodeDialects.Remedy()
		}
	}
	if len(j.Checks) > 0 { // a policy without a check refuses, and this is none of its checks
		j.Checks = append(j.Checks[:len(j.Checks):len(j.Checks)], check)
	}
	return j
}

// differ names what of two pieces of evidence does not go together; "" where all does.
func differ(a, b *attest.Claims) string {
	switch {
	case a.Vendor != b.Vendor || a.TEE != b.TEE || a.Root != b.Root || a.Generation != b.Generation:
		return "platform"
	case !bytes.Equal(a.Measured["launch"], b.Measured["launch"]) || !bytes.Equal(a.Measured["signer"], b.Measured["signer"]):
		return "measurement"
	case !bytes.Equal(a.ChipID, b.ChipID) || !bytes.Equal(a.PPID, b.PPID) || a.Module != b.Module:
		return "machine"
	case a.Debug != b.Debug:
		return "state of debugging"
	}
	return ""
}
