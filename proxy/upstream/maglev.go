package upstream

import (
	"cmp"
	"slices"
)

// makeTable fills a table of a prime size: endpoints take turns, as many as their weights say, and each takes the first
// free entry of its own permutation (Eisenbud et al., "Maglev", NSDI 2016, section 3.4).
func makeTable(endpoints []*Endpoint, weights []float64, size int) []uint32 {
	type filler struct {
		index      uint32
		at, skip   int
		weight     float64
		turn       float64 // when it is next
		identifier uint64
	}
	heaviest := slices.Max(weights)
	fillers := make([]filler, len(endpoints))
	for i, e := range endpoints {
		fillers[i] = filler{
			index: uint32(i), at: int(e.hash % uint64(size)), skip: int(mix(e.hash+1)%uint64(size-1)) + 1,
			weight: weights[i], identifier: e.hash,
		}
	}
	// The order in which endpoints were listed must not matter.
	slices.SortFunc(fillers, func(a, b filler) int { return cmp.Compare(a.identifier, b.identifier) })
	const free = ^uint32(0)
	table := make([]uint32, size)
	for i := range table {
		table[i] = free
	}
	for round, filled := 1.0, 0; ; round++ {
		for i := range fillers {
			f := &fillers[i]
			if round*f.weight < f.turn {
				continue
			}
			f.turn += heaviest
			for table[f.at] != free {
				if f.at += f.skip; f.at >= size {
					f.at -= size
				}
			}
			table[f.at] = f.index
			if filled++; filled == size {
				return table
			}
		}
	}
}
