package h2

import (
	"slices"
	"strconv"

	"github.com/jurat-tls/jurat/proxy/message"
)

// beginBlock begins HEADERS in Output and answers where.
func (c *Conn) beginBlock() int {
	c.reserve()
	at := len(c.out)
	c.out = append(c.out, make([]byte, frameHeader)...)
	c.out = c.encoder.begin(c.out)
	return at
}

// endBlock puts the header of HEADERS before what was written since beginBlock, and CONTINUATION where it takes more frames.
func (c *Conn) endBlock(at int, id uint32, end bool) {
	flags := byte(0)
	if end {
		flags = flagEndStream
	}
	size := len(c.out) - at - frameHeader
	if size <= maxFrame {
		appendFrame(c.out[:at], size, typeHeaders, flags|flagEndHeaders, id)
		return
	}
	rest := slices.Clone(c.out[at+frameHeader+maxFrame:])
	appendFrame(c.out[:at], maxFrame, typeHeaders, flags, id)
	c.out = c.out[:at+frameHeader+maxFrame]
	for len(rest) > maxFrame {
		c.queue(typeContinuation, 0, id, rest[:maxFrame])
		rest = rest[maxFrame:]
	}
	c.queue(typeContinuation, flagEndHeaders, id, rest)
}

// dropBlock takes back what was written since beginBlock.
func (c *Conn) dropBlock(at int) error {
	c.out = c.out[:at]
	c.encoder.forget()
	if c.pending() == 0 {
		c.discard()
	}
	return ErrMalformed
}

// appendField writes a field of ours, or one that has been looked at.
func (c *Conn) appendField(static int, name, value string) {
	hash := c.pool.hash(name, value)
	out, ok := c.encoder.find(c.out, hash, name, value)
	if !ok {
		out = c.encoder.add(out, hash, static, name, value)
	}
	c.out = out
}

// appendFields writes the fields of a head and its Content-Length. It answers false for what must not be sent: one that came
// by HTTP/1 is looked at here for the first time.
func (c *Conn) appendFields(fields message.Fields, length int64) bool {
	for i := range fields {
		f := &fields[i]
		hash := c.pool.hash(f.Name, f.Value)
		if !f.Secret {
			if out, ok := c.encoder.find(c.out, hash, f.Name, f.Value); ok {
				c.out = out
				continue
			}
		}
		name := c.pool.lower(f.Name)
		if !validName(name) || !validValue(f.Value) || ofConnection(name) {
			return false
		}
		switch name {
		case "te", "host", "content-length": // the head has a place for them
			return false
		}
		if f.Secret || secret(name) {
			c.out = appendLiteral(c.out, 0x10, 4, static(name), name, f.Value)
			continue
		}
		if name != f.Name {
			c.appendField(static(name), name, f.Value)
			continue
		}
		c.out = c.encoder.add(c.out, hash, static(name), name, f.Value)
	}
	if length >= 0 {
		var b [20]byte
		c.appendNumber(28, strconv.AppendInt(b[:0], length, 10))
	}
	return true
}

// appendNumber writes a field that is not worth a place in the table.
func (c *Conn) appendNumber(static int, value []byte) {
	c.out = appendInt(c.out, 0, 4, static)
	c.out = append(appendInt(c.out, 0, 7, len(value)), value...)
}

func (c *Conn) appendStatus(status int) {
	known := [...]int{200, 204, 206, 304, 400, 404, 500} // from number 8 on in the static table
	for i, s := range known {
		if s == status {
			c.out = appendIndexed(c.out, 8+i)
			return
		}
	}
	var b [3]byte
	c.appendNumber(8, strconv.AppendInt(b[:0], int64(status), 10))
}

func (c *Conn) appendMethod(method string) {
	switch method {
	case "GET":
		c.out = appendIndexed(c.out, 2)
	case "POST":
		c.out = appendIndexed(c.out, 3)
	default:
		c.appendField(2, ":method", method)
	}
}

func (c *Conn) appendScheme(scheme string) {
	switch scheme {
	case "http":
		c.out = appendIndexed(c.out, 6)
	case "https":
		c.out = appendIndexed(c.out, 7)
	default:
		c.appendField(6, ":scheme", scheme)
	}
}

func (c *Conn) appendPath(path string) {
	if path == "/" {
		c.out = appendIndexed(c.out, 4)
		return
	}
	c.appendField(4, ":path", path)
}
