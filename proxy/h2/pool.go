package h2

import "hash/maphash"

// Pool is what the connections of one event loop share, so that an idle one holds next to nothing: free streams, free
// buffers, and the heads that events show. It must not be used by two goroutines at a time.
type Pool struct {
	streams []*Stream
	buffers [][]byte
	names   map[string]string // lower case of names that came in other cases
	seed    maphash.Seed
	head    head
	plain   [plainFields]struct{ name, value string } // that were found to be valid and to mean nothing to a proxy
}

const (
	freshBuffer   = 8 << 10
	largestKept   = 256 << 10
	buffersKept   = 64
	streamsKept   = 1024
	loweredNames  = 512
	longestInPool = 64
	plainFields   = 256
)

// NewPool makes an empty Pool.
func NewPool() *Pool { return &Pool{names: map[string]string{}, seed: maphash.MakeSeed()} }

func (p *Pool) stream() *Stream {
	if n := len(p.streams); n > 0 {
		s := p.streams[n-1]
		p.streams = p.streams[:n-1]
		return s
	}
	return new(Stream)
}

func (p *Pool) freeStream(s *Stream) {
	*s = Stream{}
	if len(p.streams) < streamsKept {
		p.streams = append(p.streams, s)
	}
}

func (p *Pool) buffer() []byte {
	if n := len(p.buffers); n > 0 {
		b := p.buffers[n-1]
		p.buffers = p.buffers[:n-1]
		return b
	}
	return make([]byte, 0, freshBuffer)
}

func (p *Pool) freeBuffer(b []byte) {
	if b != nil && cap(b) <= largestKept && len(p.buffers) < buffersKept {
		p.buffers = append(p.buffers, b[:0])
	}
}

// known finds the place of a field among those that were looked at before: HPACK hands out the same string each time, and
// comparing a string with itself takes no time.
func (p *Pool) known(name, value string) *struct{ name, value string } {
	at := 7*len(name) + 31*len(value)
	if name != "" {
		at += int(name[0]) + 3*int(name[len(name)-1])
	}
	if value != "" {
		at += 5*int(value[0]) + 11*int(value[len(value)-1])
	}
	return &p.plain[at%plainFields]
}

// lower answers name in lower case. Names that often come in another one cost nothing.
func (p *Pool) lower(name string) string {
	upper := false
	for i := range len(name) {
		upper = upper || 'A' <= name[i] && name[i] <= 'Z'
	}
	if !upper {
		return name
	}
	var buf [longestInPool]byte
	short := len(name) <= len(buf)
	b := append(buf[:0], name...)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	if !short {
		return string(b)
	}
	known, ok := p.names[string(b)]
	if !ok {
		known = string(b)
		if len(p.names) < loweredNames {
			p.names[known] = known
		}
	}
	return known
}
