package h2

import "github.com/jurat-tls/jurat/proxy/message"

// data begins a frame of which n bytes are a body's (RFC 9113 section 6.1).
func (c *Conn) data(f frame, n int) {
	// All of the frame counts, whatever becomes of the stream (section 6.9.1).
	if c.recvWindow -= int64(f.length); c.recvWindow < 0 {
		c.fail(FlowControlError, "more DATA than the connection's window")
		return
	}
	c.giveBack(f.length - n)
	s := c.streams.get(f.id)
	if s == nil {
		c.drop(n)
		c.strayData(f.id)
		return
	}
	end := f.has(flagEndStream)
	s.recvWindow -= int64(f.length)
	s.owed += int64(f.length - n)
	switch {
	case s.remoteDone:
		c.drop(n)
		c.violated(s, StreamClosed)
		return
	case s.recvWindow < 0 && f.length > 0: // it may be less than nothing by our SETTINGS
		c.drop(n)
		c.violated(s, FlowControlError)
		return
	case !s.gotHead:
		c.drop(n)
		c.violated(s, ProtocolError)
		return
	}
	if s.left != message.Unknown {
		s.left -= int64(n)
		if s.left < 0 || end && s.left > 0 {
			c.drop(n)
			c.violated(s, ProtocolError)
			return
		}
	}
	// Frames of nothing cost us and move nothing (CVE-2019-9518).
	if n == 0 && !end && !c.spend(1) {
		return
	}
	if n > 0 {
		c.frames.giveBack(1)
		c.body, c.bodyLeft, c.bodyEnd = s, n, end
		return
	}
	if end {
		c.arrived(s, nil, true)
	} else {
		c.replenish(s)
	}
}

// takeBody passes on what has come of a frame of DATA.
func (c *Conn) takeBody(b []byte) []byte {
	n := min(c.bodyLeft, len(b))
	c.bodyLeft -= n
	if s := c.body; s != nil {
		c.arrived(s, b[:n], c.bodyEnd && c.bodyLeft == 0)
	} else {
		c.giveBack(n)
	}
	if c.bodyLeft == 0 {
		c.body = nil
	}
	return b[n:]
}

func (c *Conn) arrived(s *Stream, p []byte, end bool) {
	id := s.id
	s.held += int64(len(p))
	s.remoteDone = end
	c.handler.Data(s, p, end)
	c.settle(id)
}

// drop lets n bytes of a frame pass by unseen.
func (c *Conn) drop(n int) { c.body, c.bodyLeft, c.bodyEnd = nil, n, false }

// strayData is DATA on a stream that is not open. It may have been on its way when we reset the stream.
func (c *Conn) strayData(id uint32) {
	if c.neverOpened(id) {
		c.fail(ProtocolError, "DATA of a stream that was never opened")
		return
	}
	if known, reset := c.ended(id); known && !reset {
		c.sendReset(id, StreamClosed)
		c.spendReset()
		return
	}
	c.spend(1)
}
