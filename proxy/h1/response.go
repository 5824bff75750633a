package h1

import (
	"bytes"

	"github.com/jurat-tls/jurat/proxy/message"
)

// ParseResponse reads the head of a response to a request of the given method, which b starts with, into r. It reuses the
// memory of r.Fields, and nothing in r points into b. Where it fails r has no fields and no status, and the error is
// ErrMore or an Error of status 502. Whether somebody asked for an upgrade that 101 speaks of is for the caller to know,
// as is whether any more may come after an answer that no request was waiting for.
func ParseResponse(b []byte, limits Limits, method string, r *message.Response) (Meta, error) {
	limits = limits.WithDefaults()
	*r = message.Response{Fields: r.Fields[:0], Length: message.NoBody}
	end, err := bound(b, limits, 502, 502)
	if err != nil {
		return Meta{}, err
	}
	m, err := parseResponse(b[:end], limits, method, r)
	if err != nil {
		*r = message.Response{Fields: r.Fields[:0], Length: message.NoBody}
		return Meta{}, err
	}
	return m, nil
}

func parseResponse(b []byte, limits Limits, method string, r *message.Response) (Meta, error) {
	s := string(b)
	line := bytes.IndexByte(b, '\n')
	if line < 1 || b[line-1] != '\r' {
		return Meta{}, wrong("the status line ends in a bare LF")
	}
	version, err := statusLine(s[:line-1], b[:line-1], r)
	if err != nil {
		return Meta{}, err
	}
	h := head{version: version, status: 502, length: message.NoBody}
	if r.Fields, err = h.fields(b, s, line+1, limits, r.Fields); err != nil {
		return Meta{}, err
	}
	m := Meta{Size: len(b), Persistent: h.persistent(), Named: h.names}
	switch {
	case method == "CONNECT" && r.Status/100 == 2:
		m.Persistent = false // a tunnel from here on, whatever the fields say
	case r.Status < 200 || r.Status == 204:
		// RFC 9112 section 6.1 forbids both fields here. Content-Length: 0 is often said, and harmless.
		if h.length > 0 || h.length == message.Unknown {
			return Meta{}, wrong("a body where there may be none")
		}
		if r.Status == 101 {
			if h.upgrades != 1 || !h.mayUpgrade || !isProtocol(h.upgrade) {
				return Meta{}, wrong("101 without one protocol")
			}
			r.Upgrade, m.Persistent = h.upgrade, false
		}
	case r.Bodiless(method):
		r.Length = h.length
	case h.length == message.NoBody:
		r.Length, m.Body, m.Persistent = message.Unknown, UntilClose, false
	case h.length == message.Unknown:
		r.Length, m.Body = message.Unknown, Chunked
	default:
		r.Length, m.Body = h.length, h.length
	}
	return m, nil
}

// statusLine reads the status line, which is s and b, into r.
func statusLine(s string, b []byte, r *message.Response) (message.Version, error) {
	const prefix = len("HTTP/1.1 ")
	version := message.HTTP11
	switch {
	case len(s) < prefix+3:
		return 0, wrong("no status line")
	case s[:prefix] == "HTTP/1.1 ":
	case s[:prefix] == "HTTP/1.0 ":
		version = message.HTTP10
	default:
		return 0, wrong("no status line of a version that is spoken")
	}
	for _, c := range b[prefix : prefix+3] {
		if c < '0' || c > '9' {
			return 0, wrong("the status is not a number")
		}
		r.Status = r.Status*10 + int(c-'0')
	}
	switch rest := s[prefix+3:]; {
	case r.Status < 100:
		return 0, wrong("the status is not a number")
	case rest == "": // many leave the space out
	case rest[0] != ' ':
		return 0, wrong("the status is not a number")
	case !clean(b[prefix+3:]):
		return 0, wrong("a control character in the reason")
	default:
		r.Reason = trim(rest)
	}
	return version, nil
}

func wrong(reason string) error { return Error{502, reason} }
