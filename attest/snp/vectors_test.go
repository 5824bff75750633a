package snp_test

import (
	"crypto/ecdsa"
	"crypto/sha512"
	"errors"
	"maps"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
	"github.com/jurat-tls/jurat/test/bench"
	"github.com/jurat-tls/jurat/test/vectors"
)

var (
	today      = time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	vlekExpiry = time.Date(2025, 12, 10, 22, 14, 21, 0, time.UTC)
)

// recorded is evidence that real hardware made.
type recorded struct {
	name, leaf string
	at         time.Time
	want       attest.Claims
}

func recordings() []recorded {
	return []recorded{
		{"milan-v2", "milan-v2.vcek.der", today, attest.Claims{
			Product: "EPYC Milan", Generation: "milan", Stepping: "B0", Version: 2,
			TCB:      attest.TCB{"bootloader": 3, "tee": 0, "snp": 8, "microcode": 115},
			Platform: map[string]attest.Flag{"smt": attest.On, "tsme": attest.Off},
		}},
		{"milan-v3-vlek", "milan-v3-vlek.vlek.der", vlekExpiry.Add(-time.Hour), attest.Claims{
			Product: "EPYC Milan", Generation: "milan", Stepping: "B1", Version: 3,
			TCB: attest.TCB{"bootloader": 4, "tee": 0, "snp": 24, "microcode": 217},
			Platform: map[string]attest.Flag{
				"smt": attest.On, "tsme": attest.On, "ecc": attest.On, "rapl_off": attest.Off,
				"ciphertext_hiding": attest.Off, "alias_check": attest.On,
			},
			Provenance: attest.Provenance{CSP: "CN=cc-us-east-2.amazonaws.com"},
		}},
		{"turin-v5", "turin-v5.vcek.der", today, attest.Claims{
			Product: "EPYC Turin", Generation: "turin", Stepping: "C1", Version: 5,
			TCB: attest.TCB{"fmc": 0, "bootloader": 1, "tee": 0, "snp": 2, "microcode": 71},
			Platform: map[string]attest.Flag{
				"smt": attest.On, "tsme": attest.On, "ecc": attest.On, "rapl_off": attest.Off,
				"ciphertext_hiding": attest.Off, "alias_check": attest.On, "iommu_write_safe": attest.On, "tio": attest.Off,
			},
		}},
	}
}

func (r recorded) evidence(t testing.TB) *attest.Evidence {
	t.Helper()
	return &attest.Evidence{Format: snp.Format, Raw: vectors.Read(t, "snp/"+r.name+".report"), Endorsements: []attest.Endorsement{
		{Kind: attest.KindCertificate, Raw: vectors.Read(t, "snp/"+r.leaf)},
	}}
}

// allowAll is a policy with one rule that always passes.
type allowAll struct{}

func (allowAll) Judge(*attest.Claims, attest.Situation) attest.Judgement {
	return attest.Judgement{ID: "test", Checks: []attest.Check{{ID: "all", Status: attest.StatusPass}}}
}

// machine leaves of the flags those of the machine.
func machine(flags map[string]attest.Flag) map[string]attest.Flag {
	out := maps.Clone(flags)
	maps.DeleteFunc(out, func(name string, _ attest.Flag) bool {
		return strings.HasPrefix(name, "requires_") || strings.HasPrefix(name, "allows_") || slices.Contains([]string{"page_swap_off", "author_key", "mask_chip_key"}, name)
	})
	return out
}

func TestRecordings(t *testing.T) {
	t.Parallel()
	verifier := snp.NewVerifier(snp.AMDRoots())
	for _, r := range recordings() {
		t.Run(r.name, func(t *testing.T) {
			parallel(t)
			ev := r.evidence(t)
			c, err := verifier.Verify(t.Context(), ev, attest.NoEndorser{}, r.at)
			if err != nil {
				t.Fatal(err)
			}
			if c.Product != r.want.Product || c.Generation != r.want.Generation || c.Stepping != r.want.Stepping || c.Version != r.want.Version ||
				!maps.Equal(c.TCB, r.want.TCB) || !maps.Equal(machine(c.Platform), r.want.Platform) || c.CSP != r.want.CSP || (c.CSP == "") == (len(c.ChipID) == 0) || c.Debug != attest.Off {
				t.Errorf("%+v", c)
			}
			if c.Revocation.Problem == nil || c.Revocation.Problem.Code != attest.CodeEndorsementMissing {
				t.Errorf("revocation: %+v", c.Revocation)
			}
			result := attest.NewAppraiser(attest.NoEndorser{}, verifier).Appraise(t.Context(), ev, attest.Expect(c.ReportData, attest.LevelKey, time.Time{}), allowAll{}, r.at)
			if !result.Affirmed() {
				t.Error(result.Err())
			}
			data := c.ReportData
			data[63] ^= 1
			result = attest.NewAppraiser(attest.NoEndorser{}, verifier).Appraise(t.Context(), ev, attest.Expect(data, attest.LevelKey, time.Time{}), allowAll{}, r.at)
			if result.Code() != attest.CodeReportData {
				t.Error(result.Err())
			}
			for name, at := range map[string]time.Time{"before": time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC), "after": time.Date(2040, 1, 1, 0, 0, 0, 0, time.UTC)} {
				if _, err := verifier.Verify(t.Context(), ev, nil, at); attest.CodeOf(err) != attest.CodeChainExpired {
					t.Errorf("%s: %v", name, err)
				}
			}
			if _, err := snp.NewVerifier(forge{}.make(t).roots).Verify(t.Context(), ev, nil, r.at); attest.CodeOf(err) != attest.CodeUntrustedRoot && attest.CodeOf(err) != attest.CodeEndorsementMissing {
				t.Errorf("under a foreign root: %v", err)
			}
		})
	}
}

func TestRecordedVLEKExpired(t *testing.T) {
	t.Parallel()
	ev := recordings()[1].evidence(t)
	if _, err := snp.NewVerifier(snp.AMDRoots()).Verify(t.Context(), ev, nil, vlekExpiry.Add(time.Second)); attest.CodeOf(err) != attest.CodeChainExpired {
		t.Error(err)
	}
}

func TestRecordedForeignLeaves(t *testing.T) {
	t.Parallel()
	verifier := snp.NewVerifier(snp.AMDRoots())
	all := recordings()
	for _, r := range all {
		for _, leaf := range []string{"milan-v2.bad-vcek-legacy.der", "milan-v2.bad-vcek-new.der", all[0].leaf, all[1].leaf, all[2].leaf} {
			if leaf == r.leaf {
				continue
			}
			swapped := r
			swapped.leaf = leaf
			if c, err := verifier.Verify(t.Context(), swapped.evidence(t), nil, r.at); err == nil || c != nil || attest.CodeOf(err) == attest.CodeInternal {
				t.Errorf("%s with %s: %v", r.name, leaf, err)
			}
		}
	}
}

// TestEverySignedByteCounts flips one bit of every signed byte.
func TestEverySignedByteCounts(t *testing.T) {
	t.Parallel()
	verifier := snp.NewVerifier(snp.AMDRoots())
	for _, r := range recordings() {
		t.Run(r.name, func(t *testing.T) {
			parallel(t)
			ev := r.evidence(t)
			stride := 1
			if testing.Short() {
				stride = 29
			}
			for at := 0; at < snp.SignedSize; at += stride {
				flipped := *ev
				flipped.Raw = slices.Clone(ev.Raw)
				flipped.Raw[at] ^= 1 << (at % 8)
				if _, err := verifier.Verify(t.Context(), &flipped, nil, r.at); err == nil || attest.CodeOf(err) == attest.CodeInternal {
					t.Fatalf("byte %#x: %v", at, err)
				}
			}
		})
	}
}

// BenchmarkVerify: "known chain" has seen the chain before, as a relying party has that connects again.
func BenchmarkVerify(b *testing.B) {
	r := recordings()[2]
	ev, roots := r.evidence(b), snp.AMDRoots()
	known := snp.NewVerifier(roots)
	for name, verifier := range map[string]func() *snp.Verifier{
		"known chain": func() *snp.Verifier { return known },
		"new chain":   func() *snp.Verifier { return snp.NewVerifier(roots) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := verifier().Verify(b.Context(), ev, nil, r.at); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkWarm compares the verification of evidence with all its endorsements stapled, whose chain and list were seen
// before, with the one signature that is new every time.
func BenchmarkWarm(b *testing.B) {
	f := forge{version: 5, turin: true}.make(b)
	f.evidence.Endorsements = append(f.evidence.Endorsements, attest.Endorsement{Kind: attest.KindCertificate, Raw: f.ark})
	verifier := snp.NewVerifier(f.roots)
	raw := f.evidence.Raw
	var rs [2]big.Int
	for i := range rs {
		half := slices.Clone(raw[snp.SignedSize+72*i:][:48])
		slices.Reverse(half)
		rs[i].SetBytes(half)
	}
	signature := der(struct{ R, S *big.Int }{&rs[0], &rs[1]}, "")
	bench.Compare(b, "snp/1×P-384", 1.2, func() error {
		_, err := verifier.Verify(b.Context(), f.evidence, attest.NoEndorser{}, epoch)
		return err
	}, func() error {
		digest := sha512.Sum384(raw[:snp.SignedSize])
		if !ecdsa.VerifyASN1(&sharedKeys().leaf.PublicKey, digest[:], signature) {
			return errors.New("does not verify")
		}
		return nil
	})
}
