package upstream

import (
	"hash/fnv"
	"math/bits"
)

// mix is the finalizer of SplitMix64: every bit of the result depends on every bit of x.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// next is the next number of SplitMix64.
func next(state *uint64) uint64 {
	*state += 0x9e3779b97f4a7c15
	return mix(*state)
}

// below maps random to 0 … n-1.
func below(random, n uint64) uint64 {
	high, _ := bits.Mul64(random, n)
	return high
}

// sum is the same in every process, so that all proxies of a fleet choose alike.
func (id Identity) sum() uint64 {
	h := fnv.New64a()
	for _, s := range []string{id.Address, id.Hostname, id.Transport} {
		_, _ = h.Write(append([]byte(s), 0))
	}
	return mix(h.Sum64())
}
