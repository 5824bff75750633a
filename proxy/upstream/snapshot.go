package upstream

import "sort"

// snapshot is what picks are made from. It does not change, but for the counters of round robin.
type snapshot struct {
	priorities []priority // those with a load
	hashing    bool
}

// priority has its endpoints in groups: one for each locality where these have weights, else one.
type priority struct {
	upTo      uint64 // percent: its load and those of the priorities before
	panicking bool
	groups    []group
	upToGroup []float64 // the sums of the weights of the groups
}

// level is a priority while it is counted.
type level struct {
	all, healthy []member
	load         int // percent
	panicking    bool
}

func build(config *Config, members []member, seed uint64) *snapshot {
	var levels []level
	for _, m := range members {
		for int(m.priority) >= len(levels) {
			levels = append(levels, level{})
		}
		l := &levels[m.priority]
		l.all = append(l.all, m)
		if m.Healthy() {
			l.healthy = append(l.healthy, m)
		}
	}
	distribute(config, levels)
	s := &snapshot{hashing: policies[config.Policy].hashes()}
	sum := 0
	for i := range levels {
		l := &levels[i]
		if l.load == 0 {
			continue
		}
		sum += l.load
		p := priority{upTo: uint64(sum), panicking: l.panicking}
		p.fill(config, l, seed)
		s.priorities = append(s.priorities, p)
	}
	return s
}

// distribute gives each level its load and says which are in panic, as Envoy's LoadBalancerBase does: a level takes as
// much as its healthy endpoints, overprovisioned, can; the next one takes what is left. Where all together can't take
// everything, a level with fewer healthy endpoints than the threshold uses all it has.
func distribute(config *Config, levels []level) {
	availability := make([]int, len(levels))
	total := 0
	for i, l := range levels {
		if len(l.all) > 0 {
			availability[i] = min(100, config.OverprovisioningFactor*len(l.healthy)/len(l.all))
		}
		total += availability[i]
	}
	total = min(total, 100)
	all := true
	for i := range levels {
		l := &levels[i]
		l.panicking = total < 100 && len(l.healthy)*100 < config.HealthyPanicThreshold*len(l.all)
		all = all && (l.panicking || len(l.all) == 0)
	}
	weights, sum := availability, total
	if all { // each level gets its part of the endpoints
		sum = 0
		for i, l := range levels {
			weights[i] = len(l.all)
			sum += weights[i]
		}
	}
	if sum == 0 {
		return
	}
	left, first := 100, -1
	for i := range levels {
		levels[i].load = min(left, 100*weights[i]/sum)
		left -= levels[i].load
		if first < 0 && weights[i] > 0 {
			first = i
		}
	}
	levels[first].load += left // what rounding left
}

// fill makes the groups of a level, which has a load and so at least one endpoint. Localities without any weight are
// like none.
func (p *priority) fill(config *Config, l *level, seed uint64) {
	use := l.healthy
	if l.panicking {
		use = l.all
	}
	own := make([]float64, len(use))
	weighted := false
	for i, m := range use {
		own[i] = float64(m.weight)
		weighted = weighted || m.share > 0
	}
	if !config.LocalityWeighted || l.panicking || !weighted {
		p.add(config, use, own, 1, seed)
		return
	}
	type place struct {
		members    []member
		sum, share float64
	}
	total := map[int]int{}
	for _, m := range l.all {
		total[m.locality]++
	}
	places, order := map[int]*place{}, []int{}
	for _, m := range use {
		at := places[m.locality]
		if at == nil {
			at = &place{}
			places[m.locality], order = at, append(order, m.locality)
		}
		at.members, at.sum = append(at.members, m), at.sum+float64(m.weight)
	}
	var flat []member
	var weights []float64
	for _, locality := range order {
		at := places[locality]
		available := min(1, float64(config.OverprovisioningFactor)/100*float64(len(at.members))/float64(total[locality]))
		at.share = float64(at.members[0].share) * available
		if at.share == 0 {
			continue
		}
		own := make([]float64, len(at.members))
		for i, m := range at.members {
			own[i] = float64(m.weight)
			flat, weights = append(flat, m), append(weights, own[i]/at.sum*at.share)
		}
		if !policies[config.Policy].hashes() {
			p.add(config, at.members, own, at.share, seed)
		}
	}
	if policies[config.Policy].hashes() {
		p.add(config, flat, weights, 1, seed) // one table, in which an endpoint has its part of the locality's weight
	}
}

func (p *priority) add(config *Config, members []member, weights []float64, share float64, seed uint64) {
	g := group{policy: policies[config.Policy], choices: config.ChoiceCount, turn: new(turn)}
	g.turn.Store(seed >> 1)
	for _, m := range members {
		g.endpoints = append(g.endpoints, m.Endpoint)
	}
	g.prepare(config, weights)
	p.groups = append(p.groups, g)
	if n := len(p.upToGroup); n > 0 {
		share += p.upToGroup[n-1]
	}
	p.upToGroup = append(p.upToGroup, share)
}

// choose answers a priority, nil where there is none with an endpoint. With a hash the same one is chosen for it.
func (s *snapshot) choose(random *uint64, hash uint64) *priority {
	switch len(s.priorities) {
	case 0:
		return nil
	case 1:
		return &s.priorities[0]
	}
	draw := mix(hash)
	if !s.hashing {
		draw = next(random)
	}
	percent := below(draw, s.priorities[len(s.priorities)-1].upTo)
	for i := range s.priorities {
		if percent < s.priorities[i].upTo {
			return &s.priorities[i]
		}
	}
	return nil // not reached
}

func (p *priority) pick(random *uint64, hash uint64) *Endpoint {
	i := 0
	if n := len(p.groups); n > 1 {
		point := float64(next(random)>>11) / (1 << 53) * p.upToGroup[n-1]
		i = min(sort.Search(n, func(i int) bool { return point < p.upToGroup[i] }), n-1)
	}
	return p.groups[i].pick(random, hash)
}
