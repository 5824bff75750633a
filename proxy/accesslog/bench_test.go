package accesslog_test

import (
	"io"
	"testing"

	"github.com/jurat-tls/jurat/proxy/accesslog"
)

func BenchmarkAppend(b *testing.B) {
	plain := full()
	plain.Downstream, plain.Upstream = nil, nil
	for _, c := range []struct {
		name   string
		format func([]byte, *accesslog.Record) []byte
		record *accesslog.Record
	}{
		{"text", accesslog.AppendText, full()},
		{"json", accesslog.AppendJSON, full()},
		{"text without peers", accesslog.AppendText, plain},
		{"json without peers", accesslog.AppendJSON, plain},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			var buf []byte
			for b.Loop() {
				buf = c.format(buf[:0], c.record)
			}
			b.SetBytes(int64(len(buf)))
		})
	}
}

func BenchmarkLog(b *testing.B) {
	for _, c := range []struct {
		name string
		w    *accesslog.Writer
	}{
		{"off", nil},
		{"json", newWriter(b, accesslog.Stream(io.Discard), accesslog.Options{Format: accesslog.JSON})},
		{"text", newWriter(b, accesslog.Stream(io.Discard), accesslog.Options{})},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				r := full()
				for pb.Next() {
					c.w.Log(r)
				}
			})
		})
		closeWriter(b, c.w)
	}
}
