package loop

import (
	"errors"
	"io"
	"net"
	"sync/atomic"
	"time"
)

// Handler is told of what happens to a connection, in its loop.
type Handler interface {
	// Data is given what has arrived. p is valid until it returns.
	Data(p []byte)
	// End says that nothing more arrives. With nil, the other end has said so under the protection that the connection has, and
	// can still be written to. With an error the connection is broken: it is closed, and nothing more happens to it. An error
	// may follow nil.
	End(err error)
	// Drained follows a Write that answered false, once most of what was written has left.
	Drained()
}

// Leaver is a Handler for which the other end has gone when it sends no more, whatever it has sent before: it need not be read
// to its end. Left says so of a connection that is paused, where the system tells.
type Leaver interface{ Left() }

// Upper is an established connection above a Wire: TLS, or what is on top of it. Its Read and Write do what they can without
// waiting, as the Wire lets them. One that has a method Gone hears by it when the transport is closed for good, which may be long
// after Close.
type Upper interface {
	io.Reader
	io.Writer
	CloseWrite() error
	Close() error
}

// driver moves the bytes of a connection. Events come to it by other ways; it calls deliver, finish and send.
type driver interface {
	write(p []byte) (int, error) // takes what it can without waiting
	flush() (left int, err error)
	moved() time.Time // when the kernel last took a byte
	watch(read bool)
	closeWrite() error
	goodbye() // says that everything was sent, where there is a way to say it
	close(abort bool)
}

// How much of a connection's output waits in memory: above high its source is asked to pause, at low to go on.
const (
	high = 256 << 10
	low  = 64 << 10
)

// direct is the size from which a write is not copied first, when nothing waits before it.
const direct = 16 << 10

// closing is how long what a connection was given may not move before it is cut off, once it is to be closed, and how long a
// lingering one is listened to.
const (
	closing   = time.Minute
	lingering = time.Second
)

// ErrTruncated is the reason where the transport ended without the other end having said so: anyone on the path can do that.
var ErrTruncated = errors.New("the connection ended without the peer saying so")

// ErrReset is the reason where this end broke the connection off, from outside of the loop.
var ErrReset = errors.New("the connection was broken off")

var errPanic = errors.New("panic in a connection")

// Conn is a connection of a loop.
type Conn struct {
	loop    *Loop
	handler Handler
	driver  driver
	closed  func()
	gone    func()
	source  func()
	out     []byte // written, and not taken by the driver
	taken   int    // of out
	timer   Timer
	broken  error
	remote  net.Addr
	read    *atomic.Uint64 // counts what arrives; nil where nobody asks
	written *atomic.Uint64 // counts what leaves; likewise

	dirty   bool // in the loop's list
	full    bool // a Write has answered false
	paused  bool
	ended   bool // nothing more arrives
	ending  bool // CloseWrite was called
	closes  bool // Close was called
	halved  bool // the driver was told of the end of this direction
	parted  bool // and of that of the connection
	lingers bool
	listens bool // lingers, and has said everything
	dead    bool
}

// Loop is the one that the connection belongs to.
func (c *Conn) Loop() *Loop { return c.loop }

// RemoteAddr is the address of the other end.
func (c *Conn) RemoteAddr() net.Addr { return c.remote }

// Count has the bytes that arrive and those that leave counted, live.
func (c *Conn) Count(read, written *atomic.Uint64) { c.read, c.written = read, written }

// SetHandler replaces who is told.
func (c *Conn) SetHandler(h Handler) { c.handler = h }

// OnClose has f called once the connection is closed for good.
func (c *Conn) OnClose(f func()) { c.closed = f }

// SetSource has f called before output is sent, to write what there is by then. Ready asks for that.
func (c *Conn) SetSource(f func()) { c.source = f }

// Ready says that the source has something to write.
func (c *Conn) Ready() {
	if !c.dead {
		c.soil()
	}
}

// Waits reports whether what stands above the transport may wait for it when it is written to, which a loop must not.
func (c *Conn) Waits() bool {
	_, waits := c.driver.(*blocking)
	return waits
}

// Closed reports whether it is, or is about to be: what is written to it is dropped.
func (c *Conn) Closed() bool { return c.dead || c.closes }

// Full reports whether a Write has answered false, and Drained has not followed.
func (c *Conn) Full() bool { return c.full && !c.dead }

// Buffered is how much was written and has not left.
func (c *Conn) Buffered() int {
	if c.dead {
		return 0
	}
	left, _ := c.driver.flush()
	return len(c.out) - c.taken + left
}

// Moved is when the kernel last took a byte of what was written; zero for never. An end that reads slowly, and does not come to
// make room for long, is told by it from one that does not read.
func (c *Conn) Moved() time.Time { return c.driver.moved() }

// Write takes all of p, to send it soon. It never waits, and answers false when so much waits to leave that the caller should
// pause what it comes from until Drained. What is written to a connection that is closing is dropped.
func (c *Conn) Write(p []byte) bool {
	if c.dead || c.ending || c.closes || c.broken != nil {
		return true
	}
	if len(c.out) == 0 && len(p) >= direct {
		n, err := c.write(p)
		if err != nil {
			c.fail(err)
			return true
		}
		if p = p[n:]; len(p) == 0 {
			return c.room(0)
		}
	}
	if c.out == nil {
		c.out = c.loop.shelf.get()
	}
	c.out = append(c.out, p...)
	c.soil()
	return c.room(len(c.out) - c.taken)
}

func (c *Conn) write(p []byte) (int, error) {
	n, err := c.driver.write(p)
	if c.written != nil {
		c.written.Add(uint64(n))
	}
	return n, err
}

// room reports whether more is welcome, with that much waiting here.
func (c *Conn) room(waiting int) bool {
	if waiting <= low { // the driver has nothing before it has taken that
		left, err := c.driver.flush()
		if err != nil {
			c.fail(err)
		}
		waiting += left
	}
	if waiting > high {
		c.full = true
	}
	return !c.full
}

// Pause stops taking what arrives. What was read already is still delivered.
func (c *Conn) Pause() {
	if !c.paused && !c.dead {
		c.paused = true
		c.driver.watch(false)
	}
}

// Resume goes on after Pause.
func (c *Conn) Resume() {
	if c.paused && !c.dead {
		c.paused = false
		c.driver.watch(true)
	}
}

// CloseWrite tells the other end, after what was written, that nothing more comes from this one.
func (c *Conn) CloseWrite() {
	if !c.dead && !c.ending {
		c.ending = true
		c.soil()
	}
}

// Close sends what was written, tells the other end that it was everything, and closes.
func (c *Conn) Close() { c.end(false) }

// Linger is Close for where the other end may still be sending, such as a request that was refused: closing at once would
// reset the connection, and what was written last would be lost with it. What still arrives is thrown away.
func (c *Conn) Linger() { c.end(true) }

func (c *Conn) end(linger bool) {
	if c.dead || c.closes {
		return
	}
	c.closes, c.lingers = true, linger
	c.driver.watch(linger)
	c.loop.Set(&c.timer, c.loop.now.Add(closing), c.late)
	c.soil()
}

// late cuts off a closing connection on which nothing moves any more.
func (c *Conn) late() {
	if at := c.Moved().Add(closing); at.After(c.loop.now) {
		c.loop.Set(&c.timer, at, c.late)
	} else {
		c.Abort()
	}
}

// Break breaks the connection off, from anywhere: the handler is told ErrReset.
func (c *Conn) Break() { c.loop.Do(func() { c.guard(func() { c.finish(ErrReset) }) }) }

// Abort closes at once, in a way that the other end can't take for a proper end. The handler is not told.
func (c *Conn) Abort() { c.shut(true) }

func (c *Conn) shut(abort bool) {
	if c.dead {
		return
	}
	c.dead = true
	if c.gone != nil {
		defer c.gone()
	}
	c.loop.Remove(&c.timer)
	delete(c.loop.conns, c)
	if c.out != nil {
		c.loop.shelf.put(c.out)
		c.out = nil
	}
	c.driver.close(abort)
	if c.closed != nil {
		c.closed()
	}
}

// soil puts the connection among those that have something to send.
func (c *Conn) soil() {
	if !c.dirty {
		c.dirty = true
		c.loop.dirty = append(c.loop.dirty, c)
	}
}

// fail notes that the connection is broken. The handler is told later: it may be the one that is calling.
func (c *Conn) fail(err error) {
	if c.broken == nil {
		c.broken = err
		c.soil()
	}
}

// send sends what can be sent without waiting, and does what was to follow it.
func (c *Conn) send() {
	if c.dead {
		return
	}
	if c.broken != nil {
		c.finish(c.broken)
		return
	}
	if c.source != nil && !c.closes {
		c.dirty = true // what the source writes is sent right now
		c.source()
		if c.dirty = false; c.dead {
			return
		}
	}
	left, err := c.driver.flush()
	for err == nil && left == 0 && c.taken < len(c.out) {
		var n int
		n, err = c.write(c.out[c.taken:])
		if c.taken += n; n == 0 {
			break
		}
		if err == nil {
			c.part() // the end of the stream leaves with its last byte
			left, err = c.driver.flush()
		}
	}
	if err != nil {
		c.finish(err)
		return
	}
	waiting := len(c.out) - c.taken
	if waiting == 0 {
		if c.out != nil {
			c.loop.shelf.put(c.out)
			c.out, c.taken = nil, 0
		}
		if !c.farewell() {
			return
		}
	}
	if c.full && waiting+left <= low && !c.closes {
		c.full = false
		c.handler.Drained()
	}
}

func (c *Conn) sendSafely() {
	defer c.rescue()
	c.send()
}

// farewell says what is to be said after the last byte, and reports whether the connection lives on.
func (c *Conn) farewell() bool {
	if c.ending && !c.halved && !c.parted {
		c.halved = true
		if err := c.driver.closeWrite(); err != nil {
			c.finish(err)
			return false
		}
	}
	if !c.closes {
		return true
	}
	c.part()
	left, err := c.driver.flush()
	switch {
	case err != nil:
		c.shut(true)
	case left > 0:
		return true
	case c.lingers && !c.ended:
		if !c.listens {
			c.listens = true
			_ = c.driver.closeWrite()
			c.loop.Set(&c.timer, c.loop.now.Add(lingering), func() { c.shut(false) })
		}
		return true
	default:
		c.shut(false)
	}
	return false
}

// part says that everything was sent, once the driver has all of it.
func (c *Conn) part() {
	if c.closes && !c.parted && c.taken == len(c.out) && (!c.ending || c.halved) {
		c.parted = true
		c.driver.goodbye()
	}
}

// deliver gives the handler what has arrived.
func (c *Conn) deliver(p []byte) {
	if !c.dead && !c.closes && !c.ended && len(p) > 0 {
		if c.read != nil {
			c.read.Add(uint64(len(p)))
		}
		c.handler.Data(p)
	}
}

// finish tells the handler that nothing more arrives.
func (c *Conn) finish(err error) {
	if c.dead {
		return
	}
	if err == nil {
		err = c.broken // a write has been told in place of the read, which then sees a proper end
	}
	if err == nil {
		if c.ended {
			return
		}
		c.ended = true
		if c.closes { // a lingering connection has waited for this
			if c.parted {
				c.farewell()
			} else {
				c.soil()
			}
			return
		}
		c.handler.End(nil)
		return
	}
	closes := c.closes
	c.shut(true)
	if !closes {
		c.handler.End(err)
	}
}

// guard runs f, and keeps a panic in it from ending the process.
func (c *Conn) guard(f func()) {
	defer c.rescue()
	f()
}

// rescue is deferred around what concerns the connection. A panic ends the connection, and the handler is told, so that what
// belongs to it ends as well.
func (c *Conn) rescue() {
	if p := recover(); p != nil {
		c.loop.panicked(p)
		c.loop.guard(c.Abort)
		c.loop.guard(func() { c.handler.End(errPanic) })
	}
}
