package attest_test

import (
	"crypto/sha256"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

func TestExpectOneOf(t *testing.T) {
	one, two := attest.ReportData{1}, attest.ReportData{2}
	folding := func(ev *attest.Evidence) (*attest.Claims, error) {
		c, err := authentic(ev)
		c.ReportData, c.Folded = c.ReportData.Fold(), true
		return c, err
	}
	for name, c := range map[string]struct {
		signed   attest.ReportData
		want     attest.Expectation
		verifier verifier
		code     attest.Code
	}{
		"first":          {one, attest.ExpectOneOf(attest.LevelKey, now, one, two), authentic, ""},
		"second":         {two, attest.ExpectOneOf(attest.LevelKey, now, one, two), authentic, ""},
		"second, folded": {two, attest.ExpectOneOf(attest.LevelKey, now, one, two), folding, ""},
		"neither":        {attest.ReportData{3}, attest.ExpectOneOf(attest.LevelKey, now, one, two), authentic, attest.CodeReportData},
		"neither, fold":  {attest.ReportData{3}, attest.ExpectOneOf(attest.LevelKey, now, one, two), folding, attest.CodeReportData},
		"none":           {one, attest.ExpectOneOf(attest.LevelKey, now), authentic, attest.CodeNoExpectation},
		"zero":           {one, attest.ExpectOneOf(attest.LevelKey, now, one, attest.ReportData{}), authentic, attest.CodeNoExpectation},
		"zero first":     {one, attest.ExpectOneOf(attest.LevelKey, now, attest.ReportData{}, one), authentic, attest.CodeNoExpectation},
		"no level":       {one, attest.ExpectOneOf("", now, one), authentic, attest.CodeNoExpectation},
	} {
		r := attest.NewAppraiser(nil, c.verifier).Appraise(t.Context(), &attest.Evidence{Raw: c.signed[:]}, c.want, policy{pass("a")}, now)
		if r.Code() != c.code || r.Level() != map[bool]attest.Level{true: "", false: attest.LevelKey}[name == "no level"] {
			t.Errorf("%s: %q at level %q, want %q", name, r.Code(), r.Level(), c.code)
		}
	}
}

func TestExpectSigned(t *testing.T) {
	user, nonce := sha256.Sum256([]byte("user")), sha256.Sum256([]byte("nonce"))
	signing := verifier(func(*attest.Evidence) (*attest.Claims, error) {
		return &attest.Claims{Measured: map[string]attest.HexBytes{"user": user[:], "nonce": nonce[:], "none": nil}, NotChecked: []string{"verifier"}}, nil
	})
	for name, c := range map[string]struct {
		want map[string][32]byte
		code attest.Code
	}{
		"one":     {map[string][32]byte{"user": user}, ""},
		"both":    {map[string][32]byte{"user": user, "nonce": nonce}, ""},
		"one not": {map[string][32]byte{"user": user, "nonce": user}, attest.CodeReportData},
		"absent":  {map[string][32]byte{"user": user, "else": nonce}, attest.CodeReportData},
		"empty":   {map[string][32]byte{"none": {}}, attest.CodeReportData},
		"nothing": {nil, attest.CodeNoExpectation},
	} {
		want := attest.ExpectSigned(attest.LevelNonce, now, c.want).Unsigned("names").Unsigned("more")
		s := new(situated)
		r := attest.NewAppraiser(nil, signing).Appraise(t.Context(), &attest.Evidence{Raw: []byte{1}}, want, s, now)
		if r.Code() != c.code {
			t.Errorf("%s: %q, want %q", name, r.Code(), c.code)
		}
		if c.code == "" && (s.Level != attest.LevelNonce || !s.Made.Equal(now) || !slices.Equal(r.NotChecked(), []string{"verifier", "unsigned: names", "unsigned: more"})) {
			t.Errorf("%s: %+v, %q", name, s.Situation, r.NotChecked())
		}
		if c.code == "" { // what came along stays unsigned when the Result is judged again
			if again := r.Rejudge(policy{pass("a")}, now.Add(time.Hour)); len(again.NotChecked()) != 3 {
				t.Errorf("%s: %q", name, again.NotChecked())
			}
		}
	}
}
