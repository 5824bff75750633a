package session

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/ratls/ea"
)

// Conn carries the application's bytes over a connection whose ends have attested, and attests anew while it is open. It is
// safe for concurrent use.
type Conn struct {
	tls      *tls.Conn
	state    tls.ConnectionState
	role     ea.Role
	peer     string
	auth     *ea.Conn
	verifier Verifier
	prover   Prover
	now      func() time.Time
	opts     Options
	protocol string

	found   atomic.Pointer[finding] // about the other end; nil where it is not asked
	own     atomic.Pointer[Own]     // what this end presented last
	failure atomic.Pointer[error]   // why this end closed the connection; nothing of the application moves from then on

	failing chan struct{} // closed once the other end was told of the failure
	told    atomic.Bool   // the other end has given up, and listens to nothing any more

	life   context.Context // ends with the connection
	cancel context.CancelFunc

	rmu   sync.Mutex
	in    reader
	ended atomic.Bool // the other end sends no more of the application's bytes
	polls atomic.Bool // Read is called whenever something has arrived

	amu     sync.Mutex // of the application's writes, each of which may be many frames; before wmu
	wmu     sync.Mutex // of one frame
	closing bool       // this end sends no more of them either
	out     []byte
	writing atomic.Int32 // the application's writes under way, which may take for ever

	smu       sync.Mutex // of what follows
	open      *question
	asking    bool // from when the other end is asked until its answer was judged
	answering bool
	answered  [ChallengeSize]byte // the last challenge that was answered
	timer     *time.Timer
}

// finding is what is known of the other end.
type finding struct {
	result    *attest.Result
	presented *Presented
}

// Result is the last affirmed Attestation Result of the other end; nil at a server that does not ask its clients.
func (c *Conn) Result() *attest.Result {
	if f := c.found.Load(); f != nil {
		return f.result
	}
	return nil
}

// Presented is what the other end showed for that Result; after a reconnect, what it showed in the session before. It is
// nil when Result is.
func (c *Conn) Presented() *Presented {
	if f := c.found.Load(); f != nil {
		return f.presented
	}
	return nil
}

// ConnectionState is that of TLS, with the protocol that the application speaks and the certificates that the other end
// attested.
func (c *Conn) ConnectionState() tls.ConnectionState {
	s := c.state
	s.NegotiatedProtocol = c.protocol
	if p := c.Presented(); p != nil {
		s.PeerCertificates = nil
		for _, der := range p.Chain {
			if cert, err := x509.ParseCertificate(der); err == nil {
				s.PeerCertificates = append(s.PeerCertificates, cert)
			}
		}
	}
	return s
}

// Read reads the application's bytes. It answers io.EOF only where the other end has said that it sends no more.
func (c *Conn) Read(p []byte) (int, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	if c.ended.Load() && c.polls.Load() {
		return 0, c.after()
	}
	for !c.ended.Load() {
		if failure := c.failed(); failure != nil {
			return 0, failure
		}
		if err := c.in.header(); err != nil {
			return 0, c.broken(err)
		}
		if c.in.kind != kindData {
			if err := c.control(); err != nil {
				return 0, err
			}
			continue
		}
		if len(p) == 0 {
			return 0, nil
		}
		n, err := c.tls.Read(p[:min(len(p), c.in.left)])
		if c.in.left -= n; c.in.left == 0 {
			c.in.done()
		}
		if n > 0 {
			return n, nil
		}
		if err != nil {
			return 0, c.broken(err)
		}
	}
	return 0, io.EOF
}

// broken is the error of a read that failed. An end of the transport is none of the stream: anyone on the path can make it.
func (c *Conn) broken(err error) error {
	if passing, ok := err.(net.Error); ok && passing.Timeout() && c.failure.Load() == nil {
		return err
	}
	var coded *attest.Error
	if errors.As(err, &coded) {
		return c.fail(err)
	}
	if failure := c.failed(); failure != nil {
		return failure
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// control takes a frame that is not the application's.
func (c *Conn) control() error {
	k := c.in.kind
	body, err := c.in.payload()
	if err != nil {
		return c.broken(err)
	}
	switch k {
	case kindEnd:
		c.ended.Store(true)
		if !c.polls.Load() {
			go c.heed()
		}
	case kindRequest:
		err = c.answer(body)
	case kindAuthenticator:
		err = c.examine(body)
	case kindVerdict:
		var v verdict
		if err = decode(body, &v); err == nil {
			c.told.Store(!v.Affirmed)
			err = v.refusal()
		}
	default:
		err = malformed(fmt.Sprintf("%s on an open connection", k), nil)
	}
	if err != nil {
		return c.fail(err)
	}
	return nil
}

// Polled says that from now on Read is called whenever something has arrived, after its io.EOF too, on a transport that does
// not wait: nothing of the connection then waits for what arrives. It answers true: there is something to read for after that.
func (c *Conn) Polled() bool {
	c.polls.Store(true)
	return true
}

// after is listen where Read is called for it. The answer is why the connection was closed, or io.EOF.
func (c *Conn) after() error {
	c.heed()
	if failure := c.failed(); failure != nil {
		return failure
	}
	return io.EOF
}

// heed goes on after the application's bytes have ended: until the connection does, either end may be asked again. Where it
// waits, no read touches what comes from then on, so that none has to wait for it.
func (c *Conn) heed() {
	for c.in.header() == nil {
		if c.in.kind == kindData || c.in.kind == kindEnd {
			_ = c.fail(malformed("more after the end", nil))
			return
		}
		if c.control() != nil {
			return
		}
	}
}

// shared is how much of a write is copied behind the header of its frame, to share a TLS record with it. The rest is
// written from where it is.
const shared = 4<<10 - headerSize

// Write writes the application's bytes.
func (c *Conn) Write(p []byte) (int, error) {
	c.writing.Add(1)
	defer c.writing.Add(-1)
	c.amu.Lock()
	defer c.amu.Unlock()
	written := 0
	for {
		n, err := c.data(p[written:min(len(p), written+maxData)])
		written += n
		if err != nil {
			return written, c.broken(err)
		}
		if written == len(p) {
			return written, nil
		}
	}
}

// data writes one frame of the application's bytes, and leaves the turn to others.
func (c *Conn) data(part []byte) (int, error) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if failure := c.failed(); failure != nil {
		return 0, failure
	}
	if c.closing {
		return 0, net.ErrClosed
	}
	first := part[:min(len(part), shared)]
	c.out = append(header(c.out[:0], kindData, len(part)), first...)
	n, err := c.tls.Write(c.out)
	written := max(n-headerSize, 0)
	if rest := part[len(first):]; err == nil && len(rest) > 0 {
		n, err = c.tls.Write(rest)
		written += n
	}
	return written, err
}

// send writes a frame that is not the application's.
func (c *Conn) send(k kind, body []byte) {
	c.wmu.Lock()
	defer c.wmu.Unlock()
	c.write(k, body)
}

// write is send for who holds wmu.
func (c *Conn) write(k kind, body []byte) {
	_, _ = c.tls.Write(frame(nil, k, body)) // what can't be sent is not answered
}

// CloseWrite tells the other end that the application sends no more. TLS stays open both ways, so that either end can still
// attest anew.
func (c *Conn) CloseWrite() error {
	c.amu.Lock() // the end is not said in the middle of a write
	defer c.amu.Unlock()
	c.wmu.Lock()
	defer c.wmu.Unlock()
	if c.closing {
		return nil
	}
	if failure := c.failed(); failure != nil { // its reader may close it before the peer has been told: it must not look whole
		return failure
	}
	c.closing = true
	_, err := c.tls.Write(frame(nil, kindEnd, nil))
	return err
}

// Close tells the other end that everything was sent, and closes.
func (c *Conn) Close() error {
	c.halt()
	if c.failed() != nil {
		<-c.failing // the other end is told why, for which there is a moment, and it is closed
		return nil
	}
	if c.writing.Load() == 0 { // else a write is cut short, and the other end must see that
		_ = c.tls.SetWriteDeadline(time.Now().Add(closeTimeout))
		_ = c.CloseWrite()
	}
	return c.tls.Close()
}

// closeTimeout is the time that the last frame has, as crypto/tls gives its last alert.
const closeTimeout = 5 * time.Second

// halt ends what goes on behind the connection.
func (c *Conn) halt() {
	c.cancel()
	c.stopTimer()
}

// NetConn is the transport below TLS.
func (c *Conn) NetConn() net.Conn { return c.tls.NetConn() }

// LocalAddr is that of the transport.
func (c *Conn) LocalAddr() net.Addr { return c.tls.LocalAddr() }

// RemoteAddr is that of the transport.
func (c *Conn) RemoteAddr() net.Addr { return c.tls.RemoteAddr() }

// SetDeadline is that of the transport.
func (c *Conn) SetDeadline(t time.Time) error { return c.tls.SetDeadline(t) }

// SetReadDeadline is that of the transport.
func (c *Conn) SetReadDeadline(t time.Time) error { return c.tls.SetReadDeadline(t) }

// SetWriteDeadline is that of the transport.
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.tls.SetWriteDeadline(t) }

func (c *Conn) failed() error {
	if err := c.failure.Load(); err != nil {
		return *err
	}
	return nil
}

// fail closes the connection for good: nothing more moves either way. The first reason stands, and is what every read and
// write answers from then on.
func (c *Conn) fail(err error) error {
	if !c.failure.CompareAndSwap(nil, &err) {
		return c.failed()
	}
	c.giveUp(err)
	return err
}

// giveUp tells the other end, unless that has given up before, and closes.
func (c *Conn) giveUp(err error) {
	defer close(c.failing)
	c.halt()
	_ = c.tls.SetWriteDeadline(time.Now().Add(farewell)) // a write that is stuck ends too
	c.wmu.Lock()
	c.closing = true
	if !c.told.Load() {
		_, _ = c.tls.Write(frame(nil, kindVerdict, encode(verdict{Code: string(attest.CodeOf(err))})))
	}
	c.wmu.Unlock()
	// Not with the alert of TLS that says all is well: what was cut off must not look whole.
	_ = c.tls.NetConn().Close()
}
