package proxy_test

import (
	"bufio"
	"bytes"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/jurat-tls/jurat/proxy"
)

// TestPlainBytes: what clients that are taken in plain send and get is counted while their connections are open.
func TestPlainBytes(t *testing.T) {
	const size = 100_000
	addr := origin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(make([]byte, size)) }))
	s := inboundHTTP(t, proxy.Plain, addr, proxy.Limits{}, nil)
	c, err := net.Dial("tcp", start(t, s))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const asked = "GET / HTTP/1.1\r\nHost: a\r\n\r\n"
	var got bytes.Buffer
	r := bufio.NewReader(io.TeeReader(c, &got))
	for range 3 {
		_, _ = io.WriteString(c, asked)
		res, err := http.ReadResponse(r, nil)
		if err != nil {
			t.Fatal(err)
		}
		if n, err := io.Copy(io.Discard, res.Body); n != size || err != nil {
			t.Fatal(n, err)
		}
	}
	if s := s.Stats(); s.BytesIn != 3*uint64(len(asked)) || s.BytesOut != uint64(got.Len()) || s.Active != 1 {
		t.Errorf("%d bytes in, %d out, of %d", s.BytesIn, s.BytesOut, got.Len())
	}
}
