package connect

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// Pattern is of targets that a policy covers: HOST[:PORT], at any port where none is named. HOST is a name, an IP address, "*.suffix"
// for all names below it, or "*" for all hosts. The zero Pattern covers nothing.
type Pattern struct {
	text   string // as it was given
	any    bool   // every host
	host   string // this one, as connect.Host spells it
	suffix string // ".example": every host below it
	port   string // "" for every port
}

// String is the pattern as it was given.
func (p Pattern) String() string { return p.text }

// ParsePattern reads a Pattern.
func ParsePattern(s string) (Pattern, error) {
	p := Pattern{text: s}
	bad := fmt.Errorf("%.100q is not HOST[:PORT], *.SUFFIX[:PORT] or *", s)
	host := s
	if _, err := netip.ParseAddr(s); err != nil { // an address of IPv6 has colons, and brackets only before a port
		if h, port, err := net.SplitHostPort(s); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
				return Pattern{}, bad
			}
			host, p.port = h, port
		} else if h, ok := strings.CutPrefix(s, "["); ok {
			if h, ok = strings.CutSuffix(h, "]"); !ok {
				return Pattern{}, bad
			}
			host = h
		}
	}
	if host == "*" {
		p.any = true
		return p, nil
	}
	suffix, below := strings.CutPrefix(host, "*.")
	name, err := Host(suffix)
	if _, address := netip.ParseAddr(name); err != nil || below && address == nil {
		return Pattern{}, bad
	}
	if below {
		p.suffix = "." + name
	} else {
		p.host = name
	}
	return p, nil
}

// Covers reports whether a target, "host:port" as Request.Target spells it, matches.
func (p Pattern) Covers(target string) bool {
	host, port, err := net.SplitHostPort(target)
	if err != nil || p.port != "" && p.port != port {
		return false
	}
	return p.any || p.host != "" && p.host == host || p.suffix != "" && strings.HasSuffix(host, p.suffix)
}
