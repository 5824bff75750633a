// Package yamltext writes what strictyaml.Decode reads, and makes it up: for tests of both directions.
package yamltext

import (
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"pgregory.net/rapid"
)

type tag struct {
	key     string
	options []string
}

func tagOf(f reflect.StructField) (t tag, ok bool) {
	text, ok := f.Tag.Lookup("yaml")
	parts := strings.Split(text, ",")
	return tag{parts[0], parts[1:]}, ok && text != "-"
}

func (t tag) has(option string) bool { return slices.Contains(t.options, option) }

func (t tag) value(name string) string {
	for _, o := range t.options {
		if v, ok := strings.CutPrefix(o, name+"="); ok {
			return v
		}
	}
	return ""
}

// Write answers a document of one line that stands for v, a struct or a pointer to one.
func Write(v any) string {
	var b strings.Builder
	write(&b, reflect.ValueOf(v), tag{})
	return b.String() + "\n"
}

func write(b *strings.Builder, v reflect.Value, t tag) {
	if d, ok := v.Interface().(time.Duration); ok {
		if word := t.value("negative"); d < 0 && word != "" {
			b.WriteString(word)
		} else {
			b.WriteString(d.String())
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		write(b, v.Elem(), t)
	case reflect.Struct:
		b.WriteString("{")
		first := true
		keys(b, v, &first)
		b.WriteString("}")
	case reflect.Slice:
		b.WriteString("[")
		for i := range v.Len() {
			if i > 0 {
				b.WriteString(", ")
			}
			write(b, v.Index(i), t)
		}
		b.WriteString("]")
	case reflect.Map:
		b.WriteString("{")
		for i, k := range v.MapKeys() {
			if i > 0 {
				b.WriteString(", ")
			}
			b.WriteString(strconv.QuoteToASCII(k.String()) + ": ")
			write(b, v.MapIndex(k), t)
		}
		b.WriteString("}")
	case reflect.String:
		b.WriteString(strconv.QuoteToASCII(v.String()))
	case reflect.Float32, reflect.Float64:
		b.WriteString(strconv.FormatFloat(v.Float(), 'f', -1, v.Type().Bits()))
	default:
		if word := t.value("negative"); v.CanInt() && v.Int() < 0 && word != "" {
			b.WriteString(word)
		} else {
			fmt.Fprint(b, v.Interface())
		}
	}
}

// keys writes the keys of a struct that are not at their zero.
func keys(b *strings.Builder, v reflect.Value, first *bool) {
	for i := range v.NumField() {
		t, ok := tagOf(v.Type().Field(i))
		f := v.Field(i)
		switch {
		case !ok:
		case t.has("inline"):
			keys(b, f, first)
		case !f.IsZero() || t.has("required"):
			if !*first {
				b.WriteString(", ")
			}
			*first = false
			b.WriteString(t.key + ": ")
			write(b, f, t)
		}
	}
}

// Draw fills what out points to with what can be written.
func Draw(t *rapid.T, out any) { draw(t, reflect.ValueOf(out).Elem(), tag{}, true) }

func draw(t *rapid.T, v reflect.Value, tg tag, needed bool) {
	if !needed && rapid.IntRange(0, 2).Draw(t, "left out") == 0 {
		return
	}
	least := int64(1)
	if tg.has("zero") || tg.has("signed") {
		least = 0
	}
	word := tg.value("negative") != "" && rapid.IntRange(0, 3).Draw(t, "word") == 0
	if v.Type() == reflect.TypeFor[time.Duration]() {
		if v.SetInt(-1); !word {
			v.SetInt(rapid.Int64Range(least, 1<<62).Draw(t, "time"))
		}
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		draw(t, p.Elem(), tg, true)
		v.Set(p)
	case reflect.Struct:
		for i := range v.NumField() {
			if f, ok := tagOf(v.Type().Field(i)); ok {
				draw(t, v.Field(i), f, f.has("inline") || f.has("required"))
			}
		}
	case reflect.Slice:
		n := rapid.IntRange(0, 2).Draw(t, "length")
		v.Set(reflect.MakeSlice(v.Type(), n, n))
		for i := range n {
			draw(t, v.Index(i), tg, true)
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		for range rapid.IntRange(0, 2).Draw(t, "entries") {
			e := reflect.New(v.Type().Elem()).Elem()
			draw(t, e, tg, true)
			v.SetMapIndex(reflect.ValueOf(text(t)).Convert(v.Type().Key()), e)
		}
	case reflect.String:
		if c := tg.value("one"); c != "" {
			v.SetString(rapid.SampledFrom(strings.Split(c, "|")).Draw(t, "choice"))
		} else {
			v.SetString(text(t))
		}
	case reflect.Bool:
		v.SetBool(rapid.Bool().Draw(t, "bool"))
	case reflect.Float32, reflect.Float64:
		v.SetFloat(float64(rapid.Int64Range(least, 1<<20).Draw(t, "number")) / 1024)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(rapid.Uint64Range(uint64(least), 1<<v.Type().Bits()-1).Draw(t, "number"))
	default:
		most := int64(1)<<(v.Type().Bits()-1) - 1
		if tg.has("signed") {
			least = -most - 1
		}
		if v.SetInt(-1); !word {
			v.SetInt(rapid.Int64Range(least, most).Draw(t, "number"))
		}
	}
}

func text(t *rapid.T) string {
	return rapid.OneOf(rapid.StringN(1, 20, -1), rapid.SampledFrom([]string{"off", "~", "1e3", "null", "a b", "-", "{}", "*x", "#"})).Draw(t, "text")
}
