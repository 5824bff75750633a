package route

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
)

type pathKind uint8

const (
	pathExact pathKind = iota
	pathPrefix
	pathSeparatedPrefix
	pathRegex
	pathConnect
)

// match is a compiled RouteMatch.
type match struct {
	kind    pathKind
	path    string
	fold    bool
	regex   *regexp.Regexp
	methods []string
	headers []headerMatcher
	query   []queryMatcher
}

func (c *compiler) match(at string, m *RouteMatch, keep bool) match {
	out := match{fold: m.IgnoreCase, methods: slices.Clone(m.Methods)}
	if c.one(at, "prefix, path_separated_prefix, path, safe_regex and connect_matcher",
		m.Prefix != "", m.PathSeparatedPrefix != "", m.Path != "", m.SafeRegex != "", m.Connect) {
		switch {
		case m.Prefix != "":
			out.kind, out.path = pathPrefix, m.Prefix
			c.path(at+".prefix", m.Prefix, keep)
		case m.PathSeparatedPrefix != "":
			out.kind, out.path = pathSeparatedPrefix, strings.TrimSuffix(m.PathSeparatedPrefix, "/")
			c.path(at+".path_separated_prefix", m.PathSeparatedPrefix, keep)
		case m.Path != "":
			out.kind, out.path = pathExact, m.Path
			c.path(at+".path", m.Path, keep)
		case m.SafeRegex != "":
			out.kind, out.regex = pathRegex, c.regex(at+".safe_regex", m.SafeRegex)
			if m.IgnoreCase {
				c.bad(at+".ignore_case", "true", "(?i) in safe_regex")
			}
		default:
			out.kind = pathConnect
		}
	}
	if m.Prefix == "*" || m.PathSeparatedPrefix == "*" {
		c.bad(at, `"*"`, "a path that begins with a slash")
	}
	for i, method := range m.Methods {
		if !token(method) {
			c.bad(fmt.Sprintf("%s.methods[%d]", at, i), quote(method), "a method")
		}
	}
	for i := range m.Headers {
		out.headers = append(out.headers, c.header(fmt.Sprintf("%s.headers[%d]", at, i), &m.Headers[i]))
	}
	for i := range m.QueryParameters {
		out.query = append(out.query, c.query(fmt.Sprintf("%s.query_parameters[%d]", at, i), &m.QueryParameters[i]))
	}
	return out
}

func (m *match) matches(r *message.Request, path, query string, tunnel bool) bool {
	if tunnel != (m.kind == pathConnect) {
		return false
	}
	switch m.kind {
	case pathExact:
		if len(path) != len(m.path) || !hasPrefix(path, m.path, m.fold) {
			return false
		}
	case pathPrefix:
		if !hasPrefix(path, m.path, m.fold) {
			return false
		}
	case pathSeparatedPrefix:
		if !hasPrefix(path, m.path, m.fold) || len(path) > len(m.path) && path[len(m.path)] != '/' {
			return false
		}
	case pathRegex:
		if !m.regex.MatchString(path) {
			return false
		}
	}
	if len(m.methods) > 0 && !slices.Contains(m.methods, r.Method) {
		return false
	}
	for i := range m.headers {
		if !m.headers[i].matches(r) {
			return false
		}
	}
	for i := range m.query {
		if !m.query[i].matches(query) {
			return false
		}
	}
	return true
}

// matched is how many bytes of path the route's prefix or path took.
func (m *match) matched(path string) int { return min(len(m.path), len(path)) }

func hasPrefix(s, prefix string, fold bool) bool {
	return len(s) >= len(prefix) && same(s[:len(prefix)], prefix, fold)
}

func same(a, b string, fold bool) bool {
	if !fold {
		return a == b
	}
	if len(a) != len(b) {
		return false
	}
	for i := range len(a) {
		if lower(a[i]) != lower(b[i]) {
			return false
		}
	}
	return true
}

// token reports whether s is a token of RFC 9110.
func token(s string) bool {
	for i := range len(s) {
		switch c := lower(s[i]); {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0:
		default:
			return false
		}
	}
	return s != ""
}
