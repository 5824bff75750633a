package proxy

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// WebSocket is the one upgrade that is passed on. Within an exchange it is what HTTP/1.1 makes of it, a GET with Upgrade that 101
// answers (RFC 6455); an extended CONNECT (RFC 8441) is turned into that where it comes in, and back where it goes out. Nothing that
// a client says behind its request leaves before the service has agreed: to one that has not, it would be a request.

const webSocket = "websocket"

// Fields of a handshake that are of one connection of HTTP/1.1.
const (
	webSocketKey    = "Sec-WebSocket-Key"
	webSocketAccept = "Sec-WebSocket-Accept"
)

var (
	errNoUpgrade   = errors.New("the service answered an upgrade as if there were none")
	errNotAccepted = errors.New("the service agreed to an upgrade that it was not asked for")
)

func ofHandshake(name string) bool {
	return message.Same(name, webSocketKey) || message.Same(name, webSocketAccept)
}

// fromExtended turns an extended CONNECT into a GET with Upgrade.
func fromExtended(r *message.Request) {
	r.Method, r.Length, r.Expect = http.MethodGet, message.NoBody, false
	r.Fields = r.Fields.Remove(ofHandshake)
}

// extended is an upgrade as an extended CONNECT.
func extended(r message.Request) *message.Request {
	r.Method, r.Upgrade, r.Length, r.Expect = http.MethodConnect, webSocket, message.Unknown, false
	r.Fields = append(message.Fields(nil), r.Fields...).Remove(ofHandshake)
	return &r
}

// withKey is an upgrade that came without a key with one, and what its service has to accept it by.
func (w *worker) withKey(r message.Request) (*message.Request, string) {
	var nonce [16]byte
	binary.NativeEndian.PutUint64(nonce[:], w.random.Uint64())
	binary.NativeEndian.PutUint64(nonce[8:], w.random.Uint64())
	key := base64.StdEncoding.EncodeToString(nonce[:])
	r.Fields = append(append(make(message.Fields, 0, len(r.Fields)+1), r.Fields...), message.Field{Name: webSocketKey, Value: key})
	return &r, acceptOf(key)
}

// acceptOf is what answers a key (RFC 6455 section 4.2.2).
func acceptOf(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return base64.StdEncoding.EncodeToString(sum[:])
}

// accepted reports whether a 101 is one for the key, and takes what says so out of it.
func accepted(r *message.Response, accept string) bool {
	got := 0
	for _, f := range r.Fields {
		if message.Same(f.Name, webSocketAccept) {
			if got++; f.Value != accept {
				return false
			}
		}
	}
	r.Fields = r.Fields.Remove(ofHandshake)
	return got == 1 && strings.EqualFold(r.Upgrade, webSocket)
}

// switching turns what agrees to an extended CONNECT into what agrees to an upgrade, with what answers the key of a client that
// has said one.
func switching(req *message.Request, r *message.Response) {
	r.Status, r.Reason, r.Upgrade, r.Length = http.StatusSwitchingProtocols, http.StatusText(http.StatusSwitchingProtocols), webSocket, message.NoBody
	r.Fields = r.Fields.Remove(ofHandshake)
	if key, ok := req.Fields.Get(webSocketKey); ok {
		r.Fields = append(r.Fields, message.Field{Name: webSocketAccept, Value: acceptOf(key)})
	}
}

// extendable reports whether an upgrade can go as an extended CONNECT: it is a handshake of WebSocket, whose key the proxy answers then.
func extendable(r *message.Request) bool {
	switch {
	case r.Version == message.HTTP2:
		return true
	case r.Method != http.MethodGet: // which an extended CONNECT would be
		return false
	}
	keys := 0
	for _, f := range r.Fields {
		if message.Same(f.Name, webSocketKey) {
			var nonce [18]byte
			n, err := base64.StdEncoding.Strict().Decode(nonce[:], []byte(f.Value[:min(len(f.Value), 24)]))
			if keys++; err != nil || n != 16 || len(f.Value) != 24 {
				return false
			}
		}
	}
	return keys == 1
}

// isExtended reports whether the request came as an extended CONNECT, to which an answer of 2xx means that there is a tunnel.
func (x *exchange) isExtended() bool { return x.req.Upgrade != "" && x.req.Version == message.HTTP2 }

// carry goes on, after the client has been told of 101, with the bytes of both directions.
func (x *exchange) carry(as origin) {
	l := x.worker.loop
	l.Stop(&x.timer)
	l.Stop(&x.stall)
	l.Stop(&x.idle)
	x.as, x.tunnel, x.ended, x.slow = as, true, false, false
	x.touch()
	if d, ok := x.client.(*front1); ok {
		d.carry()
	}
	x.client.hold(false)
}

// parted ends a tunnel of which both directions have ended.
func (x *exchange) parted() {
	if x.open {
		x.part()
		x.client.leave()
		x.report()
	}
}

// raw1 is a connection of HTTP/1.1 behind an upgrade, at either end of an exchange whose other end is a stream of HTTP/2.
type raw1 struct {
	conn  *loop.Conn
	x     *exchange
	front bool // the client's
}

// carry takes what the client sends for the bytes of a tunnel.
func (d *front1) carry() {
	t := &raw1{conn: d.conn, x: &d.x, front: true}
	delete(d.worker.clients, d)
	d.link.turned = nil
	d.worker.loop.Stop(&d.timer)
	d.x.client = t
	d.conn.SetHandler(t)
	d.conn.Resume() // so much may have come ahead that it was paused
	if ahead := d.rest; len(ahead) > 0 {
		d.rest = nil
		t.Data(ahead)
	}
}

// Data passes on what has arrived.
func (t *raw1) Data(p []byte) {
	if t.front {
		t.x.requestBody(p, false)
	} else {
		t.x.responseBody(p, false)
	}
}

// Drained lets the other end go on.
func (t *raw1) Drained() {
	switch {
	case !t.x.open:
	case t.front:
		t.x.clientReady()
	default:
		t.x.serviceReady()
	}
}

// End passes on the end of this direction.
func (t *raw1) End(err error) {
	switch {
	case err == nil && t.front:
		t.x.requestBody(nil, true)
	case err == nil:
		t.x.responseBody(nil, true)
	case t.front:
		t.x.clientGone()
	default:
		t.x.serviceGone(err, true)
	}
}

func (t *raw1) body(p []byte, last bool) bool {
	more := t.conn.Write(p)
	if last {
		t.conn.CloseWrite()
	}
	return more
}

func (t *raw1) finish(message.Fields) { t.conn.CloseWrite() }

func (t *raw1) respond(*message.Response, bool) error { return errNoUpgrade }

func (t *raw1) abort() { t.conn.Abort() }

// leave ends the connection, once what was written has left.
func (t *raw1) leave() { t.conn.Linger() }

func (t *raw1) hold(held bool) {
	if held {
		t.conn.Pause()
	} else {
		t.conn.Resume()
	}
}

func (t *raw1) hasEnded() bool   { return t.x.ended }
func (t *raw1) moved() time.Time { return t.conn.Moved() }
func (t *raw1) serve(*exchange)  {}
