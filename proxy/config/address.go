package config

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/chain"
)

// systemd is in front of the name of a socket that was opened by the service manager.
const systemd = "systemd:"

// CheckAddress checks an address to listen on: host:port, unix:/path or systemd:NAME. The port may have a name; 0 is any.
func CheckAddress(address string) error {
	path, unix := strings.CutPrefix(address, "unix:")
	name, inherited := strings.CutPrefix(address, systemd)
	ok := false
	switch {
	case unix:
		ok = filePath(path)
	case inherited:
		ok = name != ""
	default:
		host, port, err := net.SplitHostPort(address)
		if err == nil && (host == "" || isHost(host)) {
			_, err = net.LookupPort("tcp", port)
			ok = err == nil
		}
	}
	if !ok {
		return value("listen", fmt.Sprintf("%.100q", address), "host:port, unix:/path or systemd:NAME")
	}
	return nil
}

// Local reports whether only this machine can reach an address to listen on. Of an inherited socket nothing is known.
func Local(address string) bool {
	if strings.HasPrefix(address, "unix:") {
		return true
	}
	host, _, _ := net.SplitHostPort(address)
	return localHost(host)
}

func localHost(host string) bool {
	ip, _ := netip.ParseAddr(host)
	return host == "localhost" || ip.Unmap().IsLoopback()
}

// Service is the parsed address of a service, as Listener.To has it.
type Service struct {
	Scheme          string // "", "http" or "h2c", as written
	Network, Target string // for net.Dial
}

// Local reports whether it is on this machine.
func (s Service) Local() bool { return s.Network == "unix" || Local(s.Target) }

// ParseService reads "host:port", "http://host:port", "h2c://host:port" or "unix:/path".
func ParseService(s string) (Service, error) {
	bad := func(want string) (Service, error) { return Service{}, value("backend", fmt.Sprintf("%.100q", s), want) }
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		if !filePath(path) {
			return bad("a path after unix:")
		}
		return Service{Network: "unix", Target: path}, nil
	}
	scheme, rest, ok := strings.Cut(s, "://")
	if !ok {
		scheme, rest = "", s
	}
	switch scheme {
	case "", "http", "h2c":
	default:
		return bad("host:port, http://host:port, h2c://host:port or unix:/path")
	}
	if ok {
		rest = strings.TrimSuffix(rest, "/")
	}
	host, port, _ := net.SplitHostPort(rest)
	if !isPort(port) {
		return bad("host:port, with a port from 1 to 65535")
	}
	if strings.ContainsAny(host, "/@?# \t") {
		return bad("a host without a path or user")
	}
	if host == "" {
		host = "localhost"
	}
	return Service{Scheme: scheme, Network: "tcp", Target: net.JoinHostPort(host, port)}, nil
}

// ParsePrefix reads a prefix of addresses such as 10.0.0.0/8, or one address, of Listener.ProxyProtocol.
func ParsePrefix(s string) (netip.Prefix, error) {
	p, err := chain.ParsePrefix(s)
	var coded *attest.Error
	if errors.As(err, &coded) {
		return p, value("proxy_protocol", coded.Got, coded.Want)
	}
	return p, err
}

// checkEndpoint checks an address to connect to.
func checkEndpoint(address string) bool {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return filePath(path)
	}
	host, port, _ := net.SplitHostPort(address)
	return isHost(host) && isPort(port)
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func filePath(s string) bool { return s != "" && !strings.ContainsRune(s, 0) }

// isHost reports whether s is an IP address, or a name that may end in a dot.
func isHost(s string) bool { return isName(strings.TrimSuffix(s, ".")) }

// isName reports whether s is an IP address or a name as certificates have it.
func isName(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil || isDNS(s)
}

func isDNS(s string) bool {
	if len(s) > 253 {
		return false
	}
	for label := range strings.SplitSeq(strings.ToLower(s), ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' ||
			strings.Trim(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
			return false
		}
	}
	return true
}

// isServerName reports whether a Passthrough may name s.
func isServerName(s string) bool {
	if s == "*" {
		return true
	}
	_, err := netip.ParseAddr(s) // which no client names (RFC 6066 section 3)
	return err != nil && isDNS(strings.TrimPrefix(s, "*."))
}

func value(check, got, want string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: check, Got: got, Want: want}
}
