package route

import (
	"fmt"
	"regexp"
	"strings"
)

// rewriter changes a path without its query. The zero value changes nothing.
type rewriter struct {
	prefix   bool
	with     string // what takes the place of the prefix
	regex    *regexp.Regexp
	template string // of regexp.Expand
}

func (c *compiler) rewrite(at, prefix string, regex *RegexRewrite, m *RouteMatch) rewriter {
	switch {
	case prefix != "" && regex != nil:
		c.bad(at+".regex_rewrite", "beside prefix_rewrite", "one of them")
	case prefix != "":
		c.path(at+".prefix_rewrite", prefix, false)
		if m.SafeRegex != "" || m.Connect {
			c.bad(at+".prefix_rewrite", quote(prefix), "a route that matches a prefix or a path")
		}
		return rewriter{prefix: true, with: prefix}
	case regex != nil:
		return rewriter{regex: c.pattern(at+".regex_rewrite.pattern", regex.Pattern, false), template: c.substitution(at+".regex_rewrite", regex)}
	}
	return rewriter{}
}

// substitution turns Envoy's references to groups into Go's.
func (c *compiler) substitution(at string, r *RegexRewrite) string {
	groups := 0
	if re, err := regexp.Compile(r.Pattern); err == nil {
		groups = re.NumSubexp()
	}
	var out strings.Builder
	for i := 0; i < len(r.Substitution); i++ {
		switch s := r.Substitution; {
		case s[i] == '$':
			out.WriteString("$$")
		case s[i] != '\\':
			out.WriteByte(s[i])
		case i+1 < len(s) && s[i+1] == '\\':
			out.WriteByte('\\')
			i++
		case i+1 < len(s) && int(s[i+1]-'0') <= min(groups, 9):
			fmt.Fprintf(&out, "${%c}", s[i+1])
			i++
		default:
			c.bad(at+".substitution", quote(s), fmt.Sprintf(`\0 to \%d and \\ after a backslash`, min(groups, 9)))
			return ""
		}
	}
	return out.String()
}

// apply answers path as it is forwarded. It is ErrPath where the rewrite leaves one that is not in canonical form but for
// slashes in a row, which become one: what was left of "/a../b" must not lead out of what a prefix "/a" was rewritten to.
func (w *rewriter) apply(path string, m *match, keepEscapedSlashes bool) (string, error) {
	switch {
	case w.prefix:
		path = w.with + path[m.matched(path):]
	case w.regex != nil:
		path = w.regex.ReplaceAllString(path, w.template)
	default:
		return path, nil
	}
	for strings.Contains(path, "//") {
		path = strings.ReplaceAll(path, "//", "/")
	}
	canonical, err := Normalize(path, keepEscapedSlashes)
	if err != nil || canonical != path || strings.IndexByte(path, '?') >= 0 { // which would turn the rest into a query
		return "", ErrPath
	}
	return path, nil
}
