package connect

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/message"
)

// Protocol is what a client speaks to the proxy.
type Protocol string

// The protocols. SOCKS4 is known in order to be refused in its own words.
const (
	HTTP   Protocol = "http"
	SOCKS5 Protocol = "socks5"
	SOCKS4 Protocol = "socks4"
)

// Authenticate reports whether a user, who says this password, may use the proxy. It takes as long for every password, or it
// tells the right one.
type Authenticate func(user, password string) bool

// Reason is why a client is refused, as far as its protocol has words for it.
type Reason uint8

// The reasons. The zero value says the least.
const (
	Failed         Reason = iota // 502 in HTTP, 1 (general SOCKS server failure) in SOCKS5
	Forbidden                    // 403, 2: no rule lets anybody go there
	NotAcceptable                // 502, 2: who is there is not let through by the rules
	Unreachable                  // 502, 4
	NobodyListens                // 502, 5
	NetUnreachable               // 502, 3
)

// Request is what a client asked for. It is answered once, by Succeed or by Refuse.
type Request struct {
	conn     net.Conn
	protocol Protocol
	target   string
	ahead    []byte
	verb     string          // the method of HTTP, as far as it is known
	version  message.Version // of HTTP
	fault    fault           // zero where the request is one
	answered bool
}

// Protocol is what the client speaks.
func (r *Request) Protocol() Protocol { return r.protocol }

// Target is where the client wants to go: "host:port" with the host as Host spells it. It is "" where Negotiate failed.
func (r *Request) Target() string { return r.target }

// Ahead is what the client sent behind its request, without waiting for an answer. It is the beginning of what is meant for
// the target, and as long as the head of a request at most.
func (r *Request) Ahead() []byte { return r.ahead }

var errAnswered = errors.New("the client has its answer already")

// answer writes an answer, and only one.
func (r *Request) answer(b []byte) error {
	if r.answered {
		return errAnswered
	}
	r.answered = true
	_, err := r.conn.Write(b)
	return err
}

// Succeed tells the client that what it sends from now on goes to the target.
func (r *Request) Succeed() error {
	switch {
	case r.target == "":
		return errors.New("there is no request to grant")
	case r.protocol == SOCKS5:
		return r.answer(socks5Reply(0))
	}
	b, err := httpSuccess(r.version)
	if err != nil {
		return err
	}
	return r.answer(b)
}

// Refuse tells the client that it does not get to its target. Where the request itself was wrong, the protocol says how, and
// why is not asked. fields and text are told where there is room for them, which is in HTTP; text is plain text. The
// connection is of no use afterwards.
func (r *Request) Refuse(why Reason, fields message.Fields, text string) error {
	switch {
	case r.protocol == HTTP:
		b, err := httpRefusal(r, why, fields, text)
		if err != nil {
			return err
		}
		return r.answer(b)
	case r.fault.reply != nil:
		return r.answer(r.fault.reply)
	case r.protocol == SOCKS5:
		return r.answer(socks5Reply(why.socks5()))
	}
	return r.answer(socks4Refusal())
}

// fault is what is wrong with a request, in words that never quote it: it may hold a password.
type fault struct {
	code   attest.Code
	reason string
	status int    // the answer in HTTP
	reply  []byte // the answer in SOCKS
}

func (f fault) err() error {
	return &attest.Error{Code: f.code, Check: "proxy.request", Err: errors.New(f.reason)}
}

// Negotiate reads a client's request from conn; users decides who may make one, and nil lets everybody. It ends when ctx does,
// and conn must have no deadline.
//
// The error is an *attest.Error. The Request beside it is nil where nothing can be said to the client, and otherwise is there
// to be refused.
func Negotiate(ctx context.Context, conn net.Conn, users Authenticate) (*Request, error) {
	// A client that sends one byte a second must not outlive ctx.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	n := negotiation{Request: Request{conn: conn}, users: users}
	err := n.run()
	if !stop() {
		return nil, &attest.Error{Code: attest.CodeTimeout, Check: "proxy.request", Got: "no whole request", Err: context.Cause(ctx)}
	}
	var f fault
	switch {
	case err == nil:
		n.ahead = n.buf
		return &n.Request, nil
	case errors.As(err, &f):
		if n.target = ""; n.protocol == "" {
			return nil, f.err()
		}
		n.fault = f
		return &n.Request, f.err()
	}
	return nil, &attest.Error{Code: attest.CodeProxyRequest, Check: "proxy.request", Got: "a connection that ended first", Err: err}
}

// Error makes a fault what negotiation's steps answer.
func (f fault) Error() string { return f.reason }

// negotiation is a Request in the making.
type negotiation struct {
	Request
	users Authenticate
	buf   []byte // read, and not used
}

// first is how much is made room for at first.
const first = 1 << 10

func (n *negotiation) run() error {
	n.buf = make([]byte, 0, first)
	if err := n.need(1); err != nil {
		return err
	}
	switch c := n.buf[0]; {
	case c == 5:
		n.protocol = SOCKS5
		return n.socks5()
	case c == 4:
		n.protocol = SOCKS4
		return misread("SOCKS4", socks4Refusal())
	case 'A' <= c && c <= 'Z':
		return n.http()
	case c == 0x16:
		return misread("TLS, where clients are taken in plain", nil)
	}
	return misread("neither HTTP nor SOCKS", nil)
}

// misread is the fault of a request in SOCKS, and of those whose protocol is not known.
func misread(reason string, reply []byte) error {
	return fault{code: attest.CodeProxyRequest, reason: reason, reply: reply}
}

// need reads until there are n bytes.
func (n *negotiation) need(count int) error {
	for len(n.buf) < count {
		n.buf = slices.Grow(n.buf, count-len(n.buf))
		if err := n.more(); err != nil {
			return err
		}
	}
	return nil
}

// more reads some bytes. There has to be room for them.
func (n *negotiation) more() error {
	k, err := n.conn.Read(n.buf[len(n.buf):cap(n.buf)])
	n.buf = n.buf[:len(n.buf)+k]
	if k > 0 {
		return nil // an error comes again
	}
	if err == nil {
		err = io.ErrNoProgress
	}
	return err
}

// take answers the next count bytes, which are there.
func (n *negotiation) take(count int) []byte {
	b := n.buf[:count]
	n.buf = n.buf[count:]
	return b
}
