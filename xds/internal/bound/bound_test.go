package bound_test

import (
	"bytes"
	"testing"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/jurat-tls/jurat/xds/internal/bound"
)

// list is a message whose field 1 is of its own kind.
type list struct{}

func (list) Message(field int32) bound.Shape {
	if field == 1 {
		return list{}
	}
	return nil
}

func wrap(field protowire.Number, inner []byte) []byte {
	return protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), inner)
}

func TestMessages(t *testing.T) {
	deep := func(n int) []byte {
		var raw []byte
		for range n {
			raw = wrap(1, raw)
		}
		return raw
	}
	for name, c := range map[string]struct {
		raw  []byte
		most int
		n    int
		err  error
	}{
		"nothing":          {nil, 10, 1, nil},
		"three":            {append(wrap(1, nil), wrap(1, nil)...), 10, 3, nil},
		"nested":           {deep(3), 10, 4, nil},
		"others":           {append(wrap(2, []byte("text")), protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 7)...), 10, 1, nil},
		"many":             {bytes.Repeat(wrap(1, nil), 1000), 10, 11, nil},
		"as many":          {bytes.Repeat(wrap(1, nil), 9), 10, 10, nil},
		"deep":             {deep(101), 1000, 101, bound.ErrDeep},
		"as deep":          {deep(100), 1000, 101, nil},
		"garbage":          {[]byte{0xff}, 10, 1, bound.ErrMalformed},
		"cut off":          {[]byte{10, 5, 1}, 10, 1, bound.ErrMalformed},
		"garbage within":   {wrap(1, []byte{0xff}), 10, 2, bound.ErrMalformed},
		"a group":          {protowire.AppendTag(nil, 1, protowire.StartGroupType), 10, 1, bound.ErrMalformed},
		"the end of one":   {protowire.AppendTag(nil, 1, protowire.EndGroupType), 10, 1, bound.ErrMalformed},
		"garbage too late": {append(bytes.Repeat(wrap(1, nil), 100), 0xff), 10, 11, nil},
	} {
		if n, err := bound.Messages(list{}, c.raw, c.most); n != c.n || err != c.err {
			t.Errorf("%s: %d, %v, want %d, %v", name, n, err, c.n, c.err)
		}
	}
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte{10, 2, 10, 0, 18, 1, 'a'})
	f.Fuzz(func(t *testing.T, raw []byte) {
		n, err := bound.Messages(list{}, raw, 100)
		if n < 1 || n > 101 || err == nil && n <= 100 && n > len(raw)/2+1 {
			t.Fatalf("%d messages in %d bytes", n, len(raw))
		}
	})
}
