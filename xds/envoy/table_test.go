package envoy_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/xds/envoy"
)

// step leads from a message to one in it.
type step struct {
	field protoreflect.FieldDescriptor
	index int
	key   protoreflect.MapKey
	any   bool // into what an Any has in it
}

// site is a message somewhere in a resource.
type site struct {
	key   envoy.Key
	steps []step
	of    protoreflect.MessageDescriptor
	is    protoreflect.Message // not to be changed
}

// sites finds all messages of a resource.
func sites(t testing.TB, key envoy.Key, root protoreflect.Message) []site {
	var all []site
	var visit func(m protoreflect.Message, steps []step)
	visit = func(m protoreflect.Message, steps []step) {
		if a, ok := m.Interface().(*anypb.Any); ok {
			mt, err := envoy.Types().FindMessageByURL(a.GetTypeUrl())
			if err != nil {
				return
			}
			inner := mt.New()
			if err := proto.Unmarshal(a.GetValue(), inner.Interface()); err != nil {
				t.Fatal(err)
			}
			visit(inner, append(slices.Clone(steps), step{any: true}))
			return
		}
		if strings.HasPrefix(string(m.Descriptor().FullName()), "google.") {
			return
		}
		all = append(all, site{key, steps, m.Descriptor(), m})
		m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
			switch {
			case f.IsMap():
				if f.MapValue().Message() != nil {
					v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
						visit(v.Message(), append(slices.Clone(steps), step{field: f, key: k}))
						return true
					})
				}
			case f.Message() == nil:
			case f.IsList():
				for i := range v.List().Len() {
					visit(v.List().Get(i).Message(), append(slices.Clone(steps), step{field: f, index: i}))
				}
			default:
				visit(v.Message(), append(slices.Clone(steps), step{field: f}))
			}
			return true
		})
	}
	visit(root, nil)
	return all
}

// change answers the resource with what edit makes of the message at the site.
func (s site) change(t testing.TB, set envoy.Set, edit func(protoreflect.Message)) envoy.Set {
	t.Helper()
	out := maps.Clone(set)
	r := out[s.key]
	root := decoded(t, r.Type, r.Body)
	var down func(m protoreflect.Message, steps []step)
	down = func(m protoreflect.Message, steps []step) {
		if len(steps) == 0 {
			edit(m)
			return
		}
		switch at := steps[0]; {
		case at.any:
			a := m.Interface().(*anypb.Any)
			mt, _ := envoy.Types().FindMessageByURL(a.GetTypeUrl())
			inner := mt.New()
			if err := proto.Unmarshal(a.GetValue(), inner.Interface()); err != nil {
				t.Fatal(err)
			}
			down(inner, steps[1:])
			a.Value = encoded(t, inner)
		case at.field.IsMap():
			down(m.Mutable(at.field).Map().Mutable(at.key).Message(), steps[1:])
		case at.field.IsList():
			down(m.Mutable(at.field).List().Get(at.index).Message(), steps[1:])
		default:
			down(m.Mutable(at.field).Message(), steps[1:])
		}
	}
	down(root, s.steps)
	r.Body = encoded(t, root)
	out[s.key] = r
	return out
}

func decoded(t testing.TB, typ string, body []byte) protoreflect.Message {
	t.Helper()
	mt, err := envoy.Types().FindMessageByURL(typ)
	if err != nil {
		t.Fatal(err)
	}
	m := mt.New()
	if err := proto.Unmarshal(body, m.Interface()); err != nil {
		t.Fatal(err)
	}
	return m
}

func encoded(t testing.TB, m protoreflect.Message) []byte {
	t.Helper()
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
	if err != nil {
		t.Fatal(err)
	}
	return raw
}

// some sets a field to something.
func some(m protoreflect.Message, f protoreflect.FieldDescriptor) {
	switch {
	case f.IsMap():
		k := protoreflect.ValueOfString("k").MapKey()
		if f.MapKey().Kind() != protoreflect.StringKind {
			return
		}
		if f.MapValue().Message() != nil {
			m.Mutable(f).Map().Set(k, m.Mutable(f).Map().NewValue())
		} else {
			m.Mutable(f).Map().Set(k, other(f.MapValue(), protoreflect.Value{}))
		}
	case f.IsList() && f.Message() != nil:
		m.Mutable(f).List().AppendMutable()
	case f.IsList():
		m.Mutable(f).List().Append(other(f, protoreflect.Value{}))
	case f.Message() != nil:
		m.Mutable(f)
	default:
		m.Set(f, other(f, m.Get(f)))
	}
}

// other answers another value of a scalar than v.
func other(f protoreflect.FieldDescriptor, v protoreflect.Value) protoreflect.Value {
	have := v.IsValid()
	switch f.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(!have || !v.Bool())
	case protoreflect.StringKind:
		if have {
			return protoreflect.ValueOfString(v.String() + "x")
		}
		return protoreflect.ValueOfString("x")
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes([]byte("x"))
	case protoreflect.EnumKind:
		if have && v.Enum() != 0 {
			return protoreflect.ValueOfEnum(99)
		}
		return protoreflect.ValueOfEnum(1)
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		return protoreflect.ValueOfInt32(7)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(7)
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		return protoreflect.ValueOfInt64(7)
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(7)
	case protoreflect.FloatKind:
		return protoreflect.ValueOfFloat32(7)
	default:
		return protoreflect.ValueOfFloat64(7)
	}
}

// corpus is the resources of testdata, each file by itself.
func corpus(t testing.TB) map[string]envoy.Set {
	t.Helper()
	files, err := filepath.Glob("testdata/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	all := map[string]envoy.Set{}
	for _, file := range files {
		raw, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		all[file] = load(t, string(raw))
	}
	return all
}

func input(set envoy.Set) envoy.Input {
	return envoy.Input{Resources: set, Policies: []string{"stores"}}
}

// result is what a translation answers, but for its notes.
func result(out *envoy.Translation) string {
	o := *out
	o.Notes = nil
	return render(&o)
}

// noted is handled, since not everything in it may stand there, and what may is worth a note and no more.
const noted = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions.common_http_protocol_options"

// Every entry of the table is load-bearing. What is handled makes a difference wherever it stands; what is ignored or noted
// makes none; and what is in neither list is a problem: put each field of each message of the corpus there, or change it,
// and see.
func TestTable(t *testing.T) {
	table := envoy.Table()
	seen, differs := map[string]bool{}, map[string]bool{}
	files := corpus(t)
	for _, file := range slices.Sorted(maps.Keys(files)) {
		set := files[file]
		first := envoy.Translate(input(set))
		before, notes := result(first), fmt.Sprint(first.Notes)
		done := map[string]bool{} // one site for each message, and field, of a file is enough where it makes the difference
		for _, key := range keys(set) {
			if strings.Contains(key.Type, "jurat.config") {
				continue
			}
			for _, s := range sites(t, key, decoded(t, key.Type, set[key].Body)) {
				name := string(s.of.FullName())
				if s.of.FullName() == "xds.type.v3.TypedStruct" || s.of.FullName() == "udpa.type.v1.TypedStruct" || strings.HasPrefix(name, "jurat.") {
					continue
				}
				if len(s.steps) > 0 && beneath(t, table, s, set) {
					continue
				}
				fields := s.of.Fields()
				for i := range fields.Len() {
					f := fields.Get(i)
					at := name + "." + string(f.Name())
					what := table[name][string(f.Name())]
					if done[at] {
						continue
					}
					populated := s.is.Has(f)
					switch {
					case what == "handled" && populated:
						seen[at] = true
						if differs[at] {
							continue
						}
						for _, edit := range variations(f) {
							out := envoy.Translate(input(s.change(t, set, edit)))
							if differs[at] = result(out) != before || at == noted && fmt.Sprint(out.Notes) != notes; differs[at] {
								break
							}
						}
						done[at] = differs[at]
					case what == "handled" || populated:
					case f.ContainingOneof() != nil && !f.ContainingOneof().IsSynthetic() && what != "" && s.is.WhichOneof(f.ContainingOneof()) != nil:
						// to set one would take another one away
					case what == "":
						done[at] = true
						out := envoy.Translate(input(s.change(t, set, func(m protoreflect.Message) { some(m, f) })))
						if out.Problems[key] == nil {
							t.Errorf("%s: %s is in no list, and no problem", file, at)
						}
					default:
						done[at] = true
						out := envoy.Translate(input(s.change(t, set, func(m protoreflect.Message) { some(m, f) })))
						if got := result(out); got != before {
							t.Errorf("%s: %s is %s, and makes a difference:\n%s", file, at, what, got)
						}
						if what == "noted" && !strings.Contains(fmt.Sprint(out.Notes), string(f.Name())) {
							t.Errorf("%s: there is no note about %s", file, at)
						}
					}
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		for _, f := range slices.Sorted(maps.Keys(table[name])) {
			at := name + "." + f
			switch {
			case table[name][f] != "handled":
			case !seen[at]:
				t.Errorf("no file of testdata has %s", at)
			case !differs[at]:
				t.Errorf("%s is handled, and makes no difference anywhere", at)
			}
		}
	}
}

// beneath reports whether a site is in a field that is not looked into.
func beneath(t testing.TB, table envoy.Fields, s site, set envoy.Set) bool {
	t.Helper()
	r := set[s.key]
	m := decoded(t, r.Type, r.Body)
	for _, at := range s.steps {
		if at.any {
			a := m.Interface().(*anypb.Any)
			mt, _ := envoy.Types().FindMessageByURL(a.GetTypeUrl())
			m = mt.New()
			if err := proto.Unmarshal(a.GetValue(), m.Interface()); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if table[string(m.Descriptor().FullName())][string(at.field.Name())] != "handled" {
			return true
		}
		switch {
		case at.field.IsMap():
			m = m.Get(at.field).Map().Get(at.key).Message()
		case at.field.IsList():
			m = m.Get(at.field).List().Get(at.index).Message()
		default:
			m = m.Get(at.field).Message()
		}
	}
	return false
}

// variations are ways to have something else in a field that is populated.
func variations(f protoreflect.FieldDescriptor) []func(protoreflect.Message) {
	all := []func(protoreflect.Message){
		func(m protoreflect.Message) { m.Clear(f) },
		func(m protoreflect.Message) { some(m, f) },
	}
	if f.Message() != nil && !f.IsMap() && !f.IsList() {
		all = append(all, func(m protoreflect.Message) {
			inner := m.Mutable(f).Message()
			for i := range inner.Descriptor().Fields().Len() {
				inner := inner.Descriptor().Fields().Get(i)
				if inner.Message() == nil && !inner.IsList() {
					m.Mutable(f).Message().Set(inner, other(inner, m.Get(f).Message().Get(inner)))
				}
			}
		})
	}
	return all
}

// An entry that is missing from the table makes a problem of every resource that has the field.
func TestWithoutEntry(t *testing.T) {
	table := envoy.Table()
	for file, set := range corpus(t) {
		tried := map[string]bool{}
		for _, key := range keys(set) {
			if strings.Contains(key.Type, "jurat.config") {
				continue
			}
			for _, s := range sites(t, key, decoded(t, key.Type, set[key].Body)) {
				name := string(s.of.FullName())
				if table[name] == nil || beneath(t, table, s, set) {
					continue
				}
				s.change(t, set, func(m protoreflect.Message) {
					m.Range(func(f protoreflect.FieldDescriptor, _ protoreflect.Value) bool {
						if at := name + "." + string(f.Name()); !tried[at] && table[name][string(f.Name())] != "" {
							tried[at] = true
							if envoy.TranslateWithout(input(set), name, string(f.Name())).Problems[key] == nil {
								t.Errorf("%s: without %s in the table there is no problem", file, at)
							}
						}
						return true
					})
				})
			}
		}
	}
}
