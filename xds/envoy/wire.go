package envoy

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/jurat-tls/jurat/attest"
)

const (
	check    = "xds"
	maxDepth = 100 // messages within messages
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
