package h1

import (
	"strings"

	"github.com/jurat-tls/jurat/proxy/message"
)

// maxOptions bounds what the fields Connection of a head may list: each is compared with every field.
const maxOptions = 16

// head is what field lines say of the connection and of framing.
type head struct {
	version message.Version
	status  int // of errors: 400 or 502

	host, upgrade, expect string
	length                int64 // NoBody where there is no Content-Length
	hosts                 int
	upgrades, expects     int
	options               int  // elements of Connection
	codings               int  // Transfer-Encoding fields, all of them "chunked"
	close, keepAlive      bool // options of Connection
	mayUpgrade            bool // an option of Connection
	named                 bool // Connection names other fields
	names                 string
	trailers              bool // TE
}

// fields reads the field lines of b from b[i] on up to the empty line that ends it. s is b as a string; f gets the fields
// that are end to end.
func (h *head) fields(b []byte, s string, i int, limits Limits, f message.Fields) (message.Fields, error) {
	for lines := 0; !emptyLine(b, i); lines++ {
		if lines == limits.Fields {
			if h.status == 502 {
				return f, Error{502, "too many fields"}
			}
			return f, Error{431, "too many fields"}
		}
		p, fault := fieldLine(b, i)
		if fault != "" {
			return f, Error{h.status, fault}
		}
		name, value := s[i:p.colon], s[p.start:p.end]
		k := kindOf(name)
		if k != ordinary {
			var err error
			if k, err = h.take(k, value, s[p.colon+1:p.next]); err != nil {
				return f, err
			}
		}
		if k == ordinary {
			f = append(f, message.Field{Name: name, Value: value})
		}
		i = p.next
	}
	if h.named {
		f, h.names = removeNamed(f)
	}
	if h.codings > 0 {
		switch {
		case h.length != message.NoBody: // CL.TE and TE.CL: each of two servers believes the other field
			return f, Error{h.status, "both Transfer-Encoding and Content-Length"}
		case h.version == message.HTTP10: // an HTTP/1.0 server in front took what follows for another message
			return f, Error{h.status, "Transfer-Encoding in HTTP/1.0"}
		}
		h.length = message.Unknown
	}
	return f, nil
}

// take takes note of a field of a kind that is not ordinary. raw is the value with what is around it. The answer is
// ordinary if the field is to be kept.
func (h *head) take(k kind, value, raw string) (kind, error) {
	response := h.status == 502
	switch k {
	case contentLength:
		if h.length != message.NoBody { // even twice the same: "5, 5" and "5" twice have been read as 55 and as 0
			return k, Error{h.status, "more than one Content-Length"}
		}
		n, ok := decimal(value)
		if !ok || tabbed(raw) {
			return k, Error{h.status, "Content-Length is not a number"}
		}
		h.length = n
	case transferEncoding:
		return k, h.coding(value, raw)
	case connection:
		return h.connection(value)
	case trailer:
		if !announces(value) {
			return k, Error{h.status, "Trailer names what can't be one"}
		}
		return ordinary, nil
	case te:
		for rest, more := value, true; more; {
			var element string
			element, rest, more = strings.Cut(rest, ",")
			h.trailers = h.trailers || same(trim(element), "trailers")
		}
	case upgrade:
		h.upgrades++
		h.upgrade = value
	case host:
		if response {
			return ordinary, nil
		}
		if _, _, ok := splitHost(value); !ok || tabbed(raw) {
			return k, Error{h.status, "Host is not a host"}
		}
		h.hosts++
		h.host = value
	case expect:
		if response {
			return ordinary, nil
		}
		h.expects++
		h.expect = value
	}
	return k, nil
}

// coding is what Transfer-Encoding says. Only "chunked", once, is understood by everyone alike.
func (h *head) coding(value, raw string) error {
	h.codings++
	switch {
	case h.codings > 1:
		return Error{h.status, "more than one Transfer-Encoding"}
	case tabbed(raw): // servers that don't know this whitespace don't know the coding either
		return Error{h.status, "whitespace in Transfer-Encoding"}
	case same(value, "chunked"):
		return nil
	case isToken(value) && h.status == 400:
		return Error{501, "an unknown transfer coding"}
	default:
		return Error{h.status, "Transfer-Encoding is not just chunked"}
	}
}

// connection reads options of Connection. The answer is connection, or ordinary if it has to be looked at again when all
// fields are known.
func (h *head) connection(value string) (kind, error) {
	k := connection
	for rest, more := value, true; more; {
		var option string
		option, rest, more = strings.Cut(rest, ",")
		option = trim(option)
		if h.options++; h.options > maxOptions {
			return k, Error{h.status, "too many options of Connection"}
		}
		switch {
		case option == "":
		case same(option, "close"):
			h.close = true
		case same(option, "keep-alive"):
			h.keepAlive = true
		case same(option, "upgrade"):
			h.mayUpgrade = true
		case !isToken(option):
			return k, Error{h.status, "an option of Connection is not a token"}
		case isEndToEnd(option):
			return k, Error{h.status, "Connection names a field that is not the connection's"}
		case kindOf(option) == ordinary || kindOf(option) == trailer:
			h.named, k = true, ordinary
		}
	}
	return k, nil
}

// announces reports whether value is one of Trailer (RFC 9110 section 6.6.2) that names only what a trailer field can be.
func announces(value string) bool {
	for rest, more := value, true; more; {
		var name string
		name, rest, more = strings.Cut(rest, ",")
		if name = trim(name); name != "" && (!isToken(name) || kindOf(name) != ordinary) {
			return false
		}
	}
	return true
}

// persistent reports whether the connection outlives the message (RFC 9112 section 9.3).
func (h *head) persistent() bool { return !h.close && (h.version == message.HTTP11 || h.keepAlive) }

// tabbed reports whether there is more around a value than spaces. HTAB is allowed there, and has only been seen in
// front of what decides where a message ends in order to hide it from one of two servers.
func tabbed(raw string) bool { return strings.IndexByte(raw, '\t') >= 0 }

// maxLength is the longest body that Content-Length may tell, in bytes: of 18 digits, so that nothing overflows.
const maxLength = 1e18 - 1

// decimal reads a Content-Length: digits only, and no leading zero, which some take for octal.
func decimal(s string) (n int64, ok bool) {
	if s == "" || len(s) > 18 || s[0] == '0' && len(s) > 1 {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
		n = n*10 + int64(s[i]-'0')
	}
	return n, true
}
