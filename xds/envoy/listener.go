package envoy

//lint:file-ignore SA1019 control planes still send fields that are deprecated

import (
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	httpinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/http_inspector/v3"
	originaldst "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyprotocol "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspector "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	rawbuffer "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"google.golang.org/protobuf/proto"

	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/resource"
)

// listener is one that was translated.
type listener struct {
	key       Key
	name      string
	address   string
	transport string // of config.Listener.Transparent
	handsOver bool   // connections are handed to the virtual listeners
	virtual   bool   // it has no port of its own, and gets connections from one that hands over
	proxied   bool   // connections begin with a PROXY header
	sniffs    bool   // HTTP is told from other things by the first bytes
	chains    []config.Chain
	rest      *config.Chain // what is for none of chains; nil is refused
	wait      []Key
	failed    bool // there is a problem
}

func (t *translator) collectListeners() {
	var all []*listener
	for _, r := range t.sorted(resource.Listener) {
		s := t.scope(Key{r.Type, r.Name})
		m := new(listenerv3.Listener)
		var l *listener
		if s.read(r, m) && s.named(r, m.GetName()) {
			l = s.listener(m)
		}
		if !s.done() {
			l = s.remains(m)
			if l == nil {
				t.blind = true
				continue
			}
			l.failed = true
		}
		l.key = s.key
		l.wait = unique(l.wait)
		all = append(all, l)
	}
	for _, l := range all {
		if l.virtual {
			t.virtual(l)
		}
	}
	for _, l := range all {
		if l.virtual {
			continue
		}
		s := t.scope(l.key)
		c := l.config(s, all)
		switch {
		case l.failed:
		case len(s.errs) > 0:
			t.fail(l.key, s.errs...)
		case len(l.wait) > 0:
			t.out.Warming[l.key] = l.wait
		case l.handsOver && t.blind:
			t.out.Warming[l.key] = t.failedListeners()
		default:
			t.admit(l.key, c)
		}
	}
}

// virtual checks a virtual listener by itself: what is wrong with it or what it waits for is not to keep others from working.
func (t *translator) virtual(l *listener) {
	if l.failed {
		return
	}
	s := t.scope(l.key)
	if len(l.wait) == 0 {
		ip, port := l.at()
		if port == 0 {
			s.bad("address", l.address, "an address and a port, which connections are handed over by")
		}
		if ip.IsUnspecified() {
			ip = netip.Addr{}
		}
		c := &config.Listener{Address: "127.0.0.1:1", Transparent: "redirect", DetectHTTP: l.sniffs, Chains: l.place(s, "", max(port, 1), ip, nil)}
		var wait []Key
		if len(s.errs) == 0 {
			wait, _ = s.fits(c)
		}
		l.wait = wait
	}
	if l.failed = len(s.errs) > 0; l.failed {
		t.fail(l.key, s.errs...)
	} else if len(l.wait) > 0 {
		t.out.Warming[l.key] = l.wait
	}
}

// failedListeners are the listeners with problems.
func (t *translator) failedListeners() []Key {
	var all []Key
	for k := range t.out.Problems {
		if k.Type == resource.Listener {
			all = append(all, k)
		}
	}
	return unique(all)
}

// remains is what is known of a listener that is not sound: which connections would be for it. Nil where not even that is.
func (s *scope) remains(m *listenerv3.Listener) *listener {
	quiet := s.translator.scope(s.key)
	address, ok := quiet.address("", m.GetAddress(), false)
	if !ok {
		return nil
	}
	return &listener{name: m.GetName(), address: address, virtual: unbound(m)}
}

func unbound(m *listenerv3.Listener) bool {
	if b := m.GetBindToPort(); b != nil {
		return !b.GetValue()
	}
	if b := m.GetDeprecatedV1().GetBindToPort(); b != nil {
		return !b.GetValue()
	}
	return false
}

func (s *scope) listener(m *listenerv3.Listener) *listener {
	l := &listener{name: m.GetName(), virtual: unbound(m), handsOver: m.GetUseOriginalDst().GetValue()}
	l.address, _ = s.address("address", m.GetAddress(), false)
	original := l.handsOver
	for i, f := range m.GetListenerFilters() {
		at := fmt.Sprintf("listener_filters[%d]", i)
		switch c := s.open(f.GetTypedConfig()).(type) {
		case *originaldst.OriginalDst:
			original = true
			s.always(at, f)
		case *proxyprotocol.ProxyProtocol:
			l.proxied = true
			s.always(at, f)
		case *tlsinspector.TlsInspector:
		case *httpinspector.HttpInspector:
			l.sniffs = true
		default:
			s.bad(at+".typed_config", kind(f.GetTypedConfig()), fmt.Sprintf("original_dst, tls_inspector, http_inspector or proxy_protocol (%T)", c))
		}
	}
	switch {
	case m.GetTransparent().GetValue():
		l.transport = "tproxy"
	case original && !l.virtual:
		l.transport = "redirect"
	}
	names := map[string]bool{}
	for i, f := range m.GetFilterChains() {
		at := fmt.Sprintf("filter_chains[%d]", i)
		c := s.chain(at, f, l)
		if c.Name == "" || names[c.Name] {
			c.Name = strings.TrimPrefix(fmt.Sprintf("%s#%d", c.Name, i), "#")
		}
		names[c.Name] = true
		l.chains = append(l.chains, c)
	}
	if d := m.GetDefaultFilterChain(); d != nil {
		if f := d.GetFilterChainMatch(); f != nil && !empty(f) {
			s.bad("default_filter_chain.filter_chain_match", "something", "nothing: it is for whatever is for no other")
		}
		c := s.chain("default_filter_chain", d, l)
		c.Name = "default"
		l.rest = &c
	}
	if len(l.chains) == 0 && l.rest == nil {
		s.missing("filter_chains", "a filter chain, or default_filter_chain")
	}
	return l
}

// always checks that a listener filter is not turned off for some: what it does decides where connections go.
func (s *scope) always(at string, f *listenerv3.ListenerFilter) {
	if f.GetFilterDisabled() != nil {
		s.bad(at+".filter_disabled", "a condition", "none")
	}
}

func empty(m *listenerv3.FilterChainMatch) bool { return proto.Size(m) == 0 }

// chain is what becomes of the connections of a filter chain.
func (s *scope) chain(at string, f *listenerv3.FilterChain, l *listener) config.Chain {
	c := config.Chain{Name: f.GetName(), Match: s.chainMatch(at+".filter_chain_match", f.GetFilterChainMatch())}
	c.Times.Handshake = s.duration(at+".transport_socket_connect_timeout", f.GetTransportSocketConnectTimeout(), 0)
	l.wait = append(l.wait, s.clients(at+".transport_socket", f.GetTransportSocket(), &c)...)
	l.wait = append(l.wait, s.filters(at, f.GetFilters(), &c)...)
	s.sniffed(at, &c, l)
	return c
}

// sniffed puts in place what a chain asks for about protocols.
func (s *scope) sniffed(at string, c *config.Chain, l *listener) {
	alpn := c.Match.ApplicationProtocols
	inPlain := func(p string) bool { return p == "http/1.0" || p == "http/1.1" || p == "h2c" }
	if l.virtual && !l.sniffs && slices.ContainsFunc(alpn, inPlain) && c.Match.TransportProtocol != chain.TLS {
		// The port that hands over looks for HTTP in plain if any of them does.
		s.bad(at+".filter_chain_match.application_protocols", "what may be in plain, without http_inspector", "http_inspector, or tls as transport_protocol")
	}
	if c.Plain || len(alpn) == 0 {
		return
	}
	// Istio's proxies say by ids of ALPN that they belong to the mesh. Ours say it with evidence, and offer the ids of HTTP
	// itself.
	for _, istio := range [][2]string{{"istio-http/1.0", "http/1.1"}, {"istio-http/1.1", "http/1.1"}, {"istio-h2", "h2"}} {
		if slices.Contains(alpn, istio[0]) && !slices.Contains(c.Match.ApplicationProtocols, istio[1]) {
			c.Match.ApplicationProtocols = append(slices.Clone(c.Match.ApplicationProtocols), istio[1])
		}
	}
}

func (s *scope) chainMatch(at string, m *listenerv3.FilterChainMatch) chain.Match {
	out := chain.Match{
		PrefixRanges:       s.prefixes(at+".prefix_ranges", m.GetPrefixRanges()),
		DirectSourceRanges: s.prefixes(at+".direct_source_prefix_ranges", m.GetDirectSourcePrefixRanges()),
		SourceRanges:       s.prefixes(at+".source_prefix_ranges", m.GetSourcePrefixRanges()),
		ServerNames:        m.GetServerNames(), TransportProtocol: m.GetTransportProtocol(), ApplicationProtocols: m.GetApplicationProtocols(),
	}
	port := func(at string, p uint32) []uint16 {
		if p == 0 || p > 65535 {
			s.bad(at, strconv.FormatUint(uint64(p), 10), "1 to 65535")
			return nil
		}
		return []uint16{uint16(p)}
	}
	if p := m.GetDestinationPort(); p != nil {
		out.DestinationPorts = port(at+".destination_port", p.GetValue())
	}
	for i, p := range m.GetSourcePorts() {
		out.SourcePorts = append(out.SourcePorts, port(fmt.Sprintf("%s.source_ports[%d]", at, i), p)...)
	}
	switch v := m.GetSourceType(); v {
	case listenerv3.FilterChainMatch_ANY:
	case listenerv3.FilterChainMatch_SAME_IP_OR_LOOPBACK:
		out.SourceType = chain.Local
	case listenerv3.FilterChainMatch_EXTERNAL:
		out.SourceType = chain.Other
	default:
		s.bad(at+".source_type", v.String(), "ANY, SAME_IP_OR_LOOPBACK or EXTERNAL")
	}
	return out
}

// prefixes answers prefixes of addresses. As Envoy does, it overlooks the bits behind their length.
func (s *scope) prefixes(at string, all []*corev3.CidrRange) []string {
	var out []string
	for i, c := range all {
		ip, err := netip.ParseAddr(c.GetAddressPrefix())
		n := c.GetPrefixLen().GetValue()
		if err != nil || ip.Zone() != "" || ip.Is4In6() || n > uint32(ip.BitLen()) {
			s.bad(fmt.Sprintf("%s[%d]", at, i), quote(c.GetAddressPrefix()+"/"+strconv.FormatUint(uint64(n), 10)), "a prefix of addresses")
			continue
		}
		out = append(out, netip.PrefixFrom(ip, int(n)).Masked().String())
	}
	return out
}

// clients is what clients of a chain have to prove, and what they get to see.
func (s *scope) clients(at string, k *corev3.TransportSocket, c *config.Chain) []Key {
	if k == nil {
		c.Plain = true
		return nil
	}
	if k.GetTypedConfig() == nil {
		if k.GetName() != "envoy.transport_sockets.raw_buffer" {
			s.missing(at+".typed_config", "what the transport socket "+quote(k.GetName())+" is")
		}
		c.Plain = true
		return nil
	}
	at += ".typed_config"
	switch m := s.open(k.GetTypedConfig()).(type) {
	case *rawbuffer.RawBuffer:
		c.Plain = true
	case *tlsv3.DownstreamTlsContext:
		d := s.tls(at, m.GetCommonTlsContext())
		v, wait := s.found(d)
		switch {
		case len(wait) > 0:
			return wait
		case v == nil && !d.identity:
			s.within("", errNoValidator(at))
		case v == nil:
			if m.GetRequireClientCertificate().GetValue() {
				s.bad(at+".require_client_certificate", "true, without a validator", "a validator, which says what clients have to prove")
			}
		case !m.GetRequireClientCertificate().GetValue():
			s.bad(at+".require_client_certificate", "false, with a validator", "true: what clients have to prove is not theirs to choose")
		case v.Name != "":
			s.bad(at, "a validator with the name "+quote(v.Name), "none: clients have no name")
		default:
			c.Require, c.Reattest = v.Policy, v.Reattest
			return s.policy(v.Policy)
		}
	default:
		s.bad(at, kind(k.GetTypedConfig()), "raw_buffer, or tls with a validator or an AttestedIdentity")
	}
	return nil
}

// config joins what belongs to a port: its own chains, and those of the virtual listeners that it hands connections to.
func (l *listener) config(s *scope, all []*listener) *config.Listener {
	c := &config.Listener{Name: l.name, Address: l.address, Transparent: l.transport}
	if l.proxied {
		c.ProxyProtocol = []string{"0.0.0.0/0", "::/0"}
	}
	own := l.chains
	sniffs := l.sniffs
	if l.handsOver {
		own = l.handOver(s, all)
		sniffs = sniffs || slices.ContainsFunc(all, func(v *listener) bool { return v.virtual && v.sniffs })
	}
	switch alone := len(own) == 0 && l.rest != nil; {
	case l.transport == "" && len(own) == 1 && l.rest == nil && own[0].Match.String() == "any":
		c.Serving, c.Limits.Times = own[0].Serving, own[0].Times
	case alone && l.transport != "":
		rest := *l.rest
		rest.Match = chain.Match{}
		c.Chains = []config.Chain{rest}
	case alone:
		c.Serving, c.Limits.Times = l.rest.Serving, l.rest.Times
	default:
		c.Chains = own
		if l.rest != nil && !l.handsOver {
			c.Serving, c.Limits.Times = l.rest.Serving, l.rest.Times
		}
	}
	c.DetectHTTP = sniffs && len(c.Chains) > 0 // otherwise there is nothing to tell apart
	plain := c.Plain || slices.ContainsFunc(c.Chains, func(c config.Chain) bool { return c.Plain })
	c.UnsafeListen = plain && !config.Local(c.Address)
	return c
}

// spot is the virtual listeners of a port.
type spot struct {
	exact      []*listener // of an address
	any4, any6 *listener   // of all addresses
}

// handOver answers the chains of a port that hands connections over, in the order in which Envoy looks for a listener: one
// of the address and the port, one of the port, and the port's own chains for the rest. A virtual listener that waits or is
// not sound has its place, too: its connections must not become others', which may send them on in plain.
func (l *listener) handOver(s *scope, all []*listener) []config.Chain {
	spots := map[uint16]*spot{}
	for _, v := range all {
		if !v.virtual {
			continue
		}
		ip, port := v.at()
		if port == 0 {
			continue // of a pipe: nothing is ever handed to it
		}
		if spots[port] == nil {
			spots[port] = &spot{}
		}
		switch at := spots[port]; {
		case !ip.IsUnspecified():
			at.exact = append(at.exact, v)
		case ip.Is4():
			at.any4 = v
		default:
			at.any6 = v
		}
	}
	var own []config.Chain
	for _, c := range l.chains {
		if len(c.Match.DestinationPorts) == 0 || spots[c.Match.DestinationPorts[0]] == nil {
			own = append(own, c)
		}
	}
	if l.rest != nil {
		own = append(own, fallbacks(own, *l.rest, chain.Match{})...)
	}
	for _, port := range slices.Sorted(maps.Keys(spots)) {
		at := spots[port]
		without := map[string]bool{}
		for _, v := range at.exact {
			ip, _ := v.at()
			own = append(own, v.place(s, v.name+"/", port, ip, nil)...)
			without[host(ip)] = true
		}
		switch any4, any6 := netip.IPv4Unspecified(), netip.IPv6Unspecified(); {
		case at.any4 != nil && at.any6 != nil:
			own = append(own, at.any4.place(s, at.any4.name+"/", port, any4, without)...)
			own = append(own, at.any6.place(s, at.any6.name+"/", port, any6, without)...)
		case at.any4 != nil: // and of IPv6, for which there is no other
			own = append(own, at.any4.place(s, at.any4.name+"/", port, netip.Addr{}, without)...)
		case at.any6 != nil:
			own = append(own, at.any6.place(s, at.any6.name+"/", port, netip.Addr{}, without)...)
		default:
			own = append(own, l.place(s, strconv.Itoa(int(port))+"/", port, netip.Addr{}, without)...)
		}
	}
	return own
}

// at is where a virtual listener is: the port is 0 where connections can't be for it.
func (l *listener) at() (netip.Addr, uint16) {
	address, port, err := splitAddress(l.address)
	ip, ipErr := netip.ParseAddr(address)
	if err != nil || ipErr != nil {
		return netip.Addr{}, 0
	}
	return ip, port
}

func host(ip netip.Addr) string { return netip.PrefixFrom(ip, ip.BitLen()).String() }

// place is the chains of a listener for connections to a port, and to an address there: one, or all of IPv4 or of IPv6, or
// any where that is the zero value. without are the addresses that others are for.
func (l *listener) place(s *scope, prefix string, port uint16, to netip.Addr, without map[string]bool) []config.Chain {
	at := chain.Match{DestinationPorts: []uint16{port}}
	switch {
	case !to.IsValid():
	case to.IsUnspecified():
		at.PrefixRanges = []string{netip.PrefixFrom(to, 0).String()}
	default:
		at.PrefixRanges = []string{host(to)}
	}
	nobody := func(why string) []config.Chain {
		return []config.Chain{{Name: prefix + why, Match: at, Serving: config.Serving{Plain: true, TCP: true, Cluster: nowhere}}}
	}
	if l.failed || len(l.wait) > 0 {
		return nobody("not yet")
	}
	// Chains of the port come before those of any port, and no others are then asked.
	explicit := slices.ContainsFunc(l.chains, func(c config.Chain) bool { return slices.Contains(c.Match.DestinationPorts, port) })
	longest := -1 // the length of the most exact prefix of an address that the place is for
	var all []config.Chain
	for _, c := range l.chains {
		m := c.Match
		if explicit != slices.Contains(m.DestinationPorts, port) || !explicit && len(m.DestinationPorts) > 0 {
			continue
		}
		m.DestinationPorts = at.DestinationPorts
		ranges := m.PrefixRanges
		switch {
		case to.IsValid() && !to.IsUnspecified():
			n := covers(ranges, to)
			if n < longest || len(ranges) > 0 && n < 0 {
				continue
			}
			if n > longest {
				longest, all = n, nil
			}
			m.PrefixRanges = at.PrefixRanges
		case len(ranges) == 0:
			m.PrefixRanges = at.PrefixRanges
		default:
			m.PrefixRanges = slices.DeleteFunc(slices.Clone(ranges), func(p string) bool {
				return without[p] || to.IsValid() && strings.Contains(p, ":") == to.Is4()
			})
			if len(m.PrefixRanges) == 0 {
				continue
			}
		}
		c.Match, c.Name = m, prefix+c.Name
		all = append(all, c)
	}
	if l.rest != nil {
		rest := *l.rest
		rest.Name = prefix + rest.Name
		all = append(all, fallbacks(all, rest, at)...)
	}
	if len(all) == 0 {
		return nobody("none")
	}
	return all
}

// covers answers the length of the longest of the prefixes that an address is in, and -1 where it is in none.
func covers(prefixes []string, ip netip.Addr) int {
	longest := -1
	for _, s := range prefixes {
		if p, err := netip.ParsePrefix(s); err == nil && p.Contains(ip) {
			longest = max(longest, p.Bits())
		}
	}
	return longest
}

// fallbacks answers the chains that do for others what a default chain does: it gets what is for none of them. It has to
// stand at the place itself, and beside every other destination that a chain names: a connection is for what is most
// specific of its destination, or for the default of that.
func fallbacks(chains []config.Chain, rest config.Chain, at chain.Match) []config.Chain {
	rest.Match = chain.Match{DestinationPorts: at.DestinationPorts, PrefixRanges: at.PrefixRanges, Default: true}
	all := []config.Chain{rest}
	// By port, the prefixes of destinations; the port 0 is any.
	prefixes := map[uint16][]string{}
	for _, c := range chains {
		var port uint16
		if len(c.Match.DestinationPorts) > 0 && len(at.DestinationPorts) == 0 {
			port = c.Match.DestinationPorts[0]
		}
		of := c.Match.PrefixRanges
		if len(of) == 0 {
			of = []string{""}
		}
		prefixes[port] = append(prefixes[port], of...)
	}
	for _, port := range slices.Sorted(maps.Keys(prefixes)) {
		of := prefixes[port]
		slices.Sort(of)
		of = slices.Compact(of)
		m := chain.Match{DestinationPorts: at.DestinationPorts, Default: true}
		if port != 0 {
			m.DestinationPorts = []uint16{port}
		}
		if none := of[0] == ""; none {
			if of = of[1:]; port != 0 {
				c := rest
				c.Match, c.Name = m, fmt.Sprintf("%s.%d", rest.Name, len(all))
				all = append(all, c)
			}
		}
		of = slices.DeleteFunc(of, func(p string) bool { return port == 0 && slices.Contains(at.PrefixRanges, p) })
		if len(of) > 0 {
			c := rest
			m.PrefixRanges = of
			c.Match, c.Name = m, fmt.Sprintf("%s.%d", rest.Name, len(all))
			all = append(all, c)
		}
	}
	return all
}
