package h1_test

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/jurat-tls/jurat/proxy/h1"
	"github.com/jurat-tls/jurat/proxy/message"
)

// fed is what became of a body.
type fed struct {
	body     []byte
	n        int
	done     bool
	err      error
	trailers message.Fields
}

// feed gives in to a Body in pieces of a size.
func feed(framing int64, in []byte, piece int) fed {
	return feedLimited(framing, in, piece, h1.Limits{})
}

func feedLimited(framing int64, in []byte, piece int, limits h1.Limits) fed {
	var d h1.Body
	d.Start(framing, limits)
	var f fed
	for {
		next := in[f.n:min(len(in), f.n+max(piece, 1))]
		payload, n, done, err := d.Feed(next)
		f.body = append(f.body, payload...)
		f.n += n
		f.done, f.err, f.trailers = done, err, slices.Clone(d.Trailers)
		if done || err != nil || f.n == len(in) {
			return f
		}
		if n == 0 {
			f.err = errors.New("no progress")
			return f
		}
	}
}

func inPieces(t testing.TB, framing int64, in []byte) {
	t.Helper()
	want := feed(framing, in, len(in))
	for _, piece := range []int{1, 2, 3, 5, 7, 64} {
		got := feed(framing, in, piece)
		if want.err != nil {
			if !errors.Is(got.err, want.err) {
				t.Fatalf("%q in pieces of %d: %v, in one %v", in, piece, got.err, want.err)
			}
			continue
		}
		if !bytes.Equal(got.body, want.body) || got.n != want.n || got.done != want.done || got.err != nil ||
			!reflect.DeepEqual(got.trailers, want.trailers) {
			t.Fatalf("%q in pieces of %d: %+v, in one %+v", in, piece, got, want)
		}
	}
}

func TestBodyOfLength(t *testing.T) {
	for _, c := range []struct {
		framing int64
		in      string
		want    fed
	}{
		{0, "abc", fed{done: true}},
		{2, "abc", fed{body: []byte("ab"), n: 2, done: true}},
		{3, "abc", fed{body: []byte("abc"), n: 3, done: true}},
		{4, "abc", fed{body: []byte("abc"), n: 3}},
		{1 << 62, "abc", fed{body: []byte("abc"), n: 3}},
		{h1.UntilClose, "abc", fed{body: []byte("abc"), n: 3}},
	} {
		got := feed(c.framing, []byte(c.in), len(c.in))
		c.want.trailers = got.trailers
		if !reflect.DeepEqual(got, c.want) {
			t.Errorf("%d of %q: %+v", c.framing, c.in, got)
		}
		inPieces(t, c.framing, []byte(c.in))
	}
}

// A Body without a head, or with a framing that no head tells, gives nothing.
func TestBodyUnstarted(t *testing.T) {
	var d h1.Body
	for range 2 {
		if payload, n, done, err := d.Feed([]byte("abc")); payload != nil || n != 0 || done || !isStatus(err, 400) {
			t.Errorf("%q, %d, %v, %v", payload, n, done, err)
		}
	}
	if err := new(h1.Body).End(); !isStatus(err, 400) {
		t.Error(err)
	}
	d.Start(-3, h1.Limits{})
	if _, _, _, err := d.Feed([]byte("abc")); !isStatus(err, 400) {
		t.Error(err)
	}
	// An end that comes with nothing.
	d.Start(0, h1.Limits{})
	if _, _, done, err := d.Feed(nil); !done || err != nil {
		t.Error(done, err)
	}
}

func TestBodyEnd(t *testing.T) {
	for _, c := range []struct {
		framing int64
		in      string
		cut     bool
	}{
		{h1.UntilClose, "", false},
		{h1.UntilClose, "abc", false},
		{0, "", false},
		{3, "abc", false},
		{3, "ab", true},
		{h1.Chunked, "", true},
		{h1.Chunked, "1\r\na\r\n", true},
		{h1.Chunked, "1\r\na\r\n0\r\n", true},
		{h1.Chunked, "0\r\nX: y\r\n", true},
		{h1.Chunked, "0\r\n\r\n", false},
	} {
		var d h1.Body
		d.Start(c.framing, h1.Limits{})
		for in := []byte(c.in); len(in) > 0; {
			_, n, _, err := d.Feed(in)
			if err != nil {
				t.Fatal(err)
			}
			in = in[n:]
		}
		if err := d.End(); (err != nil) != c.cut {
			t.Errorf("%d, %q: %v", c.framing, c.in, err)
		}
		if _, _, done, err := d.Feed([]byte("x")); c.cut && err == nil || !c.cut && !done {
			t.Errorf("%d, %q: goes on after the end: %v", c.framing, c.in, err)
		}
	}
	// What was wrong stays so.
	var d h1.Body
	d.Start(h1.Chunked, h1.Limits{})
	_, _, _, err := d.Feed([]byte("x"))
	if again := d.End(); err == nil || !errors.Is(again, err) {
		t.Error(err, again)
	}
	if _, _, _, again := d.Feed([]byte("0\r\n\r\n")); !errors.Is(again, err) {
		t.Error(again)
	}
}

func TestBodyLimits(t *testing.T) {
	many := strings.Repeat("X: y\r\n", 4)
	for _, c := range []struct {
		name, in string
		limits   h1.Limits
		status   int
	}{
		{"extension within", "1;" + strings.Repeat("a", 8) + "\r\nx\r\n0\r\n\r\n", h1.Limits{Extensions: 9}, 0},
		{"extension beyond", "1;" + strings.Repeat("a", 9) + "\r\nx\r\n0\r\n\r\n", h1.Limits{Extensions: 8}, 400},
		{"extensions of all chunks", strings.Repeat("1;aaaa\r\nx\r\n", 10) + "0\r\n\r\n", h1.Limits{Extensions: 8}, 400},
		{"extension by default", "1;" + strings.Repeat("a", 4097) + "\r\nx\r\n0\r\n\r\n", h1.Limits{}, 400},
		{"trailer within", "0\r\n" + many + "\r\n", h1.Limits{Trailer: 26}, 0},
		{"trailer beyond", "0\r\n" + many + "\r\n", h1.Limits{Trailer: 25}, 431},
		{"trailer beyond and endless", "0\r\n" + strings.Repeat("X: y\r\n", 2000), h1.Limits{}, 431},
		{"trailer without a line", "0\r\n" + strings.Repeat("X", 10000), h1.Limits{}, 431},
		{"fields within", "0\r\n" + many + "\r\n", h1.Limits{Fields: 4}, 0},
		{"fields beyond", "0\r\n" + many + "\r\n", h1.Limits{Fields: 3}, 431},
		// Dropped ones count.
		{"dropped fields beyond", "0\r\nCookie: a\r\nCookie: a\r\nCookie: a\r\n\r\n", h1.Limits{Fields: 2}, 431},
	} {
		for _, piece := range []int{len(c.in), 1, 3} {
			got := feedLimited(h1.Chunked, []byte(c.in), piece, c.limits)
			if c.status == 0 && (got.err != nil || !got.done) || c.status != 0 && !isStatus(got.err, c.status) {
				t.Errorf("%s in pieces of %d: %v", c.name, piece, got.err)
			}
			if got.err != nil && len(got.trailers) > 0 {
				t.Errorf("%s: trailers of a refused body: %v", c.name, got.trailers)
			}
		}
	}
}

// A Body that is started again knows nothing of the last message.
func TestBodyAgain(t *testing.T) {
	var d h1.Body
	for range 3 {
		d.Start(h1.Chunked, h1.Limits{Extensions: 4})
		for _, in := range []string{"1;ab\r\nx\r\n0\r\nX", ": y\r\n\r\n"} {
			for in := []byte(in); len(in) > 0; {
				_, n, _, err := d.Feed(in)
				if err != nil {
					t.Fatal(err)
				}
				in = in[n:]
			}
		}
		if want := (message.Fields{{Name: "X", Value: "y"}}); !reflect.DeepEqual(d.Trailers, want) {
			t.Errorf("%v", d.Trailers)
		}
	}
}

func isStatus(err error, status int) bool {
	var e h1.Error
	return errors.As(err, &e) && e.Status == status && e.Reason != "" && strings.HasPrefix(err.Error(), "HTTP/1: ")
}

// Trailers that Connection names are of the connection, like the fields of the head.
func TestBodyDrop(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close, x-one\r\nConnection: keep-alive\r\nConnection: X-Two , X-Four\r\nTransfer-Encoding: chunked\r\n\r\n"
	var r message.Request
	m, err := h1.ParseRequest([]byte(head), h1.Limits{}, &r)
	if err != nil || len(r.Fields) > 0 {
		t.Fatal(r.Fields, err)
	}
	var d h1.Body
	for _, named := range []string{m.Named, "", " X-Three ,"} {
		d.Start(h1.Chunked, h1.Limits{})
		if named != "" {
			d.Drop(named)
		}
		if _, _, done, err := d.Feed([]byte("0\r\nX-One: 1\r\nx-two: 2\r\nX-Three: 3\r\n\r\n")); !done || err != nil {
			t.Fatal(done, err)
		}
		want := map[string]int{m.Named: 1, "": 3, " X-Three ,": 2}[named]
		if len(d.Trailers) != want {
			t.Errorf("%q leaves %v", named, d.Trailers)
		}
	}
	if m, err := h1.ParseRequest([]byte("GET / HTTP/1.1\r\nHost: a\r\nConnection: close, TE\r\n\r\n"), h1.Limits{}, &r); m.Named != "" || err != nil {
		t.Error(m, err)
	}
}
