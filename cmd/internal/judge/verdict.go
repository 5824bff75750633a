package judge

import (
	"encoding/json"
	"io"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls"
	"github.com/jurat-tls/jurat/ratls/dialect"
)

// Verdict is a verdict in JSON. Its names are a contract.
type Verdict struct {
	Verdict    string          `json:"verdict"` // affirmed, refused, undecided
	Code       attest.Code     `json:"code"`
	Target     string          `json:"target,omitempty"`
	TEE        string          `json:"tee"`
	Binding    attest.Level    `json:"binding"`
	Dialect    string          `json:"dialect,omitempty"` // another program's, in which the evidence was shown
	Simulated  bool            `json:"simulated"`
	Claims     *attest.Claims  `json:"claims"`
	Checks     []attest.Check  `json:"checks"`
	NotChecked []string        `json:"not_checked"`
	Policy     PolicyReference `json:"policy"`
	Evidence   string          `json:"evidence_sha256"`
	Pin        string          `json:"pin"`
	Time       time.Time       `json:"time"`
}

// PolicyReference names the policy, and the line of it that decided.
type PolicyReference struct {
	ID   string `json:"id"`
	Line int    `json:"line"` // 0 where no line of the policy refused
}

// VerdictOf is the verdict over a peer that is called target, and that presented shown; nothing where evidence was bare.
func VerdictOf(target string, shown ratls.Presented, r *attest.Result) Verdict {
	v := Verdict{
		Verdict: r.Verdict().String(), Code: r.Code(), Target: target, Binding: r.Level(), Claims: r.Claims(),
		Checks: r.Checks(), NotChecked: r.NotChecked(), Policy: PolicyReference{r.PolicyID(), r.Line()},
		Evidence: r.EvidenceDigest(), Time: r.Time().UTC(),
	}
	if v.Claims != nil {
		v.TEE, v.Simulated = v.Claims.TEE, v.Claims.Simulated
	}
	if v.NotChecked == nil {
		v.NotChecked = []string{}
	}
	v.Dialect = dialect.DialectOf(r)
	if leaf, err := shown.Leaf(); err == nil {
		v.Pin = ratls.Pin(leaf)
	}
	return v
}

// WriteJSON writes v in the form in which everything is written.
func WriteJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
