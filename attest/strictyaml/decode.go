package strictyaml

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/jurat-tls/jurat/attest"
)

// Decode reads v into what out points to: a struct whose fields name their keys in yaml tags, and below it structs,
// pointers, slices, maps with text as keys, text, booleans, numbers and lengths of time. The key in a tag is followed by
// any of these:
//
//	inline          the keys of this struct are among those of the struct around it
//	required        the key has to be there
//	one=A|B         the text, or each text of a list, is one of these
//	zero            0 may be written
//	signed          numbers of 0 and below may be written
//	negative=WORD   WORD is written for -1, which means something of its own here
//
// Without the last three a number or a time that is written is above 0: 0 in the struct is whatever the default is, and
// whoever writes it into a file means "none" or "without end" more often than that. Nor is a text that is written empty:
// to have neither, the key is left out. What has no key in v stays as it is in out; a field without a tag, or with "-", is
// not read. A list that is there and empty is not nil.
//
// The error is an *attest.Error about the first value that is not as it has to be, with its position, and out is zero then.
// Decode panics where out is no pointer, a tag is not as described here, or a type is none of those.
func Decode(v Node, out any) error {
	into := reflect.ValueOf(out).Elem()
	err := v.decode(into, tag{})
	if err != nil {
		into.SetZero() // half a configuration is a different one
	}
	return err
}

// tag is what the tag of a field says.
type tag struct {
	key                            string
	inline, required, zero, signed bool
	word                           string // for -1
	choices                        []string
}

// field is a field of a struct, or of one that is inline in it.
type field struct {
	tag
	index []int
	reflect.StructField
	owner reflect.Type // the struct that declares it
}

// fieldsOf answers the fields of a struct that have keys, in order.
func fieldsOf(t reflect.Type) []field {
	var all []field
	add := func(f field) {
		if slices.ContainsFunc(all, func(other field) bool { return other.key == f.key }) {
			panic(fmt.Sprintf("strictyaml: %s has the key %q twice", t, f.key))
		}
		all = append(all, f)
	}
	for i := range t.NumField() {
		sf := t.Field(i)
		text, ok := sf.Tag.Lookup("yaml")
		if !ok || text == "-" {
			continue
		}
		tg, err := parseTag(text)
		if err != nil || !sf.IsExported() {
			panic(fmt.Sprintf("strictyaml: the tag of %s.%s: %v", t, sf.Name, err))
		}
		if !tg.inline {
			add(field{tg, []int{i}, sf, t})
			continue
		}
		for _, f := range fieldsOf(sf.Type) {
			f.index = append([]int{i}, f.index...)
			add(f)
		}
	}
	return all
}

func parseTag(text string) (tag, error) {
	key, options, _ := strings.Cut(text, ",")
	t := tag{key: key}
	for o := range strings.SplitSeq(options, ",") {
		name, value, _ := strings.Cut(o, "=")
		switch {
		case o == "":
		case o == "inline":
			t.inline = true
		case o == "required":
			t.required = true
		case o == "zero":
			t.zero = true
		case o == "signed":
			t.zero, t.signed = true, true
		case name == "one" && value != "":
			t.choices = strings.Split(value, "|")
		case name == "negative" && value != "":
			t.word = value
		default:
			return t, fmt.Errorf("%q is not known", o)
		}
	}
	if (key == "") != t.inline {
		return t, errors.New("a key, or inline")
	}
	return t, nil
}

var durationType = reflect.TypeFor[time.Duration]()

func (v Node) decode(into reflect.Value, t tag) error {
	if into.Type() == durationType {
		d, err := v.length(t)
		into.SetInt(int64(d))
		return err
	}
	switch into.Kind() {
	case reflect.Pointer:
		p := reflect.New(into.Type().Elem())
		if err := v.decode(p.Elem(), t); err != nil {
			return err
		}
		into.Set(p)
		return nil
	case reflect.Struct:
		return v.decodeStruct(into)
	case reflect.Slice:
		return v.decodeList(into, t)
	case reflect.Map:
		return v.decodeMap(into, t)
	case reflect.String:
		s, err := v.word(t)
		into.SetString(s)
		return err
	case reflect.Bool:
		b, err := v.Bool()
		into.SetBool(b)
		return err
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		n, err := v.integer(t, into.Type().Bits())
		into.SetInt(n)
		return err
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		n, err := v.natural(t, into.Type().Bits())
		into.SetUint(n)
		return err
	case reflect.Float32, reflect.Float64:
		f, err := v.decimal(t, into.Type().Bits())
		into.SetFloat(f)
		return err
	}
	panic(fmt.Sprintf("strictyaml: nothing is decoded into %s", into.Type()))
}

func (v Node) decodeStruct(into reflect.Value) error {
	fields := fieldsOf(into.Type())
	known := make([]string, len(fields))
	for i, f := range fields {
		known[i] = f.key
	}
	m, err := v.Map(known...)
	if err != nil {
		return err
	}
	for _, f := range fields {
		e := m.Get(f.key)
		if f.required {
			if e, err = m.Require(f.key); err != nil {
				return err
			}
		}
		if !e.Present() {
			continue
		}
		if err := e.decode(into.FieldByIndex(f.index), f.tag); err != nil {
			return err
		}
	}
	return nil
}

func (v Node) decodeList(into reflect.Value, t tag) error {
	nodes, err := v.List()
	if err != nil {
		return err
	}
	list := reflect.MakeSlice(into.Type(), len(nodes), len(nodes))
	for i, n := range nodes {
		n.path = fmt.Sprintf("%s[%d]", v.path, i)
		if err := n.decode(list.Index(i), t); err != nil {
			return err
		}
	}
	into.Set(list)
	return nil
}

func (v Node) decodeMap(into reflect.Value, t tag) error {
	keys, values, err := v.Entries()
	if err != nil {
		return err
	}
	m := reflect.MakeMapWithSize(into.Type(), len(keys))
	for i, key := range keys {
		e := reflect.New(into.Type().Elem()).Elem()
		if err := values[i].decode(e, t); err != nil {
			return err
		}
		m.SetMapIndex(reflect.ValueOf(key).Convert(into.Type().Key()), e)
	}
	into.Set(m)
	return nil
}

func (v Node) word(t tag) (string, error) {
	if t.choices != nil {
		return v.OneOf(t.choices...)
	}
	return v.Text()
}

// refuse makes an error about a number or a time that is written. What stands for none or for no end elsewhere is said.
func (v Node) refuse(t tag, text, want string) error {
	err := v.errorf(attest.CodeConfigValue, v.named(fmt.Sprintf("%.60q", text)), want)
	if t.word != "" {
		err.Want += ", or " + t.word
	}
	if d, bad := parseDuration(text); bad == nil && d == 0 && !t.zero {
		err.Hint = "for the default leave the key out"
		if t.word != "" {
			err.Hint += "; otherwise say " + t.word
		}
	}
	return err
}

func (v Node) integer(t tag, bits int) (int64, error) {
	s, err := v.Text()
	if err != nil {
		return 0, err
	}
	if s == t.word {
		return -1, nil
	}
	// Where it is out of range or no number at all, n is not what was written.
	n, _ := strconv.ParseInt(s, 10, bits)
	if s != strconv.FormatInt(n, 10) || n < 0 && !t.signed || n == 0 && !t.zero {
		return 0, v.refuse(t, s, t.span(uint64(1)<<(bits-1)-1))
	}
	return n, nil
}

func (v Node) natural(t tag, bits int) (uint64, error) {
	s, err := v.Text()
	if err != nil {
		return 0, err
	}
	n, _ := strconv.ParseUint(s, 10, bits)
	if s != strconv.FormatUint(n, 10) || n == 0 && !t.zero {
		return 0, v.refuse(t, s, t.span(math.MaxUint64>>(64-bits)))
	}
	return n, nil
}

// span says in words which whole numbers may be written.
func (t tag) span(most uint64) string {
	switch {
	case t.signed:
		return "a whole number"
	case most > math.MaxUint16 && t.zero:
		return "a whole number, 0 or above"
	case most > math.MaxUint16:
		return "a whole number above 0"
	case t.zero:
		return fmt.Sprintf("a whole number from 0 to %d", most)
	default:
		return fmt.Sprintf("a whole number from 1 to %d", most)
	}
}

func (v Node) decimal(t tag, bits int) (float64, error) {
	s, err := v.Text()
	if err != nil {
		return 0, err
	}
	whole, part, point := strings.Cut(s, ".")
	f, err := strconv.ParseFloat(s, bits)
	// Neither an exponent nor hexadecimal digits, and no word that is a number to Go.
	if err != nil || !digits(whole) || point && !digits(part) || f == 0 && !t.zero {
		want := "a number above 0, such as 0.5"
		if t.zero {
			want = "a number such as 0.5, 0 or above"
		}
		return 0, v.refuse(t, s, want)
	}
	return f, nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

func (v Node) length(t tag) (time.Duration, error) {
	s, err := v.Text()
	if err != nil {
		return 0, err
	}
	if s == t.word {
		return -1, nil
	}
	d, err := parseDuration(s)
	if err != nil || s[0] == '-' || d == 0 && !t.zero {
		want := aDuration
		if t.zero {
			want += ", or 0"
		}
		return 0, v.refuse(t, s, want)
	}
	return d, nil
}

// At answers the value at a path from v such as "listen[0].address", and whether there is one. Where there is none it
// answers the nearest value around that place.
func (v Node) At(path string) (at Node, ok bool) {
	for path != "" {
		next, rest := v.step(strings.TrimPrefix(path, "."))
		if !next.Present() {
			return v, false
		}
		v, path = next, rest
	}
	return v, v.Present()
}

// step takes the first step of a path.
func (v Node) step(path string) (next Node, rest string) {
	if index, ok := strings.CutPrefix(path, "["); ok {
		number, rest, _ := strings.Cut(index, "]")
		nodes, _ := v.List()
		i, err := strconv.Atoi(number)
		if err != nil || i < 0 || i >= len(nodes) {
			return Node{}, ""
		}
		nodes[i].path = fmt.Sprintf("%s[%d]", v.path, i)
		return nodes[i], rest
	}
	keys, values, _ := v.Entries()
	longest := -1 // since a key may have a dot in it
	for i, k := range keys {
		after, ok := strings.CutPrefix(path, k)
		if ok && (after == "" || after[0] == '.' || after[0] == '[') && len(k) > longest {
			longest, next, rest = len(k), values[i], after
		}
	}
	return next, rest
}

// Locate puts positions into errors about a value that was decoded from v: every *attest.Error whose Subject is the path of
// a value, such as "listen[0].address", gets its position, or that of the nearest value around the place where it would
// be. Errors that errors.Join has joined are located one by one.
func (v Node) Locate(err error) error {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		var all []error
		for _, e := range joined.Unwrap() {
			all = append(all, v.Locate(e))
		}
		return errors.Join(all...)
	}
	var coded *attest.Error
	if !errors.As(err, &coded) {
		return err
	}
	at, _ := v.At(coded.Subject)
	located := *coded
	if located.Got == "" && located.Code == attest.CodeConfigMissing {
		located.Got = "nothing"
	}
	if located.Got != "" {
		located.Got = Node{path: coded.Subject}.named(located.Got)
	}
	located.Subject = at.Position()
	return &located
}
