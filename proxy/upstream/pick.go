package upstream

import "slices"

// Info is what a choice depends on.
type Info struct {
	Random uint64 // evenly distributed, another one for each pick
	// Hash, where HasHash says that there is one, is what ring_hash and maglev stick to. Without it they choose at random.
	Hash    uint64
	HasHash bool
	// Tried are endpoints to avoid, where Attempts further draws find another one.
	Tried    []*Endpoint
	Attempts int
}

// Pick chooses an endpoint: a priority by its load, a locality by its weight, an endpoint by the cluster's policy. It is
// healthy, unless its priority is in panic. The error is ErrNoEndpoint.
func (c *Cluster) Pick(info Info) (*Endpoint, error) {
	s := c.snapshot.Load()
	random, hash := info.Random, info.Hash
	if !info.HasHash {
		hash = next(&random)
	}
	for attempt := 0; ; attempt++ {
		p := s.choose(&random, hash)
		if p == nil {
			c.stats.noEndpoint.Add(1)
			return nil, ErrNoEndpoint
		}
		e := p.pick(&random, hash)
		if attempt >= info.Attempts || !slices.Contains(info.Tried, e) {
			if p.panicking {
				c.stats.panicked.Add(1)
			}
			return e, nil
		}
		hash = mix(hash + 1) // elsewhere on the ring
	}
}
