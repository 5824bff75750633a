package envoy

import (
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/jurat-tls/jurat/proxy/chain"
)

// ways answers a match for each way to meet m: with one thing of each kind. Matches whose lists would make too many of them are refused
// when they are compiled, and answered as they are here.
func ways(m chain.Match) []chain.Match {
	all := []chain.Match{{TransportProtocol: m.TransportProtocol, SourceType: m.SourceType}}
	n := 1
	for _, l := range []int{len(m.DestinationPorts), len(m.PrefixRanges), len(m.ServerNames), len(m.ApplicationProtocols), len(m.DirectSourceRanges), len(m.SourceRanges), len(m.SourcePorts)} {
		if n *= max(l, 1); n > chain.MaxWays {
			return []chain.Match{m}
		}
	}
	all = times(all, m.DestinationPorts, func(m *chain.Match, v []uint16) { m.DestinationPorts = v })
	all = times(all, m.PrefixRanges, func(m *chain.Match, v []string) { m.PrefixRanges = v })
	all = times(all, m.ServerNames, func(m *chain.Match, v []string) { m.ServerNames = v })
	all = times(all, m.ApplicationProtocols, func(m *chain.Match, v []string) { m.ApplicationProtocols = v })
	all = times(all, m.DirectSourceRanges, func(m *chain.Match, v []string) { m.DirectSourceRanges = v })
	all = times(all, m.SourceRanges, func(m *chain.Match, v []string) { m.SourceRanges = v })
	return times(all, m.SourcePorts, func(m *chain.Match, v []uint16) { m.SourcePorts = v })
}

func times[T any](all []chain.Match, values []T, set func(*chain.Match, []T)) []chain.Match {
	if len(values) == 0 {
		return all
	}
	out := make([]chain.Match, 0, len(all)*len(values))
	for _, m := range all {
		for _, v := range values {
			set(&m, []T{v})
			out = append(out, m)
		}
	}
	return out
}

// stems answers m without the last kind of thing that it asks for, without the last two, and so on, in the order of package chain, down to its
// ports. What is left instead of its addresses is those of the place.
func stems(m chain.Match, addresses []string) []chain.Match {
	parts := []struct {
		there bool
		drop  func(*chain.Match)
	}{
		{len(m.SourcePorts) > 0, func(m *chain.Match) { m.SourcePorts = nil }},
		{len(m.SourceRanges) > 0, func(m *chain.Match) { m.SourceRanges = nil }},
		{m.SourceType != "", func(m *chain.Match) { m.SourceType = "" }},
		{len(m.DirectSourceRanges) > 0, func(m *chain.Match) { m.DirectSourceRanges = nil }},
		{len(m.ApplicationProtocols) > 0, func(m *chain.Match) { m.ApplicationProtocols = nil }},
		{m.TransportProtocol != "", func(m *chain.Match) { m.TransportProtocol = "" }},
		{len(m.ServerNames) > 0, func(m *chain.Match) { m.ServerNames = nil }},
		{len(m.PrefixRanges) > 0, func(m *chain.Match) { m.PrefixRanges = addresses }},
	}
	var all []chain.Match
	for _, p := range parts {
		if p.there {
			p.drop(&m)
			all = append(all, m)
		}
	}
	return all
}

// countFields counts what Range goes through.
func countFields(n *int) func(protoreflect.FieldDescriptor, protoreflect.Value) bool {
	return func(protoreflect.FieldDescriptor, protoreflect.Value) bool {
		*n++
		return true
	}
}
