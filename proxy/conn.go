package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/loop"
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

// link is a Conn in use. It counts application bytes and is what net/http gets to see. It has no ConnectionState method
// on purpose: net/http looks for the preface of HTTP/2 only on what does not look like TLS.
type link struct {
	net.Conn
	conn    Conn
	state   tls.ConnectionState
	stats   *counters
	closed  func(*link)
	once    sync.Once
	owned   atomic.Bool // by a loop
	in      atomic.Pointer[loop.Conn]
	forward atomic.Pointer[identity]
	address string // of the peer, without its port; made once
}

func newLink(conn Conn, stats *counters, closed func(*link)) *link {
	return &link{Conn: conn, conn: conn, state: conn.ConnectionState(), stats: stats, closed: closed}
}

// host is the address that the peer comes from, without its port.
func (l *link) host() string {
	if l.address == "" {
		l.address = addrString(l.conn.RemoteAddr())
		if host, _, err := net.SplitHostPort(l.address); err == nil {
			l.address = host
		}
	}
	return l.address
}

var errPanic = errors.New("panic in a connection")

// contain is deferred around everything that runs code of the connection: net/http reads from goroutines of its own, and
// a panic in one of those would end the process.
func contain(err *error) {
	if p := recover(); p != nil {
		*err = errPanic
	}
}

func (l *link) Read(p []byte) (n int, err error) {
	defer contain(&err)
	n, err = l.conn.Read(p)
	l.stats.in.Add(uint64(max(n, 0)))
	return n, err
}

func (l *link) Write(p []byte) (n int, err error) {
	defer contain(&err)
	n, err = l.conn.Write(p)
	l.stats.out.Add(uint64(max(n, 0)))
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
	raw := l.conn.NetConn()
	l.owned.Store(true)
	conn, err := in.Open(raw, l, nil)
	if err != nil {
		l.owned.Store(false)
		l.reset()
		return nil, err
	}
	l.in.Store(conn)
	return conn, nil
}

// reset closes without the alert of TLS that says "complete": a truncated answer must not look whole to the peer. It
// never waits for a peer that does not read.
func (l *link) reset() {
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
