package strictyaml

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"reflect"
)

// Schema is the JSON Schema (draft 2020-12) of what Decode reads into a T, for editors: it accepts whatever Decode does.
// Structs are definitions, called "package.Type". doc answers the description of such a type, or of a field of it
// ("package.Type.Field"); "" is none.
func Schema[T any](title string, doc func(name string) string) []byte {
	s := schemas{doc: doc, done: map[reflect.Type]bool{}}
	root := append(object{{"$schema", "https://json-schema.org/draft/2020-12/schema"}, {"title", title}}, s.keys(reflect.TypeFor[T]())...)
	root = append(root, member{"$defs", s.defs})
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	_ = enc.Encode(root) // text, numbers and the like
	return b.Bytes()
}

type schemas struct {
	doc  func(string) string
	done map[reflect.Type]bool
	defs object
}

// described puts a description in front of a schema, where there is one.
func (s *schemas) described(name string, schema object) object {
	if d := s.doc(name); d != "" {
		return append(object{{"description", d}}, schema...)
	}
	return schema
}

// keys is the schema of a struct.
func (s *schemas) keys(t reflect.Type) object {
	properties, required := object{}, []string{}
	for _, f := range fieldsOf(t) {
		properties = append(properties, member{f.key, s.described(f.owner.String()+"."+f.Name, s.schema(f.Type, f.tag))})
		if f.required {
			required = append(required, f.key)
		}
	}
	out := object{{"type", "object"}, {"properties", properties}, {"additionalProperties", false}}
	if len(required) > 0 {
		out = append(out, member{"required", required})
	}
	return out
}

func (s *schemas) schema(t reflect.Type, tg tag) object {
	if t == durationType {
		return tg.orWord(tg.duration())
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.schema(t.Elem(), tg)
	case reflect.Struct:
		name := t.String()
		if !s.done[t] {
			s.done[t] = true
			at := len(s.defs)
			s.defs = append(s.defs, member{key: name}) // before those that it refers to
			keys := s.keys(t)
			s.defs[at].value = s.described(name, keys)
		}
		return object{{"$ref", "#/$defs/" + name}}
	case reflect.Slice:
		return object{{"type", "array"}, {"items", s.schema(t.Elem(), tg)}}
	case reflect.Map:
		return object{{"type", "object"}, {"additionalProperties", s.schema(t.Elem(), tg)}}
	case reflect.String:
		if tg.choices != nil {
			return object{{"enum", tg.choices}}
		}
		// Whatever YAML makes of 8443 or off where nothing is quoted, it is read as it is written.
		return object{{"type", []string{"string", "number", "boolean"}}, {"minLength", 1}}
	case reflect.Bool:
		return object{{"type", "boolean"}}
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return tg.orWord(tg.numbers(uint64(1)<<(t.Bits()-1) - 1))
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return tg.numbers(math.MaxUint64 >> (64 - t.Bits()))
	case reflect.Float32, reflect.Float64:
		if tg.zero {
			return object{{"type", "number"}, {"minimum", 0}}
		}
		return object{{"type", "number"}, {"exclusiveMinimum", 0}}
	}
	panic(fmt.Sprintf("strictyaml: nothing is decoded into %s", t))
}

// orWord is schema, or the word for -1. Editors that follow version 1.1 of YAML see a boolean in "off".
func (t tag) orWord(schema object) object {
	switch t.word {
	case "":
		return schema
	case "off":
		return object{{"anyOf", []object{schema, {{"enum", []any{t.word, false}}}}}}
	default:
		return object{{"anyOf", []object{schema, {{"const", t.word}}}}}
	}
}

func (t tag) numbers(most uint64) object {
	out := object{{"type", "integer"}}
	switch {
	case t.signed:
	case t.zero:
		out = append(out, member{"minimum", 0})
	default:
		out = append(out, member{"minimum", 1})
	}
	if most <= math.MaxUint32 { // editors calculate with floating point
		out = append(out, member{"maximum", most})
	}
	return out
}

func (t tag) duration() object {
	out := object{{"type", "string"}, {"pattern", `^([0-9]+d|\+?(([0-9]+\.?[0-9]*|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$`}}
	if t.zero {
		return object{{"anyOf", []object{out, {{"enum", []any{0, "0", "+0"}}}}}}
	}
	return out
}

// object is a JSON object whose members keep their order.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	b := []byte{'{'}
	for i, m := range o {
		if i > 0 {
			b = append(b, ',')
		}
		key, err := json.Marshal(m.key)
		if err != nil {
			return nil, err
		}
		value, err := plain(m.value)
		if err != nil {
			return nil, err
		}
		b = append(append(append(b, key...), ':'), value...)
	}
	return append(b, '}'), nil
}

// plain is json.Marshal without escapes for HTML.
func plain(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}
