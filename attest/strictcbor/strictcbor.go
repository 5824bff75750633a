// Package strictcbor reads and writes CBOR (RFC 8949) so that one byte string has one meaning.
//
// Two readers serve two needs. Unmarshal is for formats of our own: it accepts exactly what Marshal would have written.
// Parse is for formats of others, which come in more than one serialization: it makes a tree of values out of which a
// caller takes what its format defines, by type; nothing is converted, and nothing is filled in.
package strictcbor

import (
	"bytes"
	"errors"
	"sync"

	"github.com/fxamacker/cbor/v2"
)

// The modes are constants that take some making.
var (
	writing = sync.OnceValues(func() (cbor.EncMode, error) {
		opts := cbor.CoreDetEncOptions()
		opts.NilContainers = cbor.NilContainerAsEmpty // otherwise null would be a second way to write an empty list
		return opts.EncMode()
	})
	reading = sync.OnceValues(func() (cbor.DecMode, error) {
		return cbor.DecOptions{
			DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
			MaxNestedLevels: 4, MaxArrayElements: 16, MaxMapPairs: 16, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
		}.DecMode()
	})
)

// Marshal encodes v in the core deterministic encoding (RFC 8949 §4.2.1).
func Marshal(v any) ([]byte, error) {
	mode, err := writing()
	if err != nil {
		return nil, err
	}
	return mode.Marshal(v)
}

// Unmarshal decodes one data item of the form that Marshal writes. The bounds keep a hostile length from allocating; the
// comparison with the canonical encoding refuses every second way of writing the same thing, known or not.
func Unmarshal(raw []byte, v any) error {
	mode, err := reading()
	if err != nil {
		return err
	}
	if err := mode.Unmarshal(raw, v); err != nil {
		return err
	}
	canonical, err := writing()
	if err != nil {
		return err
	}
	return canonical.NewEncoder(&expected{raw}).Encode(v)
}

// expected is a writer that accepts the bytes in rest and no others, which spares a copy of what is large. An item that was
// accepted is all of rest: none is the beginning of another.
type expected struct{ rest []byte }

func (e *expected) Write(p []byte) (int, error) {
	rest, ok := bytes.CutPrefix(e.rest, p)
	if !ok {
		return 0, errors.New("not in canonical form")
	}
	e.rest = rest
	return len(p), nil
}
