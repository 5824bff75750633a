package trace

import (
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
)

const (
	maxState   = 512 // bytes of all tracestate fields together
	maxMembers = 32

	maxKey    = 256
	maxTenant = 241 // before an @
	maxSystem = 14  // behind it
	maxValue  = 256
)

// ParseState reads a tracestate, several of which are joined by commas, and answers it without white space and empty members
// around the others (section 3.3). It answers false for one of more than 512 bytes or 32 members, with a key twice, or that is
// malformed elsewhere: all of it is to be dropped then.
func ParseState(s string) (string, bool) {
	if len(s) > maxState {
		return "", false
	}
	var keys [maxMembers]string
	n, size := 0, 0
	for part := range strings.SplitSeq(s, ",") {
		member := strings.Trim(part, " \t")
		if member == "" {
			continue
		}
		key, value, _ := strings.Cut(member, "=")
		if n == maxMembers || !validKey(key) || !validValue(value) || slices.Contains(keys[:n], key) {
			return "", false
		}
		keys[n] = key
		n, size = n+1, size+len(member)
	}
	if n == 0 {
		return "", true
	}
	size += n - 1
	if size == len(s) {
		return s, true
	}
	var b strings.Builder
	b.Grow(size)
	for part := range strings.SplitSeq(s, ",") {
		if member := strings.Trim(part, " \t"); member != "" {
			if b.Len() > 0 {
				b.WriteByte(',')
			}
			b.WriteString(member)
		}
	}
	return b.String(), true
}

// validKey is about keys of one vendor, and of one of several tenants of a vendor.
func validKey(key string) bool {
	tenant, system, many := strings.Cut(key, "@")
	if !many {
		return len(key) <= maxKey && word(key, false)
	}
	return len(tenant) <= maxTenant && len(system) <= maxSystem && word(tenant, true) && word(system, false)
}

// word reports whether s is a part of a key: it begins with a letter, or a digit where that is allowed.
func word(s string, digit bool) bool {
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z':
		case '0' <= c && c <= '9' && (i > 0 || digit):
		case i > 0 && (c == '_' || c == '-' || c == '*' || c == '/'):
		default:
			return false
		}
	}
	return s != ""
}

// validValue is about values without the white space that surrounds a member.
func validValue(value string) bool {
	if value == "" || len(value) > maxValue {
		return false
	}
	for i := range len(value) {
		if c := value[i]; c < ' ' || c > '~' || c == '=' {
			return false
		}
	}
	return true
}

// state is the tracestate of a request, copied; "" where it has to be dropped.
func state(fields message.Fields) string {
	var values []string
	for i := range fields {
		if message.Same(fields[i].Name, stateName) {
			values = append(values, fields[i].Value)
		}
	}
	size := len(values) - 1
	for _, v := range values {
		size += len(v)
	}
	if size > maxState {
		return ""
	}
	s, _ := ParseState(strings.Join(values, ","))
	return strings.Clone(s)
}
