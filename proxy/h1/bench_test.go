package h1_test

import (
	"bytes"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

const (
	smallRequest   = "GET /1k HTTP/1.1\r\nHost: service.example\r\nUser-Agent: wrk\r\nAccept: */*\r\n\r\n"
	browserRequest = "GET /assets/app.js?v=20260101 HTTP/1.1\r\nHost: service.example\r\nConnection: keep-alive\r\n" +
		"sec-ch-ua: \"Chromium\";v=\"130\", \"Not?A_Brand\";v=\"99\"\r\nsec-ch-ua-mobile: ?0\r\nsec-ch-ua-platform: \"Linux\"\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n" +
		"Accept: */*\r\nSec-Fetch-Site: same-origin\r\nSec-Fetch-Mode: no-cors\r\nSec-Fetch-Dest: script\r\n" +
		"Referer: https://service.example/\r\nAccept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-GB,en;q=0.9\r\n" +
		"Cookie: session=0123456789abcdef0123456789abcdef0123456789abcdef; theme=dark\r\n\r\n"
	smallResponse = "HTTP/1.1 200 OK\r\nServer: nginx\r\nDate: Sun, 29 Nov 2026 00:00:00 GMT\r\nContent-Type: application/octet-stream\r\n" +
		"Content-Length: 1024\r\nLast-Modified: Sun, 29 Nov 2026 00:00:00 GMT\r\nConnection: keep-alive\r\nETag: \"0123456789\"\r\nAccept-Ranges: bytes\r\n\r\n"
)

func BenchmarkParseRequest(b *testing.B) {
	for name, in := range map[string]string{"small": smallRequest, "browser": browserRequest} {
		b.Run(name, func(b *testing.B) {
			in := []byte(in)
			var r message.Request
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				if _, err := h1.ParseRequest(in, h1.Limits{}, &r); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkParseResponse(b *testing.B) {
	in := []byte(smallResponse)
	var r message.Response
	b.SetBytes(int64(len(in)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := h1.ParseResponse(in, h1.Limits{}, "GET", &r); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	for name, in := range map[string]string{"small": smallRequest, "browser": browserRequest} {
		b.Run(name, func(b *testing.B) {
			var r message.Request
			if _, err := h1.ParseRequest([]byte(in), h1.Limits{}, &r); err != nil {
				b.Fatal(err)
			}
			out := make([]byte, 0, 4096)
			b.ReportAllocs()
			for b.Loop() {
				var err error
				if out, _, err = h1.AppendRequest(out[:0], &r, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkAppendResponse(b *testing.B) {
	var r message.Response
	if _, err := h1.ParseResponse([]byte(smallResponse), h1.Limits{}, "GET", &r); err != nil {
		b.Fatal(err)
	}
	out := make([]byte, 0, 4096)
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if out, _, err = h1.AppendResponse(out[:0], &r, h1.Reply{Method: "GET", Version: message.HTTP11, Keep: true}); err != nil {
			b.Fatal(err)
		}
	}
}

// A head that comes byte by byte: time for all of it.
func BenchmarkScan(b *testing.B) {
	in := []byte(browserRequest)
	b.ReportAllocs()
	for b.Loop() {
		var s h1.Scan
		for n := range in {
			if s.Ready(in[:n], h1.Limits{}) {
				b.Fatal("too early")
			}
		}
	}
}

func BenchmarkBody(b *testing.B) {
	for name, size := range map[string]int{"16": 16, "1K": 1 << 10, "16K": 16 << 10} {
		in, err := h1.AppendLastChunk(bytes.Repeat(h1.AppendChunk(nil, make([]byte, size)), 64), nil)
		if err != nil {
			b.Fatal(err)
		}
		b.Run("64 chunks of "+name, func(b *testing.B) {
			var d h1.Body
			b.SetBytes(int64(len(in)))
			b.ReportAllocs()
			for b.Loop() {
				d.Start(h1.Chunked, h1.Limits{})
				for at, done := 0, false; !done; {
					var n int
					if _, n, done, err = d.Feed(in[at:]); err != nil {
						b.Fatal(err)
					}
					at += n
				}
			}
		})
	}
}

// What the package promises of allocations.
func TestAllocations(t *testing.T) {
	var (
		request  message.Request
		response message.Response
		body     h1.Body
		out      = make([]byte, 0, 4096)
		question = []byte(browserRequest)
		answer   = []byte(smallResponse)
		chunks   = []byte("5\r\nhello\r\n10000\r\n")
		end      = []byte("5\r\nhello\r\n0\r\n\r\n")
	)
	for _, c := range []struct {
		name string
		most float64
		run  func() error
	}{
		{"ParseRequest", 1, func() (err error) {
			_, err = h1.ParseRequest(question, h1.Limits{}, &request)
			return err
		}},
		{"ParseResponse", 1, func() (err error) {
			_, err = h1.ParseResponse(answer, h1.Limits{}, "GET", &response)
			return err
		}},
		{"ErrMore", 0, func() error {
			_, _ = h1.ParseRequest(out[:0], h1.Limits{}, new(message.Request))
			return nil
		}},
		{"AppendRequest", 0, func() (err error) {
			out, _, err = h1.AppendRequest(out[:0], &request, false)
			return err
		}},
		{"AppendResponse", 0, func() (err error) {
			out, _, err = h1.AppendResponse(out[:0], &response, h1.Reply{Method: "GET", Version: message.HTTP11, Keep: true})
			return err
		}},
		{"Body", 0, func() error {
			body.Start(h1.Chunked, h1.Limits{})
			_, _, _, err := body.Feed(chunks)
			return err
		}},
		{"Body to its end", 0, func() error {
			body.Start(h1.Chunked, h1.Limits{})
			_, _, _, err := body.Feed(end)
			return err
		}},
		{"AppendLastChunk", 0, func() (err error) {
			out, err = h1.AppendLastChunk(h1.AppendChunk(out[:0], chunks), nil)
			return err
		}},
	} {
		var err error
		if got := testing.AllocsPerRun(100, func() { err = c.run() }); got > c.most || err != nil {
			t.Errorf("%s: %v allocations, %v", c.name, got, err)
		}
	}
}
