package proxy

import (
	"context"
	"log/slog"
	"net"

	"github.com/jurat-tls/jurat/proxy/transparent"
)

// NewTransparent is NewOutbound for connections that the kernel's rules bring here although they were meant for others: each
// goes on to where it was going, "address:port", and the clients know of no proxy. The listeners come from
// transparent.Listen or transparent.Adopt. dial makes its connections by transparent.Outgoing, or the rules bring them here again.
func NewTransparent(engine *Engine, mode transparent.Mode, dial DialTarget, logger *slog.Logger, limits Limits) *Server {
	return newOutbound(engine, func(ctx context.Context, raw net.Conn) (Conn, error) {
		to, err := transparent.Destination(mode, raw)
		if err != nil {
			return nil, err
		}
		return dial(withClient(ctx, raw), to.String())
	}, logger, limits)
}
