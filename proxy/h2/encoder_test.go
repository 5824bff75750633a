package h2

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"golang.org/x/net/http2/hpack"

	"github.com/jurat-tls/jurat/proxy/message"
)

// Whatever the sizes of the table, and whatever blocks are taken back, another implementation reads what was written, and
// what is secret stays out of its table.
func TestEncoder(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 2))
		c := NewClient(Limits{EncoderTable: 8192}, nil, nil)
		var got []hpack.HeaderField
		dec := hpack.NewDecoder(4096, func(f hpack.HeaderField) { got = append(got, f) })
		for range 200 {
			if r.IntN(8) == 0 {
				size := r.IntN(9000)
				dec.SetAllowedMaxDynamicTableSize(uint32(size))
				c.encoder.setLimit(min(size, c.limits.EncoderTable))
			}
			var fields message.Fields
			for range r.IntN(20) {
				name := [...]string{"x-one", "X-Two", "content-type", "x-long-name-of-a-field", "cookie", "Date"}[r.IntN(6)]
				fields = append(fields, message.Field{Name: name, Value: fmt.Sprint(r.IntN(1 + r.IntN(300))), Secret: r.IntN(20) == 0})
			}
			c.discard()
			at := c.beginBlock()
			if r.IntN(10) == 0 {
				if c.appendFields(append(fields, message.Field{Name: "a", Value: "\n"}), message.NoBody) {
					t.Fatal("a value that must not be sent was taken")
				}
				_ = c.dropBlock(at)
				continue
			}
			if !c.appendFields(fields, 3) {
				t.Fatal("valid fields were refused")
			}
			got = got[:0]
			if _, err := dec.DecodeFull(nil); err != nil {
				t.Fatal(err)
			}
			if _, err := dec.Write(c.out[at+frameHeader:]); err != nil || dec.Close() != nil {
				t.Fatal(seed, err)
			}
			want := append(fields, message.Field{Name: "content-length", Value: "3"})
			if len(got) != len(want) {
				t.Fatalf("%v, want %v", got, want)
			}
			for i, f := range want {
				hidden := f.Secret || f.Name == "cookie"
				if !message.Same(got[i].Name, f.Name) || got[i].Value != f.Value || got[i].Sensitive != hidden {
					t.Fatalf("%v, want %v", got[i], f)
				}
			}
		}
	}
}

// What comes again costs a byte or two.
func TestEncoderIndexes(t *testing.T) {
	c := NewClient(Limits{}, nil, nil)
	var fields message.Fields
	for i := range 12 {
		fields = append(fields, message.Field{Name: "content-type", Value: fmt.Sprint(i)})
	}
	var sizes []int
	for range 3 {
		c.discard()
		at := c.beginBlock()
		c.appendFields(fields, message.NoBody)
		sizes = append(sizes, len(c.out)-at-frameHeader)
	}
	if sizes[0] < 4*len(fields) || sizes[2] != len(fields) {
		t.Errorf("got %v", sizes)
	}
	// One that is new each time does not drive out the others.
	for i := range 250 {
		c.appendFields(message.Fields{{Name: "x-id", Value: fmt.Sprintf("%032d", i)}}, message.NoBody)
	}
	at := len(c.out)
	c.appendFields(fields, message.NoBody)
	if got := len(c.out) - at; got != len(fields) {
		t.Errorf("got %d bytes", got)
	}
}

func TestStatic(t *testing.T) {
	// Another implementation's static table, by way of its decoder.
	dec := hpack.NewDecoder(4096, nil)
	for i := 15; i < firstDynamic; i++ {
		f, err := dec.DecodeFull([]byte{0x80 | byte(i)})
		if err != nil {
			t.Fatal(err)
		}
		if got := static(f[0].Name); got != i {
			t.Errorf("%s: %d, want %d", f[0].Name, got, i)
		}
	}
}

func TestTable(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 3))
	var got table
	want := map[uint32]*Stream{}
	for range 100_000 {
		id := uint32(1 + 2*r.IntN(300))
		switch s := want[id]; {
		case got.get(id) != s:
			t.Fatal(id)
		case s == nil && r.IntN(3) > 0:
			s = &Stream{id: id}
			want[id] = s
			got.put(s)
		case s != nil:
			delete(want, id)
			got.remove(id)
		}
		if got.count != len(want) {
			t.Fatal(got.count, len(want))
		}
	}
	for id, s := range want {
		if got.get(id) != s {
			t.Fatal(id)
		}
	}
}

func TestLength(t *testing.T) {
	for s, want := range map[string]int64{"0": 0, "007": 7, "123456789012345678": 123456789012345678} {
		if n, ok := length(s); !ok || n != want {
			t.Errorf("%s: %d, %v", s, n, ok)
		}
	}
}
