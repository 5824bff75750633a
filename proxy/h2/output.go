package h2

import "encoding/binary"

// output is what is to be written.
type output struct {
	out  []byte // from the pool, nil when there is nothing
	sent int    // of out

	// What the peer provoked is counted in two spans, of which the older one is dropped when all that was queued before the
	// younger one began is sent: what has been written is then not counted for long, nor is anything queued forgotten.
	done         int64 // bytes ever sent
	span         int64 // of done, where the younger span begins
	older, newer int

	first, last *Stream // in turn, for room in Output or in the connection's window
	turn        *Stream
	quota       int // that turn may still write while others wait
	pumping     bool
}

func (c *Conn) pending() int { return len(c.out) - c.sent }

// Output is what is to be written next. It is valid until Sent or any other method is called.
func (c *Conn) Output() []byte { return c.out[c.sent:] }

// Sent tells that the first n bytes of Output were taken, and lets those streams write that waited for it.
func (c *Conn) Sent(n int) {
	c.sent += n
	c.done += int64(n)
	switch {
	case c.sent == len(c.out):
		c.discard()
	case 2*c.sent > len(c.out):
		c.out = c.out[:copy(c.out, c.out[c.sent:])]
		c.sent = 0
	}
	if c.done >= c.span {
		c.older, c.newer = c.newer, 0
		c.span = c.done + int64(c.pending())
	}
	if c.out == nil {
		c.older, c.newer = 0, 0
	}
	c.pump()
}

// discard drops what is queued.
func (c *Conn) discard() {
	c.pool.freeBuffer(c.out)
	c.out, c.sent = nil, 0
}

func (c *Conn) reserve() {
	if c.out == nil {
		c.out = c.pool.buffer()
	}
}

func (c *Conn) queue(kind, flags byte, id uint32, payload []byte) {
	c.reserve()
	c.out = append(appendFrame(c.out, len(payload), kind, flags, id), payload...)
}

func (c *Conn) queueNumber(kind byte, id, n uint32) {
	c.reserve()
	c.out = binary.BigEndian.AppendUint32(appendFrame(c.out, 4, kind, 0, id), n)
}

// provoked counts what the peer makes us queue. One that goes on without reading is not waited for (CVE-2019-9512,
// CVE-2019-9515).
func (c *Conn) provoked(n int) bool {
	c.newer += n
	return c.older+c.newer <= c.limits.Control || c.fail(EnhanceYourCalm, "too many frames to answer, and the answers are not read")
}

func (c *Conn) goAway(last uint32, code ErrCode, debug string) {
	c.reserve()
	c.out = appendFrame(c.out, 8+len(debug), typeGoAway, 0, 0)
	c.out = binary.BigEndian.AppendUint32(c.out, last)
	c.out = binary.BigEndian.AppendUint32(c.out, uint32(code))
	c.out = append(c.out, debug...)
}

// room is how much of a body may be queued. It is one frame or nothing near the bound, so that frames do not get tiny.
func (c *Conn) room() int {
	pending := c.pending()
	if pending >= c.limits.Output {
		return 0
	}
	return max(c.limits.Output-pending, min(maxFrame, c.limits.Output))
}

// pump lets waiting streams write in turn, a frame each, as long as there is room.
func (c *Conn) pump() {
	if c.pumping {
		return
	}
	c.pumping = true
	for c.first != nil && c.err == nil && c.sendWindow > 0 && c.room() > 0 {
		s := c.first
		c.unwait(s)
		c.turn, c.quota = s, maxFrame
		c.handler.Writable(s)
		c.turn = nil
	}
	c.pumping = false
}

// wait puts a stream at the end of those that wait.
func (c *Conn) wait(s *Stream) {
	if s.waits {
		return
	}
	s.waits, s.previous, s.next = true, c.last, nil
	if c.last == nil {
		c.first = s
	} else {
		c.last.next = s
	}
	c.last = s
}

func (c *Conn) unwait(s *Stream) {
	if !s.waits {
		return
	}
	if s.previous == nil {
		c.first = s.next
	} else {
		s.previous.next = s.next
	}
	if s.next == nil {
		c.last = s.previous
	} else {
		s.next.previous = s.previous
	}
	s.waits, s.previous, s.next = false, nil, nil
}
