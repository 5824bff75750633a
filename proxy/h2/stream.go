package h2

import "github.com/jurat-tls/jurat/proxy/message"

// Stream is one request and its response. It is used again after Closed.
type Stream struct {
	// User is the caller's.
	User any

	conn       *Conn
	id         uint32
	sendWindow int64
	recvWindow int64
	owed       int64 // bytes consumed that no WINDOW_UPDATE has told of
	held       int64 // bytes shown that were not consumed
	left       int64 // of the body that comes, or message.Unknown

	informational uint16
	gotHead       bool // the final one
	sentHead      bool
	remoteDone    bool
	localDone     bool
	head, connect bool // the method
	blocked       bool // a Write fell short for the stream's window
	waits         bool // and here for that of the connection, or for room
	over          bool // Closed is being told

	previous, next *Stream
}

// Conn is the connection of the stream.
func (s *Stream) Conn() *Conn { return s.conn }

// ID is the stream's number.
func (s *Stream) ID() uint32 { return s.id }

// live reports whether anything can be done with the stream.
func (s *Stream) live() bool { return s.conn != nil && s.conn.err == nil && !s.over }

// Respond sends a response, or an informational one before it. With end, no body follows. ErrMalformed leaves the stream as
// it was.
func (s *Stream) Respond(r *message.Response, end bool) error {
	c := s.conn
	switch {
	case !s.live() || c.server == nil || s.sentHead:
		return ErrState
	case r.Status < 100 || r.Status > 999 || r.Status == 101 || end && r.Informational():
		return ErrMalformed
	}
	at := c.beginBlock()
	c.appendStatus(r.Status)
	length := r.Length
	if r.Status < 200 || r.Status == 204 || s.connect && r.Status/100 == 2 {
		length = message.NoBody // none may be told (RFC 9110 section 8.6)
	}
	if !c.appendFields(r.Fields, length) {
		return c.dropBlock(at)
	}
	c.endBlock(at, s.id, end)
	if !r.Informational() {
		s.sentHead = true
		s.finish(end)
	}
	return nil
}

// Request opens a stream with a request. With end, no body follows. It answers ErrBusy where CanOpen would say no, and
// ErrMalformed for what cannot be sent.
func (c *Conn) Request(r *message.Request, end bool) (*Stream, error) {
	if !c.CanOpen() {
		return nil, ErrBusy
	}
	connect := r.Method == "CONNECT"
	tunnel := connect && r.Upgrade == ""
	scheme := r.Scheme
	if scheme == "" {
		scheme = "http"
	}
	switch {
	case !validToken(r.Method), !validHost(r.Authority), !tunnel && !validPath(r.Path, r.Method), !validToken(scheme),
		!connect && r.Upgrade != "", connect && !tunnel && (!c.peer.connect || !validToken(r.Upgrade)):
		return nil, ErrMalformed
	}
	at := c.beginBlock()
	c.appendMethod(r.Method)
	if !tunnel {
		c.appendScheme(scheme)
		c.appendPath(r.Path)
	}
	c.appendField(1, ":authority", r.Authority)
	if connect && !tunnel {
		c.appendField(0, ":protocol", r.Upgrade)
	}
	if r.Trailers {
		c.appendField(0, "te", "trailers")
	}
	if r.Expect {
		c.appendField(35, "expect", "100-continue")
	}
	if !c.appendFields(r.Fields, r.Length) {
		return nil, c.dropBlock(at)
	}
	id := c.lastID + 2
	if c.lastID == 0 {
		id = 1
	}
	c.lastID = id
	c.endBlock(at, id, end)
	s := c.open(id)
	s.head, s.connect = r.Method == "HEAD", connect
	s.sentHead = true
	s.finish(end)
	return s, nil
}

// Write sends a part of a body, and with end its end. It answers how much of p it took: less than all when the windows or
// Output have no room for more, and then without end. The rest is to be given again when Writable is called.
func (s *Stream) Write(p []byte, end bool) int {
	c := s.conn
	if !s.live() || !s.sentHead || s.localDone {
		return 0
	}
	if len(p) == 0 {
		if end {
			c.queue(typeData, flagEndStream, s.id, nil)
			s.finish(true)
		}
		return 0
	}
	n := c.writable(s, len(p))
	last := end && n == len(p)
	if n > 0 {
		c.reserve()
	}
	for at := 0; at < n; {
		size := min(n-at, maxFrame)
		flags := byte(0)
		if last && at+size == n {
			flags = flagEndStream
		}
		c.out = append(appendFrame(c.out, size, typeData, flags, s.id), p[at:at+size]...)
		at += size
		// The peer answers each with a WINDOW_UPDATE or two, and may measure the link by a PING.
		c.frames.giveBack(4)
	}
	c.frames.giveBack(n >> 10)
	c.sendWindow -= int64(n)
	s.sendWindow -= int64(n)
	c.quota -= n
	switch {
	case n == len(p):
		s.blocked = false
		s.finish(last)
	case s.sendWindow <= 0:
		s.blocked = true
	default:
		c.wait(s)
	}
	return n
}

// writable is how much of n bytes a stream may send now.
func (c *Conn) writable(s *Stream, n int) int {
	n = min(n, int(max(min(s.sendWindow, c.sendWindow), 0)), c.room())
	if c.turn == s {
		if c.first != nil {
			n = min(n, max(c.quota, 0))
		}
	} else if c.first != nil {
		n = 0 // others were first
	}
	return n
}

// Shut reports whether a window of the peer is what keeps the stream from writing.
func (s *Stream) Shut() bool { return s.live() && min(s.sendWindow, s.conn.sendWindow) <= 0 }

// Trailers ends the body with trailers; without any, it just ends.
func (s *Stream) Trailers(f message.Fields) error {
	c := s.conn
	if !s.live() || !s.sentHead || s.localDone {
		return ErrState
	}
	if len(f) == 0 {
		s.Write(nil, true)
		return nil
	}
	at := c.beginBlock()
	if !c.appendFields(f, message.NoBody) {
		return c.dropBlock(at)
	}
	c.endBlock(at, s.id, true)
	s.finish(true)
	return nil
}

// Reset ends the stream at once. A server that has answered, and wants no more of the request, gives NoError.
func (s *Stream) Reset(code ErrCode) {
	c := s.conn
	if !s.live() {
		return
	}
	c.queueNumber(typeReset, s.id, uint32(code))
	c.end(s, Cause{code, Local})
}

// Consumed tells that n bytes shown by Data are not held any more, so that the peer may send as many again.
func (s *Stream) Consumed(n int) {
	c := s.conn
	if !s.live() {
		return
	}
	consumed := min(int64(n), s.held)
	s.held -= consumed
	s.owed += consumed
	c.giveBack(int(consumed))
	c.replenish(s)
}

// finish notes that the last frame of ours is queued.
func (s *Stream) finish(end bool) {
	if end {
		s.localDone = true
		s.conn.settle(s.id)
	}
}

// open begins a stream.
func (c *Conn) open(id uint32) *Stream {
	s := c.pool.stream()
	s.conn, s.id = c, id
	s.sendWindow, s.recvWindow, s.left = c.peer.window, c.streamReceive, message.Unknown
	c.streams.put(s)
	return s
}

// settle ends a stream of which both directions have come to their ends. Events may have ended it before.
func (c *Conn) settle(id uint32) {
	if s := c.streams.get(id); s != nil && s.remoteDone && s.localDone {
		c.resets.giveBack(1)
		c.end(s, Cause{NoError, Complete})
	}
}

// violated ends a stream for a fault of the peer.
func (c *Conn) violated(s *Stream, code ErrCode) {
	if !c.spendReset() {
		return
	}
	c.sendReset(s.id, code)
	c.end(s, Cause{code, Violation})
}

// end lets go of a stream and tells so.
func (c *Conn) end(s *Stream, why Cause) {
	c.streams.remove(s.id)
	c.unwait(s)
	c.remember(s.id, why.By == Local || why.By == Violation)
	if c.body == s {
		c.body = nil
	}
	if c.turn == s {
		c.turn = nil
	}
	c.giveBack(int(s.held))
	s.over = true
	c.handler.Closed(s, why)
	c.pool.freeStream(s)
}

// neverOpened reports whether nobody has used the number of a stream, nor a higher one. No stream, 0, is never opened.
func (c *Conn) neverOpened(id uint32) bool { return id&1 == 0 || id > c.lastID }

// sendReset answers a fault on a stream.
func (c *Conn) sendReset(id uint32, code ErrCode) {
	if c.provoked(frameHeader + 4) {
		c.queueNumber(typeReset, id, uint32(code))
	}
}

// unblock lets a stream write again that waited for its window.
func (c *Conn) unblock(s *Stream) {
	if s.blocked && s.sendWindow > 0 {
		s.blocked = false
		c.wait(s)
	}
}

// giveBack opens the connection's window, by halves.
func (c *Conn) giveBack(n int) {
	if c.owed += int64(n); n > 0 && c.err == nil && c.owed >= int64(c.limits.ConnWindow+1)/2 {
		c.openWindow()
	}
}

func (c *Conn) openWindow() {
	c.queueNumber(typeWindowUpdate, 0, uint32(c.owed))
	c.recvWindow += c.owed
	c.owed = 0
}

// replenish opens a stream's window, by halves.
func (c *Conn) replenish(s *Stream) {
	if !s.remoteDone && s.owed >= int64(c.limits.StreamWindow+1)/2 {
		c.queueNumber(typeWindowUpdate, s.id, uint32(s.owed))
		s.recvWindow += s.owed
		s.owed = 0
	}
}
