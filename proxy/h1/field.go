package h1

import (
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
)

// kind of a field, where it is of one connection or of the message's framing.
type kind uint8

const (
	ordinary kind = iota
	connection
	contentLength
	expect
	hopByHop // of no meaning here, and never passed on
	host
	te
	trailer
	transferEncoding
	upgrade
)

// kindOf knows the names in every case of their letters.
func kindOf(name string) kind {
	switch len(name) {
	case 2:
		if same(name, "te") {
			return te
		}
	case 4:
		if same(name, "host") {
			return host
		}
	case 6:
		if same(name, "expect") {
			return expect
		}
	case 7:
		if same(name, "upgrade") {
			return upgrade
		}
		if same(name, "trailer") {
			return trailer
		}
	case 10:
		if same(name, "connection") {
			return connection
		}
		if same(name, "keep-alive") {
			return hopByHop
		}
	case 14:
		if same(name, "content-length") {
			return contentLength
		}
		if same(name, "http2-settings") {
			return hopByHop
		}
	case 16:
		if same(name, "proxy-connection") {
			return hopByHop
		}
	case 17:
		if same(name, "transfer-encoding") {
			return transferEncoding
		}
	}
	return ordinary
}

// parts of a field line, as indices.
type parts struct {
	colon      int // the name ends here
	start, end int // of the value, without the whitespace around it
	next       int // the line after this one
}

// fieldLine takes the line that begins at b[i] apart. b ends in an LF, which need not be this line's. The answer is why it
// can't be taken apart, or "".
func fieldLine(b []byte, i int) (p parts, fault string) {
	p.colon = i
	for classes[b[p.colon]]&inToken != 0 {
		p.colon++
	}
	switch {
	case b[p.colon] != ':' && isSpace(b[p.colon]) && p.colon == i:
		return p, "a line starts with whitespace" // obs-fold hides a field from one of two readers
	case b[p.colon] != ':' && isSpace(b[p.colon]):
		return p, "whitespace before a colon" // "Transfer-Encoding :" is Transfer-Encoding to some
	case b[p.colon] != ':':
		return p, "a field line has no name and colon"
	case p.colon == i:
		return p, "the name of a field is empty"
	}
	p.start = p.colon + 1
	for p.start < len(b) && isSpace(b[p.start]) {
		p.start++
	}
	p.end = p.start
	for {
		p.end = control(b, p.end)
		if p.end < len(b) && b[p.end] == '\t' {
			p.end++
			continue
		}
		break
	}
	if p.end+1 >= len(b) || b[p.end] != '\r' || b[p.end+1] != '\n' {
		return p, "a control character in the value of a field" // a bare CR or LF is an end of line to some
	}
	p.next = p.end + len("\r\n")
	for p.end > p.start && isSpace(b[p.end-1]) {
		p.end--
	}
	return p, ""
}

// emptyLine reports whether the line that begins at b[i] is empty.
func emptyLine(b []byte, i int) bool { return i+1 < len(b) && b[i] == '\r' && b[i+1] == '\n' }

// Fields that Connection may not name: taking them away would change what the message means to everyone after us.
var endToEnd = [...]string{
	"authorization", "cache-control", "content-encoding", "content-length", "content-range", "content-type", "cookie", "date",
	"expect", "host", "location", "range", "set-cookie", "transfer-encoding", "www-authenticate",
}

func isEndToEnd(name string) bool {
	for _, e := range endToEnd {
		if same(name, e) {
			return true
		}
	}
	return false
}

// removeNamed answers f without the fields that Connection fields in it name, and without those, and what they list.
func removeNamed(f message.Fields) (kept message.Fields, names string) {
	for i := range f {
		switch {
		case kindOf(f[i].Name) != connection:
		case names == "":
			names = f[i].Value
		default:
			names += "," + f[i].Value
		}
	}
	return f.Remove(func(name string) bool { return kindOf(name) == connection || lists(names, name) }), names
}

// lists reports whether a name is among those of a list.
func lists(names, name string) bool {
	for more := names != ""; more; {
		var element string
		element, names, more = strings.Cut(names, ",")
		if message.Same(trim(element), name) {
			return true
		}
	}
	return false
}
