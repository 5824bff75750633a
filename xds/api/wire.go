package api

import (
	"fmt"
	"strconv"

	udpa "github.com/cncf/xds/go/udpa/type/v1"
	xds "github.com/cncf/xds/go/xds/type/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/jurat-tls/jurat/attest"
	"github.com/jurat-tls/jurat/xds/internal/bound"
)

// The two types that carry others.
const (
	TypeStruct     = prefix + "xds.type.v3.TypedStruct"
	TypeUDPAStruct = prefix + "udpa.type.v1.TypedStruct"
)

const (
	maxDepth    = 64      // messages within one another; Envoy's own are about half of it
	maxMessages = 100_000 // in one, which is a Struct of as many values; ours have a handful
)

type shape struct{ protoreflect.MessageDescriptor }

func (s shape) Message(field int32) bound.Shape {
	if f := s.Fields().ByNumber(protoreflect.FieldNumber(field)); f != nil && f.Message() != nil {
		return shape{f.Message()}
	}
	return nil
}

// Unwrap answers what a TypedStruct carries: the type, and the message as JSON (protobuf's mapping of it). wrapped is false
// for every other type, and typ is then the answer as it stands.
func Unwrap(typ string, value []byte) (inner string, json []byte, wrapped bool, err error) {
	var s interface {
		proto.Message
		GetTypeUrl() string
		GetValue() *structpb.Struct
	}
	switch typ {
	case TypeStruct:
		s = new(xds.TypedStruct)
	case TypeUDPAStruct:
		s = new(udpa.TypedStruct)
	default:
		return typ, nil, false, nil
	}
	if err := unmarshal(value, s); err != nil {
		return "", nil, true, err
	}
	switch s.GetTypeUrl() {
	case "":
		return "", nil, true, missing("type_url", "the type of the message")
	case TypeStruct, TypeUDPAStruct:
		return "", nil, true, bad("type_url", quote(s.GetTypeUrl()), "a message, and not one more wrapping of it")
	}
	v := s.GetValue()
	if v == nil {
		v = &structpb.Struct{}
	}
	json, err = v.MarshalJSON()
	if err != nil { // a value without a kind, or a number that JSON has no word for
		return "", nil, true, bad("value", err.Error(), "what JSON can say")
	}
	return s.GetTypeUrl(), json, true, nil
}

// decode reads a message of the type want into m.
func decode(typ string, value []byte, want string, m proto.Message) error {
	inner, json, wrapped, err := Unwrap(typ, value)
	switch {
	case err != nil:
		return err
	case inner != want:
		return bad("", "the type "+quote(inner), want)
	case !wrapped:
		return unmarshal(value, m)
	}
	// Unknown names and values are errors of its own.
	if err := (protojson.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(json, m); err != nil {
		return bad("value", fmt.Sprintf("%.200s", err), want)
	}
	return nil
}

// unmarshal reads a serialized message, of which every field has to be known.
func unmarshal(value []byte, m proto.Message) error {
	if len(value) > MaxMessage {
		return &attest.Error{Code: attest.CodeOversized, Check: check, Got: strconv.Itoa(len(value)) + " bytes", Want: fmt.Sprintf("at most %d", MaxMessage)}
	}
	n, err := bound.Messages(shape{m.ProtoReflect().Descriptor()}, value, maxMessages)
	switch {
	case err != nil:
		return bad("", err.Error(), string(m.ProtoReflect().Descriptor().FullName()))
	case n > maxMessages:
		return &attest.Error{Code: attest.CodeOversized, Check: check, Got: "messages within messages", Want: fmt.Sprintf("at most %d", maxMessages)}
	}
	if err := (proto.UnmarshalOptions{RecursionLimit: maxDepth}).Unmarshal(value, m); err != nil {
		return bad("", fmt.Sprintf("%.200s", err), string(m.ProtoReflect().Descriptor().FullName()))
	}
	return known(m.ProtoReflect(), "")
}

// known refuses fields that this build has no name for, anywhere in m.
func known(m protoreflect.Message, at string) (err error) {
	if len(m.GetUnknown()) > 0 {
		return &attest.Error{Code: attest.CodeConfigUnknownKey, Check: check, Subject: at, Got: "a field without a name here", Want: "the fields of " + string(m.Descriptor().FullName())}
	}
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		path := string(f.Name())
		if at != "" {
			path = at + "." + path
		}
		switch {
		case f.IsMap():
			if f.MapValue().Message() == nil {
				return true
			}
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				err = known(v.Message(), path)
				return err == nil
			})
		case f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = known(v.List().Get(i).Message(), path)
			}
		default:
			err = known(v.Message(), path)
		}
		return err == nil
	})
	return err
}
