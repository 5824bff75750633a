package guard

import (
	"net"
	"net/netip"
	"path"
	"strconv"
	"strings"
)

// host is an address or a name, in one spelling. The zero host is none, and in no pattern.
type host struct {
	ip   netip.Addr
	name string // lower case, without the dot at the end
}

// parseHost reads a host. A spelling of an address that only some resolvers know, such as 127.1, is a name.
func parseHost(s string) (host, bool) {
	if ip, err := netip.ParseAddr(s); err == nil {
		if ip.Zone() != "" { // no prefix says which link is meant
			return host{}, false
		}
		return host{ip: ip.Unmap()}, true
	}
	s = strings.ToLower(strings.TrimSuffix(s, "."))
	if !isName(s) {
		return host{}, false
	}
	return host{name: s}, true
}

func isName(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// place is what an endpoint's address means. The zero place is none, and in no pattern.
type place struct {
	host
	port uint16
	path string // of a socket; then there is no host
}

// parsePlace reads host:port or unix:/path; the zero place is what is neither. So is a path that another one stands for, such as /a/../b.
func parsePlace(s string) place {
	if p, unix := strings.CutPrefix(s, "unix:"); unix {
		if !isPath(p) {
			return place{}
		}
		return place{path: p}
	}
	h, port, _ := net.SplitHostPort(s)
	n, number := parsePort(port)
	if !number {
		return place{}
	}
	at, _ := parseHost(h)
	return place{host: at, port: n}
}

func isPath(p string) bool {
	return len(p) > 1 && p[0] == '/' && path.Clean(p) == p && !strings.ContainsRune(p, 0)
}

func parsePort(s string) (uint16, bool) {
	n, err := strconv.ParseUint(s, 10, 16)
	return uint16(n), err == nil && n > 0
}

// pattern is places. The zero pattern has none.
type pattern struct {
	any      bool // every host
	loopback bool // every address of this machine alone
	prefix   netip.Prefix
	name     string
	suffix   string // ".example": every name below it
	port     uint16 // 0 is any
	path     string // of a socket
	below    string // "/run/": every socket below it
}

// parsePattern reads HOST[:PORT] or unix:/path, as Target.To has it.
func parsePattern(s string) (pattern, bool) {
	if p, unix := strings.CutPrefix(s, "unix:"); unix {
		if dir, ok := strings.CutSuffix(p, "/*"); ok {
			return pattern{below: dir + "/"}, isPath(dir)
		}
		return pattern{path: p}, isPath(p)
	}
	if p, ok := parseHosts(s); ok { // before a port is looked for: an address of IPv6 has colons
		return p, true
	}
	h, port, _ := net.SplitHostPort(s)
	p, ok := parseHosts(h)
	n, number := parsePort(port)
	p.port = n
	return p, ok && number
}

// parseHosts reads the HOST of a pattern.
func parseHosts(s string) (pattern, bool) {
	switch s {
	case "*":
		return pattern{any: true}, true
	case "loopback":
		return pattern{loopback: true}, true
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		return pattern{prefix: p}, p == p.Masked() && !p.Addr().Is4In6()
	}
	suffix, below := strings.CutPrefix(s, "*.")
	h, ok := parseHost(suffix)
	switch {
	case !ok || below && h.ip.IsValid():
		return pattern{}, false
	case below:
		return pattern{suffix: "." + h.name}, true
	case h.ip.IsValid():
		return pattern{prefix: netip.PrefixFrom(h.ip, h.ip.BitLen())}, true
	}
	return pattern{name: h.name}, true
}

// covers reports whether a place is in p.
func (p *pattern) covers(at place) bool {
	if at.path != "" {
		return p.path == at.path || p.below != "" && strings.HasPrefix(at.path, p.below)
	}
	return p.coversHost(at.host) && (p.port == 0 || p.port == at.port)
}

func (p *pattern) coversHost(h host) bool {
	switch {
	case h.ip.IsValid():
		return p.any || p.loopback && h.ip.IsLoopback() || p.prefix.Contains(h.ip)
	case h.name == "":
		return false
	case p.suffix != "":
		return strings.HasSuffix(h.name, p.suffix)
	}
	return p.any || p.name == h.name
}

// fixed reports whether it is clear from p alone what is meant: whoever answers for the DNS cannot bring other names into it.
func (p *pattern) fixed() bool { return !p.any && p.suffix == "" }

// local reports whether all of p is on this machine. No prefix begins with a loopback address and goes further.
func (p *pattern) local() bool {
	return p.loopback || p.path != "" || p.below != "" || p.name == "localhost" || p.prefix.Addr().IsLoopback()
}

// named reports whether a name is one of patterns, in which a * at the end stands for any rest.
func named(patterns []string, name string) bool {
	for _, p := range patterns {
		if front, ok := strings.CutSuffix(p, "*"); ok && strings.HasPrefix(name, front) || p == name {
			return true
		}
	}
	return false
}
