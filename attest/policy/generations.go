package policy

import (
	"fmt"
	"slices"
)

// Simulated is the vendor of every simulated platform.
const Simulated = "sim"

// vendors are those whose evidence this build verifies. Other names are allowed, and match nothing yet; a slip of the pen
// in a denial would deny nothing.
var vendors = []string{"amd", "intel", "aws", "arm", "tcg", Simulated}

// order lists the generations of vendors, oldest first, so that "amd milan+" has a meaning. A name that is not here is a
// slip of the pen for these vendors, and an unknown generation in evidence matches no pattern that names one.
var order = map[string][]string{
	"amd": {"milan", "genoa", "turin"},
	// By the date of the first product.
	"intel": {
		"coffee-lake", "gemini-lake", "ice-lake-client", "comet-lake", "rocket-lake", "ice-lake", "ice-lake-d", "sapphire-rapids",
		"emerald-rapids", "sierra-forest", "granite-rapids", "granite-rapids-d", "clearwater-forest",
	},
}

// components are the names of security version numbers in claims. A floor under another name could never be met.
var components = func() []string {
	all := []string{"snp", "tee", "bootloader", "microcode", "fmc", "pce"}
	for _, of := range []string{"sgx", "tdx"} {
		for i := range 16 {
			all = append(all, fmt.Sprintf("%s%d", of, i+1))
		}
	}
	return all
}()

// since answers a generation and all later ones.
func since(vendor, generation string) []string {
	all := order[vendor]
	i := slices.Index(all, generation)
	if i < 0 {
		return nil
	}
	return slices.Clone(all[i:])
}
