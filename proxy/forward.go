package proxy

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/connect"
	"github.com/jurat-tls/jurat/proxy/loop"
	"github.com/jurat-tls/jurat/proxy/message"
)

// DialTarget is Dial for a target that a client chose: "host:port", where host is a name in small letters or an IP address. It
// decides which policy covers the target, and answers an error with attest.CodeNoPolicy where none does.
type DialTarget func(ctx context.Context, target string) (Conn, error)

// NewForward is a forward proxy for programs of this machine, which say by HTTP CONNECT or SOCKS5 where they want to go. What
// holds for NewOutbound holds here: a program hears of success, and the peer gets a byte, when the peer is affirmed. Whoever
// can connect to the listener uses the proxy, and with it the identity that dial presents.
func NewForward(engine *Engine, dial DialTarget, logger *slog.Logger, limits Limits) *Server {
	return NewForwardFor(engine, nil, dial, logger, limits)
}

// NewForwardFor is NewForward for those alone who say a user and password: in SOCKS5 as RFC 1929 has it, in HTTP by Basic
// authentication. nil lets everybody in.
func NewForwardFor(engine *Engine, users connect.Authenticate, dial DialTarget, logger *slog.Logger, limits Limits) *Server {
	var s *Server
	s = newOutbound(engine, func(ctx context.Context, raw net.Conn) (Conn, error) {
		c := raw.(*caller)
		var err error
		if c.request, err = negotiate(ctx, c.Conn, users, s.limits.Header); err != nil {
			return nil, err
		}
		return dial(withClient(ctx, raw), c.request.Target())
	}, logger, limits)
	s.wrap = func(raw net.Conn) net.Conn { return &caller{Conn: raw} }
	s.refused = func(raw net.Conn, err error) {
		if c, ok := raw.(*caller); ok && s.ctx.Err() == nil { // it is none before it may ask for anything
			c.refuse(err)
		}
		_ = raw.Close()
	}
	s.carry = func(raw net.Conn, l *link, logger *slog.Logger) {
		c := raw.(*caller)
		if err := c.request.Succeed(); err != nil { // few bytes, for which there is room whether or not the client reads
			logger.Info("connection broken", "error", err.Error())
			l.reset()
			loop.Reset(c.Conn)
			return
		}
		joinBehind(engine, l, c.Conn, c.request.Ahead(), s.limits.Tunnel, logger, s.carriedOut(l, c.Conn, c.request.Target()))
	}
	return s
}

func negotiate(ctx context.Context, raw net.Conn, users connect.Authenticate, limit time.Duration) (*connect.Request, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	return connect.Negotiate(ctx, raw, users)
}

// caller is a client of a forward proxy, and what it asked for.
type caller struct {
	net.Conn
	request *connect.Request // nil as long as there is nothing to answer
}

// SetLinger lets the connection be reset.
func (c *caller) SetLinger(sec int) error {
	if t, ok := c.Conn.(interface{ SetLinger(int) error }); ok {
		return t.SetLinger(sec)
	}
	return errors.ErrUnsupported
}

// refuse tells the client why it does not get where it wanted to, as far as its protocol can.
func (c *caller) refuse(err error) {
	if c.request == nil {
		return
	}
	_ = c.SetDeadline(time.Now().Add(apologyTime))
	code := message.Field{Name: HeaderError, Value: string(attest.CodeOf(err))}
	if c.request.Refuse(reason(err), message.Fields{code}, apology(err)) == nil {
		hangUp(c.Conn)
	}
}

// reason is what the protocols know of an error.
func reason(err error) connect.Reason {
	switch code := attest.CodeOf(err); code {
	case attest.CodeNoPolicy:
		return connect.Forbidden
	case attest.CodeUnreachable, attest.CodeTimeout:
		switch {
		case errors.Is(err, syscall.ECONNREFUSED):
			return connect.NobodyListens
		case errors.Is(err, syscall.ENETUNREACH):
			return connect.NetUnreachable
		}
		return connect.Unreachable
	default:
		if exit := code.Exit(); 4 <= exit && exit <= 6 { // the peer's evidence is missing, wrong or refused
			return connect.NotAcceptable
		}
		return connect.Failed
	}
}

type clientKey struct{}

func withClient(ctx context.Context, raw net.Conn) context.Context {
	return context.WithValue(ctx, clientKey{}, raw.RemoteAddr())
}

// ClientAddr is the address of the client for whom a DialTarget is asked, from the context that it was given: a connection can
// then come from there (transparent.Outgoing). It is nil elsewhere.
func ClientAddr(ctx context.Context) net.Addr {
	a, _ := ctx.Value(clientKey{}).(net.Addr)
	return a
}
