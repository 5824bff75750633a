package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// Conn is an established attested connection.
type Conn interface {
	net.Conn
	// CloseWrite tells the peer, under the protection of TLS, that nothing more will follow.
	CloseWrite() error
	ConnectionState() tls.ConnectionState
	// NetConn is the transport below TLS.
	NetConn() net.Conn
	// Result is that of the peer; nil when the peer was not asked for evidence.
	Result() *attest.Result
}

// Handshake is the server's side: it makes raw an attested connection. No application byte moves before it returns. It
// ends when ctx does, and raw is then closed under it.
type Handshake func(ctx context.Context, raw net.Conn) (Conn, error)

// Dial is the client's side: it connects to the peer and appraises it. A connection whose Result is not affirmed is not
// used. Give the handshake a Watch of the transport below it.
type Dial func(ctx context.Context) (Conn, error)

// link is a Conn in use, on the side of a client or of a peer. It counts application bytes, and is what a loop drives above the
// transport.
type link struct {
	net.Conn
	conn    Conn
	state   tls.ConnectionState
	stats   *counters
	read    *atomic.Uint64 // counts bytes
	written *atomic.Uint64
	closed  func(*link)
	leave   func() // the peer has one connection less
	once    sync.Once
	owned   atomic.Bool // by a loop
	in      atomic.Pointer[loop.Conn]
	forward atomic.Pointer[identity]
	address string                          // of the peer, without its port; made once
	onward  netip.AddrPort                  // where it was going before it was brought here
	far     map[*Cluster]*upstream.Endpoint // what is there, for clusters that are that; of the loop
	plain   bool                            // there is nothing above the transport that belongs to this end
	turned  func(*attest.Result)            // of the loop: ends it where its peer is refused; nil has it cut off
	cut     atomic.Bool                     // reset was called
}

func newLink(conn Conn, stats *counters, closed func(*link)) *link {
	_, plain := conn.(interface{ unprotected() })
	return &link{Conn: conn, conn: conn, state: conn.ConnectionState(), stats: stats, read: &stats.in, written: &stats.out, closed: closed, plain: plain}
}

// heed has the connection end when a change of policy refuses its peer, which was affirmed. It is called where the end of the
// connection is accounted for.
func (l *link) heed() {
	if c, ok := l.conn.(interface{ OnRefused(func(*attest.Result)) }); ok {
		c.OnRefused(l.refuse)
	}
}

// refuse ends a connection whose peer is affirmed no more. It is called from anywhere, and does not wait.
func (l *link) refuse(r *attest.Result) {
	c := l.in.Load()
	if c == nil { // no loop has it yet, or is about to: open looks at what reset has set
		l.reset()
		return
	}
	in := c.Loop()
	in.Do(func() {
		in.Try(func() {
			if l.turned != nil {
				l.turned(r)
			} else {
				l.cutOff(c, r)
			}
		}, c.Abort)
	})
}

// explains reports whether cutOff tells the peer why.
func (l *link) explains() bool {
	e, ok := l.conn.(interface{ Explains() bool })
	return ok && e.Explains()
}

// cutOff breaks the connection off, in its loop, so that nothing that is under way looks whole to a peer that is refused. It is
// told why where its protocol can say it.
func (l *link) cutOff(c *loop.Conn, r *attest.Result) {
	if told, ok := l.conn.(interface{ RefuseSoon(*attest.Result) }); ok && c.Waits() {
		told.RefuseSoon(r) // an end that does not read would hold up all others of the loop
		return
	}
	if told, ok := l.conn.(interface{ Refuse(*attest.Result) }); ok {
		told.Refuse(r) // the loop comes to the end of it, and tells the handler
		return
	}
	loop.Reset(l.conn.NetConn())
	c.Break()
}

// host is the address that the peer comes from, without its port. The path of a socket is none: it could hold anything.
func (l *link) host() string {
	if l.address == "" {
		addr := l.conn.RemoteAddr()
		if _, ok := addr.(*net.UnixAddr); ok {
			l.address = "unknown"
			return l.address
		}
		l.address = addrString(addr)
		if host, _, err := net.SplitHostPort(l.address); err == nil {
			l.address = host
		}
	}
	return l.address
}

// Plain takes a client as it is, without a word about evidence. It is for listeners that this machine alone can reach.
func Plain(_ context.Context, raw net.Conn) (Conn, error) {
	if wire, ok := raw.(*loop.Wire); ok { // nothing is above it that would need one
		raw = wire.Conn
	}
	return plainConn{raw}, nil
}

// plainConn is a connection that was taken as it is.
type plainConn struct{ net.Conn }

func (c plainConn) CloseWrite() error {
	if w, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return w.CloseWrite()
	}
	return c.Conn.Close()
}

func (plainConn) unprotected()                           {}
func (c plainConn) ConnectionState() tls.ConnectionState { return tls.ConnectionState{} }
func (c plainConn) NetConn() net.Conn                    { return c.Conn }
func (c plainConn) Result() *attest.Result               { return nil }

var errPanic = errors.New("panic in a connection")

// contain is deferred around everything that runs code of the connection: a panic in one of the goroutines that do would end the
// process.
func contain(err *error) {
	if p := recover(); p != nil {
		*err = errPanic
	}
}

func (l *link) Read(p []byte) (n int, err error) {
	defer contain(&err)
	n, err = l.conn.Read(p)
	l.read.Add(uint64(max(n, 0)))
	return n, err
}

func (l *link) Write(p []byte) (n int, err error) {
	defer contain(&err)
	n, err = l.conn.Write(p)
	l.written.Add(uint64(max(n, 0)))
	return n, err
}

// CloseWrite ends our direction only.
func (l *link) CloseWrite() (err error) {
	defer contain(&err)
	return l.conn.CloseWrite()
}

// Close tells the peer that everything was sent.
func (l *link) Close() (err error) {
	defer func() {
		if !l.owned.Load() { // a loop may have much to send, or listen, before it is Gone
			l.Gone()
		}
	}()
	defer contain(&err)
	return l.conn.Close()
}

// Gone ends what the connection counts for.
func (l *link) Gone() { l.once.Do(func() { l.closed(l) }) }

// open gives the connection to a loop, whose it then is to say when it is Gone.
func (l *link) open(in *loop.Loop) (*loop.Conn, error) {
	var upper loop.Upper
	if !l.plain {
		upper = l
	}
	raw := l.conn.NetConn() // before the loop has anything to say
	l.owned.Store(true)
	conn, err := in.Open(raw, upper, nil)
	if err != nil {
		l.owned.Store(false)
		l.reset()
		return nil, err
	}
	if conn.OnClose(l.ended); l.plain { // nothing comes by Read and Write
		conn.Count(l.read, l.written)
	}
	l.in.Store(conn)
	if l.cut.Load() { // meanwhile, of which a loop that has taken the descriptor of a plain connection does not hear
		conn.Break()
	}
	return conn, nil
}

// ended follows the end of a connection, which the loop does not tell where there is nothing above the transport.
func (l *link) ended() {
	if l.plain {
		_ = l.conn.Close()
		l.Gone()
	}
}

// reset closes without the alert of TLS that says "complete": a truncated answer must not look whole to the peer. It
// never waits for a peer that does not read.
func (l *link) reset() {
	l.cut.Store(true)
	loop.Reset(l.conn.NetConn())
	_ = l.Close()
	if c := l.in.Load(); c != nil {
		c.Break()
	}
}

// Polled passes on that a loop reads whenever something has arrived.
func (l *link) Polled() bool {
	p, ok := l.conn.(interface{ Polled() bool })
	return ok && p.Polled()
}
