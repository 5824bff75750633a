package h1

import "bytes"

// Scan remembers how much of a head that comes in pieces has been looked at, so that a peer who sends single bytes does
// not make its reader look at all of them each time. The zero value is for a new head.
type Scan struct {
	seen int
	line bool // the first line is complete
}

// Ready reports whether parsing b would tell anything but ErrMore. b holds what it held last time, and more.
func (s *Scan) Ready(b []byte, limits Limits) bool {
	limits = limits.WithDefaults()
	if len(b) > limits.Head || headEnd(b, s.seen) > 0 {
		return true
	}
	if !s.line {
		first := b[:min(len(b), limits.Line+len("\r\n"))]
		if s.line = bytes.IndexByte(first[s.seen:], '\n') >= 0; !s.line && len(b) > len(first) {
			return true
		}
	}
	s.seen = len(b)
	return false
}

// headEnd answers where the head that b starts with ends, or 0 if it does not end in b. The bytes before from were looked
// at before. A head also ends after an LF without a CR before it: nothing that follows could make it right, and whoever
// sent it shall not wait for more.
func headEnd(b []byte, from int) int {
	for i := from; ; i++ {
		n := bytes.IndexByte(b[i:], '\n')
		if n < 0 {
			return 0
		}
		i += n
		if i < 1 || b[i-1] != '\r' || i == 1 || b[i-2] == '\n' {
			return i + 1
		}
	}
}

// bound answers where the head that b starts with ends, within the limits.
func bound(b []byte, limits Limits, longLine, longHead int) (int, error) {
	if first := b[:min(len(b), limits.Line+len("\r\n"))]; len(b) > len(first) && bytes.IndexByte(first, '\n') < 0 {
		return 0, Error{longLine, "the first line is too long"}
	}
	end := headEnd(b[:min(len(b), limits.Head)], 0)
	switch {
	case end > 0:
		return end, nil
	case len(b) > limits.Head:
		return 0, Error{longHead, "the head is too long"}
	default:
		return 0, ErrMore
	}
}
