package envoy

//lint:file-ignore SA1019 control planes still send fields that are deprecated

import (
	"fmt"
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
			l = s.address0(m)
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
		c := &config.Listener{Address: "127.0.0.1:1", Transparent: "redirect", Chains: l.place(s)}
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

// address0 is what is known of a listener that is not sound: which connections would be for it. Nil where not even that is.
func (s *scope) address0(m *listenerv3.Listener) *listener {
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
		if f := d.GetFilterChainMatch(); f != nil && f.ProtoReflect().IsValid() && !empty(f) {
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

func empty(m *listenerv3.FilterChainMatch) bool {
	n := 0
	m.ProtoReflect().Range(countFields(&n))
	return n == 0
}

// chain is what becomes of the connections of a filter chain.
func (s *scope) chain(at string, f *listenerv3.FilterChain, l *listener) config.Chain {
	c := config.Chain{Name: f.GetName(), Match: s.chainMatch(at+".filter_chain_match", f.GetFilterChainMatch())}
	c.Times.Handshake = s.duration(at+".transport_socket_connect_timeout", f.GetTransportSocketConnectTimeout(), 0)
	l.wait = append(l.wait, s.clients(at+".transport_socket", f.GetTransportSocket(), &c)...)
	l.wait = append(l.wait, s.filters(at, f.GetFilters(), &c)...)
	s.sniffed(at, &c, l)
	return c
}

// httpWords are what http_inspector says of the first bytes, as if it were ALPN.
var httpWords = []string{"http/1.0", "http/1.1", "h2c"}

// sniffed puts in place what a chain asks for about protocols.
func (s *scope) sniffed(at string, c *config.Chain, l *listener) {
	alpn := c.Match.ApplicationProtocols
	if l.sniffs && c.Plain && c.Match.TransportProtocol != chain.TLS && len(alpn) > 0 && !slices.ContainsFunc(alpn, func(p string) bool { return !slices.Contains(httpWords, p) }) {
		// HTTP is not told from other things before it is read. As long as no other chain gets what is not TLS, it can be read here: what
		// is not HTTP is then refused. Where another one does, two chains would be for the same, which is an error later on.
		c.Match.ApplicationProtocols, c.Match.TransportProtocol = nil, chain.Raw
		s.note(at+".filter_chain_match.application_protocols", "connections that begin without TLS have to be HTTP, or are refused")
		return
	}
	if c.Plain || len(alpn) == 0 {
		return
	}
	// Istio's proxies say by ids of ALPN that they belong to the mesh. Ours say it with evidence, and offer the ids of HTTP itself.
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
	if l.handsOver {
		// The order is that of Envoy, which looks for a listener of the address and the port, then of the port, and takes its own chains
		// for the rest: addresses and ports are told apart first. A virtual listener that is not sound yet has its place, too:
		// its connections must not become others', which may send them on in plain.
		if l.rest != nil {
			own = append(own, fallbacks(s, own, *l.rest, chain.Match{})...)
		}
		for _, v := range all {
			if v.virtual {
				own = append(own, v.place(s)...)
			}
		}
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
	plain := c.Plain || slices.ContainsFunc(c.Chains, func(c config.Chain) bool { return c.Plain })
	c.UnsafeListen = plain && !config.Local(c.Address)
	return c
}

// place is the chains of a virtual listener, within the port that hands connections over.
func (l *listener) place(s *scope) []config.Chain {
	host, port, err := splitAddress(l.address)
	ip, ipErr := netip.ParseAddr(host)
	if err != nil || ipErr != nil {
		s.bad("address", l.address+" of the listener "+quote(l.name), "an address and a port, which connections are handed over by")
		return nil
	}
	at := chain.Match{DestinationPorts: []uint16{port}}
	if !ip.IsUnspecified() {
		at.PrefixRanges = []string{netip.PrefixFrom(ip, ip.BitLen()).String()}
	}
	if l.failed || len(l.wait) > 0 {
		return []config.Chain{{Name: l.name + "/not yet", Match: at, Serving: config.Serving{Plain: true, TCP: true, Cluster: nowhere}}}
	}
	var all []config.Chain
	for _, c := range l.chains {
		m := c.Match
		switch {
		case len(m.DestinationPorts) > 0 && !slices.Contains(m.DestinationPorts, port):
			continue // never met
		case len(at.PrefixRanges) > 0 && len(m.PrefixRanges) > 0 && !covers(m.PrefixRanges, ip):
			continue
		case len(at.PrefixRanges) > 0:
			m.PrefixRanges = at.PrefixRanges
		}
		m.DestinationPorts = at.DestinationPorts
		c.Match, c.Name = m, l.name+"/"+c.Name
		all = append(all, c)
	}
	if l.rest != nil {
		rest := *l.rest
		rest.Name = l.name + "/" + rest.Name
		all = append(all, fallbacks(s, all, rest, at)...)
	}
	if len(all) == 0 { // nothing is ever for it
		all = []config.Chain{{Name: l.name + "/none", Match: at, Serving: config.Serving{Plain: true, TCP: true, Cluster: nowhere}}}
	}
	return all
}

func covers(prefixes []string, ip netip.Addr) bool {
	return slices.ContainsFunc(prefixes, func(s string) bool {
		p, err := netip.ParsePrefix(s)
		return err == nil && p.Contains(ip)
	})
}

// maxFallbacks bounds in how many places a default chain of a virtual listener has to stand.
const maxFallbacks = 1024

// fallbacks answers the chains that do for others what a default chain does: it gets what is for none of them. A match is found by going
// from one kind of thing to the next, and there is no way back, so that the default has to stand wherever that may end:
// at the place itself, and after each kind of thing that a chain asks for but for the last.
func fallbacks(s *scope, chains []config.Chain, rest config.Chain, at chain.Match) []config.Chain {
	taken := map[string]bool{}
	for _, c := range chains {
		for _, m := range ways(c.Match) {
			taken[m.String()] = true
		}
	}
	var all []config.Chain
	add := func(m chain.Match) {
		if key := m.String(); !taken[key] && len(all) <= maxFallbacks {
			taken[key] = true
			c := rest
			c.Match = m
			if len(all) > 0 {
				c.Name = fmt.Sprintf("%s.%d", rest.Name, len(all))
			}
			all = append(all, c)
		}
	}
	add(at)
	for _, c := range chains {
		for _, m := range ways(c.Match) {
			for _, cut := range stems(m) {
				add(cut)
			}
		}
	}
	if len(all) > maxFallbacks {
		s.bad("default_filter_chain", "more than "+strconv.Itoa(maxFallbacks)+" places for it beside the chains of "+quote(rest.Name), "shorter matches")
	}
	return all
}
