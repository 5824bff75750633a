package strictcbor

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"unicode/utf8"
)

// ErrDuplicate says that a map has a key twice: two readers would see two different things.
var ErrDuplicate = errors.New("a map key twice")

// Limits bound what Parse accepts. The zero value accepts nothing.
type Limits struct {
	Depth int // of nesting; a lone string has depth 1
	Items int // in all, a map's keys among them
	// AnyLength accepts a length or number in more bytes than it needs (RFC 8949 §4.1), which makes no difference where
	// the bytes are signed. Without it, no unsigned byte of an envelope can change.
	AnyLength bool
	// OpenMaps accepts maps without a length in front (RFC 8949 §3.2.2), as the Nitro Security Module writes.
	OpenMaps bool
}

// kind of a Value. The zero value is of no item: what a missing map entry is.
type kind uint8

const (
	kindNone kind = iota
	kindUint
	kindNegative // -1-n
	kindBytes
	kindText
	kindArray
	kindMap
	kindTag
	kindFalse
	kindTrue
	kindNull
)

// Value is one data item. Its strings share memory with the input. The zero Value is a missing one; every accessor tells
// it from a present one.
type Value struct {
	kind  kind
	n     uint64
	str   []byte
	items []Value // of an array; a map's keys and values in turn; a tag's content
}

// Parse decodes exactly one data item and refuses bytes after it.
func Parse(raw []byte, limits Limits) (Value, error) {
	p := parser{rest: raw, limits: limits}
	v, err := p.value(limits.Depth)
	if err != nil {
		return Value{}, err
	}
	if len(p.rest) != 0 {
		return Value{}, fmt.Errorf("%d bytes after the item", len(p.rest))
	}
	return v, nil
}

type parser struct {
	rest   []byte
	limits Limits
	items  int
}

var errTruncated = errors.New("truncated")

// Initial bytes of the items that have no number in them.
const (
	initialFalse   = 0xf4
	initialTrue    = 0xf5
	initialNull    = 0xf6
	initialOpenMap = 0xbf
	initialBreak   = 0xff
)

func (p *parser) value(depth int) (Value, error) {
	if depth <= 0 {
		return Value{}, fmt.Errorf("nested deeper than %d", p.limits.Depth)
	}
	if p.items++; p.items > p.limits.Items {
		return Value{}, fmt.Errorf("more than %d items", p.limits.Items)
	}
	if len(p.rest) == 0 {
		return Value{}, errTruncated
	}
	switch p.rest[0] {
	case initialFalse:
		return p.simple(kindFalse)
	case initialTrue:
		return p.simple(kindTrue)
	case initialNull:
		return p.simple(kindNull)
	case initialOpenMap:
		if p.limits.OpenMaps {
			p.rest = p.rest[1:]
			return p.openMap(depth)
		}
	}
	major, n, err := p.head()
	if err != nil {
		return Value{}, err
	}
	switch major {
	case 0:
		return Value{kind: kindUint, n: n}, nil
	case 1:
		return Value{kind: kindNegative, n: n}, nil
	case 2, 3:
		return p.text(major, n)
	case 4:
		return p.list(Value{kind: kindArray}, n, depth)
	case 5:
		if n > math.MaxInt32 { // twice it must not overflow
			return Value{}, errTruncated
		}
		v, err := p.list(Value{kind: kindMap}, 2*n, depth)
		if err == nil {
			err = v.unique()
		}
		return v, err
	case 6:
		return p.list(Value{kind: kindTag, n: n}, 1, depth)
	}
	return Value{}, errors.New("a float or a simple value that no format here uses")
}

func (p *parser) simple(k kind) (Value, error) {
	p.rest = p.rest[1:]
	return Value{kind: k}, nil
}

// head reads an initial byte and its argument (RFC 8949 §3).
func (p *parser) head() (major byte, n uint64, err error) {
	initial := p.rest[0]
	major, info := initial>>5, initial&0x1f
	p.rest = p.rest[1:]
	if info < 24 {
		return major, uint64(info), nil
	}
	if info > 27 {
		return 0, 0, errors.New("an item without a length in front")
	}
	size := 1 << (info - 24)
	if len(p.rest) < size {
		return 0, 0, errTruncated
	}
	var wide [8]byte
	copy(wide[8-size:], p.rest[:size])
	n = binary.BigEndian.Uint64(wide[:])
	p.rest = p.rest[size:]
	least := uint64(24)
	if size > 1 {
		least = 1 << (4 * size)
	}
	if n < least && !p.limits.AnyLength {
		return 0, 0, errors.New("a number in more bytes than it needs")
	}
	return major, n, nil
}

func (p *parser) text(major byte, n uint64) (Value, error) {
	if n > uint64(len(p.rest)) {
		return Value{}, errTruncated
	}
	v := Value{kind: kindBytes, str: p.rest[:n:n]}
	p.rest = p.rest[n:]
	if major == 3 {
		v.kind = kindText
		if !utf8.Valid(v.str) {
			return Value{}, errors.New("text that is not UTF-8")
		}
	}
	return v, nil
}

// list reads n items into v. It allocates as they come: the number that is announced is not believed.
func (p *parser) list(v Value, n uint64, depth int) (Value, error) {
	for range n {
		item, err := p.value(depth - 1)
		if err != nil {
			return Value{}, err
		}
		v.items = append(v.items, item)
	}
	return v, nil
}

func (p *parser) openMap(depth int) (Value, error) {
	v := Value{kind: kindMap}
	for {
		if len(p.rest) > 0 && p.rest[0] == initialBreak {
			p.rest = p.rest[1:]
			return v, v.unique()
		}
		var err error
		if v, err = p.list(v, 2, depth); err != nil { // a key and its value
			return Value{}, err
		}
	}
}

// unique refuses keys that are no numbers or texts, and repeated ones.
func (v Value) unique() error {
	type key struct {
		kind kind
		n    uint64
		str  string
	}
	seen := make(map[key]bool, len(v.items)/2)
	for i := 0; i < len(v.items); i += 2 {
		k := v.items[i]
		if k.kind != kindUint && k.kind != kindNegative && k.kind != kindText {
			return errors.New("a map key that is neither a number nor text")
		}
		at := key{k.kind, k.n, string(k.str)}
		if seen[at] {
			return fmt.Errorf("%w: %s", ErrDuplicate, k)
		}
		seen[at] = true
	}
	return nil
}

// Uint is v's number.
func (v Value) Uint() (uint64, bool) {
	if v.kind != kindUint {
		return 0, false
	}
	return v.n, true
}

// Int is v's number, where an int64 holds it.
func (v Value) Int() (int64, bool) {
	switch {
	case v.n > math.MaxInt64:
		return 0, false
	case v.kind == kindNegative:
		return -1 - int64(v.n), true
	case v.kind == kindUint:
		return int64(v.n), true
	}
	return 0, false
}

// Bytes is v's byte string.
func (v Value) Bytes() ([]byte, bool) {
	if v.kind != kindBytes {
		return nil, false
	}
	return v.str, true
}

// Text is v's text.
func (v Value) Text() (string, bool) {
	if v.kind != kindText {
		return "", false
	}
	return string(v.str), true
}

// Array is v's items.
func (v Value) Array() ([]Value, bool) {
	if v.kind != kindArray {
		return nil, false
	}
	return v.items, true
}

// Tag is v's tag and what it stands in front of.
func (v Value) Tag() (number uint64, content Value, ok bool) {
	if v.kind != kindTag {
		return 0, Value{}, false
	}
	return v.n, v.items[0], true
}

// IsMap tells whether v is a map.
func (v Value) IsMap() bool { return v.kind == kindMap }

// IsNull tells whether v is null.
func (v Value) IsNull() bool { return v.kind == kindNull }

// Present tells whether v is a data item at all.
func (v Value) Present() bool { return v.kind != kindNone }

// Len is the number of entries of a map.
func (v Value) Len() int {
	if v.kind != kindMap {
		return 0
	}
	return len(v.items) / 2
}

// Entry is the key and the value of entry i of a map.
func (v Value) Entry(i int) (key, value Value) { return v.items[2*i], v.items[2*i+1] }

// Get is the value of a map's entry whose key is the number label; a missing Value when there is none.
func (v Value) Get(label int64) Value {
	return v.find(func(key Value) bool { n, ok := key.Int(); return ok && n == label })
}

// Field is the value of a map's entry whose key is the text name; a missing Value when there is none.
func (v Value) Field(name string) Value {
	return v.find(func(key Value) bool { s, ok := key.Text(); return ok && s == name })
}

func (v Value) find(is func(Value) bool) Value {
	for i := range v.Len() {
		if key, value := v.Entry(i); is(key) {
			return value
		}
	}
	return Value{}
}

// String shows a number or the start of a string, for an error's text.
func (v Value) String() string {
	switch v.kind {
	case kindUint:
		return fmt.Sprint(v.n)
	case kindNegative:
		return fmt.Sprintf("-1-%d", v.n)
	case kindBytes:
		return fmt.Sprintf("h'%.16x'", v.str)
	case kindText:
		return fmt.Sprintf("%.40q", string(v.str))
	default:
		return "an item"
	}
}
