package h2

import "encoding/binary"

// priorityFrame takes PRIORITY, which has no meaning any more but is well-formed or not (RFC 9113 section 6.3).
func (c *Conn) priorityFrame(f frame, p []byte) {
	switch {
	case f.id == 0:
		c.fail(ProtocolError, "PRIORITY of no stream")
	case len(p) != 5:
		c.fail(FrameSizeError, "PRIORITY of a wrong size")
	case binary.BigEndian.Uint32(p)&maxID == f.id:
		c.fail(ProtocolError, "a stream that depends on itself")
	default:
		c.spend(1)
	}
}

// resetFrame takes RST_STREAM (RFC 9113 section 6.4).
func (c *Conn) resetFrame(f frame, p []byte) {
	switch {
	case c.neverOpened(f.id):
		c.fail(ProtocolError, "RST_STREAM of a stream that was never opened")
		return
	case len(p) != 4:
		c.fail(FrameSizeError, "RST_STREAM of a wrong size")
		return
	}
	s := c.streams.get(f.id)
	if s == nil {
		c.spend(1)
		return
	}
	if c.spendReset() {
		c.end(s, Cause{ErrCode(binary.BigEndian.Uint32(p)), Peer})
	}
}

// settingsFrame takes SETTINGS (RFC 9113 section 6.5).
func (c *Conn) settingsFrame(f frame, p []byte) {
	switch {
	case f.id != 0:
		c.fail(ProtocolError, "SETTINGS of a stream")
		return
	case f.has(flagAck) && len(p) > 0 || len(p)%6 != 0:
		c.fail(FrameSizeError, "SETTINGS of a wrong size")
		return
	case f.has(flagAck):
		c.settingsAcked()
		return
	}
	if !c.spend(1 + len(p)/60) {
		return
	}
	if !c.greeted && c.client != nil {
		c.peer.streams = maxID // unless it says otherwise
	}
	c.greeted = true
	for ; len(p) > 0; p = p[6:] {
		if !c.setting(binary.BigEndian.Uint16(p), binary.BigEndian.Uint32(p[2:])) {
			return
		}
	}
	if c.provoked(frameHeader) {
		c.queue(typeSettings, flagAck, 0, nil)
	}
}

// setting takes one setting (RFC 9113 section 6.5.2).
func (c *Conn) setting(id uint16, v uint32) bool {
	switch id {
	case settingTableSize:
		c.encoder.setLimit(int(min(v, uint32(c.limits.EncoderTable))))
	case settingPush:
		if v > 1 || c.client != nil && v == 1 {
			return c.fail(ProtocolError, "SETTINGS_ENABLE_PUSH of a wrong value")
		}
	case settingStreams:
		c.peer.streams = int64(v)
	case settingWindow:
		if v > maxWindow {
			return c.fail(FlowControlError, "SETTINGS_INITIAL_WINDOW_SIZE above the largest window")
		}
		return c.moveWindows(int64(v) - c.peer.window)
	case settingFrame:
		if v < maxFrame || v > 1<<24-1 {
			return c.fail(ProtocolError, "SETTINGS_MAX_FRAME_SIZE of a wrong value")
		}
	case settingConnect:
		if v > 1 || c.peer.connect && v == 0 {
			return c.fail(ProtocolError, "SETTINGS_ENABLE_CONNECT_PROTOCOL of a wrong value")
		}
		c.peer.connect = v == 1
	}
	return true
}

// moveWindows changes what all streams may send (RFC 9113 section 6.9.2).
func (c *Conn) moveWindows(by int64) bool {
	c.peer.window += by
	for _, s := range c.streams.slots {
		if s == nil {
			continue
		}
		if s.sendWindow += by; s.sendWindow > maxWindow {
			return c.fail(FlowControlError, "a window above the largest")
		}
		c.unblock(s)
	}
	return true
}

// settingsAcked makes what we have set binding for the peer.
func (c *Conn) settingsAcked() {
	if c.acked {
		c.spend(1)
		return
	}
	c.acked = true
	c.decoder.SetAllowedMaxDynamicTableSize(uint32(c.limits.DecoderTable))
	if less := c.streamReceive - int64(c.limits.StreamWindow); less > 0 {
		c.streamReceive -= less
		for _, s := range c.streams.slots {
			if s != nil {
				s.recvWindow -= less
			}
		}
	}
}

// pingFrame takes PING (RFC 9113 section 6.7).
func (c *Conn) pingFrame(f frame, p []byte) {
	switch {
	case f.id != 0:
		c.fail(ProtocolError, "PING of a stream")
	case len(p) != 8:
		c.fail(FrameSizeError, "PING of a wrong size")
	case f.has(flagAck):
		c.pong(p)
	case c.spend(1) && c.provoked(frameHeader+8):
		c.queue(typePing, flagAck, 0, p)
	}
}

func (c *Conn) pong(p []byte) {
	if c.pings == 0 {
		c.spend(1) // an answer to nothing
		return
	}
	switch [8]byte(p) {
	case [8]byte(pingBytes(pingAlive)):
		if c.keepalive > 0 {
			c.keepalive--
			c.pings--
		}
	case [8]byte(pingBytes(pingShutdown)):
		if c.shutdown == announced {
			c.pings--
			c.finalGoAway()
		}
	default:
		c.spend(1)
	}
}

// goAwayFrame takes GOAWAY (RFC 9113 section 6.8).
func (c *Conn) goAwayFrame(f frame, p []byte) {
	switch {
	case f.id != 0:
		c.fail(ProtocolError, "GOAWAY of a stream")
		return
	case len(p) < 8:
		c.fail(FrameSizeError, "GOAWAY of a wrong size")
		return
	case !c.spend(1):
		return
	}
	last := binary.BigEndian.Uint32(p) & maxID
	code := ErrCode(binary.BigEndian.Uint32(p[4:]))
	c.goingAway = true
	if c.client != nil {
		if last > c.accepted {
			c.fail(ProtocolError, "a GOAWAY that takes back an earlier one")
			return
		}
		c.accepted = last
		for _, id := range c.streams.snapshot() {
			if s := c.streams.get(id); s != nil && id > last {
				c.end(s, Cause{RefusedStream, Peer})
			}
		}
	}
	c.handler.GoAway(c, last, code)
}

// windowFrame takes WINDOW_UPDATE (RFC 9113 section 6.9).
func (c *Conn) windowFrame(f frame, p []byte) {
	if len(p) != 4 {
		c.fail(FrameSizeError, "WINDOW_UPDATE of a wrong size")
		return
	}
	n := int64(binary.BigEndian.Uint32(p) & maxID)
	if !c.spend(1) {
		return
	}
	if f.id == 0 {
		switch c.sendWindow += n; {
		case n == 0:
			c.fail(ProtocolError, "WINDOW_UPDATE of nothing")
		case c.sendWindow > maxWindow:
			c.fail(FlowControlError, "a window above the largest")
		}
		return
	}
	s := c.streams.get(f.id)
	switch {
	case s == nil && c.neverOpened(f.id):
		c.fail(ProtocolError, "WINDOW_UPDATE of a stream that was never opened")
	case s == nil:
	case n == 0:
		c.violated(s, ProtocolError)
	default:
		if s.sendWindow += n; s.sendWindow > maxWindow {
			c.violated(s, FlowControlError)
			return
		}
		c.unblock(s)
	}
}
