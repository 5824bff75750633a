package h2_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jurat-tls/jurat/proxy/h2"
	"github.com/jurat-tls/jurat/proxy/message"
)

// life checks that events come in the order in which they may, while a handler does as the fuzzer says.
type life struct {
	t      *testing.T
	stages map[*h2.Stream]*stage
	deeds  []byte // what to do at the next events
	next   int
}

type stage struct{ begun, ended bool }

func (l *life) of(s *h2.Stream) *stage {
	if l.stages[s] == nil {
		l.t.Fatal("an event of a stream that is not open")
	}
	return l.stages[s]
}

// do acts on a stream; it may end by that.
func (l *life) do(s *h2.Stream) {
	if len(l.deeds) == 0 {
		return
	}
	deed := l.deeds[l.next%len(l.deeds)]
	l.next++
	switch deed % 8 {
	case 0:
		_ = s.Respond(&answer, false)
	case 1:
		_ = s.Respond(&answer, true)
	case 2:
		s.Write(make([]byte, int(deed)*100), deed&8 == 0)
	case 3:
		_ = s.Trailers(ok)
	case 4:
		s.Reset(h2.Cancel)
	case 5:
		s.Conn().Shutdown()
	case 6:
		s.Conn().Ping()
	}
}

func (l *life) ears() *ears {
	return &ears{
		request: func(s *h2.Stream, r *message.Request, end bool) {
			if l.stages[s] != nil || r.Authority == "" || r.Method == "" {
				l.t.Fatalf("a request out of turn: %+v", r)
			}
			l.stages[s] = &stage{true, end}
			l.do(s)
		},
		response: func(s *h2.Stream, r *message.Response, end bool) {
			if g := l.of(s); g.begun || g.ended || r.Status < 100 {
				l.t.Fatalf("a response out of turn: %+v", r)
			} else {
				g.begun, g.ended = !r.Informational(), end
			}
			l.do(s)
		},
		data: func(s *h2.Stream, p []byte, end bool) {
			if g := l.of(s); !g.begun || g.ended {
				l.t.Fatal("data out of turn")
			} else {
				g.ended = end
			}
			s.Consumed(len(p))
			l.do(s)
		},
		trailers: func(s *h2.Stream, f message.Fields) {
			if g := l.of(s); !g.begun || g.ended {
				l.t.Fatal("trailers out of turn")
			} else {
				g.ended = true
			}
			for _, field := range f {
				if strings.ContainsAny(field.Name+field.Value, "\r\n\x00") || field.Name == "" || strings.ToLower(field.Name) != field.Name {
					l.t.Fatalf("%q: %q", field.Name, field.Value)
				}
			}
			l.do(s)
		},
		writable: func(s *h2.Stream) {
			l.of(s)
			l.do(s)
		},
		closed: func(s *h2.Stream, _ h2.Cause) {
			l.of(s)
			delete(l.stages, s)
		},
	}
}

// run feeds a machine and checks that it stays bounded and that what it writes can be read by another implementation.
func (l *life) run(c *h2.Conn, in []byte, cut int) {
	var wrote bytes.Buffer
	for i := 0; len(in) > 0; i++ {
		n := min(1+cut*i%4096, len(in))
		err := c.Feed(time.Duration(i)*time.Millisecond, in[:n])
		in = in[n:]
		if pending := len(c.Output()); pending > 256<<10 {
			l.t.Fatalf("%d bytes are queued", pending)
		}
		if c.Streams() != len(l.stages) {
			l.t.Fatalf("%d streams, and %d are known", c.Streams(), len(l.stages))
		}
		if err != nil {
			var e *h2.Error
			if !errors.As(err, &e) || len(l.stages) != 0 {
				l.t.Fatal(err, len(l.stages))
			}
			break
		}
		n = len(c.Output()) * (i % 3) / 2
		wrote.Write(c.Output()[:n])
		c.Sent(n)
	}
	c.Abort(h2.Cancel)
	if len(l.stages) != 0 {
		l.t.Fatal("streams go on")
	}
	wrote.Write(c.Output())
	for _, line := range read(wrote.Bytes()) {
		if strings.HasPrefix(line, "ERROR") {
			l.t.Fatal(line)
		}
	}
}

var small = h2.Limits{
	Streams: 5, HeaderBytes: 500, HeaderFields: 10, StreamWindow: 100, ConnWindow: 300, Output: 200, Control: 1000, Connect: "websocket",
	Resets: h2.Rate{Burst: 50, PerSecond: 50}, Frames: h2.Rate{Burst: 200, PerSecond: 100},
}

func FuzzServer(f *testing.F) {
	f.Add(fromClient().headers(1, false, post("te: trailers")...).data(1, false, "abc").headers(1, true, "a: b").Bytes(), []byte{0, 2, 3}, 7)
	f.Add(fromClient().headers(1, true, get...).raw(3, 0, 1, "\x00\x00\x00\x08").raw(6, 0, 0, "12345678").Bytes(), []byte{1}, 1)
	f.Add(fromClient().headers(1, false, get...).raw(4, 0, 0, "\x00\x04\x00\x00\x00\x01\x00\x01\x00\x00\x00\x00").raw(8, 0, 1, "\x00\x00\x00\x09").Bytes(), []byte{0, 98, 50}, 100)
	f.Add(fromClient().raw(1, 1, 1, "").raw(9, 0, 1, "").raw(9, 4, 1, string(newScript().encode(get...))).raw(0, 9, 1, "\x02abcde\x00\x00").Bytes(), []byte{5, 6, 1}, 3)
	f.Fuzz(func(t *testing.T, in, deeds []byte, cut int) {
		l := &life{t: t, stages: map[*h2.Stream]*stage{}, deeds: deeds}
		l.run(h2.NewServer(small, nil, l.ears()), in, max(cut, 0)%4096)
	})
}

func FuzzClient(f *testing.F) {
	f.Add(fromServer().headers(1, false, ":status: 200").data(1, false, "ab").headers(1, true, "x: y").Bytes(), []byte{2}, 7)
	f.Add(fromServer().headers(1, false, ":status: 103").headers(1, true, ":status: 204").raw(7, 0, 0, "\x00\x00\x00\x01\x00\x00\x00\x00").Bytes(), []byte{3, 4}, 1)
	f.Add(fromServer().raw(3, 0, 3, "\x00\x00\x00\x07").raw(8, 0, 1, "\x00\x00\x00\x09").raw(8, 0, 0, "\x7f\x00\x00\x09").Bytes(), []byte{98}, 9)
	f.Fuzz(func(t *testing.T, in, deeds []byte, cut int) {
		l := &life{t: t, stages: map[*h2.Stream]*stage{}, deeds: deeds}
		c := h2.NewClient(small, nil, l.ears())
		for range 4 {
			r := call
			s, err := c.Request(&r, false)
			if err != nil {
				break // Output is full
			}
			l.stages[s] = &stage{}
			l.do(s)
		}
		l.run(c, in, max(cut, 0)%4096)
	})
}
