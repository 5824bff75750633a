package h1_test

import (
	"reflect"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

func seeds(f *testing.F, what string, add func(sample)) {
	f.Helper()
	for _, s := range corpus(f) {
		if s.what == what {
			add(s)
		}
	}
}

// What is taken is read by net/http alike, comes to the same in pieces, and can be written and read again.
func FuzzRequest(f *testing.F) {
	seeds(f, "request", func(s sample) { f.Add([]byte(s.message)) })
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 4096 {
			return
		}
		sample{what: "request", message: string(b)}.inPieces(t)
		if err := compareRequest(b); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		var r message.Request
		m, err := h1.ParseRequest(b, h1.Limits{}, &r)
		if err != nil {
			if r.Method != "" || len(r.Fields) != 0 || m != (h1.Meta{}) {
				t.Fatalf("a refused request leaves %+v, %+v", r, m)
			}
			return
		}
		if r.Authority == "" {
			r.Authority = "a" // HTTP/1.1 needs one
		}
		writtenRequest(t, &r, !m.Persistent)
	})
}

func FuzzResponse(f *testing.F) {
	seeds(f, "response", func(s sample) { f.Add([]byte(s.message), s.method) })
	f.Fuzz(func(t *testing.T, b []byte, method string) {
		if len(b) > 4096 {
			return
		}
		sample{what: "response", method: method, message: string(b)}.inPieces(t)
		if method == "" {
			method = "GET" // to net/http they are the same
		}
		if err := compareResponse(b, method); err != nil {
			t.Fatalf("%q to %s: %v", b, method, err)
		}
		var r message.Response
		m, err := h1.ParseResponse(b, h1.Limits{}, method, &r)
		if err != nil {
			if r.Status != 0 || len(r.Fields) != 0 || m != (h1.Meta{}) {
				t.Fatalf("a refused response leaves %+v, %+v", r, m)
			}
			return
		}
		writtenResponse(t, &r, h1.Reply{Method: method, Version: message.HTTP11, Keep: m.Persistent})
	})
}

func FuzzBody(f *testing.F) {
	seeds(f, "chunked", func(s sample) { f.Add([]byte(s.message), h1.Chunked) })
	f.Add([]byte("hello"), int64(3))
	f.Add([]byte("hello"), h1.UntilClose)
	f.Fuzz(func(t *testing.T, b []byte, framing int64) {
		inPieces(t, framing, b)
		if err := compareRequest(append([]byte("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"), b...)); err != nil {
			t.Fatalf("%q: %v", b, err)
		}
		got := feed(h1.Chunked, b, len(b))
		if !got.done {
			return
		}
		// Written again it is the same.
		out := h1.AppendChunk(nil, got.body)
		out, err := h1.AppendLastChunk(out, got.trailers)
		if err != nil {
			t.Fatalf("%v: %v", got.trailers, err)
		}
		again := feed(h1.Chunked, out, len(out))
		if again.n != len(out) || string(again.body) != string(got.body) || !reflect.DeepEqual(again.trailers, got.trailers) {
			t.Fatalf("%q: %+v, written and read again %+v", b, got, again)
		}
	})
}

// Whatever is in a head, it is written as itself or not at all.
func FuzzAppendRequest(f *testing.F) {
	f.Add("GET", "a", "/", "", "X", "y", "Y", "z", message.NoBody, uint8(0))
	f.Add("POST", "[::1]:80", "/a?b", "", "X", "y", "Trailer", "Y", message.Unknown, uint8(7))
	f.Add("GET", "a:80", "/", "websocket", "Sec-WebSocket-Version", "13", "Y", "", int64(0), uint8(2))
	f.Add("CONNECT", "a:443", "", "", "X", "y", "Y", "z", message.NoBody, uint8(1))
	f.Add("OPTIONS", "a", "*", "", "X", "y", "Y", "z", int64(5), uint8(4))
	f.Add("GET / HTTP/1.1\r\nX:", "a\r\nX: y", "/ HTTP/1.1\r\n", "a, b", "X:", "y\r\nZ: a", "", "\n", int64(-7), uint8(0))
	f.Add("PRI", "", "a", "a/", "connection", " y", "transfer-encoding", "chunked", int64(1)<<62, uint8(0))
	f.Fuzz(func(t *testing.T, method, authority, path, upgrade, name1, value1, name2, value2 string, length int64, flags uint8) {
		writtenRequest(t, &message.Request{
			Method: method, Authority: authority, Path: path, Upgrade: upgrade,
			Fields: message.Fields{{Name: name1, Value: value1}, {Name: name2, Value: value2}},
			Length: length, Expect: flags&1 != 0, Trailers: flags&2 != 0,
		}, flags&4 != 0)
	})
}

func FuzzAppendResponse(f *testing.F) {
	f.Add(200, "OK", "", "X", "y", "Y", "z", int64(5), "GET", uint8(11), true)
	f.Add(101, "Switching Protocols", "websocket", "X", "y", "Y", "z", message.NoBody, "GET", uint8(11), true)
	f.Add(103, "", "", "Link", "y", "Y", "z", message.NoBody, "GET", uint8(11), false)
	f.Add(204, "", "", "Host", "y", "Y", "z", int64(0), "GET", uint8(10), true)
	f.Add(304, "", "", "X", "y", "Y", "z", int64(100), "HEAD", uint8(10), true)
	f.Add(200, "O\r\nK", "a b", "Connection", "y", "Y:", "\x00", message.Unknown, "CONNECT", uint8(0), true)
	f.Add(200, "OK", "", "X", "y", "Trailer", "Y", message.Unknown, "GET", uint8(10), true)
	f.Fuzz(func(t *testing.T, status int, reason, upgrade, name1, value1, name2, value2 string, length int64, method string, version uint8, keep bool) {
		writtenResponse(t, &message.Response{
			Status: status, Reason: reason, Upgrade: upgrade,
			Fields: message.Fields{{Name: name1, Value: value1}, {Name: name2, Value: value2}},
			Length: length,
		}, h1.Reply{Method: method, Version: message.Version(version), Keep: keep})
	})
}

func FuzzAppendLastChunk(f *testing.F) {
	f.Add("X", "y", "Grpc-Status", "0")
	f.Add("Content-Length", "5", "X", "y")
	f.Add("X\r\n", "y\r\n\r\nGET / HTTP/1.1", "Cookie", "z\n")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2 string) {
		trailers := message.Fields{{Name: name1, Value: value1}, {Name: name2, Value: value2}}
		out, err := h1.AppendLastChunk([]byte("1\r\na\r\n"), trailers)
		if err != nil {
			if string(out) != "1\r\na\r\n" {
				t.Fatalf("a refusal leaves %q", out)
			}
			return
		}
		got := feedLimited(h1.Chunked, out, len(out), h1.Limits{Trailer: len(out)})
		kept := message.Fields{}
		for _, f := range trailers {
			if !dropped[canonicalName(f.Name)] {
				kept = append(kept, f)
			}
		}
		if got.err != nil || !got.done || got.n != len(out) || string(got.body) != "a" || len(kept) != len(got.trailers) ||
			len(kept) > 0 && !reflect.DeepEqual(kept, got.trailers) {
			t.Fatalf("%v became %q and that %+v", trailers, out, got)
		}
	})
}
