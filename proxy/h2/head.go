package h2

import (
	"github.com/jurat-tls/jurat/proxy/message"
	"golang.org/x/net/http2/hpack"
)

// head is a header list on its way from HPACK to an event. Its memory is used again for the next one.
type head struct {
	kind     kind
	size     int
	count    int
	seen     uint8 // which pseudo-headers
	regular  bool  // a field that is none has come
	bad      bool  // malformed (RFC 9113 section 8.1.1)
	large    bool  // more than the limits allow
	hostSeen bool
	status   int
	host     string
	length   int64
	request  message.Request
	response message.Response
}

type kind uint8

const (
	ofRequest kind = iota
	ofResponse
	ofTrailers
)

// Pseudo-headers (RFC 9113 section 8.3).
const (
	pseudoMethod = 1 << iota
	pseudoScheme
	pseudoAuthority
	pseudoPath
	pseudoProtocol
	pseudoStatus
)

// begin makes the head empty. Strings of an earlier, larger head are not held on to.
func (h *head) begin(k kind) {
	fields := h.request.Fields
	if cap(fields) > 64 {
		fields = nil
	}
	*h = head{kind: k, length: message.NoBody}
	h.request.Fields = fields[:0]
}

// decode reads a header block into the pool's head. It answers false after a fault of the connection.
func (c *Conn) decode(k kind, block []byte) bool {
	c.pool.head.begin(k)
	c.decoder.SetEmitEnabled(true)
	if _, err := c.decoder.Write(block); err != nil || c.decoder.Close() != nil {
		return c.fail(CompressionError, "a header block that does not decode")
	}
	return true
}

// field takes one decoded field. Past a limit the rest is decoded for the sake of the table only, and nothing is made of it.
func (c *Conn) field(f hpack.HeaderField) {
	h := &c.pool.head
	h.size += int(f.Size())
	h.count++
	if h.size > c.limits.HeaderBytes || h.count > c.limits.HeaderFields {
		h.large = true
		c.decoder.SetEmitEnabled(false)
		return
	}
	known := c.pool.known(f.Name, f.Value)
	switch {
	case h.bad:
	case known.name == f.Name && known.value == f.Value && f.Name != "":
		h.regular = true
		h.keep(f)
	case f.Name != "" && f.Name[0] == ':':
		h.bad = h.regular || !h.pseudo(f.Name, f.Value)
	default:
		h.regular = true
		before := len(h.request.Fields)
		h.bad = !validName(f.Name) || !validValue(f.Value) || !h.take(f)
		// What is secret is not kept beyond its connection, and what means something in a request only is not plain.
		if len(h.request.Fields) > before && f.Name != "expect" && len(f.Value) <= longestInPool && !f.Sensitive && !secret(f.Name) {
			known.name, known.value = f.Name, f.Value
		}
	}
}

func (h *head) keep(f hpack.HeaderField) {
	h.request.Fields = append(h.request.Fields, message.Field{Name: f.Name, Value: f.Value, Secret: f.Sensitive})
}

func (h *head) pseudo(name, value string) bool {
	bit, ok := uint8(0), false
	r := &h.request
	switch name {
	case ":method":
		bit, r.Method, ok = pseudoMethod, value, h.kind == ofRequest && validToken(value)
	case ":scheme":
		bit, r.Scheme, ok = pseudoScheme, value, h.kind == ofRequest && (value == "http" || value == "https")
	case ":authority":
		bit, r.Authority, ok = pseudoAuthority, value, h.kind == ofRequest && validHost(value)
	case ":path":
		bit, r.Path, ok = pseudoPath, value, h.kind == ofRequest && value != ""
	case ":protocol":
		bit, r.Upgrade, ok = pseudoProtocol, value, h.kind == ofRequest && validToken(value)
	case ":status":
		n, number := length(value)
		bit, h.status, ok = pseudoStatus, int(n), h.kind == ofResponse && number && len(value) == 3 && n >= 100 && n != 101
	}
	ok = ok && h.seen&bit == 0
	h.seen |= bit
	return ok
}

// take keeps a field, or what it means.
func (h *head) take(f hpack.HeaderField) bool {
	switch f.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return false
	case "te":
		h.request.Trailers = true
		return h.kind == ofRequest && message.Same(f.Value, "trailers")
	case "content-length":
		// More than one would let two recipients see two ends.
		n, ok := length(f.Value)
		ok = ok && h.length == message.NoBody && h.kind != ofTrailers
		h.length = n
		return ok
	case "host":
		if h.kind == ofRequest {
			ok := !h.hostSeen && validHost(f.Value)
			h.host, h.hostSeen = f.Value, true
			return ok
		}
		return h.kind == ofResponse // where it means nothing, and is left out
	case "expect":
		if h.kind == ofRequest && message.Same(f.Value, "100-continue") {
			h.request.Expect = true
			return true
		}
	}
	h.keep(f)
	return true
}

// finishRequest reports whether the head is one of a request (RFC 9113 section 8.3.1, RFC 8441 section 4). extended is the protocol
// that extended CONNECT is offered for.
func (h *head) finishRequest(end bool, extended string) bool {
	r := &h.request
	r.Version = message.HTTP2
	if h.bad {
		return false
	}
	const all = pseudoMethod | pseudoScheme | pseudoPath
	switch {
	case h.seen&pseudoProtocol != 0:
		if r.Method != "CONNECT" || r.Upgrade != extended || h.seen != all|pseudoAuthority|pseudoProtocol || !validPath(r.Path, r.Method) ||
			h.length != message.NoBody {
			return false
		}
	case r.Method == "CONNECT":
		if h.seen != pseudoMethod|pseudoAuthority || h.length != message.NoBody {
			return false
		}
	default:
		if h.seen|pseudoAuthority != all|pseudoAuthority || !validPath(r.Path, r.Method) {
			return false
		}
	}
	// Two names for the host would let two recipients see two hosts.
	if h.hostSeen {
		if h.seen&pseudoAuthority != 0 && !message.Same(h.host, r.Authority) {
			return false
		}
		r.Authority = h.host
	}
	r.Length = bodyLength(h.length, end)
	return r.Authority != "" && (!end || r.Length <= 0)
}

// finishResponse reports whether the head is one of a response to a request of the method.
func (h *head) finishResponse(end, headMethod, connect bool) bool {
	r := &h.response
	r.Status, r.Fields, r.Length = h.status, h.request.Fields, bodyLength(h.length, end)
	if h.bad || h.seen != pseudoStatus {
		return false
	}
	bodiless := headMethod || r.Status == 304
	switch {
	case r.Informational():
		return !end && h.length == message.NoBody
	case r.Status == 204 || connect && r.Status/100 == 2:
		return h.length == message.NoBody || h.length == 0 && r.Status == 204
	default:
		return !end || bodiless || r.Length <= 0
	}
}

func bodyLength(announced int64, end bool) int64 {
	if announced == message.NoBody && !end {
		return message.Unknown
	}
	return announced
}
