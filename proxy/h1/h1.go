// Package h1 reads and writes messages of HTTP/1.1 and 1.0 (RFC 9112) in memory: no I/O, no goroutines, no clock.
//
// A message that two servers could read in two ways is refused, never repaired: that is what request smuggling (RFC 9112
// section 11.2) lives on. So is one that has what only an attack has, even where the RFC would let it pass.
//
// A head costs one allocation, of a string that all of its names and values are parts of; bodies, and writing, cost none.
package h1

import "errors"

// ErrMore says that what there is of a head is right in size and not complete.
var ErrMore = errors.New("HTTP/1: the head is not complete")

// ErrPreface says that the client speaks HTTP/2 (RFC 9113 section 3.4). It is an Error.
var ErrPreface error = Error{505, "the preface of HTTP/2 where HTTP/1 is spoken"}

// Error is a message that is refused. Nothing more can be read from a connection on which one came. Errors compare with ==.
type Error struct {
	// Status is the answer for a client: 400, 414, 417, 431, 501 or 505. It is 502 where it was a server that said it.
	Status int
	Reason string // what is wrong, never quoting the message
}

func (e Error) Error() string { return "HTTP/1: " + e.Reason }

// Body of a message where it is not a number of bytes.
const (
	Chunked    int64 = -1
	UntilClose int64 = -2
)

// Meta is what a head says that is of its connection only.
type Meta struct {
	Size int   // of the head in bytes
	Body int64 // what follows the head: that many bytes, Chunked or UntilClose
	// Persistent reports whether another message may follow on the connection once this one's body has ended. An answer
	// after which the connection is no longer HTTP (101, and 2xx to CONNECT) is never followed by one.
	Persistent bool
	// Named is what Connection lists, where it names fields: Body.Drop is to be told, for those that come as trailers.
	Named string
}

// Limits bound what a peer can make its reader hold. A zero field takes the default that its comment names.
type Limits struct {
	Head       int // bytes of a head, 64 KiB
	Line       int // bytes of its first line, 16 KiB
	Fields     int // field lines of a head or of a trailer section, 128
	Trailer    int // bytes of a trailer section, 8 KiB
	Extensions int // bytes of chunk extensions in one body, 4 KiB
}

// WithDefaults is l with no field zero.
func (l Limits) WithDefaults() Limits {
	return Limits{
		Head: or(l.Head, 64<<10), Line: or(l.Line, 16<<10), Fields: or(l.Fields, 128), Trailer: or(l.Trailer, 8<<10), Extensions: or(l.Extensions, 4<<10),
	}
}

func or(v, otherwise int) int {
	if v > 0 {
		return v
	}
	return otherwise
}
