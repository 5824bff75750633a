package accesslog

import (
	"time"
	"unicode/utf8"
)

// maxValue bounds what is written of one value, in bytes before they are escaped: a head may hold 64 KiB, which would fill
// the buffer with a few lines.
const maxValue = 4096

const hexDigits = "0123456789abcdef"

// line is one that is being written.
type line struct {
	b   []byte
	cut bool // a value was longer than maxValue
}

func (l *line) raw(s string) { l.b = append(l.b, s...) }

// quoted writes s in quotes: what is not printable ASCII, quotes and backslashes become \xHH, as in nginx's logs. "-" without
// quotes stands for an empty string. A value that was cut ends in \... , which nothing else does.
func (l *line) quoted(s string) {
	if s == "" {
		l.b = append(l.b, '-')
		return
	}
	l.b = append(l.b, '"')
	l.escaped(s, ' ')
	l.b = append(l.b, '"')
}

// word is quoted without the quotes, and so without spaces.
func (l *line) word(s string) {
	if s == "" {
		l.b = append(l.b, '-')
		return
	}
	l.escaped(s, '!')
}

func (l *line) escaped(s string, least byte) {
	long := len(s) > maxValue
	if long {
		s = s[:maxValue]
	}
	from := 0
	for i := range len(s) {
		c := s[i]
		if c >= least && c < 0x7f && c != '"' && c != '\\' {
			continue
		}
		l.b = append(l.b, s[from:i]...)
		l.b = append(l.b, '\\', 'x', hexDigits[c>>4], hexDigits[c&15])
		from = i + 1
	}
	l.b = append(l.b, s[from:]...)
	if long {
		l.cut = true
		l.b = append(l.b, `\...`...)
	}
}

// json writes s as a string of JSON. Beyond what RFC 8259 demands, everything outside printable ASCII is escaped: among it are
// C1 controls, which terminals obey, and marks that turn text around. What is no UTF-8 becomes U+FFFD.
func (l *line) json(s string) {
	if len(s) > maxValue {
		l.cut = true
		s = s[:maxValue]
		for i := len(s) - 1; i > len(s)-utf8.UTFMax; i-- { // not through the middle of a character
			if utf8.RuneStart(s[i]) {
				if !utf8.FullRuneInString(s[i:]) {
					s = s[:i]
				}
				break
			}
		}
	}
	l.b = append(l.b, '"')
	from := 0
	for i := 0; i < len(s); {
		c := s[i]
		if c >= ' ' && c < 0x7f && c != '"' && c != '\\' {
			i++
			continue
		}
		l.b = append(l.b, s[from:i]...)
		switch r, n := utf8.DecodeRuneInString(s[i:]); {
		case c == '"' || c == '\\':
			l.b = append(l.b, '\\', c)
			i++
		case r >= 0x10000:
			r -= 0x10000
			l.unit(0xd800 + r>>10)
			l.unit(0xdc00 + r&0x3ff)
			i += n
		default:
			l.unit(r)
			i += n
		}
		from = i
	}
	l.b = append(l.b, s[from:]...)
	l.b = append(l.b, '"')
}

// unit writes one unit of UTF-16.
func (l *line) unit(r rune) {
	l.b = append(l.b, '\\', 'u', hexDigits[r>>12&15], hexDigits[r>>8&15], hexDigits[r>>4&15], hexDigits[r&15])
}

// seconds writes d with six decimals.
func (l *line) seconds(d time.Duration) {
	n := d.Microseconds()
	u := uint64(n)
	if n < 0 {
		l.b = append(l.b, '-')
		u = -u
	}
	l.number(u / 1e6)
	l.b = append(l.b, '.')
	l.digits(u%1e6, 6)
}

func (l *line) number(n uint64) {
	var digits [20]byte
	i := len(digits) - 1
	for ; n >= 10; i-- {
		digits[i] = '0' + byte(n%10)
		n /= 10
	}
	digits[i] = '0' + byte(n)
	l.b = append(l.b, digits[i:]...)
}

// digits writes the last width digits of n.
func (l *line) digits(n uint64, width int) {
	at := len(l.b)
	for range width {
		l.b = append(l.b, '0')
	}
	for i := at + width - 1; i >= at; i-- {
		l.b[i] = '0' + byte(n%10)
		n /= 10
	}
}
