// Package pattern compiles regular expressions of those who are not to keep a proxy busy by them: RE2 takes time in proportion to
// the text and to the expression with its repetitions written out, and a thousand bytes of those are a hundred thousand of these.
package pattern

import (
	"errors"
	"regexp"
	"regexp/syntax"
)

// Most is the weight that an expression of a stranger may have.
const Most = 1024

// Compile compiles an expression that has to match a whole text, or a part of it where whole is false, and that weighs no more than most. The
// error says nothing of the expression. weight is about how many steps are taken for a byte of a text at most, for whoever asks for several.
func Compile(expr string, whole bool, most int) (re *regexp.Regexp, weight int, err error) {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		return nil, 0, errors.New("not a regular expression (RE2)")
	}
	if weight = weigh(parsed); weight > most {
		return nil, 0, errors.New("too large with its repetitions written out")
	}
	if whole {
		expr = `\A(?:` + expr + `)\z`
	}
	re, err = regexp.Compile(expr)
	return re, weight, err
}

// weigh is about how many instructions a part of an expression has. What it is made of was bounded when it was parsed: it can't overflow.
func weigh(re *syntax.Regexp) int {
	n := 1
	if re.Op == syntax.OpLiteral {
		n = len(re.Rune)
	}
	for _, sub := range re.Sub {
		n += weigh(sub)
	}
	if re.Op == syntax.OpRepeat {
		n *= max(re.Min, re.Max, 1)
	}
	return n
}
