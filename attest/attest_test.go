package attest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

var now = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// verifier is a Verifier of format "test" whose evidence is the report data.
type verifier func(*attest.Evidence) (*attest.Claims, error)

func (v verifier) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	return v(ev)
}

func authentic(ev *attest.Evidence) (*attest.Claims, error) {
	c := &attest.Claims{Vendor: "test"}
	copy(c.ReportData[:], ev.Raw)
	return c, nil
}

type policy []attest.Check

func (p policy) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "sha256:p", Checks: p}
}

func pass(id string) attest.Check { return attest.Check{ID: id, Status: attest.StatusPass} }

func fail(id string, c attest.Code, line int) attest.Check {
	return attest.Check{ID: id, Status: attest.StatusFail, Code: c, Line: line}
}

func TestAppraise(t *testing.T) {
	data := attest.ReportData{1, 2, 3}
	evidence := &attest.Evidence{Format: "test", Raw: data[:]}
	expect := attest.Expect(data, attest.LevelKey, now)
	ok := policy{pass("a")}
	many := make([]attest.Endorsement, attest.MaxEndorsements+1)
	for name, c := range map[string]struct {
		ev       *attest.Evidence
		want     attest.Expectation
		policy   attest.Policy
		verifier verifier
		verdict  attest.Verdict
		code     attest.Code
	}{
		"affirmed":               {evidence, expect, ok, authentic, attest.Affirmed, ""},
		"warnings pass":          {evidence, expect, policy{pass("a"), {ID: "b", Status: attest.StatusWarn}}, authentic, attest.Affirmed, ""},
		"no evidence":            {nil, expect, ok, authentic, attest.Refused, attest.CodeNoEvidence},
		"empty evidence":         {&attest.Evidence{Format: "test"}, expect, ok, authentic, attest.Refused, attest.CodeNoEvidence},
		"oversized evidence":     {&attest.Evidence{Raw: make([]byte, attest.MaxRaw+1)}, expect, ok, authentic, attest.Refused, attest.CodeOversized},
		"too many endorsements":  {&attest.Evidence{Raw: data[:], Endorsements: many}, expect, ok, authentic, attest.Refused, attest.CodeOversized},
		"oversized endorsement":  {&attest.Evidence{Raw: data[:], Endorsements: []attest.Endorsement{{Raw: make([]byte, attest.MaxEndorsement+1)}}}, expect, ok, authentic, attest.Refused, attest.CodeOversized},
		"zero expectation":       {evidence, attest.Expectation{}, ok, authentic, attest.Refused, attest.CodeNoExpectation},
		"zero report data":       {&attest.Evidence{Raw: make([]byte, 64)}, attest.Expect(attest.ReportData{}, attest.LevelKey, now), ok, authentic, attest.Refused, attest.CodeNoExpectation},
		"zero level":             {evidence, attest.Expect(data, "", now), ok, authentic, attest.Refused, attest.CodeNoExpectation},
		"made-up level":          {evidence, attest.Expect(data, "best", now), ok, authentic, attest.Refused, attest.CodeNoExpectation},
		"other report data":      {evidence, attest.Expect(attest.ReportData{1}, attest.LevelKey, now), ok, authentic, attest.Refused, attest.CodeReportData},
		"any report data":        {evidence, attest.UnsafeExpectAnything(), ok, authentic, attest.Affirmed, ""},
		"no policy":              {evidence, expect, nil, authentic, attest.Refused, attest.CodeEmptyPolicy},
		"empty policy":           {evidence, expect, policy{}, authentic, attest.Refused, attest.CodeEmptyPolicy},
		"policy refuses":         {evidence, expect, policy{pass("a"), fail("b", attest.CodeDebug, 7)}, authentic, attest.Refused, attest.CodeDebug},
		"first failure names it": {evidence, expect, policy{fail("a", attest.CodeMeasurement, 3), fail("b", attest.CodeDebug, 7)}, authentic, attest.Refused, attest.CodeMeasurement},
		"empty status":           {evidence, expect, policy{pass("a"), {ID: "b"}}, authentic, attest.Refused, attest.CodeInternal},
		"unknown status":         {evidence, expect, policy{pass("a"), {ID: "b", Status: "fine"}}, authentic, attest.Refused, attest.CodeInternal},
		"undecided":              {evidence, expect, policy{fail("a", attest.CodeEndorsementTooOld, 2)}, authentic, attest.Undecided, attest.CodeEndorsementTooOld},
		"refusal outweighs undecided": {
			evidence, expect, policy{fail("a", attest.CodeEndorsementTooOld, 2), fail("b", attest.CodeDebug, 7)}, authentic, attest.Refused, attest.CodeDebug,
		},
		"transport check fails": {evidence, expect.With(fail("t", attest.CodeName, 0)), ok, authentic, attest.Refused, attest.CodeName},
		"not authentic": {evidence, expect, ok, func(*attest.Evidence) (*attest.Claims, error) {
			return nil, &attest.Error{Code: attest.CodeSignature, Check: "authenticity.signature"}
		}, attest.Refused, attest.CodeSignature},
		"endorsement missing": {evidence, expect, ok, func(*attest.Evidence) (*attest.Claims, error) {
			_, err := attest.NoEndorser{}.Endorse(t.Context(), attest.Ref{})
			return nil, err
		}, attest.Undecided, attest.CodeEndorsementMissing},
		"nobody's format":  {evidence, expect, ok, func(*attest.Evidence) (*attest.Claims, error) { return nil, attest.ErrNotMine }, attest.Refused, attest.CodeUnknownFormat},
		"verifier panics":  {evidence, expect, ok, func(*attest.Evidence) (*attest.Claims, error) { panic("index out of range") }, attest.Refused, attest.CodeInternal},
		"verifier forgets": {evidence, expect, ok, func(*attest.Evidence) (*attest.Claims, error) { return nil, nil }, attest.Refused, attest.CodeInternal},
		"error without code": {evidence, expect, ok, func(*attest.Evidence) (*attest.Claims, error) {
			return nil, errors.New("odd")
		}, attest.Refused, attest.CodeInternal},
	} {
		t.Run(name, func(t *testing.T) {
			r := attest.NewAppraiser(attest.NoEndorser{}, c.verifier).Appraise(t.Context(), c.ev, c.want, c.policy, now)
			if r.Verdict() != c.verdict || r.Code() != c.code || r.Affirmed() != (c.verdict == attest.Affirmed) {
				t.Fatalf("got %v %q, want %v %q", r.Verdict(), r.Code(), c.verdict, c.code)
			}
			if err := r.Err(); attest.CodeOf(err) != c.code {
				t.Fatalf("Err is %v", err)
			}
		})
	}
}

// situated is a policy that passes and remembers what it was told.
type situated struct{ attest.Situation }

func (s *situated) Judge(_ *attest.Claims, situation attest.Situation) attest.Judgement {
	s.Situation = situation
	return attest.Judgement{Checks: []attest.Check{pass("a")}}
}

// The older of two dates counts: the transport's and the one that the hardware signed.
func TestAppraisedAge(t *testing.T) {
	data, old := attest.ReportData{1}, now.Add(-time.Hour)
	for name, c := range map[string]struct {
		transport, signed, want time.Time
		level                   attest.Level
	}{
		"transport's alone": {now, time.Time{}, now, attest.LevelKey},
		"signed alone":      {time.Time{}, old, old, attest.LevelKey},
		"signed is older":   {now, old, old, attest.LevelKey},
		"signed is younger": {old, now, old, attest.LevelKey},
		"neither":           {time.Time{}, time.Time{}, time.Time{}, attest.LevelKey},
		"bare evidence":     {time.Time{}, old, time.Time{}, attest.LevelNone},
	} {
		policy := new(situated)
		signed := verifier(func(*attest.Evidence) (*attest.Claims, error) {
			return &attest.Claims{ReportData: data, Made: c.signed}, nil
		})
		r := attest.NewAppraiser(attest.NoEndorser{}, signed).Appraise(t.Context(), &attest.Evidence{Raw: data[:]}, attest.Expect(data, c.level, c.transport), policy, now)
		if !r.Affirmed() || !policy.Made.Equal(c.want) {
			t.Errorf("%s: made %v, want %v", name, policy.Made, c.want)
		}
	}
}

func TestAppraiserTriesTheNextVerifier(t *testing.T) {
	notMine := verifier(func(*attest.Evidence) (*attest.Claims, error) { return nil, attest.ErrNotMine })
	data := attest.ReportData{1}
	r := attest.NewAppraiser(attest.NoEndorser{}, notMine, verifier(authentic)).
		Appraise(t.Context(), &attest.Evidence{Raw: data[:]}, attest.Expect(data, attest.LevelKey, now), policy{pass("a")}, now)
	if !r.Affirmed() {
		t.Fatal(r.Err())
	}
	if none := attest.NewAppraiser(attest.NoEndorser{}).Appraise(t.Context(), &attest.Evidence{Raw: data[:]}, attest.Expect(data, attest.LevelKey, now), policy{pass("a")}, now); none.Code() != attest.CodeUnknownFormat {
		t.Fatalf("without verifiers: %v", none.Err())
	}
}

func TestZeroValuesRefuse(t *testing.T) {
	var r attest.Result
	if r.Affirmed() || r.Verdict() != attest.Refused || r.Err() == nil {
		t.Error("the zero Result is not a refusal")
	}
	if (*attest.Result)(nil).Affirmed() || (*attest.Result)(nil).Err() == nil {
		t.Error("a nil Result is not a refusal")
	}
	if attest.RefusedResult(nil, now).Affirmed() || attest.RefusedResult(errors.New("x"), now).Affirmed() {
		t.Error("RefusedResult affirms")
	}
	var f attest.Flag
	if f == attest.Off || f == attest.On {
		t.Error("the zero Flag has a value")
	}
	if attest.Level("").AtLeast("") || attest.Level("").AtLeast(attest.LevelNone) || attest.LevelSession.AtLeast("") {
		t.Error("an unknown level satisfies or is satisfied")
	}
}

func TestLevelsAreOrdered(t *testing.T) {
	order := []attest.Level{attest.LevelNone, attest.LevelPinned, attest.LevelKey, attest.LevelNonce, attest.LevelSession}
	for i, have := range order {
		for j, want := range order {
			if have.AtLeast(want) != (i >= j) {
				t.Errorf("%s at least %s: %v", have, want, have.AtLeast(want))
			}
		}
	}
}

func TestCodes(t *testing.T) {
	for _, c := range attest.Codes() {
		if c.Title() == "" || c.Remedy() == "" || c.Exit() == 0 {
			t.Errorf("%s lacks a title, a remedy or an exit code", c)
		}
	}
	if attest.Code("J999").Exit() != 1 {
		t.Error("an unknown code has an exit code other than 1")
	}
	if attest.CodeOf(nil) != "" || attest.CodeOf(errors.New("x")) != attest.CodeInternal {
		t.Error("CodeOf")
	}
}

func TestErrorText(t *testing.T) {
	err := &attest.Error{Code: attest.CodeName, Subject: "a:443", Got: "b", Want: "a", Err: errors.New("cause")}
	if got, want := err.Error(), "a:443: the certificate is for other names: got b, want a: cause (J403)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if (&attest.Error{Code: attest.CodeName, Hint: "do this"}).Remedy() != "do this" {
		t.Error("the hint does not replace the remedy")
	}
}

func TestClaimsJSON(t *testing.T) {
	raw, err := json.Marshal(attest.Claims{Vendor: "amd", Debug: attest.Off, ReportData: attest.ReportData{0xab}})
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if got["vendor"] != "amd" || got["debug"] != false || got["migratable"] != nil || got["report_data"].(string)[:2] != "ab" {
		t.Fatalf("got %s", raw)
	}
}

// A retained Result is judged again under another policy, from the claims that were verified once.
func TestRejudge(t *testing.T) {
	data := attest.ReportData{1}
	want := attest.Expect(data, attest.LevelKey, now).WithConfig([32]byte{7}).With(pass("tls"))
	verified := 0
	appraiser := attest.NewAppraiser(attest.NoEndorser{}, verifier(func(ev *attest.Evidence) (*attest.Claims, error) {
		verified++
		return authentic(ev)
	}))
	first := appraiser.Appraise(t.Context(), &attest.Evidence{Raw: data[:]}, want, policy{pass("old"), fail("bad", attest.CodeDebug, 3)}, now)
	if first.Code() != attest.CodeDebug {
		t.Fatal(first.Err())
	}
	later := now.Add(time.Hour)
	seen := seeing{}
	second := first.Rejudge(&seen, later)
	if !second.Affirmed() || verified != 1 || !second.Time().Equal(later) || second.Level() != attest.LevelKey || second.EvidenceDigest() != first.EvidenceDigest() {
		t.Fatalf("got %v after %d verifications", second.Err(), verified)
	}
	if !seen.situation.Now.Equal(later) || !seen.situation.Made.Equal(now) || seen.situation.Config != [32]byte{7} {
		t.Fatalf("the policy was told %+v", seen.situation)
	}
	var ids []string
	for _, c := range second.Checks() {
		ids = append(ids, c.ID)
	}
	if got := fmt.Sprint(ids); got != "[tls binding.report_data new]" {
		t.Fatalf("checks %s", got)
	}
	if third := second.Rejudge(policy{fail("x", attest.CodePlatformDenied, 9)}, later); third.Affirmed() || third.Code() != attest.CodePlatformDenied || third.Line() != 9 {
		t.Fatalf("got %v", third.Err())
	}
	if second.Rejudge(nil, later).Code() != attest.CodeEmptyPolicy || second.Rejudge(policy{}, later).Code() != attest.CodeEmptyPolicy {
		t.Fatal("affirmed without a policy")
	}
	// What was refused before a policy was asked stays refused, with its reason.
	wrong := appraiser.Appraise(t.Context(), &attest.Evidence{Raw: []byte("x")}, want, policy{pass("a")}, now)
	for _, r := range []*attest.Result{wrong, nil, {}} {
		if again := r.Rejudge(policy{pass("a")}, later); again.Affirmed() || r == wrong && again.Code() != attest.CodeReportData {
			t.Fatalf("got %v", again.Err())
		}
	}
}

// seeing is a policy that keeps what it was told and accepts it.
type seeing struct{ situation attest.Situation }

func (s *seeing) Judge(_ *attest.Claims, told attest.Situation) attest.Judgement {
	s.situation = told
	return attest.Judgement{Checks: []attest.Check{pass("new")}}
}
