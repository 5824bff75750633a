package envoy_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/chain"
	"github.com/jurat-tls/jurat/proxy/config"
	"github.com/jurat-tls/jurat/xds/envoy"
)

// theirs is a listener as Envoy would have it: chains one by one, each to a cluster of its own, and a default.
type theirs struct {
	address  string
	port     int
	matches  []chain.Match
	fallback bool
}

func (l *theirs) cluster(i int) string { return fmt.Sprintf("%s:%d#%d", l.address, l.port, i) }

// find answers the cluster that a connection goes to; "" is refused.
func (l *theirs) find(t *rapid.T, c chain.Conn) string {
	table, err := chain.Compile(l.matches)
	if err != nil {
		t.Skip("matches that are for the same") // as Envoy says, too
	}
	if i, ok := table.Find(c); ok {
		return l.cluster(i)
	}
	if l.fallback {
		return l.cluster(-1)
	}
	return ""
}

func (l *theirs) yaml(virtual bool) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%sname: '%s:%d'\naddress: {socket_address: {address: %s, port_value: %d}}\n", aListener, l.address, l.port, l.address, l.port)
	if virtual {
		b.WriteString("bind_to_port: false\nlistener_filters: [{name: h, typed_config: {\"@type\": type.googleapis.com/envoy.extensions.filters.listener.http_inspector.v3.HttpInspector}}]\n")
	} else {
		b.WriteString("use_original_dst: true\n")
	}
	if len(l.matches) > 0 {
		b.WriteString("filter_chains:\n")
	}
	for i, m := range l.matches {
		b.WriteString("- filter_chain_match: {")
		if len(m.DestinationPorts) > 0 {
			fmt.Fprintf(&b, "destination_port: %d, ", m.DestinationPorts[0])
		}
		if len(m.PrefixRanges) > 0 {
			p := netip.MustParsePrefix(m.PrefixRanges[0])
			fmt.Fprintf(&b, "prefix_ranges: [{address_prefix: %s, prefix_len: %d}], ", p.Addr(), p.Bits())
		}
		if len(m.ServerNames) > 0 {
			fmt.Fprintf(&b, "server_names: ['%s'], ", strings.Join(m.ServerNames, "','"))
		}
		if m.TransportProtocol != "" {
			fmt.Fprintf(&b, "transport_protocol: %s, ", m.TransportProtocol)
		}
		if len(m.ApplicationProtocols) > 0 {
			fmt.Fprintf(&b, "application_protocols: ['%s'], ", strings.Join(m.ApplicationProtocols, "','"))
		}
		if m.SourceType != "" {
			b.WriteString("source_type: " + map[string]string{chain.Local: "SAME_IP_OR_LOOPBACK", chain.Other: "EXTERNAL"}[m.SourceType])
		}
		fmt.Fprintf(&b, "}\n  filters: [%s]\n", tcp(l.cluster(i)))
	}
	if l.fallback {
		fmt.Fprintf(&b, "default_filter_chain: {filters: [%s]}\n", tcp(l.cluster(-1)))
	}
	return b.String()
}

// A port that hands connections over is for each of them what Envoy makes of all its listeners together: the one of the
// address and port, or the one of the port, or the port's own, and then a chain of that one, or its default, and of no
// other.
func TestHandedOver(t *testing.T) {
	matches := func(own bool) *rapid.Generator[chain.Match] {
		return rapid.Custom(func(t *rapid.T) chain.Match {
			var m chain.Match
			pick := func(name string, of ...string) []string {
				if rapid.Bool().Draw(t, name) {
					return rapid.SliceOfNDistinct(rapid.SampledFrom(of), 1, 2, rapid.ID).Draw(t, name+" of")
				}
				return nil
			}
			if own || rapid.IntRange(0, 4).Draw(t, "port") == 0 {
				m.DestinationPorts = []uint16{rapid.SampledFrom([]uint16{80, 81, 15001}).Draw(t, "port of")}
			}
			if p := pick("prefix", "10.0.0.0/8", "10.0.0.1/32", "10.0.0.0/24"); p != nil {
				m.PrefixRanges = p[:1]
			}
			m.ServerNames = pick("names", "a.example", "*.example", "b.example")
			if p := pick("transport", "tls", "raw_buffer"); p != nil {
				m.TransportProtocol = p[0]
			}
			m.ApplicationProtocols = pick("protocols", "h2", "http/1.1")
			if p := pick("source", chain.Local, chain.Other); p != nil {
				m.SourceType = p[0]
			}
			return m
		})
	}
	rapid.Check(t, func(t *rapid.T) {
		draw := func(name, address string, port int) *theirs {
			l := &theirs{address: address, port: port, fallback: rapid.Bool().Draw(t, name+" default")}
			l.matches = rapid.SliceOfN(matches(port == 15001), 0, 4).Draw(t, name)
			if len(l.matches) == 0 {
				l.fallback = true
			}
			return l
		}
		port := draw("port", "127.0.0.1", 15001)
		all := []string{port.yaml(false)}
		virtual := map[string]*theirs{}
		for _, at := range []string{"10.0.0.1:80", "0.0.0.0:80", "10.0.0.2:80", "0.0.0.0:81"} {
			if rapid.Bool().Draw(t, at) {
				a := netip.MustParseAddrPort(at)
				virtual[at] = draw(at, a.Addr().String(), int(a.Port()))
				all = append(all, virtual[at].yaml(true))
			}
		}
		loaded, err := envoy.Load("test", []byte(docs(all...)))
		if err != nil {
			t.Fatal(err)
		}
		set := envoy.Set{}
		for _, d := range loaded {
			set.Add(d.Resource)
		}
		out := envoy.Translate(envoy.Input{Resources: set})
		conn := chain.Conn{
			Destination: netip.AddrPortFrom(rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("10.0.0.2"), netip.MustParseAddr("10.0.9.9"), netip.MustParseAddr("192.0.2.1")}).Draw(t, "to"), rapid.SampledFrom([]uint16{80, 81, 443, 15001}).Draw(t, "to port")),
			Source:      netip.AddrPortFrom(rapid.SampledFrom([]netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.0.2.9")}).Draw(t, "from"), 4000),
		}
		if conn.TLS = rapid.Bool().Draw(t, "tls"); conn.TLS {
			conn.ServerName = rapid.SampledFrom([]string{"", "a.example", "c.example", "d.test"}).Draw(t, "sni")
			conn.Protocols = rapid.SampledFrom([][]string{nil, {"h2"}, {"http/1.1", "h2"}, {"x"}}).Draw(t, "alpn")
		} else {
			conn.Protocols = rapid.SampledFrom([][]string{nil, {"http/1.1"}}).Draw(t, "first bytes")
		}
		theirs := virtual[conn.Destination.String()]
		if theirs == nil {
			theirs = virtual[fmt.Sprintf("0.0.0.0:%d", conn.Destination.Port())]
		}
		if theirs == nil {
			theirs = port
		}
		want := theirs.find(t, conn)
		for _, v := range virtual {
			v.find(t, conn) // is sound, too
		}
		if len(out.Config.Listeners) != 1 {
			// Two of them may be for the same connections: that is said, and never guessed at.
			if len(out.Problems) == 0 {
				t.Fatalf("no listener, and no problem: %s", render(out))
			}
			return
		}
		ours := out.Config.Listeners[0]
		got := found(t, &ours, conn)
		if got == "jurat:nowhere" {
			got = ""
		}
		if got != want {
			t.Fatalf("%+v goes to %q, with Envoy to %q\n%s", conn, got, want, render(out))
		}
	})
}

func found(t *rapid.T, l *config.Listener, c chain.Conn) string {
	table, err := chain.Compile(l.Matches())
	if err != nil {
		t.Fatal(err)
	}
	if i, ok := table.Find(c); ok {
		return l.Chains[i].Cluster
	}
	return l.Cluster
}

// Where both families have a listener of all addresses, each gets its own; one alone is for both.
func TestHandedOverFamilies(t *testing.T) {
	port := aListener + "name: out\n" + address("127.0.0.1", "15001") + "use_original_dst: true\nfilter_chains: [{filters: [" + tcp("own") + "]}]\n"
	virtual := func(host, cluster string) string {
		return aListener + "name: '" + host + "'\n" + address(host, "80") + "bind_to_port: false\nfilter_chains: [{filters: [" + tcp(cluster) + "]}]\n"
	}
	for _, c := range []struct{ text, v4, v6 string }{
		{docs(port, virtual("0.0.0.0", "four"), virtual("::", "six")), "four", "six"},
		{docs(port, virtual("0.0.0.0", "four")), "four", "four"},
		{docs(port, virtual("::", "six")), "six", "six"},
		{docs(port, virtual("10.0.0.1", "one"), virtual("::", "six")), "one", "six"},
		{docs(port, virtual("10.0.0.2", "two")), "own", "own"},
	} {
		out := translate(t, c.text)
		if len(out.Config.Listeners) != 1 {
			t.Fatal(render(out))
		}
		table, err := chain.Compile(out.Config.Listeners[0].Matches())
		if err != nil {
			t.Fatal(err)
		}
		for to, want := range map[string]string{"10.0.0.1:80": c.v4, "[2001:db8::1]:80": c.v6} {
			i, ok := table.Find(chain.Conn{Destination: netip.MustParseAddrPort(to)})
			if !ok || out.Config.Listeners[0].Chains[i].Cluster != want {
				t.Errorf("%s: not to %s\n%s", to, want, render(out))
			}
		}
	}
}
