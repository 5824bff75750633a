package h2

import (
	"encoding/binary"

	"github.com/jurat-tls/jurat/proxy/message"
)

// headersFrame takes HEADERS (RFC 9113 section 6.2).
func (c *Conn) headersFrame(f frame, p []byte) {
	pad := 0
	if f.has(flagPadded) {
		if len(p) == 0 {
			c.fail(FrameSizeError, "padding without a length")
			return
		}
		pad, p = int(p[0]), p[1:]
	}
	self := false
	if f.has(flagPriority) {
		if len(p) < 5 {
			c.fail(FrameSizeError, "HEADERS without room for the priority")
			return
		}
		self = binary.BigEndian.Uint32(p)&maxID == f.id
		p = p[5:]
	}
	if pad > len(p) {
		c.fail(ProtocolError, "more padding than frame")
		return
	}
	p = p[:len(p)-pad]
	if len(p) > c.limits.HeaderBlock {
		c.fail(EnhanceYourCalm, "a header block that is too long")
		return
	}
	if f.has(flagEndHeaders) {
		c.headerBlock(f, self, p)
		return
	}
	c.blockFrame, c.blockSelf, c.continuations, c.continued = f, self, 0, true
	c.block = append(c.pool.buffer(), p...)
}

// continuationFrame takes CONTINUATION (RFC 9113 section 6.10). Its frames are bounded in number as well as in bytes
// (CVE-2024-27316).
func (c *Conn) continuationFrame(f frame, p []byte) {
	c.continuations++
	if c.continuations > c.limits.Continuations || len(c.block)+len(p) > c.limits.HeaderBlock {
		c.fail(EnhanceYourCalm, "a header block that is too long")
		return
	}
	c.block = append(c.block, p...)
	if f.has(flagEndHeaders) {
		block := c.block
		c.block, c.continued = nil, false
		c.headerBlock(c.blockFrame, c.blockSelf, block)
		c.pool.freeBuffer(block)
	}
}

// headerBlock takes a whole header block. Whatever becomes of it, it is decoded, or the table would not be the peer's any
// more.
func (c *Conn) headerBlock(f frame, self bool, block []byte) {
	end := f.has(flagEndStream)
	switch s := c.streams.get(f.id); {
	case s == nil && c.server != nil && f.id > c.lastID && f.id&1 == 1:
		c.request(f.id, end, self, block)
	case s == nil:
		c.strayHeaders(f.id, block)
	case s.remoteDone:
		if c.decode(ofTrailers, block) {
			c.violated(s, StreamClosed)
		}
	case self:
		if c.decode(ofTrailers, block) {
			c.violated(s, ProtocolError)
		}
	case !s.gotHead:
		c.response(s, end, block)
	default:
		c.trailers(s, end, block)
	}
}

func (c *Conn) request(id uint32, end, self bool, block []byte) {
	if !c.decode(ofRequest, block) {
		return
	}
	c.lastID = id
	h := &c.pool.head
	switch {
	case id > c.accepted:
		c.spend(1) // the client opened it before it had heard the GOAWAY, which tells it all
	case c.streams.count >= c.limits.Streams || c.pending() >= c.limits.Output+c.limits.Control:
		// The second is a client that asks and does not read the answers.
		if c.spend(1) {
			c.refuse(id, RefusedStream)
		}
	case h.large:
		c.tooLarge(id, end)
	case !h.finishRequest(end, c.limits.Connect) || self:
		if c.spendReset() {
			c.refuse(id, ProtocolError)
		}
	default:
		s := c.open(id)
		s.gotHead, s.remoteDone = true, end
		s.head, s.connect = h.request.Method == "HEAD", h.request.Method == "CONNECT"
		s.left = h.request.Length
		c.frames.giveBack(2)
		c.server.Request(s, &h.request, end)
	}
}

// refuse resets a stream that has not begun.
func (c *Conn) refuse(id uint32, code ErrCode) {
	c.remember(id, true)
	c.sendReset(id, code)
}

// tooLarge answers a request whose head is too large with 431 (RFC 6585 section 5).
func (c *Conn) tooLarge(id uint32, end bool) {
	if !c.spendReset() {
		return
	}
	at := c.beginBlock()
	c.out = appendLiteral(c.out, 0, 4, 8, ":status", "431")
	c.out = appendLiteral(c.out, 0, 4, 28, "content-length", "0")
	c.endBlock(at, id, true)
	c.provoked(len(c.out) - at)
	if !end {
		c.sendReset(id, NoError) // the rest of the request need not come (RFC 9113 section 8.1)
	}
	c.remember(id, !end)
}

// strayHeaders are HEADERS on a stream that is not open and cannot be opened.
func (c *Conn) strayHeaders(id uint32, block []byte) {
	known, reset := c.ended(id)
	switch {
	case c.neverOpened(id):
		c.fail(ProtocolError, "HEADERS of a stream that was never opened")
	case reset || c.client != nil && !known || id > c.accepted:
		// They were on their way when we reset the stream, or sent GOAWAY.
		if c.decode(ofTrailers, block) {
			c.spend(1)
		}
	case known:
		c.fail(StreamClosed, "HEADERS of a stream that has ended")
	default:
		c.fail(ProtocolError, "HEADERS of a stream with a number lower than that of an earlier one")
	}
}

func (c *Conn) response(s *Stream, end bool, block []byte) {
	if !c.decode(ofResponse, block) {
		return
	}
	h := &c.pool.head
	if h.large {
		c.violated(s, EnhanceYourCalm)
		return
	}
	if !h.finishResponse(end, s.head, s.connect) {
		c.violated(s, ProtocolError)
		return
	}
	id, r := s.id, &h.response
	if r.Informational() {
		if s.informational++; int(s.informational) > c.limits.Informational {
			c.violated(s, EnhanceYourCalm)
			return
		}
		c.client.Response(s, r, false)
		return
	}
	s.gotHead, s.remoteDone = true, end
	s.left = r.Length
	switch {
	case s.head || r.Status == 204 || r.Status == 304:
		s.left = 0
	case s.connect && r.Status/100 == 2:
		s.left = message.Unknown
	}
	c.frames.giveBack(2)
	c.client.Response(s, r, end)
	c.settle(id)
}

func (c *Conn) trailers(s *Stream, end bool, block []byte) {
	if !c.decode(ofTrailers, block) {
		return
	}
	h := &c.pool.head
	switch {
	case h.large:
		c.violated(s, EnhanceYourCalm)
	case h.bad || !end || s.left > 0:
		c.violated(s, ProtocolError)
	default:
		id := s.id
		s.remoteDone = true
		c.handler.Trailers(s, h.request.Fields)
		c.settle(id)
	}
}
