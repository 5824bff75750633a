package route

import (
	"fmt"
	"slices"
	"strings"
)

// byLength finds the longest of its keys that a host begins or ends with.
type byLength struct {
	lengths []int // of the keys, descending
	hosts   map[string]*virtualHost
}

func (b *byLength) sort() {
	for key := range b.hosts {
		b.lengths = append(b.lengths, len(key))
	}
	slices.Sort(b.lengths)
	b.lengths = slices.Compact(b.lengths)
	slices.Reverse(b.lengths)
}

// domains enters host for each of its domains.
func (c *compiler) domains(t *Table, host *virtualHost, at string, domains []string) {
	if len(domains) == 0 {
		c.bad(at, "none", "a domain, or *")
	}
	for i, d := range domains {
		at := fmt.Sprintf("%s[%d]", at, i)
		key := strings.ToLower(d)
		into, rest := t.exact, key
		switch {
		case d == "*":
			if t.any != nil {
				c.bad(at, quote(d), "a domain that no other virtual host has")
			}
			t.any = host
			continue
		case strings.HasPrefix(key, "*"):
			into, rest = t.suffixes.hosts, key[1:]
		case strings.HasSuffix(key, "*"):
			into, rest = t.prefixes.hosts, key[:len(key)-1]
		}
		name, port := cutPort(rest)
		switch {
		case !authority(rest) || strings.HasSuffix(name, ".") && !strings.HasSuffix(key, "*"):
			c.bad(at, quote(d), "example.com, *.example.com, example.* or *")
		case port != "" && t.ignorePort:
			c.bad(at, quote(d), "no port, since ignore_port_in_host_matching is set")
		case into[rest] != nil:
			c.bad(at, quote(d), "a domain that no other virtual host has")
		}
		into[rest] = host
	}
}

// virtualHost finds the host for an authority. Letters match in either case, and a dot at the end of a name says nothing.
func (t *Table) virtualHost(authority string) *virtualHost {
	name, port := cutPort(authority)
	if n := len(name); n > 0 && name[n-1] == '.' {
		name = name[:n-1]
	}
	if t.ignorePort {
		port = ""
	}
	var buf [264]byte // a name of the DNS and a port fit in it
	key := append(appendLower(buf[:0], name), port...)
	if v := t.exact[string(key)]; v != nil {
		return v
	}
	for _, n := range t.suffixes.lengths {
		if n < len(key) {
			if v := t.suffixes.hosts[string(key[len(key)-n:])]; v != nil {
				return v
			}
		}
	}
	for _, n := range t.prefixes.lengths {
		if n < len(key) {
			if v := t.prefixes.hosts[string(key[:n])]; v != nil {
				return v
			}
		}
	}
	return t.any
}

// cutPort answers the two parts of an authority, the port with its colon.
func cutPort(authority string) (host, port string) {
	for i := len(authority) - 1; i >= 0; i-- {
		switch c := authority[i]; {
		case c == ':':
			return authority[:i], authority[i:]
		case c < '0' || c > '9':
			return authority, ""
		}
	}
	return authority, ""
}

func appendLower(b []byte, s string) []byte {
	for i := range len(s) {
		b = append(b, lower(s[i]))
	}
	return b
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c + 'a' - 'A'
	}
	return c
}

// authority reports whether s has only characters of a host and a port.
func authority(s string) bool {
	for i := range len(s) {
		switch c := lower(s[i]); {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', strings.IndexByte("-._~:[]%", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
