package envoy_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"

	xdstype "github.com/cncf/xds/go/xds/type/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	jurat "github.com/jurat-tls/jurat/xds/api/jurat/config/v1alpha1"
	"github.com/jurat-tls/jurat/xds/envoy"
	"github.com/jurat-tls/jurat/xds/resource"
)

// key is what must not be found in what is shown.
const (
	keyText = "c2VjcmV0LWtleS1ieXRlcw+/secret-key-bytes"
	keyPEM  = "-----BEGIN PRIVATE KEY-----\n" + keyText + "\n-----END PRIVATE KEY-----\n"
)

// traces are the encodings that the key could be found in.
func traces(s string) []string {
	raw := []byte(s)
	escaped, _ := json.Marshal(s)
	all := []string{s, hex.EncodeToString(raw), strings.ToUpper(hex.EncodeToString(raw)), strings.Trim(string(escaped), `"`)}
	for cut := range 3 { // whatever stands before it
		for _, enc := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
			text := enc.EncodeToString(raw[cut:])
			all = append(all, text[:len(text)-2])
		}
	}
	return all
}

func anyOf(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func resourceOf(t testing.TB, name string, m proto.Message) resource.Resource {
	t.Helper()
	a := anyOf(t, m)
	return resource.Resource{Type: a.GetTypeUrl(), Name: name, Version: "1", Body: a.GetValue()}
}

// socket is a transport socket that holds a key, wherever one can be.
func socket(t testing.TB, wrapped bool) *corev3.TransportSocket {
	inline := func(s string) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s}}
	}
	tls := &tlsv3.DownstreamTlsContext{
		CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{{
			CertificateChain: inline("kept-chain"), PrivateKey: inline(keyText), Password: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(keyText)}},
			PrivateKeyProvider: &tlsv3.PrivateKeyProvider{ProviderName: "kept-provider", ConfigType: &tlsv3.PrivateKeyProvider_TypedConfig{TypedConfig: anyOf(t, structpb.NewStringValue(keyText))}},
		}}},
		SessionTicketKeysType: &tlsv3.DownstreamTlsContext_SessionTicketKeys{SessionTicketKeys: &tlsv3.TlsSessionTicketKeys{Keys: []*corev3.DataSource{inline(keyText)}}},
	}
	a := anyOf(t, tls)
	if wrapped {
		text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(&tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificates: []*tlsv3.TlsCertificate{{
			CertificateChain: inline("kept-chain"), PrivateKey: inline(keyText),
		}}}})
		if err != nil {
			t.Fatal(err)
		}
		s := new(structpb.Struct)
		if err := s.UnmarshalJSON(text); err != nil {
			t.Fatal(err)
		}
		a = anyOf(t, &xdstype.TypedStruct{TypeUrl: a.GetTypeUrl(), Value: s})
	}
	return &corev3.TransportSocket{Name: "kept-socket", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: a}}
}

func header(name string) *corev3.HeaderValueOption {
	return &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: name, Value: keyText}}
}

func compared(name string, m *routev3.HeaderMatcher) *routev3.HeaderMatcher {
	m.Name = name
	return m
}

func exactly(s string) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}}}
}

func shownResources(t testing.TB) map[string]resource.Resource {
	unknown := &anypb.Any{TypeUrl: "type.googleapis.com/some.Extension", Value: []byte("\x0a\x2c" + keyText)}
	return map[string]resource.Resource{
		"a secret": resourceOf(t, "kept-name", &tlsv3.Secret{Name: "kept-name", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{
			CertificateChain: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte("kept")}},
			PrivateKey:       &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(keyPEM)}},
		}}}),
		"a generic secret": resourceOf(t, "kept-name", &tlsv3.Secret{Name: "kept-name", Type: &tlsv3.Secret_GenericSecret{GenericSecret: &tlsv3.GenericSecret{
			Secret:  &corev3.DataSource{Specifier: &corev3.DataSource_EnvironmentVariable{EnvironmentVariable: keyText}},
			Secrets: map[string]*corev3.DataSource{"kept": {Specifier: &corev3.DataSource_InlineString{InlineString: keyText}}},
		}}}),
		"ticket keys": resourceOf(t, "kept-name", &tlsv3.Secret{Name: "kept-name", Type: &tlsv3.Secret_SessionTicketKeys{SessionTicketKeys: &tlsv3.TlsSessionTicketKeys{
			Keys: []*corev3.DataSource{{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(keyText)}}},
		}}}),
		"a key in the wrong place": resourceOf(t, "kept-name", &tlsv3.Secret{Name: "kept-name", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			TrustedCa: &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: []byte(keyPEM)}},
		}}}),
		"a listener": resourceOf(t, "kept-name", &listenerv3.Listener{Name: "kept-name", FilterChains: []*listenerv3.FilterChain{{Name: "kept-chain", TransportSocket: socket(t, false)}}}),
		"a listener with a struct": resourceOf(t, "kept-name", &listenerv3.Listener{Name: "kept-name", FilterChains: []*listenerv3.FilterChain{
			{Name: "kept-chain", TransportSocket: socket(t, true)},
		}}),
		"an extension that nobody knows": resourceOf(t, "kept-name", &listenerv3.Listener{Name: "kept-name", FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{Name: "kept-filter", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: unknown}}},
		}}}),
		"one in a struct": resourceOf(t, "kept-name", &listenerv3.Listener{Name: "kept-name", FilterChains: []*listenerv3.FilterChain{{
			Filters: []*listenerv3.Filter{{Name: "kept-filter", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: anyOf(t, &xdstype.TypedStruct{
				TypeUrl: "type.googleapis.com/some.Extension", Value: &structpb.Struct{Fields: map[string]*structpb.Value{"a": structpb.NewStringValue(keyText)}},
			})}}},
		}}}),
		"headers": resourceOf(t, "kept-name", &routev3.RouteConfiguration{Name: "kept-name", RequestHeadersToAdd: []*corev3.HeaderValueOption{
			header("Authorization"), header("X-Api-Key"),
			{Header: &corev3.HeaderValue{Key: "X-Kept", Value: "kept-value"}},
			{Header: &corev3.HeaderValue{Key: "Cookie", RawValue: []byte(keyText)}},
		}}),
		"what headers are compared with": resourceOf(t, "kept-name", &routev3.RouteConfiguration{Name: "kept-name", VirtualHosts: []*routev3.VirtualHost{{Name: "kept-token", Routes: []*routev3.Route{{
			Name: "kept-secret", Match: &routev3.RouteMatch{
				PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"},
				Headers: []*routev3.HeaderMatcher{
					compared("X-Api-Key", exactly(keyText)), compared("X-Kept", exactly("kept-value")),
					//lint:ignore SA1019 it is taken as long as it is in the API
					compared("authorization", &routev3.HeaderMatcher{HeaderMatchSpecifier: &routev3.HeaderMatcher_ExactMatch{ExactMatch: keyText}}),
					//lint:ignore SA1019 it is taken as long as it is in the API
					compared("cookie", &routev3.HeaderMatcher{HeaderMatchSpecifier: &routev3.HeaderMatcher_SafeRegexMatch{SafeRegexMatch: &matcherv3.RegexMatcher{Regex: ".*" + keyText}}}),
				},
				QueryParameters: []*routev3.QueryParameterMatcher{{Name: "kept.token", QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: exactly(keyText).GetStringMatch()}}},
			},
		}}}}}),
		"metadata": resourceOf(t, "kept-name", &listenerv3.Listener{Name: "kept-name", Metadata: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{"kept": {Fields: map[string]*structpb.Value{
			"api_token": structpb.NewStringValue(keyText), "kept": structpb.NewStringValue("kept-value"), "list": structpb.NewListValue(&structpb.ListValue{Values: []*structpb.Value{structpb.NewStringValue(keyPEM)}}),
		}}}}}),
		"a policy": resourceOf(t, "kept-name", &jurat.AttestationPolicy{Name: "kept-name", Policy: "kept-text", Files: map[string][]byte{"pem": []byte(keyPEM)}}),
	}
}

func TestShowHides(t *testing.T) {
	for name, r := range shownResources(t) {
		t.Run(name, func(t *testing.T) {
			if !bytes.Contains(r.Body, []byte("secret-key-bytes")) {
				t.Fatal("there is nothing to hide")
			}
			before := bytes.Clone(r.Body)
			typ, body, err := envoy.NewScreen().Show(r)
			if err != nil {
				t.Fatal(err)
			}
			text, err := envoy.NewScreen().JSON(r)
			if err != nil {
				t.Fatal(err)
			}
			for _, trace := range traces(keyText) {
				if bytes.Contains(body, []byte(trace)) || bytes.Contains(text, []byte(trace)) {
					t.Errorf("%q is shown: %s", trace, text)
				}
			}
			for part := range strings.FieldsSeq(strings.Map(func(r rune) rune { // what is to stay
				if r == '-' || r >= 'a' && r <= 'z' {
					return r
				}
				return ' '
			}, string(before))) {
				if strings.HasPrefix(part, "kept") && !strings.Contains(string(text), part) && !strings.Contains(string(text), base64.StdEncoding.EncodeToString([]byte(part))) {
					t.Errorf("%s is not shown: %s", part, text)
				}
			}
			if !bytes.Equal(r.Body, before) {
				t.Error("the resource was changed")
			}
			// Whoever knows Envoy's API alone reads both, to the last field.
			a := new(anypb.Any)
			if err := (protojson.UnmarshalOptions{}).Unmarshal(text, a); err != nil || a.GetTypeUrl() != typ {
				t.Errorf("%s: %v", text, err)
			}
			m, err := (&anypb.Any{TypeUrl: typ, Value: body}).UnmarshalNew()
			if err != nil {
				t.Fatal(err)
			}
			if ours := strings.HasPrefix(string(m.ProtoReflect().Descriptor().FullName()), "jurat."); ours {
				t.Errorf("%s is known to nobody else", typ)
			}
			if again, err := a.UnmarshalNew(); err != nil || !proto.Equal(again, m) {
				t.Errorf("the two differ: %v\n%s", err, text)
			}
		})
	}
}

// What may be kept where anybody can read it has nothing in it that is hidden; extensions of which it is known that they do nothing are no
// reason not to.
func TestHides(t *testing.T) {
	s := envoy.NewScreen()
	for name, r := range shownResources(t) {
		if !s.Hides(r) {
			t.Errorf("%s hides nothing", name)
		}
	}
	garbage := resource.Resource{Type: resource.Cluster, Body: []byte{0xff}}
	newer := resourceOf(t, "a", &listenerv3.Listener{Name: "a"})
	newer.Body = append(newer.Body, []byte("\xca\x3e\x10secret-key-bytes")...)
	if !s.Hides(garbage) || !s.Hides(newer) {
		t.Error("what can't be read hides nothing")
	}
	files, err := filepath.Glob("testdata/recorded/*.json")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		hides := map[string]int{}
		for key, r := range recorded(t, file) {
			if s.Hides(r) {
				hides[key.Type]++
			}
		}
		if delete(hides, resource.Secret); len(hides) > 0 {
			t.Errorf("%s: %v", file, hides)
		}
	}
}

func TestShowRefuses(t *testing.T) {
	for name, r := range map[string]resource.Resource{
		"another type": {Type: "type.googleapis.com/google.protobuf.Struct", Body: nil},
		"garbage":      {Type: resource.Cluster, Body: []byte{0xff}},
		"too large":    {Type: resource.Cluster, Body: make([]byte, resource.MaxBody+1)},
	} {
		if _, body, err := envoy.NewScreen().Show(r); err == nil || body != nil {
			t.Errorf("%s: shown", name)
		}
		if _, err := envoy.NewScreen().JSON(r); err == nil {
			t.Errorf("%s: shown in JSON", name)
		}
	}
}

// What is known only to a newer API may be a secret.
func TestShowDropsUnknownFields(t *testing.T) {
	r := shownResources(t)["a listener"]
	r.Body = append(bytes.Clone(r.Body), []byte("\xca\x3e\x10secret-key-bytes")...) // field 1001
	_, body, err := envoy.NewScreen().Show(r)
	if err != nil || bytes.Contains(body, []byte("secret-key-bytes")) {
		t.Errorf("%v: %q", err, body)
	}
}

func FuzzShow(f *testing.F) {
	for _, r := range shownResources(f) {
		f.Add(r.Type, r.Body)
	}
	f.Fuzz(func(t *testing.T, typ string, body []byte) {
		r := resource.Resource{Type: typ, Name: "x", Body: body}
		shownType, shown, err := envoy.NewScreen().Show(r)
		if err != nil {
			return
		}
		if _, err := (&anypb.Any{TypeUrl: shownType, Value: shown}).UnmarshalNew(); err != nil {
			t.Errorf("what is shown can't be read: %v", err)
		}
		if text, err := envoy.NewScreen().JSON(r); err == nil && !json.Valid(text) {
			t.Errorf("no JSON: %s", text)
		}
	})
}
