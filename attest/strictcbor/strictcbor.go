// Package strictcbor reads and writes CBOR (RFC 8949) so that one byte string has one meaning.
//
// Two readers serve two needs. Unmarshal is for formats of our own: it accepts exactly what Marshal would have written.
// Parse is for formats of others, which come in more than one serialization: it makes a tree of values out of which a
// caller takes what its format defines, by type; nothing is converted, and nothing is filled in.
package strictcbor

import (
	"bytes"
	"errors"

	"github.com/fxamacker/cbor/v2"
)

// Marshal encodes v in the core deterministic encoding (RFC 8949 §4.2.1).
func Marshal(v any) ([]byte, error) {
	opts := cbor.CoreDetEncOptions()
	opts.NilContainers = cbor.NilContainerAsEmpty // otherwise null would be a second way to write an empty list
	mode, err := opts.EncMode()
	if err != nil {
		return nil, err
	}
	return mode.Marshal(v)
}

// Unmarshal decodes one data item of the form that Marshal writes. The bounds keep a hostile length from allocating; the
// comparison with the canonical encoding refuses every second way of writing the same thing, known or not.
func Unmarshal(raw []byte, v any) error {
	mode, err := cbor.DecOptions{
		DupMapKey: cbor.DupMapKeyEnforcedAPF, IndefLength: cbor.IndefLengthForbidden, TagsMd: cbor.TagsForbidden,
		MaxNestedLevels: 4, MaxArrayElements: 16, MaxMapPairs: 16, ExtraReturnErrors: cbor.ExtraDecErrorUnknownField,
	}.DecMode()
	if err != nil {
		return err
	}
	if err := mode.Unmarshal(raw, v); err != nil {
		return err
	}
	canonical, err := Marshal(v)
	if err != nil {
		return err
	}
	if !bytes.Equal(canonical, raw) {
		return errors.New("not in canonical form")
	}
	return nil
}
