package h2

import "time"

// input is how far the bytes that came have been understood.
type input struct {
	prefaced int  // bytes of the client's preface that have come
	greeted  bool // the peer's SETTINGS have come

	header  [frameHeader]byte // of a frame, as far as it has come
	headers int               // bytes of it
	current frame             // whose payload has not come whole
	payload []byte            // of current, from the pool
	within  bool              // current is under way

	// DATA is passed on as it comes.
	body     *Stream // nil where it is to be dropped
	bodyLeft int
	bodyEnd  bool
	skip     int // bytes to be dropped: padding, and frames of unknown types

	block         []byte // a header block whose CONTINUATION is to come, from the pool
	blockFrame    frame
	blockSelf     bool // it depends on itself
	continuations int
	continued     bool
}

// Feed takes bytes that were read at a time that now tells: the time since a fixed moment, by a clock that never goes back.
// It consumes all of b, and answers an error, which is always an *Error, when the connection is to be closed as soon as
// Output is written. All streams have then ended.
func (c *Conn) Feed(now time.Duration, b []byte) error {
	c.now = now
	if !c.greeted { // what comes back does so from the beginning of the connection on, not of the clock
		c.frames.at, c.resets.at = now, now
	}
	for len(b) > 0 && c.err == nil {
		switch {
		case c.prefaced < len(preface):
			b = c.takePreface(b)
		case c.bodyLeft > 0:
			b = c.takeBody(b)
		case c.skip > 0:
			n := min(c.skip, len(b))
			c.skip -= n
			b = b[n:]
		case c.within:
			b = c.takePayload(b)
		default:
			b = c.takeHeader(b)
		}
	}
	if c.err == nil {
		c.pump()
	}
	if c.err != nil {
		c.endAll()
		c.forgetInput()
	}
	return c.Err()
}

func (c *Conn) forgetInput() {
	c.pool.freeBuffer(c.payload)
	c.pool.freeBuffer(c.block)
	c.payload, c.block, c.within, c.bodyLeft, c.skip, c.body = nil, nil, false, 0, 0, nil
}

func (c *Conn) takePreface(b []byte) []byte {
	n := min(len(preface)-c.prefaced, len(b))
	if string(b[:n]) != preface[c.prefaced:c.prefaced+n] {
		c.fail(ProtocolError, "no preface of HTTP/2")
		return nil
	}
	c.prefaced += n
	return b[n:]
}

// takeHeader takes the header of a frame, and the whole frame where it is there.
func (c *Conn) takeHeader(b []byte) []byte {
	whole := b
	if c.headers > 0 || len(b) < frameHeader {
		n := copy(c.header[c.headers:frameHeader], b)
		c.headers += n
		b = b[n:]
		if c.headers < frameHeader {
			return nil
		}
		whole = c.header[:frameHeader]
	} else {
		b = b[frameHeader:]
	}
	c.headers = 0
	f := parseFrame(whole)
	if !c.expected(f) {
		return nil
	}
	switch {
	case f.kind == typeData && !f.has(flagPadded):
		c.data(f, f.length)
	case f.kind > typeContinuation:
		c.skip = f.length
		c.spend(1)
	case len(b) >= f.length && f.kind != typeData:
		c.dispatch(f, b[:f.length])
		return b[f.length:]
	default:
		c.current, c.within = f, true
		if len(b) == 0 && f.length == 0 { // padded DATA of no length: there is nothing to wait for
			return c.takePayload(b)
		}
	}
	return b
}

// takePayload collects what a frame needs to be understood: of padded DATA the length of the padding, else all of it.
func (c *Conn) takePayload(b []byte) []byte {
	f := c.current
	if f.kind == typeData {
		c.within = false
		if f.length == 0 {
			c.fail(FrameSizeError, "padding without a length")
			return nil
		}
		pad := int(b[0])
		if pad >= f.length {
			c.fail(ProtocolError, "more padding than frame")
			return nil
		}
		c.data(f, f.length-1-pad)
		c.skip = pad
		return b[1:]
	}
	if c.payload == nil {
		c.payload = c.pool.buffer()
	}
	n := min(f.length-len(c.payload), len(b))
	c.payload = append(c.payload, b[:n]...)
	if len(c.payload) == f.length {
		payload := c.payload
		c.payload, c.within = nil, false
		c.dispatch(f, payload)
		c.pool.freeBuffer(payload)
	}
	return b[n:]
}

// expected looks at a frame's header, before anything is kept for it.
func (c *Conn) expected(f frame) bool {
	switch {
	case f.length > maxFrame:
		return c.fail(FrameSizeError, "a frame above the size allowed")
	case !c.greeted && (f.kind != typeSettings || f.has(flagAck)):
		return c.fail(ProtocolError, "a connection that does not begin with SETTINGS")
	case c.continued && (f.kind != typeContinuation || f.id != c.blockFrame.id):
		return c.fail(ProtocolError, "a header block that is broken off")
	case !c.continued && f.kind == typeContinuation:
		return c.fail(ProtocolError, "CONTINUATION of nothing")
	}
	return true
}

func (c *Conn) dispatch(f frame, p []byte) {
	switch f.kind {
	case typeHeaders:
		c.headersFrame(f, p)
	case typePriority:
		c.priorityFrame(f, p)
	case typeReset:
		c.resetFrame(f, p)
	case typeSettings:
		c.settingsFrame(f, p)
	case typePushPromise:
		c.fail(ProtocolError, "PUSH_PROMISE, which was not enabled")
	case typePing:
		c.pingFrame(f, p)
	case typeGoAway:
		c.goAwayFrame(f, p)
	case typeWindowUpdate:
		c.windowFrame(f, p)
	case typeContinuation:
		c.continuationFrame(f, p)
	}
}
