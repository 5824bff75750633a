package connect

import (
	"errors"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

var (
	errHost = errors.New("the target is neither a host name nor an IP address")
	errPort = errors.New("the target has no port from 1 to 65535")
	errNone = errors.New("the target is an address that nobody has")
)

// Host answers the one spelling of a host name or an IP address, or that it is none. Names are in small letters, without the
// dot that may end them; IP addresses stand without brackets, and those of IPv4 never in the form that IPv6 has for them.
//
// A name that ends in a number is refused: "127.1" and "0x7f000001" are 127.0.0.1 to some resolvers and names to others, so
// what was allowed would not be what is reached. An address with a zone is refused: it names an interface of this machine.
func Host(s string) (string, error) {
	if ip, err := netip.ParseAddr(s); err == nil {
		return address(ip)
	}
	name := strings.TrimSuffix(s, ".")
	if name == "" || len(name) > 253 {
		return "", errHost
	}
	last := ""
	for label := range strings.SplitSeq(name, ".") {
		if !isLabel(label) {
			return "", errHost
		}
		last = label
	}
	if '0' <= last[0] && last[0] <= '9' && isNumber(last) {
		return "", errHost
	}
	return strings.ToLower(name), nil
}

// address is Host for an IP address.
func address(ip netip.Addr) (string, error) {
	if ip.Zone() != "" {
		return "", errHost
	}
	switch ip = ip.Unmap(); {
	case ip.IsUnspecified(), ip.IsMulticast(): // the kernel takes the former for this machine
		return "", errNone
	}
	return ip.String(), nil
}

// target joins a host in its one spelling, and a port.
func target(host string, port uint16) (string, error) {
	if port == 0 {
		return "", errPort
	}
	return net.JoinHostPort(host, strconv.Itoa(int(port))), nil
}

// splitTarget takes the authority of a CONNECT apart, in which a port is a must.
func splitTarget(authority string) (host string, port uint16, err error) {
	host, digits, err := net.SplitHostPort(authority)
	if err != nil {
		return "", 0, errPort
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	if err != nil || digits[0] == '0' { // a port with a leading zero is octal to some
		return "", 0, errPort
	}
	return host, uint16(n), nil
}

func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	for _, c := range []byte(s) {
		if !('a' <= c|0x20 && c|0x20 <= 'z' || '0' <= c && c <= '9' || c == '-' || c == '_') {
			return false
		}
	}
	return true
}

// isNumber reports whether a label that begins with a digit is a number, in decimal, octal or hexadecimal.
func isNumber(s string) bool {
	digits := "0123456789"
	if hex := strings.ToLower(s); strings.HasPrefix(hex, "0x") {
		s, digits = hex[2:], "0123456789abcdef" // "0x" alone is 0 to some
	}
	return strings.Trim(s, digits) == ""
}
