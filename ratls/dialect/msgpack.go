package dialect

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/jurat-tls/jurat/attest"
)

// Initial bytes of MessagePack.
const (
	msgpackMap   = 0x80 // with up to 15 entries
	msgpackArray = 0x90
	msgpackText  = 0xa0
	msgpackBin8  = 0xc4
	msgpackUint8 = 0xcc
	msgpackInt8  = 0xd0
	msgpackStr8  = 0xd9
	msgpackArr16 = 0xdc
	msgpackMap16 = 0xde
)

// maxMsgDepth bounds a message. How many values it has is bounded by its length: each takes a byte.
const maxMsgDepth = 8

// msgMap is a map with text keys, each of them once.
type msgMap map[string]any

// field is the value of a key, nil where there is none.
func (m msgMap) field(name string) any { return m[name] }

// msgpack reads one map and nothing after it.
func msgpack(raw []byte) (msgMap, error) {
	p := &msgParser{rest: raw}
	v, err := p.value(maxMsgDepth)
	if err == nil && len(p.rest) != 0 {
		err = errors.New("bytes after the message")
	}
	m, ok := v.(msgMap)
	if err == nil && !ok {
		err = errors.New("no map")
	}
	if err != nil {
		code := attest.CodeMalformed
		if errors.Is(err, errTwice) {
			code = attest.CodeDuplicateField
		}
		return nil, &attest.Error{Code: code, Check: "evidence", Got: "MessagePack", Err: err}
	}
	return m, nil
}

var errTwice = errors.New("a key twice")

type msgParser struct{ rest []byte }

func (p *msgParser) take(n uint64) ([]byte, error) {
	if n > uint64(len(p.rest)) {
		return nil, errors.New("truncated")
	}
	out := p.rest[:n:n]
	p.rest = p.rest[n:]
	return out, nil
}

// number reads a big-endian number of 1, 2, 4 or 8 bytes.
func (p *msgParser) number(size int) (uint64, error) {
	raw, err := p.take(uint64(size))
	if err != nil {
		return 0, err
	}
	var wide [8]byte
	copy(wide[8-size:], raw)
	return binary.BigEndian.Uint64(wide[:]), nil
}

// value reads one value. It allocates as they come: what is announced is not believed.
func (p *msgParser) value(depth int) (any, error) {
	if depth == 0 {
		return nil, errors.New("too deep")
	}
	first, err := p.take(1)
	if err != nil {
		return nil, err
	}
	switch b := first[0]; {
	case b < msgpackMap:
		return uint64(b), nil
	case b < msgpackArray:
		return p.pairs(uint64(b&0xf), depth)
	case b < msgpackText:
		return p.list(uint64(b&0xf), depth)
	case b < 0xc0:
		raw, err := p.take(uint64(b & 0x1f))
		return string(raw), err
	case b == 0xc0:
		return nil, nil
	case b == 0xc2, b == 0xc3:
		return b == 0xc3, nil
	case b >= msgpackBin8 && b <= msgpackBin8+2:
		return p.sized(b-msgpackBin8, func(n uint64) (any, error) { return p.take(n) })
	case b >= msgpackUint8 && b <= msgpackUint8+3:
		return p.number(1 << (b - msgpackUint8))
	case b >= msgpackInt8 && b <= msgpackInt8+3, b >= 0xe0:
		return p.negative(b)
	case b >= msgpackStr8 && b <= msgpackStr8+2:
		return p.sized(b-msgpackStr8, func(n uint64) (any, error) { raw, err := p.take(n); return string(raw), err })
	case b >= msgpackArr16 && b <= msgpackArr16+1:
		return p.sized(b-msgpackArr16+1, func(n uint64) (any, error) { return p.list(n, depth) })
	case b >= msgpackMap16: // from 0xe0 on it is a number
		return p.sized(b-msgpackMap16+1, func(n uint64) (any, error) { return p.pairs(n, depth) })
	default:
		return nil, fmt.Errorf("type %#x", b)
	}
}

// negative reads past a signed number, none of which matters.
func (p *msgParser) negative(b byte) (any, error) {
	if b >= 0xe0 {
		return nil, nil
	}
	_, err := p.number(1 << (b - msgpackInt8))
	return nil, err
}

// sized reads a length of 1, 2 or 4 bytes and what has it.
func (p *msgParser) sized(log byte, read func(n uint64) (any, error)) (any, error) {
	n, err := p.number(1 << log)
	if err != nil {
		return nil, err
	}
	return read(n)
}

func (p *msgParser) list(n uint64, depth int) (any, error) {
	var out []any
	for range n {
		v, err := p.value(depth - 1)
		if err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, nil
}

func (p *msgParser) pairs(n uint64, depth int) (any, error) {
	out := msgMap{}
	for range n {
		k, err := p.value(depth - 1)
		if err != nil {
			return nil, err
		}
		key, ok := k.(string)
		if !ok {
			return nil, errors.New("a key that is no text")
		}
		if _, twice := out[key]; twice {
			return nil, errTwice
		}
		if out[key], err = p.value(depth - 1); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// octetsOf is a byte string, which Rust writes as an array of numbers; nil where v is neither.
func octetsOf(v any) []byte {
	switch v := v.(type) {
	case []byte:
		return v
	case []any:
		out := make([]byte, len(v))
		for i, n := range v {
			b, ok := n.(uint64)
			if !ok || b > 255 {
				return nil
			}
			out[i] = byte(b)
		}
		return out
	}
	return nil
}
