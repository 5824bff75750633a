package proxy

import (
	"log/slog"

	"github.com/jurat-tls/jurat/proxy/loop"
)

// Engine is what moves the bytes of established connections. Servers share one.
type Engine struct{ group *loop.Group }

// NewEngine starts an Engine of n event loops; 0 means one for each processor that Go uses.
func NewEngine(n int, logger *slog.Logger) (*Engine, error) {
	return newEngine(loop.NewGroup(n, logger))
}

// NewPortableEngine is NewEngine by means that every system has. On others than Linux the two are the same.
func NewPortableEngine(n int, logger *slog.Logger) (*Engine, error) {
	return newEngine(loop.NewPortableGroup(n, logger))
}

func newEngine(g *loop.Group, err error) (*Engine, error) {
	if err != nil {
		return nil, err
	}
	return &Engine{g}, nil
}

// Close cuts off what is left. The servers are shut down before.
func (e *Engine) Close() error { return e.group.Close() }
