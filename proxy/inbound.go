package proxy

import (
	"context"
	"log/slog"
	"net"

	"github.com/jurat-tls/jurat/attest"
)

// NewInboundHTTP serves HTTP/1.1 and HTTP/2 over attested connections from the service at backend. gRPC goes to it as
// HTTP/2 with prior knowledge, WebSocket as HTTP/1.1, and everything else as HTTP/1.1 unless backend says h2c.
func NewInboundHTTP(engine *Engine, handshake Handshake, backend Backend, logger *slog.Logger, limits Limits) (*Server, error) {
	if backend.target == "" {
		return nil, badBackend("", "an address")
	}
	if backend.proxy != 0 {
		return nil, badBackend(backend.String(), "no PROXY protocol for HTTP: requests of several clients share a connection")
	}
	s := newInbound(engine, handshake, logger, limits)
	h := newHTTPSide(engine, backend, s.limits, &s.stats, s.log)
	s.carry = func(_ net.Conn, l *link, logger *slog.Logger) { h.take(l, logger) }
	s.drain, s.release = h.drain, h.release
	return s, nil
}

// NewInboundTCP joins every attested connection with one of its own to the service at backend.
func NewInboundTCP(engine *Engine, handshake Handshake, backend Backend, logger *slog.Logger, limits Limits) (*Server, error) {
	if err := backend.CheckRaw(); err != nil {
		return nil, err
	}
	s := newInbound(engine, handshake, logger, limits)
	s.carry = func(_ net.Conn, l *link, logger *slog.Logger) {
		service, err := backend.open(s.ctx, l, nil, s.limits.Connect)
		if err != nil {
			logger.Error("service unreachable", "code", string(attest.CodeOf(err)), "error", err.Error())
			l.reset() // an empty answer would look whole
			return
		}
		join(engine, l, service, s.limits.Tunnel, logger)
	}
	return s, nil
}

func newInbound(engine *Engine, handshake Handshake, logger *slog.Logger, limits Limits) *Server {
	s := newServer(engine, limits, logger)
	s.hurries = true
	s.establish = func(ctx context.Context, raw net.Conn) (Conn, error) {
		raw = Watch(raw)
		// A peer that sends one byte a second must not outlive the limit, even if the handshake forgets to look.
		stop := context.AfterFunc(ctx, func() { _ = raw.Close() })
		conn, err := handshake(ctx, raw)
		stop()
		if err == nil {
			err = ctx.Err() // raw is closed, or about to be, or would be if the two had not met
		}
		return conn, err
	}
	s.judge = func(r *attest.Result) error {
		if r != nil && !r.Affirmed() {
			return r.Err()
		}
		return nil
	}
	s.refused = func(raw net.Conn, _ error) { _ = raw.Close() }
	return s
}
