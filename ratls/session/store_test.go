package session

import (
	"net"
	"testing"
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
	if n := s.Len(); n != 1 { // c was not asked for
		t.Errorf("%d kept after their time", n)
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
	keep.id[5] = 1 // those below have none like it
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
	for i := range byte(8) {
		e := entry(100+i, "name "+string(rune(97+i)))
		e.id[5] = 2
		s.put(e)
	}
	if s.named("other") != nil || s.Len() != 4 {
		t.Error("what is old stays")
	}
}

var _ net.Conn = (*Conn)(nil)
