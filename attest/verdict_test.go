package attest_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/jurat-tls/jurat/attest"
)

func appraise(t *testing.T, ev *attest.Evidence, v verifier, p attest.Policy) *attest.Result {
	t.Helper()
	return attest.NewAppraiser(attest.NoEndorser{}, v).Appraise(t.Context(), ev, attest.Expect(attest.ReportData{1, 2, 3}, attest.LevelKey, now), p, now)
}

// TestFolded: hardware with little room signs the fold of what is expected, and only where the verifier says so.
func TestFolded(t *testing.T) {
	data := attest.ReportData{1, 2, 3}
	for name, c := range map[string]struct {
		signed attest.ReportData
		folded bool
		code   attest.Code
	}{
		"whole":              {data, false, ""},
		"folded":             {data.Fold(), true, ""},
		"whole, said folded": {data, true, attest.CodeReportData},
		"folded, not said":   {data.Fold(), false, attest.CodeReportData},
		"fold of other data": {attest.ReportData{9}.Fold(), true, attest.CodeReportData},
	} {
		r := appraise(t, &attest.Evidence{Raw: []byte{1}}, func(*attest.Evidence) (*attest.Claims, error) {
			return &attest.Claims{ReportData: c.signed, Folded: c.folded}, nil
		}, policy{pass("a")})
		if r.Code() != c.code {
			t.Errorf("%s: %v", name, r.Err())
		}
	}
	sum := sha256.Sum256(data[:])
	if got := data.Fold(); [32]byte(got[:32]) != sum || [32]byte(got[32:]) != [32]byte{} {
		t.Errorf("%x", got)
	}
}

func TestOversizedEventLog(t *testing.T) {
	data := attest.ReportData{1, 2, 3}
	for size, code := range map[int]attest.Code{attest.MaxEventLog: "", attest.MaxEventLog + 1: attest.CodeOversized} {
		r := appraise(t, &attest.Evidence{Raw: data[:], EventLog: make([]byte, size)}, authentic, policy{pass("a")})
		if r.Code() != code {
			t.Errorf("%d bytes: %v", size, r.Err())
		}
	}
}

func TestTranscript(t *testing.T) {
	data := attest.ReportData{1, 2, 3}
	r := appraise(t, &attest.Evidence{Raw: data[:]}, authentic, policy{pass("a")})
	if c := r.Checks(); len(c) != 2 || c[0].ID != "binding.report_data" || c[0].Status != attest.StatusPass || c[1].ID != "a" {
		t.Errorf("%+v", c)
	}
	for name, c := range map[string]struct {
		err attest.Error
		got string
	}{
		"what was found":                {attest.Error{Code: attest.CodeSignature, Got: "x", Err: errors.New("cause")}, "x"},
		"the cause, where that is none": {attest.Error{Code: attest.CodeSignature, Err: errors.New("cause")}, "cause"},
		"neither":                       {attest.Error{Code: attest.CodeSignature}, ""},
	} {
		r := attest.RefusedResult(&c.err, now)
		if r.Code() != attest.CodeSignature || r.Verdict() != attest.Refused || len(r.Checks()) != 1 || r.Checks()[0].Got != c.got {
			t.Errorf("%s: %+v", name, r.Checks())
		}
	}
	if undecided := attest.RefusedResult(&attest.Error{Code: attest.CodeEndorsementMissing}, now); undecided.Verdict() != attest.Undecided {
		t.Errorf("%v", undecided.Verdict())
	}
	if (*attest.Result)(nil).Verdict() != attest.Refused {
		t.Error("a nil Result has another verdict")
	}
}

func TestEvidenceDigest(t *testing.T) {
	sum := sha256.Sum256([]byte("raw"))
	for name, c := range map[string]struct {
		ev   *attest.Evidence
		want string
	}{
		"evidence":       {&attest.Evidence{Raw: []byte("raw")}, hex.EncodeToString(sum[:])},
		"empty evidence": {&attest.Evidence{}, ""},
		"none":           {nil, ""},
	} {
		r := appraise(t, c.ev, authentic, policy{pass("a")})
		if got := r.EvidenceDigest(); got != c.want {
			t.Errorf("%s: %q", name, got)
		}
		if got := string(r.AppendEvidenceDigest([]byte("x"))); got != "x"+c.want {
			t.Errorf("%s: appended %q", name, got)
		}
	}
}

// TestTheFirstFailureDecides: the code, the line and the error are those of the first failure of the worst kind.
func TestTheFirstFailureDecides(t *testing.T) {
	data := attest.ReportData{1, 2, 3}
	stale, missing, debug := attest.CodeEndorsementTooOld, attest.CodeEndorsementMissing, attest.CodeDebug
	for name, c := range map[string]struct {
		policy policy
		code   attest.Code
		line   int
		id     string
	}{
		"two undecided":           {policy{fail("a", stale, 1), fail("b", missing, 2)}, stale, 1, "a"},
		"refused, then undecided": {policy{fail("a", debug, 1), fail("b", stale, 2)}, debug, 1, "a"},
		"undecided, then refused": {policy{fail("a", stale, 1), fail("b", debug, 2)}, debug, 2, "b"},
		"two refusals":            {policy{fail("a", debug, 1), fail("b", attest.CodeMeasurement, 2)}, debug, 1, "a"},
		"passed with that code":   {policy{{ID: "p", Status: attest.StatusPass, Code: debug}, {ID: "w", Status: attest.StatusWarn, Code: debug}, fail("f", debug, 3)}, debug, 3, "f"},
		"failed without a code":   {policy{{ID: "f", Status: attest.StatusFail, Line: 4}}, attest.CodeInternal, 4, "f"},
	} {
		r := appraise(t, &attest.Evidence{Raw: data[:]}, authentic, c.policy)
		var e *attest.Error
		if r.Code() != c.code || r.Line() != c.line || !errors.As(r.Err(), &e) || e.Check != c.id || e.Code != c.code {
			t.Errorf("%s: %s line %d, %#v", name, r.Code(), r.Line(), r.Err())
		}
	}
}

func TestErrors(t *testing.T) {
	cause := errors.New("cause")
	for want, e := range map[string]attest.Error{
		"the evidence is malformed (J201)":                      {},
		"the evidence is malformed: got x (J201)":               {Got: "x"},
		"the evidence is malformed: want y (J201)":              {Want: "y"},
		"the evidence is malformed: got x, want y (J201)":       {Got: "x", Want: "y"},
		"the evidence is malformed: cause (J201)":               {Err: cause},
		"f: the evidence is malformed: got x, want y: z (J201)": {Subject: "f", Got: "x", Want: "y", Err: errors.New("z")},
	} {
		e.Code = attest.CodeMalformed
		if e.Error() != want || e.Remedy() != attest.CodeMalformed.Remedy() {
			t.Errorf("got %q, want %q; %q", e.Error(), want, e.Remedy())
		}
	}
	if err := error(&attest.Error{Err: cause}); !errors.Is(err, cause) {
		t.Error("the cause is lost")
	}
}

func TestFlags(t *testing.T) {
	if attest.FlagOf(true) != attest.On || attest.FlagOf(false) != attest.Off {
		t.Error("FlagOf")
	}
	for flag, want := range map[attest.Flag]string{attest.On: "on", attest.Off: "off", attest.Absent: "absent"} {
		if flag.String() != want {
			t.Errorf("%v", flag)
		}
	}
}
