package dcap

import (
	"encoding/hex"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// processors maps what an FMSPC begins with, after its first digit, to products. Digits 1 to 5 are the processor's
// signature in CPUID leaf 1 without the stepping: extended family, extended model, type, family and model. In parts for
// desktops digit 6 is the stepping, which tells Coffee Lake from the Kaby Lake that it shares a model with.
var processors = []struct{ digits, generation, product string }{
	{"0606a", "ice-lake", "Xeon Ice Lake"},
	{"0606c", "ice-lake-d", "Xeon D Ice Lake"},
	{"0806f", "sapphire-rapids", "Xeon Sapphire Rapids"},
	{"0c06f", "emerald-rapids", "Xeon Emerald Rapids"},
	{"0a06d", "granite-rapids", "Xeon Granite Rapids"},
	{"0a06e", "granite-rapids-d", "Xeon D Granite Rapids"},
	{"0a06f", "sierra-forest", "Xeon Sierra Forest"},
	{"0d06d", "clearwater-forest", "Xeon Clearwater Forest"},
	{"0706a", "gemini-lake", "Gemini Lake"},
	{"0706e", "ice-lake-client", "Core Ice Lake"},
	{"0906ea", "coffee-lake", "Coffee Lake"},
	{"0906eb", "coffee-lake", "Coffee Lake"},
	{"0906ec", "coffee-lake", "Coffee Lake"},
	{"0906ed", "coffee-lake", "Coffee Lake"},
	{"0a065", "comet-lake", "Comet Lake"},
	{"0a067", "rocket-lake", "Rocket Lake"},
}

// processor names the product of an FMSPC.
func processor(fmspc []byte) (generation, product string, err error) {
	digits := hex.EncodeToString(fmspc)
	for _, p := range processors {
		if strings.HasPrefix(digits[1:], p.digits) {
			return p.generation, p.product, nil
		}
	}
	return "", "", attest.Refuse(attest.CodeUnknownProduct, checkProduct, "FMSPC "+digits, "")
}
