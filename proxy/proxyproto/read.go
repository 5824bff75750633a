package proxyproto

import (
	"bytes"
	"errors"
	"io"
	"slices"
)

// shortest is the size of "PROXY UNKNOWN" with its CR LF: no header of either version is shorter.
const shortest = 15

// Read reads a header from r and not a byte of what follows: that belongs to whoever reads the connection itself, such as
// TLS. It answers io.EOF where r ends before its first byte, io.ErrUnexpectedEOF where it ends inside the header, an Error,
// or the error of r. It holds at most MaxV2 bytes; r bounds the time that it takes.
func Read(r io.Reader) (Header, error) {
	p := make([]byte, 0, MaxV1)
	for idle := 0; idle < 100; idle++ {
		n := missing(p)
		p = slices.Grow(p, n)
		n, readErr := r.Read(p[len(p) : len(p)+n])
		p = p[:len(p)+n]
		if h, _, err := Parse(p); !errors.Is(err, ErrMore) {
			return h, err
		}
		switch {
		case readErr == nil:
		case errors.Is(readErr, io.EOF) && len(p) > 0:
			return Header{}, io.ErrUnexpectedEOF
		default:
			return Header{}, readErr
		}
		if n > 0 {
			idle = 0
		}
	}
	return Header{}, io.ErrNoProgress
}

// missing answers how many bytes a header that begins with p, for which Parse answers ErrMore, lacks at least.
func missing(p []byte) int {
	switch {
	case len(p) < shortest:
		return shortest - len(p)
	case p[0] != signature[0]:
		return missing1(p)
	case len(p) < fixed:
		return fixed - len(p)
	default:
		return fixed + int(p[14])<<8 + int(p[15]) - len(p)
	}
}

func missing1(p []byte) int {
	end := len("\r\n")
	switch {
	case p[len(p)-1] == '\r':
		return 1
	case p[len(proxy)] == 'U': // any number of words may follow, or none
		return end
	}
	// What follows the field that p ends in.
	switch bytes.Count(p, []byte(" ")) {
	case 2:
		return len(" :: 0 0") + end
	case 3:
		return len(" 0 0") + end
	case 4:
		return len(" 0") + end
	default:
		return end
	}
}
