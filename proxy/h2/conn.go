package h2

import (
	"time"

	"golang.org/x/net/http2/hpack"
)

// Conn is one end of a connection.
type Conn struct {
	handler Handler
	server  ServerHandler // nil at a client's end
	client  ClientHandler // nil at a server's end
	pool    *Pool
	limits  Limits
	now     time.Duration
	err     *Error

	input
	output

	decoder *hpack.Decoder
	encoder encoder

	streams table
	closed  [64]uint32 // numbers of those that ended last, and whether it was us who reset them
	closing uint32
	lastID  uint32 // the highest number that the client has used

	sendWindow    int64 // of the connection
	recvWindow    int64
	owed          int64 // bytes consumed that no WINDOW_UPDATE has told of
	streamReceive int64 // the window that a new stream begins with
	peer          peerSettings
	acked         bool // our SETTINGS have been acknowledged

	resets, frames budget

	goingAway bool   // the peer has sent GOAWAY
	shutdown  uint8  // how far Shutdown has got
	accepted  uint32 // up to which streams of the client are taken
	pings     int    // ours, unanswered
	keepalive int    // of pings, those by Ping
}

// peerSettings is what the peer has said in SETTINGS.
type peerSettings struct {
	streams int64
	window  int64
	connect bool
}

const (
	running = iota
	announced
	final
)

// NewServer begins the end towards a client. A nil pool is one of its own.
func NewServer(l Limits, p *Pool, h ServerHandler) *Conn {
	c := newConn(l, p, h)
	c.server = h
	c.settings()
	return c
}

// NewClient begins the end towards a service. A nil pool is one of its own.
func NewClient(l Limits, p *Pool, h ClientHandler) *Conn {
	c := newConn(l, p, h)
	c.client = h
	c.prefaced = len(preface)
	c.out = append(c.pool.buffer(), preface...)
	c.settings()
	return c
}

func newConn(l Limits, p *Pool, h Handler) *Conn {
	if p == nil {
		p = NewPool()
	}
	c := &Conn{handler: h, pool: p, limits: l.withDefaults(), encoder: newEncoder(), accepted: maxID}
	c.sendWindow, c.recvWindow = initialWindow, initialWindow
	// Until the peer has seen our SETTINGS, it may go by the defaults.
	c.streamReceive = max(initialWindow, int64(c.limits.StreamWindow))
	c.peer = peerSettings{streams: streamsBeforeTheySay, window: initialWindow}
	c.encoder.setLimit(min(initialTable, c.limits.EncoderTable))
	c.decoder = hpack.NewDecoder(initialTable, c.field)
	c.decoder.SetAllowedMaxDynamicTableSize(uint32(max(initialTable, c.limits.DecoderTable)))
	return c
}

// settings queues our SETTINGS and opens the connection's window.
func (c *Conn) settings() {
	var b [36]byte
	s := b[:0]
	if c.limits.DecoderTable != initialTable {
		s = appendSetting(s, settingTableSize, c.limits.DecoderTable)
	}
	if c.server != nil {
		s = appendSetting(s, settingStreams, c.limits.Streams)
		if c.limits.Connect != "" {
			s = appendSetting(s, settingConnect, 1)
		}
	} else {
		s = appendSetting(s, settingPush, 0)
	}
	s = appendSetting(s, settingWindow, c.limits.StreamWindow)
	s = appendSetting(s, settingHeaderList, c.limits.HeaderBytes)
	c.queue(typeSettings, 0, 0, s)
	// A window below the one that the RFC begins with comes about by giving nothing back at first.
	if c.owed = int64(c.limits.ConnWindow) - initialWindow; c.owed > 0 {
		c.openWindow()
	}
}

// Err is why the connection cannot go on, or nil.
func (c *Conn) Err() error {
	if c.err == nil {
		return nil
	}
	return c.err
}

// Streams is how many are open.
func (c *Conn) Streams() int { return c.streams.count }

// Idle reports whether there is neither a stream nor anything to write.
func (c *Conn) Idle() bool { return c.streams.count == 0 && c.pending() == 0 }

// CanOpen reports whether Request may be called: the peer takes one more stream, and reads what it is sent.
func (c *Conn) CanOpen() bool {
	return c.client != nil && c.err == nil && !c.goingAway && c.shutdown == running && c.lastID < maxID-1 &&
		int64(c.streams.count) < min(c.peer.streams, int64(c.limits.Streams)) && c.pending() < c.limits.Output
}

// Extended reports whether the peer takes extended CONNECT (RFC 8441), and whether it has said what it takes.
func (c *Conn) Extended() (takes, said bool) { return c.peer.connect, c.greeted }

// Ping asks the peer for a sign of life.
func (c *Conn) Ping() {
	if c.err == nil {
		c.pings++
		c.keepalive++
		c.queue(typePing, 0, 0, pingBytes(pingAlive))
	}
}

// Unanswered is how many Pings have had no answer.
func (c *Conn) Unanswered() int { return c.keepalive }

const (
	pingAlive    = 'a'
	pingShutdown = 's'
)

func pingBytes(kind byte) []byte { return []byte{'j', 'u', 'r', 'a', 't', 0, 0, kind} }

// Shutdown lets the open streams come to their ends and takes no new ones. A client first hears that this is to come, and
// the streams that it had opened by when it heard are taken (RFC 9113 section 6.8). A second call does not wait for it to
// hear.
func (c *Conn) Shutdown() {
	switch {
	case c.err != nil || c.shutdown == final:
	case c.server == nil:
		c.shutdown = final
		c.goAway(0, NoError, "")
	case c.shutdown == running:
		c.shutdown = announced
		c.goAway(maxID, NoError, "")
		c.pings++
		c.queue(typePing, 0, 0, pingBytes(pingShutdown))
	default:
		c.finalGoAway()
	}
}

func (c *Conn) finalGoAway() {
	c.shutdown, c.accepted = final, c.lastID
	c.goAway(c.lastID, NoError, "")
}

// Done reports whether the connection is to be closed: it has failed, or what Shutdown or a service's GOAWAY left has come
// to its end, and everything is written. A client that sent GOAWAY closes when it likes.
func (c *Conn) Done() bool {
	if c.pending() > 0 {
		return false
	}
	return c.err != nil || (c.shutdown == final || c.goingAway && c.client != nil) && c.streams.count == 0
}

// Abort ends all streams, since the socket has failed or is to be closed. With a code other than NoError, Output then holds
// a GOAWAY. The connection cannot be used any more.
func (c *Conn) Abort(code ErrCode) { c.AbortBecause(code, "") }

// AbortBecause is Abort with a few words for the peer beside the code.
func (c *Conn) AbortBecause(code ErrCode, why string) {
	if c.err == nil {
		c.err = &Error{code, "aborted"}
		if code != NoError {
			c.goAway(c.lastPeerID(), code, why)
		}
	}
	c.endAll()
	if code == NoError {
		c.discard()
	}
	c.forgetInput()
}

// fail ends the connection for a fault of the peer. It answers false, for those who go on as long as all is well.
func (c *Conn) fail(code ErrCode, why string) bool {
	if c.err == nil {
		c.err = &Error{code, why}
		c.goAway(c.lastPeerID(), code, why)
	}
	return false
}

func (c *Conn) lastPeerID() uint32 {
	if c.server == nil {
		return 0
	}
	return min(c.lastID, c.accepted)
}

func (c *Conn) endAll() {
	for _, id := range c.streams.snapshot() {
		if s := c.streams.get(id); s != nil {
			c.end(s, Cause{c.err.Code, Connection})
		}
	}
}

// spend charges for a frame that moves nothing.
func (c *Conn) spend(n int) bool {
	return c.frames.take(n, c.limits.Frames, c.now) || c.fail(EnhanceYourCalm, "too many frames that move nothing")
}

// spendReset charges for a stream that ends before its time. Only a client gains by it.
func (c *Conn) spendReset() bool {
	if c.server == nil {
		return c.spend(1)
	}
	return c.resets.take(1, c.limits.Resets, c.now) || c.fail(EnhanceYourCalm, "too many streams that end before their time")
}

const resetByUs = 1 << 31

// remember keeps how a stream ended for as long as frames may be on their way to it.
func (c *Conn) remember(id uint32, reset bool) {
	if reset {
		id |= resetByUs
	}
	c.closed[c.closing%uint32(len(c.closed))] = id
	c.closing++
}

// ended reports whether a stream is among those that ended last, and whether we reset it.
func (c *Conn) ended(id uint32) (known, reset bool) {
	for _, e := range c.closed {
		if e&^resetByUs == id {
			return true, e&resetByUs != 0
		}
	}
	return false, false
}
