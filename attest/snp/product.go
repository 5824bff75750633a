package snp

import (
	"fmt"
	"strings"

	"github.com/jurat-tls/jurat/attest"
)

// generation is one line of products under one root.
type generation struct {
	name    string // as in Claims
	line    string // as the KDS and the certificates name it
	tcb     func(TCBVersion) (tcb, error)
	version int // structVersion of its certificates, which goes with the layout of the TCB
	hwid    int // bytes of the chip's identifier
}

// AMD's generations. Those that are not here, such as Venice, are refused: their layouts are not known to this build.
var (
	milan = &generation{"milan", "Milan", decoder(decodeTCB0), 0, 64}
	genoa = &generation{"genoa", "Genoa", decoder(decodeTCB0), 0, 64}
	turin = &generation{"turin", "Turin", decoder(decodeTCB1), 1, 8}

	generations = []*generation{milan, genoa, turin}
)

// decoder gives a decoder of one layout the type that all generations share.
func decoder[T tcb](decode func(TCBVersion) (T, error)) func(TCBVersion) (tcb, error) {
	return func(raw TCBVersion) (tcb, error) { return decode(raw) }
}

// processors maps CPUID family and model to products. Bergamo and Siena have a name of their own but Genoa's roots.
var processors = []struct {
	family, first, last uint8
	product             string
	generation          *generation
}{
	{0x19, 0x00, 0x0f, "EPYC Milan", milan},
	{0x19, 0x10, 0x1f, "EPYC Genoa", genoa},
	{0x19, 0xa0, 0xaf, "EPYC Bergamo/Siena", genoa},
	{0x1a, 0x00, 0x1f, "EPYC Turin", turin},
}

func processor(family, model uint8) (product string, g *generation, err error) {
	for _, p := range processors {
		if p.family == family && p.first <= model && model <= p.last {
			return p.product, p.generation, nil
		}
	}
	return "", nil, attest.Refuse(attest.CodeUnknownProduct, checkProduct, fmt.Sprintf("CPUID family %02Xh model %02Xh", family, model), "")
}

// generationOf finds the generation that a certificate's product name, such as "Milan-B0", begins with.
func generationOf(productName string) (*generation, error) {
	line, _, _ := strings.Cut(productName, "-")
	for _, g := range generations {
		if g.line == line {
			return g, nil
		}
	}
	return nil, attest.Refuse(attest.CodeUnknownProduct, checkProduct, attest.Quote(productName), "")
}

func generationNamed(name string) *generation {
	for _, g := range generations {
		if g.name == name {
			return g
		}
	}
	return nil
}

// steppingName writes AMD's name of a stepping: the letter from the low half of the model, the digit from CPUID.
func steppingName(model, stepping uint8) string {
	return fmt.Sprintf("%c%d", 'A'+model&0x0f, stepping)
}

// signer is the kind of key that signed a report (56860 table 23, SIGNING_KEY).
type signer uint8

const (
	vcek signer = 0 // of one chip at one TCB level
	vlek signer = 1 // of one cloud provider at one TCB level
)

func (s signer) String() string {
	if s == vlek {
		return "VLEK"
	}
	return "VCEK"
}

// leafName, issuerName and rootName are the common names that the certificates of a chain must have.
func (s signer) leafName() string { return "SEV-" + s.String() }

func (s signer) issuerName(g *generation) string {
	if s == vlek {
		return "SEV-VLEK-" + g.line
	}
	return "SEV-" + g.line
}

func rootName(g *generation) string { return "ARK-" + g.line }
