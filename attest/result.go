package attest

import (
	"encoding/hex"
	"maps"
	"slices"
	"time"
)

// Status of one check.
type Status string

// Values of Status. The empty Status counts as StatusFail.
const (
	StatusPass Status = "pass"
	StatusFail Status = "fail"
	StatusWarn Status = "warn"
)

// Source tells where the fact behind a check comes from.
type Source string

// Values of Source.
const (
	SourceHardware Source = "signed by hardware"
	SourceVendor   Source = "endorsed by vendor"
	SourceLocal    Source = "local configuration"
	SourceTLS      Source = "TLS connection"
)

// Check is one line of the transcript of an appraisal.
type Check struct {
	ID     string `json:"id"` // such as "authenticity.signature"
	Status Status `json:"status"`
	Text   string `json:"text"` // a few words for people
	Got    string `json:"got,omitempty"`
	Want   string `json:"want,omitempty"`
	Code   Code   `json:"code,omitempty"`
	Source Source `json:"source,omitempty"`
	Line   int    `json:"line,omitempty"` // line of the policy
	// Policy is the layer of a Stack that the check is of; empty where there is but one policy.
	Policy string `json:"policy,omitempty"`
	// Nearest is the reference value that comes closest to what was got, and where it differs; empty when none does.
	Nearest string `json:"nearest,omitempty"`
	Remedy  string `json:"remedy,omitempty"`
}

// Level says what the hardware's signature commits to; see DESIGN §3. The zero value is no level at all and satisfies
// no policy.
type Level string

// Levels, from weakest to strongest.
const (
	LevelNone    Level = "none"    // a bare piece of evidence, bound to nothing
	LevelPinned  Level = "pinned"  // the key, learnt outside TLS
	LevelKey     Level = "key"     // the leaf key, with a validity window
	LevelNonce   Level = "nonce"   // the leaf key and the relying party's nonce
	LevelSession Level = "session" // a value derived from this TLS session's exporter
)

var levelRank = map[Level]int{LevelNone: 1, LevelPinned: 2, LevelKey: 3, LevelNonce: 4, LevelSession: 5}

// Valid reports whether l is one of the levels above.
func (l Level) Valid() bool { return levelRank[l] != 0 }

// AtLeast reports whether l resists everything that want does. An unknown level on either side never does.
func (l Level) AtLeast(want Level) bool {
	return want.Valid() && levelRank[l] >= levelRank[want] // an unknown l ranks below all
}

// Expectation is what the relying party expects the hardware to have signed. Its zero value never matches. Make one with
// Expect or UnsafeExpectAnything.
type Expectation struct {
	level  Level
	data   ReportData
	others []ReportData        // as good as data
	signed map[string][32]byte // in place of report data: digests of what was signed, by the names of measurements
	any    bool
	// Made is when the evidence was made according to what the hardware signed; zero when that is unknown.
	made time.Time
	// Digest of the configuration that data commits to; zero for none.
	config [32]byte
	// Checks on the transport that were made before.
	checks   []Check
	unsigned []string
}

// Expect demands exactly data, bound at level, made at the given time (zero when unknown).
func Expect(data ReportData, level Level, made time.Time) Expectation {
	return Expectation{level: level, data: data, made: made}
}

// ExpectOneOf is Expect where a format leaves open which of several hashes of one and the same thing was signed. Without data it
// never matches, and with the zero value among it neither.
func ExpectOneOf(level Level, made time.Time, data ...ReportData) Expectation {
	if len(data) == 0 {
		return Expectation{level: level}
	}
	return Expectation{level: level, made: made, data: data[0], others: data[1:]}
}

// ExpectSigned demands that the hardware signed values of any length under names of their own, as Nitro does with its user data
// ("user_data_sha256") and nonce ("nonce_sha256"): digests are their SHA-256 by those names, and each of them has to be among the
// measurements of the Claims. Without any it never matches.
func ExpectSigned(level Level, made time.Time, digests map[string][32]byte) Expectation {
	return Expectation{level: level, made: made, signed: maps.Clone(digests)}
}

// matchable reports whether there is anything that e expects.
func (e *Expectation) matchable() bool {
	if e.any || len(e.signed) > 0 {
		return true
	}
	return !e.data.IsZero() && !slices.ContainsFunc(e.others, ReportData.IsZero)
}

// With adds checks that were made on the way to e: they become part of the transcript and of the verdict.
func (e Expectation) With(checks ...Check) Expectation {
	e.checks = append(slices.Clip(e.checks), checks...)
	return e
}

// Unsigned adds what came along with the evidence and nobody signed: the transcript lists it as not checked.
func (e Expectation) Unsigned(texts ...string) Expectation {
	e.unsigned = append(slices.Clip(e.unsigned), texts...)
	return e
}

// WithConfig says which digest of a configuration the expected data commits to.
func (e Expectation) WithConfig(digest [32]byte) Expectation {
	e.config = digest
	return e
}

// UnsafeExpectAnything accepts any report data: the evidence then proves nothing about who sent it. The level is
// LevelNone, which a policy must name.
func UnsafeExpectAnything() Expectation { return Expectation{level: LevelNone, any: true} }

// Situation is what a Policy is told beside the Claims.
type Situation struct {
	Level  Level
	Made   time.Time // when the evidence was made; zero when unknown
	Now    time.Time // the relying party's clock
	Config [32]byte  // digest of the measured configuration, which the report data commits to; zero when there is none
	// Reconnect says that this connection shows no evidence: it proves a secret of an earlier session of level session. Level
	// is what the proof is bound at, and Made is of that session's evidence.
	Reconnect bool
	// Reconnected is when it did. It lies before Now where a connection that is open is judged again.
	Reconnected time.Time
}

// Judgement is a Policy's answer: one Check for every rule it holds. No checks at all is a refusal.
type Judgement struct {
	ID         string // "sha256:" and hex of the policy file
	Checks     []Check
	NotChecked []string
}

// Policy judges Claims.
type Policy interface {
	Judge(*Claims, Situation) Judgement
}

// Verdict is the outcome of an appraisal. Its zero value is Refused.
type Verdict uint8

// Values of Verdict.
const (
	Refused Verdict = iota
	Undecided
	Affirmed
)

func (v Verdict) String() string {
	switch v {
	case Affirmed:
		return "affirmed"
	case Undecided:
		return "undecided"
	default:
		return "refused"
	}
}

// Result is the Attestation Result. Only Appraiser.Appraise makes an affirmed one, and Rejudge and Reconnect make others of
// it; the zero Result is a refusal.
type Result struct {
	verdict    Verdict
	code       Code
	level      Level
	claims     *Claims
	kind       [32]byte // of the claims; zero where there are none
	checks     []Check  // but for the policy's
	notChecked []string
	said       []Check // by the policy
	unsaid     []string
	policyID   string
	line       int
	digest     [32]byte
	time       time.Time
	// What a policy was told, to judge anew: nil when the evidence was found wanting before a policy was reached.
	situation *Situation
	verified  int // checks made before those of the claims
	before    int // checks made before the policy's
	warned    bool
}

// RefusedResult is a refusal for err without an appraisal, for example of a peer that offers no evidence.
func RefusedResult(err error, now time.Time) *Result {
	r := &Result{time: now}
	r.fail(err)
	r.conclude()
	return r
}

// Rejudge gives the Result that another policy has for the same evidence at another time, without verifying it again. It
// is for peers that are still connected and for recorded ones: whether keys were revoked or certificates expired since is
// not looked at, except as far as the policy bounds the age of evidence and endorsements. A refusal that no policy was
// asked about stays one.
func (r *Result) Rejudge(policy Policy, now time.Time) *Result {
	if r == nil || r.situation == nil {
		return RefusedResult(r.Err(), now)
	}
	return r.again(r.found(nil), policy, now)
}

// found is a Result with what stood before the policy was asked, and the claims of today where those were verified anew. The caller
// adds to its lists, and changes nothing in them: Results share them.
func (r *Result) found(v *Renewal) *Result {
	next := &Result{level: r.level, claims: r.claims, kind: r.kind, digest: r.digest, verified: r.verified}
	if v == nil {
		next.checks, next.notChecked = slices.Clip(r.checks[:r.before]), slices.Clip(r.notChecked)
		return next
	}
	next.claims, next.kind = v.claims, v.kind
	next.checks = slices.Concat(r.checks[:r.verified], v.claims.Checks, r.checks[r.verified+len(r.claims.Checks):r.before])
	next.notChecked = slices.Concat(v.claims.NotChecked, r.notChecked[len(r.claims.NotChecked):])
	return next
}

// again judges what was found in the situation of r.
func (r *Result) again(next *Result, policy Policy, now time.Time) *Result {
	next.time = now
	s := *r.situation
	s.Now = now
	if err := next.judge(policy, s); err != nil {
		next.fail(err)
	}
	next.conclude()
	return next
}

// Renewal is what came of verifying the evidence of open connections again: Appraiser.Reverify makes one. The zero value renews
// nothing.
type Renewal struct {
	claims *Claims
	kind   [32]byte // of the claims
	digest [32]byte // of the evidence
	err    error
}

// Err is why the evidence is not authentic any more; nil where it is.
func (v Renewal) Err() error {
	if v.claims == nil && v.err == nil {
		return &Error{Code: CodeNoEvidence, Check: "evidence"}
	}
	return v.err
}

// Renew is Rejudge with claims of today: v is of the evidence that r is about, whose signatures, chain and revocation were
// looked at again. What bound the evidence to the connection was settled when that was made, and stands as long as the hardware
// has signed the same report data. A Renewal of other evidence, or one that failed, gives a refusal.
func (r *Result) Renew(v Renewal, policy Policy, now time.Time) *Result {
	if r == nil || r.situation == nil {
		return RefusedResult(r.Err(), now)
	}
	err := v.Err()
	switch {
	case err != nil:
	case v.digest != r.digest:
		err = &Error{Code: CodeInternal, Check: "authenticity", Got: "other evidence than that of the connection"}
	case v.claims.ReportData != r.claims.ReportData || v.claims.Folded != r.claims.Folded:
		err = &Error{Code: CodeReportData, Check: "binding.report_data", Got: Abbreviate(v.claims.ReportData[:]), Want: Abbreviate(r.claims.ReportData[:])}
	}
	if err != nil {
		next := &Result{level: r.level, digest: r.digest, time: now}
		next.fail(err)
		next.conclude()
		return next
	}
	return r.again(r.found(&v), policy, now)
}

// Reconnect gives the Result of a later connection between the same two ends that shows no evidence: it proves, by a MAC over
// its own exporter, a secret of the session that r is about. The caller has verified that proof, and gives the checks of the
// new connection, such as its name and validity, passed or not; nothing is left of those of the old one. The policy judges the
// claims again, and the age of the evidence is that of the original: a Reconnect of a reconnected Result makes it no younger.
// Signatures are not verified anew.
//
// The Result is a refusal with CodeReconnectRefused unless r is affirmed, of level session, and under this same policy: a
// change of policy voids what was affirmed under another. A Result that was judged again (Rejudge) counts as affirmed under
// the policy that judged last.
func (r *Result) Reconnect(policy Policy, now time.Time, checks ...Check) *Result {
	const id = "binding.reconnect"
	if !r.Affirmed() || r.level != LevelSession {
		got := "a session that was not affirmed"
		if r.Affirmed() {
			got = "a session affirmed at level " + string(r.level)
		}
		return RefusedResult(&Error{Code: CodeReconnectRefused, Check: id, Got: got, Want: "one affirmed at level " + string(LevelSession)}, now)
	}
	// The old connection's checks are not facts of the new one: what hardware and vendor signed is all that is kept.
	next := &Result{level: r.level, claims: r.claims, kind: r.kind, digest: r.digest, time: now, verified: len(checks), checks: slices.Concat(checks, r.claims.Checks)}
	s := *r.situation
	s.Now, s.Reconnect, s.Reconnected = now, true, now
	got := "evidence of unknown age"
	if !s.Made.IsZero() {
		got = "evidence of " + s.Made.UTC().Format(time.RFC3339) + ", " + now.Sub(s.Made).Round(time.Second).String() + " old"
	}
	next.pass(id, "proves a secret of a session attested earlier", got, "", SourceTLS)
	next.notChecked = append(slices.Clone(r.claims.NotChecked), "signatures and revocation anew: what the evidence of the earlier session showed counts")
	err := next.judge(policy, s)
	if err == nil && (next.policyID == "" || next.policyID != r.policyID) {
		// What that policy says of the claims decides nothing here.
		next.said, next.unsaid = nil, nil
		err = &Error{Code: CodeReconnectRefused, Check: id, Got: "a session affirmed under policy " + r.policyID, Want: "evidence for policy " + next.policyID}
	}
	if err != nil {
		// Judged again it would be affirmed, under the policy that it was refused for.
		next.situation = nil
		next.fail(err)
	}
	next.conclude()
	return next
}

// judge asks the policy.
func (r *Result) judge(policy Policy, s Situation) error {
	if policy == nil {
		return &Error{Code: CodeEmptyPolicy, Check: "policy"}
	}
	r.situation, r.before = &s, len(r.checks)
	j := policy.Judge(r.claims, s)
	r.policyID, r.unsaid = j.ID, j.NotChecked
	if len(j.Checks) == 0 {
		return &Error{Code: CodeEmptyPolicy, Check: "policy"}
	}
	r.said = slices.Clone(j.Checks) // which conclude completes
	return nil
}

// Affirmed reports whether every check passed. It is false for nil.
func (r *Result) Affirmed() bool { return r != nil && r.verdict == Affirmed }

// Verdict is the outcome.
func (r *Result) Verdict() Verdict {
	if r == nil {
		return Refused
	}
	return r.verdict
}

// Code is that of the first failing check; empty when affirmed.
func (r *Result) Code() Code { return r.code }

// Level is the binding level that was really reached.
func (r *Result) Level() Level { return r.level }

// Claims are nil when the evidence is not authentic. The caller must not change them.
func (r *Result) Claims() *Claims { return r.claims }

// Kind is that of the claims; zero where there are none.
func (r *Result) Kind() [32]byte { return r.kind }

// Checks is the transcript. The caller must not change it.
func (r *Result) Checks() []Check {
	if len(r.said) == 0 {
		return r.checks
	}
	return slices.Concat(r.checks, r.said)
}

// Warned reports whether one of the checks has warned.
func (r *Result) Warned() bool { return r.warned }

// NotChecked lists what nobody looked at.
func (r *Result) NotChecked() []string {
	if len(r.unsaid) == 0 {
		return r.notChecked
	}
	return slices.Concat(r.notChecked, r.unsaid)
}

// PolicyID is "sha256:" and the hex digest of the policy file; empty when no policy was reached.
func (r *Result) PolicyID() string { return r.policyID }

// Line is the policy line of the first failing check; 0 when affirmed or when no policy was reached.
func (r *Result) Line() int { return r.line }

// EvidenceDigest is the hex SHA-256 of the raw evidence; empty when there was none.
func (r *Result) EvidenceDigest() string { return string(r.AppendEvidenceDigest(nil)) }

// AppendEvidenceDigest appends EvidenceDigest to b.
func (r *Result) AppendEvidenceDigest(b []byte) []byte {
	if r.digest == [32]byte{} {
		return b
	}
	return hex.AppendEncode(b, r.digest[:])
}

// Time is the relying party's clock at the appraisal.
func (r *Result) Time() time.Time { return r.time }

// Reconnected reports whether the connection showed no evidence of its own, but proved a secret of an earlier session. It is
// false for nil.
func (r *Result) Reconnected() bool { return r != nil && r.situation != nil && r.situation.Reconnect }

// EvidenceTime is when the evidence was made, also where it is that of an earlier session; zero when that is unknown or when no
// policy was reached.
func (r *Result) EvidenceTime() time.Time {
	if r == nil || r.situation == nil {
		return time.Time{}
	}
	return r.situation.Made
}

// Config is the digest of the measured configuration that the evidence commits to; zero where there is none, or no policy was reached.
func (r *Result) Config() [32]byte {
	if r == nil || r.situation == nil {
		return [32]byte{}
	}
	return r.situation.Config
}

// Err is nil when affirmed, else an *Error for the first failing check.
func (r *Result) Err() error {
	if r.Affirmed() {
		return nil
	}
	if r != nil {
		for _, part := range [2][]Check{r.checks, r.said} {
			for i := range part {
				if c := &part[i]; c.Status != StatusPass && c.Status != StatusWarn && c.Code == r.code {
					return &Error{Code: c.Code, Check: c.ID, Got: c.Got, Want: c.Want, Hint: c.Remedy}
				}
			}
		}
	}
	return &Error{Code: CodeEmptyPolicy, Check: "policy"}
}

func (r *Result) pass(id, text, got, want string, source Source) {
	r.checks = append(r.checks, Check{ID: id, Status: StatusPass, Text: text, Got: got, Want: want, Source: source})
}

// conclude derives the verdict from the transcript. A refusal outweighs what could not be decided, and a transcript
// without a single check refuses.
func (r *Result) conclude() {
	r.verdict, r.code, r.line, r.warned = Affirmed, "", 0, false
	if len(r.checks)+len(r.said) == 0 {
		r.verdict, r.code = Refused, CodeEmptyPolicy
		return
	}
	for _, part := range [2][]Check{r.checks, r.said} {
		for i := range part {
			c := &part[i]
			if c.Status == StatusPass {
				continue
			}
			if c.Status == StatusWarn {
				r.warned = true
				continue
			}
			if c.Code == "" {
				c.Code = CodeInternal
			}
			switch {
			case !c.Code.Undecidable() && r.verdict != Refused:
				r.verdict, r.code, r.line = Refused, c.Code, c.Line
			case r.verdict == Affirmed:
				r.verdict, r.code, r.line = Undecided, c.Code, c.Line
			}
		}
	}
}
