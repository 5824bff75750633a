package route

import "strings"

type queryMatcher struct {
	name  string
	value valueMatcher
	want  bool // whether the parameter has to be there
}

func (c *compiler) query(at string, q *QueryParameterMatcher) queryMatcher {
	m := queryMatcher{name: q.Name, want: true}
	if q.Name == "" {
		c.bad(at+".name", `""`, "the name of a parameter")
	}
	if !c.one(at, "string_match and present_match", q.String != nil, q.Present != nil) {
		return m
	}
	if q.String != nil {
		m.value = c.value(at+".string_match", q.String)
	} else {
		m.value.kind, m.want = valuePresent, *q.Present
	}
	return m
}

func (m *queryMatcher) matches(query string) bool {
	v, ok := parameter(query, m.name)
	if !ok {
		return !m.want
	}
	return m.want && m.value.matches(decoded(v))
}

// parameter answers the undecoded value of the first parameter called name.
func parameter(query, name string) (string, bool) {
	rest := strings.TrimPrefix(query, "?")
	for rest != "" {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		key, value, _ := strings.Cut(pair, "=")
		if decodesTo(key, name) {
			return value, true
		}
	}
	return "", false
}

// octet answers the first octet of s, decoded as in a form, and what comes after it. A "%" that encodes nothing is itself.
func octet(s string) (byte, string) {
	switch {
	case s[0] == '+':
		return ' ', s[1:]
	case s[0] == '%' && len(s) > 2:
		if high, low := unhex(s[1]), unhex(s[2]); high >= 0 && low >= 0 {
			return byte(high<<4 | low), s[3:]
		}
	}
	return s[0], s[1:]
}

func decodesTo(s, want string) bool {
	for s != "" {
		var c byte
		c, s = octet(s)
		if want == "" || c != want[0] {
			return false
		}
		want = want[1:]
	}
	return want == ""
}

func decoded(s string) string {
	if strings.IndexByte(s, '%') < 0 && strings.IndexByte(s, '+') < 0 {
		return s
	}
	out := make([]byte, 0, len(s))
	for s != "" {
		var c byte
		c, s = octet(s)
		out = append(out, c)
	}
	return string(out)
}
