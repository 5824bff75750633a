package h1

import (
	"bytes"
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
)

// ParseRequest reads the head of a request, which b starts with, into r. It reuses the memory of r.Fields, and nothing in r
// points into b. Where it fails r has no fields and no method, and the error is ErrMore, ErrPreface or another Error.
//
// Not even one empty line may come before a request: the RFC asks to overlook it (9112 section 2.2), but only clients
// that miscount a body send one. An upgrade of a request with a body is overlooked, as RFC 9110 section 7.8 allows:
// where the body ends and the other protocol begins would be one more thing to disagree about. Expect stays with a body
// only. Names with underscores are kept.
func ParseRequest(b []byte, limits Limits, r *message.Request) (Meta, error) {
	limits = limits.WithDefaults()
	*r = message.Request{Fields: r.Fields[:0], Length: message.NoBody}
	end, err := bound(b, limits, 414, 431)
	if err != nil {
		return Meta{}, err
	}
	m, err := parseRequest(b[:end], limits, r)
	if err != nil {
		*r = message.Request{Fields: r.Fields[:0], Length: message.NoBody}
		return Meta{}, err
	}
	return m, nil
}

func parseRequest(b []byte, limits Limits, r *message.Request) (Meta, error) {
	s := string(b)
	line := bytes.IndexByte(b, '\n')
	switch {
	case line < 1 || b[line-1] != '\r':
		return Meta{}, bad("the request line ends in a bare LF")
	case line == 1:
		return Meta{}, bad("an empty line before the request")
	}
	target, err := requestLine(s[:line-1], r)
	if err != nil {
		return Meta{}, err
	}
	h := head{version: r.Version, status: 400, length: message.NoBody}
	if r.Fields, err = h.fields(b, s, line+1, limits, r.Fields); err != nil {
		return Meta{}, err
	}
	if h.hosts > 1 || h.hosts == 0 && r.Version == message.HTTP11 {
		return Meta{}, bad("there is not one Host")
	}
	r.Authority = h.host
	if err = takeTarget(target, h.hosts > 0, r); err != nil {
		return Meta{}, err
	}
	if r.Method == "CONNECT" && h.length != message.NoBody { // its body would be read as the tunnel's first bytes
		return Meta{}, bad("CONNECT with a body")
	}
	r.Length, r.Trailers = h.length, h.trailers
	m := Meta{Size: len(b), Body: max(h.length, 0), Persistent: h.persistent(), Named: h.names}
	if h.length == message.Unknown {
		m.Body = Chunked
	}
	if h.expects > 1 || h.expects == 1 && !same(h.expect, "100-continue") {
		return Meta{}, Error{417, "an unknown expectation"}
	}
	if r.Version == message.HTTP10 { // RFC 9110 sections 7.8 and 10.1.1: what it asks for is overlooked
		return m, nil
	}
	r.Expect = h.expects == 1 && m.Body != 0
	// Without the option it is not from whoever is at the other end of this connection.
	if m.Body == 0 && h.mayUpgrade && h.upgrades == 1 && isProtocol(h.upgrade) {
		r.Upgrade = h.upgrade
	}
	return m, nil
}

// requestLine reads method and version into r, and answers the target.
func requestLine(line string, r *message.Request) (target string, err error) {
	n := span(line, inToken)
	if n == 0 || n == len(line) || line[n] != ' ' {
		return "", bad("the method is not a token")
	}
	r.Method, line = line[:n], line[n+1:]
	n = span(line, inTarget)
	if n == 0 || n == len(line) || line[n] != ' ' {
		return "", bad("the target is not a request's")
	}
	target, line = line[:n], line[n+1:]
	switch {
	case r.Method == "PRI": // passed on, it would turn a connection to a service into HTTP/2
		if target == "*" && line == "HTTP/2.0" {
			return "", ErrPreface
		}
		return "", bad("PRI is no method of HTTP/1")
	case line == "HTTP/1.1":
		r.Version = message.HTTP11
	case line == "HTTP/1.0":
		r.Version = message.HTTP10
	case isVersion(line):
		return "", Error{505, "a version that is not spoken"}
	default:
		return "", bad("the version is not one of HTTP")
	}
	return target, nil
}

// isVersion reports whether s is a version of HTTP, if not one that is spoken here.
func isVersion(s string) bool {
	return len(s) == 8 && strings.HasPrefix(s, "HTTP/") && unhex(s[5]) < 10 && s[6] == '.' && unhex(s[7]) < 10
}

// takeTarget reads the target of a request, in one of the four forms of RFC 9112 section 3.2, and compares its authority
// with that of Host, which is in r already where there is one.
func takeTarget(target string, hosted bool, r *message.Request) error {
	switch {
	case r.Method == "CONNECT":
		name, port, ok := splitHost(target)
		if !ok || port == "" {
			return bad("the target of CONNECT is not a host and port")
		}
		if hosted && !sameHost(r.Authority, target) && !sameHost(r.Authority, name) {
			return bad("target and Host differ")
		}
		r.Authority = target
		return nil
	case target == "*":
		if r.Method != "OPTIONS" {
			return bad("only OPTIONS may ask about *")
		}
		r.Path = target
		return nil
	case target[0] == '/':
		r.Path = target
	default:
		scheme, rest, _ := strings.Cut(target, "://")
		switch {
		case same(scheme, "http"):
			r.Scheme = "http"
		case same(scheme, "https"):
			r.Scheme = "https"
		default:
			return bad("the target is neither a path nor a URL of HTTP")
		}
		authority := rest
		if i := strings.IndexAny(rest, "/?"); i >= 0 {
			authority = rest[:i]
		}
		if _, _, ok := splitHost(authority); !ok {
			return bad("the URL has no valid host")
		}
		// The target wins over Host, says RFC 9112 section 3.2.2; a server that reads Host would see another site.
		if hosted && !sameHost(r.Authority, authority) {
			return bad("target and Host differ")
		}
		r.Authority, r.Path = authority, rest[len(authority):]
		switch {
		case r.Path == "" && r.Method == "OPTIONS":
			r.Path = "*" // RFC 9112 section 3.2.4
			return nil
		case r.Path == "":
			r.Path = "/"
		case r.Path[0] == '?':
			r.Path = "/" + r.Path
		}
	}
	if !escaped(r.Path) {
		return bad("half an escape in the path")
	}
	return nil
}

func bad(reason string) error { return Error{400, reason} }
