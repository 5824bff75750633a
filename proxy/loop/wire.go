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
	sink atomic.Pointer[polled] // the loop's driver, once a loop has it
	in   []byte                 // of the loop: what was read and TLS has not taken
	eof  atomic.Bool

	mu   sync.Mutex
	out  []byte // what TLS has written and the loop has not sent
	told bool   // the loop knows that it is to look
	shut bool
}

// NewWire wraps a transport before the handshake.
func NewWire(raw net.Conn) *Wire {
	if w, ok := raw.(*Wire); ok {
		return w
	}
	return &Wire{Conn: raw}
}

// Truncated reports whether the end of file that was read came from the transport.
func (w *Wire) Truncated() bool { return w.eof.Load() }

// Read is for TLS.
func (w *Wire) Read(p []byte) (int, error) {
	if w.sink.Load() == nil {
		n, err := w.Conn.Read(p)
		if errors.Is(err, io.EOF) {
			w.eof.Store(true)
		}
		return n, err
	}
	if len(w.in) == 0 {
		if w.eof.Load() {
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
	if w.sink.Load() == nil {
		return w.Conn.Write(p)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.shut {
		return 0, net.ErrClosed
	}
	if w.out == nil {
		w.out = get()
	}
	w.out = append(w.out, p...)
	w.tell()
	return len(p), nil
}

// Close closes the transport. One that a loop has is closed by the loop, once what was written has left.
func (w *Wire) Close() error {
	if w.sink.Load() == nil {
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
	if !w.told {
		w.told = true
		d := w.sink.Load()
		d.conn.loop.Do(d.look)
	}
}

// cork keeps the loop from being told of what it does itself.
func (w *Wire) cork(corked bool) {
	w.mu.Lock()
	w.told = corked
	w.mu.Unlock()
}

// take empties the wire of what is to be sent.
func (w *Wire) take() []byte {
	w.mu.Lock()
	b := w.out
	w.out = nil
	w.mu.Unlock()
	return b
}

// SetDeadline has no effect in a loop, where nothing waits.
func (w *Wire) SetDeadline(t time.Time) error {
	if w.sink.Load() != nil {
		return nil
	}
	return w.Conn.SetDeadline(t)
}

// SetReadDeadline is like SetDeadline.
func (w *Wire) SetReadDeadline(t time.Time) error {
	if w.sink.Load() != nil {
		return nil
	}
	return w.Conn.SetReadDeadline(t)
}

// SetWriteDeadline is like SetDeadline.
func (w *Wire) SetWriteDeadline(t time.Time) error {
	if w.sink.Load() != nil {
		return nil
	}
	return w.Conn.SetWriteDeadline(t)
}

// Reset closes c in a way that the other end sees as an error.
func Reset(c net.Conn) {
	if w, ok := c.(*Wire); ok {
		c = w.Conn
	}
	if t, ok := c.(interface{ SetLinger(int) error }); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
