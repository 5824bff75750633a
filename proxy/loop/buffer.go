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
