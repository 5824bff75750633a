package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/connect"
)

const allowUsage = "`HOST[:PORT]` that clients of --proxy may go to, at any port where none is named: a name, an IP address, *.suffix, or * for all hosts; repeat for more"

// targets are patterns of the hosts that a policy covers. It is a flag that may be given several times.
type targets []targetPattern

// targetPattern is one of them.
type targetPattern struct {
	text   string // as it was given
	any    bool   // every host
	host   string // this one, as connect.Host spells it
	suffix string // ".example": every host below it
	port   string // "" for every port
}

// String implements flag.Value.
func (t *targets) String() string {
	all := make([]string, len(*t))
	for i, p := range *t {
		all[i] = p.text
	}
	return strings.Join(all, " ")
}

// Set implements flag.Value.
func (t *targets) Set(s string) error {
	p, err := parseTargetPattern(s)
	if err == nil {
		*t = append(*t, p)
	}
	return err
}

func parseTargetPattern(s string) (targetPattern, error) {
	p := targetPattern{text: s}
	bad := fmt.Errorf("%.100q is not HOST[:PORT], *.SUFFIX[:PORT] or *", s)
	host := s
	if _, err := netip.ParseAddr(s); err != nil { // an address of IPv6 has colons, and brackets only before a port
		if h, port, err := net.SplitHostPort(s); err == nil {
			if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 || strconv.FormatUint(n, 10) != port {
				return p, bad
			}
			host, p.port = h, port
		} else if h, ok := strings.CutPrefix(s, "["); ok {
			if h, ok = strings.CutSuffix(h, "]"); !ok {
				return p, bad
			}
			host = h
		}
	}
	if host == "*" {
		p.any = true
		return p, nil
	}
	suffix, below := strings.CutPrefix(host, "*.")
	name, err := connect.Host(suffix)
	if _, address := netip.ParseAddr(name); err != nil || below && address == nil {
		return p, bad
	}
	if below {
		p.suffix = "." + name
	} else {
		p.host = name
	}
	return p, nil
}

// covers reports whether a target, "host:port" with the host as connect.Host spells it, matches a pattern.
func (t targets) covers(target string) bool {
	host, port, err := net.SplitHostPort(target)
	if err != nil {
		return false
	}
	for _, p := range t {
		if p.port != "" && p.port != port {
			continue
		}
		if p.any || p.host != "" && p.host == host || p.suffix != "" && strings.HasSuffix(host, p.suffix) {
			return true
		}
	}
	return false
}

// check is the error for a target that no pattern matches.
func (t targets) check(target string) error {
	if t.covers(target) {
		return nil
	}
	return &attest.Error{Code: attest.CodeNoPolicy, Check: "target", Subject: target}
}
