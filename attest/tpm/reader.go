package tpm

import (
	"slices"

	"golang.org/x/crypto/cryptobyte"
)

// reader takes fields off a TPM structure, whose numbers are big endian. After the first field that is not there it gives
// zeros, and whole says so.
type reader struct {
	rest cryptobyte.String
	cut  bool
}

func (r *reader) take(ok bool) { r.cut = r.cut || !ok }

func (r *reader) u8() (v uint8)   { r.take(r.rest.ReadUint8(&v)); return v }
func (r *reader) u16() (v uint16) { r.take(r.rest.ReadUint16(&v)); return v }
func (r *reader) u32() (v uint32) { r.take(r.rest.ReadUint32(&v)); return v }
func (r *reader) u64() (v uint64) { r.take(r.rest.ReadUint64(&v)); return v }

func (r *reader) bytes(n int) (b []byte) {
	r.take(r.rest.ReadBytes(&b, n))
	return slices.Clone(b)
}

// sized takes a TPM2B of at most limit bytes.
func (r *reader) sized(limit int) []byte {
	var inner cryptobyte.String
	r.take(r.rest.ReadUint16LengthPrefixed(&inner) && len(inner) <= limit)
	return slices.Clone(inner)
}

// whole reports whether all fields were there, and nothing was behind them.
func (r *reader) whole() bool { return !r.cut && r.rest.Empty() }
