package proxy

import (
	"context"
	"log/slog"
	randv2 "math/rand/v2"
	"net"
	"time"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/proxy/upstream"
)

// NewInboundHTTP is NewHTTP for attested clients of the service at backend. gRPC goes to it as HTTP/2 with prior knowledge, and
// everything else as HTTP/1.1 unless backend says h2c; WebSocket goes in HTTP/1.1 there too, unless the service takes it in HTTP/2.
func NewInboundHTTP(engine *Engine, handshake Handshake, backend Backend, logger *slog.Logger, limits Limits) (*Server, error) {
	if backend.target == "" {
		return nil, badBackend("", "an address")
	}
	if backend.proxy != 0 {
		return nil, badBackend(backend.String(), "no PROXY protocol for HTTP: requests of several clients share a connection")
	}
	c, err := backend.Cluster(limits.withDefaults().Connect)
	if err != nil {
		return nil, err
	}
	return NewHTTP(engine, handshake, RouteTo(c), logger, limits), nil
}

// NewHTTP serves HTTP/1.1 and HTTP/2 over the connections that handshake makes, as routing says.
func NewHTTP(engine *Engine, handshake Handshake, routing *Routing, logger *slog.Logger, limits Limits) *Server {
	s := newInbound(engine, handshake, logger, limits)
	h := newHTTPSide(engine, routing, s.limits, s.stats, s.log)
	s.http = h
	s.carry = func(_ net.Conn, l *link, logger *slog.Logger) { h.take(l, logger) }
	s.drain, s.ease, s.release = h.drain, h.ease, h.release
	return s
}

// Reroute replaces what becomes of the requests that begin from now on. It answers false where s does not serve HTTP.
func (s *Server) Reroute(routing *Routing) bool {
	if s.http != nil {
		s.http.routing.Store(routing)
	}
	return s.http != nil
}

// NewInboundTCP is NewTCP for attested clients of the service at backend.
func NewInboundTCP(engine *Engine, handshake Handshake, backend Backend, logger *slog.Logger, limits Limits) (*Server, error) {
	if err := backend.CheckRaw(); err != nil {
		return nil, err
	}
	c, err := backend.Cluster(limits.withDefaults().Connect)
	if err != nil {
		return nil, err
	}
	return NewTCP(engine, handshake, c, logger, limits), nil
}

// NewTCP joins every connection that handshake makes with one of its own to an endpoint of the cluster.
func NewTCP(engine *Engine, handshake Handshake, cluster *Cluster, logger *slog.Logger, limits Limits) *Server {
	s := newInbound(engine, handshake, logger, limits)
	s.carry = func(_ net.Conn, l *link, logger *slog.Logger) {
		began := time.Now()
		to, done, err := cluster.raw(withOnward(s.ctx, l.onward), l, nil, randv2.Uint64)
		if err != nil {
			s.unreached(began, l, cluster, err)
			logger.Error("service unreachable", "code", string(attest.CodeOf(err)), "error", err.Error())
			l.reset() // an empty answer would look whole
			return
		}
		s.joined(l, to, cluster, began, done, logger)
	}
	return s
}

// joined moves bytes between a client and an endpoint of a cluster.
func (s *Server) joined(l *link, to net.Conn, cluster *Cluster, began time.Time, done func(upstream.Outcome), logger *slog.Logger) {
	var peer *attest.Result
	if far, ok := to.(*link); ok {
		peer = far.conn.Result()
	}
	told := s.carried(l, began, cluster.balance.Name(), addrString(to.RemoteAddr()), peer)
	join(s.engine, l, to, s.limits.Tunnel, logger, func(how ending, received, sent uint64) {
		done(how.outcome())
		told(how, received, sent)
	})
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
