package loop

import (
	"errors"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// again is what a Wire answers when it has nothing: crypto/tls takes it for an error that passes, and loses nothing by it.
type again struct{}

func (again) Error() string   { return "nothing has arrived" }
func (again) Timeout() bool   { return true }
func (again) Temporary() bool { return true }

var errAgain error = again{}

// Wire is a transport that TLS runs over: at first the connection that it was made of, for the handshake, and memory from
// when a loop has taken the connection over. It also notices the end of the transport: crypto/tls reports one between two
// records as a plain io.EOF, like the peer's own goodbye, although anyone on the path can forge it.
type Wire struct {
	net.Conn
	memory atomic.Bool  // it is memory, and not the connection, from now on
	direct sync.RWMutex // held by those who write to the connection itself
	in     []byte       // of the loop: what was read and TLS has not taken
	dry    bool         // of the loop: the connection has ended
	eof    atomic.Bool  // TLS was told so

	waits atomic.Bool // there is something in out

	mu     sync.Mutex
	sink   *polled // the loop's driver, once a loop has it
	out    []byte  // what TLS has written and the loop has not sent
	corked bool    // the loop is writing, and looks afterwards anyway
	sends  bool    // it is, and what TLS writes may leave at once
	ahead  int     // of that: at least so many bytes are still to come
	told   bool    // the loop knows that it is to look
	shut   bool    // nothing more is written
	cut    bool    // by Reset
}

// NewWire wraps a transport before the handshake.
func NewWire(raw net.Conn) *Wire {
	if w, ok := raw.(*Wire); ok {
		return w
	}
	return &Wire{Conn: raw}
}

// detach ends the use of the connection itself. It waits for writes under way.
func (w *Wire) detach() {
	w.direct.Lock()
	w.memory.Store(true)
	w.direct.Unlock()
}

// Truncated reports whether TLS has read an end of file that came from the transport.
func (w *Wire) Truncated() bool { return w.eof.Load() }

// Read is for TLS.
func (w *Wire) Read(p []byte) (int, error) {
	if !w.memory.Load() {
		n, err := w.Conn.Read(p)
		if errors.Is(err, io.EOF) {
			w.eof.Store(true)
		}
		return n, err
	}
	if len(w.in) == 0 {
		if w.dry {
			w.eof.Store(true)
			return 0, io.EOF
		}
		return 0, errAgain
	}
	n := copy(p, w.in)
	w.in = w.in[n:]
	return n, nil
}

// Write is for TLS. Whoever writes to a connection of a loop does so in the loop, but for what the layers between do on their
// own account, such as attesting anew.
func (w *Wire) Write(p []byte) (int, error) {
	if !w.memory.Load() {
		if n, err, done := w.through(p); done {
			return n, err
		}
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shut {
		return 0, net.ErrClosed
	}
	size := len(p)
	if w.sends && len(w.out) == 0 {
		// The loop is in the middle of a write, whoever this is, and neither closes the descriptor nor touches the driver.
		w.ahead -= size
		if p = p[w.sink.straight(p, w.ahead > 0):]; len(p) == 0 {
			return size, nil
		}
	}
	if w.out == nil {
		w.out = get()
	}
	w.out = append(w.out, p...)
	w.waits.Store(len(w.out) > 0)
	w.tell()
	return size, nil
}

// through writes to the connection itself, unless that is over.
func (w *Wire) through(p []byte) (n int, err error, done bool) {
	w.direct.RLock()
	defer w.direct.RUnlock()
	if w.memory.Load() {
		return 0, nil, false
	}
	n, err = w.Conn.Write(p)
	return n, err, true
}

// Close closes the transport. One that a loop has is closed by the loop, once what was written has left.
func (w *Wire) Close() error {
	if !w.memory.Load() {
		return w.Conn.Close()
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.shut {
		w.shut = true
		w.tell()
	}
	return nil
}

// tell makes the loop look at the wire.
func (w *Wire) tell() {
	if d := w.sink; d != nil && !w.told && !w.corked {
		w.told = true
		d.conn.loop.Do(d.look)
	}
}

// Reset breaks the connection off, in a way that the other end can't take for a proper end.
func (w *Wire) Reset() {
	if !w.memory.Load() {
		Reset(w.Conn)
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.shut, w.cut = true, true // or a goodbye could still leave before the loop gets to it
	if d := w.sink; d != nil {
		d.conn.loop.Do(func() { d.conn.finish(ErrReset) })
	} else { // no loop has come to it, and may never
		Reset(w.Conn)
	}
}

// cork keeps the loop, whose shelf that is, from being told of what it does itself. It brings the buffer, too: Write may be somebody
// else's.
func (w *Wire) cork(s *shelf) {
	w.mu.Lock()
	w.corked = true
	if w.out == nil {
		w.out = s.get()
	}
	w.mu.Unlock()
}

// open is cork for n bytes that the loop writes. What TLS makes of them, which is never less, is sent at once as far as the kernel
// takes it: a copy less, of what the processor has at hand.
func (w *Wire) open(n int) {
	w.mu.Lock()
	w.corked, w.sends, w.ahead = true, true, n
	w.mu.Unlock()
}

// adopt gives the wire to a loop, which looks at it afterwards.
func (w *Wire) adopt(d *polled) {
	w.mu.Lock()
	w.sink, w.told = d, true
	w.mu.Unlock()
}

// uncork ends either. What others did meanwhile is not lost: what they wrote is with what the loop wrote.
func (w *Wire) uncork(s *shelf) {
	w.mu.Lock()
	w.corked, w.sends = false, false
	if w.out != nil && len(w.out) == 0 {
		s.put(w.out)
		w.out = nil
	}
	if w.shut {
		w.tell()
	}
	w.mu.Unlock()
}

// heard forgets that the loop was told, and reports whether the wire was closed, and whether by Reset.
func (w *Wire) heard() (shut, cut bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.told = false
	return w.shut, w.cut
}

// take empties the wire of what is to be sent.
func (w *Wire) take() []byte {
	if !w.waits.Load() { // it is asked often, and seldom has anything
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	b := w.out
	w.out = nil
	w.waits.Store(false)
	return b
}

// SetDeadline has no effect in a loop, where nothing waits.
func (w *Wire) SetDeadline(t time.Time) error {
	if w.memory.Load() {
		return nil
	}
	return w.Conn.SetDeadline(t)
}

// SetReadDeadline is like SetDeadline.
func (w *Wire) SetReadDeadline(t time.Time) error {
	if w.memory.Load() {
		return nil
	}
	return w.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is like SetDeadline.
func (w *Wire) SetWriteDeadline(t time.Time) error {
	if w.memory.Load() {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

// Reset closes c in a way that the other end sees as an error.
func Reset(c net.Conn) {
	if w, ok := c.(*Wire); ok {
		w.Reset()
		return
	}
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
