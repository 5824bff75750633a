package dialect_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"slices"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/dcap"
	"github.com/jurat-tls/jurat/attest/sgx"
	"github.com/jurat-tls/jurat/ratls/dialect"
	"github.com/jurat-tls/jurat/test/dialectforge"
	"github.com/jurat-tls/jurat/test/vectors"
)

// parsing believes what an SGX quote says of itself: report data are compared, and nothing else stands in the way.
type parsing struct{}

func (parsing) Verify(_ context.Context, ev *attest.Evidence, _ attest.Endorser, _ time.Time) (*attest.Claims, error) {
	report, err := sgx.Parse(ev.Raw)
	if err != nil {
		return nil, err
	}
	return &attest.Claims{ReportData: attest.ReportData(report.ReportData)}, nil
}

// A bit of the recorded certificate's key, of what its quotes have signed, or of what they say, and it is refused: in both dialects, and
// whichever of them is allowed.
func TestRecordedBits(t *testing.T) {
	block, _ := pem.Decode(vectors.Read(t, "ratls/gramine-cert.pem"))
	intel := sgx.NewVerifier(dcap.IntelRoots())
	at := time.Date(2024, 1, 1, 0, 0, 0, 0, time.UTC)
	judge := func(v attest.Verifier, change func(*x509.Certificate), allow ...string) *attest.Result {
		leaf, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			t.Fatal(err)
		}
		change(leaf)
		r, err := dialect.NewReader(allow...)
		if err != nil {
			t.Fatal(err)
		}
		found, err := r.Read(dialect.Shown{Leaf: leaf}, dialect.Context{})
		if err != nil {
			return attest.RefusedResult(err, at)
		}
		return dialect.Appraise(t.Context(), attest.NewAppraiser(attest.NoEndorser{}, v), found, anything{new(attest.Situation)}, at)
	}
	extension := func(c *x509.Certificate, legacy bool) *pkix.Extension {
		id := dialectforge.OIDDICE
		if legacy {
			id = dialectforge.OIDGramine
		}
		return &c.Extensions[slices.IndexFunc(c.Extensions, func(e pkix.Extension) bool { return e.Id.Equal(id) })]
	}
	const reportData = 48 + 320
	for _, allow := range [][]string{nil, {dialect.DICE}, {dialect.GramineLegacy}, {dialect.DICE, dialect.GramineLegacy}} {
		if r := judge(parsing{}, func(*x509.Certificate) {}, allow...); !r.Affirmed() {
			t.Fatalf("%v: %v", allow, r.Err())
		}
		if r := judge(parsing{}, func(c *x509.Certificate) {
			c.RawSubjectPublicKeyInfo = bytes.Clone(c.RawSubjectPublicKeyInfo)
			c.RawSubjectPublicKeyInfo[40] ^= 1
		}, allow...); r.Affirmed() {
			t.Errorf("%v: another key is taken", allow)
		}
		for _, legacy := range []bool{true, false} {
			flip := func(i int) func(*x509.Certificate) {
				return func(c *x509.Certificate) {
					e := extension(c, legacy)
					quote := 0
					if !legacy { // a tag, an array, and the head of a byte string
						quote = 3 + 1 + 3
					}
					e.Value = bytes.Clone(e.Value)
					e.Value[quote+i] ^= 1
				}
			}
			for i := range 64 {
				refused(t, judge(parsing{}, flip(reportData+i), allow...), attest.CodeReportData)
			}
			// The signature that Intel vouches for is over them, and over the measurement. Of two, the one that does not count is verified
			// first; for the other what Intel says today is missing before that.
			for _, i := range []int{reportData, 48 + 64, 48 + 128} {
				want := attest.CodeSignature
				if counts := slices.Equal(allow, []string{dialect.GramineLegacy}); counts == legacy {
					want = attest.CodeEndorsementMissing
				}
				refused(t, judge(intel, flip(i), allow...), want)
			}
		}
		last := func(c *x509.Certificate) {
			e := extension(c, false)
			e.Value = bytes.Clone(e.Value)
			e.Value[len(e.Value)-1] ^= 1
		}
		if r := judge(parsing{}, last, allow...); r.Affirmed() {
			t.Errorf("%v: other claims are taken", allow)
		}
	}
}
