package h1

import (
	"slices"
	"strconv"

	"github.com/jurat-tls/jurat/proxy/message"
)

// AppendRequest appends the head of a request in HTTP/1.1: Host first, then its fields, then framing as Length says and what
// is of the connection, which close ends after this request. The answer tells also how the body has to be framed. A head
// that has come in HTTP/2 may hold anything: where it can't be said in HTTP/1.1 the answer is dst and an Error of status
// 400. An extended CONNECT has to be made a GET first.
func AppendRequest(dst []byte, r *message.Request, close bool) ([]byte, Meta, error) {
	w := writer{dst: dst, status: 400}
	target := r.Path
	switch {
	case !isToken(r.Method) || r.Method == "PRI":
		w.refuse("the method is not a token")
	case r.Method == "CONNECT":
		target = r.Authority
		if _, port, _ := splitHost(target); port == "" || r.Path != "" || r.Upgrade != "" || r.Length != message.NoBody {
			w.refuse("CONNECT that is not just to a host and port")
		}
	case target == "*" && r.Method == "OPTIONS":
	case !isPath(target):
		w.refuse("the path is not one")
	}
	if _, _, ok := splitHost(r.Authority); !ok {
		w.refuse("the authority is not a host")
	}
	w.dst = append(w.dst, r.Method...)
	w.dst = append(w.dst, ' ')
	w.dst = append(w.dst, target...)
	w.dst = append(w.dst, " HTTP/1.1\r\nHost: "...)
	w.dst = append(w.dst, r.Authority...)
	w.dst = append(w.dst, "\r\n"...)
	w.fields(r.Fields)
	m := Meta{Body: w.framing(r.Length), Persistent: !close}
	if r.Expect && m.Body != 0 {
		w.dst = append(w.dst, "Expect: 100-continue\r\n"...)
	}
	if r.Trailers {
		w.dst = append(w.dst, "TE: trailers\r\n"...)
	}
	switch {
	case r.Upgrade != "":
		if close || m.Body != 0 || !isProtocol(r.Upgrade) {
			w.refuse("an upgrade to no protocol, or after a body")
		}
		w.upgrade(r.Upgrade, r.Trailers)
	case close && r.Trailers:
		w.dst = append(w.dst, "Connection: close, TE\r\n"...)
	case close:
		w.dst = append(w.dst, "Connection: close\r\n"...)
	case r.Trailers:
		w.dst = append(w.dst, "Connection: TE\r\n"...)
	}
	return w.result(dst, m)
}

// Reply is what a response is a reply to. The zero value is one to an HTTP/1.0 client whose connection is kept only where
// Keep says so, of which no body is chunked.
type Reply struct {
	Method  string // of the request
	Version message.Version
	Keep    bool // the connection stays open if it can: Meta.Persistent of the request
}

// AppendResponse appends the head of a response in HTTP/1.1: its fields, then framing as Length and the request say, and
// what is of the connection. The answer tells also how the body has to be framed and whether the connection stays. A head
// that has come in HTTP/2 may hold anything: where it can't be said in HTTP/1.1 the answer is dst and an Error of status
// 502. An informational response to HTTP/1.0 is refused too: the client would take it for the last one.
func AppendResponse(dst []byte, r *message.Response, to Reply) ([]byte, Meta, error) {
	w := writer{dst: dst, status: 502}
	switch {
	case r.Status < 100 || r.Status > 999:
		w.refuse("the status is not a number of three digits")
	case r.Status < 200 && to.Version != message.HTTP11:
		w.refuse("an informational response to HTTP/1.0")
	case (r.Status == 101) != (r.Upgrade != ""):
		w.refuse("101 without a protocol, or a protocol without 101")
	case r.Length < message.Unknown || r.Length > maxLength:
		w.refuse("a length that is none")
	}
	w.dst = append(w.dst, "HTTP/1.1 "...)
	w.dst = strconv.AppendInt(w.dst, int64(r.Status), 10)
	w.dst = append(w.dst, ' ')
	begin := len(w.dst)
	w.dst = append(w.dst, r.Reason...)
	w.check(w.dst[begin:])
	w.dst = append(w.dst, "\r\n"...)
	w.fields(r.Fields)
	m := Meta{Persistent: to.Keep}
	tunnel := to.Method == "CONNECT" && r.Status/100 == 2
	switch {
	case r.Status < 200 || r.Status == 204 || tunnel:
		// RFC 9110 section 8.6 and RFC 9112 section 6.1: neither field. Their body has nowhere to go.
		if r.Status == 101 || tunnel {
			m.Persistent = false
		}
		if r.Length > 0 && !tunnel {
			w.refuse("a body where there may be none")
		}
	case r.Bodiless(to.Method):
		if r.Length >= 0 {
			w.framing(r.Length)
		}
	case r.Length == message.Unknown && to.Version != message.HTTP11:
		m.Body, m.Persistent = UntilClose, false
	default:
		length := r.Length
		if length == message.NoBody {
			length = 0 // it has to be said, or the client waits for a body until the connection is closed
		}
		m.Body = w.framing(length)
	}
	switch {
	case r.Status == 101:
		if !isProtocol(r.Upgrade) {
			w.refuse("an upgrade to no protocol")
		}
		w.upgrade(r.Upgrade, false)
	case r.Status < 200 || tunnel:
	case !m.Persistent:
		w.dst = append(w.dst, "Connection: close\r\n"...)
	case to.Version != message.HTTP11:
		w.dst = append(w.dst, "Connection: keep-alive\r\n"...)
	}
	return w.result(dst, m)
}

// AppendChunk appends data as a chunk. No data is no chunk: an empty one would be the last.
func AppendChunk(dst, data []byte) []byte {
	if len(data) == 0 {
		return dst
	}
	dst = AppendChunkSize(dst, len(data))
	dst = append(dst, data...)
	return append(dst, ChunkEnd...)
}

// ChunkEnd comes after the data of a chunk that AppendChunkSize began.
const ChunkEnd = "\r\n"

// AppendChunkSize appends what comes before the data of a chunk of n bytes, for data that is written from where it lies.
// n has to be positive.
func AppendChunkSize(dst []byte, n int) []byte {
	if n <= 0 {
		panic("h1: a chunk without data would end the body")
	}
	dst = strconv.AppendInt(dst, int64(n), 16)
	return append(dst, "\r\n"...)
}

// AppendLastChunk appends the end of a chunked body, with trailers. Where one of them can't be a trailer in HTTP/1.1, or is
// one that Feed refuses, the answer is dst and an Error of status 502; those that Feed drops are not written.
func AppendLastChunk(dst []byte, trailers message.Fields) ([]byte, error) {
	w := writer{dst: append(dst, "0\r\n"...), status: 502}
	for i := range trailers {
		if kindOf(trailers[i].Name) != ordinary {
			w.refuse("a trailer field that frames a message or is of its connection")
		}
		if !onlyInHead(trailers[i].Name) {
			w.field(&trailers[i])
		}
	}
	out, _, err := w.result(dst, Meta{})
	return out, err
}

// writer appends to dst until something can't be written.
type writer struct {
	dst    []byte
	status int
	reason string // the first thing that can't
}

func (w *writer) refuse(reason string) {
	if w.reason == "" {
		w.reason = reason
	}
}

// result ends a head.
func (w *writer) result(dst []byte, m Meta) ([]byte, Meta, error) {
	if w.reason != "" {
		return dst, Meta{}, Error{w.status, w.reason}
	}
	w.dst = append(w.dst, "\r\n"...)
	m.Size = len(w.dst) - len(dst)
	return w.dst, m, nil
}

func (w *writer) fields(f message.Fields) {
	for i := range f {
		switch kindOf(f[i].Name) {
		case ordinary:
		case trailer:
			if !announces(f[i].Value) {
				w.refuse("Trailer names what can't be one")
			}
		case host, expect:
			if w.status == 502 {
				break // of no meaning in a response
			}
			fallthrough
		default: // it would frame the message for a second time, or speak for another connection
			w.refuse("a field that is not end to end")
		}
		w.field(&f[i])
	}
}

func (w *writer) field(f *message.Field) {
	if !isToken(f.Name) {
		w.refuse("the name of a field is not a token")
		return
	}
	n := len(w.dst)
	dst := slices.Grow(w.dst, len(f.Name)+len(": ")+len(f.Value)+len("\r\n"))
	dst = dst[:n+len(f.Name)+len(": ")+len(f.Value)+len("\r\n")]
	n += copy(dst[n:], f.Name)
	dst[n], dst[n+1] = ':', ' '
	n += 2
	end := n + copy(dst[n:], f.Value)
	dst[end], dst[end+1] = '\r', '\n'
	w.dst = dst
	w.check(dst[n:end])
}

// check refuses a value that would end the line or be read differently from what it is.
func (w *writer) check(value []byte) {
	if !clean(value) {
		w.refuse("a control character in a value")
	}
	if n := len(value); n > 0 && (isSpace(value[0]) || isSpace(value[n-1])) {
		w.refuse("whitespace around a value")
	}
}

// framing appends the field that says how long the body is, if it needs one, and answers how to frame it.
func (w *writer) framing(length int64) int64 {
	switch {
	case length == message.NoBody:
		return 0
	case length == message.Unknown:
		w.dst = append(w.dst, "Transfer-Encoding: chunked\r\n"...)
		return Chunked
	case length < 0 || length > maxLength:
		w.refuse("a length that is none")
		return 0
	default:
		w.dst = append(w.dst, "Content-Length: "...)
		w.dst = strconv.AppendInt(w.dst, length, 10)
		w.dst = append(w.dst, "\r\n"...)
		return length
	}
}

func (w *writer) upgrade(protocol string, trailers bool) {
	w.dst = append(w.dst, "Connection: upgrade"...)
	if trailers {
		w.dst = append(w.dst, ", TE"...)
	}
	w.dst = append(w.dst, "\r\nUpgrade: "...)
	w.dst = append(w.dst, protocol...)
	w.dst = append(w.dst, "\r\n"...)
}
