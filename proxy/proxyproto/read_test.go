package proxyproto_test

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"pgregory.net/rapid"

	"github.com/jurat-tls/jurat/proxy/proxyproto"
)

// pieces gives at most as many bytes at once as its list says, over and over.
type pieces struct {
	r     *bytes.Reader
	sizes []int
	n     int
}

func (p *pieces) Read(b []byte) (int, error) {
	size := p.sizes[p.n%len(p.sizes)]
	p.n++
	return p.r.Read(b[:min(size, len(b))])
}

// The bytes behind a header are left for TLS, however the header arrives.
func TestReadTakesTheHeaderOnly(t *testing.T) {
	const tail = "\x16\x03\x01 the rest"
	check := func(t *testing.T, raw string, sizes ...int) int {
		t.Helper()
		r := &pieces{bytes.NewReader([]byte(raw + tail)), sizes, 0}
		if _, err := proxyproto.Read(r); err != nil {
			t.Fatalf("%q in pieces of %d: %v", raw, sizes, err)
		}
		if rest, _ := io.ReadAll(r.r); string(rest) != tail {
			t.Fatalf("%q in pieces of %d: left %q", raw, sizes, rest)
		}
		return r.n
	}
	for name, tt := range written {
		t.Run(name, func(t *testing.T) {
			for size := range 20 {
				check(t, tt.raw, size+1)
			}
			if n := check(t, tt.raw, 1<<20); n > 20 {
				t.Errorf("%d reads", n)
			}
		})
	}
	for name, tt := range read {
		t.Run(name, func(t *testing.T) {
			check(t, tt.raw, 3, 1, 7)
			check(t, tt.raw, 1<<20)
		})
	}
}

// Whatever the addresses, what Read asks for is never more than what is missing.
func TestReadProperty(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h := drawHeader(t)
		raw, err := proxyproto.Append(nil, h)
		if err != nil {
			t.Fatalf("%+v: %v", h, err)
		}
		r := &pieces{bytes.NewReader(append(raw, "tail"...)), rapid.SliceOfN(rapid.IntRange(1, 40), 1, 20).Draw(t, "sizes"), 0}
		if _, err := proxyproto.Read(r); err != nil {
			t.Fatal(err)
		}
		if rest, _ := io.ReadAll(r.r); string(rest) != "tail" {
			t.Fatalf("%q: left %q", raw, rest)
		}
	})
}

func TestReadEnds(t *testing.T) {
	whole := written["v2 tlvs"].raw
	if _, err := proxyproto.Read(strings.NewReader("")); err != io.EOF {
		t.Errorf("nothing: %v", err)
	}
	for _, n := range []int{1, 12, 15, 16, 17, len(whole) - 1} {
		if _, err := proxyproto.Read(strings.NewReader(whole[:n])); err != io.ErrUnexpectedEOF {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	if _, err := proxyproto.Read(iotest.DataErrReader(strings.NewReader(whole))); err != nil {
		t.Errorf("with the last byte: %v", err)
	}
	odd := errors.New("odd")
	for _, n := range []int{0, 5} {
		if _, err := proxyproto.Read(io.MultiReader(strings.NewReader(whole[:n]), iotest.ErrReader(odd))); err != odd {
			t.Errorf("broken after %d bytes: %v", n, err)
		}
	}
	if _, err := proxyproto.Read(stuck{}); err != io.ErrNoProgress {
		t.Errorf("a reader that gives nothing: %v", err)
	}
}

type stuck struct{}

func (stuck) Read([]byte) (int, error) { return 0, nil }

// Whoever sends something else is found out by what is there, and not only once more has come.
func TestReadRefusesEarly(t *testing.T) {
	for _, first := range []string{"G", "\x16\x03\x01", "PROXYX", "PROXY UDP4", "\r\n\r\n\x00\r\nQUIT\r", signature + "\x11", signature + "\x21\x41"} {
		r, w := io.Pipe()
		go func() { _, _ = io.WriteString(w, first) }()
		_, err := proxyproto.Read(r) // the writer says no more, and does not end
		var refused proxyproto.Error
		if !errors.As(err, &refused) {
			t.Errorf("%q: %v", first, err)
		}
		r.Close()
	}
}
