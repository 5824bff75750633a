package main

import (
	"io"
	"log/slog"
	"math"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/exp/zapslog"
	"go.uber.org/zap/zapcore"
)

// newLogger logs to w what is at level or above: text for people, or JSON.
func newLogger(w io.Writer, asJSON bool, level slog.Leveler) *slog.Logger {
	config := zap.NewProductionEncoderConfig()
	config.EncodeTime = zapcore.RFC3339TimeEncoder
	encoder := zapcore.NewConsoleEncoder(config)
	if asJSON {
		encoder = zapcore.NewJSONEncoder(config)
	}
	core := zapcore.NewCore(encoder, &writer{w: w}, zap.LevelEnablerFunc(func(l zapcore.Level) bool { return slog.Level(4*l) >= level.Level() }))
	return slog.New(zapslog.NewHandler(core, zapslog.AddStacktraceAt(slog.Level(math.MaxInt))))
}

// writer keeps lines of concurrent connections apart.
type writer struct {
	mu sync.Mutex
	w  io.Writer
}

func (w *writer) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w.Write(p)
}

func (*writer) Sync() error { return nil }
