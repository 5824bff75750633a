package envoy

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/internal/bound"
	"github.com/jurat-tls/jurat/xds/resource"
)

const (
	check     = "xds"
	maxDepth  = 100 // messages within messages
	maxErrors = 20  // of one resource
	maxNotes  = 50
)

// anyOf reads JSON with "@type", and answers the serialized message.
func anyOf(text []byte, known *protoregistry.Types) ([]byte, error) {
	var a anypb.Any
	if err := (protojson.UnmarshalOptions{Resolver: known, RecursionLimit: maxDepth}).Unmarshal(text, &a); err != nil {
		return nil, err
	}
	return a.GetValue(), nil
}

func quote(s string) string { return fmt.Sprintf("%.100q", s) }

func bad(at, got, want string) error {
	return &attest.Error{Code: attest.CodeConfigValue, Check: check, Subject: at, Got: got, Want: want}
}

// scope is the translation of one resource: what is wrong with it is collected here.
type scope struct {
	*translator
	key    Key
	errs   []error
	notes  []string
	opened map[*anypb.Any]proto.Message // what look found in them; nil where that is opaque
	weight int                          // in messages
}

func (t *translator) scope(key Key) *scope {
	return &scope{translator: t, key: key, opened: map[*anypb.Any]proto.Message{}}
}

func (s *scope) add(err error) {
	if err != nil && len(s.errs) < maxErrors {
		s.errs = append(s.errs, err)
	}
}

func (s *scope) bad(at, got, want string) { s.add(bad(at, got, want)) }

func (s *scope) missing(at, want string) {
	s.add(&attest.Error{Code: attest.CodeConfigMissing, Check: check, Subject: at, Want: want})
}

func (s *scope) unknown(at, got, want string) {
	s.add(&attest.Error{Code: attest.CodeConfigUnknownKey, Check: check, Subject: at, Got: got, Want: want})
}

func (s *scope) note(at, text string) {
	if line := at + ": " + text; len(s.notes) < maxNotes && !slices.Contains(s.notes, line) {
		s.notes = append(s.notes, line)
	}
}

// within adds errors that others have found in the value at a place, which may be joined.
func (s *scope) within(at string, err error) {
	if joined, ok := err.(interface{ Unwrap() []error }); ok {
		for _, e := range joined.Unwrap() {
			s.within(at, e)
		}
		return
	}
	var coded *attest.Error
	switch {
	case err == nil:
	case errors.As(err, &coded):
		e := *coded
		e.Subject = join(at, e.Subject)
		s.add(&e)
	default:
		s.bad(at, cut(err.Error()), "a valid value")
	}
}

// done puts what was found into the translation, and reports whether the resource is sound.
func (s *scope) done() bool {
	if len(s.notes) > 0 {
		s.out.Notes[s.key] = s.notes
	}
	if len(s.errs) == 0 {
		return true
	}
	s.fail(s.key, s.errs...)
	return false
}

func join(at, name string) string {
	if at == "" || name == "" {
		return at + name
	}
	return at + "." + name
}

// read decodes a resource, and looks at every field of it.
func (s *scope) read(r resource.Resource, m proto.Message) bool {
	if len(r.Body) > resource.MaxBody {
		s.add(&attest.Error{
			Code: attest.CodeOversized, Check: check, Got: strconv.Itoa(len(r.Body)) + " bytes",
			Want: fmt.Sprintf("at most %d", resource.MaxBody),
		})
		return false
	}
	if err := s.unmarshal(r.Body, m); err != nil {
		proto.Reset(m) // half of it is something else
		s.within("", err)
		return false
	}
	s.look("", m.ProtoReflect(), 0)
	return len(s.errs) == 0
}

// look goes through all populated fields of m, and of the messages in it. What is not in the table is an error.
func (s *scope) look(at string, m protoreflect.Message, depth int) {
	d := m.Descriptor()
	name := d.FullName()
	switch {
	case depth > maxDepth:
		s.bad(at, "messages nested too deeply", fmt.Sprintf("at most %d levels", maxDepth))
		return
	case len(m.GetUnknown()) > 0:
		s.unknown(at, "a field of "+string(name)+" that has no name here", "fields that are known")
		return
	case name == "google.protobuf.Any":
		s.lookInto(at, m.Interface().(*anypb.Any), depth)
		return
	case d.ParentFile().Package() == "google.protobuf": // wrappers, lengths of time and free structures are values
		return
	}
	fields, ok := s.table.fields[name]
	if !ok {
		s.unknown(at, string(name), "a message that can be carried out")
		return
	}
	all := d.Fields() // in their order, which Range does not keep
	for i := range all.Len() {
		f := all.Get(i)
		if !m.Has(f) {
			continue
		}
		if len(s.errs) >= maxErrors {
			return
		}
		v, path := m.Get(f), join(at, string(f.Name()))
		what, ok := fields[f.Name()]
		switch {
		case !ok:
			s.unknown(path, "a field that can't be carried out", "of "+string(name)+" only "+some(s.table.known(name)))
		case what.note != "":
			s.note(path, what.note)
		case what.ignored || f.Message() == nil:
		case f.IsMap():
			if f.MapValue().Message() != nil {
				s.lookMap(path, v.Map(), depth)
			}
		case f.IsList():
			for i := range v.List().Len() {
				s.look(fmt.Sprintf("%s[%d]", path, i), v.List().Get(i).Message(), depth+1)
			}
		case f.Message().FullName() == "google.protobuf.Any" && s.skipped(m, v.Message().Interface().(*anypb.Any)):
			s.note(path, "an extension that is not known here, and does not have to be")
		default:
			s.look(path, v.Message(), depth+1)
		}
	}
}

func (s *scope) lookMap(at string, m protoreflect.Map, depth int) {
	of := map[string]protoreflect.Message{}
	m.Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
		of[k.String()] = v.Message()
		return true
	})
	for _, k := range slices.Sorted(maps.Keys(of)) {
		s.look(at+"["+cut(strconv.Quote(k))+"]", of[k], depth+1)
	}
}

// some says which fields there are, within reason.
func some(fields []string) string {
	const most = 12
	if len(fields) == 0 {
		return "no field"
	}
	if len(fields) > most {
		return strings.Join(fields[:most], ", ") + " …"
	}
	return strings.Join(fields, ", ")
}

// skipped reports whether the extension of an HTTP filter is one that is turned off, or that the control plane says may be left
// out where it is not known.
func (s *scope) skipped(m protoreflect.Message, a *anypb.Any) bool {
	f, ok := m.Interface().(interface {
		GetIsOptional() bool
		GetDisabled() bool
	})
	if !ok {
		return false
	}
	typ, _, _, err := api.Unwrap(a.GetTypeUrl(), a.GetValue())
	return err == nil && (f.GetDisabled() || f.GetIsOptional() && !s.recognised(typ))
}

func (s *scope) recognised(typ string) bool {
	name := strings.TrimPrefix(typ, typePrefix)
	_, err := s.known.FindMessageByName(protoreflect.FullName(name))
	return err == nil || s.table.opaque[name] != ""
}

// lookInto reads what an Any has in it, directly or in a TypedStruct, and looks at that.
func (s *scope) lookInto(at string, a *anypb.Any, depth int) {
	typ, text, wrapped, err := api.Unwrap(a.GetTypeUrl(), a.GetValue())
	if err != nil {
		s.within(at, err)
		return
	}
	name, ok := strings.CutPrefix(typ, typePrefix)
	if ok && s.table.opaque[name] != "" {
		s.opened[a] = nil
		return
	}
	mt, err := s.known.FindMessageByName(protoreflect.FullName(name))
	if !ok || err != nil {
		s.unknown(at, "the extension "+quote(typ), "one that is known")
		return
	}
	m := mt.New().Interface()
	if wrapped { // as many messages as the Struct had, which was counted, or fewer
		if err = (protojson.UnmarshalOptions{Resolver: s.known, RecursionLimit: maxDepth}).Unmarshal(text, m); err != nil {
			err = bad("", cut(strings.ReplaceAll(err.Error(), "\u00a0", " ")), "a message of the type "+quote(typ))
		}
	} else {
		err = s.unmarshal(a.GetValue(), m)
	}
	if err != nil {
		s.within(at, err)
		return
	}
	s.opened[a] = m
	s.look(at, m.ProtoReflect(), depth+1)
}

// open answers what look has found in an Any: nil where there is none, and where it is opaque.
func (s *scope) open(a *anypb.Any) proto.Message {
	if a == nil {
		return nil
	}
	return s.opened[a]
}

// kind is the type in an Any, without its prefix; "" where there is none.
func kind(a *anypb.Any) string {
	typ, _, _, _ := api.Unwrap(a.GetTypeUrl(), a.GetValue())
	return strings.TrimPrefix(typ, typePrefix)
}

// duration answers a length of time: def where it is not there.
func (s *scope) duration(at string, d *durationpb.Duration, def time.Duration) time.Duration {
	switch {
	case d == nil:
		return def
	case d.CheckValid() != nil || d.GetSeconds() < 0 || d.GetNanos() < 0 || d.GetSeconds() > maxSeconds:
		s.bad(at, fmt.Sprintf("%d s", d.GetSeconds()), "0 s to 100 years")
		return def
	}
	return d.AsDuration()
}

const maxSeconds = 100 * 366 * 24 * 60 * 60

// positive answers a length of time above 0, and 0 where it is not there.
func (s *scope) positive(at string, d *durationpb.Duration) time.Duration {
	v := s.duration(at, d, 0)
	if d != nil && v == 0 {
		s.bad(at, "0 s", "a time above 0")
	}
	return v
}

// orNever answers a length of time where 0 means that there is no bound, as -1, and 0 where it is not there.
func (s *scope) orNever(at string, d *durationpb.Duration) time.Duration {
	v := s.duration(at, d, 0)
	if d != nil && v == 0 {
		return -1
	}
	return v
}

// zero checks that a length of time which can't be carried out is 0, which is none.
func (s *scope) zero(at string, d *durationpb.Duration, want string) {
	if v := s.duration(at, d, 0); v != 0 {
		s.bad(at, v.String(), want)
	}
}

// What a set of resources may be made of.
const (
	maxMessages = 250_000   // messages of one resource: as many as 30,000 endpoints have
	maxTotal    = 2_000_000 // messages of all resources, each as often as it is used
)

// unmarshal reads a serialized message, after a look at what would be made of it.
func (s *scope) unmarshal(raw []byte, m proto.Message) error {
	name := string(m.ProtoReflect().Descriptor().FullName())
	n, err := bound.Messages(shape{m.ProtoReflect().Descriptor()}, raw, maxMessages-s.weight)
	if err != nil {
		return bad("", err.Error(), "a message of the type "+name)
	}
	if s.weight += n; s.weight > maxMessages {
		return &attest.Error{
			Code: attest.CodeOversized, Check: check, Got: "messages within messages",
			Want: fmt.Sprintf("at most %d of them in a resource", maxMessages),
		}
	}
	if err := s.charge(n); err != nil {
		return err
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(raw, m); err != nil {
		return bad("", cut(err.Error()), "a message of the type "+name)
	}
	return nil
}

// charge counts messages towards what all resources may be made of, each time that something is made of them: many who refer to a
// large one are as much as many large ones.
func (t *translator) charge(n int) error {
	if t.total += n; t.total > t.most {
		return &attest.Error{
			Code: attest.CodeOversized, Check: check, Got: "too much, together with the resources before it",
			Want: fmt.Sprintf("at most %d messages in all resources, each as often as it is used", t.most),
		}
	}
	return nil
}

// shape is what package bound has to know.
type shape struct{ protoreflect.MessageDescriptor }

func (s shape) Message(field int32) bound.Shape {
	if f := s.Fields().ByNumber(protoreflect.FieldNumber(field)); f != nil && f.Message() != nil {
		return shape{f.Message()}
	}
	return nil
}
