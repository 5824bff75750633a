package proxy

import (
	"slices"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/proxy/transparent"
)

// lane is a chain of a port at work, or what is said beside the chains.
type lane struct {
	server *Server
	config config.Listener // what it would be alone
	match  chain.Match     // which connections it is for
}

// ChainStatus is what is known of a chain.
type ChainStatus struct {
	Name  string
	Stats Stats // Accepted are the connections that it was for
}

// chains makes what a listener has for chains: anew, or where it stays, those that changed.
func (n *next) chains(old *port, stays bool, l *config.Listener) error {
	table, err := chain.Compile(l.Matches())
	if err != nil {
		return within(l.Label(), err)
	}
	mode := transparent.Mode("")
	if l.Transparent != "" {
		if mode, err = transparent.ParseMode(l.Transparent); err != nil {
			return within(l.Label(), err)
		}
	}
	front := newSorter(n.engine, mode, l.DetectHTTP, n.log.With("listener", l.Label()), limitsOf(l.Limits))
	base := front.stats
	if old != nil {
		base = old.stats
	}
	if stays {
		front = old.server.Load()
	}
	way, lanes := &ways{table: table}, map[string]*lane{}
	for i := range l.Chains {
		s, err := n.lane(old, stays, front.gate, base, lanes, l.Chains[i].Label(), &lane{config: l.Chain(i), match: l.Chains[i].Match})
		if err != nil {
			return within(l.Label(), err)
		}
		way.servers = append(way.servers, s)
	}
	if alone, ok := l.Rest(); ok {
		if way.rest, err = n.lane(old, stays, front.gate, base, lanes, config.Rest, &lane{config: alone}); err != nil {
			return within(l.Label(), err)
		}
	}
	if !stays {
		front.sorter.way.Store(way)
		return n.open(old, l, front, lanes)
	}
	n.ports[l.Address] = old
	n.swaps = append(n.swaps, func() {
		before := old.lanes
		gone := old.change(lanes)
		old.config = *l
		front.sorter.way.Store(way)
		for label, was := range before {
			if is := lanes[label]; is == nil || is.server != was.server {
				n.retire(was.server, gone[label]...)
			}
		}
	})
	return nil
}

// lane makes a chain that has a label, or takes the one that has it. One is taken that is for all that it was for, at least: a
// connection that it is not for any more could belong to another one, which demands more.
func (n *next) lane(old *port, stays bool, g *gate, base *counters, lanes map[string]*lane, label string, as *lane) (*Server, error) {
	if lanes[label] != nil {
		return nil, &attest.Error{Code: attest.CodeConfigValue, Check: "chains", Got: label, Want: "a name that no other chain has"}
	}
	var was *lane
	if old != nil {
		was = old.lanes[label]
	}
	if stays && was != nil && was.match.Within(as.match) && sameButRoutes(was.config, as.config) && n.sameClusters(&as.config.Serving) {
		routing, err := n.routing(&as.config)
		if err != nil {
			return nil, within(label, err)
		}
		if routing != nil {
			n.swaps = append(n.swaps, func() { was.server.Reroute(routing) })
		}
		as.server, lanes[label] = was.server, as
		return as.server, nil
	}
	s, err := n.server(&as.config, n.log.With("listener", as.config.Label(), "chain", label))
	if err != nil {
		return nil, within(label, err)
	}
	s.gate = g
	if was != nil {
		s.count(was.server.stats)
	} else {
		s.count(&counters{tally: base.tally}) // requests are told of the listener alone
	}
	s.Observe(n.observer, as.config.Label())
	as.server, lanes[label] = s, as
	return s, nil
}

// sameButChains reports whether two listeners differ at most in what becomes of which of their connections.
func sameButChains(a, b config.Listener) bool {
	a.Serving, b.Serving, a.Chains, b.Chains = config.Serving{}, config.Serving{}, nil, nil
	return a.Equal(&b)
}

// departed is a chain that is no more.
type departed struct {
	port  *port
	stats *counters
}

// change gives the port other lanes, and answers those labels that are no more. What they have counted counts on. The runtime's
// lock is held.
func (p *port) change(lanes map[string]*lane) map[string][]departed {
	gone := map[string][]departed{}
	for label, l := range p.lanes {
		if lanes[label] == nil {
			p.left = append(p.left, l.server.stats)
			gone[label] = []departed{{p, l.server.stats}}
		}
	}
	p.lanes = lanes
	return gone
}

// fold makes what chains without connections have counted that of their port.
func (r *Runtime) fold(gone []departed) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, d := range gone {
		d.port.stats.add(d.stats.snapshot())
		d.port.left = slices.DeleteFunc(d.port.left, func(c *counters) bool { return c == d.stats })
	}
}

// status is what a port has counted, and what each of its chains has. The runtime's lock is held.
func (p *port) status() (Stats, []ChainStatus) {
	all := p.stats.snapshot()
	for _, c := range p.left {
		all = all.plus(c.snapshot())
	}
	var chains []ChainStatus
	add := func(label string) {
		if l := p.lanes[label]; l != nil {
			s := l.server.stats.snapshot()
			all, chains = all.plus(s), append(chains, ChainStatus{label, s})
		}
	}
	for i := range p.config.Chains {
		add(p.config.Chains[i].Label())
	}
	add(config.Rest)
	return all, chains
}
