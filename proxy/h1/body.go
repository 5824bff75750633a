package h1

import (
	"math"

	"github.com/jurat-tls/jurat/proxy/message"
)

// state of a Body.
type state uint8

const (
	unstarted state = iota
	broken
	counted    // left bytes are to come
	untilClose // what comes until the connection is closed
	size       // digits of a chunk's size
	extension  // after a chunk's size and ";"
	sizeLF
	data // left bytes of a chunk are to come
	dataCR
	dataLF
	lastLine // after the last chunk: an empty line, or the first of a trailer
	lastLF
	section // of trailers, collected in held
	ended
)

// maxDigits of the size of a chunk. Zeros in front of it count.
const maxDigits = 16

// Body takes the framing off a message's body (RFC 9112 section 6.3, 7.1). The zero value refuses everything. A Body may be
// started again for the next message, and then reuses its memory.
type Body struct {
	state  state
	digits uint8
	left   int64
	spent  int // bytes of extensions
	limits Limits
	err    error
	held   []byte // what there is of a trailer section
	drops  string // names of trailers that are of the connection

	// Trailers are there once the body has ended, until the next Start. What may not be one is not among them: see Feed.
	Trailers message.Fields
}

// Start readies the body for a message whose head said framing: Meta.Body.
func (d *Body) Start(framing int64, limits Limits) {
	*d = Body{limits: limits.WithDefaults(), held: d.held[:0], Trailers: d.Trailers[:0]}
	switch {
	case framing == Chunked:
		d.state = size
	case framing == UntilClose:
		d.state = untilClose
	case framing == 0:
		d.state = ended
	case framing > 0:
		d.state, d.left = counted, framing
	}
}

// Drop has the body leave out the trailers that are named: Meta.Named of its head. They are of the connection, as RFC 9110
// section 7.6.1 says, and not for who comes next.
func (d *Body) Drop(named string) { d.drops = named }

// Feed reads what it can of in: payload is the next part of the body, which lies in in, and n is how many bytes of in are
// done with. It reads all of in unless there is more payload after a payload's end, or the body ends (done) before in
// does: so call it with what is left until nothing is, or it is done. An error, an Error of status 400 or 431, is for ever;
// what came with an earlier call was right then, but the message is not to be passed on as a complete one.
//
// Extensions of chunks are dropped. Trailer fields that frame a message or speak of its connection are refused; those that
// RFC 9110 section 6.5.1 lets only a head have are dropped, and so are those that Drop was told of.
func (d *Body) Feed(in []byte) (payload []byte, n int, done bool, err error) {
	for {
		switch d.state {
		case counted, data:
			if n == len(in) || payload != nil {
				return payload, n, false, nil
			}
			payload = in[n:]
			if int64(len(payload)) > d.left {
				payload = payload[:d.left]
			}
			n += len(payload)
			if d.left -= int64(len(payload)); d.left > 0 {
				return payload, n, false, nil
			}
			if d.state == counted {
				d.state = ended
			} else {
				d.state = dataCR
			}
		case untilClose:
			return in, len(in), false, nil
		case section:
			var used int
			if used, err = d.collect(in[n:]); err != nil {
				return nil, n, false, d.fail(err)
			}
			n += used
			if d.state != ended {
				return payload, n, false, nil
			}
		case ended:
			return payload, n, true, nil
		case unstarted:
			return nil, 0, false, d.fail(bad("a body that no head announced"))
		case broken:
			return nil, 0, false, d.err
		default:
			if n == len(in) {
				return payload, n, false, nil
			}
			if d.state == lastLine && in[n] != '\r' {
				d.state = section
				continue
			}
			if reason := d.step(in[n]); reason != "" {
				return nil, n, false, d.fail(bad(reason))
			}
			n++
		}
	}
}

// End says that the connection was closed by its other end. The answer is nil where that is how the body, or nothing more
// of it, was to end.
func (d *Body) End() error {
	switch d.state {
	case untilClose, ended:
		d.state = ended
		return nil
	case broken:
		return d.err
	default:
		return d.fail(bad("the body was cut short"))
	}
}

func (d *Body) fail(err error) error {
	d.state, d.err = broken, err
	d.Trailers = d.Trailers[:0]
	return err
}

// step reads one byte of the framing around chunks. The answer is what is wrong with it, or "".
func (d *Body) step(c byte) string {
	switch d.state {
	case size:
		return d.sizeByte(c)
	case extension:
		d.spent++
		switch {
		case c == '\r':
			d.state = sizeLF
		case classes[c]&inExtension == 0: // an LF would end the line for some
			return "a control character in a chunk extension"
		case d.spent > d.limits.Extensions:
			return "too much in chunk extensions"
		}
	case sizeLF:
		switch {
		case c != '\n':
			return "a bare CR after the size of a chunk"
		case d.left == 0:
			d.state = lastLine
		default:
			d.state = data
		}
	case dataCR:
		if c != '\r' { // whoever believes in another size sees this byte as another thing
			return "a chunk is longer than its size"
		}
		d.state = dataLF
	case dataLF:
		if c != '\n' {
			return "a bare CR after a chunk"
		}
		d.state, d.digits = size, 0
	case lastLine:
		d.state = lastLF
	case lastLF:
		if c != '\n' {
			return "a bare CR after the last chunk"
		}
		d.state = ended
	}
	return ""
}

func (d *Body) sizeByte(c byte) string {
	if digit := unhex(c); digit < 16 {
		// A size that overflows is a small one to a reader that doesn't look.
		if d.digits == maxDigits || d.left > math.MaxInt64>>4 {
			return "the size of a chunk is too large"
		}
		d.digits++
		d.left = d.left<<4 | int64(digit)
		return ""
	}
	switch {
	case d.digits == 0:
		return "a chunk has no size"
	case c == '\r':
		d.state = sizeLF
	case c == ';':
		d.state = extension
	default: // "0x10", "10 ", "+10": numbers to some
		return "the size of a chunk is not a number"
	}
	return ""
}

// collect reads a trailer section up to its end, or keeps what there is of it.
func (d *Body) collect(in []byte) (n int, err error) {
	before := len(d.held)
	d.held = append(d.held, in[:min(len(in), d.limits.Trailer+1-before)]...)
	end := headEnd(d.held[:min(len(d.held), d.limits.Trailer)], before)
	switch {
	case end > 0:
		return end - before, d.trailers(d.held[:end])
	case len(d.held) > d.limits.Trailer:
		return 0, Error{431, "the trailer section is too long"}
	default:
		return len(in), nil
	}
}

// trailers reads a complete trailer section.
func (d *Body) trailers(b []byte) error {
	s := string(b)
	for i, lines := 0, 0; !emptyLine(b, i); lines++ {
		if lines == d.limits.Fields {
			return Error{431, "too many trailer fields"}
		}
		p, fault := fieldLine(b, i)
		if fault != "" {
			return bad(fault)
		}
		name := s[i:p.colon]
		if kindOf(name) != ordinary { // a server that merges trailers into the head would frame by them
			return bad("a trailer field that frames a message or is of its connection")
		}
		if !onlyInHead(name) && !lists(d.drops, name) {
			d.Trailers = append(d.Trailers, message.Field{Name: name, Value: s[p.start:p.end]})
		}
		i = p.next
	}
	d.state = ended
	return nil
}

// Fields that change how the message is routed, who sent it, or how it is read (RFC 9110 section 6.5.1): read after the
// body they would undo what was decided before it.
var headOnly = [...]string{
	"age", "authentication-info", "authorization", "cache-control", "content-encoding", "content-range", "content-type",
	"cookie", "date", "expires", "forwarded", "if-match", "if-modified-since", "if-none-match", "if-range",
	"if-unmodified-since", "location", "max-forwards", "pragma", "proxy-authenticate", "proxy-authentication-info",
	"proxy-authorization", "range", "retry-after", "set-cookie", "vary", "www-authenticate",
}

func onlyInHead(name string) bool {
	for _, only := range headOnly {
		if same(name, only) {
			return true
		}
	}
	return false
}
