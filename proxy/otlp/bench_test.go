package otlp_test

import (
	"context"
	"errors"
	"net"
	"testing"

	"github.com/jurat-tls/jurat/proxy/otlp"
	"github.com/jurat-tls/jurat/proxy/trace"
)

type keep struct{ r *trace.Record }

func (k *keep) Take(r *trace.Record) { k.r = r }

// BenchmarkTake is what an event loop spends on a span that has ended, with a queue that is full most of the time.
func BenchmarkTake(b *testing.B) {
	e := start(b, otlp.Config{Endpoint: localhost}, otlp.Inputs{Dial: func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("down") }})
	var k keep
	record(tracer(b, &k))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			e.Take(k.r)
		}
	})
	ctx, cancel := context.WithCancel(b.Context())
	cancel()
	_ = e.Shutdown(ctx)
}
