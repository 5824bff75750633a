package policy

import "slices"

// Simulated is the vendor of every simulated platform.
const Simulated = "sim"

// order lists the generations of vendors, oldest first, so that "amd milan+" has a meaning. A name that is not here is a
// slip of the pen for these vendors, and an unknown generation in evidence matches no pattern that names one.
var order = map[string][]string{
	"amd": {"milan", "genoa", "turin"},
}

// tees are the names that stand for a TEE in the short form of a pattern.
var tees = []string{"snp", "tdx", "sgx", "nitro", "cca", "tpm"}

// since answers a generation and all later ones.
func since(vendor, generation string) []string {
	all := order[vendor]
	i := slices.Index(all, generation)
	if i < 0 {
		return nil
	}
	return slices.Clone(all[i:])
}
