package session

import (
	"encoding/binary"
	"fmt"
	"io"
	"slices"

	"github.com/jurat-tls/jurat/attest/strictcbor"
	"github.com/jurat-tls/jurat/ratls/cmw"
)

// A frame is one byte for its kind, three for the length of its payload, and the payload.
const headerSize = 4

type kind uint8

const (
	kindData          kind = 0 // bytes of the application
	kindEnd           kind = 1 // no more of them from this end
	kindHello         kind = 2
	kindRequest       kind = 3
	kindAuthenticator kind = 4
	kindProof         kind = 5
	kindVerdict       kind = 6
)

func (k kind) String() string {
	if int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

var kindNames = [...]string{"data", "end", "hello", "request", "authenticator", "proof", "verdict"}

// limits of the payload by kind. An authenticator has evidence of at most cmw.MaxExtension, and the chain beside it.
var limits = [...]int{1 << 24, 0, 1 << 10, 1 << 10, cmw.MaxExtension + 64<<10, 256, 256}

// maxData is the payload of one data frame that is written: between two frames, what concerns the session gets its turn.
const maxData = 128 << 10

// reader takes frames off a stream. A read that fails for a while, as with a deadline, loses nothing.
type reader struct {
	src  io.Reader
	head [headerSize]byte
	have int // bytes of head that are there
	kind kind
	left int    // bytes of the payload that are to come
	body []byte // those that are there, unless they are the application's
}

// header reads the header of the next frame, unless it has been.
func (r *reader) header() error {
	for r.have < headerSize {
		n, err := r.src.Read(r.head[r.have:])
		if r.have += n; err != nil && r.have < headerSize {
			return err
		}
	}
	if r.left > 0 {
		return nil // parsed before, and under way
	}
	k, size := kind(r.head[0]), int(binary.BigEndian.Uint32(r.head[:])&0xffffff)
	if int(k) >= len(limits) {
		return malformed("a frame of "+k.String(), nil)
	}
	if size > limits[k] {
		return malformed(fmt.Sprintf("%s of %d bytes; at most %d are allowed", k, size, limits[k]), nil)
	}
	r.kind, r.left = k, size
	return nil
}

// payload reads the rest of a frame that is not the application's.
func (r *reader) payload() ([]byte, error) {
	r.body = slices.Grow(r.body, r.left)
	for r.left > 0 {
		n, err := r.src.Read(r.body[len(r.body) : len(r.body)+r.left])
		r.body, r.left = r.body[:len(r.body)+n], r.left-n
		if err != nil && r.left > 0 {
			return nil, err
		}
	}
	body := r.body
	r.done()
	return body, nil
}

// done passes on to the next frame.
func (r *reader) done() { *r = reader{src: r.src} }

// header appends that of a frame to buf.
func header(buf []byte, k kind, size int) []byte {
	return binary.BigEndian.AppendUint32(buf, uint32(k)<<24|uint32(size))
}

// frame appends a whole one.
func frame(buf []byte, k kind, body []byte) []byte {
	return append(header(slices.Grow(buf, headerSize+len(body)), k, len(body)), body...)
}

// clientHello opens the exchange.
type clientHello struct {
	Protocols []string `cbor:"1,keyasint"` // on offer, best first; none leaves it open
	Earlier   []byte   `cbor:"2,keyasint"` // id of an earlier session that the client can prove; empty for none
}

// serverHello answers it.
type serverHello struct {
	Protocol string `cbor:"1,keyasint"` // chosen; empty where it was left open
	Earlier  bool   `cbor:"2,keyasint"` // both ends prove the earlier session instead of sending evidence
	Asks     bool   `cbor:"3,keyasint"` // the server wants the same of the client; a request follows
}

// verdict ends an end's part of the exchange.
type verdict struct {
	Affirmed bool   `cbor:"1,keyasint"`
	Code     string `cbor:"2,keyasint"` // of the first failing check; empty when affirmed
}

// encode is for types that always encode.
func encode(v any) []byte {
	raw, err := strictcbor.Marshal(v)
	if err != nil {
		panic(err)
	}
	return raw
}

func decode(raw []byte, v any) error {
	if err := strictcbor.Unmarshal(raw, v); err != nil {
		return malformed("a frame that does not decode", err)
	}
	return nil
}
