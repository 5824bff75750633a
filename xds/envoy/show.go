package envoy

import (
	"strconv"
	"strings"

	"github.com/cncf/xds/go/udpa/annotations"
	xds "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/jurat-tls/jurat/proxy/redact"
	"github.com/jurat-tls/jurat/xds/api"
	"github.com/jurat-tls/jurat/xds/resource"
)

// Screen takes out of resources what is not to be shown to whoever administers a proxy: what Envoy's API calls sensitive, what is named like a
// secret, private keys in PEM, and every extension that is not known here, of which nobody can say what it holds. Extensions of ours are
// wrapped in a TypedStruct, so that tools that know Envoy's API alone can read all of it. It is safe for concurrent use.
type Screen struct {
	known *protoregistry.Types
	shown *protoregistry.Types // with what stands in the place of what is hidden
	// Extensions that are accepted unread.
	unread map[string]string
}

// NewScreen makes a Screen, which is for any number of resources.
func NewScreen() *Screen {
	s := &Screen{types(), newTypes(), opaque()} // the second is changed
	if err := s.shown.RegisterMessage((*wrapperspb.StringValue)(nil).ProtoReflect().Type()); err != nil {
		panic(err) // it would be in the list twice
	}
	return s
}

// Show answers a resource as it may be shown, as a google.protobuf.Any. The error is that it is not well-formed.
func (s *Screen) Show(r resource.Resource) (typ string, body []byte, err error) {
	a, err := s.show(r)
	return a.GetTypeUrl(), a.GetValue(), err
}

// JSON is Show in protobuf's mapping of JSON, with "@type".
func (s *Screen) JSON(r resource.Resource) ([]byte, error) {
	a, err := s.show(r)
	if err != nil {
		return nil, err
	}
	return s.text(a)
}

// text writes what was screened.
func (s *Screen) text(m proto.Message) ([]byte, error) {
	return protojson.MarshalOptions{Resolver: s.shown, UseProtoNames: true}.Marshal(m)
}

// Hides reports whether a resource has in it what Show hides, or is not well-formed. Extensions that are accepted unread hide nothing.
func (s *Screen) Hides(r resource.Resource) bool {
	_, hidden, err := s.screen(r)
	return hidden || err != nil
}

func (s *Screen) show(r resource.Resource) (*anypb.Any, error) {
	a, _, err := s.screen(r)
	return a, err
}

func (s *Screen) screen(r resource.Resource) (a *anypb.Any, hidden bool, err error) {
	if !isResource(r.Type) {
		return nil, false, bad("", "the type "+quote(r.Type), "the type of a resource")
	}
	if len(r.Body) > resource.MaxBody {
		return nil, false, bad("", strconv.Itoa(len(r.Body))+" bytes", "at most "+strconv.Itoa(resource.MaxBody))
	}
	one := &screening{Screen: s, scope: (&translator{most: maxTotal, known: s.known}).scope(Key{r.Type, r.Name})}
	a = &anypb.Any{TypeUrl: r.Type, Value: r.Body}
	if err := one.open(a, false); err != nil {
		return nil, false, err
	}
	return a, one.hidden, nil
}

// screening is that of one resource.
type screening struct {
	*Screen
	scope  *scope
	hidden bool // something was
}

const hiddenType = typePrefix + "google.protobuf.StringValue"

// hide puts a text in the place of what an Any holds.
func (s *screening) hide(a *anypb.Any, text string) {
	s.hidden = true
	a.TypeUrl, a.Value = hiddenType, nil
	if raw, err := proto.Marshal(wrapperspb.String(text)); err == nil {
		a.Value = raw
	}
}

// open screens what is in an Any.
func (s *screening) open(a *anypb.Any, sensitive bool) error {
	if sensitive {
		s.hide(a, redact.Hidden)
		return nil
	}
	typ, text, wrapped, err := api.Unwrap(a.GetTypeUrl(), a.GetValue())
	if err != nil {
		return err
	}
	mt, err := s.known.FindMessageByURL(typ)
	if err != nil {
		before := s.hidden
		s.hide(a, "an extension that is not known here: "+resource.Printable(typ, 200))
		if _, unread := s.unread[strings.TrimPrefix(typ, typePrefix)]; unread {
			s.hidden = before
		}
		return nil
	}
	m := mt.New()
	if wrapped {
		err = (protojson.UnmarshalOptions{Resolver: s.known, RecursionLimit: maxDepth, DiscardUnknown: true}).Unmarshal(text, m.Interface())
	} else {
		err = s.scope.unmarshal(a.GetValue(), m.Interface())
	}
	if err != nil {
		return err
	}
	if err := s.message(m, false); err != nil {
		return err
	}
	if own := strings.HasPrefix(typ, typePrefix+"jurat."); !wrapped && !own {
		a.Value, err = proto.MarshalOptions{Deterministic: true}.Marshal(m.Interface())
		return err
	}
	text, err = s.text(m.Interface())
	if err != nil {
		return err
	}
	fields := new(structpb.Struct)
	if err := fields.UnmarshalJSON(text); err != nil {
		return err
	}
	a.TypeUrl = api.TypeStruct
	a.Value, err = proto.MarshalOptions{Deterministic: true}.Marshal(&xds.TypedStruct{TypeUrl: typ, Value: fields})
	return err
}

// message screens a message. sensitive says that it is in a field that is.
func (s *screening) message(m protoreflect.Message, sensitive bool) error {
	if a, ok := m.Interface().(*anypb.Any); ok {
		return s.open(a, sensitive)
	}
	s.hidden = s.hidden || len(m.GetUnknown()) > 0
	m.SetUnknown(nil) // of which nobody can say what it is
	// A header, or whatever else is a name and a value, or what one is compared with.
	named := false
	for _, key := range []protoreflect.Name{"key", "name"} {
		if f := m.Descriptor().Fields().ByName(key); f != nil && f.Kind() == protoreflect.StringKind && !f.IsList() {
			named = named || redact.Named(m.Get(f).String())
		}
	}
	var failed error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		secret := sensitive || isSensitive(f) || f.Kind() == protoreflect.StringKind && redact.Named(string(f.Name())) ||
			named && (f.Name() == "value" || f.Name() == "raw_value" || f.Kind() != protoreflect.BoolKind && strings.HasSuffix(string(f.Name()), "_match"))
		switch {
		case f.IsMap():
			v.Map().Range(func(k protoreflect.MapKey, inner protoreflect.Value) bool {
				if f.MapValue().Message() != nil {
					failed = s.message(inner.Message(), secret || redact.Named(k.String()))
				} else if shown, ok := s.scalar(f.MapValue(), inner, secret || redact.Named(k.String())); ok {
					v.Map().Set(k, shown)
				}
				return failed == nil
			})
		case f.IsList():
			for i := range v.List().Len() {
				if f.Message() != nil {
					failed = s.message(v.List().Get(i).Message(), secret)
				} else if shown, ok := s.scalar(f, v.List().Get(i), secret); ok {
					v.List().Set(i, shown)
				}
				if failed != nil {
					return false
				}
			}
		case f.Message() != nil:
			failed = s.message(v.Message(), secret)
		default:
			if shown, ok := s.scalar(f, v, secret); ok {
				m.Set(f, shown)
			}
		}
		return failed == nil
	})
	return failed
}

// scalar answers what is shown in place of a value, and whether that is another one.
func (s *screening) scalar(f protoreflect.FieldDescriptor, v protoreflect.Value, secret bool) (shown protoreflect.Value, hide bool) {
	switch f.Kind() {
	case protoreflect.StringKind:
		shown, hide = protoreflect.ValueOfString(redact.Hidden), secret || redact.Text(v.String())
	case protoreflect.BytesKind:
		shown, hide = protoreflect.ValueOfBytes([]byte(redact.Hidden)), secret || redact.Text(string(v.Bytes()))
	default:
		shown, hide = f.Default(), secret && f.Kind() != protoreflect.EnumKind
	}
	s.hidden = s.hidden || hide
	return shown, hide
}

// isSensitive reports whether Envoy's API says that a field is not to be shown.
func isSensitive(f protoreflect.FieldDescriptor) bool {
	sensitive, _ := proto.GetExtension(f.Options(), annotations.E_Sensitive).(bool)
	return sensitive
}
