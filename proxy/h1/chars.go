package h1

import (
	"encoding/binary"
	"math/bits"
	"net/netip"
	"strings"
)

// Classes of bytes.
const (
	inToken  = 1 << iota // RFC 9110 section 5.6.2
	inTarget             // visible ASCII but "#": a fragment never goes over the wire
	inName               // of a host: what RFC 3986 calls unreserved
	inExtension
)

// classes is written to nowhere.
var classes = func() (t [256]uint8) {
	for c := range t {
		alphanumeric := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if alphanumeric || strings.IndexByte("!#$%&'*+-.^_`|~", byte(c)) >= 0 {
			t[c] |= inToken
		}
		if '!' <= c && c <= '~' && c != '#' {
			t[c] |= inTarget
		}
		if alphanumeric || strings.IndexByte("-._~", byte(c)) >= 0 {
			t[c] |= inName
		}
		if ' ' <= c && c <= '~' || c == '\t' {
			t[c] |= inExtension
		}
	}
	return t
}()

// span answers how many bytes s starts with that are of a class.
func span(s string, class uint8) int {
	for i := range len(s) {
		if classes[s[i]]&class == 0 {
			return i
		}
	}
	return len(s)
}

func isToken(s string) bool { return s != "" && span(s, inToken) == len(s) }

// control answers the index of the first control character from b[i] on, or len(b). It looks at eight bytes at a time: a
// byte below 0x20 borrows into its top bit when 0x20 is taken away, and DEL becomes the zero that borrows when 1 is.
// Borrowing reaches only bytes above one that was found, so the lowest bit found is right.
func control(b []byte, i int) int {
	const (
		ones = 0x0101010101010101
		tops = 0x80 * ones
	)
	for ; i+8 <= len(b); i += 8 {
		x := binary.LittleEndian.Uint64(b[i:])
		del := x ^ 0x7f*ones
		if found := ((x-0x20*ones)&^x | (del-ones)&^del) & tops; found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for ; i < len(b); i++ {
		if b[i] < ' ' || b[i] == 0x7f {
			return i
		}
	}
	return len(b)
}

// clean reports whether b is what a value may be: no control but HTAB (RFC 9110 section 5.5).
func clean(b []byte) bool {
	for i := 0; ; i++ {
		if i = control(b, i); i == len(b) {
			return true
		}
		if b[i] != '\t' {
			return false
		}
	}
}

// same reports whether s, of which every byte is printable ASCII, is lower but for the case of letters.
func same(s, lower string) bool {
	if len(s) != len(lower) {
		return false
	}
	for i := range len(s) {
		if s[i]|0x20 != lower[i] {
			return false
		}
	}
	return true
}

// sameHost reports whether two authorities, valid ones, are the same.
func sameHost(a, b string) bool { return len(a) == len(b) && (a == b || strings.EqualFold(a, b)) }

func isSpace(c byte) bool { return c == ' ' || c == '\t' }

// trim takes off the whitespace around s. It is asked for every head, of which most have none.
func trim(s string) string {
	for s != "" && isSpace(s[0]) {
		s = s[1:]
	}
	for s != "" && isSpace(s[len(s)-1]) {
		s = s[:len(s)-1]
	}
	return s
}

// splitHost takes an authority apart. It may have no user, no empty port and no characters but those of names and
// addresses: a comma, a percent sign or a slash in it would be read by some server as more than one host.
func splitHost(s string) (host, port string, ok bool) {
	n := span(s, inName)
	if n == 0 {
		if s == "" || s[0] != '[' {
			return "", "", false
		}
		if n = strings.IndexByte(s, ']') + 1; n == 0 {
			return "", "", false
		}
		if ip, err := netip.ParseAddr(s[1 : n-1]); err != nil || !ip.Is6() || ip.Zone() != "" {
			return "", "", false
		}
	}
	host, s = s[:n], s[n:]
	if s == "" {
		return host, "", true
	}
	port = s[1:]
	if s[0] != ':' || len(port) == 0 || len(port) > 5 {
		return "", "", false
	}
	number := 0
	for i := range len(port) {
		if port[i] < '0' || port[i] > '9' {
			return "", "", false
		}
		number = number*10 + int(port[i]-'0')
	}
	return host, port, number <= 65535
}

// isPath reports whether s is a path and query of visible ASCII, with escapes that are whole.
func isPath(s string) bool {
	return s != "" && s[0] == '/' && span(s, inTarget) == len(s) && escaped(s)
}

// escaped reports whether every percent sign in the path of s begins an escape: servers decode half of one in different
// ways. The query is for its reader to understand.
func escaped(s string) bool {
	path, _, _ := strings.Cut(s, "?")
	for {
		i := strings.IndexByte(path, '%')
		if i < 0 {
			return true
		}
		if len(path) < i+3 || unhex(path[i+1]) > 15 || unhex(path[i+2]) > 15 {
			return false
		}
		path = path[i+3:]
	}
}

// unhex answers the value of a hexadecimal digit, above 15 if c is none.
func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	default:
		return 255
	}
}

// isProtocol reports whether s names one protocol, as Upgrade does (RFC 9110 section 7.8).
func isProtocol(s string) bool {
	name, version, versioned := strings.Cut(s, "/")
	return isToken(name) && (!versioned || isToken(version))
}
