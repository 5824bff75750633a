package chain

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/clienthello"
)

// MaxWays is in how many ways the matches of a port can be met at most: for each of them, the product of the lengths of its lists.
const MaxWays = 1 << 16

// maxProtocol is what ALPN has room for.
const maxProtocol = 255

// Conn is what is known of a connection.
type Conn struct {
	Destination netip.AddrPort // where it goes; the zero value is met by no port or prefix, as on a Unix socket
	Peer        netip.Addr     // who connected
	Source      netip.AddrPort // who a PROXY header says it is for, or who connected; the zero value is of this machine

	// What its ClientHello says; needed where Table.NeedsHello says so.
	TLS        bool     // it begins with one
	ServerName string   // in lower case; "" for none
	Protocols  []string // of ALPN, in the client's order
}

// Table finds the match of a connection. The zero Table is without matches.
type Table struct{ root node }

// The kinds of things that connections are told apart by, in their order.
const (
	destinationPort = iota
	destination
	serverName
	transport
	protocol
	peer
	kind
	source
	sourcePort
	levels
)

// key is one thing that is told apart by. The zero key is everything.
type key struct {
	port   uint16
	prefix netip.Prefix
	word   string // of server names, with their asterisk
}

// node is what is told apart after some things are known.
type node struct {
	next   map[key]*node
	rest   *node // of what none of next is for
	bits4  []int // the lengths of the prefixes in next, the longest first
	bits6  []int
	hello  bool // a ClientHello makes a difference below
	chosen int  // one more than the index of a match: behind the last level, or behind the destination, of a default
}

// Compile makes a table of the matches of a port. The error joins an *attest.Error for each value that is not allowed, whose
// Subject is its place, such as "chains[2].match.server_names[0]".
func Compile(matches []Match) (*Table, error) {
	var c compiler
	t := new(Table)
	ways := 0
	for i := range matches {
		keys, n := c.keys(fmt.Sprintf("chains[%d].match", i), &matches[i])
		if ways += n; ways > MaxWays {
			c.bad(fmt.Sprintf("chains[%d].match", i), "more than "+strconv.Itoa(MaxWays)+" ways to be met, with those before", "shorter lists, or fewer matches")
			break
		}
		if len(c.errs) == 0 {
			c.insert(&t.root, i, 0, matches[i].Default, &keys)
		}
	}
	if len(c.errs) > 0 {
		return nil, errors.Join(c.errs...)
	}
	t.root.look(0)
	return t, nil
}

// NeedsHello reports whether Find has to know the ClientHello of connections that go there, or that they have none.
func (t *Table) NeedsHello(to netip.AddrPort) bool {
	n := &t.root
	c := Conn{Destination: to}
	for level := destinationPort; level <= destination && n != nil; level++ {
		n = n.step(level, &c)
	}
	return n != nil && n.hello
}

// NeedsProtocols reports whether Find has to know the Protocols of a connection of which it knows the rest of what NeedsHello asks for.
func (t *Table) NeedsProtocols(c Conn) bool {
	n := &t.root
	for level := destinationPort; level < protocol && n != nil; level++ {
		n = n.step(level, &c)
	}
	return n != nil && n.next != nil
}

// Find answers the index of the match of a connection, and false where there is none.
func (t *Table) Find(c Conn) (int, bool) {
	n, left := &t.root, 0
	for level := range levels {
		if level == serverName {
			left = n.chosen
		}
		if n = n.step(level, &c); n == nil {
			return left - 1, left > 0
		}
	}
	return n.chosen - 1, true
}

// step answers what is left of n for a connection: what its most specific thing is for.
func (n *node) step(level int, c *Conn) *node {
	if n.next == nil {
		return n.rest
	}
	var found *node
	switch level {
	case destinationPort:
		found = n.port(c.Destination)
	case sourcePort:
		found = n.port(c.Source)
	case destination:
		found = n.address(c.Destination.Addr())
	case peer:
		found = n.address(c.Peer)
	case source:
		found = n.address(c.Source.Addr())
	case serverName:
		found = n.name(c.ServerName)
	case transport:
		word := Raw
		if c.TLS {
			word = TLS
		}
		found = n.next[key{word: word}]
	case protocol:
		for _, p := range c.Protocols {
			if found = n.next[key{word: p}]; found != nil {
				break
			}
		}
	case kind:
		word := Other
		if c.local() {
			word = Local
		}
		found = n.next[key{word: word}]
	}
	if found == nil {
		found = n.rest
	}
	return found
}

func (n *node) port(a netip.AddrPort) *node {
	if !a.IsValid() {
		return nil
	}
	return n.next[key{port: a.Port()}]
}

func (n *node) address(ip netip.Addr) *node {
	ip = plain(ip)
	bits := n.bits6
	if ip.Is4() {
		bits = n.bits4
	}
	for _, b := range bits {
		p, err := ip.Prefix(b)
		if err != nil { // there is no address
			return nil
		}
		if found := n.next[key{prefix: p}]; found != nil {
			return found
		}
	}
	return nil
}

func (n *node) name(name string) *node {
	if name == "" {
		return nil
	}
	if found := n.next[key{word: name}]; found != nil {
		return found
	}
	for {
		_, rest, more := strings.Cut(name, ".")
		if !more {
			return nil
		}
		if found := n.next[key{word: "*." + rest}]; found != nil {
			return found
		}
		name = rest
	}
}

// local reports whether a connection comes from this machine.
func (c *Conn) local() bool {
	from := plain(c.Source.Addr())
	return !from.IsValid() || from.IsLoopback() || from == plain(c.Destination.Addr())
}

// plain is an address without a zone, which prefixes don't have, and as IPv4 where it is that.
func plain(ip netip.Addr) netip.Addr { return ip.Unmap().WithZone("") }

type compiler struct{ errs []error }

func (c *compiler) bad(at, got, want string) {
	c.errs = append(c.errs, &attest.Error{Code: attest.CodeConfigValue, Check: "chains", Subject: at, Got: got, Want: want})
}

// keys answers what a match lists of each kind, and in how many ways it can be met.
func (c *compiler) keys(at string, m *Match) (all [levels][]key, ways int) {
	number := func(level int, name string, ports []uint16) {
		for i, p := range ports {
			if p == 0 {
				c.bad(fmt.Sprintf("%s.%s[%d]", at, name, i), "0", "a port from 1 to 65535")
			}
			all[level] = append(all[level], key{port: p})
		}
	}
	prefixes := func(level int, name string, texts []string) {
		for i, text := range texts {
			p, err := ParsePrefix(text)
			var e *attest.Error
			if errors.As(err, &e) {
				c.bad(fmt.Sprintf("%s.%s[%d]", at, name, i), e.Got, e.Want)
			}
			all[level] = append(all[level], key{prefix: p})
		}
	}
	word := func(level int, name, text string, words ...string) {
		if text == "" {
			return
		}
		if !slices.Contains(words, text) {
			c.bad(at+"."+name, quote(text), "one of "+strings.Join(words, ", "))
		}
		all[level] = []key{{word: text}}
	}
	number(destinationPort, "destination_ports", m.DestinationPorts)
	prefixes(destination, "prefix_ranges", m.PrefixRanges)
	for i, text := range m.ServerNames {
		suffix, wild := strings.CutPrefix(text, "*.")
		name, ok := clienthello.HostName(suffix)
		if !ok {
			c.bad(fmt.Sprintf("%s.server_names[%d]", at, i), quote(text), "pay.example or *.example")
		}
		if wild {
			name = "*." + name
		}
		all[serverName] = append(all[serverName], key{word: name})
	}
	word(transport, "transport_protocol", m.TransportProtocol, TLS, Raw)
	for i, text := range m.ApplicationProtocols {
		if text == "" || len(text) > maxProtocol {
			c.bad(fmt.Sprintf("%s.application_protocols[%d]", at, i), quote(text), "1 to 255 bytes")
		}
		all[protocol] = append(all[protocol], key{word: text})
	}
	prefixes(peer, "direct_source_prefix_ranges", m.DirectSourceRanges)
	word(kind, "source_type", m.SourceType, Local, Other)
	prefixes(source, "source_prefix_ranges", m.SourceRanges)
	number(sourcePort, "source_ports", m.SourcePorts)

	if m.Default {
		more := slices.ContainsFunc(all[serverName:], func(list []key) bool { return len(list) > 0 })
		if more || len(all[destinationPort])+len(all[destination]) == 0 {
			c.bad(at+".default", "true", "destination_ports or prefix_ranges beside it, and nothing else")
		}
	}
	ways = 1
	for level, list := range all {
		if i, twice := again(list); twice {
			c.bad(fmt.Sprintf("%s.%s[%d]", at, names[level], i), quote(list[i].String()), "what is not there before")
		}
		if ways *= max(1, len(list)); ways > MaxWays {
			return all, ways
		}
	}
	return all, ways
}

// names are what the kinds are called in Match.
var names = [levels]string{
	"destination_ports", "prefix_ranges", "server_names", "transport_protocol", "application_protocols", "direct_source_prefix_ranges", "source_type",
	"source_prefix_ranges", "source_ports",
}

// again answers the index of what was there before.
func again(list []key) (int, bool) {
	seen := make(map[key]bool, len(list))
	for i, k := range list {
		if seen[k] {
			return i, true
		}
		seen[k] = true
	}
	return 0, false
}

// insert makes match i what is found by any of its keys, or what all comes to that has them and is found by nothing else.
func (c *compiler) insert(n *node, i, level int, all bool, keys *[levels][]key) {
	if level == levels || all && level > destination {
		if other := n.chosen - 1; other >= 0 && len(c.errs) == 0 {
			c.bad(fmt.Sprintf("chains[%d].match", i), fmt.Sprintf("connections that chains[%d] is for", other), "a match of others")
		}
		n.chosen = i + 1
		return
	}
	if len(keys[level]) == 0 {
		if n.rest == nil {
			n.rest = new(node)
		}
		c.insert(n.rest, i, level+1, all, keys)
		return
	}
	for _, k := range keys[level] {
		next := n.next[k]
		if next == nil {
			if n.next == nil {
				n.next = map[key]*node{}
			}
			next = new(node)
			n.next[k] = next
		}
		c.insert(next, i, level+1, all, keys)
	}
}

// look makes out what lies below n.
func (n *node) look(level int) {
	n.hello = n.next != nil && serverName <= level && level <= protocol
	below := func(b *node) {
		if level+1 < levels {
			b.look(level + 1)
		}
		n.hello = n.hello || b.hello
	}
	if n.rest != nil {
		below(n.rest)
	}
	for k, b := range n.next {
		below(b)
		if !k.prefix.IsValid() {
			continue
		}
		bits := &n.bits6
		if k.prefix.Addr().Is4() {
			bits = &n.bits4
		}
		if !slices.Contains(*bits, k.prefix.Bits()) {
			*bits = append(*bits, k.prefix.Bits())
		}
	}
	for _, bits := range [][]int{n.bits4, n.bits6} {
		slices.SortFunc(bits, func(a, b int) int { return b - a })
	}
}

func (k key) String() string {
	switch {
	case k.prefix.IsValid():
		return k.prefix.String()
	case k.word != "":
		return k.word
	default:
		return strconv.Itoa(int(k.port))
	}
}

// ParsePrefix reads a prefix of addresses such as 10.0.0.0/8, or one address. The error is an *attest.Error.
func ParsePrefix(s string) (netip.Prefix, error) {
	bad := func(want string) (netip.Prefix, error) {
		return netip.Prefix{}, &attest.Error{Code: attest.CodeConfigValue, Check: "chains", Got: quote(s), Want: want}
	}
	const want = "a prefix of addresses such as 10.0.0.0/8"
	if ip, err := netip.ParseAddr(s); err == nil && ip.Zone() == "" && !ip.Is4In6() {
		return netip.PrefixFrom(ip, ip.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	switch {
	case err != nil || p.Addr().Is4In6(): // no IPv4 address is in a prefix that is written like an IPv6 one
		return bad(want)
	case p != p.Masked():
		return bad(p.Masked().String())
	}
	return p, nil
}

func quote(s string) string { return fmt.Sprintf("%.100q", s) }
