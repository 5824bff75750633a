package snp_test

import (
	"testing"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/attest/snp"
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
