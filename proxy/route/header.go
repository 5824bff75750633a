package route

import (
	"strconv"
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
)

type headerMatcher struct {
	name         string
	value        valueMatcher
	invert       bool
	missingEmpty bool
}

func (c *compiler) header(at string, h *HeaderMatcher) headerMatcher {
	m := headerMatcher{name: h.Name, invert: h.Invert, missingEmpty: h.TreatMissingAsEmpty}
	if h.Name != ":authority" && h.Name != ":method" && h.Name != ":scheme" && !token(h.Name) {
		c.bad(at+".name", quote(h.Name), "the name of a header, :authority, :method or :scheme")
	}
	if !c.one(at, "string_match, range_match and present_match", h.String != nil, h.Range != nil, h.Present != nil) {
		return m
	}
	switch {
	case h.String != nil:
		m.value = c.value(at+".string_match", h.String)
	case h.Range != nil:
		m.value = valueMatcher{kind: valueRange, Range: *h.Range}
		if h.Range.Start >= h.Range.End {
			c.bad(at+".range_match", strconv.FormatInt(h.Range.End, 10), "an end above the start")
		}
	default:
		m.value.kind = valuePresent
		m.invert = h.Invert == *h.Present
	}
	return m
}

func (m *headerMatcher) matches(r *message.Request) bool {
	v, ok := field(r, m.name)
	if !ok && !m.missingEmpty {
		return m.value.kind == valuePresent && m.invert
	}
	return m.value.matches(v) != m.invert
}

// field answers the value of a field, of all fields of that name joined with commas (RFC 9110 section 5.3), or of what a
// name with a colon stands for.
func field(r *message.Request, name string) (string, bool) {
	switch name {
	case ":authority":
		return r.Authority, r.Authority != ""
	case ":method":
		return r.Method, true
	case ":scheme":
		return r.Scheme, r.Scheme != ""
	}
	first := -1
	for i := range r.Fields {
		if !message.Same(r.Fields[i].Name, name) {
			continue
		}
		if first < 0 {
			first = i
			continue
		}
		var all strings.Builder
		all.WriteString(r.Fields[first].Value)
		for _, f := range r.Fields[i:] {
			if message.Same(f.Name, name) {
				all.WriteByte(',')
				all.WriteString(f.Value)
			}
		}
		return all.String(), true
	}
	if first < 0 {
		return "", false
	}
	return r.Fields[first].Value, true
}
