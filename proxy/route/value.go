package route

import (
	"regexp"
	"strconv"
	"strings"
)

type valueKind uint8

const (
	valueExact valueKind = iota
	valuePrefix
	valueSuffix
	valueContains
	valueRegex
	valueRange
	valuePresent
)

// valueMatcher is about one value that is there.
type valueMatcher struct {
	kind  valueKind
	text  string
	fold  bool
	regex *regexp.Regexp
	Range
}

// value compiles a StringMatcher. One without any text is of the empty string.
func (c *compiler) value(at string, s *StringMatcher) valueMatcher {
	m := valueMatcher{fold: s.IgnoreCase}
	n := 0
	for kind, text := range []string{s.Exact, s.Prefix, s.Suffix, s.Contains, s.SafeRegex} {
		if text != "" {
			m.kind, m.text = valueKind(kind), text
			n++
		}
	}
	if n > 1 {
		c.bad(at, strconv.Itoa(n)+" of them", "one of exact, prefix, suffix, contains and safe_regex")
	}
	if m.kind == valueRegex {
		m.regex = c.regex(at+".safe_regex", s.SafeRegex)
		if s.IgnoreCase {
			c.bad(at+".ignore_case", "true", "(?i) in safe_regex")
		}
	}
	return m
}

func (m *valueMatcher) matches(s string) bool {
	switch m.kind {
	case valueExact:
		return same(s, m.text, m.fold)
	case valuePrefix:
		return hasPrefix(s, m.text, m.fold)
	case valueSuffix:
		return len(s) >= len(m.text) && same(s[len(s)-len(m.text):], m.text, m.fold)
	case valueContains:
		if !m.fold {
			return strings.Contains(s, m.text)
		}
		for i := 0; i+len(m.text) <= len(s); i++ {
			if same(s[i:i+len(m.text)], m.text, true) {
				return true
			}
		}
		return false
	case valueRegex:
		return m.regex.MatchString(s)
	case valueRange:
		n, ok := integer(s)
		return ok && m.Start <= n && n < m.End
	default:
		return true
	}
}

// integer reads a decimal integer. strconv would allocate an error for what is none.
func integer(s string) (n int64, ok bool) {
	digits := strings.TrimPrefix(s, "-")
	if digits == "" || len(digits) > 18 { // 18 digits fit
		return 0, false
	}
	for i := range len(digits) {
		if digits[i] < '0' || digits[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(digits[i]-'0')
	}
	if len(digits) < len(s) {
		n = -n
	}
	return n, true
}
