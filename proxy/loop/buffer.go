package loop

import "sync"

// Buffers of output start small, as most messages are, and keep what they grew to unless that is a lot.
const (
	smallest = 4 << 10
	largest  = 2 * high
)

var pool = sync.Pool{New: func() any { return &holder{} }}

// holder carries a buffer into the pool. The holders of buffers in use are pooled themselves, so that neither way allocates.
type holder struct{ b []byte }

var holders = sync.Pool{New: func() any { return &holder{} }}

func get() []byte {
	h := pool.Get().(*holder)
	b := h.b
	h.b = nil
	holders.Put(h)
	if b == nil {
		b = make([]byte, 0, smallest)
	}
	return b
}

func put(b []byte) {
	if cap(b) > largest {
		return
	}
	h := holders.Get().(*holder)
	h.b = b[:0]
	pool.Put(h)
}

// shelf is the buffers that a loop has at hand: that takes fewer steps than the pool of all, and what was used last is still in the
// processor's cache. It keeps few and small ones.
type shelf [][]byte

const (
	shelved = 64
	widest  = 4 * smallest
)

func (s *shelf) get() []byte {
	last := len(*s) - 1
	if last < 0 {
		return get()
	}
	b := (*s)[last]
	(*s)[last] = nil
	*s = (*s)[:last]
	return b
}

func (s *shelf) put(b []byte) {
	if len(*s) == shelved || cap(b) > widest {
		put(b)
		return
	}
	*s = append(*s, b[:0])
}
