// Package chain tells the connections of one port apart: by where they go, by what their ClientHello asks for, and by where
// they come from. It is pure: whoever has a connection says what is known of it.
//
// The rules are those of Envoy's FilterChainMatch. Of all that the matches of a port list, the most specific thing counts that
// a connection has, one kind of thing after the other: destination port, destination address, server name, transport protocol,
// application protocol, address of the peer, kind of source, address of the source, port of the source. There is no way back: a
// connection to 10.0.0.1:443 is not for a match of port 443 where another one lists 10.0.0.1 beside it, even if that other one
// refuses it for its server name. Match.Default is for what is left of a destination, as the default chain of a listener is for what is
// left of all.
package chain

import (
	"slices"
	"strconv"
	"strings"
)

// Match says which connections are meant: those that meet all that is set. The empty Match is of all that nothing more specific is
// of. No two of a port may be met by one connection in the same way.
type Match struct {
	DestinationPorts []uint16 `yaml:"destination_ports"` // the ports that connections go to
	// Prefixes of the addresses that they go to, such as 10.0.0.0/8 or 10.0.0.1: of a transparent listener where they were going,
	// of others the address of this machine, or that in their PROXY header.
	PrefixRanges         []string `yaml:"prefix_ranges"`
	ServerNames          []string `yaml:"server_names"`                                 // what the client asks for by TLS: pay.example, or *.example for all below it
	TransportProtocol    string   `yaml:"transport_protocol,one=tls|raw_buffer"`        // whether they begin with a ClientHello
	ApplicationProtocols []string `yaml:"application_protocols"`                        // of ALPN, exactly: the first of the client's that anything is for counts; beside raw_buffer what detect_http finds
	DirectSourceRanges   []string `yaml:"direct_source_prefix_ranges"`                  // prefixes of the addresses that connect to us
	SourceType           string   `yaml:"source_type,one=same_ip_or_loopback|external"` // whether they come from this machine
	SourceRanges         []string `yaml:"source_prefix_ranges"`                         // prefixes of the addresses that they come from, which a PROXY header may say
	SourcePorts          []uint16 `yaml:"source_ports"`                                 // the ports that they come from
	// It is for what goes to the most specific of these destinations, and is for nothing else that lists them. Beside it are
	// DestinationPorts and PrefixRanges alone.
	Default bool `yaml:"default"`
}

// Within reports whether all that a match is for is also what other is for, as far as the two alone say.
func (m Match) Within(other Match) bool {
	return within(m.DestinationPorts, other.DestinationPorts) && within(m.PrefixRanges, other.PrefixRanges) && within(m.ServerNames, other.ServerNames) &&
		(other.TransportProtocol == "" || m.TransportProtocol == other.TransportProtocol) && within(m.ApplicationProtocols, other.ApplicationProtocols) &&
		within(m.DirectSourceRanges, other.DirectSourceRanges) && (other.SourceType == "" || m.SourceType == other.SourceType) &&
		within(m.SourceRanges, other.SourceRanges) && within(m.SourcePorts, other.SourcePorts) && m.Default == other.Default
}

// within reports whether a list, which is everything where it is empty, has nothing that another one has not.
func within[T comparable](list, other []T) bool {
	if len(other) == 0 || len(list) == 0 {
		return len(other) == 0
	}
	return !slices.ContainsFunc(list, func(v T) bool { return !slices.Contains(other, v) })
}

// The words of Match.
const (
	TLS   = "tls"
	Raw   = "raw_buffer"
	Local = "same_ip_or_loopback"
	Other = "external"
)

// String is the match in one line, "any" where it is empty.
func (m Match) String() string {
	var parts []string
	add := func(key string, values ...string) {
		if len(values) > 0 && values[0] != "" {
			parts = append(parts, key+"="+strings.Join(values, ","))
		}
	}
	add("destination_ports", ports(m.DestinationPorts)...)
	add("prefix_ranges", m.PrefixRanges...)
	add("server_names", m.ServerNames...)
	add("transport_protocol", m.TransportProtocol)
	add("application_protocols", m.ApplicationProtocols...)
	add("direct_source_prefix_ranges", m.DirectSourceRanges...)
	add("source_type", m.SourceType)
	add("source_prefix_ranges", m.SourceRanges...)
	add("source_ports", ports(m.SourcePorts)...)
	if m.Default {
		parts = append(parts, "default")
	}
	if len(parts) == 0 {
		return "any"
	}
	return strings.Join(parts, " ")
}

func ports(all []uint16) []string {
	text := make([]string, len(all))
	for i, p := range all {
		text[i] = strconv.Itoa(int(p))
	}
	return text
}
