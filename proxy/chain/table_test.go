package chain_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/chain"
)

func to(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// Each case is one port. The matches are told apart as Envoy's documentation of FilterChainMatch has it.
func TestFind(t *testing.T) {
	names := []chain.Match{
		{ServerNames: []string{"a.example", "Pay.Shop.Example"}},
		{ServerNames: []string{"*.shop.example"}},
		{ServerNames: []string{"*.example"}},
		{TransportProtocol: chain.TLS},
		{TransportProtocol: chain.Raw},
	}
	outbound := []chain.Match{
		{DestinationPorts: []uint16{443}, PrefixRanges: []string{"10.0.0.1"}},
		{DestinationPorts: []uint16{443}},
		{PrefixRanges: []string{"10.0.0.0/8"}},
		{PrefixRanges: []string{"10.0.0.1", "fd00::1"}},
		{},
	}
	inbound := []chain.Match{
		{DestinationPorts: []uint16{8080}, TransportProtocol: chain.TLS, ApplicationProtocols: []string{"istio-h2", "istio-http/1.1"}},
		{DestinationPorts: []uint16{8080}, TransportProtocol: chain.TLS, ApplicationProtocols: []string{"h2"}},
		{DestinationPorts: []uint16{8080}, TransportProtocol: chain.TLS},
		{TransportProtocol: chain.TLS, ApplicationProtocols: []string{"jurat/1"}},
		{ApplicationProtocols: []string{"jurat/1"}},
	}
	// A match that is more specific in what comes first takes all that it lists, and gives nothing back.
	noWayBack := []chain.Match{
		{DestinationPorts: []uint16{443}, ServerNames: []string{"a.example"}},
		{ServerNames: []string{"b.example"}},
		{ServerNames: []string{"a.example"}, TransportProtocol: chain.TLS, ApplicationProtocols: []string{"h2"}},
		{},
	}
	sources := []chain.Match{
		{SourceType: chain.Local},
		{SourceType: chain.Other, SourceRanges: []string{"192.0.2.0/24"}},
		{SourceType: chain.Other, SourceRanges: []string{"192.0.2.1"}, SourcePorts: []uint16{7}},
		{DirectSourceRanges: []string{"203.0.113.9"}},
		{DirectSourceRanges: []string{"203.0.113.0/24"}, SourceRanges: []string{"::/0"}},
	}
	ext := func(peer, source string) chain.Conn {
		return chain.Conn{Destination: to("10.9.9.9:1"), Peer: netip.MustParseAddr(peer), Source: to(source)}
	}
	// As listeners that a virtual one hands connections to, each with a default chain or without.
	virtual := []chain.Match{
		{DestinationPorts: []uint16{443}, PrefixRanges: []string{"10.0.0.1"}, TransportProtocol: chain.TLS, ApplicationProtocols: []string{"h2"}},
		{DestinationPorts: []uint16{443}, PrefixRanges: []string{"10.0.0.1"}, Default: true},
		{DestinationPorts: []uint16{443}, PrefixRanges: []string{"10.0.0.2"}, TransportProtocol: chain.TLS},
		{DestinationPorts: []uint16{443}, TransportProtocol: chain.TLS, ServerNames: []string{"a.example"}},
		{DestinationPorts: []uint16{443}, Default: true},
		{PrefixRanges: []string{"10.0.0.0/8"}, Default: true},
		{DestinationPorts: []uint16{80}},
		{DestinationPorts: []uint16{80}, Default: true}, // for which nothing is left
	}
	for i, c := range []struct {
		matches []chain.Match
		conn    chain.Conn
		want    int
	}{
		{virtual, chain.Conn{Destination: to("10.0.0.1:443"), TLS: true, Protocols: []string{"h2"}}, 0},
		{virtual, chain.Conn{Destination: to("10.0.0.1:443"), TLS: true, ServerName: "a.example"}, 1},
		{virtual, chain.Conn{Destination: to("10.0.0.1:443")}, 1},
		{virtual, chain.Conn{Destination: to("10.0.0.2:443"), TLS: true}, 2},
		{virtual, chain.Conn{Destination: to("10.0.0.2:443")}, -1},
		{virtual, chain.Conn{Destination: to("10.0.0.3:443"), TLS: true, ServerName: "a.example"}, 3},
		{virtual, chain.Conn{Destination: to("10.0.0.3:443"), TLS: true}, 4},
		{virtual, chain.Conn{Destination: to("10.0.0.3:81"), TLS: true}, 5},
		{virtual, chain.Conn{Destination: to("192.0.2.1:81")}, -1},
		{virtual, chain.Conn{Destination: to("192.0.2.1:80")}, 6},
		{nil, chain.Conn{}, -1},
		{[]chain.Match{{}}, chain.Conn{}, 0},
		{names, chain.Conn{TLS: true, ServerName: "a.example"}, 0},
		{names, chain.Conn{TLS: true, ServerName: "pay.shop.example"}, 0},
		{names, chain.Conn{TLS: true, ServerName: "x.pay.shop.example"}, 1},
		{names, chain.Conn{TLS: true, ServerName: "shop.example"}, 2},
		{names, chain.Conn{TLS: true, ServerName: "x.a.example"}, 2},
		{names, chain.Conn{TLS: true, ServerName: "example"}, 3},
		{names, chain.Conn{TLS: true, ServerName: "xexample"}, 3},
		{names, chain.Conn{TLS: true}, 3},
		{names, chain.Conn{}, 4},
		{outbound, chain.Conn{Destination: to("10.0.0.1:443")}, 0},
		{outbound, chain.Conn{Destination: to("10.0.0.2:443")}, 1},
		{outbound, chain.Conn{Destination: to("[::ffff:10.0.0.1]:443")}, 0},
		{outbound, chain.Conn{Destination: to("10.0.0.2:80")}, 2},
		{outbound, chain.Conn{Destination: to("10.0.0.1:80")}, 3},
		{outbound, chain.Conn{Destination: to("[fd00::1%eth0]:80")}, 3},
		{outbound, chain.Conn{Destination: to("[fd00::2]:80")}, 4},
		{outbound, chain.Conn{}, 4},
		{inbound, chain.Conn{Destination: to("10.0.0.1:8080"), TLS: true, Protocols: []string{"istio-peer-exchange", "istio-h2", "h2"}}, 0},
		{inbound, chain.Conn{Destination: to("10.0.0.1:8080"), TLS: true, Protocols: []string{"h2", "istio-h2"}}, 1},
		{inbound, chain.Conn{Destination: to("10.0.0.1:8080"), TLS: true, Protocols: []string{"H2", "h2c", "jurat/1"}}, 2},
		{inbound, chain.Conn{Destination: to("10.0.0.1:8080"), TLS: true}, 2},
		{inbound, chain.Conn{Destination: to("10.0.0.1:8080")}, -1},
		{inbound, chain.Conn{Destination: to("10.0.0.1:80"), TLS: true, Protocols: []string{"jurat/1"}}, 3},
		{inbound, chain.Conn{Destination: to("10.0.0.1:80"), TLS: true, Protocols: []string{"jurat/10", "jurat/"}}, -1},
		{noWayBack, chain.Conn{Destination: to("10.0.0.1:443"), TLS: true, ServerName: "a.example"}, 0},
		{noWayBack, chain.Conn{Destination: to("10.0.0.1:443"), TLS: true, ServerName: "b.example"}, -1},
		{noWayBack, chain.Conn{Destination: to("10.0.0.1:80"), TLS: true, ServerName: "b.example"}, 1},
		{noWayBack, chain.Conn{Destination: to("10.0.0.1:80"), TLS: true, ServerName: "a.example"}, -1},
		{noWayBack, chain.Conn{Destination: to("10.0.0.1:80"), TLS: true, ServerName: "c.example"}, 3},
		{sources, ext("127.0.0.1", "127.0.0.1:9"), 0},
		{sources, ext("10.9.9.9", "10.9.9.9:9"), 0},
		{sources, chain.Conn{}, 0},
		{sources, ext("192.0.2.1", "192.0.2.1:7"), 2},
		{sources, ext("192.0.2.1", "192.0.2.1:8"), -1},
		{sources, ext("192.0.2.2", "192.0.2.2:7"), 1},
		{sources, ext("198.51.100.1", "198.51.100.1:7"), -1},
		{sources, ext("203.0.113.9", "192.0.2.1:7"), 3},
		{sources, ext("203.0.113.8", "192.0.2.1:7"), -1},
		{sources, ext("203.0.113.8", "[fd00::1]:7"), 4},
	} {
		table, err := chain.Compile(c.matches)
		if err != nil {
			t.Fatalf("%d: %v", i, err)
		}
		if got := found(table, c.conn); got != c.want {
			t.Errorf("%d: got %d, want %d for %+v", i, got, c.want, c.conn)
		}
		if got := oracle(c.matches, c.conn); got != c.want {
			t.Errorf("%d: the oracle has %d, want %d", i, got, c.want)
		}
	}
}

func found(t *chain.Table, c chain.Conn) int {
	if i, ok := t.Find(c); ok {
		return i
	}
	return -1
}

// Only connections for which it makes a difference wait for a ClientHello: others may be of protocols in which the server speaks first.
func TestNeedsHello(t *testing.T) {
	table, err := chain.Compile([]chain.Match{
		{DestinationPorts: []uint16{3306}},
		{DestinationPorts: []uint16{443}, ServerNames: []string{"a.example"}},
		{DestinationPorts: []uint16{444}, TransportProtocol: chain.Raw},
		{DestinationPorts: []uint16{445}, ApplicationProtocols: []string{"h2"}},
		{DestinationPorts: []uint16{446}, PrefixRanges: []string{"10.0.0.0/8"}},
		{DestinationPorts: []uint16{446}, PrefixRanges: []string{"10.0.0.1"}, TransportProtocol: chain.TLS},
		{SourcePorts: []uint16{1}},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		to   netip.AddrPort
		want bool
	}{
		{to("10.0.0.1:3306"), false},
		{to("10.0.0.1:443"), true},
		{to("10.0.0.1:444"), true},
		{to("10.0.0.1:445"), true},
		{to("10.0.0.1:446"), true},
		{to("10.0.0.2:446"), false},
		{to("192.0.2.1:446"), false},
		{to("10.0.0.1:80"), false},
		{netip.AddrPort{}, false},
	} {
		if got := table.NeedsHello(c.to); got != c.want {
			t.Errorf("%v: %v", c.to, got)
		}
	}
	if new(chain.Table).NeedsHello(to("10.0.0.1:443")) || found(new(chain.Table), chain.Conn{}) != -1 {
		t.Error("the zero table has matches")
	}
}

func TestCompileRefuses(t *testing.T) {
	one := func(m chain.Match) []chain.Match { return []chain.Match{m} }
	wide := make([]uint16, 257)
	for i := range wide {
		wide[i] = uint16(i + 1)
	}
	for _, c := range []struct {
		matches []chain.Match
		place   string
	}{
		{one(chain.Match{DestinationPorts: []uint16{1, 0}}), "chains[0].match.destination_ports[1]"},
		{one(chain.Match{SourcePorts: []uint16{0}}), "chains[0].match.source_ports[0]"},
		{one(chain.Match{SourcePorts: []uint16{2, 1, 2}}), "chains[0].match.source_ports[2]"},
		{one(chain.Match{PrefixRanges: []string{"10.0.0.1/8"}}), "chains[0].match.prefix_ranges[0]"},
		{one(chain.Match{PrefixRanges: []string{"10.0.0.1", "10.0.0.1/32"}}), "chains[0].match.prefix_ranges[1]"},
		{one(chain.Match{DirectSourceRanges: []string{"::ffff:10.0.0.1"}}), "chains[0].match.direct_source_prefix_ranges[0]"},
		{one(chain.Match{SourceRanges: []string{"fe80::1%eth0"}}), "chains[0].match.source_prefix_ranges[0]"},
		{one(chain.Match{SourceRanges: []string{""}}), "chains[0].match.source_prefix_ranges[0]"},
		{one(chain.Match{ServerNames: []string{"a", "*"}}), "chains[0].match.server_names[1]"},
		{one(chain.Match{ServerNames: []string{"a.*"}}), "chains[0].match.server_names[0]"},
		{one(chain.Match{ServerNames: []string{"*.*.a"}}), "chains[0].match.server_names[0]"},
		{one(chain.Match{ServerNames: []string{"192.0.2.1"}}), "chains[0].match.server_names[0]"},
		{one(chain.Match{ServerNames: []string{""}}), "chains[0].match.server_names[0]"},
		{one(chain.Match{ServerNames: []string{"a", "A"}}), "chains[0].match.server_names[1]"},
		{one(chain.Match{TransportProtocol: "quic"}), "chains[0].match.transport_protocol"},
		{one(chain.Match{ApplicationProtocols: []string{""}}), "chains[0].match.application_protocols[0]"},
		{one(chain.Match{ApplicationProtocols: []string{strings.Repeat("a", 256)}}), "chains[0].match.application_protocols[0]"},
		{one(chain.Match{SourceType: "any"}), "chains[0].match.source_type"},
		{one(chain.Match{DestinationPorts: wide, SourcePorts: wide}), "chains[0].match"},
		{[]chain.Match{{DestinationPorts: wide}, {SourcePorts: wide, DestinationPorts: wide[:255]}}, "chains[1].match"},
		{[]chain.Match{{}, {}}, "chains[1].match"},
		{one(chain.Match{Default: true}), "chains[0].match.default"},
		{one(chain.Match{Default: true, DestinationPorts: []uint16{1}, TransportProtocol: chain.TLS}), "chains[0].match.default"},
		{one(chain.Match{Default: true, PrefixRanges: []string{"10.0.0.1"}, SourcePorts: []uint16{1}}), "chains[0].match.default"},
		{[]chain.Match{{Default: true, DestinationPorts: []uint16{1}}, {DestinationPorts: []uint16{1}}, {Default: true, DestinationPorts: []uint16{2, 1}}}, "chains[2].match"},
		{[]chain.Match{{DestinationPorts: []uint16{1}}, {}, {DestinationPorts: []uint16{2, 1}}}, "chains[2].match"},
		{[]chain.Match{{ServerNames: []string{"*.a"}, TransportProtocol: chain.TLS}, {ServerNames: []string{"*.A"}, TransportProtocol: chain.TLS}}, "chains[1].match"},
	} {
		table, err := chain.Compile(c.matches)
		var coded *attest.Error
		if table != nil || attest.CodeOf(err) != attest.CodeConfigValue || !errors.As(err, &coded) || coded.Subject != c.place {
			t.Errorf("%s: got %v", c.place, err)
		}
	}
	if _, err := chain.Compile(one(chain.Match{DestinationPorts: wide[:256], SourcePorts: wide[:256]})); err != nil {
		t.Errorf("as many ways as there may be: %v", err)
	}
}

func TestString(t *testing.T) {
	m := chain.Match{
		DestinationPorts: []uint16{443, 8443}, PrefixRanges: []string{"10.0.0.0/8"}, ServerNames: []string{"a", "*.b"}, TransportProtocol: chain.TLS,
		ApplicationProtocols: []string{"h2"}, DirectSourceRanges: []string{"10.0.0.1"}, SourceType: chain.Other, SourceRanges: []string{"::/0"}, SourcePorts: []uint16{1},
	}
	const want = "destination_ports=443,8443 prefix_ranges=10.0.0.0/8 server_names=a,*.b transport_protocol=tls application_protocols=h2 " +
		"direct_source_prefix_ranges=10.0.0.1 source_type=external source_prefix_ranges=::/0 source_ports=1"
	if got := m.String(); got != want {
		t.Errorf("got %s", got)
	}
	if got := new(chain.Match).String(); got != "any" {
		t.Errorf("got %s", got)
	}
}

// oracle is the same in another way: the matches that are left are looked at for one kind of thing after the other, and of those
// that list what a connection has, the ones with the most specific thing are left.
func oracle(matches []chain.Match, c chain.Conn) int {
	const never, any = -1, 0
	prefix := func(ip netip.Addr) func(string) int {
		return func(s string) int {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				one := netip.MustParseAddr(s)
				p = netip.PrefixFrom(one, one.BitLen())
			}
			if ip.Unmap().IsValid() && p.Contains(ip.Unmap().WithZone("")) {
				return p.Bits() + 1
			}
			return never
		}
	}
	port := func(a netip.AddrPort) func(string) int {
		return func(s string) int {
			if a.IsValid() && fmt.Sprint(a.Port()) == s {
				return 1
			}
			return never
		}
	}
	is := func(want string) func(string) int {
		return func(s string) int {
			if s == want {
				return 1
			}
			return never
		}
	}
	transport, source := chain.Raw, chain.Other
	if c.TLS {
		transport = chain.TLS
	}
	from := c.Source.Addr().Unmap().WithZone("")
	if !from.IsValid() || from.IsLoopback() || from == c.Destination.Addr().Unmap().WithZone("") {
		source = chain.Local
	}
	texts := func(ports []uint16) (all []string) {
		for _, p := range ports {
			all = append(all, fmt.Sprint(p))
		}
		return all
	}
	word := func(s string) []string {
		if s == "" {
			return nil
		}
		return []string{s}
	}
	steps := []struct {
		list func(m chain.Match) []string
		rank func(string) int // how specific it is; never where it does not fit
	}{
		{func(m chain.Match) []string { return texts(m.DestinationPorts) }, port(c.Destination)},
		{func(m chain.Match) []string { return m.PrefixRanges }, prefix(c.Destination.Addr())},
		{func(m chain.Match) []string { return m.ServerNames }, func(s string) int {
			suffix, wild := strings.CutPrefix(strings.ToLower(s), "*")
			switch {
			case wild && strings.HasSuffix(c.ServerName, suffix) && len(c.ServerName) > len(suffix):
				return len(suffix)
			case !wild && suffix == c.ServerName:
				return 1000
			}
			return never
		}},
		{func(m chain.Match) []string { return word(m.TransportProtocol) }, is(transport)},
		{func(m chain.Match) []string { return m.ApplicationProtocols }, func(s string) int {
			if i := slices.Index(c.Protocols, s); i >= 0 {
				return 1000 - i
			}
			return never
		}},
		{func(m chain.Match) []string { return m.DirectSourceRanges }, prefix(c.Peer)},
		{func(m chain.Match) []string { return word(m.SourceType) }, is(source)},
		{func(m chain.Match) []string { return m.SourceRanges }, prefix(c.Source.Addr())},
		{func(m chain.Match) []string { return texts(m.SourcePorts) }, port(c.Source)},
	}
	left := make([]int, len(matches))
	for i := range left {
		left[i] = i
	}
	otherwise := -1
	for k, s := range steps {
		if k == 2 {
			left = slices.DeleteFunc(left, func(i int) bool {
				if matches[i].Default {
					otherwise = i
				}
				return matches[i].Default
			})
		}
		best, next := never, []int(nil)
		for _, i := range left {
			ranks := []int{any}
			if list := s.list(matches[i]); len(list) > 0 {
				ranks = nil
				for _, text := range list {
					ranks = append(ranks, s.rank(text))
				}
			}
			switch r := slices.Max(ranks); {
			case r == never:
			case r > best:
				best, next = r, []int{i}
			case r == best:
				next = append(next, i)
			}
		}
		left = next
	}
	switch len(left) {
	case 0:
		return otherwise
	case 1:
		return left[0]
	}
	panic(fmt.Sprint("several are left: ", left))
}

// clash reports whether a connection could be for two of the matches in the same way.
func clash(matches []chain.Match) bool {
	lists := func(m chain.Match) [][]string {
		var all [][]string
		for _, ports := range [][]uint16{m.DestinationPorts, m.SourcePorts} {
			var list []string
			for _, p := range ports {
				list = append(list, fmt.Sprint(p))
			}
			all = append(all, list)
		}
		return append(all, m.PrefixRanges, m.ServerNames, []string{m.TransportProtocol}, m.ApplicationProtocols, m.DirectSourceRanges, []string{m.SourceType}, m.SourceRanges)
	}
	for i, a := range matches {
		for _, b := range matches[:i] {
			same := a.Default == b.Default
			for k, list := range lists(a) {
				other := lists(b)[k]
				same = same && (len(list) == 0 && len(other) == 0 || slices.ContainsFunc(list, func(s string) bool { return slices.Contains(other, s) }))
			}
			if same {
				return true
			}
		}
	}
	return false
}

var (
	somePorts     = []uint16{1, 443}
	somePrefixes  = []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.1.1", "0.0.0.0/0", "fd00::/8", "fd00::1", "::/0"}
	someAddresses = []string{"10.1.1.1", "10.1.2.3", "10.2.0.1", "192.0.2.1", "127.0.0.1", "fd00::1", "fd00::2", "2001:db8::1", "::ffff:10.1.1.1", ""}
	someNames     = []string{"a.b.c", "b.c", "*.a.b.c", "*.b.c", "*.c", "x.c"}
	askedNames    = []string{"", "a.b.c", "x.a.b.c", "y.x.a.b.c", "b.c", "z.b.c", "c", "x.c", "y.x.c", "d"}
	someProtocols = []string{"h2", "http/1.1", "jurat/1"}
)

func subset[T comparable](t *rapid.T, label string, from []T) []T {
	return rapid.SliceOfNDistinct(rapid.SampledFrom(from), 0, 3, rapid.ID[T]).Draw(t, label)
}

func draw(t *rapid.T) chain.Match {
	var m chain.Match
	for _, f := range rapid.SliceOfNDistinct(rapid.IntRange(0, 8), 0, 3, rapid.ID[int]).Draw(t, "fields") {
		switch f {
		case 0:
			m.DestinationPorts = subset(t, "ports", somePorts)
		case 1:
			m.PrefixRanges = subset(t, "prefixes", somePrefixes)
		case 2:
			m.ServerNames = subset(t, "names", someNames)
		case 3:
			m.TransportProtocol = rapid.SampledFrom([]string{"", chain.TLS, chain.Raw}).Draw(t, "transport")
		case 4:
			m.ApplicationProtocols = subset(t, "protocols", someProtocols)
		case 5:
			m.DirectSourceRanges = subset(t, "peers", somePrefixes)
		case 6:
			m.SourceType = rapid.SampledFrom([]string{"", chain.Local, chain.Other}).Draw(t, "type")
		case 7:
			m.SourceRanges = subset(t, "sources", somePrefixes)
		case 8:
			m.SourcePorts = subset(t, "source ports", somePorts)
		}
	}
	only := chain.Match{DestinationPorts: m.DestinationPorts, PrefixRanges: m.PrefixRanges, Default: true}
	if len(only.DestinationPorts)+len(only.PrefixRanges) > 0 && rapid.Bool().Draw(t, "default") {
		return only
	}
	return m
}

func drawConn(t *rapid.T) chain.Conn {
	address := func(label string) netip.AddrPort {
		a, err := netip.ParseAddr(rapid.SampledFrom(someAddresses).Draw(t, label))
		if err != nil {
			return netip.AddrPort{}
		}
		return netip.AddrPortFrom(a, rapid.SampledFrom([]uint16{1, 443, 7}).Draw(t, label+" port"))
	}
	c := chain.Conn{Destination: address("destination"), Source: address("source"), Peer: address("peer").Addr()}
	if c.TLS = rapid.Bool().Draw(t, "tls"); c.TLS {
		c.ServerName = rapid.SampledFrom(askedNames).Draw(t, "name")
		c.Protocols = rapid.SliceOfN(rapid.SampledFrom(append(someProtocols, "H2", "h")), 0, 3).Draw(t, "offered")
	}
	return c
}

// TestOracle holds the table against the oracle, and its refusals against what clashes.
func TestOracle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		matches := rapid.SliceOfN(rapid.Custom(draw), 0, 8).Draw(t, "matches")
		table, err := chain.Compile(matches)
		if got, want := err != nil, clash(matches); got != want {
			t.Fatalf("refused: %v, want %v: %v", got, want, err)
		}
		if err != nil {
			return
		}
		for range 20 {
			c := drawConn(t)
			got := found(table, c)
			if want := oracle(matches, c); got != want {
				t.Fatalf("got %d, want %d for %+v", got, want, c)
			}
			if !table.NeedsHello(c.Destination) {
				other := c
				other.TLS, other.ServerName, other.Protocols = !c.TLS, "a.b.c", []string{"h2"}
				if again := found(table, other); again != got {
					t.Fatalf("%d without a hello, %d for %+v", got, again, other)
				}
			}
		}
	})
}

func BenchmarkFind(b *testing.B) {
	matches := []chain.Match{{}}
	for i := range 10_000 {
		matches = append(matches, chain.Match{
			DestinationPorts: []uint16{443}, PrefixRanges: []string{netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}).String()},
			ServerNames: []string{"a.example"}, ApplicationProtocols: []string{"h2"},
		})
	}
	table, err := chain.Compile(matches)
	if err != nil {
		b.Fatal(err)
	}
	random := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	for b.Loop() {
		i := random.IntN(10_000)
		c := chain.Conn{
			Destination: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 443), Source: to("192.0.2.1:1"),
			TLS: true, ServerName: "a.example", Protocols: []string{"http/1.1", "h2"},
		}
		if got, _ := table.Find(c); got != i+1 {
			b.Fatal(got)
		}
	}
}

// A match is within another one where it lists less, or something where the other one takes all, and nowhere else.
func TestWithin(t *testing.T) {
	whole := chain.Match{
		DestinationPorts: []uint16{1, 2}, PrefixRanges: []string{"10.0.0.0/8", "::/0"}, ServerNames: []string{"a", "b"}, TransportProtocol: chain.TLS,
		ApplicationProtocols: []string{"h2", "x"}, DirectSourceRanges: []string{"10.0.0.0/8", "::/0"}, SourceType: chain.Local,
		SourceRanges: []string{"10.0.0.0/8", "::/0"}, SourcePorts: []uint16{1, 2},
	}
	if !whole.Within(whole) || !whole.Within(chain.Match{}) || (chain.Match{}).Within(whole) || whole.Within(chain.Match{Default: true}) {
		t.Error("the whole")
	}
	fields := reflect.TypeFor[chain.Match]()
	for i := range fields.NumField() {
		name, without, less, other := fields.Field(i).Name, whole, whole, whole
		f := reflect.ValueOf(&without).Elem().Field(i)
		if f.Kind() == reflect.Bool {
			continue
		}
		f.SetZero()
		if !whole.Within(without) || without.Within(whole) {
			t.Errorf("all of %s", name)
		}
		if f.Kind() == reflect.String {
			reflect.ValueOf(&other).Elem().Field(i).SetString("other")
		} else {
			f := reflect.ValueOf(&less).Elem().Field(i)
			f.Set(f.Slice(0, 1))
			if !less.Within(whole) || whole.Within(less) {
				t.Errorf("less of %s", name)
			}
			f = reflect.ValueOf(&other).Elem().Field(i)
			f.Set(reflect.MakeSlice(f.Type(), 1, 1))
		}
		if other.Within(whole) || whole.Within(other) {
			t.Errorf("another %s", name)
		}
	}
}
