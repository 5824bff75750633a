package session

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/jurat-tls/jurat/attest"
)

// A reader takes what comes together with the end, and an error when nothing does.
func TestReader(t *testing.T) {
	whole := string(frame(nil, kindHello, []byte("hello")))
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"at once": func(r io.Reader) io.Reader { return r }, "bytewise": iotest.OneByteReader, "with the end": iotest.DataErrReader,
		"half": iotest.HalfReader,
	} {
		r := reader{src: wrap(strings.NewReader(whole))}
		if err := r.header(); err != nil || r.kind != kindHello {
			t.Fatalf("%s: %v, %v", name, r.kind, err)
		}
		if err := r.header(); err != nil {
			t.Fatalf("%s: a header that is there: %v", name, err)
		}
		if body, err := r.payload(); err != nil || string(body) != "hello" {
			t.Errorf("%s: %q, %v", name, body, err)
		}
		if err := r.header(); !errors.Is(err, io.EOF) {
			t.Errorf("%s: after the end: %v", name, err)
		}
	}
	head := reader{src: iotest.DataErrReader(strings.NewReader(whole[:4]))}
	if err := head.header(); err != nil {
		t.Errorf("a header that came with the end: %v", err)
	}
	for i := range len(whole) - 1 {
		r := reader{src: strings.NewReader(whole[:i])}
		err := r.header()
		if err == nil {
			_, err = r.payload()
		}
		if err == nil {
			t.Errorf("%d bytes of %d are a frame", i, len(whole))
		}
	}
	// A payload that times out in the middle goes on where it was.
	r := reader{src: iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader(whole)))}
	var body []byte
	for range 20 {
		if err := r.header(); err != nil {
			continue
		}
		var err error
		if body, err = r.payload(); err == nil {
			break
		}
	}
	if string(body) != "hello" {
		t.Errorf("got %q", body)
	}
}

// What a peer can make this end hold before it is judged is bounded by kind.
func TestLimits(t *testing.T) {
	for k, limit := range limits {
		r := reader{src: strings.NewReader(string(header(nil, kind(k), limit&0xffffff)))}
		if err := r.header(); err != nil {
			t.Errorf("%s of %d bytes: %v", kind(k), limit, err)
		}
		if limit+1 >= 1<<24 {
			continue
		}
		r = reader{src: strings.NewReader(string(header(nil, kind(k), limit+1)))}
		if err := r.header(); err == nil {
			t.Errorf("%s of %d bytes is taken", kind(k), limit+1)
		}
	}
}

// Whatever a peer sends: frames are taken within their limits or refused, and what was understood has one encoding.
func FuzzFrames(f *testing.F) {
	f.Add(frame(frame(nil, kindHello, encode(clientHello{Protocols: []string{"h2"}, Earlier: make([]byte, reconnectID)})), kindRequest, []byte("x")))
	f.Add(frame(frame(nil, kindHello, encode(serverHello{Protocol: "h2", Asks: true})), kindVerdict, encode(verdict{Code: "J504"})))
	f.Add(frame(frame(nil, kindData, []byte("data")), kindEnd, nil))
	f.Fuzz(func(t *testing.T, raw []byte) {
		r := reader{src: iotest.HalfReader(bytes.NewReader(raw))}
		for {
			if err := r.header(); err != nil {
				if got := attest.CodeOf(err); got != attest.CodeSessionExchange && !errors.Is(err, io.EOF) {
					t.Fatalf("%v", err)
				}
				return
			}
			k, size := r.kind, r.left
			if size > limits[k] {
				t.Fatalf("%s of %d bytes", k, size)
			}
			body, err := r.payload()
			if err != nil {
				return
			}
			if len(body) != size {
				t.Fatalf("%d bytes of %d", len(body), size)
			}
			var c clientHello
			var s serverHello
			var v verdict
			for _, into := range []any{&c, &s, &v} {
				if decode(body, into) == nil && !bytes.Equal(encode(into), body) {
					t.Fatalf("%x is %x", body, encode(into))
				}
			}
			if c, err := choose(c.Protocols, []string{"h2", "http/1.1"}); err == nil && c != "" && c != "h2" && c != "http/1.1" {
				t.Fatalf("chose %q", c)
			}
			_ = v.refusal()
		}
	})
}
