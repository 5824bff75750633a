package clienthello

import (
	"errors"
	"io"
	"strings"
)

const (
	// MaxHandshake is what a ClientHello may have at most, in bytes without its frame. One with post-quantum key shares has
	// about 2 KiB; tickets of TLS 1.3 can add some more.
	MaxHandshake = 16 << 10
	// MaxSize is what it may take on the wire, where it may be split over records.
	MaxSize = 20 << 10
	// maxProtocols bounds what is kept of ALPN.
	maxProtocols = 256
)

// ErrMore says that what there is of a ClientHello is right and not complete.
var ErrMore = errors.New("TLS: the ClientHello is not complete")

// Error is what is refused, and why. It never quotes a byte.
type Error string

func (e Error) Error() string { return "TLS: " + string(e) }

const (
	errMalformed = Error("a malformed ClientHello")
	errLong      = Error("a ClientHello that is longer than allowed")
	errName      = Error("a server name that is not a host name")
)

// Hello is what a client asks for.
type Hello struct {
	ServerName string   // a host name (HostName) in lower case; "" where the client names none
	Protocols  []string // of ALPN, in the client's order
}

// Parse reads the ClientHello that p, the first bytes of a connection, begins with. It answers ErrMore where p is the
// beginning of one, which is shorter than MaxSize then, and an Error as soon as p can't become one. What follows it in p is
// not looked at.
func Parse(p []byte) (Hello, error) {
	return new(scan).parse(p)
}

func (s *scan) parse(p []byte) (Hello, error) {
	if err := s.more(p); err != nil {
		return Hello{}, err
	}
	return parse(s.body(p))
}

// Scanner is Parse for a hello that comes in parts, of which it remembers what it has seen: one that comes byte by byte costs no more
// than one that comes at once.
type Scanner struct{ scan scan }

// Parse is Parse, for p that begins with what it began with before.
func (s *Scanner) Parse(p []byte) (Hello, error) { return s.scan.parse(p) }

// Begins reports whether p, the first bytes of a connection, can be the beginning of a handshake of TLS. What can't is something else;
// what can, and is no ClientHello for Parse, could be one for somebody who is less strict.
func Begins(p []byte) bool { return (len(p) < 1 || p[0] == handshake) && (len(p) < 2 || p[1] == major) }

// Read reads from r until it has a ClientHello. It answers all bytes that it has read, of which some may follow the hello,
// also beside an error: io.EOF where r ends before its first byte, io.ErrUnexpectedEOF where it ends inside the hello, an
// Error, or the error of r. It holds at most MaxSize bytes; r bounds the time that it takes.
func Read(r io.Reader) (Hello, []byte, error) {
	var s scan
	p := make([]byte, 0, 2<<10)
	for idle := 0; idle < 100; idle++ {
		if len(p) == cap(p) {
			p = append(make([]byte, 0, min(2*cap(p), MaxSize)), p...)
		}
		n, readErr := r.Read(p[len(p):cap(p)])
		p = p[:len(p)+n]
		if hello, err := s.parse(p); !errors.Is(err, ErrMore) {
			return hello, p, err
		}
		switch {
		case readErr == nil:
		case errors.Is(readErr, io.EOF) && len(p) > 0:
			return Hello{}, p, io.ErrUnexpectedEOF
		default:
			return Hello{}, p, readErr
		}
		if n > 0 {
			idle = 0
		}
	}
	return Hello{}, p, io.ErrNoProgress
}

const (
	handshake     = 22 // the type of its records
	major         = 3  // of all versions of TLS
	recordHeader  = 5
	maxRecord     = 1 << 14
	messageHeader = 4
)

// scan finds the end of a handshake message that is split over records. It remembers the records that it has seen, so that a
// hello that comes byte by byte costs no more than one that comes at once.
type scan struct {
	at    int                 // where the next record begins
	have  int                 // bytes of the message in those before
	frame [messageHeader]byte // of the message, as far as it was there
	whole bool                // the message ends at at
}

// more looks at the records of p, which begins with what it began with before, until it has the whole message.
func (s *scan) more(p []byte) error {
	for !s.whole {
		rest := p[s.at:]
		switch {
		case s.at+recordHeader >= MaxSize:
			return errLong
		case len(rest) > 0 && rest[0] != handshake:
			return Error("no handshake at the beginning")
		case len(rest) > 1 && rest[1] != major:
			return Error("a version that does not exist")
		case len(rest) < recordHeader:
			return ErrMore
		}
		length := int(rest[3])<<8 | int(rest[4])
		rest = rest[recordHeader:min(len(rest), recordHeader+length)]
		switch {
		case length == 0 || length > maxRecord:
			return Error("a record of a length that is not allowed")
		case s.at+recordHeader+length > MaxSize:
			return errLong
		}
		if s.have < messageHeader {
			copy(s.frame[s.have:], rest)
		}
		have, end, ends := s.have+len(rest), s.have+length, false
		if have > 0 && s.frame[0] != 1 {
			return Error("a handshake that does not begin with a ClientHello")
		}
		if have >= messageHeader {
			size := int(s.frame[1])<<16 | int(s.frame[2])<<8 | int(s.frame[3])
			switch {
			case size > MaxHandshake:
				return errLong
			case end > messageHeader+size:
				return Error("something behind the ClientHello in its record")
			}
			ends = end == messageHeader+size
		}
		if have < end {
			return ErrMore
		}
		s.at, s.have, s.whole = s.at+recordHeader+length, end, ends
	}
	return nil
}

// body answers that of the message, once it is whole.
func (s *scan) body(p []byte) []byte {
	if s.at == recordHeader+s.have {
		return p[recordHeader+messageHeader : s.at]
	}
	message := make([]byte, 0, s.have)
	for from := 0; from < s.at; {
		to := from + recordHeader + int(p[from+3])<<8 + int(p[from+4])
		message = append(message, p[from+recordHeader:to]...)
		from = to
	}
	return message[messageHeader:]
}

// extensions that are read.
const (
	extServerName = 0
	extALPN       = 16
)

func parse(message []byte) (Hello, error) {
	r := reader{rest: message, ok: true}
	r.take(2 + 32) // version and random
	if session := r.vector(1); len(session) > 32 {
		return Hello{}, errMalformed
	}
	if suites := r.vector(2); len(suites) == 0 || len(suites)%2 != 0 {
		return Hello{}, errMalformed
	}
	if compression := r.vector(1); len(compression) == 0 {
		return Hello{}, errMalformed
	}
	var hello Hello
	if len(r.rest) == 0 { // as before TLS 1.2
		return hello, nil
	}
	all := r.inner(2)
	if !r.end() {
		return Hello{}, errMalformed
	}
	var seen [1 << 16 / 64]uint64
	for len(all.rest) > 0 {
		kind, value := all.number(2), all.inner(2)
		if !all.ok {
			return Hello{}, errMalformed
		}
		if seen[kind/64]&(1<<(kind%64)) != 0 {
			return Hello{}, Error("an extension that occurs twice")
		}
		seen[kind/64] |= 1 << (kind % 64)
		var err error
		switch kind {
		case extServerName:
			hello.ServerName, err = serverName(value)
		case extALPN:
			hello.Protocols, err = protocols(value)
		}
		if err != nil {
			return Hello{}, err
		}
	}
	return hello, nil
}

// serverName reads a list of one name. Whoever sends two, or one of another kind, means a server that nobody has.
func serverName(r reader) (string, error) {
	list := r.inner(2)
	kind, name := list.number(1), list.vector(2)
	if !r.end() || !list.end() || kind != 0 {
		return "", errMalformed
	}
	host, ok := HostName(string(name))
	if !ok {
		return "", errName
	}
	return host, nil
}

func protocols(r reader) ([]string, error) {
	list := r.inner(2)
	var all []string
	for len(list.rest) > 0 {
		name := list.vector(1)
		switch {
		case len(name) == 0:
			return nil, errMalformed
		case len(all) == maxProtocols:
			return nil, Error("more protocols than allowed")
		}
		all = append(all, string(name))
	}
	if !r.end() || len(all) == 0 {
		return nil, errMalformed
	}
	return all, nil
}

// HostName answers s in lower case, and whether it is a host name as a client may send it: labels of letters, digits,
// hyphens and underscores, at most 253 characters, no dot at the end, and no IP address (RFC 6066 section 3).
func HostName(s string) (string, bool) {
	if len(s) > 253 {
		return "", false
	}
	label := ""
	for label = range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return "", false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return "", false
			}
		}
	}
	if strings.Trim(label, "0123456789") == "" { // no top-level domain is a number
		return "", false
	}
	return strings.ToLower(s), true
}

// reader takes values off the front of what is left. After one that was not there it is not ok, and all that follow are
// empty.
type reader struct {
	rest []byte
	ok   bool
}

func (r *reader) take(n int) []byte {
	if n > len(r.rest) {
		r.rest, r.ok = nil, false
		return nil
	}
	v := r.rest[:n]
	r.rest = r.rest[n:]
	return v
}

// number reads one of n bytes.
func (r *reader) number(n int) int {
	v := 0
	for _, b := range r.take(n) {
		v = v<<8 | int(b)
	}
	return v
}

// vector reads one whose length has n bytes.
func (r *reader) vector(n int) []byte { return r.take(r.number(n)) }

// inner reads a vector, to take values off it.
func (r *reader) inner(n int) reader {
	v := r.vector(n)
	return reader{v, r.ok}
}

// end reports whether all was there, and nothing is left.
func (r *reader) end() bool { return r.ok && len(r.rest) == 0 }
