package snp

import (
	"testing"

	"github.com/jurat-tls/jurat/test/vectors"
)

type recordedPair struct {
	name         string
	report, leaf []byte
}

// recordedPairs are reports of real hardware with their leaves: Milan, Milan with a VLEK, Turin.
func recordedPairs(t testing.TB) []recordedPair {
	t.Helper()
	var pairs []recordedPair
	for _, v := range [][2]string{{"milan-v2", "milan-v2.vcek.der"}, {"milan-v3-vlek", "milan-v3-vlek.vlek.der"}, {"turin-v5", "turin-v5.vcek.der"}} {
		pairs = append(pairs, recordedPair{v[0], vectors.Read(t, "snp/"+v[0]+".report"), vectors.Read(t, "snp/"+v[1])})
	}
	return pairs
}
