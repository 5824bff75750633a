package strictcbor_test

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math"
	"testing"

	"github.com/jurat-tls/jurat/attest/strictcbor"
)

var (
	strict = strictcbor.Limits{Depth: 4, Items: 16}
	loose  = strictcbor.Limits{Depth: 4, Items: 16, AnyLength: true, OpenMaps: true}
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	raw, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

func TestParse(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		in            string
		strict, loose bool
	}{
		"zero":                       {"00", true, true},
		"largest number":             {"1bffffffffffffffff", true, true},
		"number, one byte":           {"1818", true, true},
		"number, two bytes":          {"190100", true, true},
		"number, four bytes":         {"1a00010000", true, true},
		"number, eight bytes":        {"1b0000000100000000", true, true},
		"negative":                   {"3822", true, true},
		"bytes":                      {"420102", true, true},
		"text":                       {"6161", true, true},
		"array":                      {"820102", true, true},
		"map":                        {"a2016161616202", true, true},
		"tag":                        {"d28140", true, true},
		"false, true, null":          {"83f4f5f6", true, true},
		"number in a byte too many":  {"1817", false, true},
		"number in two":              {"1900ff", false, true},
		"number in four":             {"1a0000ffff", false, true},
		"number in eight":            {"1b00000000ffffffff", false, true},
		"length in a byte too many":  {"580101", false, true},
		"open map":                   {"bf0102ff", false, true},
		"empty open map":             {"bfff", false, true},
		"depth at its limit":         {"81818100", true, true},
		"items at their limit":       {"8f000000000000000000000000000000", true, true},
		"nothing":                    {"", false, false},
		"trailing byte":              {"0000", false, false},
		"truncated number":           {"1901", false, false},
		"truncated bytes":            {"4201", false, false},
		"truncated array":            {"8201", false, false},
		"truncated map":              {"a101", false, false},
		"truncated open map":         {"bf01", false, false},
		"open map with half a pair":  {"bf01ff", false, false},
		"open map twice the key":     {"bf01020103ff", false, false},
		"map twice the key":          {"a201020103", false, false},
		"map twice the text":         {"a2616102616103", false, false},
		"map, one key in two forms":  {"a20102180103", false, false},
		"map with a key of bytes":    {"a1410102", false, false},
		"map with a key of an array": {"a18002", false, false},
		"map with a key of null":     {"a1f602", false, false},
		"endless bytes announced":    {"5bffffffffffffffff01", false, false},
		"endless array announced":    {"9bffffffffffffffff", false, false},
		"endless map announced":      {"bbffffffffffffffff", false, false},
		"map whose pairs overflow":   {"bb8000000000000000", false, false},
		"open bytes":                 {"5f4101ff", false, false},
		"open text":                  {"7f6161ff", false, false},
		"open array":                 {"9f01ff", false, false},
		"reserved length":            {"1c00000000000000000000000000000000", false, false},
		"nothing after an open map":  {"bf", false, false},
		"open map without its end":   {"bf0102", false, false},
		"number without a length":    {"1f", false, false},
		"lone break":                 {"ff", false, false},
		"text that is no UTF-8":      {"61ff", false, false},
		"float":                      {"f93c00", false, false},
		"undefined":                  {"f7", false, false},
		"simple value":               {"e0", false, false},
		"too deep":                   {"8181818100", false, false},
		"too many items":             {"9000000000000000000000000000000000", false, false},
		"tag without content":        {"d2", false, false},
	} {
		t.Run(name, func(t *testing.T) {
			in := unhex(t, c.in)
			if _, err := strictcbor.Parse(in, strict); (err == nil) != c.strict {
				t.Errorf("strict: %v", err)
			}
			if _, err := strictcbor.Parse(in, loose); (err == nil) != c.loose {
				t.Errorf("loose: %v", err)
			}
		})
	}
	if _, err := strictcbor.Parse([]byte{0}, strictcbor.Limits{}); err == nil {
		t.Error("the zero Limits accept")
	}
	if _, err := strictcbor.Parse([]byte{0}, strictcbor.Limits{Depth: 1}); err == nil {
		t.Error("no items, and one accepted")
	}
	if _, err := strictcbor.Parse(unhex(t, "a201020103"), strict); !errors.Is(err, strictcbor.ErrDuplicate) {
		t.Errorf("duplicate: %v", err)
	}
	// The same number with the other sign is another key.
	if _, err := strictcbor.Parse(unhex(t, "a200022003"), strict); err != nil {
		t.Errorf("keys 0 and -1: %v", err)
	}
}

func TestValue(t *testing.T) {
	t.Parallel()
	v, err := strictcbor.Parse(unhex(t, "a8"+"0105"+"2041ff"+"61616162"+"028101"+"03d20a"+"04f6"+"3bffffffffffffffff00"+"1bffffffffffffffff07"), strictcbor.Limits{Depth: 4, Items: 32})
	if err != nil {
		t.Fatal(err)
	}
	if n, ok := v.Get(1).Uint(); !ok || n != 5 {
		t.Error("Uint", n, ok)
	}
	if b, ok := v.Get(-1).Bytes(); !ok || !bytes.Equal(b, []byte{0xff}) {
		t.Error("the key -1 is not found, or taken for 2^64-1", b, ok)
	}
	if s, ok := v.Field("a").Text(); !ok || s != "b" {
		t.Error("Text", s, ok)
	}
	if a, ok := v.Get(2).Array(); !ok || len(a) != 1 {
		t.Error("Array", a, ok)
	}
	if n, content, ok := v.Get(3).Tag(); !ok || n != 18 || content.String() != "10" {
		t.Error("Tag", n, content, ok)
	}
	if !v.Get(4).IsNull() || v.Get(5).IsNull() || !v.Get(4).Present() || v.Get(5).Present() || v.Field("b").Present() || !v.IsMap() || v.Get(2).IsMap() {
		t.Error("null, missing, map")
	}
	if v.Len() != 8 || v.Get(2).Len() != 0 || (strictcbor.Value{}).Len() != 0 {
		t.Error("Len", v.Len())
	}
	// An accessor gives nothing of a value of another type, even to those who do not ask whether it did.
	for _, value := range []strictcbor.Value{{}, v, v.Get(1), v.Get(-1), v.Field("a"), v.Get(2), v.Get(3), v.Get(4)} {
		types := 0
		count := func(ok, empty bool) {
			if ok {
				types++
			} else if !empty {
				t.Errorf("%s: an accessor of another type gives something", value)
			}
		}
		n, ok := value.Uint()
		count(ok, n == 0)
		b, ok := value.Bytes()
		count(ok, b == nil)
		s, ok := value.Text()
		count(ok, s == "")
		list, ok := value.Array()
		count(ok, list == nil)
		tag, content, ok := value.Tag()
		count(ok, tag == 0 && !content.Present())
		count(value.IsMap(), value.Len() == 0)
		count(value.IsNull(), true)
		count(!value.Present(), true)
		if types != 1 {
			t.Errorf("%s has %d types", value, types)
		}
		if i, ok := value.Int(); ok != (value.String() == "5") || !ok && i != 0 {
			t.Errorf("%s: Int %d, %v", value, i, ok)
		}
	}
	named, err := strictcbor.Parse(unhex(t, "a1616100"), strict)
	if err != nil || named.Get(0).Present() {
		t.Error("a text is taken for the key 0", err)
	}
	numbered, err := strictcbor.Parse(unhex(t, "a10000"), strict)
	if err != nil || numbered.Field("").Present() {
		t.Error("a number is taken for the empty key", err)
	}
	two, err := strictcbor.Parse(unhex(t, "820102"), strict)
	if err != nil || two.Len() != 0 || two.Get(1).Present() {
		t.Error("an array is taken for a map", err)
	}
	for in, want := range map[string]int64{"1b7fffffffffffffff": math.MaxInt64, "3b7fffffffffffffff": math.MinInt64, "20": -1} {
		n, err := strictcbor.Parse(unhex(t, in), strict)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := n.Int(); !ok || got != want {
			t.Errorf("%s: %d, %v", in, got, ok)
		}
	}
	for _, in := range []string{"1b8000000000000000", "3b8000000000000000", "40"} {
		n, err := strictcbor.Parse(unhex(t, in), strict)
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := n.Int(); ok {
			t.Errorf("%s: %d", in, got)
		}
	}
	if n, err := strictcbor.Parse([]byte{0x20}, strict); err != nil {
		t.Fatal(err)
	} else if _, ok := n.Uint(); ok {
		t.Error("a negative number is taken for an unsigned one")
	}
}

// What our own reader accepts, the encoder writes the same way.
func TestUnmarshal(t *testing.T) {
	t.Parallel()
	type record struct {
		_    struct{} `cbor:",toarray"`
		Name string
		List []byte
	}
	raw, err := strictcbor.Marshal(record{Name: "x", List: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	var got record
	if err := strictcbor.Unmarshal(raw, &got); err != nil || got.Name != "x" {
		t.Fatal(got, err)
	}
	for _, bad := range []string{"", "8261784101" + "00", "9f61784101ff", "826178580101"} {
		if err := strictcbor.Unmarshal(unhex(t, bad), &got); err == nil {
			t.Errorf("%s accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, seed := range []string{"d28443a10126a0404100", "bf616101616202ff", "a201022003", "5f4101ff"} {
		f.Add(unhex(f, seed))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		v, err := strictcbor.Parse(in, loose)
		if _, narrow := strictcbor.Parse(in, strict); err != nil && narrow == nil {
			t.Fatal("the strict reading accepts what the loose one refuses")
		}
		if err != nil {
			return
		}
		var count func(strictcbor.Value) int
		count = func(v strictcbor.Value) int {
			n := 1
			if list, ok := v.Array(); ok {
				for _, e := range list {
					n += count(e)
				}
			}
			if _, content, ok := v.Tag(); ok {
				n += count(content)
			}
			for i := range v.Len() {
				key, value := v.Entry(i)
				n += count(key) + count(value)
			}
			return n
		}
		if count(v) > loose.Items {
			t.Fatal("more items than allowed")
		}
	})
}
