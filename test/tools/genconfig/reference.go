package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
)

// What stands between these in a page is made anew.
const (
	begin  = "<!-- generated from the types: make generate -->\n"
	finish = "<!-- end of what is generated -->\n"
)

// reference answers page with tables of all keys.
func reference(schema, page []byte) ([]byte, error) {
	before, rest, ok := bytes.Cut(page, []byte(begin))
	_, after, closed := bytes.Cut(rest, []byte(finish))
	if !ok || !closed {
		return nil, errors.New("the page has no place for the tables")
	}
	var root typed
	if err := json.Unmarshal(schema, &root); err != nil {
		return nil, err
	}
	r := referrer{defs: map[string]*section{}}
	for _, d := range root.Defs {
		r.defs["#/$defs/"+d.key] = &section{typed: d.typed}
	}
	top := &section{typed: root, path: "the file"}
	r.visit(top, "")
	named := map[string]int{}
	for _, s := range r.order { // as GitHub tells headings with one text apart
		plain := s.anchor()
		if n := named[plain]; n > 0 {
			s.suffix = fmt.Sprintf("-%d", n)
		}
		named[plain]++
	}
	var b bytes.Buffer
	for i, s := range append([]*section{top}, r.order...) {
		if i > 0 {
			fmt.Fprintf(&b, "\n### %s\n\n%s (`%s`)\n\n", s.heading(), s.Description, s.path)
		}
		b.WriteString("| key | value | default | |\n|---|---|---|---|\n")
		for _, p := range s.Properties {
			meaning, def := cutDefault(p.Description)
			if slices.Contains(s.Required, p.key) {
				def = "required"
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", p.key, r.value(p.typed), cell(def), cell(meaning))
		}
	}
	return slices.Concat(before, []byte(begin+"\n"), b.Bytes(), []byte("\n"+finish), after), nil
}

// typed is a schema, as far as strictyaml makes one.
type typed struct {
	Description string
	Type        any
	Ref         string `json:"$ref"`
	Enum        []any
	Const       any
	Pattern     string
	Minimum     *float64
	Maximum     float64
	AnyOf       []typed
	Items       *typed
	More        json.RawMessage `json:"additionalProperties"` // a schema, or false
	Properties  ordered
	Required    []string
	Defs        ordered `json:"$defs"`
}

type entry struct {
	key string
	typed
}

// ordered is an object whose members keep their order.
type ordered []entry

// UnmarshalJSON implements json.Unmarshaler.
func (o *ordered) UnmarshalJSON(raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	if _, err := dec.Token(); err != nil {
		return err
	}
	for dec.More() {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		e := entry{key: fmt.Sprint(key)}
		if err := dec.Decode(&e.typed); err != nil {
			return err
		}
		*o = append(*o, e)
	}
	return nil
}

// section is a type with the keys that have it.
type section struct {
	typed
	path   string
	keys   []string
	suffix string // of the anchor, where sections before this one have its heading
}

func (s *section) heading() string { return "`" + strings.Join(s.keys, "`, `") + "`" }

func (s *section) anchor() string {
	return strings.ReplaceAll(strings.Join(s.keys, " "), " ", "-") + s.suffix
}

type referrer struct {
	defs  map[string]*section
	order []*section
}

// visit finds the types below s, in the order in which a reader meets them.
func (r *referrer) visit(s *section, prefix string) {
	for _, p := range s.Properties {
		ref, path := p.Ref, prefix+p.key
		if p.Items != nil {
			ref, path = p.Items.Ref, path+"[]"
		}
		d := r.defs[ref]
		if d == nil {
			continue
		}
		known := len(d.keys) > 0
		if !slices.Contains(d.keys, p.key) {
			d.keys = append(d.keys, p.key)
		}
		if !known {
			d.path = path
			r.order = append(r.order, d)
			r.visit(d, path+".")
		}
	}
}

// value says in a few words what a key may have.
func (r *referrer) value(t typed) string {
	switch {
	case len(t.More) > 0 && t.More[0] == '{':
		return "map of texts"
	case t.Ref != "":
		return fmt.Sprintf("[map](#%s)", r.defs[t.Ref].anchor())
	case t.Items != nil && t.Items.Ref != "":
		return fmt.Sprintf("[list](#%s)", r.defs[t.Items.Ref].anchor())
	case t.Items != nil:
		of := r.value(*t.Items)
		if of == "text" || of == "number" {
			of += "s"
		}
		return "list of " + of
	case t.AnyOf != nil:
		first := r.value(t.AnyOf[0])
		if w := t.AnyOf[1]; w.Const != nil {
			return first + fmt.Sprintf(" or `%v`", w.Const)
		} else if w.Enum[0] != 0. {
			return first + fmt.Sprintf(" or `%v`", w.Enum[0])
		}
		return first + " or 0"
	case t.Enum != nil:
		var words []string
		for _, w := range t.Enum {
			words = append(words, fmt.Sprintf("`%v`", w))
		}
		return strings.Join(words, ", ")
	case t.Pattern != "":
		return "time"
	}
	switch t.Type {
	case "boolean":
		return "`true`"
	case "integer":
		if t.Maximum != 0 && t.Maximum < 1<<17 {
			return fmt.Sprintf("%.0f to %.0f", *t.Minimum, t.Maximum)
		}
		return "number"
	case "number":
		return "number"
	}
	return "text"
}

var defaultOf = regexp.MustCompile(`(?:^|[,;] )default (.*)$`)

func cutDefault(description string) (meaning, def string) {
	at := defaultOf.FindStringSubmatchIndex(description)
	if at == nil {
		return description, ""
	}
	return description[:at[0]], description[at[2]:at[3]]
}

func cell(text string) string {
	return strings.ReplaceAll(strings.NewReplacer("|", `\|`, "<", "&lt;", "*", `\*`).Replace(text), "\n", " ")
}
