package h2_test

import (
	"testing"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

// ears are a handler of both ends made of functions, each of which may be missing.
type ears struct {
	request  func(s *h2.Stream, r *message.Request, end bool)
	response func(s *h2.Stream, r *message.Response, end bool)
	data     func(s *h2.Stream, p []byte, end bool)
	trailers func(s *h2.Stream, f message.Fields)
	writable func(s *h2.Stream)
	closed   func(s *h2.Stream, why h2.Cause)
	goAway   func(c *h2.Conn, last uint32, code h2.ErrCode)
}

func (e *ears) Request(s *h2.Stream, r *message.Request, end bool) {
	if e.request != nil {
		e.request(s, r, end)
	}
}

func (e *ears) Response(s *h2.Stream, r *message.Response, end bool) {
	if e.response != nil {
		e.response(s, r, end)
	}
}

func (e *ears) Data(s *h2.Stream, p []byte, end bool) {
	if e.data != nil {
		e.data(s, p, end)
		return
	}
	s.Consumed(len(p))
}

func (e *ears) Trailers(s *h2.Stream, f message.Fields) {
	if e.trailers != nil {
		e.trailers(s, f)
	}
}

func (e *ears) Writable(s *h2.Stream) {
	if e.writable != nil {
		e.writable(s)
	}
}

func (e *ears) Closed(s *h2.Stream, why h2.Cause) {
	if e.closed != nil {
		e.closed(s, why)
	}
}

func (e *ears) GoAway(c *h2.Conn, last uint32, code h2.ErrCode) {
	if e.goAway != nil {
		e.goAway(c, last, code)
	}
}

// exchange carries bytes between two ends until neither has any.
func exchange(t testing.TB, a, b *h2.Conn) {
	t.Helper()
	for moved := true; moved; {
		moved = false
		for _, way := range [2][2]*h2.Conn{{a, b}, {b, a}} {
			if out := way[0].Output(); len(out) > 0 {
				if err := way[1].Feed(0, out); err != nil {
					t.Fatal(err)
				}
				way[0].Sent(len(out))
				moved = true
			}
		}
	}
}

var call = message.Request{
	Method: "POST", Scheme: "http", Authority: "service.test:8443", Path: "/helloworld.Greeter/SayHello", Trailers: true,
	Length: message.Unknown,
	Fields: message.Fields{
		{Name: "content-type", Value: "application/grpc"},
		{Name: "user-agent", Value: "grpc-go/1.85.0"},
		{Name: "grpc-accept-encoding", Value: "gzip"},
		{Name: "jurat-result", Value: "ok"},
		{Name: "x-forwarded-for", Value: "127.0.0.1"},
		{Name: "x-forwarded-proto", Value: "https"},
	},
}

var answer = message.Response{
	Status: 200, Length: message.Unknown, Fields: message.Fields{{Name: "content-type", Value: "application/grpc"}},
}

var ok = message.Fields{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message", Value: ""}}

// BenchmarkCall is a gRPC-shaped call over a client's and a server's machine: what a proxy has of one at each of its ends.
func BenchmarkCall(b *testing.B) {
	body := make([]byte, 32)
	done := 0
	pool := h2.NewPool()
	server := h2.NewServer(h2.Limits{}, pool, &ears{
		data: func(s *h2.Stream, p []byte, end bool) {
			s.Consumed(len(p))
			if end {
				if s.Respond(&answer, false) != nil || s.Write(body, false) != len(body) || s.Trailers(ok) != nil {
					b.Fatal("no answer")
				}
			}
		},
	})
	client := h2.NewClient(h2.Limits{}, pool, &ears{
		closed: func(_ *h2.Stream, why h2.Cause) {
			if why.By == h2.Complete {
				done++
			}
		},
	})
	exchange(b, client, server)
	b.ReportAllocs()
	for b.Loop() {
		s, err := client.Request(&call, false)
		if err != nil || s.Write(body, true) != len(body) {
			b.Fatal(err)
		}
		exchange(b, client, server)
	}
	if done != b.N {
		b.Fatalf("%d of %d", done, b.N)
	}
}

// BenchmarkBulk is a megabyte that a client sends to a server.
func BenchmarkBulk(b *testing.B) {
	body := make([]byte, 1<<20)
	pool := h2.NewPool()
	server := h2.NewServer(h2.Limits{}, pool, &ears{data: func(s *h2.Stream, p []byte, end bool) {
		if s.Consumed(len(p)); end {
			_ = s.Respond(&answer, true)
		}
	}})
	client := h2.NewClient(h2.Limits{}, pool, &ears{writable: writeMore})
	exchange(b, client, server)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		s, err := client.Request(&call, false)
		if err != nil {
			b.Fatal(err)
		}
		w := &sender{rest: body}
		s.User = w
		w.more(s)
		exchange(b, client, server)
	}
	if client.Streams() != 0 {
		b.Fatal("streams are left")
	}
}
