package session

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"testing/iotest"
	"time"
)

func entry(id byte, name string) *earlier {
	return &earlier{id: [reconnectID]byte{id}, name: name, until: time.Unix(100, 0)}
}

func TestStore(t *testing.T) {
	now := time.Unix(0, 0)
	s := NewStore(2, func() time.Time { return now })
	a, b, c := entry(1, "a"), entry(2, "b"), entry(3, "c")
	s.put(a)
	s.put(b)
	s.put(c)
	if s.named("a") != nil || s.identified(a.id[:]) != nil || s.named("b") != b || s.identified(c.id[:]) != c {
		t.Error("the oldest of three is not the one that went")
	}
	// One name has one session: the latest.
	b2 := entry(4, "b")
	s.put(b2)
	if s.named("b") != b2 || s.identified(b.id[:]) != nil || s.named("c") != c {
		t.Error("a newer session did not replace the older, and it alone")
	}
	// What is dropped twice, or after it was replaced, takes nothing else along.
	s.drop(b)
	if s.named("b") != b2 || s.identified(b2.id[:]) != b2 {
		t.Error("dropping the older took the newer along")
	}
	same := entry(4, "")
	s.drop(same)
	if s.identified(b2.id[:]) != b2 {
		t.Error("dropping one took along another of the same id")
	}
	if s.identified(b2.id[:reconnectID-1]) != nil || s.identified(nil) != nil {
		t.Error("found by part of an id")
	}
	now = time.Unix(100, 0).Add(-1)
	if s.named("b") != b2 {
		t.Error("gone too early")
	}
	now = time.Unix(100, 0)
	if s.named("b") != nil || s.identified(b2.id[:]) != nil {
		t.Error("there after its time")
	}
	// Entries without a name are found by id alone.
	d := entry(5, "")
	d.until = time.Unix(200, 0)
	s.put(d)
	if s.named("") != nil || s.identified(d.id[:]) != d {
		t.Error("a nameless entry has a name")
	}
	s.Clear()
	if s.Len() != 0 || s.named("c") != nil {
		t.Error("something is left")
	}
	var none *Store
	if none.named("a") != nil || none.identified(a.id[:]) != nil {
		t.Error("no store has something")
	}
}

// A name that comes again and again leaves nothing behind.
func TestStoreOfOneName(t *testing.T) {
	s := NewStore(4, func() time.Time { return time.Unix(0, 0) })
	keep := entry(255, "other")
	s.put(keep)
	for i := range 1000 {
		e := entry(byte(i), "a")
		e.id[1] = byte(i >> 8)
		s.put(e)
		if len(s.order) > 9 || s.Len() > 4 {
			t.Fatalf("%d in order, %d kept", len(s.order), s.Len())
		}
	}
	if s.named("other") != keep {
		t.Error("what is kept went with what is gone")
	}
}

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

var _ net.Conn = (*Conn)(nil)
